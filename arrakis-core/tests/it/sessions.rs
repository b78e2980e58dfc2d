//! Whole sessions: what they add up to, and that it does not matter in which order, how often and in which
//! parts that comes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use arrakis_core::base::clock::{ManualClock, SystemClock, Timestamp};
use arrakis_core::record::ingest::judge;
use arrakis_core::record::store::{
    Arrival, ConversationDetail, EventReader, EventStore, MemoryStore,
};
use arrakis_core::session::conversation::{
    Block, Gap, Message, MessageOrigin, ResultRank, Role, ToolStatus, ToolUse,
};
use arrakis_core::session::usage::Usd;
use arrakis_core::testkit::recorded::recorded;
use arrakis_core::testkit::sessions::{
    Session, assert_same, conversation_of, generated, record_shuffled,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The recorded sessions, each with what it adds up to.
static RECORDED: LazyLock<Vec<(Session, ConversationDetail)>> = LazyLock::new(|| {
    let all = recorded().into_iter();
    all.map(|session| (session.clone(), session.expected("main"))).collect()
});

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    #[test]
    fn a_recorded_session_is_the_same_in_any_order_repetition_and_slicing(seed in any::<u64>()) {
        for (session, expected) in RECORDED.iter() {
            let found = conversation_of(&session.shuffled("main", seed));
            assert_same(&found, expected, &format!("seed {seed}"));
        }
    }

    #[test]
    fn a_generated_session_is_the_same_in_any_order_repetition_and_slicing(
        session in any::<u64>(), orders in prop::collection::vec(any::<u64>(), 4),
    ) {
        let session = generated(session);
        let expected = session.expected("main");
        for seed in orders {
            let found = conversation_of(&session.shuffled("main", seed));
            assert_same(&found, &expected, &format!("seed {seed}"));
        }
    }

    #[test]
    fn a_store_in_memory_keeps_it_so_in_any_batches(seed in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = MemoryStore::new(Arc::new(SystemClock));
            record_shuffled(&store, &generated(seed), seed).await;
            for (session, _) in RECORDED.iter() {
                record_shuffled(&store, session, seed).await;
            }
        });
    }
}

/// What the raw files say, read without the projection.
#[derive(Default)]
struct Raw {
    lines: Vec<Value>,
    hooks: Vec<Value>,
}

impl Raw {
    fn of(session: &Session) -> Self {
        let mut raw = Self::default();
        for (_, text) in &session.transcripts {
            let lines = text.split(|b| *b == b'\n').filter(|line| !line.is_empty());
            raw.lines.extend(lines.map(|line| serde_json::from_slice::<Value>(line).unwrap()));
        }
        raw.hooks = session.hooks.iter().map(|one| serde_json::from_slice(one).unwrap()).collect();
        raw
    }

    fn of_type(&self, line_type: &str) -> impl Iterator<Item = &Value> {
        self.lines.iter().filter(move |line| line["type"] == line_type)
    }

    /// The texts of the model's messages by the API's id.
    fn answers(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut answers = BTreeMap::<&str, Vec<&str>>::new();
        for line in self.of_type("assistant") {
            let texts = answers.entry(line["message"]["id"].as_str().unwrap()).or_default();
            let blocks = line["message"]["content"].as_array().unwrap();
            texts.extend(blocks.iter().filter_map(|block| block["text"].as_str()));
        }
        answers
    }

    /// The sum of a kind of tokens over the API's messages, each counted once.
    fn tokens(&self, kind: &str) -> u64 {
        let by_id: BTreeMap<&str, u64> = self
            .of_type("assistant")
            .map(|line| &line["message"])
            .map(|message| {
                (message["id"].as_str().unwrap(), message["usage"][kind].as_u64().unwrap())
            })
            .collect();
        by_id.into_values().sum()
    }

