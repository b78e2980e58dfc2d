//! From the hook to the database, with the real programs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::support::world::{World, assert_silent, captured, feed, payloads, start};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

/// Every real payload is stored exactly once, as it was captured.
fn assert_all_stored(world: &World) {
    let rows = world.rows();
    assert!(rows.iter().all(|row| row.status == "SUCCESS" || row.status == "DUPLICATE"));
    let mut stored: Vec<String> = rows
        .iter()
        .filter(|r| r.status == "SUCCESS")
        .filter_map(|r| r.request_body.clone())
        .collect();
    let mut sent: Vec<String> = payloads()
        .values()
        .map(|payload| String::from_utf8(captured(payload).to_vec()).unwrap())
        .collect();
    stored.sort();
    sent.sort();
    assert_eq!(stored, sent);
    for directory in ["pending", "processing", "failed", "quarantine"] {
        assert!(world.spooled(directory).is_empty(), "{directory} is empty");
    }
}

fn stored(world: &World) -> usize {
    if !world.home().join("arrakis.db").exists() {
        return 0;
    }
    usize::try_from(world.count("webhook_events WHERE status = 'SUCCESS'")).unwrap()
}

fn wait_until_all_stored(world: &World) {
    let all = payloads().len();
    world.wait_until("every event is stored and settled", |world| {
        let left = world.spooled("pending").len() + world.spooled("processing").len();
        stored(world) == all && left == 0
    });
}

#[test]
fn with_the_server_up_each_event_is_stored_once() {
    let world = World::new();
    let _up = world.up();
    for payload in payloads().values() {
        feed(world.hook(), payload);
    }
    wait_until_all_stored(&world);
    assert_all_stored(&world);
    assert_eq!(world.count("webhook_events"), 135, "nothing was delivered twice");
    assert_eq!(world.count("conversations"), 7);
}

#[test]
fn with_the_server_started_only_afterwards_each_event_is_stored_once() {
    let world = World::new();
    for payload in payloads().values() {
        feed(world.hook(), payload);
    }
    let _up = world.up();
    wait_until_all_stored(&world);
    assert_all_stored(&world);
}

#[test]
fn with_twenty_hooks_at_once_each_event_is_stored_once() {
    let world = World::new();
    let _up = world.up();
    let payloads = payloads();
    let all: Vec<_> = payloads.values().collect();
    for twenty in all.chunks(20) {
        let children: Vec<_> = twenty.iter().map(|p| start(&mut world.hook(), p)).collect();
        for child in children {
            assert_silent(&child.wait_with_output().unwrap());
        }
    }
    wait_until_all_stored(&world);
    assert_all_stored(&world);
}

#[test]
fn a_drainer_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    let world = World::new();
    let _up = world.up();
    let mut random = rand::rngs::StdRng::seed_from_u64(11);
    let mut kills = 0;
    for payload in payloads().values() {
        feed(world.hook(), payload);
        if random.random_ratio(1, 4) {
            kills += world.kill_drainers();
        }
    }
    assert!(kills > 10, "{kills} drainers were killed");
    assert!(world.arrakis(&["drain", "--once"]).status.success());
    wait_until_all_stored(&world);
    assert_all_stored(&world);
}

#[test]
fn a_server_that_is_killed_and_started_again_loses_and_doubles_nothing() {
    let world = World::new();
    let mut up = world.up();
    let address = up.address().to_owned();
    for (n, payload) in payloads().values().enumerate() {
        feed(world.hook(), payload);
        if n % 40 == 39 {
            up.child.kill().unwrap();
            up.child.wait().unwrap();
            up = world.up_at(&address);
        }
    }
    wait_until_all_stored(&world);
    assert_all_stored(&world);
}

