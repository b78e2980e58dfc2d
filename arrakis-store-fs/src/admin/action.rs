//! What people do to entries: have them tried again, or give them up.
//!
//! Each action is one rename or one removal of the file that was met, so it needs no space on the
//! disk, and whoever else takes that file at the same time wins or loses as a whole: nothing is done
//! twice and nothing is lost.

use std::io;
use std::path::Path;

use crate::admin::entry::{Entry, Found, State, about};
use crate::spool::counters::{self, Exit, Recorder};
use crate::spool::dir::SpoolDir;
use crate::spool::durability::{remove_tree, rename_new};
use crate::spool::format::Unreadable;
use crate::spool::history;
use crate::spool::layout::EntryName;
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
pub fn retry(dir: &SpoolDir, entry: &Entry) -> io::Result<Action> {
    let now = dir.now();
    let Some(name) = &entry.named else {
        return match entry.state {
            State::Quarantined => restore(dir, entry),
            State::Processing => Ok(Action::Leased),
            State::Pending | State::Failed => {
                Ok(Action::Kept("its name is not one of an event; repair the spool first".into()))
            }
        };
    };
    let due = match entry.state {
        State::Quarantined => return restore(dir, entry),
        State::Processing => return Ok(Action::Leased),
        State::Pending if name.is_due(now) => return Ok(Action::Done),
        State::Pending => EntryName { due: now, ..name.clone() },
        State::Failed => EntryName { due: now, rounds: 0, ..name.clone() },
    };
    if entry.state == State::Failed {
        begin_anew(dir, &entry.path);
    }
    let target = dir.layout.pending().join(due.to_string());
    moved(&entry.path, dir.fs.rename(&entry.path, &target))
}

/// Takes the mark of age from an event that comes back, or it would be given up again at once.
fn begin_anew(dir: &SpoolDir, path: &Path) {
    dir.fs.set_modified(path, 0).ok();
}

/// Gives entries up for good, and counts them.
#[derive(Debug)]
pub struct Discarder<'a> {
    dir: &'a SpoolDir,
    recorder: Option<Recorder<'a>>,
    done: u64,
}

impl<'a> Discarder<'a> {
    /// After so many entries the counts are let go of, so that they can be folded.
    const BATCH: u64 = 1000;

    /// Gives up entries of this spool.
    #[must_use]
    pub fn new(dir: &'a SpoolDir) -> Self {
        Self { dir, recorder: None, done: 0 }
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
        let dir = self.dir;
        let recorder = self.recorder.get_or_insert_with(|| Recorder::new(&dir.layout));
        let removed = recorder.leave(Exit::Discarded, || match dir.fs.remove(&entry.path) {
            // A directory may bear the name of an event, too.
            Err(_) if entry.path.symlink_metadata().is_ok_and(|found| found.is_dir()) => {
                remove_tree(&*dir.fs, &entry.path)
            }
            removed => removed,
        });
        self.done += 1;
        if self.done.is_multiple_of(Self::BATCH) {
            self.recorder = None;
            // A drainer does it otherwise.
            counters::fold_if_long(dir).ok();
        }
        let action = moved(&entry.path, removed)?;
        if action == Action::Done {
            match (entry.state, &entry.named) {
                (State::Quarantined, _) => {
                    dir.fs.remove(&reason_path(&entry.path)).ok();
                }
                (_, Some(name)) => history::remove(dir, &name.request_id),
                (_, None) => {}
            }
        }
        Ok(action)
    }
}

/// Puts what reads well again back among those that wait.
fn restore(dir: &SpoolDir, entry: &Entry) -> io::Result<Action> {
    let envelope = match entry.read()? {
        Found::Whole(envelope) => envelope,
        Found::Unreadable(Unreadable(reason)) => return Ok(Action::Kept(reason)),
        Found::Gone => return Ok(Action::Gone),
    };
    let target = dir.layout.pending().join(EntryName::of(&envelope.header).to_string());
    begin_anew(dir, &entry.path);
    let action = moved(&entry.path, rename_new(&*dir.fs, &entry.path, &target))?;
    if action == Action::Done {
        dir.fs.remove(&reason_path(&entry.path)).ok();
    }
    Ok(action)
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
