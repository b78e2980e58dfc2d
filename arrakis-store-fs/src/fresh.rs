//! Hearing of new events: a watch on `pending/`, and a look at it now and then where the watch fails.

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arrakis_core::queue::Wake;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use crate::layout::{EntryName, Layout};

/// Most names that are remembered as fresh. Beyond it they are left to the scan of the directory.
const FRESH_MAX: usize = 10_000;

/// Tells of new events in `pending/`.
#[derive(Debug)]
pub(crate) struct Watch {
    shared: Arc<Shared>,
    poke: PathBuf,
    pending: PathBuf,
    poll: Duration,
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
    /// Names that this process puts into `pending/` itself: they are nothing new.
    own: HashSet<String>,
    seen: Option<SystemTime>,
}

impl Watch {
    pub(crate) fn new(layout: &Layout, poll: Duration) -> Self {
        let shared = Arc::<Shared>::default();
        let heard = Arc::clone(&shared);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if let Ok(event) = event {
                for path in &event.paths {
                    heard.hear(path, &event.kind);
                }
            }
        });
        let watcher = watcher.and_then(|mut watcher| {
            watcher.watch(&layout.pending(), RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        let watcher = match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(target: "arrakis::queue", %error, poll_ms = poll.as_millis(),
                    "cannot watch the spool; looking at it now and then instead");
                None
            }
        };
        Self { shared, poke: layout.poke(), pending: layout.pending(), poll, watcher }
    }

    /// Takes the oldest name that was heard of.
    pub(crate) fn next(&self) -> Option<String> {
        self.shared.state().fresh.pop_front()
    }

    /// Announces that this process is about to put `name` into `pending/`.
    pub(crate) fn expect_own(&self, name: &str) {
        let mut state = self.shared.state();
        if self.watcher.is_some() && state.own.len() < FRESH_MAX {
            state.own.insert(name.to_owned());
        }
    }

    /// Waits until something new was heard of, or seen.
    pub(crate) async fn wait(&self) -> Wake {
        loop {
            if std::fs::remove_file(&self.poke).is_ok() {
                return Wake::Poked;
            }
            if !self.shared.state().fresh.is_empty() {
                return Wake::Pushed;
            }
            tokio::select! {
                () = self.shared.changed.notified() => {}
                () = tokio::time::sleep(self.poll) => {
                    if self.has_changed() {
                        return Wake::Pushed;
                    }
                }
            }
        }
    }

    /// Whether the directory has changed since the last look.
    fn has_changed(&self) -> bool {
        let now = std::fs::metadata(&self.pending).and_then(|found| found.modified()).ok();
        std::mem::replace(&mut self.shared.state().seen, now) != now
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, path: &Path, kind: &notify::EventKind) {
        if kind.is_remove() || kind.is_access() {
            return;
        }
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
        let mut state = self.state();
        if let Some(entry) = EntryName::parse(name) {
            let renamed_away = matches!(
                kind,
                notify::EventKind::Modify(notify::event::ModifyKind::Name(
                    notify::event::RenameMode::From
                ))
            );
            if renamed_away || state.own.remove(name) || entry.rounds > 0 {
                return;
            }
            if state.fresh.len() < FRESH_MAX && state.fresh.back().is_none_or(|last| last != name) {
                state.fresh.push_back(name.to_owned());
            }
        } else if name != "poke" {
            return;
        }
        drop(state);
        self.changed.notify_one();
    }
}
