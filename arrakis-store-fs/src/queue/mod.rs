//! The filesystem [`Queue`].

mod aging;
pub(crate) mod claim;
mod dead_letter;
mod deferral;
mod lease;
pub mod receivers;
mod watch;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::Clock;
use arrakis_core::base::dead_letter::Failure;
use arrakis_core::base::envelope::Envelope;
use arrakis_core::base::id::RequestId;
use arrakis_core::base::limits::{SPOOL_MAX_BYTES, SPOOL_MAX_FILES};
use arrakis_core::delivery::queue::{
    Aged, Depth, Disposition, Lease, LeaseRequest, Leased, Queue, QueueError, Wake,
};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use crate::queue::aging::Census;
use crate::queue::deferral::PutOff;
use crate::queue::lease::Scan;
use crate::queue::watch::Watch;
use crate::spool::counters::{self, Exit, Tallying};
use crate::spool::durability::{FileSystem, RealFileSystem};
use crate::spool::history;
use crate::spool::layout::{EVENT_SUFFIX, EntryName, Layout};
use crate::spool::owner::{Owner, is_elsewhere};
use crate::spool::quarantine::quarantine;
use crate::spool::{Spool, SpoolError, Survey, survey};

/// The settings of an [`FsQueue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsQueueConfig {
    /// Whether the system is asked to tell of changes. Where it is not, as for a shared home whose
    /// events come from other machines, the spool is looked at.
    pub watch: bool,
    /// How often the spool is looked at where it is not watched.
    pub poll: Duration,
    /// Most events before the spool refuses new ones.
    pub max_files: u64,
    /// Most bytes before the spool refuses new events.
    pub max_bytes: u64,
}

impl Default for FsQueueConfig {
    fn default() -> Self {
        let poll = Duration::from_secs(1);
        Self { watch: true, poll, max_files: SPOOL_MAX_FILES, max_bytes: SPOOL_MAX_BYTES }
    }
}

/// A spool directory as a [`Queue`]. Each value is one owner: what it has leased is free again when
/// it is dropped, or when its process dies.
#[derive(Debug, Clone)]
pub struct FsQueue {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) layout: Layout,
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) watch: Watch,
    pub(crate) owner: Owner,
    pub(crate) config: FsQueueConfig,
    pub(crate) scan: Mutex<Scan>,
    pub(crate) census: Census,
    pub(crate) spool: Spool,
    /// The files of the events that are leased here, so that none is twice.
    leased: Mutex<HashMap<RequestId, String>>,
    /// Settlements that the medium did not take.
    unsettled: Mutex<Vec<(Lease, Disposition)>>,
    pub(crate) put_off: PutOff,
}

impl FsQueue {
    /// Opens the spool of `layout`, creating it where it is missing.
    ///
    /// # Errors
    ///
    /// The spool cannot be created or written.
    pub fn open(
        layout: Layout,
        clock: Arc<dyn Clock>,
        config: FsQueueConfig,
    ) -> Result<Self, QueueError> {
        Self::open_on(layout, Arc::new(RealFileSystem), clock, config)
    }

    /// Opens the spool of `layout`; what changes it goes through `fs`.
    ///
    /// # Errors
    ///
    /// The spool cannot be created or written.
    pub fn open_on(
        layout: Layout,
        fs: Arc<dyn FileSystem>,
        clock: Arc<dyn Clock>,
        config: FsQueueConfig,
    ) -> Result<Self, QueueError> {
        let spool = Spool::with_file_system(layout.clone(), Arc::clone(&fs));
        spool.create().map_err(spool_error)?;
        let now = clock.now();
        let owner = Owner::new(&layout, Arc::clone(&fs), now).map_err(|error| {
            medium(format!("create a directory in {}", layout.processing().display()), error)
        })?;
        let watch = Watch::new(&layout, config.watch, config.poll, now);
        let census = Census::new(&layout);
        let (scan, leased, unsettled, put_off) = Default::default();
        let inner = Inner {
            layout,
            fs,
            clock,
            watch,
            owner,
            config,
            scan,
            census,
            spool,
            leased,
            unsettled,
            put_off,
        };
        inner.sweep_tmp();
        if let Err(error) = counters::open(&inner.layout) {
            tracing::warn!(target: "arrakis::queue", %error, "cannot open the counts");
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs `work` where it may block.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Inner) -> io::Result<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        let inner = Arc::clone(&self.inner);
        let path = inner.layout.queue();
        let result = tokio::task::spawn_blocking(move || work(&inner)).await;
        result
            .unwrap_or_else(|panic| Err(io::Error::other(panic)))
            .map_err(|error| medium(format!("{action} {}", path.display()), error))
    }
}

#[async_trait]
impl Queue for FsQueue {
    async fn push(&self, envelope: Envelope) -> Result<(), QueueError> {
        let inner = Arc::clone(&self.inner);
        let pushed = tokio::task::spawn_blocking(move || push(&inner.spool, &envelope));
        match pushed.await {
            Ok(pushed) => pushed.map_err(spool_error),
            Err(panic) => Err(medium("push an event".to_owned(), io::Error::other(panic))),
        }
    }

