//! Adding up beyond what every store does: exactly once, whatever fails or dies when.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{Home, count};
use arrakis_core::record::store::{EventStore, Rollups};
use arrakis_core::testkit::event_store::hook;
use arrakis_core::testkit::rollups::{Chaos, assert_usage_counted, fold_all};
use diesel::connection::SimpleConnection;

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
    let mut home = Home::new();
    let mut chaos = Chaos::new(Arc::clone(&home.clock), 11);
    for table in TABLES.into_iter().cycle().take(12) {
        for _ in 0..8 {
            chaos.step(&home.store).await;
        }
        record_usage(&home.store, &mut chaos).await;
        let refuse = |event: &str| {
            format!(
                "CREATE TRIGGER refuse_{event} BEFORE {event} ON {table}
                 BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END;"
            )
        };
        let mut conn = home.beside();
        conn.batch_execute(&(refuse("INSERT") + &refuse("UPDATE"))).unwrap();
        home.store.fold(100).await.unwrap_err();
        conn.batch_execute("DROP TRIGGER refuse_INSERT; DROP TRIGGER refuse_UPDATE").unwrap();
        // What comes next finds the file, not what the store had in its hands.
        home.store = home.again();
        home.store.fold(1).await.unwrap();
    }
    fold_all(&home.store).await;
    chaos.assert_counted(&home.store, &home.store).await;
    assert!(assert_usage_counted(&home.store, &home.store, "one", &["u"]).await > 1);
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
async fn processes_that_fold_beside_each_other_add_each_commit_once() {
    let home = Home::new();
    let others = [Arc::new(home.again()), Arc::new(home.again())];
    let mut chaos = Chaos::new(Arc::clone(&home.clock), 12);
    let mut working = tokio::task::JoinSet::new();
    for _ in 0..60 {
        chaos.step(&home.store).await;
        for other in &others {
            let other = Arc::clone(other);
            working.spawn(async move { other.fold(2).await.unwrap() });
        }
    }
    working.join_all().await;
    fold_all(&*others[0]).await;
    chaos.assert_counted(&home.store, &*others[1]).await;
}

#[tokio::test]
async fn a_commit_stays_until_it_is_added_up() {
    let home = Home::new();
    let mut chaos = Chaos::new(Arc::clone(&home.clock), 13);
    let mut conn = home.beside();
    for _ in 0..10 {
        chaos.step(&home.store).await;
    }
    let before = count(&mut conn, "commits");
    home.clock.advance(Duration::from_secs(25 * 3600));
    chaos.step(&home.store).await;
    while home.store.index(100).await.unwrap() > 0 {}
    assert!(count(&mut conn, "commits") >= before);
    fold_all(&home.store).await;
    chaos.assert_counted(&home.store, &home.store).await;
    record_usage(&home.store, &mut chaos).await;
    while home.store.index(100).await.unwrap() > 0 {}
    assert!(count(&mut conn, "commits") < before);
    fold_all(&home.store).await;
    chaos.assert_counted(&home.store, &home.store).await;
}
