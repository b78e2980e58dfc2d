//! The one thread that writes, and group commit.
//!
//! Calls wait in a channel. The thread takes everything that waits, up to a limit, and commits it as
//! one transaction: while one group is on its way to the disk, the next one gathers. A call is
//! answered after the commit that holds it.
//!
//! Callers who were just answered come back together, but not at the same instant, and those who came during their
//! commit wait already. So a group that is smaller than both together waits a moment for the others: without it the
//! callers would part into two halves that commit in turn, and a commit costs nearly the same for one half as for
//! all. A single caller never waits.
//!
//! Calls of large bodies stand in a line of their own, and have every second turn. So a small event waits for one of
//! them at most, however many are sent.

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arrakis_core::base::clock::Clock;
use arrakis_core::record::store::adapter::{Call, Group};
use arrakis_core::record::store::{Admission, StoreError};
use diesel::SqliteConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::checkpoint::Checkpointer;
use crate::config::SqliteConfig;
use crate::error::{TxError, is_data, is_locked, store_error, unavailable};
use crate::file::DatabaseFile;
use crate::pool;
use crate::row::{Now, Prepared};
use crate::write;

/// The way to the writer's thread. Dropping it waits until the thread has done what it accepted.
#[derive(Debug)]
pub(crate) struct Writer {
    jobs: Option<mpsc::Sender<(Job, OwnedSemaphorePermit)>>,
    /// One permit for each place in the channel; a job carries its own until it is taken.
    places: Arc<Semaphore>,
    thread: Option<JoinHandle<()>>,
    queue_wait: Duration,
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
        let (jobs, inbox) = mpsc::channel();
        let capacity = config.queue_calls.clamp(1, Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(capacity));
        let inbox = Inbox {
            jobs: inbox,
            places: Arc::clone(&places),
            capacity,
            light: VecDeque::new(),
            heavy: VecDeque::new(),
            is_turn_of_heavy: false,
            work: None,
        };
        let queue_wait = config.queue_wait;
        let checkpointer = Checkpointer::start(file.clone(), config.clone())?;
        let session = Session { checkpointer, file, config, clock, conn: Some(conn) };
        let thread = thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || run(inbox, session))
            .map_err(|error| unavailable("start the writer's thread", error))?;
        Ok(Self { jobs: Some(jobs), places, thread: Some(thread), queue_wait })
    }

    /// Records arrivals, together with whatever else waits.
    ///
    /// # Errors
    ///
    /// Nothing of these arrivals is stored.
    pub(crate) async fn record(&self, rows: Vec<Prepared>) -> Result<Vec<Admission>, StoreError> {
        let bytes = rows.iter().map(|row| row.arrival.body.len()).sum();
        let (call, answer) = Call::new(rows, bytes);
        self.send(Job::Record(call)).await?;
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
        work: impl FnOnce(&mut SqliteConnection, &Now) -> Result<T, TxError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Run(Box::new(move |session| {
            let done = session.transaction(0, work).map_err(|error| error.into_store(what));
            // Whoever asked may have gone; what was done stays done.
            let _ = reply.send(done);
        }));
        self.send(job).await?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    async fn send(&self, job: Job) -> Result<(), StoreError> {
        let place = Arc::clone(&self.places).acquire_owned();
        let Ok(Ok(place)) = tokio::time::timeout(self.queue_wait, place).await else {
            return Err(unavailable("write", "too many calls wait for the database"));
        };
        let sent = self.jobs.as_ref().map(|jobs| jobs.send((job, place)));
        if matches!(sent, Some(Ok(()))) { Ok(()) } else { Err(stopped()) }
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
    Record(Call<Prepared>),
    Run(Work),
}

type Work = Box<dyn FnOnce(&mut Session) + Send>;

/// The thread's end of the channel, and the calls that it has taken out. A call keeps its place until its turn comes.
struct Inbox {
    jobs: mpsc::Receiver<(Job, OwnedSemaphorePermit)>,
    places: Arc<Semaphore>,
    capacity: usize,
    light: VecDeque<(Call<Prepared>, OwnedSemaphorePermit)>,
    heavy: VecDeque<(Call<Prepared>, OwnedSemaphorePermit)>,
    is_turn_of_heavy: bool,
    /// What is to be done next, in a transaction of its own.
    work: Option<Work>,
}

/// How long a group waits for as many calls as there are callers: shorter than most commits, long
/// enough for a server to answer a dozen requests and read the next ones.
const GATHER_TIME: Duration = Duration::from_micros(500);

/// So many bytes of large bodies are committed together, and one call more: some ten milliseconds of work.
const HEAVY_GROUP_BYTES: usize = 256 * 1024;

impl Inbox {
    /// Waits for something to do; returns whether there is something, or all is done and nobody can ask for more.
    fn wait(&mut self) -> bool {
        if self.light.is_empty() && self.heavy.is_empty() {
            let Ok((job, place)) = self.jobs.recv() else { return false };
            self.sort(job, place);
        }
        true
    }

    fn sort(&mut self, job: Job, place: OwnedSemaphorePermit) {
        match job {
            Job::Run(work) => self.work = Some(work),
            Job::Record(call) if call.is_heavy() => self.heavy.push_back((call, place)),
            Job::Record(call) => self.light.push_back((call, place)),
        }
    }

    /// Sorts what waits, up to the next other work, and waits a moment for as many small calls as `callers`. Then it
    /// takes a group from the line whose turn it is.
    #[allow(clippy::disallowed_methods, reason = "the writer is a thread without a runtime")]
    fn gather(&mut self, callers: usize, config: &SqliteConfig) -> Option<Group<Prepared>> {
        let now = Instant::now();
        while self.work.is_none() {
            let waits = self.heavy.is_empty() && self.light.len() < callers;
            let deadline = if waits { now + GATHER_TIME } else { now };
            let wait = deadline.saturating_duration_since(Instant::now());
            let Ok((job, place)) = self.jobs.recv_timeout(wait) else { break };
            self.sort(job, place);
        }
        let is_heavy = self.light.is_empty() || self.is_turn_of_heavy && !self.heavy.is_empty();
        self.is_turn_of_heavy = !is_heavy;
        let (line, bytes) = if is_heavy {
            (&mut self.heavy, config.group_bytes.min(HEAVY_GROUP_BYTES))
        } else {
            (&mut self.light, config.group_bytes)
        };
        let mut group = Group::new(line.pop_front()?.0);
        while !group.is_full(config.group_events, bytes) {
            let Some((call, _)) = line.pop_front() else { break };
            group.push(call);
        }
        Some(group)
    }

    /// How many calls wait.
    fn len(&self) -> usize {
        self.capacity.saturating_sub(self.places.available_permits())
    }
}

fn run(mut inbox: Inbox, mut session: Session) {
    let mut callers = 1;
    while inbox.wait() {
        if let Some(group) = inbox.gather(callers, &session.config) {
            let answered = group.len();
            session.record(group);
            callers = answered + inbox.len();
        }
        if let Some(work) = inbox.work.take() {
            work(&mut session);
        }
    }
}

/// What the writer's thread owns. The connection closes last, and folds the log into the file.
struct Session {
    checkpointer: Checkpointer,
    file: DatabaseFile,
    config: SqliteConfig,
    clock: Arc<dyn Clock>,
    /// None after a failure that leaves the connection in doubt; the next transaction opens another.
    conn: Option<SqliteConnection>,
}

impl Session {
    /// Commits a group and answers each of its calls.
    fn record(&mut self, mut group: Group<Prepared>) {
        let mut bisect = false;
        while !group.is_empty() {
            let rows = group.rows();
            let done = self.transaction(rows.len(), |conn, now| {
                if bisect {
                    write::record_bisecting(conn, &rows, now)
                } else {
                    write::record(conn, &rows, now).map_err(TxError::from)
                }
            });
            match done {
                Ok(admissions) => return group.admitted(admissions),
                Err(TxError::Db(error)) if is_data(&error) && !bisect => {
                    bisect = true;
                }
                Err(TxError::Culprit { index, error }) => {
                    group.refuse(index, store_error("record events", error));
                }
                Err(error) => return group.failed(error.into_store("record events")),
            }
        }
    }

    /// Runs `work`, which stores so many events, in one transaction that holds the write lock from its beginning.
    fn transaction<T>(
        &mut self,
        events: usize,
        work: impl FnOnce(&mut SqliteConnection, &Now) -> Result<T, TxError>,
    ) -> Result<T, TxError> {
        self.file.check().map_err(TxError::Refused)?;
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => pool::open_writer(&self.file, &self.config).map_err(TxError::Refused)?,
        };
        let clock = &self.clock;
        let done = conn.immediate_transaction(|conn| work(conn, &Now::new(clock.now())));
        let in_doubt =
            matches!(&done, Err(TxError::Db(error)) if !is_data(error) && !is_locked(error));
        if !in_doubt {
            self.checkpointer.committed(&mut conn, events);
            self.conn = Some(conn);
        }
        done
    }
}
