//! Capturing an event: the synchronous side of the spool, which the hook links.

pub mod counters;
pub mod durability;
#[cfg(feature = "queue")]
pub(crate) mod history;
pub mod layout;
pub mod lock;
#[cfg(feature = "queue")]
pub(crate) mod owner;
#[cfg(feature = "queue")]
pub(crate) mod quarantine;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::envelope::Envelope;
use arrakis_core::base::id::RequestId;

use crate::spool::counters::Tallying;
use crate::spool::durability::{FileSystem, RealFileSystem, create_directories, write_durably};
use crate::spool::layout::{
    EVENT_SUFFIX, EntryName, Layout, REASON_SUFFIX, Unreadable, encode_header,
};

/// Space that is set aside for the moment when the disk is full: room for a few hundred events of
/// usual size, or two large ones.
pub const RESERVE_BYTES: usize = 4 * 1024 * 1024;

/// Most files of one event and process number that crashes leave in `tmp/` before they are swept.
const LEFT_BEHIND_MAX: u32 = 1000;

/// A spool directory to put events into. Making one costs nothing; the directories are created when
/// they turn out to be missing.
#[derive(Debug, Clone)]
pub struct Spool {
    layout: Layout,
    fs: Arc<dyn FileSystem>,
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
    /// The spool of `layout` on the machine's own file system.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self::with_file_system(layout, Arc::new(RealFileSystem))
    }

    /// The spool of `layout` on another file system.
    #[must_use]
    pub fn with_file_system(layout: Layout, fs: Arc<dyn FileSystem>) -> Self {
        Self { layout, fs, may_use_reserve: true }
    }

    /// The same, leaving the reserve to those whose events come once.
    #[cfg(feature = "queue")]
    pub(crate) fn without_reserve(self) -> Self {
        Self { may_use_reserve: false, ..self }
    }

    /// The paths.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Writes an event durably into `pending/`, and counts it.
    ///
    /// # Errors
    ///
    /// The event is not known to be durable here.
    pub fn capture(&self, envelope: &Envelope) -> Result<PathBuf, SpoolError> {
        if self.layout.full().exists() {
            return Err(SpoolError::Full(self.layout.queue()));
        }
        self.write(envelope)
    }

    /// How many events were captured here; nothing where that cannot be read.
    #[must_use]
    pub fn captured(&self) -> u64 {
        counters::read(&self.layout).map_or(0, |counters| counters.tally.captured)
    }

    /// Asks a running drainer to try everything that waits, now.
    ///
    /// # Errors
    ///
    /// The request cannot be written.
    pub fn poke(&self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).open(self.layout.poke())?;
        Ok(())
    }

    /// Creates the directories.
    ///
    /// # Errors
    ///
    /// One of them cannot be created.
    pub fn create(&self) -> Result<(), SpoolError> {
        let directories = self.layout.directories();
        create_directories(&*self.fs, directories.iter().map(PathBuf::as_path))
            .map_err(|source| SpoolError::Io { path: self.layout.queue(), source })
    }

    /// Sets space aside for a full disk, unless that is done already. Not for the hook: it is slow.
    ///
    /// # Errors
    ///
    /// There is no space to set aside, or the file cannot be written.
    pub fn reserve(&self) -> io::Result<()> {
        let path = self.layout.reserve();
        let size = fs::metadata(&path).map_or(0, |file| file.len());
        if size == RESERVE_BYTES as u64 {
            return Ok(());
        }
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        // Written out, not allocated sparsely: some file systems only promise what was written.
        let written = file.write_all(&vec![0; RESERVE_BYTES]).and_then(|()| file.sync_all());
        if written.is_err() {
            fs::remove_file(&path).ok();
        }
        written
    }

    /// Writes an event durably into `pending/`, and counts it.
    pub(crate) fn write(&self, envelope: &Envelope) -> Result<PathBuf, SpoolError> {
        // After a failure the file may have appeared all the same.
        let is_there = |error: &SpoolError| match error {
            SpoolError::Io { path, .. } => path.exists(),
            _ => false,
        };
        Tallying::new(&self.layout)
            .with_removed(&envelope.header.redacted)
            .capture(|| self.write_uncounted(envelope), is_there)
    }

    fn write_uncounted(&self, envelope: &Envelope) -> Result<PathBuf, SpoolError> {
        let header = encode_header(envelope).map_err(SpoolError::Format)?;
        let target = self.layout.pending().join(EntryName::of(&envelope.header).to_string());
        let (mut attempt, mut failures) = (0, 0);
        loop {
            // A new name for each attempt: never a file whose fsync has failed. One of its own for each
            // process, since a slice of a transcript has the same id in all.
            let name = format!("{}.{}.{attempt}", envelope.request_id(), std::process::id());
            let temporary = self.layout.tmp().join(name);
            let parts: [&[u8]; 2] = [&header, &envelope.payload];
            let source = match write_durably(&*self.fs, &temporary, &target, &parts) {
                Ok(()) => return Ok(target),
                Err(error) => error,
            };
            attempt += 1;
            // A process of the same number is at it, or has died here; its file is swept later.
            if source.kind() == io::ErrorKind::AlreadyExists && attempt < LEFT_BEHIND_MAX {
                continue;
            }
            failures += 1;
            if failures > 2 || !self.mend(&source) {
                return Err(SpoolError::Io { path: target, source });
            }
        }
    }

    /// Does what can be done about a failed write; says whether to try again.
    fn mend(&self, error: &io::Error) -> bool {
        match error.kind() {
            io::ErrorKind::NotFound => self.create().is_ok(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                self.may_use_reserve && self.fs.remove(&self.layout.reserve()).is_ok()
            }
            io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotADirectory => false,
            _ => true,
        }
    }
}

