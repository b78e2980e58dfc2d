//! Connections: the one that writes, and the pool of those that read.

use std::path::Path;

use arrakis_core::store::StoreError;
use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use diesel_async::AsyncConnection;
use diesel_async::SimpleAsyncConnection;
use diesel_async::pooled_connection::deadpool::{Object, Pool};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;

use crate::config::SqliteConfig;

pub(crate) type ReadConnection = SyncConnectionWrapper<SqliteConnection>;

/// Opens a connection that may write: a commit is on the disk when it returns.
pub(crate) fn connect(path: &Path, config: &SqliteConfig) -> Result<SqliteConnection, StoreError> {
    let what = || format!("open {}", path.display());
    let mut connection = SqliteConnection::establish(&path.to_string_lossy())
        .map_err(|error| StoreError::Unavailable { what: what(), source: error.into() })?;
    let pragmas = format!(
        "PRAGMA busy_timeout={};
         PRAGMA journal_mode=WAL;
         PRAGMA synchronous=FULL;
         PRAGMA journal_size_limit=67108864;
         PRAGMA cache_size=-16384;
         PRAGMA temp_store=MEMORY;",
        config.busy_timeout.as_millis()
    );
    connection
        .batch_execute(&pragmas)
        .map_err(|error| StoreError::Unavailable { what: what(), source: error.into() })?;
    Ok(connection)
}

/// Connections that only read.
pub(crate) struct ReadPool(Pool<ReadConnection>);

impl std::fmt::Debug for ReadPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadPool").finish_non_exhaustive()
    }
}

impl ReadPool {
    pub(crate) fn new(path: &Path, config: &SqliteConfig) -> Result<Self, StoreError> {
        let pragmas = format!(
            "PRAGMA busy_timeout={}; PRAGMA query_only=ON; PRAGMA cache_size=-8192;",
            config.busy_timeout.as_millis()
        );
        let mut manager = ManagerConfig::<ReadConnection>::default();
        manager.custom_setup = Box::new(move |url| {
            let (url, pragmas) = (url.to_owned(), pragmas.clone());
            Box::pin(async move {
                let mut connection = ReadConnection::establish(&url).await?;
                connection
                    .batch_execute(&pragmas)
                    .await
                    .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
                Ok(connection)
            })
        });
        let manager =
            AsyncDieselConnectionManager::new_with_config(path.to_string_lossy(), manager);
        let pool = Pool::builder(manager).max_size(config.readers).build().map_err(|error| {
            StoreError::Unavailable {
                what: "make the pool of readers".to_owned(),
                source: error.into(),
            }
        })?;
        Ok(Self(pool))
    }

    pub(crate) async fn get(&self) -> Result<Object<ReadConnection>, StoreError> {
        self.0.get().await.map_err(|error| StoreError::Unavailable {
            what: "get a connection for reading".to_owned(),
            source: error.into(),
        })
    }
}
