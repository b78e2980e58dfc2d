//! A fixture for the suites of a store: a store, the manual clock that it reads, and what must outlive it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::archive::ArchiveFixture;
use super::browser_sessions::BrowserSessionsFixture;
use super::dead_letters::DeadLettersFixture;
use super::event_store::{Arrivals, EventStoreFixture};
use super::key_store::KeyStoreFixture;
use super::retention::RetentionFixture;
use super::rollups::RollupsFixture;
use super::spool_reports::SpoolReportsFixture;
use crate::base::clock::{Clock, ManualClock, Timestamp};
use crate::base::dead_letter::DeadLetters;
use crate::base::id::RequestId;
use crate::record::store::{
    Archive, BrowserSessions, DEFAULT_WORKSPACE, EventStore, KeyStore, Retention, Rollups,
    SpoolReports, StoredDeadLetters, Verdict, WorkspaceDeadLetters,
};

/// A fresh store `S`. It is a fixture of the suite of each trait that `S` implements.
pub struct StoreFixture<S> {
    store: Arc<S>,
    clock: Arc<ManualClock>,
    _guard: Box<dyn Send + Sync>,
}

impl<S> StoreFixture<S> {
    /// The store that `open` makes with the clock. `guard` is kept as long as the fixture: the folder of a
    /// database, for example.
    pub async fn new(
        guard: impl Send + Sync + 'static,
        open: impl AsyncFnOnce(Arc<dyn Clock>) -> S,
    ) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
        let store = Arc::new(open(Arc::<ManualClock>::clone(&clock)).await);
        Self { store, clock, _guard: Box::new(guard) }
    }
}

impl<S: fmt::Debug> fmt::Debug for StoreFixture<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreFixture").field("store", &self.store).finish_non_exhaustive()
    }
}

impl<S: EventStore + 'static> EventStoreFixture for StoreFixture<S> {
    fn store(&self) -> Arc<dyn EventStore> {
        Arc::<S>::clone(&self.store)
    }

    fn clock(&self) -> Arc<ManualClock> {
        Arc::clone(&self.clock)
    }
}

impl<S: EventStore + Archive + 'static> ArchiveFixture for StoreFixture<S> {
    fn archive(&self) -> Arc<dyn Archive> {
        Arc::<S>::clone(&self.store)
    }
}

impl<S: KeyStore + 'static> KeyStoreFixture for StoreFixture<S> {
    fn keys(&self) -> Arc<dyn KeyStore> {
        Arc::<S>::clone(&self.store)
    }
}

impl<S: EventStore + Retention + 'static> RetentionFixture for StoreFixture<S> {
    fn retention(&self) -> Arc<dyn Retention> {
        Arc::<S>::clone(&self.store)
    }
}

impl<S: EventStore + Retention + Rollups + 'static> RollupsFixture for StoreFixture<S> {
    fn rollups(&self) -> Arc<dyn Rollups> {
        Arc::<S>::clone(&self.store)
    }
}

impl<S: SpoolReports + 'static> SpoolReportsFixture for StoreFixture<S> {
    fn reports(&self) -> Arc<dyn SpoolReports> {
        Arc::<S>::clone(&self.store)
    }
}

impl<S: BrowserSessions + 'static> BrowserSessionsFixture for StoreFixture<S> {
    fn sessions(&self) -> Arc<dyn BrowserSessions> {
        Arc::<S>::clone(&self.store)
    }
}

#[async_trait]
impl<S: EventStore + StoredDeadLetters + 'static> DeadLettersFixture for StoreFixture<S> {
    async fn bury(&self, id: &RequestId) {
        let (arrival, _) = Arrivals::new(Arc::clone(&self.clock)).prompt(id.as_str(), "s");
        let (code, message) = ("broken".to_owned(), "it is broken".to_owned());
        let failed = Verdict::Failed { code, message };
        self.store.record(vec![(arrival, failed.clone())]).await.expect("record");
        let later = self.clock.now().plus(Duration::from_secs(3600));
        for claim in self.store.claim_due(later, Timestamp::EPOCH, 10).await.expect("claim") {
            let is_ours = self.store.complete(claim, failed.clone(), None).await.expect("complete");
            assert!(is_ours, "the claim is the only one");
        }
    }

    async fn is_due(&self, id: &RequestId) -> bool {
        let now = self.clock.now();
        let due = self.store.claim_due(now, Timestamp::EPOCH, 10).await.expect("claim");
        due.iter().any(|claim| claim.arrival.request_id == *id)
    }

    async fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        Arc::new(WorkspaceDeadLetters::new(Arc::clone(&self.store), DEFAULT_WORKSPACE))
    }
}

