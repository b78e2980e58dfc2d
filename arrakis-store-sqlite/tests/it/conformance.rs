//! The SQLite store against the conformance suites.

use arrakis_core::testkit::store::StoreFixture;
use arrakis_store_sqlite::{SqliteConfig, SqliteStore};
use tempfile::TempDir;

async fn make() -> StoreFixture<SqliteStore> {
    let home = TempDir::new().unwrap();
    let path = home.path().join("new/arrakis.db");
    let open = async move |clock| SqliteStore::open(path, clock, SqliteConfig::default()).unwrap();
    StoreFixture::new(home, open).await
}

arrakis_core::store_conformance!(make);
