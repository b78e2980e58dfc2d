//! Lists: their order, their filters and their pages.

use std::time::Duration;

use super::{Arrivals, EventStoreFixture, all, conversations, failed, hook};
use crate::base::clock::{Clock, Timestamp};
use crate::base::envelope::{Form, Source};
use crate::base::limits::COUNTED_MAX;
use crate::record::audit::EventStatus;
use crate::record::store::{
    ConversationFilter, DEFAULT_WORKSPACE, EventFilter, EventKey, EventStore, Page,
};

/// A list read in parts is the list, and the last part says that it is.
pub async fn lists_are_newest_first_and_continue_without_gap(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let batch =
        (0..20).map(|n| arrivals.prompt(&format!("e{n:02}"), &format!("s{n:02}"))).collect();
    store.record(batch).await.expect("record");
    let (events, sizes) = pages(&*store, &EventFilter::default(), Page::first(10)).await;
    let expected: Vec<_> = (0..20).rev().map(|n| format!("e{n:02}")).collect();
    assert_eq!((events, sizes), (expected, vec![10, 10]));

    let sessions = sessions(&*store, &ConversationFilter::new(DEFAULT_WORKSPACE), 10).await;
    let expected: Vec<_> = (0..20).rev().map(|n| format!("s{n:02}")).collect();
    assert_eq!(sessions, expected);
}

