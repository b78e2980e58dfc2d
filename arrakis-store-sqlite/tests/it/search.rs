//! Search: what is indexed when, how much at a time, and what is found of it.

use arrakis_core::base::clock::ManualClock;

use crate::common::{Home, arrival, at, count, open, says, with_body};
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::{
    Arrival, EventFilter, EventReader, EventStore, Page, SearchFilter, SearchHit, StoreError,
    Verdict,
};
use arrakis_core::session::conversation::{Stamp, Stamped};
use arrakis_core::testkit::retention::prune_before;
use arrakis_store_sqlite::{SqliteConfig, SqliteStore};
use diesel::connection::SimpleConnection;
use std::sync::Arc;
use std::time::Duration;

fn payload(request_id: &str, seconds: i64, text: &str) -> Arrival {
    let body = serde_json::json!({"session_id": "s", "hook_event_name": "Stop", "text": text});
    with_body(arrival(request_id, seconds), body.to_string())
}

async fn record(store: &SqliteStore, event: &Arrival, message: &str) {
    store.record(vec![(event.clone(), says(event, message))]).await.unwrap();
}

async fn find(store: &SqliteStore, filter: EventFilter) -> String {
    let found = store.events(filter, Page::first(100)).await.unwrap().events;
    Vec::from_iter(found.iter().map(|event| event.request_id.as_str())).join(" ")
}

fn text(text: &str) -> EventFilter {
    EventFilter { text: Some(text.to_owned()), ..EventFilter::default() }
}

async fn messages(store: &SqliteStore, text: &str) -> Vec<SearchHit> {
    let filter = SearchFilter { text: Some(text.to_owned()), ..SearchFilter::new("main") };
    store.search(filter, None, 100).await.unwrap().hits
}

#[tokio::test]
async fn what_is_pruned_is_no_longer_found() {
    let home = Home::new();
    record(&home.store, &payload("old", 0, "a needle"), "hello").await;
    record(&home.store, &payload("new", 9, "a needle"), "hello").await;
    home.store.index(10).await.unwrap();
    assert_eq!(find(&home.store, text("needle")).await, "new old");
    assert_eq!(prune_before(&home.store, at(5)).await.events, 1);
    assert_eq!(find(&home.store, text("needle")).await, "new", "also before the index forgets it");
    home.store.index(10).await.unwrap();
    let mut conn = home.beside();
    assert_eq!(count(&mut conn, "event_keys"), 1);
    assert_eq!(count(&mut conn, "event_words"), 1);
    conn.batch_execute("INSERT INTO event_words (event_words) VALUES ('integrity-check')").unwrap();
}

#[tokio::test]
async fn what_is_pruned_before_it_is_indexed_leaves_nothing() {
    let home = Home::new();
    record(&home.store, &payload("old", 0, "a needle"), "hello").await;
    prune_before(&home.store, at(5)).await;
    assert_eq!(home.store.index(10).await.unwrap(), 0, "a pass goes through the commits as well");
    assert_eq!(count(&mut home.beside(), "event_keys"), 0);
    assert_eq!(messages(&home.store, "hello").await.len(), 1, "messages stay");
}

#[tokio::test]
async fn a_message_that_changed_is_found_by_its_new_words_only() {
    let home = Home::new();
    let event = arrival("e", 9);
    let verdict = says(&event, "the old words");
    let Verdict::Apply(mut changes) = verdict.clone() else { panic!("it is applied") };
    home.store.record(vec![(event, verdict)]).await.unwrap();
    home.store.index(10).await.unwrap();
    // What an earlier event says of a message counts, whenever it arrives.
    let earlier = arrival("earlier", 0);
    let stamp = Stamp { at: at(0), request_id: earlier.request_id.clone() };
    changes.messages[0].content = Stamped::new(&stamp, "the new words".to_owned());
    home.store.record(vec![(earlier, Verdict::Apply(changes))]).await.unwrap();
    let stored = messages(&home.store, "words").await.remove(0).snippet.text();
    assert_eq!(stored, "the new words", "it is found by what is indexed and read as it is");
    home.store.index(10).await.unwrap();
    assert!(messages(&home.store, "old").await.is_empty());
    assert_eq!(messages(&home.store, "new words").await.len(), 1);
    assert_eq!(count(&mut home.beside(), "subject_words"), 1);
}

