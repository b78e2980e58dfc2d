//! Recording: group commit, failure, recovery, and what is kept of a body.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{Home, arrival, at, impatient, open, repeat, says, with_body};
use arrakis_core::base::error::Retryable;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::{
    Admission, AdmissionKind, Arrival, EventFilter, EventKey, EventReader, EventStore, Page,
    Verdict,
};
use arrakis_core::session::conversation::{
    Changes, Conversation, Json, MessageKey, ResultRank, Seen, Stamp, Stamped, Title, TitleSource,
    ToolResult, ToolStatus, ToolUse,
};
use arrakis_store_sqlite::{SqliteConfig, SqliteStore};
use bytes::Bytes;
use diesel::connection::SimpleConnection;

async fn record_one(store: &SqliteStore, arrival: &Arrival, text: &str) -> Admission {
    let verdict = says(arrival, text);
    store.record(vec![(arrival.clone(), verdict)]).await.unwrap().remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_exactly_one_is_new() {
    let home = Home::new();
    let store = Arc::new(home.store);
    let other = Arc::new(open(&home.folder.path().join("arrakis.db"), &home.clock));
    let calls: Vec<_> = (0..64)
        .map(|n| {
            let store = Arc::clone(if n % 2 == 0 { &store } else { &other });
            let event = repeat(&arrival(&format!("r{}", n / 8), 0), n);
            tokio::spawn(async move {
                let admission = record_one(&store, &event, "hello").await;
                (event, admission)
            })
        })
        .collect();
    let mut new = BTreeSet::new();
    let mut firsts = BTreeSet::new();
    for call in calls {
        let (event, admission) = call.await.unwrap();
        match admission.kind {
            AdmissionKind::New => {
                assert_eq!(admission.event_id, event.event_id);
                assert!(new.insert(event.request_id), "one id was new twice");
            }
            kind => assert_eq!(kind, AdmissionKind::Duplicate),
        }
        firsts.insert(admission.event_id);
    }
    assert_eq!((new.len(), firsts.len()), (8, 8));
    let counts = store.counts().await.unwrap();
    assert_eq!(counts[&EventStatus::Success], 8);
    assert_eq!(counts[&EventStatus::Duplicate], 56);
}

#[tokio::test]
async fn a_locked_database_is_unavailable_and_later_it_is_not() {
    let home = Home::new();
    let clock = Arc::clone(&home.clock) as _;
    let store = SqliteStore::open(home.path(), clock, impatient()).unwrap();
    let event = arrival("r", 0);
    let mut holder = home.beside();
    holder.batch_execute("BEGIN IMMEDIATE").unwrap();
    let refused = store.record(vec![(event.clone(), says(&event, "hello"))]).await.unwrap_err();
    assert!(refused.is_retryable(), "{refused:?}");
    assert!(store.ping().await.unwrap_err().is_retryable());
    assert!(store.events(EventFilter::default(), Page::first(9)).await.unwrap().events.is_empty());
    holder.batch_execute("ROLLBACK").unwrap();
    store.ping().await.unwrap();
    assert_eq!(record_one(&store, &event, "hello").await.kind, AdmissionKind::New);
}

#[tokio::test]
async fn a_full_queue_refuses_and_does_what_it_took() {
    let home = Home::new();
    let config = SqliteConfig { queue_calls: 1, queue_wait: Duration::ZERO, ..Default::default() };
    let clock = Arc::clone(&home.clock) as _;
    let store = Arc::new(SqliteStore::open(home.path(), clock, config).unwrap());
    let mut holder = home.beside();
    holder.batch_execute("BEGIN IMMEDIATE").unwrap();
    // One is with the writer and one waits; there is no place for the third.
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let store = Arc::clone(&store);
        calls.spawn(async move { store.ping().await });
    }
    let refused = calls.join_next().await.unwrap().unwrap();
    assert!(refused.unwrap_err().is_retryable());
    holder.batch_execute("ROLLBACK").unwrap();
    let rest = calls.join_all().await;
    assert!(rest.iter().any(Result::is_ok), "{rest:?}");
}

