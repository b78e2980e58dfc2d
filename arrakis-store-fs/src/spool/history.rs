//! The failed rounds of an event: `attempts/<request id>.jsonl`, one failure a line.
//!
//! The file never moves, so that no crash can part it from its event. A line is durable before the
//! event moves on: a dead letter has its whole history after a power loss too.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::dead_letter::Failure;
use arrakis_core::base::id::RequestId;

use crate::spool::dir::SpoolDir;
use crate::spool::layout::{EntryName, Layout};

/// What of a history is read, in bytes: a thousand redrives with all their rounds.
const READ_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The ending of a history's file name.
pub(crate) const SUFFIX: &str = ".jsonl";

pub(crate) fn path(layout: &Layout, id: &RequestId) -> PathBuf {
    layout.attempts().join(format!("{id}{SUFFIX}"))
}

pub(crate) fn append(dir: &SpoolDir, id: &RequestId, failure: &Failure) -> io::Result<()> {
    let path = path(&dir.layout, id);
    let last = last_byte(&path)?;
    let mut line = Vec::new();
    // A line that a crash or a full disk has torn must not take this one with it.
    if last.is_some_and(|last| last != b'\n') {
        line.push(b'\n');
    }
    serde_json::to_writer(&mut line, failure)?;
    line.push(b'\n');
    dir.fs.append(&path, &line)?;
    if last.is_none() {
        dir.fs.sync_directory(&dir.layout.attempts())?;
    }
    Ok(())
}

/// The last byte of a file; `None` where it is empty or not there.
fn last_byte(path: &Path) -> io::Result<Option<u8>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut last = [0];
    match file.metadata()?.len() {
        0 => Ok(None),
        length => file.read_exact_at(&mut last, length - 1).map(|()| Some(last[0])),
    }
}

/// The failures, oldest first. A line that was torn is passed over.
pub(crate) fn read(layout: &Layout, id: &RequestId) -> Vec<Failure> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path(layout, id)) {
        // What could be read counts.
        file.take(READ_MAX_BYTES).read_to_end(&mut bytes).ok();
    }
    let lines = bytes.split(|byte| *byte == b'\n');
    lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// Writes the whole history of an event that comes from elsewhere, in place of any other.
pub(crate) fn replace(dir: &SpoolDir, id: &RequestId, history: &[Failure]) -> io::Result<()> {
    remove(dir, id);
    history.iter().try_for_each(|failure| append(dir, id, failure))
}

/// The failure of an event that has expired. The name says so, and it costs no file.
pub(crate) fn expiry(path: &Path, name: &EntryName) -> Option<Failure> {
    let moved = fs::symlink_metadata(path).map_or(0, |found| found.ctime());
    let at = Timestamp::from_millis(moved.saturating_mul(1000));
    name.is_expired().then(|| Failure::expired(at, name.rounds))
}

/// Forgets the history of an event that is gone. Most have none.
pub(crate) fn remove(dir: &SpoolDir, id: &RequestId) {
    dir.fs.remove(&path(&dir.layout, id)).ok();
}
