//! The conformance suite of [`EventStore`] and [`EventReader`](crate::store::EventReader).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::audit::EventStatus;
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::envelope::{Envelope, Source};
use crate::id::uuid_v7;
use crate::ingest::{Form, Incoming, Reception, admit};
use crate::store::{
    Admission, AdmissionKind, Arrival, DEFAULT_WORKSPACE, EventFilter, EventKey, EventStore,
    FIRST_RETRY_DELAY, FeedCursor, MessageFilter, Page, Verdict,
};

/// An empty store, and the clock that it reads.
pub trait EventStoreFixture: Send + Sync {
    /// The store.
    fn store(&self) -> Arc<dyn EventStore>;

    /// The clock.
    fn clock(&self) -> Arc<ManualClock>;
}

/// Makes one `#[tokio::test]` of each case of the suite; `$make` is an async function without
/// arguments that returns a fresh [`EventStoreFixture`].
#[macro_export]
macro_rules! event_store_conformance {
    ($make:path) => {
        $crate::event_store_conformance!(@cases $make:
            the_first_arrival_is_admitted_with_its_changes,
            a_repeat_gets_the_first_answer_and_leaves_a_duplicate_row,
            a_repeat_with_another_digest_is_told_and_changes_nothing,
            repeats_inside_one_batch_are_treated_as_repeats_across_batches,
            many_senders_of_one_id_have_one_first,
            an_arrival_outside_the_ledger_leaves_its_id_free,
            changes_merge_in_any_order,
            a_body_that_is_not_json_is_kept_byte_for_byte,
            a_body_that_is_json_is_kept_as_that_json,
            every_text_is_kept_as_it_is,
            a_row_that_failed_is_claimed_once_when_it_is_due,
            a_claim_that_was_lost_changes_nothing,
            a_claim_can_be_rescued_and_its_row_run_out_of_retries,
            only_legal_transitions_happen_and_each_leaves_a_trail,
            pruning_keeps_the_ledger,
            lists_are_newest_first_and_continue_without_gap,
            lists_can_be_filtered,
            a_conversation_is_read_whole,
            counts_are_by_state,
            payloads_are_found_by_their_words,
            messages_are_found_by_their_words,
            the_feed_shows_every_commit_and_every_change_of_state,
            the_feed_continues_where_it_was_left,
        );
    };
    (@cases $make:path: $($case:ident,)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::testkit::event_store::$case(&$make().await).await;
            }
        )*
    };
}

const START: Timestamp = Timestamp::EPOCH;

/// Makes arrivals one after the other, as a server would.
#[derive(Debug)]
pub struct Arrivals {
    clock: Arc<ManualClock>,
    count: u64,
}

impl Arrivals {
    /// Arrivals that are received when `clock` says.
    #[must_use]
    pub fn new(clock: Arc<ManualClock>) -> Self {
        Self { clock, count: 0 }
    }

