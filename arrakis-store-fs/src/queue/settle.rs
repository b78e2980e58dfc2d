//! Settling leases: each is one rename or one removal of the event's file.

use std::path::PathBuf;
use std::sync::Arc;

use arrakis_core::base::dead_letter::Failure;
use arrakis_core::base::envelope::Envelope;
use arrakis_core::base::id::RequestId;
use arrakis_core::delivery::queue::{Disposition, Lease, QueueError};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::queue::aging::Aging;
use crate::queue::claim::Claims;
use crate::queue::deferral::Deferrals;
use crate::queue::medium;
use crate::queue::watch::Watch;
use crate::spool::capacity::Fill;
use crate::spool::counters::{Exit, Recorder};
use crate::spool::dir::SpoolDir;
use crate::spool::history;
use crate::spool::layout::EntryName;

/// A batch of settlements.
pub(super) struct Settling<'a> {
    pub(super) dir: &'a SpoolDir,
    /// Where this process keeps what it has leased.
    pub(super) directory: PathBuf,
    pub(super) watch: &'a Watch,
    pub(super) claims: &'a Claims,
    pub(super) deferrals: &'a Deferrals,
    pub(super) aging: &'a Aging,
    pub(super) fill: &'a Fill,
    pub(super) recorder: Recorder<'a>,
}

impl Settling<'_> {
    pub(super) fn settle(
        &mut self,
        lease: &Lease,
        disposition: &Disposition,
    ) -> Result<(), QueueError> {
        let id = lease.envelope.request_id();
        let held = self.directory.join(&lease.token);
        let found = held.symlink_metadata().ok();
        let Some((name, found)) = EntryName::parse(&lease.token).zip(found) else {
            self.claims.release(id);
            return Err(QueueError::NotLeased(id.clone()));
        };
        self.deferrals.remove(id);
        let (dir, watch) = (self.dir, self.watch);
        let settled = match disposition {
            Disposition::Delivered | Disposition::Duplicate => {
                let delivered = matches!(disposition, Disposition::Delivered);
                let exit = if delivered { Exit::Delivered } else { Exit::Duplicate };
                self.recorder.leave(exit, || dir.fs.remove(&held)).map(|()| {
                    history::remove(dir, id);
                    self.aging.reached(&name.tag);
                })
            }
            Disposition::Released => watch.put_back(dir, &held, &lease.token),
            Disposition::Deferred { due, failure } => {
                self.remember(id, failure);
                self.deferrals.insert(id, *due);
                watch.put_back(dir, &held, &lease.token)
            }
            Disposition::RetryAt { due, failure } => {
                self.remember(id, failure);
                let name = EntryName { due: *due, rounds: name.rounds + 1, ..name };
                watch.put_back(dir, &held, &name.to_string())
            }
            Disposition::DeadLetter { failure } => {
                self.remember(id, failure);
                let name = EntryName { rounds: name.rounds + 1, ..name };
                dir.fs.rename(&held, &dir.layout.failed().join(name.to_string()))
            }
        };
        settled.map_err(|error| medium(format!("settle {}", held.display()), error))?;
        self.claims.release(id);
        if matches!(
            disposition,
            Disposition::Delivered | Disposition::Duplicate | Disposition::DeadLetter { .. }
        ) {
            self.fill.left(dir, found.len());
        }
        Ok(())
    }

    /// Writes a failure into the history of an event. That is worth less than settling the event, which
    /// is possible on a full disk.
    fn remember(&self, id: &RequestId, failure: &Failure) {
        if let Err(error) = history::append(self.dir, id, failure) {
            tracing::warn!(target: "arrakis::queue", request_id = %id, %error, code = failure.code,
                "cannot write a failure into the history of an event");
        }
    }
}

/// Settlements that the medium did not take.
#[derive(Debug, Default)]
pub(super) struct Unsettled(Mutex<Vec<(Lease, Disposition)>>);

impl Unsettled {
    /// Keeps a settlement for when the medium works again, without the payload.
    pub(super) fn keep(&self, lease: &Lease, disposition: Disposition) {
        let header = lease.envelope.header.clone();
        let envelope = Arc::new(Envelope { header, payload: Bytes::new() });
        let lease = Lease { envelope, token: lease.token.clone(), ..*lease };
        self.0.lock().push((lease, disposition));
    }

    /// Tries all of them again.
    pub(super) fn retry(&self, settling: &mut Settling<'_>) {
        let waiting = std::mem::take(&mut *self.0.lock());
        for (lease, disposition) in waiting {
            match settling.settle(&lease, &disposition) {
                Err(QueueError::NotLeased(_)) | Ok(()) => {}
                Err(_) => self.0.lock().push((lease, disposition)),
            }
        }
    }
}
