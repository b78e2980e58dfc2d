//! `arrakis events`, `conversations`, `keys` and `logs`: what they show, and that nothing in what they
//! show can command a terminal.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{BERLIN, Bench, bench};
use arrakis_bin::cli::output::Terminal;
use arrakis_bin::cli::output::text::{safe, width};
use arrakis_bin::cli::output::zone::Zone;
use arrakis_bin::cli::{Cli, Command, conversations, events, keys, logs};
use arrakis_core::base::clock::{Clock, ManualClock, Timestamp};
use arrakis_core::record::key::ApiKey;
use arrakis_core::record::store::{
    EventReader, EventStore, KeyStore, MemoryStore, Rollups, Verdict,
};
use arrakis_core::testkit::event_store::{Arrivals, hook};
use clap::Parser;
use rand::SeedableRng;
use secrecy::SecretString;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A server's store and somebody at its command line.
struct Desk {
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    arrivals: Arrivals,
    home: TempDir,
    bench: Bench,
}

impl Desk {
    fn new() -> Self {
        let home = TempDir::new().unwrap();
        let clock = Arc::new(ManualClock::new("2026-11-24T12:00:00Z".parse().unwrap()));
        let mut bench = bench(home.path());
        bench.context.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        Self {
            store: Arc::new(MemoryStore::new(Arc::clone(&clock) as Arc<dyn Clock>)),
            arrivals: Arrivals::new(Arc::clone(&clock)),
            bench,
            clock,
            home,
        }
    }

    /// Stores a payload, one second after the one before.
    async fn receive(&mut self, id: &str, payload: impl Into<Vec<u8>>) -> String {
        self.clock.advance(Duration::from_millis(999));
        let (arrival, verdict) = self.arrivals.next(id, payload.into());
        let row = arrival.event_id.to_string();
        self.store.record(vec![(arrival, verdict)]).await.unwrap();
        row
    }

    /// Stores the recorded session of this name, under the ids `<name>-01` and so on.
    async fn receive_session(&mut self, name: &str) {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../arrakis-core/testdata/hooks");
        let mut files: Vec<_> = fs::read_dir(data)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                let file = path.file_name().unwrap().to_str().unwrap();
                file.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'))
            })
            .collect();
        files.sort();
        assert!(!files.is_empty());
        for (n, file) in files.iter().enumerate() {
            self.receive(&format!("{name}-{:02}", n + 1), fs::read(file).unwrap()).await;
        }
    }

    /// Runs a command line; returns what it wrote to standard output.
    async fn try_run(&mut self, line: &str) -> anyhow::Result<String> {
        let words = std::iter::once("arrakis").chain(line.split(' '));
        let cli = Cli::try_parse_from(words)?;
        let context = &mut self.bench.context;
        context.json = cli.json;
        let reader: Arc<dyn EventReader> = self.store.clone();
        let rollups: Arc<dyn Rollups> = self.store.clone();
        let store: Arc<dyn KeyStore> = self.store.clone();
        match &cli.command {
            Command::Events(args) => {
                let store: Arc<dyn EventStore> = self.store.clone();
                events::run(args, &store, context).await?
            }
            Command::Conversations(args) => {
                conversations::run(args, &reader, &rollups, context).await?
            }
            Command::Keys(args) => {
                let mut rng = rand::rngs::StdRng::seed_from_u64(7);
                keys::run(args, &store, &mut rng, context).await?
            }
            Command::Logs(args) => logs::run(args, context)?,
            other => panic!("not for this desk: {other:?}"),
        };
        Ok(self.bench.out.take())
    }

    async fn run(&mut self, line: &str) -> String {
        self.try_run(line).await.unwrap()
    }

    async fn json(&mut self, line: &str) -> Value {
        serde_json::from_str(&self.run(&format!("{line} --json")).await).unwrap()
    }

    async fn error(&mut self, line: &str) -> String {
        format!("{:#}", self.try_run(line).await.unwrap_err())
    }

    fn remarks(&self) -> String {
        self.bench.err.take()
    }
}

