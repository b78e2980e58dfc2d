//! Attempts within a round, as a policy of tower's retry layer.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Sleep;
use tower::retry::Policy;
use tower::retry::budget::{Budget, TpsBudget};

use crate::base::limits::RECEIVERS_MAX;
use crate::base::retry::{Decision, Jitter, RetryPolicy};
use crate::delivery::transport::{Batch, Outcome, TransportError};

/// The time over which a budget is counted.
const BUDGET_WINDOW: Duration = Duration::from_secs(10);

/// How many repeats a first attempt pays for.
const BUDGET_SHARE: f32 = 0.2;

/// How many repeats a second are free: what one event needs that fails while nothing else is sent.
const BUDGET_RESERVE_PER_SECOND: u32 = 1;

/// Repeats a call that failed as a whole, as a [`RetryPolicy`] decides. Each call starts at its first
/// attempt. What single events were answered is not its matter. A batch that got no answer in time is not
/// repeated: its parts are tried, and each try takes as long again.
///
/// Repeats have a budget per destination, which all clones share: within 10 s one for every five first
/// attempts, and ten more. So a busy receiver that falls ill gets no more than 1.2 times the attempts
/// that it would get anyway, and a lone event still has all of its own. A round without budget ends.
#[derive(Debug)]
pub struct AttemptPolicy {
    policy: Arc<dyn RetryPolicy>,
    jitter: Jitter,
    budgets: Arc<Mutex<HashMap<String, Arc<TpsBudget>>>>,
    attempt: NonZeroU32,
    /// How the last attempt failed.
    failure: Option<TransportError>,
}

impl AttemptPolicy {
    /// Decides as `policy` does, with `jitter` on its delays.
    #[must_use]
    pub fn new(policy: Arc<dyn RetryPolicy>, jitter: Jitter) -> Self {
        let budgets = Arc::default();
        Self { policy, jitter, budgets, attempt: NonZeroU32::MIN, failure: None }
    }

    fn budget(&self, destination: &str) -> Arc<TpsBudget> {
        let mut budgets = self.budgets.lock();
        if budgets.len() >= RECEIVERS_MAX && !budgets.contains_key(destination) {
            budgets.clear();
        }
        let budget =
            || Arc::new(TpsBudget::new(BUDGET_WINDOW, BUDGET_RESERVE_PER_SECOND, BUDGET_SHARE));
        Arc::clone(budgets.entry(destination.to_owned()).or_insert_with(budget))
    }
}

impl Clone for AttemptPolicy {
    /// The policy of a call that has not begun.
    fn clone(&self) -> Self {
        let budgets = Arc::clone(&self.budgets);
        Self { budgets, ..Self::new(Arc::clone(&self.policy), self.jitter.clone()) }
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
        let budget = self.budget(batch.destination());
        if self.attempt == NonZeroU32::MIN {
            budget.deposit();
        }
        let failure = result.as_ref().err()?;
        if batch.len() > 1 && matches!(failure, TransportError::Timeout { .. }) {
            return None;
        }
        let Decision::RetryAfter(delay) = self.policy.next(self.attempt, failure) else {
            return None;
        };
        let (destination, error) = (batch.destination(), failure.code());
        if !budget.withdraw() {
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
