//! Whose a line is: of which session, of which thread, and of which subagent.

use arrakis_core::record::store::ConversationDetail;
use arrakis_core::session::conversation::{Gap, Message};
use arrakis_core::testkit::sessions::{Session, assert_same, conversation_of};
use serde_json::{Value, json};

const SESSION: &str = "cc000020-0000-4000-8000-000000000020";
const OTHER: &str = "cc000020-0000-4000-8000-00000000000a";

/// A line of the minute, with more fields.
fn line(kind: &str, id: &str, minute: u32, message: &Value, more: &Value) -> Value {
    let mut line = json!({"type": kind, "uuid": id, "sessionId": SESSION, "isSidechain": false,
        "timestamp": format!("2026-11-20T10:{minute:02}:00Z"), "message": message});
    let more = more.as_object().unwrap().clone();
    line.as_object_mut().unwrap().extend(more);
    line
}

fn prompt(id: &str, minute: u32, text: &str, more: &Value) -> Value {
    line("user", id, minute, &json!({"role": "user", "content": text}), more)
}

fn answer(id: &str, minute: u32, api_id: &str, block: &Value, more: &Value) -> Value {
    let message = json!({"id": api_id, "role": "assistant", "model": "claude-opus-5-5",
        "content": [block], "usage": {"input_tokens": 100, "output_tokens": 10}});
    line("assistant", id, minute, &message, more)
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn call(id: &str, tool: &str, input: &Value) -> Value {
    json!({"type": "tool_use", "id": id, "name": tool, "input": input})
}

fn result(id: &str, minute: u32, tool_use_id: &str, more: &Value) -> Value {
    let content = json!([{"type": "tool_result", "tool_use_id": tool_use_id, "content": "ok"}]);
    line("user", id, minute, &json!({"role": "user", "content": content}), more)
}

fn file(lines: &[Value]) -> Vec<u8> {
    lines.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes()
}

/// What a reader sees of the session in whatever order its events come.
fn read(session: &Session) -> ConversationDetail {
    let expected = session.expected("w");
    for seed in 0..60 {
        let found = conversation_of(&session.shuffled("w", seed));
        assert_same(&found, &expected, &format!("seed {seed}"));
    }
    expected
}

fn said<'a>(detail: &'a ConversationDetail, agent: Option<&str>) -> Vec<&'a str> {
    let of_thread = |one: &&Message| one.agent_id.as_deref() == agent;
    detail.messages.iter().filter(of_thread).map(|one| one.content.value.as_str()).collect()
}

#[test]
fn what_a_subagents_transcript_repeats_of_the_main_thread_stays_there() {
    let shared = |more: &Value| {
        vec![
            prompt("u1", 1, "Describe the mill.", more),
            answer("u2", 2, "msg_1", &text("It has two wheels."), more),
            answer("u3", 3, "msg_2", &call("toolu_1", "Read", &json!({})), more),
            result("u4", 4, "toolu_1", more),
        ]
    };
    let aside = json!({"isSidechain": true, "agentId": "aside"});
    let mut side = shared(&aside);
    side.push(prompt("u5", 5, "Who built it?", &aside));
    side.push(answer("u6", 6, "msg_3", &text("Nobody knows."), &aside));
    let mut session = Session::new(SESSION, Vec::new(), file(&shared(&json!({}))));
    session.add_subagent("aside", &json!({}), file(&side));
    let found = read(&session);
    assert_eq!(said(&found, None), ["Describe the mill.", "It has two wheels.", ""]);
    assert_eq!(said(&found, Some("aside")), ["Who built it?", "Nobody knows."]);
    assert_eq!(found.tool_uses[0].agent_id, None);
    assert_eq!(found.subagents[0].started_at.to_string(), "2026-11-20T10:05:00.000000Z");
    assert_eq!(found.usage.total.input_tokens, 300);
    assert_eq!(found.usage.subagents.input_tokens, 100);
}

/// A fork of a session with a tool use, whose copied lines tell of that session as `copied` says.
fn fork(copied: &Value, in_prompts: &Value) -> Session {
    let own = json!({});
    let lines = [
        prompt("u1", 1, "Count the spools.", in_prompts),
        answer("u2", 2, "msg_1", &call("toolu_1", "Bash", &json!({})), copied),
        result("u3", 3, "toolu_1", in_prompts),
        answer("u4", 4, "msg_2", &text("There are nine."), copied),
        prompt("u5", 10, "Now the red ones.", &own),
        answer("u6", 11, "msg_3", &text("Four are red."), &own),
        prompt("u7", 12, "And the blue ones?", &own),
    ];
    let hook = json!({"session_id": SESSION, "hook_event_name": "UserPromptSubmit",
        "prompt": "Now the red ones."});
    Session::new(SESSION, vec![hook.to_string().into_bytes()], file(&lines))
}

