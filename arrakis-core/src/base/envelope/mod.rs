//! The envelope: one captured event, as it travels.

mod json;
mod preview;
mod removed;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::base::id::RequestId;
use crate::base::limits::{
    INDEXED_TEXT_MAX_BYTES, PAYLOAD_MAX_BYTES, PROJECT_DIR_MAX_BYTES, SESSION_ID_MAX_BYTES,
    TRUNCATED_PART_BYTES, cut,
};

pub use json::{EnvelopeError, decode_envelope, encode_envelope};
pub use preview::Preview;
pub use removed::Removed;

/// The version of the envelope that this code writes.
pub const ENVELOPE_VERSION: u32 = 1;

/// One captured event: the payload bytes, and what the hook adds to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Everything but the payload.
    pub header: Header,
    /// The payload, as it came on stdin less one final newline, after redaction.
    pub payload: Bytes,
}

/// What an envelope says about its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// The version of the format, see [`ENVELOPE_VERSION`].
    #[serde(rename = "envelope")]
    pub version: u32,
    /// Names the event.
    pub request_id: RequestId,
    /// When the hook had read the payload.
    pub captured_at: Timestamp,
    /// `hook_event_name` of the payload, where it could be read, cut at
    /// [`INDEXED_TEXT_MAX_BYTES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// `session_id` of the payload, where it could be read and has at most
    /// [`SESSION_ID_MAX_BYTES`]: a part of one would name another session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// What a repeat must have, and what a receipt names: SHA-256 of the payload bytes, unless
    /// [`payload_digest`](Self::payload_digest) says otherwise.
    pub digest: Digest,
    /// Where to deliver, as configured at capture time: a URL without credentials.
    pub destination: String,
    /// Where the event comes from.
    #[serde(default)]
    pub source: Source,
    /// The W3C trace that this event belongs to.
    pub trace: TraceContext,
    /// Set where the payload is not all of what came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<Truncation>,
    /// How many secrets redaction has removed from the payload, by rule.
    #[serde(default, skip_serializing_if = "Removed::is_empty")]
    pub redacted: Removed,
    /// Of an event that comes back from a store: the form in which it first came, where that was no
    /// envelope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<Form>,
    /// SHA-256 of the payload bytes, where the digest is of others: a drainer has redacted the event again, or it comes
    /// back from a store. There JSON may have been spaced anew, and secrets are taken out after an event was digested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_digest: Option<Digest>,
}

/// The form in which an event came over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// An Arrakis envelope.
    Envelope,
    /// The camelCase payload of the original Node hook.
    Original,
    /// The raw hook JSON of Claude Code's own HTTP hooks.
    Raw,
}

impl Form {
    /// Every form.
    pub const ALL: [Self; 3] = [Self::Envelope, Self::Original, Self::Raw];

    /// The name in lower case, as it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Envelope => "envelope",
            Self::Original => "original",
            Self::Raw => "raw",
        }
    }
}

/// The machine and the project that an event comes from. An envelope cuts the project directory at
/// [`PROJECT_DIR_MAX_BYTES`], the rest at [`INDEXED_TEXT_MAX_BYTES`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Source {
    /// Host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Login name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Operating system, as in `std::env::consts::OS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// `CLAUDE_PROJECT_DIR`, else the payload's `cwd`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_dir: Option<String>,
    /// The version of Claude Code, where the environment tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cli_version: Option<String>,
}

impl Source {
    fn bounded(self) -> Self {
        Self {
            host: bounded(self.host, INDEXED_TEXT_MAX_BYTES),
            user: bounded(self.user, INDEXED_TEXT_MAX_BYTES),
            os: bounded(self.os, INDEXED_TEXT_MAX_BYTES),
            project_dir: bounded(self.project_dir, PROJECT_DIR_MAX_BYTES),
            cli_version: bounded(self.cli_version, INDEXED_TEXT_MAX_BYTES),
        }
    }
}

fn bounded(text: Option<String>, max: usize) -> Option<String> {
    text.map(|text| cut(&text, max).to_owned())
}

/// What is missing from a payload that was not captured whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Truncation {
    /// Why: the payload was too large, or stdin did not end within the deadline.
    pub reason: TruncationReason,
    /// How many bytes had come.
    pub original_bytes: u64,
    /// SHA-256 of all that had come, before redaction.
    pub original_digest: Digest,
    /// How many bytes of the payload are its head; the rest is its tail.
    pub head_bytes: u64,
}

impl Truncation {
    /// Limits a redacted payload to [`PAYLOAD_MAX_BYTES`]: redaction can make a payload longer than
    /// what came. Of a longer one the two ends are kept, [`TRUNCATED_PART_BYTES`] each.
    ///
    /// `captured` is what came, before redaction, and `truncated` what it was truncated to already.
    #[must_use]
    pub fn limit(
        mut payload: Vec<u8>,
        captured: &[u8],
        truncated: Option<Self>,
    ) -> (Vec<u8>, Option<Self>) {
        if payload.len() <= PAYLOAD_MAX_BYTES {
            return (payload, truncated);
        }
        payload.drain(TRUNCATED_PART_BYTES..payload.len() - TRUNCATED_PART_BYTES);
        payload.shrink_to_fit();
        let whole = || Self {
            reason: TruncationReason::TooLarge,
            original_bytes: captured.len() as u64,
            original_digest: Digest::of(captured),
            head_bytes: 0,
        };
        let truncated = truncated.unwrap_or_else(whole);
        (payload, Some(Self { head_bytes: TRUNCATED_PART_BYTES as u64, ..truncated }))
    }
}

