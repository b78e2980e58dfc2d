//! `arrakis conversations show`: what people read of recorded sessions, and what is folded.

use std::sync::Arc;

use crate::support::{Bench, bench, store_of};
use arrakis_bin::cli::output::Terminal;
use arrakis_bin::cli::output::text::{safe, width};
use arrakis_bin::cli::{Cli, Command, conversations};
use arrakis_core::record::store::{Archive, EventReader, MemoryStore, Rollups};
use arrakis_core::testkit::recorded::recorded;
use arrakis_core::testkit::sessions::Session;
use clap::Parser;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Somebody who reads what a store has of some sessions.
pub(crate) struct Reader {
    store: Arc<MemoryStore>,
    bench: Bench,
    _home: TempDir,
}

impl Reader {
    pub(crate) async fn of(sessions: &[Session]) -> Self {
        let store = store_of(sessions).await;
        let home = TempDir::new().unwrap();
        Self { store, bench: bench(home.path()), _home: home }
    }

    async fn try_show(&mut self, arguments: &str) -> anyhow::Result<String> {
        let line = format!("arrakis conversations show {arguments}");
        let cli = Cli::try_parse_from(line.split_whitespace())?;
        self.bench.context.json = cli.json;
        let Command::Conversations(args) = &cli.command else { panic!("{line}") };
        let reader: Arc<dyn EventReader> = self.store.clone();
        let rollups: Arc<dyn Rollups> = self.store.clone();
        conversations::run(args, &reader, &rollups, &mut self.bench.context).await?;
        assert_eq!(self.bench.err.take(), "");
        Ok(self.bench.out.take())
    }

    pub(crate) async fn show(&mut self, arguments: &str) -> String {
        self.try_show(arguments).await.unwrap()
    }

    pub(crate) fn terminal(&mut self, terminal: Terminal) {
        self.bench.context.terminal = terminal;
    }

    async fn error(&mut self, arguments: &str) -> String {
        self.try_show(arguments).await.unwrap_err().to_string()
    }
}

/// A line with `…` for its time.
pub(crate) fn timeless(line: &str) -> String {
    let is_time = line.get(2..3) == Some(":") && line.get(5..6) == Some(":");
    if is_time { format!("…{}", &line[8..]) } else { line.to_owned() }
}

/// What of a text is there from a line on, with `…` for the times.
fn from(text: &str, line: &str) -> Vec<String> {
    text.lines().map(timeless).skip_while(|found| found != line).collect()
}

/// A transcript of one answer with these blocks, and what its tools gave back.
fn transcript(blocks: &[Value], results: &[(&str, Value)]) -> Vec<u8> {
    let line = |kind: &str, n: usize, content: Value| {
        let role = if kind == "user" { "user" } else { "assistant" };
        json!({ "type": kind, "uuid": format!("u{n}"), "timestamp": format!("2026-11-24T10:00:0{n}Z"),
            "sessionId": "s", "message": { "id": format!("m{}", n.min(1)), "role": role, "content": content,
            "model": "claude-opus-5-5" } })
    };
    let mut lines = vec![line("assistant", 1, json!(blocks)).to_string()];
    for (n, (id, result)) in results.iter().enumerate() {
        let content = json!([{ "type": "tool_result", "tool_use_id": id, "content": result }]);
        lines.push(line("user", n + 2, content).to_string());
    }
    (lines.join("\n") + "\n").into_bytes()
}

fn call(id: &str, name: &str, input: Value) -> Value {
    json!({ "type": "tool_use", "id": id, "name": name, "input": input })
}

#[tokio::test]
async fn subagents_hang_on_what_started_them() {
    let mut reader = Reader::of(&recorded()).await;
    let shown = reader.show("8493f639").await;
    assert_eq!(
        from(&shown, "…  Agent  h1  ok, 636 ms, 3 lines")[..15],
        [
            "…  Agent  h1  ok, 636 ms, 3 lines",
            "          subagent general-purpose a65f534370fe711a5",
            "          │",
            "…  │ task",
            "          │ @@play sub",
            "          │",
            "…  │ claude",
            "          │ I am the subagent.",
            "          │",
            "…  │ Bash  echo from-subagent # mock step  ok, 188 ms, 1 line",
            "          │",
            "…  │ claude",
            "          │ Done with sub.",
            "",
            "…  Agent  h2  ok, 550 ms, 3 lines",
        ]
    );
    assert_eq!(shown.matches("subagent general-purpose").count(), 3);
}

