//! What people do to entries: have them tried again, or give them up.
//!
//! Each action is one rename or one removal of the file that was met, so it needs no space on the
//! disk, and whoever else takes that file at the same time wins or loses as a whole: nothing is done
//! twice and nothing is lost.

use std::fs;
use std::io;
use std::path::Path;

use arrakis_core::base::clock::Timestamp;

use crate::admin::entry::{Entry, Found, State, about};
use crate::spool::counters::{self, Exit, Tallying};
use crate::spool::durability::{FileSystem, RealFileSystem};
use crate::spool::history;
use crate::spool::layout::{EntryName, Layout, Unreadable};
use crate::spool::quarantine::reason_path;

/// What came of an action on one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It is done.
    Done,
    /// The entry was not there any more: delivered, moved on, or dealt with by somebody else.
    Gone,
    /// A drainer has the event just now; it was left alone.
    Leased,
    /// It was left as it is, and why.
    Kept(String),
}

/// Has an event tried at once: one that waits is due now, a dead letter has all rounds before it, and
/// what reads well again leaves quarantine. A drainer that runs notices after a
/// [`poke`](crate::Spool::poke).
///
/// # Errors
///
/// The file cannot be read or renamed.
pub fn retry(layout: &Layout, entry: &Entry, now: Timestamp) -> io::Result<Action> {
    let Some(name) = &entry.named else {
        return match entry.state {
            State::Quarantined => restore(layout, entry),
            State::Processing => Ok(Action::Leased),
            State::Pending | State::Failed => {
                Ok(Action::Kept("its name is not one of an event; repair the spool first".into()))
            }
        };
    };
    let due = match entry.state {
        State::Quarantined => return restore(layout, entry),
        State::Processing => return Ok(Action::Leased),
        State::Pending if name.is_due(now) => return Ok(Action::Done),
        State::Pending => EntryName { due: now, ..name.clone() },
        State::Failed => EntryName { due: now, rounds: 0, ..name.clone() },
    };
    if entry.state == State::Failed {
        begin_anew(&entry.path);
    }
    moved(&entry.path, fs::rename(&entry.path, layout.pending().join(due.to_string())))
}

/// Takes the mark of age from an event that comes back, or it would be given up again at once.
fn begin_anew(path: &Path) {
    RealFileSystem.set_modified(path, 0).ok();
}

/// Gives entries up for good, and counts them.
#[derive(Debug)]
pub struct Discarder<'a> {
    layout: &'a Layout,
    tallying: Option<Tallying<'a>>,
    done: u64,
}

impl<'a> Discarder<'a> {
    /// After so many entries the counts are let go of, so that they can be folded.
    const BATCH: u64 = 1000;

    /// Gives up entries of this spool.
    #[must_use]
    pub fn new(layout: &'a Layout) -> Self {
        Self { layout, tallying: None, done: 0 }
    }

    /// Gives an entry up, with its history. What a drainer has leased is left to it.
    ///
    /// # Errors
    ///
    /// The file cannot be removed.
    pub fn discard(&mut self, entry: &Entry) -> io::Result<Action> {
        if entry.state == State::Processing {
            return Ok(Action::Leased);
        }
        let tallying = self.tallying.get_or_insert_with(|| Tallying::new(self.layout));
        let removed = tallying.leave(Exit::Discarded, || match fs::remove_file(&entry.path) {
            // A directory may bear the name of an event, too.
            Err(_) if entry.path.symlink_metadata().is_ok_and(|found| found.is_dir()) => {
                fs::remove_dir_all(&entry.path)
            }
            removed => removed,
        });
        self.done += 1;
        if self.done.is_multiple_of(Self::BATCH) {
            self.tallying = None;
            // A drainer does it otherwise.
            counters::fold_if_long(self.layout).ok();
        }
        let action = moved(&entry.path, removed)?;
        if action == Action::Done {
            match (entry.state, &entry.named) {
                (State::Quarantined, _) => {
                    fs::remove_file(reason_path(&entry.path)).ok();
                }
                (_, Some(name)) => history::remove(self.layout, &name.request_id),
                (_, None) => {}
            }
        }
        Ok(action)
    }
}

/// Puts what reads well again back among those that wait.
fn restore(layout: &Layout, entry: &Entry) -> io::Result<Action> {
    let envelope = match entry.read()? {
        Found::Whole(envelope) => envelope,
        Found::Unreadable(Unreadable(reason)) => return Ok(Action::Kept(reason)),
        Found::Gone => return Ok(Action::Gone),
    };
    let target = layout.pending().join(EntryName::of(&envelope.header).to_string());
    begin_anew(&entry.path);
    let action = moved(&entry.path, rename_new(&entry.path, &target))?;
    if action == Action::Done {
        fs::remove_file(reason_path(&entry.path)).ok();
    }
    Ok(action)
}

/// Renames a regular file to a name that nobody has.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        // A file system without links: the look and the rename are two steps there.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
            ) =>
        {
            if to.symlink_metadata().is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(from, to)
        }
        Err(error) => Err(error),
    }
}

fn moved(path: &Path, result: io::Result<()>) -> io::Result<Action> {
    match result {
        Ok(()) => Ok(Action::Done),
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() =>
        {
            Ok(Action::Gone)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Ok(Action::Kept("an event of this request id waits already".to_owned()))
        }
        Err(error) => Err(about(path, &error)),
    }
}
