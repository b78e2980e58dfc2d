//! What a list, the usage and a conversation itself say of it.

use super::{FOR_EVER, RollupsFixture, fold_all};
use crate::base::clock::Timestamp;
use crate::record::store::{ConversationFilter, Page, UsageGroups, UsageSum, UsageSums};
use crate::session::usage::{Usage, Usd};
use crate::testkit::recorded::{RECORDINGS, fault, faults, recorded, recording};
use crate::testkit::sessions::{Session, record_shuffled};

/// Of every recorded session and every case that a version got wrong, the list has as many messages and tool uses as the
/// conversation, and usage has its tokens and its cost.
pub async fn a_list_and_usage_say_of_a_conversation_what_it_says_itself(
    fixture: &impl RollupsFixture,
) {
    let cases = faults().into_iter().map(|name| {
        let sessions = fault(&name);
        (name, sessions)
    });
    let recordings = RECORDINGS.iter().map(|name| ((*name).to_owned(), recording(name)));
    let all = cases.chain(recordings).chain([("headless runs".to_owned(), recorded())]);
    let mut differences = Vec::new();
    let (mut seed, mut count) = (0, 0);
    for (name, sessions) in all {
        // A message counts in the session that a fork has it from, where that is known.
        let is_copied = |one: &Session| {
            one.expected("w").messages.iter().any(|message| message.standing.copied)
        };
        let together = if sessions.iter().any(is_copied) { sessions.len() } else { 1 };
        for sessions in sessions.chunks(together.max(1)) {
            seed += 1;
            for session in sessions {
                record_shuffled(&*fixture.store(), session, seed).await;
            }
            fold_all(&*fixture.rollups()).await;
            for session in sessions {
                count += 1;
                let found = differences_of(fixture, &format!("w{seed}"), session).await;
                differences.extend(found.into_iter().map(|one| format!("{name}: {one}")));
            }
        }
    }
    assert!(count > 40, "there are too few sessions: {count}");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

async fn differences_of(
    fixture: &impl RollupsFixture,
    workspace: &str,
    session: &Session,
) -> Vec<String> {
    let (store, id) = (fixture.store(), &session.session_id);
    let detail = store.conversation(workspace, id).await.expect("read").expect("it is there");
    let filter = ConversationFilter::new(workspace);
    let list = store.conversations(filter, Page::first(9)).await.expect("list").conversations;
    let listed = list.iter().find(|one| one.conversation.session_id == *id).expect("it is listed");
    let sums = UsageSums {
        workspace: workspace.to_owned(),
        from: FOR_EVER,
        to: Timestamp::from_micros(i64::MAX),
        by: UsageGroups { conversation: true, subagent: true, ..UsageGroups::default() },
    };
    let mut sums = fixture.rollups().usage_sums(sums).await.expect("usage");
    sums.retain(|sum| sum.conversation_id == Some(detail.conversation.id));
    let total = |of: &dyn Fn(&UsageSum) -> bool| {
        sums.iter().filter(|sum| of(sum)).fold(Usage::default(), |mut total, sum| {
            total += sum.usage;
            total
        })
    };
    let cost = sums.iter().filter_map(UsageSum::cost).fold(Usd::default(), |sum, one| sum + one);
    let mut found = Vec::new();
    let mut compare = |what: &str, one: String, other: String| {
        if one != other {
            found.push(format!("{id}: {what}: {one}, and the conversation itself {other}"));
        }
    };
    let number = |count: usize| count.to_string();
    compare("messages", listed.messages.to_string(), number(detail.messages.len()));
    compare("tool uses", listed.tool_uses.to_string(), number(detail.tool_uses.len()));
    let usage = |one: Usage| format!("{one:?}");
    compare("usage", usage(total(&|_| true)), usage(detail.usage.total));
    let of_subagents = total(&|sum| sum.is_subagent == Some(true));
    compare("usage of subagents", usage(of_subagents), usage(detail.usage.subagents));
    compare("cost", cost.to_string(), detail.usage.cost.to_string());
    found
}
