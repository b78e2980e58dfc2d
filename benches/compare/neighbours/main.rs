//! What one workspace notices of another that sends bad input: ids of every length and alphabet, ids of the other,
//! 16 MiB in one field, 100,000 blocks in one message, small blocks on a large message, a session that never ends, all
//! in one millisecond.
//!
//! Build first (`cargo build --release --workspace`), then
//! `cargo run --release -p arrakis-benches --bin compare-neighbours`. It starts the real `arrakis-server` on SQLite and
//! on a Postgres of its own. The quiet workspace sends fifty events a second, first alone, then beside each kind of bad
//! input, which four connections send without a pause; what counts is the ratio of its p99.

#![allow(clippy::print_stdout, reason = "it prints its result")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

#[path = "../postgres/server.rs"]
mod server;

mod input;

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrakis_core::base::clock::{Clock, SystemClock};
use arrakis_core::record::key::{ApiKey, Scope};
use arrakis_core::record::store::KeyStore;
use arrakis_store_pg::{PgConfig, PgStore};
use arrakis_store_sqlite::{SqliteConfig, SqliteStore};
use arrakis_test_cluster::{Cluster, Database};
use rand::SeedableRng;
use rand::rngs::StdRng;
use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use secrecy::ExposeSecret;
use server::Server;

type Failure = Box<dyn Error + Send + Sync>;

/// Enough for a p99 of five hundred events.
const TURN: Duration = Duration::from_secs(10);
/// Between two events of the quiet workspace.
const PAUSE: Duration = Duration::from_millis(20);
/// Connections that send bad input.
const SENDERS: usize = 4;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let directory = tempfile::TempDir::new()?;
    let path = directory.path().join("arrakis.db");
    let keys =
        Keys::create(&SqliteStore::open(&path, Arc::new(SystemClock), SqliteConfig::default())?)
            .await?;
    compare("SQLite", &format!("sqlite://{}", path.display()), &keys).await?;

    let cluster = Cluster::start(&[])?;
    let database = Database::create_in(&cluster.url("postgres")).await;
    arrakis_store_pg::migrate(database.url()).await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = PgStore::open(database.url(), clock, PgConfig::default()).await?;
    let keys = Keys::create(&store).await?;
    drop(store);
    compare("Postgres", database.url(), &keys).await
}

/// A key for each of the two workspaces.
struct Keys {
    quiet: String,
    bad: String,
}

impl Keys {
    async fn create(store: &impl KeyStore) -> Result<Self, Failure> {
        let mut rng = StdRng::seed_from_u64(1);
        let mut keys = Vec::new();
        for workspace in ["quiet", "bad"] {
            let now = SystemClock.now();
            let (key, row) = ApiKey::generate(workspace, Scope::Ingest, workspace, now, &mut rng);
            store.create_key(row).await?;
            keys.push(key.expose_secret().to_owned());
        }
        let [quiet, bad] = keys.try_into().map_err(|_| "two keys")?;
        Ok(Self { quiet, bad })
    }
}

async fn compare(name: &str, url: &str, keys: &Keys) -> Result<(), Failure> {
    let server = Server::start(url).await?;
    let client = Client::new(&server)?;
    println!(
        "{name}                                       p50      p99    p99 to quiet   bad input, by answer"
    );
    // The first turn warms caches and plans.
    client.quiet(&keys.quiet, "warm").await?;
    let alone = client.quiet(&keys.quiet, "alone").await?;
    println!("  alone                              {alone}");
    for (n, kind) in input::KINDS.iter().enumerate() {
        let next = Arc::new(AtomicUsize::new(0));
        let until = Instant::now() + TURN;
        let bad = (0..SENDERS).map(|_| {
            let (client, key, next) = (client.clone(), keys.bad.clone(), Arc::clone(&next));
            tokio::spawn(async move { client.bad(&key, kind, &next, until).await })
        });
        let bad: Vec<_> = bad.collect();
        let beside = client.quiet(&keys.quiet, &format!("beside-{n}")).await?;
        let mut answers = BTreeMap::new();
        for sender in bad {
            for (status, count) in sender.await?? {
                *answers.entry(status).or_insert(0) += count;
            }
        }
        let ratio = beside.p99.as_secs_f64() / alone.p99.as_secs_f64();
        println!("  {:<34} {beside} {ratio:>9.1} x   {answers:?}", kind.name);
    }
    println!(
        "  largest memory of the server: {:.0} MiB\n",
        server.peak_memory_bytes()? as f64 / 1048576.0
    );
    Ok(())
}

/// How long to wait before the same is sent again; nothing once it is taken.
fn retry_after(answer: reqwest::Response) -> Result<Option<Duration>, Failure> {
    if answer.status() != StatusCode::SERVICE_UNAVAILABLE {
        answer.error_for_status()?;
        return Ok(None);
    }
    let seconds = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    Ok(Some(Duration::from_secs(seconds.ok_or("a time to try again")?.parse()?)))
}

/// What the quiet workspace met.
struct Latencies {
    p50: Duration,
    p99: Duration,
}

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [p50, p99] = [self.p50, self.p99].map(|time| time.as_secs_f64() * 1e3);
        write!(f, "{p50:>6.1} ms {p99:>6.1} ms")
    }
}

#[derive(Clone)]
struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    fn new(server: &Server) -> Result<Self, Failure> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { http, url: format!("http://{}/api/claude-hooks", server.address()) })
    }

    /// Sends events of 1 KiB at a steady pace until each is taken.
    async fn quiet(&self, key: &str, turn: &str) -> Result<Latencies, Failure> {
        let mut ticks = tokio::time::interval(PAUSE);
        let until = Instant::now() + TURN;
        let mut sent = Vec::new();
        for n in 0.. {
            // An event that is answered late delays no other: each goes on its own.
            ticks.tick().await;
            if Instant::now() >= until {
                break;
            }
            let id = format!("{turn}-{n}");
            let request = self.http.post(&self.url).bearer_auth(key).header("X-Request-Id", &id);
            let request = request.body(input::event("quiet-session", &id));
            sent.push(tokio::spawn(async move {
                let began = Instant::now();
                let again = || request.try_clone().ok_or("a request with a body in memory");
                // As a drainer does, it sends what a busy server refuses once more when that says.
                while let Some(pause) = retry_after(again()?.send().await?)? {
                    tokio::time::sleep(pause).await;
                }
                Ok::<_, Failure>(began.elapsed())
            }));
        }
        let mut times = Vec::new();
        for one in sent {
            times.push(one.await??);
        }
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        Ok(Latencies { p50: at(50), p99: at(99) })
    }

    /// Sends bad input until the time is over; how often which status was answered.
    async fn bad(
        &self,
        key: &str,
        kind: &input::Kind,
        next: &AtomicUsize,
        until: Instant,
    ) -> Result<BTreeMap<u16, usize>, Failure> {
        let mut answers = BTreeMap::new();
        while Instant::now() < until {
            let (id, body) = (kind.make)(next.fetch_add(1, Ordering::Relaxed));
            let request = self.http.post(&self.url).bearer_auth(key).header("X-Request-Id", id);
            // A server that refuses a request by its head may close before the body is sent: that counts as 0.
            let answer = request.body(body).send().await;
            let status = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
            *answers.entry(status).or_insert(0) += 1;
            if let Ok(answer) = answer {
                answer.bytes().await.ok();
            }
        }
        Ok(answers)
    }
}