    /// An envelope with this id and payload, judged.
    pub fn next(&mut self, id: &str, payload: impl Into<Bytes>) -> (Arrival, Verdict) {
        self.count += 1;
        self.clock.advance(Duration::from_millis(1));
        let now = self.clock.now();
        let id = id.parse().expect("a valid request id");
        let envelope = Envelope::new(id, now, "http://h/", Source::default(), payload);
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.count.to_be_bytes());
        let reception = Reception {
            event_id: uuid_v7(now, random),
            received_at: now,
            workspace: DEFAULT_WORKSPACE.to_owned(),
            headers: [("user-agent".to_owned(), "test/1 \"quoted\"".to_owned())].into(),
            ip_address: Some([192, 0, 2, 7].into()),
        };
        let incoming = Incoming {
            form: Form::Envelope,
            request_id: envelope.header.request_id.clone(),
            digest: envelope.header.digest,
            body: envelope.payload,
            header: Some(envelope.header),
        };
        admit(incoming, reception)
    }

    /// The id of one more row.
    pub fn event_id(&mut self) -> Uuid {
        self.next("unused", "").0.event_id
    }

    /// A prompt of a session.
    pub fn prompt(&mut self, id: &str, session: &str) -> (Arrival, Verdict) {
        self.next(id, hook(session, "UserPromptSubmit", &format!(r#","prompt":"prompt {id}""#)))
    }
}

/// A hook payload with the common fields and `more`.
#[must_use]
pub fn hook(session: &str, event: &str, more: &str) -> String {
    let session = serde_json::to_string(session).expect("text");
    format!(r#"{{"session_id":{session},"cwd":"/p","hook_event_name":"{event}"{more}}}"#)
}

fn failed(arrival: Arrival) -> (Arrival, Verdict) {
    let (code, message) = ("too_deep".to_owned(), "it nests too deep".to_owned());
    (arrival, Verdict::Failed { code, message })
}

async fn record_one(store: &dyn EventStore, one: (Arrival, Verdict)) -> Admission {
    let mut admissions = store.record(vec![one]).await.expect("record");
    assert_eq!(admissions.len(), 1);
    admissions.remove(0)
}

async fn status_of(store: &dyn EventStore, id: Uuid) -> EventStatus {
    let event = store.event(EventKey::Id(id)).await.expect("event");
    event.expect("the row is there").summary.status
}

async fn all(store: &dyn EventStore, filter: EventFilter) -> Vec<(String, EventStatus)> {
    let rows = store.events(filter, Page::first(1000)).await.expect("events");
    rows.into_iter().map(|row| (row.request_id.to_string(), row.status)).collect()
}

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

    let event = store.event(EventKey::Request(arrival.request_id.clone())).await.expect("event");
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
    let row = store.event(EventKey::Id(repeat_id)).await.expect("event").expect("its own row");
    assert_eq!(row.summary.status, EventStatus::Duplicate);
    assert_eq!(row.body, None);
    assert_eq!(row.summary.metadata["duplicateOf"], first.event_id.to_string());
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
    let row = store.event(EventKey::Id(other_id)).await.expect("event").expect("its own row");
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

/// What its sender must mend and send again does not block the id.
pub async fn an_arrival_outside_the_ledger_leaves_its_id_free(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let (mut broken, verdict) = arrivals.next("a", "not json");
    assert_eq!(verdict.status(), EventStatus::Invalid);
    broken.in_ledger = false;
    for _ in 0..2 {
        let again = (Arrival { event_id: arrivals.event_id(), ..broken.clone() }, verdict.clone());
        assert_eq!(record_one(&*store, again).await.kind, AdmissionKind::New);
    }
    let mended = record_one(&*store, arrivals.prompt("a", "s")).await;
    assert_eq!((mended.kind, mended.status), (AdmissionKind::New, EventStatus::Success));
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
                let verdict = crate::ingest::judge(&arrival);
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
        let row = store.event(EventKey::Id(id)).await.expect("event").expect("the row");
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
        let row = store.event(EventKey::Id(id)).await.expect("event").expect("the row");
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

/// A row in `ERROR` waits, is claimed by one worker, and is applied.
pub async fn a_row_that_failed_is_claimed_once_when_it_is_due(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let (arrival, verdict) = arrivals.prompt("a", "s");
    let admission = record_one(&*store, failed(arrival.clone())).await;
    assert_eq!(admission.status, EventStatus::Error);
    let now = fixture.clock().now();
    assert!(store.claim_due(now, START, 10).await.expect("claim").is_empty());

    let due = now.plus(FIRST_RETRY_DELAY);
    let mut claims = store.claim_due(due, START, 10).await.expect("claim");
    assert_eq!(claims.len(), 1);
    assert!(store.claim_due(due, START, 10).await.expect("claim").is_empty());
    let claimed = Arrival { body: arrival.body.clone(), ..claims[0].arrival.clone() };
    assert_eq!(claimed, arrival);
    assert_eq!(normalized(&claims[0].arrival.body), normalized(&arrival.body));
    assert_eq!(claims[0].retry_count, 0);
    assert_eq!(status_of(&*store, arrival.event_id).await, EventStatus::Processing);
    assert!(store.complete(claims.remove(0), verdict, None).await.expect("complete"));
    assert_eq!(status_of(&*store, arrival.event_id).await, EventStatus::Success);
    assert!(store.conversation(DEFAULT_WORKSPACE, "s").await.expect("read").is_some());

    let (mut repeat, verdict) = arrivals.prompt("b", "s");
    (repeat.request_id, repeat.digest) = (arrival.request_id, arrival.digest);
    let answer = record_one(&*store, (repeat, verdict)).await;
    assert_eq!((answer.kind, answer.status), (AdmissionKind::Duplicate, EventStatus::Success));
    assert!(answer.answer.conversation_id.is_some(), "the answer is the row's, as it is now");
}

/// A worker that comes back after its claim went to another.
pub async fn a_claim_that_was_lost_changes_nothing(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let (arrival, verdict) = arrivals.prompt("a", "s");
    record_one(&*store, failed(arrival.clone())).await;
    let due = fixture.clock().now().plus(FIRST_RETRY_DELAY);
    let lost = store.claim_due(due, START, 1).await.expect("claim").remove(0);
    let later = due.plus(Duration::from_secs(3600));
    let held = store.claim_due(later, later, 1).await.expect("claim").remove(0);
    assert!(!store.complete(lost, verdict.clone(), None).await.expect("complete"));
    assert_eq!(status_of(&*store, arrival.event_id).await, EventStatus::Processing);
    assert!(store.conversation(DEFAULT_WORKSPACE, "s").await.expect("read").is_none());
    assert!(store.complete(held, verdict, None).await.expect("complete"));
}

/// Tries until there are none left.
pub async fn a_claim_can_be_rescued_and_its_row_run_out_of_retries(
    fixture: &impl EventStoreFixture,
) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let (arrival, _) = arrivals.prompt("a", "s");
    let id = arrival.event_id;
    let (_, failure) = failed(arrival.clone());
    record_one(&*store, (arrival, failure.clone())).await;
    let mut now = fixture.clock().now().plus(FIRST_RETRY_DELAY);
    for tries in 0..3 {
        let claim = store.claim_due(now, START, 1).await.expect("claim").remove(0);
        assert_eq!(claim.retry_count, tries);
        let next = (tries < 2).then(|| now.plus(Duration::from_secs(300)));
        assert!(store.complete(claim, failure.clone(), next).await.expect("complete"));
        assert!(store.claim_due(now, START, 1).await.expect("claim").is_empty());
        let expected = if tries < 2 { EventStatus::PendingRetry } else { EventStatus::Failed };
        assert_eq!(status_of(&*store, id).await, expected);
        now = now.plus(Duration::from_secs(300));
    }
    let row = store.event(EventKey::Id(id)).await.expect("event").expect("the row");
    assert_eq!(row.summary.error_code.as_deref(), Some("too_deep"));
    for pair in row.transitions.windows(2) {
        assert_eq!(pair[0].to, pair[1].from);
    }
    assert!(row.transitions.iter().all(|step| step.from.may_become(step.to)));
}

/// What a person does to a row.
pub async fn only_legal_transitions_happen_and_each_leaves_a_trail(
    fixture: &impl EventStoreFixture,
) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let (arrival, verdict) = arrivals.next("a", "not json");
    let id = arrival.event_id;
    record_one(&*store, (arrival, verdict)).await;
    assert!(store.transition(id, EventStatus::Success, "me", "why not").await.is_err());
    store.transition(id, EventStatus::Pending, "me", "please").await.expect("a redrive");
    let row = store.event(EventKey::Id(id)).await.expect("event").expect("the row");
    assert_eq!(row.summary.status, EventStatus::Pending);
    assert_eq!(row.transitions.len(), 1);
    let step = &row.transitions[0];
    assert_eq!((step.from, step.to), (EventStatus::Invalid, EventStatus::Pending));
    assert_eq!((step.actor.as_str(), step.reason.as_str()), ("me", "please"));
    assert!(store.transition(Uuid::nil(), EventStatus::Pending, "me", "").await.is_err());
    let claims = store.claim_due(fixture.clock().now(), START, 10).await.expect("claim");
    assert_eq!(claims.len(), 1, "a redriven row is due");
}

/// Old rows go; that their ids were used stays known.
pub async fn pruning_keeps_the_ledger(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let payload = hook("s", "Stop", "");
    let first = record_one(&*store, arrivals.next("a", payload.clone())).await;
    let (waiting, _) = arrivals.prompt("waits", "s");
    let waiting_id = waiting.event_id;
    record_one(&*store, failed(waiting)).await;
    fixture.clock().advance(Duration::from_secs(1));
    let cut = fixture.clock().now();
    let young = record_one(&*store, arrivals.next("b", hook("s", "Stop", ""))).await;
    assert_eq!(store.prune(cut, 100).await.expect("prune"), 1);
    assert!(store.event(EventKey::Id(first.event_id)).await.expect("event").is_none());
    assert_eq!(status_of(&*store, waiting_id).await, EventStatus::Error);
    assert_eq!(status_of(&*store, young.event_id).await, EventStatus::Success);
    let repeat = record_one(&*store, arrivals.next("a", payload)).await;
    assert_eq!(repeat, Admission { kind: AdmissionKind::Duplicate, ..first });
}

/// A list read in parts is the list.
pub async fn lists_are_newest_first_and_continue_without_gap(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let batch =
        (0..25).map(|n| arrivals.prompt(&format!("e{n:02}"), &format!("s{n:02}"))).collect();
    store.record(batch).await.expect("record");
    let mut events = Vec::new();
    let mut page = Page::first(10);
    loop {
        let part = store.events(EventFilter::default(), page).await.expect("events");
        let Some(last) = part.last() else { break };
        page.after = Some(last.id);
        events.extend(part.into_iter().map(|event| event.request_id.to_string()));
    }
    let expected: Vec<_> = (0..25).rev().map(|n| format!("e{n:02}")).collect();
    assert_eq!(events, expected);

    let mut sessions = Vec::new();
    let mut page = Page::first(10);
    loop {
        let part = store.conversations(DEFAULT_WORKSPACE, page).await.expect("conversations");
        let Some(last) = part.last() else { break };
        page.after = Some(last.conversation.id);
        sessions.extend(part.into_iter().map(|one| one.conversation.session_id));
    }
    let expected: Vec<_> = (0..25).rev().map(|n| format!("s{n:02}")).collect();
    assert_eq!(sessions, expected);
}

/// Each filter by itself, and together.
pub async fn lists_can_be_filtered(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let batch = vec![
        arrivals.prompt("a", "one"),
        arrivals.prompt("b", "two"),
        arrivals.next("c", hook("one", "Stop", "")),
        arrivals.next("d", "not json"),
    ];
    store.record(batch).await.expect("record");
    let ids = |rows: Vec<(String, EventStatus)>| {
        rows.into_iter().map(|(id, _)| id).collect::<Vec<_>>().join(" ")
    };
    let session = EventFilter { session_id: Some("one".to_owned()), ..Default::default() };
    assert_eq!(ids(all(&*store, session.clone()).await), "c a");
    let kind = EventFilter { event_type: Some("Stop".to_owned()), ..session };
    assert_eq!(ids(all(&*store, kind).await), "c");
    let status = EventFilter { status: Some(EventStatus::Invalid), ..Default::default() };
    assert_eq!(ids(all(&*store, status).await), "d");
    let request = EventFilter { request_id: "b".parse().ok(), ..Default::default() };
    assert_eq!(ids(all(&*store, request).await), "b");
    let workspace = EventFilter { workspace: Some("other".to_owned()), ..Default::default() };
    assert_eq!(ids(all(&*store, workspace).await), "");
}

/// Messages, tool uses and the timeline, each in order; by session id and by its own.
pub async fn a_conversation_is_read_whole(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let tool = |id: &str| format!(r#","tool_name":"Read","tool_use_id":"{id}","tool_input":{{}}"#);
    let batch = vec![
        arrivals.next("e0", hook("s", "SessionStart", "")),
        arrivals.prompt("e1", "s"),
        arrivals.next("e2", hook("s", "PreToolUse", &tool("t1"))),
        arrivals.next("e3", hook("s", "PreToolUse", &tool("t2"))),
        arrivals.next("e4", hook("s", "Stop", r#","last_assistant_message":"done""#)),
        arrivals.next("e4", hook("s", "Stop", r#","last_assistant_message":"done""#)),
        arrivals.prompt("x", "another"),
    ];
    store.record(batch).await.expect("record");
    let detail = store.conversation(DEFAULT_WORKSPACE, "s").await.expect("read").expect("there");
    let words: Vec<_> = detail.messages.iter().map(|m| m.content.value.as_str()).collect();
    assert_eq!(words, ["prompt e1", "done"]);
    let tools: Vec<_> = detail.tool_uses.iter().filter_map(|t| t.tool_use_id.clone()).collect();
    assert_eq!(tools, ["t1", "t2"]);
    let timeline: Vec<_> = detail.events.iter().map(|e| e.request_id.to_string()).collect();
    assert_eq!(timeline, ["e0", "e1", "e2", "e3", "e4"]);
    let by_id = store.conversation(DEFAULT_WORKSPACE, &detail.conversation.id.to_string()).await;
    assert_eq!(by_id.expect("read"), Some(detail));
    assert_eq!(store.conversation("other", "s").await.expect("read"), None);
    let list = store.conversations(DEFAULT_WORKSPACE, Page::first(10)).await.expect("list");
    let counts: Vec<_> = list.iter().map(|one| (one.messages, one.tool_uses)).collect();
    assert_eq!(counts, [(1, 0), (2, 2)]);
}

/// The event log, searched.
pub async fn payloads_are_found_by_their_words(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let prompt = |text: &str| hook("s", "UserPromptSubmit", &format!(r#","prompt":"{text}""#));
    let batch = vec![
        arrivals.next("a", prompt("Fix src/main.rs, quickly")),
        arrivals.next("b", prompt(r"tests\nfail in MAIN")),
        arrivals.next("c", "no JSON, but it mentions main"),
        arrivals.next("a", prompt("Fix src/main.rs, quickly")),
    ];
    store.record(batch).await.expect("record");
    index(&*store).await;
    for (text, expected) in [
        ("main", "c b a"),
        ("main.rs", "a"),
        ("Tests FAIL", "b"),
        ("fail quickly", ""),
        ("mai", ""),
        ("prompt", ""),
        ("'\" & | ! ( * :", ""),
    ] {
        let filter = EventFilter { text: Some(text.to_owned()), ..Default::default() };
        let found: Vec<_> = all(&*store, filter).await.into_iter().map(|(id, _)| id).collect();
        assert_eq!(found.join(" "), expected, "{text}");
    }
    let stop = Some("Stop".to_owned());
    let filter =
        EventFilter { text: Some("main".to_owned()), event_type: stop, ..Default::default() };
    assert!(all(&*store, filter).await.is_empty());
}

/// Conversations, searched; also after a message has changed.
pub async fn messages_are_found_by_their_words(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let prompt = |text: &str| {
        hook("s", "UserPromptSubmit", &format!(r#","prompt":"{text}","prompt_id":"{text}""#))
    };
    let batch = (0..5).map(|n| arrivals.next(&format!("e{n}"), prompt(&format!("number {n}"))));
    store.record(batch.collect()).await.expect("record");
    index(&*store).await;
    let stop = hook("s", "Stop", r#","last_assistant_message":"a number of things""#);
    record_one(&*store, arrivals.next("stop", stop)).await;
    index(&*store).await;
    let find = async |text: &str, workspace: &str, page: Page| {
        let (workspace, text) = (workspace.to_owned(), text.to_owned());
        let found = store.messages(MessageFilter { workspace, text }, page).await;
        found.expect("messages").into_iter().map(|m| (m.id, m.content.value)).collect::<Vec<_>>()
    };
    let texts = |found: &[(Uuid, String)]| {
        found.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(texts(&find("3", "main", Page::first(9)).await), "number 3");
    assert!(find("number", "other", Page::first(9)).await.is_empty());
    assert!(find("", "main", Page::first(9)).await.is_empty());
    let first = find("Number", "main", Page::first(2)).await;
    assert_eq!(texts(&first), "a number of things; number 4");
    let rest = find("Number", "main", Page { after: Some(first[1].0), limit: 9 }).await;
    assert_eq!(texts(&rest), "number 3; number 2; number 1; number 0");
}

/// Everything that is stored, and everything that happens to it later.
pub async fn the_feed_shows_every_commit_and_every_change_of_state(
    fixture: &impl EventStoreFixture,
) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    record_one(&*store, arrivals.prompt("before", "s")).await;
    let start = store.feed(None, 10).await.expect("feed");
    assert_eq!((start.events.len(), start.more), (0, false));

    let (arrival, verdict) = arrivals.prompt("a", "s");
    record_one(&*store, failed(arrival)).await;
    let (cursor, seen) = follow(&*store, start.cursor).await;
    assert_eq!(seen, [("a".to_owned(), EventStatus::Error)]);
    let due = fixture.clock().now().plus(FIRST_RETRY_DELAY);
    let claim = store.claim_due(due, START, 1).await.expect("claim").remove(0);
    store.complete(claim, verdict, None).await.expect("complete");
    let (cursor, seen) = follow(&*store, cursor).await;
    assert_eq!(seen.last(), Some(&("a".to_owned(), EventStatus::Success)));
    let (broken, verdict) = arrivals.next("b", "not json");
    let id = broken.event_id;
    record_one(&*store, (broken, verdict)).await;
    let (cursor, _) = follow(&*store, cursor).await;
    store.transition(id, EventStatus::Pending, "me", "please").await.expect("a redrive");
    let (cursor, seen) = follow(&*store, cursor).await;
    assert_eq!(seen, [("b".to_owned(), EventStatus::Pending)]);
    assert!(follow(&*store, cursor).await.1.is_empty());
    assert!(store.feed(Some(FeedCursor("of another store".to_owned())), 1).await.is_err());
}

/// A feed read in parts shows what the whole one does.
pub async fn the_feed_continues_where_it_was_left(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let mut cursor = store.feed(None, 1).await.expect("feed").cursor;
    for n in 0..10 {
        let batch = (0..3).map(|m| arrivals.prompt(&format!("e{n}-{m}"), "s")).collect();
        store.record(batch).await.expect("record");
    }
    let mut seen = Vec::new();
    loop {
        let page = store.feed(Some(cursor), 4).await.expect("feed");
        seen.extend(page.events.into_iter().map(|event| event.request_id.to_string()));
        cursor = page.cursor;
        if !page.more {
            break;
        }
    }
    seen.sort();
    let expected: Vec<_> = (0..10).flat_map(|n| (0..3).map(move |m| format!("e{n}-{m}"))).collect();
    assert_eq!(seen, expected);
}

/// What the feed shows after a position, and the position after that.
async fn follow(
    store: &dyn EventStore,
    cursor: FeedCursor,
) -> (FeedCursor, Vec<(String, EventStatus)>) {
    let page = store.feed(Some(cursor), 100).await.expect("feed");
    let seen = page.events.into_iter().map(|event| (event.request_id.to_string(), event.status));
    (page.cursor, seen.collect())
}

async fn index(store: &dyn EventStore) {
    while store.index(2).await.expect("index") == 2 {}
}

/// JSON without what its spacing and the order of its keys add; anything else as it is.
fn normalized(body: &[u8]) -> String {
    serde_json::from_slice::<serde_json::Value>(body)
        .map_or_else(|_| String::from_utf8_lossy(body).into_owned(), |json| json.to_string())
}

/// Counts follow the rows.
pub async fn counts_are_by_state(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    assert!(store.counts().await.expect("counts").is_empty());
    let (arrival, _) = arrivals.prompt("f", "s");
    let batch = vec![arrivals.prompt("a", "s"), arrivals.next("b", "x"), failed(arrival)];
    store.record(batch).await.expect("record");
    use EventStatus::{Error, Invalid, Success};
    let expected = BTreeMap::from([(Success, 1), (Invalid, 1), (Error, 1)]);
    assert_eq!(store.counts().await.expect("counts"), expected);
    store.ping().await.expect("it works");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    struct Fixture {
        clock: Arc<ManualClock>,
        store: Arc<MemoryStore>,
    }

    impl EventStoreFixture for Fixture {
        fn store(&self) -> Arc<dyn EventStore> {
            Arc::<MemoryStore>::clone(&self.store)
        }

        fn clock(&self) -> Arc<ManualClock> {
            Arc::clone(&self.clock)
        }
    }

    async fn make() -> Fixture {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
        let store = Arc::new(MemoryStore::new(Arc::<ManualClock>::clone(&clock)));
        Fixture { clock, store }
    }

    event_store_conformance!(make);
}
