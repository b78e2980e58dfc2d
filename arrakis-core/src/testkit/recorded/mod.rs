//! The recorded sessions in `testdata`, for the tests of every store.
//!
//! They are read from this crate's folder in the repository; a published crate has none. What cannot be read
//! panics: a test that misses its data fails.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

mod client;

pub use client::{RECORDINGS, fault, faults, lines, recording};

use std::collections::BTreeMap;
use std::path::Path;

use crate::testkit::sessions::Session;

/// Every recorded session: `sessions.json` says which hooks belong to which transcript.
#[must_use]
pub fn recorded() -> Vec<Session> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let index: BTreeMap<String, Vec<String>> =
        serde_json::from_slice(&std::fs::read(folder.join("sessions.json")).unwrap()).unwrap();
    index.iter().map(|(id, runs)| session(&folder, id, runs)).collect()
}

fn session(folder: &Path, id: &str, runs: &[String]) -> Session {
    let mut hooks: Vec<_> =
        std::fs::read_dir(folder.join("hooks")).unwrap().map(|file| file.unwrap().path()).collect();
    hooks.sort();
    let of_run = |file: &Path, run: &str| {
        let name = file.file_name().unwrap().to_str().unwrap();
        name.strip_prefix(run).is_some_and(|rest| {
            rest.strip_prefix('-')
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    let names = |payload: &[u8]| {
        let hook: serde_json::Value = serde_json::from_slice(payload).unwrap();
        hook["session_id"] == id
    };
    // Runs in the order of their prompts: `multi` is before `compact`, which resumes it.
    let mut runs: Vec<_> = runs.iter().collect();
    runs.sort_by_key(|run| *run == "compact");
    let payloads = runs.iter().flat_map(|run| hooks.iter().filter(|file| of_run(file, run)));
    let payloads = payloads.map(|file| std::fs::read(file).unwrap()).filter(|one| names(one));
    let transcripts = folder.join("transcripts");
    let own = std::fs::read(transcripts.join(format!("{id}.jsonl"))).unwrap();
    let mut session = Session::new(id, payloads.collect(), own);
    let subagents = transcripts.join(id).join("subagents");
    for file in std::fs::read_dir(subagents).into_iter().flatten() {
        let file = file.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap();
        let Some(agent) = name.strip_prefix("agent-").and_then(|n| n.strip_suffix(".jsonl")) else {
            continue;
        };
        let meta = std::fs::read(file.with_extension("meta.json")).unwrap();
        let meta = serde_json::from_slice(&meta).unwrap();
        session.add_subagent(agent, &meta, std::fs::read(&file).unwrap());
    }
    session
}
