//! Sessions that are made up.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::{START_MILLIS, Session};
use crate::base::clock::Timestamp;

/// A session that nobody has had: with every kind of event, parallel tools, subagents, results that come
/// before their tools or never, prompts that wait or are withdrawn, lines that are broken, without time or id,
/// of types that nobody knows, or say another thing than the same line before.
#[must_use]
pub fn generated(seed: u64) -> Session {
    let mut random = StdRng::seed_from_u64(seed);
    let mut made =
        Generator { n: 0, at: START_MILLIS, random: &mut random, threads: BTreeMap::new() };
    let session_id = format!("generated-{seed}");
    let mut hooks = Vec::new();
    for _ in 0..made.random.random_range(1..6) {
        made.turn(&mut hooks);
    }
    let fields = [("session_id", json!(session_id)), ("cwd", json!("/p"))];
    let payload = |mut hook: Value| {
        for (name, value) in &fields {
            hook[*name] = value.clone();
        }
        hook.to_string().into_bytes()
    };
    let hooks = hooks.into_iter().map(payload).collect();
    let mut threads = std::mem::take(&mut made.threads);
    let own = threads.remove("").unwrap_or_default();
    let mut session = Session::new(&session_id, hooks, own);
    for (agent, text) in threads {
        session.add_subagent(&agent, &json!({"agentType": "helper"}), text);
    }
    session
}

struct Generator<'a> {
    n: u64,
    at: i64,
    random: &'a mut StdRng,
    /// The transcripts by agent id; that of the main thread has none.
    threads: BTreeMap<String, Vec<u8>>,
}

