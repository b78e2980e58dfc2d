//! Who is to blame where a receiver fails on an event that is alone in its request.
//!
//! The receiver itself may not work. So the event is to blame only if the receiver has taken another one since
//! it last failed on any that was alone. An event that the receiver fails on then fails a round. One that times
//! out fails none, because a slow network looks the same: it is deferred, and tried alone and after the others.
//! Without that proof the receiver is to blame, and the event waits for it.

use std::collections::HashMap;
use std::num::NonZeroU32;

use crate::base::id::RequestId;
use crate::base::limits::TIMED_OUT_EVENTS_MAX;
use crate::delivery::queue::Lease;
use crate::delivery::transport::TransportError;

/// Who is to blame for the failure of an event that was alone in its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delivery) enum Blame {
    /// The receiver: the event waits for it.
    Receiver,
    /// The event: it fails a round.
    Event,
    /// Perhaps the event, as it has timed out alone this many times: it is deferred, longer each time.
    TimedOut(NonZeroU32),
}

/// Tells events that one receiver cannot take from an outage of that receiver.
#[derive(Debug, Default)]
pub(super) struct PoisonTracker {
    /// Whether the receiver has taken an event since it last failed on one alone.
    is_proven: bool,
    /// How often each event has timed out alone.
    timed_out: HashMap<RequestId, NonZeroU32>,
}

impl PoisonTracker {
    /// The receiver has answered these events.
    pub(super) fn answered(&mut self, leases: &[Lease]) {
        self.is_proven = true;
        for lease in leases {
            self.timed_out.remove(lease.envelope.request_id());
        }
    }

    /// Whether an event is to be tried alone, and after the others.
    pub(super) fn has_timed_out(&self, id: &RequestId) -> bool {
        self.timed_out.contains_key(id)
    }

    /// Decides about each of `failed`, events that were alone in their requests. Uses up the proof that the
    /// receiver works.
    pub(super) fn blame(&mut self, failed: &[(Lease, TransportError)]) -> Vec<Blame> {
        let is_proven = std::mem::take(&mut self.is_proven);
        let mut blame = |(lease, error): &(Lease, TransportError)| {
            let is_timeout = matches!(error, TransportError::Timeout { .. });
            let times = is_timeout.then(|| self.count_timeout(lease.envelope.request_id()));
            match times {
                _ if !is_proven => Blame::Receiver,
                Some(times) => Blame::TimedOut(times),
                None => Blame::Event,
            }
        };
        failed.iter().map(&mut blame).collect()
    }

    fn count_timeout(&mut self, id: &RequestId) -> NonZeroU32 {
        if self.timed_out.len() >= TIMED_OUT_EVENTS_MAX {
            self.timed_out.clear();
        }
        let times = self.timed_out.get(id).map_or(NonZeroU32::MIN, |times| times.saturating_add(1));
        self.timed_out.insert(id.clone(), times);
        times
    }
}
