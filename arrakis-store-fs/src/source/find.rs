//! Finding transcripts that no event has named.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use arrakis_core::base::limits::{PATH_MAX_BYTES, SESSION_ID_MAX_BYTES};
use arrakis_core::session::transcript::{TranscriptAgent, TranscriptFile};
use serde::Deserialize;

use super::access::{agent_of, open};

/// How deep folders are searched: Claude Code's own tree has four levels.
const DEPTH_MAX: usize = 16;

/// How much of a file is searched for the session that it belongs to, in bytes.
const SEARCHED_BYTES: u64 = 1024 * 1024;

/// What was found below a path.
#[derive(Debug, Default)]
pub struct Found {
    /// The transcripts: files whose names end with `.jsonl`, and whatever file was named itself.
    pub files: Vec<PathBuf>,
    /// What cannot be looked into, and why. Links are not followed.
    pub passed_over: Vec<(PathBuf, String)>,
}

impl Found {
    /// Adds what is at `path`: a file, or a folder and all below it, in the order of their names.
    pub fn add(&mut self, path: &Path) {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => self.add_folder(path, 0),
            Ok(_) => self.files.push(path.to_owned()),
            Err(error) => self.pass_over(path, &error),
        }
    }

    fn add_folder(&mut self, folder: &Path, depth: usize) {
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.pass_over(folder, &error),
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let is_named_so = path.extension().is_some_and(|ending| ending == "jsonl");
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < DEPTH_MAX => self.add_folder(&path, depth + 1),
                Ok(kind) if kind.is_dir() => {
                    self.pass_over(&path, &io::Error::other("it lies too deep"));
                }
                Ok(kind) if is_named_so && kind.is_file() => self.files.push(path),
                Ok(_) if is_named_so => {
                    self.pass_over(&path, &io::Error::other("it is not a regular file"));
                }
                Ok(_) => {}
                Err(error) => self.pass_over(&path, &error),
            }
        }
    }

    fn pass_over(&mut self, path: &Path, error: &io::Error) {
        self.passed_over.push((path.to_owned(), error.to_string()));
    }
}

/// Finds the session of a transcript: by what its first lines say, else by its name.
///
/// # Errors
///
/// It cannot be read, or its path is no text.
pub fn identify(path: &Path) -> io::Result<TranscriptFile> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Said {
        session_id: Option<String>,
        cwd: Option<String>,
    }
    let text = path.to_str().ok_or_else(|| io::Error::other("its path is not UTF-8"))?;
    let mut head = Vec::new();
    let file = open(&path.canonicalize()?)?;
    file.take(SEARCHED_BYTES).read_to_end(&mut head)?;
    let mut said = Said::default();
    for line in head.split(|byte| *byte == b'\n') {
        let line: Said = serde_json::from_slice(line).unwrap_or_default();
        let id = line.session_id.filter(|id| (1..=SESSION_ID_MAX_BYTES).contains(&id.len()));
        said.session_id = said.session_id.or(id);
        said.cwd = said.cwd.or(line.cwd.filter(|cwd| cwd.len() <= PATH_MAX_BYTES));
        if said.session_id.is_some() && said.cwd.is_some() {
            break;
        }
    }
    let folder = path.parent().filter(|folder| folder.ends_with("subagents"));
    let agent = folder.and_then(|_| agent_of(text));
    // A subagent's lies in the folder of its session.
    let named = if agent.is_some() { folder.and_then(Path::parent) } else { Some(path) };
    let name = named.and_then(Path::file_stem).unwrap_or_default().to_string_lossy();
    Ok(TranscriptFile {
        session_id: said.session_id.unwrap_or_else(|| name.into_owned()),
        path: text.to_owned(),
        cwd: said.cwd,
        agent: agent.map(|id| TranscriptAgent {
            id: id.to_owned(),
            agent_type: None,
            tool_use_id: None,
        }),
        identity: String::new(),
    })
}
