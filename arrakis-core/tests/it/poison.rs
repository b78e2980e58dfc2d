//! Events on which a receiver fails, or hangs, when they are alone in their request: with queues in
//! memory and paused time.

#![allow(clippy::print_stdout, reason = "figures are printed")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrakis_core::base::clock::{Clock, Timestamp};
use arrakis_core::base::dead_letter::{DeadLetters, Failure};
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::base::retry::Jitter;
use arrakis_core::delivery::drain::{DrainConfig, DrainReport, Drainer, Until};
use arrakis_core::delivery::layers::{DeliveryConfig, delivery_stack};
use arrakis_core::delivery::queue::{Depth, EXPIRED, MemoryQueue, Queue};
use arrakis_core::delivery::transport::{Batch, Outcome, Transport, TransportError};
use arrakis_core::testkit::fakes::TokioClock;
use arrakis_core::testkit::receiver::{FaultyReceiver, failed};
use async_trait::async_trait;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const HOUR: Duration = Duration::from_secs(3600);

/// Longest that a new event may take to be stored.
const FRESH: Duration = Duration::from_secs(2);

struct World {
    queue: Arc<MemoryQueue>,
    receiver: Arc<Receiver>,
    drainer: Drainer,
    shutdown: CancellationToken,
    pushed: Mutex<HashMap<String, Instant>>,
}

impl World {
    fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new(Timestamp::EPOCH));
        let queue = Arc::new(MemoryQueue::new(Arc::clone(&clock)));
        let jitter = Jitter::new(StdRng::seed_from_u64(1));
        let receiver = Arc::<Receiver>::default();
        let delivery = DeliveryConfig::new(jitter.clone());
        let receivers = delivery.receivers.clone();
        let stack = Arc::new(delivery_stack(Arc::<Receiver>::clone(&receiver), delivery));
        let config = DrainConfig { clock, ..DrainConfig::new(jitter) };
        let drainer = Drainer::new(Arc::<MemoryQueue>::clone(&queue), stack, receivers, config);
        let (shutdown, pushed) = Default::default();
        Self { queue, receiver, drainer, shutdown, pushed }
    }

    async fn push(&self, id: &str) {
        let header = (id.parse().unwrap(), Timestamp::EPOCH, "http://receiver/");
        let envelope = Envelope::new(header.0, header.1, header.2, Source::default(), &b"{}"[..]);
        self.pushed.lock().unwrap().insert(id.to_owned(), Instant::now());
        self.queue.push(envelope).await.unwrap();
    }

    /// Pushes `count` events, one after each pause.
    async fn traffic(&self, name: &str, count: usize, pause: Duration) {
        for n in 0..count {
            sleep(pause).await;
            self.push(&format!("{name}{n:04}")).await;
        }
    }

    /// Drains for as long as `world` lives.
    async fn run(&self, world: impl Future<Output = ()>) -> DrainReport {
        let world = async {
            world.await;
            sleep(FRESH).await;
            self.shutdown.cancel();
        };
        tokio::join!(self.drainer.run(Until::Idle, &self.shutdown), world).0
    }

    /// How long an event took from its capture to the receiver's store.
    fn took(&self, id: &str) -> Duration {
        let stored = self.receiver.stored.lock().unwrap().get(id).copied();
        stored.unwrap_or_else(|| panic!("{id} is not stored")) - self.pushed.lock().unwrap()[id]
    }

    /// The longest that one of the events took whose ids begin so.
    fn slowest(&self, name: &str) -> Duration {
        let ids: Vec<_> = self.pushed.lock().unwrap().keys().cloned().collect();
        let these = ids.iter().filter(|id| id.starts_with(name));
        these.map(|id| self.took(id)).max().unwrap()
    }

    async fn history(&self, id: &str) -> Option<Vec<Failure>> {
        let letter = self.queue.show(&id.parse().unwrap()).await.unwrap();
        Some(letter?.history)
    }
}

