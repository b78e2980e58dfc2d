//! Searching conversations.

mod made;
mod script;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use made::{AT, any_filter, made, session};
pub use script::{
    a_search_finds_phrases_and_beginnings_of_words,
    a_search_finds_words_in_every_script_however_they_are_written,
};

use super::read::index;
use super::{Arrivals, EventStoreFixture, hook, record_one};
use crate::base::clock::{SystemClock, Timestamp};
use crate::base::limits::SEARCH_PAGE_BYTES;
use crate::record::ingest::judge;
use crate::record::store::{
    Arrival, DEFAULT_WORKSPACE, EventStore, HitKind, MemoryStore, SearchCursor, SearchFilter,
    SearchHit, SearchPage,
};
use crate::session::conversation::{Role, ToolStatus};
use crate::testkit::sessions::{Session, generated};

/// Prompts, answers, thinking, inputs and outputs, each with the place where it says so.
pub async fn messages_and_tool_uses_are_found_by_their_words(fixture: &impl EventStoreFixture) {
    let store = fixture.store();
    record(&*store, &session("s").in_order(DEFAULT_WORKSPACE)).await;
    index(&*store).await;
    for (text, expected) in [
        (
            "build",
            "tool Bash: cargo [build]; assistant: I shall [build] it.; user: Fix the [build]",
        ),
        ("FIX build", "user: [Fix] the [build]"),
        ("semicolon", "tool Bash: error: a [semicolon] is missing"),
        ("pondering", "assistant: [pondering]"),
        ("fix semicolon", ""),
        ("buil", ""),
        ("command", ""),
        ("'\" & | ! ( * : §", ""),
    ] {
        assert_eq!(found(&*store, text_filter(text)).await, expected, "{text}");
    }
    let page = store.search(text_filter("semicolon"), None, 9).await.expect("search");
    let [hit] = &page.hits[..] else { panic!("{page:?}") };
    let detail = store.conversation(DEFAULT_WORKSPACE, "s").await.expect("read").expect("there");
    let tool_use = &detail.tool_uses[0];
    assert_eq!((hit.id, hit.at), (tool_use.id, tool_use.first.at));
    assert_eq!(hit.conversation_id, detail.conversation.id);
    assert_eq!(hit.session_id, "s");
    assert_eq!(hit.title.as_deref(), Some("Fix the build"));
    assert_eq!(hit.project_path.as_deref(), Some("/p/a"));
    assert_eq!(hit.model.as_deref(), Some("claude-opus-5-5"));
    assert_eq!((&hit.agent_id, page.next), (&None, None));
}

/// Each filter by itself, and together.
pub async fn a_search_can_be_filtered(fixture: &impl EventStoreFixture) {
    let store = fixture.store();
    record(&*store, &session("s").in_order(DEFAULT_WORKSPACE)).await;
    record(&*store, &session("s").in_order("other")).await;
    index(&*store).await;
    let all = SearchFilter::new(DEFAULT_WORKSPACE);
    let some = |text: &str| Some(text.to_owned());
    let (user, thinks, answer) =
        ("user: Fix the build", "assistant: pondering", "assistant: I shall build it.");
    let tool = "tool Bash: cargo build";
    let everything = format!("{tool}; {answer}; {thinks}; {user}");
    let mid = Timestamp::from_millis(AT + 20);
    let cases = [
        (all.clone(), everything.as_str()),
        (SearchFilter { role: Some(Role::User), ..all.clone() }, user),
        (SearchFilter { tool_name: some("Bash"), ..all.clone() }, tool),
        (SearchFilter { tool_name: some("bash"), ..all.clone() }, ""),
        (SearchFilter { outcome: Some(ToolStatus::Failed), ..all.clone() }, tool),
        (SearchFilter { outcome: Some(ToolStatus::Running), ..all.clone() }, ""),
        (
            SearchFilter { model: some("opus 5"), role: Some(Role::Assistant), ..all.clone() },
            answer,
        ),
        (
            SearchFilter { model: some("claude-opus-5-5"), tool_name: some("Bash"), ..all.clone() },
            tool,
        ),
        (SearchFilter { model: some("opu"), ..all.clone() }, ""),
        (SearchFilter { session_id: some("s"), role: Some(Role::User), ..all.clone() }, user),
        (SearchFilter { session_id: some("x"), ..all.clone() }, ""),
        (SearchFilter { project: some("/p"), role: Some(Role::User), ..all.clone() }, user),
        (SearchFilter { project: some("/p/a/"), ..all.clone() }, everything.as_str()),
        (SearchFilter { project: some("/p/a/b"), ..all.clone() }, ""),
        (SearchFilter { project: some("/"), outcome: Some(ToolStatus::Denied), ..all.clone() }, ""),
        (SearchFilter { since: Some(mid), ..all.clone() }, tool),
        (SearchFilter { until: Some(mid), role: Some(Role::User), ..all.clone() }, user),
        (SearchFilter { until: Some(mid), tool_name: some("Bash"), ..all.clone() }, ""),
        (SearchFilter { since: Some(mid), until: Some(mid), ..all.clone() }, ""),
        (SearchFilter { is_subagent: Some(true), ..all.clone() }, thinks),
        (
            SearchFilter { is_subagent: Some(false), role: Some(Role::Assistant), ..all.clone() },
            answer,
        ),
        (SearchFilter { role: Some(Role::User), tool_name: some("Bash"), ..all.clone() }, ""),
        (SearchFilter { text: some(""), ..all.clone() }, ""),
        (SearchFilter::new("nobody's"), ""),
    ];
    for (filter, expected) in cases {
        assert_eq!(unmarked(&found(&*store, filter.clone()).await), expected, "{filter:?}");
    }
    let both =
        SearchFilter { tool_name: some("Bash"), project: some("/p"), ..text_filter("build") };
    assert_eq!(found(&*store, both).await, "tool Bash: cargo [build]");
}

