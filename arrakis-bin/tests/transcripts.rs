//! Transcripts on their way from Claude Code's folder into conversations, with the real programs.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]
#![cfg(feature = "full")]

#[path = "../../arrakis-core/tests/support/mod.rs"]
mod recorded;
#[path = "support/world.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod world;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrakis_core::clock::SystemClock;
use arrakis_core::limits::TRANSCRIPT_LINE_MAX_BYTES;
use arrakis_core::store::{ConversationDetail, EventReader};
use arrakis_core::testkit::sessions::Session;
use arrakis_store_fs::transcript::{Survey, survey};
use arrakis_store_fs::{Layout, is_drainer_running};
use arrakis_store_sqlite::{SqliteConfig, SqliteStore};
use nix::sys::stat::Mode;
use rand::{RngExt, SeedableRng};
use recorded::recorded;
use serde_json::{Value, json};
use world::{World, feed};

/// Claude Code's folder of a world.
struct Claude {
    project: PathBuf,
}

impl Claude {
    fn of(world: &World) -> Self {
        let project = world.directory.path().join(".claude/projects/-p");
        fs::create_dir_all(&project).unwrap();
        Self { project }
    }

    fn transcript(&self, session: &str) -> PathBuf {
        self.project.join(format!("{session}.jsonl"))
    }

    fn subagent(&self, session: &str, agent: &str) -> PathBuf {
        self.project.join(session).join(format!("subagents/agent-{agent}.jsonl"))
    }

    fn append(&self, session: &str, text: &[u8]) {
        let path = self.transcript(session);
        let mut file = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(text).unwrap();
    }

    /// Puts the transcripts of a session where the client has them.
    fn write(&self, session: &Session) {
        for (file, text) in &session.transcripts {
            let Some(agent) = &file.agent else {
                fs::write(self.transcript(&session.session_id), text).unwrap();
                continue;
            };
            let path = self.subagent(&session.session_id, &agent.id);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            let meta = json!({"agentType": agent.agent_type, "toolUseId": agent.tool_use_id});
            fs::write(path.with_extension("meta.json"), meta.to_string()).unwrap();
        }
    }

    /// The payload of a hook with the paths of this folder.
    fn hook(&self, payload: &[u8]) -> Vec<u8> {
        let hook: Value = serde_json::from_slice(payload).unwrap();
        let text = |name: &str| hook[name].as_str().unwrap().to_owned();
        let session = text("session_id");
        let mut payload = String::from_utf8(payload.to_vec()).unwrap();
        let mut put = |name: &str, path: PathBuf| {
            payload = payload.replace(&json!(text(name)).to_string(), &json!(path).to_string());
        };
        put("transcript_path", self.transcript(&session));
        if hook.get("agent_transcript_path").is_some() {
            put("agent_transcript_path", self.subagent(&session, &text("agent_id")));
        }
        payload.into_bytes()
    }

    fn event(&self, session: &str, name: &str) -> Vec<u8> {
        let path = self.transcript(session);
        json!({"session_id": session, "transcript_path": path, "hook_event_name": name})
            .to_string()
            .into_bytes()
    }
}

/// A line with which the model says something.
fn said(id: &str, words: &str) -> String {
    let message = json!({"id": id, "role": "assistant", "model": "claude-opus-4-5",
        "content": [{"type": "text", "text": words}], "usage": {"input_tokens": 1}});
    let at = "2026-11-24T00:00:00.000Z";
    format!("{}\n", json!({"type": "assistant", "uuid": id, "timestamp": at, "message": message}))
}

