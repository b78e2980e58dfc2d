//! A queue in memory: for embedding where nothing must survive the process, and the yardstick of the
//! conformance suite.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::{Aged, Depth, Disposition, Lane, Lease, LeaseRequest, Leased, Queue, QueueError, Wake};
use crate::base::clock::{Clock, Timestamp};
use crate::base::dead_letter::{
    DeadLetter, DeadLetterDetail, DeadLetterError, DeadLetters, Failure,
};
use crate::base::envelope::Envelope;
use crate::base::id::RequestId;
use crate::base::limits::{DUE_HORIZON, PENDING_MAX_AGE};

/// One owner's handle on a queue in memory. Events that it has leased become free when it is dropped
/// and another owner reaps.
#[derive(Debug)]
pub struct MemoryQueue {
    shared: Arc<Shared>,
    owner: u64,
}

#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    entries: Mutex<BTreeMap<RequestId, Entry>>,
    /// Destinations that something was delivered to since the last call of `age`.
    reached: Mutex<HashSet<String>>,
    pushed: Notify,
    owners: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    envelope: Arc<Envelope>,
    state: State,
    due: Timestamp,
    failed_rounds: u32,
    history: Vec<Failure>,
    fresh: bool,
    /// How long it has waited, once somebody has looked.
    waited: Option<Duration>,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Pending,
    Leased {
        owner: u64,
    },
    /// Leased by an owner that is gone.
    Orphaned,
    Failed,
    /// A dead letter because it waited for too long.
    Expired,
}

impl MemoryQueue {
    /// An empty queue.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let shared = Shared {
            clock,
            entries: Mutex::default(),
            reached: Mutex::default(),
            pushed: Notify::new(),
            owners: AtomicU64::new(1),
        };
        Self { shared: Arc::new(shared), owner: 0 }
    }

    /// Another owner of the same queue.
    #[must_use]
    pub fn another_owner(&self) -> Self {
        let owner = self.shared.owners.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(&self.shared), owner }
    }

    fn reached(&self) -> MutexGuard<'_, HashSet<String>> {
        self.shared.reached.lock()
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<RequestId, Entry>> {
        self.shared.entries.lock()
    }
}

impl Drop for MemoryQueue {
    fn drop(&mut self) {
        let mine = State::Leased { owner: self.owner };
        for entry in self.entries().values_mut().filter(|entry| entry.state == mine) {
            entry.state = State::Orphaned;
        }
    }
}

impl Entry {
    /// Whether it waits and `request` is about it, due or not.
    fn is_wanted(&self, request: &LeaseRequest) -> bool {
        let wanted = match &request.lane {
            Lane::Fresh => self.fresh,
            Lane::Any => true,
            Lane::One(id) => self.envelope.request_id() == id,
        };
        let closed = request.closed.contains(&self.envelope.header.destination);
        self.state == State::Pending && wanted && !closed
    }

    fn revive(&mut self, now: Timestamp) {
        self.state = State::Pending;
        self.due = now;
        self.waited = None;
    }