#[tokio::test]
async fn a_small_event_waits_for_one_large_one_at_most() {
    let home = Home::new();
    let mut holder = home.beside();
    holder.batch_execute("BEGIN IMMEDIATE").unwrap();
    let store = Arc::new(home.store);
    let large = format!(r#"{{"session_id":"s","text":"{}"}}"#, "x".repeat(300 * 1024));
    let large = (0..5).map(|n| with_body(arrival(&format!("large-{n}"), n), large.clone()));
    let mut calls = tokio::task::JoinSet::new();
    for event in large.chain([arrival("small", 9)]) {
        let store = Arc::clone(&store);
        calls.spawn(async move {
            record_one(&store, &event, "hello").await;
            event.request_id.to_string()
        });
    }
    // All calls wait before the database is free.
    tokio::task::yield_now().await;
    holder.batch_execute("ROLLBACK").unwrap();
    let mut answered = Vec::new();
    while let Some(id) = calls.join_next().await {
        answered.push(id.unwrap());
    }
    let place = answered.iter().position(|id| id == "small").unwrap();
    assert!(place <= 1, "{answered:?}");
}

#[tokio::test]
async fn a_file_that_was_taken_away_acknowledges_nothing() {
    let home = Home::new();
    std::fs::rename(home.path(), home.folder.path().join("elsewhere.db")).unwrap();
    let event = arrival("r", 0);
    let refused = home.store.record(vec![(event.clone(), says(&event, "hello"))]).await;
    assert!(refused.unwrap_err().is_retryable());
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_crash() {
    let home = Home::new();
    for n in 0..20 {
        record_one(&home.store, &arrival(&format!("r{n}"), n), "hello").await;
    }
    // What a crash leaves: the file and its log as they are, no checkpoint, no shared memory.
    let after = tempfile::tempdir().unwrap();
    let path = after.path().join("arrakis.db");
    for suffix in ["", "-wal"] {
        let file = |path: &std::path::Path| format!("{}{suffix}", path.display());
        std::fs::copy(file(&home.path()), file(&path)).unwrap();
    }
    let store = open(&path, &home.clock);
    assert_eq!(store.counts().await.unwrap()[&EventStatus::Success], 20);
    let again = record_one(&store, &repeat(&arrival("r7", 7), 99), "hello").await;
    assert_eq!(again.kind, AdmissionKind::Duplicate);
}

#[tokio::test]
async fn dropping_the_store_commits_what_it_accepted() {
    let home = Home::new();
    let event = arrival("r", 0);
    {
        let store = home.again();
        let mut call = store.record(vec![(event.clone(), says(&event, "hello"))]);
        // The first poll hands the event over; nobody waits for the answer.
        assert!(poll_once(&mut call).is_pending());
        drop(call);
    }
    let found = home.store.event("main", EventKey::Id(event.event_id)).await.unwrap().unwrap();
    assert_eq!(found.summary.status, EventStatus::Success);
}

#[tokio::test]
async fn a_reader_that_goes_away_harms_nobody() {
    let home = Home::new();
    for _ in 0..20 {
        let mut reading = home.store.counts();
        assert!(poll_once(&mut reading).is_pending());
    }
    assert!(home.store.counts().await.unwrap().is_empty());
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> std::task::Poll<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    std::pin::Pin::new(future).poll(&mut context)
}

#[tokio::test]
async fn a_poison_event_is_kept_as_an_error_and_its_neighbours_are_stored() {
    let home = Home::new();
    home.beside()
        .batch_execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON message_rows WHEN NEW.content = 'poison'
             BEGIN SELECT RAISE(ABORT, 'this value is not wanted'); END",
        )
        .unwrap();
    let events: Vec<Arrival> = (0..5).map(|n| arrival(&format!("r{n}"), n)).collect();
    let text = |n: usize| if n == 3 { "poison" } else { "hello" };
    let batch = events.iter().enumerate().map(|(n, event)| (event.clone(), says(event, text(n))));
    let admissions = home.store.record(batch.collect()).await.unwrap();
    for (n, admission) in admissions.iter().enumerate() {
        assert_eq!(admission.kind, AdmissionKind::New);
        assert_eq!(admission.event_id, events[n].event_id);
        let expected = if n == 3 { EventStatus::Error } else { EventStatus::Success };
        assert_eq!(admission.status, expected);
    }
    let poison = home.store.event("main", EventKey::Id(events[3].event_id)).await.unwrap().unwrap();
    assert_eq!(poison.body.as_ref(), Some(&events[3].body));
    assert_eq!(poison.summary.error_code.as_deref(), Some("store_refused"));
    assert_eq!(poison.summary.retry_after, Some(at(60)));
    let conversation = home.store.conversation("main", "s").await.unwrap().unwrap();
    assert_eq!(conversation.messages.len(), 4);
}

#[tokio::test]
async fn a_call_that_cannot_be_stored_at_all_fails_alone() {
    let home = Home::new();
    home.beside()
        .batch_execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON webhook_events WHEN NEW.request_id = 'r1'
             BEGIN SELECT RAISE(ABORT, 'this value is not wanted'); END",
        )
        .unwrap();
    // All three are handed over before the writer can have answered one.
    let events: Vec<Arrival> = (0..3).map(|n| arrival(&format!("r{n}"), n)).collect();
    let call = |n: usize| home.store.record(vec![(events[n].clone(), says(&events[n], "hello"))]);
    let (first, second, third) = tokio::join!(call(0), call(1), call(2));
    assert_eq!(first.unwrap()[0].status, EventStatus::Success);
    assert!(!second.unwrap_err().is_retryable());
    assert_eq!(third.unwrap()[0].status, EventStatus::Success);
    let both = vec![
        (arrival("r4", 4), says(&events[0], "hello")),
        (repeat(&events[1], 5), says(&events[1], "hello")),
    ];
    assert!(home.store.record(both).await.is_err());
    assert_eq!(home.store.counts().await.unwrap()[&EventStatus::Success], 2);
}

