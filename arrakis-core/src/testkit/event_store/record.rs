//! Recording: first arrivals, repeats, merging, and what is kept of a body.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Arrivals, EventStoreFixture, hook, normalized, record_one, status_of};
use crate::record::audit::EventStatus;
use crate::record::store::{
    Admission, AdmissionKind, Arrival, DEFAULT_WORKSPACE, EventKey, Verdict,
};

/// The first arrival: its row, its answer, its changes, all there when `record` returns.
pub async fn the_first_arrival_is_admitted_with_its_changes(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let (arrival, verdict) = arrivals.prompt("a", "s");
    fixture.clock().advance(Duration::from_millis(7));
    let admission = record_one(&*store, (arrival.clone(), verdict.clone())).await;
    let Verdict::Apply(changes) = verdict else { panic!("a prompt is applied") };
    let expected = Admission {
        kind: AdmissionKind::New,
        event_id: arrival.event_id,
        digest: arrival.digest,
        status: EventStatus::Success,
        answer: changes.answer,
    };
    assert_eq!(admission, expected);

    let event = store
        .event(DEFAULT_WORKSPACE, EventKey::Request(arrival.request_id.clone()))
        .await
        .expect("event");
    let event = event.expect("the row is there");
    assert_eq!(event.summary.id, arrival.event_id);
    assert_eq!(event.summary.workspace, DEFAULT_WORKSPACE);
    assert_eq!(event.summary.event_type, "UserPromptSubmit");
    assert_eq!(event.summary.session_id.as_deref(), Some("s"));
    assert_eq!(event.summary.received_at, arrival.received_at);
    assert_eq!(event.summary.processing_time_ms, Some(7));
    assert_eq!(event.summary.answer, changes.answer);
    assert_eq!(event.summary.metadata, arrival.metadata);
    assert_eq!(normalized(&event.body.unwrap_or_default()), normalized(&arrival.body));
    assert_eq!(event.headers, arrival.headers);
    assert_eq!(event.ip_address, arrival.ip_address);

    let detail = store.conversation(DEFAULT_WORKSPACE, "s").await.expect("conversation");
    let detail = detail.expect("the conversation is there");
    assert_eq!([detail.conversation], changes.conversations[..]);
    assert_eq!(detail.messages, changes.messages);
}

/// A repeat of an id with the same payload.
pub async fn a_repeat_gets_the_first_answer_and_leaves_a_duplicate_row(
    fixture: &impl EventStoreFixture,
) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let payload = hook("s", "Stop", r#","last_assistant_message":"bye""#);
    let first = record_one(&*store, arrivals.next("a", payload.clone())).await;
    let (repeat, verdict) = arrivals.next("a", payload);
    let repeat_id = repeat.event_id;
    let second = record_one(&*store, (repeat, verdict)).await;
    assert_eq!(second, Admission { kind: AdmissionKind::Duplicate, ..first.clone() });

    assert_eq!(status_of(&*store, first.event_id).await, EventStatus::Success);
    let row = store
        .event(DEFAULT_WORKSPACE, EventKey::Id(repeat_id))
        .await
        .expect("event")
        .expect("its own row");
    assert_eq!(row.summary.status, EventStatus::Duplicate);
    assert_eq!(row.body, None);
    assert_eq!(row.summary.metadata.duplicate_of, Some(first.event_id));
    let detail = store.conversation(DEFAULT_WORKSPACE, "s").await.expect("conversation");
    assert_eq!(detail.expect("it is there").messages.len(), 1);
}

/// A repeat of an id with another payload.
pub async fn a_repeat_with_another_digest_is_told_and_changes_nothing(
    fixture: &impl EventStoreFixture,
) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let first = record_one(&*store, arrivals.prompt("a", "s")).await;
    let (other, verdict) = arrivals.next("a", hook("other", "SessionStart", ""));
    let (other_id, body) = (other.event_id, other.body.clone());
    let second = record_one(&*store, (other, verdict)).await;
    assert_eq!(second, Admission { kind: AdmissionKind::Conflict, ..first });
    let row = store
        .event(DEFAULT_WORKSPACE, EventKey::Id(other_id))
        .await
        .expect("event")
        .expect("its own row");
    assert_eq!(row.summary.status, EventStatus::Invalid);
    assert_eq!(row.summary.error_code.as_deref(), Some("id_conflict"));
    assert_eq!(normalized(&row.body.unwrap_or_default()), normalized(&body));
    assert!(store.conversation(DEFAULT_WORKSPACE, "other").await.expect("read").is_none());
}

