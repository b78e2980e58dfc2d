//! The projection over real sessions: in any order and however often each event comes, a session is the
//! same conversation.

use std::collections::BTreeMap;
use std::path::Path;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::base::id::uuid_v7;
use arrakis_core::base::limits::{INDEXED_TEXT_MAX_BYTES, PATH_MAX_BYTES};
use arrakis_core::record::ingest::{Reception, admit};
use arrakis_core::record::store::{Arrival, Verdict};
use arrakis_core::session::conversation::{
    Block, Changes, Json, MessageOrigin, Role, Stamped, ToolStatus,
};
use arrakis_core::testkit::recorded::recorded;
use proptest::prelude::*;
use serde_json::Value;

/// The real payloads in order, by session.
fn sessions() -> BTreeMap<String, Vec<Arrival>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/hooks");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    let mut sessions = BTreeMap::<String, Vec<Arrival>>::new();
    for (n, file) in (0..).zip(files) {
        let arrival = arrival(n, &std::fs::read(&file).unwrap());
        sessions.entry(arrival.session_id.clone().unwrap()).or_default().push(arrival);
    }
    sessions
}

fn arrival(n: i64, payload: &[u8]) -> Arrival {
    let at = Timestamp::from_millis(1_800_000_000_000 + n);
    let payload = payload.strip_suffix(b"\n").unwrap_or(payload).to_vec();
    let id = format!("e{n}").parse().unwrap();
    let envelope = Envelope::new(id, at, "http://h/", Source::default(), payload);
    let reception = Reception {
        event_id: uuid_v7(at, [0; 10]),
        received_at: at,
        workspace: "main".to_owned(),
        headers: BTreeMap::new(),
        ip_address: None,
    };
    admit(envelope.into(), reception).0
}

/// What arrivals add up to, in the order given; the parts sorted, so that they compare.
fn project<'a>(arrivals: impl IntoIterator<Item = &'a Arrival>) -> Changes {
    let mut all = Changes::default();
    for arrival in arrivals {
        match arrakis_core::record::ingest::judge(arrival) {
            Verdict::Apply(changes) => all.absorb(changes),
            other => panic!("{other:?}"),
        }
    }
    all.conversations.sort_by_key(|one| one.id);
    all.messages.sort_by_key(|one| one.id);
    all.tool_uses.sort_by_key(|one| one.id);
    all.subagents.sort_by_key(|one| one.id);
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_order_and_any_repetition_give_the_same_conversation(
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        keys in prop::collection::vec(any::<u64>(), 100),
    ) {
        for arrivals in sessions().values() {
            let expected = project(arrivals);
            let mut shuffled: Vec<&Arrival> = arrivals.iter().collect();
            shuffled.extend(picks.iter().map(|pick| pick.get(arrivals)));
            let mut order: Vec<usize> = (0..shuffled.len()).collect();
            order.sort_by_key(|n| keys[n % keys.len()].rotate_left(*n as u32));
            let found = project(order.into_iter().map(|n| shuffled[n]));
            prop_assert_eq!(found, expected);
        }
    }
}

#[test]
fn what_a_store_gives_back_with_its_keys_reordered_adds_nothing() {
    for arrivals in sessions().values() {
        let stored = project(arrivals);
        let mut reordered = stored.clone();
        for tool_use in &mut reordered.tool_uses {
            let parameters = tool_use.parameters.as_mut().map(|stamped| &mut stamped.value);
            let response = tool_use.result.as_mut().and_then(|result| result.response.as_mut());
            for json in parameters.into_iter().chain(response) {
                *json =
                    Json::parse(reversed(&serde_json::from_str(json.as_str()).unwrap())).unwrap();
            }
        }
        assert_eq!(reordered, stored);
        reordered.absorb(stored.clone());
        assert_eq!(reordered, stored);
    }
}

/// A value as text, the fields of each object in the opposite order.
fn reversed(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(", ");
    match value {
        Value::Object(object) => {
            let field = |(key, value)| format!("{} : {}", Value::String(key), reversed(value));
            let mut fields: Vec<_> =
                object.iter().map(|(key, value)| (key.clone(), value)).collect();
            fields.reverse();
            format!("{{ {} }}", joined(fields.into_iter().map(field).collect()))
        }
        Value::Array(items) => format!("[{}]", joined(items.iter().map(reversed).collect())),
        plain => plain.to_string(),
    }
}

#[test]
fn real_sessions_add_up_to_what_happened() {
    let sessions = sessions();
    let read = |id: &str| project(&sessions[id]);

    let agents = read("8493f639-8381-4545-8901-e884c944734a");
    assert_eq!(agents.conversations.len(), 1);
    assert_eq!(agents.conversations[0].title.as_ref().unwrap().value, "@@play agents3");
    assert!(agents.conversations[0].ended_at().is_some());
    assert_eq!(agents.tool_uses.len(), 6, "three agents, and a command in each");
    assert!(agents.tool_uses.iter().all(|tool| tool.status() == ToolStatus::Succeeded));
    let threads = agents.tool_uses.iter().filter(|tool| tool.agent_id.is_some()).count();
    assert_eq!(threads, 3);

    let denied = read("197da2db-70e2-4ded-ac56-746139ffd59b");
    let [tool] = &denied.tool_uses[..] else { panic!("one tool use") };
    assert_eq!(tool.status(), ToolStatus::Denied);
    let why = tool.result.as_ref().unwrap().response.as_ref().unwrap();
    assert!(why.as_str().contains("requires approval"));

    let parallel = read("06cbac0f-1500-4dcb-9802-eff884472760");
    let failed = parallel.tool_uses.iter().filter(|tool| tool.status() == ToolStatus::Failed);
    assert_eq!(failed.count(), 1);
    assert!(parallel.tool_uses.iter().all(|t| t.result.as_ref().unwrap().duration_ms.is_some()));

    // A session that was resumed: the first end is undone, the last one counts.
    let resumed = read("c88ceccb-c292-4918-b8a9-07e8857680da");
    let conversation = &resumed.conversations[0];
    assert_eq!(conversation.ended_at(), Some(conversation.last_event_at));
    let prompts = resumed.messages.iter().filter(|m| m.origin == MessageOrigin::Prompt).count();
    assert_eq!(prompts, 2);
}

