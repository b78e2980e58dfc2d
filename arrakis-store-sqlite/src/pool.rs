//! The file, and the connections to it: one that writes, a few that read, and a few that search.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrakis_core::record::store::StoreError;
use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::result::QueryResult;
use diesel::sql_types::BigInt;
use diesel::{Connection, ConnectionError, ConnectionResult, RunQueryDsl, SqliteConnection};
use diesel_async::AsyncConnection;
use diesel_async::pooled_connection::deadpool::Pool;
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::SqliteConfig;
use crate::error::{TxError, is_locked, store_error, unavailable};
use crate::file::DatabaseFile;
use crate::migrate;

/// Opens the file for writing, and brings it to this version's schema.
///
/// # Errors
///
/// SQLite cannot open it, or a migration fails.
pub(crate) fn open_writer(
    file: &DatabaseFile,
    config: &SqliteConfig,
) -> Result<SqliteConnection, StoreError> {
    let what = || format!("open database {}", file.path().display());
    let mut conn =
        SqliteConnection::establish(file.url()).map_err(|error| unavailable(what(), error))?;
    set_up_writer(&mut conn, config).map_err(|error| store_error(&what(), error))?;
    migrate::run(&mut conn, config.migrate).map_err(|source| unavailable(what(), source))?;
    Ok(conn)
}

fn set_up_writer(conn: &mut SqliteConnection, config: &SqliteConfig) -> QueryResult<()> {
    conn.batch_execute(&busy_timeout(config))?;
    until_free(config.busy_timeout, || give_space_back_later(conn))?;
    until_free(config.busy_timeout, || enter_wal(conn))?;
    conn.batch_execute("PRAGMA synchronous = FULL")?; // a commit is on the disk before it is answered
    conn.batch_execute("PRAGMA foreign_keys = ON")?;
    conn.batch_execute("PRAGMA temp_store = MEMORY")?;
    conn.batch_execute("PRAGMA cache_size = -16384")?; // KiB: the inner pages of every index
    // Pages of 4 KiB, where the thread for checkpoints does not keep up.
    conn.batch_execute("PRAGMA wal_autocheckpoint = 16000")?;
    conn.batch_execute(&format!("PRAGMA journal_size_limit = {}", config.journal_size_limit_bytes))
}

/// Opens the file to copy its log.
///
/// # Errors
///
/// SQLite cannot open it.
pub(crate) fn open_checkpointer(
    file: &DatabaseFile,
    config: &SqliteConfig,
) -> Result<SqliteConnection, StoreError> {
    let what = || format!("open database {}", file.path().display());
    let mut conn =
        SqliteConnection::establish(file.url()).map_err(|error| unavailable(what(), error))?;
    conn.batch_execute(&busy_timeout(config)).map_err(|error| store_error(&what(), error))?;
    Ok(conn)
}

/// Sets up a connection that writes the search index. What a crash takes from it is made again, so it never waits for
/// the disk but to copy its log.
///
/// # Errors
///
/// The file is no database, or another process holds it.
pub(crate) fn set_up_index(conn: &mut SqliteConnection, config: &SqliteConfig) -> QueryResult<()> {
    conn.batch_execute(&busy_timeout(config))?;
    until_free(config.busy_timeout, || give_space_back_later(conn))?;
    until_free(config.busy_timeout, || enter_wal(conn))?;
    conn.batch_execute("PRAGMA synchronous = NORMAL")?;
    conn.batch_execute("PRAGMA temp_store = MEMORY")?;
    conn.batch_execute(&format!("PRAGMA journal_size_limit = {}", config.journal_size_limit_bytes))
}

/// Has a new database keep account of what stands where, so that free pages can be given back. That is decided
/// before its first page is written, and stays so in the file.
fn give_space_back_later(conn: &mut SqliteConnection) -> QueryResult<()> {
    let pages = sql::<BigInt>("(SELECT page_count FROM pragma_page_count)");
    if diesel::select(pages).get_result::<i64>(conn)? == 0 {
        conn.batch_execute("PRAGMA auto_vacuum = INCREMENTAL")?;
    }
    Ok(())
}

/// Turns the write-ahead log on, which stays on in the file.
fn enter_wal(conn: &mut SqliteConnection) -> QueryResult<()> {
    diesel::sql_query("PRAGMA journal_mode = WAL").execute(conn).map(|_| ())
}

/// Does what needs the file alone: SQLite may refuse it without waiting when two processes try at once.
#[allow(clippy::disallowed_methods, reason = "connections are opened on blocking threads")]
fn until_free(timeout: Duration, mut set_up: impl FnMut() -> QueryResult<()>) -> QueryResult<()> {
    let began = Instant::now();
    loop {
        match set_up() {
            Err(error) if is_locked(&error) && began.elapsed() < timeout => {
                std::thread::sleep(RETRY_DELAY);
            }
            done => return done,
        }
    }
}

