//! What people have said in recorded sessions of both versions of the client: each prompt once, in order,
//! whoever tells of it, and no word of the client as if the person had said it.

use std::sync::Arc;

use arrakis_core::base::clock::{SystemClock, Timestamp};
use arrakis_core::record::store::{ConversationDetail, MemoryStore};
use arrakis_core::session::conversation::{
    Message, MessageOrigin, Role, Stamp, Stamped, TitleSource, visible,
};
use arrakis_core::testkit::recorded::recorded;
use arrakis_core::testkit::recorded::{RECORDINGS, fault, recording};
use arrakis_core::testkit::sessions::{Session, conversation_of, record_shuffled};
use serde_json::json;
use uuid::Uuid;

/// What the person has said in a session, by hand from what was done when it was recorded.
struct Said {
    /// How the session's id begins.
    session: &'static str,
    /// What the transcript has.
    prompts: &'static [&'static str],
    /// Which of them waited in the queue.
    queued: &'static [&'static str],
    /// What is known while only hooks have told of it.
    by_hooks: &'static [&'static str],
}

const fn said(session: &'static str, prompts: &'static [&'static str]) -> Said {
    Said { session, prompts, queued: &[], by_hooks: prompts }
}

const PASTED: &str = "<pasted_content id=\"874d\">";

const ALL: &[Said] = &[
    // 2.1.330
    said("c88ceccb", &["@@play bash", "@@play fail"]),
    said("c3de4e8d", &["@@play files"]),
    said("06cbac0f", &["@@play parallel"]),
    said("3c150d3c", &["@@play agent"]),
    said("8493f639", &["@@play agents3"]),
    said("197da2db", &["@@play fail"]),
    // No hook runs for a command.
    Said {
        by_hooks: &["@@play multi"],
        ..said("1f9b5e4a", &["@@play multi", "/compact keep it short"])
    },
    // 2.1.332
    said("8ba9402f", &["@@play agent"]),
    Said {
        by_hooks: &["@@play multi"],
        ..said("cd0dddb1", &["@@play multi", "/compact keep it short"])
    },
    // A fork begins with what its parent has kept.
    Said {
        by_hooks: &["@@play bash"],
        ..said("0ede4633", &["/compact keep it short", "@@play bash"])
    },
    Said {
        queued: &["typed meanwhile: use the zebrawood"],
        ..said("83ca7e7e", &["@@play slowtool", "typed meanwhile: use the zebrawood"])
    },
    Said {
        by_hooks: &["@@play bash", "@@play multi", "@@play slowtool"],
        ..said("f167080f", &["@@play bash", "/model sonnet", "@@play multi", "@@play slowtool"])
    },
    Said { by_hooks: &[], ..said("e2dc5d0b", &["/clear", "@@play bash"]) },
    Said {
        queued: &["queued words: use the zebrawood", "second queued words: and the teak"],
        ..said(
            "c067effe",
            &[
                "@@play slowtool please",
                "queued words: use the zebrawood",
                "second queued words: and the teak",
            ],
        )
    },
    // That it was taken back stands in the transcript alone.
    Said {
        by_hooks: &["@@play slowtool please", "taken back words: mahogany", "a later prompt"],
        ..said("dcf6fa78", &["@@play slowtool please", "a later prompt"])
    },
    Said {
        queued: &["queued during the answer: yew"],
        ..said("77e6ea5d", &["@@play drip please", "queued during the answer: yew"])
    },
    // Commands of the shell are no prompts.
    said("e80c8ffe", &["@@play bash first", "and what was that"]),
    said("bb78d650", &["@@play slower please", "after the interrupt"]),
    said("48322368", &["@@play hang words sent too soon", "the better words"]),
    said(
        "8cb4657b",
        &[
            "@@play bash first about oak",
            "second about pine",
            "third about teak",
            "second about pine, said anew after the rewind",
        ],
    ),
    said(
        "1f186495",
        &[
            "@@play bash in the first client",
            "in the second client",
            "again in the first client",
            "again in the second client",
        ],
    ),
    said("af96feb7", &["@@play perm"]),
    said("2d2ea448", &["@@play ask", "@@play ask again"]),
    said("dc698f62", &["@@play bash before the clear"]),
    Said { by_hooks: &["after the clear"], ..said("eb6284c8", &["/clear", "after the clear"]) },
    said("a6a4ee6e", &["@@play bash first about oak", "after the rename"]),
    said("c40858ac", &["@@play bgagent"]),
    said(
        "988e4f98",
        &[
            "look at @notes.md please",
            "look at @pic.png and tell",
            "[Image #1] what is in this picture",
            PASTED,
        ],
    ),
    said("9d580d10", &["@@play bash before it grows", "@@play hugeplain", "after it has grown"]),
    said(
        "eafc59ca",
        &[
            "@@play think",
            "@@play web",
            "@@play fast",
            "@@play other",
            "@@play refuse",
            "@@play maxtok",
        ],
    ),
    // The hook of a scheduled prompt does not say that nobody has typed it.
    Said {
        by_hooks: &["@@play cron", "scheduled words: water the yew"],
        ..said("b5e4b9e2", &["@@play cron"])
    },
];

fn sessions() -> Vec<Session> {
    recorded().into_iter().chain(RECORDINGS.iter().flat_map(|name| recording(name))).collect()
}

fn of(session: &Session) -> &'static Said {
    let found = ALL.iter().find(|one| session.session_id.starts_with(one.session));
    found.unwrap_or_else(|| panic!("what was said in {} is not noted", session.session_id))
}

