//! When to try again: [`RetryPolicy`] and its two implementations.

mod schedule;

use std::num::NonZeroU32;
use std::time::Duration;

use rand::{Rng, RngExt};

pub use schedule::{FixedRetry, RetrySchedule};

use crate::error::Retryable;

/// Says whether and when to try again.
///
/// # Behavior
///
/// * Pure and synchronous: the same arguments give the same decision.
/// * `attempt` counts what has been tried so far, from 1.
/// * A failure that is not retryable gives [`Decision::GiveUp`], unless the policy is about something
///   else than the failure's own attempt, such as rounds.
/// * A delay that the other side asked for is never undercut.
pub trait RetryPolicy: std::fmt::Debug + Send + Sync + 'static {
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

/// `delay` and up to half of it more, so that many who failed together do not return together.
/// Never less than `delay`: it may be one that the other side named.
pub fn jittered(delay: Duration, rng: &mut dyn Rng) -> Duration {
    delay + delay.mul_f64(rng.random_range(0.0..0.5))
}

const _: Option<&dyn RetryPolicy> = None; // object safe