/// Between two tries to set a file up: long against the switch itself, short against a start.
const RETRY_DELAY: Duration = Duration::from_millis(10);

fn busy_timeout(config: &SqliteConfig) -> String {
    format!("PRAGMA busy_timeout = {}", config.busy_timeout.as_millis())
}

/// A few connections that only read.
pub(crate) struct Readers {
    pool: Pool<SyncConnectionWrapper<SqliteConnection>>,
    /// One for each connection: waiting happens here, where it can be given up safely.
    places: Arc<Semaphore>,
    queue_wait: Duration,
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").field("pool", &self.pool.status()).finish_non_exhaustive()
    }
}

impl Readers {
    /// A pool of `readers` connections to `file`, which open when they are needed.
    ///
    /// # Errors
    ///
    /// The pool cannot be built.
    pub(crate) fn new(
        file: &DatabaseFile,
        config: &SqliteConfig,
        readers: usize,
    ) -> Result<Self, StoreError> {
        Self::with(file, None, config, readers)
    }

    /// The same, whose statements see the tables of the search index too.
    ///
    /// # Errors
    ///
    /// The pool cannot be built.
    pub(crate) fn beside_index(
        file: &DatabaseFile,
        index: &DatabaseFile,
        config: &SqliteConfig,
        readers: usize,
    ) -> Result<Self, StoreError> {
        Self::with(file, Some(index), config, readers)
    }

    fn with(
        file: &DatabaseFile,
        index: Option<&DatabaseFile>,
        config: &SqliteConfig,
        readers: usize,
    ) -> Result<Self, StoreError> {
        let mut set_up = vec![busy_timeout(config), "PRAGMA temp_store = MEMORY".to_owned()];
        set_up.extend(index.map(|index| {
            format!("ATTACH DATABASE '{}' AS search_index", index.url().replace('\'', "''"))
        }));
        set_up.push("PRAGMA query_only = ON".to_owned());
        let mut manager = ManagerConfig::default();
        // A broken file shows in the next statement anyway; a test query would double a point read.
        manager.recycling_method = RecyclingMethod::Fast;
        manager.custom_setup = Box::new(move |url| {
            let (url, set_up) = (url.to_owned(), set_up.clone());
            Box::pin(async move { establish_reader(&url, &set_up).await })
        });
        let manager = AsyncDieselConnectionManager::new_with_config(file.url(), manager);
        let readers = readers.clamp(1, Semaphore::MAX_PERMITS);
        let pool = Pool::builder(manager)
            .max_size(readers)
            .build()
            .map_err(|error| unavailable("build the pool of readers", error))?;
        Ok(Self { pool, places: Arc::new(Semaphore::new(readers)), queue_wait: config.queue_wait })
    }

    /// Runs `read` in one transaction of its own, so that its statements see one state.
    ///
    /// # Errors
    ///
    /// Every reader stays busy, or the database cannot be read; `what` says what was tried.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        what: &'static str,
        read: impl FnOnce(&mut SqliteConnection) -> QueryResult<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Some(place) = self.place().await else {
            return Err(unavailable(what, "every connection that reads is busy"));
        };
        let pool = self.pool.clone();
        // A task of its own, because the caller may go away at any time: dropping a statement under way
        // would block the thread until it is done, and panic on a runtime that has only one.
        let reading = tokio::spawn(async move {
            let _place = place;
            let mut conn = pool.get().await.map_err(|error| unavailable(what, error))?;
            let read = conn.spawn_blocking(move |conn| conn.transaction(read));
            read.await.map_err(|error| store_error(what, error))
        });
        reading.await.map_err(|error| unavailable(what, error))?
    }

    /// A place for one transaction; `None` if all of them stay taken.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.places).acquire_owned();
        tokio::time::timeout(self.queue_wait, place).await.ok()?.ok()
    }

    /// Closes the connections; whoever reads still finishes.
    pub(crate) fn close(&self) {
        self.pool.close();
    }
}

/// The connections that search. They are their own, so that nothing else waits for a search.
#[derive(Debug)]
pub(crate) struct Searchers {
    readers: Readers,
    size: usize,
    limit: Duration,
}

impl Searchers {
    /// A pool on a store and its search index; connections open when they are needed.
    ///
    /// # Errors
    ///
    /// The pool cannot be built.
    pub(crate) fn new(
        file: &DatabaseFile,
        index: &DatabaseFile,
        config: &SqliteConfig,
    ) -> Result<Self, StoreError> {
        let size = config.searchers.max(1);
        let readers = Readers::beside_index(file, index, config, size)?;
        Ok(Self { readers, size, limit: config.search_timeout })
    }

