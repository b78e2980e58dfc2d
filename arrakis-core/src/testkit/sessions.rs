//! Whole sessions of Claude Code for tests: recorded ones, and generated ones that are nastier.
//!
//! [`Session::shuffled`] gives the events of a session as a bad day may bring them: hooks in any order and
//! twice, transcripts cut anywhere, read twice, with slices that overlap.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::conversation::Changes;
use crate::digest::Digest;
use crate::envelope::{Envelope, Source};
use crate::id::{RequestId, uuid_v7};
use crate::ingest::{Form, Incoming, Reception, admit, judge};
use crate::redact::Redactor;
use crate::store::{Arrival, ConversationDetail, EventStore, Verdict};
use crate::transcript::{Slice, SliceConfig, Slicer, TranscriptAgent, TranscriptFile};

/// What a session leaves behind.
#[derive(Debug, Clone, Default)]
pub struct Session {
    /// Claude Code's id of it.
    pub session_id: String,
    /// The payloads of its hooks, in order.
    pub hooks: Vec<Vec<u8>>,
    /// Its own transcript and those of its subagents.
    pub transcripts: Vec<(TranscriptFile, Vec<u8>)>,
}

/// The moment of the first hook of a session.
const START_MILLIS: i64 = 1_795_481_720_000;

impl Session {
    /// A session whose own transcript is `transcript`.
    #[must_use]
    pub fn new(session_id: &str, hooks: Vec<Vec<u8>>, transcript: Vec<u8>) -> Self {
        let mut session =
            Self { session_id: session_id.to_owned(), hooks, transcripts: Vec::new() };
        session.transcripts.push((session.file(None), transcript));
        session
    }

    /// Adds the transcript of a subagent; `meta` is the JSON beside it.
    pub fn add_subagent(&mut self, agent_id: &str, meta: &Value, transcript: Vec<u8>) {
        let text = |name: &str| meta[name].as_str().map(str::to_owned);
        let agent = TranscriptAgent {
            id: agent_id.to_owned(),
            agent_type: text("agentType"),
            tool_use_id: text("toolUseId"),
        };
        self.transcripts.push((self.file(Some(agent)), transcript));
    }

    fn file(&self, agent: Option<TranscriptAgent>) -> TranscriptFile {
        let name = agent.as_ref().map_or(self.session_id.as_str(), |agent| agent.id.as_str());
        TranscriptFile {
            session_id: self.session_id.clone(),
            path: format!("/t/{name}.jsonl"),
            cwd: None,
            identity: name.to_owned(),
            agent,
        }
    }

    /// Each event once, in order; each transcript in one slice.
    #[must_use]
    pub fn in_order(&self, workspace: &str) -> Vec<Arrival> {
        let slices = self.transcripts.iter().filter_map(|(file, text)| slice(file, text, 0));
        let slices = slices.map(|slice| (slice.request_id, slice.payload));
        let hooks =
            self.hooks.iter().enumerate().map(|(n, hook)| self.hook_event(workspace, n, hook));
        let events = hooks.chain(slices.map(|(id, payload)| {
            let at = Timestamp::from_millis(START_MILLIS + 3_600_000);
            (self.unique(workspace, id.as_str()), at, payload)
        }));
        (0..).zip(events).map(|(n, event)| arrival(workspace, n, event)).collect()
    }

    /// The same events in some order that depends on `seed`, some of them twice, the transcripts in slices
    /// that cover them but may overlap.
    #[must_use]
    pub fn shuffled(&self, workspace: &str, seed: u64) -> Vec<Arrival> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut events: Vec<_> = self
            .hooks
            .iter()
            .enumerate()
            .map(|(n, hook)| self.hook_event(workspace, n, hook))
            .collect();
        for (file, text) in &self.transcripts {
            for slice in random_slices(file, text, &mut random) {
                // The moment at which a slice was read must not matter.
                let at = Timestamp::from_millis(START_MILLIS + random.random_range(0..9_000_000));
                events.push((self.unique(workspace, slice.request_id.as_str()), at, slice.payload));
            }
        }
        for _ in 0..random.random_range(0..=events.len()) {
            let again = events[random.random_range(0..events.len())].clone();
            events.push(again);
        }
        events.shuffle(&mut random);
        (0..).zip(events).map(|(n, event)| arrival(workspace, n, event)).collect()
    }

    fn hook_event(&self, workspace: &str, n: usize, payload: &[u8]) -> Event {
        let millis = i64::try_from(n).unwrap_or(0) * 7;
        let payload = payload.strip_suffix(b"\n").unwrap_or(payload).to_vec();
        let at = Timestamp::from_millis(START_MILLIS + millis);
        (self.unique(workspace, &format!("hook-{n:04}")), at, payload)
    }

    /// Request ids are of the whole store, and each workspace has the same events.
    fn unique(&self, workspace: &str, id: &str) -> RequestId {
        format!("{workspace}.{}.{id}", self.session_id).parse().expect("a request id")
    }

    /// What a reader should see of the session, timeline left out.
    #[must_use]
    pub fn expected(&self, workspace: &str) -> ConversationDetail {
        conversation_of(&self.in_order(workspace))
    }
}

