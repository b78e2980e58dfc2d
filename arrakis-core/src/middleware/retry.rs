//! Attempts within a round, as a policy of tower's retry layer.

use std::num::NonZeroU32;
use std::sync::Arc;

use tokio::time::Sleep;
use tower::retry::Policy;

use crate::retry::{Decision, Jitter, RetryPolicy};
use crate::transport::{Batch, Outcome, TransportError};

/// Repeats a call that failed as a whole, as a [`RetryPolicy`] decides. Each call starts at its first
/// attempt. What single events were answered is not its matter.
#[derive(Debug, Clone)]
pub struct AttemptPolicy {
    policy: Arc<dyn RetryPolicy>,
    jitter: Jitter,
    attempt: NonZeroU32,
}

impl AttemptPolicy {
    /// Decides as `policy` does, with `jitter` on its delays.
    #[must_use]
    pub fn new(policy: Arc<dyn RetryPolicy>, jitter: Jitter) -> Self {
        Self { policy, jitter, attempt: NonZeroU32::MIN }
    }
}

impl Policy<Batch, Vec<Outcome>, TransportError> for AttemptPolicy {
    type Future = Sleep;

    fn retry(
        &mut self,
        batch: &mut Batch,
        result: &mut Result<Vec<Outcome>, TransportError>,
    ) -> Option<Sleep> {
        let failure = result.as_ref().err()?;
        let Decision::RetryAfter(delay) = self.policy.next(self.attempt, failure) else {
            return None;
        };
        let delay = self.jitter.apply(delay);
        tracing::debug!(
            target: "arrakis::queue",
            attempt = self.attempt,
            delay_ms = delay.as_millis(),
            request_id = %batch.envelopes()[0].request_id(),
            events = batch.len(),
            error = failure.code(),
            "delivery attempt failed, trying again"
        );
        self.attempt = self.attempt.saturating_add(1);
        Some(tokio::time::sleep(delay))
    }

    fn clone_request(&mut self, batch: &Batch) -> Option<Batch> {
        Some(batch.clone())
    }
}
