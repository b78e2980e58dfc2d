//! Outages of days, with queues in memory and paused time.

#![allow(clippy::print_stdout, reason = "figures are printed")]

use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::{Clock, Timestamp};
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::base::retry::Jitter;
use arrakis_core::delivery::drain::{DrainConfig, DrainReport, Drainer, Until};
use arrakis_core::delivery::layers::{DeliveryConfig, delivery_stack};
use arrakis_core::delivery::queue::{Depth, MemoryQueue, Queue};
use arrakis_core::delivery::receiver::{BreakerState, PROBE_INTERVAL, Receivers};
use arrakis_core::delivery::transport::TransportError;
use arrakis_core::testkit::fakes::TokioClock;
use arrakis_core::testkit::receiver::{FaultyReceiver, failed, unavailable, unreachable};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const START: Timestamp = Timestamp::EPOCH;
const HOUR: Duration = Duration::from_secs(3600);

/// Events that are captured between two restarts: one every five minutes for six hours.
const EVENTS: usize = 72;

/// A process that drains: its circuits, and a drainer for each of its queues.
struct Process {
    receivers: Receivers,
    drainers: Vec<Drainer>,
    shutdown: CancellationToken,
}

impl Process {
    fn start(
        receiver: &Arc<FaultyReceiver>,
        queues: &[Arc<MemoryQueue>],
        clock: &Arc<TokioClock>,
        seed: u64,
    ) -> Self {
        let jitter = Jitter::new(StdRng::seed_from_u64(seed));
        let clock: Arc<dyn Clock> = Arc::<TokioClock>::clone(clock);
        let receivers = Receivers::new(Arc::clone(&clock), jitter.clone());
        let config =
            DeliveryConfig { receivers: receivers.clone(), ..DeliveryConfig::new(jitter.clone()) };
        let stack = Arc::new(delivery_stack(Arc::<FaultyReceiver>::clone(receiver), config));
        let drainer = |queue: &Arc<MemoryQueue>| {
            let config =
                DrainConfig { clock: Arc::clone(&clock), ..DrainConfig::new(jitter.clone()) };
            Drainer::new(
                Arc::<MemoryQueue>::clone(queue),
                Arc::clone(&stack) as _,
                receivers.clone(),
                config,
            )
        };
        let drainers = queues.iter().map(drainer).collect();
        Self { receivers, drainers, shutdown: CancellationToken::new() }
    }

    async fn run(&self) -> DrainReport {
        let runs = self.drainers.iter().map(|drainer| drainer.run(Until::Idle, &self.shutdown));
        let mut sum = DrainReport::default();
        for report in futures_util::future::join_all(runs).await {
            sum.delivered += report.delivered;
            sum.retried += report.retried;
            sum.dead_lettered += report.dead_lettered;
        }
        sum
    }

    fn state(&self) -> BreakerState {
        self.receivers.state("http://receiver/")
    }
}

fn envelope(id: &str) -> Envelope {
    let id = id.parse().unwrap();
    Envelope::new(id, START, "http://receiver/", Source::default(), &b"{}"[..])
}