    async fn lease(&self, request: LeaseRequest) -> Result<Leased, QueueError> {
        self.blocking("lease events from", move |inner| inner.lease(&request)).await
    }

    async fn settle(&self, settlements: Vec<(Lease, Disposition)>) -> Result<(), QueueError> {
        let inner = Arc::clone(&self.inner);
        let settled = tokio::task::spawn_blocking(move || {
            let mut result = Ok(());
            let mut tallying = Tallying::new(&inner.layout);
            for (lease, disposition) in settlements {
                if let Err(error) = inner.settle(&lease, &disposition, &mut tallying) {
                    if !matches!(error, QueueError::NotLeased(_)) {
                        inner.settle_later(&lease, disposition);
                    }
                    result = Err(error);
                }
            }
            drop(tallying);
            if let Err(error) = counters::fold_if_long(&inner.layout) {
                tracing::warn!(target: "arrakis::queue", %error, "cannot fold the counts");
            }
            result
        });
        settled.await.unwrap_or_else(|panic| {
            Err(medium("settle events".to_owned(), io::Error::other(panic)))
        })
    }

    async fn reap(&self) -> Result<u64, QueueError> {
        self.blocking("reap", |inner| {
            inner.mend()?;
            inner.settle_at_last();
            if inner.layout.processing().exists() { inner.owner.reap() } else { Ok(0) }
        })
        .await
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        self.blocking("count the events of", Inner::depth).await
    }

    async fn is_idle(&self) -> Result<bool, QueueError> {
        self.blocking("look into", |inner| is_idle(&inner.layout)).await
    }

    async fn age(&self, by: Duration) -> Result<Aged, QueueError> {
        self.blocking("look through", move |inner| inner.age(by)).await
    }

    async fn wait(&self) -> Wake {
        loop {
            if let Some(wake) = self.inner.watch.wait().await {
                if wake == Wake::Poked {
                    self.inner.put_off.clear();
                }
                return wake;
            }
            let look = |inner: &Inner| inner.watch.catch_up(inner.clock.now());
            if let Err(error) = self.blocking("look for new events in", look).await {
                // They are left to the scan.
                tracing::debug!(target: "arrakis::queue", %error, "cannot look for new events");
            }
        }
    }
}

impl Inner {
    /// Makes anew what somebody has removed under this process. A spool that is gone altogether stays
    /// so until something is captured.
    pub(crate) fn mend(&self) -> io::Result<()> {
        if self.layout.queue().exists() {
            if self.layout.directories().iter().any(|directory| !directory.exists()) {
                self.spool.create().map_err(io::Error::other)?;
            }
            self.owner.renew(self.clock.now())?;
        }
        self.watch.mend();
        Ok(())
    }

