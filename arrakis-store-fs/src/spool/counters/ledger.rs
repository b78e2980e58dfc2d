//! The file that counts are folded into, and reading both.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use arrakis_core::base::conservation::{Balance, Counters, Present};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::removals;
use crate::spool::dir::SpoolDir;
use crate::spool::durability::replace_durably;
use crate::spool::layout::Layout;
use crate::spool::lock::{lock, try_lock};

/// Longest `tally` that is not folded, in bytes: some 16,000 events, read in a fraction of a
/// millisecond.
pub(super) const FOLD_BYTES: u64 = 64 * 1024;

/// Room that is set aside for `tally` beyond its end, in bytes, so that a full disk does not stop the
/// counting: twice what is folded, because folding waits for writers.
#[cfg(target_os = "linux")]
const ROOM_BYTES: i64 = 2 * FOLD_BYTES as i64;

/// How often reading begins anew because the counts were folded meanwhile.
const READS: u32 = 10;

/// The counts of a spool, and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolCounters {
    /// Names the spool; `None` until a drainer has opened it.
    pub spool_id: Option<Uuid>,
    /// The counts.
    pub counters: Counters,
    /// How many secrets redaction has removed from what was captured, by rule.
    pub redacted: BTreeMap<String, u64>,
}

/// `counters.json`.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ledger {
    spool_id: Uuid,
    /// The number of the last file that was folded.
    folded: u64,
    #[serde(flatten)]
    records: Records,
    found: u64,
    lost: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    redacted: BTreeMap<String, u64>,
}

/// How often each record was written.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Records {
    captures_begun: u64,
    captured: u64,
    captures_failed: u64,
    exits_begun: u64,
    delivered: u64,
    duplicate: u64,
    discarded: u64,
    exits_failed: u64,
    refused: u64,
    /// What is no record: a power loss can leave zeros where any of them was.
    unreadable: u64,
}

impl Records {
    fn add(&mut self, record: u8) {
        *match record {
            b'+' => &mut self.captures_begun,
            b'c' => &mut self.captured,
            b'-' => &mut self.captures_failed,
            b's' => &mut self.exits_begun,
            b'd' => &mut self.delivered,
            b'u' => &mut self.duplicate,
            b'x' => &mut self.discarded,
            b'n' => &mut self.exits_failed,
            b'r' => &mut self.refused,
            _ => &mut self.unreadable,
        } += 1;
    }

    fn exits(&self) -> u64 {
        self.delivered + self.duplicate + self.discarded
    }
}

impl Ledger {
    /// Adds what a tally says.
    fn add(&mut self, mut tally: &[u8]) {
        while let Some((&record, rest)) = tally.split_first() {
            tally = rest;
            if record == b'(' {
                tally = &rest[removals::read(rest, &mut self.redacted)..];
            } else {
                self.records.add(record);
            }
        }
    }

    fn counters(&self) -> Counters {
        let Records { captured, delivered, duplicate, discarded, refused, .. } = self.records;
        let unreadable = self.records.unreadable;
        let open = |begun: u64, ended| begun.saturating_add(unreadable).saturating_sub(ended);
        Counters {
            captured,
            delivered,
            duplicate,
            discarded,
            refused,
            unsure_captured: open(
                self.records.captures_begun,
                captured + self.records.captures_failed,
            ),
            unsure_settled: open(
                self.records.exits_begun,
                self.records.exits() + self.records.exits_failed,
            ),
            found: self.found,
            lost: self.lost,
        }
    }