/// Each filter by itself, and together.
pub async fn lists_can_be_filtered(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let source = |host: &str, project: &str| Source {
        host: Some(host.to_owned()),
        user: Some("it's \"me\"".to_owned()),
        project_dir: Some(project.to_owned()),
        ..Source::default()
    };
    let (mut raw, verdict) = arrivals.prompt("e", "three");
    raw.metadata.form = Some(Form::Raw);
    raw.metadata.capture = None;
    let prompt = |session: &str| hook(session, "UserPromptSubmit", r#","prompt":"p""#);
    let (odd, _) = arrivals.next_from(source("odd", "/p/\0"), "f", prompt("four"));
    let mut odd = failed(odd);
    "a summary with U+0000: \0".clone_into(&mut odd.0.metadata.summary);
    let batch = vec![
        arrivals.next_from(source("laptop", "/home/me/arrakis"), "a", prompt("one")),
        arrivals.next_from(source("server", "/home/me/arrakis/docs"), "b", prompt("two")),
        arrivals.next_from(source("server", "/home/me/arrakis2"), "c", hook("one", "Stop", "")),
        arrivals.next("d", "not json"),
        (raw, verdict),
        odd,
    ];
    let ids: Vec<_> = batch.iter().map(|(arrival, _)| arrival.event_id).collect();
    let received: Vec<_> = batch.iter().map(|(arrival, _)| arrival.received_at).collect();
    store.record(batch).await.expect("record");
    let found = async |filter: EventFilter| {
        let mut rows: Vec<_> = all(&*store, filter).await.into_iter().map(|(id, _)| id).collect();
        rows.sort();
        rows.join(" ")
    };
    let text = |text: &str| Some(text.to_owned());
    let any = EventFilter::default;
    let one = EventFilter { session_id: text("one"), ..any() };
    let server = EventFilter { host: text("server"), ..any() };
    for (filter, expected) in [
        (any(), "a b c d e f"),
        (one.clone(), "a c"),
        (EventFilter { event_type: text("Stop"), ..one.clone() }, "c"),
        (EventFilter { status: Some(EventStatus::Invalid), ..any() }, "d"),
        (EventFilter { status: Some(EventStatus::Success), ..one.clone() }, "a c"),
        (EventFilter { request_id: "b".parse().ok(), ..any() }, "b"),
        (EventFilter { workspace: text("other"), ..any() }, ""),
        (EventFilter { workspace: text(DEFAULT_WORKSPACE), ..one.clone() }, "a c"),
        (server.clone(), "b c"),
        (EventFilter { host: text("odd"), ..any() }, "f"),
        (EventFilter { event_type: text("Stop"), ..server.clone() }, "c"),
        (EventFilter { session_id: text("one"), ..server.clone() }, "c"),
        (EventFilter { request_id: "b".parse().ok(), ..server.clone() }, "b"),
        (EventFilter { status: Some(EventStatus::Error), ..server }, ""),
        (EventFilter { host: text("nowhere"), ..any() }, ""),
        (EventFilter { user: text("it's \"me\""), ..any() }, "a b c f"),
        (EventFilter { project: text("/home/me/arrakis/"), ..any() }, "a b"),
        (EventFilter { project: text("/home/me"), ..any() }, "a b c"),
        (EventFilter { project: text("/home/me/arr"), ..any() }, ""),
        (EventFilter { project: text("/p"), ..any() }, "f"),
        (EventFilter { error_code: text("too_deep"), ..any() }, "f"),
        (EventFilter { error_code: text("other"), ..any() }, ""),
        (EventFilter { form: Some(Form::Raw), ..any() }, "e"),
        (EventFilter { form: Some(Form::Original), ..any() }, ""),
        (EventFilter { discarded: Some(true), ..any() }, ""),
        (EventFilter { discarded: Some(false), ..one }, "a c"),
        (EventFilter { since: Some(received[1]), ..any() }, "b c d"),
    ] {
        let shown = format!("{filter:?}");
        assert_eq!(found(filter).await, expected, "{shown}");
    }
    // The clock stands between two milliseconds nowhere, and a filter may.
    for (since, until, expected) in [
        (received[0], received[2], "a b"),
        (received[0].plus(Duration::from_micros(1)), received[2], "b"),
        (received[0], received[2].plus(Duration::from_micros(1)), "a b c"),
        (received[2], received[2], ""),
    ] {
        let filter = EventFilter { since: Some(since), until: Some(until), ..any() };
        assert_eq!(found(filter).await, expected, "{since} to {until}");
    }
    give_up(&*store, ids[5], fixture.clock().now()).await;
    let discarded = EventFilter { discarded: Some(true), ..any() };
    assert_eq!(found(discarded).await, "f");

    let at = async |session: &str| {
        let found = store.conversation(DEFAULT_WORKSPACE, session).await.expect("read");
        found.expect("the conversation is there").conversation.last_event_at
    };
    let all = ConversationFilter::new(DEFAULT_WORKSPACE);
    let within = |project: &str| ConversationFilter { project: text(project), ..all.clone() };
    let [two, one] = [at("two").await, at("one").await];
    for (filter, expected) in [
        (all.clone(), "one two three"),
        (within("/p"), "one two three"),
        (within("/q"), ""),
        (ConversationFilter { since: Some(two), ..all.clone() }, "one two"),
        (ConversationFilter { until: Some(one), ..all.clone() }, "two three"),
        (ConversationFilter { since: Some(two), until: Some(one), ..within("/p") }, "two"),
        (ConversationFilter::new("other"), ""),
    ] {
        assert_eq!(sessions(&*store, &filter, 2).await.join(" "), expected, "{filter:?}");
    }
}

/// What is rare is found in as many pages as its rows take, some of them empty.
pub async fn a_page_looks_at_a_bounded_number_of_rows_and_says_where_to_go_on(
    fixture: &impl EventStoreFixture,
) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let rare = Source { host: Some("rare".to_owned()), ..Source::default() };
    let prompt = hook("s", "UserPromptSubmit", r#","prompt":"p""#);
    let batch = (0..35).map(|n| {
        let source = if [3, 4, 33].contains(&n) { rare.clone() } else { Source::default() };
        arrivals.next_from(source, &format!("e{n:02}"), prompt.clone())
    });
    store.record(batch.collect()).await.expect("record");
    let session = |session: &str| Some(session.to_owned());
    let host = Some("rare".to_owned());
    let looks = Page { looks: 10, ..Page::first(5) };
    for filter in [
        EventFilter { host: host.clone(), ..EventFilter::default() },
        EventFilter { host: host.clone(), session_id: session("s"), ..EventFilter::default() },
    ] {
        let (found, sizes) = pages(&*store, &filter, looks).await;
        assert_eq!((found.join(" "), sizes), ("e33 e04 e03".to_owned(), vec![1, 0, 0, 2]));
        let (found, sizes) = pages(&*store, &filter, Page::first(5)).await;
        assert_eq!((found.join(" "), sizes), ("e33 e04 e03".to_owned(), vec![3]));
    }
    let mut batch = Vec::new();
    for n in 0..12 {
        let project = if n == 1 { "/rare" } else { "/p" };
        let session = format!("in-{n}");
        let payload = format!(
            r#"{{"session_id":"{session}","cwd":"{project}","hook_event_name":"UserPromptSubmit","prompt":"p"}}"#
        );
        batch.push(arrivals.next(&session, payload));
    }
    store.record(batch).await.expect("record");
    let project = Some("/rare".to_owned());
    let filter = ConversationFilter { project, ..ConversationFilter::new(DEFAULT_WORKSPACE) };
    let (mut page, mut sizes) = (Page { looks: 5, ..Page::first(5) }, Vec::new());
    loop {
        let part = store.conversations(filter.clone(), page).await.expect("conversations");
        sizes.push(part.conversations.len());
        let Some(next) = part.next else { break };
        page.after = Some(next);
    }
    assert_eq!(sizes, [0, 0, 1]);
}

/// The cursor names a moment, so what moves to the front takes nothing with it.
pub async fn a_list_of_conversations_goes_on_from_its_cursor(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let batch = (0..6).map(|n| arrivals.prompt(&format!("e{n}"), &format!("s{n}"))).collect();
    store.record(batch).await.expect("record");
    let filter = ConversationFilter::new(DEFAULT_WORKSPACE);
    let first = store.conversations(filter.clone(), Page::first(3)).await.expect("conversations");
    let last = first.conversations.last().expect("three are there");
    assert_eq!(last.conversation.session_id, "s3");
    store.record(vec![arrivals.prompt("more", "s3")]).await.expect("record");
    let next = Page::after(first.next.expect("there is more"), 9);
    let rest = store.conversations(filter, next).await.expect("conversations");
    let rest: Vec<_> =
        rest.conversations.iter().map(|one| one.conversation.session_id.as_str()).collect();
    assert_eq!(rest, ["s2", "s1", "s0"]);
    let front = conversations(&*store, DEFAULT_WORKSPACE).await;
    assert_eq!(front[0].conversation.session_id, "s3");
}

/// A conversation of any length costs a list no more than one of [`COUNTED_MAX`] messages.
pub async fn of_a_conversation_a_bounded_number_of_messages_and_tool_uses_is_counted(
    fixture: &impl EventStoreFixture,
) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let mut batch = vec![arrivals.prompt("e", "short")];
    batch.extend((0..=COUNTED_MAX).map(|n| arrivals.prompt(&format!("e{n}"), "long")));
    store.record(batch).await.expect("record");
    let list = conversations(&*store, DEFAULT_WORKSPACE).await;
    let counts: Vec<_> = list.iter().map(|one| (one.messages, one.counts_capped)).collect();
    assert_eq!(counts, [(COUNTED_MAX as u64, true), (1, false)]);
}

