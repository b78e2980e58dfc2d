//! Looking at a whole spool: what is there, what was counted, and whether the two add up.
//!
//! The look reads no event and takes no lock, and a name at a time, so that it costs the same memory
//! whatever is there. A spool at work moves under it. A look that nothing moved under is exact; another is
//! taken again a few times, and then says by how many events it may be wrong: those that were counted as
//! coming or leaving during the look, and those that were leased before or after it, which it may have
//! seen in two places or in none.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::conservation::{Balance, Present, Receiver, Tally};
use uuid::Uuid;

use crate::spool::counters::{self, Counters};
use crate::spool::is_event;
use crate::spool::layout::{EntryName, Layout, REASON_SUFFIX};
use crate::spool::owner::{other_machine, this_machine};

/// How often a look is taken before it is content with a spool that moves.
const LOOKS: u32 = 3;

/// Changes of a directory this close together may bear the same time: a tick of the kernel is 1 to 10
/// ms.
const TICK: Duration = Duration::from_millis(20);

/// What a look has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Names the spool; `None` until a drainer has opened it.
    pub spool_id: Option<Uuid>,
    /// What was counted.
    pub tally: Tally,
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

/// Looks at the spool of `layout`.
///
/// # Errors
///
/// There is none, or it cannot be read.
pub fn look(layout: &Layout) -> io::Result<Look> {
    let mut looks = 0;
    let began = Instant::now();
    loop {
        looks += 1;
        let found = Glance::take(layout)?;
        // What has just moved seems to for a tick.
        let is_too_soon = found.is_fresh && began.elapsed() < TICK;
        if found.moved == 0 || looks == LOOKS || is_too_soon {
            let Glance { counters, present, oldest, moved, .. } = found;
            let Counters { spool_id, tally, redacted } = counters;
            let balance = tally.balance(&present, moved);
            let full = layout.full().exists();
            let elsewhere = elsewhere(layout)?;
            return Ok(Look {
                spool_id,
                tally,
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
    crate::queue::receivers::load(layout).receivers.into_iter().map(Into::into).collect()
}

struct Glance {
    counters: Counters,
    present: Present,
    oldest: Option<Timestamp>,
    /// How many events may have been seen twice, or not at all.
    moved: u64,
    /// Whether something changed so lately that a further change might not show.
    is_fresh: bool,
}

impl Glance {
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
        present.failed = count(&layout.failed(), is_event)?;
        present.quarantined = count(&layout.quarantine(), |entry| {
            !entry.file_name().as_encoded_bytes().ends_with(REASON_SUFFIX.as_bytes())
        })?;
        let after = counters::read(layout)?;
        let still = began.is_some() && changes(layout, &owners) == began && before == after;
        let moved = if still {
            0
        } else {
            // At least one: that something moved is known.
            (steps(&after.tally) - steps(&before.tally).min(steps(&after.tally))
                + leased_before
                + present.processing)
                .max(1)
        };
        Ok(Self { counters: after, present, oldest, moved, is_fresh: began.is_none() })
    }
}

/// How many events have come and left.
fn steps(tally: &Tally) -> u64 {
    let Tally { captured, unsure_captured, unsure_settled, .. } = tally;
    [captured, unsure_captured, unsure_settled, &tally.settled()].into_iter().sum()
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
    owners.iter().map(|owner| count(owner, is_event).unwrap_or(0)).sum()
}

fn elsewhere(layout: &Layout) -> io::Result<Vec<Elsewhere>> {
    let here = this_machine();
    let mut elsewhere = Vec::new();
    for owner in owners(layout)? {
        if let Some(machine) = other_machine(&owner, &here) {
            elsewhere.push(Elsewhere { machine, events: count(&owner, is_event).unwrap_or(0) });
        }
    }
    Ok(elsewhere)
}

fn count(directory: &Path, wanted: impl Fn(&DirEntry) -> bool) -> io::Result<u64> {
    Ok(fs::read_dir(directory)?.flatten().filter(wanted).count() as u64)
}

/// When the event of a file was captured: before its first lost round the due time; then what its id
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