#[tokio::test]
async fn events_are_listed_newest_first() {
    let mut desk = Desk::new();
    assert_eq!(desk.run("events list").await, "");
    assert!(desk.remarks().contains("arrakis install"));
    desk.receive("r-1", hook("s-1", "SessionStart", "")).await;
    let first = desk.receive("r-2", hook("s-1", "Stop", "")).await;
    desk.receive("r-2", hook("s-1", "Stop", "")).await;
    desk.receive("r-3", "words").await;
    assert_eq!(
        desk.run("events list").await,
        format!(
            "\
RECEIVED (UTC)\tSTATUS\tEVENT\tREQUEST ID\tSESSION\tNOTE
2026-11-24 12:00:04\tINVALID\tunknown\tr-3\t\tthe payload is not JSON: expected value at line 1 column 1
2026-11-24 12:00:03\tDUPLICATE\tStop\tr-2\ts-1\trepeats {first}
2026-11-24 12:00:02\tSUCCESS\tStop\tr-2\ts-1\t
2026-11-24 12:00:01\tSUCCESS\tSessionStart\tr-1\ts-1\t
"
        )
    );
    assert_eq!(desk.remarks(), "");
}

/// Events in each state that a person may change, a minute apart: `failed`, `error`, `invalid` and `fine`.
async fn unlucky() -> Desk {
    let mut desk = Desk::new();
    let failure = Verdict::Failed { code: "x".to_owned(), message: "why".to_owned() };
    let (failed, _) = desk.arrivals.next("failed", hook("s-1", "Stop", ""));
    desk.store.record(vec![(failed, failure.clone())]).await.unwrap();
    let due = desk.clock.now().plus(Duration::from_secs(60));
    for claim in desk.store.claim_due(due, Timestamp::EPOCH, 10).await.unwrap() {
        desk.store.complete(claim, failure.clone(), None).await.unwrap();
    }
    desk.clock.advance(Duration::from_secs(60));
    let (error, _) = desk.arrivals.next("error", hook("s-2", "PreCompact", ""));
    desk.store.record(vec![(error, failure)]).await.unwrap();
    desk.clock.advance(Duration::from_secs(60));
    desk.receive("invalid", "not json").await;
    desk.clock.advance(Duration::from_secs(60));
    desk.receive("fine", hook("s-1", "Stop", "")).await;
    desk
}

async fn in_state(desk: &mut Desk, status: &str) -> Vec<String> {
    let list = desk.json(&format!("events list --status {status}")).await;
    let id = |event: &Value| event["requestId"].as_str().unwrap().to_owned();
    list.as_array().unwrap().iter().map(id).collect()
}

#[tokio::test]
async fn events_that_failed_are_tried_again_where_a_person_says_so() {
    let mut desk = unlucky().await;
    let told = desk.error("events retry").await;
    assert!(told.contains("say which"), "{told}");
    let told = desk.error("events retry --status success").await;
    assert!(told.contains("FAILED or ERROR or INVALID, not in SUCCESS"), "{told}");
    assert_eq!(desk.run("events retry --type Nothing").await, "0 events due now.\n");
    assert_eq!(desk.run("events retry --session s-2 --type Stop").await, "0 events due now.\n");
    assert_eq!(desk.run("events retry --all --workspace other").await, "0 events due now.\n");
    let since = "events retry --all --since 2026-11-24T12:02";
    assert_eq!(desk.run(since).await, "0 events due now.\n");
    let told = desk.run("events retry --all --dry-run").await;
    assert_eq!(told, "2 events would be applied, 0 would fail again.\n");
    let foreseen = desk.json("events retry --dry-run invalid").await;
    assert_eq!((&foreseen["wouldApply"], &foreseen["wouldFail"]), (&json!(0), &json!(1)));
    assert_eq!(in_state(&mut desk, "pending").await, [""; 0], "asking changes nothing");
    let retried = desk.json("events retry --all --until 2026-11-24T12:00:30Z").await;
    let expected = json!({ "retried": 1, "gone": 0, "kept": 0, "problems": [], "unknown": [] });
    assert_eq!(retried, expected);
    assert_eq!(in_state(&mut desk, "pending").await, ["failed"]);
    let show = desk.json("events show failed").await;
    let step = show["transitions"].as_array().unwrap().last().unwrap();
    assert_eq!((&step["from"], &step["to"]), (&json!("FAILED"), &json!("PENDING")));
    assert_eq!(step["reason"], "retried by hand");
    assert_ne!(step["actor"], "");

    let told = desk.run("events retry --all").await;
    assert_eq!(told, "1 event due now; a running server applies them within a minute.\n");
    assert_eq!(in_state(&mut desk, "pending").await, ["error", "failed"]);
    assert_eq!(in_state(&mut desk, "invalid").await, ["invalid"], "it is to be named");
    desk.run("events retry invalid fine nowhere").await;
    assert_eq!(in_state(&mut desk, "pending").await, ["invalid", "error", "failed"]);
    assert_eq!(in_state(&mut desk, "success").await, ["fine"]);
    let remark = desk.remarks();
    assert!(remark.contains("nowhere is not stored"), "{remark}");
}

