//! The filesystem [`Queue`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrakis_core::clock::{Clock, Timestamp};
use arrakis_core::envelope::Envelope;
use arrakis_core::id::RequestId;
use arrakis_core::limits::{SPOOL_MAX_BYTES, SPOOL_MAX_FILES};
use arrakis_core::queue::{
    Depth, Disposition, Lane, Lease, LeaseRequest, Leased, Queue, QueueError, Wake,
};
use async_trait::async_trait;

use crate::claim::claim;
use crate::counters::{self, Exit, Tallying};
use crate::fresh::Watch;
use crate::history;
use crate::layout::{EVENT_SUFFIX, EntryName, Layout, Unreadable, destination_tag};
use crate::owner::Owner;
use crate::quarantine::quarantine;
use crate::spool::{Spool, SpoolError, Survey, survey};

/// The settings of an [`FsQueue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsQueueConfig {
    /// How often the spool is looked at where it cannot be watched.
    pub poll: Duration,
    /// Most events before the spool refuses new ones.
    pub max_files: u64,
    /// Most bytes before the spool refuses new events.
    pub max_bytes: u64,
}

impl Default for FsQueueConfig {
    fn default() -> Self {
        let poll = Duration::from_secs(2);
        Self { poll, max_files: SPOOL_MAX_FILES, max_bytes: SPOOL_MAX_BYTES }
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
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) watch: Watch,
    spool: Spool,
    config: FsQueueConfig,
    owner: Owner,
    scan: Mutex<Scan>,
}

/// A pass through `pending/` that goes on from one lease to the next, so that a million files cost no
/// memory and the first of them no wait.
#[derive(Debug, Default)]
struct Scan {
    entries: Option<fs::ReadDir>,
    next_due: Option<Timestamp>,
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
        let spool = Spool::new(layout.clone());
        spool.create().map_err(spool_error)?;
        let owner = Owner::new(&layout, clock.now()).map_err(|error| {
            medium(format!("create a directory in {}", layout.processing().display()), error)
        })?;
        let watch = Watch::new(&layout, config.poll);
        let scan = Mutex::default();
        let inner = Inner { layout, clock, watch, spool, config, owner, scan };
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
        let pushed = tokio::task::spawn_blocking(move || {
            if inner.layout.full().exists() {
                return Err(SpoolError::Full(inner.layout.queue()));
            }
            if inner.knows(&envelope) { Ok(()) } else { inner.spool.write(&envelope).map(drop) }
        });
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
                if let Err(error) = inner.settle(&lease, disposition, &mut tallying) {
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
        self.blocking("reap", |inner| inner.owner.reap()).await
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        self.blocking("count the events of", Inner::depth).await
    }

    async fn wait(&self) -> Wake {
        self.inner.watch.wait().await
    }
}

impl Inner {
    fn lease(&self, request: &LeaseRequest) -> io::Result<Leased> {
        let mut lessee = Lessee {
            inner: self,
            closed: request.closed.iter().map(|d| destination_tag(d)).collect(),
            now: self.clock.now(),
            room_events: request.events,
            room_bytes: request.bytes,
            leases: Vec::new(),
        };
        let mut next_due = None;
        match &request.lane {
            Lane::Fresh => {
                while lessee.has_room() {
                    let Some(name) = self.watch.next() else { break };
                    lessee.offer(&name)?;
                }
            }
            Lane::Any => {
                let mut scan = self.scan.lock().unwrap_or_else(PoisonError::into_inner);
                next_due = self.scan(&mut scan, &mut lessee)?;
            }
            Lane::One(id) => {
                if let Some(name) = find(&self.layout.pending(), id)? {
                    lessee.take(&name)?;
                }
            }
        }
        let next_due = if lessee.leases.is_empty() { next_due } else { None };
        Ok(Leased { leases: lessee.leases, next_due })
    }

    /// Goes on through `pending/` until there is no room left or a whole pass was made; returns the
    /// earliest due time that a whole pass has met.
    fn scan(&self, scan: &mut Scan, lessee: &mut Lessee<'_>) -> io::Result<Option<Timestamp>> {
        let mut whole_pass = false;
        loop {
            if scan.entries.is_none() {
                if whole_pass {
                    return Ok(scan.next_due);
                }
                *scan =
                    Scan { entries: Some(fs::read_dir(self.layout.pending())?), next_due: None };
                whole_pass = true;
            }
            while lessee.has_room() {
                let Some(entry) = scan.entries.as_mut().and_then(Iterator::next) else {
                    scan.entries = None;
                    break;
                };
                let name = entry?.file_name();
                let Some(name) = name.to_str() else {
                    if name.as_encoded_bytes().ends_with(EVENT_SUFFIX.as_bytes()) {
                        self.set_aside(self.layout.pending().join(&name))?;
                    }
                    continue;
                };
                if let Offer::Later(due) = lessee.offer(name)? {
                    scan.next_due = Some(scan.next_due.map_or(due, |next| next.min(due)));
                }
            }
            if !lessee.has_room() {
                return Ok(scan.next_due);
            }
        }
    }

    fn set_aside(&self, path: PathBuf) -> io::Result<()> {
        quarantine(&self.layout, &path, &Unreadable("its name is not one of an event".to_owned()))
    }

