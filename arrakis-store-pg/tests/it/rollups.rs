//! Adding up beyond what every store does: exactly once, whatever fails or dies when, by one server at a time.

use std::sync::Arc;
use std::time::Duration;

use crate::common::Home;
use arrakis_core::base::error::Retryable;
use arrakis_core::record::store::{EventStore, Rollups};
use arrakis_core::testkit::event_store::hook;
use arrakis_core::testkit::rollups::{Chaos, assert_usage_counted, fold_all};
use arrakis_store_pg::PgConfig;
use arrakis_test_cluster::{Cluster, Database};
use diesel::QueryableByName;
use diesel::sql_types::BigInt;
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};

/// The tables that one step of folding writes to.
const TABLES: [&str; 6] = [
    "rollup_minute",
    "rollup_hour",
    "rollup_day",
    "usage_messages",
    "usage_15min",
    "rollup_position",
];

#[tokio::test]
async fn a_step_that_fails_anywhere_is_made_again_whole() {
    let mut home = Home::new().await;
    let mut chaos = Chaos::new(Arc::clone(&home.clock), 11);
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'no space' USING ERRCODE = 'disk_full'; END $$";
    home.database.run_sql(refuse).await;
    for table in TABLES {
        for _ in 0..8 {
            chaos.step(&*home.store).await;
        }
        record_usage(&*home.store, &mut chaos).await;
        let trigger = format!(
            "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {table} EXECUTE FUNCTION refuse()"
        );
        home.database.run_sql(&trigger).await;
        home.store.fold(100).await.unwrap_err();
        home.database.run_sql(&format!("DROP TRIGGER refuse ON {table}")).await;
        home.store = home.again().await;
        home.store.fold(1).await.unwrap();
    }
    fold_all(&*home.store).await;
    chaos.assert_counted(&*home.store, &*home.store).await;
    assert!(assert_usage_counted(&*home.store, &*home.store, "one", &["u"]).await > 1);
}