#[tokio::test]
async fn events_that_failed_are_given_up_where_a_person_says_so() {
    let mut desk = unlucky().await;
    assert!(desk.error("events discard --yes").await.contains("say which"));
    assert!(desk.error("events discard --all").await.contains("--yes"), "nobody can confirm it");
    let told = desk.error("events discard --yes --status error").await;
    assert!(told.contains("for events in FAILED, not in ERROR"), "{told}");
    assert_eq!(desk.run("events discard --yes error invalid fine").await, "0 events discarded.\n");
    let discarded = desk.json("events discard --all --yes").await;
    let expected = json!({ "discarded": 1, "gone": 0, "kept": 0, "problems": [], "unknown": [] });
    assert_eq!(discarded, expected);
    let show = desk.json("events show failed").await;
    let step = show["transitions"].as_array().unwrap().last().unwrap();
    assert_eq!((&step["to"], &step["reason"]), (&json!("FAILED"), &json!("discarded by hand")));
    assert!(show["discardedAt"].is_string());
    assert!(desk.run("events list --status failed").await.contains("\tdiscarded; "));
    // What was given up stays so.
    assert_eq!(desk.run("events discard --all --yes").await, "0 events discarded.\n");
    assert_eq!(desk.run("events retry failed").await, "0 events due now.\n");
    assert_eq!(in_state(&mut desk, "failed").await, ["failed"]);
    assert_eq!(in_state(&mut desk, "error").await, ["error"]);
}

#[tokio::test]
async fn lists_of_events_are_filtered_and_continued() {
    let mut desk = Desk::new();
    for n in 1..=5 {
        let event = if n % 2 == 0 { "Stop" } else { "PreCompact" };
        desk.receive(&format!("r-{n}"), hook(&format!("s-{}", n % 3), event, "")).await;
    }
    async fn ids(desk: &mut Desk, options: &str) -> Vec<String> {
        let list = desk.json(&format!("events list{options}")).await;
        let id = |event: &Value| event["requestId"].as_str().unwrap().to_owned();
        list.as_array().unwrap().iter().map(id).collect()
    }
    assert_eq!(ids(&mut desk, " --type Stop").await, ["r-4", "r-2"]);
    assert_eq!(ids(&mut desk, " --session s-2").await, ["r-5", "r-2"]);
    assert_eq!(ids(&mut desk, " --request r-3").await, ["r-3"]);
    assert_eq!(ids(&mut desk, " --status success --limit 2").await, ["r-5", "r-4"]);
    assert_eq!(ids(&mut desk, " --status FAILED").await, [""; 0]);
    assert_eq!(ids(&mut desk, " --after r-3").await, ["r-2", "r-1"]);
    assert_eq!(desk.remarks(), "");

    desk.run("events list --limit 3").await;
    let remark = desk.remarks();
    let after = remark.split("add ").nth(1).unwrap().trim();
    assert_eq!(ids(&mut desk, &format!(" {after}")).await, ["r-2", "r-1"]);

    assert_eq!(desk.run("events list --workspace other").await, "");
    assert_eq!(desk.remarks(), "No events match.\n");
    assert!(desk.error("events list --after r-9").await.contains("no event r-9"));
    assert!(desk.error("events list --limit 0").await.contains("1..=10000"));
    assert!(desk.error("events list --status lost").await.contains("eight states"));
    assert_eq!(ids(&mut desk, " --host nowhere").await, [""; 0]);
    assert_eq!(ids(&mut desk, " --form envelope --not-discarded --limit 1").await, ["r-5"]);
    assert_eq!(ids(&mut desk, " --since 2026-11-25").await, [""; 0]);
    assert!(desk.error("events list --form xml").await.contains("envelope, original or raw"));
}

