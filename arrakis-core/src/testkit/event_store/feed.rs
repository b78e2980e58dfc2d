//! The feed of commits.

use super::{Arrivals, EventStoreFixture, START, failed, record_one};
use crate::base::clock::Clock;
use crate::record::audit::EventStatus;
use crate::record::store::{EventStore, FIRST_RETRY_DELAY, FeedCursor};

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
