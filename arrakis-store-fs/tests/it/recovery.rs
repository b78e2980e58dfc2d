//! How soon all works again after a death and after a full disk: with a real spool, on tokio's clock, which
//! is paused.

#![allow(clippy::print_stdout, reason = "figures are printed")]

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::{Clock, Timestamp};
use arrakis_core::base::retry::Jitter;
use arrakis_core::delivery::drain::{DrainConfig, Drainer, Until};
use arrakis_core::delivery::layers::{DeliveryConfig, delivery_stack};
use arrakis_core::delivery::queue::{Depth, Queue};
use arrakis_core::testkit::fakes::TokioClock;
use arrakis_core::testkit::queue::envelope;
use arrakis_core::testkit::receiver::FaultyReceiver;
use arrakis_store_fs::{FsQueue, FsQueueConfig, Layout, Spool};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::support::faulty::Faulty;
use crate::support::{home, on};

/// Within so long all must work again.
const BUDGET: Duration = Duration::from_secs(5);

/// How often it is looked whether it does.
const LOOK: Duration = Duration::from_millis(100);

struct World {
    _home: tempfile::TempDir,
    layout: Layout,
    fs: Faulty,
    queue: Arc<FsQueue>,
    receiver: Arc<FaultyReceiver>,
    drainer: Drainer,
    shutdown: CancellationToken,
}

impl World {
    fn new() -> Self {
        let (guard, layout) = home();
        let fs = Faulty::sound();
        let start = Timestamp::from_millis(1_800_000_000_000);
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new(start));
        let dir = on(layout.clone(), Arc::new(fs.clone())).with_clock(Arc::clone(&clock));
        let queue = FsQueue::open(dir, FsQueueConfig::default()).unwrap();
        let queue = Arc::new(queue);
        let jitter = Jitter::new(StdRng::seed_from_u64(1));
        let receiver = Arc::<FaultyReceiver>::default();
        let delivery = DeliveryConfig::new(jitter.clone());
        let receivers = delivery.receivers.clone();
        let stack = Arc::new(delivery_stack(Arc::<FaultyReceiver>::clone(&receiver), delivery));
        let config = DrainConfig { clock, ..DrainConfig::new(jitter) };
        let drainer = Drainer::new(Arc::<FsQueue>::clone(&queue), stack, receivers, config);
        let shutdown = CancellationToken::new();
        Self { _home: guard, layout, fs, queue, receiver, drainer, shutdown }
    }

    /// What a hook does.
    fn capture(&self, id: &str) -> bool {
        let fs = Arc::new(self.fs.clone());
        Spool::new(on(self.layout.clone(), fs)).capture(&envelope(id, b"{}")).is_ok()
    }

    /// A drainer works while `world` goes on.
    async fn run(&self, world: impl Future<Output = ()>) {
        let world = async {
            world.await;
            self.shutdown.cancel();
        };
        tokio::join!(self.drainer.run(Until::Idle, &self.shutdown), world);
    }

    /// How long it takes from now until so many events are stored and nothing is left in the spool.
    async fn until_all_is_delivered(&self, events: usize) -> Duration {
        let since = Instant::now();
        while self.receiver.stored() < events || self.depth().await != Depth::default() {
            assert!(since.elapsed() < Duration::from_secs(3600), "{:?}", self.depth().await);
            sleep(LOOK).await;
        }
        since.elapsed()
    }

    async fn depth(&self) -> Depth {
        self.queue.depth().await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn the_events_of_a_dead_drainer_are_delivered_within_five_seconds() {
    let world = World::new();
    world
        .run(async {
            // Not at once with the drainer, which looks for the dead when it begins.
            sleep(Duration::from_millis(300)).await;
            let directory = world.layout.processing().join("1-dead");
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("lock"), b"").unwrap();
            // Written elsewhere: no drainer must see them on their way.
            let (_elsewhere, layout) = home();
            for n in 0..100 {
                let event = envelope(&format!("e{n}"), b"{}");
                let path = Spool::new(layout.clone()).capture(&event).unwrap();
                let bytes = fs::read(&path).unwrap();
                fs::write(directory.join(path.file_name().unwrap()), bytes).unwrap();
            }
            let took = world.until_all_is_delivered(100).await;
            println!("after a drainer's death its events are delivered within {took:?}");
            assert!(took < BUDGET, "{took:?}");
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn captures_deliveries_and_settlements_work_within_five_seconds_of_space() {
    for fails in [
        &["create", "write", "put", "append", "create_directory", "rename"][..],
        &["remove"],
        &[""],
    ] {
        let world = World::new();
        world
            .run(async {
                assert!(world.capture("before"));
                world.until_all_is_delivered(1).await;
                assert!(world.capture("leased"));
                world.fs.now(move |_, call, _| {
                    let fails = fails.iter().any(|name| call.starts_with(name));
                    if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
                });
                sleep(Duration::from_secs(600)).await;
                assert_ne!(world.depth().await, Depth::default(), "it was full: {fails:?}");
                let captured = world.capture("while-full");
                assert_eq!(captured, fails == ["remove"]);

                world.fs.now(|_, _, _| Ok(()));
                assert!(world.capture("after"), "at once");
                let took = world.until_all_is_delivered(3 + usize::from(captured)).await;
                println!("after space is back all is delivered and settled within {took:?}");
                assert!(took < BUDGET, "{fails:?}: {took:?}");
            })
            .await;
    }
}