#[tokio::test]
async fn commits_are_indexed_as_many_as_asked_for() {
    let home = Home::new();
    for n in 0..5 {
        record(&home.store, &payload(&format!("e{n}"), n, "needle"), "hello").await;
    }
    assert_eq!(home.store.index(0).await.unwrap(), 0);
    assert_eq!(home.store.index(2).await.unwrap(), 2);
    assert_eq!(find(&home.store, text("needle")).await, "e1 e0");
    assert_eq!(home.store.index(2).await.unwrap(), 2);
    assert_eq!(home.store.index(2).await.unwrap(), 1);
    assert_eq!(home.store.index(2).await.unwrap(), 0);
    assert_eq!(find(&home.store, text("needle")).await, "e4 e3 e2 e1 e0");
}

#[tokio::test]
async fn one_commit_of_many_large_payloads_is_indexed_whole() {
    let home = Home::new();
    let filler = "x".repeat(100_000);
    let event = |n: i64| payload(&format!("e{n}"), n, &format!("needle n{n} {filler}"));
    let events: Vec<Arrival> = (0..40).map(event).collect();
    let batch = events.iter().map(|event| (event.clone(), says(event, "hello"))).collect();
    home.store.record(batch).await.unwrap();
    assert_eq!(home.store.index(1).await.unwrap(), 1);
    assert_eq!(home.store.index(1).await.unwrap(), 0);
    assert_eq!(find(&home.store, text("needle n7")).await, "e7");
    assert_eq!(find(&home.store, text("needle")).await.split(' ').count(), 40);
    assert_eq!(messages(&home.store, "hello").await.len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_index_each_text_once() {
    let home = Home::new();
    let other = home.again();
    for n in 0..30 {
        record(&home.store, &payload(&format!("e{n}"), n, "needle"), "hello").await;
    }
    let both = tokio::join!(home.store.index(100), other.index(100));
    assert!(both.0.unwrap() + both.1.unwrap() <= 30, "none is counted twice");
    while home.store.index(100).await.unwrap() > 0 {}
    assert_eq!(find(&other, text("needle")).await.split(' ').count(), 30);
    assert_eq!(count(&mut home.beside(), "event_words"), 30);
    assert_eq!(count(&mut home.beside(), "subject_words"), 30);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_keeps_no_other_from_being_found() {
    let home = Home::new();
    for (n, session) in (0..).zip(["bad", "good", "sad", "good"]) {
        let event =
            Arrival { session_id: Some(session.to_owned()), ..arrival(&format!("e{n}"), n) };
        record(&home.store, &event, &format!("needle {session}")).await;
        home.beside()
            .batch_execute(
                "UPDATE message_rows SET metadata = '{}' WHERE content = 'needle bad';
                 UPDATE conversations SET metadata = '1' WHERE session_id = 'sad'",
            )
            .unwrap();
        home.store.index(10).await.unwrap();
    }
    assert_eq!(messages(&home.store, "needle").await.len(), 2);
    let damage = "UPDATE message_rows SET metadata = '{}' WHERE id = (SELECT min(id) FROM messages \
        WHERE content = 'needle good')";
    home.beside().batch_execute(damage).unwrap();
    assert_eq!(messages(&home.store, "needle").await.len(), 1);
}

#[tokio::test]
async fn every_filter_narrows_a_search() {
    let home = Home::new();
    let mut other = payload("b", 1, "needle");
    other.session_id = Some("t\0two".to_owned());
    other.event_type = "Other".to_owned();
    other.workspace = "elsewhere".to_owned();
    let (code, message) = ("odd".to_owned(), "it is odd".to_owned());
    let batch = vec![
        (payload("a", 0, "needle"), says(&payload("a", 0, ""), "needle")),
        (other.clone(), Verdict::Invalid { code, message }),
    ];
    home.store.record(batch).await.unwrap();
    home.store.index(10).await.unwrap();
    assert_eq!(find(&home.store, text("needle")).await, "b a");
    let filters = [
        EventFilter { workspace: Some("elsewhere".to_owned()), ..text("needle") },
        EventFilter { event_type: Some("Other".to_owned()), ..text("needle") },
        EventFilter { session_id: other.session_id.clone(), ..text("needle") },
        EventFilter { request_id: Some(other.request_id.clone()), ..text("needle") },
        EventFilter { status: Some(EventStatus::Invalid), ..text("needle") },
    ];
    for filter in filters {
        assert_eq!(find(&home.store, filter.clone()).await, "b", "{filter:?}");
        let without = EventFilter { text: Some("hay".to_owned()), ..filter };
        assert_eq!(find(&home.store, without).await, "");
    }
    let crossed = EventFilter {
        session_id: Some("s".to_owned()),
        event_type: Some("Other".to_owned()),
        ..text("needle")
    };
    assert_eq!(find(&home.store, crossed).await, "");
    // A row's state may change after it was indexed.
    home.store.transition(other.event_id, EventStatus::Pending, "me", "please").await.unwrap();
    let pending = EventFilter { status: Some(EventStatus::Pending), ..text("needle") };
    assert_eq!(find(&home.store, pending).await, "b");
}

#[tokio::test]
async fn pages_of_one_millisecond_have_no_gap() {
    let home = Home::new();
    let events: Vec<Arrival> =
        (0..50).map(|n| payload(&format!("e{n}"), n / 20, "needle")).collect();
    for event in &events {
        record(&home.store, event, "needle").await;
    }
    home.store.index(100).await.unwrap();
    let (mut found, mut page) = (Vec::new(), Page::first(7));
    loop {
        let part = home.store.events(text("needle"), page).await.unwrap().events;
        let Some(last) = part.last() else { break };
        page.after = Some(last.id);
        found.extend(part.into_iter().map(|event| event.id));
    }
    let millis = |id: &uuid::Uuid| id.as_u64_pair().0 >> 16;
    assert!(found.is_sorted_by_key(|id| std::cmp::Reverse(millis(id))), "newest first");
    let mut expected: Vec<_> = events.iter().map(|event| event.event_id).collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected, "each once");

    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let filter = SearchFilter { text: Some("needle".to_owned()), ..SearchFilter::new("main") };
        let part = home.store.search(filter, after, 7).await.unwrap();
        found.extend(part.hits.into_iter().map(|hit| (hit.at, hit.id)));
        after = part.next;
        if after.is_none() {
            break;
        }
    }
    assert!(found.is_sorted_by_key(|(at, _)| std::cmp::Reverse(*at)), "newest first");
    assert_eq!(found.len(), 50);
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 50, "each once");
}