    fn tool_ids(&self) -> BTreeSet<&str> {
        let hooks = self.hooks.iter().filter_map(|hook| hook["tool_use_id"].as_str());
        let blocks = self.of_type("assistant").flat_map(|line| {
            line["message"]["content"].as_array().unwrap().iter().filter_map(|b| b["id"].as_str())
        });
        hooks.chain(blocks).collect()
    }

    fn agents(&self) -> BTreeSet<&str> {
        let started = self.hooks.iter().filter(|h| h["hook_event_name"] == "SubagentStart");
        started.filter_map(|hook| hook["agent_id"].as_str()).collect()
    }

    fn prompts(&self) -> Vec<&str> {
        let submitted = self.hooks.iter().filter(|h| h["hook_event_name"] == "UserPromptSubmit");
        submitted.map(|hook| hook["prompt"].as_str().unwrap()).collect()
    }
}

fn tool<'a>(detail: &'a ConversationDetail, id: &str) -> &'a ToolUse {
    detail.tool_uses.iter().find(|one| one.tool_use_id.as_deref() == Some(id)).unwrap()
}

fn said(detail: &ConversationDetail, role: Role) -> Vec<&Message> {
    detail.messages.iter().filter(|message| message.role == role).collect()
}

#[test]
fn recorded_sessions_hold_all_that_their_files_say() {
    let sessions = recorded();
    assert_eq!(sessions.len(), 7);
    for session in sessions {
        let (raw, detail) = (Raw::of(&session), session.expected("main"));
        let what = &session.session_id;

        // Every answer of the model once, whole, whoever told of it.
        let answers = raw.answers();
        let found = said(&detail, Role::Assistant);
        assert_eq!(found.len(), answers.len(), "{what}: {found:#?}");
        let mut texts: Vec<String> = answers.values().map(|texts| texts.join("\n\n")).collect();
        let mut words: Vec<String> =
            found.iter().map(|message| message.content.value.clone()).collect();
        texts.sort();
        words.sort();
        assert_eq!(words, texts, "{what}");

        // Every prompt once; what the main thread asks a subagent is a prompt of its thread.
        let users = said(&detail, Role::User);
        let (tasks, prompts): (Vec<&Message>, Vec<&Message>) =
            users.into_iter().partition(|message| message.agent_id.is_some());
        let prompts: Vec<_> = prompts.iter().map(|message| &*message.content.value).collect();
        let mut expected = raw.prompts();
        expected.extend(what.starts_with("1f9b5e4a").then_some("/compact keep it short"));
        assert_eq!(prompts, expected, "{what}");
        assert_eq!(tasks.len(), raw.agents().len(), "{what}");

        // Every tool use, with its result, how long it took, and the message that asked for it.
        let ids: BTreeSet<_> =
            detail.tool_uses.iter().map(|one| one.tool_use_id.as_deref().unwrap()).collect();
        assert_eq!(ids, raw.tool_ids(), "{what}");
        for one in &detail.tool_uses {
            let result = one.result.as_ref().unwrap();
            assert!(result.response.is_some(), "{what}: {one:?}");
            assert_eq!(one.duration_ms().is_some(), one.status() != ToolStatus::Denied, "{one:?}");
            assert!(one.seen.hook && one.seen.transcript, "{what}: {one:?}");
            let asked = detail.messages.iter().find(|message| Some(message.id) == one.message_id);
            let id = one.tool_use_id.clone().unwrap();
            let wish = Block::ToolUse { tool_use_id: id };
            assert!(asked.unwrap().blocks.iter().any(|(_, block)| *block == wish), "{one:?}");
            assert_eq!(asked.unwrap().agent_id, one.agent_id, "{what}");
        }
        for hook in raw.hooks.iter().filter(|hook| hook["duration_ms"].is_u64()) {
            let found = tool(&detail, hook["tool_use_id"].as_str().unwrap());
            assert_eq!(found.duration_ms(), hook["duration_ms"].as_u64(), "{what}");
        }

        // Every subagent, with its type and the tool use that started it.
        let agents: BTreeSet<_> = detail.subagents.iter().map(|one| &*one.agent_id).collect();
        assert_eq!(agents, raw.agents(), "{what}");
        for one in &detail.subagents {
            assert_eq!(one.agent_type.as_deref(), Some("general-purpose"));
            assert_eq!(tool(&detail, one.tool_use_id.as_deref().unwrap()).tool_name, "Agent");
            assert!(one.stopped_at.is_some());
        }

        // Usage is the sum over distinct API messages.
        let total = detail.usage.total;
        assert_eq!(total.input_tokens, raw.tokens("input_tokens"), "{what}");
        assert_eq!(total.output_tokens, raw.tokens("output_tokens"), "{what}");
        assert_eq!(total.cache_read_tokens, raw.tokens("cache_read_input_tokens"), "{what}");
        assert_eq!(
            total.cache_creation_tokens,
            raw.tokens("cache_creation_input_tokens"),
            "{what}"
        );
        let one = detail.usage.models.len();
        assert_eq!((one, detail.usage.has_unknown_price), (1, false), "{what}");

        // The client's own figure, from its last line; it knows of compactions, which are no messages.
        let last = raw.of_type("cost-state").last().unwrap();
        let client = detail.conversation.client_cost.as_ref().unwrap();
        assert_eq!(Some(client.total), Usd::from_dollars(last["totalCostUSD"].as_f64().unwrap()));
        assert_eq!(client.duration_ms, last["totalDuration"].as_u64().unwrap());
        let model = client.models["claude-opus-5-5"];
        let left_out = u64::from(what.starts_with("1f9b5e4a"));
        assert_eq!(model.usage.input_tokens, total.input_tokens + left_out * 1000, "{what}");
        assert_eq!(model.cost.as_nanos(), detail.usage.cost.as_nanos() + left_out * 5_000_000);
    }
}

