//! The server on Postgres against the ways it replaces.
//!
//! Build first (`cargo build --release --workspace`), then
//! `cargo run --release -p arrakis-benches --bin compare-postgres`. It starts a Postgres of its own with
//! the settings of a fresh installation, fsync included, and the real `arrakis-server`. Both sides of a
//! comparison take short turns in one run; what counts is the ratio. `--large` checks duplicates among
//! 10,000,000 rows instead of 1,000,000; `--quick` leaves out what needs a large table.

#![allow(clippy::print_stdout, reason = "it prints its result")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

mod bulk;
mod duplicates;
mod load;
mod original;
mod server;

use std::error::Error;
use std::time::{Duration, Instant};

use arrakis_test_cluster::{Cluster, Database};
use load::{Load, percentile};
use original::Original;
use server::Server;

const TURNS: usize = 3;
/// Enough that a turn takes about a second on either side.
const EVENTS: usize = 6000;
const ORIGINAL_EVENTS: usize = 1500;
const BATCHES: usize = 20;
const BATCH: usize = 500;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let asked = |flag: &str| std::env::args().any(|one| one == flag);
    let rows = if asked("--large") { 10_000_000 } else { 1_000_000 };
    let cluster = Cluster::start(&[])?;
    let admin = cluster.url("postgres");
    let empty = Database::create_in(&admin).await;
    let server = Server::start(empty.url()).await?;
    println!("Postgres with fsync and its own defaults, events of 1 KiB, one machine for all\n");
    for connections in [16, 64] {
        singles(&server, &empty, &Database::create_in(&admin).await, connections).await?;
    }
    batches(&server, &empty).await?;
    if asked("--quick") {
        return Ok(());
    }
    let filled = Database::create_in(&admin).await;
    let large = Server::start(filled.url()).await?;
    duplicates::fill(&filled, rows).await?;
    growth(&server, &large, rows).await?;
    let times = duplicates::check(&filled, rows).await?;
    println!(
        "duplicate check at {rows} rows: p50 {:.3} ms, p99 {:.3} ms of database time   (budget: p99 below 1 ms)",
        percentile(&times, 50).as_secs_f64() * 1e3,
        percentile(&times, 99).as_secs_f64() * 1e3
    );
    println!(
        "largest memory of the server: {:.1} MiB   (budget: below 64 MiB)",
        server.peak_memory_bytes()? as f64 / 1048576.0
    );
    Ok(())
}

/// What a database has written, and what it holds.
#[derive(Default)]
struct Bytes {
    wal: i64,
    stored: i64,
}

impl Bytes {
    async fn now(database: &Database) -> Result<Self, Failure> {
        let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint AS wal, \
            pg_database_size(current_database()) AS stored";
        let row = original::connect(database).await?.query_one(sql, &[]).await?;
        Ok(Self { wal: row.get(0), stored: row.get(1) })
    }

    fn plus(self, began: &Self, ended: &Self) -> Self {
        Self {
            wal: self.wal + ended.wal - began.wal,
            stored: self.stored + ended.stored - began.stored,
        }
    }
}

/// Single events over many connections, against the original's way on its own tables.
async fn singles(
    server: &Server,
    database: &Database,
    of_original: &Database,
    connections: usize,
) -> Result<(), Failure> {
    let original = Original::start(of_original, connections).await?;
    let load = Load::new(server.address(), connections);
    let load_of_original = Load::new(original.address(), connections);
    let (mut ours, mut theirs, mut latencies) = (Duration::ZERO, Duration::ZERO, Vec::new());
    let mut bytes = Bytes::default();
    for turn in 0..TURNS {
        let began = Bytes::now(database).await?;
        let started = Instant::now();
        latencies.extend(load.singles(EVENTS, &format!("a{connections}-{turn}")).await?);
        ours += started.elapsed();
        bytes = bytes.plus(&began, &Bytes::now(database).await?);
        let started = Instant::now();
        load_of_original.singles(ORIGINAL_EVENTS, &turn.to_string()).await?;
        theirs += started.elapsed();
    }
    latencies.sort_unstable();
    let ours = (TURNS * EVENTS) as f64 / ours.as_secs_f64();
    let theirs = (TURNS * ORIGINAL_EVENTS) as f64 / theirs.as_secs_f64();
    println!("{connections} connections, single events");
    println!("  server                                 {ours:>8.0}/s");
    println!("  the original's way, behind HTTP too    {theirs:>8.0}/s");
    println!(
        "  ratio                                  {:>8.1} x   (budget: at least 6 x)",
        ours / theirs
    );
    let (events, kib) = ((TURNS * EVENTS) as f64, 1024.0);
    println!(
        "  an event                               {:.1} KiB of WAL, {:.1} KiB stored",
        bytes.wal as f64 / kib / events,
        bytes.stored as f64 / kib / events
    );
    println!(
        "  request to committed answer            p50 {:.1?}, p95 {:.1?}, p99 {:.1?} at full rate\n",
        percentile(&latencies, 50),
        percentile(&latencies, 95),
        percentile(&latencies, 99)
    );
    Ok(())
}

/// The batch endpoint, against plain SQL that inserts the same rows into the same tables.
async fn batches(server: &Server, database: &Database) -> Result<(), Failure> {
    let mut bulk = bulk::Bulk::open(database).await?;
    let load = Load::new(server.address(), 4);
    let (mut ours, mut theirs) = (Duration::ZERO, Duration::ZERO);
    for turn in 0..TURNS {
        let started = Instant::now();
        load.batches(BATCHES, BATCH, &format!("b{turn}")).await?;
        ours += started.elapsed();
        let rows = bulk.copy_of(&format!("b{turn}-")).await?;
        let started = Instant::now();
        bulk.insert(rows, BATCH).await?;
        theirs += started.elapsed();
    }
    let per_second = |time: Duration| (TURNS * BATCHES * BATCH) as f64 / time.as_secs_f64();
    let (ours, theirs) = (per_second(ours), per_second(theirs));
    println!("batches of {BATCH} events");
    println!("  server, over HTTP                      {ours:>8.0}/s");
    println!("  plain SQL, {BATCH} rows a transaction     {theirs:>8.0}/s");
    println!(
        "  ratio                                  {:>8.0} %   (budget: at least 50 %)\n",
        100.0 * ours / theirs
    );
    Ok(())
}

/// Single events into a database with many rows, against one with few.
async fn growth(few: &Server, many: &Server, rows: usize) -> Result<(), Failure> {
    let loads = [Load::new(few.address(), 16), Load::new(many.address(), 16)];
    let mut times = [Duration::ZERO; 2];
    for turn in 0..=TURNS {
        for (n, (load, time)) in loads.iter().zip(&mut times).enumerate() {
            let started = Instant::now();
            load.singles(EVENTS, &format!("g{n}-{turn}")).await?;
            // The first turn warms both up.
            *time += if turn == 0 { Duration::ZERO } else { started.elapsed() };
        }
    }
    let [few, many] = times.map(|time| (TURNS * EVENTS) as f64 / time.as_secs_f64());
    println!("16 connections, single events, by what is stored already");
    println!("  less than 100,000 rows                 {few:>8.0}/s");
    println!("  {rows} rows                         {many:>8.0}/s");
    println!(
        "  ratio                                  {:>8.0} %   (budget: at least 80 %)\n",
        100.0 * many / few
    );
    Ok(())
}
