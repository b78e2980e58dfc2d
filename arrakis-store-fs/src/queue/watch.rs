//! Noticing new events: a watch on `pending/`, and polling where the watch fails.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrakis_core::base::clock::Timestamp;
use arrakis_core::delivery::queue::Wake;
use notify::event::{ModifyKind, RenameMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::spool::dir::SpoolDir;
use crate::spool::layout::EntryName;

/// Most names that are remembered as fresh. Beyond it they are left to the scan of the directory.
const FRESH_MAX: usize = 10_000;

/// How long before a drainer's start an event is still fresh: the one that it was started for came
/// before it, and must not wait behind a backlog.
const RECENT: Duration = Duration::from_secs(3);

/// Tells of new events in `pending/`.
#[derive(Debug)]
pub(crate) struct Watch {
    shared: Arc<Shared>,
    pending: PathBuf,
    wanted: bool,
    poll: Duration,
    watched: Mutex<Watched>,
}

/// What is watched.
#[derive(Debug, Default)]
struct Watched {
    /// The directory, told from another of the same name.
    directory: Option<(u64, u64)>,
    /// Stops watching when dropped; `None` where the system has no watches left.
    watcher: Option<RecommendedWatcher>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    fresh: VecDeque<String>,
    /// Whether something came that is no fresh event: slices of transcripts are many at once, and what
    /// happens now must not wait behind them.
    others: bool,
    /// Names that this process puts into `pending/` itself: they are nothing new.
    own: HashSet<String>,
    /// When the directory was last modified, at the last poll.
    seen: Option<SystemTime>,
    /// The capture of the newest event that was heard of.
    newest: Timestamp,
    /// Whether there may be new events that were not heard of.
    missed: bool,
    /// Whether the directory that was watched is gone.
    lost: bool,
}

impl Watch {
    /// A watch for events that are captured from now on, or a little before.
    pub(crate) fn new(dir: &SpoolDir, wanted: bool, poll: Duration) -> Self {
        let shared = Arc::<Shared>::default();
        let pending = dir.layout.pending();
        let watch = Self { shared, pending, wanted, poll, watched: Mutex::default() };
        watch.renew();
        watch.shared.state().newest = dir.now().minus(RECENT);
        watch
    }

    /// Watches `pending/` anew if it is another directory than before.
    pub(crate) fn renew(&self) {
        let directory = fs::metadata(&self.pending).map(|found| (found.dev(), found.ino())).ok();
        let mut watched = self.watched.lock();
        let lost = std::mem::take(&mut self.shared.state().lost);
        if directory == watched.directory && !lost {
            return;
        }
        // A directory that comes back may have the number of the one that is gone.
        watched.directory = directory;
        if directory.is_none() {
            watched.watcher = None;
            return;
        }
        watched.watcher = match self.wanted.then(|| self.watcher()) {
            None => None,
            Some(Ok(watcher)) => Some(watcher),
            Some(Err(error)) => {
                tracing::warn!(target: "arrakis::queue", %error, poll_ms = self.poll.as_millis(),
                    "cannot watch the spool; looking at it now and then instead");
                None
            }
        };
        let mut state = self.shared.state();
        // All that is in another directory is new.
        (state.missed, state.newest) = (true, Timestamp::EPOCH);
        drop(state);
        self.shared.changed.notify_one();
    }

    fn watcher(&self) -> notify::Result<RecommendedWatcher> {
        let (heard, pending) = (Arc::clone(&self.shared), self.pending.clone());
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                let Ok(event) = event else { return };
                if event.need_rescan() {
                    heard.miss();
                }
                for path in &event.paths {
                    if *path == pending {
                        heard.hear_of_directory(event.kind);
                    } else {
                        heard.hear(path, event.kind);
                    }
                }
            })?;
        watcher.watch(&self.pending, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    }

    fn is_watching(&self) -> bool {
        let watched = self.watched.lock();
        watched.watcher.is_some()
    }

    /// Searches for new events that were not heard of: those that were captured after the newest that
    /// was. `now` bounds what a clock that was ahead has named the newest.
    pub(crate) fn catch_up(&self, now: Timestamp) -> io::Result<()> {
        let after = self.shared.state().newest.min(now);
        let mut newest = after;
        for entry in fs::read_dir(&self.pending)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            let found = EntryName::parse(name).filter(|found| found.rounds == 0);
            if let Some(found) = found.filter(|found| found.due > after) {
                newest = newest.max(found.due);
                self.shared.state().remember(&found, name);
            }
        }
        self.shared.state().newest = newest;
        Ok(())
    }

    /// Takes the oldest name that was heard of.
    pub(crate) fn next(&self) -> Option<String> {
        self.shared.state().fresh.pop_front()
    }

    /// Moves a file into `pending/` under this name, without taking it for a new event.
    pub(crate) fn put_back(&self, dir: &SpoolDir, from: &Path, name: &str) -> io::Result<()> {
        self.expect_own(name);
        dir.fs.rename(from, &self.pending.join(name))
    }

    /// Announces that this process is about to put `name` into `pending/`.
    fn expect_own(&self, name: &str) {
        if self.is_watching() {
            let mut state = self.shared.state();
            if state.own.len() < FRESH_MAX {
                state.own.insert(name.to_owned());
            }
        }
    }

    /// Waits until something new was heard of; `None` if there may be something that was not.
    pub(crate) async fn wait(&self, dir: &SpoolDir) -> Option<Wake> {
        let poke = dir.layout.poke();
        loop {
            if self.shared.state().lost {
                self.renew();
            }
            if poke.exists() && dir.fs.remove(&poke).is_ok() {
                return Some(Wake::Poked);
            }
            let others = std::mem::take(&mut self.shared.state().others);
            if others || !self.shared.state().fresh.is_empty() {
                return Some(Wake::Pushed);
            }
            if std::mem::take(&mut self.shared.state().missed) {
                return None;
            }
            tokio::select! {
                () = self.shared.changed.notified() => {}
                () = tokio::time::sleep(self.poll) => self.poll(),
            }
        }
    }

    /// Checks whether the directory has changed since the last poll, where it is not watched.
    fn poll(&self) {
        if !self.is_watching() {
            let now = fs::metadata(&self.pending).and_then(|found| found.modified()).ok();
            let mut state = self.shared.state();
            state.missed |= std::mem::replace(&mut state.seen, now) != now;
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// More happened than could be told.
    fn miss(&self) {
        let mut state = self.state();
        state.missed = true;
        // What was announced may have been among it.
        state.own.clear();
        drop(state);
        self.changed.notify_one();
    }

    fn hear_of_directory(&self, kind: EventKind) {
        if kind.is_remove() || is_renamed_away(kind) {
            self.state().lost = true;
            self.changed.notify_one();
        }
    }

    fn hear(&self, path: &Path, kind: EventKind) {
        if !may_bring(kind) {
            return;
        }
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
        let mut state = self.state();
        if let Some(entry) = EntryName::parse(name) {
            if state.own.remove(name) || entry.rounds > 0 {
                return;
            }
            state.newest = state.newest.max(entry.due);
            if state.fresh.back().is_none_or(|last| last != name) {
                state.remember(&entry, name);
            }
        } else if name != "poke" {
            return;
        }
        drop(state);
        self.changed.notify_one();
    }
}

impl State {
    fn remember(&mut self, entry: &EntryName, name: &str) {
        if entry.request_id.is_derived() {
            self.others = true;
        } else if self.fresh.len() < FRESH_MAX {
            self.fresh.push_back(name.to_owned());
        }
    }
}

/// Whether a file may have come with this.
fn may_bring(kind: EventKind) -> bool {
    let changed = matches!(kind, EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)));
    !(kind.is_remove() || kind.is_access() || changed || is_renamed_away(kind))
}

fn is_renamed_away(kind: EventKind) -> bool {
    matches!(kind, EventKind::Modify(ModifyKind::Name(RenameMode::From)))
}
