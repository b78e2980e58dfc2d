//! The server on SQLite against a bare loop that inserts the same payloads and nothing else.
//!
//! `cargo run --release -p arrakis-benches --bin compare-server -- [--seconds N] [--events N]`, after
//! `cargo build --release`. The real `arrakis-server` takes single events over 16 connections for N seconds, in turns
//! with the loop; its search index is on. `--events` first stores as many, because a large database is slower than
//! an empty one. Both write with synchronous=FULL into one directory. What counts is the ratio; the bytes and the
//! processor time of an event depend less on the machine than the rates do. They are of the process alone, and read
//! from Linux's /proc: the bytes are those given to `write` and its like, in answers and logs too, which are few.

#![allow(clippy::print_stdout, reason = "it prints its result")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrakis_core::base::clock::{Clock, SystemClock};
use arrakis_core::record::ingest::{Ingest, Submission};
use arrakis_core::record::key::{ApiKey, Scope};
use arrakis_core::record::store::{DEFAULT_WORKSPACE, EventStore, KeyStore};
use arrakis_core::session::redact::Redactor;
use arrakis_store_sqlite::{SqliteConfig, SqliteStore};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Text;
use rand::SeedableRng;
use rand::rngs::StdRng;
use secrecy::ExposeSecret;

const CONNECTIONS: usize = 16;
/// So long the server works before the loop has a turn.
const TURN: Duration = Duration::from_secs(10);
/// So long the loop works: it is steady at once.
const BARE_TURN: Duration = Duration::from_secs(2);
const BARE_GROUP: usize = 16;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (seconds, stored) = (argument("--seconds", 60)?, argument("--events", 0)?);
    let server = std::env::current_exe()?.with_file_name("arrakis-server");
    if !server.exists() {
        return Err(format!("{} is missing: cargo build --release", server.display()).into());
    }
    let directory = tempfile::TempDir::new()?;
    let path = directory.path().join("arrakis.db");
    let key = prepare(&path, stored).await?;
    let stored_bytes = size(&path);
    let server = Server::start(&server, &path, directory.path())?;

    rustls::crypto::ring::default_provider().install_default().ok();
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(CONNECTIONS).build()?;
    let mut bare = Bare::open(&directory.path().join("bare.db"))?;
    println!(
        "{stored} events stored before; {CONNECTIONS} connections, one event of {} bytes a request, \
         synchronous=FULL, search index on\n",
        payload(0, 0).len()
    );
    let mut served = Measure::default();
    let mut looped = Measure::default();
    let mut latencies = Vec::new();
    for turn in 0..seconds.div_ceil(TURN.as_secs() as usize) {
        let began = Usage::of(server.process.id())?;
        let started = Instant::now();
        let mut times = requests(&http, &server.url, &key, turn).await?;
        let measured = Measure::since(began, server.process.id(), times.len(), started)?;
        times.sort_unstable();
        println!("server, {:>3} s  {measured}   {}", (turn + 1) * 10, percentiles(&times));
        served.add(&measured);
        latencies.extend(times);
        looped.add(&bare.turn()?);
    }
    // What the index still has to do belongs to these events.
    let resting = Usage::of(server.process.id())?;
    server.wait_until_idle()?;
    served.usage = served.usage.plus(Usage::of(server.process.id())?.minus(resting));
    latencies.sort_unstable();
    println!("\nserver         {served}   {}", percentiles(&latencies));
    println!("bare loop      {looped}   {BARE_GROUP} a transaction");
    println!("ratio          {:>7.2}", served.rate() / looped.rate());
    let grown = size(&path).saturating_sub(stored_bytes);
    println!(
        "stored an event: {:.2} KB; the loop {:.2} KB",
        kilobytes(grown, served.events),
        kilobytes(size(&bare.path), looped.events)
    );
    Ok(())
}

/// The number after an option of the command line.
fn argument(name: &str, default: usize) -> Result<usize, Box<dyn Error>> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name).skip(1);
    Ok(arguments.next().map_or(Ok(default), |number| number.replace('_', "").parse())?)
}