#[tokio::test]
async fn a_text_that_changes_between_two_pages_keeps_its_place() {
    let home = Home::new();
    let events: Vec<Arrival> = (0..4).map(|n| payload(&format!("e{n}"), 0, "x")).collect();
    for event in &events {
        record(&home.store, event, "needle").await;
    }
    home.store.index(100).await.unwrap();
    let filter = SearchFilter { text: Some("needle".to_owned()), ..SearchFilter::new("main") };
    let page = home.store.search(filter.clone(), None, 2).await.unwrap();
    // All are written and indexed again, in the same millisecond.
    home.beside()
        .batch_execute(
            "INSERT INTO commits (workspace, at, events, messages, tool_uses)
             SELECT 'main', '', '[]', json_group_array(json_array(conversation_id, id)), '[]' FROM messages",
        )
        .unwrap();
    assert_eq!(home.store.index(100).await.unwrap(), 1);
    let rest = home.store.search(filter, page.next, 9).await.unwrap();
    let mut found: Vec<_> = page.hits.iter().chain(&rest.hits).map(|hit| hit.id).collect();
    found.sort_unstable();
    found.dedup();
    assert_eq!((found.len(), page.hits.len(), rest.hits.len()), (4, 2, 2));
    assert_eq!(count(&mut home.beside(), "subject_keys"), 4);
}

