//! An event as it arrived, and what its audit row keeps of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::base::envelope::{
    ENVELOPE_VERSION, Envelope, Form, Header, Removed, Source, TraceContext, Truncation,
};
use crate::base::id::RequestId;
use crate::session::projection::Input;

/// The event type of an event that names none.
pub const UNKNOWN_EVENT_TYPE: &str = "unknown";

/// One event as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The id of its audit row, `UUIDv7`.
    pub event_id: Uuid,
    /// Names the event.
    pub request_id: RequestId,
    /// The digest that a repeat must have: that of the bytes that came, unless the sender may name another, as an
    /// import with an admin key does ([`Request::restores`](crate::record::ingest::Request::restores)).
    pub digest: Digest,
    /// Whether it takes the request id in its workspace; unset for what its sender must fix and send again.
    pub in_ledger: bool,
    /// The workspace of the key that sent it.
    pub workspace: String,
    /// The event type, cut; [`UNKNOWN_EVENT_TYPE`] where it could not be read.
    pub event_type: String,
    /// The session id, where it could be read.
    pub session_id: Option<String>,
    /// When the request was received.
    pub received_at: Timestamp,
    /// The hook payload (for the original's form: the body).
    pub body: Bytes,
    /// The request's headers, selected, secrets replaced.
    pub headers: BTreeMap<String, String>,
    /// The client's address.
    pub ip_address: Option<IpAddr>,
    /// What else is known of the event.
    pub metadata: EventMetadata,
}

/// What an audit row keeps of an event that has no column of its own. Stores keep it as one JSON object
/// ([`adapter`](crate::record::store::adapter)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventMetadata {
    /// The form in which the event came; `None` for bytes that are no event, and for duplicates.
    pub form: Option<Form>,
    /// What its envelope says of it; `None` where it came in none.
    pub capture: Option<Capture>,
    /// How many secrets redaction has removed from the body, by rule.
    pub redacted: Removed,
    /// The event in one line ([`summary`](crate::session::hook::summary)); may be empty.
    pub summary: String,
    /// The subagent that the event is about, where only the timeline shows it.
    pub agent_id: Option<String>,
    /// Of a `DUPLICATE` row: the row that it repeats. It has nothing else, as the first row says it.
    pub duplicate_of: Option<Uuid>,
}

/// What an envelope's header says that the audit row has no column for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capture {
    /// The version of the envelope's format.
    #[serde(rename = "envelope")]
    pub version: u32,
    /// When the event was captured.
    pub captured_at: Timestamp,
    /// The digest that the envelope names.
    pub digest: Digest,
    /// Where the event was to be delivered.
    pub destination: String,
    /// Where it comes from.
    #[serde(default)]
    pub source: Source,
    /// The trace that it belongs to.
    pub trace: TraceContext,
    /// Set where the payload is not all of what came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<Truncation>,
}

impl EventMetadata {
    /// What is known of an event of this form before it is projected.
    #[must_use]
    pub fn new(form: Form, header: Option<Header>, redacted: Removed) -> Self {
        let capture = header.map(|header| {
            let Header { version, captured_at, digest, destination, .. } = header;
            let Header { source, trace, truncated, .. } = header;
            Capture { version, captured_at, digest, destination, source, trace, truncated }
        });
        Self { form: Some(form), capture, redacted, ..Self::default() }
    }

    /// What the row of a duplicate says.
    #[must_use]
    pub fn duplicate_of(first: Uuid) -> Self {
        Self { duplicate_of: Some(first), ..Self::default() }
    }

    /// When the event was captured, where that is known.
    #[must_use]
    pub fn captured_at(&self) -> Option<Timestamp> {
        self.capture.as_ref().map(|capture| capture.captured_at)
    }
}

impl Capture {
    /// The header that says this, of an event of this name, type and session.
    #[must_use]
    pub fn into_header(
        self,
        request_id: RequestId,
        event_type: Option<String>,
        session_id: Option<String>,
    ) -> Header {
        let Self { version, captured_at, digest, destination, source, trace, truncated } = self;
        Header {
            version,
            request_id,
            captured_at,
            event_type,
            session_id,
            digest,
            destination,
            source,
            trace,
            truncated,
            redacted: Removed::default(),
            form: None,
            payload_digest: None,
        }
    }
}

impl Arrival {
    /// The digest by which the sender knows the event: what a receipt names.
    #[must_use]
    pub fn named_digest(&self) -> Digest {
        self.metadata.capture.as_ref().map_or(self.digest, |capture| capture.digest)
    }

    /// The digest that the sender has named, where it is not the one that counts: that of bytes that the sender does
    /// not show. Redaction before the delivery leaves such a digest.
    #[must_use]
    pub fn claimed_digest(&self) -> Option<Digest> {
        Some(self.named_digest()).filter(|named| *named != self.digest)
    }

    /// The event as projection reads it. What came in no form that is known is read as an envelope's.
    #[must_use]
    pub fn input(&self) -> Input<'_> {
        Input {
            form: self.metadata.form.unwrap_or(Form::Envelope),
            workspace: &self.workspace,
            request_id: &self.request_id,
            event_type: &self.event_type,
            session_id: self.session_id.as_deref(),
            at: self.metadata.captured_at().unwrap_or(self.received_at),
            host: self.metadata.capture.as_ref().and_then(|capture| capture.source.host.as_deref()),
            body: &self.body,
        }
    }

    /// The envelope that brings a stored event again, to this store or another: the same event, under the same
    /// request id and digest, captured when it was.
    #[must_use]
    pub fn into_envelope(self) -> Envelope {
        let Self { request_id, digest, event_type, session_id, received_at, body, .. } = self;
        let EventMetadata { form, capture, redacted, .. } = self.metadata;
        let capture = capture.unwrap_or_else(|| Capture {
            version: ENVELOPE_VERSION,
            captured_at: received_at,
            digest,
            destination: String::new(),
            source: Source::default(),
            trace: TraceContext::of(session_id.as_deref(), &request_id),
            truncated: None,
        });
        let event_type = Some(event_type).filter(|known| known != UNKNOWN_EVENT_TYPE);
        let header = Header {
            digest,
            redacted,
            form: form.filter(|form| *form != Form::Envelope),
            payload_digest: Some(Digest::of(&body)).filter(|of_payload| *of_payload != digest),
            ..capture.into_header(request_id, event_type, session_id)
        };
        Envelope { header, payload: body }
    }
}
