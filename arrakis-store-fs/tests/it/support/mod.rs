//! What the tests of the spool share.

pub(crate) mod crash;
pub(crate) mod faulty;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrakis_core::base::clock::{Clock, ManualClock, Timestamp};
use arrakis_core::base::dead_letter::Failure;
use arrakis_core::delivery::queue::{Disposition, Lane, Lease, LeaseRequest, Queue};
use arrakis_store_fs::spool::durability::{FileSystem, RealFileSystem};
use arrakis_store_fs::{FsQueue, FsQueueConfig, Layout, SpoolDir};
use tempfile::TempDir;

/// A home that is not there yet.
pub(crate) fn home() -> (TempDir, Layout) {
    let directory = TempDir::new().unwrap();
    let layout = Layout::new(directory.path().join("home"));
    (directory, layout)
}

pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)))
}

pub(crate) fn open(layout: &Layout) -> FsQueue {
    open_on(layout, Arc::new(RealFileSystem), FsQueueConfig::default())
}

pub(crate) fn open_on(layout: &Layout, fs: Arc<dyn FileSystem>, config: FsQueueConfig) -> FsQueue {
    FsQueue::open(on(layout.clone(), fs).with_clock(clock()), config).unwrap()
}

pub(crate) fn any(events: usize) -> LeaseRequest {
    LeaseRequest { lane: Lane::Any, events, bytes: 1 << 30, closed: Vec::new() }
}

/// The spool of `layout`, changed through `fs`.
pub(crate) fn on(layout: Layout, fs: Arc<dyn FileSystem>) -> SpoolDir {
    SpoolDir::new(layout).with_file_system(fs)
}

/// Leases everything that can be.
pub(crate) async fn lease_all(queue: &FsQueue) -> Vec<Lease> {
    let mut all = Vec::new();
    loop {
        let leases = queue.lease(any(100)).await.unwrap().leases;
        if leases.is_empty() {
            return all;
        }
        all.extend(leases);
    }
}

pub(crate) fn ids(leases: &[Lease]) -> Vec<String> {
    let mut ids: Vec<_> =
        leases.iter().map(|lease| lease.envelope.request_id().to_string()).collect();
    ids.sort();
    ids
}

pub(crate) async fn settle(queue: &FsQueue, leases: Vec<Lease>, disposition: &Disposition) {
    let settlements = leases.into_iter().map(|lease| (lease, disposition.clone())).collect();
    queue.settle(settlements).await.unwrap();
}

pub(crate) fn failure() -> Failure {
    let (code, message) = ("refused".to_owned(), "no".to_owned());
    Failure { at: Timestamp::from_millis(1_800_000_000_000), round: 1, code, message }
}

/// The entries of a directory, in order.
pub(crate) fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut entries: Vec<_> = entries.collect();
    entries.sort();
    entries
}
