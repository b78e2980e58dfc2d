//! Transcripts on their way from Claude Code's folder into conversations, with the real programs.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::support::world::{World, feed};
use arrakis_core::base::clock::SystemClock;
use arrakis_core::base::limits::TRANSCRIPT_LINE_MAX_BYTES;
use arrakis_core::record::store::{ConversationDetail, EventReader};
use arrakis_core::testkit::recorded::recorded;
use arrakis_core::testkit::sessions::Session;
use arrakis_store_fs::source::{Survey, survey};
use arrakis_store_fs::{Layout, is_drainer_running};
use arrakis_store_sqlite::{SqliteConfig, SqliteStore};
use nix::sys::stat::Mode;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// Claude Code's folder of a world.
pub(crate) struct Claude {
    pub(crate) project: PathBuf,
}

impl Claude {
    pub(crate) fn of(world: &World) -> Self {
        let project = world.directory.path().join(".claude/projects/-p");
        fs::create_dir_all(&project).unwrap();
        Self { project }
    }

    pub(crate) fn transcript(&self, session: &str) -> PathBuf {
        self.project.join(format!("{session}.jsonl"))
    }

    fn subagent(&self, session: &str, agent: &str) -> PathBuf {
        self.project.join(session).join(format!("subagents/agent-{agent}.jsonl"))
    }

