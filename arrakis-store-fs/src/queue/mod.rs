//! The filesystem [`Queue`].

mod aging;
mod claim;
mod dead_letter;
mod deferral;
mod lease;
mod settle;
mod watch;

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::envelope::Envelope;
use arrakis_core::delivery::queue::{
    Aged, Depth, Disposition, Lease, LeaseRequest, Leased, Queue, QueueError, Wake,
};
use async_trait::async_trait;
use parking_lot::Mutex;

use crate::queue::aging::Aging;
use crate::queue::claim::Claims;
use crate::queue::deferral::Deferrals;
use crate::queue::lease::{Lessor, Scan};
use crate::queue::settle::{Settling, Unsettled};
use crate::queue::watch::Watch;
use crate::spool::capacity::{Fill, SpoolLimits};
use crate::spool::counters::{self, Recorder};
use crate::spool::dir::SpoolDir;
use crate::spool::file;
use crate::spool::layout::EntryName;
use crate::spool::owner::Owner;
use crate::spool::quarantine::quarantine;
use crate::spool::{Spool, SpoolError, Survey, is_idle, survey};

/// The settings of an [`FsQueue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsQueueConfig {
    /// Whether to watch the directory. A shared home, whose events come from other machines, is polled instead.
    pub watch: bool,
    /// How often the directory is polled where it is not watched.
    pub poll: Duration,
    /// What the spool holds before it refuses new events.
    pub limits: SpoolLimits,
}

impl Default for FsQueueConfig {
    fn default() -> Self {
        Self { watch: true, poll: Duration::from_secs(1), limits: SpoolLimits::default() }
    }
}

/// A spool directory as a [`Queue`]. Each value is one owner: what it has leased is free again when
/// it is dropped, or when its process dies.
#[derive(Debug, Clone)]
pub struct FsQueue {
    parts: Arc<Parts>,
}

/// What a queue consists of. Each part owns its state and gets the others as arguments.
#[derive(Debug)]
struct Parts {
    dir: SpoolDir,
    spool: Spool,
    owner: Owner,
    watch: Watch,
    fill: Fill,
    aging: Aging,
    scan: Mutex<Scan>,
    claims: Claims,
    deferrals: Deferrals,
    unsettled: Unsettled,
}

impl FsQueue {
    /// Opens the spool in `dir`, creating it where it is missing.
    ///
    /// # Errors
    ///
    /// The spool cannot be created or written.
    pub fn open(dir: impl Into<SpoolDir>, config: FsQueueConfig) -> Result<Self, QueueError> {
        let dir = dir.into();
        let spool = Spool::new(dir.clone());
        spool.create().map_err(spool_error)?;
        let owner = Owner::new(dir.clone()).map_err(|error| {
            medium(format!("create a directory in {}", dir.layout.processing().display()), error)
        })?;
        let watch = Watch::new(&dir, config.watch, config.poll);
        let fill = Fill::new(&dir.layout, config.limits);
        sweep_tmp(&dir);
        if let Err(error) = counters::open(&dir) {
            tracing::warn!(target: "arrakis::queue", %error, "cannot open the counts");
        }
        let (aging, scan, claims, deferrals, unsettled) = Default::default();
        let parts =
            Parts { dir, spool, owner, watch, fill, aging, scan, claims, deferrals, unsettled };
        Ok(Self { parts: Arc::new(parts) })
    }

    /// Runs `work` on the spool's directory where it may block.
    async fn blocking_in_dir<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&SpoolDir) -> io::Result<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.blocking(action, move |parts| work(&parts.dir)).await
    }

    /// Runs `work` where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Parts) -> io::Result<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        let parts = Arc::clone(&self.parts);
        let path = parts.dir.layout.queue();
        let result = tokio::task::spawn_blocking(move || work(&parts)).await;
        result
            .unwrap_or_else(|panic| Err(io::Error::other(panic)))
            .map_err(|error| medium(format!("{action} {}", path.display()), error))
    }
}

#[async_trait]
impl Queue for FsQueue {
    async fn push(&self, envelope: Envelope) -> Result<(), QueueError> {
        let parts = Arc::clone(&self.parts);
        match tokio::task::spawn_blocking(move || parts.spool.push(&envelope)).await {
            Ok(pushed) => pushed.map_err(spool_error),
            Err(panic) => Err(medium("push an event".to_owned(), io::Error::other(panic))),
        }
    }

    async fn lease(&self, request: LeaseRequest) -> Result<Leased, QueueError> {
        self.blocking("lease events from", move |parts| parts.lease(&request)).await
    }

    async fn settle(&self, settlements: Vec<(Lease, Disposition)>) -> Result<(), QueueError> {
        let parts = Arc::clone(&self.parts);
        let settled = tokio::task::spawn_blocking(move || parts.settle(settlements));
        settled.await.unwrap_or_else(|panic| {
            Err(medium("settle events".to_owned(), io::Error::other(panic)))
        })
    }

