//! The log files with the real programs: many writers, following, and homes that cannot be written.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::support::BERLIN;
use crate::support::world::{World, assert_silent, run_where_mounting_is_allowed, start};
use arrakis_bin::config::LogLimits;
use arrakis_bin::log_file::LogFiles;
use arrakis_core::base::clock::{Clock, SystemClock, Timestamp};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// How long anything may take before a test gives up. Nothing waits for it to pass.
const DEADLINE: Duration = Duration::from_secs(60);

/// Every line of a home's error log, rotated or not.
fn error_lines(home: &Path) -> Vec<Value> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(home.join("logs")).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with("webhook-error") {
            continue;
        }
        let text = fs::read_to_string(entry.path()).unwrap();
        lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    }
    lines
}

#[test]
fn hooks_that_write_at_once_tear_no_line_and_lose_none() {
    const HOOKS: usize = 160;
    let world = World::new();
    fs::create_dir_all(world.home()).unwrap();
    // A setting that is none is a trouble of every hook.
    let config = "nonsense = 1\n[logs]\nmax_bytes = 2000\nkeep = 1000\n";
    fs::write(world.home().join("config.toml"), config).unwrap();
    for _ in 0..HOOKS / 20 {
        let children: Vec<_> =
            (0..20).map(|_| start(&mut world.lone_hook(), b"{\"session_id\":\"s\"}")).collect();
        for child in children {
            assert_silent(&child.wait_with_output().unwrap());
        }
    }
    let lines = error_lines(&world.home());
    let ids: BTreeSet<_> = lines.iter().map(|line| line["requestId"].as_str().unwrap()).collect();
    assert_eq!((lines.len(), ids.len()), (HOOKS, HOOKS));
    let files = fs::read_dir(world.home().join("logs")).unwrap().count();
    assert!(files > 5, "{files} files, so it was rotated");
}

#[test]
fn times_are_shown_and_read_in_the_zone_of_the_environment() {
    let world = World::new();
    fs::create_dir_all(world.home().join("logs")).unwrap();
    let line = |at: &str| format!(r#"{{"timestamp":"{at}","level":"WARN","message":"m"}}"#);
    let lines = ["2026-10-25T00:59:59.000000Z", "2026-10-25T01:00:00.000000Z"].map(line).join("\n");
    fs::write(world.home().join("logs/webhook-error.log"), format!("{lines}\n")).unwrap();
    let run = |zone: Option<&str>, more: &[&str]| {
        let mut command = world.command(env!("CARGO_BIN_EXE_arrakis"));
        match zone {
            Some(zone) => command.env("TZ", zone),
            None => command.env_remove("TZ"),
        };
        let output = command.arg("logs").args(more).output().unwrap();
        assert!(output.status.success());
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let times = |(out, err): (String, String)| {
        assert_eq!(err, "");
        let time = |line: &str| line.split("  ").next().unwrap().to_owned();
        out.lines().map(time).collect::<Vec<_>>()
    };
    let utc = ["2026-10-25 00:59:59.000", "2026-10-25 01:00:00.000"];
    let is_known = Path::new("/usr/share/zoneinfo/Europe/Berlin").exists();
    for zone in [Some(BERLIN), Some("Europe/Berlin").filter(|_| is_known)].into_iter().flatten() {
        let shown = ["2026-10-25 02:59:59.000+02:00", "2026-10-25 02:00:00.000+01:00"];
        assert_eq!(times(run(Some(zone), &[])), shown);
        assert_eq!(times(run(Some(zone), &["--utc"])), utc);
        assert_eq!(run(Some(zone), &["--json"]), (format!("{lines}\n"), String::new()));
        for (since, expected) in [
            ("2026-10-25T02:59:59", &shown[..]),
            ("2026-10-25 02:59:59.5", &shown[1..]),
            ("2026-10-25T01:00:00Z", &shown[1..]),
            ("2026-10-25", &shown[..]),
        ] {
            assert_eq!(times(run(Some(zone), &["--since", since])), expected, "{since}");
        }
    }
    assert_eq!(times(run(Some("UTC"), &[])), utc);
    assert_eq!(times(run(Some("UTC"), &["--since", "2026-10-25T01:00"])), utc[1..]);
    let system = Path::new("/etc/localtime").exists().then_some(":/etc/localtime");
    assert_eq!(times(run(None, &[])), times(run(system.or(Some("UTC")), &[])));

    let (out, err) = run(Some("Mars/\u{1b}Olympus"), &[]);
    assert_eq!(times((out, String::new())), utc);
    let told = "TZ=Mars/\\x1bOlympus is no time zone that this machine knows: times are in UTC\n";
    assert_eq!(err, told);

    let mut odd = world.command(env!("CARGO_BIN_EXE_arrakis"));
    let output = odd.args(["logs", "--since", "2026-10-25T02:00+02"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "an offset that is not understood is no local time");
}

/// `arrakis logs --follow`, and its lines as they come.
struct Follower {
    child: Child,
    lines: Receiver<String>,
}

impl Follower {
    fn start(world: &World, arguments: &[&str]) -> Self {
        let mut command = world.command(env!("CARGO_BIN_EXE_arrakis"));
        command.args(["logs", "--follow"]).args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines() {
                sender.send(line.unwrap()).unwrap();
            }
        });
        Self { child, lines }
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(DEADLINE).unwrap()
    }

    fn next_json(&self) -> Value {
        serde_json::from_str(&self.next()).unwrap()
    }

    /// Presses Ctrl-C; returns the lines that come yet.
    fn interrupt(mut self) -> Vec<String> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        self.lines.iter().collect()
    }
}