/// Every page of a list of events: their request ids, and how many each page has.
async fn pages(
    store: &dyn EventStore,
    filter: &EventFilter,
    mut page: Page,
) -> (Vec<String>, Vec<usize>) {
    let (mut found, mut sizes) = (Vec::new(), Vec::new());
    loop {
        let part = store.events(filter.clone(), page).await.expect("events");
        sizes.push(part.events.len());
        found.extend(part.events.into_iter().map(|event| event.request_id.to_string()));
        let Some(next) = part.next else { return (found, sizes) };
        page.after = Some(next);
    }
}

/// The sessions of a list of conversations, read in pages.
async fn sessions(
    store: &dyn EventStore,
    filter: &ConversationFilter,
    limit: usize,
) -> Vec<String> {
    let (mut found, mut page) = (Vec::new(), Page::first(limit));
    loop {
        let part = store.conversations(filter.clone(), page).await.expect("conversations");
        found.extend(part.conversations.into_iter().map(|one| one.conversation.session_id));
        let Some(next) = part.next else { return found };
        page.after = Some(next);
    }
}

/// Has a row that waits run out of retries, and gives it up.
async fn give_up(store: &dyn EventStore, id: uuid::Uuid, now: Timestamp) {
    let due = now.plus(crate::record::store::FIRST_RETRY_DELAY);
    for claim in store.claim_due(due, now, 10).await.expect("claim") {
        let (_, failure) = failed(claim.arrival.clone());
        assert!(store.complete(claim, failure, None).await.expect("complete"));
    }
    store.give_up(id, "person", "given up").await.expect("give up");
    let row = store.event(DEFAULT_WORKSPACE, EventKey::Id(id)).await.expect("event");
    assert!(row.is_some_and(|row| row.summary.discarded_at.is_some()));
}
