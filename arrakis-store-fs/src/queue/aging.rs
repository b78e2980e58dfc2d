//! Looking after what waits: how much it is, how long it has waited, and what becomes of it then.
//!
//! One drainer of a spool does this, the one that has `observed` locked. It goes through `pending/` a
//! slice at a time, so that a million files cost neither memory nor a long pause, and adds the time that
//! passes to the number in `observed`. A file that it meets for the first time is marked with that
//! number ([`OBSERVED_EPOCH`]); the difference is the event's age.

use std::collections::HashSet;
use std::fs::{self, File, ReadDir};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arrakis_core::base::limits::PENDING_MAX_AGE;
use arrakis_core::delivery::queue::Aged;
use parking_lot::Mutex;

use crate::queue::Inner;
use crate::spool::RESERVE_BYTES;
use crate::spool::layout::{EntryName, Layout, OBSERVED_EPOCH};
use crate::spool::lock::{is_at, try_lock};

/// Entries that one call looks at: half of what a watch can be told of at once, since marking a file
/// tells the watches.
const SLICE: usize = 8_000;

/// A pass through fewer than this many entries is repeated with every call.
const SHORT_PASS: u64 = 1_000;

/// How long it is from one long pass to the next.
const PASS_INTERVAL: Duration = Duration::from_secs(60);

/// Longest observed time that marks can tell, in seconds: twelve years.
const OBSERVED_MAX: i64 = 400_000_000;

/// What is known about what waits.
#[derive(Debug)]
pub(crate) struct Census {
    observer: Mutex<Option<Observer>>,
    /// The tags of destinations that something was delivered to.
    reached: Mutex<HashSet<String>>,
    files: AtomicI64,
    bytes: AtomicI64,
    /// Whether the spool refuses new events because of what was counted here.
    full: AtomicBool,
}

/// What the one drainer that looks after the spool knows.
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

impl Census {
    pub(crate) fn new(layout: &Layout) -> Self {
        Self {
            observer: Mutex::default(),
            reached: Mutex::default(),
            files: AtomicI64::new(i64::MAX),
            bytes: AtomicI64::new(i64::MAX),
            full: AtomicBool::new(layout.full().exists()),
        }
    }

    /// Something was delivered to the destination with this tag.
    pub(crate) fn reached(&self, tag: &str) {
        let mut reached = self.reached.lock();
        if !reached.contains(tag) {
            reached.insert(tag.to_owned());
        }
    }

    /// An event has left, so a spool that was full may have room again.
    pub(crate) fn left(&self, inner: &Inner, bytes: u64) {
        let files = self.files.fetch_sub(1, Ordering::Relaxed);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let bytes = self.bytes.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        if self.full.load(Ordering::Relaxed) && !is_full(inner, files - 1, bytes) {
            self.mark(inner, false).ok();
        }
    }

    /// So much waits: the spool refuses new events, or takes them again.
    pub(crate) fn counted(&self, inner: &Inner, files: u64, bytes: u64) -> io::Result<()> {
        let [files, bytes] = [files, bytes].map(|count| i64::try_from(count).unwrap_or(i64::MAX));
        self.files.store(files, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        let full = is_full(inner, files, bytes);
        if full && !inner.layout.full().exists() {
            tracing::error!(target: "arrakis::queue", files, bytes,
                "the spool is full and refuses new events until its receiver is back");
        }
        self.mark(inner, full)
    }

    fn mark(&self, inner: &Inner, full: bool) -> io::Result<()> {
        let flag = inner.layout.full();
        self.full.store(full, Ordering::Relaxed);
        match (full, flag.exists()) {
            (true, false) => inner.fs.write(&flag, b""),
            (false, true) => inner.fs.remove(&flag),
            _ => Ok(()),
        }
    }
}

fn is_full(inner: &Inner, files: i64, bytes: i64) -> bool {
    let reaches = |count: i64, max: u64| u64::try_from(count).is_ok_and(|count| count >= max);
    reaches(files, inner.config.max_files) || reaches(bytes, inner.config.max_bytes)
}

impl Inner {
    pub(crate) fn age(&self, by: Duration) -> io::Result<Aged> {
        if !self.layout.queue().exists() {
            return Ok(Aged::default());
        }
        let mut observer = self.census.observer.lock();
        if observer.as_ref().is_none_or(|known| !is_at(&known.file, &self.layout.observed())) {
            *observer = try_lock(&self.layout.observed())?.map(Observer::new);
        }
        let Some(observer) = observer.as_mut() else {
            return Ok(Aged::default()); // another drainer looks after it
        };
        self.restore_reserve();
        observer.watch(by)?;
        let expired = observer.expire(self)?;
        let revived = observer.revive(self)?;
        Ok(Aged { expired, revived })
    }

    /// Sets space aside again that was given up, once there is twice as much.
    fn restore_reserve(&self) {
        let size = fs::metadata(self.layout.reserve()).map_or(0, |found| found.len());
        let free = || self.fs.free_bytes(&self.layout.queue()).unwrap_or(0);
        if size != RESERVE_BYTES as u64
            && free() >= 2 * RESERVE_BYTES as u64
            && let Err(error) = self.spool.reserve()
        {
            tracing::warn!(target: "arrakis::queue", %error, "cannot set space aside for a full disk");
        }
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
    fn expire(&mut self, inner: &Inner) -> io::Result<u64> {
        if self.pass.is_none() {
            if self.passed.is_some_and(|(at, observed, entries)| {
                let since = (self.observed - observed).max(at.elapsed());
                entries >= SHORT_PASS && since < PASS_INTERVAL
            }) {
                return Ok(0);
            }
            let entries = fs::read_dir(inner.layout.pending())?;
            self.pass = Some(Pass { entries, files: 0, bytes: 0 });
        }
        let mut expired = 0;
        for _ in 0..SLICE {
            let Some(pass) = self.pass.as_mut() else { break };
            let Some(entry) = pass.entries.next() else {
                let (files, bytes) = (pass.files, pass.bytes);
                self.passed = Some((Instant::now(), self.observed, files));
                self.pass = None;
                inner.census.counted(inner, files, bytes)?;
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
                inner.fs.set_modified(&entry.path(), OBSERVED_EPOCH.saturating_add(observed)).ok();
            } else if observed - seen >= PENDING_MAX_AGE.as_secs().cast_signed() {
                expired += u64::from(give_up(inner, &entry.path(), name)?);
            }
        }
        self.may_revive |= expired > 0;
        Ok(expired)
    }

    /// Goes on through `failed/`: gives back what has expired and whose receiver is back; returns how
    /// much that was.
    fn revive(&mut self, inner: &Inner) -> io::Result<u64> {
        let mut reached = inner.census.reached.lock();
        if self.revival.is_none() && self.may_revive && !reached.is_empty() {
            let (tags, left) = (std::mem::take(&mut *reached), false);
            self.revival =
                Some(Revival { entries: fs::read_dir(inner.layout.failed())?, tags, left });
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
                let name = EntryName { due: inner.clock.now(), ..name };
                // Its time begins anew, with a mark of its own.
                inner.fs.set_modified(&entry.path(), 0).ok();
                let returned = moved(inner.put_back(&entry.path(), &name.to_string()));
                revival.left |= returned.is_err();
                revived += u64::from(returned?);
            } else {
                revival.left = true;
            }
        }
        Ok(revived)
    }
}

fn give_up(inner: &Inner, path: &std::path::Path, name: EntryName) -> io::Result<bool> {
    let request_id = name.request_id.clone();
    let target = inner.layout.failed().join(name.expired().to_string());
    let given_up = moved(inner.fs.rename(path, &target))?;
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
