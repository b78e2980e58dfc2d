//! What drainers know about their receivers, kept from one to the next in `receivers.json`.
//!
//! The file is worth little: without it an outage is found out about anew. So one that cannot be read
//! is passed over. Several processes may write it: each puts only what it has learned itself into what the
//! others have written, under the lock of `receivers.lock`.

use std::fs::File;
use std::io::{self, Read};

use arrakis_core::base::limits::RECEIVERS_MAX;
use arrakis_core::delivery::receiver::{BreakerSnapshot, ReceiverHealth};

use crate::spool::dir::SpoolDir;
use crate::spool::durability::replace_durably;
use crate::spool::layout::Layout;
use crate::spool::lock::lock;

/// Longest file that is read: a hundred receivers with long names and long errors.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// What was saved last, or nothing; warns of a file that cannot be read.
#[must_use]
pub fn load(layout: &Layout) -> BreakerSnapshot {
    let path = layout.receivers();
    let read = || {
        let mut text = String::new();
        File::open(&path)?.take(FILE_MAX_BYTES).read_to_string(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    };
    read().unwrap_or_else(|error: io::Error| {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(target: "arrakis::queue", path = %path.display(), %error,
                "what was known about the receivers cannot be read and is forgotten");
        }
        BreakerSnapshot::default()
    })
}

/// Saves what is known about each receiver, but for those about which nothing was learned since `before`:
/// what the file says of these stays.
///
/// # Errors
///
/// The file cannot be written; it is as it was.
pub fn save(
    dir: &SpoolDir,
    snapshot: &BreakerSnapshot,
    before: &BreakerSnapshot,
) -> io::Result<()> {
    let path = dir.layout.receivers();
    // Where there are no locks, as on some network file systems, the last one wins.
    let _lock = lock(&path.with_extension("lock")).ok();
    let snapshot = merged(load(&dir.layout), snapshot, before);
    // Not in `tmp/`, where a file that a crash leaves would be taken for an event.
    let temporary = path.with_extension(format!("json.{}", std::process::id()));
    replace_durably(&*dir.fs, &temporary, &path, &serde_json::to_vec(&snapshot)?)
}

fn merged(
    file: BreakerSnapshot,
    snapshot: &BreakerSnapshot,
    before: &BreakerSnapshot,
) -> BreakerSnapshot {
    let is_new = |health: &&ReceiverHealth| {
        let known = find(before, &health.destination);
        let in_file = find(&file, &health.destination);
        in_file.is_none() || known.is_none_or(|known| learned(known) != learned(health))
    };
    let mut receivers: Vec<_> = snapshot.receivers.iter().filter(is_new).cloned().collect();
    for health in file.receivers {
        let is_ours = receivers.iter().any(|own| own.destination == health.destination);
        if !is_ours && receivers.len() < RECEIVERS_MAX {
            receivers.push(health);
        }
    }
    receivers.sort_by(|a, b| a.destination.cmp(&b.destination));
    BreakerSnapshot { receivers }
}

fn find<'a>(snapshot: &'a BreakerSnapshot, destination: &str) -> Option<&'a ReceiverHealth> {
    snapshot.receivers.iter().find(|health| health.destination == destination)
}

/// What only an attempt changes; the rest goes with the time.
fn learned(health: &ReceiverHealth) -> impl PartialEq + '_ {
    (health.state, health.since, health.failures_in_a_row, &health.last_failure)
}
