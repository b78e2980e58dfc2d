//! The two policies of delivery: within a round, and between rounds.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{Decision, RetryPolicy};
use crate::base::error::Retryable;
use crate::base::limits::RETRY_AFTER_MAX;

/// A number of attempts with the same delay between them: the policy within a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedRetry {
    /// How many attempts in all.
    pub attempts: NonZeroU32,
    /// The time between two.
    pub delay: Duration,
}

impl FixedRetry {
    /// Longest wait within a round. Whoever asks for more gives the round back to the queue.
    const WAIT_MAX: Duration = Duration::from_secs(5);
}

impl Default for FixedRetry {
    /// Three attempts, one second apart.
    fn default() -> Self {
        Self { attempts: NonZeroU32::MIN.saturating_add(2), delay: Duration::from_secs(1) }
    }
}

impl RetryPolicy for FixedRetry {
    fn next(&self, attempt: NonZeroU32, failure: &dyn Retryable) -> Decision {
        let delay = failure.retry_after().map_or(self.delay, |asked| asked.max(self.delay));
        let too_long = failure.retry_after().is_some() && delay > Self::WAIT_MAX;
        if attempt >= self.attempts || !failure.is_retryable() || too_long {
            Decision::GiveUp
        } else {
            Decision::RetryAfter(delay)
        }
    }
}

/// A list of delays, one after each round: the policy between rounds.
///
/// It gives up when the list is at its end. Whether the failure is retryable does not count: a
/// receiver that refuses today may be fixed tomorrow, and what it refused is still wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySchedule {
    delays: Vec<Duration>,
}

impl RetrySchedule {
    /// A schedule of these delays.
    #[must_use]
    pub fn new(delays: Vec<Duration>) -> Self {
        Self { delays }
    }

    /// The delay after `rounds` rounds were lost, from 1; the last one repeats. For a receiver that
    /// is away, which is waited for however long it takes.
    #[must_use]
    pub fn delay_after(&self, rounds: NonZeroU32) -> Duration {
        let index = usize::try_from(rounds.get() - 1).unwrap_or(usize::MAX);
        let last = self.delays.last().copied().unwrap_or_default();
        self.delays.get(index).copied().unwrap_or(last)
    }
}

impl Default for RetrySchedule {
    /// 1 m, 5 m, 15 m, 1 h, 2 h.
    fn default() -> Self {
        Self::new([1, 5, 15, 60, 120].map(|minutes| Duration::from_secs(minutes * 60)).to_vec())
    }
}

impl RetryPolicy for RetrySchedule {
    fn next(&self, attempt: NonZeroU32, failure: &dyn Retryable) -> Decision {
        // The first round comes at once and each delay is followed by one more.
        if usize::try_from(attempt.get()).is_ok_and(|lost| lost <= self.delays.len()) {
            let asked = failure.retry_after().unwrap_or_default().min(RETRY_AFTER_MAX);
            Decision::RetryAfter(self.delay_after(attempt).max(asked))
        } else {
            Decision::GiveUp
        }
    }
}
