//! The settings of the store.

use std::time::Duration;

/// The settings of a [`SqliteStore`](crate::SqliteStore).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqliteConfig {
    /// How long a write waits for another process's transaction before it is given up as
    /// `Unavailable`.
    pub busy_timeout: Duration,
    /// Connections for reading.
    pub readers: usize,
    /// Most calls that wait for the writer; more are `Unavailable` at once.
    pub waiting_writes: usize,
}

impl Default for SqliteConfig {
    fn default() -> Self {
        Self { busy_timeout: Duration::from_secs(5), readers: 4, waiting_writes: 4096 }
    }
}
