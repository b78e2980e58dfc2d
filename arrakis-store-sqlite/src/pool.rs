//! The file, and the connections to it: one that writes, a few that read.

use std::fmt;
use std::sync::Arc;
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
use tokio::sync::Semaphore;

use crate::config::SqliteConfig;
use crate::error::{is_locked, store_error, unavailable};
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
    conn.batch_execute("PRAGMA wal_autocheckpoint = 4000")?; // pages of 4 KiB: few checkpoints, a small log
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
    /// A pool on `file`; connections open when they are needed.
    ///
    /// # Errors
    ///
    /// The pool cannot be built.
    pub(crate) fn new(file: &DatabaseFile, config: &SqliteConfig) -> Result<Self, StoreError> {
        let set_up = [
            busy_timeout(config),
            "PRAGMA temp_store = MEMORY".to_owned(),
            "PRAGMA query_only = ON".to_owned(),
        ];
        let mut manager = ManagerConfig::default();
        // A broken file shows in the next statement anyway; a test query would double a point read.
        manager.recycling_method = RecyclingMethod::Fast;
        manager.custom_setup = Box::new(move |url| {
            let (url, set_up) = (url.to_owned(), set_up.clone());
            Box::pin(async move { establish_reader(&url, &set_up).await })
        });
        let manager = AsyncDieselConnectionManager::new_with_config(file.url(), manager);
        let readers = config.readers.clamp(1, Semaphore::MAX_PERMITS);
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
        let place = Arc::clone(&self.places).acquire_owned();
        let Ok(Ok(place)) = tokio::time::timeout(self.queue_wait, place).await else {
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

    /// Closes the connections; whoever reads still finishes.
    pub(crate) fn close(&self) {
        self.pool.close();
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
