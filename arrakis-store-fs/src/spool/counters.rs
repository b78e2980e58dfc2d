//! Counting what becomes of the events of a spool, so that it survives every process.
//!
//! `queue/tally` is appended to by whoever does something, one record a step. An append is one `write` to a
//! file opened for appending, so processes do not tear each other's records, and it is never fsynced:
//!
//! | record | means | written |
//! |---|---|---|
//! | `+` | a capture begins | before the file appears in `pending/` |
//! | `c` | it is captured | after the directory was fsynced |
//! | `-` | it came to nothing | after the failure |
//! | `s` | an event is about to leave | before its file is removed |
//! | `d` | it was delivered | after |
//! | `u` | the receiver had it before | after |
//! | `x` | a person gave it up | after |
//! | `n` | it could not be removed | after |
//! | `r` | an event was refused | when it is |
//! | `(…)` | redaction has removed so much from it, as in `(github-token=2,jwt=1)` | with its `c` |
//!
//! Every step stands between two records, so a process that is killed leaves one `+` or `s` without an end:
//! the count is then known to within one, and that it is. A step whose records cannot be written, as on a
//! full disk, is done all the same. A power loss takes the records of the last seconds with it.
//!
//! `queue/counters.json` holds what was folded. When `tally` is long, a drainer renames it to
//! `tally.<n>`, adds it up, and writes `counters.json` anew with that `n`, durably, before it removes the
//! file: whatever a crash leaves, a file whose number is not above the one in `counters.json` is counted
//! already. Writers hold a shared lock on the file that they have open, and what is locked is not folded;
//! a writer that got its lock too late sees that the file is not `tally` any more, and opens it anew.

mod ledger;
mod removals;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use crate::spool::layout::Layout;

#[cfg(feature = "queue")]
pub(crate) use ledger::fold_if_long;
pub use ledger::{SpoolCounters, accept, open, read};

use arrakis_core::base::envelope::Removed;

/// How an event leaves the spool for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "queue"), allow(dead_code, reason = "in the hook nothing leaves"))]
pub(crate) enum Exit {
    /// A receiver has stored it.
    Delivered,
    /// A receiver had it before.
    Duplicate,
    /// A person gave it up.
    Discarded,
}

/// How often `tally` is opened anew because it was renamed meanwhile, before it is given up.
const OPENINGS: u32 = 8;

/// Records on their way into `tally`.
#[derive(Debug)]
pub(crate) struct Recorder<'a> {
    layout: &'a Layout,
    file: Option<File>,
    /// What could not be written yet.
    records: Vec<u8>,
    /// What redaction has removed from the event that is captured.
    removed: Vec<u8>,
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(layout: &'a Layout) -> Self {
        Self { layout, file: None, records: Vec::new(), removed: Vec::new() }
    }

    /// Counts also what redaction has removed from the event, once it is captured.
    pub(crate) fn with_removed(mut self, removed: &Removed) -> Self {
        self.removed = removals::encode(removed);
        self
    }

    /// Does `work`, which captures an event; `is_there` tells after a failure whether its file has
    /// appeared all the same.
    pub(crate) fn capture<T, E>(
        mut self,
        work: impl FnOnce() -> Result<T, E>,
        is_there: impl FnOnce(&E) -> bool,
    ) -> Result<T, E> {
        self.begin(b'+');
        let done = work();
        let captured = done.as_ref().map_or_else(is_there, |_| true);
        self.records.push(if captured { b'c' } else { b'-' });
        if captured {
            self.records.append(&mut self.removed);
        }
        done
    }

    /// Does `work`, which removes an event's file.
    #[cfg(feature = "queue")]
    pub(crate) fn leave(
        &mut self,
        exit: Exit,
        work: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        self.begin(b's');
        let done = work();
        self.records.push(match (&done, exit) {
            (Err(_), _) => b'n',
            (Ok(()), Exit::Delivered) => b'd',
            (Ok(()), Exit::Duplicate) => b'u',
            (Ok(()), Exit::Discarded) => b'x',
        });
        done
    }

    /// Writes the end of the step before and the beginning of this one, in one call.
    fn begin(&mut self, record: u8) {
        self.records.push(record);
        // What cannot be written now may find room later.
        self.flush().ok();
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(appendable(self.layout)?);
        }
        while let Some(file) = self.file.as_mut().filter(|_| !self.records.is_empty()) {
            let written = file.write(&self.records)?;
            self.records.drain(..written);
        }
        Ok(())
    }
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        // The events matter more than their count; status tells when it does not add up.
        self.flush().ok();
    }
}

/// Counts an event that could not be kept, nor anywhere else.
///
/// # Errors
///
/// It is not counted.
pub fn count_refused(layout: &Layout) -> io::Result<()> {
    let mut recorder = Recorder::new(layout);
    recorder.records.push(b'r');
    recorder.flush()
}

/// Opens `tally` so that it is not folded before it is closed.
fn appendable(layout: &Layout) -> io::Result<File> {
    let path = layout.tally();
    for _ in 0..OPENINGS {
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).mode(0o600).open(&path)?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => continue, // it is being folded: there is a new one
            // Without locks, as on some network file systems, nothing is folded either.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let opened = file.metadata()?.ino();
        if fs::metadata(&path).is_ok_and(|found| found.ino() == opened) {
            return Ok(file);
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}
