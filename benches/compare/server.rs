//! The server on SQLite against a bare loop that inserts the same rows.
//!
//! `cargo run --release -p arrakis-benches --bin compare-server`. Both write with synchronous=FULL to
//! files in one directory, one after the other in short turns; what counts is the ratio.

#![allow(clippy::print_stdout, reason = "it prints its result")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrakis_core::base::clock::{Clock, SystemClock};
use arrakis_core::record::key::{ApiKey, Scope};
use arrakis_core::record::store::{DEFAULT_WORKSPACE, KeyStore};
use arrakis_core::session::redact::Redactor;
use arrakis_store_sqlite::{SqliteConfig, SqliteStore};
use arrakis_transport_http::server::{ServeConfig, ServerConfig, ServerState, bind, router, serve};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

const CONNECTIONS: usize = 16;
const TURNS: usize = 5;
const EVENTS_PER_TURN: usize = 4000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::TempDir::new()?;
    let path = directory.path().join("arrakis.db");
    let store = Arc::new(SqliteStore::open(&path, Arc::new(SystemClock), SqliteConfig::default())?);
    let mut rng = StdRng::seed_from_u64(1);
    let (key, row) =
        ApiKey::generate("bench", Scope::Ingest, DEFAULT_WORKSPACE, SystemClock.now(), &mut rng);
    store.create_key(row).await?;
    let state = ServerState::new(
        Arc::<SqliteStore>::clone(&store),
        Arc::<SqliteStore>::clone(&store),
        Arc::new(SystemClock),
        Redactor::default(),
        ServerConfig::default(),
    );
    let listener = bind(([127, 0, 0, 1], 0).into())?;
    let url = format!("http://{}/api/claude-hooks", listener.local_addr()?);
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    tokio::spawn(serve(listener, router(state), ServeConfig::default(), stopped));

    rustls::crypto::ring::default_provider().install_default().ok();
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(CONNECTIONS).build()?;
    let mut bare = Bare::open(&directory.path().join("bare.db"))?;
    let (mut served, mut inserted, mut latencies) = (Duration::ZERO, Duration::ZERO, Vec::new());
    for turn in 0..TURNS {
        let started = Instant::now();
        latencies.extend(requests(&http, &url, key.expose_secret(), turn).await?);
        served += started.elapsed();
        // The same rows as the server has just written, read outside of the clock.
        let rows = bare.copy_of(&path, turn)?;
        let started = Instant::now();
        bare.insert(rows)?;
        inserted += started.elapsed();
    }
    latencies.sort_unstable();
    let per_second = |time: Duration| (TURNS * EVENTS_PER_TURN) as f64 / time.as_secs_f64();
    let (server, loop_) = (per_second(served), per_second(inserted));
    let percentile = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    println!(
        "{} events of 1 KiB, {CONNECTIONS} connections, synchronous=FULL\n",
        TURNS * EVENTS_PER_TURN
    );
    println!("server, one event a request   {server:>9.0}/s");
    println!("bare loop, 16 a transaction   {loop_:>9.0}/s");
    println!(
        "ratio                         {:>9.0} %   (budget: at least 50 %)",
        100.0 * server / loop_
    );
    println!(
        "request to committed answer   p50 {:.2?}, p95 {:.2?}, p99 {:.2?} at full rate",
        percentile(50),
        percentile(95),
        percentile(99)
    );
    stop.cancel();
    Ok(())
}

/// Sends one turn's events over all connections; how long each took.
async fn requests(
    http: &reqwest::Client,
    url: &str,
    key: &str,
    turn: usize,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let next = Arc::new(AtomicUsize::new(0));
    let senders = (0..CONNECTIONS).map(|_| {
        let (http, url, key, next) = (http.clone(), url.to_owned(), key.to_owned(), Arc::clone(&next));
        tokio::spawn(async move {
            let mut times = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= EVENTS_PER_TURN {
                    return Ok::<_, reqwest::Error>(times);
                }
                let body = format!(
                    r#"{{"session_id":"s{}","cwd":"/p","hook_event_name":"PostToolUse","tool_name":"Bash","tool_use_id":"t{turn}-{n}","tool_response":"{}"}}"#,
                    n % 50, "x".repeat(880)
                );
                let request = http.post(&url).bearer_auth(&key).header("X-Request-Id", format!("r{turn}-{n}"));
                let started = Instant::now();
                request.body(body).send().await?.error_for_status()?.bytes().await?;
                times.push(started.elapsed());
            }
        })
    });
    let mut times = Vec::new();
    for sender in senders.collect::<Vec<_>>() {
        times.extend(sender.await??);
    }
    Ok(times)
}

/// The tables of the server, and a loop that inserts into them.
struct Bare(SqliteConnection);

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

impl Bare {
    fn open(path: &Path) -> Result<Self, Box<dyn Error>> {
        // The store makes the tables; the loop has nothing else of it.
        drop(SqliteStore::open(path, Arc::new(SystemClock), SqliteConfig::default())?);
        let mut connection = SqliteConnection::establish(&path.to_string_lossy())?;
        connection.batch_execute(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-16384;",
        )?;
        Ok(Self(connection))
    }

    /// Takes the rows of one turn from the server's file into memory; returns how many.
    fn copy_of(&mut self, path: &Path, turn: usize) -> Result<i64, Box<dyn Error>> {
        let of = format!("request_id GLOB 'r{turn}-*'");
        self.0.batch_execute(&format!(
            "PRAGMA temp_store=MEMORY;
             ATTACH '{}' AS server;
             DROP TABLE IF EXISTS temp.events; DROP TABLE IF EXISTS temp.ids; DROP TABLE IF EXISTS temp.tools;
             CREATE TEMP TABLE events AS SELECT * FROM server.webhook_events WHERE {of} ORDER BY id;
             CREATE TEMP TABLE ids AS SELECT i.* FROM temp.events e JOIN server.request_ids i USING (workspace, request_id) ORDER BY e.rowid;
             CREATE TEMP TABLE tools AS SELECT t.* FROM temp.events e JOIN server.tool_uses t ON t.id = e.tool_use_id ORDER BY e.rowid;
             DETACH server;",
            path.display()
        ))?;
        let rows: Count = diesel::sql_query("SELECT count(*) AS count FROM temp.events")
            .get_result(&mut self.0)?;
        Ok(rows.count)
    }

    /// Inserts the rows, 16 in each transaction and one statement a table, so that preparing costs the
    /// loop as good as nothing.
    fn insert(&mut self, rows: i64) -> Result<(), diesel::result::Error> {
        for first in (1..=rows).step_by(16) {
            self.0.immediate_transaction(|connection| {
                for (table, from) in
                    [("webhook_events", "events"), ("request_ids", "ids"), ("tool_uses", "tools")]
                {
                    let insert = format!(
                        "INSERT INTO main.{table} SELECT * FROM temp.{from} WHERE rowid BETWEEN ? AND ?"
                    );
                    diesel::sql_query(insert)
                        .bind::<BigInt, _>(first)
                        .bind::<BigInt, _>(first + 15)
                        .execute(connection)?;
                }
                Ok::<_, diesel::result::Error>(())
            })?;
        }
        Ok(())
    }
}