fn line(n: usize, level: &str) -> Value {
    let request = format!("r-{n}");
    json!({
        "timestamp": SystemClock.now(), "level": level, "component": "test", "requestId": request,
        "message": n,
    })
}

#[test]
fn following_tells_each_line_once_and_in_order_through_rotations() {
    const WRITERS: usize = 4;
    const LINES: usize = 250;
    let world = World::new();
    let logs = world.home().join("logs");
    let limits = LogLimits { max_bytes: 3000, keep: 10_000 };
    let before = line(0, "info");
    let files = LogFiles::new(&logs, limits);
    files.queue.append(&before).unwrap();
    let follower = Follower::start(&world, &["--json"]);
    assert_eq!(follower.next_json(), before, "what is there comes first");
    // A copy of a line that was told already is none.
    files.debug.append(&before).unwrap();

    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let logs = &logs;
            scope.spawn(move || {
                let files = LogFiles::new(logs, limits);
                for n in 0..LINES {
                    let line = line(1 + writer * LINES + n, "info");
                    files.success.append(&line).unwrap();
                    files.queue.append(&line).unwrap();
                    files.debug.append(&line).unwrap();
                }
            });
        }
        let (mut seen, mut newest) = (BTreeSet::new(), Timestamp::EPOCH);
        for _ in 0..WRITERS * LINES {
            let line = follower.next_json();
            assert!(seen.insert(line["message"].as_u64().unwrap()), "{line} came twice");
            let at: Timestamp = line["timestamp"].as_str().unwrap().parse().unwrap();
            assert!(newest.since(at) < Duration::from_secs(2), "{line} came late");
            newest = newest.max(at);
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), (1..=1000).collect::<Vec<_>>());
    });
    let last = line(2000, "info");
    files.error.append(&last).unwrap();
    assert_eq!(follower.next_json(), last);
    assert_eq!(follower.interrupt(), [] as [&str; 0]);
    assert!(fs::read_dir(&logs).unwrap().count() > 6, "it was rotated");
}

#[test]
fn following_heeds_the_filters_and_waits_for_logs_to_be_made() {
    let world = World::new();
    let follower = Follower::start(&world, &["--level", "warn", "--request", "r-3"]);
    let files = LogFiles::new(&world.home().join("logs"), LogLimits::default());
    for (n, level) in [(1, "error"), (3, "info"), (2, "warn"), (3, "error")] {
        files.debug.append(&line(n, level)).unwrap();
    }
    let shown = follower.next();
    assert!(shown.contains("error") && shown.contains("requestId=r-3"), "{shown}");
    assert_eq!(follower.interrupt(), [] as [&str; 0]);
}

#[test]
fn a_line_that_is_begun_is_told_when_it_is_whole() {
    let world = World::new();
    let logs = world.home().join("logs");
    fs::create_dir_all(&logs).unwrap();
    let path = logs.join("webhook-debug.log");
    let (first, second) = (line(1, "info").to_string(), line(2, "info").to_string());
    fs::write(&path, format!("{first}\n{}", &second[..20])).unwrap();
    let follower = Follower::start(&world, &["--json"]);
    assert_eq!(follower.next(), first);
    let mut file = fs::File::options().append(true).open(&path).unwrap();
    file.write_all(format!("{}\n", &second[20..]).as_bytes()).unwrap();
    assert_eq!(follower.next(), second);
    assert_eq!(follower.interrupt(), [] as [&str; 0]);
}

/// Hooks in a home that has no byte free, and in one that is read-only. Both are mounted in a name
/// space of their own.
#[test]
fn a_log_that_cannot_be_written_stops_no_hook() {
    let world = World::new();
    fs::create_dir_all(world.home()).unwrap();
    let out = world.directory.path().join("out");
    fs::create_dir(&out).unwrap();
    let script = r#"
        mount -t tmpfs -o size=64k tmpfs "$ARRAKIS_HOME" || exit 77
        mkdir "$ARRAKIS_HOME/logs"
        echo '{"session_id":"s"}' > "$OUT/payload"
        echo 'nonsense = 1' > "$ARRAKIS_HOME/config.toml"
        dd if=/dev/zero of="$ARRAKIS_HOME/filler" bs=1k 2>/dev/null && exit 1
        "$HOOK" < "$OUT/payload" > "$OUT/full" 2>&1 || exit 2
        mount -o remount,ro "$ARRAKIS_HOME"
        "$HOOK" < "$OUT/payload" > "$OUT/read-only" 2>&1 || exit 3
    "#;
    let mut command = world.command("unshare");
    command
        .args(["--map-root-user", "--mount", "sh", "-c", script])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOOK", env!("CARGO_BIN_EXE_arrakis-hook"))
        .env("ARRAKIS_BIN", "true")
        .env("OUT", &out);
    let Some(output) = run_where_mounting_is_allowed(&mut command) else { return };
    assert!(output.status.success(), "{output:?}");
    for name in ["full", "read-only"] {
        assert_eq!(fs::read_to_string(out.join(name)).unwrap(), "", "{name}");
    }
    let fallback = world.directory.path().join("fallback");
    let lines = error_lines(&fallback);
    for code in ["config", "spool", "fallback"] {
        let told = lines.iter().filter(|line| line["code"] == code).count();
        assert_eq!(told, 2, "{code}: {lines:#?}");
    }
    assert_eq!(fs::read_dir(fallback.join("queue/pending")).unwrap().count(), 2);
}
