//! Which files are read: paths come from events, and an event can name any file.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use arrakis_core::base::limits::SUBAGENTS_MAX;
use arrakis_core::session::transcript::{TranscriptAgent, TranscriptFile};

use crate::spool::file;

/// Longest `.meta.json` of a subagent that is read, in bytes; a real one has a few hundred.
const META_MAX_BYTES: u64 = 64 * 1024;

/// The transcripts of the subagents of a session in the folder beside its transcript.
pub(super) fn subagents(session: &TranscriptFile, folder: &str) -> Vec<TranscriptFile> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(2 * SUBAGENTS_MAX);
    let files = entries.filter_map(|entry| {
        let path = entry.path().into_os_string().into_string().ok()?;
        let id = agent_of(&path)?.to_owned();
        let agent = Some(TranscriptAgent { id, agent_type: None, tool_use_id: None });
        Some(TranscriptFile { path, agent, ..session.clone() })
    });
    files.take(SUBAGENTS_MAX).collect()
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
