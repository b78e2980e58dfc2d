//! A circuit breaker per receiver: whether an attempt may leave.
//!
//! ```text
//!          10 failures in a row, or half of 20 and more within 30 s
//!   closed ───────────────────────────────────────────────► open
//!     ▲                                                     │  ▲
//!     │ all 3 succeed             5 s to 7.5 s have passed  │  │ it fails
//!     │                                                     ▼  │
//!   half-open for 3 ◄──────────── it succeeds ──────── half-open for 1
//!     │                                                        ▲
//!     └────────────── one fails: open, and so on ──────────────┘
//! ```
//!
//! What fails is the receiver: it cannot be reached, does not answer in time, asks to be left alone,
//! or answers 500. An answer that refuses events shows that it is well; a fault of the configuration
//! shows nothing.
//!
//! A 500 may be an event's fault, and the receiver well. So in a closed circuit it counts only where one
//! event was alone in its request, and once for an event that is tried again and again: it takes ten
//! events in a row to blame the receiver.

mod circuit;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::base::clock::{Clock, Timestamp};
use crate::base::conservation::LastError;
use crate::base::error::root_cause;
use crate::base::limits::{RECEIVERS_MAX, cut};
use crate::base::retry::Jitter;
use crate::delivery::transport::{Batch, Fault, Outcome, TransportError};

use circuit::{Circuit, Pass, Verdict};

/// Least time between two probes of a receiver whose circuit is open; jitter adds up to half of it.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// What is kept of the text of an error, in bytes: a sentence or two.
const MESSAGE_MAX_BYTES: usize = 500;

/// What a circuit breaker knows about its receivers, to be shown, or kept over a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BreakerSnapshot {
    /// Every receiver that was tried, in the order of their destinations.
    pub receivers: Vec<ReceiverHealth>,
}

/// How one receiver is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiverHealth {
    /// Its URL, as envelopes name it.
    pub destination: String,
    /// Whether attempts may leave.
    pub state: BreakerState,
    /// Since when the circuit is closed; else since when it is not.
    pub since: Timestamp,
    /// Failures since the last success.
    pub failures_in_a_row: u32,
    /// Attempts of the last 30 s that were let through a closed circuit.
    pub recent_attempts: u32,
    /// Those of them that failed.
    pub recent_failures: u32,
    /// When the next attempt may leave; `None` where any may.
    pub next_probe: Option<Timestamp>,
    /// The latest failure of any kind since the last success; with the code `misconfigured` the
    /// queue is held until the configuration is corrected.
    pub last_failure: Option<LastFailure>,
}

impl From<ReceiverHealth> for crate::base::conservation::Receiver {
    fn from(health: ReceiverHealth) -> Self {
        let ReceiverHealth { destination, state, last_failure, .. } = health;
        let last_failure =
            last_failure.map(|LastFailure { at, message, .. }| LastError { at, message });
        Self { destination, state: state.as_str().to_owned(), last_failure }
    }
}

/// Whether attempts may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// All of them.
    Closed,
    /// None, but for a probe from time to time.
    Open,
    /// A few, to see whether the receiver is well again.
    HalfOpen,
}

impl BreakerState {
    /// The name, as it is written and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What went wrong last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastFailure {
    /// When.
    pub at: Timestamp,
    /// A stable word such as `unreachable`.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

/// The circuits of all receivers: shared by the layer, the drain loop and whoever looks on.
#[derive(Debug, Clone)]
pub struct BreakerHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    jitter: Jitter,
    circuits: Mutex<HashMap<String, Circuit>>,
    changes: watch::Sender<()>,
}

