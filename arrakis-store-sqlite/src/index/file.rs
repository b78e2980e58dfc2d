//! The file of the search index: opening it, and the connections to it.
//!
//! The index is made from what the store holds, so it is a database of its own: its transactions never hold the
//! store's writer, and its file may be lost. What is missing, damaged, of another version or of another database is
//! made anew.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arrakis_core::record::store::StoreError;
use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{BigInt, Text};

use crate::config::SqliteConfig;
use crate::error::{TxError, is_data, is_locked, store_error, unavailable};
use crate::feed;
use crate::file::DatabaseFile;
use crate::pool::{self, Readers};
use crate::schema::{identity, index_backlog, index_position, index_state, webhook_events};

/// The version of the tables and of the words in them. An index of another version is made anew.
const VERSION: i64 = 2;

const TABLES: &str = include_str!("schema.sql");

/// What SQLite says of a file that is no sound database.
const DAMAGED: [&str; 2] = ["database disk image is malformed", "file is not a database"];

/// The index beside a store.
pub(crate) struct IndexFile {
    file: DatabaseFile,
    config: SqliteConfig,
    /// None after a failure that leaves it in doubt; the next transaction opens another.
    writer: Arc<Mutex<Option<SqliteConnection>>>,
    /// Reads the store and the index together.
    reader: Readers,
}

impl fmt::Debug for IndexFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexFile").field("path", &self.file.path()).finish_non_exhaustive()
    }
}

/// The state of the store that an index belongs to.
struct Origin {
    database_id: String,
    last_commit: i64,
    is_empty: bool,
}

impl IndexFile {
    /// Opens the index of the store in `store`, to which `conn` is open; makes it where it is missing or of no use.
    ///
    /// # Errors
    ///
    /// It cannot be created or opened.
    pub(crate) fn open(
        store: &DatabaseFile,
        conn: &mut SqliteConnection,
        config: &SqliteConfig,
    ) -> Result<Self, StoreError> {
        let path = path_of(store.path());
        let what = || format!("open the search index {}", path.display());
        let origin = Origin::of(conn).map_err(|error| store_error(&what(), error))?;
        let mut file = DatabaseFile::prepare(&path)?;
        let writer = match open_for(&file, &origin, config) {
            Err(error) if is_damaged(&error) => {
                tracing::warn!(path = %path.display(), %error, "the search index is damaged and is made anew");
                remove(&path).map_err(|error| unavailable(what(), error))?;
                file = DatabaseFile::prepare(&path)?;
                open_for(&file, &origin, config)
            }
            opened => opened,
        };
        let writer = writer.map_err(|error| unavailable(what(), error))?;
        let reader = Readers::beside_index(store, &file, config, 1)?;
        let writer = Arc::new(Mutex::new(Some(writer)));
        Ok(Self { file, config: config.clone(), writer, reader })
    }

    /// Its file.
    pub(crate) fn file(&self) -> &DatabaseFile {
        &self.file
    }

    /// Reads the store and the index in one transaction; `what` says what was tried.
    ///
    /// # Errors
    ///
    /// The connection stays busy, or one of the two cannot be read.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        what: &'static str,
        read: impl FnOnce(&mut SqliteConnection) -> QueryResult<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.reader.read(what, read).await
    }

    /// Runs `work` in one transaction on the index, beside everything else.
    ///
    /// # Errors
    ///
    /// Nothing of it is stored.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&mut SqliteConnection) -> QueryResult<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (file, config) = (self.file.clone(), self.config.clone());
        let writer = Arc::clone(&self.writer);
        let write = move || {
            file.check()?;
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            let mut conn = match writer.take() {
                Some(conn) => conn,
                None => connect(&file, &config).map_err(|error| unavailable(what, error))?,
            };
            let done = conn.immediate_transaction(work);
            if done.as_ref().err().is_none_or(|error| is_data(error) || is_locked(error)) {
                *writer = Some(conn);
            }
            done.map_err(|error| TxError::from(error).into_store(what))
        };
        tokio::task::spawn_blocking(write).await.map_err(|error| unavailable(what, error))?
    }

    /// Closes the connection that reads; whoever uses it still finishes.
    pub(crate) fn close(&self) {
        self.reader.close();
    }
}