    async fn reap(&self) -> Result<u64, QueueError> {
        self.blocking("reap", |parts| {
            parts.restore()?;
            parts.unsettled.retry(&mut parts.settling());
            if parts.dir.layout.processing().exists() { parts.owner.reap() } else { Ok(0) }
        })
        .await
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        self.blocking("count the events of", Parts::depth).await
    }

    async fn is_idle(&self) -> Result<bool, QueueError> {
        self.blocking_in_dir("look into", |dir| is_idle(&dir.layout)).await
    }

    async fn age(&self, by: Duration) -> Result<Aged, QueueError> {
        self.blocking("look through", move |parts| {
            parts.aging.age(&parts.dir, &parts.fill, &parts.watch, by)
        })
        .await
    }

    async fn wait(&self) -> Wake {
        loop {
            if let Some(wake) = self.parts.watch.wait(&self.parts.dir).await {
                if wake == Wake::Poked {
                    self.parts.deferrals.clear();
                }
                return wake;
            }
            let catch_up = |parts: &Parts| parts.watch.catch_up(parts.dir.now());
            if let Err(error) = self.blocking("look for new events in", catch_up).await {
                // They are left to the scan.
                tracing::debug!(target: "arrakis::queue", %error, "cannot look for new events");
            }
        }
    }
}

impl Parts {
    /// Creates directories again that were removed while this process runs. A spool that is gone as a whole is
    /// created by the next capture.
    fn restore(&self) -> io::Result<()> {
        let layout = &self.dir.layout;
        if layout.queue().exists() {
            if layout.directories().iter().any(|directory| !directory.exists()) {
                self.spool.create().map_err(io::Error::other)?;
            }
            self.owner.renew()?;
        }
        self.watch.renew();
        Ok(())
    }

    fn lease(&self, request: &LeaseRequest) -> io::Result<Leased> {
        self.restore()?;
        if !self.dir.layout.queue().exists() {
            return Ok(Leased::default());
        }
        let lessor = Lessor {
            dir: &self.dir,
            directory: &self.owner.directory(),
            watch: &self.watch,
            claims: &self.claims,
            deferrals: &self.deferrals,
        };
        lease::lease(lessor, &self.scan, request)
    }

    fn settle(&self, settlements: Vec<(Lease, Disposition)>) -> Result<(), QueueError> {
        let mut result = Ok(());
        let mut settling = self.settling();
        for (lease, disposition) in settlements {
            if let Err(error) = settling.settle(&lease, &disposition) {
                if !matches!(error, QueueError::NotLeased(_)) {
                    self.unsettled.keep(&lease, disposition);
                }
                result = Err(error);
            }
        }
        drop(settling);
        if let Err(error) = counters::fold_if_long(&self.dir) {
            tracing::warn!(target: "arrakis::queue", %error, "cannot fold the counts");
        }
        result
    }

    fn settling(&self) -> Settling<'_> {
        Settling {
            dir: &self.dir,
            directory: self.owner.directory(),
            watch: &self.watch,
            claims: &self.claims,
            deferrals: &self.deferrals,
            aging: &self.aging,
            fill: &self.fill,
            recorder: Recorder::new(&self.dir.layout),
        }
    }

    fn depth(&self) -> io::Result<Depth> {
        let Survey { pending, processing, failed, quarantined, pending_bytes, .. } =
            survey(&self.dir.layout)?;
        self.fill.counted(&self.dir, pending + processing, pending_bytes)?;
        Ok(Depth { pending, processing, failed, quarantined })
    }
}

/// Deals with what crashed writers have left in `tmp/`: whole events are kept, the rest was never
/// acknowledged to anybody.
fn sweep_tmp(dir: &SpoolDir) {
    const AGE: Duration = Duration::from_secs(3600);
    for entry in fs::read_dir(dir.layout.tmp()).into_iter().flatten().flatten() {
        let modified = entry.metadata().and_then(|found| found.modified());
        let age = modified.ok().and_then(|modified| modified.elapsed().ok());
        if age.is_none_or(|age| age < AGE) {
            continue;
        }
        let path = entry.path();
        let swept = match file::read(&path) {
            Ok(Ok(envelope)) => {
                let name = EntryName::of(&envelope.header).to_string();
                dir.fs.rename(&path, &dir.layout.pending().join(name))
            }
            Ok(Err(reason)) => quarantine(dir, &path, &reason),
            Err(error) => Err(error),
        };
        if let Err(error) = swept {
            tracing::warn!(target: "arrakis::queue", file = %path.display(), %error, "cannot sweep");
        }
    }
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