#[test]
fn a_drainer_ends_in_good_order_on_sigterm() {
    let world = World::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/api/claude-hooks", silent.local_addr().unwrap());
    let mut hook = world.lone_hook();
    hook.env("CLAUDE_HOOK_API_URL", &url);
    feed(hook, b"{\"session_id\":\"s\"}");
    let mut drain = world.command(env!("CARGO_BIN_EXE_arrakis"));
    drain.env("CLAUDE_HOOK_API_URL", &url).env("CLAUDE_HOOK_API_KEY", "k");
    let mut drainer = drain.arg("drain").stdout(Stdio::null()).spawn().unwrap();
    // It has connected: a delivery is under way, and no answer will come.
    let _connection = silent.accept().unwrap();
    kill(Pid::from_raw(drainer.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(drainer.wait().unwrap().success());
    assert_eq!(world.spooled("pending").len(), 1, "the event was put back");
    assert!(world.spooled("processing").is_empty());
}

#[test]
fn a_200_from_something_else_deletes_nothing() {
    let world = World::new();
    let portal = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/api/claude-hooks", portal.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in portal.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            let mut request = [0; 65536];
            let read = stream.read(&mut request).unwrap();
            assert!(read > 0);
            let page =
                "HTTP/1.1 200 OK\r\nContent-Length: 15\r\nConnection: close\r\n\r\n<html>log in</h";
            stream.write_all(page.as_bytes()).ok();
        }
    });
    let mut hook = world.lone_hook();
    hook.env("CLAUDE_HOOK_API_URL", &url);
    feed(hook, b"{\"session_id\":\"s\"}");
    let mut drain = world.command(env!("CARGO_BIN_EXE_arrakis"));
    drain.env("CLAUDE_HOOK_API_URL", &url).env("CLAUDE_HOOK_API_KEY", "k");
    assert!(drain.args(["drain", "--once"]).output().unwrap().status.success());
    assert_eq!(world.spooled("pending").len(), 1);
    let log = std::fs::read_to_string(world.home().join("logs/webhook-error.log")).unwrap();
    assert!(log.contains("delivery is held") && log.contains("something else answers"), "{log}");
}