/// One batch that holds an id three times.
pub async fn repeats_inside_one_batch_are_treated_as_repeats_across_batches(
    fixture: &impl EventStoreFixture,
) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let payload = hook("s", "Stop", "");
    let batch = vec![
        arrivals.next("a", payload.clone()),
        arrivals.next("b", payload.clone()),
        arrivals.next("a", payload),
        arrivals.next("a", hook("s", "SessionEnd", "")),
    ];
    let kinds = store.record(batch).await.expect("record").into_iter().map(|a| a.kind);
    use AdmissionKind::{Conflict, Duplicate, New};
    assert_eq!(kinds.collect::<Vec<_>>(), [New, New, Duplicate, Conflict]);
    let counts = store.counts().await.expect("counts");
    use EventStatus::{Duplicate as D, Invalid, Success};
    assert_eq!(counts, BTreeMap::from([(Success, 2), (D, 1), (Invalid, 1)]));
}

/// Sixty-four senders race with one id.
pub async fn many_senders_of_one_id_have_one_first(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let payload = hook("s", "Stop", "");
    let racing: Vec<_> = (0..64)
        .map(|_| {
            let (store, one) = (Arc::clone(&store), arrivals.next("a", payload.clone()));
            tokio::spawn(async move { record_one(&*store, one).await })
        })
        .collect();
    let mut admissions = Vec::new();
    for racer in racing {
        admissions.push(racer.await.expect("no panic"));
    }
    let first: Vec<_> = admissions.iter().filter(|a| a.kind == AdmissionKind::New).collect();
    assert_eq!(first.len(), 1);
    assert!(admissions.iter().all(|a| a.event_id == first[0].event_id));
    let counts = store.counts().await.expect("counts");
    assert_eq!(counts[&EventStatus::Success], 1);
    assert_eq!(counts[&EventStatus::Duplicate], 63);
}

/// What its sender must fix and send again does not block the id.
pub async fn an_arrival_outside_the_ledger_leaves_its_id_free(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let (mut broken, verdict) = arrivals.next("a", "not json");
    assert_eq!(verdict.status(), EventStatus::Invalid);
    broken.in_ledger = false;
    for _ in 0..2 {
        let again = (Arrival { event_id: arrivals.event_id(), ..broken.clone() }, verdict.clone());
        assert_eq!(record_one(&*store, again).await.kind, AdmissionKind::New);
    }
    let fixed = record_one(&*store, arrivals.prompt("a", "s")).await;
    assert_eq!((fixed.kind, fixed.status), (AdmissionKind::New, EventStatus::Success));
    assert_eq!(store.counts().await.expect("counts")[&EventStatus::Invalid], 2);
}

