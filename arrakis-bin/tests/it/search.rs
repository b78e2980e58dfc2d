//! `arrakis search`: what it finds and shows.

use std::process::Command as Process;
use std::sync::Arc;
use std::time::Duration;

use crate::support::bench;
use arrakis_bin::cli::output::Terminal;
use arrakis_bin::cli::{Cli, Command, search};
use arrakis_core::base::clock::{Clock, ManualClock};
use arrakis_core::record::store::{EventStore, MemoryStore};
use arrakis_core::testkit::event_store::{Arrivals, hook};
use arrakis_store_sqlite::{SqliteConfig, SqliteStore};
use clap::Parser;
use serde_json::Value;
use tempfile::TempDir;

/// Stores a prompt and a tool that fails, a second apart; odd text in each.
async fn fill(store: &dyn EventStore, clock: &Arc<ManualClock>) {
    let mut arrivals = Arrivals::new(Arc::clone(clock));
    let odd = "fix the \\u001b]0;owned\\u0007 build";
    let tool = r#","tool_name":"Bash","tool_use_id":"t","tool_input":{"command":"cargo build"}"#;
    let failed = format!(r#"{tool},"error":"a semicolon\n is missing""#);
    for (id, event, more) in [
        ("e1", "UserPromptSubmit", format!(r#","prompt":"{odd}","prompt_id":"p1""#)),
        ("e2", "PreToolUse", tool.to_owned()),
        ("e3", "PostToolUseFailure", failed),
    ] {
        clock.advance(Duration::from_millis(999));
        store.record(vec![arrivals.next(id, hook("s-1", event, &more))]).await.unwrap();
    }
    let strange = hook("$(reboot)", "UserPromptSubmit", r#","prompt":"strange""#);
    store.record(vec![arrivals.next("e4", strange)]).await.unwrap();
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new("2026-11-24T11:59:00Z".parse().unwrap()))
}

/// Runs a command line on such a store; returns what it wrote to standard output and standard error.
async fn try_run(line: &[&str], terminal: Terminal) -> anyhow::Result<(String, String)> {
    let clock = clock();
    let store = MemoryStore::new(Arc::clone(&clock) as Arc<dyn Clock>);
    fill(&store, &clock).await;
    let store: Arc<dyn EventStore> = Arc::new(store);
    let home = TempDir::new().unwrap();
    let mut bench = bench(home.path());
    let cli = Cli::try_parse_from([&["arrakis", "search"], line].concat())?;
    (bench.context.json, bench.context.terminal) = (cli.json, terminal);
    let Command::Search(args) = &cli.command else { panic!("{cli:?}") };
    search::run(args, &store, &mut bench.context).await?;
    Ok((bench.out.take(), bench.err.take()))
}

async fn run(line: &[&str]) -> String {
    try_run(line, Terminal::NONE).await.unwrap().0
}

#[tokio::test]
async fn hits_are_shown_with_their_conversation_and_the_way_to_it() {
    let shown = run(&["build"]).await;
    let expected = "\
fix the \\x1b]0;owned\\x07 build  /p
arrakis conversations show s-1
  2026-11-24 11:59:02  Bash failed
    cargo build
  2026-11-24 11:59:01  you
    fix the \\x1b]0;owned\\x07 build
";
    assert_eq!(shown, expected);
    let terminal = Terminal { colour: true, width: Some(80) };
    let (painted, _) = try_run(&["SEMICOLON"], terminal).await.unwrap();
    assert!(painted.contains("a \u{1b}[1m\u{1b}[33msemicolon\u{1b}[0m is missing"), "{painted:?}");
}

#[tokio::test]
async fn a_session_that_a_shell_would_run_is_named_by_its_id() {
    let shown = run(&["strange"]).await;
    assert!(!shown.contains("show $"), "{shown}");
    let json: Value = serde_json::from_str(&run(&["strange", "--json"]).await).unwrap();
    let id = json["hits"][0]["conversationId"].as_str().unwrap();
    assert!(shown.contains(&format!("arrakis conversations show {id}\n")), "{shown}");
}

#[tokio::test]
async fn every_option_narrows_the_search() {
    let tool = "  2026-11-24 11:59:02  Bash failed\n";
    for (line, is_tool, is_prompt) in [
        (vec!["--tool", "Bash"], true, false),
        (vec!["--outcome", "failed"], true, false),
        (vec!["--outcome", "denied"], false, false),
        (vec!["build", "--role", "user"], false, true),
        (vec!["build", "--session", "s-1"], true, true),
        (vec!["build", "--session", "s-2"], false, false),
        (vec!["build", "--project", "/p"], true, true),
        (vec!["build", "--project", "/q"], false, false),
        (vec!["build", "--since", "2026-11-24T11:59:02Z"], true, false),
        (vec!["build", "--since", "30s"], false, false),
        (vec!["build", "--until", "2026-11-24T11:59:02Z"], false, true),
        (vec!["build", "--until", "2026-11-24"], false, false),
        (vec!["build", "--model", "opus"], false, false),
        (vec!["build", "--subagents"], false, false),
        (vec!["build", "--no-subagents"], true, true),
        (vec!["build", "--workspace", "other"], false, false),
        (vec!["build", "cargo"], true, false),
        (vec!["buil"], false, false),
        (vec!["buil*"], true, true),
        (vec!["\"the build\""], false, false),
        (vec!["\"cargo build\""], true, false),
    ] {
        let shown = run(&line).await;
        assert_eq!(shown.contains(tool), is_tool, "{line:?}: {shown}");
        assert_eq!(shown.contains("  you\n"), is_prompt, "{line:?}: {shown}");
    }
    let (shown, remark) = try_run(&["nowhere"], Terminal::NONE).await.unwrap();
    assert!(shown.is_empty() && remark.contains("arrakis status"), "{remark}");
    for line in [&[][..], &["--outcome", "good"], &["x", "--after", "y"], &["x", "--role", "z"]] {
        assert!(try_run(line, Terminal::NONE).await.is_err(), "{line:?}");
    }
}

#[tokio::test]
async fn what_has_no_word_to_search_for_is_refused_with_what_to_do() {
    for (line, expected) in [
        (
            ["🚀 ?", "--tool=Bash"],
            "there is no word in \"🚀 ?\": write at least one letter or digit",
        ),
        (["fix", "bu*"], "bu* is too short: write at least 3 letters before the *"),
    ] {
        let error = try_run(&line, Terminal::NONE).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[tokio::test]
async fn json_has_all_of_a_hit_and_the_cursor_of_the_next_page() {
    let json: Value =
        serde_json::from_str(&run(&["build", "--limit", "1", "--json"]).await).unwrap();
    let hit = &json["hits"][0];
    assert_eq!(json["hits"].as_array().unwrap().len(), 1);
    assert_eq!((&hit["kind"], &hit["toolName"]), (&"tool_use".into(), &"Bash".into()));
    assert_eq!((&hit["outcome"], &hit["sessionId"]), (&"failed".into(), &"s-1".into()));
    assert_eq!(hit["at"], "2026-11-24T11:59:02.000000Z");
    assert_eq!(hit["snippet"][1], serde_json::json!({"text": "build", "match": true}));
    let next = json["next"].as_str().unwrap();
    let (shown, remark) = try_run(&["build", "--limit", "1"], Terminal::NONE).await.unwrap();
    assert!(shown.contains("Bash") && remark.contains(&format!("--after {next}")), "{remark}");
    let line = ["build", "--limit", "1", "--after", next, "--json"];
    let json: Value = serde_json::from_str(&run(&line).await).unwrap();
    assert_eq!(json["hits"][0]["kind"], "message");
    assert_eq!(json["hits"][0]["role"], "user");
    assert_eq!(json["next"], Value::Null);
}

#[tokio::test]
async fn the_embedded_store_is_searched_without_a_server() {
    let home = TempDir::new().unwrap();
    let clock = clock();
    let injected = Arc::clone(&clock) as Arc<dyn Clock>;
    let path = home.path().join("arrakis.db");
    let store = SqliteStore::open(path, injected, SqliteConfig::default()).unwrap();
    fill(&store, &clock).await;
    drop(store);
    let search = |words: &[&str]| {
        let mut arrakis = Process::new(env!("CARGO_BIN_EXE_arrakis"));
        arrakis.env_remove("DATABASE_URL").arg("--home").arg(home.path());
        let output = arrakis.arg("search").args(words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(search(&["semicolon"]).contains("a semicolon is missing"));
    assert_eq!(search(&["nowhere"]), "");
}
