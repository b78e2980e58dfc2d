//! Whether an attempt may be repeated.
//!
//! Within 10 s a receiver gets one repeat for every five first attempts, and ten more. So a busy receiver that
//! becomes unhealthy gets at most 1.2 times the attempts that it gets anyway, and a lone event still has all of
//! its own.

use std::time::Duration;

use tower::retry::budget::TpsBudget;

/// The time over which a budget is counted.
const WINDOW: Duration = Duration::from_secs(10);

/// How many repeats a first attempt pays for.
const SHARE: f32 = 0.2;

/// How many repeats a second are free: what one event needs that fails while nothing else is sent.
const RESERVE_PER_SECOND: u32 = 1;

pub(super) fn new() -> TpsBudget {
    TpsBudget::new(WINDOW, RESERVE_PER_SECOND, SHARE)
}
