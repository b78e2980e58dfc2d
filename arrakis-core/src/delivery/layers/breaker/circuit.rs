//! The circuit of one receiver: the diagram of the breaker as code, without a clock or lock of its own.

use std::time::Duration;

use tokio::time::Instant;

use super::{BreakerState, LastFailure, PROBE_INTERVAL, ReceiverHealth};
use crate::base::clock::Timestamp;
use crate::base::id::RequestId;
use crate::delivery::transport::Batch;

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
pub(super) enum Verdict {
    Well,
    Ill,
    Nothing,
}

/// The leave to make one attempt, in one state of the circuit.
#[derive(Debug)]
pub(super) struct Pass(u64);

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
    pub(super) fn is_well(&self) -> bool {
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

    /// Takes what an attempt with a current pass has shown; returns whether that changed anything.
    pub(super) fn settle(
        &mut self,
        verdict: Verdict,
        now: Instant,
        wall: Timestamp,
        interval: impl FnOnce() -> Duration,
    ) -> bool {
        let before = (self.epoch, self.failures_in_a_row);
        match verdict {
            Verdict::Well => self.failures_in_a_row = 0,
            Verdict::Ill => self.failures_in_a_row = self.failures_in_a_row.saturating_add(1),
            Verdict::Nothing => {}
        }
        match (&mut self.state, verdict) {
            (State::Closed, Verdict::Nothing) => {}
            (State::Closed, _) => {
                self.window.count(now, verdict == Verdict::Ill);
                let (attempts, failures) = self.window.sum(now);
                let half = attempts >= WINDOW_ATTEMPTS && failures * 2 >= attempts;
                let opens = half || self.failures_in_a_row >= FAILURES_IN_A_ROW;
                if verdict == Verdict::Ill && opens {
                    self.since = wall;
                    self.enter(State::Open { next_probe: now + interval() });
                }
            }
            (State::HalfOpen { .. }, Verdict::Ill) => {
                self.enter(State::Open { next_probe: now + interval() });
            }
            (State::HalfOpen { probes, under_way, succeeded, .. }, Verdict::Well) => {
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
            (State::HalfOpen { probes: FIRST_PROBES, next_probe, .. }, Verdict::Nothing) => {
                let next_probe = *next_probe;
                self.enter(State::Open { next_probe });
            }
            (State::HalfOpen { under_way, .. }, Verdict::Nothing) => *under_way -= 1,
            // An open circuit has let nothing through.
            (State::Open { .. }, _) => {}
        }
        before != (self.epoch, self.failures_in_a_row)
    }

    /// What it shows that the receiver has failed on these events.
    pub(super) fn blame(&mut self, batch: &Batch) -> Verdict {
        if !matches!(self.state, State::Closed) {
            return Verdict::Ill;
        }
        let [alone] = batch.envelopes() else { return Verdict::Nothing };
        let before = self.failed_on.replace(alone.request_id().clone());
        if before.as_ref() == Some(alone.request_id()) { Verdict::Nothing } else { Verdict::Ill }
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