/// What stands under "you".
fn prompts(detail: &ConversationDetail) -> Vec<&Message> {
    let all = detail.messages.iter();
    let is_prompt = |one: &&Message| {
        let is_answer = one.origin == MessageOrigin::Answer;
        one.role == Role::User && one.agent_id.is_none() && !is_answer
    };
    all.filter(is_prompt).collect()
}

fn assert_said(detail: &ConversationDetail, expected: &[&str], what: &str) {
    let found: Vec<&str> = prompts(detail)
        .into_iter()
        .map(|one| {
            let words = one.content.value.trim();
            if words.starts_with(PASTED) { PASTED } else { words }
        })
        .collect();
    assert_eq!(found, expected, "{what} of {}", detail.conversation.session_id);
    if let Some(title) = &detail.conversation.title {
        let is_said = expected.iter().any(|prompt| *prompt == title.value);
        let is_said = is_said && !title.value.starts_with('/');
        assert!(is_said || title.source > TitleSource::Prompt, "{what}: {title:?}");
    }
}

fn without_hooks(session: &Session) -> Session {
    Session { hooks: Vec::new(), ..session.clone() }
}

#[test]
fn every_prompt_is_there_once_by_hooks_by_the_transcript_and_by_both() {
    let sessions = sessions();
    assert_eq!(sessions.len(), ALL.len(), "every session is looked at");
    for session in sessions {
        let said = of(&session);
        let hooks = Session { transcripts: Vec::new(), ..session.clone() };
        assert_said(&hooks.expected("main"), said.by_hooks, "hooks");
        assert_said(&without_hooks(&session).expected("main"), said.prompts, "transcript");
        let both = session.expected("main");
        assert_said(&both, said.prompts, "both");
        let queued: Vec<&str> = prompts(&both)
            .into_iter()
            .filter(|one| one.origin == MessageOrigin::Queued)
            .map(|one| &*one.content.value)
            .collect();
        assert_eq!(queued, said.queued);
        assert!(both.messages.iter().all(|one| one.origin.is_line()), "nothing is there twice");
        let is_old = |at: Timestamp| at < "2026-11-24T00:00:00Z".parse().unwrap();
        assert!(!is_old(both.conversation.started_at) && !is_old(both.conversation.last_event_at));
        assert!(both.messages.iter().all(|one| !is_old(one.content.stamp.at)));
        assert!(both.tool_uses.iter().all(|one| !is_old(one.first.at)));
    }
}

#[test]
fn neither_order_nor_repeats_nor_slices_matter() {
    for session in sessions() {
        let said = of(&session);
        for seed in 0..8 {
            let found = conversation_of(&session.shuffled("main", seed));
            assert_said(&found, said.prompts, &format!("seed {seed}"));
            let imported = without_hooks(&session).shuffled("main", seed);
            assert_said(&conversation_of(&imported), said.prompts, &format!("import, seed {seed}"));
        }
    }
}

#[tokio::test]
async fn a_store_in_memory_has_the_same() {
    let store = MemoryStore::new(Arc::new(SystemClock));
    for session in sessions() {
        record_shuffled(&store, &session, 1).await;
    }
}

#[test]
fn prompts_that_wait_stand_where_they_were_typed_and_are_marked() {
    let session = recording("02-queued").remove(0);
    let detail = session.expected("main");
    let at: Vec<String> =
        prompts(&detail).iter().map(|one| one.content.stamp.at.to_string()).collect();
    assert_eq!(
        at,
        [
            "2026-11-29T19:55:33.761000Z",
            "2026-11-29T19:55:35.969000Z",
            "2026-11-29T19:55:37.738000Z"
        ]
    );
    // One that became a turn of its own stands where it did, and says when it was typed.
    let session = recording("02-queued-while-answering").remove(0);
    let detail = session.expected("main");
    let queued = prompts(&detail)[1];
    assert_eq!(queued.content.stamp.at.to_string(), "2026-11-29T20:03:20.685000Z");
    assert_eq!(queued.sent_at.unwrap().to_string(), "2026-11-29T20:03:03.055000Z");
}

