//! The conformance suite of [`Retention`].

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::event_store::{Arrivals, EventStoreFixture, hook};
use crate::base::clock::{Clock, Timestamp};
use crate::record::audit::EventStatus;
use crate::record::ingest::judge;
use crate::record::store::{
    Admission, AdmissionKind, Ages, Arrival, Cutoffs, DEFAULT_WORKSPACE, EventFilter, EventKey,
    EventStore, FIRST_RETRY_DELAY, Page, PruneKind, PrunePosition, Pruned, Retention,
    RetentionPolicy, SearchFilter, Verdict,
};

/// An empty store, and the clock that it reads.
pub trait RetentionFixture: EventStoreFixture {
    /// The same store.
    fn retention(&self) -> Arc<dyn Retention>;
}

/// Makes one `#[tokio::test]` of each case of the suite; `$make` is an async function without
/// arguments that returns a fresh [`RetentionFixture`].
#[macro_export]
macro_rules! retention_conformance {
    ($make:path) => {
        $crate::retention_conformance!(@cases $make:
            settled_rows_go_once_they_are_kept_no_longer_and_others_stay,
            the_ledger_outlives_the_audit_rows,
            the_ledger_keeps_the_last_state_of_each_workspace,
            a_conversation_goes_with_all_that_belongs_to_it,
            each_workspace_has_its_own_ages_and_what_has_none_is_kept,
            what_is_pruned_is_found_no_longer,
            steps_are_small_and_a_pass_of_them_ends,
            prunable_counts_what_a_pass_would_delete_and_deletes_nothing,
        );
    };
    (@cases $make:path: $($case:ident,)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::testkit::retention::$case(&$make().await).await;
            }
        )*
    };
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Old rows in each state.
pub async fn settled_rows_go_once_they_are_kept_no_longer_and_others_stay(
    fixture: &impl RetentionFixture,
) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let success = record(&*store, arrivals.prompt("success", "s")).await;
    let duplicate = arrivals.prompt("success", "s");
    let duplicate_id = duplicate.0.event_id;
    record(&*store, duplicate).await;
    let invalid = record(&*store, arrivals.next("invalid", "not json")).await;
    let dead = failed(arrivals.prompt("failed", "s"));
    record(&*store, dead.clone()).await;
    let claimed = failed(arrivals.prompt("processing", "s"));
    record(&*store, claimed.clone()).await;
    let due = fixture.clock().now().plus(FIRST_RETRY_DELAY);
    for claim in store.claim_due(due, due, 10).await.expect("claim") {
        if claim.arrival.event_id == dead.0.event_id {
            store.complete(claim, dead.1.clone(), None).await.expect("complete");
        }
    }
    let waits = failed(arrivals.prompt("waits", "s"));
    record(&*store, waits.clone()).await;
    let redriven = record(&*store, arrivals.next("pending", "not json")).await;
    store.transition(redriven.event_id, EventStatus::Pending, "me", "please").await.expect("it");
    fixture.clock().advance(DAY);
    let young = record(&*store, arrivals.prompt("young", "s")).await;

    let cutoffs = events_of(fixture, DAY);
    assert_eq!(
        pass(&*fixture.retention(), &cutoffs, 100).await,
        Pruned { events: 4, ..Pruned::default() }
    );
    for id in [success.event_id, duplicate_id, invalid.event_id, dead.0.event_id] {
        assert_eq!(status(&*store, id).await, None);
    }
    for (id, expected) in [
        (claimed.0.event_id, EventStatus::Processing),
        (waits.0.event_id, EventStatus::Error),
        (redriven.event_id, EventStatus::Pending),
        (young.event_id, EventStatus::Success),
    ] {
        assert_eq!(status(&*store, id).await, Some(expected));
    }
    assert!(pass(&*fixture.retention(), &cutoffs, 100).await.is_empty());
}

