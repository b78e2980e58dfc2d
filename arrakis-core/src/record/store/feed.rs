//! Following: what was committed, behind a cursor that skips nothing.

use serde::{Deserialize, Serialize};

use super::EventSummary;

/// A position among the commits of a store: everything before it was seen. Only the store that gave it
/// can read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FeedCursor(pub String);

/// A part of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedPage {
    /// Audit rows that were stored or changed their state, as they are now.
    pub events: Vec<EventSummary>,
    /// Where to go on.
    pub cursor: FeedCursor,
    /// Whether there was more than was asked for.
    pub more: bool,
}
