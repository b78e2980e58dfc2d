//! Whose words a line has, in which order they stand, how tool uses ended and what a conversation is called.

use arrakis_core::record::store::ConversationDetail;
use arrakis_core::session::conversation::{
    Block, Conversation, MessageOrigin, Role, TitleSource, ToolStatus, ToolUse,
};
use arrakis_core::testkit::recorded::{fault, recording};
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

fn read_fault(name: &str) -> ConversationDetail {
    read(&fault(name).remove(0))
}

/// A session of these hooks and lines, a second apart.
fn session(hooks: &[Value], lines: &[Value]) -> Session {
    let hooks = hooks.iter().map(|hook| {
        let mut hook = hook.clone();
        hook["session_id"] = json!("s");
        hook.to_string().into_bytes()
    });
    let line = |(n, line): (usize, &Value)| {
        let mut line = line.clone();
        if line.get("uuid").is_none() && line.get("message").is_some() {
            line["uuid"] = json!(format!("line-{n}"));
        }
        if line.get("message").is_some() || line.get("content").is_some() {
            line["timestamp"] = json!(format!("2026-11-24T00:55:{n:02}Z"));
        }
        format!("{line}\n")
    };
    let lines: String = lines.iter().enumerate().map(line).collect();
    Session::new("s", hooks.collect(), lines.into_bytes())
}

fn said(detail: &ConversationDetail) -> Vec<(Role, &str)> {
    let words = detail.messages.iter().map(|one| (one.role, one.content.value.as_str()));
    words.filter(|(_, words)| !words.is_empty()).collect()
}

fn title(conversation: &Conversation) -> (TitleSource, &str) {
    let title = conversation.title.as_ref().expect("a title");
    (title.source, &title.value)
}

fn user(words: &str) -> Value {
    json!({"type": "user", "message": {"content": words}})
}

#[test]
fn what_the_person_said_in_results_is_theirs() {
    let detail = read_fault("words-in-results");
    assert_eq!(
        said(&detail),
        [
            (Role::User, "Paint the wall."),
            (Role::User, "not red, take the ochre from the cellar"),
            (Role::User, "the badger one"),
            (Role::System, "$ ls cellar"),
            (Role::System, "ochre.tin"),
            (Role::System, "Background command \"dry\" completed"),
            (Role::Assistant, "Painted."),
        ]
    );
    let answers = detail.messages.iter().filter(|one| one.origin == MessageOrigin::Answer);
    assert_eq!(answers.count(), 2);
    assert_eq!(detail.tool_uses[0].status(), ToolStatus::Denied);

    let detail = read(&recording("10-permission-denied-with-reason").remove(0));
    let of_person = |detail: &ConversationDetail| -> Vec<String> {
        let all = detail.messages.iter().filter(|one| one.role == Role::User);
        all.map(|one| one.content.value.clone()).collect()
    };
    assert_eq!(of_person(&detail), ["@@play perm", "no, use the mahogany folder instead"]);
    let detail = read(&recording("11-questions").remove(0));
    assert_eq!(
        of_person(&detail),
        ["@@play ask", "Oak", "@@play ask again", "rather walnut, dark"]
    );
}

#[test]
fn words_in_results_are_found_in_every_wording() {
    let result = |n: usize, fields: Value| {
        let mut line = json!({"type": "user", "message": {"content": [{"type": "tool_result",
            "tool_use_id": format!("t{n}")}]}});
        for (name, value) in fields.as_object().unwrap() {
            match name.as_str() {
                "content" | "is_error" => line["message"]["content"][0][name] = value.clone(),
                _ => line[name] = value.clone(),
            }
        }
        line
    };
    let lines = [
        result(
            0,
            json!({"is_error": true, "content": "The user doesn't want to proceed with this tool use. \
            The tool use was rejected. The user provided the following reason for the rejection:  use oak"}),
        ),
        result(
            1,
            json!({"is_error": true, "content": [{"type": "text", "text":
            "The user doesn't want to take this action right now. the user said:\nlater\n\nNote: The user's \
             next message may contain a correction"}]}),
        ),
        result(
            2,
            json!({"content": "User has answered your questions: \"Which?\"=\"the wide one\", \
            \"How often?\"=\"twice\". You can now continue."}),
        ),
        result(
            3,
            json!({"content": "ok", "toolUseResult": {"answers": {"A?": ["x", "y"], "B?": "z"},
            "annotations": {"B?": {"notes": "but slowly"}}}}),
        ),
        result(4, json!({"content": "the user said:\nnothing, it is a file"})),
    ];
    let detail = read(&session(&[], &lines));
    let words: Vec<&str> = said(&detail).into_iter().map(|(_, words)| words).collect();
    assert_eq!(
        words,
        [
            "use oak",
            "later",
            "Which? the wide one\nHow often? twice",
            "A? x, y\nB? z\nB? but slowly",
        ]
    );
}