    fn settle(
        &self,
        lease: &Lease,
        disposition: Disposition,
        tallying: &mut Tallying<'_>,
    ) -> Result<(), QueueError> {
        let mut leave = |held: &Path, exit| {
            tallying.leave(exit, || fs::remove_file(held))?;
            history::remove(&self.layout, lease.envelope.request_id());
            Ok(())
        };
        let id = lease.envelope.request_id();
        let held = self.owner.directory().join(&lease.token);
        let name = EntryName::parse(&lease.token).filter(|_| held.exists());
        let name = name.ok_or_else(|| QueueError::NotLeased(id.clone()))?;
        let settled = match disposition {
            Disposition::Delivered => leave(&held, Exit::Delivered),
            Disposition::Duplicate => leave(&held, Exit::Duplicate),
            Disposition::Released => self.give_back(&held, &name),
            Disposition::RetryAt { due, failure } => history::append(&self.layout, id, &failure)
                .and_then(|()| {
                    self.give_back(&held, &EntryName { due, rounds: name.rounds + 1, ..name })
                }),
            Disposition::DeadLetter { failure } => history::append(&self.layout, id, &failure)
                .and_then(|()| {
                    let name = EntryName { rounds: name.rounds + 1, ..name };
                    fs::rename(&held, self.layout.failed().join(name.to_string()))
                }),
        };
        settled.map_err(|error| medium(format!("settle {}", held.display()), error))
    }

    fn give_back(&self, held: &Path, name: &EntryName) -> io::Result<()> {
        let name = name.to_string();
        self.watch.expect_own(&name);
        fs::rename(held, self.layout.pending().join(name))
    }

    fn depth(&self) -> io::Result<Depth> {
        let Survey { pending, processing, failed, quarantined, pending_bytes, .. } =
            survey(&self.layout)?;
        self.mark_full(pending + processing, pending_bytes)?;
        Ok(Depth { pending, processing, failed, quarantined })
    }

    /// Sets or takes away the flag that has the spool refuse new events.
    fn mark_full(&self, files: u64, bytes: u64) -> io::Result<()> {
        let flag = self.layout.full();
        let full = files >= self.config.max_files || bytes >= self.config.max_bytes;
        if full && !flag.exists() {
            tracing::error!(target: "arrakis::queue", files, bytes,
                "the spool is full and refuses new events until its receiver is back");
            fs::write(flag, b"")
        } else if !full && flag.exists() {
            fs::remove_file(flag)
        } else {
            Ok(())
        }
    }

    /// Whether the event is here already. A name of its own would be taken for another event once the
    /// first has lost a round, so its history counts too.
    fn knows(&self, envelope: &Envelope) -> bool {
        let name = EntryName::of(&envelope.header).to_string();
        let owners = fs::read_dir(self.layout.processing()).into_iter().flatten().flatten();
        self.layout.pending().join(&name).exists()
            || history::path(&self.layout, envelope.request_id()).exists()
            || owners.map(|owner| owner.path().join(&name)).any(|path| path.exists())
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
            let swept = match crate::claim::read(&path) {
                Ok(Ok(envelope)) => {
                    let name = EntryName::of(&envelope.header).to_string();
                    fs::rename(&path, self.layout.pending().join(name))
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

/// A lease request that is being filled.
struct Lessee<'a> {
    inner: &'a Inner,
    closed: Vec<String>,
    now: Timestamp,
    room_events: usize,
    room_bytes: usize,
    leases: Vec<Lease>,
}

/// What became of a name.
enum Offer {
    /// It was taken, or is none of ours.
    Done,
    /// It is due later.
    Later(Timestamp),
}

impl Lessee<'_> {
    fn has_room(&self) -> bool {
        self.leases.is_empty() || (self.room_events > 0 && self.room_bytes > 0)
    }

    fn offer(&mut self, name: &str) -> io::Result<Offer> {
        let Some(entry) = EntryName::parse(name) else {
            if name.ends_with(EVENT_SUFFIX) {
                self.inner.set_aside(self.inner.layout.pending().join(name))?;
            }
            return Ok(Offer::Done);
        };
        if self.closed.contains(&entry.tag) {
            return Ok(Offer::Done);
        }
        if !entry.is_due(self.now) {
            return Ok(Offer::Later(entry.due));
        }
        self.take(name)?;
        Ok(Offer::Done)
    }

    fn take(&mut self, name: &str) -> io::Result<()> {
        let inner = self.inner;
        let Some(envelope) = claim(&inner.layout, &inner.owner, name)? else { return Ok(()) };
        let size = envelope.payload.len();
        if size > self.room_bytes && !self.leases.is_empty() {
            self.room_bytes = 0;
            inner.watch.expect_own(name);
            return fs::rename(
                inner.owner.directory().join(name),
                inner.layout.pending().join(name),
            );
        }
        self.room_events = self.room_events.saturating_sub(1);
        self.room_bytes = self.room_bytes.saturating_sub(size);
        let rounds_burnt = EntryName::parse(name).map_or(0, |entry| entry.rounds);
        let token = name.to_owned();
        self.leases.push(Lease { envelope: Arc::new(envelope), rounds_burnt, token });
        Ok(())
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
