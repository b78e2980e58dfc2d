//! The events by their types: every documented field has its place, and no payload is lost or refused.

use std::collections::BTreeSet;

use arrakis_core::session::hook::{HOOK_EVENTS, HookEvent, summary};
use arrakis_core::testkit::recorded::recorded;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Each event with every field that is documented of it, and how it is told.
fn documented() -> Vec<(&'static str, Value, &'static str)> {
    let tool =
        json!({"tool_name": "Bash", "tool_input": {"command": "ls"}, "mcp_server": {"name": "m"}});
    let with = |one: &Value, more: Value| {
        let mut both = one.as_object().unwrap().clone();
        both.extend(more.as_object().unwrap().clone());
        Value::Object(both)
    };
    let call = with(&tool, json!({"tool_use_id": "t"}));
    let switch = json!({"from_model": "a", "to_model": "b", "requested_model": "b", "source": "picker",
        "context_tokens": 5, "prompt_cache_warm": true, "cache_ttl": "5m",
        "estimated_cache_write_usd": 0.5, "pricing": "catalog"});
    let stop = json!({"stop_hook_active": false, "last_assistant_message": "done",
        "background_tasks": [{"id": 1}], "session_crons": []});
    let task = json!({"task_id": "1", "task_subject": "build", "task_description": "all of it",
        "teammate_name": "ann", "team_name": "x"});
    vec![
        ("PreToolUse", call.clone(), "Bash ls"),
        (
            "PostToolUse",
            with(&call, json!({"tool_response": {"stdout": ""}, "duration_ms": 7})),
            "Bash ls (done in 7 ms)",
        ),
        (
            "PostToolUseFailure",
            with(&call, json!({"error": "no", "is_interrupt": true, "duration_ms": 7})),
            "Bash ls (interrupted in 7 ms): no",
        ),
        (
            "PostToolBatch",
            json!({"tool_calls": [{"tool_name": "Bash", "tool_input": {}, "tool_use_id": "t",
                "tool_response": "x"}]}),
            "1 done: Bash",
        ),
        (
            "Notification",
            json!({"message": "look", "title": "T", "notification_type": "agent_needs_input"}),
            "T: look",
        ),
        ("UserPromptSubmit", json!({"prompt": "go", "source": "user", "session_title": "t"}), "go"),
        (
            "UserPromptExpansion",
            json!({"expansion_type": "slash_command", "command_name": "fix", "command_args": "it",
                "command_source": "user", "prompt": "fix it"}),
            "/fix it",
        ),
        (
            "SessionStart",
            json!({"source": "resume", "model": "m", "session_title": "t",
                "seconds_since_last_response": 1.5, "context_tokens": 9,
                "prompt_cache_likely_expired": false, "estimated_cache_write_usd": 0.0068}),
            "resume, m",
        ),
        ("SessionEnd", json!({"reason": "clear"}), "clear"),
        ("Stop", stop.clone(), "done"),
        (
            "StopFailure",
            json!({"error": "server_error", "error_details": "500", "last_assistant_message": "sorry"}),
            "server_error: sorry",
        ),
        ("SubagentStart", json!({}), "explorer a1"),
        (
            "SubagentStop",
            with(&stop, json!({"agent_transcript_path": "/a.jsonl"})),
            "explorer a1: done",
        ),
        ("PreCompact", json!({"trigger": "auto", "custom_instructions": "short"}), "auto: short"),
        ("PostCompact", json!({"trigger": "auto", "compact_summary": "all"}), "auto: all"),
        ("PreModelSwitch", switch.clone(), "a to b, picker"),
        ("PostModelSwitch", switch, "a to b, picker"),
        ("PermissionRequest", with(&tool, json!({"permission_suggestions": [{}]})), "Bash ls"),
        ("PermissionDenied", with(&call, json!({"reason": "no"})), "Bash ls no"),
        ("Setup", json!({"trigger": "init"}), "init"),
        ("TeammateIdle", json!({"teammate_name": "ann", "team_name": "x"}), "ann of x"),
        ("TaskCreated", task.clone(), "build, ann"),
        ("TaskCompleted", task, "build, ann"),
        (
            "Elicitation",
            json!({"mcp_server_name": "m", "message": "who?", "mode": "form", "url": "u",
                "elicitation_id": "e", "requested_schema": {}}),
            "m: who?",
        ),
        (
            "ElicitationResult",
            json!({"mcp_server_name": "m", "elicitation_id": "e", "mode": "form", "action": "accept",
                "content": {"a": 1}}),
            "m: accept, a: 1",
        ),
        (
            "ConfigChange",
            json!({"source": "user_settings", "file_path": "/s.json"}),
            "user_settings: /s.json",
        ),
        ("WorktreeCreate", json!({"name": "w"}), "w"),
        ("WorktreeRemove", json!({"worktree_path": "/w"}), "/w"),
        (
            "InstructionsLoaded",
            json!({"file_path": "/C.md", "memory_type": "Project", "load_reason": "include",
                "globs": ["*"], "trigger_file_path": "/x", "parent_file_path": "/y"}),
            "/C.md, include",
        ),
        ("CwdChanged", json!({"old_cwd": "/a", "new_cwd": "/b"}), "/a to /b"),
        ("FileChanged", json!({"file_path": "/x", "event": "add"}), "add: /x"),
        ("DirectoryAdded", json!({"directory": "/d", "source": "slash_command"}), "/d"),
        (
            "MessageDisplay",
            json!({"turn_id": "t", "message_id": "m", "index": 0, "final": true, "delta": "hi"}),
            "hi",
        ),
        (
            "PreSkillShellCommand",
            json!({"tool_name": "Bash", "tool_input": {"command": "git status"}, "tool_use_id": "u",
                "command_name": "review", "command_source": "project", "invoked_by": "user"}),
            "review: Bash git status",
        ),
    ]
}

