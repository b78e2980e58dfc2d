//! `arrakis usage`, `statusline` and what a list of conversations says of costs.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;

use crate::support::world::World;
use crate::support::{BERLIN, Bench, bench, store_of};
use arrakis_bin::cli::output::Terminal;
use arrakis_bin::cli::output::zone::Zone;
use arrakis_bin::cli::{Cli, Command, conversations, usage};
use arrakis_core::record::store::{EventReader, MemoryStore, Rollups};
use arrakis_core::testkit::sessions::Session;
use clap::Parser;
use serde_json::{Value, json};
use tempfile::TempDir;

/// An answer of a model at a time.
fn answer(id: &str, at: &str, model: &str, input: u64, output: u64) -> String {
    let line = json!({"type": "assistant", "uuid": format!("u-{id}"), "timestamp": at, "cwd": "/work/shop",
        "message": {"id": id, "model": model, "content": [{"type": "text", "text": id}],
            "usage": {"input_tokens": input, "output_tokens": output,
                "cache_read_input_tokens": 30, "cache_creation_input_tokens": 20}}});
    format!("{line}\n")
}

fn prompt(at: &str, cwd: &str) -> String {
    let line = json!({"type": "user", "uuid": format!("p-{at}"), "timestamp": at, "cwd": cwd,
        "message": {"role": "user", "content": format!("Plan the work of {at}")}});
    format!("{line}\n")
}

/// Two sessions and a fork of the first, on both sides of midnight in Berlin.
fn sessions() -> Vec<Session> {
    let first = [
        prompt("2026-11-22T22:00:00Z", "/work/shop"),
        answer("m1", "2026-11-22T22:10:00Z", "claude-opus-5-5", 1000, 100),
        answer("m2", "2026-11-22T23:10:00Z", "claude-opus-5-5", 2000, 200),
    ]
    .concat();
    let fork = answer("f1", "2026-11-22T23:30:00Z", "claude-haiku-4-5", 500, 50);
    let fork = Session::new("0fork", Vec::new(), [first.clone(), fork].concat().into_bytes());
    let mut first = Session::new("1first", Vec::new(), first.into_bytes());
    let agent = answer("a1", "2026-11-22T22:20:00Z", "claude-sonnet-5-5", 4000, 400);
    first.add_subagent("agent", &json!({"agentType": "helper"}), agent.into_bytes());
    let other = [
        prompt("2026-12-01T10:00:00Z", "/work/other"),
        answer("o1", "2026-12-01T10:00:01Z", "claude-opus-99", 7, 8),
        prompt("2026-12-01T10:02:00Z", "/work/other"),
    ];
    vec![first, fork, Session::new("2other", Vec::new(), other.concat().into_bytes())]
}

struct Desk {
    store: Arc<MemoryStore>,
    bench: Bench,
    _home: TempDir,
}

impl Desk {
    async fn new() -> Self {
        let store = store_of(&sessions()).await;
        let home = TempDir::new().unwrap();
        Self { store, bench: bench(home.path()), _home: home }
    }