#[tokio::test]
async fn blocks_stand_in_the_order_of_the_answer_and_fold() {
    let edit = json!({ "file_path": "a.rs", "old_string": "fn a() {\n  1\n}", "new_string": "fn a() {\n  2\n}" });
    let blocks = [
        json!({ "type": "thinking", "thinking": "It lacks\na two." }),
        json!({ "type": "text", "text": "First I look." }),
        call("t1", "Bash", json!({ "command": "cat a.rs\nls" })),
        json!({ "type": "image", "source": { "media_type": "image/png" } }),
        json!({ "type": "text", "text": "Then I mend." }),
        call("t2", "Edit", edit),
        json!({ "type": "server_tool_use" }),
    ];
    let long: String = (0..100).map(|n| format!("line {n}\n")).collect();
    let results = [("t1", json!(long)), ("t2", json!("done"))];
    let session = Session::new("s", Vec::new(), transcript(&blocks, &results));
    let mut reader = Reader::of(&[session]).await;
    let shown = reader.show("s").await;
    assert_eq!(
        from(&shown, "…  thinking  It lacks  (2 lines)"),
        [
            "…  thinking  It lacks  (2 lines)",
            "",
            "…  claude",
            "          First I look.",
            "",
            "…  Bash  cat a.rs ls  ok, 1.0 s, 100 lines",
            "…  [image, image/png]",
            "",
            "…  claude",
            "          Then I mend.",
            "",
            "…  Edit  a.rs  ok, 2.0 s, +1 -1",
            "…  [server_tool_use, 26 bytes]",
        ]
    );
    let unfolded = reader.show("s --tools --thinking").await;
    assert_eq!(
        from(&unfolded, "…  thinking")[..3],
        ["…  thinking", "          It lacks", "          a two."]
    );
    assert!(
        unfolded.contains("            command:\n              cat a.rs\n              ls\n"),
        "{unfolded}"
    );
    assert!(unfolded.contains("            = line 59\n          "), "{unfolded}");
    assert!(unfolded.contains("… 40 more lines; --json shows them\n"), "{unfolded}");
    let change = "            file_path: a.rs\n              fn a() {\n            -   1\n            +   2\n              }\n            = done\n";
    assert!(unfolded.contains(change), "{unfolded}");
}

/// A line with the result of a tool use, as the tool itself tells it.
fn structure(n: usize, id: &str, told: &Value) -> String {
    let line = json!({ "type": "user", "uuid": format!("r{n}"), "toolUseResult": told,
        "timestamp": format!("2026-11-24T10:00:{:02}Z", n + 10), "sessionId": "s", "message": {
        "role": "user", "content": [{ "type": "tool_result", "tool_use_id": id, "content": "x" }] } });
    format!("{line}\n")
}

/// A session with a use of each tool that is shown in a way of its own.
fn tools() -> Session {
    let todo = |content: &str, status: &str| json!({ "content": content, "status": status });
    let question = json!({ "question": "Which wood?", "options": [
        { "label": "Oak", "description": "hard" }, { "label": "Pine", "description": "soft" }] });
    let uses = [
        (
            "Bash",
            json!({ "command": "make", "description": "Build it" }),
            json!({ "stdout": "\u{1b}[32mgreen\u{1b}[0m\n" }),
        ),
        (
            "TodoWrite",
            json!({ "todos": [todo("Saw", "completed"), todo("Nail\u{1b}[2J", "in_progress"),
            todo("Paint", "pending")] }),
            json!({ "newTodos": [] }),
        ),
        ("TaskCreate", json!({ "subject": "Saw" }), json!({ "task": { "id": "1" } })),
        ("TaskUpdate", json!({ "taskId": "1", "status": "completed" }), json!({ "success": true })),
        (
            "TaskList",
            json!({}),
            json!({ "tasks": [
            { "id": "1", "subject": "Saw", "status": "completed" }] }),
        ),
        ("ExitPlanMode", json!({ "plan": "# Plan\n\n1. Paint <b>it</b>" }), json!({ "plan": "p" })),
        (
            "AskUserQuestion",
            json!({ "questions": [question] }),
            json!({ "answers": { "Which wood?": "Oak" } }),
        ),
        (
            "Glob",
            json!({ "pattern": "*.rs", "path": "/src" }),
            json!({ "filenames": ["a.rs", "b.rs"], "numFiles": 2, "truncated": true }),
        ),
        (
            "Grep",
            json!({ "pattern": "oak" }),
            json!({ "mode": "content", "numLines": 7,
            "content": "a\nb" }),
        ),
        (
            "Read",
            json!({ "file_path": "a.rs" }),
            json!({ "file": { "content": "a\nb",
            "numLines": 2, "totalLines": 9 } }),
        ),
        (
            "Edit",
            json!({ "file_path": "a.rs", "old_string": "a", "new_string": "b" }),
            json!({ "filePath": "a.rs", "structuredPatch": [{ "lines": ["-a", "+b", "+c", " d"] }] }),
        ),
        (
            "Write",
            json!({ "file_path": "b.rs", "content": "a\nb" }),
            json!({ "filePath": "b.rs", "structuredPatch": [], "content": "a\nb" }),
        ),
        ("mcp__lab__saw", json!({ "wood": "oak" }), json!("sawn")),
        (
            "WebSearch",
            json!({ "query": "yew" }),
            json!({ "query": "yew", "results": [
            { "content": [{ "title": "Yews", "url": "https://example.org" }] }, "Found."] }),
        ),
    ];
    let blocks: Vec<Value> = uses
        .iter()
        .enumerate()
        .map(|(n, (name, input, _))| call(&format!("toolu-{n}"), name, input.clone()))
        .collect();
    let mut lines = transcript(&blocks, &[]);
    for (n, (_, _, told)) in uses.iter().enumerate() {
        lines.extend(structure(n, &format!("toolu-{n}"), told).into_bytes());
    }
    Session::new("s", Vec::new(), lines)
}

