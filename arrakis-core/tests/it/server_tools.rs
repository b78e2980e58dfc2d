//! Tools that the API runs, whose calls and results stand in the model's own lines.

use arrakis_core::record::store::ConversationDetail;
use arrakis_core::session::conversation::{Block, ToolStatus, ToolUse};
use arrakis_core::session::search::SearchDocument;
use arrakis_core::testkit::recorded::fault;
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

/// A session whose model wrote these blocks, a line each, and of which a hook has told.
fn session(blocks: &[Value]) -> Session {
    let line = |(n, block): (usize, &Value)| {
        let line = json!({"type": "assistant", "uuid": format!("u{n}"), "apiBlockIndex": n,
            "timestamp": format!("2026-11-24T00:00:{n:02}Z"),
            "message": {"id": "m", "model": "claude-opus-5-5", "content": [block]}});
        format!("{line}\n")
    };
    let lines: String = blocks.iter().enumerate().map(line).collect();
    let hook = json!({"session_id": "s", "hook_event_name": "Stop"}).to_string();
    Session::new("s", vec![hook.into_bytes()], lines.into_bytes())
}

fn one<'a>(detail: &'a ConversationDetail, id: &str) -> &'a ToolUse {
    let mut all = detail.tool_uses.iter();
    all.find(|one| one.tool_use_id.as_deref() == Some(id)).unwrap()
}

fn response(tool_use: &ToolUse) -> &str {
    tool_use.result.as_ref().unwrap().response.as_ref().unwrap().as_str()
}

#[test]
fn a_tool_that_the_api_runs_is_a_tool_use_with_its_result() {
    let detail = read(&fault("server-tools-unread").remove(0));
    let told: Vec<_> =
        detail.tool_uses.iter().map(|one| (one.tool_name.as_str(), one.status())).collect();
    let expected =
        [("mcp__files__lookup", ToolStatus::Succeeded), ("web_search", ToolStatus::Succeeded)];
    assert!(expected.iter().all(|one| told.contains(one)) && told.len() == 2, "{told:?}");
    let mut words = std::collections::BTreeSet::new();
    for tool_use in &detail.tool_uses {
        assert_eq!(tool_use.duration_ms(), None, "one line has both");
        words.extend(SearchDocument::ToolUse { tool_use, model: None }.words());
    }
    words.extend(detail.messages.iter().flat_map(|one| SearchDocument::Message(one).words()));
    for word in ["wollemi", "numbats", "bilby", "wambenger"] {
        assert!(words.contains(word), "{word}");
    }
    let is_named = |block: &Block| matches!(block, Block::Other { .. });
    assert!(!detail.messages.iter().any(|one| one.blocks.iter().any(|(_, one)| is_named(one))));
}

#[test]
fn what_the_api_runs_may_fail_and_no_hook_is_missing_for_it() {
    let detail = read(&session(&[
        json!({"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search",
            "input": {"query": "yew"}}),
        json!({"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content":
            {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}}),
        json!({"type": "server_tool_use", "id": "srvtoolu_2", "name": "web_fetch",
            "input": {"url": "https://example.org"}}),
        json!({"type": "web_fetch_tool_result", "tool_use_id": "srvtoolu_2", "content": [
            {"type": "web_search_result", "title": "yews", "encrypted_content": "AAAA"}]}),
        json!({"type": "mcp_tool_use", "id": "mcptoolu_1", "server_name": "wood", "name": "saw"}),
        json!({"type": "mcp_tool_result", "tool_use_id": "mcptoolu_1", "is_error": true,
            "content": [{"type": "text", "text": "no saw"}]}),
        json!({"type": "server_tool_use", "id": "srvtoolu_3", "name": "code_execution"}),
    ]));
    let status = |id| one(&detail, id).status();
    assert_eq!(status("srvtoolu_1"), ToolStatus::Failed);
    assert_eq!(status("srvtoolu_2"), ToolStatus::Succeeded);
    assert_eq!(status("mcptoolu_1"), ToolStatus::Failed);
    assert_eq!(status("srvtoolu_3"), ToolStatus::Running);
    assert!(response(one(&detail, "srvtoolu_1")).contains("max_uses_exceeded"));
    let fetched = response(one(&detail, "srvtoolu_2"));
    assert!(fetched.contains("yews") && !fetched.contains("AAAA"), "{fetched}");
    assert_eq!(one(&detail, "mcptoolu_1").tool_name, "mcp__wood__saw");
    assert_eq!(one(&detail, "srvtoolu_2").duration_ms(), Some(1000));
    assert!(detail.reconciliation().gaps.is_empty(), "{:?}", detail.reconciliation().gaps);
}

#[test]
fn a_document_is_named_with_title_type_and_size() {
    let source = |kind, data| json!({"type": kind, "media_type": "application/pdf", "data": data});
    let detail = read(&session(&[
        json!({"type": "document", "title": "Looms", "source": source("base64", "AAAAAAA=")}),
        json!({"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}}),
        json!({"type": "document"}),
    ]));
    let blocks: Vec<_> = detail.messages[0].blocks.iter().map(|(_, one)| one.clone()).collect();
    let named = [
        "document, Looms, application/pdf, 5 bytes",
        "document, https://example.org/a.pdf",
        "document",
    ];
    assert_eq!(blocks, named.map(|kind| Block::Other { kind: kind.to_owned() }));
}
