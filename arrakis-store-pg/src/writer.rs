//! Group commit: a few lanes, each a connection that records events, taking everything that waits as one
//! transaction.
//!
//! Calls wait in their lane's channel. A lane takes what waits, up to a limit, and commits it; while its
//! group is on its way to the disk, the next one gathers. A call is answered after the commit that holds
//! it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrakis_core::base::clock::Clock;
use arrakis_core::record::store::adapter::{Call, Group};
use arrakis_core::record::store::{Admission, StoreError};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::PgConfig;
use crate::connect::Connector;
use crate::error::{TxError, is_data, is_lost, is_read_only, is_unclear, unavailable};
use crate::pool::TRIES;
use crate::row::Prepared;
use crate::write;

/// What was tried, for errors.
const WHAT: &str = "record events";

/// The way to the lanes. When it is dropped they finish what they accepted, and end.
#[derive(Debug)]
pub(crate) struct Writer {
    first: mpsc::Sender<Call<Prepared>>,
    others: Vec<mpsc::Sender<Call<Prepared>>>,
    turn: AtomicUsize,
    queue_wait: Duration,
}

impl Writer {
    /// Starts the lanes; each connects when it is needed.
    pub(crate) fn start(connector: &Connector, clock: &Arc<dyn Clock>, config: &PgConfig) -> Self {
        let start = || {
            let (calls, inbox) = mpsc::channel(config.queue_calls.max(1));
            let lane = Lane {
                connector: connector.clone(),
                clock: Arc::clone(clock),
                config: config.clone(),
                conn: None,
                is_hopeful: true,
            };
            tokio::spawn(lane.run(inbox));
            calls
        };
        Self {
            first: start(),
            others: (1..config.writers).map(|_| start()).collect(),
            turn: AtomicUsize::new(0),
            queue_wait: config.queue_wait,
        }
    }

    /// Records arrivals, together with whatever else waits in their lane.
    ///
    /// # Errors
    ///
    /// Nothing of these arrivals is stored, or whether it is cannot be known because the connection was
    /// lost; the same call again does no harm.
    pub(crate) async fn record(&self, rows: Vec<Prepared>) -> Result<Vec<Admission>, StoreError> {
        let bytes = rows.iter().map(|row| row.arrival.body.len()).sum();
        let (call, answer) = Call::new(rows, bytes);
        match self.lane(&call).send_timeout(call, self.queue_wait).await {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(unavailable(WHAT, "the writer stopped"))),
            Err(_) => Err(unavailable(WHAT, "too many calls wait for the database")),
        }
    }

    /// The lane of a call. Single small events share the first one while it keeps up, so they wait behind nothing large.
    /// Beyond that a session keeps to one of the others, so that lanes do not wait for each other's conversations;
    /// batches, which are of many sessions, take turns.
    fn lane(&self, call: &Call<Prepared>) -> &mpsc::Sender<Call<Prepared>> {
        let waiting = self.first.max_capacity() - self.first.capacity();
        let number = match call.rows() {
            _ if self.others.is_empty() => return &self.first,
            [_] if !call.is_heavy() && waiting < FIRST_LANE_CALLS => return &self.first,
            [row] => {
                let mut hasher = DefaultHasher::new();
                row.arrival.session_id.hash(&mut hasher);
                usize::try_from(hasher.finish()).unwrap_or(0)
            }
            _ => self.turn.fetch_add(1, Ordering::Relaxed),
        };
        &self.others[number % self.others.len()]
    }
}

/// One connection, and what it needs.
struct Lane {
    connector: Connector,
    clock: Arc<dyn Clock>,
    config: PgConfig,
    /// None before it is needed, and after a failure that leaves the connection in doubt.
    conn: Option<AsyncPgConnection>,
    /// Whether the last group had no repeats in it, so that the next may have none either.
    is_hopeful: bool,
}

/// All statements of a lane go by keys, and their plans are made once. The planner must not take a table
/// for empty because it was when it last looked: without this a new database got slower with every event
/// until its first statistics a minute later (64 connections: 2,100 events a second instead of 7,000).
const LANE_SETTINGS: &str = "SET enable_seqscan = off; SET enable_hashjoin = off; \
    SET enable_mergejoin = off; SET plan_cache_mode = force_generic_plan";

/// How often a lane lets others go first at most, and how often while nobody comes of it.
const LINGER_TURNS: usize = 64;
const LINGER_IDLE_TURNS: usize = 16;

/// How many calls may wait for the first lane before single events go to the others, too. Below this their
/// cost is that of the transactions, so fewer and fuller ones are quicker.
const FIRST_LANE_CALLS: usize = 64;

