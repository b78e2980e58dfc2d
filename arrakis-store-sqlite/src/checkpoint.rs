//! Copying the write-ahead log into the file, beside the writer.
//!
//! SQLite does it in the commit that fills the log, and all calls wait for that one: 16 MiB are copied and synced. So
//! a thread with a connection of its own copies first, while commits go on, and once more what came meanwhile. What
//! is left is little, and the writer copies it itself: only with nothing left does SQLite begin the log anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread::{self, JoinHandle};

use arrakis_core::record::store::StoreError;
use diesel::SqliteConnection;
use diesel::connection::SimpleConnection;
use diesel::result::QueryResult;

use crate::config::SqliteConfig;
use crate::error::unavailable;
use crate::file::DatabaseFile;
use crate::pool;

/// After how many events the log is copied. An event writes four to six pages of 4 KiB, and a page that several wrote
/// is copied once: the more, the fewer, and the longer the log.
const EVENTS: usize = 2000;

/// What a transaction counts besides its events.
const TRANSACTION: usize = 4;

/// The thread, from the writer's side. Dropping it waits for the thread.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    begin: Option<SyncSender<()>>,
    is_copied: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    events: usize,
}

impl Checkpointer {
    /// Starts the thread, which opens its connection when there is something to copy.
    ///
    /// # Errors
    ///
    /// The system gives no thread.
    pub(crate) fn start(file: DatabaseFile, config: SqliteConfig) -> Result<Self, StoreError> {
        // One place: who finds it taken knows that the thread will run.
        let (begin, begun) = mpsc::sync_channel(1);
        let is_copied = Arc::new(AtomicBool::new(false));
        let copied = Arc::clone(&is_copied);
        let run = move || {
            let mut conn = None;
            while begun.recv().is_ok() {
                conn = match copy(conn, &file, &config) {
                    Ok(conn) => Some(conn),
                    Err(error) => {
                        // The writer copies by itself when the log is longer.
                        tracing::debug!(%error, "cannot copy the write-ahead log");
                        None
                    }
                };
                copied.store(true, Ordering::Relaxed);
            }
        };
        let thread = thread::Builder::new()
            .name("sqlite-checkpoint".to_owned())
            .spawn(run)
            .map_err(|error| unavailable("start the thread for checkpoints", error))?;
        Ok(Self { begin: Some(begin), is_copied, thread: Some(thread), events: 0 })
    }

    /// Hears of a transaction on the writer's connection, and copies what is left where the thread has done its part.
    pub(crate) fn committed(&mut self, conn: &mut SqliteConnection, events: usize) {
        if self.is_copied.swap(false, Ordering::Relaxed)
            && let Err(error) = checkpoint(conn)
        {
            tracing::debug!(%error, "cannot copy the rest of the write-ahead log");
        }
        self.events += events + TRANSACTION;
        if self.events >= EVENTS
            && let Some(begin) = &self.begin
        {
            self.events = 0;
            if let Err(TrySendError::Disconnected(())) = begin.try_send(()) {
                tracing::debug!("the thread for checkpoints has ended");
            }
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.begin = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to finish.
            let _ = thread.join();
        }
    }
}

fn copy(
    conn: Option<SqliteConnection>,
    file: &DatabaseFile,
    config: &SqliteConfig,
) -> Result<SqliteConnection, StoreError> {
    let mut conn = conn.map_or_else(|| pool::open_checkpointer(file, config), Ok)?;
    for _ in 0..2 {
        checkpoint(&mut conn).map_err(|error| unavailable("copy the write-ahead log", error))?;
    }
    Ok(conn)
}

/// Copies as much as is possible without waiting for anybody.
fn checkpoint(conn: &mut SqliteConnection) -> QueryResult<()> {
    conn.batch_execute("PRAGMA wal_checkpoint(PASSIVE)")
}
