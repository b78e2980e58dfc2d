//! Envelopes as JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Envelope, Header};
use crate::base::id::RequestId;

/// JSON is not that of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// It is no envelope's JSON.
    #[error("the envelope cannot be read: {0}")]
    Invalid(String),
    /// The payload is not what the digest says.
    #[error("the payload of event {request_id} does not match its digest")]
    DigestMismatch {
        /// The envelope's request id.
        request_id: RequestId,
    },
}

/// Writes an envelope as one line of JSON, without a newline: the header's object with one more field. That is
/// `payload`, the payload's own bytes, where they are one line of JSON; else `payloadText` where they are UTF-8; else
/// `payloadBase64`.
#[must_use]
pub fn encode_envelope(envelope: &Envelope) -> Vec<u8> {
    // A header is made of strings, numbers and structs of them: it always serializes.
    let mut json = serde_json::to_vec(&envelope.header).unwrap_or_else(|_| b"{}".to_vec());
    json.reserve(envelope.payload.len() + 32);
    json.pop();
    let payload = &envelope.payload[..];
    if is_one_line_of_json(payload) {
        json.extend_from_slice(b",\"payload\":");
        json.extend_from_slice(payload);
    } else if let Ok(text) = std::str::from_utf8(payload) {
        json.extend_from_slice(b",\"payloadText\":");
        json.extend(serde_json::to_vec(text).unwrap_or_default());
    } else {
        json.extend_from_slice(b",\"payloadBase64\":\"");
        json.extend_from_slice(STANDARD.encode(payload).as_bytes());
        json.push(b'"');
    }
    json.push(b'}');
    json
}

/// Whether bytes can stand inside other JSON and be found there again, byte for byte.
fn is_one_line_of_json(payload: &[u8]) -> bool {
    let one_line = !payload.iter().any(|byte| matches!(byte, b'\n' | b'\r'));
    one_line
        && serde_json::from_slice::<&RawValue>(payload)
            .is_ok_and(|raw| raw.get().len() == payload.len())
}

/// Reads an envelope and checks the payload against its digest.
///
/// # Errors
///
/// The JSON is not that of an envelope, or the payload is not what the digest says.
pub fn decode_envelope(json: &Bytes) -> Result<Envelope, EnvelopeError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Payload<'a> {
        #[serde(borrow, default, deserialize_with = "present")]
        payload: Option<&'a RawValue>,
        #[serde(default)]
        payload_text: Option<String>,
        #[serde(default)]
        payload_base64: Option<String>,
    }
    let invalid = EnvelopeError::Invalid;
    let header: Header =
        serde_json::from_slice(json).map_err(|error| invalid(error.to_string()))?;
    let found: Payload<'_> =
        serde_json::from_slice(json).map_err(|error| invalid(error.to_string()))?;
    let payload = match (found.payload, found.payload_text, found.payload_base64) {
        (Some(raw), None, None) => json.slice_ref(raw.get().as_bytes()),
        (None, Some(text), None) => text.into(),
        (None, None, Some(base64)) => STANDARD
            .decode(base64)
            .map_err(|error| invalid(format!("payloadBase64: {error}")))?
            .into(),
        _ => return Err(invalid("it needs one of payload, payloadText, payloadBase64".to_owned())),
    };
    let envelope = Envelope { header, payload };
    if !envelope.is_intact() {
        return Err(EnvelopeError::DigestMismatch { request_id: envelope.header.request_id });
    }
    Ok(envelope)
}

/// A value that is there, even if it is `null`: that is a payload too.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(json: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(json).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::base::envelope::Source;

    fn envelope(payload: &[u8]) -> Envelope {
        let id = "r-1".parse().unwrap();
        Envelope::new(id, Timestamp::EPOCH, "http://h/", Source::default(), payload.to_vec())
    }

    #[test]
    fn every_payload_comes_back_byte_for_byte_and_json_stands_in_the_open() {
        let open: [&[u8]; 6] = [
            br#"{"a":1,"a":2,"b":[1.0, 2e9 ,1e999]}"#,
            br#"{"half":"\ud800","nul":"\u0000"}"#,
            "{\"text\":\"\u{2028} \u{1f41b}\"}".as_bytes(),
            b"\"text\"",
            b"12.50",
            b"null",
        ];
        let closed: [&[u8]; 6] = [b"", b" {}", b"{}\t", b"{\n}", b"not json", b"\xff\xfe\x00"];
        for (payload, is_open) in
            open.map(|p| (p, true)).into_iter().chain(closed.map(|p| (p, false)))
        {
            let sent = envelope(payload);
            let json = Bytes::from(encode_envelope(&sent));
            assert!(!json.contains(&b'\n'));
            let text = String::from_utf8(json.to_vec()).unwrap();
            assert_eq!(text.contains("\"payload\":"), is_open, "{text}");
            assert_eq!(decode_envelope(&json).unwrap(), sent);
        }
    }

    #[test]
    fn a_payload_that_is_not_what_the_digest_says_is_found_out() {
        let json = String::from_utf8(encode_envelope(&envelope(b"{\"a\":1}"))).unwrap();
        let changed = json.replace("{\"a\":1}", "{\"a\":2}");
        let error = decode_envelope(&changed.into()).unwrap_err();
        assert!(matches!(error, EnvelopeError::DigestMismatch { .. }), "{error}");
    }
}
