//! Bringing a database to this version's schema.

use arrakis_core::base::error::BoxError;
use arrakis_core::record::store::StoreError;
use diesel::migration::{MigrationSource, MigrationVersion};
use diesel::pg::Pg;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::config::PgConfig;
use crate::connect::Connector;
use crate::error::unavailable;
use crate::rollups::fold;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

/// The advisory lock that whoever migrates holds: the letters of `arrakis` as a number.
pub(crate) const LOCK: i64 = 0x0061_7272_616b_6973;

/// Positions from another server, as a restored dump has them, mean nothing here: commits of its future
/// would be shown for ever, and the search index would wait for them. What they add to the counts is added before.
const FORGET_FOREIGN_POSITIONS: &str = "\
    DELETE FROM commits WHERE xid >= pg_snapshot_xmax(pg_current_snapshot());
    UPDATE search_position SET position = pg_current_snapshot()::text
    WHERE pg_snapshot_xmax(split_part(position, '/', 1)::pg_snapshot)
        > pg_snapshot_xmax(pg_current_snapshot());
    UPDATE rollup_position SET position = pg_current_snapshot()::text
    WHERE pg_snapshot_xmax(split_part(position, '/', 1)::pg_snapshot)
        > pg_snapshot_xmax(pg_current_snapshot());";

/// Brings the database of `url` to this version's schema; returns the names of the migrations that it
/// lacked. Servers that start at the same time may all call it: one works, and the others wait and find
/// nothing to do.
///
/// # Errors
///
/// [`StoreError::Unavailable`]: the database cannot be reached, a migration fails, or a later version
/// of this program has migrated it.
pub async fn migrate(url: &str) -> Result<Vec<String>, StoreError> {
    let connector = Connector::new(url, &PgConfig::default())?;
    let what = "migrate the database";
    let mut conn = connector.connect().await.map_err(|error| unavailable(what, error))?;
    let migrated = async {
        // Building an index on a large table may take long, and so may waiting for who does.
        conn.batch_execute("SET statement_timeout = 0; SET lock_timeout = 0").await?;
        conn.batch_execute(&format!("SELECT pg_advisory_lock({LOCK})")).await?;
        let (mut conn, names) = tokio::task::spawn_blocking(move || {
            let mut wrapper = AsyncConnectionWrapper::<AsyncPgConnection>::from(conn);
            let names = run_pending(&mut wrapper)?;
            Ok::<_, BoxError>((wrapper.into_inner(), names))
        })
        .await??;
        let added = fold::finish_foreign(&mut conn).await;
        added.map_err(|error| error.into_store("add up what a dump holds"))?;
        conn.batch_execute(FORGET_FOREIGN_POSITIONS).await?;
        Ok::<_, BoxError>(names) // closing the connection frees the lock
    };
    migrated.await.map_err(|error| unavailable(what, error))
}

/// The names of the migrations that the database of `url` lacks; none means that a store can be opened.
///
/// # Errors
///
/// [`StoreError::Unavailable`]: the database cannot be reached, or a later version of this program has
/// migrated it.
pub async fn pending_migrations(url: &str) -> Result<Vec<String>, StoreError> {
    pending(&Connector::new(url, &PgConfig::default())?).await
}

/// [`pending_migrations`], for a connector.
pub(crate) async fn pending(connector: &Connector) -> Result<Vec<String>, StoreError> {
    let what = "look which migrations the database has";
    let conn = connector.connect().await.map_err(|error| unavailable(what, error))?;
    let looking = tokio::task::spawn_blocking(move || {
        let mut wrapper = AsyncConnectionWrapper::<AsyncPgConnection>::from(conn);
        check(&mut wrapper)?;
        let pending = wrapper.pending_migrations(MIGRATIONS)?;
        Ok::<_, BoxError>(pending.iter().map(|one| one.name().to_string()).collect())
    });
    let looked = looking.await.map_err(|error| unavailable(what, error))?;
    looked.map_err(|error| unavailable(what, error))
}

fn run_pending(conn: &mut impl MigrationHarness<Pg>) -> Result<Vec<String>, BoxError> {
    check(conn)?;
    let pending = conn.pending_migrations(MIGRATIONS)?;
    conn.run_migrations(&pending)?;
    Ok(pending.iter().map(|one| one.name().to_string()).collect())
}

fn check(conn: &mut impl MigrationHarness<Pg>) -> Result<(), BoxError> {
    let known: Vec<MigrationVersion<'static>> = MigrationSource::<Pg>::migrations(&MIGRATIONS)?
        .iter()
        .map(|migration| migration.name().version().as_owned())
        .collect();
    match conn.applied_migrations()?.into_iter().find(|one| !known.contains(one)) {
        None => Ok(()),
        Some(version) => Err(format!(
            "the database has migration {version}, which this version does not know: use the version \
             that wrote it, or a later one"
        )
        .into()),
    }
}
