//! How far each transcript was read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::digest::Digest;
use arrakis_core::session::transcript::{
    Answers, TranscriptAgent, TranscriptFile, count_line_type,
};
use serde::{Deserialize, Serialize};

use crate::spool::dir::SpoolDir;
use crate::spool::durability::{FileSystem, create_directories, replace_durably};
use crate::spool::layout::Layout;
use crate::spool::lock;

/// Longest checkpoint, in bytes: three paths of the longest kind, of characters that JSON writes as six, and the
/// rest.
const CHECKPOINT_MAX_BYTES: usize = 128 * 1024;

/// The ending of a checkpoint's file name.
const SUFFIX: &str = ".json";

/// The ending of a lock's file name.
const LOCK: &str = "lock";

/// After how long a temporary file or a lock is taken for one that a crash has left.
const LEFT_BEHIND: Duration = Duration::from_secs(3600);

/// What is known about one transcript.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// Where it is, as the events name it.
    pub path: String,
    /// Where it was found, if not at `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) found_at: Option<String>,
    /// The session that it belongs to.
    pub session_id: String,
    /// The session's working directory, where it was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Owning subagent; `None` for the session's own transcript.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// That subagent's type, if an event named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_type: Option<String>,
    /// Where its slices go: a URL without credentials.
    pub destination: String,
    /// Whether it was named to `arrakis import` alone: then it may lie anywhere, and is not followed there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub imported: bool,
    /// Which file was read; none before anything was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<Fingerprint>,
    /// All before this byte is in the spool, or was.
    #[serde(default)]
    pub offset: u64,
    /// How many lines before the offset are of types that the version which read them did not know, by type.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unknown: BTreeMap<String, u64>,
    /// Before this byte all lines are copies of those of another session.
    #[serde(default)]
    pub(super) copied: u64,
    /// Whether it is known where the copies end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) copies_over: bool,
    /// Whether there are sidechains before the offset whose lines name no subagent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) has_sidechains: bool,
    /// The ids of the latest answers before the offset.
    #[serde(default, skip_serializing_if = "Answers::is_empty")]
    pub(super) answers: Answers,
    /// What the file was like when it was read last to the end of its last whole line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seen: Option<Seen>,
    /// What a reading is about to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) intent: Option<Intent>,
    /// Since when there is no such file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_since: Option<Timestamp>,
    /// Why it could not be read the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Tells a file from others at its path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Fingerprint {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// The digest of its first line, or of the beginning of that. It stays the same in a copy, so it
    /// stands for the file in the ids of slices.
    pub(super) first: Digest,
    /// How many bytes before the offset `last` is the digest of.
    pub(super) last_bytes: u64,
    pub(super) last: Digest,
}

/// What tells a file that has changed, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Seen {
    device: u64,
    inode: u64,
    bytes: u64,
    /// When it was modified, in seconds since 1970 and nanoseconds.
    modified: (i64, i64),
}

impl Seen {
    pub(super) fn of(found: &fs::Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
        }
    }
}

/// What a reading is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Intent {
    /// It does not go beyond this byte.
    pub(super) end: u64,
    /// When its slices were captured.
    pub(super) at: Timestamp,
}

impl Checkpoint {
    /// The checkpoint of a file that was never read.
    #[must_use]
    pub fn new(file: &TranscriptFile, destination: &str) -> Self {
        let agent = file.agent.as_ref();
        Self {
            path: file.path.clone(),
            found_at: None,
            session_id: file.session_id.clone(),
            cwd: file.cwd.clone(),
            agent_id: agent.map(|agent| agent.id.clone()),
            agent_type: agent.and_then(|agent| agent.agent_type.clone()),
            destination: destination.to_owned(),
            imported: false,
            file: None,
            offset: 0,
            unknown: BTreeMap::new(),
            copied: 0,
            copies_over: false,
            has_sidechains: false,
            answers: Answers::default(),
            seen: None,
            intent: None,
            missing_since: None,
            trouble: None,
        }
    }