    fn read(layout: &Layout) -> io::Result<Option<Self>> {
        let Some(bytes) = found(fs::read(layout.counters()))? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            let path = layout.counters();
            let text =
                format!("{}: {error}; remove it to count from nothing again", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }

    /// Writes the file anew, durably. The caller holds the lock.
    fn write(&self, dir: &SpoolDir) -> io::Result<()> {
        // Not in `tmp/`, where what a crash leaves would be taken for an event. The lock makes it ours.
        let counters = dir.layout.counters();
        let temporary = counters.with_extension("json.new");
        replace_durably(&*dir.fs, &temporary, &counters, &serde_json::to_vec(self)?)
    }
}

/// Reads the counts of a spool.
///
/// # Errors
///
/// A file of the counts cannot be read.
pub fn read(layout: &Layout) -> io::Result<SpoolCounters> {
    let mut reads = 0;
    loop {
        reads += 1;
        let ledger = Ledger::read(layout)?;
        let spool_id = ledger.as_ref().map(|ledger| ledger.spool_id);
        let mut ledger = ledger.unwrap_or_default();
        let folded = ledger.folded;
        let mut inode = None;
        if let Some(mut file) = found(File::open(layout.tally()))? {
            inode = Some(file.metadata()?.ino());
            let mut records = Vec::new();
            file.read_to_end(&mut records)?;
            ledger.add(&records);
        }
        if let Some(bytes) = found(fs::read(layout.folding(folded + 1)))? {
            ledger.add(&bytes);
        }
        // Nothing was renamed or folded between the first read and the last.
        let now = Ledger::read(layout)?.unwrap_or_default().folded;
        let same_file = found(fs::metadata(layout.tally()))?.map(|file| file.ino()) == inode;
        if (now == folded && same_file) || reads == READS {
            return Ok(SpoolCounters {
                spool_id,
                counters: ledger.counters(),
                redacted: ledger.redacted,
            });
        }
    }
}

/// Makes sure that the spool has a name and room for its counts, and folds what is long.
///
/// # Errors
///
/// A file of the counts cannot be read or written.
pub fn open(dir: &SpoolDir) -> io::Result<()> {
    let layout = &dir.layout;
    let Some(_lock) = try_lock(&layout.counters_lock())? else { return Ok(()) };
    if Ledger::read(layout)?.is_none() {
        Ledger { spool_id: Uuid::now_v7(), ..Ledger::default() }.write(dir)?;
    }
    set_room_aside(layout)?;
    fold(dir)
}

/// Takes the difference between the counts and what is there as explained, and what is unsure as decided,
/// so that the counts add up from now on; returns what they did before. For a spool that is at rest: what
/// moves meanwhile is taken for a difference.
///
/// # Errors
///
/// The counts cannot be read or written.
pub fn accept(dir: &SpoolDir, present: &Present) -> io::Result<Balance> {
    let layout = &dir.layout;
    // Held for moments only, by a drainer that starts or folds.
    let _lock = lock(&layout.counters_lock())?;
    let counters = read(layout)?.counters;
    let mut ledger = Ledger::read(layout)?
        .unwrap_or_else(|| Ledger { spool_id: Uuid::now_v7(), ..Ledger::default() });
    let came = counters.captured + counters.found;
    let accounted = counters.settled() + present.total();
    ledger.lost += came.saturating_sub(accounted);
    ledger.found += accounted.saturating_sub(came);
    // Whatever was unsure, it is part of that difference now.
    ledger.records.captures_failed += counters.unsure_captured;
    ledger.records.exits_failed += counters.unsure_settled;
    ledger.write(dir)?;
    Ok(counters.balance(present, 0))
}

/// Folds the tally if it is long, unless somebody else does.
#[cfg(feature = "queue")]
pub(crate) fn fold_if_long(dir: &SpoolDir) -> io::Result<()> {
    let layout = &dir.layout;
    if found(fs::metadata(layout.tally()))?.is_none_or(|file| file.len() < FOLD_BYTES) {
        return Ok(());
    }
    let Some(_lock) = try_lock(&layout.counters_lock())? else { return Ok(()) };
    fold(dir)
}

/// Folds what is to be folded. The caller holds the lock.
fn fold(dir: &SpoolDir) -> io::Result<()> {
    let layout = &dir.layout;
    let Some(mut ledger) = Ledger::read(layout)? else { return Ok(()) };
    // Left by a crash after it was counted.
    found(dir.fs.remove(&layout.folding(ledger.folded)))?;
    let folding = layout.folding(ledger.folded + 1);
    if found(fs::metadata(&folding))?.is_none() {
        let long = found(fs::metadata(layout.tally()))?.is_some_and(|f| f.len() >= FOLD_BYTES);
        if !long {
            return Ok(());
        }
        dir.fs.rename(&layout.tally(), &folding)?;
        set_room_aside(layout)?;
    }
    let file = OpenOptions::new().read(true).write(true).open(&folding)?;
    match file.try_lock() {
        Ok(()) => {}
        // Somebody still writes to it: the next time.
        Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    ledger.add(&fs::read(&folding)?);
    ledger.folded += 1;
    ledger.write(dir)?;
    dir.fs.remove(&folding)
}

/// Preallocates room for the records to come.
fn set_room_aside(layout: &Layout) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.append(true).create(true).mode(0o600).open(layout.tally())?;
    #[cfg(target_os = "linux")]
    {
        use nix::fcntl::{FallocateFlags, fallocate};
        // Not every file system can; then a full disk may cost counts.
        fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, ROOM_BYTES).ok();
    }
    drop(file);
    Ok(())
}

/// `None` for what is not there.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
