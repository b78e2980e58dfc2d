//! A store that is away or hangs, and bodies that take too long.

use std::convert::Infallible;
use std::time::Duration;

use arrakis_core::testkit::fakes::Fault;
use axum::body::{Body, Bytes};
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep};

use super::{HOOK, Server, get, post};

#[tokio::test(start_paused = true)]
async fn readiness_turns_red_when_the_store_is_away_or_hangs_and_green_again() {
    let server = Server::new();
    for fault in [Fault::Unavailable, Fault::Hanging] {
        server.store.set(Fault::None);
        sleep(Duration::from_secs(1)).await; // the last answer is out of date
        assert_eq!(server.ask(get("/readyz")).await.status(), 200);
        server.store.set(fault);
        let since = Instant::now();
        let red = loop {
            let answer = server.ask(get("/readyz")).await;
            if answer.status() == 503 {
                break answer;
            }
            sleep(Duration::from_millis(10)).await;
        };
        // Time is the test's own: it passes only where somebody waits for it.
        assert!(since.elapsed() < Duration::from_secs(2), "{fault:?}");
        assert_eq!(red.headers()["retry-after"], "1");
        let body = axum::body::to_bytes(red.into_body(), 1000).await.unwrap();
        assert!(body.starts_with(br#"{"success":false,"error":{"code":"unavailable""#), "{body:?}");
        assert_eq!(server.ask(get("/healthz")).await.status(), 200);
    }
    server.store.set(Fault::None);
    // The question that hangs is given up, and the next one is answered.
    sleep(Duration::from_secs(60)).await;
    assert_eq!(server.ask(get("/readyz")).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_no_events_is_not_ready_even_if_it_has_room_for_a_probe() {
    let server = Server::new();
    for taken_since in [false, true] {
        server.store.set(Fault::Unavailable);
        assert_eq!(server.ask(post(HOOK)).await.status(), 503);
        server.store.set(Fault::None);
        assert_eq!(server.ask(get("/readyz")).await.status(), 503);
        if taken_since {
            assert_eq!(server.ask(post(HOOK)).await.status(), 200);
        } else {
            sleep(Duration::from_secs(4)).await;
        }
        assert_eq!(server.ask(get("/readyz")).await.status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn impatient_probes_of_a_store_that_hangs_do_not_pile_up() {
    let server = Server::new();
    server.store.set(Fault::Hanging);
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(20) {
        let probe = server.ask(get("/readyz"));
        match tokio::time::timeout(Duration::from_millis(100), probe).await {
            Ok(answer) => assert_eq!(answer.status(), 503),
            Err(_) => assert!(since.elapsed() < Duration::from_secs(2), "it is known to be red"),
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(server.store.met(), 1, "the store was asked once");
}

#[tokio::test(start_paused = true)]
async fn probes_share_an_answer_for_a_moment() {
    let server = Server::new();
    server.store.set(Fault::Unavailable);
    for _ in 0..100 {
        assert_eq!(server.ask(get("/readyz")).await.status(), 503);
    }
    assert_eq!(server.store.met(), 1);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(server.ask(get("/readyz")).await.status(), 503);
    assert_eq!(server.store.met(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_ends_in_503_and_not_in_hanging_clients() {
    let server = Server::new();
    for fault in [Fault::Unavailable, Fault::Hanging] {
        server.store.set(fault);
        let answer = server.ask(post(HOOK)).await;
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], "1");
    }
    server.store.set(Fault::None);
    assert_eq!(server.ask(post(HOOK)).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn small_bodies_have_memory_that_large_ones_do_not_take() {
    let server = Server::new();
    // Both are whole but for their end, and take all memory for large bodies.
    let endless = || {
        stream::iter([Ok::<Bytes, Infallible>(vec![b' '; 32 << 20].into())])
            .chain(stream::pending())
    };
    let large = || server.ask(post(Body::from_stream(endless())));
    let others = async {
        assert_eq!(server.ask(post("x".repeat(100_000))).await.status(), 503);
        server.ask(post(HOOK)).await.status()
    };
    tokio::select! {
        biased;
        _ = large() => panic!("a body without an end was answered"),
        _ = large() => panic!("a body without an end was answered"),
        status = others => assert_eq!(status, 200),
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_in_is_not_waited_for_for_ever() {
    let server = Server::new();
    let drops = stream::repeat(Bytes::from_static(b" ")).then(|byte| async {
        sleep(Duration::from_secs(5)).await;
        Ok::<_, Infallible>(byte)
    });
    let trickle = server.ask(post(Body::from_stream(drops)));
    let answer = tokio::time::timeout(Duration::from_secs(120), trickle).await.unwrap();
    assert_eq!(answer.status(), 503);
}
