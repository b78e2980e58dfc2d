//! Details, searches and counts.

use std::collections::BTreeMap;

use super::{Arrivals, EventStoreFixture, all, conversations, failed, hook};
use crate::record::audit::EventStatus;
use crate::record::store::{DEFAULT_WORKSPACE, EventFilter, EventStore};

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
    let list = conversations(&*store, DEFAULT_WORKSPACE).await;
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
        arrivals.next("d", prompt("用户登录失败")),
    ];
    store.record(batch).await.expect("record");
    index(&*store).await;
    for (text, expected) in [
        ("main", "c b a"),
        ("main.rs", "a"),
        ("Tests FAIL", "b"),
        ("fail quickly", ""),
        ("mai", ""),
        ("mai*", "c b a"),
        ("ma*", ""),
        ("\"quickly fix\"", "a"),
        ("登录", "d"),
        ("失", "d"),
        ("失登", ""),
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

pub(super) async fn index(store: &dyn EventStore) {
    while store.index(2).await.expect("index") == 2 {}
}
