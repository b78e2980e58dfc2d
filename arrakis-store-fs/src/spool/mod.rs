//! The spool directory: its format, its parts, and capturing an event into it. The synchronous half is what the
//! hook links.

pub mod capacity;
#[cfg(feature = "queue")]
mod contents;
pub mod counters;
pub mod dir;
pub mod durability;
#[cfg(feature = "queue")]
pub(crate) mod file;
pub mod format;
#[cfg(feature = "queue")]
pub(crate) mod history;
pub mod layout;
pub mod lock;
#[cfg(feature = "queue")]
pub(crate) mod owner;
#[cfg(feature = "queue")]
pub(crate) mod quarantine;
#[cfg(feature = "queue")]
pub mod receivers;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use arrakis_core::base::envelope::Envelope;

#[cfg(feature = "queue")]
pub use contents::{Survey, is_idle, is_leased, survey};
#[cfg(feature = "queue")]
pub(crate) use contents::{count_events, count_quarantined, find, is_event};

use crate::spool::counters::Recorder;
use crate::spool::dir::SpoolDir;
use crate::spool::durability::{create_directories, write_durably};
use crate::spool::format::{Unreadable, encode_header};
use crate::spool::layout::{EntryName, Layout};

/// Most files of one event and process number that crashes leave in `tmp/` before they are swept.
const LEFT_BEHIND_MAX: u32 = 1000;

/// A spool directory to put events into. Making one costs nothing; the directories are created when
/// they turn out to be missing.
#[derive(Debug, Clone)]
pub struct Spool {
    dir: SpoolDir,
    /// Whether the reserve may be used.
    may_use_reserve: bool,
}

