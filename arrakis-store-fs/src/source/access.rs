//! Which files are read: paths come from events, and an event can name any file.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use arrakis_core::base::limits::SUBAGENTS_MAX;
use arrakis_core::session::transcript::{TranscriptAgent, TranscriptFile};

use crate::spool::file;

/// Longest `.meta.json` of a subagent that is read, in bytes; a real one has a few hundred.
const META_MAX_BYTES: u64 = 64 * 1024;

/// The folder of the transcripts of subagents, in that of their session.
pub(super) const SUBAGENTS: &str = "subagents";

/// How deep in the folder of a session the transcripts of subagents are looked for: those of workflows lie two
/// levels below those of others.
const SUBAGENTS_DEPTH_MAX: usize = 8;

/// The transcripts of the subagents of a session, at any depth in `folder`. Links are not followed: they lead
/// to those of other sessions.
pub(super) fn subagents(session: &TranscriptFile, folder: &Path) -> Vec<TranscriptFile> {
    let mut files = Vec::new();
    let (mut folders, mut seen) = (vec![(folder.to_owned(), 0)], 0);
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            seen += 1;
            if seen > 4 * SUBAGENTS_MAX || files.len() >= SUBAGENTS_MAX {
                return files;
            }
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && depth < SUBAGENTS_DEPTH_MAX {
                folders.push((entry.path(), depth + 1));
            } else if entry.file_type().is_ok_and(|kind| kind.is_file())
                && let Ok(path) = entry.path().into_os_string().into_string()
                && let Some(id) = agent_of(&path)
            {
                let id = id.to_owned();
                let agent = Some(TranscriptAgent { id, agent_type: None, tool_use_id: None });
                files.push(TranscriptFile { path, agent, ..session.clone() });
            }
        }
    }
    files
}

/// Where the transcript is that should be at `path` and is not: in another folder of projects, under the same
/// name. Sessions in worktrees and projects that have moved have theirs elsewhere. Of several the one that was
/// written last.
pub(super) fn elsewhere(path: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let path = Path::new(path);
    let name = path.file_name()?;
    // Other names are found in many folders.
    uuid::Uuid::try_parse(path.file_stem()?.to_str()?).ok()?;
    let projects =
        folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let found = projects.filter_map(|project| {
        let file = project.path().join(name);
        let found = file.metadata().ok().filter(fs::Metadata::is_file)?;
        allowed(file.to_str()?, folders).ok()?;
        Some((found.modified().ok()?, file))
    });
    found.max().map(|(_, file)| file)
}

/// The subagent that the name of a transcript gives.
pub(super) fn agent_of(path: &str) -> Option<&str> {
    let name = Path::new(path).file_name()?.to_str()?;
    name.strip_prefix("agent-")?.strip_suffix(".jsonl").filter(|id| !id.is_empty())
}

/// What the file beside a subagent's transcript says.
pub(super) fn meta(transcript: &str, folders: &[PathBuf]) -> Option<serde_json::Value> {
    let path = Path::new(transcript).with_extension("meta.json");
    let mut bytes = Vec::new();
    let file = open(&allowed(path.to_str()?, folders).ok()?).ok()?;
    file.take(META_MAX_BYTES).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Opens a regular file.
pub(super) fn open(path: &Path) -> io::Result<File> {
    file::open(path)?.map_err(io::Error::other)
}

/// Where a path leads, if a transcript may be there that nobody has asked for: an event can name any
/// file.
pub(super) fn followed(path: &str, folders: &[PathBuf]) -> io::Result<PathBuf> {
    let real = allowed(path, folders)?;
    if real.extension().is_some_and(|ending| ending == "jsonl") {
        Ok(real)
    } else {
        Err(io::Error::other("its name does not end with .jsonl; `arrakis import` reads it"))
    }
}

/// Where a path leads, if that is in one of the folders.
pub(super) fn allowed(path: &str, folders: &[PathBuf]) -> io::Result<PathBuf> {
    if !Path::new(path).is_absolute() {
        return Err(io::Error::other("its path is not absolute"));
    }
    let real = Path::new(path).canonicalize()?;
    let mut roots = folders.iter().filter_map(|folder| folder.canonicalize().ok());
    if roots.any(|root| real.starts_with(root)) {
        Ok(real)
    } else {
        let place = format!(
            "it lies at {}, outside of the folders that may be read; name its folder in \
             [transcripts] folders of config.toml if it is yours",
            real.display()
        );
        Err(io::Error::other(place))
    }
}