#[tokio::test]
async fn a_flood_of_one_workspace_delays_its_own_texts_only() {
    let home = Home::new();
    let filler: String = (0..20_000).map(|n| format!("w{n} ")).collect();
    let event = |n: i64, workspace: &str, text: &str| {
        let event = payload(&format!("{workspace}{n}"), n, text);
        Arrival { workspace: workspace.to_owned(), ..event }
    };
    for n in 0..30 {
        let flood = event(n, "flood", &format!("flood {filler}"));
        record(&home.store, &flood, "flood").await;
    }
    for workspace in ["another", "third"] {
        record(&home.store, &event(99, workspace, "needle"), "needle").await;
    }
    // A turn of each.
    let mut taken = 0;
    while find(&home.store, text("needle")).await.split(' ').count() < 2 {
        taken += home.store.index(1).await.unwrap();
        assert!(taken < 20, "the flood comes first");
    }
    assert!(find(&home.store, text("flood")).await.split(' ').count() < 30, "it still waits");
    while home.store.index(100).await.unwrap() == 100 {}
    assert_eq!(find(&home.store, text("flood")).await.split(' ').count(), 30);
}

#[tokio::test]
async fn a_search_that_takes_too_long_is_ended_and_says_so() {
    let home = Home::new();
    record(&home.store, &payload("e", 0, "needle"), "needle").await;
    home.store.index(10).await.unwrap();
    let config = SqliteConfig { search_timeout: Duration::ZERO, ..SqliteConfig::default() };
    let clock = Arc::<ManualClock>::clone(&home.clock);
    let store = SqliteStore::open(home.path(), clock, config).unwrap();
    let ended = store.search(SearchFilter::new("main"), None, 1).await.unwrap_err();
    assert!(matches!(ended, StoreError::SearchTimeout { .. }), "{ended:?}");
    assert!(ended.to_string().contains("narrow it"), "{ended}");
    let ended = store.events(text("needle"), Page::first(1)).await.unwrap_err();
    assert!(matches!(ended, StoreError::SearchTimeout { .. }), "{ended:?}");
    // Nothing else has this limit.
    assert_eq!(store.events(EventFilter::default(), Page::first(9)).await.unwrap().events.len(), 1);
}

