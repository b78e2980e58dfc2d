//! Claims, completion, the trail, pruning and dead letters.

use std::time::Duration;

use crate::common::{Home, arrival, at, says};
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::{
    Arrival, Claim, EventKey, EventReader, EventStore, StoreError, StoredDeadLetters, Verdict,
};
use arrakis_core::testkit::retention::prune_before;
use arrakis_store_sqlite::SqliteStore;

const NEVER: i64 = -1_000_000;

fn failed(message: &str) -> Verdict {
    Verdict::Failed { code: "unknown_shape".to_owned(), message: message.to_owned() }
}

async fn record(store: &SqliteStore, event: &Arrival, verdict: Verdict) {
    store.record(vec![(event.clone(), verdict)]).await.unwrap();
}

async fn status(store: &SqliteStore, event: &Arrival) -> EventStatus {
    store.event("main", EventKey::Id(event.event_id)).await.unwrap().unwrap().summary.status
}

async fn claim_one(home: &Home, seconds: i64) -> Claim {
    let mut claims = home.store.claim_due(at(seconds), at(NEVER), 10).await.unwrap();
    assert_eq!(claims.len(), 1);
    claims.remove(0)
}

async fn trail(home: &Home, event: &Arrival) -> Vec<(EventStatus, EventStatus)> {
    let found = home.store.event("main", EventKey::Id(event.event_id)).await.unwrap().unwrap();
    found.transitions.iter().map(|one| (one.from, one.to)).collect()
}

#[tokio::test]
async fn a_failed_event_is_claimed_when_due_and_completed() {
    use EventStatus::{Error, PendingRetry, Processing, Success};
    let home = Home::new();
    let event = arrival("r", 0);
    record(&home.store, &event, failed("why")).await;
    assert!(home.store.claim_due(at(59), at(NEVER), 10).await.unwrap().is_empty());
    let claim = claim_one(&home, 60).await;
    assert_eq!(claim.arrival, event);
    assert!(home.store.claim_due(at(60), at(NEVER), 10).await.unwrap().is_empty());
    assert!(home.store.complete(claim.clone(), says(&event, "hello"), None).await.unwrap());
    assert!(!home.store.complete(claim, says(&event, "hello"), None).await.unwrap());
    let steps = [(Error, PendingRetry), (PendingRetry, Processing), (Processing, Success)];
    assert_eq!(trail(&home, &event).await, steps);
    let found = home.store.event("main", EventKey::Id(event.event_id)).await.unwrap().unwrap();
    assert_eq!((found.summary.error_code, found.summary.retry_after), (None, None));
    assert!(found.summary.answer.message_id.is_some());
    // A repeat is told of the outcome, not of the first failure.
    let again = crate::common::repeat(&event, 99);
    let told = home.store.record(vec![(again, failed("why"))]).await.unwrap().remove(0);
    assert_eq!((told.status, told.answer), (Success, found.summary.answer));
}

#[tokio::test]
async fn a_claim_of_a_dead_worker_passes_to_another() {
    let home = Home::new();
    let event = arrival("r", 0);
    record(&home.store, &event, failed("why")).await;
    home.clock.set(at(60));
    let lost = claim_one(&home, 60).await;
    assert!(home.store.claim_due(at(90), at(60), 10).await.unwrap().is_empty());
    let mut claims = home.store.claim_due(at(90), at(61), 10).await.unwrap();
    let held = claims.pop().unwrap();
    assert!(!home.store.complete(lost, says(&event, "lost"), None).await.unwrap());
    assert!(home.store.complete(held, says(&event, "held"), None).await.unwrap());
    let conversation = home.store.conversation("main", "s").await.unwrap().unwrap();
    assert_eq!(conversation.messages[0].content.value, "held");
}

