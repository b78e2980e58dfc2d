//! From leases to dispositions: delivering a batch, and taking it apart when it fails as a whole.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering;

use tokio_util::sync::CancellationToken;

use super::{Drainer, trouble};
use crate::base::dead_letter::Failure;
use crate::base::error::Retryable;
use crate::base::retry::{Decision, RetryPolicy};
use crate::delivery::queue::{Disposition, Lease};
use crate::delivery::receiver::Blame;
use crate::delivery::transport::{Batch, Outcome, Reason, TransportError};

impl Drainer {
    /// Delivers leased events and settles every one of them.
    pub(super) async fn deliver(&self, leases: Vec<Lease>, shutdown: &CancellationToken) {
        let mut by_destination = BTreeMap::<String, Vec<Lease>>::new();
        for lease in leases {
            by_destination
                .entry(lease.envelope.header.destination.clone())
                .or_default()
                .push(lease);
        }
        for (destination, leases) in by_destination {
            self.deliver_to_one(&destination, leases, shutdown).await;
        }
    }

    /// Delivers to one destination. Batches that may hold a poison event are taken apart; each part
    /// is settled as soon as it is through, so that a crash repeats as little as possible.
    async fn deliver_to_one(
        &self,
        destination: &str,
        leases: Vec<Lease>,
        shutdown: &CancellationToken,
    ) {
        let is_unhealthy = || self.receivers.is_unhealthy(destination);
        let (timed_out, others) = leases.into_iter().partition::<Vec<_>, _>(|lease| {
            self.receivers.has_timed_out(destination, lease.envelope.request_id())
        });
        let mut parts: Vec<_> = timed_out.into_iter().map(|lease| vec![lease]).collect();
        parts.push(others);
        let mut failed_alone = Vec::new();
        let mut is_proven = false;
        while let Some(mut part) = parts.pop() {
            if part.len() > 1 && is_unhealthy() {
                let probe = part.swap_remove(self.config.jitter.pick(part.len()));
                parts.push(std::mem::replace(&mut part, vec![probe]));
            }
            let envelopes = part.iter().map(|lease| lease.envelope.clone()).collect();
            let Some(batch) = Batch::new(envelopes) else { continue };
            let Some(result) = self.attempt(batch, shutdown).await else {
                parts.push(part);
                break;
            };
            match result {
                Ok(outcomes) => {
                    is_proven = true;
                    self.gates.succeeded(destination);
                    self.receivers.answered(destination, &part);
                    self.settle_outcomes(part, outcomes).await;
                }
                Err(error) if part.len() > 1 && error.is_worth_halving() => {
                    // After a timeout one event alone shows soonest whether the receiver does not answer or
                    // the batch was too much: any of them, as it may be the one that times out.
                    let may_be_away = !is_proven && matches!(error, TransportError::Timeout { .. });
                    let one =
                        may_be_away.then(|| part.swap_remove(self.config.jitter.pick(part.len())));
                    let rest = part.split_off(part.len() / 2);
                    parts.extend([rest, part]);
                    parts.extend(one.map(|one| vec![one]));
                }
                Err(error @ TransportError::Refused { .. }) if !is_unhealthy() => {
                    for lease in part {
                        let disposition = self.fail_round(&lease, error.code(), &error);
                        self.settle(vec![(lease, disposition)]).await;
                    }
                }
                Err(error) if error.is_worth_halving() && !is_unhealthy() => {
                    let is_timeout = matches!(error, TransportError::Timeout { .. });
                    failed_alone.extend(part.pop().map(|lease| (lease, error)));
                    if is_timeout && !is_proven {
                        break;
                    }
                }
                Err(error) => {
                    self.gates.failed(destination, &error);
                    parts.push(part);
                    break;
                }
            }
        }
        for part in parts {
            self.release(part).await;
        }
        self.judge(destination, failed_alone).await;
    }

    /// Settles events on which their receiver failed when they were alone.
    async fn judge(&self, destination: &str, failed: Vec<(Lease, TransportError)>) {
        let Some((_, error)) = failed.first() else { return };
        let blames = self.receivers.blame(destination, &failed);
        if blames.contains(&Blame::Receiver) {
            self.gates.failed(destination, error);
        }
        for ((lease, error), blame) in failed.into_iter().zip(blames) {
            let disposition = match blame {
                Blame::Receiver => {
                    self.release(vec![lease]).await;
                    continue;
                }
                Blame::Event => self.fail_round(&lease, error.code(), &error),
                Blame::TimedOut(times) => self.defer(&lease, times, &error),
            };
            self.settle(vec![(lease, disposition)]).await;
        }
    }

