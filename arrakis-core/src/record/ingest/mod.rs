//! From what a sender submits to what is stored of it: [`Ingest`].
//!
//! ```text
//! Submission ──► form ──► redaction ──► verdict ──► EventStore::record ──► Received
//!               (form.rs)            (verdict.rs)
//! ```
//!
//! Each event leaves tracing events of the target `arrakis::ingest`, one for each step, with its request id.

mod dry_run;
mod form;
mod verdict;

pub use dry_run::DryRun;
pub use form::{Parsed, UnreadableEvent, parse};
pub use verdict::{Incoming, Reception, admit, judge};

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::clock::{Clock, Timestamp};
use crate::base::digest::Digest;
use crate::base::envelope::{Envelope, Form, Removed, Truncation};
use crate::base::heavy::HeavyPool;
use crate::base::id::{RequestId, uuid_v7};
use crate::base::limits::PAYLOAD_MAX_BYTES;
use crate::record::arrival::{Arrival, EventMetadata, UNKNOWN_EVENT_TYPE};
use crate::record::audit::EventStatus;
use crate::record::store::{
    Admission, AdmissionKind, EventStore, ID_CONFLICT, StoreError, Verdict,
};
use crate::session::redact::{Redacted, Redactor};

/// Receives events for a store, whatever transport brought them. Cloning is cheap.
///
/// * Secrets are redacted before anything is stored; what its sender has redacted already stays as it is. The digest
///   that counts is that of the bytes that came, so that a repeat is known as one.
/// * An envelope may name another digest than its payload's: its drainer has redacted it again, or it comes back from a
///   store. A repeat is known by that one too. It takes the place of the payload's own only where the sender may take
///   events back in ([`Request::restores`]); from anybody else it would be a claim about bytes that nobody has seen.
/// * What is no event, or an invalid one, is stored as an `INVALID` row, and its sender is told
///   ([`Received::refusal`]).
#[derive(Debug, Clone)]
pub struct Ingest {
    store: Arc<dyn EventStore>,
    redactor: Arc<Redactor>,
    clock: Arc<dyn Clock>,
    heavy: HeavyPool,
}

/// One event as it was submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submission {
    /// JSON in one of the three [forms](Form).
    Json(Bytes),
    /// An envelope.
    Envelope(Box<Envelope>),
}

impl Submission {
    fn len(&self) -> usize {
        match self {
            Self::Json(json) => json.len(),
            Self::Envelope(envelope) => envelope.payload.len(),
        }
    }
}

impl From<Bytes> for Submission {
    fn from(json: Bytes) -> Self {
        Self::Json(json)
    }
}

impl From<String> for Submission {
    fn from(json: String) -> Self {
        Self::Json(json.into())
    }
}

impl From<Envelope> for Submission {
    fn from(envelope: Envelope) -> Self {
        Self::Envelope(Box::new(envelope))
    }
}

/// The circumstances of a request, which may bring several events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// When it was received.
    pub received_at: Timestamp,
    /// The workspace of its sender.
    pub workspace: String,
    /// Whether its sender may take events back in under the digest under which they first came, as an import with an
    /// admin key does.
    pub restores: bool,
    /// Names the event of a request that brings one, where the event itself names no id. Without it such an event
    /// gets a new one.
    pub request_id: Option<RequestId>,
    /// Its headers, selected, secrets replaced.
    pub headers: BTreeMap<String, String>,
    /// The client's address.
    pub ip_address: Option<IpAddr>,
}

impl Request {
    /// A request without headers and address, of a sender who may send events and no more.
    #[must_use]
    pub fn new(workspace: impl Into<String>, received_at: Timestamp) -> Self {
        let workspace = workspace.into();
        let (restores, request_id, headers, ip_address) = Default::default();
        Self { received_at, workspace, restores, request_id, headers, ip_address }
    }
}

/// An event that is ready to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    arrival: Arrival,
    verdict: Verdict,
    /// Why its sender is refused, if the store keeps it as invalid.
    refusal: Option<Refusal>,
}

impl Judged {
    /// Names the event.
    #[must_use]
    pub fn request_id(&self) -> &RequestId {
        &self.arrival.request_id
    }
}

/// What became of an event; it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Names the event.
    pub request_id: RequestId,
    /// The store's answer.
    pub admission: Admission,
    /// Set where the sender must hear that the event is not taken as it is.
    pub refusal: Option<Refusal>,
}

