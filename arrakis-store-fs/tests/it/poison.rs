//! An event at which a receiver hangs, in a real spool and in paused time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrakis_core::base::clock::{Clock, ManualClock, Timestamp};
use arrakis_core::base::dead_letter::Failure;
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::base::retry::Jitter;
use arrakis_core::delivery::drain::{DrainConfig, Drainer, Until};
use arrakis_core::delivery::layers::{DeliveryConfig, delivery_stack};
use arrakis_core::delivery::queue::{Depth, Disposition, Lane, LeaseRequest, Queue, Wake};
use arrakis_core::delivery::transport::{Batch, Loopback, Outcome, Transport, TransportError};
use arrakis_core::testkit::fakes::TokioClock;
use arrakis_store_fs::spool::layout::EntryName;
use arrakis_store_fs::{FsQueue, FsQueueConfig, Layout, Spool, SpoolDir};
use async_trait::async_trait;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const HOUR: Duration = Duration::from_secs(3600);

/// The event at which the receiver hangs.
const HANGS: &str = "hangs";

/// Never answers requests that hold [`HANGS`], until it is well.
#[derive(Debug, Default)]
struct Receiver {
    inner: Loopback,
    is_well: AtomicBool,
    timed_out: AtomicUsize,
    stored: Mutex<HashMap<String, Instant>>,
}

#[async_trait]
impl Transport for Receiver {
    async fn deliver(&self, batch: Batch) -> Result<Vec<Outcome>, TransportError> {
        let ids: Vec<_> = batch.envelopes().iter().map(|e| e.request_id().to_string()).collect();
        if !self.is_well.load(Ordering::Relaxed) && ids.iter().any(|id| id == HANGS) {
            self.timed_out.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await;
        }
        let outcomes = self.inner.deliver(batch).await?;
        self.stored.lock().unwrap().extend(ids.into_iter().map(|id| (id, Instant::now())));
        Ok(outcomes)
    }
}

fn envelope(id: &str, at: Timestamp) -> Envelope {
    Envelope::new(id.parse().unwrap(), at, "http://receiver/", Source::default(), &b"{}"[..])
}

#[tokio::test(start_paused = true)]
async fn an_event_at_which_the_receiver_hangs_is_deferred_while_its_neighbours_are_delivered() {
    let directory = TempDir::new().unwrap();
    let layout = Layout::new(directory.path().join("home"));
    let start = Timestamp::from_millis(1_800_000_000_000);
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new(start));
    // What the system tells of changes comes in its own time.
    let config = FsQueueConfig { watch: false, ..FsQueueConfig::default() };
    let queue = Arc::new(
        FsQueue::open(SpoolDir::new(layout.clone()).with_clock(Arc::clone(&clock)), config)
            .unwrap(),
    );
    let receiver = Arc::<Receiver>::default();
    let jitter = Jitter::new(StdRng::seed_from_u64(1));
    let delivery = DeliveryConfig::new(jitter.clone());
    let receivers = delivery.receivers.clone();
    let stack = Arc::new(delivery_stack(Arc::<Receiver>::clone(&receiver), delivery));
    let config = DrainConfig { clock: Arc::clone(&clock), ..DrainConfig::new(jitter) };
    let drainer = Drainer::new(Arc::<FsQueue>::clone(&queue), stack, receivers, config);
    let shutdown = CancellationToken::new();

    let mut pushed = HashMap::new();
    for id in [HANGS.to_owned()].into_iter().chain((0..50).map(|n| format!("backlog{n}"))) {
        queue.push(envelope(&id, clock.now())).await.unwrap();
        pushed.insert(id, Instant::now());
    }
    let world = async {
        for n in 0..2 * 360 {
            sleep(HOUR / 360).await;
            let id = format!("fresh{n}");
            queue.push(envelope(&id, clock.now())).await.unwrap();
            pushed.insert(id, Instant::now());
        }
        sleep(HOUR / 360).await;
        assert_eq!(queue.depth().await.unwrap(), Depth { pending: 1, ..Depth::default() });
        let name = EntryName::of(&envelope(HANGS, start).header).to_string();
        assert!(layout.pending().join(name).exists(), "its name still tells since when it waits");
        receiver.is_well.store(true, Ordering::Relaxed);
        sleep(4 * HOUR).await;
        shutdown.cancel();
    };
    let (report, ()) = tokio::join!(drainer.run(Until::Idle, &shutdown), world);

    assert_eq!((report.retried, report.dead_lettered), (0, 0));
    let stored = receiver.stored.lock().unwrap();
    assert_eq!(stored.len(), pushed.len(), "it is delivered too, at last");
    let slowest = |name: &str| {
        let these = pushed.iter().filter(|(id, _)| id.starts_with(name));
        these.map(|(id, pushed)| stored[id] - *pushed).max().unwrap()
    };
    assert!(slowest("backlog") < Duration::from_secs(180), "{:?}", slowest("backlog"));
    assert!(slowest("fresh") < Duration::from_secs(40), "{:?}", slowest("fresh"));
    let timed_out = receiver.timed_out.load(Ordering::Relaxed);
    assert!(timed_out < 30, "it is tried less and less: {timed_out}");
}

#[tokio::test]
async fn an_event_that_was_deferred_is_due_once_a_person_asks() {
    let directory = TempDir::new().unwrap();
    let layout = Layout::new(directory.path().join("home"));
    let start = Timestamp::from_millis(1_800_000_000_000);
    let clock = Arc::new(ManualClock::new(start));
    let queue =
        FsQueue::open(SpoolDir::new(layout.clone()).with_clock(clock), FsQueueConfig::default())
            .unwrap();
    queue.push(envelope(HANGS, start)).await.unwrap();
    let lease = async || {
        let any = LeaseRequest { lane: Lane::Any, events: 9, bytes: 1 << 20, closed: Vec::new() };
        queue.lease(any).await.unwrap().leases
    };
    let held = lease().await.remove(0);
    let (due, code) = (start.plus(HOUR), "timeout".to_owned());
    let failure = Failure { at: start, round: 0, code, message: "no answer".to_owned() };
    queue.settle(vec![(held, Disposition::Deferred { due, failure })]).await.unwrap();
    assert!(lease().await.is_empty());
    Spool::new(layout).poke().unwrap();
    while queue.wait().await != Wake::Poked {}
    assert_eq!(lease().await.len(), 1);
}
