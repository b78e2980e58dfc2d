//! An outage of two days with a real spool, on a machine that is off at times, and what is kept about
//! the receivers meanwhile.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::{Clock, SystemClock, Timestamp};
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::base::retry::Jitter;
use arrakis_core::delivery::drain::{DrainConfig, Drainer, Until};
use arrakis_core::delivery::layers::{DeliveryConfig, delivery_stack};
use arrakis_core::delivery::queue::{Depth, Queue};
use arrakis_core::delivery::receiver::{BreakerSnapshot, BreakerState, ReceiverHealth, Receivers};
use arrakis_core::delivery::transport::TransportError;
use arrakis_core::testkit::fakes::TokioClock;
use arrakis_core::testkit::receiver::{FaultyReceiver, failed, unreachable};
use arrakis_store_fs::spool::receivers;
use arrakis_store_fs::{FsQueue, FsQueueConfig, Layout, Spool, SpoolDir};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn an_outage_of_two_days_ends_with_everything_delivered_and_nothing_failed() {
    let attempts = two_days(unreachable, [12; 4]).await;
    assert!(attempts > 4 * 12, "it was tried all the time");
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_two_days_ends_so_where_it_answers_500_and_one_event_waits() {
    let attempts = two_days(failed, [1, 0, 0, 0]).await;
    assert!((40..120).contains(&attempts), "less and less since each start: {attempts}");
}

/// Two days without a receiver, on a machine that is on for an hour in twelve and has so many new events in
/// each. Returns how often the receiver was tried.
async fn two_days(fault: fn() -> TransportError, events: [usize; 4]) -> usize {
    let directory = TempDir::new().unwrap();
    let layout = Layout::new(directory.path().join("home"));
    let clock: Arc<dyn Clock> =
        Arc::new(TokioClock::new(Timestamp::from_millis(1_800_000_000_000)));
    let receiver = Arc::<FaultyReceiver>::default();
    receiver.fail(move |_| Some(fault()));
    let mut retried = 0;
    for restart in 0..5 {
        let jitter = Jitter::new(StdRng::seed_from_u64(restart as u64));
        let known = Receivers::new(Arc::clone(&clock), jitter.clone());
        known.restore(receivers::load(&layout));
        let delivery =
            DeliveryConfig { receivers: known.clone(), ..DeliveryConfig::new(jitter.clone()) };
        let stack = delivery_stack(Arc::<FaultyReceiver>::clone(&receiver), delivery);
        let config = FsQueueConfig::default();
        let queue =
            FsQueue::open(SpoolDir::new(layout.clone()).with_clock(Arc::clone(&clock)), config)
                .unwrap();
        let queue = Arc::new(queue);
        let config = DrainConfig { clock: Arc::clone(&clock), ..DrainConfig::new(jitter) };
        let drainer =
            Drainer::new(Arc::<FsQueue>::clone(&queue), Arc::new(stack), known.clone(), config);
        let shutdown = CancellationToken::new();
        let world = async {
            for n in 0..12 {
                if n < events[restart % 4] {
                    queue.push(envelope(&format!("e{restart}-{n}"))).await.unwrap();
                }
                sleep(HOUR / 12).await;
            }
            shutdown.cancel();
        };
        if restart < 4 {
            let (report, ()) = tokio::join!(drainer.run(Until::Idle, &shutdown), world);
            retried += report.retried;
            let is_open = known.state("http://receiver/") == BreakerState::Open;
            assert_eq!(is_open, events[restart] > 1);
            receivers::save(&layout.clone().into(), &known.snapshot(), &BreakerSnapshot::default())
                .unwrap();
            drop((drainer, queue));
            sleep(HOUR * 11).await;
        } else {
            receiver.recover();
            retried += drainer.run(Until::Idle, &shutdown).await.retried;
            assert_eq!(queue.depth().await.unwrap(), Depth::default());
        }
    }
    assert_eq!((receiver.stored(), retried), (events.iter().sum(), 0));
    receiver.attempts().len()
}

#[tokio::test]
async fn what_is_known_about_receivers_is_kept_for_the_owner_alone() {
    let directory = TempDir::new().unwrap();
    let layout = Layout::new(directory.path());
    Spool::new(layout.clone()).create().unwrap();
    assert_eq!(receivers::load(&layout), BreakerSnapshot::default());
    let nothing = BreakerSnapshot::default();
    let known = one("http://a/");
    receivers::save(&layout.clone().into(), &known, &nothing).unwrap();
    assert_eq!(receivers::load(&layout), known);
    let mode = std::fs::metadata(layout.receivers()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(beside(&layout.queue()), ["receivers.json", "receivers.lock"]);
}

#[tokio::test]
async fn several_processes_keep_what_each_has_learned() {
    let directory = TempDir::new().unwrap();
    let layout = Layout::new(directory.path());
    Spool::new(layout.clone()).create().unwrap();
    let nothing = BreakerSnapshot::default();
    let both = BreakerSnapshot { receivers: [one("http://a/"), one("http://b/")].map(only).into() };
    receivers::save(&layout.clone().into(), &both, &nothing).unwrap();

    // Both begin with that. One finds that the first is back, the other that the second fails in a new way.
    let (mut one_knows, mut other_knows) = (both.clone(), both.clone());
    one_knows.receivers[0].state = BreakerState::Closed;
    one_knows.receivers[0].last_failure = None;
    other_knows.receivers[1].failures_in_a_row += 1;
    // What goes with the time alone is no news.
    other_knows.receivers[0].recent_attempts = 0;
    other_knows.receivers.push(only(one("http://c/")));
    receivers::save(&layout.clone().into(), &one_knows, &both).unwrap();
    receivers::save(&layout.clone().into(), &other_knows, &both).unwrap();
    let kept = receivers::load(&layout).receivers;
    assert_eq!(kept[0], one_knows.receivers[0]);
    assert_eq!(kept[1..], other_knows.receivers[1..]);
}

fn only(mut snapshot: BreakerSnapshot) -> ReceiverHealth {
    snapshot.receivers.remove(0)
}

#[tokio::test]
async fn a_broken_file_is_passed_over_and_replaced() {
    let directory = TempDir::new().unwrap();
    let layout = Layout::new(directory.path());
    Spool::new(layout.clone()).create().unwrap();
    let known = one("http://a/");
    let whole = serde_json::to_vec(&known).unwrap();
    let broken: [&[u8]; 6] =
        [b"", b"{", b"null", &whole[..whole.len() / 2], &[0; 4096], b"{\"receivers\":[{}]}"];
    for bytes in broken {
        std::fs::write(layout.receivers(), bytes).unwrap();
        assert_eq!(receivers::load(&layout), BreakerSnapshot::default());
        receivers::save(&layout.clone().into(), &known, &BreakerSnapshot::default()).unwrap();
        assert_eq!(receivers::load(&layout), known);
    }
    std::fs::remove_file(layout.receivers()).unwrap();
    std::fs::create_dir(layout.receivers()).unwrap();
    assert_eq!(receivers::load(&layout), BreakerSnapshot::default());
    assert!(receivers::save(&layout.clone().into(), &known, &BreakerSnapshot::default()).is_err());
}

fn envelope(id: &str) -> Envelope {
    let at = Timestamp::from_millis(1_800_000_000_000);
    Envelope::new(id.parse().unwrap(), at, "http://receiver/", Source::default(), &b"{}"[..])
}

/// What is known after one attempt at a receiver that is away.
fn one(destination: &str) -> BreakerSnapshot {
    let now = SystemClock.now();
    let text = serde_json::json!({ "receivers": [{
        "destination": destination, "state": "open", "since": now, "failuresInARow": 10,
        "recentAttempts": 10, "recentFailures": 10, "nextProbe": now,
        "lastFailure": { "at": now, "code": "unreachable", "message": "connection refused" },
    }]});
    serde_json::from_value(text).unwrap()
}

fn beside(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.path().is_file());
    let mut names: Vec<_> = files.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