/// A message of the API, so that each table is written to.
async fn record_usage(store: &dyn EventStore, chaos: &mut Chaos) {
    let n = chaos.sent();
    let line = format!(
        r#"{{"uuid":"l{n}","timestamp":"2026-11-24T00:55:00.000Z","type":"assistant","message":{{"id":"m{n}","model":"claude-opus-5-5","content":[{{"type":"text","text":"hi"}}],"usage":{{"input_tokens":{n},"output_tokens":1}}}}}}"#
    );
    let more = format!(r#","transcript_path":"/t.jsonl","lines":[{line}]"#);
    let event = chaos.next("one", hook("u", "Transcript", &more));
    store.record(vec![event]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_database_adds_each_commit_once() {
    let mut cluster = Cluster::start(&[]).unwrap();
    let database = Database::create_in(&cluster.url("postgres")).await;
    let home = Home::with(database, PgConfig::default()).await;
    let mut chaos = Chaos::new(Arc::clone(&home.clock), 12);
    for _ in 0..3 {
        for _ in 0..20 {
            chaos.step(&*home.store).await;
        }
        let store = Arc::clone(&home.store);
        let folding = tokio::spawn(async move {
            loop {
                match store.fold(1).await {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) => return assert!(error.is_retryable(), "{error:?}"),
                }
            }
        });
        cluster = tokio::task::spawn_blocking(move || {
            cluster.kill();
            cluster.restart().unwrap();
            cluster
        })
        .await
        .unwrap();
        folding.await.unwrap();
        home.store.ping().await.unwrap();
    }
    fold_all(&*home.store).await;
    chaos.assert_counted(&*home.store, &*home.store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_fold_beside_each_other_add_each_commit_once() {
    let home = Home::new().await;
    let others = [home.again().await, home.again().await];
    let mut chaos = Chaos::new(Arc::clone(&home.clock), 13);
    let mut working = tokio::task::JoinSet::new();
    for _ in 0..40 {
        chaos.step(&*home.store).await;
        for other in &others {
            let other = Arc::clone(other);
            working.spawn(async move { other.fold(2).await.unwrap() });
        }
    }
    working.join_all().await;
    fold_all(&*others[0]).await;
    chaos.assert_counted(&*home.store, &*others[1]).await;
}

#[tokio::test]
async fn a_transaction_that_takes_long_is_added_when_it_commits() {
    let home = Home::new().await;
    let mut chaos = Chaos::new(Arc::clone(&home.clock), 14);
    chaos.step(&*home.store).await;
    let mut holder = home.database.connect().await;
    holder.batch_execute("BEGIN; LOCK TABLE commits IN SHARE MODE").await.unwrap();
    let batch = chaos.batch();
    let store = Arc::clone(&home.store);
    let recording = tokio::spawn(async move { store.record(batch).await.unwrap() });
    while !recording.is_finished() {
        if waiting(&home).await > 0 {
            fold_all(&*home.store).await;
            holder.batch_execute("ROLLBACK").await.unwrap();
            break;
        }
    }
    recording.await.unwrap();
    chaos.step(&*home.store).await;
    fold_all(&*home.store).await;
    chaos.assert_counted(&*home.store, &*home.store).await;
}

async fn number(home: &Home, sql: &str) -> i64 {
    #[derive(QueryableByName)]
    struct Number {
        #[diesel(sql_type = BigInt)]
        number: i64,
    }
    let mut conn = home.database.connect().await;
    diesel::sql_query(sql).get_result::<Number>(&mut conn).await.unwrap().number
}

async fn waiting(home: &Home) -> i64 {
    let sql = "SELECT count(*) AS number FROM pg_stat_activity \
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    number(home, sql).await
}

#[tokio::test]
async fn a_commit_stays_until_it_is_added_up() {
    const COMMITS: &str = "SELECT count(*) AS number FROM commits";
    let home = Home::new().await;
    let mut chaos = Chaos::new(Arc::clone(&home.clock), 15);
    for _ in 0..10 {
        chaos.step(&*home.store).await;
    }
    let before = number(&home, COMMITS).await;
    home.clock.advance(Duration::from_secs(25 * 3600));
    for _ in 0..2 {
        record_usage(&*home.store, &mut chaos).await;
        while home.store.index(100).await.unwrap() > 0 {}
    }
    assert!(number(&home, COMMITS).await > before);
    fold_all(&*home.store).await;
    chaos.assert_counted(&*home.store, &*home.store).await;
    record_usage(&*home.store, &mut chaos).await;
    while home.store.index(100).await.unwrap() > 0 {}
    assert!(number(&home, COMMITS).await < before);
    fold_all(&*home.store).await;
    chaos.assert_counted(&*home.store, &*home.store).await;
}

#[tokio::test]
async fn a_dump_of_which_nothing_was_added_up_is_added_when_it_is_restored() {
    let home = Home::new().await;
    let mut chaos = Chaos::new(Arc::clone(&home.clock), 17);
    for _ in 0..10 {
        chaos.step(&*home.store).await;
    }
    home.database
        .run_sql("UPDATE commits SET xid = (xid::text::numeric + 1000000)::text::xid8")
        .await;
    arrakis_store_pg::migrate(home.database.url()).await.unwrap();
    chaos.assert_counted(&*home.store, &*home.store).await;
}

#[tokio::test]
async fn what_a_dump_has_not_added_up_is_added_when_it_is_restored() {
    let home = Home::new().await;
    let mut chaos = Chaos::new(Arc::clone(&home.clock), 16);
    for _ in 0..10 {
        chaos.step(&*home.store).await;
    }
    fold_all(&*home.store).await;
    for _ in 0..10 {
        chaos.step(&*home.store).await;
    }
    // Where the dump was made, numbers are higher by a million, and the snapshot of the last step was taken there.
    home.database
        .run_sql(
            "UPDATE commits SET xid = (xid::text::numeric + 1000000)::text::xid8;
             UPDATE rollup_position SET position = concat(ends, ':', ends, ':') FROM (
                 SELECT pg_snapshot_xmax(position::pg_snapshot)::text::numeric + 1000000
                 FROM rollup_position) AS dump (ends);
             UPDATE search_position SET position = '9000000:9000000:'",
        )
        .await;
    arrakis_store_pg::migrate(home.database.url()).await.unwrap();
    chaos.assert_counted(&*home.store, &*home.store).await;
    for _ in 0..10 {
        chaos.step(&*home.store).await;
    }
    fold_all(&*home.store).await;
    chaos.assert_counted(&*home.store, &*home.store).await;
}
