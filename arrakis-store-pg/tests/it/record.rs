//! Recording: several servers, poison, failure and recovery.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{Home, record_one};
use arrakis_core::base::error::Retryable;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::{
    AdmissionKind, EventKey, EventReader, EventStore, KeyStore, Verdict,
};
use arrakis_core::testkit::event_store::hook;
use arrakis_store_pg::PgConfig;
use arrakis_test_cluster::{Cluster, Database};
use diesel_async::SimpleAsyncConnection;

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_on_two_servers_exactly_one_is_new() {
    let mut home = Home::new().await;
    let servers = [Arc::clone(&home.store), home.again().await];
    let payload = |n: usize| hook("s", "UserPromptSubmit", &format!(r#","prompt":"p{n}""#));
    let calls: Vec<_> = (0..128)
        .map(|n| {
            let store = Arc::clone(&servers[n % 2]);
            let one = home.arrivals.next(&format!("r{}", n / 16), payload(n / 16));
            tokio::spawn(async move {
                let id = one.0.request_id.clone();
                (id, record_one(&store, one).await)
            })
        })
        .collect();
    let (mut new, mut firsts) = (BTreeSet::new(), BTreeSet::new());
    for call in calls {
        let (id, admission) = call.await.unwrap();
        assert_eq!(admission.status, EventStatus::Success);
        if admission.kind == AdmissionKind::New {
            assert!(new.insert(id), "one id was new twice");
        }
        firsts.insert((admission.event_id, admission.answer.message_id));
    }
    assert_eq!((new.len(), firsts.len()), (8, 8));
    let counts = home.store.counts().await.unwrap();
    assert_eq!(counts[&EventStatus::Success], 8);
    assert_eq!(counts[&EventStatus::Duplicate], 120);
    let detail = home.store.conversation("main", "s").await.unwrap().unwrap();
    assert_eq!(detail.messages.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_write_to_the_same_conversations_lose_nothing() {
    let mut home = Home::new().await;
    let servers = [Arc::clone(&home.store), home.again().await];
    let calls: Vec<_> = (0..40)
        .map(|n| {
            let store = Arc::clone(&servers[n % 2]);
            // Each batch touches every conversation, in another order.
            let mut batch: Vec<_> = (0..5)
                .map(|session| {
                    home.arrivals.prompt(&format!("r{n}-{session}"), &format!("s{session}"))
                })
                .collect();
            batch.rotate_left(n % 5);
            tokio::spawn(async move { store.record(batch).await.unwrap() })
        })
        .collect();
    for call in calls {
        assert!(call.await.unwrap().iter().all(|one| one.status == EventStatus::Success));
    }
    for session in 0..5 {
        let detail =
            home.store.conversation("main", &format!("s{session}")).await.unwrap().unwrap();
        assert_eq!(detail.messages.len(), 40);
        let latest = detail.messages.iter().map(|message| message.content.stamp.at).max();
        assert_eq!(Some(detail.conversation.last_event_at), latest);
    }
}

#[tokio::test]
async fn a_poison_event_is_kept_as_an_error_and_its_neighbours_are_stored() {
    let mut home = Home::new().await;
    home.database.run_sql(&refuse("message_rows", "NEW.content = 'prompt r3'")).await;
    let batch: Vec<_> = (0..5).map(|n| home.arrivals.prompt(&format!("r{n}"), "s")).collect();
    let admissions = home.store.record(batch.clone()).await.unwrap();
    for (n, admission) in admissions.iter().enumerate() {
        assert_eq!(admission.kind, AdmissionKind::New);
        assert_eq!(admission.event_id, batch[n].0.event_id);
        let expected = if n == 3 { EventStatus::Error } else { EventStatus::Success };
        assert_eq!(admission.status, expected);
    }
    let poison =
        home.store.event("main", EventKey::Id(batch[3].0.event_id)).await.unwrap().unwrap();
    assert_eq!(poison.body.as_ref(), Some(&batch[3].0.body), "byte for byte");
    assert_eq!(poison.summary.error_code.as_deref(), Some("store_refused"));
    assert!(poison.summary.retry_after.is_some());
    let conversation = home.store.conversation("main", "s").await.unwrap().unwrap();
    assert_eq!(conversation.messages.len(), 4);
}

#[tokio::test]
async fn a_call_that_cannot_be_stored_at_all_fails_alone() {
    let mut home = Home::new().await;
    home.database.run_sql(&refuse("webhook_events", "NEW.request_id = 'r1'")).await;
    let mut batch: Vec<_> = (0..3).map(|n| home.arrivals.prompt(&format!("r{n}"), "s")).collect();
    let third = home.store.record(vec![batch.remove(2)]);
    let second = home.store.record(vec![batch.remove(1)]);
    let first = home.store.record(vec![batch.remove(0)]);
    let (first, second, third) = tokio::join!(first, second, third);
    assert_eq!(first.unwrap()[0].status, EventStatus::Success);
    assert!(!second.unwrap_err().is_retryable());
    assert_eq!(third.unwrap()[0].status, EventStatus::Success);
    assert_eq!(home.store.counts().await.unwrap()[&EventStatus::Success], 2);
}

#[tokio::test]
async fn a_claim_whose_changes_are_refused_is_told_from_a_database_that_is_away() {
    let mut home = Home::new().await;
    let (arrival, verdict) = home.arrivals.prompt("r", "s");
    let (code, message) = ("why".to_owned(), "because".to_owned());
    record_one(&home.store, (arrival, Verdict::Failed { code, message })).await;
    let due = crate::common::start().plus(Duration::from_secs(600));
    let claim = home.store.claim_due(due, crate::common::start(), 1).await.unwrap().remove(0);
    home.database.run_sql(&refuse("message_rows", "true")).await;
    let refused = home.store.complete(claim.clone(), verdict.clone(), None).await.unwrap_err();
    assert!(!refused.is_retryable(), "{refused:?}");
    home.database.run_sql("DROP TRIGGER refuse ON message_rows").await;
    assert!(home.store.complete(claim, verdict, None).await.unwrap());
}

#[tokio::test]
async fn a_table_that_somebody_holds_is_unavailable_and_later_it_is_not() {
    let quick = Duration::from_millis(50);
    let config = PgConfig { lock_timeout: quick, ..PgConfig::default() };
    let mut home = Home::with(Database::create().await, config).await;
    let one = home.arrivals.prompt("r", "s");
    let mut holder = home.database.connect().await;
    holder.batch_execute("BEGIN; LOCK TABLE webhook_events, commits").await.unwrap();
    let refused = home.store.record(vec![one.clone()]).await.unwrap_err();
    assert!(refused.is_retryable(), "{refused:?}");
    assert!(home.store.ping().await.unwrap_err().is_retryable());
    holder.batch_execute("ROLLBACK").await.unwrap();
    home.store.ping().await.unwrap();
    assert_eq!(record_one(&home.store, one).await.kind, AdmissionKind::New);
}

#[tokio::test]
async fn an_exhausted_pool_is_unavailable_and_later_it_is_not() {
    let queue_wait = Duration::from_millis(500);
    let config = PgConfig { pool: 1, queue_wait, ..PgConfig::default() };
    let home = Home::with(Database::create().await, config).await;
    let mut holder = home.database.connect().await;
    holder.batch_execute("BEGIN; LOCK TABLE webhook_events").await.unwrap();
    let store = Arc::clone(&home.store);
    let stuck = tokio::spawn(async move { store.counts().await });
    // The only connection is busy once it waits for the table.
    let waits = "DO $$ BEGIN ASSERT EXISTS (SELECT FROM pg_locks AS l JOIN pg_database AS d
        ON d.oid = l.database WHERE d.datname = current_database() AND NOT l.granted); END $$";
    let mut watcher = home.database.connect().await;
    while watcher.batch_execute(waits).await.is_err() {
        assert!(!stuck.is_finished());
    }
    assert!(home.store.keys().await.unwrap_err().is_retryable());
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert!(stuck.await.unwrap().unwrap().is_empty());
    home.store.keys().await.unwrap();
}

#[tokio::test]
async fn killed_backends_are_replaced() {
    let mut home = Home::new().await;
    record_one(&home.store, home.arrivals.prompt("a", "s")).await;
    for _ in 0..3 {
        home.database
            .run_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            .await;
        home.store.ping().await.unwrap();
        assert_eq!(home.store.counts().await.unwrap()[&EventStatus::Success], 1);
        let repeat = home.arrivals.prompt("a", "s");
        let kind = record_one(&home.store, repeat).await.kind;
        assert!(kind != AdmissionKind::New);
    }
}

#[tokio::test]
async fn what_jsonb_cannot_hold_never_fails_a_neighbour() {
    let mut home = Home::new().await;
    let long = format!(
        r#"{{"session_id":"s","hook_event_name":"Notification","message":"m","n":0.{}}}"#,
        "7".repeat(20_000)
    );
    let payloads: [&[u8]; 8] = [
        br#"{"session_id":"s","hook_event_name":"UserPromptSubmit","prompt":"a \u0000 b"}"#,
        br#"{"session_id":"s","hook_event_name":"PreToolUse","tool_name":"T\u0000","tool_use_id":"t","tool_input":{"\u0000":1e400}}"#,
        br#"{"session_id":"s","hook_event_name":"Stop","last_assistant_message":"\ud800"}"#,
        b"\x00\xff",
        br#"{"session_id":"s\u0000","hook_event_name":"SessionStart\u0000","cwd":"/\u0000"}"#,
        br#"{"session_id":"s","hook_event_name":"Stop","last_assistant_message":"fine"}"#,
        br#"{"session_id":"s","hook_event_name":"PreToolUse","tool_name":"T","tool_use_id":"u","tool_input":{"n":1e-20000}}"#,
        long.as_bytes(),
    ];
    let batch = payloads.into_iter().enumerate();
    let batch: Vec<_> =
        batch.map(|(n, body)| home.arrivals.next(&format!("r{n}"), body.to_vec())).collect();
    let admissions = home.store.record(batch.clone()).await.unwrap();
    for ((arrival, verdict), admission) in batch.iter().zip(&admissions) {
        assert_eq!(admission.status, verdict.status(), "{arrival:?}");
        let row = home.store.event("main", EventKey::Id(arrival.event_id)).await.unwrap().unwrap();
        assert_ne!(row.summary.error_code.as_deref(), Some("store_refused"));
    }
    let detail = home.store.conversation("main", "s").await.unwrap().unwrap();
    assert_eq!(detail.messages[0].content.value, "a \0 b");
    assert!(home.store.conversation("main", "s\0").await.unwrap().is_some());
    // Every request_body is JSON that SQL can look into.
    home.database.run_sql("SELECT request_body ->> 'session_id' FROM webhook_events").await;
}

#[tokio::test]
async fn a_transaction_has_the_same_few_statements_for_one_event_as_for_hundreds() {
    let log_all =
        ["fsync=off", "logging_collector=on", "log_min_messages=log", "log_statement=all"];
    let cluster = Cluster::start(&log_all).unwrap();
    let database = Database::create_in(&cluster.url("postgres")).await;
    let mut home = Home::with(database, PgConfig { writers: 1, ..PgConfig::default() }).await;
    let mut counts = Vec::new();
    // The first transaction also looks up what its connection does not know yet.
    for (round, size) in [1, 1, 400].into_iter().enumerate() {
        let batch = (0..size)
            .map(|n| home.arrivals.prompt(&format!("{round}-{n}"), &format!("s{round}-{n}")));
        let batch = batch.collect();
        let begin = format!("SELECT 'begin {round}'");
        let end = format!("SELECT 'end {round}'");
        home.database.run_sql(&begin).await;
        home.store.record(batch).await.unwrap();
        home.database.run_sql(&end).await;
        // The server writes its log a moment later.
        let log = loop {
            let log = cluster.log();
            if log.contains(&end) {
                break log;
            }
            tokio::task::yield_now().await;
        };
        let during = log.split(&begin).nth(1).unwrap().split(&end).next().unwrap();
        let is_statement =
            |line: &&str| line.contains("statement: BEGIN") || line.contains("execute ");
        counts.push(during.lines().filter(is_statement).count());
    }
    assert_eq!(counts[1], counts[2]);
    assert!((5..=10).contains(&counts[1]), "{counts:?}");
}

#[tokio::test]
async fn the_original_sql_finds_its_columns() {
    let mut home = Home::new().await;
    record_one(&home.store, home.arrivals.prompt("r", "s")).await;
    home.database
        .run_sql(
            "SELECT id, request_id, event_type, session_id, received_at, request_body, raw_body,
                 request_headers, ip_address, status, processed_at, processing_time, conversation_id,
                 message_id, tool_use_id, error_code, error_message, error_stack, retry_count,
                 retry_after, metadata, created_at, updated_at
             FROM webhook_events
             WHERE received_at > now() - interval '1 day' AND request_body ->> 'session_id' = 's';
             SELECT id, session_id, project_path, title, description, started_at, ended_at, metadata
             FROM conversations;
             SELECT conversation_id, role, content, tool_calls, timestamp, metadata FROM messages;
             SELECT message_id, conversation_id, tool_name, parameters, response, duration, status,
                 timestamp, metadata FROM tool_uses",
        )
        .await;
}

/// A trigger of the user's own that refuses what it does not want.
fn refuse(table: &str, condition: &str) -> String {
    format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN RAISE EXCEPTION 'this value is not wanted'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH ROW WHEN ({condition})
         EXECUTE FUNCTION refuse()"
    )
}