#[test]
fn two_prompts_of_one_prompt_id_are_two_messages() {
    let session = fault("shared-prompt-id").remove(0);
    let detail = session.expected("main");
    let words: Vec<_> = detail.messages.iter().map(|one| &*one.content.value).collect();
    assert_eq!(words, ["Sweep the floor.", "Swept.", "/exit"]);
}

#[test]
fn a_prompt_that_was_handed_over_within_a_turn_is_the_persons() {
    let sessions = fault("queued-message-lost");
    assert_eq!(sessions.len(), 2);
    for session in sessions {
        let detail = session.expected("main");
        let expected =
            ["Weave the northern pattern.", "Stop and use the zebrawood shuttle instead."];
        assert_said(&detail, &expected, "import");
        assert_eq!(prompts(&detail)[1].origin, MessageOrigin::Queued);
    }
}

#[test]
fn notifications_are_the_clients() {
    let detail = fault("notifications-shown-as-you").remove(0).expected("main");
    assert_said(&detail, &["Start the kiln in the background."], "import");
    let system = detail.messages.iter().filter(|one| one.role == Role::System).count();
    assert_eq!(system, 2);
}

#[test]
fn a_prompt_that_a_hook_kept_from_the_model_was_never_said() {
    let hook = |prompt: &str| {
        json!({"session_id": "s", "hook_event_name": "UserPromptSubmit", "prompt_id": prompt,
            "prompt": prompt})
        .to_string()
        .into_bytes()
    };
    let line = |kept: bool| {
        json!({"type": "system", "subtype": "informational", "uuid": Uuid::from_u128(1),
            "timestamp": "2026-11-30T00:49:24.279Z",
            "content": "UserPromptSubmit operation blocked by hook:\n[guard]: a hook forbids it\n\n\n\
                        Original prompt: forbidden\nwords",
            "promptSubmitEnding": {"ending": {"kind": "blocked_by_hook"}, "promptKept": kept}})
    };
    let session = |kept| {
        let hooks = ["others", "forbidden\nwords"].map(hook).to_vec();
        Session::new("s", hooks, format!("{}\n", line(kept)).into_bytes())
    };
    let detail = session(false).expected("main");
    assert_said(&detail, &["others"], "blocked");
    let told = detail.messages.iter().filter(|one| one.role == Role::System).count();
    assert_eq!(told, 1, "the client says that it was blocked");
    for seed in 0..4 {
        let detail = conversation_of(&session(false).shuffled("main", seed));
        assert_said(&detail, &["others"], "shuffled");
    }
    assert_said(&session(true).expected("main"), &["others", "forbidden\nwords"], "kept");
}

#[test]
fn a_prompt_of_which_only_the_queue_has_a_trace_is_shown() {
    let queue = |operation: &str, at: &str, content: &str| json!({"type": "queue-operation", "operation": operation, "timestamp": at, "content": content});
    let user = |uuid: &str, at: &str, content: &str| json!({"type": "user", "uuid": uuid, "timestamp": at, "message": {"content": content}});
    let lines = [
        queue("enqueue", "2026-11-24T00:00:00.000Z", "first"),
        user("u1", "2026-11-24T00:00:00.010Z", "first"),
        queue("enqueue", "2026-11-24T00:00:05.000Z", "in between"),
        queue("enqueue", "2026-11-24T00:00:06.000Z", "/clear"),
        queue("enqueue", "2026-11-24T00:00:07.000Z", "/etc/hosts is wrong"),
        queue("enqueue", "2026-11-24T00:00:08.000Z", "never mind"),
        queue("popAll", "2026-11-24T00:00:09.000Z", "never mind"),
        queue("enqueue", "2026-11-24T00:00:10.000Z", "<task-notification>done</task-notification>"),
    ];
    let text = lines.map(|line| format!("{line}\n")).concat().into_bytes();
    let hook = |prompt: &str| {
        json!({"session_id": "s", "hook_event_name": "UserPromptSubmit", "prompt_id": "p",
            "prompt": prompt})
        .to_string()
        .into_bytes()
    };
    let hooks = ["first", "in between", "never mind"].map(hook).to_vec();
    let expected = ["first", "in between", "/etc/hosts is wrong"];
    for hooks in [Vec::new(), hooks] {
        let session = Session::new("s", hooks, text.clone());
        assert_said(&session.expected("main"), &expected, "old client");
        let detail = session.expected("main");
        assert!(prompts(&detail)[1].origin.has_waited());
        for seed in 0..8 {
            assert_said(&conversation_of(&session.shuffled("main", seed)), &expected, "shuffled");
        }
    }
}

