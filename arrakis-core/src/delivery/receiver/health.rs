//! What is known about receivers, in the form that is shown and kept over a restart.

use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::conservation::{self, LastError};
use crate::base::error::root_cause;
use crate::base::limits::cut;
use crate::delivery::transport::TransportError;

/// What is kept of the text of an error, in bytes: a sentence or two.
const MESSAGE_MAX_BYTES: usize = 500;

/// What is known about the receivers, to be shown, or kept over a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BreakerSnapshot {
    /// Every receiver that was tried, in the order of their destinations.
    pub receivers: Vec<ReceiverHealth>,
}

/// How one receiver is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiverHealth {
    /// Its URL, as envelopes name it.
    pub destination: String,
    /// Whether attempts may leave.
    pub state: BreakerState,
    /// Since when the circuit is closed; else since when it is not.
    pub since: Timestamp,
    /// Failures since the last success.
    pub failures_in_a_row: u32,
    /// Attempts of the last 30 s that were let through a closed circuit.
    pub recent_attempts: u32,
    /// Those of them that failed.
    pub recent_failures: u32,
    /// When the next attempt may leave; `None` where any may.
    pub next_probe: Option<Timestamp>,
    /// The latest failure of any kind since the last success; with the code `misconfigured` the
    /// queue is held until the configuration is corrected.
    pub last_failure: Option<LastFailure>,
}

impl From<ReceiverHealth> for conservation::Receiver {
    fn from(health: ReceiverHealth) -> Self {
        let ReceiverHealth { destination, state, last_failure, .. } = health;
        let last_failure =
            last_failure.map(|LastFailure { at, message, .. }| LastError { at, message });
        Self { destination, state: state.as_str().to_owned(), last_failure }
    }
}

/// Whether attempts may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// All of them.
    Closed,
    /// None, but for a probe from time to time.
    Open,
    /// A few, to see whether the receiver is healthy again.
    HalfOpen,
}

impl BreakerState {
    /// The name, as it is written and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What went wrong last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastFailure {
    /// When.
    pub at: Timestamp,
    /// A stable word such as `unreachable`.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

impl LastFailure {
    pub(super) fn new(at: Timestamp, error: &TransportError) -> Self {
        let mut message = error.to_string();
        if let Some(cause) = root_cause(error) {
            message = format!("{message}: {cause}");
        }
        let message = cut(&message, MESSAGE_MAX_BYTES).to_owned();
        Self { at, code: error.code().to_owned(), message }
    }

    /// Whether `other` says the same, at whatever time.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.code == other.code && self.message == other.message
    }
}
