//! What one drainer finds out about a receiver, the next one knows.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::support::world::{World, feed, payloads};
use serde_json::Value;

/// A receiver that answers every request with this status; returns its URL and counts the requests.
fn receiver(status: &'static str) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/api/claude-hooks", listener.local_addr().unwrap());
    let requests = Arc::<AtomicU64>::default();
    let count = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            stream.read_exact(&mut [0; 1]).unwrap();
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                .unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            stream.read_to_end(&mut Vec::new()).ok();
        }
    });
    (url, requests)
}

/// Captures one event for a receiver, with nobody to deliver it.
fn capture(world: &World, url: &str) {
    std::fs::create_dir_all(world.home()).unwrap();
    let config = format!("url = {url:?}\napi_key = \"key\"\nretry_delay_ms = 1\n");
    std::fs::write(world.home().join("config.toml"), config).unwrap();
    feed(world.lone_hook(), payloads().values().next().unwrap());
    assert_eq!(world.spooled("pending").len(), 1);
}

fn known(world: &World) -> Value {
    let text = std::fs::read(world.home().join("queue/receivers.json")).unwrap();
    serde_json::from_slice::<Value>(&text).unwrap()["receivers"][0].clone()
}

fn assert_success(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn drainers_that_come_and_go_leave_an_ill_receiver_alone() {
    let world = World::new();
    let (url, requests) = receiver("503 No");
    capture(&world, &url);
    let started = Instant::now();
    for _ in 0..20 {
        assert_success(&world.arrakis(&["drain", "--once"]));
    }
    let (requests, probes) = (requests.load(Ordering::SeqCst), started.elapsed().as_secs() / 5);
    assert!((10..=10 + probes).contains(&requests), "{requests}, and {probes} probes at most");
    let known = known(&world);
    assert_eq!((&known["destination"], &known["state"]), (&url.into(), &"open".into()));
    assert_eq!(known["lastFailure"]["code"], "unavailable");
    let file = world.home().join("queue/receivers.json");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(world.spooled("pending").len(), 1, "no round is lost");
    assert!(!world.home().join("queue/attempts").read_dir().unwrap().any(|_| true));
}

#[test]
fn a_key_that_is_not_known_is_told() {
    let world = World::new();
    let (url, _) = receiver("401 Who");
    capture(&world, &url);
    assert_success(&world.arrakis(&["drain", "--once"]));
    let refused = known(&world);
    assert_eq!((&refused["state"], &refused["failuresInARow"]), (&"closed".into(), &0.into()));
    assert_eq!(refused["lastFailure"]["code"], "misconfigured");
    let message = refused["lastFailure"]["message"].as_str().unwrap();
    assert!(message.contains("arrakis keys create"), "{message}");
    std::fs::write(world.home().join("queue/receivers.json"), "broken").unwrap();
    assert_success(&world.arrakis(&["drain", "--once"]));
    assert_eq!(known(&world)["lastFailure"]["message"], message, "a broken file is replaced");
}
