//! Aging: counts what waits and for how long, expires what waited too long, and revives it once its receiver is
//! back.
//!
//! One drainer of a spool does this, the one that has `observed` locked. It goes through `pending/` a
//! slice at a time, so that a million files cost neither memory nor a long pause, and adds the time that
//! passes to the number in `observed`. A file that it meets for the first time is marked with that
//! number ([`OBSERVED_EPOCH`]); the difference is the event's age.

use std::collections::HashSet;
use std::fs::{self, File, ReadDir};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use arrakis_core::base::limits::PENDING_MAX_AGE;
use arrakis_core::delivery::queue::Aged;
use parking_lot::Mutex;

use crate::queue::watch::Watch;
use crate::spool::capacity::{Fill, restore_reserve};
use crate::spool::dir::SpoolDir;
use crate::spool::layout::{EntryName, OBSERVED_EPOCH};
use crate::spool::lock::{is_at, try_lock};

/// Entries of one call: half of what a watch can queue, since marking a file is an event for the watches.
const SLICE: usize = 8_000;

/// A pass through fewer than this many entries is repeated with every call.
const SHORT_PASS: u64 = 1_000;

/// How long it is from one long pass to the next.
const PASS_INTERVAL: Duration = Duration::from_secs(60);

/// Longest observed time that marks can tell, in seconds: twelve years.
const OBSERVED_MAX: i64 = 400_000_000;

/// How long events have waited, and which expired ones may come back.
#[derive(Debug, Default)]
pub(crate) struct Aging {
    observer: Mutex<Option<Observer>>,
    /// The tags of destinations that something was delivered to.
    reached: Mutex<HashSet<String>>,
}

/// What the one drainer that ages the spool knows.
#[derive(Debug)]
struct Observer {
    /// `observed`, locked.
    file: File,
    observed: Duration,
    pass: Option<Pass>,
    /// When the last pass ended, and how many entries it met.
    passed: Option<(Instant, Duration, u64)>,
    /// A pass through `failed/` for those that have expired.
    revival: Option<Revival>,
    /// Whether there may be expired events.
    may_revive: bool,
}

#[derive(Debug)]
struct Pass {
    entries: ReadDir,
    files: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Revival {
    entries: ReadDir,
    tags: HashSet<String>,
    left: bool,
}

impl Aging {
    /// Something was delivered to the destination with this tag.
    pub(crate) fn reached(&self, tag: &str) {
        let mut reached = self.reached.lock();
        if !reached.contains(tag) {
            reached.insert(tag.to_owned());
        }
    }

    /// So much time has passed: counts, expires and revives what waits, where no other drainer does.
    pub(crate) fn age(
        &self,
        dir: &SpoolDir,
        fill: &Fill,
        watch: &Watch,
        by: Duration,
    ) -> io::Result<Aged> {
        if !dir.layout.queue().exists() {
            return Ok(Aged::default());
        }
        let mut observer = self.observer.lock();
        let path = dir.layout.observed();
        if observer.as_ref().is_none_or(|known| !is_at(&known.file, &path)) {
            *observer = try_lock(&path)?.map(Observer::new);
        }
        let Some(observer) = observer.as_mut() else {
            return Ok(Aged::default()); // another drainer does
        };
        restore_reserve(dir);
        observer.watch(by)?;
        let expired = observer.expire(dir, fill)?;
        let revived = observer.revive(dir, watch, &self.reached)?;
        Ok(Aged { expired, revived })
    }
}

impl Observer {
    fn new(file: File) -> Self {
        let mut text = [0; 20];
        let read = file.read_exact_at(&mut text, 0).ok();
        let seconds = read.and_then(|()| std::str::from_utf8(&text).ok()?.parse().ok());
        let observed = Duration::from_secs(seconds.unwrap_or(0));
        Self { file, observed, pass: None, passed: None, revival: None, may_revive: true }
    }

    /// Adds time that has passed. It is written in place, which a full disk allows.
    fn watch(&mut self, by: Duration) -> io::Result<()> {
        let before = self.observed.as_secs();
        self.observed += by;
        let after = self.observed.as_secs();
        if after == before {
            return Ok(());
        }
        self.file.write_all_at(format!("{after:020}\n").as_bytes(), 0)
    }