/// Fails on, or hangs at, requests with certain events.
#[derive(Debug, Default)]
struct Receiver {
    inner: FaultyReceiver,
    hangs_at: Mutex<Option<&'static str>>,
    timed_out: AtomicUsize,
    stored: Mutex<HashMap<String, Instant>>,
}

impl Receiver {
    /// Answers 500 to requests that hold an event whose id begins so.
    fn fail_on(&self, name: &'static str) {
        self.inner.fail(move |batch| holds(batch, name).then(failed));
    }

    /// Never answers requests that hold an event whose id begins so.
    fn hang_at(&self, name: &'static str) {
        *self.hangs_at.lock().unwrap() = Some(name);
    }

    fn recover(&self) {
        self.inner.recover();
        *self.hangs_at.lock().unwrap() = None;
    }
}

fn holds(batch: &Batch, name: &str) -> bool {
    batch.envelopes().iter().any(|one| one.request_id().as_str().starts_with(name))
}

#[async_trait]
impl Transport for Receiver {
    async fn deliver(&self, batch: Batch) -> Result<Vec<Outcome>, TransportError> {
        let hangs_at = *self.hangs_at.lock().unwrap();
        if hangs_at.is_some_and(|name| holds(&batch, name)) {
            self.timed_out.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await;
        }
        let outcomes = self.inner.deliver(batch.clone()).await?;
        let now = Instant::now();
        let ids = batch.envelopes().iter().map(|one| one.request_id().to_string());
        self.stored.lock().unwrap().extend(ids.map(|id| (id, now)));
        Ok(outcomes)
    }
}

