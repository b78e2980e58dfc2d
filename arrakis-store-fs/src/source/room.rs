//! How much transcripts may add to the spool: half of what it may hold. The rest is for events, which cannot be
//! read again.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::spool::capacity::SpoolLimits;
use crate::spool::layout::Layout;
use crate::spool::survey;

/// How long a count of the spool is relied on: in this time hooks do not fill the half of it that is theirs.
const MAX_AGE: Duration = Duration::from_secs(60);

/// What transcripts may still add, as it was counted last.
#[derive(Debug, Default)]
pub(super) struct Room(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    at: Option<Instant>,
    files: u64,
    bytes: u64,
}

impl Room {
    /// Takes room for a slice of so many bytes; counts the spool anew where that was not enough.
    ///
    /// # Errors
    ///
    /// Half of the spool is taken. The error is the spool's directory.
    pub(super) fn take(
        &self,
        layout: &Layout,
        limits: SpoolLimits,
        bytes: u64,
    ) -> Result<(), PathBuf> {
        let mut counted = self.0.lock();
        if counted.take(bytes) {
            return Ok(());
        }
        // A spool that is not there yet is empty.
        let found = survey(layout).unwrap_or_default();
        let files = found.pending + found.processing;
        *counted = Counted {
            at: Some(Instant::now()),
            files: (limits.max_files / 2).saturating_sub(files),
            bytes: (limits.max_bytes / 2).saturating_sub(found.pending_bytes),
        };
        if counted.take(bytes) { Ok(()) } else { Err(layout.queue()) }
    }
}

impl Counted {
    /// Takes so much of it, unless there is less, or it was counted too long ago.
    fn take(&mut self, bytes: u64) -> bool {
        let is_recent = self.at.is_some_and(|at| at.elapsed() < MAX_AGE);
        let fits = is_recent && self.files > 0 && self.bytes >= bytes;
        if fits {
            (self.files, self.bytes) = (self.files - 1, self.bytes - bytes);
        }
        fits
    }
}
