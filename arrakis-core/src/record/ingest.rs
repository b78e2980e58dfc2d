//! From a received request to what the store records: the arrival and its verdict.
//!
//! Everything here is pure: the same arrival always gets the same verdict, whether it is judged when
//! it arrives or again by a retry.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
pub use crate::base::envelope::Form;
use crate::base::envelope::Preview;
use crate::base::envelope::Removed;
use crate::base::envelope::{ENVELOPE_VERSION, Envelope, Header, Source, TraceContext};
use crate::base::id::RequestId;
use crate::base::limits::{INDEXED_TEXT_MAX_BYTES, SESSION_ID_MAX_BYTES, cut};
use crate::record::store::{Arrival, Verdict};
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
}

impl From<Envelope> for Incoming {
    /// The event of an envelope, which names its own identity.
    fn from(Envelope { header, payload }: Envelope) -> Self {
        Self {
            form: header.form.unwrap_or(Form::Envelope),
            request_id: header.request_id.clone(),
            digest: header.digest,
            body: payload,
            header: Some(header),
        }
    }
}

/// The event type of what names none.
pub const UNKNOWN_EVENT_TYPE: &str = "unknown";

/// Judges an event and puts together what the store records of it.
///
/// An envelope always takes its request id: its sender has done its part. What came in another form
/// and is invalid leaves the id free, for its sender to mend it and send it again.
#[must_use]
pub fn admit(incoming: Incoming, reception: Reception) -> (Arrival, Verdict) {
    let in_envelope = incoming.header.is_some();
    let mut arrival = arrival(incoming, reception);
    let (verdict, told) = judge_and_tell(&arrival);
    if !told.is_empty() {
        arrival.metadata.insert("summary".to_owned(), told.into());
    }
    arrival.in_ledger = in_envelope || !matches!(verdict, Verdict::Invalid { .. });
    (arrival, verdict)
}

/// What is to become of an arrival.
#[must_use]
pub fn judge(arrival: &Arrival) -> Verdict {
    judge_and_tell(arrival).0
}

/// What is to become of an arrival, and what it says in one line; nothing where it cannot be applied.
fn judge_and_tell(arrival: &Arrival) -> (Verdict, String) {
    let verdict = match projection::project(arrival) {
        Ok((changes, told)) => return (Verdict::Apply(changes), told),
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
    let Incoming { form, request_id, digest, body, header } = incoming;
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
        metadata: metadata(form, header),
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
        let glance = Preview::of(body);
        Self {
            event_type: glance.event_type.or_else(|| header?.event_type.clone()),
            session_id: glance.session_id.or_else(|| header?.session_id.clone()),
        }
    }
}

/// The envelope that brings a stored event again, to this store or another: the same event, under the same
/// request id and digest, captured when it was.
#[must_use]
pub fn envelope(arrival: Arrival) -> Envelope {
    let form = arrival.metadata.get("form").cloned().unwrap_or(Value::Null);
    let form = serde_json::from_value(form).unwrap_or(Form::Envelope);
    let Arrival { request_id, digest, event_type, session_id, received_at, body, metadata, .. } =
        arrival;
    let event_type = Some(event_type).filter(|known| known != UNKNOWN_EVENT_TYPE);
    let mut fields = metadata;
    fields.remove("form");
    let redacted = fields.get("redacted").cloned().unwrap_or(Value::Null);
    let redacted: Removed = serde_json::from_value(redacted).unwrap_or_default();
    fields.insert("requestId".to_owned(), request_id.as_str().into());
    let header = match serde_json::from_value::<Header>(fields.into()) {
        Ok(header) => header,
        // What came in no envelope has no header.
        Err(_) => Header {
            version: ENVELOPE_VERSION,
            trace: TraceContext::of(session_id.as_deref(), &request_id),
            request_id,
            captured_at: received_at,
            event_type: None,
            session_id: None,
            digest,
            destination: String::new(),
            source: Source::default(),
            truncated: None,
            redacted,
            form: None,
            payload_digest: None,
        },
    };
    let payload_digest = Some(Digest::of(&body)).filter(|of_payload| *of_payload != digest);
    let form = Some(form).filter(|form| *form != Form::Envelope);
    let header = Header { digest, event_type, session_id, form, payload_digest, ..header };
    Envelope { header, payload: body }
}

/// What the audit row's metadata says beside the [`summary`](crate::session::hook::summary): the form, and the envelope's header less what
/// has a column.
fn metadata(form: Form, header: Option<Header>) -> Map<String, Value> {
    let mut metadata = match header.map(serde_json::to_value) {
        Some(Ok(Value::Object(header))) => header,
        _ => Map::new(),
    };
    for column in ["requestId", "eventType", "sessionId", "payloadDigest"] {
        metadata.remove(column);
    }
    metadata.insert("form".to_owned(), serde_json::json!(form));
    metadata
}
