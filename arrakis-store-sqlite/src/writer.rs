//! The one thread that writes, and group commit.
//!
//! Calls wait in a channel. The thread takes everything that waits, up to a limit, and commits it as
//! one transaction: while one group is on its way to the disk, the next one gathers. A call is
//! answered after the commit that holds it.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arrakis_core::clock::Clock;
use arrakis_core::store::{Admission, StoreError};
use diesel::SqliteConnection;
use tokio::sync::{mpsc, oneshot};

use crate::config::SqliteConfig;
use crate::error::{Trouble, share, store_error, unavailable};
use crate::file::DatabaseFile;
use crate::pool;
use crate::row::{Now, Prepared};
use crate::write;

/// The way to the writer's thread. Dropping it waits until the thread has done what it accepted.
#[derive(Debug)]
pub(crate) struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    patience: Duration,
}

impl Writer {
    /// Starts the thread on an open connection.
    ///
    /// # Errors
    ///
    /// The system gives no thread.
    pub(crate) fn start(
        file: DatabaseFile,
        conn: SqliteConnection,
        clock: Arc<dyn Clock>,
        config: SqliteConfig,
    ) -> Result<Self, StoreError> {
        let (jobs, inbox) = mpsc::channel(config.queue_calls.max(1));
        let patience = config.queue_wait;
        let session = Session { file, config, clock, conn: Some(conn) };
        let thread = thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || run(inbox, session))
            .map_err(|error| unavailable("start the writer's thread", error))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), patience })
    }

    /// Records arrivals, together with whatever else waits.
    ///
    /// # Errors
    ///
    /// Nothing of these arrivals is stored.
    pub(crate) async fn record(&self, rows: Vec<Prepared>) -> Result<Vec<Admission>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Record(Call { rows, reply })).await?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Runs `work` in a transaction of its own; `what` says what it is, for errors.
    ///
    /// # Errors
    ///
    /// Nothing of it is stored.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&mut SqliteConnection, &Now) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Run(Box::new(move |session| {
            let done = session.transaction(work).map_err(|trouble| trouble.into_store(what));
            // Whoever asked may have gone; what was done stays done.
            let _ = reply.send(done);
        }));
        self.send(job).await?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    async fn send(&self, job: Job) -> Result<(), StoreError> {
        let Some(jobs) = &self.jobs else { return Err(stopped()) };
        match jobs.send_timeout(job, self.patience).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(stopped()),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                Err(unavailable("write", "too many calls wait for the database"))
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None; // the thread ends when it has emptied the channel
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to finish.
            let _ = thread.join();
        }
    }
}

fn stopped() -> StoreError {
    unavailable("write", "the writer has stopped")
}

enum Job {
    Record(Call),
    Run(Box<dyn FnOnce(&mut Session) + Send>),
}

/// A call of `record`, and whom to answer.
struct Call {
    rows: Vec<Prepared>,
    reply: oneshot::Sender<Result<Vec<Admission>, StoreError>>,
}

fn run(mut inbox: mpsc::Receiver<Job>, mut session: Session) {
    let mut next = None;
    while let Some(job) = next.take().or_else(|| inbox.blocking_recv()) {
        match job {
            Job::Run(work) => work(&mut session),
            Job::Record(first) => {
                let mut group = vec![first];
                next = gather(&mut inbox, &mut group, &session.config);
                session.record(group);
            }
        }
    }
}

/// Adds what waits to the group, up to its limits; returns a job that does not belong to it.
fn gather(
    inbox: &mut mpsc::Receiver<Job>,
    group: &mut Vec<Call>,
    config: &SqliteConfig,
) -> Option<Job> {
    let size = |call: &Call| call.rows.iter().map(|row| row.arrival.body.len()).sum::<usize>();
    let mut events = group.iter().map(|call| call.rows.len()).sum::<usize>();
    let mut bytes = group.iter().map(size).sum::<usize>();
    while events < config.group_events && bytes < config.group_bytes {
        match inbox.try_recv().ok()? {
            Job::Record(call) => {
                events += call.rows.len();
                bytes += size(&call);
                group.push(call);
            }
            other => return Some(other),
        }
    }
    None
}

/// What the writer's thread owns.
struct Session {
    file: DatabaseFile,
    config: SqliteConfig,
    clock: Arc<dyn Clock>,
    /// None after a failure that leaves the connection in doubt; the next transaction opens another.
    conn: Option<SqliteConnection>,
}

impl Session {
    /// Commits a group and answers each of its calls.
    fn record(&mut self, mut group: Vec<Call>) {
        let mut bisect = false;
        while !group.is_empty() {
            let rows: Vec<&Prepared> = group.iter().flat_map(|call| &call.rows).collect();
            let done = self.transaction(|conn, now| {
                if bisect {
                    write::record_bisecting(conn, &rows, 0, now)
                } else {
                    write::record(conn, &rows, now).map_err(Trouble::from)
                }
            });
            match done {
                Ok(admissions) => return answer(group, admissions),
                Err(Trouble::Db(error)) if crate::error::is_data(&error) && !bisect => {
                    bisect = true;
                }
                Err(Trouble::Culprit { index, error }) => {
                    let call = group.remove(owner(&group, index));
                    let _ = call.reply.send(Err(store_error("record events", error)));
                }
                Err(trouble) => {
                    let error = share(trouble.into_store("record events"));
                    for call in group {
                        let _ = call.reply.send(Err(error()));
                    }
                    return;
                }
            }
        }
    }

    /// Runs `work` in one transaction that holds the write lock from its beginning.
    fn transaction<T>(
        &mut self,
        work: impl FnOnce(&mut SqliteConnection, &Now) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        self.file.check().map_err(Trouble::Refused)?;
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => pool::open_writer(&self.file, &self.config).map_err(Trouble::Refused)?,
        };
        let clock = &self.clock;
        let done = conn.immediate_transaction(|conn| work(conn, &Now::new(clock.now())));
        let in_doubt = matches!(&done, Err(Trouble::Db(error)) if !crate::error::is_data(error));
        if !in_doubt {
            self.conn = Some(conn);
        }
        done
    }
}

/// The place in the group of the call that the row at `index` belongs to.
fn owner(group: &[Call], index: usize) -> usize {
    let mut end = 0;
    let holds = |call: &Call| {
        end += call.rows.len();
        index < end
    };
    group.iter().position(holds).unwrap_or(0)
}

fn answer(group: Vec<Call>, admissions: Vec<Admission>) {
    let mut admissions = admissions.into_iter();
    for call in group {
        let share = admissions.by_ref().take(call.rows.len()).collect();
        // Whoever asked may have gone; what was stored stays stored.
        let _ = call.reply.send(Ok(share));
    }
}
