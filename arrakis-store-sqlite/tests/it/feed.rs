//! The feed: what a commit is, how long it stays, and which cursors are refused.

use std::time::Duration;

use crate::common::{Home, arrival, at, count, says};
use arrakis_core::base::error::Retryable;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::{
    Arrival, EventReader, EventStore, FeedCursor, FeedPage, Rollups, StoreError, StoredDeadLetters,
    Verdict,
};
use arrakis_core::testkit::retention::prune_before;
use diesel::connection::SimpleConnection;

fn failed() -> Verdict {
    Verdict::Failed { code: "odd".to_owned(), message: "it is odd".to_owned() }
}

fn batch(count: i64, message: &str) -> Vec<(Arrival, Verdict)> {
    let one = |n: i64| arrival(&format!("e{n}"), n);
    (0..count).map(|n| (one(n), says(&one(n), message))).collect()
}

async fn start(home: &Home) -> FeedCursor {
    home.store.feed(None, 1).await.unwrap().cursor
}

async fn follow(home: &Home, cursor: &FeedCursor) -> FeedPage {
    home.store.feed(Some(cursor.clone()), 1000).await.unwrap()
}

fn ids(page: &FeedPage) -> String {
    Vec::from_iter(page.events.iter().map(|event| event.request_id.as_str())).join(" ")
}

#[tokio::test]
async fn each_transaction_is_one_commit() {
    let home = Home::new();
    let mut conn = home.beside();
    let mut before = 0;
    let mut new_commits = || {
        let now = count(&mut conn, "commits");
        now - std::mem::replace(&mut before, now)
    };
    home.store.record(batch(3, "hello")).await.unwrap();
    assert_eq!(new_commits(), 1);
    for id in ["x", "y"] {
        home.store.record(vec![(arrival(id, 0), failed())]).await.unwrap();
        assert_eq!(new_commits(), 1);
    }
    let claims = home.store.claim_due(at(60), at(0), 10).await.unwrap();
    assert_eq!(new_commits(), 1);
    assert!(home.store.claim_due(at(60), at(0), 10).await.unwrap().is_empty());
    for claim in claims.clone() {
        assert!(home.store.complete(claim, failed(), None).await.unwrap());
        assert_eq!(new_commits(), 1);
    }
    assert!(!home.store.complete(claims[0].clone(), failed(), None).await.unwrap());
    let cursor = start(&home).await;
    let letters = [arrival("x", 0).request_id, arrival("y", 0).request_id];
    assert_eq!(home.store.redrive("main", &letters).await.unwrap(), 2);
    assert_eq!(new_commits(), 1);
    let page = follow(&home, &cursor).await;
    assert!(page.events.iter().all(|event| event.status == EventStatus::Pending));
    assert_eq!(ids(&page), "x y");
    let claims = home.store.claim_due(at(60), at(0), 10).await.unwrap();
    assert_eq!(new_commits(), 1);
    for claim in claims {
        home.store.complete(claim, failed(), None).await.unwrap();
        assert_eq!(new_commits(), 1);
    }
    assert_eq!(home.store.discard("main", &letters).await.unwrap(), 2);
    assert_eq!(new_commits(), 1);
    home.store.ping().await.unwrap();
    home.store.index(100).await.unwrap();
    assert_eq!(new_commits(), 0);
    prune_before(&home.store, at(1000)).await;
    assert_eq!(new_commits(), 1, "the search index forgets what it names");
}

#[tokio::test]
async fn a_group_that_had_to_be_halved_is_one_commit_of_what_was_stored() {
    let home = Home::new();
    home.beside()
        .batch_execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON message_rows WHEN NEW.content = 'poison'
             BEGIN SELECT RAISE(ABORT, 'this value is not wanted'); END",
        )
        .unwrap();
    let cursor = start(&home).await;
    let mut group = batch(5, "hello");
    group[3].1 = says(&group[3].0, "poison");
    home.store.record(group).await.unwrap();
    assert_eq!(count(&mut home.beside(), "commits"), 1);
    assert_eq!(ids(&follow(&home, &cursor).await), "e0 e1 e2 e3 e4");
    assert_eq!(home.store.index(10).await.unwrap(), 1);
    assert_eq!(count(&mut home.beside(), "subject_words"), 4);
}

