//! What happens to rows after they are recorded: claims, and changes of state.

use std::time::Duration;

use uuid::Uuid;

use super::{Arrivals, EventStoreFixture, START, failed, normalized, record_one, status_of};
use crate::base::clock::Clock;
use crate::record::audit::EventStatus;
use crate::record::store::{
    AdmissionKind, Arrival, DEFAULT_WORKSPACE, EventKey, FIRST_RETRY_DELAY,
};

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
    let row =
        store.event(DEFAULT_WORKSPACE, EventKey::Id(id)).await.expect("event").expect("the row");
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
    let row =
        store.event(DEFAULT_WORKSPACE, EventKey::Id(id)).await.expect("event").expect("the row");
    assert_eq!(row.summary.status, EventStatus::Pending);
    assert_eq!(row.transitions.len(), 1);
    let step = &row.transitions[0];
    assert_eq!((step.from, step.to), (EventStatus::Invalid, EventStatus::Pending));
    assert_eq!((step.actor.as_str(), step.reason.as_str()), ("me", "please"));
    assert!(store.transition(Uuid::nil(), EventStatus::Pending, "me", "").await.is_err());
    let claims = store.claim_due(fixture.clock().now(), START, 10).await.expect("claim");
    assert_eq!(claims.len(), 1, "a redriven row is due");
}

/// What a person gives up.
pub async fn what_was_discarded_stays_as_it_is(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let (arrival, _) = arrivals.prompt("a", "s");
    let id = arrival.event_id;
    let (_, failure) = failed(arrival.clone());
    record_one(&*store, (arrival, failure.clone())).await;
    assert!(store.give_up(id, "me", "too early").await.is_err(), "it is tried again first");
    let due = fixture.clock().now().plus(FIRST_RETRY_DELAY);
    let claim = store.claim_due(due, START, 1).await.expect("claim").remove(0);
    store.complete(claim, failure, None).await.expect("complete");
    let before =
        store.event(DEFAULT_WORKSPACE, EventKey::Id(id)).await.expect("event").expect("the row");
    assert_eq!(before.summary.discarded_at, None);

    store.give_up(id, "me", "nobody needs it").await.expect("discard");
    let row =
        store.event(DEFAULT_WORKSPACE, EventKey::Id(id)).await.expect("event").expect("the row");
    assert_eq!(row.summary.status, EventStatus::Failed);
    assert_eq!(row.summary.discarded_at, Some(fixture.clock().now()));
    assert_eq!(row.transitions.len(), before.transitions.len() + 1);
    let step = row.transitions.last().expect("a step");
    assert_eq!((step.from, step.to), (EventStatus::Failed, EventStatus::Failed));
    assert_eq!((step.actor.as_str(), step.reason.as_str()), ("me", "nobody needs it"));
    assert!(store.give_up(id, "me", "again").await.is_err());
    assert!(store.transition(id, EventStatus::Pending, "me", "after all").await.is_err());
    assert!(store.give_up(Uuid::nil(), "me", "").await.is_err());
    assert!(store.claim_due(due, START, 10).await.expect("claim").is_empty());
}