/// A repeat long after its first.
pub async fn the_ledger_outlives_the_audit_rows(fixture: &impl RetentionFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let payload = hook("s", "Stop", "");
    let first = record(&*store, arrivals.next("a", payload.clone())).await;
    let invalid = record(&*store, arrivals.next("b", "not json")).await;
    let elsewhere = in_workspace("other", arrivals.next("a", "not json"));
    let elsewhere = record(&*store, elsewhere).await;
    let waits = record(&*store, failed(arrivals.prompt("waits", "s"))).await;
    fixture.clock().advance(90 * DAY);
    let pruned = pass(&*fixture.retention(), &events_of(fixture, DAY), 100).await;
    assert_eq!(pruned, Pruned { events: 3, ..Pruned::default() });
    let repeat = record(&*store, arrivals.next("a", payload.clone())).await;
    assert_eq!(repeat, Admission { kind: AdmissionKind::Duplicate, ..first });
    let repeat = record(&*store, arrivals.next("b", "not json")).await;
    assert_eq!(repeat, Admission { kind: AdmissionKind::Duplicate, ..invalid });
    let repeat = record(&*store, in_workspace("other", arrivals.next("a", "not json"))).await;
    assert_eq!(repeat, Admission { kind: AdmissionKind::Duplicate, ..elsewhere });

    fixture.clock().advance(DAY + Duration::from_secs(1));
    let pruned = pass(&*fixture.retention(), &events_of(fixture, DAY), 100).await;
    assert_eq!((pruned.events, pruned.ledger), (3, 3), "the repeats, and what they repeat");
    let again = record(&*store, arrivals.next("a", payload)).await;
    assert_eq!((again.kind, again.status), (AdmissionKind::New, EventStatus::Success));
    let repeat = record(&*store, failed(arrivals.prompt("waits", "s"))).await;
    assert_eq!(repeat, Admission { kind: AdmissionKind::Duplicate, ..waits });
}

