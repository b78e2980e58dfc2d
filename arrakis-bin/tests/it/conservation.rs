//! Every event is accounted for, with the real programs: what they count, through kills, against what a
//! test has fed them and the database has stored.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Output;

use crate::support::world::{Up, World, assert_silent, feed, payloads, start};
use arrakis_store_fs::{DrainerLock, Layout, Spool};
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// The home's spool, as `arrakis status --json` shows it.
fn spool(world: &World) -> Value {
    let status = world.arrakis(&["status", "--json"]);
    let mut status: Value = serde_json::from_slice(&status.stdout).unwrap();
    status["spool"].take()
}

fn count(spool: &Value, names: &[&str]) -> u64 {
    names.iter().map(|name| spool[name].as_u64().unwrap()).sum()
}

const PRESENT: [&str; 4] = ["pending", "processing", "failed", "quarantined"];
const SETTLED: [&str; 3] = ["delivered", "duplicate", "discarded"];
const UNSURE: [&str; 2] = ["unsureCaptured", "unsureSettled"];

/// Status says that it adds up; exactly, unless something happened a moment ago.
fn assert_adds_up(spool: &Value) {
    assert!(adds_up(spool), "{spool:#}");
}

fn adds_up(spool: &Value) -> bool {
    let verdict = spool["balance"]["verdict"].as_str().unwrap();
    verdict == "even" || verdict == "within" && spool["balance"]["events"] == 1
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What the server says of its spools to a key that may read.
fn spools(world: &World, up: &Up) -> Value {
    let created =
        world.arrakis(&["keys", "create", "--name", "r", "--scope", "read", "--json"]).stdout;
    let created: Value = serde_json::from_slice(&created).unwrap();
    let secret = created["secret"].as_str().unwrap();
    let mut stream = TcpStream::connect(up.address()).unwrap();
    let request = format!(
        "GET /api/spools HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {secret}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let mut body: Value = serde_json::from_str(body).unwrap();
    body["spools"].take()
}

#[test]
fn twenty_hooks_at_once_are_counted_exactly() {
    let world = World::new();
    let children: Vec<_> = (0..20)
        .map(|n| start(&mut world.lone_hook(), format!("{{\"n\":{n}}}").as_bytes()))
        .collect();
    for child in children {
        assert_silent(&child.wait_with_output().unwrap());
    }
    let spool = spool(&world);
    assert_eq!(count(&spool, &["captured"]), 20);
    assert_eq!(count(&spool, &["pending"]), 20);
    assert_eq!(count(&spool, &UNSURE), 0);
    assert_adds_up(&spool);
}

#[test]
fn what_hooks_and_drainers_that_are_killed_leave_adds_up_within_the_kills() {
    let world = World::new();
    let up = world.up();
    let mut random = rand::rngs::StdRng::seed_from_u64(6);
    let (mut acknowledged, mut hooks_killed, mut drainers_killed) = (0, 0, 0);
    let payloads = payloads();
    // When a kill strikes is not the test's choice, so it goes on until enough have.
    for (n, payload) in payloads.values().cycle().enumerate() {
        if n >= payloads.len() && hooks_killed > 10 && drainers_killed > 10 {
            break;
        }
        assert!(n < 2000, "only {hooks_killed} hooks and {drainers_killed} drainers were killed");
        if random.random_ratio(1, 3) {
            let mut child = start(&mut world.hook(), payload);
            for _ in 0..random.random_range(0..40) {
                std::thread::yield_now();
            }
            child.kill().unwrap();
            if child.wait().unwrap().success() {
                acknowledged += 1;
            } else {
                hooks_killed += 1;
            }
        } else {
            feed(world.hook(), payload);
            acknowledged += 1;
        }
        if random.random_ratio(1, 4) {
            drainers_killed += world.kill_drainers() as u64;
        }
    }
    world.kill_drainers();
    assert!(world.arrakis(&["drain", "--once"]).status.success());
    // A drainer that started during the kills may still hold some of them.
    world.wait_until("every event is settled", |world| {
        world.spooled("pending").is_empty() && world.spooled("processing").is_empty()
    });

    let spool = spool(&world);
    let verdict = spool["balance"]["verdict"].as_str().unwrap();
    assert!(verdict == "even" || verdict == "within", "{spool:#}");
    assert_eq!(count(&spool, &PRESENT), 0, "{spool:#}");
    // The oracle: what is stored was captured, and what was captured is stored.
    let stored = u64::try_from(world.count("request_ids")).unwrap();
    assert!(acknowledged <= stored && stored <= acknowledged + hooks_killed);
    let (captured, unsure) = (count(&spool, &["captured"]), count(&spool, &["unsureCaptured"]));
    assert!((captured..=captured + unsure).contains(&stored), "{stored} are stored: {spool:#}");
    assert!(unsure <= hooks_killed, "{unsure} after {hooks_killed} kills");
    let (left, unsure) = (count(&spool, &SETTLED), count(&spool, &["unsureSettled"]));
    assert!((left..=left + unsure).contains(&stored), "{stored} are stored: {spool:#}");
    // A drainer settles in two lanes at once.
    assert!(unsure <= 2 * drainers_killed, "{unsure} after {drainers_killed} kills");
    drop(up);
}

#[test]
fn an_event_that_vanishes_is_told_with_what_to_do_until_it_is_accepted() {
    let world = World::new();
    for n in 0..3 {
        feed(world.lone_hook(), format!("{{\"n\":{n}}}").as_bytes());
    }
    assert_adds_up(&spool(&world));
    fs::remove_file(&world.spooled("pending")[0]).unwrap();
    // A moment after the change the look allows for one event that moved.
    fs::remove_file(&world.spooled("pending")[0]).unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    let pending = fs::File::open(world.home().join("queue/pending")).unwrap();
    pending.set_modified(long_ago).unwrap();
    assert_eq!(spool(&world)["balance"], json!({ "verdict": "missing", "events": 2 }));
    let said = text(&world.arrakis(&["status"]));
    assert!(said.contains("3 captured = 0 delivered + 1 pending"), "{said}");
    assert!(said.contains("2 events came in that neither left nor are here"), "{said}");

    let doctor = world.arrakis(&["doctor", "--json"]);
    let checks: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let check = checks.as_array().unwrap().iter().find(|check| check["name"] == "conservation");
    assert_eq!(check.unwrap()["outcome"], "warning", "{checks:#}");

    let accepted = world.arrakis(&["doctor", "--accept-counts"]);
    assert!(accepted.status.success());
    assert!(text(&accepted).contains("2 are counted as lost now"), "{}", text(&accepted));
    // The event with which doctor tries the hook has woken a drainer.
    world.wait_until("what is there adds up", |world| adds_up(&spool(world)));
    assert_eq!(count(&spool(&world), &["lost"]), 2);
}

#[test]
fn what_is_refused_is_counted_apart_and_told() {
    let world = World::new();
    feed(world.lone_hook(), b"{}");
    fs::write(world.home().join("queue/full"), b"").unwrap();
    feed(world.lone_hook(), b"{}");
    let spool = spool(&world);
    assert_eq!((count(&spool, &["captured"]), count(&spool, &["refused"])), (1, 1));
    assert_adds_up(&spool);
    let said = text(&world.arrakis(&["status"]));
    assert!(said.contains("1 event could not be kept"), "{said}");
    assert!(said.contains("it is full and refuses new events"), "{said}");
}

#[test]
fn the_server_shows_the_spool_of_a_drainer_that_has_ended() {
    let world = World::new();
    let layout = Layout::new(world.home());
    Spool::new(layout.clone()).create().unwrap();
    // The drainer that the server wakes finds this lock taken: the test drains.
    let _lock = DrainerLock::try_acquire(&layout).unwrap().unwrap();
    let up = world.up();
    assert_eq!(spools(&world, &up), json!([]));
    for n in 0..3 {
        feed(world.lone_hook(), format!("{{\"session_id\":\"s\",\"n\":{n}}}").as_bytes());
    }
    assert!(world.arrakis(&["drain", "--once"]).status.success());
    let heard = spools(&world, &up);
    let own = spool(&world);
    assert_eq!(heard.as_array().unwrap().len(), 1, "{heard:#}");
    let report = &heard[0];
    assert_eq!(report["spoolId"], own["spoolId"]);
    assert_eq!(report["home"], json!(world.home()));
    for name in ["captured", "delivered", "pending", "processing", "failed", "refused"] {
        assert_eq!(report[name], own[name], "{name}");
    }
    assert_eq!((count(report, &["delivered"]), count(report, &["pending"])), (3, 0));
}
