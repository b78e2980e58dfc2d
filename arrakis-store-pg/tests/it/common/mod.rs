//! What the tests share: stores in databases of their own.

use std::sync::Arc;

use arrakis_core::base::clock::{ManualClock, Timestamp};
use arrakis_core::record::store::{Admission, Arrival, EventStore, Verdict};
use arrakis_core::testkit::event_store::Arrivals;
use arrakis_store_pg::{PgConfig, PgStore};
use arrakis_test_cluster::Database;

/// A store in a new database, and what makes arrivals for it.
pub(crate) struct Home {
    pub(crate) store: Arc<PgStore>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) arrivals: Arrivals,
    pub(crate) database: Database,
}

impl Home {
    /// A new, migrated database of this process's server.
    pub(crate) async fn new() -> Self {
        Self::with(Database::create().await, PgConfig::default()).await
    }

    /// A store with these settings in a new database.
    pub(crate) async fn with(database: Database, config: PgConfig) -> Self {
        arrakis_store_pg::migrate(database.url()).await.unwrap();
        let clock = Arc::new(ManualClock::new(start()));
        let store = open(&database, &clock, config).await;
        let arrivals = Arrivals::new(Arc::clone(&clock));
        Self { store, clock, arrivals, database }
    }

    /// Another store on the same database, as another server has one.
    pub(crate) async fn again(&self) -> Arc<PgStore> {
        open(&self.database, &self.clock, PgConfig::default()).await
    }
}

/// The tests' first moment.
pub(crate) fn start() -> Timestamp {
    Timestamp::from_millis(1_764_000_000_000)
}

async fn open(database: &Database, clock: &Arc<ManualClock>, config: PgConfig) -> Arc<PgStore> {
    let clock: Arc<dyn arrakis_core::base::clock::Clock> = Arc::clone(clock) as _;
    Arc::new(PgStore::open(database.url(), clock, config).await.unwrap())
}

/// Records one arrival.
pub(crate) async fn record_one(store: &PgStore, one: (Arrival, Verdict)) -> Admission {
    store.record(vec![one]).await.unwrap().remove(0)
}