/// All of an old conversation, and nothing of a young one.
pub async fn a_conversation_goes_with_all_that_belongs_to_it(fixture: &impl RetentionFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let used = |n: u32| {
        format!(r#","tool_name":"Task","tool_use_id":"t{n}","tool_input":{{"prompt":"look"}}"#)
    };
    for session in ["old", "young"] {
        let id = |what: &str| format!("{session}-{what}");
        record(&*store, arrivals.prompt(&id("1"), session)).await;
        record(&*store, arrivals.next(&id("2"), hook(session, "PreToolUse", &used(1)))).await;
        record(&*store, arrivals.next(&id("3"), hook(session, "PostToolUse", &used(2)))).await;
        let agent = r#","agent_id":"a1","agent_type":"Explore""#;
        record(&*store, arrivals.next(&id("4"), hook(session, "SubagentStop", agent))).await;
        fixture.clock().advance(DAY);
    }
    let before = store.conversation(DEFAULT_WORKSPACE, "old").await.expect("read").expect("it");
    assert!(!before.messages.is_empty() && before.tool_uses.len() == 2, "{before:#?}");
    assert!(!before.subagents.is_empty(), "{before:#?}");
    let conversations = Some(DAY + DAY / 2);
    let ages = Ages { events: None, conversations };
    let cutoffs = RetentionPolicy { default: ages, ..RetentionPolicy::default() };
    let cutoffs = cutoffs.at(fixture.clock().now());
    let pruned = pass(&*fixture.retention(), &cutoffs, 2).await;
    assert_eq!((pruned.conversations, pruned.tool_uses, pruned.events), (1, 2, 0));
    assert!(pruned.messages > 0 && pruned.subagents > 0, "{pruned:?}");
    let read = async |key| store.conversation(DEFAULT_WORKSPACE, key).await.expect("read");
    assert!(read("old").await.is_none());
    let young = read("young").await.expect("it is there");
    assert_eq!((young.tool_uses.len(), young.messages.len()), (2, before.messages.len()));
    assert_eq!(young.subagents.len(), before.subagents.len());
    let rows = store.events(EventFilter::default(), Page::first(100)).await.expect("events").events;
    assert_eq!(rows.len(), 8);

    // A session that goes on begins anew.
    record(&*store, arrivals.prompt("old-5", "old")).await;
    let anew = read("old").await.expect("it is there");
    assert_eq!((anew.messages.len(), anew.tool_uses.len(), anew.subagents.len()), (1, 0, 0));
}

/// Ages by workspace, of the ledger too.
pub async fn each_workspace_has_its_own_ages_and_what_has_none_is_kept(
    fixture: &impl RetentionFixture,
) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let workspaces = ["main", "short", "long", "for good"];
    for workspace in workspaces {
        let prompt = arrivals.prompt(&format!("r-{}", workspace.replace(' ', "-")), "s");
        record(&*store, in_workspace(workspace, prompt)).await;
    }
    let all = |days: u32| Ages { events: Some(DAY * days), conversations: Some(DAY * days) };
    let policy = RetentionPolicy {
        default: all(10),
        workspaces: [
            ("short".to_owned(), all(5)),
            ("long".to_owned(), all(20)),
            ("for good".to_owned(), Ages::default()),
        ]
        .into(),
    };
    for expected in [
        &["main", "long", "for good"][..],
        &["long", "for good"],
        &["long", "for good"],
        &["for good"],
        &["for good"],
    ] {
        fixture.clock().advance(5 * DAY + DAY / 10);
        pass(&*fixture.retention(), &policy.at(fixture.clock().now()), 2).await;
        for workspace in workspaces {
            let filter =
                EventFilter { workspace: Some(workspace.to_owned()), ..EventFilter::default() };
            let rows = store.events(filter, Page::first(9)).await.expect("events").events.len();
            let conversation = store.conversation(workspace, "s").await.expect("read").is_some();
            let is_kept = expected.contains(&workspace);
            assert_eq!((rows == 1, conversation), (is_kept, is_kept), "{workspace}: {expected:?}");
        }
    }
    // The entries of the ledger go 95, 100 and 110 days after their events.
    for (days, expected) in [(70, 1), (5, 1), (10, 1), (1000, 0)] {
        fixture.clock().advance(days * DAY);
        let pruned = pass(&*fixture.retention(), &policy.at(fixture.clock().now()), 2).await;
        assert_eq!(pruned, Pruned { ledger: expected, ..Pruned::default() }, "{days} days later");
    }
}

/// What was made searchable, and what would be.
pub async fn what_is_pruned_is_found_no_longer(fixture: &impl RetentionFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let found = async || {
        let text = Some("prompt".to_owned());
        let filter = EventFilter { text: text.clone(), ..EventFilter::default() };
        let events = store.events(filter, Page::first(9)).await.expect("events").events.len();
        let filter = SearchFilter { text, ..SearchFilter::new(DEFAULT_WORKSPACE) };
        (events, store.search(filter, None, 9).await.expect("search").hits.len())
    };
    let everything = Ages { events: Some(DAY), conversations: Some(DAY) };
    let policy = RetentionPolicy { default: everything, ..RetentionPolicy::default() };
    for indexed_before in [true, false] {
        let id = format!("r-{indexed_before}");
        record(&*store, arrivals.prompt(&id, &id)).await;
        if indexed_before {
            store.index(100).await.expect("index");
            assert_eq!(found().await, (1, 1));
        }
        fixture.clock().advance(2 * DAY);
        let pruned = pass(&*fixture.retention(), &policy.at(fixture.clock().now()), 100).await;
        assert_eq!((pruned.events, pruned.conversations), (1, 1));
        assert_eq!(found().await, (0, 0));
        store.index(100).await.expect("index");
        assert_eq!(found().await, (0, 0));
    }
}