#[test]
fn lines_of_the_client_that_carry_meaning_have_words_and_blank_ones_do_not() {
    let detail = read_fault("system-lines");
    assert_eq!(
        said(&detail),
        [
            (Role::User, "Hello."),
            (Role::System, "API error 529: Overloaded; retry 1 of 10 in 0.6 s"),
            (
                Role::System,
                "Stop hook: lint.sh: 3 problems in till.rs\nthe session was stopped: lint failed"
            ),
            (Role::Assistant, "Hello!"),
        ]
    );
    let blank = detail.messages.iter().find(|one| one.content.value.is_empty()).unwrap();
    assert!(blank.blocks.is_empty() && blank.usage.is_some());
    let nested = json!({"type": "system", "subtype": "api_error", "uuid": "u", "content": "",
        "error": {"status": 500, "error": {"type": "error", "error": {"message": "Inner"}}}});
    let gone = json!({"type": "system", "subtype": "api_error", "uuid": "v", "content": "",
        "error": {}, "cause": {"code": "ECONNRESET"}, "retryAttempt": 2, "maxRetries": 10});
    let quiet = json!({"type": "system", "subtype": "stop_hook_summary", "uuid": "w", "content": "",
        "hookErrors": [], "preventedContinuation": false});
    let compaction = json!({"type": "system", "subtype": "compact_boundary", "uuid": "x",
        "content": "Conversation compacted", "compactMetadata": {"trigger": "manual",
        "preTokens": 1362, "postTokens": 64, "messagesSummarized": 47}});
    let detail = read(&session(&[], &[nested, gone, quiet, compaction]));
    let words: Vec<&str> = said(&detail).into_iter().map(|(_, words)| words).collect();
    assert_eq!(
        words,
        [
            "API error 500: Inner",
            "API error: ECONNRESET; retry 2 of 10",
            "Conversation compacted (manual, 47 lines summed up, 1362 to 64 tokens)",
        ]
    );
}

#[test]
fn lines_of_one_time_follow_each_other_as_in_the_file() {
    let detail = read_fault("order-at-one-time");
    let words: Vec<&str> = said(&detail).into_iter().map(|(_, words)| words).collect();
    assert_eq!(words, ["/exit", "See you!", "Count to three.", "One.", "Two.", "Three."]);
    // In a circle they stay in the order of their ids.
    let mut lines = [user("a"), user("b")];
    for (n, line) in lines.iter_mut().enumerate() {
        line["uuid"] = json!(format!("u{n}"));
        line["parentUuid"] = json!(format!("u{}", 1 - n));
        line["timestamp"] = json!("2026-11-24T00:55:00Z");
    }
    let text = lines.map(|line| format!("{line}\n")).concat();
    let detail = read(&Session::new("s", Vec::new(), text.into_bytes()));
    assert_eq!(said(&detail), [(Role::User, "a"), (Role::User, "b")]);
}

#[test]
fn what_a_later_prompt_replaced_is_known() {
    let replaced = |detail: &ConversationDetail| -> Vec<(String, String, bool)> {
        let words = |id| {
            let found = detail.messages.iter().find(|one| one.id == id);
            found.unwrap().content.value.clone()
        };
        let all = detail.replaced.iter();
        all.map(|part| (words(part.prompt_id), words(part.by), part.is_answered)).collect()
    };
    let of = |from: &str, by: &str, is_answered| (from.to_owned(), by.to_owned(), is_answered);
    let detail = read_fault("rewound-branch-unmarked");
    assert_eq!(replaced(&detail), [of("Abandoned question", "Kept question", true)]);
    let detail = read(&recording("04-rewind").remove(0));
    let anew = "second about pine, said anew after the rewind";
    assert_eq!(replaced(&detail), [of("second about pine", anew, true)]);
    // Sent, taken back before anything of the answer came, and no title.
    let detail = read(&recording("03-unsent").remove(0));
    let first = "@@play hang words sent too soon";
    assert_eq!(replaced(&detail), [of(first, "the better words", false)]);
    for name in
        ["02-queued", "14-background-agent", "19-compacted-by-itself", "23-scheduled-prompt"]
    {
        assert_eq!(recording(name).remove(0).expected("main").replaced, [], "{name}");
    }
}