/// Why an event is not taken as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It is no event.
    #[error(transparent)]
    Unreadable(UnreadableEvent),
    /// It fails validation.
    #[error("{message}")]
    Invalid {
        /// A stable word.
        code: String,
        /// A sentence for people.
        message: String,
    },
    /// Its request id belongs to another payload.
    #[error("{}", ID_CONFLICT.1)]
    Conflict,
}

impl Refusal {
    /// A stable word.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Unreadable(error) => error.code(),
            Self::Invalid { code, .. } => code,
            Self::Conflict => ID_CONFLICT.0,
        }
    }
}

impl Ingest {
    /// Stores in `store`, without what `redactor` removes.
    #[must_use]
    pub fn new(store: Arc<dyn EventStore>, redactor: Redactor, clock: Arc<dyn Clock>) -> Self {
        Self { store, redactor: Arc::new(redactor), clock, heavy: HeavyPool::default() }
    }

    /// Stores one event of `workspace`.
    ///
    /// # Errors
    ///
    /// The event is not stored.
    pub async fn receive(
        &self,
        workspace: &str,
        event: impl Into<Submission>,
    ) -> Result<Received, StoreError> {
        let mut received = self.receive_batch(workspace, vec![event.into()]).await?;
        Ok(received.remove(0))
    }

    /// Stores several events of `workspace` in one transaction; one result for each, in order.
    ///
    /// # Errors
    ///
    /// None of the events is stored.
    pub async fn receive_batch(
        &self,
        workspace: &str,
        events: Vec<Submission>,
    ) -> Result<Vec<Received>, StoreError> {
        let request = Request::new(workspace, self.clock.now());
        let bytes = events.iter().map(Submission::len).sum();
        let ingest = self.clone();
        let judge = move || events.into_iter().map(|event| ingest.judge(&request, event)).collect();
        let judged = self.heavy.run(bytes, judge).await;
        self.record(judged).await
    }

    /// The first half of [`receive`](Self::receive): reads, redacts and judges an event. It takes time that grows
    /// with the event, and waits for nothing.
    #[must_use]
    pub fn judge(&self, request: &Request, event: impl Into<Submission>) -> Judged {
        let reception = Reception {
            event_id: uuid_v7(request.received_at, rand::random()),
            received_at: request.received_at,
            workspace: request.workspace.clone(),
            headers: request.headers.clone(),
            ip_address: request.ip_address,
        };
        let id = || {
            let named = request.request_id.clone();
            named.unwrap_or_else(|| RequestId::mint(request.received_at, rand::random()))
        };
        let incoming = match event.into() {
            Submission::Envelope(envelope) => self.read_envelope(*envelope, request),
            Submission::Json(json) => self.read_json(&json, request, id),
        };
        match incoming {
            Ok(incoming) => judged(incoming, reception),
            Err(unreadable) => unreadable.judged(reception),
        }
    }

    /// The second half of [`receive`](Self::receive): stores events in one transaction; one result for each, in
    /// order.
    ///
    /// # Errors
    ///
    /// None of the events is stored.
    pub async fn record(&self, judged: Vec<Judged>) -> Result<Vec<Received>, StoreError> {
        let mut batch = Vec::with_capacity(judged.len());
        let mut senders = Vec::with_capacity(judged.len());
        for Judged { arrival, verdict, refusal } in judged {
            senders.push((arrival.request_id.clone(), refusal));
            batch.push((arrival, verdict));
        }
        let admissions = self.store.record(batch).await?;
        let received =
            senders.into_iter().zip(admissions).map(|((request_id, refusal), admission)| {
                // One transaction does these, so they are done together.
                for done in ["check duplicate", "record", "process", "finish"] {
                    step(&request_id, done);
                }
                let refusal = match admission.kind {
                    AdmissionKind::Conflict => Some(Refusal::Conflict),
                    // A repeat of what was invalid may have been applied meanwhile.
                    _ => refusal.filter(|_| admission.status == EventStatus::Invalid),
                };
                Received { request_id, admission, refusal }
            });
        Ok(received.collect())
    }

