//! Adds up what was stored, behind the requests that store it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::record::store::{Rollups, StoreError};

/// How often the store is asked: alerts are evaluated every fifteen seconds, and each step is a transaction.
const INTERVAL: Duration = Duration::from_secs(5);

/// How often old sums are deleted: they are kept for days.
const FORGET_INTERVAL: Duration = Duration::from_secs(3600);

/// Commits that are taken at one time.
const BATCH: usize = 100;

/// Old sums that are deleted at one time: a transaction of some milliseconds.
const FORGET_BATCH: usize = 500;

/// Brings the sums of a store up to date, again and again.
#[derive(Debug)]
pub struct RollupJob {
    store: Arc<dyn Rollups>,
}

impl RollupJob {
    /// A job over `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Rollups>) -> Self {
        Self { store }
    }

    /// Works every five seconds until `shutdown`.
    pub async fn run(&self, shutdown: &CancellationToken) {
        let mut forget_at = Instant::now() + FORGET_INTERVAL;
        loop {
            if let Err(error) = self.run_once(shutdown).await {
                tracing::warn!(target: "arrakis::job", job = "rollup", %error,
                    "the job failed; it is tried again");
            }
            if Instant::now() >= forget_at {
                forget_at = Instant::now() + FORGET_INTERVAL;
                if let Err(error) = self.forget(shutdown).await {
                    tracing::warn!(target: "arrakis::job", job = "rollup", %error,
                        "old sums could not be deleted; it is tried again in an hour");
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Adds up everything that is not yet; returns how many commits that were. Stops early at `shutdown`.
    ///
    /// # Errors
    ///
    /// The store failed; the rest is added the next time.
    pub async fn run_once(&self, shutdown: &CancellationToken) -> Result<usize, StoreError> {
        let mut folded = 0;
        loop {
            let began = Instant::now();
            let now = self.store.fold(BATCH).await?;
            folded += now;
            if now < BATCH || !rest(began, shutdown).await {
                return Ok(folded);
            }
        }
    }

    /// Deletes the sums that are kept no longer; returns how many. Stops early at `shutdown`.
    ///
    /// # Errors
    ///
    /// The store failed; the rest is deleted the next time.
    pub async fn forget(&self, shutdown: &CancellationToken) -> Result<usize, StoreError> {
        let mut forgotten = 0;
        loop {
            let began = Instant::now();
            let now = self.store.forget_sums(FORGET_BATCH).await?;
            forgotten += now;
            if now == 0 || !rest(began, shutdown).await {
                return Ok(forgotten);
            }
        }
    }
}

/// Rests for as long as the last step took, so that those who store have half of the time; returns whether to go on.
async fn rest(began: Instant, shutdown: &CancellationToken) -> bool {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => false,
        () = tokio::time::sleep(began.elapsed()) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{Clock, ManualClock, Timestamp};
    use crate::record::store::{
        DEFAULT_WORKSPACE, EventGroups, EventStore, EventSums, MemoryStore, RollupStep,
    };
    use crate::testkit::event_store::Arrivals;

    async fn events(store: &MemoryStore, step: RollupStep) -> u64 {
        let query = EventSums {
            workspace: DEFAULT_WORKSPACE.to_owned(),
            step,
            from: Timestamp::EPOCH,
            to: Timestamp::from_micros(i64::MAX),
            by: EventGroups::default(),
            latency: false,
        };
        store.event_sums(query).await.unwrap().iter().map(|sum| sum.events).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn a_running_job_adds_up_what_is_stored_and_deletes_what_is_old() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
        let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        let store = Arc::new(MemoryStore::new(shared));
        let mut arrivals = Arrivals::new(Arc::clone(&clock));
        let job = RollupJob::new(Arc::<MemoryStore>::clone(&store));
        let shutdown = CancellationToken::new();
        let work = async {
            for n in 0..2 * BATCH + 1 {
                store.record(vec![arrivals.prompt(&format!("r{n}"), "s")]).await.unwrap();
            }
            tokio::time::sleep(INTERVAL * 2).await;
            assert_eq!(events(&store, RollupStep::Minute).await, 2 * BATCH as u64 + 1);
            clock.advance(Duration::from_secs(15 * 24 * 3600));
            tokio::time::sleep(FORGET_INTERVAL + INTERVAL).await;
            assert_eq!(events(&store, RollupStep::Minute).await, 0);
            assert_eq!(events(&store, RollupStep::Hour).await, 2 * BATCH as u64 + 1);
            shutdown.cancel();
        };
        tokio::join!(job.run(&shutdown), work);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_is_told_to_stop_ends_after_the_step() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
        let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        let store = Arc::new(MemoryStore::new(shared));
        let mut arrivals = Arrivals::new(clock);
        for n in 0..2 * BATCH {
            store.record(vec![arrivals.next(&format!("r{n}"), "not json")]).await.unwrap();
        }
        let job = RollupJob::new(store);
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        assert_eq!(job.run_once(&shutdown).await.unwrap(), BATCH);
        job.run(&shutdown).await;
    }
}