fn payload(turn: usize, n: usize) -> String {
    format!(
        r#"{{"session_id":"s{}","cwd":"/p","hook_event_name":"PostToolUse","tool_name":"Bash","tool_use_id":"t{turn}-{n}","tool_response":"{}"}}"#,
        n % 50,
        words(turn * 1_000_003 + n)
    )
}

/// 880 bytes of words that differ from event to event, as those of real tool results do.
fn words(seed: usize) -> String {
    const BYTES: usize = 880;
    let mut state = seed as u64;
    let mut text = String::with_capacity(BYTES + 16);
    while text.len() < BYTES {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // A thousand different words, of which a few are common.
        let word = (state >> 33) % 1000;
        text.push_str(&format!("w{} ", word * word / 1000));
    }
    text.truncate(BYTES);
    text
}

/// Makes the database, with so many events and their search index; returns a key.
async fn prepare(path: &Path, events: usize) -> Result<String, Box<dyn Error>> {
    const BATCH: usize = 500;
    // No turn of the measurement has this number.
    const BEFORE: usize = 1_000_000;
    let clock = Arc::new(SystemClock);
    let config = SqliteConfig::default();
    let store = Arc::new(SqliteStore::open(path, Arc::<SystemClock>::clone(&clock), config)?);
    let mut rng = StdRng::seed_from_u64(1);
    let (key, row) =
        ApiKey::generate("bench", Scope::Ingest, DEFAULT_WORKSPACE, SystemClock.now(), &mut rng);
    store.create_key(row).await?;
    let ingest = Ingest::new(Arc::<SqliteStore>::clone(&store), Redactor::default(), clock);
    for first in (0..events).step_by(BATCH) {
        let batch = first..events.min(first + BATCH);
        let batch = batch.map(|n| Submission::from(payload(BEFORE, n))).collect();
        ingest.receive_batch(DEFAULT_WORKSPACE, batch).await?;
    }
    while store.index(100).await? == 100 {}
    Ok(key.expose_secret().to_owned())
}

/// Sends events over all connections for one turn; how long each took.
async fn requests(
    http: &reqwest::Client,
    url: &str,
    key: &str,
    turn: usize,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let next = Arc::new(AtomicUsize::new(0));
    let until = Instant::now() + TURN;
    let senders = (0..CONNECTIONS).map(|_| {
        let (http, url, key) = (http.clone(), url.to_owned(), key.to_owned());
        let next = Arc::clone(&next);
        tokio::spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < until {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let request = http.post(&url).bearer_auth(&key);
                let request = request.header("X-Request-Id", format!("r{turn}-{n}"));
                let started = Instant::now();
                request.body(payload(turn, n)).send().await?.error_for_status()?.bytes().await?;
                times.push(started.elapsed());
            }
            Ok::<_, reqwest::Error>(times)
        })
    });
    let mut times = Vec::new();
    for sender in senders.collect::<Vec<_>>() {
        times.extend(sender.await??);
    }
    Ok(times)
}

fn percentiles(sorted: &[Duration]) -> String {
    let at = |percent: usize| sorted.get(sorted.len().saturating_sub(1) * percent / 100).copied();
    let [p50, p95, p99] = [50, 95, 99].map(|percent| at(percent).unwrap_or_default());
    format!("p50 {p50:.1?}, p95 {p95:.1?}, p99 {p99:.1?}")
}

/// The bytes of a database's files: its own, that of its search index, and their write-ahead logs.
fn size(path: &Path) -> u64 {
    let files = ["", "-wal", "-search", "-search-wal"];
    let files = files.map(|suffix| PathBuf::from(format!("{}{suffix}", path.display())));
    files.iter().filter_map(|file| fs::metadata(file).ok()).map(|found| found.len()).sum()
}

fn kilobytes(bytes: u64, events: usize) -> f64 {
    bytes as f64 / 1000.0 / events.max(1) as f64
}

