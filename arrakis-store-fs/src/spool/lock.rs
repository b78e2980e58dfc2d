//! The lock that makes one drainer per spool.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::spool::layout::Layout;

/// Held by the one drainer of a spool; let go when dropped, or when its process ends however it does.
#[derive(Debug)]
pub struct DrainerLock {
    _file: File,
}

impl DrainerLock {
    /// Takes the lock; `None` if another process has it.
    ///
    /// # Errors
    ///
    /// The lock file cannot be opened.
    pub fn try_acquire(layout: &Layout) -> io::Result<Option<Self>> {
        let held = try_lock(&layout.drainer_lock())?;
        Ok(held.map(|file| Self { _file: file }))
    }
}

/// Whether a drainer holds the lock. Where that cannot be told the answer is no: a drainer too many
/// finds the lock taken and goes.
///
/// The check takes a shared lock for a moment, so that those who check do not take each other for a
/// drainer; a drainer that starts in that moment tries again.
#[must_use]
pub fn is_drainer_running(layout: &Layout) -> bool {
    let checked = open(&layout.drainer_lock()).map(|file| file.try_lock_shared());
    matches!(checked, Ok(Err(TryLockError::WouldBlock)))
}

/// Opens and locks a file; `None` if another process has it locked, or has removed it meanwhile.
pub(crate) fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(is_at(&file, path).then_some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether the open file is still the one at `path`.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let identity = |found: std::fs::Metadata| (found.dev(), found.ino());
    let there = path.symlink_metadata().map(identity);
    there.is_ok_and(|there| file.metadata().map(identity).is_ok_and(|open| open == there))
}

/// Opens and locks a file; waits while another process has it locked.
pub(crate) fn lock(path: &Path) -> io::Result<File> {
    let file = open(path)?;
    file.lock()?;
    Ok(file)
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    match options.open(path) {
        // A lock holds on a file system that cannot be written for now, too.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => File::open(path),
        opened => opened,
    }
}
