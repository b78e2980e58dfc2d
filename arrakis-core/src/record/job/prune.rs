//! Deletes what its workspace keeps no longer.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::base::clock::Clock;
use crate::base::limits::SPOOL_HISTORY_MAX_AGE;
use crate::record::store::{
    PrunePosition, Pruned, Retention, RetentionPolicy, SpoolReports, StoreError,
};

/// How often a pass is made: things are kept for days, and a pass that finds nothing costs a look at the oldest
/// rows.
const INTERVAL: Duration = Duration::from_secs(3600);

/// How long a server runs before the first pass, which then does not meet the backlog that waited for it.
const FIRST_AFTER: Duration = Duration::from_secs(60);

/// Rows of one step at most. A store takes fewer where a step would keep others waiting, as SQLite does, whose one
/// writer everybody waits for.
const STEP_ROWS: usize = 100;

/// Between two steps the job rests for this many times as long as the last one took: so it has a fifth of the
/// writer's time at most, and those who store events get the rest.
const REST_FACTOR: u32 = 4;

/// The shortest rest, in which those who store get their turn.
const REST_MIN: Duration = Duration::from_millis(1);

/// Makes passes over a store, each in small steps.
#[derive(Debug)]
pub struct PruneJob {
    store: Arc<dyn Retention>,
    spools: Option<Arc<dyn SpoolReports>>,
    clock: Arc<dyn Clock>,
    policy: RetentionPolicy,
}

impl PruneJob {
    /// A job over `store` that keeps things for as long as `policy` says.
    #[must_use]
    pub fn new(store: Arc<dyn Retention>, clock: Arc<dyn Clock>, policy: RetentionPolicy) -> Self {
        Self { store, spools: None, clock, policy }
    }

    /// The job keeps the histories of spools for [`SPOOL_HISTORY_MAX_AGE`].
    #[must_use]
    pub fn with_spools(self, spools: Arc<dyn SpoolReports>) -> Self {
        Self { spools: Some(spools), ..self }
    }

    /// Works now and then until `shutdown`.
    pub async fn run(&self, shutdown: &CancellationToken) {
        let mut pause = FIRST_AFTER;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = INTERVAL;
            let began = Instant::now();
            match self.run_once(shutdown).await {
                Ok(pruned) if pruned.is_empty() => {
                    tracing::debug!(target: "arrakis::job", job = "prune", "nothing is old enough");
                }
                Ok(pruned) => {
                    let Pruned {
                        events,
                        conversations,
                        messages,
                        tool_uses,
                        ledger,
                        spool_hours,
                        ..
                    } = pruned;
                    let duration_ms = began.elapsed().as_millis();
                    tracing::info!(target: "arrakis::job", job = "prune", events, conversations,
                        messages, tool_uses, ledger, spool_hours, duration_ms, "pruned what was old");
                }
                Err(error) => {
                    tracing::warn!(target: "arrakis::job", job = "prune", %error,
                        "the job failed; it is tried again");
                }
            }
        }
    }

    /// Makes one pass; returns what it deleted. Stops early at `shutdown`.
    ///
    /// # Errors
    ///
    /// The store failed. What earlier steps deleted stays deleted; the next pass does the rest.
    pub async fn run_once(&self, shutdown: &CancellationToken) -> Result<Pruned, StoreError> {
        let cutoffs = self.policy.at(self.clock.now());
        let mut pruned = Pruned::default();
        let mut next = Some(PrunePosition::START);
        while let Some(from) = next {
            let began = Instant::now();
            let step = self.store.prune(&cutoffs, from, STEP_ROWS).await?;
            pruned += step.pruned;
            next = step.next;
            if rest_after(began, shutdown).await.is_break() {
                return Ok(pruned);
            }
        }
        let Some(spools) = &self.spools else { return Ok(pruned) };
        let before = self.clock.now().minus(SPOOL_HISTORY_MAX_AGE);
        loop {
            let began = Instant::now();
            let hours = spools.prune_spool_history(before, STEP_ROWS).await?;
            pruned.spool_hours += hours;
            if hours < STEP_ROWS as u64 || rest_after(began, shutdown).await.is_break() {
                return Ok(pruned);
            }
        }
    }
}

