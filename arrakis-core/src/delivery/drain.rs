//! The drain loop: takes events from a [`Queue`], delivers them through a [`Transport`] and settles
//! them.
//!
//! Two lanes run side by side, so that a backlog never delays a fresh event: the *fresh* lane takes
//! what is captured now, the *backlog* lane everything that is due. What both learn about a
//! receiver they share in its gate.
//!
//! What a failed delivery means for an event depends on whose fault it was
//! ([`Fault`](crate::delivery::transport::Fault)):
//!
//! * the receiver's: the event goes back as it was and the gate closes, for the delays of the
//!   schedule one after the other; the last one repeats. The first success opens it, and all that
//!   waited is due at once. Each client waits a random time longer than the delay, so that those who
//!   lost a receiver together come back one by one;
//! * the configuration's: the event goes back as it was and the gate is held, with one warning; it is
//!   tried again every minute, and at once when somebody pokes;
//! * an event's own: a batch is taken apart to find it; found, it fails a round. Out of rounds it
//!   becomes a dead letter. Where nothing shows that the receiver works (`receiver/poison.rs`) the receiver
//!   is to blame.
//!
//! The gate says when events are leased for a receiver again; the circuit breaker
//! ([`receiver`](crate::delivery::receiver)) says whether an attempt may leave. While the circuit is not closed
//! every failure is the receiver's, and it is asked with single events taken at random: no event can keep the
//! others from showing that the receiver is back.

mod deliver;
mod witness;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::base::clock::{Clock, SystemClock};
use crate::base::id::RequestId;
use crate::base::limits::{BATCH_MAX_EVENTS, BATCH_MAX_PAYLOAD_BYTES};
use crate::base::retry::{Jitter, RetrySchedule};
use crate::delivery::queue::{Aged, Lane, LeaseRequest, Leased, Queue, Wake};
use crate::delivery::receiver::{Gates, Receivers};
use crate::delivery::transport::Transport;

pub use witness::Witness;

/// When a drain ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Until {
    /// When nothing has waited or been leased for [`DrainConfig::idle`].
    Idle,
    /// When nothing is due that could be delivered now.
    NothingDue,
    /// When this one event was tried, due or not.
    Tried(RequestId),
}

/// The settings of a [`Drainer`].
#[derive(Debug, Clone)]
pub struct DrainConfig {
    /// The delays between rounds.
    pub schedule: RetrySchedule,
    /// Spreads the rounds.
    pub jitter: Jitter,
    /// Tells the time that due times and histories carry.
    pub clock: Arc<dyn Clock>,
    /// How long nothing must be there for [`Until::Idle`].
    pub idle: Duration,
    /// How long a delivery under way may go on after the shutdown was asked for.
    pub grace: Duration,
    /// Most events in one batch.
    pub batch_events: usize,
    /// Most payload bytes in one batch.
    pub batch_bytes: usize,
}

impl DrainConfig {
    /// The schedule of [`RetrySchedule::default`], 30 s idle, 4 s grace, batches to 500 events or
    /// 8 MiB.
    #[must_use]
    pub fn new(jitter: Jitter) -> Self {
        Self {
            schedule: RetrySchedule::default(),
            jitter,
            clock: Arc::new(SystemClock),
            idle: Duration::from_secs(30),
            grace: Duration::from_secs(4),
            batch_events: BATCH_MAX_EVENTS,
            batch_bytes: BATCH_MAX_PAYLOAD_BYTES,
        }
    }
}

/// What a drain has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainReport {
    /// Events that the receiver has stored now.
    pub delivered: u64,
    /// Events that the receiver had before.
    pub duplicates: u64,
    /// Rounds that events failed.
    pub retried: u64,
    /// Events that became dead letters.
    pub dead_lettered: u64,
    /// Events that went back as they were, because their receiver is away or the drain ended.
    pub released: u64,
}

