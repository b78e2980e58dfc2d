//! Tries again what could not be applied when it arrived.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::base::clock::{Clock, Timestamp};
use crate::base::error::Retryable;
use crate::base::heavy::HeavyPool;
use crate::base::retry::{Decision, RetryPolicy};
use crate::record::ingest::judge;
use crate::record::store::{Claim, EventStore, StoreError, Verdict};

/// How often rows are looked for that are due.
const INTERVAL: Duration = Duration::from_secs(30);

/// Rows that are claimed at one time.
const BATCH: usize = 100;

/// A worker that has held a row for longer than this is taken as gone: judging one takes milliseconds.
const STALLED_AFTER: Duration = Duration::from_secs(300);

/// Claims rows that are due, judges them anew and completes them; a row whose retries are used up
/// becomes `FAILED`.
#[derive(Debug)]
pub struct RetryJob {
    store: Arc<dyn EventStore>,
    clock: Arc<dyn Clock>,
    schedule: Arc<dyn RetryPolicy>,
    heavy: HeavyPool,
}

impl RetryJob {
    /// A job over `store` that spaces its tries as `schedule` says.
    #[must_use]
    pub fn new(
        store: Arc<dyn EventStore>,
        clock: Arc<dyn Clock>,
        schedule: Arc<dyn RetryPolicy>,
    ) -> Self {
        Self { store, clock, schedule, heavy: HeavyPool::new(1) }
    }

    /// Works now and then until `shutdown`.
    pub async fn run(&self, shutdown: &CancellationToken) {
        loop {
            if let Err(error) = self.run_once().await {
                tracing::warn!(target: "arrakis::job", job = "retry", %error, "the job failed; it is tried again");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Handles every row that is due; returns how many.
    ///
    /// # Errors
    ///
    /// The store failed; rows that are claimed are rescued later.
    pub async fn run_once(&self) -> Result<u64, StoreError> {
        let mut handled = 0;
        loop {
            let now = self.clock.now();
            let claims = self.store.claim_due(now, now.minus(STALLED_AFTER), BATCH).await?;
            if claims.is_empty() {
                return Ok(handled);
            }
            for claim in claims {
                let bytes = claim.arrival.body.len();
                let judging = move || (judge(&claim.arrival), claim);
                let (verdict, claim) = self.heavy.run(bytes, judging).await;
                let retry_at = self.retry_at(&claim, &verdict);
                tracing::info!(target: "arrakis::job", job = "retry",
                    request_id = %claim.arrival.request_id, status = %verdict.status(), "tried again");
                self.complete(claim, verdict, retry_at).await?;
                handled += 1;
            }
        }
    }

    /// Completes a claim. What the database refuses is a failure of the event's own: without that it
    /// would be claimed and refused for ever.
    async fn complete(
        &self,
        claim: Claim,
        verdict: Verdict,
        retry_at: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        match self.store.complete(claim.clone(), verdict, retry_at).await {
            Err(error @ StoreError::Data { .. }) => {
                let (code, message) = ("store_refused".to_owned(), error.to_string());
                let failed = Verdict::Failed { code, message };
                let retry_at = self.retry_at(&claim, &failed);
                self.store.complete(claim, failed, retry_at).await
            }
            result => result,
        }
    }

    /// When a row is tried again after this verdict.
    fn retry_at(&self, claim: &Claim, verdict: &Verdict) -> Option<Timestamp> {
        let Verdict::Failed { message, .. } = verdict else { return None };
        let tries = NonZeroU32::MIN.saturating_add(claim.retry_count);
        match self.schedule.next(tries, &NotApplied(message.clone())) {
            Decision::RetryAfter(delay) => Some(self.clock.now().plus(delay)),
            Decision::GiveUp => None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotApplied(String);

impl Retryable for NotApplied {
    fn is_retryable(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::ManualClock;
    use crate::base::retry::RetrySchedule;
    use crate::record::audit::EventStatus;
    use crate::record::store::{EventKey, EventReader, MemoryStore};
    use crate::testkit::event_store::Arrivals;

    #[tokio::test]
    async fn a_row_that_failed_is_applied_when_it_is_due() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
        let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        let store = Arc::new(MemoryStore::new(Arc::clone(&shared)));
        let schedule = Arc::new(RetrySchedule::new(vec![Duration::from_secs(60); 2]));
        let job = RetryJob::new(Arc::<MemoryStore>::clone(&store), shared, schedule);
        let mut arrivals = Arrivals::new(Arc::clone(&clock));

        let (good, _) = arrivals.prompt("good", "s");
        let failed = Verdict::Failed { code: "x".to_owned(), message: "x".to_owned() };
        store.record(vec![(good.clone(), failed)]).await.unwrap();
        assert_eq!(job.run_once().await.unwrap(), 0, "nothing is due yet");
        clock.advance(Duration::from_secs(61));
        job.run_once().await.unwrap();
        let row = store.event("main", EventKey::Id(good.event_id)).await.unwrap().unwrap();
        assert_eq!(row.summary.status, EventStatus::Success);
        assert!(store.conversation("main", "s").await.unwrap().is_some());
    }
}