#[test]
fn what_a_fork_has_from_another_session_is_marked_and_not_counted() {
    let of_other = json!({"sessionId": OTHER});
    let asked = json!({"requestSessionId": OTHER});
    let branched = json!({"forkedFrom": {"sessionId": OTHER, "messageUuid": "u9"}});
    for (copied, in_prompts) in
        [(&of_other, &of_other), (&asked, &json!({})), (&branched, &branched)]
    {
        let found = read(&fork(copied, in_prompts));
        let marks: Vec<bool> = found.messages.iter().map(|one| one.standing.copied).collect();
        assert_eq!(marks, [true, true, true, false, false, false], "{copied}");
        assert!(found.tool_uses[0].standing.copied);
        assert_eq!(found.usage.total.input_tokens, 100, "{copied}");
        let conversation = &found.conversation;
        let title = conversation.title.as_ref().map(|title| title.value.as_str());
        assert_eq!(title, Some("Now the red ones."), "{copied}");
        let began = conversation.began_at().to_string();
        assert_eq!(began, "2026-11-20T10:10:00.000000Z", "{copied}");
        assert_eq!(found.reconciliation().gaps, [], "{copied}");
    }
}

#[test]
fn of_a_fork_in_which_nothing_was_said_its_beginning_is_no_later_than_its_end() {
    let copied = json!({"sessionId": OTHER});
    let lines = [prompt("u1", 1, "Count the spools.", &copied)];
    let found = read(&Session::new(SESSION, Vec::new(), file(&lines)));
    assert_eq!(found.conversation.began_at(), found.conversation.last_event_at);
    assert_eq!(found.conversation.title, None);
}

#[test]
fn each_sidechain_of_a_transcript_is_a_subagent_of_the_tool_use_that_started_it() {
    let task = |prompt: &str| json!({"prompt": prompt, "subagent_type": "scout"});
    let side = |parent: Option<&str>| json!({"isSidechain": true, "parentUuid": parent});
    let (main, left, right) =
        (json!({}), "0000000a-0000-4000-8000-000000000000", "0000000b-0000-4000-8000-000000000000");
    let lines = [
        prompt("u1", 0, "Look at the shelves.", &main),
        answer("u2", 1, "msg_1", &call("toolu_1", "Task", &task("Look left.")), &main),
        answer("u3", 2, "msg_1", &call("toolu_2", "Task", &task("Look right.")), &main),
        prompt(left, 3, "Look left.", &side(None)),
        prompt(right, 4, "Look right.", &side(None)),
        answer("u6", 5, "msg_2", &text("Cups."), &side(Some(left))),
        answer("u7", 6, "msg_3", &text("Plates."), &side(Some(right))),
        answer("u8", 7, "msg_4", &text("Old ones."), &side(Some("u7"))),
        result("u9", 8, "toolu_1", &main),
        result("u10", 9, "toolu_2", &main),
    ];
    let found = read(&Session::new(SESSION, Vec::new(), file(&lines)));
    let subagents: Vec<_> = found.subagents.iter().collect();
    let of = |n: usize| {
        let one = subagents[n];
        (one.tool_use_id.as_deref(), one.agent_type.as_deref(), said(&found, Some(&one.agent_id)))
    };
    assert_eq!(subagents.len(), 2);
    assert_eq!(of(0), (Some("toolu_1"), Some("scout"), vec!["Look left.", "Cups."]));
    let right = vec!["Look right.", "Plates.", "Old ones."];
    assert_eq!(of(1), (Some("toolu_2"), Some("scout"), right));
}

#[test]
fn what_cannot_be_read_of_a_transcript_is_named() {
    let whole = file(&[prompt("u1", 1, "One.", &json!({})), prompt("u2", 2, "Two.", &json!({}))]);
    let damaged =
        [whole.as_slice(), b"{\"type\":\"user\",\n", &whole[..30], whole.as_slice()].concat();
    let found = read(&Session::new(SESSION, Vec::new(), damaged));
    assert_eq!(said(&found, None), ["One.", "Two."]);
    let [Gap::Unreadable { count: 2, reasons }] = &found.reconciliation().gaps[..] else {
        panic!("{:?}", found.reconciliation().gaps)
    };
    assert_eq!(reasons, &["not_json"]);
}

#[test]
fn half_a_character_costs_no_words() {
    let half = |id: &str, minute, text: &str| {
        let line = prompt(id, minute, "HERE", &json!({})).to_string();
        line.replace("HERE", text) + "\n"
    };
    let lines = half("u1", 1, r"numbat \ud99c ends") + &half("u2", 2, r"\ud83d\udc1b");
    let hook = format!(
        r#"{{"session_id":"{SESSION}","hook_event_name":"UserPromptSubmit","prompt":"kiwi \ud83d x"}}"#
    );
    let session = Session::new(SESSION, vec![hook.into_bytes()], lines.into_bytes());
    let found = read(&session);
    let all = said(&found, None);
    assert!(all.contains(&"numbat \u{fffd} ends") && all.contains(&"🐛"), "{all:?}");
    assert!(all.contains(&"kiwi \u{fffd} x"), "{all:?}");
}