/// An event could not be captured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// The spool holds as much as it may. Events wait for a receiver that is away; bring it back, or
    /// raise the limits in `config.toml`.
    #[error("the spool {} is full; bring its receiver back or raise [spool] max_files and max_bytes", .0.display())]
    Full(PathBuf),
    /// The event cannot be written in the spool's format.
    #[error("the event cannot be written: {0}")]
    Format(Unreadable),
    /// The file system failed.
    #[error("cannot write {}", .path.display())]
    Io {
        /// The file that was written.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

impl Spool {
    /// The spool in `dir`.
    #[must_use]
    pub fn new(dir: impl Into<SpoolDir>) -> Self {
        Self { dir: dir.into(), may_use_reserve: true }
    }

    /// The same, leaving the reserve to those whose events come once.
    #[cfg(feature = "queue")]
    pub(crate) fn without_reserve(self) -> Self {
        Self { may_use_reserve: false, ..self }
    }

    /// The paths.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.dir.layout
    }

    /// Writes an event durably into `pending/`, and counts it.
    ///
    /// # Errors
    ///
    /// The event is not known to be durable here.
    pub fn capture(&self, envelope: &Envelope) -> Result<PathBuf, SpoolError> {
        capacity::check_not_full(&self.dir.layout)?;
        self.write(envelope)
    }

    /// How many events were captured here; nothing where that cannot be read.
    #[must_use]
    pub fn captured(&self) -> u64 {
        counters::read(&self.dir.layout).map_or(0, |found| found.counters.captured)
    }

    /// Asks a running drainer to try everything that waits, now.
    ///
    /// # Errors
    ///
    /// The request cannot be written.
    pub fn poke(&self) -> io::Result<()> {
        self.dir.fs.write(&self.dir.layout.poke(), b"")
    }

    /// Creates the directories.
    ///
    /// # Errors
    ///
    /// One of them cannot be created.
    pub fn create(&self) -> Result<(), SpoolError> {
        let directories = self.dir.layout.directories();
        create_directories(&*self.dir.fs, directories.iter().map(PathBuf::as_path))
            .map_err(|source| SpoolError::Io { path: self.dir.layout.queue(), source })
    }

    /// Sets space aside for a full disk, unless that is done already. Not for the hook: it is slow.
    ///
    /// # Errors
    ///
    /// There is no space to set aside, or the file cannot be written.
    pub fn reserve(&self) -> io::Result<()> {
        capacity::set_reserve_aside(&self.dir)
    }

    /// Captures an event unless it is in the spool already.
    ///
    /// # Errors
    ///
    /// The event is not known to be durable here.
    #[cfg(feature = "queue")]
    pub fn push(&self, envelope: &Envelope) -> Result<(), SpoolError> {
        capacity::check_not_full(&self.dir.layout)?;
        if self.knows(envelope) { Ok(()) } else { self.write(envelope).map(drop) }
    }

    /// Whether the event is in the spool already. A name of its own would be taken for another event once
    /// the first has failed a round, so its history counts too.
    #[cfg(feature = "queue")]
    fn knows(&self, envelope: &Envelope) -> bool {
        let layout = &self.dir.layout;
        let name = EntryName::of(&envelope.header).to_string();
        let owners = fs::read_dir(layout.processing()).into_iter().flatten().flatten();
        layout.pending().join(&name).exists()
            || history::path(layout, envelope.request_id()).exists()
            || owners.map(|owner| owner.path().join(&name)).any(|path| path.exists())
    }

    /// Writes an event durably into `pending/`, and counts it.
    fn write(&self, envelope: &Envelope) -> Result<PathBuf, SpoolError> {
        // After a failure the file may have appeared all the same.
        let is_there = |error: &SpoolError| match error {
            SpoolError::Io { path, .. } => path.exists(),
            _ => false,
        };
        Recorder::new(&self.dir.layout)
            .with_removed(&envelope.header.redacted)
            .capture(|| self.write_uncounted(envelope), is_there)
    }

    fn write_uncounted(&self, envelope: &Envelope) -> Result<PathBuf, SpoolError> {
        let header = encode_header(envelope).map_err(SpoolError::Format)?;
        let target = self.dir.layout.pending().join(EntryName::of(&envelope.header).to_string());
        let (mut attempt, mut failures) = (0, 0);
        loop {
            // A new name for each attempt: never a file whose fsync has failed. One of its own for each
            // process, since a slice of a transcript has the same id in all.
            let name = format!("{}.{}.{attempt}", envelope.request_id(), std::process::id());
            let temporary = self.dir.layout.tmp().join(name);
            let parts: [&[u8]; 2] = [&header, &envelope.payload];
            let source = match write_durably(&*self.dir.fs, &temporary, &target, &parts) {
                Ok(()) => return Ok(target),
                Err(error) => error,
            };
            attempt += 1;
            // A process of the same number is at it, or has died here; its file is swept later.
            if source.kind() == io::ErrorKind::AlreadyExists && attempt < LEFT_BEHIND_MAX {
                continue;
            }
            failures += 1;
            if failures > 2 || !self.fix(&source) {
                return Err(SpoolError::Io { path: target, source });
            }
        }
    }

    /// Does what can be done about a failed write; says whether to try again.
    fn fix(&self, error: &io::Error) -> bool {
        match error.kind() {
            io::ErrorKind::NotFound => self.create().is_ok(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                self.may_use_reserve && self.dir.fs.remove(&self.dir.layout.reserve()).is_ok()
            }
            io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotADirectory => false,
            _ => true,
        }
    }
}

/// Whether `directory` may hold events of this user: a real directory, its own, closed to others.
///
/// # Errors
///
/// It is not, and why.
pub fn check_private(directory: &Path, uid: u32) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;

    let found = fs::symlink_metadata(directory)
        .map_err(|error| format!("{}: {error}", directory.display()))?;
    let problem = if !found.is_dir() {
        "is not a directory"
    } else if found.uid() != uid {
        "belongs to another user"
    } else if found.mode() & 0o077 != 0 {
        "is open to other users"
    } else {
        return Ok(());
    };
    Err(format!("{} {problem}", directory.display()))
}