#[tokio::test]
async fn a_list_fits_the_terminal() {
    let mut desk = Desk::new();
    for name in ["agents3", "denied"] {
        desk.receive_session(name).await;
    }
    desk.receive("0197c8ea-57f1-7c2e-9c1e-5f3b7a9d1e42", "日本語 is no JSON").await;
    for columns in 60..200 {
        desk.bench.context.terminal = Terminal { colour: false, width: Some(columns) };
        for line in ["events list", "conversations list"] {
            let shown = desk.run(line).await;
            let widest = shown.lines().map(width).max().unwrap();
            assert!(widest <= columns.max(74), "{columns}: {widest}\n{shown}");
        }
    }
}

#[tokio::test]
async fn one_event_is_shown_whole() {
    let mut desk = Desk::new();
    let payload =
        hook("s", "Stop", r#","z":1.50,"a":{"b":[],"c":["x"]},"n":12345678901234567890123"#);
    let row = desk.receive("r-1", payload.clone()).await;
    let shown = desk.run("events show r-1").await;
    assert_eq!(desk.run(&format!("events show {row}")).await, shown);
    let head = "\
Stop  SUCCESS
  request id    r-1
  row id        ";
    assert!(shown.starts_with(head), "{shown}");
    let body = "
{
  \"session_id\": \"s\",
  \"cwd\": \"/p\",
  \"hook_event_name\": \"Stop\",
  \"z\": 1.50,
  \"a\": {
    \"b\": [],
    \"c\": [
      \"x\"
    ]
  },
  \"n\": 12345678901234567890123
}
";
    assert!(shown.ends_with(body), "{shown}");
    let text = desk.run("events show r-1 --json").await;
    let event: Value = serde_json::from_str(&text).unwrap();
    assert!(text.contains(&format!("\"body\": {payload}")), "{text}");
    assert_eq!((&event["id"], &event["status"]), (&json!(row), &json!("SUCCESS")));
    assert_eq!(event["ipAddress"], "192.0.2.7");
    assert_eq!(event["headers"]["user-agent"], "test/1 \"quoted\"");
    assert_eq!(event["transitions"], json!([]));

    desk.receive("r-2", "just text").await;
    assert_eq!(desk.json("events show r-2").await["bodyText"], "just text");
    desk.receive("r-3", b"\xff\x00".to_vec()).await;
    assert_eq!(desk.json("events show r-3").await["bodyBase64"], "/wA=");
    let repeat = desk.receive("r-3", b"\xff\x00".to_vec()).await;
    assert!(desk.run(&format!("events show {repeat}")).await.contains("that of the first event"));

    desk.receive("r-4", format!("{{\"x\":\"{}\"}}", "y".repeat(100_000))).await;
    let shown = desk.run("events show r-4").await;
    assert!(shown.len() < 70_000 && shown.contains("--json shows all"));
    assert!(desk.run("events show r-4 --json").await.len() > 100_000);

    for (id, told) in [("r-9", "there is no event r-9"), ("a/b", "names no event")] {
        let error = desk.error(&format!("events show {id}")).await;
        assert!(error.contains(told), "{error}");
    }
}

#[tokio::test]
async fn a_conversation_tells_what_it_took_and_what_that_costs() {
    let mut desk = Desk::new();
    let slice = |session: &str, lines: &str| {
        format!(r#"{{"hook_event_name":"Transcript","session_id":"{session}","lines":[{lines}]}}"#)
    };
    let answer = |model: &str| {
        format!(
            r#"{{"type":"assistant","uuid":"u","timestamp":"2026-11-24T12:00:00Z","message":{{"id":"m",
            "model":"{model}","content":[{{"type":"text","text":"hi"}}],"usage":{{"input_tokens":1000,
            "cache_read_input_tokens":300,"cache_creation_input_tokens":20,"output_tokens":42}}}}}}"#
        )
    };
    let cost = r#"{"type":"cost-state","startTime":1795521600000,"totalCostUSD":0.01}"#;
    desk.receive("r-1", slice("s", &format!("{},{cost}", answer("claude-opus-5-5")))).await;
    let shown = desk.run("conversations show s").await;
    assert!(
        shown.contains("  used     1320 tokens in (300 from the cache), 42 tokens out\n"),
        "{shown}"
    );
    let date = arrakis_core::session::price::table().date();
    let both = format!("  cost     $0.0050 by the prices of {date}; $0.0100 by the client\n");
    assert!(shown.contains(&both), "{shown}");
    let whole = desk.json("conversations show s").await;
    assert_eq!(whole["usage"]["total"]["inputTokens"], 1000);
    assert_eq!(
        (&whole["usage"]["cost"], &whole["clientCost"]["total"]),
        (&json!(0.005), &json!(0.01))
    );
    assert_eq!(whole["messages"][0]["blocks"][0]["text"], "hi");

    desk.receive("r-2", slice("t", &answer("claude-opus-99"))).await;
    let shown = desk.run("conversations show t").await;
    assert!(shown.contains("more than $0.00: not every model's price is known"), "{shown}");
    let list = desk.run("events list --type Transcript").await;
    assert!(list.contains("1 line") && list.contains("2 lines"), "{list}");
}