#[tokio::test]
async fn nothing_is_missing_of_recorded_sessions_and_what_is_left_out_is_named() {
    for session in recorded() {
        let read = async |arrivals: Vec<Arrival>| {
            let store = MemoryStore::new(Arc::new(ManualClock::new(Timestamp::EPOCH)));
            let batch = arrivals.into_iter().map(|arrival| (judge(&arrival), arrival));
            store
                .record(batch.map(|(verdict, arrival)| (arrival, verdict)).collect())
                .await
                .unwrap();
            let detail = store.conversation("main", &session.session_id).await.unwrap();
            detail.unwrap().reconciliation()
        };
        let all = session.in_order("main");
        let found = read(all.clone()).await;
        assert_eq!(found.gaps, [], "{}", session.session_id);
        assert_eq!(found.slices, session.transcripts.len() as u64);
        assert_eq!(found.events.values().sum::<u64>(), session.hooks.len() as u64);

        let hooks = all.iter().filter(|one| one.event_type != "Transcript").cloned().collect();
        assert_eq!(read(hooks).await.gaps, [Gap::NoTranscript], "{}", session.session_id);

        let about_tools = ["PreToolUse", "PostToolUse", "PostToolUseFailure", "PostToolBatch"];
        let is_kept = |one: &&Arrival| !about_tools.contains(&one.event_type.as_str());
        let found = read(all.iter().filter(is_kept).cloned().collect()).await;
        let missed = found.without_hook.len() as u64;
        match &found.gaps[..] {
            [] => assert_eq!(missed, 0),
            [Gap::NoHook { count, .. }] => assert_eq!(*count, missed),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn subagents_usage_is_given_apart() {
    let session =
        recorded().into_iter().find(|one| one.session_id.starts_with("8493f639")).unwrap();
    let detail = session.expected("main");
    assert_eq!(detail.subagents.len(), 3);
    assert_eq!(detail.usage.subagents.input_tokens, 6 * 1000);
    assert_eq!(detail.usage.total.input_tokens, 8 * 1000);
}

/// A session of these hooks and lines; what is said once is said for all of them.
fn session(hooks: &[Value], lines: &[Value]) -> Session {
    let hooks = hooks.iter().map(|hook| {
        let mut hook = hook.clone();
        hook["session_id"] = json!("s");
        hook.to_string().into_bytes()
    });
    let lines: String = lines
        .iter()
        .enumerate()
        .map(|(n, line)| {
            let mut line = line.clone();
            line["uuid"] = json!(format!("line-{n}"));
            line["timestamp"] = json!(format!("2026-11-24T00:55:{n:02}Z"));
            format!("{line}\n")
        })
        .collect();
    Session::new("s", hooks.collect(), lines.into_bytes())
}

fn words(detail: &ConversationDetail) -> Vec<(&str, &str)> {
    detail.messages.iter().map(|m| (m.role.as_str(), m.content.value.as_str())).collect()
}

fn stop(words: &str) -> Value {
    json!({"hook_event_name": "Stop", "last_assistant_message": words})
}

fn answer(id: &str, words: &str) -> Value {
    json!({"type": "assistant", "message": {"id": id, "content": [{"type": "text", "text": words}]}})
}

#[test]
fn a_message_of_hooks_and_transcript_is_one_message() {
    let prompt =
        json!({"hook_event_name": "UserPromptSubmit", "prompt": "/fix it", "prompt_id": "p"});
    let line = json!({"type": "user", "promptId": "p", "message": {"content":
        "<command-message>fix</command-message><command-name>/fix</command-name><command-args>it</command-args>"}});
    let detail = session(&[prompt, stop("done\nnow")], &[line, answer("m", "done\n\nnow ")])
        .expected("main");
    assert_eq!(words(&detail), [("user", "/fix it"), ("assistant", "done\n\nnow ")]);
    assert_eq!(detail.messages[0].origin, MessageOrigin::Transcript);
    assert_eq!(detail.conversation.title, None, "a command is no title");
}

#[test]
fn a_stop_is_hidden_for_each_answer_with_its_words_and_no_more() {
    let again = json!({"hook_event_name": "UserPromptSubmit", "prompt": "again"});
    let twice = [stop("done"), again, stop("done"), stop("other")];
    let detail = session(&twice, &[answer("m1", "done")]).expected("main");
    assert_eq!(
        words(&detail),
        [("assistant", "done"), ("user", "again"), ("assistant", "done"), ("assistant", "other")]
    );
    let lines = [answer("m1", "done"), answer("m2", "done"), answer("m3", "other")];
    let detail = session(&twice, &lines).expected("main");
    assert_eq!(detail.messages.len(), 4);
    let answers = said(&detail, Role::Assistant).into_iter();
    assert!(answers.into_iter().all(|one| one.origin == MessageOrigin::Transcript));
    // A `Stop` of the last of several blocks, and of another thread.
    let both = json!({"type": "assistant", "message": {"id": "m", "content":
        [{"type": "text", "text": "first"}, {"type": "text", "text": "last"}]}});
    let other = json!({"hook_event_name": "SubagentStop", "agent_id": "a", "agent_type": "x",
        "last_assistant_message": "last"});
    let detail = session(&[stop("last"), other], &[both]).expected("main");
    assert_eq!(words(&detail), [("assistant", "first\n\nlast"), ("assistant", "last")]);
    assert_eq!(detail.messages[1].agent_id.as_deref(), Some("a"));
}

#[test]
fn an_error_of_the_api_is_one_message_of_the_system() {
    let failure = json!({"hook_event_name": "StopFailure", "error": "server_error",
        "last_assistant_message": "API Error: 500"});
    let line = json!({"type": "assistant", "message": {"id": "x", "model": "<synthetic>",
        "content": [{"type": "text", "text": "API Error: 500"}], "usage": {"input_tokens": 0}}});
    let detail = session(&[failure], &[line]).expected("main");
    assert_eq!(words(&detail), [("system", "API Error: 500")]);
    assert!(detail.usage.models.is_empty());
}

#[test]
fn tools_that_were_interrupted_or_denied_end_as_what_they_are() {
    let pre = |id: &str| {
        json!({"hook_event_name": "PreToolUse", "tool_name": "Bash",
        "tool_use_id": id, "tool_input": {}})
    };
    let wish = |id: &str| json!({"type": "tool_use", "id": id, "name": "Bash", "input": {}});
    let result = |id: &str, more: Value| {
        let mut line = json!({"type": "user", "message": {"content":
            [{"type": "tool_result", "tool_use_id": id, "content": "why", "is_error": true}]}});
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        line
    };
    let batch = json!({"hook_event_name": "PostToolBatch", "tool_calls":
        [{"tool_name": "Bash", "tool_use_id": "failed", "tool_response": "why"}]});
    let hooks = [pre("open"), pre("interrupted"), pre("denied"), pre("old"), batch];
    let lines = [
        json!({"type": "assistant", "message": {"id": "m", "content":
            [wish("open"), wish("interrupted"), wish("denied"), wish("unseen")]}}),
        result("interrupted", json!({})),
        result("denied", json!({"permissionDecision": {"decision": "reject"}})),
        result("failed", json!({})),
        json!({"type": "user", "message": {"content": [{"type": "tool_result", "tool_use_id": "old",
            "is_error": true, "content":
            "The user doesn't want to proceed with this tool use. The tool use was rejected"}]}}),
        json!({"type": "user", "message": {"content": "[Request interrupted by user for tool use]"}}),
    ];
    let detail = session(&hooks, &lines).expected("main");
    let status = |id: &str| tool(&detail, id).status();
    assert_eq!(status("open"), ToolStatus::Running);
    assert_eq!(status("interrupted"), ToolStatus::Failed);
    assert_eq!(status("denied"), ToolStatus::Denied);
    assert_eq!(status("old"), ToolStatus::Denied);
    // The batch alone would say denied.
    assert_eq!(status("failed"), ToolStatus::Failed);
    assert_eq!(tool(&detail, "failed").result.as_ref().unwrap().rank, ResultRank::Transcript);
    // From the wish to the result, by the transcript's times; nothing where nothing ran.
    assert_eq!(tool(&detail, "interrupted").duration_ms(), Some(1000));
    assert_eq!(tool(&detail, "denied").duration_ms(), None);
    let unseen = tool(&detail, "unseen").seen;
    assert_eq!((unseen.hook, unseen.transcript), (false, true));
    assert_eq!(
        words(&detail).last(),
        Some(&("system", "[Request interrupted by user for tool use]"))
    );
}

#[test]
fn a_denied_tool_known_only_from_its_batch_says_why() {
    let calls =
        json!([{"tool_name": "Bash", "tool_use_id": "t", "tool_response": "needs approval"}]);
    let batch = json!({"hook_event_name": "PostToolBatch", "tool_calls": calls});
    let detail = session(&[batch], &[]).expected("main");
    assert_eq!(tool(&detail, "t").status(), ToolStatus::Denied);
    let why = tool(&detail, "t").result.as_ref().unwrap().response.as_ref().unwrap();
    assert_eq!(why.as_str(), r#""needs approval""#);
}

#[test]
fn a_resumed_session_is_alive_and_a_cleared_one_is_another_conversation() {
    let event = |event: &str, more: Value| {
        let mut hook = json!({"hook_event_name": event});
        hook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        hook
    };
    let start = |source: &str| event("SessionStart", json!({"source": source}));
    let end = event("SessionEnd", json!({"reason": "clear"}));
    let ended = session(&[start("startup"), end.clone()], &[]).expected("main");
    assert!(ended.conversation.ended_at().is_some());
    let resumed = session(&[start("startup"), end.clone(), start("resume")], &[]).expected("main");
    assert_eq!(resumed.conversation.ended_at(), None);
    let again = [start("startup"), end.clone(), start("resume"), start("compact"), end];
    assert!(session(&again, &[]).expected("main").conversation.ended_at().is_some());
    let mut other = session(&[start("clear")], &[]);
    other.session_id = "t".to_owned();
    other.hooks[0] =
        br#"{"session_id":"t","hook_event_name":"SessionStart","source":"clear"}"#.to_vec();
    assert_ne!(other.expected("main").conversation.id, resumed.conversation.id);
}

#[test]
fn the_stray_stop_of_a_compaction_is_no_subagent() {
    let session =
        recorded().into_iter().find(|one| one.session_id.starts_with("1f9b5e4a")).unwrap();
    let detail = session.expected("main");
    assert!(detail.subagents.is_empty(), "{:?}", detail.subagents);
    assert!(detail.messages.iter().all(|message| message.agent_id.is_none()));
    let system: Vec<_> = said(&detail, Role::System).into_iter().collect();
    let begins = |text: &str| system.iter().any(|message| message.content.value.starts_with(text));
    assert!(begins("Conversation compacted") && begins("This session is being continued"));
    assert!(!begins("<"), "tags are not shown");
}

#[test]
fn a_prompt_of_a_finished_background_task_is_a_message_of_its_own() {
    let prompt = |id: &str, text: &str| json!({"hook_event_name": "UserPromptSubmit", "prompt": text, "prompt_id": id});
    let hooks = [
        prompt("p1", "go"),
        stop("started"),
        prompt("p2", "<task-notification>done</task-notification>"),
        stop("it is done"),
    ];
    let detail = session(&hooks, &[]).expected("main");
    assert_eq!(detail.messages.len(), 4);
    assert_eq!(detail.conversation.title.unwrap().value, "go");
}

#[test]
fn an_event_for_a_session_never_seen_makes_its_conversation() {
    let hooks = [json!({"hook_event_name": "FileChanged", "file_path": "/x", "event": "add"})];
    let detail = session(&hooks, &[]).expected("main");
    assert!(detail.messages.is_empty() && detail.tool_uses.is_empty());
}

#[test]
fn lines_of_other_versions_are_read_as_far_as_they_go() {
    let lines = [
        // Without a prompt id, in an old version; the hook has none either.
        json!({"type": "user", "message": {"role": "user", "content": "hello"}}),
        json!({"type": "assistant", "message": {"role": "assistant", "content": "no list, no id"}}),
        json!({"type": "assistant", "message": {"id": "m", "model": 7, "usage": [], "content":
            [7, {"type": "hologram"}, {"type": "text"}, {"type": "tool_use"}]}}),
        json!({"type": "user", "isSidechain": true, "message": {"content": "a subagent's task"}}),
        // Progress tells what the lines of a subagent tell; a new type may hold anything.
        json!({"type": "progress", "message": {"role": "assistant", "id": "m2", "content": "new"}}),
        json!({"type": "from-the-future", "message": {"role": "user", "content": "new"}}),
        json!({"type": "user", "message": "text"}),
        json!({"type": 7}),
    ];
    let hook = json!({"hook_event_name": "UserPromptSubmit", "prompt": "hello"});
    let detail = session(&[hook], &lines).expected("main");
    let expected = [
        ("user", "hello"),
        ("assistant", "no list, no id"),
        ("assistant", ""),
        ("user", "a subagent's task"),
    ];
    assert_eq!(words(&detail), expected);
    let kinds: Vec<_> = detail.messages[2].blocks.iter().map(|(_, block)| block.clone()).collect();
    let other = |kind: &str| Block::Other { kind: kind.to_owned() };
    assert_eq!(kinds, [other("unknown"), other("hologram, 19 bytes"), other("tool_use, 19 bytes")]);
    assert_eq!(detail.subagents.len(), 1);
    assert_eq!(detail.usage.total, Default::default());
}

#[test]
fn a_model_without_a_price_has_no_cost() {
    let mut line = answer("m", "x");
    line["message"]["model"] = json!("claude-opus-99");
    line["message"]["usage"] = json!({"input_tokens": 5});
    let usage = session(&[], &[line]).expected("main").usage;
    assert_eq!((usage.cost, usage.has_unknown_price), (Usd::default(), true));
    assert_eq!(usage.models["claude-opus-99"].cost, None);
}
