//! Usage: what messages took, counted once.

use std::collections::BTreeMap;

use super::{FOR_EVER, RollupsFixture, fold_all};
use crate::base::clock::{Clock, Timestamp};
use crate::base::id::conversation_id;
use crate::record::store::{
    Ages, DEFAULT_WORKSPACE, EventStore, Retention, RetentionPolicy, Rollups, UsageGroups,
    UsageSum, UsageSums,
};
use crate::session::conversation::Message;
use crate::session::price::{self, PromptSize};
use crate::session::usage::{UNKNOWN_MODEL, Usage, Usd};
use crate::testkit::event_store::{Arrivals, hook};
use crate::testkit::retention::pass;
use crate::testkit::sessions::{generated, record_shuffled};

/// All that can be told apart.
const ALL: UsageGroups = UsageGroups { bucket: true, conversation: true, subagent: true };

/// A line of the model's message `id` at a second of an hour.
fn line(id: &str, second: u32, usage: &str) -> String {
    let (minute, second) = (second / 60, second % 60);
    format!(
        r#"{{"uuid":"line-{id}-{minute}-{second}","timestamp":"2026-11-24T00:{minute:02}:{second:02}.000Z","type":"assistant","message":{{"id":"{id}","model":"claude-haiku-5-5","content":[{{"type":"text","text":"{id}"}}],"usage":{{{usage}}}}}}}"#
    )
}