/// The same request id is dead in two workspaces: each lists, tries again and gives up its own.
///
/// # Panics
///
/// One touches the other's.
pub async fn dead_letters_are_of_one_workspace<S>(fixture: &StoreFixture<S>)
where
    S: EventStore + StoredDeadLetters + 'static,
{
    let mut arrivals = Arrivals::new(Arc::clone(&fixture.clock));
    let (code, message) = ("broken".to_owned(), "it is broken".to_owned());
    let failed = Verdict::Failed { code, message };
    for workspace in ["one", "two"] {
        arrivals.go_on_in(workspace);
        let (arrival, _) = arrivals.prompt("a", workspace);
        fixture.store.record(vec![(arrival, failed.clone())]).await.expect("record");
    }
    let later = fixture.clock.now().plus(Duration::from_secs(3600));
    for claim in fixture.store.claim_due(later, Timestamp::EPOCH, 10).await.expect("claim") {
        assert!(fixture.store.complete(claim, failed.clone(), None).await.expect("complete"));
    }
    let [one, two] = ["one", "two"]
        .map(|workspace| WorkspaceDeadLetters::new(Arc::clone(&fixture.store), workspace));
    let a: RequestId = "a".parse().expect("an id");
    let count = async |letters: &WorkspaceDeadLetters<S>| {
        let list = letters.list(None, 10).await.expect("list");
        let shown = letters.show(&a).await.expect("show");
        assert_eq!(shown.map(|shown| shown.letter), list.first().cloned());
        list.len()
    };
    assert_eq!((count(&one).await, count(&two).await), (1, 1));
    let shown = two.show(&a).await.expect("show").expect("it is there");
    assert_eq!(shown.letter.session_id.as_deref(), Some("two"));
    assert_eq!(one.redrive(std::slice::from_ref(&a)).await.expect("redrive"), 1);
    assert_eq!((count(&one).await, count(&two).await), (0, 1));
    assert_eq!(one.discard(std::slice::from_ref(&a)).await.expect("discard"), 0);
    assert_eq!(two.discard(std::slice::from_ref(&a)).await.expect("discard"), 1);
    assert_eq!((count(&one).await, count(&two).await), (0, 0));
}

/// Runs every suite of a store that implements all traits of one; `$make` is an async function without
/// arguments that returns a fresh [`StoreFixture`].
#[macro_export]
macro_rules! store_conformance {
    ($make:ident) => {
        mod event_store {
            use super::$make;
            $crate::event_store_conformance!($make);
        }

        mod archive {
            use super::$make;
            $crate::archive_conformance!($make);
        }

        mod key_store {
            use super::$make;
            $crate::key_store_conformance!($make);
        }

        mod retention {
            use super::$make;
            $crate::retention_conformance!($make);
        }

        mod rollups {
            use super::$make;
            $crate::rollups_conformance!($make);
        }

        mod spool_reports {
            use super::$make;
            $crate::spool_reports_conformance!($make);
        }

        mod browser_sessions {
            use super::$make;
            $crate::browser_sessions_conformance!($make);
        }

        mod dead_letters {
            use super::$make;
            $crate::dead_letters_conformance!($make);

            #[tokio::test]
            async fn dead_letters_are_of_one_workspace() {
                $crate::testkit::store::dead_letters_are_of_one_workspace(&$make().await).await;
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::store::MemoryStore;

    async fn make() -> StoreFixture<MemoryStore> {
        StoreFixture::new((), async |clock| MemoryStore::new(clock)).await
    }

    mod event_store {
        use super::make;
        crate::event_store_conformance!(make);
    }

    mod archive {
        use super::make;
        crate::archive_conformance!(make);
    }

    mod key_store {
        use super::make;
        crate::key_store_conformance!(make);
    }

    mod retention {
        use super::make;
        crate::retention_conformance!(make);
    }

    mod rollups {
        use super::make;
        crate::rollups_conformance!(make);
    }
}