#[test]
fn where_a_replaced_part_goes_on_two_clients_were_heard() {
    let line = |kind: &str, uuid: &str, parent: &str, words: &str| {
        let content = json!([{"type": "text", "text": words}]);
        json!({"type": kind, "uuid": uuid, "parentUuid": parent,
            "message": {"id": format!("m-{uuid}"), "content": content}})
    };
    let mut lines = vec![
        line("assistant", "a", "", "hello"),
        line("user", "b", "a", "in one terminal"),
        line("assistant", "c", "b", "one"),
        line("user", "d", "a", "in the other"),
        line("assistant", "e", "d", "other"),
    ];
    assert_eq!(read(&session(&[], &lines)).replaced.len(), 1);
    lines.push(line("user", "f", "c", "again in the first"));
    assert_eq!(read(&session(&[], &lines)).replaced, []);
    let detail = read(&recording("15-two-clients").remove(0));
    assert_eq!(detail.replaced, []);
    assert!(detail.messages.iter().all(|one| !one.content.value.is_empty()));
}

#[test]
fn tool_uses_that_did_not_run_are_denied_and_those_that_were_stopped_interrupted() {
    use ToolStatus::{Denied, Interrupted};
    let statuses = |detail: &ConversationDetail| -> Vec<ToolStatus> {
        detail.tool_uses.iter().map(ToolUse::status).collect()
    };
    let detail = read_fault("denied-by-words-counted-failed");
    let expected = [Denied, Denied, Denied, Denied, Denied, Denied, Interrupted];
    assert_eq!(statuses(&detail), expected);
    assert!(detail.tool_uses[..6].iter().all(|one| one.duration_ms().is_none()));
    let detail = read(&recording("03-tool-interrupted").remove(0));
    assert_eq!(statuses(&detail), [Interrupted]);
    assert!(detail.tool_uses[0].duration_ms().is_some());
    let detail = read(&recording("10-permission-denied-with-reason").remove(0));
    assert_eq!(statuses(&detail), [Denied]);
    assert!(detail.tool_uses[0].is_by_person);
    let hooks = [
        json!({"hook_event_name": "PostToolUseFailure", "tool_use_id": "t", "tool_name": "Bash",
            "error": "stopped", "is_interrupt": true}),
        json!({"hook_event_name": "PostToolUse", "tool_use_id": "u", "tool_name": "Bash",
            "tool_response": {"stdout": "", "interrupted": true}}),
    ];
    assert_eq!(statuses(&read(&session(&hooks, &[]))), [Interrupted, Interrupted]);
}

#[test]
fn a_conversation_is_called_as_the_person_or_the_client_says_else_by_the_first_prompt() {
    let mut titles: Vec<String> = fault("title-clear-and-ide-tags")
        .iter()
        .map(|session| read(session).conversation.title.unwrap().value)
        .collect();
    titles.sort();
    let expected =
        ["Paint the barn door green.", "Quarterly weaving plan", "Rename the warp counter."];
    assert_eq!(titles, expected);
    let detail = read(&recording("08-rename").remove(0));
    assert_eq!(title(&detail.conversation), (TitleSource::Custom, "Oak table plans"));
    let detail = read(&recording("03-unsent").remove(0));
    assert_eq!(title(&detail.conversation).0, TitleSource::Client);

    let custom = |text: &str| json!({"type": "custom-title", "customTitle": text});
    let ai = |text: &str| json!({"type": "ai-title", "aiTitle": text});
    let summary = |text: &str| json!({"type": "summary", "summary": text, "leafUuid": "x"});
    let of = |hooks: &[Value], lines: &[Value]| {
        read(&session(hooks, lines)).conversation.title.map(|one| (one.source, one.value))
    };
    let is = |source, text: &str| Some((source, text.to_owned()));
    assert_eq!(of(&[], &[user("/clear"), user("first")]), is(TitleSource::Prompt, "first"));
    assert_eq!(of(&[], &[user("/clear")]), None);
    let lines = [user("first"), custom("old"), ai("summed up"), custom("new"), user("second")];
    assert_eq!(of(&[], &lines), is(TitleSource::Custom, "new"), "the later one in the file");
    let lines = [summary("of another session"), user("first")];
    assert_eq!(session(&[], &lines).expected("main").conversation.title.unwrap().value, "first");
    let hook =
        json!({"hook_event_name": "UserPromptSubmit", "prompt": "go", "session_title": "Named"});
    assert_eq!(of(std::slice::from_ref(&hook), &[]), is(TitleSource::Hook, "Named"));
    assert_eq!(of(&[hook], &[user("go"), custom("Renamed")]), is(TitleSource::Custom, "Renamed"));
    // A prompt that was sent anew has the number of the one that it replaced.
    let mut lines = [user("too soon"), user("better"), user("second")];
    for (line, n) in lines.iter_mut().zip([1, 1, 2]) {
        line["turnPosition"] = json!({"promptIndex": n});
    }
    assert_eq!(of(&[], &lines), is(TitleSource::Prompt, "better"));
}