/// The same events in several orders, over several calls, give the same conversation.
pub async fn changes_merge_in_any_order(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let tool = |more: &str| {
        format!(r#","tool_name":"Bash","tool_use_id":"t1","tool_input":{{"command":"ls"}}{more}"#)
    };
    let post = tool(r#","tool_response":{"stdout":"hi"},"duration_ms":30"#);
    let mut events: Vec<_> = [
        ("SessionStart", String::new()),
        ("UserPromptSubmit", r#","prompt":"first","prompt_id":"p1""#.to_owned()),
        ("PreToolUse", tool("")),
        ("PostToolUse", post),
        ("Stop", r#","last_assistant_message":"done""#.to_owned()),
        ("SessionEnd", r#","reason":"other""#.to_owned()),
    ]
    .into_iter()
    .enumerate()
    .map(|(n, (event, more))| arrivals.next(&format!("e{n}"), hook("SESSION", event, &more)))
    .collect();

    let mut read = Vec::new();
    for order in 0..4 {
        let session = format!("s{order}");
        let mut batch: Vec<_> = events
            .iter()
            .map(|(arrival, _)| {
                let body = String::from_utf8_lossy(&arrival.body).replace("SESSION", &session);
                let mut arrival = arrival.clone();
                arrival.body = body.into();
                arrival.session_id = Some(session.clone());
                arrival.request_id =
                    format!("{session}-{}", arrival.request_id).parse().expect("id");
                arrival.event_id = arrivals.event_id();
                let verdict = crate::record::ingest::judge(&arrival);
                (arrival, verdict)
            })
            .collect();
        while !batch.is_empty() {
            let rest = batch.split_off(batch.len().min(order + 1));
            store.record(batch).await.expect("record");
            batch = rest;
        }
        let detail = store.conversation(DEFAULT_WORKSPACE, &session).await.expect("read");
        let detail = detail.expect("it is there");
        let result = detail.tool_uses[0].result.clone().expect("a result");
        read.push((
            detail.conversation.started_at,
            detail.conversation.ended_at(),
            detail.conversation.title.map(|title| title.value),
            detail.messages.into_iter().map(|m| m.content.value).collect::<Vec<_>>(),
            (result.status, result.response, result.duration_ms, detail.tool_uses.len()),
            detail.events.len(),
        ));
        events.rotate_left(2);
        events.swap(0, 1);
    }
    assert_eq!(read[0].3, ["first", "done"]);
    assert!(read.iter().all(|one| one == &read[0]), "{read:#?}");
}

/// Bodies that no JSON column holds.
pub async fn a_body_that_is_not_json_is_kept_byte_for_byte(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let large = vec![b'x'; 1 << 20];
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let bodies: [&[u8]; 11] = [
        b"",
        b"not json",
        b"\0\x01\xff\xfe",
        b"{\"truncated\":",
        b"{\"a\":1,\"a\":2}",
        br#"{"session_id":"s","hook_event_name":"X","nul":"\u0000"}"#,
        br#"{"session_id":"s","hook_event_name":"X","\u0000":"nul"}"#,
        br#"{"session_id":"s","hook_event_name":"X","half":"\ud800"}"#,
        br#"{"session_id":"s","hook_event_name":"X","huge":1e400,"tiny":1e-400000}"#,
        deep.as_bytes(),
        &large,
    ];
    for (n, body) in bodies.into_iter().enumerate() {
        let (arrival, verdict) = arrivals.next(&format!("e{n}"), body.to_vec());
        let id = arrival.event_id;
        record_one(&*store, (arrival, verdict)).await;
        let row = store
            .event(DEFAULT_WORKSPACE, EventKey::Id(id))
            .await
            .expect("event")
            .expect("the row");
        assert_eq!(row.body.as_deref(), Some(body), "body {n}");
    }
}

/// JSON that a store may space and order anew, and nothing more.
pub async fn a_body_that_is_json_is_kept_as_that_json(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let bodies = [
        " {\"session_id\":\"s\",\"hook_event_name\":\"X\"}\n\n",
        "[1, 2.50, -0.125, 9007199254740993, null, true]",
        r#"{"zebra":1,"a":{"nested":[{"b":"\u00e9\ud83d\udc1b\n"}]},"session_id":"s"}"#,
        "\"text\"",
        "null",
    ];
    for (n, body) in bodies.into_iter().enumerate() {
        let (arrival, verdict) = arrivals.next(&format!("e{n}"), body);
        let id = arrival.event_id;
        record_one(&*store, (arrival, verdict)).await;
        let row = store
            .event(DEFAULT_WORKSPACE, EventKey::Id(id))
            .await
            .expect("event")
            .expect("the row");
        assert_eq!(normalized(&row.body.unwrap_or_default()), normalized(body.as_bytes()));
    }
}

/// Text with everything in it that a database might trip over.
pub async fn every_text_is_kept_as_it_is(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let sessions = [
        "it's; DROP TABLE x --",
        "\u{1f41b} \u{202e}rtl",
        "%_\\\"",
        &"s".repeat(512),
        "a\u{1}b",
        "a\0b",
    ];
    for (n, session) in sessions.into_iter().enumerate() {
        let words =
            serde_json::to_string(&format!("words \u{1f41b} {session} \u{7f}")).expect("text");
        let body = hook(session, "UserPromptSubmit", &format!(r#","prompt":{words}"#));
        record_one(&*store, arrivals.next(&format!("e{n}"), body)).await;
        let detail = store.conversation(DEFAULT_WORKSPACE, session).await.expect("read");
        let detail = detail.expect("it is there");
        assert_eq!(detail.conversation.session_id, session);
        assert_eq!(detail.messages[0].content.value, format!("words \u{1f41b} {session} \u{7f}"));
    }
}
