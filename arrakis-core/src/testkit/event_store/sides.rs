//! What hooks and transcripts have told of, held against each other.

use super::transcript::{line, slice};
use super::{Arrivals, EventStoreFixture, conversations, hook, record_one};
use crate::record::store::{ConversationDetail, DEFAULT_WORKSPACE, EventStore};
use crate::session::conversation::{Gap, KnownToolUse, TwoSides};

/// A list counts what only hooks or only transcripts have told of, as one conversation shows it.
pub async fn what_only_one_side_has_told_of_is_counted(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let used = |id: &str, event: &str| {
        hook("s", event, &format!(r#","tool_name":"Bash","tool_input":{{}},"tool_use_id":"{id}""#))
    };
    let wish = |n: u32, id: &str| {
        line(
            n,
            &format!(
                r#""type":"assistant","message":{{"id":"{id}","content":[{{"type":"tool_use","id":"{id}","name":"Read","input":{{}}}}]}}"#
            ),
        )
    };
    record_one(&*store, arrivals.next("e1", used("both", "PreToolUse"))).await;
    record_one(&*store, arrivals.next("e2", used("hook", "PreToolUse"))).await;
    let (detail, sides) = read(&*store).await;
    assert_eq!(sides.tool_uses_without_transcript, 2);
    assert!(sides.differ());
    assert_eq!(detail.reconciliation().gaps, [], "the turn is not over");

    record_one(&*store, arrivals.next("e3", hook("s", "Stop", ""))).await;
    let found = read(&*store).await.0.reconciliation();
    assert_eq!(found.gaps, [Gap::NoTranscript]);

    let late = r#""type":"user","message":{"role":"user","content":"go on"}"#;
    let late = line(59, late).replace("2026-", "2999-");
    let slice = slice(&[wish(50, "both"), wish(51, "transcript"), late]);
    record_one(&*store, arrivals.next("e4", slice)).await;
    let (detail, sides) = read(&*store).await;
    let expected = TwoSides {
        transcript_messages: 3,
        tool_uses_without_hook: 1,
        tool_uses_without_transcript: 1,
    };
    assert_eq!(sides, expected);
    let found = detail.reconciliation();
    let ids = |tool_uses: &[KnownToolUse]| {
        let ids = tool_uses.iter().filter_map(|one| one.tool_use_id.clone());
        ids.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ids(&found.without_hook), "transcript");
    assert_eq!(ids(&found.without_transcript), "hook");
    assert_eq!((found.tool_uses_in_both, found.slices), (1, 1));
    assert_eq!(found.events.get("PreToolUse"), Some(&2));
    let tools = |name: &str| vec![name.to_owned()];
    let gaps = [
        Gap::NoHook { count: 1, tools: tools("Read") },
        Gap::NotInTranscript { count: 1, tools: tools("Bash") },
    ];
    assert_eq!(found.gaps, gaps);
}

async fn read(store: &dyn EventStore) -> (ConversationDetail, TwoSides) {
    let detail = store.conversation(DEFAULT_WORKSPACE, "s").await.expect("read");
    let list = conversations(store, DEFAULT_WORKSPACE).await;
    (detail.expect("the conversation is there"), list[0].sides)
}
