//! Transcripts: what slices add to a conversation, over several calls.

use super::read::index;
use super::{Arrivals, EventStoreFixture, conversations, hook, record_one};
use crate::record::store::{
    ConversationDetail, DEFAULT_WORKSPACE, EventStore, HitKind, SearchFilter,
};
use crate::session::conversation::{Block, MessageOrigin, Role, ToolStatus};
use crate::session::usage::Usd;
use crate::testkit::sessions::{generated, record_shuffled};

/// A slice of the session `s` with these lines.
pub(super) fn slice(lines: &[String]) -> String {
    let lines = lines.join(",");
    hook("s", "Transcript", &format!(r#","transcript_path":"/t.jsonl","lines":[{lines}]"#))
}

pub(super) fn line(n: u32, fields: &str) -> String {
    format!(r#"{{"uuid":"line-{n}","timestamp":"2026-11-24T00:55:{n:02}.000Z",{fields}}}"#)
}

/// A line with one block of the model's message `m`.
fn block(n: u32, output: u32, block: &str) -> String {
    let usage =
        format!(r#"{{"input_tokens":1000,"output_tokens":{output},"cache_read_input_tokens":5}}"#);
    line(
        n,
        &format!(
            r#""type":"assistant","message":{{"id":"m","model":"claude-opus-5-5","content":[{block}],"usage":{usage}}}"#
        ),
    )
}

const TOOL: &str = r#"{"type":"tool_use","id":"t","name":"Bash","input":{"command":"ls"}}"#;

async fn read(store: &dyn EventStore) -> ConversationDetail {
    let detail = store.conversation(DEFAULT_WORKSPACE, "s").await.expect("read");
    detail.expect("the conversation is there")
}

/// The blocks of a message come one by one, in the wrong order, and twice; its usage counts once.
pub async fn a_message_grows_by_its_blocks_and_its_usage_counts_once(
    fixture: &impl EventStoreFixture,
) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let text = |text: &str| format!(r#"{{"type":"text","text":"{text}"}}"#);
    let lines = [
        block(3, 42, TOOL),
        block(1, 7, &text(r"first nul \u0000")),
        block(2, 42, &text("s\u{e9}cond")),
        block(0, 1, r#"{"type":"thinking","thinking":"hm"}"#),
        block(2, 42, &text("s\u{e9}cond")),
    ];
    for (n, line) in lines.into_iter().enumerate() {
        record_one(&*store, arrivals.next(&format!("e{n}"), slice(&[line]))).await;
    }
    let detail = read(&*store).await;
    let [message] = &detail.messages[..] else { panic!("one message: {:?}", detail.messages) };
    assert_eq!(message.content.value, "first nul \0\n\ns\u{e9}cond");
    assert_eq!(message.content.stamp.request_id.as_str(), "line-0");
    let blocks: Vec<_> = message.blocks.iter().map(|(_, block)| block.clone()).collect();
    let text = |text: &str| Block::Text { text: text.to_owned() };
    let expected = [
        Block::Thinking { text: "hm".to_owned() },
        text("first nul \0"),
        text("s\u{e9}cond"),
        Block::ToolUse { tool_use_id: "t".to_owned() },
    ];
    assert_eq!(blocks, expected);
    assert_eq!(message.model.as_deref(), Some("claude-opus-5-5"));
    let total = detail.usage.total;
    assert_eq!((total.input_tokens, total.output_tokens, total.cache_read_tokens), (1000, 42, 5));
    assert_eq!(Some(detail.usage.cost), Usd::from_dollars(0.004_841));
    let at = |n: u32| format!("2026-11-24T00:55:{n:02}Z").parse().expect("a time");
    assert_eq!(detail.conversation.started_at, at(0));
    assert_eq!(detail.conversation.last_event_at, at(3));
}

/// What hooks and the transcript know of one tool use and one prompt is joined, in whichever order they come.
pub async fn hooks_and_transcript_tell_of_the_same_messages_and_tools(
    fixture: &impl EventStoreFixture,
) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let prompt = r#""type":"user","promptId":"p","message":{"content":"go"}"#;
    let result = r#""type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"t","content":"a.rs"}]}"#;
    let tool = |more: &str| format!(r#","tool_name":"Bash","tool_use_id":"t"{more}"#);
    let done = tool(r#","tool_response":{"stdout":"a.rs"},"duration_ms":30"#);
    let stop = r#","last_assistant_message":"done""#;
    let batch = vec![
        arrivals.next("a", slice(&[line(9, result)])),
        arrivals.next("b", hook("s", "PreToolUse", &tool(""))),
        arrivals.next("c", hook("s", "Stop", stop)),
        arrivals.next("d", slice(&[line(1, prompt), block(2, 1, TOOL)])),
    ];
    store.record(batch).await.expect("record");
    let detail = read(&*store).await;
    assert_eq!(detail.tool_uses[0].duration_ms(), Some(7000), "from the wish to the result");
    assert_eq!(detail.messages.len(), 3, "a prompt, a wish, and words that are provisional");
    let submit = hook("s", "UserPromptSubmit", r#","prompt":"go","prompt_id":"p""#);
    let text = r#"{"type":"text","text":"done"}"#;
    let batch = vec![
        arrivals.next("e", hook("s", "PostToolUse", &done)),
        arrivals.next("f", submit),
        arrivals.next("g", slice(&[block(3, 1, text)])),
    ];
    store.record(batch).await.expect("record");
    let detail = read(&*store).await;
    let [tool] = &detail.tool_uses[..] else { panic!("one tool use: {:?}", detail.tool_uses) };
    assert_eq!((tool.status(), tool.duration_ms()), (ToolStatus::Succeeded, Some(30)));
    assert_eq!((tool.seen.hook, tool.seen.transcript), (true, true));
    assert_eq!(tool.tool_name, "Bash");
    let [prompt, answer] = &detail.messages[..] else { panic!("two: {:?}", detail.messages) };
    assert_eq!((&*prompt.content.value, prompt.origin), ("go", MessageOrigin::Transcript));
    assert_eq!((&*answer.content.value, Some(answer.id)), ("done", tool.message_id));
    let list = conversations(&*store, DEFAULT_WORKSPACE).await;
    assert_eq!((list[0].messages, list[0].tool_uses), (2, 1), "what is provisional does not count");
}

/// Prompts that wait in the queue, are taken back, or that nobody has typed: hooks tell of them all under the id
/// of the prompt that is running, and the transcript says what they were.
pub async fn prompts_are_shown_counted_and_found_once(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let submit = |prompt: &str| {
        hook("s", "UserPromptSubmit", &format!(r#","prompt":"prompt {prompt}","prompt_id":"p""#))
    };
    let prompts = ["first", "queued", "withdrawn", "scheduled"];
    for prompt in prompts {
        record_one(&*store, arrivals.next(prompt, submit(prompt))).await;
    }
    let said = read_prompts(&*store).await;
    assert_eq!(said, prompts.map(|prompt| ("user", MessageOrigin::Prompt, prompt.to_owned())));
    let user = |prompt: &str, more: &str| {
        format!(r#""type":"user"{more},"message":{{"content":"prompt {prompt}"}}"#)
    };
    let operation = |operation: &str, prompt: &str| {
        format!(r#""type":"queue-operation","operation":"{operation}","content":"prompt {prompt}""#)
    };
    let command = r#"{"type":"queued_command","commandMode":"prompt","prompt":"prompt queued",
        "timestamp":"2026-11-24T00:55:02.000Z"}"#;
    let lines = [
        line(1, &user("first", r#","promptId":"p""#)),
        line(2, &operation("enqueue", "queued")),
        line(3, &operation("enqueue", "withdrawn")),
        line(4, &operation("popAll", "withdrawn")),
        line(5, &format!(r#""type":"attachment","attachment":{command}"#)),
        line(6, &user("scheduled", r#","isMeta":true,"promptSource":"system""#)),
        line(7, &operation("enqueue", "waiting")),
    ];
    for (n, line) in lines.into_iter().rev().enumerate() {
        record_one(&*store, arrivals.next(&format!("l{n}"), slice(&[line]))).await;
    }
    let said = read_prompts(&*store).await;
    let expected = [
        ("user", MessageOrigin::Transcript, "first"),
        ("user", MessageOrigin::Queued, "queued"),
        ("system", MessageOrigin::Transcript, "scheduled"),
        ("user", MessageOrigin::Enqueued, "waiting"),
    ];
    assert_eq!(said, expected.map(|(role, origin, prompt)| (role, origin, prompt.to_owned())));
    let list = conversations(&*store, DEFAULT_WORKSPACE).await;
    assert_eq!(list[0].messages, 3, "what may still come as a line does not count");
    index(&*store).await;
    for prompt in ["first", "queued", "withdrawn", "scheduled", "waiting"] {
        let text = Some(prompt.to_owned());
        let filter = SearchFilter { text, ..SearchFilter::new(DEFAULT_WORKSPACE) };
        let page = store.search(filter, None, 9).await.expect("search");
        let found: Vec<_> = page.hits.iter().map(|hit| &hit.what).collect();
        let role = if prompt == "scheduled" { Role::System } else { Role::User };
        let expected = [HitKind::Message { role }];
        let expected = &expected[usize::from(prompt == "withdrawn")..];
        assert_eq!(found, expected.iter().collect::<Vec<_>>(), "{prompt}");
    }
}

/// Who has said what, without the first word.
async fn read_prompts(store: &dyn EventStore) -> Vec<(&'static str, MessageOrigin, String)> {
    let messages = read(store).await.messages.into_iter();
    messages
        .map(|one| {
            let words = one.content.value.strip_prefix("prompt ").expect("a prompt");
            (one.role.as_str(), one.origin, words.to_owned())
        })
        .collect()
}

/// A subagent is known from its events, from its transcript and from what it does.
pub async fn subagents_are_kept_with_what_started_them(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let of = |id: &str| format!(r#","agent_id":"{id}","agent_type":"explorer""#);
    let started = r#","tool_name":"Agent","tool_use_id":"t1","tool_response":{"agentId":"a1"}"#;
    let task = line(1, r#""type":"user","message":{"content":"look"}"#);
    let of_agent = of("a2") + &format!(r#","agent_tool_use_id":"t2","lines":[{task}]"#);
    let pre = of("a3") + r#","tool_name":"Read","tool_use_id":"t9""#;
    let stop = hook("s", "SubagentStop", &of("a1"));
    let batch = vec![
        arrivals.next("a", hook("s", "PostToolUse", started)),
        arrivals.next("b", hook("s", "Transcript", &of_agent)),
        arrivals.next("c", hook("s", "PreToolUse", &pre)),
    ];
    store.record(batch).await.expect("record");
    record_one(&*store, arrivals.next("d", hook("s", "SubagentStart", &of("a1")))).await;
    record_one(&*store, arrivals.next("e", stop)).await;
    let detail = read(&*store).await;
    let told: Vec<_> = detail
        .subagents
        .iter()
        .map(|one| {
            let tool = one.tool_use_id.as_deref();
            (&*one.agent_id, one.agent_type.as_deref(), tool, one.stopped_at.is_some())
        })
        .collect();
    let mut expected = vec![
        ("a1", Some("explorer"), Some("t1"), true),
        ("a2", Some("explorer"), Some("t2"), false),
        ("a3", None, None, false),
    ];
    expected.sort_by_key(|one| told.iter().position(|other| other.0 == one.0));
    assert_eq!(told, expected);
}

/// Sessions with everything in them, in any order, repetition, slicing and batching.
pub async fn a_session_is_the_same_in_any_order(fixture: &impl EventStoreFixture) {
    let store = fixture.store();
    for seed in 0..12 {
        record_shuffled(&*store, &generated(seed / 3), seed).await;
    }
}
