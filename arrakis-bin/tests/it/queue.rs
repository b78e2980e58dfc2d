//! `arrakis queue` with the real programs: each command, beside a drainer, and on a full disk.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use crate::support::world::{World, run_where_mounting_is_allowed};
use arrakis_core::base::clock::{Clock, SystemClock, Timestamp};
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_store_fs::spool::layout::EntryName;
use arrakis_store_fs::{Layout, Spool};
use serde_json::Value;

/// A URL that nobody listens at, as long as no test asks for more.
const NOWHERE: &str = "http://127.0.0.1:9/api/claude-hooks";

fn layout(world: &World) -> Layout {
    Layout::new(world.home())
}

fn capture(world: &World, id: &str, payload: &[u8], url: &str) -> PathBuf {
    let now = SystemClock.now();
    let event = Envelope::new(id.parse().unwrap(), now, url, Source::default(), payload.to_vec());
    Spool::new(layout(world)).capture(&event).unwrap()
}

/// Gives a captured event's file the name that it has after `rounds` failed rounds.
fn age(path: &Path, directory: &Path, due: Timestamp, rounds: u32) {
    let name = EntryName::parse(path.file_name().unwrap().to_str().unwrap()).unwrap();
    let name = EntryName { due, rounds, ..name };
    fs::rename(path, directory.join(name.to_string())).unwrap();
}