fn conversation(world: &World, session: &str) -> Option<ConversationDetail> {
    let path = world.home().join("arrakis.db");
    let store = SqliteStore::open(&path, Arc::new(SystemClock), SqliteConfig::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(store.conversation("main", session)).unwrap()
}

/// What the model has said in a session, in order.
fn words(world: &World, session: &str) -> Vec<String> {
    let messages = conversation(world, session).map(|found| found.messages).unwrap_or_default();
    messages.into_iter().map(|message| message.content.value).collect()
}

/// What does not depend on when hooks ran.
fn essence(detail: &ConversationDetail) -> Vec<String> {
    let messages = detail.messages.iter().map(|one| {
        let (role, words, agent) = (one.role, &one.content.value, &one.agent_id);
        format!("message {role:?} {words:?} {agent:?} {:?}", one.usage)
    });
    let tools = detail.tool_uses.iter().map(|one| {
        let response = one.result.as_ref().map(|result| &result.response);
        let (id, status, seen) = (&one.tool_use_id, one.status(), one.seen);
        let took = one.result.as_ref().and_then(|result| result.duration_ms);
        format!("tool {id:?} {status:?} {took:?} {seen:?} {:?} {response:?}", one.agent_id)
    });
    let agents = detail
        .subagents
        .iter()
        .map(|one| format!("agent {} {:?} {:?}", one.agent_id, one.agent_type, one.tool_use_id));
    let usage = std::iter::once(format!("{:?}", detail.usage));
    let mut all: Vec<_> = messages.chain(tools).chain(agents).chain(usage).collect();
    all.sort();
    all
}

fn assert_whole(world: &World, session: &Session) {
    let found = conversation(world, &session.session_id).unwrap();
    let (found, expected) = (essence(&found), essence(&session.expected("main")));
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected, "session {}", session.session_id);
    }
    assert_eq!(found.len(), expected.len(), "session {}", session.session_id);
}

fn drain_once(world: &World) {
    let output = world.arrakis(&["drain", "--once"]);
    assert!(output.status.success(), "{output:?}");
}

fn known(world: &World) -> Survey {
    survey(&Layout::new(world.home())).unwrap()
}

/// The troubles that were logged about transcripts.
fn warnings(world: &World) -> Vec<String> {
    let log = fs::read_to_string(world.home().join("logs/webhook-error.log")).unwrap_or_default();
    log.lines().filter(|line| line.contains("transcript")).map(str::to_owned).collect()
}

#[test]
fn replayed_sessions_are_whole_conversations() {
    let world = World::new();
    let _up = world.lone_up();
    let claude = Claude::of(&world);
    for session in recorded() {
        claude.write(&session);
        for hook in &session.hooks {
            feed(world.lone_hook(), &claude.hook(hook));
        }
    }
    drain_once(&world);
    for session in recorded() {
        assert_whole(&world, &session);
    }
    let slices = world.count("webhook_events WHERE event_type = 'Transcript'");
    assert_eq!(slices, 11, "one slice for each file");
    // What was read is not read again.
    drain_once(&world);
    assert_eq!(world.count("webhook_events WHERE event_type = 'Transcript'"), slices);
    assert_eq!(known(&world).unread_bytes, 0);
    let balance = world.arrakis(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&balance.stdout).unwrap();
    assert_eq!(status["spool"]["balance"]["verdict"], "even", "{status}");
}

#[test]
fn a_transcript_that_lags_behind_its_stop_arrives() {
    let world = World::new();
    let _up = world.up();
    let claude = Claude::of(&world);
    let session = recorded().into_iter().find(|one| one.session_id.starts_with("c88c")).unwrap();
    let (ends, others): (Vec<_>, Vec<_>) = session.hooks.iter().partition(|hook| {
        String::from_utf8_lossy(hook).contains(r#""hook_event_name":"SessionEnd""#)
    });
    assert!(!ends.is_empty());
    for hook in others {
        feed(world.hook(), &claude.hook(hook));
    }
    world.wait_until("the Stop is delivered", |world| {
        world.home().join("arrakis.db").exists()
            && world.count("webhook_events WHERE event_type = 'Stop'") == 2
    });
    claude.write(&session);
    world.wait_until("the transcript has arrived", |world| {
        let found = conversation(world, &session.session_id).unwrap();
        essence(&found) == essence(&session.expected("main"))
    });
}