/// Delivers what a queue holds.
#[derive(Debug)]
pub struct Drainer {
    queue: Arc<dyn Queue>,
    transport: Arc<dyn Transport>,
    witness: Option<Arc<dyn Witness>>,
    config: DrainConfig,
    receivers: Receivers,
    gates: Gates,
    counters: Counters,
    /// Tells the backlog lane that there may be something to do.
    backlog: Notify,
}

#[derive(Debug, Default)]
struct Counters {
    delivered: AtomicU64,
    duplicates: AtomicU64,
    retried: AtomicU64,
    dead_lettered: AtomicU64,
    released: AtomicU64,
}

/// How often dead owners are looked for.
const REAP_INTERVAL: Duration = Duration::from_secs(2);

/// How long fresh events wait for a delivery that is under way. One that takes longer may time out.
const FRESH_TIMEOUT: Duration = Duration::from_secs(1);

/// Most deliveries of fresh events under way at a time: one works, the others wait for their timeouts.
const FRESH_DELIVERIES: usize = 8;

/// How long the loop waits after the queue itself failed.
const QUEUE_FAILURE_DELAY: Duration = Duration::from_secs(1);

impl Drainer {
    /// A drainer of `queue` through `transport`, which is usually a
    /// [`delivery_stack`](crate::delivery::layers::delivery_stack) with the same `receivers`.
    #[must_use]
    pub fn new(
        queue: Arc<dyn Queue>,
        transport: Arc<dyn Transport>,
        receivers: Receivers,
        config: DrainConfig,
    ) -> Self {
        let gates = Gates::new(receivers.clone(), config.schedule.clone(), config.jitter.clone());
        let (counters, backlog) = Default::default();
        Self { queue, transport, witness: None, config, receivers, gates, counters, backlog }
    }

    /// The same drainer, which tells `witness` of the events that it takes up.
    #[must_use]
    pub fn with_witness(self, witness: Arc<dyn Witness>) -> Self {
        Self { witness: Some(witness), ..self }
    }

    /// Drains until `until`, or until `shutdown`: then deliveries under way may end within
    /// [`DrainConfig::grace`], and all else is released.
    pub async fn run(&self, until: Until, shutdown: &CancellationToken) -> DrainReport {
        self.reap().await;
        match until {
            Until::Idle => {
                let done = shutdown.child_token();
                let _end = done.clone().drop_guard();
                tokio::join!(
                    async {
                        self.backlog_lane(&done, shutdown).await;
                        done.cancel();
                    },
                    self.fresh_lane(&done, shutdown),
                    self.reaper(&done),
                );
            }
            Until::NothingDue => while self.step(Lane::Any, shutdown).await.is_progress() {},
            Until::Tried(id) => {
                self.step(Lane::One(id), shutdown).await;
            }
        }
        self.report()
    }

    /// Retries every receiver now, ignoring delays.
    pub fn poke(&self) {
        self.gates.poke();
        self.backlog.notify_one();
    }

    /// What was done so far.
    #[must_use]
    pub fn report(&self) -> DrainReport {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DrainReport {
            delivered: read(&self.counters.delivered),
            duplicates: read(&self.counters.duplicates),
            retried: read(&self.counters.retried),
            dead_lettered: read(&self.counters.dead_lettered),
            released: read(&self.counters.released),
        }
    }

    async fn fresh_lane(&self, done: &CancellationToken, shutdown: &CancellationToken) {
        let mut under_way = FuturesUnordered::new();
        let mut waits_until = Instant::now();
        loop {
            let has_room = under_way.len() < FRESH_DELIVERIES;
            let takes_more = under_way.is_empty() || (has_room && waits_until <= Instant::now());
            let wake = tokio::select! {
                () = done.cancelled() => break,
                Some(()) = under_way.next() => continue,
                wake = self.queue.wait(), if takes_more => wake,
                () = tokio::time::sleep_until(waits_until), if has_room && !takes_more => continue,
            };
            match wake {
                Wake::Poked => self.poke(),
                Wake::Pushed => {
                    self.gates.fresh_arrival();
                    waits_until = Instant::now() + FRESH_TIMEOUT;
                    under_way.push(async {
                        while self.step(Lane::Fresh, shutdown).await.is_progress() {}
                        // What the fresh lane does not know of (a notification that was lost, an event
                        // of a closed destination) is the backlog's.
                        self.backlog.notify_one();
                    });
                }
            }
        }
        while under_way.next().await.is_some() {}
    }

