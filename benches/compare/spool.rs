//! A drainer before a huge backlog.
//!
//! Build first (`cargo build --release`), then run this from the workspace:
//! `cargo run --release -p arrakis-benches --bin compare-spool -- --files 1000000`. It fills a spool, starts
//! a receiver that takes everything and the real `arrakis drain`, and captures events with the real hook
//! meanwhile. The receiver does nothing but answer, so what is measured is the drainer.

#![allow(clippy::print_stdout, reason = "it prints its result")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::collections::HashMap;
use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrakis_core::base::clock::{Clock, SystemClock};
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::base::id::{RequestId, uuid_v7};
use arrakis_core::record::audit::EventStatus;
use arrakis_core::session::conversation::AnswerIds;
use arrakis_store_fs::spool::format::encode_header;
use arrakis_store_fs::spool::layout::EntryName;
use arrakis_store_fs::{Layout, Spool, is_idle};
use arrakis_transport_http::server::bind;
use arrakis_transport_http::wire::{Answer, BatchAnswer, EventResult, decode_envelope};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use axum::{Json, Router};
use parking_lot::Mutex;

/// Time between two fresh events.
const FRESH_INTERVAL: Duration = Duration::from_millis(500);

/// What the receiver got.
#[derive(Debug, Default)]
struct Received {
    first: Option<Instant>,
    events: u64,
    repeats: u64,
    seen: std::collections::HashSet<u64>,
    /// Arrivals by the nonce in the payload of a fresh event.
    fresh: HashMap<String, Instant>,
}

type Shared = Arc<Mutex<Received>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let files = files_wanted()?;
    let programs = std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
    let (arrakis, hook) = (programs.join("arrakis"), programs.join("arrakis-hook"));
    for program in [&arrakis, &hook] {
        if !program.exists() {
            return Err(format!("{} is missing: cargo build --release", program.display()).into());
        }
    }
    let received = Shared::default();
    let listener = bind(([127, 0, 0, 1], 0).into())?;
    let url = format!("http://{}/api/claude-hooks", listener.local_addr()?);
    let receiver = Router::new()
        .route("/api/claude-hooks", post(take_one))
        .route("/api/claude-hooks/batch", post(take_many))
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::clone(&received));
    tokio::spawn(async { axum::serve(listener, receiver).await });

    let directory = tempfile::TempDir::new()?;
    let layout = Layout::new(directory.path().join("home"));
    let started = Instant::now();
    fill(&layout, &url, files)?;
    println!("{files} events of 1 KiB wait; putting them there took {:.1?}\n", started.elapsed());

    let environment = [
        ("ARRAKIS_HOME", layout.home().to_owned()),
        ("ARRAKIS_FALLBACK_HOME", directory.path().join("fallback")),
        ("ARRAKIS_BIN", "true".into()),
        ("CLAUDE_HOOK_API_URL", url.clone().into()),
        ("CLAUDE_HOOK_API_KEY", "ark_none".into()),
    ];
    let started = Instant::now();
    let mut drainer = Command::new(&arrakis)
        .arg("drain")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::null())
        .spawn()?;
    let mut sent = Vec::new();
    let mut peak = 0;
    while !is_idle(&layout)? {
        let nonce = format!("fresh-{}", sent.len());
        let mut capture = Command::new(&hook);
        capture.envs(environment.iter().map(|(name, value)| (name, value)));
        let began = Instant::now();
        run_hook(capture, &nonce)?;
        sent.push((nonce, began));
        tokio::time::sleep(FRESH_INTERVAL).await;
        peak = peak.max(high_water(&drainer)?);
        if drainer.try_wait()?.is_some() {
            return Err("the drainer ended early".into());
        }
    }
    let took = started.elapsed();
    peak = peak.max(high_water(&drainer)?);
    end(&mut drainer)?;
    report(&received, started, took, &sent, files, peak);
    Ok(())
}

fn files_wanted() -> Result<u64, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => Ok(1_000_000),
        (Some("--files"), Some(count)) => Ok(count.parse()?),
        _ => Err("usage: compare-spool [--files N]".into()),
    }
}