    pub(crate) fn leased(&self) -> MutexGuard<'_, HashMap<RequestId, String>> {
        self.leased.lock()
    }

    /// Moves what is held to `pending/`, under this name.
    pub(crate) fn put_back(&self, held: &Path, name: &str) -> io::Result<()> {
        self.watch.expect_own(name);
        self.fs.rename(held, &self.layout.pending().join(name))
    }

    fn settle(
        &self,
        lease: &Lease,
        disposition: &Disposition,
        tallying: &mut Tallying<'_>,
    ) -> Result<(), QueueError> {
        let id = lease.envelope.request_id();
        let held = self.owner.directory().join(&lease.token);
        let found = held.symlink_metadata().ok();
        let Some((name, found)) = EntryName::parse(&lease.token).zip(found) else {
            self.leased().remove(id);
            return Err(QueueError::NotLeased(id.clone()));
        };
        self.put_off.remove(id);
        let settled = match disposition {
            Disposition::Delivered | Disposition::Duplicate => {
                let delivered = matches!(disposition, Disposition::Delivered);
                let exit = if delivered { Exit::Delivered } else { Exit::Duplicate };
                tallying.leave(exit, || self.fs.remove(&held)).map(|()| {
                    history::remove(&self.layout, id);
                    self.census.reached(&name.tag);
                })
            }
            Disposition::Released => self.put_back(&held, &lease.token),
            Disposition::Deferred { due, failure } => {
                self.remember(id, failure);
                self.put_off.insert(id, *due);
                self.put_back(&held, &lease.token)
            }
            Disposition::RetryAt { due, failure } => {
                self.remember(id, failure);
                let name = EntryName { due: *due, rounds: name.rounds + 1, ..name };
                self.put_back(&held, &name.to_string())
            }
            Disposition::DeadLetter { failure } => {
                self.remember(id, failure);
                let name = EntryName { rounds: name.rounds + 1, ..name };
                self.fs.rename(&held, &self.layout.failed().join(name.to_string()))
            }
        };
        settled.map_err(|error| medium(format!("settle {}", held.display()), error))?;
        self.leased().remove(id);
        if matches!(
            disposition,
            Disposition::Delivered | Disposition::Duplicate | Disposition::DeadLetter { .. }
        ) {
            self.census.left(self, found.len());
        }
        Ok(())
    }

    /// Writes a failure into the history of an event. That is worth less than settling the event, which
    /// is possible on a full disk.
    fn remember(&self, id: &RequestId, failure: &Failure) {
        if let Err(error) = history::append(&self.layout, id, failure) {
            tracing::warn!(target: "arrakis::queue", request_id = %id, %error, code = failure.code,
                "cannot write a failure into the history of an event");
        }
    }

    /// Keeps a settlement for when the medium works again, without the payload.
    fn settle_later(&self, lease: &Lease, disposition: Disposition) {
        let header = lease.envelope.header.clone();
        let envelope = Arc::new(Envelope { header, payload: Bytes::new() });
        let lease = Lease { envelope, token: lease.token.clone(), ..*lease };
        self.unsettled().push((lease, disposition));
    }

    /// Tries the settlements again that the medium did not take.
    fn settle_at_last(&self) {
        let waiting = std::mem::take(&mut *self.unsettled());
        let mut tallying = Tallying::new(&self.layout);
        for (lease, disposition) in waiting {
            match self.settle(&lease, &disposition, &mut tallying) {
                Err(QueueError::NotLeased(_)) | Ok(()) => {}
                Err(_) => self.unsettled().push((lease, disposition)),
            }
        }
    }

    fn unsettled(&self) -> MutexGuard<'_, Vec<(Lease, Disposition)>> {
        self.unsettled.lock()
    }

    fn depth(&self) -> io::Result<Depth> {
        let Survey { pending, processing, failed, quarantined, pending_bytes, .. } =
            survey(&self.layout)?;
        self.census.counted(self, pending + processing, pending_bytes)?;
        Ok(Depth { pending, processing, failed, quarantined })
    }

    /// Deals with what crashed writers have left in `tmp/`: whole events are kept, the rest was never
    /// acknowledged to anybody.
    fn sweep_tmp(&self) {
        const AGE: Duration = Duration::from_secs(3600);
        for entry in fs::read_dir(self.layout.tmp()).into_iter().flatten().flatten() {
            let modified = entry.metadata().and_then(|found| found.modified());
            let age = modified.ok().and_then(|modified| modified.elapsed().ok());
            if age.is_none_or(|age| age < AGE) {
                continue;
            }
            let path = entry.path();
            let swept = match claim::read(&path) {
                Ok(Ok(envelope)) => {
                    let name = EntryName::of(&envelope.header).to_string();
                    self.fs.rename(&path, &self.layout.pending().join(name))
                }
                Ok(Err(reason)) => quarantine(&self.layout, &path, &reason),
                Err(error) => Err(error),
            };
            if let Err(error) = swept {
                tracing::warn!(target: "arrakis::queue", file = %path.display(), %error, "cannot sweep");
            }
        }
    }
}

/// Puts an event into the spool unless it is there already.
pub(crate) fn push(spool: &Spool, envelope: &Envelope) -> Result<(), SpoolError> {
    let layout = spool.layout();
    if layout.full().exists() {
        return Err(SpoolError::Full(layout.queue()));
    }
    if knows(layout, envelope) { Ok(()) } else { spool.write(envelope).map(drop) }
}

/// Whether the event is in the spool already. A name of its own would be taken for another event once
/// the first has lost a round, so its history counts too.
fn knows(layout: &Layout, envelope: &Envelope) -> bool {
    let name = EntryName::of(&envelope.header).to_string();
    let owners = fs::read_dir(layout.processing()).into_iter().flatten().flatten();
    layout.pending().join(&name).exists()
        || history::path(layout, envelope.request_id()).exists()
        || owners.map(|owner| owner.path().join(&name)).any(|path| path.exists())
}

/// Whether nothing waits in a spool and nothing is leased, but for what drainers on other machines
/// have. It stops looking at the first event.
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
        entries => Ok(entries?
            .flatten()
            .any(|entry| entry.file_name().as_encoded_bytes().ends_with(EVENT_SUFFIX.as_bytes()))),
    }
}

/// The names in a directory that are text.
pub(crate) fn names(directory: &Path) -> io::Result<impl Iterator<Item = io::Result<String>>> {
    let entries = fs::read_dir(directory)?;
    Ok(entries.filter_map(|entry| match entry {
        Ok(entry) => entry.file_name().into_string().ok().map(Ok),
        Err(error) => Some(Err(error)),
    }))
}

/// Finds the file of an event by its request id.
pub(crate) fn find(directory: &Path, id: &RequestId) -> io::Result<Option<String>> {
    for name in names(directory)? {
        let name = name?;
        if EntryName::parse(&name).is_some_and(|entry| entry.request_id == *id) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn spool_error(error: SpoolError) -> QueueError {
    match error {
        SpoolError::Full(path) => QueueError::Full(path.display().to_string()),
        SpoolError::Io { path, source } => medium(format!("write {}", path.display()), source),
        error @ SpoolError::Format(_) => {
            medium("write an event".to_owned(), io::Error::other(error))
        }
    }
}

fn medium(action: String, error: io::Error) -> QueueError {
    QueueError::Medium { action, source: error.into() }
}
