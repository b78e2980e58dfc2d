//! Which files are transcripts, whose they are, and where they lie.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use arrakis_core::testkit::queue::DESTINATION;
use arrakis_store_fs::source::{Found, ReadMode, find_moved, identify, survey};
use serde_json::{Value, json};

use crate::transcripts::{Scene, line, said, slices};

const SESSION: &str = "cc000020-0000-4000-8000-000000000020";

/// A line that names its session.
fn line_of(session: &str) -> String {
    line(1).replacen('{', &format!("{{\"sessionId\":\"{session}\","), 1)
}

#[test]
fn a_last_line_needs_no_newline_if_it_is_whole() {
    let scene = Scene::new();
    let (first, last) = (line(1), line(2));
    scene.append("s.jsonl", first.trim_end());
    assert_eq!((scene.read("s.jsonl"), scene.read("s.jsonl")), (1, 0), "not even the first");
    scene.append("s.jsonl", format!("\n{}", last.trim_end()));
    assert_eq!(scene.read("s.jsonl"), 1);
    assert_eq!(survey(&scene.layout).unwrap().unread_bytes, 0);
    // What comes after it begins with the newline that it lacked.
    scene.append("s.jsonl", "\n");
    assert_eq!(scene.read("s.jsonl"), 0);
    scene.append("s.jsonl", line(3));
    assert_eq!(scene.read("s.jsonl"), 1);
    assert_eq!(said(&scene.layout), ["1", "2", "3"]);
}

#[test]
fn whoever_asks_is_told_of_a_last_line_that_was_left() {
    let scene = Scene::new();
    scene.append("s.jsonl", line(1) + &line(2)[..9]);
    let mode = ReadMode { asked: true, ..ReadMode::default() };
    let read = || scene.shipper.read(&scene.file("s.jsonl"), DESTINATION, mode, &mut |_| {});
    let reading = read().unwrap();
    assert_eq!((reading.slices, reading.left_bytes), (1, 9));
    scene.append("s.jsonl", &line(2)[9..]);
    let reading = read().unwrap();
    assert_eq!((reading.slices, reading.left_bytes), (1, 0));
}

#[test]
fn the_name_of_a_session_outweighs_what_the_first_lines_say() {
    let scene = Scene::new();
    let fork = format!("{SESSION}.jsonl");
    scene.append(&fork, line_of("cc000020-0000-4000-8000-00000000000a") + &line_of(SESSION));
    scene.append("backup.jsonl", line_of(SESSION));
    for name in [fork.as_str(), "backup.jsonl"] {
        assert_eq!(identify(&scene.path(name)).unwrap().session_id, SESSION, "{name}");
    }
}

#[test]
fn a_file_without_a_line_of_a_transcript_is_none() {
    let scene = Scene::new();
    scene.append("notes.jsonl", "{\"a\":1}\n{\"type\":\"from-the-future\"}\n");
    assert!(
        identify(&scene.path("notes.jsonl")).unwrap_err().to_string().contains("no transcript")
    );
    scene.append("empty.jsonl", "\n");
    scene.append("marked.jsonl", format!("\u{feff}{}", line(1)));
    for name in ["empty.jsonl", "marked.jsonl"] {
        assert!(identify(&scene.path(name)).is_ok(), "{name}");
    }
}

#[test]
fn subagents_are_followed_at_any_depth_below_their_session() {
    let scene = Scene::new();
    scene.append("s.jsonl", line(1));
    let folder = "s/subagents/workflows/wf_1";
    fs::create_dir_all(scene.path(folder)).unwrap();
    scene.append(&format!("{folder}/agent-ag01.jsonl"), line(2));
    scene.append(&format!("{folder}/journal.jsonl"), line(3));
    let meta = json!({"agentType": "scout", "toolUseId": "toolu_w1"}).to_string();
    fs::write(scene.path(&format!("{folder}/agent-ag01.meta.json")), meta).unwrap();
    // What another session has left here is read with that.
    symlink(scene.path("s.jsonl"), scene.path("s/subagents/agent-b1.jsonl")).unwrap();
    assert_eq!(scene.read("s.jsonl"), 2);
    let agents: Vec<Value> = slices(&scene.layout);
    let agent = agents.iter().find(|slice| slice["agent_id"] == "ag01").unwrap();
    let of_meta = (&agent["agent_type"], &agent["agent_tool_use_id"], &agent["session_id"]);
    assert_eq!(of_meta, (&json!("scout"), &json!("toolu_w1"), &json!("s")));

    let mut found = Found::default();
    found.add(&scene.path(""));
    assert_eq!(found.files.len(), 2, "{:?}", found.files);
    let file = identify(&scene.path(&format!("{folder}/agent-ag01.jsonl"))).unwrap();
    assert_eq!((file.session_id.as_str(), file.agent.unwrap().id.as_str()), ("s", "ag01"));
}

