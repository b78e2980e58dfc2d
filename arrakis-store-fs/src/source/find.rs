//! Finding transcripts that no event has named.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use arrakis_core::base::limits::{PATH_MAX_BYTES, SESSION_ID_MAX_BYTES};
use arrakis_core::session::transcript::{TranscriptAgent, TranscriptFile, is_line};
use serde::Deserialize;

use super::access::{SUBAGENTS, agent_of, elsewhere, open};

/// How deep folders are searched: Claude Code's own tree has six levels.
const DEPTH_MAX: usize = 16;

/// How much of a file is searched for the session that it belongs to, in bytes.
const SEARCHED_BYTES: u64 = 1024 * 1024;

/// What was found below a path.
#[derive(Debug, Default)]
pub struct Found {
    /// The transcripts: files whose names end with `.jsonl`, and whatever file was named itself.
    pub files: Vec<PathBuf>,
    /// What cannot be looked into, and why.
    pub passed_over: Vec<(PathBuf, String)>,
    /// Links that bring nothing, and why: they lead nowhere, or to what is found without them.
    pub left_out: Vec<(PathBuf, String)>,
    /// Where the links lead that were followed.
    pub linked: Vec<PathBuf>,
    /// Links that are followed once all else is found.
    links: Vec<(PathBuf, usize)>,
    /// Where the folders and files really lie that were found.
    real: BTreeSet<PathBuf>,
}

impl Found {
    /// Adds what is at `path`: a file, or a folder and all below it, in the order of their names. Links below
    /// a folder are followed once, where they lead to something that is not found without them.
    pub fn add(&mut self, path: &Path) {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => self.add_folder(path, 0),
            Ok(_) => self.add_file(path.to_owned()),
            Err(error) => self.pass_over(path, &error),
        }
        while let Some((link, depth)) = self.links.pop() {
            self.follow(link, depth);
        }
    }

    fn add_folder(&mut self, folder: &Path, depth: usize) {
        if !self.is_new(folder) {
            return;
        }
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.pass_over(folder, &error),
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < DEPTH_MAX => self.add_folder(&path, depth + 1),
                Ok(kind) if kind.is_dir() => {
                    self.pass_over(&path, &io::Error::other("it lies too deep"));
                }
                Ok(kind) if kind.is_symlink() => self.links.push((path, depth + 1)),
                Ok(kind) if is_transcript(&path) && kind.is_file() => self.add_file(path),
                Ok(_) if is_transcript(&path) => {
                    self.pass_over(&path, &io::Error::other("it is not a regular file"));
                }
                Ok(_) => {}
                Err(error) => self.pass_over(&path, &error),
            }
        }
    }

    fn add_file(&mut self, path: PathBuf) {
        if self.is_new(&path) {
            self.files.push(path);
        }
    }

    /// Adds what a link below a folder leads to.
    fn follow(&mut self, link: PathBuf, depth: usize) {
        let (real, found) = match (link.canonicalize(), fs::metadata(&link)) {
            (Ok(real), Ok(found)) => (real, found),
            // A link that is named like no transcript is nobody's loss.
            (Err(_), _) | (_, Err(_)) if !is_transcript(&link) => return,
            (Err(error), _) | (_, Err(error)) => {
                return self.left_out.push((link, format!("the link leads nowhere: {error}")));
            }
        };
        if !found.is_dir() && !is_transcript(&link) {
            return;
        }
        if self.real.contains(&real) {
            let where_to = format!("the link leads to {}, which is read there", real.display());
            return self.left_out.push((link, where_to));
        }
        self.linked.push(real);
        if found.is_dir() && depth < DEPTH_MAX {
            self.add_folder(&link, depth);
        } else if found.is_file() {
            self.add_file(link);
        } else {
            self.pass_over(&link, &io::Error::other("it is not a regular file"));
        }
    }

    /// Notes where a path really leads; says whether nothing found before leads there.
    fn is_new(&mut self, path: &Path) -> bool {
        path.canonicalize().map_or(true, |real| self.real.insert(real))
    }

    fn pass_over(&mut self, path: &Path, error: &io::Error) {
        self.passed_over.push((path.to_owned(), error.to_string()));
    }
}

/// Whether the name of a file is that of a transcript. Beside those of subagents lie other files of lines.
fn is_transcript(path: &Path) -> bool {
    let is_named_so = path.extension().is_some_and(|ending| ending == "jsonl");
    is_named_so && (session_folder(path).is_none() || path.to_str().and_then(agent_of).is_some())
}

/// The folder of the session whose subagent's transcript may be at `path`, at any depth.
fn session_folder(path: &Path) -> Option<&Path> {
    path.ancestors().skip(1).find(|folder| folder.ends_with(SUBAGENTS))?.parent()
}

/// Finds the transcript that should be at `path` and is not: one of the same session in another of the folders of
/// projects in `folders`.
#[must_use]
pub fn find_moved(path: &Path, folders: &[PathBuf]) -> Option<PathBuf> {
    elsewhere(path.to_str()?, folders)
}

/// Finds the session of a transcript: by its name where that is a session's, else by what its lines say. A
/// file of a fork begins with lines of the session that it comes from.
///
/// # Errors
///
/// It cannot be read, its path is no text, or none of its first lines is one of a transcript.
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
    let mut is_known = head.trim_ascii().is_empty();
    for line in head.split(|byte| *byte == b'\n') {
        is_known = is_known || is_line(line);
        let line: Said = serde_json::from_slice(line).unwrap_or_default();
        let id = line.session_id.filter(|id| (1..=SESSION_ID_MAX_BYTES).contains(&id.len()));
        said.session_id = said.session_id.or(id);
        said.cwd = said.cwd.or(line.cwd.filter(|cwd| cwd.len() <= PATH_MAX_BYTES));
        if is_known && said.session_id.is_some() && said.cwd.is_some() {
            break;
        }
    }
    if !is_known && (head.len() as u64) < SEARCHED_BYTES {
        return Err(io::Error::other(
            "it is no transcript: none of its lines is one of Claude Code's",
        ));
    }
    // A subagent's lies in the folder of its session.
    let folder = session_folder(path);
    let agent = folder.and_then(|_| agent_of(text));
    let named = if agent.is_some() { folder } else { Some(path) };
    let name = named.and_then(Path::file_stem).unwrap_or_default().to_string_lossy();
    let said_id = said.session_id.filter(|_| uuid::Uuid::try_parse(&name).is_err());
    Ok(TranscriptFile {
        session_id: said_id.unwrap_or_else(|| name.into_owned()),
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
