//! What can go wrong between a store and its database in the middle of a transaction.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::{Home, record_one};
use arrakis_core::base::error::Retryable;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::{AdmissionKind, EventReader, EventStore};
use arrakis_core::testkit::event_store::hook;
use arrakis_store_pg::{PgConfig, PgStore};
use arrakis_test_cluster::{Cluster, Database};
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_no_repeat_of_itself() {
    let cluster = Cluster::start(&["fsync=off"]).unwrap();
    let database = Database::create_in(&cluster.url("postgres")).await;
    let mut home = Home::with(database, PgConfig::default()).await;
    let proxy = Proxy::start(home.database.url()).await;
    let clock: Arc<dyn arrakis_core::base::clock::Clock> = Arc::clone(&home.clock) as _;
    let config = PgConfig { writers: 1, ..PgConfig::default() };
    let store = PgStore::open(&proxy.url, clock, config).await.unwrap();
    let first = record_one(&store, home.arrivals.prompt("first", "s")).await;

    let mut batch: Vec<_> = (0..4).map(|n| home.arrivals.prompt(&format!("r{n}"), "s")).collect();
    batch.push(home.arrivals.prompt("first", "s"));
    batch.push(home.arrivals.next("no-json", "no json"));
    proxy.loses_the_next_commit.store(true, Ordering::SeqCst);
    let admissions = store.record(batch.clone()).await.unwrap();
    assert!(!AtomicBool::load(&proxy.loses_the_next_commit, Ordering::SeqCst), "none was lost");
    for ((arrival, verdict), admission) in batch.iter().zip(&admissions).take(4) {
        assert_eq!((admission.kind, admission.status), (AdmissionKind::New, verdict.status()));
        assert_eq!(admission.event_id, arrival.event_id);
    }
    assert_eq!(admissions[4].kind, AdmissionKind::Duplicate);
    assert_eq!(admissions[4].event_id, first.event_id);
    let counts = home.store.counts().await.unwrap();
    assert_eq!(counts[&EventStatus::Success], 5);
    assert_eq!(counts.values().sum::<u64>(), 7);
    let detail = home.store.conversation("main", "s").await.unwrap().unwrap();
    assert_eq!(detail.messages.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlocks_are_tried_again_and_never_held_against_an_event() {
    let mut home = Home::new().await;
    let call =
        |event, rest| hook("s", event, &format!(r#","tool_name":"T","tool_use_id":"t"{rest}"#));
    record_one(&home.store, home.arrivals.next("pre", call("PreToolUse", ""))).await;
    let mut holder = holding_the_tool_use(&home).await;
    let post = home.arrivals.next("post", call("PostToolUse", r#","tool_response":"done""#));
    let store = Arc::clone(&home.store);
    let recording = tokio::spawn(async move { record_one(&store, post).await });
    for _ in 0..3 {
        // The store has the conversation and waits for the tool use; the other has it the other way round.
        wait_until(&home, || recording.is_finished(), 1).await;
        let queueing = holding_the_tool_use(&home);
        let (next, ()) = tokio::join!(queueing, async {
            wait_until(&home, || recording.is_finished(), 2).await;
            holder.batch_execute("SELECT FROM conversations FOR UPDATE").await.unwrap();
            wait_until(&home, || recording.is_finished(), 2).await;
            holder.batch_execute("ROLLBACK").await.unwrap();
        });
        holder = next;
    }
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(recording.await.unwrap().status, EventStatus::Success);
    let trail = home.store.counts().await.unwrap();
    assert_eq!(trail[&EventStatus::Success], 2, "{trail:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_event_waits_for_no_large_one() {
    let mut home = Home::new().await;
    record_one(&home.store, home.arrivals.prompt("first", "slow")).await;
    let mut holder = home.database.connect().await;
    holder.batch_execute("BEGIN; SELECT FROM conversations FOR UPDATE").await.unwrap();
    let text = format!(r#","prompt":"{}""#, "x".repeat(100 * 1024));
    let large = home.arrivals.next("large", hook("slow", "UserPromptSubmit", &text));
    let store = Arc::clone(&home.store);
    let recording = tokio::spawn(async move { record_one(&store, large).await });
    wait_until(&home, || recording.is_finished(), 1).await;
    let small = record_one(&home.store, home.arrivals.prompt("small", "quick")).await;
    assert_eq!(small.status, EventStatus::Success);
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(recording.await.unwrap().status, EventStatus::Success);
}

#[tokio::test]
async fn a_database_that_only_reads_is_unavailable_and_later_it_is_not() {
    let mut home = Home::new().await;
    let database = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I {}', current_database()); END $$";
    // Sessions have the setting of the moment that they began in.
    let reconnect = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let read_only = "SET default_transaction_read_only = on";
    home.database.run_sql(&database.replace("{}", read_only)).await;
    home.database.run_sql(reconnect).await;
    let one = home.arrivals.prompt("r", "s");
    for _ in 0..2 {
        assert!(home.store.record(vec![one.clone()]).await.unwrap_err().is_retryable());
        assert!(home.store.ping().await.unwrap_err().is_retryable());
        assert!(home.store.counts().await.unwrap().is_empty());
    }
    let mut conn = home.database.connect().await;
    conn.batch_execute("SET default_transaction_read_only = off").await.unwrap();
    conn.batch_execute(&database.replace("{}", "RESET default_transaction_read_only"))
        .await
        .unwrap();
    home.store.ping().await.unwrap();
    assert_eq!(record_one(&home.store, one).await.status, EventStatus::Success);
}

/// A transaction that has the only tool use, and is the last to find out about a deadlock.
async fn holding_the_tool_use(home: &Home) -> AsyncPgConnection {
    let mut conn = home.database.connect().await;
    conn.batch_execute(
        "SET lock_timeout = 0; SET statement_timeout = 0; SET deadlock_timeout = '10min'; \
         BEGIN; SELECT FROM tool_uses FOR UPDATE",
    )
    .await
    .unwrap();
    conn
}

/// Waits until this many transactions wait for others, or nothing is left to wait for.
async fn wait_until(home: &Home, is_over: impl Fn() -> bool, waiting: i64) {
    #[derive(QueryableByName)]
    struct Found {
        #[diesel(sql_type = BigInt)]
        waiting: i64,
    }
    let sql = "SELECT count(*) AS waiting FROM pg_stat_activity \
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let mut conn = home.database.connect().await;
    while !is_over() {
        let found: Found = diesel::sql_query(sql).get_result(&mut conn).await.unwrap();
        if found.waiting == waiting {
            return;
        }
    }
}

/// Stands between a store and its server, and can lose the answer to a commit.
struct Proxy {
    url: String,
    loses_the_next_commit: Arc<AtomicBool>,
}

impl Proxy {
    /// In front of the server at the socket in `url`.
    async fn start(url: &str) -> Self {
        let (folder, database) = url.rsplit_once('@').unwrap().1.split_once('/').unwrap();
        let socket = format!("{}/.s.PGSQL.5432", folder.replace("%2F", "/"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let loses = Arc::<AtomicBool>::default();
        let shared = Arc::clone(&loses);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&socket).await.unwrap();
                tokio::spawn(pass(client, server, Arc::clone(&shared)));
            }
        });
        let url = format!("postgres://postgres@{address}/{database}?sslmode=disable");
        Self { url, loses_the_next_commit: loses }
    }
}

/// Passes on what both say, until one ends or a commit was to be lost.
async fn pass(mut client: TcpStream, mut server: UnixStream, loses: Arc<AtomicBool>) {
    let (mut asked, mut answered) = ([0; 65536], [0; 65536]);
    let mut doomed = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(1..) = read else { return };
                let text = &asked[..read.unwrap()];
                let commits = text.windows(7).any(|part| part == b"COMMIT\0");
                doomed |= commits && loses.swap(false, Ordering::SeqCst);
                server.write_all(text).await.unwrap();
            }
            read = server.read(&mut answered) => {
                let Ok(1..) = read else { return };
                if doomed {
                    return;
                }
                if client.write_all(&answered[..read.unwrap()]).await.is_err() {
                    return;
                }
            }
        }
    }
}