/// The real server.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(program: &Path, database: &Path, home: &Path) -> Result<Self, Box<dyn Error>> {
        let mut process = Command::new(program)
            .args(["--listen", "127.0.0.1:0", "--log-format", "json", "--database-url"])
            .arg(format!("sqlite://{}", database.display()))
            .arg("--home")
            .arg(home)
            .env("ARRAKIS_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = process.stderr.take().ok_or("the server has no stderr")?;
        let mut lines = BufReader::new(stderr).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(&line).ok()?;
            Some(line.get("address")?.as_str()?.to_owned())
        });
        let address = address.ok_or("the server does not say where it listens")?;
        // Somebody must read on, or the server would wait for room.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { process, url: format!("http://{address}/api/claude-hooks") })
    }

    /// Waits until it has used no processor for two seconds.
    fn wait_until_idle(&self) -> Result<(), Box<dyn Error>> {
        let mut before = Usage::of(self.process.id())?;
        loop {
            std::thread::sleep(Duration::from_secs(2));
            let now = Usage::of(self.process.id())?;
            if now.processor_ms.saturating_sub(before.processor_ms) <= 40 {
                return Ok(());
            }
            before = now;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// What a process has used.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    processor_ms: u64,
    written_bytes: u64,
}

impl Usage {
    /// Zero where there is no /proc.
    fn of(process: u32) -> Result<Self, Box<dyn Error>> {
        if !Path::new("/proc/self/io").exists() {
            return Ok(Self::default());
        }
        let io = fs::read_to_string(format!("/proc/{process}/io"))?;
        let written = io.lines().find_map(|line| line.strip_prefix("wchar: "));
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // After the name, which ends with the last parenthesis: utime and stime are fields 14 and 15, in hundredths.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
        let written_bytes = written.ok_or("/proc says nothing of writing")?.parse()?;
        Ok(Self { processor_ms: ticks * 10, written_bytes })
    }

    fn minus(self, before: Self) -> Self {
        Self {
            processor_ms: self.processor_ms.saturating_sub(before.processor_ms),
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            processor_ms: self.processor_ms + other.processor_ms,
            written_bytes: self.written_bytes + other.written_bytes,
        }
    }
}

/// Events, and what they took.
#[derive(Debug, Clone, Copy, Default)]
struct Measure {
    events: usize,
    time: Duration,
    usage: Usage,
}

impl Measure {
    fn since(
        began: Usage,
        process: u32,
        events: usize,
        started: Instant,
    ) -> Result<Self, Box<dyn Error>> {
        let time = started.elapsed();
        Ok(Self { events, time, usage: Usage::of(process)?.minus(began) })
    }

    fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.time += other.time;
        self.usage = self.usage.plus(other.usage);
    }

    fn rate(&self) -> f64 {
        self.events as f64 / self.time.as_secs_f64()
    }
}

impl std::fmt::Display for Measure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let processor = self.usage.processor_ms as f64 * 1000.0 / self.events.max(1) as f64;
        let written = kilobytes(self.usage.written_bytes, self.events);
        write!(f, "{:>7.0}/s  {processor:>5.0} µs  {written:>5.1} KB written", self.rate())
    }
}

/// A loop that inserts payloads.
struct Bare {
    connection: SqliteConnection,
    path: PathBuf,
    events: usize,
}

impl Bare {
    fn open(path: &Path) -> Result<Self, Box<dyn Error>> {
        let mut connection = SqliteConnection::establish(&path.to_string_lossy())?;
        connection.batch_execute(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE events (id INTEGER PRIMARY KEY, payload TEXT NOT NULL) STRICT",
        )?;
        Ok(Self { connection, path: path.to_owned(), events: 0 })
    }

    fn turn(&mut self) -> Result<Measure, Box<dyn Error>> {
        let process = std::process::id();
        let payloads: Vec<String> = (0..BARE_GROUP).map(|n| payload(self.events, n)).collect();
        let (began, started, before) = (Usage::of(process)?, Instant::now(), self.events);
        // One statement a group, so that preparing costs the loop next to nothing.
        let values = vec!["(?)"; BARE_GROUP].join(", ");
        let insert = format!("INSERT INTO events (payload) VALUES {values}");
        while started.elapsed() < BARE_TURN {
            let mut statement = diesel::sql_query(&insert).into_boxed();
            for payload in &payloads {
                statement = statement.bind::<Text, _>(payload);
            }
            statement.execute(&mut self.connection)?;
            self.events += BARE_GROUP;
        }
        Measure::since(began, process, self.events - before, started)
    }
}