    fn read_json(
        &self,
        json: &Bytes,
        request: &Request,
        id: impl FnOnce() -> RequestId,
    ) -> Result<Incoming, Unreadable> {
        let (form, request_id, digest) = match parse(json) {
            Ok(Parsed::Envelope(envelope)) => return self.redact_envelope(*envelope, request),
            Ok(Parsed::Original { request_id, digest }) => (Form::Original, request_id, digest),
            Ok(Parsed::Raw { digest }) => (Form::Raw, None, digest),
            Err(error) => {
                let request_id = match &error {
                    UnreadableEvent::DigestMismatch { request_id } => request_id.clone(),
                    _ => id(),
                };
                return Err(Unreadable { error, request_id, body: self.redact(json).0 });
            }
        };
        let request_id = request_id.unwrap_or_else(id);
        let (body, redacted) = self.redact(json);
        // Redaction may have made it longer.
        if body.len() > PAYLOAD_MAX_BYTES {
            return Err(Unreadable::too_long(body.len(), request_id, body));
        }
        Ok(Incoming { form, request_id, digest, body, header: None, redacted })
    }

    fn read_envelope(&self, envelope: Envelope, request: &Request) -> Result<Incoming, Unreadable> {
        if envelope.is_intact() {
            return self.redact_envelope(envelope, request);
        }
        let Envelope { header, payload } = envelope;
        let error = UnreadableEvent::DigestMismatch { request_id: header.request_id.clone() };
        let body = self.redact(&payload).0;
        Err(Unreadable { error, request_id: header.request_id, body })
    }

    /// Redacts an intact envelope. The digest is settled before, because it is of the bytes that came.
    fn redact_envelope(
        &self,
        envelope: Envelope,
        request: &Request,
    ) -> Result<Incoming, Unreadable> {
        let length = envelope.payload.len();
        if length > PAYLOAD_MAX_BYTES {
            let body = self.redact(&envelope.payload).0;
            return Err(Unreadable::too_long(length, envelope.header.request_id, body));
        }
        let named = envelope.header.digest;
        let own = envelope.header.payload_digest.unwrap_or(named);
        let digest = if request.restores { named } else { own };
        Ok(Incoming { digest, ..Incoming::from(self.redactor.redact_envelope(envelope)) })
    }

    fn redact(&self, body: &[u8]) -> (Bytes, Removed) {
        let Redacted { text, removed } = self.redactor.redact(body);
        (Bytes::from(text.into_owned()), removed)
    }
}

/// Bytes that are kept as an `INVALID` row, though they are no event.
struct Unreadable {
    error: UnreadableEvent,
    request_id: RequestId,
    /// What is kept, redacted.
    body: Bytes,
}

impl Unreadable {
    /// An event of `length` bytes, which no envelope could carry again. Its ends are kept.
    fn too_long(length: usize, request_id: RequestId, body: Bytes) -> Self {
        let error = UnreadableEvent::Invalid {
            code: "too_long",
            message: format!("the event has {length} bytes, more than {PAYLOAD_MAX_BYTES}"),
        };
        let (body, _) = Truncation::limit(body.into(), &[], None);
        Self { error, request_id, body: body.into() }
    }

    fn judged(self, reception: Reception) -> Judged {
        let Self { error, request_id, body } = self;
        let arrival = Arrival {
            event_id: reception.event_id,
            request_id,
            digest: Digest::of(&body),
            in_ledger: false,
            workspace: reception.workspace,
            event_type: UNKNOWN_EVENT_TYPE.to_owned(),
            session_id: None,
            received_at: reception.received_at,
            body,
            headers: reception.headers,
            ip_address: reception.ip_address,
            metadata: EventMetadata::default(),
        };
        let verdict =
            Verdict::Invalid { code: error.code().to_owned(), message: error.to_string() };
        Judged { arrival, verdict, refusal: Some(Refusal::Unreadable(error)) }
    }
}

fn judged(incoming: Incoming, reception: Reception) -> Judged {
    step(&incoming.request_id, "parse");
    step(&incoming.request_id, "read the trace");
    let in_envelope = incoming.header.is_some();
    let (arrival, verdict) = admit(incoming, reception);
    step(&arrival.request_id, "validate");
    let refusal = match &verdict {
        Verdict::Invalid { code, message } if !in_envelope => {
            Some(Refusal::Invalid { code: code.clone(), message: message.clone() })
        }
        _ => None,
    };
    Judged { arrival, verdict, refusal }
}

fn step(request_id: &RequestId, step: &'static str) {
    tracing::debug!(target: "arrakis::ingest", %request_id, step);
}