#[test]
fn links_are_followed_once_and_a_broken_one_is_named() {
    let scene = Scene::new();
    let elsewhere = scene.directory.path().join("elsewhere/-synced");
    fs::create_dir_all(&elsewhere).unwrap();
    fs::write(elsewhere.join("s.jsonl"), line(1)).unwrap();
    fs::create_dir_all(scene.path("p")).unwrap();
    scene.append("p/t.jsonl", line(2));
    symlink(&elsewhere, scene.path("-synced")).unwrap();
    symlink(scene.path(""), scene.path("p/round")).unwrap();
    symlink("../p/t.jsonl", scene.path("p/again.jsonl")).unwrap();
    symlink("nowhere", scene.path("p/agent-b1.jsonl")).unwrap();
    symlink("nowhere", scene.path("p/notes.txt")).unwrap();
    let mut found = Found::default();
    found.add(&scene.path(""));
    let files: Vec<PathBuf> = vec![scene.path("p/t.jsonl"), scene.path("-synced/s.jsonl")];
    assert_eq!((&found.files, found.passed_over.len()), (&files, 0));
    assert_eq!(found.linked, [elsewhere.canonicalize().unwrap()]);
    let names = found.left_out.iter().map(|(path, _)| path.file_name().unwrap().to_str().unwrap());
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    assert_eq!(names, ["again.jsonl", "agent-b1.jsonl", "round"]);
}

#[test]
fn a_transcript_that_is_not_where_events_say_is_found_by_its_name() {
    let scene = Scene::new();
    let (told, real) = (format!("-home-felt/{SESSION}.jsonl"), format!("-home/{SESSION}.jsonl"));
    fs::create_dir_all(scene.path(&format!("-home/{SESSION}/subagents"))).unwrap();
    scene.append(&real, line(1));
    scene.append(&format!("-home/{SESSION}/subagents/agent-a.jsonl"), line("a"));
    assert_eq!(scene.read(&told), 2);
    let shipped = slices(&scene.layout);
    let lies_at = scene.path(&real);
    assert_eq!(shipped[0]["transcript_path"], lies_at.to_str().unwrap());
    assert_eq!(survey(&scene.layout).unwrap().missing, 0);
    let folders = [scene.path("")];
    assert_eq!(find_moved(&scene.path(&told), &folders), Some(lies_at));
    assert_eq!(find_moved(&scene.path("-home-felt/s.jsonl"), &folders), None);
}

#[test]
fn a_transcript_that_moves_is_followed_and_not_reported_as_gone() {
    let scene = Scene::new();
    let (before, after) = (format!("-home/{SESSION}.jsonl"), format!("-felt/{SESSION}.jsonl"));
    for folder in ["-home", "-felt"] {
        fs::create_dir_all(scene.path(folder)).unwrap();
    }
    scene.append(&before, line(1));
    assert_eq!(scene.read(&before), 1);
    fs::rename(scene.path(&before), scene.path(&after)).unwrap();
    scene.append(&after, line(2));
    assert_eq!(scene.shipper.read_known().unwrap(), 1);
    let mut all = said(&scene.layout);
    all.sort();
    assert_eq!(all, ["1", "2"]);
    // Once events name the new place, that is the one that is followed.
    scene.read(&after);
    scene.append(&after, line(3));
    assert_eq!(scene.shipper.read_known().unwrap(), 1);
    let known = survey(&scene.layout).unwrap();
    assert_eq!((known.files, known.missing), (1, 0));
}