    fn is_failed(&self) -> bool {
        matches!(self.state, State::Failed | State::Expired)
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.due <= now || self.due > now.plus(DUE_HORIZON)
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn push(&self, envelope: Envelope) -> Result<(), QueueError> {
        let entry = Entry {
            due: self.shared.clock.now(),
            state: State::Pending,
            failed_rounds: 0,
            history: Vec::new(),
            fresh: true,
            waited: None,
            envelope: Arc::new(envelope),
        };
        self.entries().entry(entry.envelope.request_id().clone()).or_insert(entry);
        self.shared.pushed.notify_one();
        Ok(())
    }

    async fn lease(&self, request: LeaseRequest) -> Result<Leased, QueueError> {
        let now = self.shared.clock.now();
        let mut leased = Leased::default();
        let mut bytes = 0;
        for entry in self.entries().values_mut().filter(|entry| entry.is_wanted(&request)) {
            if !entry.is_due(now) && !matches!(request.lane, Lane::One(_)) {
                leased.next_due =
                    Some(leased.next_due.map_or(entry.due, |due: Timestamp| due.min(entry.due)));
                continue;
            }
            bytes += entry.envelope.payload.len();
            let full = leased.leases.len() >= request.events || bytes > request.bytes;
            if full && !leased.leases.is_empty() {
                break;
            }
            entry.state = State::Leased { owner: self.owner };
            entry.fresh = false;
            leased.leases.push(Lease {
                envelope: Arc::clone(&entry.envelope),
                failed_rounds: entry.failed_rounds,
                token: self.owner.to_string(),
            });
        }
        if !leased.leases.is_empty() {
            leased.next_due = None;
        }
        Ok(leased)
    }

    async fn settle(&self, settlements: Vec<(Lease, Disposition)>) -> Result<(), QueueError> {
        let mut result = Ok(());
        let mut entries = self.entries();
        for (lease, disposition) in settlements {
            let id = lease.envelope.request_id();
            let mine = State::Leased { owner: self.owner };
            let Some(entry) = entries.get_mut(id).filter(|entry| entry.state == mine) else {
                result = Err(QueueError::NotLeased(id.clone()));
                continue;
            };
            match disposition {
                Disposition::Delivered | Disposition::Duplicate => {
                    self.reached().insert(entry.envelope.header.destination.clone());
                    entries.remove(id);
                }
                Disposition::Released => entry.state = State::Pending,
                Disposition::Deferred { due, failure } => {
                    entry.state = State::Pending;
                    entry.due = due;
                    entry.history.push(failure);
                }
                Disposition::RetryAt { due, failure } => {
                    entry.state = State::Pending;
                    entry.due = due;
                    entry.failed_rounds += 1;
                    entry.history.push(failure);
                }
                Disposition::DeadLetter { failure } => {
                    entry.state = State::Failed;
                    entry.failed_rounds += 1;
                    entry.history.push(failure);
                }
            }
        }
        result
    }

    async fn reap(&self) -> Result<u64, QueueError> {
        let mut reaped = 0;
        for entry in self.entries().values_mut().filter(|e| e.state == State::Orphaned) {
            entry.state = State::Pending;
            reaped += 1;
        }
        Ok(reaped)
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        let mut depth = Depth::default();
        for entry in self.entries().values() {
            match entry.state {
                State::Pending => depth.pending += 1,
                State::Leased { .. } | State::Orphaned => depth.processing += 1,
                State::Failed | State::Expired => depth.failed += 1,
            }
        }
        Ok(depth)
    }

    async fn age(&self, by: Duration) -> Result<Aged, QueueError> {
        let now = self.shared.clock.now();
        let reached = std::mem::take(&mut *self.reached());
        let mut aged = Aged::default();
        for entry in self.entries().values_mut() {
            match entry.state {
                State::Pending => {
                    let waited = entry.waited.map_or(Duration::ZERO, |waited| waited + by);
                    entry.waited = Some(waited);
                    if waited >= PENDING_MAX_AGE {
                        entry.state = State::Expired;
                        entry.history.push(Failure::expired(now, entry.failed_rounds));
                        aged.expired += 1;
                    }
                }
                State::Expired if reached.contains(&entry.envelope.header.destination) => {
                    entry.revive(now);
                    aged.revived += 1;
                }
                _ => {}
            }
        }
        Ok(aged)
    }

    async fn wait(&self) -> Wake {
        self.shared.pushed.notified().await;
        Wake::Pushed
    }
}

#[async_trait]
impl DeadLetters for MemoryQueue {
    async fn list(
        &self,
        after: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, DeadLetterError> {
        let entries = self.entries();
        let failed = entries.iter().filter(|(_, entry)| entry.is_failed());
        let later = failed.filter(|(id, _)| after.as_ref().is_none_or(|after| *id > after));
        Ok(later.take(limit).map(|(_, entry)| letter(entry)).collect())
    }

    async fn show(&self, id: &RequestId) -> Result<Option<DeadLetterDetail>, DeadLetterError> {
        let entries = self.entries();
        let failed = entries.get(id).filter(|entry| entry.is_failed());
        Ok(failed.map(|entry| DeadLetterDetail {
            letter: letter(entry),
            header: Some(entry.envelope.header.clone()),
            payload: entry.envelope.payload.clone(),
            history: entry.history.clone(),
        }))
    }

    async fn redrive(&self, ids: &[RequestId]) -> Result<u64, DeadLetterError> {
        let now = self.shared.clock.now();
        let mut redriven = 0;
        let mut entries = self.entries();
        for id in ids {
            if let Some(entry) = entries.get_mut(id).filter(|entry| entry.is_failed()) {
                entry.revive(now);
                entry.failed_rounds = 0;
                redriven += 1;
            }
        }
        drop(entries);
        self.shared.pushed.notify_one();
        Ok(redriven)
    }

    async fn discard(&self, ids: &[RequestId]) -> Result<u64, DeadLetterError> {
        let mut entries = self.entries();
        let before = entries.len();
        for id in ids {
            if entries.get(id).is_some_and(Entry::is_failed) {
                entries.remove(id);
            }
        }
        Ok((before - entries.len()) as u64)
    }
}

fn letter(entry: &Entry) -> DeadLetter {
    DeadLetter {
        request_id: entry.envelope.request_id().clone(),
        event_type: entry.envelope.header.event_type.clone(),
        session_id: entry.envelope.header.session_id.clone(),
        failure: entry.history.last().cloned(),
    }
}
