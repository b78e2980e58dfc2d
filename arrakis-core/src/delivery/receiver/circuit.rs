//! The circuit of one receiver: whether an attempt may leave. It has no clock or lock of its own.
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
//! The receiver fails where it cannot be reached, does not answer in time, asks to be left alone, or fails on
//! the request. An answer that refuses events shows that it is healthy; a fault of the configuration shows
//! nothing.
//!
//! Where the receiver fails on a request, an event may be to blame. So in a closed circuit such a failure counts
//! only where one event was alone in its request, and once for an event that is tried again and again: it takes
//! ten events in a row to blame the receiver.

use std::time::Duration;

use tokio::time::Instant;

use super::{BreakerState, LastFailure, ReceiverHealth};
use crate::base::clock::Timestamp;
use crate::base::id::RequestId;
use crate::delivery::transport::{Batch, Fault, Outcome, TransportError};

/// Least time between two probes of a receiver whose circuit is open; jitter adds up to half of it.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// So many failures in a row open a circuit.
const FAILURES_IN_A_ROW: u32 = 10;

/// How far back attempts are counted, in seconds.
const WINDOW_SECONDS: u64 = 30;

/// With so many attempts in that time, half of which failed, a circuit opens too.
const WINDOW_ATTEMPTS: u32 = 20;

/// How many attempts a half-open circuit lets through, one after the other.
const FIRST_PROBES: u32 = 1;
const SECOND_PROBES: u32 = 3;

/// What an attempt has shown about its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Healthy,
    Unhealthy,
    Unknown,
}

/// The permission to make one attempt, in one state of the circuit.
#[derive(Debug)]
pub(in crate::delivery) struct Pass(u64);

#[derive(Debug)]
pub(super) struct Circuit {
    state: State,
    /// Counts the states so far: what an attempt shows that left in an earlier one is no news.
    epoch: u64,
    since: Timestamp,
    failures_in_a_row: u32,
    window: Window,
    /// The event that the receiver has failed on last.
    failed_on: Option<RequestId>,
    pub(super) last_failure: Option<LastFailure>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed,
    Open { next_probe: Instant },
    HalfOpen { next_probe: Instant, probes: u32, under_way: u32, succeeded: u32 },
}

impl Circuit {
    pub(super) fn new(now: Instant, wall: Timestamp) -> Self {
        Self {
            state: State::Closed,
            epoch: 0,
            since: wall,
            failures_in_a_row: 0,
            window: Window::new(now),
            failed_on: None,
            last_failure: None,
        }
    }

    pub(super) fn state(&self) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    pub(super) fn failures_in_a_row(&self) -> u32 {
        self.failures_in_a_row
    }

    /// Whether there is nothing about it that is worth remembering.
    pub(super) fn is_forgettable(&self) -> bool {
        matches!(self.state, State::Closed) && self.last_failure.is_none()
    }

