//! Bringing a spool in order: what can be done without losing a byte.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::id::RequestId;

use crate::admin::entry::{Entry, Filter, State, entries};
use crate::admin::ids::Ids;
use crate::admin::verify::{Check, Finding, Kind, Step, check};
use crate::spool::capacity::SpoolLimits;
use crate::spool::dir::SpoolDir;
use crate::spool::durability::rename_new;
use crate::spool::file;
use crate::spool::format::Unreadable;
use crate::spool::history;
use crate::spool::layout::{EntryName, REASON_SUFFIX};
use crate::spool::owner::reap;
use crate::spool::quarantine::{quarantine, reason_path, write_reason};
use crate::spool::{Spool, SpoolError, survey};

/// How long nobody must have written to a file before it is taken as left behind.
const LEFT_AFTER: Duration = Duration::from_secs(3600);

/// Brings a spool in order, beside whatever drainers are at work, and tells each thing that it found
/// and what it did about it. Done twice, the second time finds nothing but what it could not repair.
///
/// * Directories that are missing are made.
/// * What a writer has left in `tmp/` becomes an event if it is whole, else it goes to quarantine.
/// * The events of dead drainers are given back.
/// * Damaged entries go to quarantine; events with a wrong name get the right one.
/// * Histories without an event go, and reasons without an entry; entries without a reason get one.
/// * The flag that refuses new events goes if there is room below `limits`.
///
/// With a filter that sets anything, only the entries that match are checked.
///
/// # Errors
///
/// The directories cannot be made.
pub fn repair(
    dir: &SpoolDir,
    filter: &Filter,
    limits: SpoolLimits,
    mut tell: impl FnMut(Step),
) -> Result<(), SpoolError> {
    let layout = &dir.layout;
    let missing: Vec<_> = layout.directories().into_iter().filter(|path| !path.is_dir()).collect();
    Spool::new(dir.clone()).create()?;
    for directory in missing {
        let finding = Finding::new(Kind::MissingDirectory, directory, "was not there");
        tell(Step::Finding(finding.remedied("made")));
    }
    let mut repairer = Repairer { dir, now: dir.now(), tell: &mut tell };
    if !filter.is_everything() {
        repairer.entries(filter);
    } else {
        repairer.try_each(Kind::Unfinished, &layout.tmp(), Repairer::unfinished);
        repairer.orphans();
        repairer.entries(filter);
        repairer.try_each(Kind::LostReason, &layout.quarantine(), Repairer::reasons);
        repairer.try_each(Kind::LostHistory, &layout.attempts(), Repairer::histories);
        repairer.try_each(Kind::StaleFlag, &layout.full(), |repairer| repairer.flag(limits));
    }
    for directory in [layout.pending(), layout.failed(), layout.quarantine()] {
        // What a power loss undoes now is found again.
        dir.fs.sync_directory(&directory).ok();
    }
    Ok(())
}

struct Repairer<'a> {
    dir: &'a SpoolDir,
    now: Timestamp,
    tell: &'a mut dyn FnMut(Step),
}

