//! When events are leased for a receiver again.
//!
//! ```text
//!            success                      failure of the receiver
//!   open ◄──────────────── away (delay 1) ──► away (delay 2) ──► … ──► away (last delay, repeats)
//!     │                      ▲
//!     ├─ receiver's fault ───┘
//!     └─ configuration's fault ──► held (one minute, repeats)
//! ```
//!
//! A gate that is away or held lets nothing through until its time has come; the outcome of the next attempt
//! then opens it or closes it again. An event captured meanwhile brings the time of a gate that is away forward,
//! to five seconds after the last attempt or what the receiver asked for. Where the circuit let nothing through,
//! the gate only waits until it will.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::{PROBE_INTERVAL, Receivers};
use crate::base::error::{Retryable, root_cause};
use crate::base::limits::RETRY_AFTER_MAX;
use crate::base::retry::{Jitter, RetrySchedule};
use crate::delivery::transport::{Fault, TransportError};

/// Time between two probes of a receiver that is held for its configuration.
const HELD_PROBE: Duration = Duration::from_secs(60);

/// The gates of one drain loop, one per destination.
#[derive(Debug)]
pub(in crate::delivery) struct Gates {
    receivers: Receivers,
    schedule: RetrySchedule,
    jitter: Jitter,
    closed: Mutex<HashMap<String, Gate>>,
}

/// A gate that is not open.
#[derive(Debug, Clone, Copy)]
struct Gate {
    cause: Cause,
    /// When it is worth trying again.
    until: Instant,
    /// The same for an event that is captured meanwhile.
    fresh_until: Instant,
    /// Whether an attempt has closed it, and not the circuit.
    tried: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The receiver is away, and attempts have found it so this many times.
    Away(u32),
    Held,
}

impl Gates {
    pub(in crate::delivery) fn new(
        receivers: Receivers,
        schedule: RetrySchedule,
        jitter: Jitter,
    ) -> Self {
        Self { receivers, schedule, jitter, closed: Mutex::default() }
    }

    /// The destinations that are not worth trying now.
    pub(in crate::delivery) fn closed(&self) -> Vec<String> {
        let now = Instant::now();
        let gates = self.gates();
        let closed = gates.iter().filter(|(_, gate)| gate.until > now);
        closed.map(|(destination, _)| destination.clone()).collect()
    }

    /// Whether a destination is worth trying now.
    pub(in crate::delivery) fn is_open(&self, destination: &str) -> bool {
        self.gates().get(destination).is_none_or(|gate| gate.until <= Instant::now())
    }

    /// How long until the next gate is worth trying; `None` if none is closed.
    pub(in crate::delivery) fn next_opening(&self) -> Option<Duration> {
        let now = Instant::now();
        let gates = self.gates();
        let openings = gates.values().map(|gate| gate.until).filter(|until| *until > now);
        openings.min().map(|until| until - now)
    }

    /// Whether a receiver is held for its configuration.
    pub(in crate::delivery) fn is_any_held(&self) -> bool {
        self.gates().values().any(|gate| gate.cause == Cause::Held)
    }

    /// Opens every gate.
    pub(in crate::delivery) fn poke(&self) {
        let now = Instant::now();
        for gate in self.gates().values_mut() {
            gate.until = now;
        }
    }

    /// Lets a fresh event probe receivers that are away, as often as they may be probed.
    pub(in crate::delivery) fn fresh_arrival(&self) {
        for gate in self.gates().values_mut().filter(|gate| gate.cause != Cause::Held) {
            gate.until = gate.until.min(gate.fresh_until);
        }
    }

    /// The receiver works.
    pub(in crate::delivery) fn succeeded(&self, destination: &str) {
        if self.gates().remove(destination).is_some() {
            tracing::info!(target: "arrakis::queue", destination, "the receiver is back");
        }
    }

    /// The receiver, or the way to it, does not work.
    pub(in crate::delivery) fn failed(&self, destination: &str, error: &TransportError) {
        let now = Instant::now();
        let is_unhealthy = self.receivers.is_unhealthy(destination);
        let tried = !matches!(error, TransportError::BreakerOpen { .. });
        let mut gates = self.gates();
        let before = gates.get(destination).copied();
        // Two lanes may find out about the same outage; the second adds nothing to the first.
        if before.is_some_and(|gate| gate.until > now && (gate.tried || !tried)) {
            return;
        }
        let before = before.map(|gate| gate.cause);
        let times = match before {
            Some(Cause::Away(times)) => times,
            Some(Cause::Held) | None => 0,
        };
        let asked = error.retry_after().unwrap_or_default().min(RETRY_AFTER_MAX);
        let (cause, delay) = match error.fault() {
            _ if !tried => (before.unwrap_or(Cause::Away(0)), asked),
            Fault::Configuration => (Cause::Held, self.jitter.apply(HELD_PROBE)),
            // It answers, so another event may succeed, and that soon.
            Fault::Event if is_unhealthy => {
                (Cause::Away(1), self.jitter.apply(self.schedule.delay_after(NonZeroU32::MIN)))
            }
            Fault::Event | Fault::Receiver => {
                let delay = self.schedule.delay_after(NonZeroU32::MIN.saturating_add(times));
                (Cause::Away(times.saturating_add(1)), self.jitter.apply(delay.max(asked)))
            }
        };
        // Where it may be the event's fault, only a fresh one can tell.
        let fresh = match error {
            TransportError::Failed { .. } | TransportError::Timeout { .. } if !is_unhealthy => {
                Duration::ZERO
            }
            _ => self.jitter.apply(PROBE_INTERVAL.max(asked)).min(delay),
        };
        let gate = Gate { cause, until: now + delay, fresh_until: now + fresh, tried };
        gates.insert(destination.to_owned(), gate);
        drop(gates);
        let held = cause == Cause::Held;
        if before.is_some_and(|before| (before == Cause::Held) == held) {
            tracing::debug!(target: "arrakis::queue", destination, %error, "still no delivery");
        } else if held {
            tracing::warn!(target: "arrakis::queue", destination, code = error.code(), %error,
                "delivery is held until the configuration is corrected; no event is lost");
        } else {
            let cause = root_cause(error);
            tracing::warn!(target: "arrakis::queue", destination, code = error.code(), %error, cause,
                retry_ms = delay.as_millis(), "the receiver is away; events wait for it");
        }
    }

    fn gates(&self) -> MutexGuard<'_, HashMap<String, Gate>> {
        self.closed.lock()
    }
}