/// Two days without a receiver: two drainers in one process, both lanes, fresh events, somebody who
/// pokes, and a restart every six hours.
async fn two_days(fault: fn() -> TransportError) -> DrainReport {
    let clock = Arc::new(TokioClock::new(START));
    let queues = [0, 1].map(|_| Arc::new(MemoryQueue::new(Arc::<TokioClock>::clone(&clock))));
    let receiver = Arc::<FaultyReceiver>::default();
    receiver.fail(move |_| Some(fault()));
    for n in 0..100 {
        queues[n % 2].push(envelope(&format!("backlog{n}"))).await.unwrap();
    }
    let mut opened: Option<Instant> = None;
    let mut sum = DrainReport::default();
    let mut kept = None;
    for seed in 0..8 {
        let process = Process::start(&receiver, &queues, &clock, seed);
        if let Some(kept) = kept {
            process.receivers.restore(kept);
        }
        let world = async {
            for n in 0..EVENTS {
                queues[n % 2].push(envelope(&format!("fresh{seed}-{n}"))).await.unwrap();
                // Every hour somebody is impatient.
                for _ in 0..if n % 12 == 6 { 60 } else { 0 } {
                    sleep(Duration::from_millis(300)).await;
                    process.drainers.iter().for_each(Drainer::poke);
                }
                sleep(HOUR / 12).await;
                if opened.is_none() && process.state() == BreakerState::Open {
                    opened = Some(Instant::now());
                }
            }
            assert_eq!(process.state(), BreakerState::Open);
            process.shutdown.cancel();
        };
        let (report, ()) = tokio::join!(process.run(), world);
        assert_eq!(report.delivered, 0);
        sum.retried += report.retried;
        sum.dead_lettered += report.dead_lettered;
        kept = Some(process.receivers.snapshot());
    }
    let probes: Vec<_> = receiver.attempts().into_iter().map(|(at, _)| at).collect();
    let probes = &probes[probes.partition_point(|at| Some(*at) < opened)..];
    assert!(probes.len() > 500, "it was tried all the time: {}", probes.len());
    for pair in probes.windows(2) {
        assert!(pair[1] - pair[0] >= PROBE_INTERVAL, "two probes within {:?}", pair[1] - pair[0]);
    }

    receiver.recover();
    let back = Instant::now();
    let process = Process::start(&receiver, &queues, &clock, 8);
    process.receivers.restore(kept.unwrap());
    let report = process.run().await;
    assert_eq!(receiver.stored(), 100 + 8 * EVENTS);
    assert_eq!(report.delivered, receiver.stored() as u64);
    assert_eq!(process.state(), BreakerState::Closed);
    assert!(back.elapsed() < HOUR, "{:?}", back.elapsed());
    for queue in queues {
        assert_eq!(queue.depth().await.unwrap(), Depth::default());
    }
    sum.retried += report.retried;
    sum.dead_lettered += report.dead_lettered;
    sum
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_cannot_be_reached_for_two_days_costs_nothing() {
    let report = two_days(unreachable).await;
    assert_eq!((report.retried, report.dead_lettered), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_asks_to_be_left_alone_for_two_days_costs_nothing() {
    let report = two_days(|| unavailable(None)).await;
    assert_eq!((report.retried, report.dead_lettered), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_answers_500_for_two_days_costs_nothing() {
    let report = two_days(failed).await;
    assert_eq!((report.retried, report.dead_lettered), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_retry_after_asks_for_is_not_undercut_by_fresh_events() {
    let clock = Arc::new(TokioClock::new(START));
    let queue = Arc::new(MemoryQueue::new(Arc::<TokioClock>::clone(&clock)));
    let receiver = Arc::<FaultyReceiver>::default();
    let asked = Duration::from_secs(600);
    receiver.fail(move |_| Some(unavailable(Some(asked))));
    let process = Process::start(&receiver, &[Arc::clone(&queue)], &clock, 1);
    let world = async {
        for n in 0..3600 {
            queue.push(envelope(&format!("fresh{n}"))).await.unwrap();
            sleep(Duration::from_secs(1)).await;
        }
        process.shutdown.cancel();
    };
    tokio::join!(process.run(), world);
    let attempts = receiver.attempts();
    assert!((4..=6).contains(&attempts.len()), "{}", attempts.len());
    for pair in attempts.windows(2) {
        assert!(pair[1].0 - pair[0].0 >= asked);
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_back_is_found_within_eight_seconds_by_fresh_events() {
    let clock = Arc::new(TokioClock::new(START));
    let queue = Arc::new(MemoryQueue::new(Arc::<TokioClock>::clone(&clock)));
    let receiver = Arc::<FaultyReceiver>::default();
    let process = Process::start(&receiver, &[Arc::clone(&queue)], &clock, 1);
    let captures = async {
        for n in 0.. {
            queue.push(envelope(&format!("fresh{n}"))).await.unwrap();
            sleep(Duration::from_millis(500)).await;
        }
    };
    let world = async {
        for outage in 1..=20 {
            receiver.fail(|_| Some(unreachable()));
            sleep(HOUR / 20 + Duration::from_millis(777) * outage).await;
            assert_eq!(process.state(), BreakerState::Open);
            let (before, back) = (receiver.stored(), Instant::now());
            receiver.recover();
            while receiver.stored() == before {
                sleep(Duration::from_millis(100)).await;
            }
            let first = back.elapsed();
            while queue.depth().await.unwrap().pending > 0 {
                sleep(Duration::from_millis(100)).await;
            }
            let all = back.elapsed();
            println!("a receiver is back: first delivery after {first:?}, all after {all:?}");
            // A probe is due within 7.5 s, and the next event makes it.
            assert!(first < Duration::from_millis(8100), "{first:?}");
            assert!(all < Duration::from_secs(10), "{all:?}");
        }
        process.shutdown.cancel();
    };
    tokio::select! {
        ((), _) = async { tokio::join!(world, process.run()) } => {}
        () = captures => {}
    }
}
