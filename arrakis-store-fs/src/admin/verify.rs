//! Searching a whole spool for damage.

use std::io;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use crate::admin::entry::{Entry, Filter, Found, State, entries};
use crate::spool::Survey;
use crate::spool::format::{FILE_MAX_BYTES, Unreadable};
use crate::spool::layout::{EntryName, Layout};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What sort of thing.
    pub kind: Kind,
    /// Where.
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// What is wrong, as the end of a sentence that begins with the path.
    pub problem: String,
    /// What was done about it; none where nothing was.
    pub remedy: Option<String>,
}

/// What sort of thing is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// An entry that is not a whole, undamaged event.
    Damaged,
    /// An event whose file name does not fit its header.
    Misnamed,
    /// An entry or a directory that the file system does not let read.
    Unread,
    /// A directory that is not there.
    MissingDirectory,
    /// Events that are leased by drainers that are dead.
    Orphaned,
    /// A file that a writer has left in `tmp/`.
    Unfinished,
    /// A history whose event is gone.
    LostHistory,
    /// An entry in quarantine without a reason, or a reason without an entry.
    LostReason,
    /// The flag that refuses new events, though there is room.
    StaleFlag,
}

/// One step on the way through a spool.
#[derive(Debug)]
pub enum Step {
    /// One more entry was checked.
    Entry,
    /// Something is not as it should be.
    Finding(Finding),
}

impl Finding {
    pub(crate) fn new(kind: Kind, path: impl Into<PathBuf>, problem: impl ToString) -> Self {
        Self { kind, path: path.into(), problem: problem.to_string(), remedy: None }
    }

    pub(crate) fn remedied(self, remedy: impl ToString) -> Self {
        Self { remedy: Some(remedy.to_string()), ..self }
    }
}

/// Reads every entry that matches and may be delivered, and checks its header, length, digest and name;
/// counts what is there. It changes nothing, and what drainers move meanwhile is no finding.
///
/// What is in quarantine is counted only: its damage is known.
pub fn verify(layout: &Layout, filter: &Filter, mut tell: impl FnMut(Step)) -> Survey {
    let missing = layout.directories().into_iter().filter(|directory| !directory.is_dir());
    for directory in missing {
        tell(Step::Finding(Finding::new(Kind::MissingDirectory, directory, "is not there")));
    }
    let mut survey = Survey::default();
    for entry in entries(layout, filter) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                tell(Step::Finding(Finding::new(Kind::Unread, layout.queue(), error)));
                continue;
            }
        };
        tell(Step::Entry);
        if entry.state == State::Quarantined {
            survey.quarantined += 1;
            continue;
        }
        let finding = match check(&entry) {
            Ok(Check::Gone) => continue,
            Ok(Check::Sound { bytes }) => {
                survey.pending_bytes += if entry.state == State::Pending { bytes } else { 0 };
                None
            }
            Ok(Check::Damaged(reason)) => Some((Kind::Damaged, reason.0)),
            Ok(Check::Misnamed(right)) => {
                Some((Kind::Misnamed, format!("should be called {right}")))
            }
            Err(error) => Some((Kind::Unread, error.to_string())),
        };
        match entry.state {
            State::Pending => survey.pending += 1,
            State::Processing => survey.processing += 1,
            State::Failed | State::Quarantined => survey.failed += 1,
        }
        if let Some((kind, problem)) = finding {
            tell(Step::Finding(Finding::new(kind, entry.path, problem)));
        }
    }
    survey
}

/// What an entry is.
pub(crate) enum Check {
    /// A whole event under its right name.
    Sound {
        /// Its size on the disk.
        bytes: u64,
    },
    /// No event.
    Damaged(Unreadable),
    /// An event that should have this name.
    Misnamed(EntryName),
    /// Not there any more.
    Gone,
}

pub(crate) fn check(entry: &Entry) -> io::Result<Check> {
    let envelope = match entry.read()? {
        Found::Whole(envelope) => envelope,
        Found::Unreadable(reason) => return Ok(Check::Damaged(reason)),
        Found::Gone => return Ok(Check::Gone),
    };
    let right = match &entry.named {
        Some(EntryName { due, rounds, .. }) => {
            EntryName { due: *due, rounds: *rounds, ..EntryName::of(&envelope.header) }
        }
        None => EntryName::of(&envelope.header),
    };
    if entry.file_name() == right.to_string() {
        let bytes = entry.path.symlink_metadata().map_or(0, |found| found.len());
        Ok(Check::Sound { bytes: bytes.min(FILE_MAX_BYTES) })
    } else {
        Ok(Check::Misnamed(right))
    }
}

fn as_text<S: Serializer>(path: &std::path::Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}
