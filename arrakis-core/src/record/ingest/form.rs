//! Telling the three forms of an event apart, and what identifies each.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::base::digest::Digest;
use crate::base::envelope::{Envelope, EnvelopeError, decode_envelope};
use crate::base::id::{InvalidRequestId, RequestId};
use crate::base::json::Canonical;

/// One event, in one of the three forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// (a) An Arrakis envelope, its digest verified.
    Envelope(Box<Envelope>),
    /// (b) The original system's payload.
    Original {
        /// `_trace.requestId`.
        request_id: Option<RequestId>,
        /// Of the body without `_trace`, keys sorted.
        digest: Digest,
    },
    /// (c) Raw hook JSON.
    Raw {
        /// Of the body.
        digest: Digest,
    },
}

/// Bytes are not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnreadableEvent {
    /// They are not JSON.
    #[error("the body is not JSON: {0}")]
    Malformed(String),
    /// They are JSON, but not an event of any form.
    #[error("{message}")]
    Invalid {
        /// A stable word.
        code: &'static str,
        /// A sentence for people.
        message: String,
    },
    /// The payload of an envelope is not what its digest says.
    #[error("the payload of event {request_id} does not match its digest")]
    DigestMismatch {
        /// The envelope's request id.
        request_id: RequestId,
    },
}

impl UnreadableEvent {
    /// A stable word.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed_json",
            Self::Invalid { code, .. } => code,
            Self::DigestMismatch { .. } => "digest_mismatch",
        }
    }
}

impl From<EnvelopeError> for UnreadableEvent {
    fn from(error: EnvelopeError) -> Self {
        match error {
            EnvelopeError::DigestMismatch { request_id } => Self::DigestMismatch { request_id },
            EnvelopeError::Invalid(_) => {
                Self::Invalid { code: "invalid_envelope", message: error.to_string() }
            }
        }
    }
}

/// Reads one event.
///
/// # Errors
///
/// The bytes are not an event.
pub fn parse(body: &Bytes) -> Result<Parsed, UnreadableEvent> {
    #[derive(Deserialize)]
    struct Marks {
        envelope: Option<IgnoredAny>,
        digest: Option<IgnoredAny>,
        hook_event_name: Option<IgnoredAny>,
        event: Option<IgnoredAny>,
    }
    let invalid =
        |code, message: &str| UnreadableEvent::Invalid { code, message: message.to_owned() };
    let marks: Marks = serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            invalid("not_an_event", "the body is JSON, but not an object that is an event")
        }
        _ => UnreadableEvent::Malformed(error.to_string()),
    })?;
    match marks {
        Marks { hook_event_name: Some(_), .. } => Ok(Parsed::Raw { digest: Digest::of(body) }),
        Marks { envelope: Some(_), digest: Some(_), .. } => {
            Ok(Parsed::Envelope(Box::new(decode_envelope(body)?)))
        }
        Marks { event: Some(_), .. } => original(body),
        _ => Err(invalid(
            "not_an_event",
            "the body has none of envelope, event and hook_event_name, so it is not an event",
        )),
    }
}

fn original(body: &Bytes) -> Result<Parsed, UnreadableEvent> {
    let mut fields: BTreeMap<String, &RawValue> = serde_json::from_slice(body)
        .map_err(|error| UnreadableEvent::Malformed(error.to_string()))?;
    let trace = fields.remove("_trace").and_then(tree);
    let request_id = trace.as_ref().and_then(|trace| trace.get("requestId")?.as_str());
    let request_id = request_id.map(|id| {
        id.parse().map_err(|error: InvalidRequestId| UnreadableEvent::Invalid {
            code: "invalid_request_id",
            message: format!("_trace.requestId: {error}"),
        })
    });
    let fields = fields.into_iter().map(|(name, value)| {
        // What a tree cannot hold (a number out of range, deep nesting) stays as it was sent.
        let value = match tree(value) {
            Some(tree) => Canonical(&tree).to_string(),
            None => value.to_string(),
        };
        format!("{}:{value}", Value::String(name))
    });
    let sorted = format!("{{{}}}", fields.collect::<Vec<_>>().join(","));
    Ok(Parsed::Original {
        request_id: request_id.transpose()?,
        digest: Digest::of(sorted.as_bytes()),
    })
}

fn tree(json: &RawValue) -> Option<Value> {
    serde_json::from_str(json.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &'static str) -> Result<Parsed, UnreadableEvent> {
        parse(&Bytes::from_static(json.as_bytes()))
    }

    #[test]
    fn the_original_form_is_the_same_whatever_its_trace_and_the_order_of_its_keys() {
        let first = r#"{"event":"Stop","sessionId":"s","a":{"x":1,"y":2},"_trace":{"requestId":"r","timestamp":1}}"#;
        let again = r#"{"_trace":{"timestamp":2,"requestId":"r","traceId":"t"},"a":{"y":2,"x":1},"sessionId":"s","event":"Stop"}"#;
        let other =
            r#"{"event":"Stop","sessionId":"s","a":{"x":1,"y":3},"_trace":{"requestId":"r"}}"#;
        assert_eq!(parsed(first), parsed(again));
        assert_ne!(parsed(first), parsed(other));
        let Ok(Parsed::Original { request_id, .. }) = parsed(first) else { panic!("form (b)") };
        assert_eq!(request_id, "r".parse().ok());
    }

    #[test]
    fn the_original_form_is_known_again_even_where_a_tree_cannot_hold_it() {
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        for value in ["1e999", &deep] {
            let sent = |trace| {
                let json = format!(
                    r#"{{"event":"Stop","sessionId":"s","x":{value},"_trace":{{"requestId":"r","timestamp":{trace}}}}}"#
                );
                parse(&json.into()).unwrap()
            };
            assert_eq!(sent(1), sent(2));
            let Parsed::Original { request_id, .. } = sent(1) else { panic!("form (b)") };
            assert_eq!(request_id, "r".parse().ok());
        }
    }

    #[test]
    fn what_is_no_event_says_why() {
        let code = |json| parsed(json).map_err(|error| error.code()).unwrap_err();
        assert_eq!(code("{"), "malformed_json");
        assert_eq!(code(""), "malformed_json");
        assert_eq!(code("[]"), "not_an_event");
        assert_eq!(code("{}"), "not_an_event");
        assert_eq!(code(r#"{"envelope":1,"digest":"x"}"#), "invalid_envelope");
        assert_eq!(code(r#"{"event":"x","_trace":{"requestId":"a b"}}"#), "invalid_request_id");
    }
}
