//! From an event to what the store records: the arrival and its verdict.
//!
//! Everything here is pure: the same arrival always gets the same verdict, whether it is judged when
//! it arrives or again by a retry.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::base::envelope::{Envelope, Form, Header, Preview, Removed};
use crate::base::id::RequestId;
use crate::base::limits::{INDEXED_TEXT_MAX_BYTES, SESSION_ID_MAX_BYTES, cut};
use crate::record::arrival::{Arrival, EventMetadata, UNKNOWN_EVENT_TYPE};
use crate::record::store::Verdict;
use crate::session::hook::{Field, object, shows_by_itself};
use crate::session::projection::{self, ProjectionError};

/// The circumstances of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reception {
    /// The id of the audit row, `UUIDv7`.
    pub event_id: Uuid,
    /// When the request was received.
    pub received_at: Timestamp,
    /// The workspace of the key that sent it.
    pub workspace: String,
    /// The request's headers, selected, secrets replaced.
    pub headers: BTreeMap<String, String>,
    /// The client's address.
    pub ip_address: Option<IpAddr>,
}

/// One event out of a request, with its identity settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// The form in which it came.
    pub form: Form,
    /// Names it.
    pub request_id: RequestId,
    /// What a repeat must have.
    pub digest: Digest,
    /// The payload of an envelope; the body of the other forms. Secrets are redacted.
    pub body: Bytes,
    /// The envelope's header, where it came in one.
    pub header: Option<Header>,
    /// How many secrets were redacted, by rule.
    pub redacted: Removed,
}

impl From<Envelope> for Incoming {
    /// The event of an intact envelope, under the digest of its payload.
    fn from(Envelope { header, payload }: Envelope) -> Self {
        Self {
            form: header.form.unwrap_or(Form::Envelope),
            request_id: header.request_id.clone(),
            digest: header.payload_digest.unwrap_or(header.digest),
            body: payload,
            redacted: header.redacted.clone(),
            header: Some(header),
        }
    }
}

impl Incoming {
    /// The event of an envelope that takes it back in, under the digest that the envelope names: the one under which
    /// it first came.
    #[must_use]
    pub fn restored(envelope: Envelope) -> Self {
        let digest = envelope.header.digest;
        Self { digest, ..Self::from(envelope) }
    }
}

/// Judges an event and puts together what the store records of it.
///
/// An envelope always takes its request id: its sender has done its part. What came in another form
/// and is invalid leaves the id free, for its sender to fix it and send it again.
#[must_use]
pub fn admit(incoming: Incoming, reception: Reception) -> (Arrival, Verdict) {
    let in_envelope = incoming.header.is_some();
    let mut arrival = arrival(incoming, reception);
    let (verdict, summary) = judge_and_sum_up(&arrival);
    arrival.metadata.summary = summary;
    arrival.metadata.agent_id = agent_of(&arrival);
    arrival.in_ledger = in_envelope || !matches!(verdict, Verdict::Invalid { .. });
    (arrival, verdict)
}

/// The subagent that an event of the timeline is about. The others show where their messages and tool uses do.
fn agent_of(arrival: &Arrival) -> Option<String> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow, default)]
        agent_id: Field<'a>,
    }
    let is_told = !shows_by_itself(&arrival.event_type);
    let is_hook = matches!(arrival.metadata.form, Some(Form::Envelope | Form::Raw));
    let read = || object::<Named<'_>>(&arrival.body).ok()?.agent_id.text();
    let agent_id = (is_told && is_hook).then(read)??;
    Some(crate::session::conversation::name(&agent_id))
}

/// What is to become of an arrival.
#[must_use]
pub fn judge(arrival: &Arrival) -> Verdict {
    judge_and_sum_up(arrival).0
}

/// What is to become of an arrival, and its summary; empty where it cannot be applied.
fn judge_and_sum_up(arrival: &Arrival) -> (Verdict, String) {
    let verdict = match projection::project(arrival.input()) {
        Ok((changes, summary)) => return (Verdict::Apply(changes), summary),
        Err(ProjectionError::Invalid { code, message }) => {
            Verdict::Invalid { code: code.to_owned(), message }
        }
        Err(ProjectionError::Failed { code, message }) => {
            Verdict::Failed { code: code.to_owned(), message }
        }
    };
    (verdict, String::new())
}

fn arrival(incoming: Incoming, reception: Reception) -> Arrival {
    let Incoming { form, request_id, digest, body, header, redacted } = incoming;
    let Names { event_type, session_id } = Names::of(form, &body, header.as_ref());
    let event_type = event_type.unwrap_or_else(|| UNKNOWN_EVENT_TYPE.to_owned());
    Arrival {
        event_id: reception.event_id,
        request_id,
        digest,
        in_ledger: true,
        workspace: reception.workspace,
        event_type: cut(&event_type, INDEXED_TEXT_MAX_BYTES).to_owned(),
        session_id: session_id.filter(|id| id.len() <= SESSION_ID_MAX_BYTES),
        received_at: reception.received_at,
        body,
        headers: reception.headers,
        ip_address: reception.ip_address,
        metadata: EventMetadata::new(form, header, redacted),
    }
}

/// The names by which an event is found.
struct Names {
    event_type: Option<String>,
    session_id: Option<String>,
}

impl Names {
    fn of(form: Form, body: &[u8], header: Option<&Header>) -> Self {
        if form == Form::Original {
            #[derive(Default, Deserialize)]
            #[serde(rename_all = "camelCase", default)]
            struct Original {
                event: Value,
                session_id: Value,
            }
            let text = |value: Value| value.as_str().map(str::to_owned);
            let original: Original = serde_json::from_slice(body).unwrap_or_default();
            return Self {
                event_type: text(original.event),
                session_id: text(original.session_id),
            };
        }
        let preview = Preview::of(body);
        Self {
            event_type: preview.event_type.or_else(|| header?.event_type.clone()),
            session_id: preview.session_id.or_else(|| header?.session_id.clone()),
        }
    }
}