#[test]
fn what_the_client_puts_before_a_prompt_is_named_only() {
    let expected = "Rename the warp counter.";
    let told = "<ide_opened_file>The user opened a.rs in the IDE.</ide_opened_file>";
    let blocks = json!({"type": "user", "message": {"content": [
        {"type": "text", "text": told}, {"type": "text", "text": expected}]}});
    for line in [blocks, user(&format!("{told}\n{expected}"))] {
        let hook = json!({"hook_event_name": "UserPromptSubmit", "prompt": expected});
        let detail = read(&session(&[hook], &[line]));
        assert_eq!(said(&detail), [(Role::User, expected)]);
        let blocks: Vec<&Block> = detail.messages[0].blocks.iter().map(|(_, one)| one).collect();
        let kind = "The user opened a.rs in the IDE.".to_owned();
        assert_eq!(blocks[0], &Block::Other { kind });
    }
}

#[test]
fn last_words_that_are_told_again_are_shown_once() {
    let stop = json!({"hook_event_name": "Stop", "last_assistant_message": "Once said."});
    let line = fault("stop-twice-ghost-answer").remove(0).transcripts.remove(0).1;
    let prompt = json!({"hook_event_name": "UserPromptSubmit", "prompt": "Say it once."});
    let hooks = |all: &[&Value]| -> Vec<Vec<u8>> {
        let named = |hook: &&Value| {
            let mut hook = (*hook).clone();
            hook["session_id"] = json!("s");
            hook.to_string().into_bytes()
        };
        all.iter().map(named).collect()
    };
    let twice = hooks(&[&prompt, &stop, &stop]);
    let expected = [(Role::User, "Say it once."), (Role::Assistant, "Once said.")];
    for text in [Vec::new(), line] {
        let detail = read(&Session::new("s", twice.clone(), text));
        assert_eq!(said(&detail), expected);
    }
    // Of two turns both are there.
    let detail = read(&Session::new("s", hooks(&[&prompt, &stop, &prompt, &stop]), Vec::new()));
    assert_eq!(said(&detail).len(), 4);
}

#[test]
fn answers_of_one_id_are_told_apart_by_their_requests_and_by_what_led_to_them() {
    let find = |id: &str| {
        let all = fault("shared-message-id");
        read(all.iter().find(|one| one.session_id.starts_with(id)).unwrap())
    };
    let detail = find("ae000004");
    assert_eq!(detail.tool_uses.len(), 6);
    assert_eq!(detail.usage.total.input_tokens, 6115);
    let detail = find("a0000015");
    let words: Vec<String> =
        (0..3).flat_map(|n| [format!("Question {n}."), format!("Same id answer {n}.")]).collect();
    assert_eq!(said(&detail).into_iter().map(|one| one.1).collect::<Vec<_>>(), words);
    assert_eq!(detail.usage.total.input_tokens, 300);
}

#[test]
fn tool_uses_of_one_number_are_told_apart() {
    use ToolStatus::{Failed, Succeeded};
    let of = |detail: &ConversationDetail| -> Vec<(String, ToolStatus, Option<String>)> {
        let all = detail.tool_uses.iter();
        let response = |result: &arrakis_core::session::conversation::ToolResult| {
            result.response.as_ref().map(|json| json.as_str().to_owned())
        };
        all.map(|one| {
            let response = one.result.as_ref().and_then(response);
            (one.tool_name.clone(), one.status(), response)
        })
        .collect()
    };
    let is = |name: &str, status, response: &str| {
        (name.to_owned(), status, Some(format!("\"{response}\"")))
    };
    let transcript = fault("shared-tool-use-id").remove(0);
    let expected = [
        is("Bash", Failed, "result 0"),
        is("Read", Succeeded, "result 1"),
        is("Grep", Succeeded, "result 2"),
    ];
    assert_eq!(of(&read(&transcript)), expected);

    let hook = |kind: &str, n: usize, tool: &str| {
        json!({"session_id": transcript.session_id, "hook_event_name": kind, "prompt_id": format!("ps{n}"),
            "tool_use_id": "call_0", "tool_name": tool, "tool_input": {"command": format!("step{n}")},
            "error": format!("result {n}"), "tool_response": format!("result {n}")})
        .to_string()
        .into_bytes()
    };
    let hooks = vec![
        hook("PreToolUse", 0, "Bash"),
        hook("PostToolUseFailure", 0, "Bash"),
        hook("PreToolUse", 1, "Read"),
        hook("PostToolUse", 1, "Read"),
        hook("PreToolUse", 2, "Grep"),
        hook("PostToolUse", 2, "Grep"),
    ];
    let both = Session { hooks: hooks.clone(), ..transcript.clone() };
    let detail = read(&both);
    assert_eq!(of(&detail), expected);
    assert!(detail.tool_uses.iter().all(|one| one.seen.hook && one.seen.transcript));
    let told = Session { transcripts: Vec::new(), ..both };
    assert_eq!(of(&read(&told)), expected);
}
