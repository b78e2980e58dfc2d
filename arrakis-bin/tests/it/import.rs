//! What is imported, what is left out, and what is refused.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::support::world::{World, feed};
use crate::transcripts::{Claude, drain_once, import, said, words};

const SESSION: &str = "cc000020-0000-4000-8000-000000000020";

#[test]
fn a_last_line_without_its_newline_is_read_and_a_half_one_is_told() {
    let world = World::new();
    let _up = world.lone_up();
    let claude = Claude::of(&world);
    claude.append("whole", said("m1", "one").trim_end().as_bytes());
    claude
        .append("half", format!("{}{}", said("m2", "two"), &said("m3", "three")[..20]).as_bytes());
    let (report, success) = import(&world, &[]);
    assert!(success, "{report}");
    assert_eq!((&report["lines"], &report["leftOut"]), (&json!(2), &json!(1)), "{report}");
    assert!(report["remarks"][0]["path"].as_str().unwrap().ends_with("half.jsonl"), "{report}");
    drain_once(&world);
    assert_eq!(
        (words(&world, "whole"), words(&world, "half")),
        (vec!["one".into()], vec!["two".into()])
    );
}

#[test]
fn links_are_read_once_and_a_broken_one_fails_no_import() {
    let world = World::new();
    let _up = world.lone_up();
    let claude = Claude::of(&world);
    claude.append("s", said("m1", "one").as_bytes());
    let elsewhere = world.directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("synced.jsonl"), said("m2", "two")).unwrap();
    symlink(&elsewhere, claude.project.with_file_name("-synced")).unwrap();
    symlink("nowhere.jsonl", claude.transcript("agent-b1")).unwrap();
    symlink(claude.transcript("s"), claude.transcript("again")).unwrap();
    let (report, success) = import(&world, &[]);
    assert!(success, "{report}");
    assert_eq!((&report["files"], &report["leftOut"]), (&json!(2), &json!(2)), "{report}");
    drain_once(&world);
    assert_eq!(
        (words(&world, "s"), words(&world, "synced")),
        (vec!["one".into()], vec!["two".into()])
    );
}

#[test]
fn what_is_no_transcript_and_no_export_is_refused() {
    let world = World::new();
    let _up = world.lone_up();
    let path = world.directory.path().join("notes.jsonl");
    fs::write(&path, "{\"a\":1}\n{\"b\":2}\n").unwrap();
    let (report, success) = import(&world, &[path.to_str().unwrap()]);
    assert!(!success, "{report}");
    assert_eq!(
        (&report["files"], &report["sent"], &report["notRead"]),
        (&json!(0), &json!(0), &json!(1))
    );
    assert!(world.spooled("pending").is_empty());
}

#[test]
fn an_export_is_known_behind_a_mark_and_blank_lines_and_without_its_head() {
    let world = World::new();
    let _up = world.lone_up();
    feed(
        world.lone_hook(),
        br#"{"session_id":"s","hook_event_name":"UserPromptSubmit","prompt":"one"}"#,
    );
    drain_once(&world);
    let exported = world.arrakis(&["export", "--all", "--format", "jsonl"]);
    let exported = String::from_utf8(exported.stdout).unwrap();
    let (_, without_head) = exported.split_once('\n').unwrap();
    for text in [format!("\u{feff}{exported}"), format!("\n \n{exported}"), without_head.to_owned()]
    {
        let path = world.directory.path().join("export.jsonl");
        fs::write(&path, text).unwrap();
        let (report, success) = import(&world, &[path.to_str().unwrap()]);
        assert!(success, "{report}");
        let taken = (
            report["imported"].as_u64().unwrap() + report["known"].as_u64().unwrap(),
            &report["bad"],
        );
        assert_eq!(taken, (1, &json!(0)), "{report}");
    }
}

#[test]
fn a_transcript_that_lies_elsewhere_closes_the_gap_of_its_session() {
    let world = World::new();
    let _up = world.lone_up();
    let claude = Claude::of(&world);
    feed(world.lone_hook(), &claude.event(SESSION, "Stop"));
    drain_once(&world);
    assert!(words(&world, SESSION).is_empty());
    let moved = claude.project.with_file_name("-worktree");
    fs::create_dir(&moved).unwrap();
    fs::write(moved.join(format!("{SESSION}.jsonl")), said("m1", "one")).unwrap();
    let mut backfill = world.command(env!("CARGO_BIN_EXE_arrakis"));
    let backfill = backfill.args(["conversations", "backfill", SESSION]).env("ARRAKIS_BIN", "true");
    let output = backfill.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    drain_once(&world);
    assert_eq!(words(&world, SESSION), ["one"]);
}
