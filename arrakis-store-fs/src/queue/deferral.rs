//! Events that were deferred without a failed round.

use std::num::NonZeroUsize;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::id::RequestId;
use arrakis_core::base::limits::TIMED_OUT_EVENTS_MAX;
use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};

use crate::spool::layout::is_due;

/// When the events are due that this process has deferred. Their names cannot say it: the time in the name of
/// an event that has lost no round is when it was captured, by whatever clock.
#[derive(Debug)]
pub(crate) struct Deferrals(Mutex<LruCache<RequestId, Timestamp>>);

impl Default for Deferrals {
    fn default() -> Self {
        const MAX: NonZeroUsize = NonZeroUsize::new(TIMED_OUT_EVENTS_MAX).unwrap();
        Self(Mutex::new(LruCache::new(MAX)))
    }
}

impl Deferrals {
    pub(crate) fn insert(&self, id: &RequestId, due: Timestamp) {
        self.known().put(id.clone(), due);
    }

    /// When an event is due, if it is not yet.
    pub(crate) fn until(&self, id: &RequestId, now: Timestamp) -> Option<Timestamp> {
        self.known().peek(id).copied().filter(|due| !is_due(*due, now))
    }

    pub(crate) fn remove(&self, id: &RequestId) {
        self.known().pop(id);
    }

    /// Makes all of them due.
    pub(crate) fn clear(&self) {
        self.known().clear();
    }

    fn known(&self) -> MutexGuard<'_, LruCache<RequestId, Timestamp>> {
        self.0.lock()
    }
}
