//! The feed and the search index beyond what every store does: late commits, several servers.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{Home, record_one};
use arrakis_core::record::ingest::judge;
use arrakis_core::record::store::{
    Arrival, EventFilter, EventReader, EventStore, FeedCursor, KeyStore, Page, Rollups,
    SearchFilter, StoreError,
};
use arrakis_core::testkit::event_store::hook;
use arrakis_core::testkit::retention::prune_before;
use arrakis_store_pg::{PgConfig, PgStore};
use arrakis_test_cluster::Database;
use diesel::QueryableByName;
use diesel::sql_types::Text;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

async fn follow(store: &PgStore, cursor: FeedCursor) -> (FeedCursor, Vec<String>) {
    let page = store.feed(Some(cursor), 100).await.unwrap();
    (page.cursor, page.events.into_iter().map(|event| event.request_id.to_string()).collect())
}

#[tokio::test]
async fn a_transaction_that_takes_long_is_not_skipped() {
    let mut home = Home::new().await;
    let other = home.again().await;
    record_one(&home.store, home.arrivals.prompt("late", "s")).await;
    let cursor = home.store.feed(None, 10).await.unwrap().cursor;
    // It takes its number first and commits last.
    let mut late = home.database.connect().await;
    let slow = "BEGIN; INSERT INTO commits (workspace, events, messages, tool_uses, at)
        SELECT 'main', array_agg(id), '{}', '{}', now() FROM webhook_events";
    late.batch_execute(slow).await.unwrap();
    record_one(&other, home.arrivals.prompt("a", "s")).await;
    let (cursor, seen) = follow(&home.store, cursor).await;
    assert_eq!(seen, ["a"]);
    record_one(&other, home.arrivals.prompt("b", "s")).await;
    let (cursor, seen) = follow(&home.store, cursor).await;
    assert_eq!(seen, ["b"]);
    late.batch_execute("COMMIT").await.unwrap();
    let (cursor, seen) = follow(&home.store, cursor).await;
    assert_eq!(seen, ["late"]);
    assert!(follow(&home.store, cursor).await.1.is_empty());
}

