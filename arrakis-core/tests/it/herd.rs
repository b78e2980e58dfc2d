//! Many clients that lost one receiver at the same moment come back spread.

use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::{Clock, Timestamp};
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::base::retry::Jitter;
use arrakis_core::delivery::drain::{DrainConfig, Drainer, Until};
use arrakis_core::delivery::layers::{DeliveryConfig, delivery_stack};
use arrakis_core::delivery::queue::{MemoryQueue, Queue};
use arrakis_core::testkit::fakes::TokioClock;
use arrakis_core::testkit::receiver::{FaultyReceiver, unreachable};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

const CLIENTS: usize = 500;

/// The time from the first arrival to the last is divided into equal buckets, so many that each has this
/// many arrivals on the average: enough for chance alone not to double one.
const PER_BUCKET: usize = 25;

/// Attempts of one client with longer pauses between them are rounds of their own, in seconds.
const ROUND_PAUSE: f64 = 4.0;

/// Lets every client lose the receiver at once and find it again after `outage`; returns when each
/// client made its attempts, in seconds. Meanwhile each captures an event every `fresh`, at its own time.
async fn attempts(outage: Duration, fresh: Option<Duration>) -> Vec<Vec<f64>> {
    let start = Instant::now();
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new(Timestamp::EPOCH));
    let receiver = Arc::<FaultyReceiver>::default();
    receiver.fail(|_| Some(unreachable()));
    let shutdown = CancellationToken::new();
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        let mut rng = StdRng::seed_from_u64(client as u64);
        let queue = Arc::new(MemoryQueue::new(Arc::clone(&clock)));
        for n in 0..3 {
            queue.push(envelope(client, n)).await.unwrap();
        }
        let phase = rng.random_range(0.0..1.0);
        let jitter = Jitter::new(rng);
        let delivery = DeliveryConfig::new(jitter.clone());
        let receivers = delivery.receivers.clone();
        let stack = Arc::new(delivery_stack(Arc::<FaultyReceiver>::clone(&receiver), delivery));
        let config = DrainConfig { clock: Arc::clone(&clock), ..DrainConfig::new(jitter) };
        let drainer = Drainer::new(Arc::<MemoryQueue>::clone(&queue), stack, receivers, config);
        let shutdown = shutdown.clone();
        clients.push(tokio::spawn(async move {
            let captures = async {
                let Some(fresh) = fresh else { return };
                sleep(fresh.mul_f64(phase)).await;
                for n in 3.. {
                    queue.push(envelope(client, n)).await.unwrap();
                    sleep(fresh).await;
                }
            };
            tokio::select! {
                _ = drainer.run(Until::Idle, &shutdown) => {}
                () = async { captures.await; std::future::pending().await } => {}
            }
        }));
    }
    sleep_until(start + outage).await;
    receiver.recover();
    // The wave after the longest delay of these outages; those at work are back within a minute.
    let rest = if fresh.is_some() { 100 } else { 900 };
    sleep_until(start + outage + Duration::from_secs(rest)).await;
    shutdown.cancel();
    for client in clients {
        client.await.unwrap();
    }
    let mut attempts = vec![Vec::new(); CLIENTS];
    for (at, batch) in receiver.attempts() {
        let id = batch.envelopes()[0].request_id().as_str();
        let client: usize = id.split('-').next().unwrap().parse().unwrap();
        attempts[client].push((at - start).as_secs_f64());
    }
    attempts
}

fn envelope(client: usize, n: usize) -> Envelope {
    let id = format!("{client}-{n}").parse().unwrap();
    Envelope::new(id, Timestamp::EPOCH, "http://receiver/", Source::default(), &b"{}"[..])
}

/// How many times the mean the busiest bucket gets.
fn peak(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    let (first, last) = (times[0], times[times.len() - 1]);
    let mut buckets = vec![0_usize; times.len() / PER_BUCKET];
    let width = (last - first) / buckets.len() as f64;
    let end = buckets.len() - 1;
    times.iter().for_each(|time| buckets[(((time - first) / width) as usize).min(end)] += 1);
    *buckets.iter().max().unwrap() as f64 / (times.len() as f64 / buckets.len() as f64)
}

/// When each client is back.
fn returns(attempts: &[Vec<f64>], outage: Duration) -> Vec<f64> {
    let back =
        |attempts: &Vec<f64>| attempts.iter().copied().find(|at| *at >= outage.as_secs_f64());
    attempts.iter().map(|attempts| back(attempts).unwrap()).collect()
}

/// When each client began its round of this number, if it made so many.
fn wave(attempts: &[Vec<f64>], number: usize) -> Vec<f64> {
    let round = |attempts: &Vec<f64>| {
        let begins = attempts.windows(2).filter(|pair| pair[1] - pair[0] > ROUND_PAUSE);
        begins.map(|pair| pair[1]).nth(number)
    };
    attempts.iter().filter_map(round).collect()
}

#[tokio::test(start_paused = true)]
async fn clients_that_come_back_together_come_spread() {
    // Between the first and the second wave of probes, the second and third, the third and fourth.
    for outage in [30, 120, 1000].map(Duration::from_secs) {
        let peak = peak(returns(&attempts(outage, None).await, outage));
        assert!(peak <= 2.0, "after {outage:?}: {peak} times the mean");
    }
}

#[tokio::test(start_paused = true)]
async fn each_wave_of_clients_is_spread_when_the_receiver_comes_back_amid_one() {
    let outage = Duration::from_secs(75);
    let attempts = attempts(outage, None).await;
    for (number, least) in [(0, CLIENTS), (1, 50)] {
        let wave = wave(&attempts, number);
        assert!(wave.len() >= least, "{} in wave {number}", wave.len());
        let peak = peak(wave);
        assert!(peak <= 2.0, "wave {number}: {peak} times the mean");
    }
}

#[tokio::test(start_paused = true)]
async fn clients_at_work_come_back_spread_too() {
    for fresh in [3, 10, 60].map(Duration::from_secs) {
        let outage = Duration::from_secs(100);
        let peak = peak(returns(&attempts(outage, Some(fresh)).await, outage));
        assert!(peak <= 2.0, "an event every {fresh:?}: {peak} times the mean");
    }
}