/// A search that is left and continued while more is stored.
pub async fn a_search_goes_on_from_its_cursor_whatever_is_stored_meanwhile(
    fixture: &impl EventStoreFixture,
) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let prompt = |n: usize| {
        hook("s", "UserPromptSubmit", &format!(r#","prompt":"number {n}","prompt_id":"{n}""#))
    };
    let batch = (0..10).map(|n| arrivals.next(&format!("e{n}"), prompt(n)));
    store.record(batch.collect()).await.expect("record");
    index(&*store).await;
    let (mut after, mut seen) = (None, Vec::new());
    for n in 10.. {
        let page = store.search(text_filter("number"), after, 3).await.expect("search");
        assert!(page.hits.len() <= 3);
        seen.extend(page.hits.iter().map(|hit| hit.snippet.text()));
        after = page.next;
        if after.is_none() {
            break;
        }
        record_one(&*store, arrivals.next(&format!("e{n}"), prompt(n))).await;
        index(&*store).await;
    }
    let expected: Vec<_> = (0..10).rev().map(|n| format!("number {n}")).collect();
    assert_eq!(seen, expected);
    let page = store.search(text_filter("number"), None, 13).await.expect("search");
    assert_eq!((page.hits.len(), page.next), (13, None), "a full page is the last one too");
    let nowhere = SearchCursor { at: Timestamp::EPOCH, id: uuid::Uuid::nil(), place: 0 };
    let page = store.search(text_filter("number"), Some(nowhere), 3).await.expect("search");
    assert_eq!(page, SearchPage::default());
}

/// What is found is large, and its answer is not.
pub async fn a_page_of_a_search_is_small_however_large_what_it_finds_is(
    fixture: &impl EventStoreFixture,
) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let long = "x".repeat(50_000);
    let prompt = |n: usize| {
        let more = format!(r#","prompt":"hello {n} {long}","prompt_id":"{n}","model":"{long}""#);
        hook("s", "UserPromptSubmit", &more)
            .replace(r#""cwd":"/p""#, &format!(r#""cwd":"/{long}""#))
    };
    let batch = (0..60).map(|n| arrivals.next(&format!("e{n}"), prompt(n)));
    store.record(batch.collect()).await.expect("record");
    index(&*store).await;
    let (mut after, mut ids, mut pages) = (None, BTreeSet::new(), 0);
    loop {
        let page = store.search(text_filter("hello"), after, 60).await.expect("search");
        let answer = serde_json::to_string(&page).expect("JSON");
        assert!(answer.len() < 2 * SEARCH_PAGE_BYTES, "{}", answer.len());
        ids.extend(page.hits.iter().map(|hit| hit.id));
        (after, pages) = (page.next, pages + 1);
        if after.is_none() {
            break;
        }
    }
    assert_eq!((ids.len(), pages), (60, 2), "a page ends by its bytes as well as by its count");
}

/// Many messages of one time, in pages that each begin in the middle of them.
pub async fn what_shares_a_time_is_found_page_by_page(fixture: &impl EventStoreFixture) {
    let store = fixture.store();
    let line = |n: usize| {
        let time = ["2026-11-24T00:00:01Z", "2026-11-24T00:00:02Z"][usize::from(n > 40)];
        json!({"type": "user", "uuid": format!("l{n}"), "timestamp": time,
            "message": {"role": "user", "content": format!("number {n}")}})
    };
    let transcript = (0..50).map(|n| format!("{}\n", line(n))).collect::<String>();
    let session = Session::new("s", Vec::new(), transcript.into_bytes());
    record(&*store, &session.in_order(DEFAULT_WORKSPACE)).await;
    index(&*store).await;
    let hits = pages(&*store, &text_filter("number"), 7).await;
    assert!(hits.is_sorted_by_key(|hit| std::cmp::Reverse(hit.at)));
    let ids: BTreeSet<_> = hits.iter().map(|hit| hit.id).collect();
    assert_eq!((hits.len(), ids.len()), (50, 50), "each once");
}

/// Tool uses that end, messages whose model comes later, conversations that move on.
pub async fn what_changed_is_found_by_what_it_is_now(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let tool = r#","tool_name":"Bash","tool_use_id":"t1","tool_input":{"command":"sleep"}"#;
    let of = |outcome| SearchFilter { outcome: Some(outcome), ..text_filter("sleep") };
    record_one(&*store, arrivals.next("e1", hook("s", "PreToolUse", tool))).await;
    index(&*store).await;
    assert_eq!(found(&*store, of(ToolStatus::Running)).await, "tool Bash: [sleep]");
    let ended = format!(r#"{tool},"tool_response":"woken","duration_ms":5"#);
    record_one(&*store, arrivals.next("e2", hook("s", "PostToolUse", &ended))).await;
    assert_eq!(found(&*store, of(ToolStatus::Running)).await, "", "before it is indexed again");
    index(&*store).await;
    assert_eq!(found(&*store, of(ToolStatus::Running)).await, "");
    assert_eq!(found(&*store, of(ToolStatus::Succeeded)).await, "tool Bash: [sleep]");

    let of = |model: &str| SearchFilter { model: Some(model.to_owned()), ..text_filter("sleep") };
    let moved = |cwd: &str| {
        let payload = hook("s", "CwdChanged", "");
        payload.replace(r#""cwd":"/p""#, &format!(r#""cwd":"{cwd}""#))
    };
    let lines =
        [json!({"type": "assistant", "uuid": "l1", "timestamp": "2026-11-24T00:00:00Z", "message":
            {"id": "m1", "role": "assistant", "model": "some-model", "content":
            [{"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "sleep"}}]}})];
    let transcript = lines.map(|line| format!("{line}\n")).concat();
    let session = Session::new("s", Vec::new(), transcript.into_bytes());
    record(&*store, &session.in_order(DEFAULT_WORKSPACE)).await;
    index(&*store).await;
    assert_eq!(found(&*store, of("some")).await, "tool Bash: [sleep]");

    let of = |project: &str| SearchFilter { project: Some(project.into()), ..text_filter("sleep") };
    assert_eq!(found(&*store, of("/p")).await, "tool Bash: [sleep]");
    fixture.clock().advance(Duration::from_secs(9));
    record_one(&*store, arrivals.next("e3", moved("/q/x"))).await;
    assert_eq!(found(&*store, of("/p")).await, "", "nothing of it has to be indexed again");
    assert_eq!(found(&*store, of("/q")).await, "tool Bash: [sleep]");
}

/// The last words of a turn, which a hook tells first and the transcript tells again.
pub async fn what_an_event_and_the_transcript_say_is_found_once(fixture: &impl EventStoreFixture) {
    let store = fixture.store();
    let stop = |words: &str| {
        json!({"session_id": "s", "cwd": "/p", "hook_event_name": "Stop",
            "last_assistant_message": words})
    };
    let hooks = [stop("All  done."), stop("All done here.")].map(|hook| hook.to_string().into());
    let mut told = Session::new("s", hooks.to_vec(), Vec::new()).in_order(DEFAULT_WORKSPACE);
    record(&*store, &told).await;
    index(&*store).await;
    let both = "assistant: All [done] here.; assistant: All [done].";
    assert_eq!(found(&*store, text_filter("done")).await, both);
    let line = json!({"type": "assistant", "uuid": "l", "timestamp": "2026-11-24T00:00:00Z",
        "message": {"id": "m", "role": "assistant", "model": "some-model", "content":
        [{"type": "text", "text": "All done.\n"}]}});
    told = Session::new("s", Vec::new(), format!("{line}\n").into()).in_order(DEFAULT_WORKSPACE);
    record(&*store, &told).await;
    index(&*store).await;
    let page = store.search(text_filter("done"), None, 9).await.expect("search");
    let models: Vec<_> = page.hits.iter().map(|hit| hit.model.as_deref()).collect();
    assert_eq!(models, [None, Some("some-model")]);
    let other = SearchFilter { session_id: Some("t".to_owned()), ..text_filter("done") };
    assert_eq!(found(&*store, other).await, "");
}

/// Projects of any size, together with words that are everywhere.
pub async fn a_project_is_found_however_many_conversations_it_has(
    fixture: &impl EventStoreFixture,
) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let prompt = |n: usize| {
        let project = if n.is_multiple_of(3) {
            "others"
        } else if n % 100 == 1 {
            "few"
        } else {
            "many"
        };
        let prompt = hook(&format!("s{n}"), "UserPromptSubmit", &format!(r#","prompt":"the {n}""#));
        prompt.replace(r#""cwd":"/p""#, &format!(r#""cwd":"/{project}/x""#))
    };
    let batch = (0..900).map(|n| arrivals.next(&format!("e{n}"), prompt(n)));
    store.record(batch.collect()).await.expect("record");
    index(&*store).await;
    for (project, count) in [("/few", 6), ("/many/x", 594), ("/", 900), ("/man", 0)] {
        let filter = SearchFilter { project: Some(project.to_owned()), ..text_filter("the") };
        let hits = pages(&*store, &filter, 50).await;
        assert_eq!(hits.len(), count, "{project}");
        let is_in_order = hits.is_sorted_by_key(|hit| std::cmp::Reverse(hit.at.as_millis()));
        assert!(is_in_order, "{project}");
        let nothing = SearchFilter { text: Some("the nothing".to_owned()), ..filter };
        assert!(pages(&*store, &nothing, 50).await.is_empty(), "{project}");
    }
}

/// Everything that a store in memory finds by looking at all there is, page by page.
pub async fn a_search_finds_the_same_in_every_store(fixture: &impl EventStoreFixture) {
    let store = fixture.store();
    let memory = MemoryStore::new(Arc::new(SystemClock));
    let mut random = StdRng::seed_from_u64(7);
    let mut arrivals = Vec::new();
    for seed in 0..8 {
        let workspace = ["main", "main", "other"].choose(&mut random).expect("one");
        let session = if seed % 4 == 0 { generated(seed) } else { made(seed, &mut random) };
        arrivals.extend(session.shuffled(workspace, seed));
    }
    for part in arrivals.chunks(17) {
        record(&*store, part).await;
        record(&memory, part).await;
        store.index(1).await.expect("index");
    }
    index(&*store).await;
    let mut sizes = BTreeSet::new();
    for n in 0..150 {
        let filter = any_filter(&mut random);
        let limit = random.random_range(1..12);
        let expected = pages(&memory, &filter, limit).await;
        let found = pages(&*store, &filter, limit).await;
        let is_in_order = found.is_sorted_by_key(|hit| std::cmp::Reverse(hit.at.as_millis()));
        assert!(is_in_order, "{n}: {filter:?}");
        // What shares a millisecond comes in the store's own order.
        let [found, expected] = [found, expected].map(|mut hits| {
            hits.sort_by_key(|hit| std::cmp::Reverse(hit.cursor()));
            hits
        });
        assert_eq!(found, expected, "{n}: {filter:?}");
        sizes.insert(expected.len());
    }
    assert!(sizes.len() > 5, "the filters tell things apart: {sizes:?}");
}

async fn record(store: &dyn EventStore, arrivals: &[Arrival]) {
    let batch = arrivals.iter().map(|arrival| (arrival.clone(), judge(arrival))).collect();
    store.record(batch).await.expect("record");
}

fn text_filter(text: &str) -> SearchFilter {
    SearchFilter { text: Some(text.to_owned()), ..SearchFilter::new(DEFAULT_WORKSPACE) }
}

/// What is found, newest first, matches in brackets.
async fn found(store: &dyn EventStore, filter: SearchFilter) -> String {
    let page = store.search(filter, None, 99).await.expect("search");
    assert_eq!(page.next, None);
    let shown = |hit: &SearchHit| {
        let who = match &hit.what {
            HitKind::Message { role } => role.as_str().to_owned(),
            HitKind::ToolUse { tool_name, .. } => format!("tool {tool_name}"),
        };
        let parts = hit.snippet.0.iter().map(|part| match part.is_match {
            true => format!("[{}]", part.text),
            false => part.text.clone(),
        });
        format!("{who}: {}", parts.collect::<String>())
    };
    page.hits.iter().map(shown).collect::<Vec<_>>().join("; ")
}

fn unmarked(text: &str) -> String {
    text.replace(['[', ']'], "")
}

/// All of it, read in pages.
async fn pages(store: &dyn EventStore, filter: &SearchFilter, limit: usize) -> Vec<SearchHit> {
    let (mut hits, mut after) = (Vec::new(), None);
    loop {
        let page = store.search(filter.clone(), after, limit).await.expect("search");
        let is_full = page.hits.len() == limit;
        hits.extend(page.hits);
        after = page.next;
        if after.is_none() {
            return hits;
        }
        assert!(is_full, "a page that is not the last one is full");
    }
}
