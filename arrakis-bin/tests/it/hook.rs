//! The real hook: whatever it is given, it exits 0 in time, prints nothing, and keeps what came.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use crate::support::world::{World, assert_silent, captured, feed, payloads, start};
use arrakis_core::base::conservation::Counters;
use arrakis_core::base::digest::Digest;
use arrakis_core::base::envelope::{Envelope, TruncationReason};
use arrakis_core::base::limits::PAYLOAD_MAX_BYTES;
use arrakis_store_fs::Layout;
use arrakis_store_fs::spool::counters;
use arrakis_store_fs::spool::format::decode;
use serde_json::{Value, json};

fn read(path: &Path) -> Envelope {
    decode(&fs::read(path).unwrap().into()).unwrap()
}

/// The one event that was captured.
fn only(world: &World) -> Envelope {
    let files = world.spooled("pending");
    assert_eq!(files.len(), 1);
    read(&files[0])
}

fn troubles(home: &Path) -> Vec<Value> {
    let log = fs::read_to_string(home.join("logs/webhook-error.log")).unwrap_or_default();
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn codes(home: &Path) -> Vec<String> {
    troubles(home).iter().map(|line| line["code"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_real_payload_is_kept_byte_for_byte() {
    let world = World::new();
    let payloads = payloads();
    for payload in payloads.values() {
        feed(world.lone_hook(), payload);
    }
    let files = world.spooled("pending");
    let mut kept: Vec<Vec<u8>> = files.iter().map(|file| read(file).payload.to_vec()).collect();
    let mut sent: Vec<Vec<u8>> = payloads.values().map(|p| captured(p).to_vec()).collect();
    kept.sort();
    sent.sort();
    assert_eq!(kept, sent);
    let counted = counters::read(&Layout::new(world.home())).unwrap().counters;
    assert_eq!(counted, Counters { captured: 135, ..Counters::default() });
    assert_eq!(fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(troubles(&world.home()).is_empty());
}

#[test]
fn unknown_events_and_fields_survive_and_the_header_tells_what_is_known() {
    let world = World::new();
    let payload = br#"{"session_id":"s","hook_event_name":"FromTheFuture","new":{"x":[1,2.50,null]}, "cwd":"/p"}"#;
    let mut hook = world.lone_hook();
    hook.env("USER", "paul").env("ANTHROPIC_API_KEY", "sk-ant-hidden");
    feed(hook, payload);
    let Envelope { header, payload: kept } = only(&world);
    assert_eq!(&kept[..], payload);
    assert_eq!(header.event_type.as_deref(), Some("FromTheFuture"));
    assert_eq!(header.session_id.as_deref(), Some("s"));
    assert_eq!(header.source.user.as_deref(), Some("paul"));
    assert_eq!(header.source.project_dir.as_deref(), Some("/p"));
    assert_eq!(header.destination, "http://127.0.0.1:3000/api/claude-hooks");
    let file = fs::read(&world.spooled("pending")[0]).unwrap();
    assert!(!String::from_utf8_lossy(&file).contains("hidden"));
}

#[test]
fn an_event_with_a_name_of_any_length_is_captured_whole_and_delivered() {
    let world = World::new();
    let _up = world.lone_up();
    // A control character takes six bytes in a header.
    let long = "/é\u{1}".repeat(18_000);
    let names = ["session_id", "cwd", "hook_event_name", "CLAUDE_PROJECT_DIR", "USER"];
    let mut sent = Vec::new();
    for name in names {
        let mut event = json!({ "session_id": "s", "cwd": "/p", "hook_event_name": "Stop" });
        let mut hook = world.lone_hook();
        match event.get_mut(name) {
            Some(field) => *field = long.as_str().into(),
            None => drop(hook.env(name, &long)),
        }
        sent.push(event.to_string());
        feed(hook, event.to_string().as_bytes());
        let Envelope { header, payload } = only(&world);
        assert_eq!(payload, event.to_string(), "{name}");
        assert_eq!(header.session_id.is_some(), name != "session_id", "a part names another");
        assert!(header.event_type.is_some() && header.source.project_dir.is_some(), "{name}");
        assert!(world.arrakis(&["drain", "--once"]).status.success());
        assert!(world.spooled("").is_empty(), "{name}");
    }
    let rows = world.rows();
    let stored: Vec<_> = rows.iter().filter_map(|row| row.request_body.clone()).collect();
    assert_eq!(stored, sent);
    assert!(rows.iter().all(|row| row.status == "SUCCESS"));
    assert_eq!(world.count("conversations"), 1, "a session with a long name is none");
    assert!(troubles(&world.home()).is_empty());
}

#[test]
fn what_is_no_event_is_kept_as_it_came() {
    for payload in [&b""[..], b"{\"broken\":", b"null", b"plain text", b"\xff\xfe\x00\x01"] {
        let world = World::new();
        feed(world.lone_hook(), payload);
        assert_eq!(&only(&world).payload[..], captured(payload));
        assert_eq!(codes(&world.home()), ["payload"], "and that is told");
    }
    let world = World::new();
    feed(world.lone_hook(), b"{}\n\n");
    assert_eq!(&only(&world).payload[..], b"{}\n");
    assert!(troubles(&world.home()).is_empty());
}

#[test]
fn secrets_are_not_written() {
    let world = World::new();
    let secret = "ghp_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789";
    let payload = format!(r#"{{"session_id":"s","hook_event_name":"X","tool_input":"{secret}"}}"#);
    feed(world.lone_hook(), payload.as_bytes());
    let Envelope { header, payload } = only(&world);
    assert!(payload.windows(13).any(|bytes| bytes == b"[REDACTED:git"));
    assert_eq!(header.digest, Digest::of(&payload), "the digest is of what is kept");
    let removed: Vec<_> = header.redacted.iter().collect();
    assert_eq!(removed, [("github-token", 1)], "what was removed is known");
    let status = world.arrakis(&["status", "--json"]).stdout;
    let status: Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["spool"]["redacted"], json!({ "github-token": 1 }));
    let shown = String::from_utf8(world.arrakis(&["status"]).stdout).unwrap();
    assert!(shown.contains("redaction has removed 1 secret: 1 github-token"), "{shown}");
    assert!(!shown.contains(secret));
}

#[test]
fn what_would_be_removed_from_a_file_can_be_tested() {
    let world = World::new();
    let secret = "ghp_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789";
    let file = world.directory.path().join("tokens.txt");
    fs::write(&file, format!("harmless\n  {secret}\u{1b}[2J\n")).unwrap();
    let redact = |arguments: &[&str]| {
        let output = world.arrakis(&[&["redact", file.to_str().unwrap()], arguments].concat());
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(redact(&[]), "harmless\n  [REDACTED:github-token]\u{1b}[2J\n");
    let shown = redact(&["--test"]);
    assert_eq!(
        shown,
        format!("2:3  github-token    {secret}\n\n1 secret would be removed: 1 github-token\n")
    );
    let report: Value = serde_json::from_str(&redact(&["--test", "--json"])).unwrap();
    let found = json!({ "rule": "github-token", "line": 2, "column": 3, "start": 11, "end": 51, "text": secret });
    assert_eq!(report["findings"], json!([found]));
    assert_eq!(report["redacted"], json!({ "github-token": 1 }));
    assert!(!world.home().exists(), "nothing is written");

    fs::write(&file, "harmless\n").unwrap();
    assert_eq!(redact(&["--test"]), "Nothing would be removed.\n");
    let missing = world.arrakis(&["redact", "--test", "/nowhere"]);
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("cannot read /nowhere"));
}

#[test]
fn what_redaction_makes_too_long_is_cut_and_delivered() {
    let world = World::new();
    let up = world.lone_up();
    let secrets = "http://b:c0rRect-horse@h ".repeat(620_000);
    let payload = format!(r#"{{"session_id":"s","hook_event_name":"X","c":"{secrets}"}}"#);
    assert!(payload.len() < PAYLOAD_MAX_BYTES);
    feed(world.lone_hook(), payload.as_bytes());
    let Envelope { header, payload: kept } = only(&world);
    assert!(kept.len() <= PAYLOAD_MAX_BYTES && !kept.windows(9).any(|w| w == b"c0rRect-h"));
    let truncation = header.truncated.unwrap();
    assert_eq!(truncation.original_bytes, payload.len() as u64);
    assert_eq!(truncation.original_digest, Digest::of(payload.as_bytes()));
    assert_eq!(header.event_type.as_deref(), Some("X"), "the head still tells the event");
    assert!(world.arrakis(&["drain", "--once"]).status.success());
    assert!(world.spooled("").is_empty());
    assert_eq!(world.count("webhook_events"), 1);
    drop(up);
}

#[test]
fn five_megabytes_are_kept_whole() {
    let world = World::new();
    let payload =
        format!(r#"{{"session_id":"s","hook_event_name":"X","c":"{}"}}"#, "é".repeat(2_500_000));
    feed(world.lone_hook(), payload.as_bytes());
    assert_eq!(&only(&world).payload[..], payload.as_bytes());
}

#[test]
fn of_too_much_the_head_the_tail_and_the_digest_are_kept() {
    let world = World::new();
    let mut payload = br#"{"session_id":"s","hook_event_name":"X","c":""#.to_vec();
    payload.resize(40_000_000, b'x');
    payload.extend_from_slice(b"the end\"}");
    feed(world.lone_hook(), &payload);
    let Envelope { header, payload: kept } = only(&world);
    let truncation = header.truncated.unwrap();
    assert_eq!(truncation.reason, TruncationReason::TooLarge);
    assert_eq!(truncation.original_bytes, payload.len() as u64);
    assert_eq!(truncation.original_digest, Digest::of(&payload));
    let head = usize::try_from(truncation.head_bytes).unwrap();
    assert!(payload.starts_with(&kept[..head]) && payload.ends_with(&kept[head..]));
    assert_eq!(header.event_type.as_deref(), Some("X"), "the head still tells the event");
    assert_eq!(codes(&world.home()), ["stdin"]);
}

#[test]
fn two_hundred_megabytes_do_no_harm() {
    let world = World::new();
    feed(world.lone_hook(), &vec![b' '; 200_000_000]);
    assert!(only(&world).header.truncated.is_some());
}

#[test]
fn stdin_that_is_never_closed_is_not_waited_for() {
    let world = World::new();
    for (payload, whole) in [(&b"{\"session_id\":\"s\"}\n"[..], true), (b"{\"session", false)] {
        let mut hook = world.lone_hook();
        let mut child = hook
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, payload).unwrap();
        assert_silent(&child.wait_with_output().unwrap());
        drop(stdin);
        let newest = world.spooled("pending").into_iter().max().unwrap();
        let envelope = read(&newest);
        assert_eq!(&envelope.payload[..], captured(payload));
        assert_eq!(envelope.header.truncated.is_none(), whole);
    }
    assert_eq!(codes(&world.home()), ["stdin", "stdin"]);
}

#[test]
fn signals_do_not_stop_a_capture() {
    let world = World::new();
    let mut hook = world.lone_hook();
    let mut child =
        hook.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // More than a pipe holds: when it is written, the hook is reading and has set its signals.
    let payload = vec![b'x'; 1_000_000];
    std::io::Write::write_all(&mut stdin, &payload).unwrap();
    let process = nix::unistd::Pid::from_raw(child.id().cast_signed());
    use nix::sys::signal::Signal;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        nix::sys::signal::kill(process, signal).unwrap();
    }
    drop(stdin);
    assert_silent(&child.wait_with_output().unwrap());
    assert_eq!(only(&world).payload.len(), payload.len());
}

#[test]
fn a_home_that_cannot_be_written_sends_events_to_the_fallback_home() {
    let world = World::new();
    fs::write(world.home(), "a file where the home should be").unwrap();
    feed(world.lone_hook(), b"{}");
    let fallback = world.directory.path().join("fallback");
    let pending = fs::read_dir(fallback.join("queue/pending")).unwrap().count();
    assert_eq!(pending, 1);
    assert_eq!(fs::metadata(&fallback).unwrap().permissions().mode() & 0o777, 0o700);
    let codes = codes(&fallback);
    assert!(
        codes.contains(&"spool".to_owned()) && codes.contains(&"fallback".to_owned()),
        "{codes:?}"
    );
}

#[test]
fn a_fallback_home_that_is_open_to_others_is_not_used() {
    let world = World::new();
    fs::write(world.home(), "a file where the home should be").unwrap();
    let fallback = world.directory.path().join("fallback");
    fs::create_dir(&fallback).unwrap();
    fs::set_permissions(&fallback, fs::Permissions::from_mode(0o777)).unwrap();
    feed(world.lone_hook(), b"{}");
    assert!(!fallback.join("queue").exists());
}

#[test]
fn a_full_spool_refuses_and_says_so() {
    let world = World::new();
    feed(world.lone_hook(), b"{}");
    fs::write(world.home().join("queue/full"), b"").unwrap();
    feed(world.lone_hook(), b"{}");
    assert_eq!(world.spooled("pending").len(), 1);
    let trouble = &troubles(&world.home())[0];
    assert_eq!((&trouble["level"], &trouble["captured"]), (&"error".into(), &false.into()));
    let counted = counters::read(&Layout::new(world.home())).unwrap().counters;
    assert_eq!(counted, Counters { captured: 1, refused: 1, ..Counters::default() });
}

#[test]
fn a_broken_configuration_is_told_and_costs_no_event() {
    let world = World::new();
    fs::create_dir(world.home()).unwrap();
    fs::write(world.home().join("config.toml"), "url = \nnonsense [").unwrap();
    feed(world.lone_hook(), b"{}");
    only(&world);
    assert_eq!(codes(&world.home()), ["config"]);

    let world = World::new();
    let mut hook = world.lone_hook();
    hook.env("ARRAKIS_URL", format!("http://h/{}", "x".repeat(70_000)));
    feed(hook, b"{}");
    only(&world);
    assert_eq!(codes(&world.home()), ["config"], "a URL without end fits into no header");
}

#[test]
fn a_drainer_that_cannot_be_started_is_told_and_costs_no_event() {
    let world = World::new();
    let mut hook = world.hook();
    hook.env("ARRAKIS_BIN", "/nowhere/arrakis");
    feed(hook, b"{}");
    only(&world);
    assert_eq!(codes(&world.home()), ["drainer"]);
}

#[test]
fn arguments_and_missing_streams_change_nothing() {
    let world = World::new();
    for arguments in [&["--help"][..], &["--version", "x"], &["-x", "--", "y"]] {
        let mut hook = world.lone_hook();
        hook.args(arguments);
        feed(hook, b"{}");
    }
    let mut closed = world.command("sh");
    let line = format!("{} <&- >&- 2>&-", env!("CARGO_BIN_EXE_arrakis-hook"));
    closed.env("ARRAKIS_BIN", "true").args(["-c", &line]);
    assert_silent(&closed.output().unwrap());
    assert_eq!(world.spooled("pending").len(), 4);
}

#[test]
fn capture_can_be_switched_off() {
    let world = World::new();
    let mut hook = world.lone_hook();
    hook.env("CLAUDE_HOOK_ENABLED", "false");
    feed(hook, b"{}");
    assert!(!world.home().exists());
}

#[test]
fn twenty_hooks_at_once_capture_twenty_events() {
    let world = World::new();
    let children: Vec<_> = (0..20)
        .map(|n| start(&mut world.lone_hook(), format!("{{\"n\":{n}}}").as_bytes()))
        .collect();
    for child in children {
        assert_silent(&child.wait_with_output().unwrap());
    }
    assert_eq!(world.spooled("pending").len(), 20);
}
