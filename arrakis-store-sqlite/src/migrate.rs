//! Bringing a database to this version's schema.

use diesel::SqliteConnection;
use diesel::migration::{MigrationSource, MigrationVersion};
use diesel::sqlite::Sqlite;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use arrakis_core::error::BoxError;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

/// Runs the migrations that the database lacks, all in one transaction.
///
/// The transaction takes the write lock before it looks, so of two processes that open a database at
/// the same time one migrates and the other then finds nothing to do.
///
/// # Errors
///
/// A migration fails, or a later version of this program has written the database.
pub(crate) fn run(conn: &mut SqliteConnection) -> Result<(), BoxError> {
    conn.immediate_transaction(|conn| {
        let known: Vec<MigrationVersion<'static>> =
            MigrationSource::<Sqlite>::migrations(&MIGRATIONS)?
                .iter()
                .map(|migration| migration.name().version().as_owned())
                .collect();
        if let Some(version) = conn.applied_migrations()?.iter().find(|one| !known.contains(one)) {
            return Err(format!(
                "the database has migration {version}, which this version does not know: use the \
                 version that wrote it, or a later one"
            )
            .into());
        }
        conn.run_pending_migrations(MIGRATIONS)?;
        Ok(())
    })
}