#[tokio::test]
async fn a_conversation_reads_from_top_to_bottom() {
    let mut desk = Desk::new();
    desk.receive_session("agent").await;
    let session = "3c150d3c-db13-4f61-a50b-1445b3409e6e";
    assert_eq!(
        desk.run(&format!("conversations show {session}")).await,
        "\
@@play agent
  session  3c150d3c-db13-4f61-a50b-1445b3409e6e
  project  /home/dev/project
  started  2026-11-24 12:00:01 UTC
  ended    2026-11-24 12:00:14 UTC, after 13.0 s (other)
  has      3 messages, 2 tool uses, 14 events
  missing  nothing of the transcript has come: answers and tokens are missing

12:00:01  SessionStart  startup
12:00:02  InstructionsLoaded  /home/dev/project/CLAUDE.md, session_start

12:00:03  you
          @@play agent

12:00:04  Agent  helper  ok, 286 ms, 3 lines
          subagent general-purpose afda2e27b6ed714bc
12:00:06  │ Bash  echo from-subagent # mock step  ok, 25 ms, 1 line
          │
12:00:09  │ claude
          │ Done with sub.

12:00:13  claude
          Done with agent.

12:00:14  SessionEnd  other
"
    );
    let whole = desk.json(&format!("conversations show {session}")).await;
    assert_eq!(whole["sessionId"], session);
    assert_eq!(whole["title"], "@@play agent");
    assert_eq!(whole["endReason"], "other");
    assert_eq!(whole["messages"][0]["role"], "user");
    assert_eq!(whole["messages"][0]["content"], "@@play agent");
    assert_eq!(whole["toolUses"][1]["parameters"]["command"], "echo from-subagent");
    assert_eq!(whole["toolUses"][1]["status"], "succeeded");
    assert_eq!(whole["toolUses"][1]["agentId"], "afda2e27b6ed714bc");
    assert_eq!(whole["events"].as_array().unwrap().len(), 14);

    let list = desk.json("conversations list").await;
    assert_eq!(list[0]["messageCount"], 3);
    assert_eq!(list[0]["toolUseCount"], 2);
    assert_eq!(list[0]["id"], whole["id"]);
    let id = whole["id"].as_str().unwrap();
    assert!(desk.run(&format!("conversations show {id}")).await.starts_with("@@play agent\n"));

    assert!(desk.error("conversations show none").await.contains("no conversation none"));
    assert!(desk.error(&format!("conversations show {session} --workspace w")).await.contains("w"));
}