#[test]
fn single_events_do_what_they_say() {
    let one = |payload: &str| project(&[arrival(1, payload.as_bytes())]);
    let post = one(
        r#"{"session_id":"s","hook_event_name":"PostToolUse","tool_name":"Read","tool_use_id":"t",
        "tool_input":{"n":1.50},"tool_response":{"big":1e400},"duration_ms":12}"#,
    );
    let tool = &post.tool_uses[0];
    assert_eq!(tool.parameters.as_ref().unwrap().value.as_str(), r#"{"n":1.50}"#);
    assert_eq!(
        tool.result.as_ref().unwrap().response.as_ref().unwrap().as_str(),
        r#"{"big":1e400}"#
    );

    let running = one(r#"{"session_id":"s","hook_event_name":"PreToolUse","tool_use_id":"t"}"#);
    assert_eq!(running.tool_uses[0].status(), ToolStatus::Running);

    let failure = one(r#"{"session_id":"s","hook_event_name":"StopFailure","error":"server_error",
        "last_assistant_message":"API Error: 500"}"#);
    assert_eq!(
        (failure.messages[0].role, &*failure.messages[0].content.value),
        (Role::System, "API Error: 500")
    );

    let unknown = one(r#"{"session_id":"s","hook_event_name":"FromTheFuture","tool_input":7}"#);
    assert_eq!((unknown.conversations.len(), unknown.messages.len()), (1, 0));
    let nameless = one(r#"{"hook_event_name":"Setup"}"#);
    assert_eq!(nameless, Changes::default());
    // Fields of another type than today's are as good as absent.
    let odd = one(
        r#"{"session_id":"s","hook_event_name":"UserPromptSubmit","prompt":{"text":"x"},"cwd":[]}"#,
    );
    assert!(odd.messages.is_empty());
}

/// Each text of a payload as a long one, but those that say what it is.
fn with_long_texts(value: &mut Value) {
    const KINDS: [&str; 9] = [
        "hook_event_name",
        "operation",
        "role",
        "session_id",
        "subtype",
        "timestamp",
        "tool_name",
        "type",
        "uuid",
    ];
    match value {
        Value::String(text) => *text = format!("{text}é").repeat(20_000 / (text.len() + 2) + 1),
        Value::Array(items) => {
            items.truncate(40);
            items.iter_mut().for_each(with_long_texts);
        }
        Value::Object(fields) => {
            let fields = fields.iter_mut().filter(|(key, _)| !KINDS.contains(&key.as_str()));
            fields.for_each(|(_, value)| with_long_texts(value));
        }
        _ => {}
    }
}

#[test]
fn names_identifiers_and_paths_have_a_limit_and_say_that_they_were_cut() {
    let mut found = 0;
    let arrivals = recorded().into_iter().flat_map(|session| session.in_order("main"));
    for mut arrival in arrivals {
        let mut body: Value = serde_json::from_slice(&arrival.body).unwrap();
        with_long_texts(&mut body);
        arrival.body = body.to_string().into();
        let changes = project([&arrival]);
        let value =
            |field: &Option<Stamped<String>>| field.as_ref().map(|stamped| stamped.value.clone());
        let (mut paths, mut names) = (Vec::new(), Vec::new());
        for one in changes.conversations {
            paths.extend([value(&one.project_path), value(&one.transcript_path)]);
            names.extend([&one.model, &one.git_branch, &one.version, &one.ended].map(value));
            names.extend(
                one.client_cost.into_iter().flat_map(|cost| cost.models.into_keys().map(Some)),
            );
        }
        for one in changes.messages {
            names.extend([one.api_id, one.model, one.agent_id, one.prompt_id]);
            names.extend(one.blocks.iter().map(|(_, block)| match block {
                Block::ToolUse { tool_use_id } => Some(tool_use_id.clone()),
                Block::Image { media_type } => media_type.clone(),
                Block::Other { kind } => Some(kind.clone()),
                Block::Text { .. } | Block::Thinking { .. } => None,
            }));
        }
        for one in changes.tool_uses {
            names.extend([one.tool_use_id, Some(one.tool_name), one.agent_id, one.prompt_id]);
        }
        for one in changes.subagents {
            names.extend([Some(one.agent_id), one.agent_type, one.tool_use_id]);
        }
        for (texts, max) in [(paths, PATH_MAX_BYTES), (names, INDEXED_TEXT_MAX_BYTES)] {
            for text in texts.into_iter().flatten().filter(|text| text.len() > 100) {
                assert!(text.len() <= max && text.contains('…'), "{text}");
                found += 1;
            }
        }
    }
    assert!(found > 100, "{found}");
}
