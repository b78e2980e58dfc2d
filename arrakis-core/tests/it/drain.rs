//! The drain loop, with a queue in memory, a scripted receiver and paused time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::dead_letter::DeadLetters;
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::base::id::RequestId;
use arrakis_core::base::retry::Jitter;
use arrakis_core::delivery::drain::{DrainConfig, DrainReport, Drainer, Until, Witness};
use arrakis_core::delivery::layers::{DeliveryConfig, delivery_stack};
use arrakis_core::delivery::queue::{Depth, Lease, MemoryQueue, Queue};
use arrakis_core::delivery::transport::{
    Batch, Loopback, Outcome, Reason, Transport, TransportError,
};
use arrakis_core::testkit::fakes::TokioClock;
use arrakis_core::testkit::receiver::FaultyReceiver;
use async_trait::async_trait;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

struct World {
    queue: Arc<MemoryQueue>,
    receiver: Arc<Loopback>,
    drainer: Arc<Drainer>,
    shutdown: CancellationToken,
}

impl World {
    fn new() -> Self {
        let receiver = Arc::<Loopback>::default();
        Self::with(Arc::<Loopback>::clone(&receiver), receiver)
    }

    fn with(transport: Arc<dyn Transport>, receiver: Arc<Loopback>) -> Self {
        let clock = Arc::new(TokioClock::new(Timestamp::from_millis(1_800_000_000_000)));
        let queue = Arc::new(MemoryQueue::new(Arc::<TokioClock>::clone(&clock)));
        let jitter = Jitter::new(StdRng::seed_from_u64(1));
        let delivery = DeliveryConfig::new(jitter.clone());
        let receivers = delivery.receivers.clone();
        let stack = Arc::new(delivery_stack(transport, delivery));
        let config =
            DrainConfig { clock: Arc::<TokioClock>::clone(&clock), ..DrainConfig::new(jitter) };
        let drainer = Drainer::new(Arc::<MemoryQueue>::clone(&queue), stack, receivers, config);
        Self { queue, receiver, drainer: Arc::new(drainer), shutdown: CancellationToken::new() }
    }

    async fn push(&self, ids: impl IntoIterator<Item = String>) {
        for id in ids {
            self.queue.push(envelope(&id, "http://receiver/")).await.unwrap();
        }
    }

    async fn run(&self, until: Until) -> DrainReport {
        self.drainer.run(until, &self.shutdown).await
    }

    async fn depth(&self) -> Depth {
        self.queue.depth().await.unwrap()
    }

    fn attempts(&self) -> Vec<Vec<String>> {
        let ids = |ids: Vec<RequestId>| ids.iter().map(ToString::to_string).collect();
        self.receiver.attempts().into_iter().map(|attempt| ids(attempt.request_ids)).collect()
    }
}

fn envelope(id: &str, destination: &str) -> Envelope {
    let at = Timestamp::from_millis(1_800_000_000_000);
    Envelope::new(id.parse().unwrap(), at, destination, Source::default(), &b"{}"[..])
}

fn numbered(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| format!("e{n:03}"))
}

fn away() -> TransportError {
    let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into();
    TransportError::Unreachable { destination: "http://receiver/".to_owned(), source }
}

fn failed() -> TransportError {
    arrakis_core::testkit::receiver::failed()
}