    /// Where it lies.
    #[must_use]
    pub fn place(&self) -> &str {
        self.found_at.as_deref().unwrap_or(&self.path)
    }

    /// The transcript as the events name it that told of it.
    pub(super) fn transcript(&self) -> TranscriptFile {
        let agent = |id: &String| TranscriptAgent {
            id: id.clone(),
            agent_type: self.agent_type.clone(),
            tool_use_id: None,
        };
        TranscriptFile {
            session_id: self.session_id.clone(),
            path: self.path.clone(),
            cwd: self.cwd.clone(),
            agent: self.agent_id.as_ref().map(agent),
            identity: String::new(),
        }
    }

    /// Makes the next reading begin with the first line.
    pub(super) fn rewind(&mut self) {
        (self.offset, self.file, self.seen, self.intent) = (0, None, None, None);
        self.unknown.clear();
        (self.copied, self.copies_over, self.has_sidechains) = (0, false, false);
        self.answers = Answers::default();
    }

    /// Counts lines of unknown types; they stand before the offset that is saved with the counts, so reading
    /// them again after a crash counts them once.
    pub(super) fn count_unknown(&mut self, lines: &BTreeMap<String, u64>) {
        for (line_type, lines) in lines {
            count_line_type(&mut self.unknown, line_type, *lines);
        }
    }

    /// Whether there is nothing at the path that was not read, for this destination.
    pub(super) fn is_done(&self, destination: &str) -> bool {
        let is_done = |found: fs::Metadata| {
            (found.is_file() && found.len() == 0) || self.seen == Some(Seen::of(&found))
        };
        let is_current = self.trouble.is_none() && self.destination == destination;
        is_current && fs::metadata(self.place()).is_ok_and(is_done)
    }
}

/// The checkpoints of a spool.
#[derive(Debug)]
pub(super) struct Checkpoints {
    dir: SpoolDir,
    written: AtomicU64,
}

impl Checkpoints {
    pub(super) fn new(dir: SpoolDir) -> Self {
        Self { dir, written: AtomicU64::new(0) }
    }

    /// The checkpoint of the transcript at `path`. One that cannot be read counts as none: the file is read
    /// again from its beginning.
    pub(super) fn load(&self, path: &str) -> io::Result<Option<Checkpoint>> {
        let found = read(&self.file_of(path))?;
        Ok(found.filter(|checkpoint| checkpoint.path == path))
    }

    /// Makes a checkpoint durable, in place of the one before.
    pub(super) fn save(&self, checkpoint: &Checkpoint) -> io::Result<()> {
        let target = self.file_of(&checkpoint.path);
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        // Not in `tmp/`, where a file that a crash leaves would be taken for an event.
        let temporary = target.with_extension(format!("{}-{number}", std::process::id()));
        let bytes = serde_json::to_vec(checkpoint)?;
        if bytes.len() > CHECKPOINT_MAX_BYTES {
            return Err(io::Error::other(format!("it has more than {CHECKPOINT_MAX_BYTES} bytes")));
        }
        let write = || replace_durably(&*self.dir.fs, &temporary, &target, &bytes);
        match write() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_directories(&*self.dir.fs, [&*self.dir.layout.transcripts()])?;
                write()
            }
            written => written,
        }
    }

    /// Locks the transcript at `path`; dropping the guard releases it. Two readings at once would push the same
    /// slices, and each could hide from the other that they are in the spool. `None` if another reading holds
    /// the lock and this one does not `wait`.
    pub(super) fn hold(&self, path: &str, wait: bool) -> io::Result<Option<Held>> {
        let path = self.file_of(path).with_extension(LOCK);
        loop {
            let lock = if wait { lock::lock(&path).map(Some) } else { lock::try_lock(&path) };
            match lock {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    create_directories(&*self.dir.fs, [&*self.dir.layout.transcripts()])?;
                }
                // The lock file that it waited for was removed on release.
                Ok(Some(file)) if wait && !lock::is_at(&file, &path) => {}
                lock => {
                    let fs = Arc::clone(&self.dir.fs);
                    return Ok(lock?.map(|file| Held { path, fs, _file: file }));
                }
            }
        }
    }

    pub(super) fn forget(&self, checkpoint: &Checkpoint) -> io::Result<()> {
        self.dir.fs.remove(&self.file_of(&checkpoint.path))
    }

    /// All checkpoints that can be read; removes what crashes have left.
    pub(super) fn all(&self) -> io::Result<Vec<Checkpoint>> {
        for path in paths(&self.dir.layout)?.iter().filter(|path| !is_checkpoint(path)) {
            let modified = path.metadata().and_then(|found| found.modified());
            let age = modified.ok().and_then(|modified| modified.elapsed().ok());
            let is_old = age.is_some_and(|age| age > LEFT_BEHIND);
            // A long reading holds its lock for longer.
            if is_old && let Ok(Some(_held)) = lock::try_lock(path) {
                self.dir.fs.remove(path).ok(); // it is tried again next time
            }
        }
        all(&self.dir.layout)
    }

    fn file_of(&self, path: &str) -> PathBuf {
        let mut name = Digest::of(path.as_bytes()).to_string();
        name.replace_range(.."sha256:".len(), "");
        name.truncate(32);
        self.dir.layout.transcripts().join(name + SUFFIX)
    }
}

