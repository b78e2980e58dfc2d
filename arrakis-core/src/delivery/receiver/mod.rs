//! The one place that knows how a receiver is: whether to try it now, and who is to blame for a failure.
//!
//! [`Receivers`] has one state per destination, which the drain loops and the layers of a process share:
//!
//! * the *circuit* (`circuit.rs`) says whether an attempt may leave,
//! * the *budget* (`budget.rs`) whether it may be repeated,
//! * the *poison tracker* (`poison.rs`) whether the receiver or an event is to blame for a failure.
//!
//! When events are leased for a receiver again is up to the *gates* (`gate.rs`). Each drain loop has its own:
//! what keeps one from trying must not keep another from its events, and a loop that starts tries at once.

mod budget;
mod circuit;
mod gate;
mod health;
mod poison;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio::time::Instant;
use tower::retry::budget::{Budget, TpsBudget};

use crate::base::clock::{Clock, Timestamp};
use crate::base::id::RequestId;
use crate::base::limits::RECEIVERS_MAX;
use crate::base::retry::Jitter;
use crate::delivery::queue::Lease;
use crate::delivery::transport::{Batch, Outcome, TransportError};

use circuit::Circuit;
pub use circuit::PROBE_INTERVAL;
pub(super) use circuit::Pass;
pub(super) use gate::Gates;
pub use health::{BreakerSnapshot, BreakerState, LastFailure, ReceiverHealth};
pub(super) use poison::Blame;
use poison::PoisonTracker;

/// How all receivers are. Clones share what they know.
///
/// It remembers up to [`RECEIVERS_MAX`] receivers; beyond that it forgets those that are healthy.
#[derive(Debug, Clone)]
pub struct Receivers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    jitter: Jitter,
    known: Mutex<HashMap<String, Receiver>>,
    changes: watch::Sender<()>,
}

/// How one receiver is.
#[derive(Debug)]
struct Receiver {
    circuit: Circuit,
    budget: TpsBudget,
    poison: PoisonTracker,
}

impl Receiver {
    fn new(now: Instant, wall: Timestamp) -> Self {
        let poison = PoisonTracker::default();
        Self { circuit: Circuit::new(now, wall), budget: budget::new(), poison }
    }
}

impl Receivers {
    /// All receivers healthy. `clock` tells the times that people see; `jitter` spreads the probes.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, jitter: Jitter) -> Self {
        let (known, changes) = Default::default();
        Self(Arc::new(Shared { clock, jitter, known, changes }))
    }

    /// Whether attempts may leave for `destination`. Time alone opens no circuit: one whose probe is
    /// due is [`Open`](BreakerState::Open) until the probe leaves.
    #[must_use]
    pub fn state(&self, destination: &str) -> BreakerState {
        self.known().get(destination).map_or(BreakerState::Closed, |known| known.circuit.state())
    }

    /// Whether the receiver is known not to work, so that failures are its own and no event's.
    #[must_use]
    pub fn is_unhealthy(&self, destination: &str) -> bool {
        self.state(destination) != BreakerState::Closed
    }

    /// What is known now.
    #[must_use]
    pub fn snapshot(&self) -> BreakerSnapshot {
        let (now, wall) = (Instant::now(), self.0.clock.now());
        let known = self.known();
        let health = known.iter().map(|(name, known)| known.circuit.health(name, now, wall));
        let mut receivers: Vec<_> = health.collect();
        receivers.sort_by(|a, b| a.destination.cmp(&b.destination));
        BreakerSnapshot { receivers }
    }

    /// Takes over what was known before a restart, in place of what is known about those receivers
    /// now. Times are bounded, as the clock may have jumped: a probe is due within 7.5 s.
    pub fn restore(&self, snapshot: BreakerSnapshot) {
        let (now, wall) = (Instant::now(), self.0.clock.now());
        let mut known = self.known();
        for health in snapshot.receivers.into_iter().take(RECEIVERS_MAX) {
            let (destination, circuit) = Circuit::restore(health, now, wall);
            known.insert(destination, Receiver { circuit, ..Receiver::new(now, wall) });
        }
    }

    /// Tells of every change that is worth keeping over a restart.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    /// Lets an attempt leave, unless the circuit is open.
    pub(super) fn admit(&self, destination: &str) -> Result<Pass, TransportError> {
        let mut known = self.known();
        let circuit = &mut self.receiver(&mut known, destination).circuit;
        let before = circuit.state();
        let admitted = circuit.admit(Instant::now(), || self.0.jitter.apply(PROBE_INTERVAL));
        let changed = circuit.state() != before;
        let last = circuit.last_failure.as_ref().map(|failure| failure.message.clone());
        drop(known);
        if changed {
            self.0.changes.send_replace(());
        }
        admitted.map_err(|retry_after| TransportError::BreakerOpen {
            retry_after,
            last: last.unwrap_or_else(|| "nothing is known about it".to_owned()),
        })
    }

    /// Takes what an admitted attempt has shown; `None` where it was given up.
    pub(super) fn settle(
        &self,
        batch: &Batch,
        pass: Pass,
        result: Option<&Result<Vec<Outcome>, TransportError>>,
    ) {
        let (now, wall) = (Instant::now(), self.0.clock.now());
        let destination = batch.destination();
        let mut known = self.known();
        let circuit = known.get_mut(destination).map(|known| &mut known.circuit);
        let Some(circuit) = circuit.filter(|circuit| circuit.is_current(&pass)) else { return };
        let before = circuit.state();
        let interval = || self.0.jitter.apply(PROBE_INTERVAL);
        let changed = circuit.settle(batch, result, now, wall, interval);
        let (after, failures) = (circuit.state(), circuit.failures_in_a_row());
        drop(known);
        if before != after {
            tracing::info!(target: "arrakis::queue", destination, ?before, ?after, failures,
                "the circuit breaker has changed its state");
        }
        if changed {
            self.0.changes.send_replace(());
        }
    }

    /// A first attempt pays into the budget for repeats.
    pub(super) fn deposit_repeat(&self, destination: &str) {
        self.receiver(&mut self.known(), destination).budget.deposit();
    }

    /// Takes a repeat out of the budget; false if none is left.
    pub(super) fn withdraw_repeat(&self, destination: &str) -> bool {
        self.receiver(&mut self.known(), destination).budget.withdraw()
    }

    /// The receiver has answered these events, and so it works.
    pub(super) fn answered(&self, destination: &str, leases: &[Lease]) {
        self.receiver(&mut self.known(), destination).poison.answered(leases);
    }

    /// Whether an event is to be tried alone, and after the others.
    pub(super) fn has_timed_out(&self, destination: &str, id: &RequestId) -> bool {
        self.known().get(destination).is_some_and(|known| known.poison.has_timed_out(id))
    }

    /// Who is to blame for each of `failed`, events that were alone in their requests.
    pub(super) fn blame(
        &self,
        destination: &str,
        failed: &[(Lease, TransportError)],
    ) -> Vec<Blame> {
        self.receiver(&mut self.known(), destination).poison.blame(failed)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Receiver>> {
        self.0.known.lock()
    }

    /// The receiver of a destination. A new one takes the place of those that are healthy, where there are
    /// too many.
    fn receiver<'a>(
        &self,
        known: &'a mut HashMap<String, Receiver>,
        destination: &str,
    ) -> &'a mut Receiver {
        if known.len() >= RECEIVERS_MAX && !known.contains_key(destination) {
            known.retain(|_, known| !known.circuit.is_forgettable());
        }
        match known.entry(destination.to_owned()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Receiver::new(Instant::now(), self.0.clock.now())),
        }
    }
}