/// Rests after a step; breaks where the job is told to stop.
async fn rest_after(began: Instant, shutdown: &CancellationToken) -> ControlFlow<()> {
    let rest = (began.elapsed() * REST_FACTOR).max(REST_MIN);
    tokio::select! {
        () = shutdown.cancelled() => ControlFlow::Break(()),
        () = tokio::time::sleep(rest) => ControlFlow::Continue(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{ManualClock, Timestamp};
    use crate::record::store::{Ages, EventReader, EventStore, MemorySpoolReports, MemoryStore};
    use crate::testkit::event_store::Arrivals;
    use crate::testkit::spool_reports::heard;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn keeping(days: u32) -> RetentionPolicy {
        let ages = Ages { events: Some(DAY * days), conversations: Some(DAY * days) };
        RetentionPolicy { default: ages, ..RetentionPolicy::default() }
    }

    fn job(days: u32) -> (PruneJob, Arc<MemoryStore>, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
        let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        let store = Arc::new(MemoryStore::new(Arc::clone(&shared)));
        (PruneJob::new(Arc::<MemoryStore>::clone(&store), shared, keeping(days)), store, clock)
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_prunes_what_is_old_in_as_many_steps_as_that_takes() {
        let (job, store, clock) = job(7);
        let mut arrivals = Arrivals::new(Arc::clone(&clock));
        let old = 3 * STEP_ROWS + 1;
        for n in 0..old {
            store.record(vec![arrivals.prompt(&format!("old-{n}"), "old")]).await.unwrap();
        }
        clock.advance(DAY * 8);
        store.record(vec![arrivals.prompt("young", "young")]).await.unwrap();
        let pruned = job.run_once(&CancellationToken::new()).await.unwrap();
        assert_eq!((pruned.events, pruned.conversations), (old as u64, 1));
        assert_eq!(store.counts().await.unwrap().into_values().sum::<u64>(), 1);
        assert!(job.run_once(&CancellationToken::new()).await.unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_prunes_the_history_of_spools_after_90_days() {
        let (job, _, clock) = job(7);
        let spools = Arc::new(MemorySpoolReports::default());
        let hours = 250;
        for hour in 0..hours {
            spools.report_spool("main", heard(1, hour * 3600), 10).await.unwrap();
        }
        clock.advance(Duration::from_secs(3600) * 250);
        let job = job.with_spools(Arc::<MemorySpoolReports>::clone(&spools));
        let shutdown = CancellationToken::new();
        assert!(job.run_once(&shutdown).await.unwrap().is_empty());
        clock.advance(SPOOL_HISTORY_MAX_AGE - Duration::from_secs(2 * 3600));
        let pruned = job.run_once(&shutdown).await.unwrap();
        assert_eq!(pruned.spool_hours, 248);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_is_told_to_stop_ends_after_the_step() {
        let (job, store, clock) = job(7);
        let mut arrivals = Arrivals::new(Arc::clone(&clock));
        for n in 0..2 * STEP_ROWS {
            store.record(vec![arrivals.prompt(&format!("old-{n}"), "old")]).await.unwrap();
        }
        clock.advance(DAY * 8);
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        let pruned = job.run_once(&shutdown).await.unwrap();
        assert_eq!(pruned.events, STEP_ROWS as u64);
        job.run(&shutdown).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_running_job_prunes_what_becomes_old() {
        let (job, store, clock) = job(7);
        let mut arrivals = Arrivals::new(Arc::clone(&clock));
        store.record(vec![arrivals.prompt("a", "s")]).await.unwrap();
        let shutdown = CancellationToken::new();
        let stopped = shutdown.clone();
        let left = || async { store.counts().await.unwrap().into_values().sum::<u64>() };
        let work = async {
            tokio::time::sleep(FIRST_AFTER + INTERVAL).await;
            assert_eq!(left().await, 1);
            clock.advance(DAY * 8);
            tokio::time::sleep(INTERVAL + INTERVAL / 2).await;
            assert_eq!(left().await, 0);
            stopped.cancel();
        };
        tokio::join!(job.run(&shutdown), work);
    }
}