/// Where the index of a store is.
fn path_of(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push("-search");
    PathBuf::from(name)
}

impl Origin {
    fn of(conn: &mut SqliteConnection) -> QueryResult<Self> {
        Ok(Self {
            database_id: identity::table.select(identity::id).first(conn)?,
            last_commit: feed::last_commit(conn)?,
            is_empty: webhook_events::table
                .select(webhook_events::id)
                .first::<String>(conn)
                .optional()?
                .is_none(),
        })
    }
}

fn open_for(
    file: &DatabaseFile,
    origin: &Origin,
    config: &SqliteConfig,
) -> Result<SqliteConnection, diesel::result::Error> {
    let mut conn = connect(file, config)?;
    conn.immediate_transaction(|conn| {
        if !belongs_to(conn, origin)? {
            drop_tables(conn)?;
            create_tables(conn, origin)?;
        }
        Ok(())
    })
    .map(|()| conn)
}

fn connect(
    file: &DatabaseFile,
    config: &SqliteConfig,
) -> Result<SqliteConnection, diesel::result::Error> {
    let mut conn = SqliteConnection::establish(file.url())
        .map_err(|error| diesel::result::Error::QueryBuilderError(Box::new(error)))?;
    pool::set_up_index(&mut conn, config)?;
    Ok(conn)
}

/// Whether these are the tables of this version, for this store: one that was replaced by an older copy has commits
/// before those that the index knows.
fn belongs_to(conn: &mut SqliteConnection, origin: &Origin) -> QueryResult<bool> {
    let version = sql::<BigInt>("(SELECT user_version FROM pragma_user_version)");
    if diesel::select(version).get_result::<i64>(conn)? != VERSION {
        return Ok(false);
    }
    let owner = index_state::table.select(index_state::database_id).first::<String>(conn)?;
    let furthest = index_position::table.select(diesel::dsl::max(index_position::commit_id));
    let furthest = furthest.get_result::<Option<i64>>(conn)?.unwrap_or(0);
    Ok(owner == origin.database_id && furthest <= origin.last_commit.saturating_add(1))
}

/// Drops whatever tables there are. Full text tables come first, for others of theirs go with them.
fn drop_tables(conn: &mut SqliteConnection) -> QueryResult<()> {
    for kind in ["sql LIKE 'CREATE VIRTUAL%'", "name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"] {
        let names = format!("name FROM sqlite_schema WHERE type = 'table' AND {kind}");
        let names: Vec<String> = diesel::select(sql::<Text>(&names)).load(conn)?;
        for name in names {
            conn.batch_execute(&format!("DROP TABLE \"{}\"", name.replace('"', "\"\"")))?;
        }
    }
    Ok(())
}

/// Makes the tables of an index in which nothing is searchable yet.
fn create_tables(conn: &mut SqliteConnection, origin: &Origin) -> QueryResult<()> {
    conn.batch_execute(TABLES)?;
    diesel::insert_into(index_state::table)
        .values((
            index_state::only_row.eq(1),
            index_state::database_id.eq(&origin.database_id),
            index_state::from_commit.eq(origin.last_commit.saturating_add(1)),
            index_state::writes.eq(0),
        ))
        .execute(conn)?;
    if !origin.is_empty {
        for table in ["messages", "tool_uses", "webhook_events"] {
            diesel::insert_into(index_backlog::table)
                .values((index_backlog::table_name.eq(table), index_backlog::after_id.eq("")))
                .execute(conn)?;
        }
    }
    conn.batch_execute(&format!("PRAGMA user_version = {VERSION}"))
}

fn is_damaged(error: &diesel::result::Error) -> bool {
    let text = error.to_string();
    DAMAGED.iter().any(|damage| text.contains(damage))
}

/// Removes an index with its log.
fn remove(path: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match fs::remove_file(PathBuf::from(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Makes the tables of an index in the database of a test.
#[cfg(test)]
pub(crate) fn create_in(conn: &mut SqliteConnection) {
    let origin = Origin::of(conn).unwrap();
    create_tables(conn, &origin).unwrap();
}