#[tokio::test(start_paused = true)]
async fn a_sole_event_outlives_two_days_of_500() {
    for worked_before in [false, true] {
        let world = World::new();
        if worked_before {
            world.push("before").await;
            world.drainer.run(Until::NothingDue, &world.shutdown).await;
        }
        world.receiver.fail_on("");
        world.push("sole").await;
        let outage = async {
            sleep(48 * HOUR).await;
            world.receiver.recover();
            sleep(4 * HOUR).await;
        };
        let report = world.run(outage).await;
        assert_eq!(report.dead_lettered, 0);
        assert!(report.retried <= u64::from(worked_before), "{}", report.retried);
        assert_eq!(world.queue.depth().await.unwrap(), Depth::default());
        assert!(world.took("sole") < 51 * HOUR, "after the longest delay at the latest");
        let attempts = world.receiver.inner.attempts().len();
        assert!(attempts < 120, "left alone more and more: {attempts} attempts");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sole_event_is_delivered_with_the_first_success_of_another() {
    let world = World::new();
    world.receiver.fail_on("");
    world.push("sole").await;
    let outage = async {
        sleep(47 * HOUR).await;
        world.receiver.recover();
        world.push("fresh").await;
        sleep(FRESH).await;
    };
    world.run(outage).await;
    assert!(world.took("fresh") < FRESH);
    assert!(world.took("sole") < 47 * HOUR + FRESH);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_fails_alone_waits_while_nothing_shows_that_the_receiver_works() {
    let world = World::new();
    world.receiver.fail_on("poison");
    world.push("poison").await;
    let world_runs = async {
        sleep(24 * HOUR).await;
        assert_eq!(world.queue.depth().await.unwrap(), Depth { pending: 1, ..Depth::default() });
        world.traffic("fresh", 12 * 180, HOUR / 180).await;
    };
    let report = world.run(world_runs).await;
    assert_eq!((report.retried, report.dead_lettered), (5, 1), "once it is shown");
    assert!(world.slowest("fresh") < FRESH);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_fails_alone_in_silence_grows_old_as_any() {
    let world = World::new();
    world.receiver.fail_on("poison");
    world.push("poison").await;
    let report = world.drainer.run(Until::Idle, &world.shutdown).await;
    assert_eq!((report.retried, report.dead_lettered), (0, 0));
    let history = world.history("poison").await.unwrap();
    assert_eq!(history.last().unwrap().code, EXPIRED);
}

#[tokio::test(start_paused = true)]
async fn poison_events_among_working_neighbours_become_dead_letters_and_delay_nobody() {
    let world = World::new();
    world.receiver.fail_on("poison");
    for n in 0..30 {
        world.push(&format!("backlog{n}")).await;
        world.push(&format!("poison{n}")).await;
    }
    let report = world.run(world.traffic("fresh", 12 * 120, HOUR / 120)).await;
    assert_eq!(report.dead_lettered, 30);
    for n in 0..30 {
        let history = world.history(&format!("poison{n}")).await.unwrap();
        assert_eq!(
            history.iter().map(|failure| failure.round).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5, 6]
        );
    }
    assert!(world.slowest("backlog") < Duration::from_secs(600), "{:?}", world.slowest("backlog"));
    assert!(world.slowest("fresh") < FRESH, "{:?}", world.slowest("fresh"));
}

/// The receiver hangs at one of 500 events that have waited, while new ones come every ten seconds.
/// Returns the longest that others of the backlog took, and new ones.
async fn hang_at(id: &'static str) -> (Duration, Duration) {
    let world = World::new();
    world.receiver.hang_at(id);
    for n in 0..500 {
        world.push(&format!("backlog{n:04}")).await;
    }
    let report = world.run(world.traffic("fresh", 6 * 360, HOUR / 360)).await;
    assert_eq!((report.delivered, report.retried, report.dead_lettered), (499 + 6 * 360, 0, 0));
    world.pushed.lock().unwrap().remove(id);
    (world.slowest("backlog"), world.slowest("fresh"))
}

#[tokio::test(start_paused = true)]
async fn an_event_at_which_the_receiver_hangs_delays_a_backlog_by_minutes_and_nothing_new() {
    for id in ["backlog0000", "backlog0250", "backlog0499"] {
        let (backlog, fresh) = hang_at(id).await;
        println!(
            "a receiver that hangs at {id} of 500: the others took {backlog:?}, new ones {fresh:?}"
        );
        assert!(backlog < Duration::from_secs(180), "{id}: {backlog:?}");
        assert!(fresh < FRESH, "{id}: {fresh:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn new_events_at_which_the_receiver_hangs_delay_no_others() {
    let world = World::new();
    world.receiver.hang_at("hangs");
    let hanging = async {
        for n in 0..5 {
            sleep(HOUR / 10 + Duration::from_millis(100)).await;
            world.push(&format!("hangs{n}")).await;
            world.push(&format!("with{n}")).await;
        }
    };
    let traffic = async {
        tokio::join!(hanging, world.traffic("fresh", 3600, HOUR / 3600));
    };
    let report = world.run(traffic).await;
    assert_eq!((report.retried, report.dead_lettered), (0, 0));
    assert!(world.slowest("fresh") < FRESH, "{:?}", world.slowest("fresh"));
    let together = world.slowest("with");
    assert!(together < Duration::from_secs(45), "what was sent together with it: {together:?}");
    assert_eq!(world.queue.depth().await.unwrap().pending, 5);
}

#[tokio::test(start_paused = true)]
async fn an_event_at_which_the_receiver_hangs_is_tried_less_and_less_and_delivered_when_it_does_not()
 {
    let world = World::new();
    world.receiver.hang_at("hangs");
    world.push("hangs").await;
    let world_runs = async {
        world.traffic("fresh", 24 * 60, HOUR / 60).await;
        world.receiver.recover();
        world.traffic("later", 4 * 60, HOUR / 60).await;
    };
    let report = world.run(world_runs).await;
    assert_eq!((report.retried, report.dead_lettered), (0, 0));
    assert!(world.took("hangs") < 28 * HOUR);
    assert!(world.receiver.timed_out.load(Ordering::Relaxed) < 60);
}
