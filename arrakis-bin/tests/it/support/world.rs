//! A home of its own with the real programs in it, for tests from end to end.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use notify::{RecursiveMode, Watcher};
use tempfile::TempDir;

/// How long anything may take before a test gives up. Nothing waits for it to pass.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) directory: TempDir,
}

/// A row of `webhook_events`.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub(crate) struct Row {
    #[diesel(sql_type = Text)]
    pub(crate) request_id: String,
    #[diesel(sql_type = Text)]
    pub(crate) status: String,
    #[diesel(sql_type = Nullable<Text>)]
    pub(crate) request_body: Option<String>,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { directory: TempDir::new().unwrap() }
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// A program with this world's environment and nothing of the test's own.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.directory.path())
            .env("TZ", "UTC")
            .env("ARRAKIS_HOME", self.home())
            .env("ARRAKIS_FALLBACK_HOME", self.directory.path().join("fallback"));
        command
    }

    pub(crate) fn arrakis<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Output {
        let mut command = self.command(env!("CARGO_BIN_EXE_arrakis"));
        command.args(arguments).output().unwrap()
    }

    /// The hook, which will find no drainer to start: the test drains.
    pub(crate) fn lone_hook(&self) -> Command {
        let mut command = self.hook();
        command.env("ARRAKIS_BIN", "true");
        command
    }

    /// The hook as it is.
    pub(crate) fn hook(&self) -> Command {
        self.command(env!("CARGO_BIN_EXE_arrakis-hook"))
    }

    /// Starts the server on a free port.
    pub(crate) fn up(&self) -> Up {
        self.up_at("127.0.0.1:0")
    }

    pub(crate) fn up_at(&self, address: &str) -> Up {
        Up::start(self.up_command(address))
    }

    /// Starts the server on a free port; it will find no drainer to start.
    pub(crate) fn lone_up(&self) -> Up {
        let mut command = self.up_command("127.0.0.1:0");
        command.env("ARRAKIS_BIN", "true");
        Up::start(command)
    }

    pub(crate) fn up_command(&self, address: &str) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_arrakis"));
        command.args(["up", "--json", "--listen", address]);
        command
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        let query = "SELECT request_id, status, request_body FROM webhook_events ORDER BY id";
        diesel::sql_query(query).load(&mut self.database()).unwrap()
    }

    pub(crate) fn count(&self, table_and_filter: &str) -> i64 {
        let query = format!("SELECT count(*) AS count FROM {table_and_filter}");
        let count: Count = diesel::sql_query(query).get_result(&mut self.database()).unwrap();
        count.count
    }

    /// A connection to the store; the search index is attached.
    pub(crate) fn database(&self) -> SqliteConnection {
        let path = self.home().join("arrakis.db");
        let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        let attach = format!("ATTACH DATABASE '{}-search' AS search_index", path.display());
        diesel::sql_query(attach).execute(&mut connection).unwrap();
        diesel::sql_query("PRAGMA busy_timeout=10000").execute(&mut connection).unwrap();
        connection
    }

    /// The event files in a directory of the spool, and below it.
    pub(crate) fn spooled(&self, directory: &str) -> Vec<PathBuf> {
        event_files(&self.home().join("queue").join(directory))
    }

    /// Waits until `condition` holds, looking whenever something below the home changes.
    pub(crate) fn wait_until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let (changes, changed) = mpsc::channel();
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // Looking is no change.
                if event.is_ok_and(|event| !event.kind.is_access()) {
                    changes.send(()).ok();
                }
            })
            .unwrap();
        watcher.watch(self.directory.path(), RecursiveMode::Recursive).unwrap();
        let deadline = Instant::now() + DEADLINE;
        while !condition(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            let change = changed.recv_timeout(left);
            assert!(change.is_ok() && !left.is_zero(), "waited in vain until {what}");
        }
    }

    /// Kills every drainer of this world, and waits until they are gone; returns how many there were. A process that is
    /// killed in the middle of a write to the disk keeps its locks until that is done, and other drainers take it for
    /// alive.
    pub(crate) fn kill_drainers(&self) -> usize {
        let killed = self.signal_drainers(Signal::SIGKILL);
        for process in &killed {
            while is_running(*process) {
                std::thread::yield_now();
            }
        }
        killed.len()
    }

    /// Sends every drainer of this world a signal; returns their ids.
    pub(crate) fn signal_drainers(&self, signal: Signal) -> Vec<Pid> {
        let mine = format!("ARRAKIS_HOME={}", self.home().display());
        let has = |path: PathBuf, wanted: &[u8]| {
            let text = std::fs::read(path).unwrap_or_default();
            text.split(|byte| *byte == 0).any(|part| part == wanted)
        };
        let mut reached = Vec::new();
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let path = process.path();
            let Ok(id) = process.file_name().to_str().unwrap().parse() else { continue };
            if has(path.join("environ"), mine.as_bytes()) && has(path.join("cmdline"), b"drain") {
                let process = Pid::from_raw(id);
                if nix::sys::signal::kill(process, signal).is_ok() {
                    reached.push(process);
                }
            }
        }
        reached
    }
}