    pub(crate) fn append(&self, session: &str, text: &[u8]) {
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

    pub(crate) fn event(&self, session: &str, name: &str) -> Vec<u8> {
        let path = self.transcript(session);
        json!({"session_id": session, "transcript_path": path, "hook_event_name": name})
            .to_string()
            .into_bytes()
    }
}

/// A line with which the model says something.
pub(crate) fn said(id: &str, words: &str) -> String {
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
pub(crate) fn words(world: &World, session: &str) -> Vec<String> {
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

pub(crate) fn drain_once(world: &World) {
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

/// What `arrakis conversations show` says stands under a speaker, in order.
fn shown(world: &World, session: &str, speaker: &str) -> Vec<String> {
    let output = world.arrakis(&["conversations", "show", session, "--no-pager"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let begins = |line: &&str| {
        line.get(10..)
            .is_some_and(|rest| rest == speaker || rest.starts_with(&format!("{speaker}  ")))
    };
    let found = lines.windows(2).filter(|pair| begins(&pair[0]));
    found.map(|pair| format!("{} | {}", &pair[0][10..], pair[1].trim())).collect()
}

/// The recordings of client 2.1.332 that its prompts are looked at in.
const TODAY: [&str; 5] = [
    "headless",
    "02-queued",
    "02-queued-taken-back",
    "02-queued-while-answering",
    "23-scheduled-prompt",
];

fn assert_told_as_it_was(world: &World) {
    for (session, expected) in [
        ("8ba9402f", vec!["you | @@play agent"]),
        (
            "83ca7e7e",
            vec!["you | @@play slowtool", "you  queued | typed meanwhile: use the zebrawood"],
        ),
        ("cd0dddb1", vec!["you | @@play multi", "you | /compact keep it short"]),
        (
            "c067effe",
            vec![
                "you | @@play slowtool please",
                "you  queued | queued words: use the zebrawood",
                "you  queued | second queued words: and the teak",
            ],
        ),
        ("dcf6fa78", vec!["you | @@play slowtool please", "you | a later prompt"]),
        (
            "77e6ea5d",
            vec![
                "you | @@play drip please",
                "you  queued at 20:03:03 | queued during the answer: yew",
            ],
        ),
        ("b5e4b9e2", vec!["you | @@play cron"]),
    ] {
        assert_eq!(shown(world, session, "you"), expected, "{session}");
    }
    let scheduled = "system | scheduled words: water the yew";
    assert!(shown(world, "b5e4b9e2", "system").contains(&scheduled.to_owned()));
    assert_eq!(world.count("messages WHERE timestamp < '2026'"), 0);
    assert_eq!(world.count("tool_uses WHERE timestamp < '2026'"), 0);
    assert_eq!(world.count("conversations WHERE started_at < '2026'"), 0);
    // A list counts what is shown.
    let list = world.arrakis(&["conversations", "list", "--json"]);
    let list: Vec<Value> = serde_json::from_slice(&list.stdout).unwrap();
    for one in list {
        let shown =
            world.arrakis(&["conversations", "show", "--json", one["id"].as_str().unwrap()]);
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
        assert_eq!(one["messageCount"], shown["messages"].as_array().unwrap().len(), "{one}");
    }
    for (words, hits) in [("mahogany", 0), ("zebrawood", 2), ("yew", 2)] {
        let found = world.arrakis(&["search", words, "--json", "--role", "user"]);
        let found: Value = serde_json::from_slice(&found.stdout).unwrap();
        let found = found["hits"].as_array().unwrap().len();
        let scheduled = usize::from(words == "yew");
        assert_eq!(found, hits - scheduled, "{words}");
    }
}

#[test]
fn sessions_of_client_2_1_332_read_as_they_were() {
    let world = World::new();
    let _up = world.lone_up();
    let claude = Claude::of(&world);
    let sessions: Vec<_> =
        TODAY.iter().flat_map(|name| arrakis_core::testkit::recorded::recording(name)).collect();
    for session in &sessions {
        claude.write(session);
        for hook in &session.hooks {
            feed(world.lone_hook(), &claude.hook(hook));
        }
    }
    drain_once(&world);
    for session in &sessions {
        assert_whole(&world, session);
    }
    world.wait_until("all is searchable", |world| {
        let found = world.arrakis(&["search", "zebrawood", "--json", "--role", "user"]);
        String::from_utf8_lossy(&found.stdout).matches("\"sessionId\"").count() == 2
    });
    assert_told_as_it_was(&world);
    let status = world.arrakis(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["spool"]["transcripts"]["unknownLines"], json!({}), "all types are known");
}

#[test]
fn sessions_of_client_2_1_332_are_imported_as_they_were() {
    let world = World::new();
    let _up = world.lone_up();
    let claude = Claude::of(&world);
    let sessions: Vec<_> =
        TODAY.iter().flat_map(|name| arrakis_core::testkit::recorded::recording(name)).collect();
    sessions.iter().for_each(|session| claude.write(session));
    let (report, success) = import(&world, &[]);
    assert!(success && report["unknown"] == json!({}), "{report}");
    drain_once(&world);
    world.wait_until("all is searchable", |world| {
        let found = world.arrakis(&["search", "zebrawood", "--json", "--role", "user"]);
        String::from_utf8_lossy(&found.stdout).matches("\"sessionId\"").count() == 2
    });
    assert_told_as_it_was(&world);
}

#[test]
fn lines_of_unknown_types_are_named_at_import_in_status_and_by_the_doctor() {
    let world = World::new();
    let _up = world.lone_up();
    let claude = Claude::of(&world);
    let unknown = r#"{"type":"from-the-future","message":{"role":"user","content":"planted"}}"#;
    let text = [unknown, unknown, said("m1", "one").trim_end(), unknown].join("\n") + "\n";
    claude.append("s", text.as_bytes());
    let mut command = world.command(env!("CARGO_BIN_EXE_arrakis"));
    let output = command.arg("import").env("ARRAKIS_BIN", "true").output().unwrap();
    let told = "3 lines of a type that this version does not know: from-the-future";
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(told), "{text}");
    let (report, _) = import(&world, &["--again"]);
    assert_eq!(report["unknown"], json!({"from-the-future": 3}), "{report}");
    let status = String::from_utf8(world.arrakis(&["status"]).stdout).unwrap();
    assert!(status.contains(told) && status.contains("update Arrakis"), "{status}");
    let checks = world.arrakis(&["doctor", "--json"]);
    let checks: Vec<Value> = serde_json::from_slice(&checks.stdout).unwrap();
    let check = checks.iter().find(|check| check["name"] == "transcripts").unwrap();
    assert_eq!((&check["outcome"], &check["found"]), (&json!("warning"), &json!(told)));
    assert!(check["remedy"].as_str().unwrap().contains("update Arrakis"), "{check}");
    drain_once(&world);
    assert_eq!(words(&world, "s"), ["one"]);
    let kept =
        world.count("webhook_events WHERE request_body LIKE '%planted%' AND status = 'SUCCESS'");
    assert_eq!(kept, 1, "a later version may understand them");
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

/// The slices that are stored, by file: each as its start, its end, and whether it came before.
fn stored_slices(world: &World) -> Vec<(String, u64, u64)> {
    let mut slices: Vec<_> = world
        .rows()
        .into_iter()
        .filter(|row| row.status == "SUCCESS")
        .filter_map(|row| serde_json::from_str::<Value>(&row.request_body?).ok())
        .filter(|body| body["hook_event_name"] == "Transcript")
        .map(|body| {
            let path = body["transcript_path"].as_str().unwrap().to_owned();
            (path, body["start"].as_u64().unwrap(), body["end"].as_u64().unwrap())
        })
        .collect();
    slices.sort();
    slices
}

/// Each line is in one slice.
fn assert_cut_once(world: &World) {
    let mut before: Option<(String, u64)> = None;
    for (path, start, end) in stored_slices(world) {
        let expected = before.filter(|(of, _)| *of == path).map_or(0, |(_, end)| end);
        assert_eq!(start, expected, "{path}");
        before = Some((path, end));
    }
}

#[test]
fn with_the_server_away_slices_wait_like_everything() {
    let world = World::new();
    let up = world.lone_up();
    let address = up.address().to_owned();
    up.stop();
    let claude = Claude::of(&world);
    let session = recorded().into_iter().find(|one| one.session_id.starts_with("8493")).unwrap();
    claude.write(&session);
    for hook in &session.hooks {
        feed(world.lone_hook(), &claude.hook(hook));
    }
    drain_once(&world);
    assert_eq!(world.spooled("pending").len(), session.hooks.len() + session.transcripts.len());
    // What was read may go.
    fs::remove_dir_all(&claude.project).unwrap();
    let mut command = world.up_command(&address);
    command.env("ARRAKIS_BIN", "true");
    let _up = crate::support::world::Up::start(command);
    drain_once(&world);
    assert_whole(&world, &session);
    assert_cut_once(&world);
}

#[test]
fn drainers_that_are_killed_again_and_again_lose_no_line_and_double_none() {
    let world = World::new();
    let _up = world.up();
    let claude = Claude::of(&world);
    let mut random = rand::rngs::StdRng::seed_from_u64(5);
    let mut kills = 0;
    for session in recorded() {
        let (mut whole, own) = (session.clone(), session.transcripts[0].1.clone());
        whole.transcripts.remove(0);
        claude.write(&whole);
        let mut written = 0;
        for (n, hook) in session.hooks.iter().enumerate() {
            let until = own.len() * (n + 1) / session.hooks.len();
            claude.append(&session.session_id, &own[written..until]);
            written = until;
            feed(world.hook(), &claude.hook(hook));
            if random.random_ratio(1, 3) {
                kills += world.kill_drainers();
            }
        }
    }
    assert!(kills > 10, "{kills} drainers were killed");
    drain_once(&world);
    // A drainer that lives may have leased some.
    world.wait_until("everything is delivered", |world| {
        world.spooled("pending").len() + world.spooled("processing").len() == 0
    });
    for session in recorded() {
        assert_whole(&world, &session);
    }
}

#[test]
fn a_file_that_changes_under_the_reader_doubles_nothing_and_hides_nothing() {
    let world = World::new();
    let _up = world.lone_up();
    let claude = Claude::of(&world);
    let path = claude.transcript("s");
    let stop = || {
        feed(world.lone_hook(), &claude.event("s", "Stop"));
        drain_once(&world);
        words(&world, "s")
    };
    let half = said("m3", "three");
    claude.append("s", (said("m1", "one") + &said("m2", "two") + &half[..20]).as_bytes());
    assert_eq!(stop(), ["one", "two"]);
    claude.append("s", &half.as_bytes()[20..]);
    assert_eq!(stop(), ["one", "two", "three"]);
    // Truncated and grown; replaced by another file; gone; back.
    fs::write(&path, said("m1", "one") + &said("m4", "four")).unwrap();
    assert_eq!(stop(), ["one", "two", "three", "four"]);
    fs::write(path.with_extension("new"), said("m1", "one") + &said("m5", "five")).unwrap();
    fs::rename(path.with_extension("new"), &path).unwrap();
    assert_eq!(stop(), ["one", "two", "three", "four", "five"]);
    fs::remove_file(&path).unwrap();
    assert_eq!(stop().len(), 5);
    claude.append("s", (said("m1", "one") + &said("m6", "six")).as_bytes());
    assert_eq!(stop(), ["one", "two", "three", "four", "five", "six"]);
    let usage = conversation(&world, "s").unwrap().usage;
    assert_eq!(usage.total.input_tokens, 6, "each message once");
}

#[test]
fn lines_that_cannot_be_read_are_named_and_hold_up_nothing() {
    let world = World::new();
    let _up = world.lone_up();
    let claude = Claude::of(&world);
    claude.append("s", said("m1", "one").as_bytes());
    claude.append("s", b"not json\n{\"type\":\"user\",\0}\n{\"type\":\"from-the-future\"}\n");
    let long = 3 * TRANSCRIPT_LINE_MAX_BYTES;
    claude.append("s", &vec![b'x'; long]);
    claude.append("s", format!("\n{}", said("m2", "two")).as_bytes());
    feed(world.lone_hook(), &claude.event("s", "Stop"));
    drain_once(&world);
    assert_eq!(words(&world, "s"), ["one", "two"]);
    let bodies: Vec<Value> = world
        .rows()
        .iter()
        .map(|row| serde_json::from_str(row.request_body.as_ref().unwrap()).unwrap())
        .collect();
    let slice = bodies.iter().find(|body| body["hook_event_name"] == "Transcript").unwrap();
    let reasons: Vec<_> = slice["unreadable"].as_array().unwrap().iter().collect();
    assert_eq!(reasons.len(), 3);
    assert_eq!(
        (&reasons[2]["reason"], &reasons[2]["bytes"]),
        (&json!("too_long"), &json!(long + 1))
    );
    assert_eq!(slice["unknown"]["from-the-future"], 1);
    assert_eq!(warnings(&world).len(), 1, "{:?}", warnings(&world));
}

#[test]
fn what_may_not_or_cannot_be_read_is_told_once_and_holds_up_nothing() {
    let world = World::new();
    let _up = world.lone_up();
    let claude = Claude::of(&world);
    let outside = world.directory.path().join("outside.jsonl");
    fs::write(&outside, said("m1", "a secret")).unwrap();
    std::os::unix::fs::symlink(&outside, claude.transcript("link")).unwrap();
    nix::unistd::mkfifo(&claude.transcript("fifo"), Mode::S_IRWXU).unwrap();
    claude.append("good", said("m2", "two").as_bytes());
    let event = |session: &str, path: &Path| json!({"session_id": session, "transcript_path": path, "hook_event_name": "Stop"});
    for _ in 0..2 {
        for session in ["link", "fifo", "good"] {
            feed(world.lone_hook(), &claude.event(session, "Stop"));
        }
        feed(world.lone_hook(), event("outside", &outside).to_string().as_bytes());
        drain_once(&world);
    }
    assert_eq!(words(&world, "good"), ["two"]);
    for session in ["link", "fifo", "outside"] {
        assert_eq!(words(&world, session), Vec::<String>::new(), "{session}");
    }
    assert_eq!(warnings(&world).len(), 3, "{:?}", warnings(&world));
    assert_eq!(known(&world).troubles.len(), 3);
    let status = world.arrakis(&["status"]);
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(status.contains("3 transcripts cannot be read"), "{status}");
    // Named in the configuration, the folder is read.
    let mut file =
        fs::OpenOptions::new().append(true).open(world.home().join("config.toml")).unwrap();
    writeln!(file, "[transcripts]\nfolders = [{}]", json!(world.directory.path())).unwrap();
    drain_once(&world);
    assert_eq!(words(&world, "outside"), ["a secret"]);
    assert_eq!(words(&world, "link"), ["a secret"]);
}

#[test]
fn thinking_stays_at_home_where_that_is_wanted_and_nothing_is_read_where_it_is_not() {
    for (setting, sent) in [("thinking = true", true), ("thinking = false", false)] {
        let world = World::new();
        let _up = world.lone_up();
        let claude = Claude::of(&world);
        let thought = json!({"type": "thinking", "thinking": "a thought"});
        let message = json!({"id": "m", "content": [thought, {"type": "text", "text": "words"}]});
        let line = json!({"type": "assistant", "uuid": "u", "timestamp": "2026-11-24T00:00:00Z",
            "message": message});
        claude.append("s", format!("{line}\n").as_bytes());
        let mut file =
            fs::OpenOptions::new().append(true).open(world.home().join("config.toml")).unwrap();
        writeln!(file, "[transcripts]\n{setting}").unwrap();
        feed(world.lone_hook(), &claude.event("s", "Stop"));
        let mut disabled = world.command(env!("CARGO_BIN_EXE_arrakis"));
        disabled.args(["drain", "--once"]).env("ARRAKIS_TRANSCRIPTS", "off");
        assert!(disabled.output().unwrap().status.success());
        assert_eq!(words(&world, "s"), Vec::<String>::new());
        feed(world.lone_hook(), &claude.event("s", "Stop"));
        drain_once(&world);
        assert_eq!(words(&world, "s"), ["words"]);
        let stored = world.count("webhook_events WHERE request_body LIKE '%a thought%'");
        assert_eq!(stored == 1, sent, "{setting}");
    }
}

#[test]
fn with_direct_delivery_a_drainer_stays_for_the_transcript() {
    let world = World::new();
    let _up = world.lone_up();
    let claude = Claude::of(&world);
    let mut file =
        fs::OpenOptions::new().append(true).open(world.home().join("config.toml")).unwrap();
    writeln!(file, "delivery = \"direct\"").unwrap();
    claude.append("s", said("m1", "one").as_bytes());
    feed(world.hook(), &claude.event("s", "Stop"));
    world.wait_until("the transcript has arrived", |world| words(world, "s") == ["one"]);
    assert!(is_drainer_running(&Layout::new(world.home())));
}

pub(crate) fn import(world: &World, arguments: &[&str]) -> (Value, bool) {
    let arguments = [&["import", "--json"], arguments].concat();
    let mut command = world.command(env!("CARGO_BIN_EXE_arrakis"));
    let output = command.args(arguments).env("ARRAKIS_BIN", "true").output().unwrap();
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (report, output.status.success())
}

#[test]
fn past_sessions_are_imported_once_however_often() {
    let world = World::new();
    let _up = world.lone_up();
    let claude = Claude::of(&world);
    let sessions = recorded().into_iter();
    let sessions: Vec<_> = sessions.map(|one| Session { hooks: Vec::new(), ..one }).collect();
    sessions.iter().for_each(|session| claude.write(session));
    claude.append("bad", format!("{}broken\n", said("m1", "one")).as_bytes());
    let (report, success) = import(&world, &[]);
    assert!(success, "{report}");
    assert_eq!((&report["files"], &report["sent"]), (&json!(12), &json!(12)), "{report}");
    assert_eq!((&report["unreadable"], &report["unchanged"]), (&json!(1), &json!(0)));
    assert!(report["unreadableLines"][0]["path"].as_str().unwrap().ends_with("bad.jsonl"));
    assert_eq!(report["unreadableLines"][0]["reason"], "not_json");
    assert_eq!(report["drainer"], "started");
    // Read again while nothing was delivered, and after.
    let (report, _) = import(&world, &[]);
    assert_eq!((&report["unchanged"], &report["sent"]), (&json!(12), &json!(0)), "{report}");
    let (report, _) = import(&world, &["--again"]);
    assert_eq!(report["sent"], 12, "{report}");
    drain_once(&world);
    import(&world, &["--again"]);
    drain_once(&world);
    for session in &sessions {
        assert_whole(&world, session);
    }
    assert_cut_once(&world);
    assert_eq!(world.count("webhook_events WHERE status = 'SUCCESS'"), 12);
    for directory in ["pending", "processing", "failed", "quarantine"] {
        assert!(world.spooled(directory).is_empty(), "{directory} is empty");
    }
    // What the session gains is shipped from there on.
    claude.append("bad", said("m2", "two").as_bytes());
    feed(world.lone_hook(), &claude.event("bad", "Stop"));
    drain_once(&world);
    assert_eq!(words(&world, "bad"), ["one", "two"]);
    assert_cut_once(&world);
    let text = String::from_utf8(world.arrakis(&["import"]).stdout).unwrap();
    assert!(
        text.contains("12 files with 0 lines") && text.contains("12 had nothing new"),
        "{text}"
    );
}

#[test]
fn an_import_that_is_killed_goes_on_where_it_was() {
    let world = World::new();
    let _up = world.lone_up();
    let claude = Claude::of(&world);
    let filler = "x".repeat(20_000);
    let mut expected = Vec::new();
    for n in 0..1000 {
        claude.append("s", said(&format!("m{n:04}"), &format!("{n} {filler}")).as_bytes());
        expected.push(format!("{n} {filler}"));
    }
    let mut kills = 0;
    for after in [1, 20, 50] {
        let mut command = world.command(env!("CARGO_BIN_EXE_arrakis"));
        command.args(["import", "--json"]).env("ARRAKIS_BIN", "true");
        command.stdout(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        world.wait_until("it has begun", |world| world.spooled("pending").len() >= after);
        child.kill().unwrap();
        kills += usize::from(!child.wait().unwrap().success());
    }
    assert!(kills > 1, "{kills}");
    let (report, success) = import(&world, &[]);
    assert!(success, "{report}");
    drain_once(&world);
    assert_cut_once(&world);
    assert_eq!(words(&world, "s"), expected);
}

#[test]
fn a_path_that_is_named_is_read_wherever_it_lies_and_what_cannot_be_is_told() {
    let world = World::new();
    let _up = world.lone_up();
    let folder = world.directory.path().join("backup");
    fs::create_dir_all(folder.join("deep")).unwrap();
    fs::write(folder.join("deep/s.jsonl"), said("m1", "one")).unwrap();
    nix::unistd::mkfifo(&folder.join("fifo.jsonl"), Mode::S_IRWXU).unwrap();
    let folder = folder.to_str().unwrap();
    let (report, success) = import(&world, &[folder, "/no/such/file"]);
    assert!(!success);
    assert_eq!((&report["files"], &report["notRead"]), (&json!(1), &json!(2)), "{report}");
    drain_once(&world);
    assert_eq!(words(&world, "s"), ["one"]);
    assert_eq!(known(&world).troubles, []);
    let nothing = world.arrakis(&["import"]);
    assert!(String::from_utf8(nothing.stderr).unwrap().contains("there are no transcripts in"));
}