impl Generator<'_> {
    fn id(&mut self, kind: &str) -> String {
        self.n += 1;
        format!("{kind}-{}", self.n)
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn word(&mut self) -> String {
        let long = "more than a row of a database likes \u{0} ".repeat(120);
        let words =
            ["fix", "done\n\nreally", "Ünïcode \u{1f41b}", "nul \u{0} in it", "", "tests", &long];
        words[self.random.random_range(0..words.len())].to_owned()
    }

    /// A prompt and what follows it.
    fn turn(&mut self, hooks: &mut Vec<Value>) {
        let (prompt, words) = (self.id("prompt"), format!("{} please", self.word()));
        if self.chance(40) {
            hooks.push(
                json!({"hook_event_name": "SessionStart", "source": "resume", "model": "m1"}),
            );
        }
        if self.chance(90) {
            hooks.push(json!({"hook_event_name": "UserPromptSubmit", "prompt_id": prompt,
                "prompt": words}));
        }
        if self.chance(90) {
            let content = match self.random.random_range(0..3) {
                0 => json!(words),
                1 => json!([{"type": "text", "text": words}]),
                _ => json!([{"type": "text", "text": words}, {"type": "image",
                    "source": {"media_type": "image/png", "data": "x"}}]),
            };
            self.line(
                "",
                json!({"type": "user", "promptId": prompt,
                "message": {"role": "user", "content": content}}),
            );
        }
        for _ in 0..self.random.random_range(0..3) {
            self.queue(hooks, &prompt);
        }
        for _ in 0..self.random.random_range(0..3) {
            let agent = self.chance(30).then(|| self.id("agent"));
            self.message(hooks, agent.as_deref(), &prompt);
        }
        match self.random.random_range(0..6) {
            0 => hooks.push(json!({"hook_event_name": "StopFailure", "error": "server_error",
                "last_assistant_message": "API Error: 500"})),
            1 => hooks.push(json!({"hook_event_name": "SessionEnd", "reason": "clear"})),
            2 => hooks.push(json!({"hook_event_name": "SubagentStop", "agent_type": "",
                "agent_id": "stray", "last_assistant_message": "summary"})),
            3 => hooks.push(json!({"hook_event_name": "Notification", "message": 7})),
            _ => {}
        }
        self.noise();
    }

    /// A prompt that is sent while the model works, and what becomes of it.
    fn queue(&mut self, hooks: &mut Vec<Value>, running: &str) {
        // Some say the same.
        let words = format!("{} meanwhile", self.word());
        if self.chance(90) {
            hooks.push(json!({"hook_event_name": "UserPromptSubmit", "prompt_id": running,
                "prompt": words}));
        }
        let operation = |made: &mut Self, operation: &str| {
            made.at += made.random.random_range(0..50);
            let line = json!({"type": "queue-operation", "operation": operation,
                "timestamp": Timestamp::from_millis(made.at), "content": words});
            made.raw("", &line.to_string());
        };
        if self.chance(90) {
            operation(self, "enqueue");
        }
        let sent_at = self.at;
        match self.random.random_range(0..4) {
            0 => operation(self, "popAll"),
            1 => {
                operation(self, "remove");
                let attachment = json!({"type": "queued_command", "prompt": words,
                    "commandMode": "prompt", "timestamp": Timestamp::from_millis(sent_at)});
                self.line("", json!({"type": "attachment", "attachment": attachment}));
            }
            2 => {
                operation(self, "dequeue");
                let is_scheduled = self.chance(20);
                self.line(
                    "",
                    json!({"type": "user", "promptSource": "queued", "sentAtMs": sent_at,
                    "isMeta": is_scheduled, "message": {"role": "user", "content": words}}),
                );
            }
            _ => {} // it waits
        }
    }

    /// A message of the model, with tools.
    fn message(&mut self, hooks: &mut Vec<Value>, agent: Option<&str>, prompt: &str) {
        let thread = agent.unwrap_or_default();
        let (id, words) = (self.id("msg"), self.word());
        let mut blocks = vec![json!({"type": "thinking", "thinking": "hm"})];
        blocks.push(json!({"type": "text", "text": words}));
        let tools: Vec<String> =
            (0..self.random.random_range(0..4)).map(|_| self.id("toolu")).collect();
        for tool in &tools {
            blocks.push(json!({"type": "tool_use", "id": tool, "name": "Bash",
                "input": {"command": tool}}));
        }
        let speed = if self.random.random_bool(0.2) { "fast" } else { "standard" };
        let has_advisor = self.random.random_bool(0.3);
        if has_advisor {
            let advice = self.id("advice");
            blocks.push(json!({"type": "advisor_tool_result", "tool_use_id": "srvtoolu",
                "content": {"type": "advisor_result", "text": advice}}));
        }
        if self.random.random_bool(0.3) {
            let (search, words) = (self.id("srvtoolu"), self.word());
            blocks.push(json!({"type": "server_tool_use", "id": search, "name": "web_search",
                "input": {"query": words}}));
            blocks.push(json!({"type": "web_search_tool_result", "tool_use_id": search, "content":
                [{"type": "web_search_result", "title": search, "encrypted_content": "e"}]}));
        }
        for (index, block) in blocks.into_iter().enumerate() {
            let advisor = json!([{"type": "message", "input_tokens": 10}, {"type": "advisor_message",
                "model": "claude-haiku-5-5", "input_tokens": 100_000 + index, "output_tokens": 1}]);
            let iterations = if has_advisor { advisor } else { json!(null) };
            // A line that was written before the message was complete counts less output.
            let usage = json!({"input_tokens": 10, "output_tokens": self.random.random_range(0..90),
                "cache_creation_input_tokens": 3, "cache_read_input_tokens": 5,
                "cache_creation": {"ephemeral_1h_input_tokens": 2}, "speed": speed,
                "iterations": iterations});
            self.line(
                thread,
                json!({"type": "assistant", "apiBlockIndex": index, "message":
                {"id": id, "role": "assistant", "model": "claude-opus-5-5", "content": [block],
                "usage": usage}}),
            );
        }
        let mut common = json!({"prompt_id": prompt});
        if let Some(agent) = agent {
            common["agent_id"] = json!(agent);
            common["agent_type"] = json!("helper");
            hooks.push(with(&common, json!({"hook_event_name": "SubagentStart"})));
        }
        let mut calls = Vec::new();
        for tool in &tools {
            let call = json!({"tool_name": "Bash", "tool_use_id": tool, "tool_input":
                {"command": tool}});
            calls.push(with(&call, json!({"tool_response": "out"})));
            let call = with(&common, call);
            hooks.push(with(&call, json!({"hook_event_name": "PreToolUse"})));
            let outcome = self.random.random_range(0..5);
            let mut line = json!({"type": "user", "promptId": prompt});
            let mut result = json!({"type": "tool_result", "tool_use_id": tool, "content": "out"});
            match outcome {
                0 => continue, // interrupted: nobody says more
                1 => {
                    result["is_error"] = json!(true);
                    line["toolDenialKind"] = json!("user-rejected");
                    if self.chance(50) {
                        line["userFeedback"] = json!(format!("{} instead", self.word()));
                    }
                }
                2 => {
                    result["is_error"] = json!(true);
                    hooks.push(with(
                        &call,
                        json!({"hook_event_name": "PostToolUseFailure",
                        "error": "Exit code 1", "duration_ms": self.random.random_range(0..99)}),
                    ));
                }
                _ => {
                    line["toolUseResult"] = json!({"stdout": "out"});
                    hooks.push(with(
                        &call,
                        json!({"hook_event_name": "PostToolUse",
                        "tool_response": {"stdout": "out"},
                        "duration_ms": self.random.random_range(0..99)}),
                    ));
                }
            }
            line["message"] = json!({"role": "user", "content": [result]});
            self.line(thread, line);
        }
        if !calls.is_empty() {
            let batch = json!({"hook_event_name": "PostToolBatch", "tool_calls": calls});
            hooks.push(with(&common, batch));
        }
        let stop = if agent.is_some() { "SubagentStop" } else { "Stop" };
        for _ in 0..self.random.random_range(0..3) {
            let stop = json!({"hook_event_name": stop, "last_assistant_message": words});
            hooks.push(with(&common, stop));
        }
    }

    /// Lines that are not as they should be.
    fn noise(&mut self) {
        let cost = json!({"type": "cost-state", "totalCostUSD": self.n, "startTime": self.at,
            "totalDuration": self.n, "modelUsage": {"m": {"inputTokens": 1, "costUSD": 0.5}, "x": 7}});
        self.raw("", &cost.to_string());
        for _ in 0..self.random.random_range(0..5) {
            match self.random.random_range(0..12) {
                0 => self.raw("", "{\"type\":\"user\",\"broken"),
                1 => self.raw("", "\u{0}\u{0}"),
                2 => self.raw("", r#"{"type":"attachment"}"#),
                3 => self.raw("", r#"{"type":"user","message":{"content":"without time or id"}}"#),
                4 => {
                    let message = json!({"role": "x", "content": "?"});
                    self.line("", json!({"type": "new", "message": message}));
                }
                5 => self.line("", json!({"type": "system", "content": "said"})),
                6 => self.line(
                    "",
                    json!({"type": "user", "isSidechain": true, "message":
                    {"content": "an old subagent's task"}}),
                ),
                7 => self.line(
                    "",
                    json!({"type": "assistant", "message": {"id": self.n,
                    "model": "<synthetic>", "content": "API Error: 500"}}),
                ),
                8 => {
                    let kind = ["custom-title", "ai-title"][self.random.random_range(0..2)];
                    let title = format!("{kind} {}", self.n);
                    let field = if kind == "ai-title" { "aiTitle" } else { "customTitle" };
                    self.raw("", &json!({"type": kind, field: title}).to_string());
                }
                9 => self.line("", json!({"type": "system", "subtype": "turn_duration"})),
                10 => self.line(
                    "",
                    json!({"type": "user", "message": {"content":
                    "<bash-stdout></bash-stdout><bash-stderr></bash-stderr>"}}),
                ),
                // The same lines, redacted by other rules.
                _ => ["[REDACTED:b]", "[REDACTED:a]"]
                    .into_iter()
                    .for_each(|word| self.redacted(word)),
            }
        }
    }

    fn redacted(&mut self, word: &str) {
        let result = json!({"type": "tool_result", "tool_use_id": "same", "content": word});
        let wish = json!({"type": "tool_use", "id": "same", "name": "Bash", "input": {"x": word}});
        for message in [
            json!({"role": "user", "content": word}),
            json!({"role": "user", "content": [result]}),
            json!({"role": "assistant", "id": "same", "content": [wish]}),
        ] {
            // Before everything else, so that these say what comes first.
            let line = json!({"type": message["role"], "uuid": "same", "promptId": "same",
                "timestamp": "2026-11-24T00:00:00Z", "message": message});
            self.raw("", &line.to_string());
        }
    }

    fn line(&mut self, thread: &str, line: Value) {
        self.at += self.random.random_range(0..50) / 5 * 5; // some lines share their time
        // Most follow the line before, some go back.
        let back = if self.chance(10) { 4 } else { 0 };
        let parent = format!("line-{}", self.n.saturating_sub(back));
        let id = self.id("line");
        let stamp = json!({"uuid": id, "parentUuid": parent, "timestamp": Timestamp::from_millis(self.at),
            "cwd": "/p", "gitBranch": format!("b{}", self.n % 3), "version": "2.1"});
        self.raw(thread, &with(&stamp, line).to_string());
    }

    fn raw(&mut self, thread: &str, line: &str) {
        let file = self.threads.entry(thread.to_owned()).or_default();
        file.extend_from_slice(line.as_bytes());
        file.push(b'\n');
    }
}

/// Two objects as one.
fn with(one: &Value, other: Value) -> Value {
    let mut both = one.clone();
    if let (Some(both), Value::Object(other)) = (both.as_object_mut(), other) {
        both.extend(other);
    }
    both
}