    async fn try_run(&mut self, line: &str) -> anyhow::Result<String> {
        let cli = Cli::try_parse_from(format!("arrakis {line}").split_whitespace())?;
        let context = &mut self.bench.context;
        context.json = cli.json;
        let reader: Arc<dyn EventReader> = self.store.clone();
        let rollups: Arc<dyn Rollups> = self.store.clone();
        match &cli.command {
            Command::Usage(args) => usage::run(args, &reader, &rollups, context).await?,
            Command::Conversations(args) => {
                conversations::run(args, &reader, &rollups, context).await?
            }
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

    /// The keys of the rows, with how many tokens and which cost each has.
    async fn rows(&mut self, line: &str) -> Vec<(String, u64, f64)> {
        let report = self.json(line).await;
        let row = |row: &Value| {
            let key = row["key"].as_str().unwrap_or("(none)").to_owned();
            let total = &row["total"];
            (key, total["totalTokens"].as_u64().unwrap(), total["cost"].as_f64().unwrap())
        };
        report["rows"].as_array().unwrap().iter().map(row).collect()
    }
}

fn row(key: &str, tokens: u64, cost: f64) -> (String, u64, f64) {
    (key.to_owned(), tokens, cost)
}

#[tokio::test]
async fn usage_by_day_is_a_table_with_a_total() {
    let mut desk = Desk::new().await;
    assert_eq!(
        desk.run("usage").await,
        "DAY\tTITLE\tMODELS\tINPUT\tOUTPUT\tCACHE CREATE\tCACHE READ\tTOTAL\tCOST\tOWN\tBY CLIENT\n\
         2026-11-22\t\thaiku-4-5, opus-5-5, sonnet-5-5\t7500\t750\t80\t120\t8450\t$0.0310\t$0.0190\t\n\
         2026-12-01\t\topus-99\t7\t8\t20\t30\t65\t>$0.00\t>$0.00\t\n\
         Total\t\t\t7507\t758\t100\t150\t8515\t>$0.0310\t>$0.0190\t\n"
    );
    assert!(desk.bench.err.take().contains("no price is known of claude-opus-99"));
    desk.bench.context.terminal = Terminal { colour: false, width: Some(120) };
    let shown = desk.run("usage").await;
    assert!(shown.contains("  7,500  ") && !shown.contains("TITLE"), "{shown}");
}

#[tokio::test]
async fn days_weeks_and_months_are_those_of_the_reader() {
    let mut desk = Desk::new().await;
    assert_eq!(desk.rows("usage month").await.len(), 2);
    assert_eq!(desk.rows("usage week").await[0].0, "2026-11-16");
    desk.bench.context.zone = Zone::of_rule(BERLIN).unwrap();
    let days = desk.rows("usage").await;
    let keys: Vec<&str> = days.iter().map(|(key, ..)| key.as_str()).collect();
    assert_eq!(keys, ["2026-11-22", "2026-11-23", "2026-12-01"]);
    assert_eq!((days[0].1, days[1].1), (5600, 2850));
    assert_eq!(desk.rows("usage week").await[1].0, "2026-11-23");
    let since = desk.rows("usage --since 2026-11-23").await;
    assert_eq!(since, days[1..]);
    assert_eq!(desk.rows("usage --since 2026-11-23 --until 2026-11-24").await, days[1..2]);
}

#[tokio::test]
async fn what_a_fork_repeats_counts_once_in_every_sum() {
    let mut desk = Desk::new().await;
    for by in ["day", "week", "month", "project", "model", "session", "host"] {
        let total = desk.json(&format!("usage {by}")).await["total"]["total"].clone();
        assert_eq!((&total["totalTokens"], &total["messages"]), (&json!(8515), &json!(5)), "{by}");
    }
    assert_eq!(
        desk.rows("usage model").await,
        [
            row("claude-opus-5-5", 3400, 0.018_212),
            row("claude-sonnet-5-5", 4450, 0.012_053),
            row("claude-haiku-4-5", 600, 0.000_778),
            row("claude-opus-99", 65, 0.0),
        ]
    );
    let projects = desk.rows("usage project").await;
    assert_eq!(projects[0].0, "/work/shop");
    assert_eq!(desk.rows("usage --project /work/other").await, [row("2026-12-01", 65, 0.0)]);
    assert_eq!(desk.rows("usage --session 2oth").await, [row("2026-12-01", 65, 0.0)]);
    assert_eq!(desk.rows("usage --model sonnet").await, [row("2026-11-22", 4450, 0.012_053)]);
    assert_eq!(desk.rows("usage host").await.len(), 1);
    let sessions = desk.json("usage session").await;
    let one = &sessions["rows"][2];
    assert_eq!((&one["key"], &one["projectPath"]), (&json!("2other"), &json!("/work/other")));
    assert!(one["title"].as_str().unwrap().starts_with("Plan the work"));
    assert!(desk.try_run("usage --session nobody").await.is_err());
}

#[tokio::test]
async fn usage_is_csv_where_asked() {
    let mut desk = Desk::new().await;
    let csv = desk.run("usage model --csv").await;
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines[0].starts_with("key,title,project_path,models,messages,input_tokens"));
    assert_eq!(
        lines[1],
        "claude-opus-5-5,,,opus-5-5,2,3000,300,40,0,60,0,0,3400,0.018212,0.018212,true,"
    );
    assert_eq!(lines.len(), 5);
}

#[tokio::test]
async fn conversations_are_listed_with_what_they_took_and_sorted_by_it() {
    let mut desk = Desk::new().await;
    let list = desk.run("conversations list --project /work/other").await;
    let cells: Vec<&str> = list.lines().nth(1).unwrap().split('\t').collect();
    assert_eq!(cells[1], "2other");
    assert_eq!(cells[3..6], [">$0.00", "65", "2 min 0 s"]);
    let ids = |list: Value| -> Vec<String> {
        let id = |one: &Value| one["sessionId"].as_str().unwrap().to_owned();
        list.as_array().unwrap().iter().map(id).collect()
    };
    assert_eq!(ids(desk.json("conversations list").await)[0], "2other");
    let costly = desk.json("conversations list --sort cost").await;
    assert!(
        costly[0]["used"]["total"]["cost"].as_f64() >= costly[1]["used"]["total"]["cost"].as_f64()
    );
    assert_eq!(ids(costly)[2], "2other");
    assert_eq!(ids(desk.json("conversations list --sort duration").await)[0], "0fork");
    assert_eq!(ids(desk.json("conversations list --model opus-99").await), ["2other"]);
    assert_eq!(ids(desk.json("conversations list --model HAIKU").await), ["0fork"]);
    desk.run("conversations list --model none").await;
    assert_eq!(desk.bench.err.take(), "No conversations match.\n");
}

/// What the status line is for this input.
fn line(world: &World, input: &str) -> String {
    let mut command = world.command(env!("CARGO_BIN_EXE_arrakis"));
    let command = command.arg("statusline").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_status_line_has_the_cost_of_the_session_and_of_today_and_never_fails() {
    let world = World::new();
    let said = json!({"session_id": "s", "model": {"id": "claude-opus-5-5", "display_name": "Opus 5.5"},
        "cost": {"total_cost_usd": 1.234, "total_duration_ms": 60_000}});
    assert_eq!(line(&world, &said.to_string()), "Opus 5.5 · $1.23 session\n");
    for odd in ["", "{}", "[1]", "no json", r#"{"session_id":7,"model":null,"cost":"x"}"#] {
        assert_eq!(line(&world, odd), "\n", "{odd}");
    }
    assert!(!world.home().join("arrakis.db").exists(), "it makes no store");

    let project = world.directory.path().join(".claude/projects/-p");
    fs::create_dir_all(&project).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now =
        arrakis_core::base::clock::Timestamp::from_millis(now.as_millis().try_into().unwrap());
    let text = answer("m", &now.to_string(), "claude-opus-5-5", 1_000_000, 0);
    fs::write(project.join("s.jsonl"), text).unwrap();
    let up = world.up();
    assert!(world.arrakis(&["import"]).status.success());
    world.wait_until("the answer is stored", |world| world.count("message_rows") == 1);
    assert!(world.arrakis(&["usage"]).status.success());
    let today = "Opus 5.5 · $4.00 session · $4.00 today\n";
    let shown = line(&world, &said.to_string());
    assert!(shown == today || shown == "Opus 5.5 · $1.23 session\n", "{shown}");
    up.stop();
    // A store that is slow on a busy machine is left out.
    assert!((0..20).any(|_| line(&world, &said.to_string()) == today));
}
