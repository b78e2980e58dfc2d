//! Attempts within a round, as a policy of tower's retry layer.

use std::num::NonZeroU32;
use std::sync::Arc;

use tokio::time::Sleep;
use tower::retry::Policy;

use crate::base::retry::{Decision, Jitter, RetryPolicy};
use crate::delivery::receiver::Receivers;
use crate::delivery::transport::{Batch, Outcome, TransportError};

/// Repeats a call that failed as a whole, as a [`RetryPolicy`] decides and the receiver's budget allows. Each
/// call starts at its first attempt. It does not look at the answers to single events. A batch that timed out
/// is not repeated: its parts are tried, and each try takes as long again.
#[derive(Debug)]
pub struct AttemptPolicy {
    policy: Arc<dyn RetryPolicy>,
    jitter: Jitter,
    receivers: Receivers,
    attempt: NonZeroU32,
    /// How the last attempt failed.
    failure: Option<TransportError>,
}

impl AttemptPolicy {
    /// Decides as `policy` does, with `jitter` on its delays, within the budgets of `receivers`.
    #[must_use]
    pub fn new(policy: Arc<dyn RetryPolicy>, jitter: Jitter, receivers: Receivers) -> Self {
        Self { policy, jitter, receivers, attempt: NonZeroU32::MIN, failure: None }
    }
}

impl Clone for AttemptPolicy {
    /// The policy of a call that has not begun.
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.policy), self.jitter.clone(), self.receivers.clone())
    }
}

impl Policy<Batch, Vec<Outcome>, TransportError> for AttemptPolicy {
    type Future = Sleep;

    fn retry(
        &mut self,
        batch: &mut Batch,
        result: &mut Result<Vec<Outcome>, TransportError>,
    ) -> Option<Sleep> {
        if let Err(TransportError::BreakerOpen { .. }) = result {
            // Nothing was sent this time; what the round has met is what was met before.
            if let Some(failure) = self.failure.take() {
                *result = Err(failure);
            }
            return None;
        }
        if self.attempt == NonZeroU32::MIN {
            self.receivers.deposit_repeat(batch.destination());
        }
        let failure = result.as_ref().err()?;
        if batch.len() > 1 && matches!(failure, TransportError::Timeout { .. }) {
            return None;
        }
        let Decision::RetryAfter(delay) = self.policy.next(self.attempt, failure) else {
            return None;
        };
        let (destination, error) = (batch.destination(), failure.code());
        if !self.receivers.withdraw_repeat(destination) {
            tracing::debug!(target: "arrakis::queue", destination, attempt = self.attempt, error,
                "delivery attempt failed, and no budget is left to try again");
            return None;
        }
        let delay = self.jitter.apply(delay);
        tracing::debug!(
            target: "arrakis::queue",
            attempt = self.attempt,
            delay_ms = delay.as_millis(),
            request_id = %batch.envelopes()[0].request_id(),
            events = batch.len(),
            error,
            "delivery attempt failed, trying again"
        );
        self.attempt = self.attempt.saturating_add(1);
        self.failure = std::mem::replace(result, Ok(Vec::new())).err();
        Some(tokio::time::sleep(delay))
    }

    fn clone_request(&mut self, batch: &Batch) -> Option<Batch> {
        Some(batch.clone())
    }
}
