//! The thread that writes, and the sharing of its transactions.

use std::sync::Arc;
use std::thread::JoinHandle;

use arrakis_core::clock::Clock;
use arrakis_core::store::{Admission, Arrival, StoreError, Verdict};
use diesel::SqliteConnection;
use tokio::sync::{mpsc, oneshot};

use crate::config::SqliteConfig;
use crate::error::WriteError;
use crate::write;

/// Most events in one shared transaction.
const GROUP_MAX_EVENTS: usize = 1000;

/// Most payload bytes in one shared transaction.
const GROUP_MAX_BYTES: usize = 32 * 1024 * 1024;

/// Sends writes to the thread; the last one to drop it waits until everything accepted is done.
#[derive(Debug)]
pub(crate) struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

enum Job {
    Record(RecordJob),
    /// Anything else; it makes its own transaction.
    Other(Box<dyn FnOnce(&mut SqliteConnection) + Send>),
}

struct RecordJob {
    batch: Vec<(Arrival, Verdict)>,
    answer: oneshot::Sender<Result<Vec<Admission>, StoreError>>,
}

impl Writer {
    pub(crate) fn start(
        mut connection: SqliteConnection,
        clock: Arc<dyn Clock>,
        config: &SqliteConfig,
    ) -> Self {
        let (jobs, mut waiting) = mpsc::channel(config.waiting_writes);
        let thread = std::thread::spawn(move || {
            let mut next = None;
            while let Some(job) = next.take().or_else(|| waiting.blocking_recv()) {
                match job {
                    Job::Other(work) => work(&mut connection),
                    Job::Record(first) => {
                        let (group, after) = gather(first, &mut waiting);
                        next = after;
                        commit(&mut connection, &*clock, group);
                    }
                }
            }
        });
        Self { jobs: Some(jobs), thread: Some(thread) }
    }

    pub(crate) async fn record(
        &self,
        batch: Vec<(Arrival, Verdict)>,
    ) -> Result<Vec<Admission>, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.send(Job::Record(RecordJob { batch, answer }))?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }

    pub(crate) async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&mut SqliteConnection) -> Result<T, WriteError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.send(Job::Other(Box::new(move |connection| {
            let result = write::in_transaction(connection, work);
            answer.send(result.map_err(|error| error.into_store(what))).ok();
        })))?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }

    fn send(&self, job: Job) -> Result<(), StoreError> {
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Unavailable {
                what: "queue one more write".to_owned(),
                source: "too many writes wait already".into(),
            },
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // It only panics if Diesel does, and then everybody has had an error already.
            thread.join().ok();
        }
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable { what: "write".to_owned(), source: "the writer has stopped".into() }
}

/// Takes what waits besides `first`, up to the limits of a group, and the job after it.
fn gather(first: RecordJob, waiting: &mut mpsc::Receiver<Job>) -> (Vec<RecordJob>, Option<Job>) {
    let size = |job: &RecordJob| -> usize { job.batch.iter().map(|(a, _)| a.body.len()).sum() };
    let (mut events, mut bytes) = (first.batch.len(), size(&first));
    let mut group = vec![first];
    while events < GROUP_MAX_EVENTS && bytes < GROUP_MAX_BYTES {
        match waiting.try_recv() {
            Ok(Job::Record(job)) => {
                events += job.batch.len();
                bytes += size(&job);
                group.push(job);
            }
            Ok(other) => return (group, Some(other)),
            Err(_) => break,
        }
    }
    (group, None)
}

/// Stores a group in one transaction and answers its members.
fn commit(connection: &mut SqliteConnection, clock: &dyn Clock, group: Vec<RecordJob>) {
    let (batches, answers): (Vec<_>, Vec<_>) =
        group.into_iter().map(|job| (job.batch, job.answer)).unzip();
    let parts: Vec<&[(Arrival, Verdict)]> = batches.iter().map(Vec::as_slice).collect();
    match write::record(connection, clock.now(), &parts) {
        Ok(mut admissions) => {
            for (batch, answer) in batches.iter().zip(answers) {
                let rest = admissions.split_off(batch.len());
                answer.send(Ok(std::mem::replace(&mut admissions, rest))).ok();
            }
        }
        // One of them has broken it for all: each by itself, so that only the culprit suffers.
        Err(error) if error.is_about_data() => {
            for (batch, answer) in batches.into_iter().zip(answers) {
                let result = record_apart(connection, clock, batch);
                answer.send(result.map_err(|error| error.into_store("record events"))).ok();
            }
        }
        Err(error) => {
            let cause = error.describe();
            for answer in answers {
                let what = "record events".to_owned();
                answer
                    .send(Err(StoreError::Unavailable { what, source: cause.clone().into() }))
                    .ok();
            }
        }
    }
}

/// Stores a batch; taken apart where its data breaks it, until the culprit is alone. That one is kept
/// as `ERROR`, without its changes.
fn record_apart(
    connection: &mut SqliteConnection,
    clock: &dyn Clock,
    mut batch: Vec<(Arrival, Verdict)>,
) -> Result<Vec<Admission>, WriteError> {
    match write::record(connection, clock.now(), &[&batch]) {
        Err(error) if error.is_about_data() && batch.len() > 1 => {
            let second = batch.split_off(batch.len() / 2);
            let mut admissions = record_apart(connection, clock, batch)?;
            admissions.extend(record_apart(connection, clock, second)?);
            Ok(admissions)
        }
        Err(error) if error.is_about_data() => {
            for (_, verdict) in &mut batch {
                let message = error.describe();
                *verdict = Verdict::Failed { code: "store_refused".to_owned(), message };
            }
            write::record(connection, clock.now(), &[&batch])
        }
        result => result,
    }
}