/// Puts events of an hour ago into `pending/`, without the cost of durability.
fn fill(layout: &Layout, url: &str, files: u64) -> Result<(), Box<dyn Error>> {
    Spool::new(layout.clone()).create()?;
    let text = "x".repeat(900);
    for n in 0..files {
        let at = SystemClock.now().minus(Duration::from_secs(3600));
        let id = RequestId::mint(at, rand::random());
        let payload = format!(
            r#"{{"session_id":"s{}","hook_event_name":"PostToolUse","n":{n},"tool_response":"{text}"}}"#,
            n % 50
        );
        let event = Envelope::new(id, at, url, Source::default(), payload.into_bytes());
        let path = layout.pending().join(EntryName::of(&event.header).to_string());
        let mut file = std::fs::File::create(path)?;
        file.write_all(&[&encode_header(&event)?[..], &event.payload].concat())?;
    }
    Ok(())
}

fn run_hook(mut hook: Command, nonce: &str) -> std::io::Result<()> {
    let mut child = hook.stdin(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(format!(r#"{{"session_id":"fresh","nonce":"{nonce}"}}"#).as_bytes())?;
    }
    child.wait().map(drop)
}

/// The most memory that a process has had resident, in KiB.
fn high_water(process: &Child) -> std::io::Result<u64> {
    let status = std::fs::read_to_string(PathBuf::from(format!("/proc/{}/status", process.id())))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(line.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0))
}

fn end(process: &mut Child) -> std::io::Result<()> {
    Command::new("kill").arg(process.id().to_string()).status()?;
    process.wait().map(drop)
}

async fn take_one(State(received): State<Shared>, body: Bytes) -> Json<Option<Answer>> {
    Json(take(&received, &body))
}

async fn take_many(State(received): State<Shared>, body: Bytes) -> Json<BatchAnswer> {
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let results = lines.filter_map(|line| take(&received, &body.slice_ref(line)));
    Json(BatchAnswer { success: true, results: results.map(EventResult::Stored).collect() })
}

fn take(received: &Shared, line: &Bytes) -> Option<Answer> {
    let envelope = decode_envelope(line).ok()?;
    let now = Instant::now();
    let payload: serde_json::Value = serde_json::from_slice(&envelope.payload).ok()?;
    let mut received = received.lock();
    received.first.get_or_insert(now);
    if let Some(nonce) = payload["nonce"].as_str() {
        received.fresh.entry(nonce.to_owned()).or_insert(now);
    } else if let Some(n) = payload["n"].as_u64() {
        received.events += 1;
        if !received.seen.insert(n) {
            received.repeats += 1;
        }
    }
    drop(received);
    Some(Answer {
        success: true,
        request_id: envelope.header.request_id,
        event_id: uuid_v7(SystemClock.now(), rand::random()),
        digest: envelope.header.digest,
        status: EventStatus::Success,
        duplicate: false,
        cached: false,
        ids: AnswerIds::default(),
    })
}

fn report(
    received: &Shared,
    started: Instant,
    took: Duration,
    sent: &[(String, Instant)],
    files: u64,
    peak: u64,
) {
    let received = received.lock();
    let first = received.first.map_or(took, |first| first - started);
    let mut latencies: Vec<Duration> = sent
        .iter()
        .filter_map(|(nonce, sent)| {
            Some(received.fresh.get(nonce)?.saturating_duration_since(*sent))
        })
        .collect();
    latencies.sort_unstable();
    let percentile = |percent: usize| {
        latencies.get((latencies.len().max(1) - 1) * percent / 100).copied().unwrap_or_default()
    };
    let missing = files - received.seen.len() as u64 + (sent.len() - latencies.len()) as u64;
    println!("first delivery    {first:>10.2?}   (budget: 1 s)");
    println!(
        "all of them       {took:>10.2?}   {:.0} events/s",
        received.events as f64 / took.as_secs_f64()
    );
    println!("drainer's memory  {:>7.1} MiB   at its peak (budget: 64 MiB)", peak as f64 / 1024.0);
    println!(
        "hook to receiver  p50 {:.2?}, p99 {:.2?}, max {:.2?} of {} (budget: 2 s)",
        percentile(50),
        percentile(99),
        percentile(100),
        latencies.len()
    );
    println!("missing {missing}, delivered twice {}", received.repeats);
}