/// What is in a spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Survey {
    /// Events that wait.
    pub pending: u64,
    /// Events that drainers have leased.
    pub processing: u64,
    /// Dead letters.
    pub failed: u64,
    /// Entries that could not be read.
    pub quarantined: u64,
    /// Size of the events that wait.
    pub pending_bytes: u64,
    /// When the oldest event that waits was captured, where its name still tells.
    pub oldest: Option<Timestamp>,
}

/// Counts what is in a spool by its names. It reads no event and takes no lock.
///
/// # Errors
///
/// A directory cannot be read.
pub fn survey(layout: &Layout) -> io::Result<Survey> {
    let mut survey = Survey::default();
    for entry in fs::read_dir(layout.pending())? {
        let entry = entry?;
        if !is_event(&entry) {
            continue;
        }
        survey.pending += 1;
        // One that is leased meanwhile has no size any more.
        survey.pending_bytes += entry.metadata().map_or(0, |found| found.len());
        let name = entry.file_name();
        let first_round = name.to_str().and_then(EntryName::parse).filter(|name| name.rounds == 0);
        if let Some(EntryName { due, .. }) = first_round {
            survey.oldest = Some(survey.oldest.map_or(due, |oldest| oldest.min(due)));
        }
    }
    for owner in fs::read_dir(layout.processing())? {
        // An owner that goes meanwhile has nothing left to count.
        survey.processing += count(&owner?.path(), is_event).unwrap_or(0);
    }
    survey.failed = count(&layout.failed(), is_event)?;
    survey.quarantined = count(&layout.quarantine(), |entry| {
        !entry.file_name().as_encoded_bytes().ends_with(REASON_SUFFIX.as_bytes())
    })?;
    Ok(survey)
}

/// Whether some drainer has leased this event.
///
/// # Errors
///
/// The spool cannot be read.
pub fn is_leased(layout: &Layout, id: &RequestId) -> io::Result<bool> {
    for owner in fs::read_dir(layout.processing())? {
        // An owner that goes meanwhile has nothing left.
        for entry in fs::read_dir(owner?.path()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let named = name.to_str().and_then(EntryName::parse);
            if named.is_some_and(|name| name.request_id == *id) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

pub(crate) fn is_event(entry: &fs::DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().ends_with(EVENT_SUFFIX.as_bytes())
}

fn count(directory: &Path, wanted: impl Fn(&fs::DirEntry) -> bool) -> io::Result<u64> {
    Ok(fs::read_dir(directory)?.flatten().filter(wanted).count() as u64)
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
