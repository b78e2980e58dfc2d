//! The queries of `docs/monitoring`, on rows of every kind.

use crate::common::{Home, record_one};
use arrakis_core::base::clock::{Clock, SystemClock};
use arrakis_core::record::store::{EventStore, Verdict};
use arrakis_core::testkit::event_store::hook;
use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;
use serde_json::{Value, json};

/// The rows of a query as JSON.
async fn rows(home: &Home, sql: &str) -> Vec<Value> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        row: String,
    }
    let sql = sql.trim_end().trim_end_matches(';');
    let sql = format!("SELECT to_jsonb(q)::text AS row FROM (\n{sql}\n) AS q");
    let rows: Vec<Row> =
        diesel::sql_query(sql).load(&mut home.database.connect().await).await.unwrap();
    rows.iter().map(|row| serde_json::from_str(&row.row).unwrap()).collect()
}

/// Four prompts of which one comes twice, a stop that fails for good, one that waits, and one invalid.
async fn home() -> Home {
    let mut home = Home::new().await;
    // The queries look at the last hours.
    home.clock.set(SystemClock.now().minus(std::time::Duration::from_secs(60)));
    for n in 0..4 {
        record_one(&home.store, home.arrivals.prompt(&format!("p{n}"), "s")).await;
    }
    record_one(&home.store, home.arrivals.next("d", hook("s", "SessionStart", ""))).await;
    record_one(&home.store, home.arrivals.next("d", hook("s", "SessionStart", ""))).await;
    record_one(&home.store, home.arrivals.next("x", "no json")).await;
    let failed = |code: &str| Verdict::Failed { code: code.to_owned(), message: "why".to_owned() };
    for (id, code) in [("f", "broken"), ("w", "later")] {
        let (arrival, _) = home.arrivals.next(id, hook("s", "Stop", ""));
        record_one(&home.store, (arrival, failed(code))).await;
    }
    let due = home.clock.now().plus(std::time::Duration::from_secs(3600));
    for claim in home.store.claim_due(due, crate::common::start(), 1).await.unwrap() {
        assert_eq!(claim.arrival.request_id.as_str(), "f");
        home.store.complete(claim, failed("broken"), None).await.unwrap();
    }
    home
}

#[tokio::test]
async fn volume_counts_events_by_day_and_type_without_repeats() {
    let home = home().await;
    let found = rows(&home, include_str!("../../../docs/monitoring/volume.sql")).await;
    let counts: Vec<_> = found.iter().map(|row| (&row["event_type"], &row["events"])).collect();
    let expected = [("UserPromptSubmit", 4), ("Stop", 2), ("SessionStart", 1), ("unknown", 1)];
    let expected = expected.map(|(name, count)| (json!(name), json!(count)));
    assert_eq!(counts, expected.iter().map(|(name, count)| (name, count)).collect::<Vec<_>>());
}

#[tokio::test]
async fn success_rate_is_by_type_and_the_worst_come_first() {
    let home = home().await;
    let found = rows(&home, include_str!("../../../docs/monitoring/success_rate.sql")).await;
    let rate = |name: &str| {
        let row = found.iter().find(|row| row["event_type"] == name).unwrap();
        (row["succeeded"].clone(), row["failed"].clone(), row["success_percent"].as_f64().unwrap())
    };
    assert_eq!(rate("UserPromptSubmit"), (json!(4), json!(0), 100.0));
    assert_eq!(rate("Stop"), (json!(0), json!(2), 0.0));
    assert_eq!(found.last().unwrap()["success_percent"].as_f64(), Some(100.0));
}

#[tokio::test]
async fn latency_has_its_percentiles() {
    let home = home().await;
    let found = rows(&home, include_str!("../../../docs/monitoring/latency.sql")).await;
    let events: i64 = found.iter().map(|row| row["events"].as_i64().unwrap()).sum();
    assert_eq!(events, 9);
    for row in &found {
        for column in ["p50_ms", "p95_ms", "p99_ms", "longest_ms"] {
            assert!(row[column].is_number(), "{row}");
        }
    }
}

#[tokio::test]
async fn errors_are_grouped_and_each_has_an_example() {
    let home = home().await;
    let found = rows(&home, include_str!("../../../docs/monitoring/errors.sql")).await;
    let mut examples: Vec<_> = found.iter().map(|row| row["example"].as_str().unwrap()).collect();
    examples.sort_unstable();
    assert_eq!(examples, ["f", "w", "x"]);
    let failed = found.iter().find(|row| row["example"] == "f").unwrap();
    assert_eq!((&failed["error_code"], &failed["status"]), (&json!("broken"), &json!("FAILED")));
}

#[tokio::test]
async fn recent_failures_are_the_newest_first() {
    let home = home().await;
    let found = rows(&home, include_str!("../../../docs/monitoring/recent_failures.sql")).await;
    let ids: Vec<_> = found.iter().map(|row| row["request_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["w", "f", "x"]);
    assert!(found[0]["retry_after"].is_string());
}

#[tokio::test]
async fn waiting_tells_what_is_not_applied_yet() {
    let home = home().await;
    let found = rows(&home, include_str!("../../../docs/monitoring/waiting.sql")).await;
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0]["status"], &found[0]["events"]), (&json!("ERROR"), &json!(1)));
}
