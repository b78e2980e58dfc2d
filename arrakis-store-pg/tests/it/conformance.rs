//! The Postgres store against the conformance suites.

use arrakis_core::testkit::store::StoreFixture;
use arrakis_store_pg::{PgConfig, PgStore};
use arrakis_test_cluster::Database;

async fn make() -> StoreFixture<PgStore> {
    let database = Database::create().await;
    arrakis_store_pg::migrate(database.url()).await.unwrap();
    let url = database.url().to_owned();
    let open = async move |clock| PgStore::open(&url, clock, PgConfig::default()).await.unwrap();
    StoreFixture::new(database, open).await
}

arrakis_core::store_conformance!(make);
