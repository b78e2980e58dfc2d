//! The schema by itself: its file, its migrations, its rules and its indexes.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use crate::common::{Home, arrival, at, open, says};
use arrakis_core::base::clock::ManualClock;
use arrakis_core::base::error::Retryable;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::{EventReader, EventStore, Page};
use arrakis_store_sqlite::{SqliteConfig, SqliteStore};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Text;

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    text: String,
}

fn lines(conn: &mut SqliteConnection, sql: &str) -> Vec<String> {
    let rows: Vec<Line> = diesel::sql_query(sql).load(conn).unwrap();
    rows.into_iter().map(|row| row.text).collect()
}

#[tokio::test]
async fn the_file_is_private_and_so_is_its_log() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a new folder/50% #1?.db");
    let clock = Arc::new(ManualClock::new(at(0)));
    let store = open(&path, &clock);
    store.ping().await.unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&path.with_file_name("50% #1?.db-wal")), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
}

#[tokio::test]
async fn a_file_that_others_could_read_becomes_private() {
    let home = Home::new();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    home.again();
    assert_eq!(home.path().metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_may_open_a_new_file_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("arrakis.db");
    let clock = Arc::new(ManualClock::new(at(0)));
    let opening: Vec<_> = (0..8)
        .map(|_| {
            let (path, clock) = (path.clone(), Arc::clone(&clock));
            tokio::spawn(async move { open(&path, &clock) })
        })
        .collect();
    let mut stores = Vec::new();
    for one in opening {
        stores.push(one.await.unwrap());
    }
    let event = arrival("r", 0);
    let verdict = says(&event, "hello");
    stores[3].record(vec![(event, verdict)]).await.unwrap();
    assert_eq!(stores[5].events(Default::default(), Page::first(9)).await.unwrap().events.len(), 1);
}

#[tokio::test]
async fn opening_again_changes_nothing() {
    let home = Home::new();
    let event = arrival("r", 0);
    let verdict = says(&event, "hello");
    home.store.record(vec![(event, verdict)]).await.unwrap();
    let schema = "SELECT coalesce(sql, name) AS text FROM sqlite_schema ORDER BY name";
    let before = lines(&mut home.beside(), schema);
    let again = home.again();
    assert_eq!(lines(&mut home.beside(), schema), before);
    assert_eq!(again.events(Default::default(), Page::first(9)).await.unwrap().events.len(), 1);
}

#[tokio::test]
async fn a_database_of_a_later_version_is_left_alone() {
    let home = Home::new();
    home.beside()
        .batch_execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('99990101000000')")
        .unwrap();
    let clock = Arc::new(ManualClock::new(at(0)));
    let opened = SqliteStore::open(home.path(), clock, SqliteConfig::default());
    let error = opened.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("99990101000000"), "{source}");
}

#[tokio::test]
async fn what_is_no_database_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    let text = "these are somebody's notes, not a database. ".repeat(100);
    std::fs::write(&path, &text).unwrap();
    let clock = Arc::new(ManualClock::new(at(0)));
    let opened = SqliteStore::open(&path, clock, crate::common::impatient());
    assert!(opened.unwrap_err().is_retryable());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn sql_allows_exactly_the_changes_of_state_that_the_code_does() {
    let home = Home::new();
    let mut conn = home.beside();
    for from in EventStatus::ALL {
        for to in EventStatus::ALL {
            conn.batch_execute(&format!(
                "DELETE FROM webhook_events;
                 INSERT INTO webhook_events (id, workspace, request_id, digest, event_type,
                     received_at, request_headers, status, metadata, created_at, updated_at)
                 VALUES ('e', 'main', 'r', x'00', 'Stop', '', '{{}}', '{from}', '{{}}', '', '');"
            ))
            .unwrap();
            let changed =
                conn.batch_execute(&format!("UPDATE webhook_events SET status = '{to}'")).is_ok();
            assert_eq!(changed, from.may_become(to), "{from} to {to}");
        }
    }
    assert!(conn.batch_execute("UPDATE webhook_events SET event_type = 'Other'").is_ok());
    let unknown = "INSERT INTO webhook_events SELECT * FROM webhook_events WHERE false;
        UPDATE webhook_events SET status = 'LOST'";
    assert!(conn.batch_execute(unknown).is_err());
}

#[tokio::test]
async fn each_index_serves_the_query_that_its_comment_holds() {
    let home = Home::new();
    let mut conn = home.beside();
    fill(&mut conn);
    let schema = include_str!("../../migrations/2026-11-30-000000_foundation/up.sql");
    let mut query = None;
    let mut indexes = 0;
    for line in schema.lines() {
        if let Some(found) = line.strip_prefix("-- query: ") {
            query = Some(found);
        } else if let Some(name) = line.strip_prefix("CREATE INDEX webhook_events_") {
            let name = format!("webhook_events_{}", name.split(' ').next().unwrap());
            let query = query.take().unwrap_or_else(|| panic!("{name} names no query"));
            let plan = explain(&mut conn, query);
            let uses = |line: &String| {
                line.starts_with("SEARCH") && line.contains(&format!("INDEX {name} "))
            };
            assert!(plan.iter().any(uses), "{name}: {plan:?}");
            assert!(!plan.iter().any(|line| line.contains("TEMP B-TREE")), "{name}: {plan:?}");
            indexes += 1;
        }
    }
    let declared = lines(
        &mut conn,
        "SELECT name AS text FROM sqlite_schema
         WHERE type = 'index' AND tbl_name = 'webhook_events' AND sql IS NOT NULL",
    );
    assert_eq!((indexes, declared.len()), (8, 8));
}

/// A million audit rows of a thousand sessions, nearly all of them settled, and what SQLite counts of them for its
/// plans.
fn fill(conn: &mut SqliteConnection) {
    conn.batch_execute(
        "PRAGMA synchronous = OFF;
         WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1000000)
         INSERT INTO webhook_events (id, workspace, request_id, digest, event_type, session_id, conversation_id,
             received_at, request_headers, status, retry_after, discarded_at, metadata, created_at, updated_at)
         SELECT printf('%08x', n), iif(n % 100 = 0, 'small', 'main'), printf('r%07d', n), x'00',
             iif(n % 1000 = 0, 'PreCompact', 'PostToolUse'), 's' || (n % 1000), iif(n % 500 = 0, NULL, 'c' || (n % 1000)),
             '2026-11-24T00:00:00.000000Z', '{}',
             CASE WHEN n % 997 = 0 THEN 'FAILED' WHEN n % 991 = 0 THEN 'PENDING_RETRY' WHEN n % 983 = 0 THEN 'INVALID'
                 ELSE 'SUCCESS' END,
             iif(n % 991 = 0, '2026-11-24T00:00:00.000000Z', NULL), iif(n % 1994 = 0, '2026-11-25', NULL), '{}', '', ''
         FROM numbers;
         ANALYZE",
    )
    .unwrap();
}

fn explain(conn: &mut SqliteConnection, query: &str) -> Vec<String> {
    #[derive(QueryableByName)]
    struct Step {
        #[diesel(sql_type = Text)]
        detail: String,
    }
    let steps: Vec<Step> =
        diesel::sql_query(format!("EXPLAIN QUERY PLAN {query}")).load(conn).unwrap();
    steps.into_iter().map(|step| step.detail).collect()
}
