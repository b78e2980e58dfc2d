//! The schema by itself: its migrations, its rules and its indexes.

use std::sync::Arc;

use crate::common::{Home, start};
use arrakis_core::base::clock::ManualClock;
use arrakis_core::record::audit::EventStatus;
use arrakis_store_pg::{PgConfig, PgStore, migrate};
use arrakis_test_cluster::Database;
use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    text: String,
}

async fn lines(conn: &mut AsyncPgConnection, sql: &str) -> Vec<String> {
    let rows: Vec<Line> = diesel::sql_query(sql).load(conn).await.unwrap();
    rows.into_iter().map(|row| row.text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_servers_may_migrate_at_once() {
    let database = Database::create().await;
    let migrating: Vec<_> = (0..8)
        .map(|_| {
            let url = database.url().to_owned();
            tokio::spawn(async move { migrate(&url).await.unwrap().len() })
        })
        .collect();
    let mut run = 0;
    for one in migrating {
        run += one.await.unwrap();
    }
    let all =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap().count();
    assert_eq!(run, all, "each migration ran once");
    let clock = Arc::new(ManualClock::new(start()));
    PgStore::open(database.url(), clock, PgConfig::default()).await.unwrap();
}

#[tokio::test]
async fn a_database_that_was_not_migrated_is_refused_with_the_remedy() {
    let database = Database::create().await;
    let clock = Arc::new(ManualClock::new(start()));
    let error = PgStore::open(database.url(), clock, PgConfig::default()).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("arrakis migrate"), "{source}");
}

#[tokio::test]
async fn a_database_of_a_later_version_is_left_alone() {
    let home = Home::new().await;
    home.database
        .run_sql("INSERT INTO __diesel_schema_migrations (version) VALUES ('99990101000000')")
        .await;
    let clock = Arc::new(ManualClock::new(start()));
    let opened = PgStore::open(home.database.url(), clock, PgConfig::default()).await.unwrap_err();
    for error in [opened, migrate(home.database.url()).await.unwrap_err()] {
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("99990101000000"), "{source}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let clock = Arc::new(ManualClock::new(start()));
    let url = "postgres://nobody@127.0.0.1:1/none";
    let error = PgStore::open(url, clock, PgConfig::default()).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("refused"), "{source}");
}

#[tokio::test]
async fn sql_allows_exactly_the_changes_of_state_that_the_code_does() {
    let home = Home::new().await;
    let mut conn = home.database.connect().await;
    for from in EventStatus::ALL {
        for to in EventStatus::ALL {
            conn.batch_execute(&format!(
                "DELETE FROM webhook_events;
                 INSERT INTO webhook_events (id, workspace, request_id, digest, event_type,
                     received_at, request_headers, status, metadata, created_at, updated_at)
                 VALUES (gen_random_uuid(), 'main', 'r', '', 'Stop', now(), '{{}}', '{from}', '{{}}',
                     now(), now());"
            ))
            .await
            .unwrap();
            let change = format!("UPDATE webhook_events SET status = '{to}'");
            let changed = conn.batch_execute(&change).await.is_ok();
            assert_eq!(changed, from.may_become(to), "{from} to {to}");
        }
    }
    assert!(conn.batch_execute("UPDATE webhook_events SET event_type = 'Other'").await.is_ok());
    assert!(conn.batch_execute("UPDATE webhook_events SET status = 'LOST'").await.is_err());
}

#[tokio::test]
async fn each_index_serves_the_query_that_its_comment_holds() {
    let home = Home::new().await;
    let mut conn = home.database.connect().await;
    // A million rows as a busy team has them: almost all succeed, of a few types, over a day.
    conn.batch_execute("SET statement_timeout = 0; SET max_parallel_workers_per_gather = 0")
        .await
        .unwrap();
    conn.batch_execute(
        "INSERT INTO webhook_events (id, workspace, request_id, digest, event_type, session_id,
             received_at, request_headers, status, conversation_id, retry_after, metadata,
             created_at, updated_at)
         SELECT (lpad(to_hex(n), 12, '0') || '70008000000000000000')::uuid,
             CASE WHEN n % 1000 = 0 THEN 'small' ELSE 'main' END, 'r' || n, '',
             CASE WHEN n % 500 = 0 THEN 'PreCompact' WHEN n % 2 = 0 THEN 'PreToolUse'
                 ELSE 'PostToolUse' END,
             's' || n / 100, now() - interval '1 day' + n * interval '86.4 ms', '{}',
             (CASE WHEN n % 1000 = 1 THEN 'INVALID' WHEN n % 1000 = 2 THEN 'PENDING_RETRY'
                 WHEN n % 1000 = 3 THEN 'FAILED' ELSE 'SUCCESS' END)::event_status,
             CASE WHEN n % 1000 <> 1 THEN '00000000-0000-0000-0000-000000000000'::uuid END,
             CASE WHEN n % 1000 = 2 THEN now() - interval '12 hours' + n * interval '86.4 ms' END,
             '{}', now(), now()
         FROM generate_series(1, 1000000) AS n; ANALYZE webhook_events",
    )
    .await
    .unwrap();
    let schema = include_str!("../../migrations/2026-11-30-000000_foundation/up.sql");
    let (mut query, mut indexes) = (None, 0);
    for line in schema.lines() {
        if let Some(found) = line.strip_prefix("-- query: ") {
            query = Some(found);
        } else if let Some(name) = line.strip_prefix("CREATE INDEX webhook_events_") {
            let name = format!("webhook_events_{}", name.split(' ').next().unwrap());
            let query = query.take().unwrap_or_else(|| panic!("{name} names no query"));
            let plan = explain(&mut conn, query).await;
            let uses = |line: &String| line.contains("Index") && line.contains(&format!(" {name}"));
            assert!(plan.iter().any(uses), "{name}: {plan:#?}");
            assert!(!plan.iter().any(|line| line.contains("Sort")), "{name}: {plan:#?}");
            indexes += 1;
        }
    }
    let declared = lines(
        &mut conn,
        "SELECT indexname AS text FROM pg_indexes WHERE tablename = 'webhook_events'
         AND indexname <> 'webhook_events_pkey'",
    );
    assert_eq!((indexes, declared.await.len()), (9, 9));
}

async fn explain(conn: &mut AsyncPgConnection, query: &str) -> Vec<String> {
    #[derive(QueryableByName)]
    struct Step {
        #[diesel(sql_type = Text, column_name = "QUERY PLAN")]
        step: String,
    }
    let steps: Vec<Step> = diesel::sql_query(format!("EXPLAIN {query}")).load(conn).await.unwrap();
    steps.into_iter().map(|step| step.step).collect()
}
