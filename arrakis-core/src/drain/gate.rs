//! What is known about each receiver: whether it is worth trying now.
//!
//! ```text
//!            success                      failure of the receiver
//!   open ◄──────────────── away (delay 1) ──► away (delay 2) ──► … ──► away (last delay, repeats)
//!     │                      ▲
//!     ├─ receiver's fault ───┘
//!     └─ configuration's fault ──► held (one minute, repeats)
//! ```
//!
//! A gate that is away or held lets nothing through until its time has come; then everything, as one
//! probe: the outcome opens it or closes it again. An event captured meanwhile brings the time of a
//! gate that is away forward, to five seconds after the last attempt.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Retryable;
use crate::retry::{Jitter, RetrySchedule};
use crate::transport::{Fault, TransportError};

/// Time between two probes of a receiver that is held for its configuration.
const HELD_PROBE: Duration = Duration::from_secs(60);

/// Least time between two probes of a receiver that is away, however many events are captured.
const FRESH_PROBE: Duration = Duration::from_secs(5);

/// One gate per destination.
#[derive(Debug)]
pub(super) struct Gates {
    schedule: RetrySchedule,
    jitter: Jitter,
    closed: Mutex<HashMap<String, Gate>>,
}

/// A gate that is not open.
#[derive(Debug, Clone, Copy)]
struct Gate {
    cause: Cause,
    /// When it was last tried.
    tried: Instant,
    /// When it is worth trying again.
    until: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The receiver is away, and was found so this many times.
    Away(NonZeroU32),
    Held,
}

impl Gates {
    pub(super) fn new(schedule: RetrySchedule, jitter: Jitter) -> Self {
        Self { schedule, jitter, closed: Mutex::default() }
    }

    /// The destinations that are not worth trying now.
    pub(super) fn closed(&self) -> Vec<String> {
        let now = Instant::now();
        let gates = self.gates();
        let closed = gates.iter().filter(|(_, gate)| gate.until > now);
        closed.map(|(destination, _)| destination.clone()).collect()
    }

    /// Whether a destination is worth trying now.
    pub(super) fn is_open(&self, destination: &str) -> bool {
        self.gates().get(destination).is_none_or(|gate| gate.until <= Instant::now())
    }

    /// How long until the next gate is worth trying; `None` if none is closed.
    pub(super) fn next_opening(&self) -> Option<Duration> {
        let now = Instant::now();
        let gates = self.gates();
        let openings = gates.values().map(|gate| gate.until).filter(|until| *until > now);
        openings.min().map(|until| until - now)
    }

    /// Whether a receiver is held for its configuration.
    pub(super) fn is_any_held(&self) -> bool {
        self.gates().values().any(|gate| gate.cause == Cause::Held)
    }

    /// Has every receiver tried at once.
    pub(super) fn poke(&self) {
        let now = Instant::now();
        for gate in self.gates().values_mut() {
            gate.until = now;
        }
    }

    /// Lets a fresh event probe receivers that are away, not more often than it is decent.
    pub(super) fn fresh_arrival(&self) {
        for gate in self.gates().values_mut().filter(|gate| gate.cause != Cause::Held) {
            gate.until = gate.until.min(gate.tried + FRESH_PROBE);
        }
    }

    /// The receiver works.
    pub(super) fn succeeded(&self, destination: &str) {
        if self.gates().remove(destination).is_some() {
            tracing::info!(target: "arrakis::queue", destination, "the receiver is back");
        }
    }

    /// The receiver, or the way to it, does not work.
    pub(super) fn failed(&self, destination: &str, error: &TransportError) {
        let now = Instant::now();
        let mut gates = self.gates();
        let before = gates.get(destination).copied();
        // Two lanes may find out about the same outage; the second adds nothing to the first.
        if before.is_some_and(|gate| gate.until > now) {
            return;
        }
        let before = before.map(|gate| gate.cause);
        let (cause, delay) = match error.fault() {
            Fault::Configuration => (Cause::Held, HELD_PROBE),
            Fault::Receiver | Fault::Event => {
                let times = match before {
                    Some(Cause::Away(times)) => times.saturating_add(1),
                    Some(Cause::Held) | None => NonZeroU32::MIN,
                };
                let asked = error.retry_after().unwrap_or_default();
                (Cause::Away(times), self.schedule.delay_after(times).max(asked))
            }
        };
        let delay = self.jitter.apply(delay);
        gates.insert(destination.to_owned(), Gate { cause, tried: now, until: now + delay });
        drop(gates);
        let held = cause == Cause::Held;
        if before.is_some_and(|before| (before == Cause::Held) == held) {
            tracing::debug!(target: "arrakis::queue", destination, %error, "still no delivery");
        } else if held {
            tracing::warn!(target: "arrakis::queue", destination, code = error.code(), %error,
                "delivery is held until the configuration is mended; no event is lost");
        } else {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(target: "arrakis::queue", destination, code = error.code(), %error, cause,
                retry_ms = delay.as_millis(), "the receiver is away; events wait for it");
        }
    }

    fn gates(&self) -> MutexGuard<'_, HashMap<String, Gate>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