#[tokio::test]
async fn messages_of_any_time_are_found_in_its_order() {
    let home = Home::new();
    let years = [-60_000, -300, -1, 0, 1, 300, 1000, 60_000];
    for (n, year) in years.into_iter().enumerate() {
        let event = Arrival { received_at: at(year * 31_556_952), ..arrival(&format!("e{n}"), 0) };
        record(&home.store, &event, &format!("needle n{n}")).await;
    }
    home.store.index(100).await.unwrap();
    let found = messages(&home.store, "needle").await;
    let found: Vec<_> = found.into_iter().map(|hit| hit.snippet.text()).collect();
    let expected: Vec<_> = (0..years.len()).rev().map(|n| format!("needle n{n}")).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn words_are_those_of_the_search_and_not_of_the_index() {
    let home = Home::new();
    let texts =
        ["Ärger İn 東京2", "don't NEAR(a b)", "a\0b x\u{1f41b}y ½ ª", "arger in 東京 and or not"];
    for (n, text) in (0..).zip(texts) {
        record(&home.store, &payload(&format!("e{n}"), n, text), "hello").await;
    }
    home.store.index(10).await.unwrap();
    for (asked, expected) in [
        ("ärger", "e3 e0"),
        ("ÄRGER", "e3 e0"),
        ("arger", "e3 e0"),
        ("İn", "e3 e0"),
        ("東京2", "e0"),
        ("東京", "e3 e0"),
        ("near(b", "e1"),
        ("a NOT b", ""),
        ("a OR b", ""),
        ("and OR not", "e3"),
        ("b a", "e2 e1"),
        ("x", "e2"),
        ("½", "e2"),
        ("near*", "e1"),
        ("nea*", "e1"),
        ("words:near", ""),
        ("§w", ""),
        ("\"", ""),
    ] {
        assert_eq!(find(&home.store, text(asked)).await, expected, "{asked}");
    }
}

#[tokio::test]
async fn what_waits_to_be_indexed_anew_is_indexed_in_parts() {
    let home = Home::new();
    for n in 0..700 {
        record(&home.store, &payload(&format!("e{n}"), n, "x"), &format!("needle n{n}")).await;
    }
    while home.store.index(100).await.unwrap() == 100 {}
    let mut conn = home.beside();
    conn.batch_execute(
        "DELETE FROM subject_words; DELETE FROM subject_keys;
         INSERT INTO index_backlog (table_name, after_id) VALUES ('messages', ''), ('tool_uses', '')",
    )
    .unwrap();
    assert!(messages(&home.store, "needle").await.is_empty());
    record(&home.store, &payload("new", 900, "x"), "needle new").await;
    assert_eq!(home.store.index(1).await.unwrap(), 1);
    assert_eq!(messages(&home.store, "needle").await.len(), 1, "what is new comes first");
    let mut steps = 0;
    while home.store.index(1).await.unwrap() == 1 {
        steps += 1;
    }
    assert!(steps > 2, "it goes in parts: {steps}");
    assert_eq!(messages(&home.store, "needle n3").await.len(), 1);
    assert_eq!(count(&mut conn, "subject_keys"), 701);
    assert_eq!(count(&mut conn, "index_backlog"), 0);
}

/// What the index has of a text that was stored before it.
async fn is_found_again(home: &Home, store: &SqliteStore) {
    while store.index(100).await.unwrap() > 0 {}
    assert_eq!(find(store, text("needle")).await, "e2 e1 e0");
    assert_eq!(messages(store, "hello").await.len(), 3);
    assert_eq!(count(&mut home.beside(), "event_words"), 3);
    assert_eq!(count(&mut home.beside(), "subject_words"), 3);
}

#[tokio::test]
async fn an_index_that_is_missing_damaged_or_of_another_version_is_made_anew() {
    let damages: [fn(&Home); 3] = [
        |home| std::fs::remove_file(home.index_path()).unwrap(),
        |home| std::fs::write(home.index_path(), "no database ".repeat(1000)).unwrap(),
        |home| home.beside().batch_execute("PRAGMA search_index.user_version = 999").unwrap(),
    ];
    for damage in damages {
        let Home { store, clock, folder } = Home::new();
        for n in 0..3 {
            record(&store, &payload(&format!("e{n}"), n, "needle"), "hello").await;
        }
        while store.index(100).await.unwrap() > 0 {}
        drop(store);
        let path = folder.path().join("arrakis.db");
        let home = Home { store: open(&path, &clock), clock, folder };
        damage(&home);
        // A file that goes while it is in use is not written to.
        let store = home.again();
        is_found_again(&home, &store).await;
        use std::os::unix::fs::PermissionsExt;
        let mode = home.index_path().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "words are as private as texts");
    }
}

#[tokio::test]
async fn the_index_of_another_database_is_not_used() {
    let (one, other) = (Home::new(), Home::new());
    for n in 0..3 {
        record(&one.store, &payload(&format!("e{n}"), n, "needle"), "hello").await;
        record(&other.store, &payload(&format!("x{n}"), n, "thread"), "goodbye").await;
    }
    while one.store.index(100).await.unwrap() > 0 {}
    while other.store.index(100).await.unwrap() > 0 {}
    let Home { store, clock, folder } = one;
    drop(store);
    drop(other.store);
    std::fs::copy(
        other.folder.path().join("arrakis.db-search"),
        folder.path().join("arrakis.db-search"),
    )
    .unwrap();
    let home = Home { store: open(&folder.path().join("arrakis.db"), &clock), clock, folder };
    is_found_again(&home, &home.store).await;
}

#[tokio::test]
async fn a_store_that_was_put_back_from_a_copy_is_indexed_anew() {
    let Home { store, clock, folder } = Home::new();
    let path = folder.path().join("arrakis.db");
    record(&store, &payload("e0", 0, "needle"), "hello").await;
    drop(store);
    let copy = std::fs::read(&path).unwrap();
    let store = open(&path, &clock);
    for n in 5..9 {
        record(&store, &payload(&format!("lost{n}"), n, "needle"), "hello").await;
    }
    while store.index(100).await.unwrap() > 0 {}
    drop(store);
    std::fs::write(&path, copy).unwrap();
    let home = Home { store: open(&path, &clock), clock, folder };
    for n in 1..3 {
        record(&home.store, &payload(&format!("e{n}"), n, "needle"), "hello").await;
    }
    is_found_again(&home, &home.store).await;
}
