//! A transport that stays inside the process.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use uuid::Uuid;

use super::{Batch, Outcome, Reason, Receipt, Transport, TransportError};
use crate::base::digest::Digest;
use crate::base::id::RequestId;

/// Accepts every event and remembers it, unless told to behave otherwise: for embedding without a
/// network, and for tests.
#[derive(Debug, Default)]
pub struct Loopback {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stored: HashMap<RequestId, Digest>,
    attempts: Vec<Attempt>,
    script: VecDeque<Result<Vec<Outcome>, TransportError>>,
}

/// What one call of [`Loopback`] was asked to deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The request ids, in order.
    pub request_ids: Vec<RequestId>,
}

impl Loopback {
    /// Queues the answer to a coming call, in order; after the last one it accepts again.
    pub fn script(&self, answer: Result<Vec<Outcome>, TransportError>) {
        self.state().script.push_back(answer);
    }

    /// Every call so far.
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempt> {
        self.state().attempts.clone()
    }

    /// What it has stored: each accepted event's digest.
    #[must_use]
    pub fn stored(&self) -> HashMap<RequestId, Digest> {
        self.state().stored.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

#[async_trait]
impl Transport for Loopback {
    async fn deliver(&self, batch: Batch) -> Result<Vec<Outcome>, TransportError> {
        let mut state = self.state();
        let request_ids = batch.envelopes().iter().map(|e| e.request_id().clone()).collect();
        state.attempts.push(Attempt { request_ids });
        if let Some(answer) = state.script.pop_front() {
            return answer;
        }
        let outcomes = batch.envelopes().iter().map(|envelope| {
            let receipt = Receipt {
                request_id: envelope.request_id().clone(),
                digest: envelope.header.digest,
                event_id: Uuid::new_v5(
                    &Uuid::NAMESPACE_OID,
                    envelope.request_id().as_str().as_bytes(),
                ),
            };
            match state.stored.entry(receipt.request_id.clone()) {
                Entry::Vacant(vacant) => {
                    vacant.insert(receipt.digest);
                    Outcome::Accepted(receipt)
                }
                Entry::Occupied(first) if *first.get() == receipt.digest => {
                    Outcome::Duplicate(receipt)
                }
                Entry::Occupied(_) => Outcome::Refused(Reason {
                    code: "id_conflict".to_owned(),
                    message: "this request id was used for another payload".to_owned(),
                }),
            }
        });
        Ok(outcomes.collect())
    }
}
