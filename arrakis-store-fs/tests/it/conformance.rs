//! The filesystem queue against the conformance suites.

use std::sync::Arc;

use arrakis_core::base::clock::{Clock, ManualClock, Timestamp};
use arrakis_core::base::dead_letter::{DeadLetters, Failure};
use arrakis_core::base::id::RequestId;
use arrakis_core::delivery::queue::{Disposition, Lane, Lease, LeaseRequest, Queue};
use arrakis_core::testkit::dead_letters::DeadLettersFixture;
use arrakis_core::testkit::queue::{QueueFixture, envelope};
use arrakis_store_fs::{FsQueue, FsQueueConfig, Layout, SpoolDir};
use async_trait::async_trait;
use tempfile::TempDir;

struct Fixture {
    home: TempDir,
    clock: Arc<ManualClock>,
}

impl Fixture {
    fn queue(&self) -> FsQueue {
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
        let layout = Layout::new(self.home.path().join("home"));
        FsQueue::open(SpoolDir::new(layout).with_clock(clock), FsQueueConfig::default()).unwrap()
    }
}

#[async_trait]
impl QueueFixture for Fixture {
    fn clock(&self) -> Arc<ManualClock> {
        Arc::clone(&self.clock)
    }

    async fn open(&self) -> Arc<dyn Queue> {
        Arc::new(self.queue())
    }

    async fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        Arc::new(self.queue())
    }
}

#[async_trait]
impl DeadLettersFixture for Fixture {
    async fn bury(&self, id: &RequestId) {
        let queue = self.queue();
        queue.push(envelope(id.as_str(), b"{}")).await.unwrap();
        let lease = lease(&queue, id).await.pop().unwrap();
        let (code, message) = ("refused".to_owned(), "no".to_owned());
        let failure = Failure { at: self.clock.now(), round: 1, code, message };
        queue.settle(vec![(lease, Disposition::DeadLetter { failure })]).await.unwrap();
    }

    async fn is_due(&self, id: &RequestId) -> bool {
        !lease(&self.queue(), id).await.is_empty()
    }

    async fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        Arc::new(self.queue())
    }
}

async fn lease(queue: &FsQueue, id: &RequestId) -> Vec<Lease> {
    let lane = Lane::One(id.clone());
    let request = LeaseRequest { lane, events: 1, bytes: 1 << 20, closed: Vec::new() };
    queue.lease(request).await.unwrap().leases
}

async fn make() -> Fixture {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
    Fixture { home: TempDir::new().unwrap(), clock }
}

mod queue {
    use super::make;
    arrakis_core::queue_conformance!(make);
}

mod dead_letters {
    use super::make;
    arrakis_core::dead_letters_conformance!(make);
}