    /// Lets an attempt through, or tells how long none will be.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        interval: impl FnOnce() -> Duration,
    ) -> Result<Pass, Duration> {
        match &mut self.state {
            State::Closed => {}
            State::Open { next_probe } if now < *next_probe => return Err(*next_probe - now),
            State::Open { .. } => self.enter(State::HalfOpen {
                next_probe: now + interval(),
                probes: FIRST_PROBES,
                under_way: 1,
                succeeded: 0,
            }),
            State::HalfOpen { probes, under_way, succeeded, .. }
                if *under_way + *succeeded < *probes =>
            {
                *under_way += 1;
            }
            State::HalfOpen { next_probe, .. } => {
                // The probes that are under way decide; nobody knows when.
                let left = next_probe.saturating_duration_since(now);
                return Err(left.max(Duration::from_secs(1)));
            }
        }
        Ok(Pass(self.epoch))
    }

    /// Whether the circuit is still in the state that gave this pass.
    pub(super) fn is_current(&self, pass: &Pass) -> bool {
        pass.0 == self.epoch
    }

    /// Takes what an attempt with a current pass has shown; `None` where it was given up. Returns whether
    /// that changed anything.
    pub(super) fn settle(
        &mut self,
        batch: &Batch,
        result: Option<&Result<Vec<Outcome>, TransportError>>,
        now: Instant,
        wall: Timestamp,
        interval: impl FnOnce() -> Duration,
    ) -> bool {
        let verdict = self.verdict(batch, result);
        let mut changed = self.apply(verdict, now, wall, interval);
        match result {
            Some(Err(error)) => {
                let failure = LastFailure::new(wall, error);
                let before = self.last_failure.as_ref();
                changed |= before.is_none_or(|before| !before.is_like(&failure));
                self.last_failure = Some(failure);
            }
            Some(Ok(_)) => changed |= self.last_failure.take().is_some(),
            None => {}
        }
        changed
    }

    fn verdict(
        &mut self,
        batch: &Batch,
        result: Option<&Result<Vec<Outcome>, TransportError>>,
    ) -> Verdict {
        match result {
            Some(Ok(_) | Err(TransportError::Refused { .. })) => Verdict::Healthy,
            Some(Err(TransportError::Failed { .. })) => self.blame(batch),
            Some(Err(error)) if error.fault() == Fault::Receiver => Verdict::Unhealthy,
            Some(Err(_)) | None => Verdict::Unknown,
        }
    }

    /// What it shows that the receiver has failed on these events.
    fn blame(&mut self, batch: &Batch) -> Verdict {
        if !matches!(self.state, State::Closed) {
            return Verdict::Unhealthy;
        }
        let [alone] = batch.envelopes() else { return Verdict::Unknown };
        let before = self.failed_on.replace(alone.request_id().clone());
        if before.as_ref() == Some(alone.request_id()) {
            Verdict::Unknown
        } else {
            Verdict::Unhealthy
        }
    }

    fn apply(
        &mut self,
        verdict: Verdict,
        now: Instant,
        wall: Timestamp,
        interval: impl FnOnce() -> Duration,
    ) -> bool {
        let before = (self.epoch, self.failures_in_a_row);
        match verdict {
            Verdict::Healthy => self.failures_in_a_row = 0,
            Verdict::Unhealthy => self.failures_in_a_row = self.failures_in_a_row.saturating_add(1),
            Verdict::Unknown => {}
        }
        match (&mut self.state, verdict) {
            (State::Closed, Verdict::Unknown) => {}
            (State::Closed, _) => {
                self.window.count(now, verdict == Verdict::Unhealthy);
                let (attempts, failures) = self.window.sum(now);
                let half = attempts >= WINDOW_ATTEMPTS && failures * 2 >= attempts;
                let opens = half || self.failures_in_a_row >= FAILURES_IN_A_ROW;
                if verdict == Verdict::Unhealthy && opens {
                    self.since = wall;
                    self.enter(State::Open { next_probe: now + interval() });
                }
            }
            (State::HalfOpen { .. }, Verdict::Unhealthy) => {
                self.enter(State::Open { next_probe: now + interval() });
            }
            (State::HalfOpen { probes, under_way, succeeded, .. }, Verdict::Healthy) => {
                *under_way -= 1;
                *succeeded += 1;
                if *succeeded >= SECOND_PROBES {
                    self.since = wall;
                    self.window.slots = Default::default();
                    self.enter(State::Closed);
                } else if *succeeded == *probes {
                    (*probes, *succeeded) = (SECOND_PROBES, 0);
                }
            }
            (State::HalfOpen { probes: FIRST_PROBES, next_probe, .. }, Verdict::Unknown) => {
                let next_probe = *next_probe;
                self.enter(State::Open { next_probe });
            }
            (State::HalfOpen { under_way, .. }, Verdict::Unknown) => *under_way -= 1,
            // An open circuit has let nothing through.
            (State::Open { .. }, _) => {}
        }
        before != (self.epoch, self.failures_in_a_row)
    }

    pub(super) fn health(
        &self,
        destination: &str,
        now: Instant,
        wall: Timestamp,
    ) -> ReceiverHealth {
        let (recent_attempts, recent_failures) = self.window.sum(now);
        let next_probe = match self.state {
            State::Closed => None,
            State::Open { next_probe } | State::HalfOpen { next_probe, .. } => {
                Some(wall.plus(next_probe.saturating_duration_since(now)))
            }
        };
        ReceiverHealth {
            destination: destination.to_owned(),
            state: self.state(),
            since: self.since,
            failures_in_a_row: self.failures_in_a_row,
            recent_attempts,
            recent_failures,
            next_probe,
            last_failure: self.last_failure.clone(),
        }
    }

    /// The circuit as it was. Probes that were under way are taken for lost.
    pub(super) fn restore(health: ReceiverHealth, now: Instant, wall: Timestamp) -> (String, Self) {
        let state = match health.state {
            BreakerState::Closed => State::Closed,
            BreakerState::Open | BreakerState::HalfOpen => {
                let left = health.next_probe.unwrap_or(wall).since(wall);
                let longest = PROBE_INTERVAL + PROBE_INTERVAL / 2;
                State::Open { next_probe: now + left.min(longest) }
            }
        };
        let circuit = Self {
            state,
            since: health.since.min(wall),
            failures_in_a_row: health.failures_in_a_row,
            last_failure: health.last_failure,
            ..Self::new(now, wall)
        };
        (health.destination, circuit)
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.epoch += 1;
    }
}

/// Counts attempts and failures of the last [`WINDOW_SECONDS`], to the second.
#[derive(Debug)]
struct Window {
    origin: Instant,
    slots: [Slot; WINDOW_SECONDS as usize],
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// Which second since the origin it counts.
    second: u64,
    attempts: u32,
    failures: u32,
}

impl Window {
    fn new(origin: Instant) -> Self {
        Self { origin, slots: Default::default() }
    }

    fn count(&mut self, now: Instant, failed: bool) {
        let second = self.second(now);
        let index = usize::try_from(second % WINDOW_SECONDS).unwrap_or_default();
        let slot = &mut self.slots[index];
        if slot.second != second {
            *slot = Slot { second, ..Slot::default() };
        }
        slot.attempts += 1;
        slot.failures += u32::from(failed);
    }

    fn sum(&self, now: Instant) -> (u32, u32) {
        let second = self.second(now);
        let recent = self.slots.iter().filter(|slot| slot.second + WINDOW_SECONDS > second);
        recent.fold((0, 0), |(attempts, failures), slot| {
            (attempts + slot.attempts, failures + slot.failures)
        })
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.origin).as_secs()
    }
}
