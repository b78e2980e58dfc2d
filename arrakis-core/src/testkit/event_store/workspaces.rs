//! Workspaces beside each other, and whose ids are believed.

use serde_json::{Value, json};

use super::{
    Arrivals, EventStoreFixture, START, all, conversations, failed, hook, normalized, record_one,
    status_of,
};
use crate::base::clock::Clock;
use crate::base::digest::Digest;
use crate::record::audit::EventStatus;
use crate::record::store::{
    Admission, AdmissionKind, Arrival, ConversationDetail, DEFAULT_WORKSPACE, EventFilter,
    EventKey, EventStore, FIRST_RETRY_DELAY, Verdict,
};
use crate::session::conversation::{Changes, MessageKey};
use crate::session::snapshot::snapshots;
use crate::testkit::sessions::{assert_same, changes_of, generated, record_beside_each_other};

const OTHER: &str = "other";

async fn conversation(
    store: &dyn EventStore,
    workspace: &str,
    session: &str,
) -> ConversationDetail {
    let found = store.conversation(workspace, session).await.expect("read");
    found.expect("the conversation is there")
}

/// One request id in two workspaces: two events, two answers, two trails.
pub async fn workspaces_do_not_know_of_each_other(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let prompt = |text: &str| hook("s", "UserPromptSubmit", &format!(r#","prompt":"{text}""#));
    let mine = arrivals.next("a", prompt("mine"));
    let (later, _) = arrivals.prompt("later", "s");
    arrivals.go_on_in(OTHER);
    let (theirs, verdict) = arrivals.next("a", prompt("theirs"));
    let theirs_first = theirs.event_id;
    // Both in one batch, and a failure of the other workspace under an id that is used here later.
    let broken = failed(arrivals.prompt("later", "s").0);
    let batch = vec![mine.clone(), (theirs, verdict), broken];
    let told = store.record(batch).await.expect("record");
    assert!(told.iter().all(|one| one.kind == AdmissionKind::New), "{told:?}");
    assert_ne!(told[0].answer, told[1].answer);
    let own = record_one(&*store, failed(later.clone())).await;
    assert_eq!((own.kind, own.event_id), (AdmissionKind::New, later.event_id));

    // Each repeat gets the answer of its own workspace.
    let theirs_again = record_one(&*store, arrivals.next("a", prompt("theirs"))).await;
    let expected = Admission { kind: AdmissionKind::Duplicate, ..told[1].clone() };
    assert_eq!(theirs_again, expected);
    arrivals.go_on_in(DEFAULT_WORKSPACE);
    let mine_again = record_one(&*store, arrivals.next("a", prompt("mine"))).await;
    let expected = Admission { kind: AdmissionKind::Duplicate, ..told[0].clone() };
    assert_eq!(mine_again, expected);
    let conflict = record_one(&*store, arrivals.next("a", prompt("theirs"))).await;
    assert_eq!(conflict.kind, AdmissionKind::Conflict);

    // Rows are found in their own workspace only, by either key.
    let id = |id: &str| EventKey::Request(id.parse().expect("an id"));
    for (workspace, expected) in [(DEFAULT_WORKSPACE, mine.0.event_id), (OTHER, theirs_first)] {
        let found = store.event(workspace, id("a")).await.expect("event").expect("the row");
        assert_eq!(found.summary.id, expected);
    }
    let by_row = EventKey::Id(theirs_first);
    assert!(store.event(DEFAULT_WORKSPACE, by_row).await.expect("event").is_none());
    assert!(store.event("nobody", id("a")).await.expect("event").is_none());
    for (workspace, expected) in [(DEFAULT_WORKSPACE, 3), (OTHER, 2)] {
        let filter = EventFilter {
            workspace: Some(workspace.to_owned()),
            request_id: "a".parse().ok(),
            ..EventFilter::default()
        };
        assert_eq!(all(&*store, filter).await.len(), expected, "{workspace}");
    }
    let mine = conversation(&*store, DEFAULT_WORKSPACE, "s").await;
    assert_eq!(mine.messages.len(), 1);
    assert_eq!(mine.messages[0].content.value, "mine");
    let theirs = conversation(&*store, OTHER, "s").await;
    assert_eq!(theirs.messages[0].content.value, "theirs");
    let list = conversations(&*store, DEFAULT_WORKSPACE).await;
    assert!(list.iter().all(|one| one.conversation.workspace == DEFAULT_WORKSPACE));

    // Work on a row of one leaves the other's as it is, also in what a repeat is told.
    let due = fixture.clock().now().plus(FIRST_RETRY_DELAY);
    for claim in store.claim_due(due, START, 10).await.expect("claim") {
        assert!(claim.arrival.in_ledger);
        let (_, failure) = failed(claim.arrival.clone());
        let (verdict, next) = match claim.arrival.workspace == OTHER {
            true => (failure, None),
            false => (Verdict::Apply(Changes::default()), None),
        };
        assert!(store.complete(claim, verdict, next).await.expect("complete"));
    }
    let status = async |workspace| {
        let row = store.event(workspace, id("later")).await.expect("event").expect("the row");
        row.summary.status
    };
    assert_eq!(status(DEFAULT_WORKSPACE).await, EventStatus::Success);
    assert_eq!(status(OTHER).await, EventStatus::Failed);
    let repeat = |(mut repeat, verdict): (Arrival, Verdict)| {
        repeat.digest = later.digest;
        repeat.metadata.capture = None;
        (repeat, verdict)
    };
    let mine = record_one(&*store, repeat(arrivals.prompt("later", "s"))).await;
    assert_eq!((mine.kind, mine.status), (AdmissionKind::Duplicate, EventStatus::Success));
    arrivals.go_on_in(OTHER);
    let theirs = record_one(&*store, repeat(arrivals.prompt("later", "s"))).await;
    assert_eq!((theirs.kind, theirs.status), (AdmissionKind::Duplicate, EventStatus::Failed));
}

/// Two workspaces that send each other's ids, in any order.
pub async fn each_workspace_sees_what_it_would_see_alone(fixture: &impl EventStoreFixture) {
    for seed in 0..3 {
        record_beside_each_other(&*fixture.store(), &fixture.clock(), seed).await;
    }
}

/// A session that one workspace has, taken into another, which has a part of it already and gets the rest later.
pub async fn a_snapshot_says_in_another_workspace_what_it_says_at_home(
    fixture: &impl EventStoreFixture,
) {
    let store = fixture.store();
    for seed in 20..23 {
        let session = generated(seed);
        let stored = changes_of(&session.in_order("home"));
        let made = snapshots(&stored, &Changes::default()).expect("snapshots");
        let mut own = session.shuffled("away", seed);
        let late = own.split_off(own.len() / 2);
        let mut arrivals = Arrivals::new(fixture.clock());
        arrivals.go_on_in("away");
        let mut all: Vec<(Arrival, Verdict)> = own.into_iter().map(judged).collect();
        for (n, envelope) in made.envelopes.iter().enumerate() {
            all.push(arrivals.next(&format!("taken-{seed}-{n}"), envelope.payload.clone()));
        }
        all.extend(late.into_iter().map(judged));
        for one in all {
            assert_eq!(one.1.status(), EventStatus::Success);
            record_one(&*store, one).await;
        }
        let mut found = conversation(&*store, "away", &session.session_id).await;
        found.events.clear();
        assert_same(&found, &session.expected("away"), &format!("seed {seed}"));
        let home = store.conversation("home", &session.session_id).await.expect("read");
        assert!(home.is_none(), "nothing is there that came to another workspace");
    }
}

fn judged(arrival: Arrival) -> (Arrival, Verdict) {
    let verdict = crate::record::ingest::judge(&arrival);
    (arrival, verdict)
}

/// A snapshot whose values bear the ids of another conversation, of this workspace and of another.
pub async fn a_snapshot_touches_its_own_session_only(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let tool = r#","tool_name":"Read","tool_use_id":"t","tool_input":{"secret":1}"#;
    let events = [
        arrivals.prompt("e1", "s"),
        arrivals.next("e2", hook("s", "PreToolUse", tool)),
        arrivals.next("e3", hook("s", "SubagentStart", r#","agent_id":"g","agent_type":"x""#)),
    ];
    for event in events {
        record_one(&*store, event).await;
    }
    let before = conversation(&*store, DEFAULT_WORKSPACE, "s").await;
    let id = before.conversation.id;
    // A prompt that has not come yet: its message's id follows from its request id.
    let next = MessageKey::Stamp("e4".parse().expect("an id")).id(id);

    let stamp = json!({"at": before.conversation.started_at, "request_id": "x"});
    let said = |id, words: &str| {
        json!({"id": id, "conversationId": before.conversation.id, "role": "user",
            "origin": "transcript", "content": {"stamp": stamp, "value": words}})
    };
    let mut lie: Value = json!({
        "hook_event_name": "Snapshot", "session_id": "s",
        "conversation": before.conversation,
        "messages": [said(before.messages[0].id, "forged"), said(next, "forged too")],
        "tool_uses": before.tool_uses, "subagents": before.subagents,
    });
    lie["conversation"]["title"] = json!({"stamp": {"at": "1970-01-01T00:00:00Z",
        "request_id": "a"}, "value": "forged"});
    lie["tool_uses"][0]["messageId"] = json!(before.messages[0].id);
    lie["tool_uses"][0]["toolName"] = json!("zzz");
    lie["subagents"][0]["agentType"] = json!("zzz");
    for (workspace, session) in [(OTHER, "s"), (OTHER, "t"), (DEFAULT_WORKSPACE, "t")] {
        arrivals.go_on_in(workspace);
        lie["session_id"] = json!(session);
        let one = arrivals.next(&format!("lie-{session}"), lie.to_string());
        assert_eq!(record_one(&*store, one).await.status, EventStatus::Success);
        let found = conversation(&*store, workspace, session).await;
        assert_ne!(found.conversation.id, id);
        assert_eq!(found.conversation.session_id, session);
        let [message] = &found.messages[..] else { panic!("{:?}", found.messages) };
        assert_eq!(
            message.id,
            MessageKey::Stamp("x".parse().expect("an id")).id(found.conversation.id)
        );
        assert_eq!(found.tool_uses.len(), 1);
        assert_eq!(
            found.tool_uses[0].message_id, None,
            "a message that it does not name by its key"
        );
        assert_eq!(found.subagents.len(), 1);
    }
    arrivals.go_on_in(DEFAULT_WORKSPACE);
    let mut after = conversation(&*store, DEFAULT_WORKSPACE, "s").await;
    assert_eq!(after, before);
    let told = record_one(&*store, arrivals.prompt("e4", "s")).await;
    assert_eq!((told.status, told.answer.message_id), (EventStatus::Success, Some(next)));
    after = conversation(&*store, DEFAULT_WORKSPACE, "s").await;
    let words: Vec<_> = after.messages.iter().map(|one| one.content.value.as_str()).collect();
    assert_eq!(words, ["prompt e1", "prompt e4"]);
}

/// What a drainer redacts again keeps the digest that it was captured under, and nobody else gains by that.
pub async fn a_named_digest_finds_repeats_and_hides_nothing(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let prompt = |text: &str| hook("s", "UserPromptSubmit", &format!(r#","prompt":"{text}""#));
    let captured = Digest::of(prompt("badge-17").as_bytes());
    // As an envelope that names the digest of the capture arrives: its own is that of its bytes.
    let mut named = |id: &str, text: &str| {
        let (arrival, verdict) = arrivals.next(id, prompt(text));
        let capture = arrival.metadata.capture.clone().map(|mut capture| {
            capture.digest = captured;
            capture
        });
        let mut arrival = arrival;
        arrival.metadata.capture = capture;
        (arrival, verdict)
    };
    let first = record_one(&*store, named("a", "[REDACTED:badge]")).await;
    assert_eq!(
        (first.kind, first.digest),
        (AdmissionKind::New, captured),
        "its receipt names that"
    );
    let again = record_one(&*store, named("a", "[REDACTED:badge]")).await;
    assert_eq!(again, Admission { kind: AdmissionKind::Duplicate, ..first.clone() });
    let by_other_rules = record_one(&*store, named("a", "[REDACTED:number]")).await;
    assert_eq!(by_other_rules, Admission { kind: AdmissionKind::Duplicate, ..first });
    let (own, verdict) = named("a", "badge-17");
    assert_eq!(own.digest, captured);
    let (own_id, body) = (own.event_id, own.body.clone());
    let told = record_one(&*store, (own, verdict)).await;
    assert_eq!(
        told.kind,
        AdmissionKind::Conflict,
        "it is not hidden by what only named its digest"
    );
    assert_eq!(status_of(&*store, own_id).await, EventStatus::Invalid);
    let row = store.event(DEFAULT_WORKSPACE, EventKey::Id(own_id)).await.expect("event");
    let kept = row.expect("the row").body.unwrap_or_default();
    assert_eq!(normalized(&kept), normalized(&body));

    let whole = record_one(&*store, named("b", "badge-17")).await;
    assert_eq!((whole.kind, whole.digest), (AdmissionKind::New, captured));
    let later = record_one(&*store, named("b", "[REDACTED:badge]")).await;
    assert_eq!(later, Admission { kind: AdmissionKind::Duplicate, ..whole });
}
