//! What the transcript of a subagent repeats of the main thread, and answers whose ids come again.

use std::fs;

use serde_json::{Value, json};

use crate::transcripts::{Scene, slices};

/// A line of the main thread, or of a subagent that repeats it.
fn line(id: &str) -> String {
    let line = json!({"type": "user", "uuid": id, "timestamp": "2026-11-24T00:00:00Z",
        "message": {"role": "user", "content": id}});
    format!("{line}\n")
}

/// The ids of the lines of the slices of subagents, and whether they are copies.
fn of_subagents(scene: &Scene) -> Vec<(String, bool)> {
    let slices = slices(&scene.layout);
    let of_agent = slices.iter().filter(|slice| slice["agent_id"].is_string());
    let lines = of_agent.flat_map(|slice| {
        let is_copied = slice["copied"] == true;
        let lines = slice["lines"].as_array().unwrap().iter();
        lines.map(move |line| (line["uuid"].as_str().unwrap().to_owned(), is_copied))
    });
    lines.collect()
}

#[test]
fn what_a_subagent_repeats_of_the_main_thread_is_marked_also_where_it_is_read_in_parts() {
    let scene = Scene::new();
    scene.append("s.jsonl", line("u1") + &line("u2"));
    fs::create_dir_all(scene.path("s/subagents")).unwrap();
    let side = "s/subagents/agent-side.jsonl";
    scene.append(side, line("u1"));
    scene.read("s.jsonl");
    scene.append(side, line("u2") + &line("u3"));
    scene.read("s.jsonl");
    // What is said later is its own, whatever it is called.
    scene.append(side, line("u4") + &line("u1"));
    scene.read("s.jsonl");
    let expected = [("u1", true), ("u2", true), ("u3", false), ("u4", false), ("u1", false)];
    assert_eq!(of_subagents(&scene), expected.map(|(id, copied)| (id.to_owned(), copied)));
}

#[test]
fn a_subagent_that_repeats_nothing_has_no_copies() {
    let scene = Scene::new();
    scene.append("s.jsonl", line("u1"));
    fs::create_dir_all(scene.path("s/subagents")).unwrap();
    scene.append("s/subagents/agent-own.jsonl", line("u3") + &line("u1"));
    scene.read("s.jsonl");
    let expected = [("u3", false), ("u1", false)];
    assert_eq!(of_subagents(&scene), expected.map(|(id, copied)| (id.to_owned(), copied)));
}

#[test]
fn answers_with_one_id_are_numbered_alike_however_the_file_is_read() {
    let answer = |id: &str, parent: &str| {
        let line = json!({"type": "assistant", "uuid": id, "parentUuid": parent,
            "timestamp": "2026-11-24T00:00:00Z", "requestId": "r",
            "message": {"id": "m", "role": "assistant", "content": [{"type": "text", "text": id}]}});
        format!("{line}\n")
    };
    let lines = [
        line("p1"),
        answer("a1", "p1"),
        answer("a2", "a1"),
        line("p2"),
        answer("a3", "p2"),
        answer("a4", "a3"),
        line("p3"),
        answer("a5", "p3"),
        // The first answer once more, as clients write what they go on from.
        answer("a1", "p1"),
    ];
    let numbers = |scene: &Scene| {
        let mut all = json!({});
        for slice in slices(&scene.layout) {
            let found = slice["answers"].as_object().cloned().unwrap_or_default();
            all.as_object_mut().unwrap().extend(found);
        }
        all
    };
    let at_once = Scene::new();
    at_once.append("s.jsonl", lines.concat());
    at_once.read("s.jsonl");
    let expected: Value = json!({"a3": 2, "a4": 2, "a5": 3});
    assert_eq!(numbers(&at_once), expected);
    let one_by_one = Scene::new();
    for line in lines {
        one_by_one.append("s.jsonl", line);
        one_by_one.read("s.jsonl");
    }
    assert_eq!(numbers(&one_by_one), expected);
}
