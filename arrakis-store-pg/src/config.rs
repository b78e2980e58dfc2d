//! How a [`PgStore`](crate::PgStore) behaves, with defaults that need no change.

use std::time::Duration;

use arrakis_core::base::limits::SEARCH_TIMEOUT;

/// The settings of a [`PgStore`](crate::PgStore).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgConfig {
    /// How long opening a connection may take.
    pub connect_timeout: Duration,
    /// How long one statement may take, in the server (`statement_timeout`).
    pub statement_timeout: Duration,
    /// How long a statement waits for somebody else's lock, in the server (`lock_timeout`).
    pub lock_timeout: Duration,
    /// How long a transaction may wait for its next statement, in the server
    /// (`idle_in_transaction_session_timeout`): the locks of a client that hangs are freed after this.
    pub idle_in_transaction_timeout: Duration,
    /// How long a whole transaction may take, measured here: a server that hangs answers nothing at all.
    pub transaction_timeout: Duration,
    /// How many connections record events, each with a transaction of its own under way. Where there are several, the
    /// first is for single small events.
    pub writers: usize,
    /// How many connections do everything else.
    pub pool: usize,
    /// How many searches run at the same time, on connections of their own.
    pub searchers: usize,
    /// How long a search may take before it is ended.
    pub search_timeout: Duration,
    /// How many calls may wait for a writer.
    pub queue_calls: usize,
    /// How long a call waits for a place among those, or for a connection of the pool, before it fails
    /// as unavailable.
    pub queue_wait: Duration,
    /// How many events one transaction takes at most, unless a single call brings more.
    pub group_events: usize,
    /// How many body bytes one transaction takes at most, unless a single call brings more.
    pub group_bytes: usize,
}

impl Default for PgConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            // Far longer than any statement here needs, shorter than a client waits.
            statement_timeout: Duration::from_secs(10),
            lock_timeout: Duration::from_secs(5),
            idle_in_transaction_timeout: Duration::from_secs(10),
            transaction_timeout: Duration::from_secs(15),
            // One for small events, and two for batches and large ones: while the commit of one is on its way to the
            // disk, the other's statements run.
            writers: 3,
            // Readers are for people and their dashboards, and keys are remembered for a moment.
            pool: 8,
            // A search keeps a processor of the database busy, which several servers may share.
            searchers: 4,
            search_timeout: SEARCH_TIMEOUT,
            // At one event a call this is two full groups: more would only wait longer.
            queue_calls: 1024,
            queue_wait: Duration::from_secs(1),
            // Past this the commit's own cost no longer matters, only the latency it adds.
            group_events: 512,
            group_bytes: 16 * 1024 * 1024,
        }
    }
}
