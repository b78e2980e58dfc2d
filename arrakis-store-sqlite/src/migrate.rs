//! Making the file, and bringing its schema up to date.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use arrakis_core::error::BoxError;
use arrakis_core::store::StoreError;
use diesel::SqliteConnection;
use diesel::connection::SimpleConnection;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!();

/// Creates the file, closed to others, and refuses places where SQLite's locks do not hold.
pub(crate) fn prepare_file(path: &Path) -> Result<(), StoreError> {
    let refused = |source: BoxError| StoreError::Unavailable {
        what: format!("open {}", path.display()),
        source,
    };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        use std::os::unix::fs::DirBuilderExt;
        let mut builder = std::fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(|error| refused(error.into()))?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).map_err(|error| refused(error.into()))?;
    match network_file_system(&file) {
        Some(name) => Err(refused(
            format!("it is on {name}, where SQLite's locks do not hold; use a local disk").into(),
        )),
        None => Ok(()),
    }
}

/// The kind of network file system that a file is on, if it is.
#[cfg(target_os = "linux")]
fn network_file_system(file: &std::fs::File) -> Option<&'static str> {
    // linux/magic.h
    const NETWORKED: [(i64, &str); 5] = [
        (0x6969, "NFS"),
        (0x517b, "SMB"),
        (0xff53_4d42, "CIFS"),
        (0xfe53_4d42, "SMB2"),
        (0x5346_414f, "AFS"),
    ];
    let kind = nix::sys::statfs::fstatfs(file).ok()?.filesystem_type().0;
    #[allow(clippy::unnecessary_cast, reason = "the type differs between platforms")]
    let kind = kind as i64 & 0xffff_ffff;
    NETWORKED.iter().find(|(magic, _)| *magic == kind).map(|(_, name)| *name)
}

#[cfg(not(target_os = "linux"))]
fn network_file_system(_: &std::fs::File) -> Option<&'static str> {
    None
}

/// Runs the migrations that are missing. Processes that start at the same time take turns: all of it
/// is one transaction that excludes other writers.
pub(crate) fn run(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let migrated: Result<(), MigrateError> = connection.immediate_transaction(|connection| {
        connection.run_pending_migrations(MIGRATIONS).map_err(MigrateError::Migration)?;
        Ok(())
    });
    migrated.map_err(|error| StoreError::Unavailable {
        what: "bring the schema up to date".to_owned(),
        source: match error {
            MigrateError::Migration(error) => error,
            MigrateError::Diesel(error) => error.into(),
        },
    })?;
    // Fresh statistics, where they are missing or old; cheap otherwise.
    connection.batch_execute("PRAGMA optimize=0x10002").ok();
    Ok(())
}

enum MigrateError {
    Migration(BoxError),
    Diesel(diesel::result::Error),
}

impl From<diesel::result::Error> for MigrateError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Diesel(error)
    }
}
