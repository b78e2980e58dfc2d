//! A throw-away Postgres for tests and benches, made from the server binaries that the machine has.
//!
//! [`Database::create`] gives a new, empty database. The first call in a process starts a server of its
//! own in a temporary folder, which ends and is deleted when the process does, however it ends. With
//! `ARRAKIS_TEST_DATABASE_URL` set, databases are made in that server instead.
//!
//! ```no_run
//! # async fn example() {
//! let database = arrakis_store_pg::testkit::Database::create().await;
//! arrakis_store_pg::migrate(database.url()).await.expect("an empty database can be migrated");
//! # }
//! ```

mod cluster;

use std::sync::atomic::{AtomicU32, Ordering};

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};

use crate::config::PgConfig;
use crate::connect::Connector;

pub use cluster::{Cluster, ClusterError};

/// Names the server in which tests make their databases, instead of one of their own.
pub const URL_VARIABLE: &str = "ARRAKIS_TEST_DATABASE_URL";

/// A new database; it stays until its server ends, or, in a server that was given, until it is dropped by
/// [`Database::drop_now`].
#[derive(Debug, Clone)]
pub struct Database {
    admin_url: String,
    name: String,
    url: String,
}

impl Database {
    /// Makes an empty database in this process's server.
    ///
    /// # Panics
    ///
    /// There is no server and none can be started; the message says what to install.
    pub async fn create() -> Self {
        let admin_url = match std::env::var(URL_VARIABLE) {
            Ok(url) => url,
            Err(_) => match Cluster::shared() {
                Ok(cluster) => cluster.url("postgres"),
                Err(error) => panic!("{error}"),
            },
        };
        Self::create_in(&admin_url).await
    }

    /// Makes an empty database in the server of `admin_url`.
    ///
    /// # Panics
    ///
    /// The server cannot be reached, or refuses.
    pub async fn create_in(admin_url: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let moment = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_micros());
        let name = format!("arrakis_test_{}_{count}_{moment}", std::process::id());
        execute(admin_url, &format!("CREATE DATABASE {name}")).await;
        let url = with_database(admin_url, &name);
        Self { admin_url: admin_url.to_owned(), name, url }
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A plain connection to it.
    ///
    /// # Panics
    ///
    /// The server cannot be reached.
    pub async fn connect(&self) -> AsyncPgConnection {
        let connector = Connector::new(&self.url, &PgConfig::default());
        let connector = connector.unwrap_or_else(|error| panic!("{error}"));
        connector.connect().await.unwrap_or_else(|error| panic!("cannot connect: {error}"))
    }

    /// Runs SQL in it.
    ///
    /// # Panics
    ///
    /// The SQL fails.
    pub async fn run_sql(&self, sql: &str) {
        execute(&self.url, sql).await;
    }

    /// Deletes it, and closes whatever connections it has.
    ///
    /// # Panics
    ///
    /// The server refuses.
    pub async fn drop_now(self) {
        execute(&self.admin_url, &format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
    }
}

async fn execute(url: &str, sql: &str) {
    let connector = Connector::new(url, &PgConfig::default());
    let connector = connector.unwrap_or_else(|error| panic!("{error}"));
    let conn = connector.connect().await;
    let mut conn = conn.unwrap_or_else(|error| panic!("cannot connect to {url}: {error}"));
    conn.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// The URL with another database in its path.
fn with_database(url: &str, name: &str) -> String {
    let (base, query) =
        url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    let start = base.find("://").map_or(0, |at| at + 3);
    let end = base[start..].find('/').map_or(base.len(), |at| start + at);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}/{name}{query}", &base[..end])
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn a_url_gets_another_database() {
        assert_eq!(with_database("postgres://u@h:5/a?x=/y", "b"), "postgres://u@h:5/b?x=/y");
        assert_eq!(with_database("postgres://u@h", "b"), "postgres://u@h/b");
    }
}
