//! The eight states of an audit row, and which may follow which.
//!
//! ```text
//!             record ──► SUCCESS  DUPLICATE  INVALID  ERROR
//!
//!   PENDING ──claim──► PROCESSING ──► SUCCESS
//!      ▲                   │  └─────► ERROR ──► PENDING_RETRY ──claim──► PROCESSING
//!      │      rescue       │            └─────► FAILED
//!      ├───────────────────┘
//!      └── redrive ── ERROR, FAILED, INVALID
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The state of an audit row in `webhook_events`. Its text form is the name in upper case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EventStatus {
    /// Accepted, not applied yet.
    Pending,
    /// Claimed by a worker.
    Processing,
    /// Applied.
    Success,
    /// A repeat of a request id; points at the first.
    Duplicate,
    /// Failed validation; kept.
    Invalid,
    /// Failed unexpectedly.
    Error,
    /// Waits for its next try.
    PendingRetry,
    /// Out of retries.
    Failed,
}

impl EventStatus {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Processing,
        Self::Success,
        Self::Duplicate,
        Self::Invalid,
        Self::Error,
        Self::PendingRetry,
        Self::Failed,
    ];

    /// The name in upper case, as it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Processing => "PROCESSING",
            Self::Success => "SUCCESS",
            Self::Duplicate => "DUPLICATE",
            Self::Invalid => "INVALID",
            Self::Error => "ERROR",
            Self::PendingRetry => "PENDING_RETRY",
            Self::Failed => "FAILED",
        }
    }

    /// Whether nothing more happens to a row in this state, unless a person asks for it.
    #[must_use]
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Success | Self::Duplicate | Self::Invalid | Self::Failed)
    }

    /// Whether a row in this state may be brought into the state `next`.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        use EventStatus::{Error, Failed, Invalid, Pending, PendingRetry, Processing, Success};
        matches!(
            (self, next),
            (Pending | PendingRetry, Processing)
                | (Processing, Success | Error | Pending | Invalid)
                | (Error, PendingRetry | Failed | Pending)
                | (Failed | Invalid, Pending)
        )
    }
}

impl fmt::Display for EventStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not one of the eight states")]
pub struct UnknownStatus(String);

impl FromStr for EventStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownStatus(crate::base::limits::cut(text, 32).to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for status in EventStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
    }

    #[test]
    fn what_is_stored_for_good_stays() {
        for next in EventStatus::ALL {
            assert!(!EventStatus::Success.may_become(next));
            assert!(!EventStatus::Duplicate.may_become(next));
        }
        assert!(!EventStatus::Pending.may_become(EventStatus::Success));
        assert!(EventStatus::Failed.may_become(EventStatus::Pending));
    }
}