    /// One round of delivery; `None` if it was given up for the shutdown.
    async fn attempt(
        &self,
        batch: Batch,
        shutdown: &CancellationToken,
    ) -> Option<Result<Vec<Outcome>, TransportError>> {
        if shutdown.is_cancelled() || !self.gates.is_open(batch.destination()) {
            return None;
        }
        for envelope in batch.envelopes() {
            let header = &envelope.header;
            tracing::info!(target: "arrakis::queue", request_id = %header.request_id,
                event_type = header.event_type, captured_at = %header.captured_at, "sending");
        }
        tokio::select! {
            result = self.transport.deliver(batch) => Some(result),
            () = async {
                shutdown.cancelled().await;
                tokio::time::sleep(self.config.grace).await;
            } => None,
        }
    }

    async fn settle_outcomes(&self, leases: Vec<Lease>, outcomes: Vec<Outcome>) {
        let missing = || {
            Outcome::TryAgain(Reason {
                code: "no_result".to_owned(),
                message: "the receiver's answer does not mention this event".to_owned(),
            })
        };
        let outcomes = outcomes.into_iter().chain(std::iter::repeat_with(missing));
        let mut settlements = Vec::with_capacity(leases.len());
        for (lease, outcome) in leases.into_iter().zip(outcomes) {
            let disposition = match outcome {
                Outcome::Accepted(receipt) => {
                    self.counters.delivered.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(target: "arrakis::success", request_id = %receipt.request_id,
                        event_id = %receipt.event_id, event_type = lease.envelope.header.event_type,
                        session_id = lease.envelope.header.session_id, "delivered");
                    Disposition::Delivered
                }
                Outcome::Duplicate(receipt) => {
                    self.counters.duplicates.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(target: "arrakis::success", request_id = %receipt.request_id,
                        event_id = %receipt.event_id, "delivered before");
                    Disposition::Duplicate
                }
                Outcome::Refused(reason) => {
                    let failure = NotTaken { reason: &reason, retryable: false };
                    self.fail_round(&lease, &reason.code, &failure)
                }
                Outcome::TryAgain(reason) => {
                    let failure = NotTaken { reason: &reason, retryable: true };
                    self.fail_round(&lease, &reason.code, &failure)
                }
            };
            settlements.push((lease, disposition));
        }
        self.settle(settlements).await;
    }

    /// What becomes of an event that failed a round by its own fault.
    fn fail_round(&self, lease: &Lease, code: &str, failure: &dyn Retryable) -> Disposition {
        let failed = NonZeroU32::MIN.saturating_add(lease.failed_rounds);
        let now = self.config.clock.now();
        let entry = Failure {
            at: now,
            round: failed.get(),
            code: code.to_owned(),
            message: failure.to_string(),
        };
        let request_id = lease.envelope.request_id();
        match self.config.schedule.next(failed, failure) {
            Decision::RetryAfter(delay) => {
                let delay = self.config.jitter.apply(delay);
                self.counters.retried.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(target: "arrakis::queue", %request_id, round = failed, code,
                    retry_ms = delay.as_millis(), error = %failure, "delivery failed, will retry");
                Disposition::RetryAt { due: now.plus(delay), failure: entry }
            }
            Decision::GiveUp => {
                self.counters.dead_lettered.fetch_add(1, Ordering::Relaxed);
                tracing::error!(target: "arrakis::queue", %request_id, round = failed, code,
                    error = %failure, "delivery given up, the event is kept as a dead letter");
                Disposition::DeadLetter { failure: entry }
            }
        }
    }

    /// Defers an event whose delivery timed out, with growing delays.
    fn defer(&self, lease: &Lease, times: NonZeroU32, error: &TransportError) -> Disposition {
        let delay = self.config.jitter.apply(self.config.schedule.delay_after(times));
        let now = self.config.clock.now();
        let request_id = lease.envelope.request_id();
        tracing::warn!(target: "arrakis::queue", %request_id, code = error.code(), %error,
            retry_ms = delay.as_millis(), "event timed out while others succeed; deferred");
        let failure = Failure {
            at: now,
            round: lease.failed_rounds,
            code: error.code().to_owned(),
            message: error.to_string(),
        };
        Disposition::Deferred { due: now.plus(delay), failure }
    }

    async fn release(&self, leases: Vec<Lease>) {
        self.counters.released.fetch_add(leases.len() as u64, Ordering::Relaxed);
        self.settle(leases.into_iter().map(|lease| (lease, Disposition::Released)).collect()).await;
    }

    async fn settle(&self, settlements: Vec<(Lease, Disposition)>) {
        if let Err(error) = self.queue.settle(settlements).await {
            trouble(&error);
        }
    }
}

/// An event's own failure, for the policy to look at.
#[derive(Debug, thiserror::Error)]
#[error("{}", .reason.message)]
struct NotTaken<'a> {
    reason: &'a Reason,
    retryable: bool,
}

impl Retryable for NotTaken<'_> {
    fn is_retryable(&self) -> bool {
        self.retryable
    }
}