    async fn backlog_lane(&self, done: &CancellationToken, shutdown: &CancellationToken) {
        let mut idle_since = None;
        let mut seen = self.report();
        loop {
            let step = self.step(Lane::Any, shutdown).await;
            if done.is_cancelled() {
                return;
            }
            // What the fresh lane has done meanwhile is as good as own work.
            if std::mem::replace(&mut seen, self.report()) != seen {
                idle_since = None;
            }
            let wait = match step {
                Step::Progress => continue,
                Step::Failed => QUEUE_FAILURE_DELAY,
                Step::Nothing { next_due } => {
                    if self.queue.is_idle().await.unwrap_or(false) {
                        let since = *idle_since.get_or_insert_with(Instant::now);
                        match self.config.idle.checked_sub(since.elapsed()) {
                            Some(rest) if !rest.is_zero() => rest,
                            _ => return,
                        }
                    } else {
                        idle_since = None;
                        let due = next_due.unwrap_or(self.config.idle).min(self.config.idle);
                        self.gates.next_opening().map_or(due, |opening| opening.min(due))
                    }
                }
            };
            tokio::select! {
                () = done.cancelled() => return,
                () = self.backlog.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn reaper(&self, done: &CancellationToken) {
        let mut before = Instant::now();
        loop {
            tokio::select! {
                () = done.cancelled() => return,
                () = tokio::time::sleep(REAP_INTERVAL) => self.reap().await,
            }
            let now = Instant::now();
            // Events do not grow old while they wait for a correct configuration.
            let by = if self.gates.is_any_held() { Duration::ZERO } else { now - before };
            self.age(by).await;
            before = now;
        }
    }

    async fn age(&self, by: Duration) {
        match self.queue.age(by).await {
            Ok(Aged { revived: 0, .. }) => {}
            Ok(Aged { revived, .. }) => {
                tracing::info!(target: "arrakis::queue", events = revived,
                    "a receiver is back, and so are the events that had waited for it too long");
                self.backlog.notify_one();
            }
            Err(error) => trouble(&error),
        }
    }

    async fn reap(&self) {
        match self.queue.reap().await {
            Ok(0) => {}
            Ok(events) => {
                tracing::warn!(target: "arrakis::queue", events, "took over the events of a drainer that died");
                self.backlog.notify_one();
            }
            Err(error) => trouble(&error),
        }
    }

    /// Leases once and delivers what it got.
    async fn step(&self, lane: Lane, shutdown: &CancellationToken) -> Step {
        if shutdown.is_cancelled() {
            return Step::Nothing { next_due: None };
        }
        let closed = match lane {
            Lane::One(_) => Vec::new(),
            Lane::Fresh | Lane::Any => self.gates.closed(),
        };
        let request = LeaseRequest {
            lane,
            events: self.config.batch_events,
            bytes: self.config.batch_bytes,
            closed,
        };
        match self.queue.lease(request).await {
            Ok(Leased { leases, next_due }) if leases.is_empty() => {
                let now = self.config.clock.now();
                Step::Nothing { next_due: next_due.map(|due| due.since(now)) }
            }
            Ok(Leased { leases, .. }) => {
                if let Some(witness) = &self.witness {
                    witness.see(&leases).await;
                }
                self.deliver(leases, shutdown).await;
                Step::Progress
            }
            Err(error) => {
                trouble(&error);
                Step::Failed
            }
        }
    }
}

enum Step {
    Progress,
    Nothing { next_due: Option<Duration> },
    Failed,
}

impl Step {
    fn is_progress(&self) -> bool {
        matches!(self, Self::Progress)
    }
}

fn trouble(error: &dyn std::error::Error) {
    let cause = error.source().map(ToString::to_string);
    tracing::error!(target: "arrakis::queue", %error, cause, "the queue does not work");
}