#[tokio::test]
async fn bodies_come_back_byte_for_byte() {
    let home = Home::new();
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let large = format!(r#"{{"text":"{}"}}"#, "é".repeat(2_000_000));
    let bodies: [&[u8]; 9] = [
        b"",
        b" {\"a\" : 1.50, \"a\": \"\\u0000\\ud800\"}\n",
        b"not json",
        b"\x00\xff\xfe",
        b"{\"a\":\"\xff\"}",
        b"null",
        b"{\"a\":1}{\"b\":2}",
        deep.as_bytes(),
        large.as_bytes(),
    ];
    for (n, body) in bodies.into_iter().enumerate() {
        let event = with_body(arrival(&format!("r{n}"), 0), Bytes::copy_from_slice(body));
        record_one(&home.store, &event, "hello").await;
        let found = home.store.event("main", EventKey::Id(event.event_id)).await.unwrap().unwrap();
        assert_eq!(found.body.as_deref(), Some(body), "body {n}");
    }
    // Every request_body is JSON that SQL can look into.
    home.beside()
        .batch_execute("SELECT request_body ->> '$.a' FROM webhook_events WHERE true")
        .unwrap();
}

#[tokio::test]
async fn processing_time_is_what_the_clock_says() {
    let home = Home::new();
    home.clock.set(at(0).plus(Duration::from_millis(42)));
    let event = arrival("r", 0);
    record_one(&home.store, &event, "hello").await;
    let found = home.store.event("main", EventKey::Id(event.event_id)).await.unwrap().unwrap();
    assert_eq!(found.summary.processing_time_ms, Some(42));
}

#[tokio::test]
async fn values_read_back_as_they_were_merged() {
    let home = Home::new();
    let stamp = |n: i64| Stamp { at: at(n), request_id: format!("r{n}").parse().unwrap() };
    let text = |n: i64, text: &str| Some(Stamped::new(&stamp(n), text.to_owned()));
    let mut full = Conversation::new("main", "s", &stamp(1));
    let title = |n: i64, text: &str| {
        let index = Some(u32::try_from(n).unwrap());
        let title = Title::new(TitleSource::Prompt, &stamp(n), text.to_owned());
        Some(Title { prompt_index: index, ..title })
    };
    full.title = title(2, "a \0 title");
    full.project_path = text(3, "/p");
    full.model = text(4, "opus");
    full.transcript_path = text(5, "/t.jsonl");
    full.ended = text(6, "clear");
    full.alive = Some(stamp(5));
    let json = |text: &str| Json::parse(text.to_owned()).unwrap();
    let asked_by = MessageKey::Api("msg_1".to_owned());
    let mut tool = ToolUse {
        tool_name: "Bash".to_owned(),
        parameters: Some(Stamped::new(&stamp(7), json(r#"{"b":1.0,"a":1e400}"#))),
        agent_id: Some("agent".to_owned()),
        is_by_person: true,
        seen: Seen::BY_HOOK,
        ..ToolUse::new(full.id, Some("toolu_1".to_owned()), &stamp(7)).asked_by(asked_by)
    };
    let apply = async |n: i64, conversation: &Conversation, tool: &ToolUse| {
        let verdict = Verdict::Apply(Changes {
            conversations: vec![conversation.clone()],
            tool_uses: vec![tool.clone()],
            ..Changes::default()
        });
        home.store.record(vec![(arrival(&format!("r{n}"), n), verdict)]).await.unwrap();
        let detail = home.store.conversation("main", "s").await.unwrap().unwrap();
        (detail.conversation, detail.tool_uses)
    };
    assert_eq!(apply(1, &full, &tool).await, (full.clone(), vec![tool.clone()]));

    let mut more = Conversation::new("main", "s", &stamp(9));
    more.title = title(1, "earlier");
    more.alive = Some(stamp(9));
    let result = ToolUse {
        parameters: None,
        first: stamp(8),
        result: Some(ToolResult {
            rank: ResultRank::Own,
            stamp: stamp(8),
            status: ToolStatus::Failed,
            response: Some(json("\"Exit code 3\"")),
            duration_ms: Some(87),
        }),
        ..tool.clone()
    };
    let stored = apply(2, &more, &result).await;
    full.merge(more);
    tool.merge(result);
    assert_eq!(stored, (full, vec![tool]));
}

#[tokio::test]
async fn the_original_sql_finds_its_columns() {
    let home = Home::new();
    let event = arrival("r", 0);
    record_one(&home.store, &event, "hello").await;
    record_one(&home.store, &repeat(&event, 1), "hello").await;
    home.beside()
        .batch_execute(
            "SELECT id, request_id, event_type, session_id, received_at, request_body, raw_body,
                 request_headers, ip_address, status, processed_at, processing_time, conversation_id,
                 message_id, tool_use_id, error_code, error_message, error_stack, retry_count,
                 retry_after, metadata, created_at, updated_at
             FROM webhook_events
             WHERE received_at > datetime('now', '-1 day') AND request_body ->> 'session_id' = 's';
             SELECT id, session_id, project_path, title, description, started_at, ended_at, metadata
             FROM conversations;
             SELECT conversation_id, role, content, tool_calls, timestamp, metadata FROM messages;
             SELECT message_id, conversation_id, tool_name, parameters, response, duration, status,
                 timestamp, metadata FROM tool_uses",
        )
        .unwrap();
    assert_eq!(home.store.counts().await.unwrap()[&EventStatus::Duplicate], 1);
}