/// What arrivals of one session add up to, in the order given; the timeline is left out.
///
/// # Panics
///
/// One of them cannot be applied, or they are not of one session.
#[must_use]
pub fn conversation_of(arrivals: &[Arrival]) -> ConversationDetail {
    let mut all = Changes::default();
    for arrival in arrivals {
        match judge(arrival) {
            Verdict::Apply(changes) => all.absorb(changes),
            other => panic!("{} cannot be applied: {other:?}", arrival.request_id),
        }
    }
    let Changes { mut conversations, messages, tool_uses, subagents, .. } = all;
    assert_eq!(conversations.len(), 1, "the arrivals are of one session");
    let conversation = conversations.remove(0);
    ConversationDetail::new(conversation, messages, tool_uses, subagents, Vec::new())
}

/// Records a session in some order, in batches of any size, and compares what is read with what it should
/// be. Each seed takes a workspace of its own.
///
/// # Panics
///
/// Something differs.
pub async fn record_shuffled(store: &dyn EventStore, session: &Session, seed: u64) {
    let workspace = format!("w{seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut left = session.shuffled(&workspace, seed);
    while !left.is_empty() {
        let rest = left.split_off(random.random_range(1..=left.len().min(20)));
        let batch = left.into_iter().map(|arrival| {
            let verdict = judge(&arrival);
            (arrival, verdict)
        });
        store.record(batch.collect()).await.expect("record");
        left = rest;
    }
    let found = store.conversation(&workspace, &session.session_id).await.expect("read");
    let mut found = found.expect("the conversation is there");
    found.events.clear();
    assert_same(&found, &session.expected(&workspace), &format!("seed {seed}"));
}

/// Compares two conversations part by part, so that a failure says where they differ.
///
/// # Panics
///
/// They differ.
pub fn assert_same(found: &ConversationDetail, expected: &ConversationDetail, what: &str) {
    let session = &expected.conversation.session_id;
    assert_eq!(found.conversation, expected.conversation, "{what}, session {session}");
    assert_parts(&found.messages, &expected.messages, what);
    assert_parts(&found.tool_uses, &expected.tool_uses, what);
    assert_parts(&found.subagents, &expected.subagents, what);
    assert_eq!(found.usage, expected.usage, "{what}, session {session}");
}

fn assert_parts<T: PartialEq + std::fmt::Debug>(found: &[T], expected: &[T], what: &str) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected, "{what}");
    }
    assert_eq!(found.len(), expected.len(), "{what}");
}

type Event = (RequestId, Timestamp, Vec<u8>);

fn arrival(workspace: &str, n: u64, (id, at, payload): Event) -> Arrival {
    let mut random = [0; 10];
    random.copy_from_slice(&Digest::of(format!("{id} {n}").as_bytes()).as_bytes()[..10]);
    let Envelope { header, payload } =
        Envelope::new(id, at, "http://h/", Source::default(), payload);
    let incoming = Incoming {
        form: Form::Envelope,
        request_id: header.request_id.clone(),
        digest: header.digest,
        body: payload,
        header: Some(header),
    };
    let received_at = at.plus(std::time::Duration::from_secs(n));
    let reception = Reception {
        event_id: uuid_v7(received_at, random),
        received_at,
        workspace: workspace.to_owned(),
        headers: BTreeMap::new(),
        ip_address: None,
    };
    admit(incoming, reception).0
}

fn slice(file: &TranscriptFile, text: &[u8], start: u64) -> Option<Slice> {
    static REDACTOR: LazyLock<Redactor> = LazyLock::new(Redactor::default);
    let mut slicer = Slicer::new(file, start, SliceConfig::default(), &REDACTOR);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        assert!(slicer.push(line).is_none(), "the transcript fits into one slice");
    }
    slicer.finish()
}

/// Slices that cover the text, each of some lines, some of which several have.
fn random_slices(file: &TranscriptFile, text: &[u8], random: &mut StdRng) -> Vec<Slice> {
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let mut slices = Vec::new();
    let mut first = 0;
    while first < lines.len() {
        let next = random.random_range(first + 1..=lines.len());
        let begin = first.saturating_sub(random.random_range(0..4));
        let start: usize = lines[..begin].iter().map(|line| line.len()).sum();
        slices.extend(slice(file, &lines[begin..next].concat(), start as u64));
        first = next;
    }
    slices
}

/// A session that nobody has had: with every kind of event, parallel tools, subagents, results that come
/// before their tools or never, lines that are broken, without time or id, or say another thing than the
/// same line before.
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
        let words = ["fix", "done\n\nreally", "Ünïcode \u{1f41b}", "nul \u{0} in it", "", "tests"];
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
        for (index, block) in blocks.into_iter().enumerate() {
            // A line that was written before the message was complete counts less output.
            let usage = json!({"input_tokens": 10, "output_tokens": self.random.random_range(0..90),
                "cache_creation_input_tokens": 3, "cache_read_input_tokens": 5,
                "cache_creation": {"ephemeral_1h_input_tokens": 2}});
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
            match self.random.random_range(0..9) {
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
                // The same line, redacted by other rules.
                _ => {
                    for words in ["[REDACTED:a]", "[REDACTED:b]"] {
                        self.raw(
                            "",
                            &json!({"type": "user", "uuid": "same", "promptId": "same",
                            "timestamp": "2026-11-24T00:55:21Z", "message": {"content": words}})
                            .to_string(),
                        );
                    }
                }
            }
        }
    }

    fn line(&mut self, thread: &str, line: Value) {
        self.at += self.random.random_range(0..50);
        let id = self.id("line");
        let stamp = json!({"uuid": id, "timestamp": Timestamp::from_millis(self.at),
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