/// Whether a process still holds what it had open: as long as one of its threads runs.
fn is_running(process: Pid) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return false };
    let runs = |stat: String| {
        let state = stat.rsplit_once(") ").and_then(|(_, fields)| fields.chars().next());
        state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
    };
    threads.flatten().any(|one| std::fs::read_to_string(one.path().join("stat")).is_ok_and(runs))
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill_drainers();
    }
}

/// A running server; killed when dropped.
pub(crate) struct Up {
    pub(crate) child: Child,
    pub(crate) url: String,
    /// What it said when it started.
    pub(crate) said: serde_json::Value,
    _stdout: BufReader<ChildStdout>,
}

impl Up {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let said = said(&mut stdout).expect("the server starts");
        let url = said["url"].as_str().unwrap().to_owned();
        Self { child, url, said, _stdout: stdout }
    }

    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://").split('/').next().unwrap()
    }

    pub(crate) fn stop(mut self) {
        let process = Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(process, Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What a starting server says, its `url` among it; `None` if it ends instead.
pub(crate) fn said(stdout: &mut impl BufRead) -> Option<serde_json::Value> {
    let mut text = String::new();
    loop {
        if stdout.read_line(&mut text).unwrap() == 0 {
            return None;
        }
        if let Ok(started) = serde_json::from_str(&text) {
            return Some(started);
        }
    }
}

/// Runs a hook with this on stdin; it exits 0 and prints nothing.
pub(crate) fn feed(mut hook: Command, payload: &[u8]) {
    let output = start(&mut hook, payload).wait_with_output().unwrap();
    assert_silent(&output);
}

/// Starts a hook and gives it this on stdin.
pub(crate) fn start(hook: &mut Command, payload: &[u8]) -> Child {
    hook.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = hook.spawn().unwrap();
    // A hook may end without reading all of it.
    child.stdin.take().unwrap().write_all(payload).ok();
    child
}

pub(crate) fn assert_silent(output: &Output) {
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, b"");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// The real payloads, by file name.
pub(crate) fn payloads() -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../arrakis-core/testdata/hooks");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap());
    files
        .map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap()))
        .collect()
}

/// A payload as it is captured: less one final newline.
pub(crate) fn captured(payload: &[u8]) -> &[u8] {
    payload.strip_suffix(b"\n").unwrap_or(payload)
}

/// The event files below a directory.
pub(crate) fn event_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(event_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "event") {
            files.push(path);
        }
    }
    files
}

/// Runs a script that mounts; `None`, said aloud, where this machine does not let it.
pub(crate) fn run_where_mounting_is_allowed(command: &mut Command) -> Option<Output> {
    const NOT_ALLOWED: i32 = 77;
    let output = command.output();
    let refused = |output: &Output| {
        output.status.code() == Some(NOT_ALLOWED)
            || String::from_utf8_lossy(&output.stderr).starts_with("unshare:")
    };
    match output {
        Ok(output) if !refused(&output) => Some(output),
        refused => {
            writeln!(std::io::stderr(), "not run, mounting is not allowed: {refused:?}").ok();
            None
        }
    }
}
