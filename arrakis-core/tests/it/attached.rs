//! What the client sends to the model beside a prompt, and what it writes between.

use arrakis_core::record::store::ConversationDetail;
use arrakis_core::session::conversation::{Block, Message, Notice, Role};
use arrakis_core::testkit::recorded::recording;
use arrakis_core::testkit::sessions::{Session, assert_same, conversation_of};
use serde_json::{Value, json};

/// What a session adds up to, in whatever order and slices it comes.
fn read(session: &Session) -> ConversationDetail {
    let detail = session.expected("main");
    for seed in 0..6 {
        let found = conversation_of(&session.shuffled("main", seed));
        assert_same(&found, &detail, &format!("seed {seed}"));
    }
    detail
}

/// What is named in a message.
fn named(message: &Message) -> Vec<&str> {
    let blocks = message.blocks.iter();
    let kinds = blocks.filter_map(|(_, block)| match block {
        Block::Other { kind } => Some(kind.as_str()),
        _ => None,
    });
    kinds.collect()
}

#[test]
fn what_a_prompt_mentions_is_a_part_of_it_and_what_that_holds_is_not_sent() {
    let session = recording("16-mentions-images-pastes").remove(0);
    for arrival in session.in_order("main") {
        assert!(!String::from_utf8_lossy(&arrival.body).contains("notes about oak"));
    }
    let detail = read(&session);
    let prompts: Vec<_> = detail.messages.iter().filter(|one| one.role == Role::User).collect();
    let found: Vec<_> = prompts.iter().map(|one| named(one)).collect();
    let expected: [&[&str]; 4] = [
        &["read notes.md (3 lines)"],
        &["read pic.png (image/png, 75 bytes)"],
        &["image from /home/dev/project/pic.png"],
        &[],
    ];
    assert_eq!(found, expected);
    assert_eq!(detail.messages.len(), 8, "nothing of it is a message of its own");
    let title = &detail.conversation.title.unwrap().value;
    assert_eq!(title, "Mock title of the talk");
}

/// A line of a session at this second.
fn line(n: usize, kind: &str, fields: &Value) -> Value {
    let mut line = json!({ "type": kind, "uuid": format!("u{n}"), "parentUuid": format!("u{}", n - 1),
        "timestamp": format!("2026-11-24T10:00:{n:02}Z") });
    line.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    line
}

fn session(lines: &[Value]) -> Session {
    let hook = json!({"session_id": "s", "hook_event_name": "Stop"}).to_string();
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    Session::new("s", vec![hook.into_bytes()], (lines.join("\n") + "\n").into_bytes())
}

#[test]
fn several_files_hang_on_their_prompt_and_those_of_none_are_left_out() {
    let file =
        |n: usize, attachment: &Value| line(n, "attachment", &json!({ "attachment": attachment }));
    let user = |n: usize, words: &str| {
        line(n, "user", &json!({ "message": { "role": "user", "content": words } }))
    };
    let detail = read(&session(&[
        user(1, "compare @a and @b"),
        file(2, &json!({ "type": "directory", "path": "a", "content": "x\ny" })),
        file(
            3,
            &json!({ "type": "file", "filename": "b", "content": { "type": "text",
            "file": { "content": "z", "numLines": 1, "totalLines": 9 } } }),
        ),
        line(
            4,
            "assistant",
            &json!({ "message": { "id": "m", "content": [{ "type": "text", "text": "ok" }] } }),
        ),
        file(5, &json!({ "type": "file", "filename": "again" })),
    ]));
    assert_eq!(
        named(&detail.messages[0]),
        ["read a (directory, 2 lines)", "read b (1 of 9 lines)"]
    );
    assert_eq!(detail.messages.len(), 2);
}

#[test]
fn the_transcript_tells_what_words_of_the_client_are() {
    let detail = read(&recording("22-name-and-style").remove(0));
    let notices = |notice| {
        let of_it = move |one: &&Message| one.notice == Some(notice);
        let all: Vec<_> = detail.messages.iter().filter(of_it).collect();
        all.iter().map(|one| one.content.value.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        notices(Notice::Command),
        ["/output-style Concise", "/color red", "/effort high", "/add-dir /home/dev/.cache"]
    );
    assert_eq!(notices(Notice::Output).len(), 4);
    assert_eq!(notices(Notice::ForModel).len(), 3);
}

#[test]
fn a_question_beside_the_conversation_has_its_answer() {
    let stop = json!({ "session_id": "s", "hook_event_name": "SubagentStop", "agent_id": "a1",
        "agent_type": "", "last_assistant_message": "Yew is toxic." });
    let detail =
        Session::new("s", vec![stop.to_string().into_bytes()], Vec::new()).expected("main");
    assert_eq!(detail.subagents.len(), 1);
    assert_eq!(detail.messages[0].content.value, "Yew is toxic.");
}