#[tokio::test]
async fn long_messages_wrap_and_days_are_told() {
    let mut desk = Desk::new();
    let prompt =
        format!(r#","prompt_id":"p1","prompt":"{}\n\n- a list""#, "many words ".repeat(12));
    desk.receive("r-1", hook("s", "UserPromptSubmit", &prompt)).await;
    desk.clock.advance(Duration::from_secs(24 * 3600));
    let tool = r#","tool_use_id":"t","tool_name":"Bash","tool_input":{"description":"d","command":"one\ntwo"}"#;
    desk.receive("r-2", hook("s", "PreToolUse", tool)).await;
    desk.bench.context.terminal = Terminal { colour: false, width: Some(60) };
    let shown = desk.run("conversations show s").await;
    let timeline: Vec<&str> = shown.lines().skip_while(|line| !line.is_empty()).collect();
    assert_eq!(
        timeline,
        [
            "",
            "12:00:01  you",
            "          many words many words many words many words many",
            "          words many words many words many words many words",
            "          many words many words many words",
            "",
            "          - a list",
            "",
            "2026-11-25",
            "",
            "12:00:02  Bash  one two # d  no result",
        ]
    );
    assert!(shown.contains("  open     last event 2026-11-25 12:00:02 UTC\n"), "{shown}");
    desk.clock.advance(Duration::from_secs(25 * 3600));
    let shown = desk.run("conversations show s").await;
    assert!(shown.contains("  state    abandoned since 2026-11-25 12:00:02 UTC\n"), "{shown}");
    desk.bench.context.terminal = Terminal { colour: false, width: None };
    assert!(desk.run("conversations list").await.contains("abandoned"));
}

#[tokio::test]
async fn times_are_in_the_readers_zone_also_where_its_clocks_change() {
    let mut desk = Desk::new();
    desk.bench.context.zone = Zone::of_rule(BERLIN).unwrap();
    desk.clock.set("2026-10-25T00:59:58Z".parse().unwrap());
    desk.receive("r-1", hook("s", "SessionStart", r#","source":"startup""#)).await;
    desk.receive("r-2", hook("s", "SessionEnd", r#","reason":"other""#)).await;
    let list = desk.run("events list").await;
    let times: Vec<_> = list.lines().map(|line| line.split('\t').next().unwrap()).collect();
    assert_eq!(times, ["RECEIVED (CET/CEST)", "2026-10-25 02:00:00", "2026-10-25 02:59:59"]);
    let event = desk.run("events show r-1").await;
    assert!(event.contains("  received      2026-10-25 02:59:59 CEST\n"), "{event}");
    assert!(desk.run("conversations list").await.starts_with("STARTED (CEST)\tSESSION"));
    let shown = desk.run("conversations show s").await;
    assert!(shown.contains("  started  2026-10-25 02:59:59 CEST\n"), "{shown}");
    assert!(shown.contains("  ended    2026-10-25 02:00:00 CET, after 1.0 s (other)\n"), "{shown}");
    let timeline =
        "\n02:59:59  SessionStart  startup\n\n2026-10-25 CET\n\n02:00:00  SessionEnd  other\n";
    assert!(shown.ends_with(timeline), "{shown}");
    let json = desk.json("events show r-1").await;
    assert!(json["receivedAt"].as_str().unwrap().starts_with("2026-10-25T00:59:59."), "{json}");
}

#[tokio::test]
async fn nothing_that_is_shown_can_command_the_terminal() {
    let evil = "\u{1b}]0;x\u{7}\u{1b}[2J\u{9b}31m\u{7f}\u{202e}\u{2066}\u{200b}\r";
    let quoted = serde_json::to_string(evil).unwrap();
    let mut desk = Desk::new();
    let session = format!("s{evil}");
    let more = format!(
        r#","prompt_id":"p","prompt":{quoted},"agent_id":{quoted},"model":{quoted},{quoted}:1"#
    );
    desk.receive("r-1", hook(&session, "UserPromptSubmit", &more)).await;
    let tool = format!(
        r#","agent_id":{quoted},"tool_use_id":"t","tool_name":{quoted},"tool_input":{{"command":{quoted}}}"#
    );
    desk.receive("r-2", hook(&session, "PreToolUse", &tool)).await;
    desk.receive("r-3", evil).await;
    let conversation = desk.json("conversations list").await[0]["id"].as_str().unwrap().to_owned();
    let log = json!({
        "timestamp": "2026-11-24T12:00:00Z", "level": evil, "component": evil, "message": evil,
        evil: evil,
    });
    fs::create_dir(desk.home.path().join("logs")).unwrap();
    let lines = format!("{log}\n{}\n", evil.replace('\n', ""));
    fs::write(desk.home.path().join("logs/webhook-debug.log"), lines).unwrap();
    let lines = [
        "events list".to_owned(),
        "events show r-1".to_owned(),
        "events show r-3".to_owned(),
        "conversations list".to_owned(),
        format!("conversations show {conversation}"),
        "logs".to_owned(),
    ];
    for line in lines {
        for line in [line.clone(), format!("{line} --json")] {
            let shown = desk.run(&line).await + &desk.remarks();
            for row in shown.lines() {
                // A tab stands between two cells.
                let row = row.replace('\t', " ");
                assert_eq!(safe(&row), row, "{line}");
            }
            assert!(!shown.contains('\r') && !shown.is_empty(), "{line}");
        }
    }
}

#[tokio::test]
async fn a_new_key_is_shown_once_and_alone() {
    let mut desk = Desk::new();
    assert_eq!(desk.run("keys list").await, "");
    assert!(desk.remarks().contains("keys create"));
    let shown = desk.run("keys create --name laptop --scope ingest").await;
    let secret: SecretString = shown.strip_suffix('\n').unwrap().into();
    let id = ApiKey::id_of(shown.trim()).unwrap().to_owned();
    assert!(desk.remarks().contains("kept nowhere"));
    assert!(desk.store.key(&id).await.unwrap().unwrap().accepts(&secret));

    let list = desk.run("keys list").await;
    assert_eq!(
        list,
        format!(
            "\
ID\tSCOPE\tSTATE\tCREATED (UTC)\tLAST USED\tWORKSPACE\tNAME
{id}\tingest\tactive\t2026-11-24 12:00:00\tnever\tmain\tlaptop
"
        )
    );
    let json = desk.json("keys list").await;
    assert_eq!(
        json,
        json!([{ "id": id, "name": "laptop", "scope": "ingest", "workspace": "main",
                 "createdAt": "2026-11-24T12:00:00.000000Z", "revokedAt": null, "lastUsedAt": null }])
    );

    assert_eq!(desk.run(&format!("keys revoke {id}")).await, format!("Revoked key {id}.\n"));
    assert!(!desk.store.key(&id).await.unwrap().unwrap().accepts(&secret));
    assert!(desk.run(&format!("keys revoke {id}")).await.contains("was revoked on 2026-11-24"));
    assert!(desk.json(&format!("keys revoke {id}")).await["revokedAt"].is_string());
    assert!(desk.error("keys revoke 00000000").await.contains("no key \"00000000\""));

    assert!(
        desk.error("keys create --name x --scope root").await.contains("ingest, read or admin")
    );
    assert!(desk.error("keys create --name \u{7} --scope read").await.contains("control"));
    let long = "x".repeat(101);
    assert!(desk.error(&format!("keys create --name {long} --scope read")).await.contains("100"));
}

#[tokio::test]
async fn a_key_as_json_has_its_secret_beside_it() {
    let mut desk = Desk::new();
    let unnamed = desk.json("keys create --scope ingest").await;
    assert_eq!(unnamed["key"]["name"], "ingest");
    let created = desk.json("keys create --name ci --scope admin --workspace w").await;
    assert_eq!(created["key"]["workspace"], "w");
    assert_eq!(created["key"]["id"], ApiKey::id_of(created["secret"].as_str().unwrap()).unwrap());
    assert_eq!(desk.remarks(), "");
}

/// A log line at this second after noon.
fn log_line(second: u32, level: &str, request: &str, message: &str) -> String {
    json!({
        "timestamp": format!("2026-11-24T11:00:{second:02}.000000Z"),
        "level": level, "component": "drainer", "requestId": request, "message": message,
    })
    .to_string()
}

fn write_logs(home: &Path, files: &[(&str, &[String])]) {
    fs::create_dir_all(home.join("logs")).unwrap();
    for (name, lines) in files {
        let path = home.join("logs").join(name);
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        // Noon, as the desk's clock says: a file last written before a time has no line after it.
        let noon = std::time::UNIX_EPOCH + Duration::from_secs(1_795_521_600);
        fs::File::options().write(true).open(&path).unwrap().set_modified(noon).unwrap();
    }
}

/// The messages of log lines, in order.
fn messages(shown: &str) -> Vec<String> {
    let message = |line: &str| match serde_json::from_str::<Value>(line).unwrap() {
        Value::Object(line) if line.contains_key("unreadable") => line["unreadable"].to_string(),
        line => line["message"].as_str().unwrap().to_owned(),
    };
    shown.lines().map(message).collect()
}

#[tokio::test]
async fn log_files_are_one_in_time_order() {
    let mut desk = Desk::new();
    assert_eq!(desk.run("logs").await, "");
    assert!(desk.remarks().contains("No lines match in "));
    let sent = log_line(3, "info", "r-1", "sent");
    write_logs(
        desk.home.path(),
        &[
            (
                "webhook-debug.log",
                &[log_line(7, "debug", "r-1", "seventh"), log_line(6, "trace", "r-2", "sixth")],
            ),
            (
                "webhook-queue-20261124T110004.000000Z.log",
                &[log_line(1, "info", "r-1", "first"), sent.clone()],
            ),
            ("webhook-queue.log", &[log_line(5, "info", "r-2", "fifth")]),
            // One line may stand in several files.
            ("webhook-success.log", &[sent]),
            (
                "webhook-error.log",
                &[log_line(2, "error", "r-1", "second"), log_line(4, "warn", "r-2", "fourth")],
            ),
            ("webhook-errors.log", &[log_line(1, "error", "r-1", "not ours")]),
            ("other.txt", &["not ours".to_owned()]),
        ],
    );
    // Opening a pipe would wait for its other end.
    let pipe = desk.home.path().join("logs/webhook-debug-pipe.log");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();

    let all = ["first", "second", "sent", "fourth", "fifth", "sixth", "seventh"];
    assert_eq!(messages(&desk.run("logs --json").await), all);
    assert_eq!(
        messages(&desk.run("logs --json --request r-2").await),
        ["fourth", "fifth", "sixth"]
    );
    assert_eq!(messages(&desk.run("logs --json --level warn").await), ["second", "fourth"]);
    assert_eq!(desk.remarks(), "");
    assert_eq!(messages(&desk.run("logs --json --limit 2").await), ["sixth", "seventh"]);
    assert_eq!(desk.remarks(), "The newest 2 of 7 lines; --limit shows more.\n");
    for since in ["2026-11-24T11:00:05Z", "2026-11-24T12:00:05+01:00", "59m55s"] {
        let shown = desk.run(&format!("logs --json --since {since}")).await;
        assert_eq!(messages(&shown), ["fifth", "sixth", "seventh"], "{since}");
    }
    assert_eq!(messages(&desk.run("logs --json --since 2026-11-24").await), all);
    assert!(desk.error("logs --since yesterday").await.contains("15m"));

    assert_eq!(
        desk.run("logs --limit 1").await,
        "2026-11-24 11:00:07.000  debug  drainer  seventh  requestId=r-1\n"
    );
}

#[tokio::test]
async fn log_lines_that_cannot_be_read_are_shown_and_counted() {
    let mut desk = Desk::new();
    let broken = "{\"timestamp\": \"2026-11-24T11:00:02Z\", \"requestId\": \"r-7";
    write_logs(
        desk.home.path(),
        &[(
            "webhook-error.log",
            &[
                log_line(1, "error", "r-1", "before"),
                broken.to_owned(),
                String::new(),
                "[1]".to_owned(),
                format!("\"{}", "x".repeat(600_000)),
                log_line(3, "error", "r-7", "after"),
            ],
        )],
    );
    let shown = desk.run("logs").await;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[1], format!("webhook-error.log? {broken}"));
    assert_eq!(lines[2], "webhook-error.log? [1]");
    assert!(lines[3].len() < 300_000);
    assert!(lines[4].contains("after"));
    assert_eq!(desk.remarks(), "3 of 5 lines could not be read; they are shown as they are.\n");

    let of_one = desk.run("logs --request r-7 --json").await;
    assert_eq!(messages(&of_one), [json!(broken).to_string(), "after".to_owned()]);
}

#[tokio::test]
async fn many_log_lines_come_in_order_from_many_files() {
    let mut desk = Desk::new();
    let start: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
    let line = |n: u64| {
        let at = start.plus(Duration::from_millis(n));
        json!({ "timestamp": at, "level": "info", "message": n.to_string() }).to_string()
    };
    let mut files: Vec<Vec<String>> = vec![Vec::new(); 8];
    // Neighbours change places, as lines of several writers do.
    for n in (0..4000).map(|n: u64| n ^ 16) {
        files[usize::try_from(n * 7 % 8).unwrap()].push(line(n));
    }
    let named: Vec<(String, Vec<String>)> = files
        .into_iter()
        .enumerate()
        .map(|(n, lines)| (format!("webhook-debug-2026112{n}T000000Z.log"), lines))
        .collect();
    let named: Vec<(&str, &[String])> =
        named.iter().map(|(name, lines)| (name.as_str(), lines.as_slice())).collect();
    write_logs(desk.home.path(), &named);
    let shown = messages(&desk.run("logs --json --limit 100000").await);
    let expected: Vec<String> = (0..4000).map(|n| n.to_string()).collect();
    assert_eq!(shown, expected);
}
