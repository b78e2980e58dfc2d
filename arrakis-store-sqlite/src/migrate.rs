//! Bringing a database to this version's schema.

use diesel::SqliteConnection;
use diesel::migration::{MigrationSource, MigrationVersion};
use diesel::sqlite::Sqlite;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use arrakis_core::base::error::BoxError;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

/// Runs the migrations that the database lacks, all in one transaction; without `migrate` it must lack
/// none, unless it is new.
///
/// The transaction takes the write lock before it looks, so of two processes that open a database at
/// the same time one migrates and the other then finds nothing to do.
///
/// # Errors
///
/// A migration fails, or another version of this program has written the database.
pub(crate) fn run(conn: &mut SqliteConnection, migrate: bool) -> Result<(), BoxError> {
    run_all(conn, || MIGRATIONS, migrate)
}

fn run_all<M: MigrationSource<Sqlite>>(
    conn: &mut SqliteConnection,
    migrations: impl Fn() -> M,
    migrate: bool,
) -> Result<(), BoxError> {
    conn.immediate_transaction(|conn| {
        let known: Vec<MigrationVersion<'static>> = migrations()
            .migrations()?
            .iter()
            .map(|migration| migration.name().version().as_owned())
            .collect();
        let applied = conn.applied_migrations()?;
        if let Some(version) = applied.iter().find(|one| !known.contains(one)) {
            return Err(format!(
                "the database has migration {version}, which this version does not know: use the \
                 version that wrote it, or a later one"
            )
            .into());
        }
        if !migrate && !applied.is_empty() && conn.has_pending_migration(migrations())? {
            return Err(
                "the database is of an earlier version; a server of this version brings it \
                        to the present schema when it starts: restart it"
                    .into(),
            );
        }
        conn.run_pending_migrations(migrations())?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use diesel::{Connection, RunQueryDsl};
    use diesel_migrations::FileBasedMigrations;

    use super::*;

    #[test]
    fn every_migration_can_be_undone() {
        let mut conn = SqliteConnection::establish(":memory:").unwrap();
        run(&mut conn, true).unwrap();
        conn.revert_all_migrations(MIGRATIONS).unwrap();
        let left = diesel::dsl::sql::<diesel::sql_types::BigInt>(
            "SELECT count(*) FROM sqlite_schema
             WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name <> '__diesel_schema_migrations'",
        );
        assert_eq!(left.get_result::<i64>(&mut conn).unwrap(), 0);
        run(&mut conn, true).unwrap();
    }

    #[test]
    fn a_database_of_an_earlier_version_is_migrated_only_if_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let later = folder.path().join("9999-01-01-000000_later");
        std::fs::create_dir(&later).unwrap();
        std::fs::write(later.join("up.sql"), "CREATE TABLE later (id INTEGER) STRICT").unwrap();
        let foundation = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        for one in std::fs::read_dir(foundation).unwrap().map(Result::unwrap) {
            let copy = folder.path().join(one.file_name());
            std::fs::create_dir(&copy).unwrap();
            std::fs::copy(one.path().join("up.sql"), copy.join("up.sql")).unwrap();
        }
        let later = || FileBasedMigrations::from_path(folder.path()).unwrap();
        let mut conn = SqliteConnection::establish(":memory:").unwrap();
        run(&mut conn, false).unwrap();
        let refused = run_all(&mut conn, later, false).unwrap_err();
        assert!(refused.to_string().contains("earlier version"), "{refused}");
        run_all(&mut conn, later, true).unwrap();
        run_all(&mut conn, later, false).unwrap();
    }
}