/// A transcript that is being read; no longer when dropped.
#[derive(Debug)]
pub(super) struct Held {
    path: PathBuf,
    fs: Arc<dyn FileSystem>,
    _file: File,
}

impl Drop for Held {
    fn drop(&mut self) {
        // While it is locked, so that nobody has a lock on a file that is gone.
        self.fs.remove(&self.path).ok();
    }
}

/// The state of the transcripts that a spool knows of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Survey {
    /// How many files are followed.
    pub files: u64,
    /// How many bytes of them were not read yet.
    pub unread_bytes: u64,
    /// How many are gone.
    pub missing: u64,
    /// Those that could not be read, and why.
    pub troubles: Vec<(String, String)>,
    /// How many of their lines are of types that the version which read them did not know, by type.
    pub unknown_lines: BTreeMap<String, u64>,
}

/// Counts the transcripts that a spool knows of. It reads the checkpoints, and only the size of the files.
///
/// # Errors
///
/// The checkpoints cannot be listed.
pub fn survey(layout: &Layout) -> io::Result<Survey> {
    let mut survey = Survey::default();
    for checkpoint in all(layout)? {
        match fs::metadata(checkpoint.place()) {
            Ok(found) => {
                survey.files += 1;
                survey.unread_bytes += found.len().saturating_sub(checkpoint.offset);
            }
            Err(_) => survey.missing += 1,
        }
        for (line_type, lines) in &checkpoint.unknown {
            count_line_type(&mut survey.unknown_lines, line_type, *lines);
        }
        survey.troubles.extend(checkpoint.trouble.map(|trouble| (checkpoint.path, trouble)));
    }
    Ok(survey)
}

fn all(layout: &Layout) -> io::Result<Vec<Checkpoint>> {
    let paths = paths(layout)?.into_iter();
    Ok(paths
        .filter(|path| is_checkpoint(path))
        .filter_map(|path| read(&path).ok().flatten())
        .collect())
}

fn is_checkpoint(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(SUFFIX.as_bytes())
}

/// The files in the directory of the checkpoints, which may not be there.
fn paths(layout: &Layout) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(layout.transcripts()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => Ok(entries?.flatten().map(|entry| entry.path()).collect()),
    }
}

fn read(path: &Path) -> io::Result<Option<Checkpoint>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?.take(CHECKPOINT_MAX_BYTES as u64).read_to_end(&mut bytes)?,
    };
    let checkpoint = serde_json::from_slice(&bytes);
    if let Err(error) = &checkpoint {
        tracing::warn!(target: "arrakis::queue", path = %path.display(), %error,
            "it cannot be told how far a transcript was read; it is read again from its beginning");
    }
    Ok(checkpoint.ok())
}