/// A failure that took longer than this to come was no refusal of what was written.
const QUICK: Duration = Duration::from_secs(2);

impl Lane {
    async fn run(mut self, mut inbox: mpsc::Receiver<Call<Prepared>>) {
        while let Some(first) = inbox.recv().await {
            linger(&inbox).await;
            let group = self.gather(first, &mut inbox);
            // A lane outlives what it cannot handle; those calls are told that the writer stopped.
            if AssertUnwindSafe(self.record(group)).catch_unwind().await.is_err() {
                self.conn = None;
                tracing::error!("a group of events made its writer panic");
            }
        }
    }

    /// Adds what waits to the first call, up to the limits.
    fn gather(
        &self,
        first: Call<Prepared>,
        waiting: &mut mpsc::Receiver<Call<Prepared>>,
    ) -> Group<Prepared> {
        let mut group = Group::new(first);
        while !group.is_full(self.config.group_events, self.config.group_bytes) {
            let Ok(call) = waiting.try_recv() else { break };
            group.push(call);
        }
        group
    }

    /// Commits a group and answers each of its calls.
    async fn record(&mut self, mut group: Group<Prepared>) {
        let (mut tries, mut bisect) = (0, false);
        while !group.is_empty() {
            let began = Instant::now();
            let rows = group.rows();
            let error = match self.transaction(&rows, bisect).await {
                Ok(admissions) => return group.admitted(admissions),
                Err(error) => error,
            };
            tries += 1;
            match error {
                error if error.is_raced() && tries < TRIES => {}
                // It may have been a deadlock, which Diesel does not name.
                TxError::Db(error)
                    if is_unclear(&error) && tries == 1 && began.elapsed() < QUICK => {}
                TxError::Db(error)
                    if !bisect
                        && (is_data(&error) || is_unclear(&error) && began.elapsed() < QUICK) =>
                {
                    bisect = true;
                }
                TxError::Culprit { index, .. } => {
                    group.refuse(index, error.into_store(WHAT));
                }
                error => return group.failed(error.into_store(WHAT)),
            }
        }
    }

    async fn transaction(
        &mut self,
        rows: &[&Prepared],
        bisect: bool,
    ) -> Result<Vec<Admission>, TxError> {
        let limit = self.config.transaction_timeout;
        let is_reused = self.conn.is_some();
        let done = tokio::time::timeout(limit, self.attempt(rows, bisect)).await;
        let done = done.unwrap_or_else(|_| {
            let source = "the database took too long to answer";
            Err(TxError::Refused(unavailable(WHAT, source)))
        });
        match done {
            // The server may have closed the connection since it was last used, or have become one that only
            // reads, or no longer be one. Should it have committed before, the same again does no harm.
            Err(TxError::Db(error)) if is_reused && (is_lost(&error) || is_read_only(&error)) => {
                let again = tokio::time::timeout(limit, self.attempt(rows, bisect)).await;
                again.unwrap_or(Err(TxError::Db(error)))
            }
            done => done,
        }
    }

    /// Tries once, on the connection that is there or a new one.
    async fn attempt(
        &mut self,
        rows: &[&Prepared],
        bisect: bool,
    ) -> Result<Vec<Admission>, TxError> {
        let conn = match self.conn.take() {
            Some(conn) => conn,
            None => {
                let connected = self.connector.connect().await;
                let mut conn =
                    connected.map_err(|error| TxError::Refused(unavailable(WHAT, error)))?;
                conn.batch_execute(LANE_SETTINGS).await?;
                conn
            }
        };
        let now = self.clock.now();
        let done = if bisect {
            write::record_bisecting(&conn, rows, now).await
        } else {
            write::record(&conn, rows, now, &mut self.is_hopeful).await
        };
        let is_sound = match &done {
            Err(failed @ TxError::Db(error)) => is_data(error) || failed.is_raced(),
            _ => true,
        };
        if is_sound {
            self.conn = Some(conn);
        }
        done
    }
}

/// Lets whoever is about to call do so: a group costs almost the same however many there are in it. Where
/// nobody else is about to, this takes some microseconds.
async fn linger(inbox: &mpsc::Receiver<Call<Prepared>>) {
    let (mut waiting, mut idle) = (inbox.len(), 0);
    for _ in 0..LINGER_TURNS {
        tokio::task::yield_now().await;
        idle = if inbox.len() == waiting { idle + 1 } else { 0 };
        waiting = inbox.len();
        if idle == LINGER_IDLE_TURNS {
            return;
        }
    }
}
