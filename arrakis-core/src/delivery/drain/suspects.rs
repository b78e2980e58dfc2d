//! What speaks for and against events on which a receiver fails, or hangs, when they are alone.
//!
//! A receiver that fails on one event may be ill itself. So the event is to blame only if the receiver has
//! taken another since it last failed so on any. For a failure (5xx) it then loses a round; where no answer
//! came in time it loses none, as a slow network looks the same, but is put off and tried alone, after the
//! others. Without that proof it waits for the receiver as all do.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;

use parking_lot::{Mutex, MutexGuard};

use crate::base::id::RequestId;
use crate::base::limits::{RECEIVERS_MAX, SUSPECTS_MAX};

#[derive(Debug, Default)]
pub(super) struct Suspects(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The receivers that have taken an event since they failed on one alone.
    proven: HashSet<String>,
    /// The events that got no answer in time when they were alone, and how often.
    hung: HashMap<RequestId, NonZeroU32>,
}

impl Suspects {
    /// The receiver has taken something.
    pub(super) fn succeeded(&self, destination: &str) {
        let proven = &mut self.known().proven;
        if proven.len() >= RECEIVERS_MAX {
            proven.clear();
        }
        if !proven.contains(destination) {
            proven.insert(destination.to_owned());
        }
    }

    /// Whether the receiver has taken something since this was last asked.
    pub(super) fn is_proven(&self, destination: &str) -> bool {
        self.known().proven.remove(destination)
    }

    /// The event got no answer in time, and was alone; returns how often so far.
    pub(super) fn hung(&self, id: &RequestId) -> NonZeroU32 {
        let hung = &mut self.known().hung;
        if hung.len() >= SUSPECTS_MAX {
            hung.clear();
        }
        let times = hung.get(id).map_or(NonZeroU32::MIN, |times| times.saturating_add(1));
        hung.insert(id.clone(), times);
        times
    }

    /// Whether an event is to be tried alone, and after others.
    pub(super) fn has_hung(&self, id: &RequestId) -> bool {
        self.known().hung.contains_key(id)
    }

    /// The event was answered.
    pub(super) fn answered(&self, id: &RequestId) {
        self.known().hung.remove(id);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock()
    }
}
