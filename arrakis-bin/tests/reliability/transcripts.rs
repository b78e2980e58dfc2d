//! The drainer is killed at every call by which it touches a file while it reads a transcript.

use std::fs;

use serde_json::json;

use crate::is_long;
use crate::kills::{each_call, is_of_event, killed_at};
use crate::oracle::{Event, Size};
use crate::scenario::{Receiver, Scenario, drain_once, roots};
use crate::trace::{self, Call};
use crate::world::feed;

/// Lines of a transcript, so long that a slice holds few of them.
fn lines(numbers: std::ops::Range<usize>) -> String {
    let filler = "the spice must flow ".repeat(5_000);
    let line = |n: usize| {
        let line = json!({"type": "user", "uuid": "u", "timestamp": "2026-11-24T00:00:00Z",
            "n": n, "x": filler});
        format!("{line}\n")
    };
    numbers.map(line).collect()
}

fn is_of_transcript(call: &Call) -> bool {
    call.path.extension().is_some_and(|ending| ending == "jsonl")
        || call.path.parent().is_some_and(|folder| folder.ends_with("transcripts"))
}

#[test]
fn drainers_killed_while_they_read_a_transcript() {
    let receiver = Receiver::start();
    let mut scenario = Scenario::new("drainer killed at every call, a transcript to read");
    let mut case = |at| {
        let world = receiver.new_home();
        let project = world.directory.path().join(".claude/projects/p");
        fs::create_dir_all(&project).unwrap();
        let Event { id, .. } = scenario.oracle.issue(Size::Small);
        let path = project.join(format!("{id}.jsonl"));
        fs::write(&path, lines(0..4)).unwrap();
        let payload = json!({"session_id": id, "hook_event_name": "Stop", "transcript_path": path});
        let event = Event { id: id.clone(), payload: payload.to_string().into_bytes() };
        feed(world.lone_hook(), &event.payload);
        scenario.oracle.owe(&event);

        let touched = [roots(&world), vec![project]].concat();
        let report = trace::run(drain_once(&world), Vec::new(), touched, killed_at(at));
        scenario.count(report.faults());
        assert_eq!(report.struck.is_some(), report.is_killed(), "{report:?}");
        // It has grown before the next drainer reads it.
        fs::write(&path, lines(0..5)).unwrap();
        let case = format!("drainer killed at {at:?}, {:?}", report.struck);
        scenario.recover(&world, &receiver.world, &[event], &case);
        scenario.judge_slices(&receiver.world, &id, path.metadata().unwrap().len(), &case);
        report
    };
    if is_long() {
        each_call(is_of_transcript, case);
    } else {
        // What else it does is killed elsewhere.
        let calls: Vec<Call> = case(None).calls;
        let matter = |at: &usize| is_of_transcript(&calls[*at]) || is_of_event(&calls[*at]);
        (0..calls.len()).filter(matter).for_each(|at| drop(case(Some(at + 1))));
    }
    scenario.tally(&receiver.world);
    scenario.finish();
}