#[tokio::test]
async fn an_event_out_of_retries_is_a_dead_letter_with_its_history() {
    let home = Home::new();
    let event = arrival("r", 0);
    record(&home.store, &event, failed("first")).await;
    let claim = claim_one(&home, 60).await;
    assert!(home.store.complete(claim, failed("second"), Some(at(300))).await.unwrap());
    assert_eq!(status(&home.store, &event).await, EventStatus::PendingRetry);
    assert!(home.store.claim_due(at(299), at(NEVER), 10).await.unwrap().is_empty());
    let claim = claim_one(&home, 300).await;
    assert_eq!(claim.retry_count, 1);
    assert!(home.store.complete(claim, failed("third: last"), None).await.unwrap());
    assert_eq!(status(&home.store, &event).await, EventStatus::Failed);

    let letter = home.store.dead_letter("main", &event.request_id).await.unwrap().unwrap();
    assert_eq!(letter.payload, event.body);
    let history: Vec<_> =
        letter.history.iter().map(|one| (one.round, one.message.as_str())).collect();
    assert_eq!(history, [(1, "first"), (2, "second"), (3, "third: last")]);

    let ids = [event.request_id.clone(), "no-such-event".parse().unwrap()];
    assert_eq!(home.store.redrive("main", &ids).await.unwrap(), 1);
    assert!(home.store.dead_letter("main", &event.request_id).await.unwrap().is_none());
    let claim = claim_one(&home, 0).await;
    assert_eq!(claim.retry_count, 0);
    assert!(home.store.complete(claim, failed("again"), None).await.unwrap());
    assert_eq!(home.store.discard("main", &ids).await.unwrap(), 1);
    assert!(home.store.dead_letters("main", None, 10).await.unwrap().is_empty());
    assert_eq!(home.store.redrive("main", &ids).await.unwrap(), 0);
    let to = EventStatus::Pending;
    let refused = home.store.transition(event.event_id, to, "me", "why").await;
    assert!(matches!(refused, Err(StoreError::NotFound(_))));
}

#[tokio::test]
async fn dead_letters_are_listed_in_the_order_of_their_ids() {
    let home = Home::new();
    for (seconds, id) in ["c", "a", "d", "b"].into_iter().enumerate() {
        record(&home.store, &arrival(id, seconds as i64), failed("why")).await;
    }
    assert!(
        home.store.dead_letters("main", None, 3).await.unwrap().is_empty(),
        "they are tried again first"
    );
    for claim in home.store.claim_due(at(60), at(NEVER), 10).await.unwrap() {
        assert!(home.store.complete(claim, failed("why"), None).await.unwrap());
    }
    let first = home.store.dead_letters("main", None, 3).await.unwrap();
    let ids = |letters: &[arrakis_core::base::dead_letter::DeadLetter]| {
        letters.iter().map(|letter| letter.request_id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&first), ["a", "b", "c"]);
    let rest = home.store.dead_letters("main", Some("c".parse().unwrap()), 3).await.unwrap();
    assert_eq!(ids(&rest), ["d"]);
}

#[tokio::test]
async fn a_person_changes_only_what_may_change() {
    let home = Home::new();
    let event = arrival("r", 0);
    record(&home.store, &event, says(&event, "hello")).await;
    let refused =
        home.store.transition(event.event_id, EventStatus::Pending, "me", "why").await.unwrap_err();
    assert!(matches!(
        refused,
        StoreError::IllegalTransition { from: EventStatus::Success, to: EventStatus::Pending }
    ));
    let nobody = uuid::Uuid::nil();
    let refused = home.store.transition(nobody, EventStatus::Pending, "me", "why").await;
    assert!(matches!(refused, Err(StoreError::NotFound(_))));
    assert!(trail(&home, &event).await.is_empty());
}

#[tokio::test]
async fn pruning_takes_old_settled_rows_and_the_ledger_still_knows() {
    let home = Home::new();
    let (old, waits, fresh) = (arrival("old", 0), arrival("waits", 1), arrival("fresh", 99));
    record(&home.store, &old, failed("why")).await;
    let claim = claim_one(&home, 60).await;
    home.store.complete(claim, says(&old, "hello"), None).await.unwrap();
    record(&home.store, &waits, failed("why")).await;
    record(&home.store, &fresh, says(&fresh, "hello")).await;
    assert_eq!(prune_before(&home.store, at(50)).await.events, 1);
    assert!(home.store.event("main", EventKey::Id(old.event_id)).await.unwrap().is_none());
    let again =
        home.store.record(vec![(crate::common::repeat(&old, 100), says(&old, "hello"))]).await;
    let told = again.unwrap().remove(0);
    assert_eq!((told.event_id, told.status), (old.event_id, EventStatus::Success));
    let later = at(50).plus(Duration::from_secs(900));
    assert_eq!(prune_before(&home.store, later).await.events, 2, "the fresh one and the repeat");
}