#[tokio::test]
async fn a_tool_use_says_what_it_is() {
    let mut reader = Reader::of(&[tools()]).await;
    let shown = reader.show("s").await;
    let first = "…  Bash  make # Build it  ok, 9.0 s, 1 line";
    assert_eq!(
        from(&shown, first),
        [
            first,
            "…  TodoWrite  ok, 10.0 s, 1 of 3 done",
            "            [x] Saw",
            "            [~] Nail\\x1b[2J",
            "            [ ] Paint",
            "…  TaskCreate  #1 Saw  ok, 11.0 s, 5 lines",
            "…  TaskUpdate  #1 completed  ok, 12.0 s, 3 lines",
            "…  TaskList  ok, 13.0 s, 1 of 1 done",
            "            [x] #1 Saw",
            "…  ExitPlanMode  ok, 14.0 s",
            "            # Plan",
            "",
            "            1. Paint <b>it</b>",
            "…  AskUserQuestion  Which wood?  ok, 15.0 s",
            "            Which wood?",
            "            [x] Oak: hard",
            "            [ ] Pine: soft",
            "…  Glob  *.rs in /src  ok, 16.0 s, 2 files and more",
            "…  Grep  oak  ok, 17.0 s, 7 lines",
            "…  Read  a.rs  ok, 18.0 s, 2 of 9 lines",
            "…  Edit  a.rs  ok, 19.0 s, +2 -1",
            "…  Write  b.rs  ok, 20.0 s, 2 lines",
            "…  lab · saw  oak  ok, 21.0 s, 1 line",
            "…  WebSearch  yew  ok, 22.0 s, 1 result",
            "",
            "…  you",
            "          Oak",
        ]
    );
    let unfolded = reader.show("s --tools").await;
    assert!(unfolded.contains("            = green\n"), "{unfolded}");
    assert!(unfolded.contains("            = Yews  https://example.org\n            = Found.\n"));
    assert!(unfolded.contains("            = a.rs\n            = b.rs\n"), "{unfolded}");
    assert!(!unfolded.contains("todos:") && !unfolded.contains("newTodos"), "{unfolded}");
}

#[tokio::test]
async fn a_conversation_is_found_by_how_its_id_begins_or_as_the_last() {
    let hook = |session: &str, at: u32| {
        let hook = json!({ "session_id": session, "hook_event_name": "UserPromptSubmit",
            "prompt": format!("prompt of {session}"), "prompt_id": at.to_string() });
        Session::new(session, vec![hook.to_string().into_bytes()], Vec::new())
    };
    let mut reader =
        Reader::of(&[hook("abc1", 1), hook("abc2", 2), hook("abc", 3), hook("x", 4)]).await;
    assert!(reader.show("abc1").await.starts_with("prompt of abc1\n"));
    assert!(reader.show("abc").await.starts_with("prompt of abc\n"), "a whole id is no prefix");
    let error = reader.error("ab").await;
    assert!(error.starts_with("3 conversations begin with ab; say which:\n"), "{error}");
    assert!(error.contains("  abc2  ") && error.contains("  prompt of abc2"), "{error}");
    assert!(reader.error("y").await.contains("no conversation y"));
    assert!(reader.show("--last").await.contains("prompt of "));
    assert!(reader.try_show("").await.is_err());
    assert!(reader.error("--last --workspace w").await.contains("no conversations"));
}

