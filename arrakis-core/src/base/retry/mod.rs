//! When to try again: [`RetryPolicy`] and its two implementations.

mod schedule;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::{Rng, RngExt};

pub use schedule::{FixedRetry, RetrySchedule};

use crate::base::error::Retryable;

/// Says whether and when to try again.
///
/// # Behavior
///
/// * Pure and synchronous: the same arguments give the same decision.
/// * `attempt` counts what has been tried so far, from 1.
/// * A failure that is not retryable gives [`Decision::GiveUp`], unless the policy is about something
///   else than the failure's own attempt, such as rounds.
/// * A delay that the other side asked for is never undercut, as far as it is honoured: see
///   [`RETRY_AFTER_MAX`](crate::base::limits::RETRY_AFTER_MAX).
pub trait RetryPolicy: fmt::Debug + Send + Sync + 'static {
    /// Decides after the failure of try number `attempt`.
    fn next(&self, attempt: NonZeroU32, failure: &dyn Retryable) -> Decision;
}

/// What a [`RetryPolicy`] decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Try again after this long, and not before.
    RetryAfter(Duration),
    /// Do not try again.
    GiveUp,
}

/// Spreads those who failed together, so that they do not return together.
#[derive(Clone)]
pub struct Jitter(Arc<Mutex<dyn Rng + Send>>);

impl Jitter {
    /// Takes its randomness from `rng`.
    pub fn new(rng: impl Rng + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(rng)))
    }

    /// `delay` and up to half of it more; never less, as it may be one that the other side named.
    #[must_use]
    pub fn apply(&self, delay: Duration) -> Duration {
        let mut rng = self.0.lock();
        delay + delay.mul_f64(rng.random_range(0.0..0.5))
    }

    /// One of `count` things, each as likely as the others; 0 where there are none.
    #[must_use]
    pub fn pick(&self, count: usize) -> usize {
        let mut rng = self.0.lock();
        rng.random_range(0..count.max(1))
    }
}

impl fmt::Debug for Jitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jitter").finish_non_exhaustive()
    }
}

const _: Option<&dyn RetryPolicy> = None; // object safe

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn nth(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    /// An error of some transport.
    #[derive(Debug, thiserror::Error)]
    #[error("no")]
    struct Error {
        is_retryable: bool,
        retry_after: Option<Duration>,
    }

    impl Retryable for Error {
        fn is_retryable(&self) -> bool {
            self.is_retryable
        }

        fn retry_after(&self) -> Option<Duration> {
            self.retry_after
        }
    }

    fn unavailable(retry_after: Option<u64>) -> Error {
        Error { is_retryable: true, retry_after: retry_after.map(Duration::from_secs) }
    }

    #[test]
    fn a_round_is_three_attempts_one_second_apart() {
        let policy = FixedRetry::default();
        let second = Decision::RetryAfter(Duration::from_secs(1));
        let decisions = [1, 2, 3].map(|n| policy.next(nth(n), &unavailable(None)));
        assert_eq!(decisions, [second, second, Decision::GiveUp]);
    }

    #[test]
    fn a_round_ends_at_once_where_trying_again_is_no_use() {
        let refused = Error { is_retryable: false, retry_after: None };
        assert_eq!(FixedRetry::default().next(nth(1), &refused), Decision::GiveUp);
    }

    #[test]
    fn a_round_waits_as_asked_but_not_for_long() {
        let policy = FixedRetry::default();
        let asked = |seconds| policy.next(nth(1), &unavailable(Some(seconds)));
        assert_eq!(asked(0), Decision::RetryAfter(Duration::from_secs(1)));
        assert_eq!(asked(3), Decision::RetryAfter(Duration::from_secs(3)));
        assert_eq!(asked(60), Decision::GiveUp);
    }

    #[test]
    fn rounds_follow_the_schedule_and_end() {
        let schedule = RetrySchedule::default();
        let minutes = [1, 5, 15, 60, 120];
        for (lost, minutes) in (1..).zip(minutes) {
            let delay = Duration::from_secs(minutes * 60);
            assert_eq!(schedule.next(nth(lost), &unavailable(None)), Decision::RetryAfter(delay));
        }
        assert_eq!(schedule.next(nth(6), &unavailable(None)), Decision::GiveUp);
        assert_eq!(schedule.delay_after(nth(1000)), Duration::from_secs(7200));
    }

    #[test]
    fn a_round_that_was_asked_for_later_comes_later_but_within_an_hour() {
        let schedule = RetrySchedule::default();
        let asked = |seconds| schedule.next(nth(1), &unavailable(Some(seconds)));
        assert_eq!(asked(90), Decision::RetryAfter(Duration::from_secs(90)));
        assert_eq!(asked(90_000), Decision::RetryAfter(Duration::from_secs(3600)));
    }

    #[test]
    fn jitter_adds_up_to_half_and_takes_nothing() {
        let jitter = Jitter::new(StdRng::seed_from_u64(7));
        let delay = Duration::from_secs(10);
        let delays: Vec<_> = (0..1000).map(|_| jitter.apply(delay)).collect();
        assert!(delays.iter().all(|d| (delay..delay.mul_f64(1.5)).contains(d)));
        assert!(delays.iter().any(|d| *d > delay.mul_f64(1.4)));
    }
}
