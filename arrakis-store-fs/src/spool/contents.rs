//! What is in a spool, as far as the names of its files tell. Nothing here reads an event or takes a lock.

use std::fs;
use std::io;
use std::path::Path;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::id::RequestId;

use crate::spool::layout::{EVENT_SUFFIX, EntryName, Layout, REASON_SUFFIX};
use crate::spool::owner::is_elsewhere;

/// What is in a spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Survey {
    /// Events that wait.
    pub pending: u64,
    /// Events that drainers have leased.
    pub processing: u64,
    /// Dead letters.
    pub failed: u64,
    /// Entries that could not be read.
    pub quarantined: u64,
    /// Size of the events that wait.
    pub pending_bytes: u64,
    /// When the oldest event that waits was captured, where its name still tells.
    pub oldest: Option<Timestamp>,
}

/// Counts what is in a spool.
///
/// # Errors
///
/// A directory cannot be read.
pub fn survey(layout: &Layout) -> io::Result<Survey> {
    let mut survey = Survey::default();
    for entry in fs::read_dir(layout.pending())? {
        let entry = entry?;
        if !is_event(&entry) {
            continue;
        }
        survey.pending += 1;
        // One that is leased meanwhile has no size any more.
        survey.pending_bytes += entry.metadata().map_or(0, |found| found.len());
        let name = entry.file_name();
        let first_round = name.to_str().and_then(EntryName::parse).filter(|name| name.rounds == 0);
        if let Some(EntryName { due, .. }) = first_round {
            survey.oldest = Some(survey.oldest.map_or(due, |oldest| oldest.min(due)));
        }
    }
    for owner in fs::read_dir(layout.processing())? {
        // An owner that goes meanwhile has nothing left to count.
        survey.processing += count_events(&owner?.path()).unwrap_or(0);
    }
    survey.failed = count_events(&layout.failed())?;
    survey.quarantined = count_quarantined(layout)?;
    Ok(survey)
}

/// Whether some drainer has leased this event.
///
/// # Errors
///
/// The spool cannot be read.
pub fn is_leased(layout: &Layout, id: &RequestId) -> io::Result<bool> {
    for owner in fs::read_dir(layout.processing())? {
        // An owner that goes meanwhile has nothing left.
        if find(&owner?.path(), id).is_ok_and(|found| found.is_some()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether nothing waits in a spool and nothing is leased, but for what drainers on other machines
/// have. It stops at the first event.
///
/// # Errors
///
/// A directory cannot be read.
pub fn is_idle(layout: &Layout) -> io::Result<bool> {
    if has_event(&layout.pending())? {
        return Ok(false);
    }
    let owners = match fs::read_dir(layout.processing()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        owners => owners?,
    };
    for owner in owners {
        let owner = owner?.path();
        if has_event(&owner)? && !is_elsewhere(&owner) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A directory that is not there has none.
fn has_event(directory: &Path) -> io::Result<bool> {
    let is_none = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
    };
    match fs::read_dir(directory) {
        Err(error) if is_none(&error) => Ok(false),
        entries => Ok(entries?.flatten().any(|entry| is_event(&entry))),
    }
}

/// Finds the file of an event by its request id.
pub(crate) fn find(directory: &Path, id: &RequestId) -> io::Result<Option<String>> {
    for entry in fs::read_dir(directory)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if EntryName::parse(&name).is_some_and(|entry| entry.request_id == *id) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// How many events are in a directory.
pub(crate) fn count_events(directory: &Path) -> io::Result<u64> {
    count(directory, is_event)
}

/// How many entries are in quarantine.
pub(crate) fn count_quarantined(layout: &Layout) -> io::Result<u64> {
    count(&layout.quarantine(), |entry| {
        !entry.file_name().as_encoded_bytes().ends_with(REASON_SUFFIX.as_bytes())
    })
}

/// Whether an entry bears the name of an event.
pub(crate) fn is_event(entry: &fs::DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().ends_with(EVENT_SUFFIX.as_bytes())
}

fn count(directory: &Path, wanted: impl Fn(&fs::DirEntry) -> bool) -> io::Result<u64> {
    Ok(fs::read_dir(directory)?.flatten().filter(wanted).count() as u64)
}
