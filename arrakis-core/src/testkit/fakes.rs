//! Fakes that the suites and the tests of this workspace share.

use tokio::time::Instant;

use crate::clock::{Clock, Timestamp};

/// A wall clock that follows tokio's: in a test with paused time it stands still while there is work,
/// and jumps to the next timer when there is none.
#[derive(Debug)]
pub struct TokioClock {
    origin: Instant,
    start: Timestamp,
}

impl TokioClock {
    /// A clock that shows `start` now.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self { origin: Instant::now(), start }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.start.plus(self.origin.elapsed())
    }
}
