//! Storing events exactly once: [`EventStore`], [`EventReader`] and [`KeyStore`].

pub mod adapter;
mod archive;
mod browser_sessions;
mod dead_letters;
mod feed;
mod keys;
mod list;
mod memory;
mod read;
mod retention;
mod rollups;
mod search;
mod spools;
mod usage_totals;
mod write;

pub use archive::{Archive, ArrivalFilter, page_length};
pub use browser_sessions::{BrowserSession, BrowserSessions, MemoryBrowserSessions};
pub use dead_letters::{StoredDeadLetters, WorkspaceDeadLetters};
pub use feed::{FeedCursor, FeedPage};
pub use keys::KeyStore;
pub use list::{
    ConversationCursor, ConversationFilter, ConversationPage, EventFilter, EventPage,
    InvalidConversationCursor, Page, directory,
};
pub use memory::MemoryStore;
pub use read::{
    ConversationDetail, ConversationSummary, EventDetail, EventKey, EventReader, EventSummary,
    Transition,
};
pub use retention::{Prunable, PrunePosition, PruneStep, Pruned, Retention};
pub use rollups::{
    EventGroups, EventSum, EventSums, OTHER, RollupStep, Rollups, USAGE_BUCKET, UsageGroups,
    UsageSum, UsageSums,
};
pub use search::{
    HitKind, InvalidSearchCursor, SearchCursor, SearchFilter, SearchHit, SearchPage,
    SearchPageBuilder,
};
pub use spools::{HeardSpool, MemorySpoolReports, SpoolReports, hour_of};
pub use usage_totals::{UsageTotal, UsageTotals, fold_all, read_usage};
pub use write::{
    Admission, AdmissionKind, Claim, EventStore, FIRST_RETRY_DELAY, ID_CONFLICT, Verdict,
};

pub use crate::record::arrival::{Arrival, Capture, EventMetadata};
pub use crate::record::retention::{Ages, Cutoff, Cutoffs, PruneKind, RetentionPolicy, first_id};

use crate::base::dead_letter::DeadLetterError;
use crate::base::error::{BoxError, Retryable};
use crate::record::audit::EventStatus;

/// The workspace of everything that names no other.
pub const DEFAULT_WORKSPACE: &str = "main";

/// A store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database is away, locked, full or shutting down: the same call may succeed later.
    #[error("the store is not available: {what}")]
    Unavailable {
        /// What was tried.
        what: String,
        /// What went wrong.
        source: BoxError,
    },
    /// The database refused what it was given.
    #[error("the store refused: {what}")]
    Data {
        /// What was tried.
        what: String,
        /// What went wrong.
        source: BoxError,
    },
    /// As many searches run as the store takes: the same search may succeed in a moment.
    #[error("{running} searches run already: try again in a moment")]
    SearchesBusy {
        /// How many run.
        running: usize,
    },
    /// The search was ended because it took too long. The same search would take as long again.
    #[error(
        "the search took longer than {limit:?} and was ended: add a rarer word, or narrow it by time, session or project"
    )]
    SearchTimeout {
        /// How long a search may take.
        limit: std::time::Duration,
    },
    /// There is no such row.
    #[error("there is no {0}")]
    NotFound(String),
    /// The change of state is not one that may happen.
    #[error("an event in state {from} cannot become {to}")]
    IllegalTransition {
        /// The row's state.
        from: EventStatus,
        /// The state asked for.
        to: EventStatus,
    },
}

impl From<StoreError> for DeadLetterError {
    fn from(error: StoreError) -> Self {
        Self { action: "reach the dead letters".to_owned(), source: Box::new(error) }
    }
}

impl Retryable for StoreError {
    fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::SearchesBusy { .. })
    }
}
