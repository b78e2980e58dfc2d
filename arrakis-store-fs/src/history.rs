//! The rounds that an event has lost: `attempts/<request id>.jsonl`, one failure a line.
//!
//! The file never moves, so that no crash can part it from its event.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use arrakis_core::clock::Timestamp;
use arrakis_core::id::RequestId;
use arrakis_core::queue::Failure;

use crate::layout::{EntryName, Layout};

pub(crate) fn path(layout: &Layout, id: &RequestId) -> PathBuf {
    layout.attempts().join(format!("{id}.jsonl"))
}

pub(crate) fn append(layout: &Layout, id: &RequestId, failure: &Failure) -> io::Result<()> {
    let mut line = serde_json::to_vec(failure)?;
    line.push(b'\n');
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path(layout, id))?.write_all(&line)
}

/// The failures, oldest first. A line that a crash has torn is passed over.
pub(crate) fn read(layout: &Layout, id: &RequestId) -> Vec<Failure> {
    let text = fs::read_to_string(path(layout, id)).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The failure of an event that has expired: it is told by the name, and costs no file.
pub(crate) fn expiry(path: &Path, name: &EntryName) -> Option<Failure> {
    let moved = fs::symlink_metadata(path).map_or(0, |found| found.ctime());
    let at = Timestamp::from_millis(moved.saturating_mul(1000));
    name.is_expired().then(|| Failure::expired(at, name.rounds))
}

/// Forgets the history of an event that is gone. Most have none.
pub(crate) fn remove(layout: &Layout, id: &RequestId) {
    fs::remove_file(path(layout, id)).ok();
}