fn slice(session: &str, lines: &[String]) -> String {
    let lines = lines.join(",");
    let more = format!(r#","transcript_path":"/{session}.jsonl","lines":[{lines}]"#);
    hook(session, "Transcript", &more)
}

/// A session, and two forks that begin with what it said: its lines come in every order.
pub async fn usage_counts_each_message_of_the_api_once(fixture: &impl RollupsFixture) {
    let (store, rollups) = (fixture.store(), fixture.rollups());
    let mut arrivals = Arrivals::new(fixture.clock());
    let said = |id: &str, second| {
        line(id, second, r#""input_tokens":100,"output_tokens":7,"cache_read_input_tokens":5"#)
    };
    let sessions = [
        ("s", vec![said("m1", 10), said("m2", 1000), said("m3", 2000)]),
        ("fork", vec![said("m1", 10), said("m2", 1000), said("f1", 1500)]),
        ("again", vec![said("m1", 10), said("f1", 1500), said("a1", 1600)]),
    ];
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for (n, order) in orders.into_iter().enumerate() {
        let workspace = format!("w{n}");
        arrivals.go_on_in(&workspace);
        for session in order {
            let (name, lines) = &sessions[session];
            let event = arrivals.next(name, slice(name, lines));
            store.record(vec![event]).await.expect("record");
            if n % 2 == 0 {
                fold_all(&*rollups).await;
            }
        }
        fold_all(&*rollups).await;
        assert_usage_counted(&*store, &*rollups, &workspace, &["s", "fork", "again"]).await;
        let total = usage(&*rollups, &workspace, UsageGroups::default()).await;
        let [total] = &total[..] else { panic!("one sum: {total:?}") };
        assert_eq!((total.messages, total.usage.input_tokens), (5, 500));
        let first = ["s", "fork", "again"].map(|name| conversation_id(&workspace, name));
        let by = UsageGroups { conversation: true, ..UsageGroups::default() };
        let by_conversation = usage(&*rollups, &workspace, by).await;
        let owner =
            by_conversation.iter().find(|sum| sum.conversation_id == first.iter().min().copied());
        assert!(owner.is_some_and(|sum| sum.messages >= 2), "{by_conversation:?}");
    }

    // Whole sessions with subagents, forked and shuffled.
    let mut counted = 0;
    for seed in 0..4 {
        let session = generated(seed);
        let (name, workspace) = (session.session_id.clone(), format!("w{seed}-generated"));
        let forks = [session.clone(), session.renamed("fork-1"), session.renamed("fork-2")];
        for fork in forks {
            let mut left = fork.shuffled(&workspace, seed);
            while !left.is_empty() {
                let rest = left.split_off(left.len().min(9));
                let batch = left.into_iter().map(|arrival| {
                    let verdict = crate::record::ingest::judge(&arrival);
                    (arrival, verdict)
                });
                store.record(batch.collect()).await.expect("record");
                rollups.fold(1).await.expect("fold");
                left = rest;
            }
        }
        fold_all(&*rollups).await;
        let names = [name.as_str(), "fork-1", "fork-2"];
        counted += assert_usage_counted(&*store, &*rollups, &workspace, &names).await;
    }
    assert!(counted > 5, "the sessions took too little: {counted}");
}

/// A message whose lines come one by one, and whose conversation goes.
pub async fn usage_grows_with_its_message_and_stays_when_its_conversation_is_pruned(
    fixture: &impl RollupsFixture,
) {
    let (store, rollups) = (fixture.store(), fixture.rollups());
    let mut arrivals = Arrivals::new(fixture.clock());
    let steps = [(930, 100_000, 1), (900, 100_001, 1), (890, 7, 42), (930, 100_000, 1)];
    for (n, (second, input, output)) in steps.into_iter().enumerate() {
        let usage = format!(r#""input_tokens":{input},"output_tokens":{output}"#);
        let event = arrivals.next(&format!("e{n}"), slice("s", &[line("m", second, &usage)]));
        store.record(vec![event]).await.expect("record");
        fold_all(&*rollups).await;
        assert_usage_counted(&*store, &*rollups, DEFAULT_WORKSPACE, &["s"]).await;
    }
    let before = usage(&*rollups, DEFAULT_WORKSPACE, ALL).await;
    let [one] = &before[..] else { panic!("one sum: {before:?}") };
    assert_eq!(one.at, "2026-11-24T00:00:00Z".parse().ok(), "its first line came later");
    assert_eq!((one.messages, one.usage.input_tokens, one.usage.output_tokens), (1, 100_001, 42));

    fixture.clock().advance(super::DAY);
    let default = Ages { events: None, conversations: Some(std::time::Duration::ZERO) };
    let policy = RetentionPolicy { default, ..RetentionPolicy::default() };
    let retention = fixture.retention();
    let pruned = pass(&*retention as &dyn Retention, &policy.at(fixture.clock().now()), 10).await;
    assert_eq!(pruned.conversations, 1);
    fold_all(&*rollups).await;
    assert_eq!(usage(&*rollups, DEFAULT_WORKSPACE, ALL).await, before);
}

/// Sessions that were not forked, prompts of every size, and the same message before and after its price changed.
pub async fn the_cost_of_sums_is_the_sum_of_the_costs_each_by_the_prices_of_its_time(
    fixture: &impl RollupsFixture,
) {
    let (store, rollups) = (fixture.store(), fixture.rollups());
    let mut arrivals = Arrivals::new(fixture.clock());
    let mut lines = Vec::new();
    for (n, input) in [(0, 99_999), (1, 100_000), (2, 100_001), (3, 200_001), (4, 1)] {
        let usage = format!(
            r#""input_tokens":{input},"output_tokens":7,"cache_creation_input_tokens":9,"cache_creation":{{"ephemeral_1h_input_tokens":4,"ephemeral_5m_input_tokens":5}},"server_tool_use":{{"web_search_requests":1}}"#
        );
        lines.push(line(&format!("m{n}"), n * 100, &usage));
    }
    for (day, model) in [
        ("2026-03-12", "claude-opus-4-6"),
        ("2026-03-13", "claude-opus-4-6"),
        ("2026-03-13", "claude-opus-4-6-fast"),
    ] {
        let long = line(&format!("{day}{model}"), 0, r#""input_tokens":300000"#);
        lines.push(long.replace("2026-11-24", day).replace("claude-haiku-5-5", model));
    }
    store.record(vec![arrivals.next("a", slice("s", &lines))]).await.expect("record");
    fold_all(&*rollups).await;
    let conversation = store.conversation(DEFAULT_WORKSPACE, "s").await.expect("read");
    let expected = conversation.expect("it is there").usage;
    let cost = |sums: &[UsageSum]| {
        let costs = sums.iter().map(|sum| sum.cost().expect("the price is known"));
        costs.fold(Usd::default(), |sum, cost| sum + cost)
    };
    for by in [UsageGroups::default(), ALL] {
        let sums = usage(&*rollups, DEFAULT_WORKSPACE, by).await;
        assert_eq!(cost(&sums), expected.cost, "{sums:?}");
    }
    assert!(expected.total.web_searches == 5 && expected.total.cache_creation_1h_tokens == 20);

    let session = generated(7);
    record_shuffled(&*store, &session, 7).await;
    fold_all(&*rollups).await;
    let found = store.conversation("w7", &session.session_id).await.expect("read");
    let expected = found.expect("it is there").usage;
    let sums = usage(&*rollups, "w7", ALL).await;
    let known = sums.iter().filter_map(UsageSum::cost).fold(Usd::default(), |sum, one| sum + one);
    assert_eq!(known, expected.cost);
    let total = sums.iter().fold(Usage::default(), |mut sum, one| {
        sum += one.usage;
        sum
    });
    assert_eq!(total, expected.total);
}

/// Compares sums of usage with the messages of these sessions, which are all of the workspace; returns how many messages
/// took something.
///
/// # Panics
///
/// They differ, or the store fails.
pub async fn assert_usage_counted(
    store: &dyn EventStore,
    rollups: &dyn Rollups,
    workspace: &str,
    sessions: &[&str],
) -> usize {
    let mut messages = BTreeMap::<String, (Message, Usage)>::new();
    for session in sessions {
        let detail = store.conversation(workspace, session).await.expect("read");
        for message in detail.expect("it is there").messages {
            let Some(usage) = message.usage else { continue };
            let id = message.api_id.clone().unwrap_or_else(|| message.id.to_string());
            let place = messages.entry(id).or_insert_with(|| (message.clone(), usage));
            place.1 = place.1.max(usage);
            let rank = |one: &Message| (one.content.stamp.at, one.conversation_id);
            if rank(&message) < rank(&place.0) {
                place.0 = message;
            }
        }
    }
    let (count, mut expected) = (messages.len(), BTreeMap::new());
    for (message, usage) in messages.into_values() {
        let model = message.model.as_deref().unwrap_or(UNKNOWN_MODEL);
        let quarter = message.content.stamp.at.as_micros().div_euclid(900_000_000) * 900_000_000;
        let sum = UsageSum {
            at: Some(Timestamp::from_micros(quarter)),
            conversation_id: Some(message.conversation_id),
            is_subagent: Some(message.agent_id.is_some()),
            model: model.to_owned(),
            prompt_size: PromptSize::of(&usage),
            period: price::table().period(message.content.stamp.at),
            ..UsageSum::default()
        };
        let place = expected.entry(sum.group()).or_insert(sum);
        place.messages += 1;
        place.usage += usage;
    }
    let expected: Vec<UsageSum> = expected.into_values().collect();
    assert_eq!(usage(rollups, workspace, ALL).await, expected, "{workspace}");
    count
}

/// Sums of all time.
async fn usage(rollups: &dyn Rollups, workspace: &str, by: UsageGroups) -> Vec<UsageSum> {
    let (from, to) = (FOR_EVER, Timestamp::from_micros(i64::MAX));
    let query = UsageSums { workspace: workspace.to_owned(), from, to, by };
    rollups.usage_sums(query).await.expect("usage")
}
