//! The connections that do everything but record events, and transactions.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::record::store::StoreError;
use diesel::result::QueryResult;
use diesel_async::pooled_connection::deadpool::{Object, Pool};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
};
use diesel_async::{
    AnsiTransactionManager, AsyncPgConnection, SimpleAsyncConnection, TransactionManager,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::PgConfig;
use crate::connect::Connector;
use crate::error::{TxError, is_read_only, unavailable};

/// What is done in a transaction.
pub(crate) type Work<'c, T> = BoxFuture<'c, Result<T, TxError>>;

/// How a transaction that only reads begins: all of its statements see one state.
const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// How a transaction that writes begins. Whether it may is the database's to say: it is made to only read
/// by hand, or by its host when its disk is almost full.
pub(crate) const WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// Why a transaction was given up.
const SLOW: &str = "the database took too long to answer";

/// Why there was no connection in time: they are all in use, or opening one takes too long.
const BUSY: &str = "no connection to the database is free";

/// A few connections, for one transaction at a time each. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Connections {
    pool: Pool<AsyncPgConnection>,
    size: usize,
    queue_wait: Duration,
    limit: Duration,
    /// One for each search, where it is searches that the connections are for.
    searches: Option<Arc<Semaphore>>,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("pool", &self.pool.status()).finish_non_exhaustive()
    }
}

impl Connections {
    /// A pool; connections open when they are needed.
    ///
    /// # Errors
    ///
    /// The pool cannot be built.
    pub(crate) fn new(connector: &Connector, config: &PgConfig) -> Result<Self, StoreError> {
        Self::of(connector, config, config.pool.max(1))
    }

    /// The connections of searches. They are their own, so that nothing else waits for a search. One that takes
    /// too long is ended here; the server ends its statement a little later.
    ///
    /// # Errors
    ///
    /// The pool cannot be built.
    pub(crate) fn for_searches(url: &str, config: &PgConfig) -> Result<Self, StoreError> {
        let limit = config.search_timeout;
        let statement_timeout = limit.saturating_add(Duration::from_secs(1));
        let config = PgConfig { statement_timeout, transaction_timeout: limit, ..config.clone() };
        let size = config.searchers.max(1);
        let connections = Self::of(&Connector::new(url, &config)?, &config, size)?;
        Ok(Self { searches: Some(Arc::new(Semaphore::new(size))), ..connections })
    }

    fn of(connector: &Connector, config: &PgConfig, size: usize) -> Result<Self, StoreError> {
        let connector = connector.clone();
        let mut manager = ManagerConfig::default();
        // Whether a connection still works shows when its transaction begins.
        manager.recycling_method = RecyclingMethod::Fast;
        manager.custom_setup = Box::new(move |_| {
            let connector = connector.clone();
            async move { connector.connect().await }.boxed()
        });
        let manager = AsyncDieselConnectionManager::new_with_config("", manager);
        let pool = Pool::builder(manager)
            .max_size(size)
            .build()
            .map_err(|error| unavailable("build the pool of connections", error))?;
        Ok(Self {
            pool,
            size,
            queue_wait: config.queue_wait,
            limit: config.transaction_timeout,
            searches: None,
        })
    }

