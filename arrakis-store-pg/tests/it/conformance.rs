//! The Postgres store against the conformance suites.

use std::sync::Arc;

use arrakis_core::base::clock::{Clock, ManualClock, Timestamp};
use arrakis_core::base::dead_letter::DeadLetters;
use arrakis_core::base::id::RequestId;
use arrakis_core::record::store::{Archive, EventStore, KeyStore, SpoolReports};
use arrakis_core::testkit::archive::ArchiveFixture;
use arrakis_core::testkit::dead_letters::DeadLettersFixture;
use arrakis_core::testkit::event_store::{Arrivals, EventStoreFixture};
use arrakis_core::testkit::key_store::KeyStoreFixture;
use arrakis_core::testkit::spool_reports::SpoolReportsFixture;
use arrakis_store_pg::{PgConfig, PgStore};
use arrakis_test_cluster::Database;
use async_trait::async_trait;

struct Fixture {
    clock: Arc<ManualClock>,
    store: Arc<PgStore>,
}

async fn make() -> Fixture {
    let database = Database::create().await;
    arrakis_store_pg::migrate(database.url()).await.unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
    let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
    let store = PgStore::open(database.url(), shared, PgConfig::default()).await.unwrap();
    Fixture { clock, store: Arc::new(store) }
}

impl EventStoreFixture for Fixture {
    fn store(&self) -> Arc<dyn EventStore> {
        Arc::<PgStore>::clone(&self.store)
    }

    fn clock(&self) -> Arc<ManualClock> {
        Arc::clone(&self.clock)
    }
}

impl ArchiveFixture for Fixture {
    fn archive(&self) -> Arc<dyn Archive> {
        Arc::<PgStore>::clone(&self.store)
    }
}

impl KeyStoreFixture for Fixture {
    fn keys(&self) -> Arc<dyn KeyStore> {
        Arc::<PgStore>::clone(&self.store)
    }
}

impl SpoolReportsFixture for Fixture {
    fn reports(&self) -> Arc<dyn SpoolReports> {
        Arc::<PgStore>::clone(&self.store)
    }
}

#[async_trait]
impl DeadLettersFixture for Fixture {
    async fn bury(&self, id: &RequestId) {
        let mut arrivals = Arrivals::new(Arc::clone(&self.clock));
        let (arrival, _) = arrivals.prompt(id.as_str(), "s");
        let (code, message) = ("broken".to_owned(), "it is broken".to_owned());
        let failed = arrakis_core::record::store::Verdict::Failed { code, message };
        self.store.record(vec![(arrival, failed.clone())]).await.unwrap();
        let later = self.clock.now().plus(std::time::Duration::from_secs(3600));
        for claim in self.store.claim_due(later, Timestamp::EPOCH, 10).await.unwrap() {
            assert!(self.store.complete(claim, failed.clone(), None).await.unwrap());
        }
    }

    async fn is_due(&self, id: &RequestId) -> bool {
        let due = self.store.claim_due(self.clock.now(), Timestamp::EPOCH, 10).await.unwrap();
        due.iter().any(|claim| claim.arrival.request_id == *id)
    }

    async fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        Arc::<PgStore>::clone(&self.store)
    }
}

mod event_store {
    use super::make;
    arrakis_core::event_store_conformance!(make);
}

mod archive {
    use super::make;
    arrakis_core::archive_conformance!(make);
}

mod key_store {
    use super::make;
    arrakis_core::key_store_conformance!(make);
}

mod spool_reports {
    use super::make;
    arrakis_core::spool_reports_conformance!(make);
}

mod dead_letters {
    use super::make;
    arrakis_core::dead_letters_conformance!(make);
}
