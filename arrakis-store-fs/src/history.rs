//! The rounds that an event has lost: `attempts/<request id>.jsonl`, one failure a line.
//!
//! The file never moves, so that no crash can part it from its event.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use arrakis_core::id::RequestId;
use arrakis_core::queue::Failure;

use crate::layout::Layout;

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

/// Forgets the history of an event that is gone. Most have none.
pub(crate) fn remove(layout: &Layout, id: &RequestId) {
    fs::remove_file(path(layout, id)).ok();
}