/// Why a payload is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TruncationReason {
    /// It was longer than [`PAYLOAD_MAX_BYTES`], or redaction made it longer.
    TooLarge,
    /// Stdin was still open at the hook's deadline.
    Deadline,
}

/// A W3C trace context. One session is one trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceContext {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
}

impl TraceContext {
    /// The trace of an event: its trace id is derived from the session id (from the request id
    /// where there is none), its span id from the request id.
    #[must_use]
    pub fn of(session_id: Option<&str>, request_id: &RequestId) -> Self {
        let trace = Sha256::digest(session_id.unwrap_or(request_id.as_str()));
        let span = Sha256::digest(request_id.as_str());
        Self { trace_id: hex::encode(&trace[..16]), span_id: hex::encode(&span[..8]) }
    }

    /// The value of a `traceparent` header.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace_id, self.span_id)
    }
}

impl Envelope {
    /// An envelope around `payload`, with what can be read from it filled in.
    #[must_use]
    pub fn new(
        request_id: RequestId,
        captured_at: Timestamp,
        destination: impl Into<String>,
        source: Source,
        payload: impl Into<Bytes>,
    ) -> Self {
        let payload = payload.into();
        let preview = Preview::of(&payload);
        Self::with_preview(request_id, captured_at, destination, source, payload, preview)
    }

    /// An envelope around a payload whose `preview` was read already.
    #[must_use]
    pub fn with_preview(
        request_id: RequestId,
        captured_at: Timestamp,
        destination: impl Into<String>,
        source: Source,
        payload: impl Into<Bytes>,
        preview: Preview,
    ) -> Self {
        let payload = payload.into();
        let source = Source { project_dir: source.project_dir.or(preview.cwd), ..source }.bounded();
        Self {
            header: Header {
                version: ENVELOPE_VERSION,
                trace: TraceContext::of(preview.session_id.as_deref(), &request_id),
                request_id,
                captured_at,
                event_type: bounded(preview.event_type, INDEXED_TEXT_MAX_BYTES),
                session_id: preview.session_id.filter(|id| id.len() <= SESSION_ID_MAX_BYTES),
                digest: Digest::of(&payload),
                destination: destination.into(),
                source,
                truncated: None,
                redacted: Removed::default(),
                form: None,
                payload_digest: None,
            },
            payload,
        }
    }

    /// Whether the payload is the one that the header is about.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        Digest::of(&self.payload) == self.header.payload_digest.unwrap_or(self.header.digest)
    }

    /// Names the event.
    #[must_use]
    pub fn request_id(&self) -> &RequestId {
        &self.header.request_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_redaction_made_too_long_keeps_its_ends() {
        let mut payload = vec![b'-'; PAYLOAD_MAX_BYTES + 1];
        payload[0] = b'<';
        payload[PAYLOAD_MAX_BYTES] = b'>';
        let (kept, truncated) = Truncation::limit(payload.clone(), b"came", None);
        assert_eq!((kept[0], kept[kept.len() - 1]), (b'<', b'>'));
        assert_eq!(kept.len(), 2 * TRUNCATED_PART_BYTES);
        let expected = Truncation {
            reason: TruncationReason::TooLarge,
            original_bytes: 4,
            original_digest: Digest::of(b"came"),
            head_bytes: TRUNCATED_PART_BYTES as u64,
        };
        assert_eq!(truncated, Some(expected.clone()));
        let before = Truncation { reason: TruncationReason::Deadline, head_bytes: 7, ..expected };
        let (_, again) = Truncation::limit(payload, b"", Some(before.clone()));
        let head_bytes = TRUNCATED_PART_BYTES as u64;
        assert_eq!(
            again,
            Some(Truncation { head_bytes, ..before.clone() }),
            "the first cut counts"
        );
        let short = Truncation::limit(b"short".to_vec(), b"came", Some(before.clone()));
        assert_eq!(short, (b"short".to_vec(), Some(before)));
    }

    #[test]
    fn new_fills_in_what_the_payload_tells() {
        let id: RequestId = "r".parse().unwrap();
        let payload = &br#"{"session_id":"s","cwd":"/p","hook_event_name":"Stop"}"#[..];
        let envelope =
            Envelope::new(id.clone(), Timestamp::EPOCH, "http://h/", Source::default(), payload);
        assert_eq!(envelope.header.event_type.as_deref(), Some("Stop"));
        assert_eq!(envelope.header.source.project_dir.as_deref(), Some("/p"));
        assert_eq!(envelope.header.digest, Digest::of(payload));
        let trace = TraceContext::of(Some("s"), &id);
        assert_eq!(envelope.header.trace, trace);
        assert_eq!(trace.traceparent().len(), 55);
        let json = serde_json::to_string(&envelope.header).unwrap();
        assert_eq!(serde_json::from_str::<Header>(&json).unwrap(), envelope.header);
    }
}
