//! Group commit, as far as it depends on no database: calls of [`EventStore::record`] share a transaction, and each
//! gets its own answer after the commit.
//!
//! [`EventStore::record`]: crate::record::store::EventStore::record

use tokio::sync::oneshot;

use super::share;
use crate::base::heavy::HEAVY_BYTES;
use crate::record::store::{Admission, StoreError};

/// What a caller waits for.
pub type Reply = oneshot::Receiver<Result<Vec<Admission>, StoreError>>;

/// A call that waits for the commit that will hold its rows.
#[derive(Debug)]
pub struct Call<R> {
    rows: Vec<R>,
    bytes: usize,
    reply: oneshot::Sender<Result<Vec<Admission>, StoreError>>,
}

impl<R> Call<R> {
    /// A call that records `rows`, whose bodies have so many bytes.
    #[must_use]
    pub fn new(rows: Vec<R>, bytes: usize) -> (Self, Reply) {
        let (reply, answer) = oneshot::channel();
        (Self { rows, bytes, reply }, answer)
    }

    /// What it records.
    #[must_use]
    pub fn rows(&self) -> &[R] {
        &self.rows
    }

    /// Whether it takes the database long: calls of small bodies should not wait behind several such.
    #[must_use]
    pub fn is_heavy(&self) -> bool {
        self.bytes > HEAVY_BYTES
    }
}

/// Calls that are committed together.
#[derive(Debug)]
pub struct Group<R> {
    calls: Vec<Call<R>>,
    events: usize,
    bytes: usize,
}

impl<R> Group<R> {
    /// A group of one call.
    #[must_use]
    pub fn new(first: Call<R>) -> Self {
        Self { events: first.rows.len(), bytes: first.bytes, calls: vec![first] }
    }

    /// Adds a call.
    pub fn push(&mut self, call: Call<R>) {
        self.events += call.rows.len();
        self.bytes += call.bytes;
        self.calls.push(call);
    }

    /// Whether it has as many events or bytes as a group may have.
    #[must_use]
    pub fn is_full(&self, events: usize, bytes: usize) -> bool {
        self.events >= events || self.bytes >= bytes
    }

    /// How many calls it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether it has no call any more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The rows of all calls, in order.
    #[must_use]
    pub fn rows(&self) -> Vec<&R> {
        self.calls.iter().flat_map(|call| &call.rows).collect()
    }

    /// Answers every call after the commit: one admission for each row, in order.
    pub fn admitted(self, admissions: Vec<Admission>) {
        let mut admissions = admissions.into_iter();
        for call in self.calls {
            let own = admissions.by_ref().take(call.rows.len()).collect();
            // Whoever asked may have gone; what was stored stays stored.
            let _ = call.reply.send(Ok(own));
        }
    }

    /// Takes the call with the row at `index` out, and answers it with this error.
    pub fn refuse(&mut self, index: usize, error: StoreError) {
        let mut end = 0;
        let holds = |call: &Call<R>| {
            end += call.rows.len();
            index < end
        };
        let call = self.calls.remove(self.calls.iter().position(holds).unwrap_or(0));
        let _ = call.reply.send(Err(error));
    }

    /// Answers every call with this error; all may try again.
    pub fn failed(self, error: StoreError) {
        let error = share(error);
        for call in self.calls {
            let _ = call.reply.send(Err(error()));
        }
    }
}