impl Repairer<'_> {
    fn found(&mut self, finding: Finding) {
        (self.tell)(Step::Finding(finding));
    }

    /// Does one part of the work; a failure ends that part alone.
    fn try_each(
        &mut self,
        kind: Kind,
        path: &Path,
        part: impl FnOnce(&mut Self) -> io::Result<()>,
    ) {
        if let Err(error) = part(self) {
            self.found(Finding::new(kind, path, error));
        }
    }

    /// Tells what was found and what was done about it.
    fn report(&mut self, finding: Finding, repaired: io::Result<&str>) {
        match repaired {
            Ok(remedy) => self.found(finding.remedied(remedy)),
            Err(error) => {
                let problem = format!("{}; it cannot be repaired: {error}", finding.problem);
                self.found(Finding { problem, ..finding });
            }
        }
    }

    fn unfinished(&mut self) -> io::Result<()> {
        for entry in fs::read_dir(self.dir.layout.tmp())? {
            let path = entry?.path();
            if !self.is_left(&path) {
                continue;
            }
            let finding = |problem| Finding::new(Kind::Unfinished, &path, problem);
            match file::read(&path) {
                Ok(Ok(envelope)) => {
                    let name = EntryName::of(&envelope.header).to_string();
                    let repaired = match rename_new(
                        &*self.dir.fs,
                        &path,
                        &self.dir.layout.pending().join(name),
                    ) {
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                            let reason = Unreadable("its event waits already".to_owned());
                            quarantine(self.dir, &path, &reason).map(|()| "set aside")
                        }
                        renamed => renamed.map(|()| "put among those that wait"),
                    };
                    self.report(finding("is a whole event"), repaired);
                }
                Ok(Err(reason)) => {
                    let repaired = quarantine(self.dir, &path, &reason).map(|()| "set aside");
                    self.report(finding(reason.0.as_str()), repaired);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.found(finding(error.to_string().as_str())),
            }
        }
        Ok(())
    }

    fn orphans(&mut self) {
        let reaped = reap(self.dir, None, |_, _| {});
        let finding =
            |problem: String| Finding::new(Kind::Orphaned, self.dir.layout.processing(), problem);
        match reaped {
            Ok(0) => {}
            Ok(count) => {
                let finding = finding(format!("held {count} events of drainers that are dead"));
                self.found(finding.remedied("given back"));
            }
            Err(error) => {
                let finding =
                    finding(format!("cannot be looked through for dead drainers: {error}"));
                self.found(finding);
            }
        }
    }

    fn entries(&mut self, filter: &Filter) {
        for entry in entries(&self.dir.layout, filter) {
            (self.tell)(Step::Entry);
            match entry {
                Ok(entry) if entry.state == State::Quarantined => {}
                Ok(entry) => self.entry(&entry),
                Err(error) => {
                    self.found(Finding::new(Kind::Unread, self.dir.layout.queue(), error));
                }
            }
        }
    }

    fn entry(&mut self, entry: &Entry) {
        let finding = |kind, problem: String| Finding::new(kind, &entry.path, problem);
        // What is leased belongs to its drainer, which sets it aside itself.
        let is_ours = entry.state != State::Processing;
        match check(entry) {
            Ok(Check::Gone | Check::Sound { .. }) => {}
            Ok(Check::Damaged(reason)) if is_ours => {
                let repaired = quarantine(self.dir, &entry.path, &reason);
                self.report(finding(Kind::Damaged, reason.0), repaired.map(|()| "set aside"));
            }
            Ok(Check::Misnamed(right)) if is_ours => {
                let right_path = entry.path.with_file_name(right.to_string());
                let repaired = match rename_new(&*self.dir.fs, &entry.path, &right_path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        let reason = format!("there is another file of its right name, {right}");
                        quarantine(self.dir, &entry.path, &Unreadable(reason)).map(|()| "set aside")
                    }
                    renamed => renamed.map(|()| "renamed"),
                };
                let problem = format!("should be called {right}");
                self.report(finding(Kind::Misnamed, problem), repaired);
            }
            Ok(Check::Damaged(reason)) => self.found(finding(Kind::Damaged, reason.0)),
            Ok(Check::Misnamed(right)) => {
                self.found(finding(Kind::Misnamed, format!("should be called {right}")));
            }
            Err(error) => self.found(finding(Kind::Unread, error.to_string())),
        }
    }

    fn reasons(&mut self) -> io::Result<()> {
        for entry in fs::read_dir(self.dir.layout.quarantine())? {
            let path = entry?.path();
            let name = path.to_string_lossy();
            let is_left = |path: &Path| self.is_left(path);
            match name.strip_suffix(REASON_SUFFIX) {
                Some(entry) if Path::new(entry).symlink_metadata().is_err() && is_left(&path) => {
                    let finding = Finding::new(Kind::LostReason, &path, "has no entry beside it");
                    self.report(finding, self.dir.fs.remove(&path).map(|()| "removed"));
                }
                None if reason_path(&path).symlink_metadata().is_err() => {
                    let reason = match file::read(&path) {
                        Ok(Ok(_)) => "why it was set aside is not known; it can be read".to_owned(),
                        Ok(Err(Unreadable(reason))) => reason,
                        Err(error) => error.to_string(),
                    };
                    let finding = Finding::new(Kind::LostReason, &path, "has no reason beside it");
                    let repaired =
                        write_reason(self.dir, &path, &Unreadable(reason)).map(|()| "written anew");
                    self.report(finding, repaired);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn histories(&mut self) -> io::Result<()> {
        let mut histories = fs::read_dir(self.dir.layout.attempts())?.peekable();
        if histories.peek().is_none() {
            return Ok(());
        }
        // Twice, because an event that moves may be missed once.
        let passes =
            [Ids::of(&self.dir.layout, &State::ALL)?, Ids::of(&self.dir.layout, &State::ALL)?];
        for history in histories {
            let path = history?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let id = name.strip_suffix(history::SUFFIX).and_then(|id| id.parse::<RequestId>().ok());
            let Some(id) = id else { continue };
            if !passes.iter().any(|ids| ids.contains(&id)) && self.is_left(&path) {
                let finding = Finding::new(Kind::LostHistory, &path, "belongs to no event here");
                self.report(finding, self.dir.fs.remove(&path).map(|()| "removed"));
            }
        }
        Ok(())
    }

    fn flag(&mut self, limits: SpoolLimits) -> io::Result<()> {
        let flag = self.dir.layout.full();
        if !flag.exists() {
            return Ok(());
        }
        let found = survey(&self.dir.layout)?;
        let files = found.pending + found.processing;
        if !limits.are_reached(files, found.pending_bytes) {
            let finding =
                Finding::new(Kind::StaleFlag, &flag, "refuses events though there is room");
            self.report(finding, self.dir.fs.remove(&flag).map(|()| "removed"));
        }
        Ok(())
    }

    /// Whether nobody has written to a file for long.
    fn is_left(&self, path: &Path) -> bool {
        let modified = fs::symlink_metadata(path).and_then(|found| found.modified());
        modified.is_ok_and(|modified| self.now.since(modified.into()) >= LEFT_AFTER)
    }
}