    /// Reads in one transaction.
    ///
    /// # Errors
    ///
    /// Every connection stays busy, or the database cannot be read; `what` says what was tried.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl for<'c> Fn(&'c mut AsyncPgConnection) -> Work<'c, T> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        self.run(what, READ, work).await
    }

    /// Writes in one transaction.
    ///
    /// # Errors
    ///
    /// Nothing of it is stored, or whether it is cannot be known because the connection was lost.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl for<'c> Fn(&'c mut AsyncPgConnection) -> Work<'c, T> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        self.run(what, WRITE, work).await
    }

    async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        begin: &'static str,
        work: impl for<'c> Fn(&'c mut AsyncPgConnection) -> Work<'c, T> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        let place = self.place().await?;
        let connections = self.clone();
        // A task of its own, because the caller may go away at any time, and a connection with half a
        // transaction is of no use to the next.
        let working = tokio::spawn(async move {
            let _place = place;
            loop {
                let mut conn = connections.begun(what, begin).await?;
                let is_reused = Object::metrics(&conn).recycle_count > 0;
                let done = tokio::time::timeout(connections.limit, tried(&mut conn, begin, &work));
                match done.await {
                    Ok(Err(TxError::Db(error))) if is_read_only(&error) => {
                        // The database may take writes again, but sessions that are older would not.
                        drop(Object::take(conn));
                        connections.pool.retain(|_, _| false);
                        if !is_reused {
                            return Err(unavailable(what, error));
                        }
                    }
                    Ok(done) => return done.map_err(|error| error.into_store(what)),
                    Err(_) => {
                        drop(Object::take(conn));
                        return Err(connections.slow(what));
                    }
                }
            }
        });
        working.await.map_err(|error| unavailable(what, error))?
    }

    /// A place for one more search, where the connections are for searches.
    async fn place(&self) -> Result<Option<OwnedSemaphorePermit>, StoreError> {
        let Some(searches) = &self.searches else { return Ok(None) };
        if self.limit.is_zero() {
            // A timer would give it a millisecond.
            return Err(StoreError::SearchTimeout { limit: self.limit });
        }
        let place = tokio::time::timeout(self.queue_wait, Arc::clone(searches).acquire_owned());
        match place.await {
            Ok(Ok(place)) => Ok(Some(place)),
            _ => Err(StoreError::SearchesBusy { running: self.size }),
        }
    }

    /// The error for a transaction that was given up.
    fn slow(&self, what: &'static str) -> StoreError {
        match self.searches {
            Some(_) => StoreError::SearchTimeout { limit: self.limit },
            None => unavailable(what, SLOW),
        }
    }

    /// A connection on which a transaction has begun. Those that the server has closed meanwhile are
    /// given up for new ones.
    async fn begun(
        &self,
        what: &'static str,
        begin: &'static str,
    ) -> Result<Object<AsyncPgConnection>, StoreError> {
        let mut closed = 0;
        loop {
            let conn = tokio::time::timeout(self.queue_wait, self.pool.get()).await;
            let conn = conn.map_err(|_| unavailable(what, BUSY))?;
            let mut conn = conn.map_err(|error| unavailable(what, error))?;
            let begun = tokio::time::timeout(self.limit, begin_with(&mut conn, begin)).await;
            if let Ok(Ok(())) = begun {
                return Ok(conn);
            }
            drop(Object::take(conn));
            let error = begun.map_err(|_| self.slow(what))?;
            closed += 1;
            if let Err(error) = error
                && closed > self.size
            {
                return Err(unavailable(what, error));
            }
        }
    }
}

/// How often a transaction that others got in the way of is tried again at once.
pub(crate) const TRIES: u32 = 5;

/// Does the work of a transaction that has begun, and ends it; where others got in the way, again.
async fn tried<T>(
    conn: &mut AsyncPgConnection,
    begin: &str,
    work: &impl for<'c> Fn(&'c mut AsyncPgConnection) -> Work<'c, T>,
) -> Result<T, TxError> {
    let mut tries = 1;
    loop {
        let done = work(conn).await;
        match end(conn, done).await {
            Err(error) if error.is_raced() && tries < TRIES => tries += 1,
            done => return done,
        }
        begin_with(conn, begin).await?;
    }
}

/// Begins a transaction as `begin` says.
async fn begin_with(conn: &mut AsyncPgConnection, begin: &str) -> QueryResult<()> {
    AnsiTransactionManager::begin_transaction_sql(conn, begin).await
}

/// Ends a transaction of the pool: keeps it where its work was done, else undoes it.
async fn end<T>(conn: &mut AsyncPgConnection, done: Result<T, TxError>) -> Result<T, TxError> {
    match done {
        Ok(value) => {
            AnsiTransactionManager::commit_transaction(conn).await?;
            Ok(value)
        }
        Err(error) => {
            // What went wrong before matters more than that undoing it failed too.
            AnsiTransactionManager::rollback_transaction(conn).await.ok();
            Err(error)
        }
    }
}

/// Begins a part of a transaction that can be undone by itself. Parts do not stand in each other.
pub(crate) async fn begin_part(conn: &AsyncPgConnection) -> QueryResult<()> {
    (&mut &*conn).batch_execute("SAVEPOINT part").await
}

/// Undoes a part.
pub(crate) async fn undo_part(conn: &AsyncPgConnection) -> QueryResult<()> {
    (&mut &*conn).batch_execute("ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part").await
}

/// Ends a part: keeps it where its work was done, else undoes it.
///
/// # Errors
///
/// What the work says, or that it cannot be kept.
pub(crate) async fn end_part<T>(
    conn: &AsyncPgConnection,
    done: Result<T, TxError>,
) -> Result<T, TxError> {
    match done {
        Ok(value) => {
            (&mut &*conn).batch_execute("RELEASE SAVEPOINT part").await?;
            Ok(value)
        }
        Err(error) => {
            undo_part(conn).await.ok();
            Err(error)
        }
    }
}