impl BreakerHandle {
    /// All circuits closed. `clock` tells the times that people see; `jitter` spreads the probes.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, jitter: Jitter) -> Self {
        let (circuits, changes) = Default::default();
        Self(Arc::new(Shared { clock, jitter, circuits, changes }))
    }

    /// Whether attempts may leave for `destination`. Time alone opens no circuit: one whose probe is
    /// due is [`Open`](BreakerState::Open) until the probe leaves.
    #[must_use]
    pub fn state(&self, destination: &str) -> BreakerState {
        self.circuits().get(destination).map_or(BreakerState::Closed, Circuit::state)
    }

    /// What is known now.
    #[must_use]
    pub fn snapshot(&self) -> BreakerSnapshot {
        let (now, wall) = (Instant::now(), self.0.clock.now());
        let circuits = self.circuits();
        let health = circuits.iter().map(|(name, circuit)| circuit.health(name, now, wall));
        let mut receivers: Vec<_> = health.collect();
        receivers.sort_by(|a, b| a.destination.cmp(&b.destination));
        BreakerSnapshot { receivers }
    }

    /// Takes over what was known before a restart, in place of what is known about those receivers
    /// now. Times are bounded, as the clock may have jumped: a probe is due within 7.5 s.
    pub fn restore(&self, snapshot: BreakerSnapshot) {
        let (now, wall) = (Instant::now(), self.0.clock.now());
        let mut circuits = self.circuits();
        for health in snapshot.receivers.into_iter().take(RECEIVERS_MAX) {
            let (destination, circuit) = Circuit::restore(health, now, wall);
            circuits.insert(destination, circuit);
        }
    }

    /// Tells of every change that is worth keeping over a restart.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    fn admit(&self, destination: &str) -> Result<Pass, TransportError> {
        let now = Instant::now();
        let mut circuits = self.circuits();
        if circuits.len() >= RECEIVERS_MAX {
            circuits.retain(|name, circuit| name == destination || !circuit.is_well());
        }
        let circuit = match circuits.entry(destination.to_owned()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Circuit::new(now, self.0.clock.now())),
        };
        let before = circuit.state();
        let admitted = circuit.admit(now, || self.0.jitter.apply(PROBE_INTERVAL));
        let changed = circuit.state() != before;
        let last = circuit.last_failure.as_ref().map(|failure| failure.message.clone());
        drop(circuits);
        if changed {
            self.0.changes.send_replace(());
        }
        admitted.map_err(|retry_after| TransportError::BreakerOpen {
            retry_after,
            last: last.unwrap_or_else(|| "nothing is known about it".to_owned()),
        })
    }

    fn settle(
        &self,
        batch: &Batch,
        pass: Pass,
        result: Option<&Result<Vec<Outcome>, TransportError>>,
    ) {
        let (now, wall) = (Instant::now(), self.0.clock.now());
        let mut circuits = self.circuits();
        let circuit = circuits.get_mut(batch.destination());
        let Some(circuit) = circuit.filter(|circuit| circuit.is_current(&pass)) else { return };
        let before = circuit.state();
        let verdict = verdict(result, circuit, batch);
        let interval = || self.0.jitter.apply(PROBE_INTERVAL);
        let mut changed = circuit.settle(verdict, now, wall, interval);
        if let Some(Err(error)) = result {
            let mut message = error.to_string();
            if let Some(cause) = root_cause(error) {
                message = format!("{message}: {cause}");
            }
            let (code, message) = (error.code().to_owned(), cut(&message, MESSAGE_MAX_BYTES));
            let last = circuit.last_failure.as_ref();
            changed |= last.is_none_or(|last| last.code != code || last.message != message);
            let failure = LastFailure { at: wall, code, message: message.to_owned() };
            circuit.last_failure = Some(failure);
        } else if result.is_some() {
            changed |= circuit.last_failure.take().is_some();
        }
        let (after, failures) = (circuit.state(), circuit.failures_in_a_row());
        drop(circuits);
        if before != after {
            let destination = batch.destination();
            tracing::info!(target: "arrakis::queue", destination, ?before, ?after, failures,
                "the circuit breaker has changed its state");
        }
        if changed {
            self.0.changes.send_replace(());
        }
    }

    fn circuits(&self) -> MutexGuard<'_, HashMap<String, Circuit>> {
        self.0.circuits.lock()
    }
}

/// What an attempt shows about the receiver; one that was given up shows nothing.
fn verdict(
    result: Option<&Result<Vec<Outcome>, TransportError>>,
    circuit: &mut Circuit,
    batch: &Batch,
) -> Verdict {
    match result {
        Some(Ok(_) | Err(TransportError::Refused { .. })) => Verdict::Well,
        Some(Err(TransportError::Failed { .. })) => circuit.blame(batch),
        Some(Err(error)) if error.fault() == Fault::Receiver => Verdict::Ill,
        Some(Err(_)) | None => Verdict::Nothing,
    }
}

/// Puts a circuit breaker around a transport.
#[derive(Debug, Clone)]
pub struct BreakerLayer(BreakerHandle);

impl BreakerLayer {
    /// The layer whose circuits are those of `handle`.
    #[must_use]
    pub fn new(handle: BreakerHandle) -> Self {
        Self(handle)
    }
}

impl<S> Layer<S> for BreakerLayer {
    type Service = Breaker<S>;

    fn layer(&self, inner: S) -> Breaker<S> {
        Breaker { inner, handle: self.0.clone() }
    }
}

/// The service of [`BreakerLayer`].
#[derive(Debug, Clone)]
pub struct Breaker<S> {
    inner: S,
    handle: BreakerHandle,
}

impl<S> Service<Batch> for Breaker<S>
where
    S: Service<Batch, Response = Vec<Outcome>, Error = TransportError>,
    S::Future: Send + 'static,
{
    type Response = Vec<Outcome>;
    type Error = TransportError;
    type Future = BoxFuture<'static, Result<Vec<Outcome>, TransportError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, batch: Batch) -> Self::Future {
        let pass = match self.handle.admit(batch.destination()) {
            Ok(pass) => pass,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let mut attempt =
            Attempt { handle: self.handle.clone(), batch: batch.clone(), pass: Some(pass) };
        let answer = self.inner.call(batch);
        Box::pin(async move {
            let result = answer.await;
            attempt.end(Some(&result));
            result
        })
    }
}

/// An attempt that was let through; dropped before its end, it was given up.
struct Attempt {
    handle: BreakerHandle,
    batch: Batch,
    pass: Option<Pass>,
}

impl Attempt {
    fn end(&mut self, result: Option<&Result<Vec<Outcome>, TransportError>>) {
        if let Some(pass) = self.pass.take() {
            self.handle.settle(&self.batch, pass, result);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.end(None);
    }
}