    /// Goes on through `pending/`: counts, marks what is new, and gives up what has waited for too
    /// long; returns how much that was.
    fn expire(&mut self, dir: &SpoolDir, fill: &Fill) -> io::Result<u64> {
        if self.pass.is_none() {
            if self.passed.is_some_and(|(at, observed, entries)| {
                let since = (self.observed - observed).max(at.elapsed());
                entries >= SHORT_PASS && since < PASS_INTERVAL
            }) {
                return Ok(0);
            }
            let entries = fs::read_dir(dir.layout.pending())?;
            self.pass = Some(Pass { entries, files: 0, bytes: 0 });
        }
        let mut expired = 0;
        for _ in 0..SLICE {
            let Some(pass) = self.pass.as_mut() else { break };
            let Some(entry) = pass.entries.next() else {
                let (files, bytes) = (pass.files, pass.bytes);
                self.passed = Some((Instant::now(), self.observed, files));
                self.pass = None;
                fill.counted(dir, files, bytes)?;
                break;
            };
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().and_then(EntryName::parse) else { continue };
            // One that is leased meanwhile is gone.
            let Ok(found) = entry.metadata() else { continue };
            pass.files += 1;
            pass.bytes += found.len();
            let observed = i64::try_from(self.observed.as_secs()).unwrap_or(i64::MAX);
            let seen = found.mtime() - OBSERVED_EPOCH;
            if !(0..OBSERVED_MAX).contains(&seen) || seen > observed {
                // Without a mark it is only younger.
                dir.fs.set_modified(&entry.path(), OBSERVED_EPOCH.saturating_add(observed)).ok();
            } else if observed - seen >= PENDING_MAX_AGE.as_secs().cast_signed() {
                expired += u64::from(give_up(dir, &entry.path(), name)?);
            }
        }
        self.may_revive |= expired > 0;
        Ok(expired)
    }

    /// Goes on through `failed/`: gives back what has expired and whose receiver is back; returns how
    /// much that was.
    fn revive(
        &mut self,
        dir: &SpoolDir,
        watch: &Watch,
        reached: &Mutex<HashSet<String>>,
    ) -> io::Result<u64> {
        let mut reached = reached.lock();
        if self.revival.is_none() && self.may_revive && !reached.is_empty() {
            let (tags, left) = (std::mem::take(&mut *reached), false);
            self.revival =
                Some(Revival { entries: fs::read_dir(dir.layout.failed())?, tags, left });
        } else if !self.may_revive {
            reached.clear();
        }
        drop(reached);
        let mut revived = 0;
        for _ in 0..SLICE {
            let Some(revival) = self.revival.as_mut() else { break };
            let Some(entry) = revival.entries.next() else {
                self.may_revive = revival.left;
                self.revival = None;
                break;
            };
            let entry = entry?;
            let name = entry.file_name();
            let named = name.to_str().and_then(EntryName::parse);
            let Some(name) = named.filter(EntryName::is_expired) else { continue };
            if revival.tags.contains(&name.tag) {
                let name = EntryName { due: dir.now(), ..name };
                // Its time begins anew, with a mark of its own.
                dir.fs.set_modified(&entry.path(), 0).ok();
                let returned = moved(watch.put_back(dir, &entry.path(), &name.to_string()));
                revival.left |= returned.is_err();
                revived += u64::from(returned?);
            } else {
                revival.left = true;
            }
        }
        Ok(revived)
    }
}

fn give_up(dir: &SpoolDir, path: &Path, name: EntryName) -> io::Result<bool> {
    let request_id = name.request_id.clone();
    let target = dir.layout.failed().join(name.expired().to_string());
    let given_up = moved(dir.fs.rename(path, &target))?;
    if given_up {
        tracing::error!(target: "arrakis::queue", %request_id, code = arrakis_core::delivery::queue::EXPIRED,
            "an event has waited too long; it is kept as a dead letter until its receiver is back");
    }
    Ok(given_up)
}

/// Whether a rename took place: an event that is gone was leased or moved by somebody else.
fn moved(renamed: io::Result<()>) -> io::Result<bool> {
    match renamed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