#[test]
fn direct_delivery_has_the_event_stored_when_the_hook_returns() {
    let world = World::new();
    let up = world.up();
    let config = world.home().join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("delivery = \"direct\"\n{text}")).unwrap();
    feed(world.hook(), br#"{"session_id":"s","hook_event_name":"Stop"}"#);
    assert_eq!(stored(&world), 1);
    up.stop();
    feed(world.hook(), br#"{"session_id":"s","hook_event_name":"SessionEnd"}"#);
    let waiting = world.spooled("pending").len() + world.spooled("processing").len();
    assert_eq!(waiting, 1, "without a server it waits in the spool");
}

#[test]
fn a_local_server_needs_no_certificates_of_the_system() {
    let world = World::new();
    let _up = world.lone_up();
    feed(world.lone_hook(), br#"{"session_id":"s","hook_event_name":"Stop"}"#);
    let mut drain = world.command(env!("CARGO_BIN_EXE_arrakis"));
    drain.args(["drain", "--once"]);
    drain.env("SSL_CERT_FILE", world.directory.path().join("none"));
    drain.env("SSL_CERT_DIR", world.directory.path().join("none"));
    assert!(drain.output().unwrap().status.success());
    assert_eq!(stored(&world), 1);
}

#[test]
fn what_the_fallback_home_holds_is_delivered_too() {
    let world = World::new();
    let up = world.lone_up();
    let broken = world.directory.path().join("broken");
    std::fs::write(&broken, "a file where a home should be").unwrap();
    let mut hook = world.lone_hook();
    hook.env("ARRAKIS_HOME", &broken).env("CLAUDE_HOOK_API_URL", &up.url);
    feed(hook, br#"{"session_id":"s","hook_event_name":"Stop"}"#);
    assert!(world.arrakis(&["drain", "--once"]).status.success());
    assert_eq!(stored(&world), 1);
}

#[test]
fn the_first_start_sets_everything_up_and_later_ones_leave_it() {
    let world = World::new();
    let up = world.up();
    let address = up.address().to_owned();
    let config = std::fs::read_to_string(world.home().join("config.toml")).unwrap();
    assert!(config.contains("api_key = \"ark_") && config.contains(&up.url), "{config}");
    for private in ["config.toml", "arrakis.db"] {
        let found = std::fs::metadata(world.home().join(private)).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, 0o600, "{private}");
    }
    assert_eq!(world.count("api_keys WHERE scope = 'ingest'"), 1);
    assert_eq!(world.count("api_keys WHERE scope = 'admin'"), 1);
    up.stop();
    let up = world.up_at(&address);
    assert_eq!(std::fs::read_to_string(world.home().join("config.toml")).unwrap(), config);
    assert_eq!(world.count("api_keys"), 2);

    let doctor = world.arrakis(&["doctor", "--json"]);
    let checks: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let chain = checks.as_array().unwrap().iter().find(|check| check["name"] == "chain").unwrap();
    assert_eq!(chain["outcome"], "ok", "{checks:#}");
    let status = world.arrakis(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&status["server"]["ok"], &status["spool"]["captured"]), (&true.into(), &1.into()));
    drop(up);
    assert_eq!(world.arrakis(&["doctor"]).status.code(), Some(1), "a server that is away is told");
}

#[test]
fn a_server_on_all_interfaces_is_reached_by_its_own_machine_and_may_move() {
    let world = World::new();
    world.up_at("0.0.0.0:0").stop();
    let config = world.home().join("config.toml");
    let read = || std::fs::read_to_string(&config).unwrap();
    let first = read();
    assert!(first.contains("url = \"http://127.0.0.1:"), "{first}");
    std::fs::write(&config, first.replace("127.0.0.1", "0.0.0.0")).unwrap();
    let up = world.up();
    assert!(read().contains(&up.url), "it moved, and hooks follow it");
}

#[test]
fn the_doctor_finds_the_chain_whole_where_the_server_keeps_another_store() {
    let elsewhere = World::new();
    let _up = elsewhere.up();
    let world = World::new();
    world.up().stop();
    std::fs::copy(elsewhere.home().join("config.toml"), world.home().join("config.toml")).unwrap();
    let doctor = world.arrakis(&["doctor"]);
    assert!(doctor.status.success(), "{}", String::from_utf8_lossy(&doctor.stdout));
    assert_eq!((stored(&elsewhere), stored(&world)), (1, 0));
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    let world = World::new();
    let mut status = world.command(env!("CARGO_BIN_EXE_arrakis"));
    let status = status.env("ARRAKIS_HOME", "").args(["status", "--json"]).output().unwrap();
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let default = world.directory.path().join(".arrakis");
    assert_eq!(status["home"], default.to_str().unwrap());
}

#[test]
fn the_production_server_runs_on_the_same_store() {
    let world = World::new();
    world.up().stop();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = world.home().join("config.toml");
    let mut server = world.command(env!("CARGO_BIN_EXE_arrakis-server"));
    server.args(["--listen", &format!("127.0.0.1:{port}")]);
    let text = std::fs::read_to_string(&config).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("url"));
    let url = format!("url = \"http://127.0.0.1:{port}/api/claude-hooks\"\n");
    std::fs::write(&config, url + &lines.collect::<Vec<_>>().join("\n")).unwrap();
    let mut server = server.stderr(Stdio::null()).spawn().unwrap();
    feed(world.hook(), br#"{"session_id":"s","hook_event_name":"Stop"}"#);
    world.wait_until("the event is stored", |world| stored(world) == 1);
    kill(Pid::from_raw(server.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(server.wait().unwrap().success());
}

#[test]
fn a_conversation_can_be_read() {
    let world = World::new();
    let _up = world.lone_up();
    for (_, payload) in payloads().iter().filter(|(name, _)| name.starts_with("agents3-")) {
        feed(world.lone_hook(), payload);
    }
    assert!(world.arrakis(&["drain", "--once"]).status.success());
    let session = "8493f639-8381-4545-8901-e884c944734a";
    let shown = world.arrakis(&["conversations", "show", session]);
    let text = String::from_utf8(shown.stdout).unwrap();
    for expected in ["@@play agents3", "echo from-subagent", "Done with agents3."] {
        assert!(text.contains(expected), "{text}");
    }
    let shown = world.arrakis(&["conversations", "show", session, "--json"]);
    let json: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(json["toolUses"].as_array().unwrap().len(), 6);
}
