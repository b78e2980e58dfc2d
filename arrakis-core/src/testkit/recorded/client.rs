//! What recorded clients left behind, in `testdata`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::testkit::sessions::Session;
use serde_json::Value;

/// The sessions of one recording of client 2.1.332, in the order in which they began: a folder with the hooks'
/// payloads, one a line, and the transcripts as the client has them.
#[must_use]
pub fn recording(name: &str) -> Vec<Session> {
    let folder = testdata().join("client-2.1.332").join(name);
    let mut ids: Vec<String> = Vec::new();
    let mut hooks: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for payload in lines(&std::fs::read(folder.join("hooks.jsonl")).unwrap()) {
        let hook: Value = serde_json::from_slice(payload).unwrap();
        let id = hook["session_id"].as_str().unwrap().to_owned();
        if !ids.contains(&id) {
            ids.push(id.clone());
        }
        hooks.entry(id).or_default().push(payload.to_vec());
    }
    let transcripts = folder.join("transcripts");
    let session = |id: String| {
        let own = std::fs::read(transcripts.join(format!("{id}.jsonl"))).unwrap();
        let mut session = Session::new(&id, hooks.remove(&id).unwrap_or_default(), own);
        add_subagents(&mut session, &transcripts.join(&id));
        session
    };
    ids.into_iter().map(session).collect()
}

/// The names of the recordings of client 2.1.332.
pub const RECORDINGS: &[&str] = &[
    "headless",
    "02-queued",
    "02-queued-taken-back",
    "02-queued-while-answering",
    "03-tool-interrupted",
    "03-unsent",
    "04-rewind",
    "05-bash-mode",
    "06-clear",
    "08-rename",
    "10-permission-denied-with-reason",
    "11-questions",
    "14-background-agent",
    "15-two-clients",
    "16-mentions-images-pastes",
    "19-compacted-by-itself",
    "21-blocks",
    "23-scheduled-prompt",
];

/// The transcripts of a case that a version before got wrong.
#[must_use]
pub fn fault(name: &str) -> Vec<Session> {
    let session = |file: PathBuf| {
        let id = file.file_stem().unwrap().to_str().unwrap();
        let mut session = Session::new(id, Vec::new(), std::fs::read(&file).unwrap());
        add_subagents(&mut session, &file.with_extension(""));
        session
    };
    files(&testdata().join("faults").join(name)).into_iter().map(session).collect()
}

/// The names of the cases that a version before got wrong.
#[must_use]
pub fn faults() -> Vec<String> {
    let cases = std::fs::read_dir(testdata().join("faults")).unwrap();
    let mut names: Vec<String> =
        cases.map(|case| case.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Adds the transcripts of the subagents in the folder of a session.
fn add_subagents(session: &mut Session, folder: &Path) {
    for file in files(&folder.join("subagents")) {
        let name = file.file_name().unwrap().to_str().unwrap();
        let agent = name.strip_prefix("agent-").and_then(|n| n.strip_suffix(".jsonl"));
        let Some(agent) = agent else { continue };
        let meta = std::fs::read(file.with_extension("meta.json")).unwrap_or(b"{}".to_vec());
        let meta = serde_json::from_slice(&meta).unwrap();
        session.add_subagent(agent, &meta, std::fs::read(&file).unwrap());
    }
}

/// The lines of a transcript.
pub fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"))
        .collect();
    files.sort();
    files
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}