/// Whatever the steps, what is stored between them is whole.
pub async fn steps_are_small_and_a_pass_of_them_ends(fixture: &impl RetentionFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let batch = (0..40).map(|n| arrivals.prompt(&format!("e{n}"), &format!("s{}", n % 3)));
    store.record(batch.collect()).await.expect("record");
    for n in 0..3 {
        record(&*store, failed(arrivals.prompt(&format!("waits-{n}"), "s0"))).await;
    }
    fixture.clock().advance(100 * DAY);
    let everything = Ages { events: Some(DAY), conversations: Some(DAY) };
    let policy = RetentionPolicy { default: everything, ..RetentionPolicy::default() };
    let cutoffs = policy.at(fixture.clock().now());
    let (mut next, mut sum, mut before) = (Some(PrunePosition::START), Pruned::default(), 43);
    for steps in 0.. {
        let Some(from) = next else { break };
        assert!(steps < 200, "the pass does not end: {from:?}");
        let step = fixture.retention().prune(&cutoffs, from, 7).await.expect("prune");
        assert!(step.pruned.events <= 7 && step.pruned.ledger <= 7, "{step:?}");
        sum += step.pruned;
        next = step.next;
        let rows =
            store.events(EventFilter::default(), Page::first(100)).await.expect("events").events;
        assert_eq!(rows.len() as u64, before - step.pruned.events);
        before = rows.len() as u64;
        for session in ["s0", "s1", "s2"] {
            let read = store.conversation(DEFAULT_WORKSPACE, session).await.expect("read");
            assert!(read.is_some() || sum.conversations > 0);
        }
    }
    let expected = Pruned { events: 40, conversations: 3, messages: 40, ledger: 40, ..sum };
    assert_eq!(sum, expected, "all that is old");
    assert_eq!((sum.tool_uses, sum.subagents), (0, 0));
}

/// Counts by workspace and kind.
pub async fn prunable_counts_what_a_pass_would_delete_and_deletes_nothing(
    fixture: &impl RetentionFixture,
) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let oldest = arrivals.prompt("a", "s");
    let oldest_at = oldest.0.received_at;
    record(&*store, oldest).await;
    record(&*store, arrivals.prompt("b", "s")).await;
    let quiet_since = fixture.clock().now();
    record(&*store, failed(arrivals.prompt("waits", "t"))).await;
    record(&*store, in_workspace("other", arrivals.prompt("c", "s"))).await;
    record(&*store, in_workspace("kept", arrivals.prompt("d", "s"))).await;
    fixture.clock().advance(50 * DAY);
    record(&*store, arrivals.prompt("young", "young")).await;
    let all = Ages { events: Some(DAY), conversations: Some(DAY) };
    let workspaces = [("kept".to_owned(), Ages::default()), ("other".to_owned(), all)].into();
    let policy = RetentionPolicy { default: all, workspaces };
    let cutoffs = policy.at(fixture.clock().now());
    let found = fixture.retention().prunable(&cutoffs).await.expect("prunable");
    let counts: Vec<_> =
        found.iter().map(|one| (one.workspace.as_str(), one.kind, one.count)).collect();
    let expected = [
        ("main", PruneKind::Events, 2),
        ("main", PruneKind::Conversations, 1),
        ("other", PruneKind::Events, 1),
        ("other", PruneKind::Conversations, 1),
    ];
    assert_eq!(counts, expected);
    assert_eq!(found[0].oldest, Some(oldest_at));
    assert_eq!(found[1].oldest, Some(quiet_since));
    assert!(found[0].bytes.is_none_or(|bytes| bytes > 100), "{found:?}");
    let rows = store.events(EventFilter::default(), Page::first(100)).await.expect("events").events;
    assert_eq!(rows.len(), 6);

    let pruned = pass(&*fixture.retention(), &cutoffs, 100).await;
    assert_eq!((pruned.events, pruned.conversations), (3, 2));
    assert_eq!(fixture.retention().prunable(&cutoffs).await.expect("prunable"), []);

    // The ledger's time comes, but for what waits.
    let default = Ages { events: Some(DAY), conversations: None };
    let policy = RetentionPolicy { default, ..RetentionPolicy::default() };
    fixture.clock().advance(42 * DAY);
    let cutoffs = policy.at(fixture.clock().now());
    let found = fixture.retention().prunable(&cutoffs).await.expect("prunable");
    let ledger = found.iter().filter(|one| one.kind == PruneKind::Ledger);
    let entries: u64 = ledger.map(|one| one.count).sum();
    assert_eq!(pass(&*fixture.retention(), &cutoffs, 100).await.ledger, entries);
    assert_eq!(entries, 4);
}