#[test]
fn every_documented_field_of_every_event_has_its_place() {
    let common = json!({"session_id": "s", "transcript_path": "/t", "cwd": "/p", "prompt_id": "p",
        "permission_mode": "default", "agent_id": "a1", "agent_type": "explorer",
        "effort": {"level": "high"}});
    let mut seen = BTreeSet::new();
    for (event_type, fields, told) in documented() {
        let mut payload = common.as_object().unwrap().clone();
        payload.insert("hook_event_name".to_owned(), json!(event_type));
        payload.extend(fields.as_object().unwrap().clone());
        let text = Value::Object(payload.clone()).to_string();
        let read = HookEvent::read(text.as_bytes()).unwrap();
        assert_eq!(read.event.event_type(), event_type);
        assert!(read.event.more().is_empty(), "{event_type}: {:?}", read.event.more());
        assert_eq!(serde_json::to_value(&read).unwrap(), Value::Object(payload), "{event_type}");
        assert_eq!(summary(event_type, text.as_bytes()), told, "{event_type}");
        seen.insert(event_type);
    }
    assert_eq!(seen, HOOK_EVENTS.into_iter().collect());
}

#[test]
fn recorded_events_have_no_field_that_is_not_documented() {
    for session in recorded() {
        for hook in &session.hooks {
            let read = HookEvent::read(hook).unwrap();
            assert!(HOOK_EVENTS.contains(&read.event.event_type()));
            assert!(read.event.more().is_empty(), "{:?}", read.event);
            assert!(!summary(read.event.event_type(), hook).is_empty());
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,9}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever type a documented field has, the event is read, and written as it was.
    #[test]
    fn any_object_is_an_event_and_nothing_of_it_is_lost(
        which in 0..HOOK_EVENTS.len(), values in prop::collection::vec(any_json(), 12),
    ) {
        let (event_type, fields, _) = documented().swap_remove(which);
        let mut payload: Map<String, Value> =
            fields.as_object().unwrap().keys().cloned().zip(values).collect();
        payload.insert("hook_event_name".to_owned(), json!(event_type));
        payload.insert("cwd".to_owned(), json!(7));
        let text = Value::Object(payload.clone()).to_string();
        let read = HookEvent::read(text.as_bytes()).unwrap();
        prop_assert_eq!(serde_json::to_value(&read).unwrap(), Value::Object(payload));
        let told = summary(event_type, text.as_bytes());
        prop_assert!(told.len() <= 200 && !told.contains(char::is_control), "{told:?}");
    }
}
