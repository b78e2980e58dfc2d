//! Inspecting a whole spool: what is there, what was counted, and whether the two add up.
//!
//! An inspection reads no event and takes no lock. It holds one name at a time, so its memory does not depend on the
//! spool. Drainers and hooks go on meanwhile, so it takes snapshots until nothing moved during one, a few times at
//! most. A snapshot during which nothing moved is exact. Any other says by how many events it may be wrong: those
//! that were counted as coming or leaving during it, and those that were leased before or after it, which it may
//! have seen in two places or in none.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::conservation::{Balance, Counters, Present, Receiver};
use uuid::Uuid;

use crate::spool::counters::{self, SpoolCounters};
use crate::spool::layout::{EntryName, Layout};
use crate::spool::owner::{other_machine, this_machine};
use crate::spool::{count_events, count_quarantined, is_event};

/// Most snapshots of one inspection; the last one counts, whether the spool moved or not.
const SNAPSHOTS: u32 = 3;

/// Changes of a directory this close together may bear the same time: a tick of the kernel is 1 to 10
/// ms.
const TICK: Duration = Duration::from_millis(20);

/// What an inspection found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Names the spool; `None` until a drainer has opened it.
    pub spool_id: Option<Uuid>,
    /// What was counted.
    pub counters: Counters,
    /// How many secrets redaction has removed from what was captured, by rule.
    pub redacted: BTreeMap<String, u64>,
    /// What is there.
    pub present: Present,
    /// Whether the two add up.
    pub balance: Balance,
    /// When the oldest event that waits was captured, where its name tells.
    pub oldest: Option<Timestamp>,
    /// Whether the spool refuses new events.
    pub full: bool,
    /// What drainers on other machines have leased. Nobody here takes it from them.
    pub elsewhere: Vec<Elsewhere>,
}

/// Events that a drainer on another machine has leased.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Elsewhere {
    /// The machine's id.
    pub machine: String,
    /// How many.
    pub events: u64,
}

/// Inspects the spool of `layout`.
///
/// # Errors
///
/// There is none, or it cannot be read.
pub fn inspect(layout: &Layout) -> io::Result<Inspection> {
    let mut snapshots = 0;
    let began = Instant::now();
    loop {
        snapshots += 1;
        let found = Snapshot::take(layout)?;
        // Within a tick of a change a snapshot cannot tell whether there was another.
        let is_too_soon = found.is_fresh && began.elapsed() < TICK;
        if found.moved == 0 || snapshots == SNAPSHOTS || is_too_soon {
            let Snapshot { counted, present, oldest, moved, .. } = found;
            let SpoolCounters { spool_id, counters, redacted } = counted;
            let balance = counters.balance(&present, moved);
            let full = layout.full().exists();
            let elsewhere = elsewhere(layout)?;
            return Ok(Inspection {
                spool_id,
                counters,
                redacted,
                present,
                balance,
                oldest,
                full,
                elsewhere,
            });
        }
    }
}

/// What the drainers of a spool know of their receivers; nothing where that cannot be read.
#[must_use]
pub fn receivers(layout: &Layout) -> Vec<Receiver> {
    crate::spool::receivers::load(layout).receivers.into_iter().map(Into::into).collect()
}

/// What is there and what was counted, as of one moment if nothing moved.
struct Snapshot {
    counted: SpoolCounters,
    present: Present,
    oldest: Option<Timestamp>,
    /// How many events may have been seen twice, or not at all.
    moved: u64,
    /// Whether something changed so lately that a further change might not show.
    is_fresh: bool,
}

impl Snapshot {
    fn take(layout: &Layout) -> io::Result<Self> {
        let owners_before = owners(layout)?;
        let began = changes(layout, &owners_before);
        let before = counters::read(layout)?;
        let leased_before = leased(&owners_before);
        let mut present = Present::default();
        let mut oldest = None;
        for entry in fs::read_dir(layout.pending())? {
            let entry = entry?;
            if is_event(&entry) {
                present.pending += 1;
                oldest = [oldest, captured_at(&entry)].into_iter().flatten().min();
            }
        }
        let owners = owners(layout)?;
        present.processing = leased(&owners);
        present.failed = count_events(&layout.failed())?;
        present.quarantined = count_quarantined(layout)?;
        let after = counters::read(layout)?;
        let still = began.is_some() && changes(layout, &owners) == began && before == after;
        let moved = if still {
            0
        } else {
            // At least one: that something moved is known.
            (steps(&after.counters) - steps(&before.counters).min(steps(&after.counters))
                + leased_before
                + present.processing)
                .max(1)
        };
        Ok(Self { counted: after, present, oldest, moved, is_fresh: began.is_none() })
    }
}

/// How many events have come and left.
fn steps(counters: &Counters) -> u64 {
    let Counters { captured, unsure_captured, unsure_settled, .. } = counters;
    [captured, unsure_captured, unsure_settled, &counters.settled()].into_iter().sum()
}

/// When each directory of events was last changed; `None` if one was changed so lately that a further
/// change might not show.
#[allow(clippy::disallowed_methods, reason = "compared with the times that the file system writes")]
fn changes(layout: &Layout, owners: &[PathBuf]) -> Option<Vec<(PathBuf, SystemTime)>> {
    let mut directories =
        vec![layout.pending(), layout.processing(), layout.failed(), layout.quarantine()];
    directories.extend_from_slice(owners);
    let now = SystemTime::now();
    let mut changes = Vec::with_capacity(directories.len());
    for directory in directories {
        let Ok(changed) = fs::metadata(&directory).and_then(|found| found.modified()) else {
            return None; // an owner that went meanwhile
        };
        let age = now.duration_since(changed).unwrap_or_else(|ahead| ahead.duration());
        if age < TICK {
            return None;
        }
        changes.push((directory, changed));
    }
    changes.sort();
    Some(changes)
}

fn owners(layout: &Layout) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(layout.processing())?.map(|entry| Ok(entry?.path())).collect()
}

fn leased(owners: &[PathBuf]) -> u64 {
    // An owner that goes meanwhile has nothing left to count.
    owners.iter().map(|owner| count_events(owner).unwrap_or(0)).sum()
}

fn elsewhere(layout: &Layout) -> io::Result<Vec<Elsewhere>> {
    let here = this_machine();
    let mut elsewhere = Vec::new();
    for owner in owners(layout)? {
        if let Some(machine) = other_machine(&owner, &here) {
            elsewhere.push(Elsewhere { machine, events: count_events(&owner).unwrap_or(0) });
        }
    }
    Ok(elsewhere)
}

/// When the event of a file was captured: before its first failed round the due time; then what its id
/// says, if it is one of ours.
fn captured_at(entry: &DirEntry) -> Option<Timestamp> {
    let name = EntryName::parse(entry.file_name().to_str()?)?;
    if name.rounds == 0 {
        return Some(name.due);
    }
    let (seconds, nanos) =
        Uuid::parse_str(name.request_id.as_str()).ok()?.get_timestamp()?.to_unix();
    let micros = i64::try_from(seconds).ok()?.checked_mul(1_000_000)?;
    Some(Timestamp::from_micros(micros + i64::from(nanos / 1000)))
}
