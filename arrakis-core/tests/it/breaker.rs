//! The circuit breaker as a layer, with a receiver that fails and paused time.

use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::{Clock, ManualClock, Timestamp};
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::base::retry::Jitter;
use arrakis_core::delivery::layers::BreakerLayer;
use arrakis_core::delivery::receiver::{BreakerSnapshot, BreakerState, PROBE_INTERVAL, Receivers};
use arrakis_core::delivery::transport::{
    Batch, Outcome, ServiceTransport, Transport, TransportError, TransportService,
};
use arrakis_core::testkit::fakes::TokioClock;
use arrakis_core::testkit::receiver::{FaultyReceiver, failed, unavailable, unreachable};
use async_trait::async_trait;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Semaphore;
use tower::Layer;

use BreakerState::{Closed, HalfOpen, Open};

const NOON: Timestamp = Timestamp::EPOCH;

/// Longer than any probe waits.
const LONG_ENOUGH: Duration = Duration::from_millis(7500);

struct World {
    receiver: Arc<FaultyReceiver>,
    handle: Receivers,
    breaker: Arc<dyn Transport>,
}

impl World {
    fn new() -> Self {
        let receiver = Arc::<FaultyReceiver>::default();
        let handle = handle(Arc::new(TokioClock::new(NOON)));
        let breaker = around(Arc::<FaultyReceiver>::clone(&receiver), &handle);
        Self { receiver, handle, breaker }
    }

    /// One attempt with one event; whether it left, and how it ended.
    async fn attempt(&self) -> Result<(), &'static str> {
        self.attempt_with(&["e"]).await
    }

    async fn attempt_with(&self, ids: &[&str]) -> Result<(), &'static str> {
        let result = self.breaker.deliver(batch("http://a/", ids)).await;
        result.map(drop).map_err(|error| error.code())
    }

    fn state(&self) -> BreakerState {
        self.handle.state("http://a/")
    }

    /// Opens the circuit.
    async fn fall_ill(&self) {
        self.receiver.fail(|_| Some(unreachable()));
        for _ in 0..10 {
            self.attempt().await.unwrap_err();
        }
        assert_eq!(self.state(), Open);
    }
}

fn handle(clock: Arc<dyn Clock>) -> Receivers {
    Receivers::new(clock, Jitter::new(StdRng::seed_from_u64(1)))
}

fn around(transport: Arc<dyn Transport>, handle: &Receivers) -> Arc<dyn Transport> {
    let layer = BreakerLayer::new(handle.clone());
    Arc::new(ServiceTransport::new(layer.layer(TransportService::new(transport))))
}

fn batch(destination: &str, ids: &[&str]) -> Batch {
    let envelope = |id: &&str| {
        let id = id.parse().unwrap();
        Arc::new(Envelope::new(id, NOON, destination, Source::default(), &b"{}"[..]))
    };
    Batch::new(ids.iter().map(envelope).collect()).unwrap()
}

fn misconfigured() -> TransportError {
    let (problem, remedy) = ("HTTP 401".to_owned(), "set api_key".to_owned());
    TransportError::Misconfigured { problem, remedy }
}

fn refused() -> TransportError {
    TransportError::Refused { answer: None, message: String::new() }
}