    /// Runs `search` in one transaction of its own. A search that takes too long, or whose caller has gone, is
    /// told so by its [`Stop`].
    ///
    /// # Errors
    ///
    /// As many searches run as there are connections, this one takes too long, or the database cannot be read.
    pub(crate) async fn search<T: Send + 'static>(
        &self,
        what: &'static str,
        search: impl FnOnce(&mut SqliteConnection, &Stop) -> Result<T, TxError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Some(place) = self.readers.place().await else {
            return Err(StoreError::SearchesBusy { running: self.size });
        };
        let pool = self.readers.pool.clone();
        // A timer would give a search that has no time a millisecond.
        let is_set = Arc::new(AtomicBool::new(self.limit.is_zero()));
        let stop = Stop { is_set, limit: self.limit };
        // However this future ends, the search does too.
        let stops = StopOnDrop(stop.clone());
        let mut searching = tokio::spawn(async move {
            let _place = place;
            let mut conn = pool.get().await.map_err(|error| unavailable(what, error))?;
            let found =
                conn.spawn_blocking(move |conn| Ok(conn.transaction(|conn| search(conn, &stop))));
            let found = found.await.map_err(|error| store_error(what, error))?;
            found.map_err(|error: TxError| error.into_store(what))
        });
        let mut found = tokio::time::timeout(self.limit, &mut searching).await;
        if found.is_err() {
            drop(stops);
            found = tokio::time::timeout(ENDING, &mut searching).await;
        }
        match found {
            Ok(found) => found.map_err(|error| unavailable(what, error))?,
            Err(_) => Err(StoreError::SearchTimeout { limit: self.limit }),
        }
    }

    /// Closes the connections; whoever searches still finishes.
    pub(crate) fn close(&self) {
        self.readers.close();
    }
}

/// How long a search that is told to end is waited for: it may have found something, and reads one more text at
/// most.
const ENDING: Duration = Duration::from_secs(1);

/// Tells a search to end. SQLite runs in this process, and no safe interface interrupts a statement. So each
/// statement of a search is short, and the search asks between two of them.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    is_set: Arc<AtomicBool>,
    limit: Duration,
}

impl Stop {
    /// Ends the search if it is to end.
    ///
    /// # Errors
    ///
    /// It is.
    pub(crate) fn check(&self) -> Result<(), TxError> {
        if self.is_set.load(Ordering::Relaxed) {
            return Err(TxError::Refused(StoreError::SearchTimeout { limit: self.limit }));
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn new(is_set: bool) -> Self {
        Self { is_set: Arc::new(AtomicBool::new(is_set)), limit: Duration::ZERO }
    }
}

struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.is_set.store(true, Ordering::Relaxed);
    }
}

async fn establish_reader(
    url: &str,
    set_up: &[String],
) -> ConnectionResult<SyncConnectionWrapper<SqliteConnection>> {
    let mut conn = SyncConnectionWrapper::establish(url).await?;
    let set_up = set_up.to_vec();
    conn.spawn_blocking(move |conn: &mut SqliteConnection| {
        set_up.iter().try_for_each(|pragma| conn.batch_execute(pragma))
    })
    .await
    .map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::index::IndexFile;

    #[tokio::test]
    async fn one_search_too_many_is_told_so_and_nothing_else_waits() {
        let directory = tempfile::tempdir().unwrap();
        let file = DatabaseFile::prepare(&directory.path().join("a.db")).unwrap();
        let config =
            SqliteConfig { searchers: 1, queue_wait: Duration::ZERO, ..Default::default() };
        let mut writer = open_writer(&file, &config).unwrap();
        let index = IndexFile::open(&file, &mut writer, &config).unwrap();
        let readers = Readers::new(&file, &config, 1).unwrap();
        let searchers = Arc::new(Searchers::new(&file, index.file(), &config).unwrap());
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (open, gate) = mpsc::channel::<()>();
        let first = tokio::spawn({
            let searchers = Arc::clone(&searchers);
            async move {
                let search = move |_: &mut SqliteConnection, stop: &Stop| {
                    begun.send(stop.clone()).unwrap();
                    gate.recv().ok();
                    stop.check()
                };
                searchers.search("search", search).await
            }
        });
        let stop = has_begun.await.unwrap();
        let second = searchers.search("search", |_, _| Ok(())).await.unwrap_err();
        assert!(matches!(second, StoreError::SearchesBusy { running: 1 }), "{second:?}");
        readers.read("read", |_| Ok(())).await.unwrap();
        // Whoever goes away ends the search, which keeps its place until then.
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        assert!(stop.check().is_err());
        let third = searchers.search("search", |_, _| Ok(())).await.unwrap_err();
        assert!(matches!(third, StoreError::SearchesBusy { .. }), "{third:?}");
        drop(open);
        while searchers.search("search", |_, _| Ok(())).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
}