/// A prompt at a second of a minute.
fn prompt(origin: MessageOrigin, second: i64, text: &str) -> Message {
    let at = Timestamp::from_millis(1_795_000_000_000 + second * 1000);
    let stamp = Stamp { at, request_id: format!("r{second}").parse().unwrap() };
    let content = Stamped::new(&stamp, text.to_owned());
    Message::new(Uuid::nil(), None, Role::User, origin, content)
}

fn shown(messages: &[Message]) -> Vec<(MessageOrigin, i64)> {
    let second = |one: &Message| (one.content.stamp.at.as_millis() - 1_795_000_000_000) / 1000;
    visible(messages.to_vec()).iter().map(|one| (one.origin, second(one))).collect()
}

#[test]
fn of_prompts_with_the_same_words_those_near_in_time_are_one() {
    use MessageOrigin::{Enqueued, Prompt, Queued, Transcript, Withdrawn};
    // Two were sent; the transcript has the first so far.
    let mut all = vec![prompt(Prompt, 1, "go on"), prompt(Prompt, 50, "go  on\n")];
    all.push(prompt(Transcript, 2, "go on"));
    assert_eq!(shown(&all), [(Transcript, 2), (Prompt, 50)]);
    // It has the second one only: the first was stopped by another hook.
    all[2] = prompt(Transcript, 51, "go on");
    assert_eq!(shown(&all), [(Prompt, 1), (Transcript, 51)]);
    all.push(prompt(Transcript, 90, "go on"));
    assert_eq!(shown(&all), [(Transcript, 51), (Transcript, 90)]);
    // A line that came late tells when it was sent.
    let late = Message { sent_at: Some(all[0].content.stamp.at), ..prompt(Queued, 60, "go on") };
    let all = [prompt(Prompt, 1, "go on"), prompt(Prompt, 50, "go on"), late];
    assert_eq!(shown(&all), [(Prompt, 50), (Queued, 60)]);
    // Taken back and sent again at once.
    let mut all = vec![prompt(Prompt, 10, "go on"), prompt(Withdrawn, 20, "go on")];
    all.push(prompt(Prompt, 21, "go on"));
    assert_eq!(shown(&all), [(Prompt, 21)]);
    all.push(prompt(Transcript, 22, "go on"));
    assert_eq!(shown(&all), [(Transcript, 22)]);
    // One of the queue has a hook of its own; a line that was there before is not its.
    let all = [
        prompt(Prompt, 1, "yes"),
        prompt(Transcript, 2, "yes"),
        prompt(Prompt, 30, "yes"),
        prompt(Enqueued, 31, "other"),
    ];
    assert_eq!(shown(&all), [(Transcript, 2), (Prompt, 30), (Enqueued, 31)]);
    let all = [prompt(Prompt, 30, "yes"), prompt(Enqueued, 31, "yes")];
    assert_eq!(shown(&all), [(Enqueued, 31)]);
}

#[test]
fn a_prompt_that_the_client_changed_is_known_by_its_id_unless_that_has_a_hook() {
    use MessageOrigin::{Prompt, Transcript};
    let with_id = |message: Message| Message { prompt_id: Some("p".to_owned()), ..message };
    let hook = with_id(prompt(Prompt, 1, "look at it"));
    let line = with_id(prompt(Transcript, 2, "<opened>x</opened> look at it"));
    assert_eq!(shown(&[hook.clone(), line.clone()]), [(Transcript, 2)]);
    // One that waits has the same id, and no line yet.
    let waiting = with_id(prompt(Prompt, 30, "and then?"));
    let own = with_id(prompt(Transcript, 2, "look at it"));
    assert_eq!(shown(&[hook.clone(), own, waiting]), [(Transcript, 2), (Prompt, 30)]);
    let clients = Message { role: Role::System, ..line };
    assert_eq!(shown(&[hook, clients]), [(Prompt, 1), (Transcript, 2)]);
}

#[test]
fn the_line_says_whose_words_a_prompt_is() {
    use MessageOrigin::{Prompt, Transcript};
    let hook = prompt(Prompt, 1, "water the yew");
    let line = Message { role: Role::System, ..prompt(Transcript, 2, "water the yew") };
    assert_eq!(shown(&[hook.clone(), line.clone()]), [(Transcript, 2)]);
    let other_thread = Message { agent_id: Some("a".to_owned()), ..line };
    assert_eq!(shown(&[hook, other_thread]), [(Prompt, 1), (Transcript, 2)]);
}
