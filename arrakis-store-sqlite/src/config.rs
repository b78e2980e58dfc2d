//! How a [`SqliteStore`](crate::SqliteStore) behaves, with defaults that need no change.

use std::time::Duration;

use arrakis_core::base::limits::SEARCH_TIMEOUT;

/// The settings of a [`SqliteStore`](crate::SqliteStore).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteConfig {
    /// How long a statement waits for another process that holds the database, before the call fails
    /// as unavailable.
    pub busy_timeout: Duration,
    /// How many connections read at the same time.
    pub readers: usize,
    /// How many searches run at the same time, on connections of their own.
    pub searchers: usize,
    /// How long a search may take before it is ended.
    pub search_timeout: Duration,
    /// How many calls may wait for the writer.
    pub queue_calls: usize,
    /// How long a call waits for a place among those, or for a connection that reads, before it fails as
    /// unavailable.
    pub queue_wait: Duration,
    /// How many events one transaction takes at most, unless a single call brings more.
    pub group_events: usize,
    /// How many body bytes one transaction takes at most, unless a single call brings more.
    pub group_bytes: usize,
    /// To what size the write-ahead log is cut back after a checkpoint, in bytes.
    pub journal_size_limit_bytes: u64,
    /// Whether a database of an earlier version is brought to this version's schema when it is opened.
    /// Without it, it is refused: a server of that version may have it open.
    pub migrate: bool,
}

impl Default for SqliteConfig {
    fn default() -> Self {
        Self {
            // Longer than any transaction of another process here, shorter than a client waits.
            busy_timeout: Duration::from_secs(5),
            // Readers are for people and their dashboards; each holds a page cache.
            readers: 4,
            // A search keeps a processor busy, and a person's machine has other work.
            searchers: 2,
            search_timeout: SEARCH_TIMEOUT,
            // At one event a call this is two full groups: more would only wait longer.
            queue_calls: 1024,
            queue_wait: Duration::from_secs(1),
            // Past this the commit's own cost no longer matters, only the latency it adds.
            group_events: 512,
            group_bytes: 16 * 1024 * 1024,
            journal_size_limit_bytes: 64 * 1024 * 1024,
            migrate: true,
        }
    }
}