#[tokio::test]
async fn only_the_last_prompts_are_shown_if_asked() {
    let mut reader = Reader::of(&recorded()).await;
    let all = reader.show("c88ceccb").await;
    assert!(all.contains("@@play bash\n\n") && all.contains("          @@play fail\n"), "{all}");
    let last = reader.show("c88ceccb --prompts 1").await;
    assert!(!last.contains("          @@play bash\n") && last.contains("          @@play fail\n"));
    assert_eq!(reader.show("c88ceccb --prompts 9").await, all);
}

#[tokio::test]
async fn whatever_stands_in_a_transcript_fits_the_terminal_and_cannot_command_it() {
    let evil =
        "\u{1b}]0;x\u{7}\u{1b}[2J\u{9b}31m\u{202e}\r\u{200b} 漢字漢字 👩\u{200d}💻 ".repeat(20);
    let blocks = [
        json!({ "type": "thinking", "thinking": evil }),
        json!({ "type": "text", "text": evil }),
        call(
            "t1",
            &evil,
            json!({ "command": evil, evil.clone(): evil, "old_string": evil, "new_string": "n" }),
        ),
        call("t2", "Task", json!([evil])),
        json!({ "type": evil }),
        json!({ "type": "image", "source": { "media_type": evil } }),
    ];
    let results = [("t1", json!(evil)), ("t2", json!({ evil.clone(): evil }))];
    let mut session = Session::new("s", Vec::new(), transcript(&blocks, &results));
    let meta = json!({ "agentType": evil, "toolUseId": "t2" });
    session.add_subagent("a\u{1b}[1m", &meta, transcript(&blocks[..2], &[]));
    let mut reader = Reader::of(&[session]).await;
    for columns in [60, 80, 120] {
        reader.bench.context.terminal = Terminal { colour: false, width: Some(columns) };
        for arguments in ["s", "s --unfold"] {
            let shown = reader.show(arguments).await;
            // The lines of the header are whole.
            let (header, timeline) = shown.split_once("\n\n").unwrap();
            assert!(header.lines().all(|line| safe(line) == line));
            for line in timeline.lines() {
                assert_eq!(safe(line), line);
                assert!(width(line) <= columns, "{columns}: {line}");
            }
        }
    }
}

#[tokio::test]
async fn as_json_nothing_that_is_stored_is_left_out() {
    let sessions = recorded();
    let mut reader = Reader::of(&sessions).await;
    for session in &sessions {
        let whole: Value =
            serde_json::from_str(&reader.show(&format!("{} --json", session.session_id)).await)
                .unwrap();
        let stored = reader.store.values("main", &session.session_id).await.unwrap().unwrap();
        assert_eq!(whole["stored"], json!(stored.conversations[0]));
        assert_eq!(whole["subagents"].as_array().unwrap().len(), stored.subagents.len());
        assert_eq!(whole["toolUses"].as_array().unwrap().len(), stored.tool_uses.len());
        for shown in whole["toolUses"].as_array().unwrap() {
            let one = stored.tool_uses.iter().find(|one| json!(one.id) == shown["id"]).unwrap();
            let (result, shown_result) = (one.result.as_ref().unwrap(), &shown["result"]);
            assert_eq!(shown["parameters"], json!(one.parameters.as_ref().unwrap().value));
            assert_eq!(shown["response"], json!(result.response));
            assert_eq!(shown["status"], json!(result.status));
            assert_eq!(shown["seen"], json!(one.seen));
            let of_result =
                (json!(result.stamp.at), json!(result.rank), json!(result.stamp.request_id));
            assert_eq!(
                (&shown_result["at"], &shown_result["rank"], &shown_result["requestId"]),
                (&of_result.0, &of_result.1, &of_result.2)
            );
        }
        for shown in whole["messages"].as_array().unwrap() {
            let one = stored.messages.iter().find(|one| json!(one.id) == shown["id"]).unwrap();
            assert_eq!(shown["content"], json!(one.content.value));
            assert_eq!(shown["blocks"], json!(one.blocks));
            assert_eq!(shown["usage"], json!(one.usage));
        }
    }
}
