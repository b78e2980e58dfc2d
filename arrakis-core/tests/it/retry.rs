//! Attempts within a round: how many, how far apart, and within which budget.

use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::{SystemClock, Timestamp};
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::base::retry::{FixedRetry, Jitter};
use arrakis_core::delivery::layers::{AttemptPolicy, DeliveryConfig, delivery_stack};
use arrakis_core::delivery::receiver::Receivers;
use arrakis_core::delivery::transport::{
    Batch, ServiceTransport, Transport, TransportError, TransportService,
};
use arrakis_core::testkit::receiver::{FaultyReceiver, failed, unavailable, unreachable};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};
use tower::Layer;
use tower::retry::RetryLayer;

/// A receiver, and the way to it with nothing but repeats.
fn world() -> (Arc<FaultyReceiver>, Arc<dyn Transport>) {
    let receiver = Arc::<FaultyReceiver>::default();
    let receivers = Receivers::new(Arc::new(SystemClock), jitter());
    let policy = AttemptPolicy::new(Arc::new(FixedRetry::default()), jitter(), receivers);
    let service = TransportService::new(Arc::<FaultyReceiver>::clone(&receiver));
    let repeating = RetryLayer::new(policy).layer(service);
    (receiver, Arc::new(ServiceTransport::new(repeating)))
}

fn jitter() -> Jitter {
    Jitter::new(StdRng::seed_from_u64(1))
}

fn one(destination: &str, id: usize) -> Batch {
    let (id, at) = (format!("e{id}").parse().unwrap(), Timestamp::EPOCH);
    Batch::one(Arc::new(Envelope::new(id, at, destination, Source::default(), &b"{}"[..])))
}

#[tokio::test(start_paused = true)]
async fn a_round_is_three_attempts_a_second_apart_and_never_less() {
    let faults: [fn() -> TransportError; 4] =
        [unreachable, failed, || unavailable(None), || unavailable(Some(Duration::ZERO))];
    for fault in faults {
        let receiver = Arc::<FaultyReceiver>::default();
        receiver.fail(move |_| Some(fault()));
        let stack =
            delivery_stack(Arc::<FaultyReceiver>::clone(&receiver), DeliveryConfig::new(jitter()));
        let error = stack.deliver(one("http://a/", 0)).await.unwrap_err();
        assert_eq!(error.code(), fault().code());
        let attempts = receiver.attempts();
        assert_eq!(attempts.len(), 3, "{error}");
        for pair in attempts.windows(2) {
            let pause = pair[1].0 - pair[0].0;
            assert!((1000..=1501).contains(&pause.as_millis()), "{pause:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_receiver_asks_for_comes_before_the_second_and_too_much_ends_the_round() {
    for (asked, attempts) in [(3, 3), (5, 3), (6, 1), (3600, 1)] {
        let (receiver, repeating) = world();
        let asked = Duration::from_secs(asked);
        receiver.fail(move |_| Some(unavailable(Some(asked))));
        repeating.deliver(one("http://a/", 0)).await.unwrap_err();
        assert_eq!(receiver.attempts().len(), attempts, "{asked:?}");
        for pair in receiver.attempts().windows(2) {
            assert!(pair[1].0 - pair[0].0 >= asked);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_round_that_the_breaker_ends_tells_what_the_last_attempt_met() {
    let receiver = Arc::<FaultyReceiver>::default();
    receiver.fail(|_| Some(unreachable()));
    let stack =
        delivery_stack(Arc::<FaultyReceiver>::clone(&receiver), DeliveryConfig::new(jitter()));
    let mut codes = Vec::new();
    for n in 0..5 {
        codes.push(stack.deliver(one("http://a/", n)).await.unwrap_err().code());
    }
    assert_eq!(receiver.attempts().len(), 10, "three rounds and the first attempt of the fourth");
    assert_eq!(codes[3..], ["unreachable", "breaker_open"]);
}

#[tokio::test(start_paused = true)]
async fn repeats_add_a_fifth_to_the_attempts_of_a_busy_receiver_and_ten_in_ten_seconds() {
    let (receiver, repeating) = world();
    receiver.fail(|_| Some(unreachable()));
    let start = Instant::now();
    let (per_second, seconds) = (100, 60);
    let calls: Vec<_> = (0..per_second * seconds)
        .map(|n| {
            let repeating = Arc::clone(&repeating);
            tokio::spawn(async move {
                sleep(Duration::from_secs(1) * n / per_second).await;
                repeating.deliver(one("http://a/", n as usize)).await.unwrap_err();
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    // Ten seconds at a time; what is repeated at the end of them comes at most 1.5 s later.
    let mut windows = [0; 7];
    for (at, _) in receiver.attempts() {
        windows[usize::try_from((at - start).as_secs() / 10).unwrap()] += 1;
    }
    assert!(windows[..6].iter().all(|attempts| (1100..1250).contains(attempts)), "{windows:?}");
    assert!(windows.iter().sum::<u32>() <= 6000 + 6000 / 5 + 6 * 10, "{windows:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lone_event_has_all_its_attempts_and_no_receiver_takes_them_from_another() {
    let (receiver, repeating) = world();
    receiver.fail(|_| Some(unreachable()));
    let busy = (0..100).map(|n| repeating.deliver(one("http://busy/", n)));
    let busy = futures_util::future::join_all(busy);
    let lone = async {
        for n in 0..10 {
            repeating.deliver(one("http://lone/", n)).await.unwrap_err();
            sleep(Duration::from_secs(10)).await;
        }
    };
    tokio::join!(busy, lone);
    let attempts = receiver.attempts();
    let (lone, busy): (Vec<_>, Vec<_>) =
        attempts.iter().partition(|(_, batch)| batch.destination() == "http://lone/");
    assert_eq!(lone.len(), 10 * 3);
    assert!(busy.len() <= 130, "{}", busy.len());
}