#[tokio::test(start_paused = true)]
async fn ten_failures_in_a_row_open_it_and_nothing_leaves_any_more() {
    let world = World::new();
    world.receiver.fail(|_| Some(unreachable()));
    for _ in 0..10 {
        assert_eq!(world.state(), Closed);
        assert_eq!(world.attempt().await, Err("unreachable"));
    }
    for _ in 0..100 {
        assert_eq!(world.attempt().await, Err("breaker_open"));
    }
    assert_eq!(world.receiver.attempts().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn half_of_twenty_attempts_within_thirty_seconds_open_it() {
    for (pause_ms, opens) in [(1000, true), (1600, false)] {
        let world = World::new();
        let mut fails = false;
        for n in 0..40 {
            if world.state() == Open {
                assert_eq!(n, 20, "not before there are twenty");
                break;
            }
            world.receiver.fail(move |_| fails.then(unreachable));
            fails = !fails;
            world.attempt().await.ok();
            tokio::time::advance(Duration::from_millis(pause_ms)).await;
        }
        assert_eq!(world.state() == Open, opens, "{pause_ms} ms apart");
    }
}

#[tokio::test(start_paused = true)]
async fn a_third_of_failures_opens_nothing() {
    let world = World::new();
    for n in 0..300 {
        world.receiver.fail(move |_| (n % 3 == 0).then(unreachable));
        world.attempt().await.ok();
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    assert_eq!(world.state(), Closed);
}

#[tokio::test(start_paused = true)]
async fn one_success_and_three_more_close_it() {
    let world = World::new();
    world.fall_ill().await;
    tokio::time::advance(LONG_ENOUGH).await;
    world.receiver.recover();
    for _ in 0..4 {
        assert_ne!(world.state(), Closed);
        assert_eq!(world.attempt().await, Ok(()));
    }
    assert_eq!(world.state(), Closed);
}

#[tokio::test(start_paused = true)]
async fn a_failure_while_half_open_opens_it_again() {
    for successes in 0..4 {
        let world = World::new();
        world.fall_ill().await;
        tokio::time::advance(LONG_ENOUGH).await;
        world.receiver.recover();
        for _ in 0..successes {
            assert_eq!(world.attempt().await, Ok(()));
        }
        world.receiver.fail(|_| Some(failed()));
        assert_eq!(world.attempt().await, Err("receiver_failed"));
        assert_eq!(world.state(), Open, "after {successes} successes");
        assert_eq!(world.attempt().await, Err("breaker_open"));
    }
}

#[tokio::test(start_paused = true)]
async fn half_open_lets_one_through_and_then_three() {
    let handle = handle(Arc::new(TokioClock::new(NOON)));
    let slow = Arc::new(Slow { answers: Semaphore::new(0), attempts: Semaphore::new(0) });
    let breaker = around(Arc::<Slow>::clone(&slow), &handle);
    handle.restore(snapshot(Open, NOON));
    let attempt = || {
        let breaker = Arc::clone(&breaker);
        tokio::spawn(async move { breaker.deliver(batch("http://a/", &["e"])).await.is_ok() })
    };
    for allowed in [1, 3] {
        let attempts: Vec<_> = (0..20).map(|_| attempt()).collect();
        tokio::task::yield_now().await;
        slow.answers.add_permits(20);
        let mut ended = 0;
        for attempt in attempts {
            ended += usize::from(attempt.await.unwrap());
        }
        assert_eq!(ended, allowed);
        slow.answers.forget_permits(20);
    }
    assert_eq!(handle.state("http://a/"), Closed);
}

#[tokio::test(start_paused = true)]
async fn while_open_at_most_one_probe_leaves_in_five_seconds() {
    let world = World::new();
    world.fall_ill().await;
    for _ in 0..10_000 {
        world.attempt().await.unwrap_err();
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    let probes = world.receiver.attempts().split_off(9);
    assert!((133..=201).contains(&probes.len()), "5 s to 7.5 s apart in 1000 s: {}", probes.len());
    for pair in probes.windows(2) {
        assert!(pair[1].0 - pair[0].0 >= PROBE_INTERVAL);
    }
}

#[tokio::test(start_paused = true)]
async fn each_receiver_has_a_circuit_of_its_own() {
    let world = World::new();
    world.fall_ill().await;
    world.receiver.recover();
    world.breaker.deliver(batch("http://b/", &["e"])).await.unwrap();
    assert_eq!((world.state(), world.handle.state("http://b/")), (Open, Closed));
}

#[tokio::test(start_paused = true)]
async fn what_the_receiver_is_not_to_blame_for_opens_nothing() {
    for fault in [misconfigured, refused] {
        let world = World::new();
        world.receiver.fail(move |_| Some(fault()));
        for _ in 0..100 {
            world.attempt().await.unwrap_err();
        }
        assert_eq!(world.state(), Closed);
    }
    let timeout = || TransportError::Timeout { after: Duration::ZERO };
    let asked = || unavailable(None);
    for fault in [failed, timeout, asked] {
        let world = World::new();
        world.receiver.fail(move |_| Some(fault()));
        for n in 0..10 {
            world.attempt_with(&[&n.to_string()]).await.unwrap_err();
        }
        assert_eq!(world.state(), Open);
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_shows_nothing_leaves_it_open() {
    let world = World::new();
    world.fall_ill().await;
    tokio::time::advance(LONG_ENOUGH).await;
    world.receiver.fail(|_| Some(misconfigured()));
    assert_eq!(world.attempt().await, Err("misconfigured"));
    assert_eq!(world.attempt().await, Err("breaker_open"), "the next probe waits as ever");
    tokio::time::advance(LONG_ENOUGH).await;
    let given_up = world.breaker.deliver(batch("http://a/", &["e"]));
    drop(given_up);
    assert_eq!(world.state(), Open, "not even tried");
    world.receiver.recover();
    assert_eq!(world.attempt().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_given_up_gives_its_place_back() {
    let handle = handle(Arc::new(TokioClock::new(NOON)));
    let slow = Arc::new(Slow { answers: Semaphore::new(0), attempts: Semaphore::new(0) });
    let breaker = around(Arc::<Slow>::clone(&slow), &handle);
    handle.restore(snapshot(Open, NOON));
    for attempt in 1..=3 {
        let pending = tokio::time::timeout(
            Duration::from_millis(10),
            breaker.deliver(batch("http://a/", &["e"])),
        );
        pending.await.unwrap_err();
        assert_eq!(handle.state("http://a/"), Open);
        assert_eq!(slow.attempts.available_permits(), attempt);
        tokio::time::advance(LONG_ENOUGH).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_the_receiver_fails_on_is_one_failure() {
    let world = World::new();
    world.receiver.fail(|_| Some(failed()));
    let ids: Vec<String> = (0..500).map(|n| format!("e{n}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    for size in [500, 250, 125, 63, 32, 16, 8, 4, 2, 1, 1, 1] {
        for _ in 0..3 {
            assert_eq!(world.attempt_with(&ids[..size]).await, Err("receiver_failed"));
        }
    }
    assert_eq!(world.handle.snapshot().receivers[0].failures_in_a_row, 1);
    for id in &ids[1..10] {
        assert_eq!(world.state(), Closed);
        assert_eq!(world.attempt_with(&[id]).await, Err("receiver_failed"));
    }
    assert_eq!(world.state(), Open, "ten events in a row");
}

#[tokio::test(start_paused = true)]
async fn the_handle_tells_what_is_known() {
    let world = World::new();
    let mut changes = world.handle.changes();
    world.fall_ill().await;
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    tokio::time::advance(Duration::from_secs(3)).await;
    let known = world.handle.snapshot().receivers.remove(0);
    assert_eq!((known.destination.as_str(), known.state), ("http://a/", Open));
    assert_eq!(
        (known.failures_in_a_row, known.recent_attempts, known.recent_failures),
        (10, 10, 10)
    );
    assert_eq!(known.since, NOON);
    let wait = known.next_probe.unwrap().since(NOON);
    assert!((PROBE_INTERVAL..LONG_ENOUGH).contains(&wait), "{wait:?}");
    let last = known.last_failure.unwrap();
    assert_eq!((last.at, last.code.as_str()), (NOON, "unreachable"));
    assert_eq!(last.message, "http://receiver/ cannot be reached: connection refused");
    assert!(!changes.has_changed().unwrap(), "looking changes nothing");

    tokio::time::advance(LONG_ENOUGH).await;
    world.receiver.recover();
    for _ in 0..4 {
        world.attempt().await.unwrap();
    }
    let known = world.handle.snapshot().receivers.remove(0);
    assert_eq!((known.state, known.failures_in_a_row, known.next_probe), (Closed, 0, None));
    assert_eq!((known.recent_attempts, known.last_failure), (0, None));
    assert!(known.since > NOON);
}

#[tokio::test(start_paused = true)]
async fn a_configuration_fault_is_told_until_it_is_mended() {
    let world = World::new();
    world.receiver.fail(|_| Some(misconfigured()));
    world.attempt().await.unwrap_err();
    let known = world.handle.snapshot().receivers.remove(0);
    assert_eq!((known.state, known.failures_in_a_row), (Closed, 0));
    assert_eq!(known.last_failure.unwrap().code, "misconfigured");
    world.receiver.recover();
    world.attempt().await.unwrap();
    assert_eq!(world.handle.snapshot().receivers[0].last_failure, None);
}

#[tokio::test(start_paused = true)]
async fn it_survives_a_restart() {
    let world = World::new();
    world.fall_ill().await;
    let text = serde_json::to_string(&world.handle.snapshot()).unwrap();
    let kept: BreakerSnapshot = serde_json::from_str(&text).unwrap();
    assert_eq!(kept, world.handle.snapshot());

    let next = World::new();
    next.handle.restore(kept.clone());
    assert_eq!(next.attempt().await, Err("breaker_open"));
    assert_eq!(next.handle.snapshot().receivers[0].failures_in_a_row, 10);
    tokio::time::advance(LONG_ENOUGH).await;
    for _ in 0..4 {
        assert_eq!(next.attempt().await, Ok(()));
    }
    assert_eq!(next.state(), Closed);
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_are_counted_over_a_restart() {
    let mut kept = BreakerSnapshot::default();
    for n in 1..=10 {
        let world = World::new();
        world.handle.restore(kept);
        world.receiver.fail(|_| Some(unreachable()));
        assert_eq!(world.attempt().await, Err("unreachable"));
        assert_eq!(world.state(), if n < 10 { Closed } else { Open });
        kept = world.handle.snapshot();
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_was_under_way_at_a_restart_is_not_made_again_at_once() {
    let first = handle(Arc::new(TokioClock::new(NOON)));
    let slow = Arc::new(Slow { answers: Semaphore::new(0), attempts: Semaphore::new(0) });
    let breaker = around(slow, &first);
    first.restore(snapshot(Open, NOON));
    let probe = breaker.deliver(batch("http://a/", &["e"]));
    tokio::time::timeout(Duration::ZERO, async {
        tokio::pin!(probe);
        std::future::poll_fn(|context| {
            assert!(probe.as_mut().poll(context).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        let kept = first.snapshot();
        assert_eq!(kept.receivers[0].state, HalfOpen);
        let next = World::new();
        next.handle.restore(kept);
        assert_eq!(next.attempt().await, Err("breaker_open"));
    })
    .await
    .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_does_no_harm() {
    let year = Duration::from_secs(365 * 24 * 3600);
    for jumped in [NOON.plus(year), NOON.minus(year)] {
        let world = World::new();
        let next = handle(Arc::new(ManualClock::new(jumped)));
        next.restore(snapshot(Open, NOON.plus(Duration::from_secs(6))));
        let known = next.snapshot().receivers.remove(0);
        assert!(known.since <= jumped);
        let breaker = around(Arc::<FaultyReceiver>::clone(&world.receiver), &next);
        tokio::time::advance(LONG_ENOUGH).await;
        assert!(breaker.deliver(batch("http://a/", &["e"])).await.is_ok(), "soon tried again");
    }
}

#[tokio::test(start_paused = true)]
async fn receivers_that_are_well_are_forgotten_before_they_are_too_many() {
    let world = World::new();
    world.fall_ill().await;
    world.receiver.recover();
    for n in 0..1000 {
        world.breaker.deliver(batch(&format!("http://{n}/"), &["e"])).await.unwrap();
    }
    let known = world.handle.snapshot().receivers;
    assert!(known.len() <= 100);
    assert!(known.iter().any(|receiver| receiver.state == Open));
}

fn snapshot(state: BreakerState, next_probe: Timestamp) -> BreakerSnapshot {
    let text = serde_json::json!({ "receivers": [{
        "destination": "http://a/", "state": state, "since": NOON, "failuresInARow": 10,
        "recentAttempts": 10, "recentFailures": 10, "nextProbe": next_probe, "lastFailure": null,
    }]});
    serde_json::from_value(text).unwrap()
}

/// Answers when it is told to.
#[derive(Debug)]
struct Slow {
    answers: Semaphore,
    attempts: Semaphore,
}

#[async_trait]
impl Transport for Slow {
    async fn deliver(&self, _: Batch) -> Result<Vec<Outcome>, TransportError> {
        self.attempts.add_permits(1);
        self.answers.acquire().await.unwrap().forget();
        Ok(Vec::new())
    }
}

/// What the breaker does, said with a list of all attempts and nothing clever.
#[derive(Debug)]
struct Model {
    state: BreakerState,
    /// When each attempt through the closed circuit was made, in ms, and whether it failed.
    attempts: Vec<(u64, bool)>,
    opened_at: u64,
    successes: u32,
}

impl Model {
    /// Whether an attempt at `now` leaves; `None` while jitter decides.
    fn admits(&self, now: u64) -> Option<bool> {
        match self.state {
            Closed | HalfOpen => Some(true),
            Open if now < self.opened_at + 5000 => Some(false),
            Open if now >= self.opened_at + 7500 => Some(true),
            Open => None,
        }
    }

    fn attempt(&mut self, now: u64, fails: bool) {
        if self.state != Closed {
            self.successes = if fails { 0 } else { self.successes + 1 };
            self.state = match self.successes {
                0 => Open,
                4 => Closed,
                _ => HalfOpen,
            };
            (self.opened_at, self.attempts) = (now, Vec::new());
            return;
        }
        self.attempts.push((now, fails));
        let in_a_row = self.attempts.iter().rev().take_while(|(_, failed)| *failed).count();
        let recent = self.attempts.iter().filter(|(at, _)| at / 1000 + 30 > now / 1000);
        let (all, failed) =
            recent.fold((0, 0), |(all, failed), (_, fails)| (all + 1, failed + u32::from(*fails)));
        if fails && (in_a_row >= 10 || (all >= 20 && failed * 2 >= all)) {
            (self.state, self.opened_at, self.successes) = (Open, now, 0);
        }
    }
}

proptest! {
    #[test]
    fn it_does_as_the_model_does(
        share in 0..=100u32,
        steps in prop::collection::vec((0..3000u64, 0..100u32), 1..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let mut model = Model { state: Closed, attempts: vec![], opened_at: 0, successes: 0 };
            let mut now = 0;
            for (pause, luck) in steps {
                let fails = luck < share;
                world.receiver.fail(move |_| fails.then(unreachable));
                let before = world.receiver.attempts().len();
                let result = world.attempt().await;
                let left = world.receiver.attempts().len() > before;
                prop_assert_eq!(left, result != Err("breaker_open"));
                if let Some(admits) = model.admits(now) {
                    prop_assert_eq!(left, admits);
                }
                if left {
                    model.attempt(now, fails);
                }
                prop_assert_eq!(world.state(), model.state);
                tokio::time::advance(Duration::from_millis(pause)).await;
                now += pause;
            }
            Ok(())
        })?;
    }
}