#[tokio::test]
async fn pages_part_a_commit_where_they_are_full() {
    let home = Home::new();
    let first = start(&home).await;
    home.store.record(batch(5, "hello")).await.unwrap();
    let none = home.store.feed(Some(first.clone()), 0).await.unwrap();
    assert_eq!((ids(&none).as_str(), none.more), ("", true));
    let part = home.store.feed(Some(none.cursor), 2).await.unwrap();
    assert_eq!((ids(&part).as_str(), part.more), ("e0 e1", true));
    let rest = home.store.feed(Some(part.cursor), 3).await.unwrap();
    assert_eq!((ids(&rest).as_str(), rest.more), ("e2 e3 e4", false));
    assert_eq!(rest.cursor, start(&home).await);
    assert!(follow(&home, &rest.cursor).await.events.is_empty());
}

#[tokio::test]
async fn what_was_pruned_is_passed_over() {
    let home = Home::new();
    let cursor = start(&home).await;
    home.store.record(batch(5, "hello")).await.unwrap();
    prune_before(&home.store, at(3)).await;
    let page = follow(&home, &cursor).await;
    assert_eq!((ids(&page).as_str(), page.more), ("e3 e4", false));
}

#[tokio::test]
async fn a_cursor_of_another_store_is_refused() {
    let home = Home::new();
    home.store.record(batch(1, "hello")).await.unwrap();
    for text in ["", "1", ".", "1.", ".1", "a.b", "1.-1", "1.0.0", "99999999999999999999.0", "3.0"]
    {
        let refused = home.store.feed(Some(FeedCursor(text.to_owned())), 10).await.unwrap_err();
        assert!(matches!(refused, StoreError::Data { .. }), "{text:?}: {refused:?}");
        assert!(!refused.is_retryable());
    }
    for text in ["0.0", "1.0", "1.9", "2.0"] {
        home.store.feed(Some(FeedCursor(text.to_owned())), 10).await.unwrap();
    }
}

#[tokio::test]
async fn commits_go_when_they_are_old_indexed_and_added_up() {
    let home = Home::new();
    let before = start(&home).await;
    for one in batch(3, "hello") {
        home.store.record(vec![one]).await.unwrap();
    }
    let middle = start(&home).await;
    home.clock.advance(Duration::from_secs(24 * 3600 + 1));
    assert_eq!(home.store.index(0).await.unwrap(), 0);
    assert_eq!(count(&mut home.beside(), "commits"), 3, "they are not indexed yet");
    let young = arrival("young", 9);
    home.store.record(vec![(young.clone(), says(&young, "hello"))]).await.unwrap();
    assert_eq!(home.store.fold(10).await.unwrap(), 4);
    assert_eq!(home.store.index(10).await.unwrap(), 4);
    assert_eq!(count(&mut home.beside(), "commits"), 1, "the young one stays");
    for cursor in [&before, &middle] {
        assert_eq!(ids(&follow(&home, cursor).await), "young");
    }
    home.clock.advance(Duration::from_secs(24 * 3600 + 1));
    prune_before(&home.store, at(-1)).await;
    assert_eq!(count(&mut home.beside(), "commits"), 0);

    // Cursors stay good when nothing is left, and after a start.
    let end = start(&home).await;
    let again = home.again();
    let last = arrival("last", 10);
    again.record(vec![(last.clone(), says(&last, "hello"))]).await.unwrap();
    for cursor in [&before, &end] {
        assert_eq!(ids(&follow(&home, cursor).await), "last");
    }
}