#[tokio::test(start_paused = true)]
async fn what_is_there_is_delivered_and_the_loop_ends_when_idle() {
    let world = World::new();
    world.push(numbered(1200)).await;
    let started = Instant::now();
    let report = world.run(Until::Idle).await;
    assert_eq!(report, DrainReport { delivered: 1200, ..Default::default() });
    assert_eq!(world.receiver.stored().len(), 1200);
    assert_eq!(world.depth().await, Depth::default());
    assert_eq!(started.elapsed(), Duration::from_secs(30), "idle for as long as it should be");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_comes_while_idle_is_delivered_at_once_and_restarts_the_idle_time() {
    let world = World::new();
    let started = Instant::now();
    let late = async {
        tokio::time::sleep(Duration::from_secs(29)).await;
        world.push(numbered(1)).await;
    };
    let (report, ()) = tokio::join!(world.run(Until::Idle), late);
    assert_eq!(report.delivered, 1);
    assert_eq!(started.elapsed(), Duration::from_secs(59));
}

#[tokio::test(start_paused = true)]
async fn a_round_has_three_attempts() {
    let world = World::new();
    world.push(numbered(1)).await;
    for _ in 0..2 {
        world.receiver.script(Err(away()));
    }
    let report = world.run(Until::NothingDue).await;
    assert_eq!(report.delivered, 1);
    assert_eq!(world.receiver.attempts().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_waited_too_long_is_kept_and_delivered_with_the_next_success() {
    let world = World::new();
    world.push(numbered(3)).await;
    for _ in 0..3 * 24 * 9 {
        world.receiver.script(Err(away()));
    }
    let started = Instant::now();
    let report = world.run(Until::Idle).await;
    let days = started.elapsed().as_secs_f64() / 86_400.0;
    assert!((7.0..7.1).contains(&days), "given up after {days} days");
    assert_eq!((report.delivered, report.dead_lettered), (0, 0));
    assert_eq!(world.depth().await, Depth { failed: 3, ..Depth::default() });

    while world.receiver.attempts().len() < 3 * 24 * 9 {
        world.receiver.deliver(Batch::one(Arc::new(envelope("probe", "x")))).await.ok();
    }
    world.push(["next".to_owned()]).await;
    let report = world.run(Until::Idle).await;
    assert_eq!(report.delivered, 4);
    assert_eq!(world.depth().await, Depth::default());
}

#[tokio::test(start_paused = true)]
async fn time_in_which_delivery_is_held_makes_nothing_old() {
    let world = World::with(Arc::new(WrongKey), Arc::default());
    world.push(numbered(1)).await;
    let days = async {
        tokio::time::sleep(Duration::from_secs(8 * 86_400)).await;
        world.shutdown.cancel();
    };
    tokio::join!(world.run(Until::Idle), days);
    assert_eq!(world.depth().await, Depth { pending: 1, ..Depth::default() });
}

#[tokio::test(start_paused = true)]
async fn a_fresh_event_probes_a_receiver_that_was_away() {
    let world = World::new();
    world.push(numbered(10)).await;
    for _ in 0..3 {
        world.receiver.script(Err(away()));
    }
    let started = Instant::now();
    let later = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        world.push(["fresh".to_owned()]).await;
    };
    let (report, ()) = tokio::join!(world.run(Until::Idle), later);
    assert_eq!(report.delivered, 11);
    assert!(started.elapsed() < Duration::from_secs(60), "sooner than the first delay");
}

#[tokio::test(start_paused = true)]
async fn a_poke_has_a_receiver_tried_at_once() {
    let world = World::new();
    world.push(numbered(1)).await;
    let wrong_key = || TransportError::Misconfigured {
        problem: "the key is not known".to_owned(),
        remedy: "set api_key".to_owned(),
    };
    world.receiver.script(Err(wrong_key()));
    let started = Instant::now();
    let poke = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        world.drainer.poke();
    };
    let (report, ()) = tokio::join!(world.run(Until::Idle), poke);
    assert_eq!((report.delivered, report.retried), (1, 0));
    assert_eq!(world.receiver.attempts().len(), 2, "a configuration fault is not retried blindly");
    assert!(started.elapsed() < Duration::from_secs(35));
}

#[tokio::test(start_paused = true)]
async fn a_configuration_fault_holds_the_queue_with_one_warning_and_is_tried_every_minute() {
    let receiver = Arc::<FaultyReceiver>::default();
    receiver.fail(|_| {
        let (problem, remedy) = ("HTTP 401".to_owned(), "set api_key".to_owned());
        Some(TransportError::Misconfigured { problem, remedy })
    });
    let world = World::with(Arc::<FaultyReceiver>::clone(&receiver), Arc::default());
    let warnings = Warnings::default();
    let _recording = tracing::subscriber::set_default(warnings.clone());
    let captures = async {
        for n in 0..600 {
            world.push([format!("e{n}")]).await;
            tokio::time::sleep(Duration::from_secs(6)).await;
        }
        world.shutdown.cancel();
    };
    let (report, ()) = tokio::join!(world.run(Until::Idle), captures);
    assert_eq!((report.retried, report.dead_lettered), (0, 0));
    assert_eq!(world.depth().await.pending, 600);
    let probes = receiver.attempts();
    assert!((40..=61).contains(&probes.len()), "{} in an hour", probes.len());
    for pair in probes.windows(2) {
        let wait = pair[1].0 - pair[0].0;
        assert!((60..=91).contains(&wait.as_secs()), "{wait:?}");
    }
    assert_eq!(warnings.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_poison_event_is_found_and_its_neighbours_go_through() {
    let world = World::with(Arc::new(Poisoned::new("e005")), Arc::default());
    world.push(numbered(16)).await;
    let report = world.run(Until::NothingDue).await;
    assert_eq!((report.delivered, report.retried), (15, 1));
    assert_eq!(world.depth().await, Depth { pending: 1, ..Default::default() });
}

#[tokio::test(start_paused = true)]
async fn an_event_that_fails_alone_becomes_a_dead_letter_after_the_last_round() {
    let world = World::with(Arc::new(Poisoned::new("e000")), Arc::default());
    world.push(numbered(1)).await;
    // Its neighbours get through: the receiver is well.
    let neighbours = async {
        for n in 0..5 * 180 {
            tokio::time::sleep(Duration::from_secs(20)).await;
            world.push([format!("fresh{n}")]).await;
        }
    };
    let (report, ()) = tokio::join!(world.run(Until::Idle), neighbours);
    assert_eq!((report.delivered, report.retried, report.dead_lettered), (5 * 180, 5, 1));
    let detail = world.queue.show(&"e000".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(detail.history.len(), 6);
    assert!(detail.history.iter().all(|failure| failure.code == "receiver_failed"));
    assert_eq!(detail.history.iter().map(|f| f.round).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    let waits = detail.history.windows(2).map(|pair| pair[1].at.since(pair[0].at));
    for (wait, minutes) in waits.zip([1, 5, 15, 60, 120]) {
        let delay = Duration::from_secs(60 * minutes);
        // A round of three attempts takes up to 3 s, and the loop looks at the clock now and then.
        let latest = delay.mul_f64(1.5) + Duration::from_secs(33);
        assert!((delay..latest).contains(&wait), "{minutes} min: {wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_fails_on_many_events_takes_all_others() {
    for every in [3, 2] {
        let poison = move |id: &RequestId| id.as_str()[1..].parse::<u32>().unwrap() % every == 0;
        let receiver = Arc::<FaultyReceiver>::default();
        receiver.fail(move |batch| {
            batch.envelopes().iter().any(|one| poison(one.request_id())).then(failed)
        });
        let world = World::with(Arc::<FaultyReceiver>::clone(&receiver), Arc::default());
        world.push(numbered(300)).await;
        let started = Instant::now();
        let all = 300 - 300 / every as usize;
        let stop = async {
            while receiver.stored() < all && started.elapsed() < Duration::from_secs(3600) {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            world.shutdown.cancel();
        };
        tokio::join!(world.run(Until::Idle), stop);
        assert_eq!(receiver.stored(), all, "within an hour");
    }
}

#[tokio::test(start_paused = true)]
async fn no_poison_event_keeps_a_receiver_that_is_back_from_showing_it() {
    let receiver = Arc::<FaultyReceiver>::default();
    receiver.fail(|_| Some(away()));
    let world = World::with(Arc::<FaultyReceiver>::clone(&receiver), Arc::default());
    world.push(numbered(300)).await;
    let outage = async {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(world.depth().await.pending, 300);
        // Now it fails on some: the first one, and some in each batch.
        let poison = |id: &RequestId| id.as_str().ends_with('0');
        receiver.fail(move |batch| {
            batch.envelopes().iter().any(|one| poison(one.request_id())).then(failed)
        });
        tokio::time::sleep(Duration::from_secs(12 * 3600)).await;
        world.shutdown.cancel();
    };
    tokio::join!(world.run(Until::Idle), outage);
    assert_eq!(receiver.stored(), 270);
}

#[tokio::test(start_paused = true)]
async fn outcomes_settle_each_event_by_itself() {
    let world = World::new();
    world.push(numbered(3)).await;
    let reason = Reason { code: "id_conflict".to_owned(), message: "no".to_owned() };
    // The third outcome is missing: that is "try again".
    let stored = Loopback::default().deliver(Batch::one(Arc::new(envelope("e000", "x")))).await;
    let first = stored.unwrap().remove(0);
    world.receiver.script(Ok(vec![first, Outcome::Refused(reason)]));
    let report = world.run(Until::NothingDue).await;
    assert_eq!((report.delivered, report.retried), (1, 2));
    assert_eq!(world.depth().await.pending, 2);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_hangs_is_told_from_a_batch_that_is_too_much() {
    let world = World::with(Arc::new(Hanging), Arc::default());
    world.push(numbered(500)).await;
    let started = Instant::now();
    let report = world.run(Until::NothingDue).await;
    assert_eq!((report.delivered, report.retried, report.released), (0, 0, 500));
    // The batch, then one event: two rounds of three attempts of 10 s, and jitter.
    assert!(started.elapsed() < Duration::from_secs(70));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_away_does_not_keep_another_from_its_events() {
    let world = World::with(Arc::new(OneAway), Arc::default());
    for n in 0..1000 {
        let host = if n % 2 == 0 { "http://away/" } else { "http://receiver/" };
        world.queue.push(envelope(&format!("e{n:04}"), host)).await.unwrap();
    }
    let report = world.run(Until::NothingDue).await;
    assert_eq!(report.delivered, 500);
    assert_eq!(world.depth().await.pending, 500);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_a_delivery_end_and_releases_what_does_not() {
    for (takes, delivered) in [(Duration::from_secs(3), 1), (Duration::from_secs(8), 0)] {
        let slow = Slow { takes, called: watch::Sender::new(false) };
        let mut called = slow.called.subscribe();
        let world = World::with(Arc::new(slow), Arc::default());
        world.push(numbered(1)).await;
        let stop = async {
            called.wait_for(|called| *called).await.unwrap();
            world.shutdown.cancel();
        };
        let started = Instant::now();
        let (report, ()) = tokio::join!(world.run(Until::Idle), stop);
        assert_eq!(report.delivered, delivered);
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(world.depth().await.processing, 0, "nothing stays leased");
        assert_eq!(world.depth().await.pending, 1 - delivered);
    }
}

#[tokio::test(start_paused = true)]
async fn one_event_can_be_tried_alone() {
    let world = World::new();
    world.push(numbered(3)).await;
    world.run(Until::Tried("e001".parse().unwrap())).await;
    assert_eq!(world.attempts(), [["e001"]]);
    assert_eq!(world.depth().await.pending, 2);
}

/// Fails any request that holds one certain event.
#[derive(Debug)]
struct Poisoned {
    event: RequestId,
    inner: Loopback,
}

impl Poisoned {
    fn new(event: &str) -> Self {
        Self { event: event.parse().unwrap(), inner: Loopback::default() }
    }
}

#[async_trait]
impl Transport for Poisoned {
    async fn deliver(&self, batch: Batch) -> Result<Vec<Outcome>, TransportError> {
        if batch.envelopes().iter().any(|envelope| *envelope.request_id() == self.event) {
            return Err(failed());
        }
        self.inner.deliver(batch).await
    }
}

/// Never answers.
#[derive(Debug)]
struct Hanging;

#[async_trait]
impl Transport for Hanging {
    async fn deliver(&self, _: Batch) -> Result<Vec<Outcome>, TransportError> {
        std::future::pending().await
    }
}

/// Is configured with a key that the receiver does not know.
#[derive(Debug)]
struct WrongKey;

#[async_trait]
impl Transport for WrongKey {
    async fn deliver(&self, _: Batch) -> Result<Vec<Outcome>, TransportError> {
        let problem = "the key is not known".to_owned();
        Err(TransportError::Misconfigured { problem, remedy: "set api_key".to_owned() })
    }
}

/// Reaches one of two receivers.
#[derive(Debug)]
struct OneAway;

#[async_trait]
impl Transport for OneAway {
    async fn deliver(&self, batch: Batch) -> Result<Vec<Outcome>, TransportError> {
        if batch.destination() == "http://away/" {
            return Err(away());
        }
        Loopback::default().deliver(batch).await
    }
}

/// Takes its time.
#[derive(Debug)]
struct Slow {
    takes: Duration,
    called: watch::Sender<bool>,
}

#[async_trait]
impl Transport for Slow {
    async fn deliver(&self, batch: Batch) -> Result<Vec<Outcome>, TransportError> {
        self.called.send_replace(true);
        tokio::time::sleep(self.takes).await;
        Loopback::default().deliver(batch).await
    }
}

/// Counts what is logged as a warning or worse.
#[derive(Debug, Clone, Default)]
struct Warnings(Arc<AtomicUsize>);

impl Warnings {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// Remembers what it saw, and how much was settled by then.
#[derive(Debug)]
struct Seen {
    receiver: Arc<Loopback>,
    ids: std::sync::Mutex<Vec<String>>,
}

#[async_trait]
impl Witness for Seen {
    async fn see(&self, leases: &[Lease]) {
        // However long it takes.
        tokio::time::sleep(Duration::from_secs(5)).await;
        for lease in leases {
            let id = lease.envelope.request_id();
            assert!(!self.receiver.stored().contains_key(id), "{id} is not delivered yet");
            self.ids.lock().unwrap().push(id.to_string());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_witness_sees_every_event_before_it_is_settled() {
    let World { queue, receiver, drainer, shutdown } = World::new();
    let seen = Arc::new(Seen { receiver: Arc::clone(&receiver), ids: std::sync::Mutex::default() });
    let drainer = Arc::into_inner(drainer).unwrap().with_witness(Arc::<Seen>::clone(&seen));
    for id in numbered(900) {
        queue.push(envelope(&id, "http://receiver/")).await.unwrap();
    }
    let report = drainer.run(Until::NothingDue, &shutdown).await;
    assert_eq!(report.delivered, 900);
    let mut ids = seen.ids.lock().unwrap().clone();
    ids.sort();
    assert_eq!(ids, numbered(900).collect::<Vec<_>>());
}
