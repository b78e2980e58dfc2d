//! A throw-away Postgres for tests and benches, made from the server binaries that the machine has. Nothing that is
//! shipped depends on this crate.
//!
//! [`Database::create`] gives a new, empty database. The first call in a process starts a server of its
//! own in a temporary folder, which ends and is deleted when the process does, however it ends. With
//! `ARRAKIS_TEST_DATABASE_URL` set, databases are made in that server instead, without TLS, and deleted when they
//! are dropped.
//!
//! ```no_run
//! # async fn example() {
//! let database = arrakis_test_cluster::Database::create().await;
//! database.run_sql("CREATE TABLE one (id bigint)").await;
//! # }
//! ```

#![allow(clippy::disallowed_methods, reason = "a real server is waited for")]

mod cluster;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};

pub use cluster::{Cluster, ClusterError};

/// Names the server in which tests make their databases, instead of one of their own.
pub const URL_VARIABLE: &str = "ARRAKIS_TEST_DATABASE_URL";

/// A new database; it stays until its server ends, or, in a server that was given, until the last clone
/// of this is dropped.
#[derive(Debug, Clone)]
pub struct Database(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    admin_url: String,
    name: String,
    url: String,
    /// Whether its server goes on when the tests have ended.
    is_guest: bool,
}

impl Database {
    /// Makes an empty database in this process's server.
    ///
    /// # Panics
    ///
    /// There is no server and none can be started; the message says what to install.
    pub async fn create() -> Self {
        match std::env::var(URL_VARIABLE) {
            Ok(url) => Self::make(&url, true).await,
            Err(_) => match Cluster::shared() {
                Ok(cluster) => Self::create_in(&cluster.url("postgres")).await,
                Err(error) => panic!("{error}"),
            },
        }
    }

    /// Makes an empty database in the server of `admin_url`.
    ///
    /// # Panics
    ///
    /// The server cannot be reached, or refuses.
    pub async fn create_in(admin_url: &str) -> Self {
        Self::make(admin_url, false).await
    }

    async fn make(admin_url: &str, is_guest: bool) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let moment = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_micros());
        let name = format!("arrakis_test_{}_{count}_{moment}", std::process::id());
        execute(admin_url, &format!("CREATE DATABASE {name}")).await;
        let url = with_database(admin_url, &name);
        Self(Arc::new(Inner { admin_url: admin_url.to_owned(), name, url, is_guest }))
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// A plain connection to it.
    ///
    /// # Panics
    ///
    /// The server cannot be reached.
    pub async fn connect(&self) -> AsyncPgConnection {
        connect(&self.0.url).await
    }

    /// Runs SQL in it.
    ///
    /// # Panics
    ///
    /// The SQL fails.
    pub async fn run_sql(&self, sql: &str) {
        execute(&self.0.url, sql).await;
    }
}

/// Deletes the database of a server that was given, and closes whatever connections it has.
impl Drop for Inner {
    fn drop(&mut self) {
        if !self.is_guest {
            return;
        }
        let sql = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        let url = self.admin_url.clone();
        // Whoever drops this may be in a runtime, which cannot be waited in.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(execute(&url, &sql)))
        });
        // What cannot be deleted is the server's owner's; the test has had its result.
        dropping.join().ok();
    }
}

async fn connect(url: &str) -> AsyncPgConnection {
    let conn = AsyncPgConnection::establish(url).await;
    conn.unwrap_or_else(|error| panic!("cannot connect to {url}: {error}"))
}

async fn execute(url: &str, sql: &str) {
    let mut conn = connect(url).await;
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
    use super::{Cluster, Database, with_database};

    #[tokio::test]
    async fn a_guest_leaves_nothing_behind() {
        let admin_url = match std::env::var(super::URL_VARIABLE) {
            Ok(url) => url,
            Err(_) => Cluster::shared().unwrap().url("postgres"),
        };
        let database = Database::make(&admin_url, true).await;
        let _connected = database.connect().await;
        let name = database.0.name.clone();
        drop(database.clone());
        database.run_sql("SELECT 1").await;
        drop(database);
        let gone = format!(
            "DO $$ BEGIN ASSERT NOT EXISTS \
             (SELECT FROM pg_database WHERE datname = '{name}'); END $$"
        );
        super::execute(&admin_url, &gone).await;
    }

    #[test]
    fn a_url_gets_another_database() {
        assert_eq!(with_database("postgres://u@h:5/a?x=/y", "b"), "postgres://u@h:5/b?x=/y");
        assert_eq!(with_database("postgres://u@h", "b"), "postgres://u@h/b");
    }
}
