//! The schema by itself: its migrations, its rules and its indexes.

use std::sync::Arc;
use std::time::Duration;

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

/// A million rows as a busy team has them, over two years: almost all succeed, of a few types.
async fn two_years(home: &Home, conn: &mut AsyncPgConnection) {
    for _ in 0..13 {
        home.again().await;
        home.clock.advance(Duration::from_secs(59 * 24 * 3600));
    }
    conn.batch_execute("SET statement_timeout = 0; SET max_parallel_workers_per_gather = 0")
        .await
        .unwrap();
    conn.batch_execute(
        "INSERT INTO webhook_events (id, workspace, request_id, digest, event_type, session_id,
             received_at, request_headers, status, conversation_id, retry_after, metadata,
             created_at, updated_at)
         SELECT (lpad(to_hex(1764000000000 + n::bigint * 63000), 12, '0') || '70008000'
                 || lpad(to_hex(n), 12, '0'))::uuid,
             CASE WHEN n % 1000 = 0 THEN 'small' ELSE 'main' END, 'r' || n, '',
             CASE WHEN n % 500 = 0 THEN 'PreCompact' WHEN n % 2 = 0 THEN 'PreToolUse'
                 ELSE 'PostToolUse' END,
             's' || n / 100, now() - interval '63000000 s' + n * interval '63 s', '{}',
             (CASE WHEN n % 1000 = 1 THEN 'INVALID' WHEN n % 1000 = 2 THEN 'PENDING_RETRY'
                 WHEN n % 1000 = 3 THEN 'FAILED' ELSE 'SUCCESS' END)::event_status,
             CASE WHEN n % 1000 <> 1 THEN '00000000-0000-0000-0000-000000000000'::uuid END,
             CASE WHEN n % 1000 = 2 THEN now() - interval '31500000 s' + n * interval '63 s' END,
             '{}', now(), now()
         FROM generate_series(1, 1000000) AS n; ANALYZE webhook_events",
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn each_index_serves_the_query_that_its_comment_holds() {
    let home = Home::new().await;
    let mut conn = home.database.connect().await;
    two_years(&home, &mut conn).await;
    let schema = include_str!("../../migrations/2026-11-30-000000_foundation/up.sql");
    let (mut query, mut indexes) = (None, 0);
    for line in schema.lines() {
        if let Some(found) = line.strip_prefix("-- query: ") {
            query = Some(found);
        } else if let Some(name) = line.strip_prefix("CREATE INDEX webhook_events_") {
            let name = format!("webhook_events_{}", name.split(' ').next().unwrap());
            let query = query.take().unwrap_or_else(|| panic!("{name} names no query"));
            let of_months = format!(
                "SELECT inhrelid::regclass::text AS text FROM pg_inherits
                 WHERE inhparent = '{name}'::regclass"
            );
            let of_months = lines(&mut conn, &of_months).await;
            let plan = explain(&mut conn, query).await;
            let uses =
                |line: &String| of_months.iter().any(|month| line.contains(&format!(" {month} ")));
            assert!(plan.iter().any(uses), "{name}: {plan:#?}");
            // Of the months that have rows; how nothing is read does not matter.
            let all_of_month = "Seq Scan on webhook_events_2026_";
            assert!(!plan.iter().any(|line| line.contains(all_of_month)), "{name}: {plan:#?}");
            // What comes by time is read month by month, until there is enough.
            if query.contains("ORDER BY id") {
                assert!(!plan.iter().any(|line| line.contains("Merge")), "{name}: {plan:#?}");
                let sorted = plan[..2].iter().find(|line| line.contains("Sort"));
                let rows =
                    |line: &String| line.split("rows=").nth(1)?.split(' ').next()?.parse().ok();
                let sorted: u32 = sorted.and_then(rows).unwrap_or(0);
                assert!(sorted < 1000, "{name}: {plan:#?}");
            }
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

#[tokio::test]
async fn a_statement_opens_the_months_that_it_asks_for() {
    let home = Home::new().await;
    let mut conn = home.database.connect().await;
    two_years(&home, &mut conn).await;
    let months = |plan: &[String]| {
        let scans = plan.iter().filter(|line| line.contains(" on webhook_events_"));
        scans.filter(|line| !line.contains("never executed")).count()
    };
    // A list ends with the newest, whatever it is filtered by.
    let list = "(ANALYZE, TIMING off, COSTS off) SELECT event_type FROM webhook_events \
        WHERE ip_address IS NULL AND id < 'ffffffff-ffff-ffff-ffff-ffffffffffff' \
        ORDER BY id DESC LIMIT 50";
    let plan = explain(&mut conn, list).await;
    let with_rows = plan.iter().filter(|line| line.contains("actual rows=50"));
    assert!(with_rows.count() >= 2 && months(&plan) < 9, "{plan:#?}");
    // Look-ups as the lanes make them, whose plans are for any id, and as others do.
    conn.batch_execute(
        "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
         PREPARE one AS SELECT status FROM webhook_events WHERE id = $1 FOR UPDATE;
         PREPARE many AS SELECT status FROM webhook_events WHERE id = ANY($1);
         PREPARE change AS UPDATE webhook_events SET retry_count = 1 WHERE id = ANY($1);
         PREPARE ledger AS SELECT e.status FROM request_ids AS r
             LEFT JOIN webhook_events AS e ON e.id = r.event_id
             WHERE r.workspace = ANY($1) AND r.request_id = ANY($2);
         INSERT INTO request_ids SELECT 'main', request_id, '', NULL, id, '{}', now()
             FROM webhook_events WHERE request_id = 'r500001' AND workspace = 'main'",
    )
    .await
    .unwrap();
    let id = "019ab4d8-9400-7000-8000-000000000001";
    for (query, mode) in [
        (format!("one('{id}')"), "force_generic_plan"),
        (format!("many('{{{id}}}')"), "auto"),
        (format!("change('{{{id}}}')"), "auto"),
        ("ledger('{main}', '{r500001,r7}')".to_owned(), "force_generic_plan"),
    ] {
        conn.batch_execute(&format!("SET plan_cache_mode = {mode}")).await.unwrap();
        for _ in 0..7 {
            conn.batch_execute(&format!("EXECUTE {query}")).await.unwrap();
        }
        let query = format!("(ANALYZE, TIMING off, COSTS off) EXECUTE {query}");
        let plan = explain(&mut conn, &query).await;
        let opened = plan.iter().filter(|line| line.contains("Scan using webhook_events_"));
        let opened = opened.filter(|line| !line.contains("never executed")).count();
        assert_eq!(opened, 1, "{query}: {plan:#?}");
        assert!(!plan.iter().any(|line| line.contains("Seq Scan")), "{query}: {plan:#?}");
    }
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
