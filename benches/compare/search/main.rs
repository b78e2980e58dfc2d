//! Searching conversations in SQLite and in Postgres.
//!
//! `cargo run --release -p arrakis-benches --bin compare-search`. It stores 1,000,000 messages of a year
//! (`--messages N` for another number) and a tool use for each fourth of them, through `record` and `index`
//! as a server does, and asks for rare and common words, with filters and without, the first page and
//! later ones. `--sqlite` or `--postgres` leaves the other out.

#![allow(clippy::print_stdout, reason = "it prints its result")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

mod data;
mod queries;

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrakis_core::base::clock::SystemClock;
use arrakis_core::record::store::EventStore;
use arrakis_store_pg::{PgConfig, PgStore};
use arrakis_store_sqlite::{SqliteConfig, SqliteStore};
use arrakis_test_cluster::{Cluster, Database};
use data::Data;

type Failure = Box<dyn Error + Send + Sync>;

/// Hits of a page, as the command line asks for.
const PAGE: usize = 20;

/// Pages of one search that are read.
const PAGES: usize = 4;

/// How often each kind of search is asked, each time with other words or another project.
const TIMES: u64 = 12;

/// What a search may take, as the 95th percentile.
const BUDGET: Duration = Duration::from_millis(200);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (mut messages, mut asked) = (1_000_000, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), &mut asked) {
            ("--messages", _) => messages = arguments.next().ok_or("--messages N")?.parse()?,
            ("--sqlite" | "--postgres", asked) => *asked = Some(argument),
            _ => return Err("usage: compare-search [--messages N] [--sqlite | --postgres]".into()),
        }
    }
    let data = Data { messages };
    if asked.as_deref() != Some("--postgres") {
        let directory = tempfile::TempDir::new()?;
        let path = directory.path().join("arrakis.db");
        let store = SqliteStore::open(&path, Arc::new(SystemClock), SqliteConfig::default())?;
        measure("SQLite", Arc::new(store), data).await?;
        println!("the file has {} MB\n", std::fs::metadata(&path)?.len() / 1_000_000);
    }
    if asked.as_deref() != Some("--sqlite") {
        let cluster = Cluster::start(&[])?;
        let database = Database::create_in(&cluster.url("postgres")).await;
        arrakis_store_pg::migrate(database.url()).await?;
        let store =
            PgStore::open(database.url(), Arc::new(SystemClock), PgConfig::default()).await?;
        measure("Postgres", Arc::new(store), data).await?;
    }
    Ok(())
}

/// Fills a store and asks it.
async fn measure(name: &str, store: Arc<dyn EventStore>, data: Data) -> Result<(), Failure> {
    let (mut recorded, mut indexed) = (Duration::ZERO, Duration::ZERO);
    for batch in data.batches() {
        let started = Instant::now();
        store.record(batch).await?;
        recorded += started.elapsed();
        let started = Instant::now();
        while store.index(100).await? == 100 {}
        indexed += started.elapsed();
    }
    println!(
        "{name}: {} messages and {} tool uses, recorded in {:.0} s, indexed in {:.0} s",
        data.messages,
        data.messages / data::MESSAGES_A_TOOL_USE,
        recorded.as_secs_f64(),
        indexed.as_secs_f64()
    );
    println!("{:<58} {:>5} {:>10} {:>10} {:>10}", "", "hits", "P50", "P95", "max");
    let mut all = Vec::new();
    for kind in queries::KINDS {
        let (mut times, mut hits) = (Vec::new(), 0);
        for n in 0..TIMES {
            let filter = (kind.filter)(data, n);
            let mut after = None;
            for _ in 0..PAGES {
                let started = Instant::now();
                let page = store.search(filter.clone(), after, PAGE).await?;
                times.push(started.elapsed());
                hits += page.hits.len();
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        times.sort_unstable();
        show(kind.name, hits as u64 / TIMES, &times);
        all.extend(times);
    }
    all.sort_unstable();
    show("all of them", 0, &all);
    let p95 = percentile(&all, 95);
    println!("P95 {:.1} ms   (budget: below {} ms)", millis(p95), BUDGET.as_millis());
    Ok(())
}

fn show(name: &str, hits: u64, times: &[Duration]) {
    let [p50, p95, max] = [50, 95, 100].map(|percent| millis(percentile(times, percent)));
    println!("{name:<58} {hits:>5} {p50:>7.1} ms {p95:>7.1} ms {max:>7.1} ms");
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