#[tokio::test]
async fn a_page_that_ends_in_the_middle_does_not_skip_what_commits_meanwhile() {
    let mut home = Home::new().await;
    record_one(&home.store, home.arrivals.prompt("late", "s")).await;
    let mut cursor = home.store.feed(None, 10).await.unwrap().cursor;
    let mut late = home.database.connect().await;
    let slow = "BEGIN; INSERT INTO commits (workspace, events, messages, tool_uses, at)
        SELECT 'main', array_agg(id), '{}', '{}', now() FROM webhook_events";
    late.batch_execute(slow).await.unwrap();
    for n in 0..10 {
        record_one(&home.store, home.arrivals.prompt(&format!("r{n}"), "s")).await;
    }
    let page = home.store.feed(Some(cursor), 1).await.unwrap();
    assert!(page.more);
    late.batch_execute("COMMIT").await.unwrap();
    cursor = page.cursor;
    let mut seen: Vec<_> =
        page.events.into_iter().map(|event| event.request_id.to_string()).collect();
    loop {
        let page = home.store.feed(Some(cursor), 1).await.unwrap();
        if page.events.is_empty() {
            break;
        }
        cursor = page.cursor;
        seen.extend(page.events.into_iter().map(|event| event.request_id.to_string()));
    }
    seen.sort();
    let expected: Vec<_> =
        std::iter::once("late".to_owned()).chain((0..10).map(|n| format!("r{n}"))).collect();
    assert_eq!(seen, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_indexes_at_a_time_and_what_the_others_wrote_is_found() {
    let mut home = Home::new().await;
    let other = home.again().await;
    for n in 0..20 {
        let store = if n % 2 == 0 { &home.store } else { &other };
        record_one(store, home.arrivals.prompt(&format!("r{n}"), "s")).await;
    }
    let (one, two) = tokio::join!(home.store.index(100), other.index(100));
    let taken = (one.unwrap(), two.unwrap());
    assert_eq!(taken.0 + taken.1, 20, "{taken:?}");
    let filter = EventFilter { text: Some("prompt".to_owned()), ..Default::default() };
    let found = other.events(filter.clone(), Page::first(100)).await.unwrap().events;
    assert_eq!(found.len(), 20);

    let pruned =
        prune_before(&*home.store, crate::common::start().plus(Duration::from_secs(9))).await;
    assert_eq!(pruned.events, 20);
    assert!(other.events(filter, Page::first(100)).await.unwrap().events.is_empty());
}

#[tokio::test]
async fn old_commits_go_once_they_are_indexed_and_added_up() {
    let mut home = Home::new().await;
    record_one(&home.store, home.arrivals.prompt("old", "s")).await;
    home.clock.advance(Duration::from_secs(25 * 3600));
    let mut conn = home.database.connect().await;
    let old = "SELECT count(*)::text AS \"QUERY PLAN\" FROM commits WHERE at < '2025-11-25'";
    // Transactions of the other tests' databases keep what is younger than they are.
    for n in 0.. {
        record_one(&home.store, home.arrivals.prompt(&format!("new-{n}"), "s")).await;
        home.store.fold(10).await.unwrap();
        home.store.index(10).await.unwrap();
        if lines(&mut conn, old).await == ["0"] {
            break;
        }
        assert!(n < 10_000, "old commits stay");
    }
    let left = "SELECT count(*)::text AS \"QUERY PLAN\" FROM commits";
    assert_ne!(lines(&mut conn, left).await, ["0"], "young ones stay");
}

#[tokio::test]
async fn positions_of_another_server_are_forgotten_by_the_next_migration() {
    let mut home = Home::new().await;
    record_one(&home.store, home.arrivals.prompt("a", "s")).await;
    // What a dump from a server that had more transactions brings.
    home.database
        .run_sql(
            "UPDATE commits SET xid = '999999999999';
             INSERT INTO search_position VALUES ('main', '999999999998:999999999999:')",
        )
        .await;
    let cursor = home.store.feed(None, 10).await.unwrap().cursor;
    assert!(follow(&home.store, cursor.clone()).await.1.is_empty());
    arrakis_store_pg::migrate(home.database.url()).await.unwrap();
    record_one(&home.store, home.arrivals.prompt("b", "s")).await;
    assert_eq!(follow(&home.store, cursor).await.1, ["b"]);
    assert_eq!(home.store.index(10).await.unwrap(), 1);
}

#[tokio::test]
async fn what_waits_to_be_indexed_anew_is_indexed_in_parts() {
    let mut home = Home::new().await;
    let tool = |n: u32| {
        format!(r#","tool_name":"Bash","tool_use_id":"t{n}","tool_input":{{"command":"needle"}}"#)
    };
    let batch =
        (0..70).map(|n| home.arrivals.next(&format!("e{n}"), hook("s", "PreToolUse", &tool(n))));
    home.store.record(batch.collect()).await.unwrap();
    record_one(&home.store, home.arrivals.prompt("needle", "s")).await;
    while home.store.index(10).await.unwrap() == 10 {}
    let found = async |store: &PgStore| {
        let text = Some("needle".to_owned());
        let filter = SearchFilter { text, ..SearchFilter::new("main") };
        store.search(filter, None, 100).await.unwrap().hits.len()
    };
    assert_eq!(found(&home.store).await, 71);
    home.database
        .run_sql(
            "TRUNCATE subject_search, subject_buckets;
             INSERT INTO search_backlog (table_name, after_id)
             SELECT unnest('{messages,tool_uses}'::text[]), '00000000-0000-0000-0000-000000000000'",
        )
        .await;
    assert_eq!(found(&home.store).await, 0);
    record_one(&home.store, home.arrivals.prompt("another-needle", "s")).await;
    assert_eq!(home.store.index(1).await.unwrap(), 1);
    assert_eq!(found(&home.store).await, 1, "what is new comes first");
    let mut parts = 0;
    while home.store.index(1).await.unwrap() == 1 {
        parts += 1;
    }
    assert!(parts > 3, "it goes in parts: {parts}");
    assert_eq!(found(&home.store).await, 72);
}

#[tokio::test]
async fn a_commit_of_very_many_texts_is_indexed_in_parts_that_last() {
    let mut home = Home::new().await;
    record_one(&home.store, home.arrivals.prompt("a", "s")).await;
    let tool = r#","tool_name":"Bash","tool_use_id":"t","tool_input":"prompt""#;
    record_one(&home.store, home.arrivals.next("b", hook("s", "PreToolUse", tool))).await;
    home.store.index(10).await.unwrap();
    // Of what is now written in one commit, a part is refused.
    let copies = |table: &str| {
        format!(
            "CREATE TABLE made AS TABLE {table};
             UPDATE made SET timestamp = timestamp - interval '1 hour';
             INSERT INTO {table} SELECT (jsonb_populate_record(made,
                 jsonb_build_object('id', gen_random_uuid()))).* FROM made, generate_series(1, 2500);
             DROP TABLE made;"
        )
    };
    home.database.run_sql(&[copies("message_rows"), copies("tool_uses")].concat()).await;
    home.database
        .run_sql(
            "INSERT INTO commits (workspace, events, messages, tool_uses, at) SELECT 'main', '{}',
                 (SELECT array_agg(id) FROM messages), (SELECT array_agg(id) FROM tool_uses), now();
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF (SELECT count(*) FROM subject_search) > 4500 THEN RAISE 'enough'; END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER refuse BEFORE UPDATE ON search_position FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await;
    home.store.index(1).await.unwrap_err();
    let mut conn = home.database.connect().await;
    let indexed = "SELECT count(*)::text AS \"QUERY PLAN\" FROM subject_search";
    let part: u32 = lines(&mut conn, indexed).await[0].parse().unwrap();
    assert!((1000..=4500).contains(&part), "{part}");
    home.database.run_sql("DROP TRIGGER refuse ON search_position").await;
    record_one(&home.store, home.arrivals.prompt("c", "s")).await;
    assert_eq!(home.store.index(1).await.unwrap(), 1);
    assert_eq!(lines(&mut conn, indexed).await, ["5002"], "all of it, and nothing else");
    assert_eq!(home.store.index(9).await.unwrap(), 1);
    assert_eq!(home.store.index(9).await.unwrap(), 0);
    assert_eq!(lines(&mut conn, indexed).await, ["5003"]);
}

#[tokio::test]
async fn a_flood_of_one_workspace_delays_its_own_texts_only() {
    let mut home = Home::new().await;
    let filler: String = (0..20_000).map(|n| format!("w{n} ")).collect();
    let mut event = |n: u32, workspace: &str, text: &str| {
        let text = format!(r#","text":"{text}""#);
        let (arrival, _) = home.arrivals.next(&format!("{workspace}{n}"), hook("s", "Stop", &text));
        let arrival = Arrival { workspace: workspace.to_owned(), ..arrival };
        let verdict = judge(&arrival);
        (arrival, verdict)
    };
    for n in 0..30 {
        record_one(&home.store, event(n, "flood", &format!("flood {filler}"))).await;
    }
    for workspace in ["another", "third"] {
        record_one(&home.store, event(99, workspace, "needle")).await;
    }
    let found = async |text: &str| {
        let filter = EventFilter { text: Some(text.to_owned()), ..EventFilter::default() };
        home.store.events(filter, Page::first(100)).await.unwrap().events.len()
    };
    // A turn of each.
    let mut taken = 0;
    while found("needle").await < 2 {
        taken += home.store.index(1).await.unwrap();
        assert!(taken < 20, "the flood comes first");
    }
    assert!(found("flood").await < 30, "it still waits");
    while home.store.index(100).await.unwrap() == 100 {}
    assert_eq!(found("flood").await, 30);
}

#[tokio::test]
async fn what_a_transaction_writes_in_several_workspaces_is_fed_and_indexed_once() {
    let mut home = Home::new().await;
    let cursor = home.store.feed(None, 10).await.unwrap().cursor;
    let batch = ["one", "two", "three", "one"].into_iter().enumerate().map(|(n, workspace)| {
        let (arrival, _) = home.arrivals.prompt(&format!("r{n}"), "s");
        let arrival = Arrival { workspace: workspace.to_owned(), ..arrival };
        let verdict = judge(&arrival);
        (arrival, verdict)
    });
    let batch = batch.collect();
    home.store.record(batch).await.unwrap();
    record_one(&home.store, home.arrivals.prompt("r4", "s")).await;
    let (mut cursor, mut seen) = (cursor, Vec::new());
    loop {
        let page = home.store.feed(Some(cursor), 1).await.unwrap();
        cursor = page.cursor;
        seen.extend(page.events.into_iter().map(|event| event.request_id.to_string()));
        if !page.more {
            break;
        }
    }
    seen.sort();
    assert_eq!(seen, ["r0", "r1", "r2", "r3", "r4"]);
    assert_eq!(home.store.index(100).await.unwrap(), 4, "a row for each workspace");
    assert_eq!(home.store.index(100).await.unwrap(), 0);
    let filter = EventFilter { text: Some("prompt".to_owned()), ..EventFilter::default() };
    assert_eq!(home.store.events(filter, Page::first(100)).await.unwrap().events.len(), 5);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_keeps_no_other_from_being_found() {
    let mut home = Home::new().await;
    for batch in 0..2 {
        let tool = format!(r#","tool_name":"Bash","tool_use_id":"t{batch}","tool_input":"prompt""#);
        for n in 0..3 {
            let (id, session) = (format!("{batch}-{n}"), format!("s{n}"));
            record_one(&home.store, home.arrivals.prompt(&id, &session)).await;
        }
        let (id, payload) = (format!("{batch}-t"), hook("s3", "PreToolUse", &tool));
        record_one(&home.store, home.arrivals.next(&id, payload)).await;
        if batch == 0 {
            home.store.index(10).await.unwrap();
        }
        home.database
            .run_sql(
                "UPDATE message_rows SET metadata = '{}' WHERE content LIKE '%-0';
                 UPDATE tool_uses SET metadata = '{}';
                 UPDATE conversations SET metadata = '1' WHERE session_id = 's1'",
            )
            .await;
        home.store.index(10).await.unwrap();
        let filter = SearchFilter { text: Some("prompt".to_owned()), ..SearchFilter::new("main") };
        let page = home.store.search(filter, None, 100).await.unwrap();
        assert_eq!(page.hits.len(), batch + 1, "of each batch one can be read, with what it needs");
        home.database.run_sql("UPDATE conversations SET metadata = '{}'").await;
    }
}

#[tokio::test]
async fn a_search_asks_the_index_bucket_by_bucket() {
    let home = Home::new().await;
    let mut conn = home.database.connect().await;
    conn.batch_execute("SET enable_seqscan = off").await.unwrap();
    let query = "EXPLAIN SELECT subject_id FROM subject_search \
        WHERE words @@ ANY ('{\"''1:a'' & ''1:b''\",\"''0:a''\"}'::text[]::tsquery[]) \
        ORDER BY at DESC, subject_id DESC LIMIT 9";
    let plan = lines(&mut conn, query).await.join("\n");
    assert!(plan.contains("Bitmap Index Scan on subject_search_words"), "{plan}");
    let query = "EXPLAIN SELECT said FROM unnest('{x}'::text[]) AS v (said) WHERE EXISTS \
        (SELECT 1 FROM subject_search WHERE words @@ quote_literal(v.said)::tsquery)";
    let plan = lines(&mut conn, query).await.join("\n");
    assert!(plan.contains("Bitmap Index Scan on subject_search_words"), "{plan}");
}

#[tokio::test]
async fn a_bucket_that_is_full_is_parted() {
    let mut home = Home::new().await;
    record_one(&home.store, home.arrivals.prompt("a", "s")).await;
    home.store.index(10).await.unwrap();
    // Many of one time, and in no order.
    home.database
        .run_sql(
            "CREATE TABLE made AS TABLE message_rows;
             INSERT INTO message_rows SELECT (jsonb_populate_record(made,
                 jsonb_build_object('id', gen_random_uuid()))).* FROM made, generate_series(1, 12000);
             INSERT INTO commits (workspace, events, messages, tool_uses, at)
             SELECT 'main', '{}', (SELECT array_agg(id) FROM messages), '{}', now()",
        )
        .await;
    while home.store.index(10).await.unwrap() > 0 {}
    let mut conn = home.database.connect().await;
    let counted = async |conn: &mut AsyncPgConnection, what: &str| -> u32 {
        let sql = format!("SELECT ({what})::text AS \"QUERY PLAN\" FROM subject_search");
        lines(conn, &sql).await[0].parse().unwrap()
    };
    assert_eq!(counted(&mut conn, "count(*)").await, 12_001);
    assert!(counted(&mut conn, "count(DISTINCT bucket)").await > 1);
    let misplaced = "count(*) FILTER (WHERE \
        NOT words @@ quote_literal(to_hex(bucket) || ':prompt')::tsquery \
        OR NOT EXISTS (SELECT FROM subject_buckets b WHERE b.bucket = subject_search.bucket \
            AND (b.from_at, b.from_id) <= (at, subject_id)))";
    assert_eq!(counted(&mut conn, misplaced).await, 0);
    let most = "SELECT max(n)::text AS \"QUERY PLAN\" FROM \
        (SELECT count(*) AS n FROM subject_search GROUP BY bucket) x";
    assert!(lines(&mut conn, most).await[0].parse::<u32>().unwrap() < 8192);
    let filter = SearchFilter { text: Some("prompt".to_owned()), ..SearchFilter::new("main") };
    let first = home.store.search(filter.clone(), None, 100).await.unwrap();
    let second = home.store.search(filter, first.next, 100).await.unwrap();
    let hits = first.hits.iter().chain(&second.hits).map(|hit| (hit.at, hit.id));
    assert!(hits.is_sorted_by(|a, b| a > b), "newest first, each once");
}

/// The statement of a page of one hit, where 300,000 texts have the same time.
#[tokio::test]
async fn a_page_reads_one_bucket_however_many_texts_have_its_time() {
    let home = Home::new().await;
    home.database
        .run_sql(
            "INSERT INTO subject_search
             SELECT lpad(to_hex(n), 32, '0')::uuid, gen_random_uuid(), false, '2026-11-24', n / 4096, 70, 10,
                 array_to_tsvector(ARRAY[to_hex(n / 4096) || ':common', to_hex(n / 4096) || ':other'])
             FROM generate_series(1, 300000) n",
        )
        .await;
    let mut conn = home.database.connect().await;
    conn.batch_execute("SET enable_seqscan = off").await.unwrap();
    let query = "EXPLAIN (ANALYZE, TIMING off) SELECT subject_id FROM subject_search \
        WHERE words @@ ANY ('{\"''49:common'' & ''49:other''\"}'::text[]::tsquery[]) \
        ORDER BY at DESC, subject_id DESC LIMIT 2";
    let plan = lines(&mut conn, query).await.join("\n");
    assert!(plan.contains("Bitmap Index Scan on subject_search_words"), "{plan}");
    let rows =
        |line: &str| line.split("(actual rows=").nth(1)?.split([' ', '.']).next()?.parse().ok();
    let most: u32 = plan.lines().filter_map(rows).max().unwrap();
    assert!((1..=8192).contains(&most), "{plan}");
}

#[tokio::test]
async fn a_search_that_takes_too_long_is_ended_and_says_so() {
    let config = PgConfig { search_timeout: Duration::ZERO, ..PgConfig::default() };
    let home = Home::with(Database::create().await, config).await;
    let ended = home.store.search(SearchFilter::new("main"), None, 1).await.unwrap_err();
    assert!(matches!(ended, StoreError::SearchTimeout { .. }), "{ended:?}");
    assert!(
        home.store.events(EventFilter::default(), Page::first(9)).await.unwrap().events.is_empty()
    );
}

#[tokio::test]
async fn one_search_too_many_is_told_so_and_nothing_else_waits() {
    let queue_wait = Duration::from_millis(500);
    let config = PgConfig { searchers: 1, pool: 1, queue_wait, ..PgConfig::default() };
    let home = Home::with(Database::create().await, config).await;
    let mut holder = home.database.connect().await;
    holder.batch_execute("BEGIN; LOCK TABLE subject_buckets").await.unwrap();
    let store = Arc::clone(&home.store);
    let stuck = tokio::spawn(async move { store.search(SearchFilter::new("main"), None, 1).await });
    let waits = "DO $$ BEGIN ASSERT EXISTS (SELECT FROM pg_locks AS l JOIN pg_database AS d
        ON d.oid = l.database WHERE d.datname = current_database() AND NOT l.granted); END $$";
    let mut watcher = home.database.connect().await;
    while watcher.batch_execute(waits).await.is_err() {
        assert!(!stuck.is_finished());
    }
    let refused = home.store.search(SearchFilter::new("main"), None, 1).await.unwrap_err();
    assert!(matches!(refused, StoreError::SearchesBusy { running: 1 }), "{refused:?}");
    assert!(home.store.key("any").await.unwrap().is_none());
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert!(stuck.await.unwrap().unwrap().hits.is_empty());
}

async fn lines(conn: &mut AsyncPgConnection, sql: &str) -> Vec<String> {
    #[derive(QueryableByName)]
    struct Line {
        #[diesel(sql_type = Text, column_name = "QUERY PLAN")]
        text: String,
    }
    let rows: Vec<Line> = diesel::sql_query(sql).load(conn).await.unwrap();
    rows.into_iter().map(|row| row.text).collect()
}
