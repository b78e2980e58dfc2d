//! The embedded store of Arrakis: the only crate that knows SQLite.
//!
//! One thread owns the one connection that writes. Calls that arrive while it commits wait together
//! and share its next transaction, so that many small writers pay for one `fsync`. Readers have
//! connections of their own; with the write-ahead log neither waits for the other.

mod config;
mod dead_letter;
mod error;
mod keys;
mod migrate;
mod pool;
mod read;
mod row;
mod schema;
mod write;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrakis_core::clock::Clock;
use arrakis_core::store::StoreError;

pub use config::SqliteConfig;

use pool::ReadPool;
use writer::Writer;

/// A database file as an `EventStore`. Several processes may open the same file.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    writer: Writer,
    readers: ReadPool,
}

impl SqliteStore {
    /// Opens the database at `path`, making or updating it where needed. Blocks for as long as that
    /// takes.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, is no database, is on a network file system, or is locked for longer
    /// than [`SqliteConfig::busy_timeout`].
    pub fn open(
        path: impl AsRef<Path>,
        clock: Arc<dyn Clock>,
        config: SqliteConfig,
    ) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        migrate::prepare_file(&path)?;
        let mut connection = pool::connect(&path, &config)?;
        migrate::run(&mut connection)?;
        let writer = Writer::start(connection, Arc::clone(&clock), &config);
        let readers = ReadPool::new(&path, &config)?;
        Ok(Self { path, clock, writer, readers })
    }

    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}