/// Events that wait, that wait for an hour yet, and dead letters, in equal parts.
fn capture_many(world: &World, count: usize, url: &str) -> BTreeSet<String> {
    let layout = layout(world);
    let later = SystemClock.now().plus(std::time::Duration::from_secs(3600));
    let ids = (0..count).map(|n| {
        let id = format!("event-{n:04}");
        let payload = format!(r#"{{"session_id":"s","hook_event_name":"Stop","n":{n}}}"#);
        let path = capture(world, &id, payload.as_bytes(), url);
        match n % 3 {
            0 => {}
            1 => age(&path, &layout.pending(), later, 2),
            _ => age(&path, &layout.failed(), later, 6),
        }
        id
    });
    ids.collect()
}

fn queue(world: &World, arguments: &[&str]) -> Output {
    queue_with(world, arguments, "true")
}

/// Runs a command; `drainer` is the program that it may start.
fn queue_with(world: &World, arguments: &[&str], drainer: &str) -> Output {
    let mut command = world.command(env!("CARGO_BIN_EXE_arrakis"));
    command.arg("queue").args(arguments).env("ARRAKIS_BIN", drainer);
    command.stdin(Stdio::null()).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn drainer(world: &World) -> Child {
    let mut command = world.command(env!("CARGO_BIN_EXE_arrakis"));
    command.args(["drain"]).stdout(Stdio::null()).spawn().unwrap()
}

fn stored(world: &World) -> BTreeSet<String> {
    let rows = world.rows().into_iter().filter(|row| row.status == "SUCCESS");
    let mut ids = BTreeSet::new();
    for row in rows {
        assert!(ids.insert(row.request_id.clone()), "{} is stored twice", row.request_id);
    }
    ids
}

fn is_empty(world: &World) -> bool {
    ["pending", "processing", "failed", "quarantine"].iter().all(|d| world.spooled(d).is_empty())
}

#[test]
fn list_and_show_tell_everything_and_command_no_terminal() {
    let world = World::new();
    assert_eq!(text(&queue(&world, &["list"])), "The spool is empty.\n");
    assert_eq!(json(&queue(&world, &["list", "--all", "--json"])), Value::Array(Vec::new()));
    let evil = "\u{1b}]0;x\u{7}\u{202e}";
    let payload = serde_json::json!({ "session_id": format!("s{evil}"), "x": evil }).to_string();
    let path = capture(&world, "evil", payload.as_bytes(), NOWHERE);
    let directory = layout(&world).failed();
    age(&path, &directory, SystemClock.now(), 6);
    let failure = serde_json::json!(
        { "at": "2026-11-24T12:00:00Z", "round": 6, "code": "refused", "message": evil }
    );
    fs::write(layout(&world).attempts().join("evil.jsonl"), format!("{failure}\n")).unwrap();
    let aside = layout(&world).quarantine();
    fs::write(aside.join("odd.event"), b"\x1b[2J\xff not an event").unwrap();
    fs::write(aside.join("odd.event.reason"), format!("because {evil}\n")).unwrap();
    nix::unistd::mkfifo(&aside.join("pipe.event"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    capture(&world, "binary", &[0, 159], NOWHERE);

    let list = json(&queue(&world, &["list", "--json"]));
    let states: Vec<_> = list.as_array().unwrap().iter().map(|e| e["state"].clone()).collect();
    assert_eq!(states, ["pending", "failed", "quarantined", "quarantined"]);
    assert_eq!(list[1]["lastFailure"]["code"], "refused");
    assert_eq!(list[1]["rounds"], 6);
    assert_eq!(list[2]["problem"], format!("because {evil}"));
    let one = queue(&world, &["list", "--json", "--limit", "1"]);
    assert_eq!(json(&one).as_array().unwrap().len(), 1);
    assert!(String::from_utf8_lossy(&one.stderr).contains("The first 1 of 4"));
    let failed = json(&queue(&world, &["list", "--json", "--failure", "refused"]));
    assert_eq!(failed[0]["id"], "evil");

    let shown = json(&queue(&world, &["show", "evil", "--json"]));
    assert_eq!(shown["payload"]["x"], evil);
    assert_eq!(shown["history"][0]["message"], evil);
    assert_eq!(shown["header"]["destination"], NOWHERE);
    assert_eq!(json(&queue(&world, &["show", "binary", "--json"]))["payloadBase64"], "AJ8=");
    let odd = json(&queue(&world, &["show", "odd.event", "--json"]));
    assert_eq!(odd["fileBase64"], "G1sySv8gbm90IGFuIGV2ZW50");
    let none = queue(&world, &["show", "none"]);
    assert!(!none.status.success() && text(&none).contains("queue list"));

    for arguments in [
        &["list"][..],
        &["list", "--all"],
        &["list", "--json"],
        &["list", "--all", "--json"],
        &["show", "evil"],
        &["show", "evil", "--json"],
        &["show", "odd.event"],
        &["show", "pipe.event"],
        &["show", "binary"],
        &["verify"],
    ] {
        let output = queue(&world, arguments);
        let shown = text(&output);
        assert!(output.status.success(), "{arguments:?}: {shown}");
        // A tab stands between two cells.
        let is_bad = |letter: char| {
            !matches!(letter, '\n' | '\t') && (letter.is_control() || letter == '\u{202e}')
        };
        assert!(!shown.contains(is_bad) && !shown.is_empty(), "{arguments:?}: {shown:?}");
    }
    for arguments in [&["list", "--all", "--json"][..], &["list", "--json"]] {
        assert_eq!(json(&queue(&world, arguments)).as_array().unwrap().len(), 4);
    }
}

#[test]
fn what_is_meant_must_be_said() {
    let world = World::new();
    capture(&world, "a", b"{}", NOWHERE);
    for command in ["retry", "discard", "export"] {
        let output = queue(&world, &[command]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert!(text(&output).contains("--all"), "{command}");
    }
    let refused = queue(&world, &["discard", "a"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("--yes"), "no terminal, no question");
    assert_eq!(world.spooled("pending").len(), 1);
    let unknown = queue(&world, &["discard", "b", "--yes", "--json"]);
    assert!(unknown.status.success());
    assert_eq!(json(&unknown)["unknown"][0], "b");
}

/// Runs a command on a terminal of its own and answers it.
fn on_a_terminal(world: &World, arguments: &str, answer: &str) -> Output {
    let mut command = world.command("script");
    let line = format!("{} queue {arguments}", env!("CARGO_BIN_EXE_arrakis"));
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    command.env("TERM", "xterm");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn discarding_on_a_terminal_asks_first() {
    let world = World::new();
    capture_many(&world, 3, NOWHERE);
    let kept = on_a_terminal(&world, "discard --all", "n\n");
    assert!(text(&kept).contains("Discard 2 pending, 1 failed for good?"), "{}", text(&kept));
    assert!(!kept.status.success() && !is_empty(&world));
    let gone = on_a_terminal(&world, "discard --all", "y\n");
    assert!(text(&gone).contains("3 events discarded."), "{}", text(&gone));
    assert!(gone.status.success() && is_empty(&world));
}

#[test]
fn retry_wakes_a_drainer_that_delivers_all() {
    let world = World::new();
    let up = world.lone_up();
    let ids = capture_many(&world, 30, &up.url);
    let retried = queue_with(&world, &["retry", "--all", "--json"], env!("CARGO_BIN_EXE_arrakis"));
    assert!(retried.status.success(), "{}", text(&retried));
    let retried = json(&retried);
    assert_eq!(retried["kept"], 0);
    assert!(retried["retried"].as_u64() > Some(0), "{retried}");
    assert_eq!(retried["drainer"], "started");
    world.wait_until("all are stored", is_empty);
    assert_eq!(stored(&world), ids);
}

#[test]
fn retries_beside_a_drainer_lose_and_double_nothing() {
    let world = World::new();
    let up = world.lone_up();
    let ids = capture_many(&world, 600, &up.url);
    let mut drainer = drainer(&world);
    let mut passes = 0;
    while !is_empty(&world) {
        let retried = queue(&world, &["retry", "--all", "--json"]);
        assert!(retried.status.success(), "{}", text(&retried));
        passes += 1;
        assert!(passes < 10_000, "{:?}", world.spooled(""));
    }
    drainer.kill().unwrap();
    drainer.wait().unwrap();
    assert_eq!(stored(&world), ids);
    assert_eq!(world.count("webhook_events"), 600, "nothing was delivered twice");
}

#[test]
fn discarding_beside_a_drainer_leaves_each_event_either_stored_or_discarded() {
    let world = World::new();
    let up = world.lone_up();
    capture_many(&world, 900, &up.url);
    let mut drainer = drainer(&world);
    let mut discarded = 0;
    while !is_empty(&world) {
        let output = queue(&world, &["discard", "--all", "--yes", "--json"]);
        assert!(output.status.success(), "{}", text(&output));
        let report = json(&output);
        assert_eq!(report["kept"], 0, "{report}");
        discarded += report["discarded"].as_u64().unwrap();
    }
    drainer.kill().unwrap();
    drainer.wait().unwrap();
    assert!(discarded > 0);
    assert_eq!(stored(&world).len() as u64 + discarded, 900);
}

#[test]
fn exporting_beside_a_drainer_leaves_each_event_stored_or_in_the_file() {
    let world = World::new();
    let up = world.lone_up();
    let ids = capture_many(&world, 900, &up.url);
    let mut running = drainer(&world);
    let file = world.directory.path().join("export.ndjson");
    let path = file.to_str().unwrap();
    let output = queue(&world, &["export", "--all", "--remove", "--output", path, "--json"]);
    assert!(output.status.success(), "{}", text(&output));
    let report = json(&output);
    assert!(report["removed"].as_u64() > Some(0), "{report}");
    world.wait_until("the drainer has what was left", is_empty);
    let lines = fs::read_to_string(&file).unwrap();
    let in_file: BTreeSet<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| line["header"]["requestId"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(report["exported"], in_file.len());
    let stored_before = stored(&world);
    assert_eq!(&stored_before | &in_file, ids, "nothing is lost");

    let again = queue(&world, &["export", "--all", "--output", path]);
    assert!(!again.status.success(), "an export is not written over");
    let imported = queue(&world, &["import", path, "--json"]);
    assert!(imported.status.success(), "{}", text(&imported));
    let imported = json(&imported);
    assert_eq!((&imported["imported"], &imported["bad"]), (&report["exported"], &0.into()));
    assert!(queue(&world, &["retry", "--all"]).status.success());
    world.wait_until("all is delivered", is_empty);
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(stored(&world), ids);
}

#[test]
fn an_export_moves_to_another_home_through_a_pipe() {
    let world = World::new();
    capture_many(&world, 9, NOWHERE);
    fs::write(layout(&world).quarantine().join("odd.event"), b"\xff").unwrap();
    let exported = queue(&world, &["export", "--all"]);
    assert!(exported.status.success(), "{}", text(&exported));

    let other = World::new();
    let take = |bytes: &[u8]| {
        let mut command = other.command(env!("CARGO_BIN_EXE_arrakis"));
        command.args(["queue", "import", "--json"]).env("ARRAKIS_BIN", "true");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        child.wait_with_output().unwrap()
    };
    let mut damaged = exported.stdout.clone();
    damaged.splice(0..0, *b"not a line\n");
    damaged.extend_from_slice(b"{\"arrakisSpool\":1,\"state\":\"pen");
    let imported = take(&damaged);
    assert_eq!(imported.status.code(), Some(1));
    let report = json(&imported);
    assert_eq!((&report["imported"], &report["bad"]), (&10.into(), &2.into()), "{report}");
    let lines: Vec<_> =
        report["problems"].as_array().unwrap().iter().map(|p| p["line"].clone()).collect();
    assert_eq!(lines, [1, 12]);
    for directory in ["pending", "failed"] {
        let names = |world: &World| -> BTreeSet<_> {
            let files = world.spooled(directory).into_iter();
            files.map(|f| (f.file_name().unwrap().to_owned(), fs::read(f).unwrap())).collect()
        };
        assert_eq!(names(&world), names(&other), "{directory}");
    }
    let again = take(&exported.stdout);
    assert!(again.status.success());
    assert_eq!(json(&again)["known"], 10);
}

#[test]
fn verify_finds_damage_and_repair_mends_it() {
    let world = World::new();
    capture_many(&world, 9, NOWHERE);
    let clean = queue(&world, &["verify", "--json"]);
    assert!(clean.status.success());
    assert_eq!(json(&clean)["pending"], 6);
    let damaged = world.spooled("pending").remove(0);
    let mut bytes = fs::read(&damaged).unwrap();
    bytes.pop();
    fs::write(&damaged, &bytes).unwrap();
    fs::write(layout(&world).full(), b"").unwrap();
    let verified = queue(&world, &["verify"]);
    assert_eq!(verified.status.code(), Some(1));
    assert!(text(&verified).contains("bytes instead of"), "{}", text(&verified));
    let repaired = queue(&world, &["repair", "--json"]);
    assert!(repaired.status.success(), "{}", text(&repaired));
    let report = json(&repaired);
    assert_eq!(
        (&report["found"]["damaged"], &report["found"]["staleFlag"]),
        (&1.into(), &1.into())
    );
    assert!(queue(&world, &["verify"]).status.success());
    assert!(text(&queue(&world, &["repair"])).contains("in order"));
    let name = damaged.file_name().unwrap().to_str().unwrap();
    assert_eq!(fs::read(layout(&world).quarantine().join(name)).unwrap(), bytes);

    let why = queue(&world, &["retry", name]);
    assert_eq!(why.status.code(), Some(1));
    assert!(text(&why).contains("bytes instead of"), "{}", text(&why));
}

#[test]
fn the_spool_of_the_fallback_home_is_looked_after_too() {
    let world = World::new();
    capture(&world, "at-home", b"{}", NOWHERE);
    let fallback = Layout::new(world.directory.path().join("fallback"));
    let event = Envelope::new(
        "away".parse().unwrap(),
        SystemClock.now(),
        NOWHERE,
        Source::default(),
        &b"{}"[..],
    );
    Spool::new(fallback.clone()).capture(&event).unwrap();
    let list = json(&queue(&world, &["list", "--json"]));
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert!(queue(&world, &["show", "away"]).status.success());
    let gone = json(&queue(&world, &["discard", "away", "--yes", "--json"]));
    assert_eq!((&gone["discarded"], &gone["unknown"]), (&1.into(), &Value::Array(Vec::new())));
    assert_eq!(fs::read_dir(fallback.pending()).unwrap().count(), 0);
}

#[test]
fn progress_shows_on_a_terminal_and_nowhere_else() {
    let world = World::new();
    capture_many(&world, 300, NOWHERE);
    let shown = on_a_terminal(&world, "verify", "");
    assert!(text(&shown).contains("Verifying"), "{:?}", text(&shown));
    assert!(text(&shown).contains("all are whole"));
    let piped = queue(&world, &["verify"]);
    assert_eq!(String::from_utf8_lossy(&piped.stderr), "");
}

/// A home on a file system with no byte free. It is mounted in a name space of its own, so what
/// happens in it is told through files outside.
#[test]
fn with_a_full_disk_events_can_be_retried_and_discarded() {
    let world = World::new();
    fs::create_dir_all(world.home()).unwrap();
    capture_many(&world, 30, NOWHERE);
    let [prepared, out] = ["prepared", "out"].map(|name| world.directory.path().join(name));
    fs::rename(world.home(), &prepared).unwrap();
    fs::create_dir(world.home()).unwrap();
    fs::create_dir(&out).unwrap();
    let script = r#"
        mount -t tmpfs -o size=1m tmpfs "$ARRAKIS_HOME" || exit 77
        cp -a "$PREPARED/." "$ARRAKIS_HOME/"
        # The log directory is there, so that its place is taken and nothing else.
        dd if=/dev/zero of="$ARRAKIS_HOME/filler" bs=1k 2>"$OUT/dd" && exit 1
        cat /proc/version > "$ARRAKIS_HOME/queue/captured.2" 2>/dev/null && exit 2
        df --output=avail "$ARRAKIS_HOME" | tail -1 > "$OUT/available"
        for step in 'retry --state failed' 'retry --all' 'list --all' 'verify' \
            'discard --state failed --yes' 'discard event-0000 --yes' 'discard --all --yes'; do
            "$ARRAKIS" queue $step --json >> "$OUT/steps" 2>> "$OUT/errors" || exit 3
        done
        find "$ARRAKIS_HOME" -name '*.event' > "$OUT/left"
    "#;
    let mut command = world.command("unshare");
    command
        .args(["--map-root-user", "--mount", "sh", "-c", script])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("ARRAKIS", env!("CARGO_BIN_EXE_arrakis"))
        .env("ARRAKIS_BIN", "true")
        .env("PREPARED", &prepared)
        .env("OUT", &out);
    let Some(output) = run_where_mounting_is_allowed(&mut command) else { return };
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap_or_default();
    assert!(output.status.success(), "{output:?}\n{}\n{}", read("steps"), read("errors"));
    assert_eq!(read("available").trim(), "0");
    let steps: Vec<Value> = serde_json::Deserializer::from_str(&read("steps"))
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!((&steps[0]["retried"], &steps[1]["retried"]), (&10.into(), &30.into()));
    assert_eq!(steps[2].as_array().unwrap().len(), 30);
    assert_eq!((&steps[4]["discarded"], &steps[5]["discarded"]), (&0.into(), &1.into()));
    assert_eq!(steps[6]["discarded"], 29);
    assert_eq!(read("left"), "");
}