/// One request id that succeeded in one workspace and failed in another; the audit rows of both are gone.
pub async fn the_ledger_keeps_the_last_state_of_each_workspace(fixture: &impl RetentionFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let first = failed(arrivals.prompt("a", "s"));
    let first_id = first.0.event_id;
    let second = in_workspace("other", arrivals.prompt("a", "s"));
    record(&*store, first.clone()).await;
    record(&*store, second).await;
    let due = fixture.clock().now().plus(FIRST_RETRY_DELAY);
    let claim = store.claim_due(due, due, 10).await.expect("claim").remove(0);
    assert!(store.complete(claim, first.1.clone(), None).await.expect("complete"));
    fixture.clock().advance(DAY + Duration::from_secs(1));
    assert_eq!(pass(&*fixture.retention(), &events_of(fixture, DAY), 100).await.events, 2);
    assert_eq!(status(&*store, first_id).await, None);
    let mine = arrivals.prompt("a", "s");
    let theirs = in_workspace("other", arrivals.prompt("a", "s"));
    for (repeat, expected) in [(mine, EventStatus::Failed), (theirs, EventStatus::Success)] {
        let told = record(&*store, repeat).await;
        assert_eq!((told.kind, told.status), (AdmissionKind::Duplicate, expected));
    }
}

/// Makes a whole pass in steps of `limit` rows; returns what it deleted.
///
/// # Panics
///
/// A step fails, or the pass does not end.
pub async fn pass(store: &dyn Retention, cutoffs: &Cutoffs, limit: usize) -> Pruned {
    let (mut next, mut pruned) = (Some(PrunePosition::START), Pruned::default());
    for steps in 0.. {
        let Some(from) = next else { break };
        assert!(steps < 1000, "the pass does not end: {from:?}");
        let step = store.prune(cutoffs, from, limit).await.expect("prune");
        pruned += step.pruned;
        next = step.next;
    }
    pruned
}

/// Makes a whole pass for which what was received before `before` is old; conversations are kept.
///
/// # Panics
///
/// As [`pass`].
pub async fn prune_before(store: &dyn Retention, before: Timestamp) -> Pruned {
    let default = Ages { events: Some(Duration::ZERO), conversations: None };
    pass(store, &RetentionPolicy { default, ..RetentionPolicy::default() }.at(before), 100).await
}

/// What is old where events are kept for this long, and conversations for good.
fn events_of(fixture: &impl RetentionFixture, age: Duration) -> Cutoffs {
    let default = Ages { events: Some(age), conversations: None };
    RetentionPolicy { default, ..RetentionPolicy::default() }.at(fixture.clock().now())
}

async fn record(store: &dyn EventStore, one: (Arrival, Verdict)) -> Admission {
    store.record(vec![one]).await.expect("record").remove(0)
}

fn failed((arrival, _): (Arrival, Verdict)) -> (Arrival, Verdict) {
    let (code, message) = ("too_deep".to_owned(), "it nests too deep".to_owned());
    (arrival, Verdict::Failed { code, message })
}

fn in_workspace(workspace: &str, (arrival, _): (Arrival, Verdict)) -> (Arrival, Verdict) {
    let arrival = Arrival { workspace: workspace.to_owned(), ..arrival };
    let verdict = judge(&arrival);
    (arrival, verdict)
}

async fn status(store: &dyn EventStore, id: Uuid) -> Option<EventStatus> {
    let event = store.event(DEFAULT_WORKSPACE, EventKey::Id(id)).await.expect("event");
    event.map(|event| event.summary.status)
}
