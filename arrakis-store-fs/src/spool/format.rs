//! The format of an event's file.
//!
//! The file holds one line of JSON, then the payload bytes. The line holds the envelope's header, the payload's
//! `length`, and as its last field `check`, the first sixteen hexadecimal digits of the SHA-256 of all that
//! stands before it. (Files of the first version have no `check`; their line ends with `length`.) The content is
//! written once and never changed.

use arrakis_core::base::digest::Digest;
use arrakis_core::base::envelope::{Envelope, Header};
use arrakis_core::base::limits::PAYLOAD_MAX_BYTES;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Longest header line, in bytes: a generous multiple of what its fields can hold.
pub const HEADER_MAX_BYTES: usize = 64 * 1024;

/// Longest event file, in bytes.
pub const FILE_MAX_BYTES: u64 = (HEADER_MAX_BYTES + PAYLOAD_MAX_BYTES + 1) as u64;

/// What stands before the check at the end of a header line, and how many digits it has.
const CHECK_FIELD: &[u8] = b",\"check\":\"";
const CHECK_DIGITS: usize = 16;

/// The header line, as it is written.
#[derive(Serialize, Deserialize)]
struct HeaderLine<H> {
    #[serde(flatten)]
    header: H,
    length: u64,
}

/// The line that stands before the payload, with its newline.
///
/// # Errors
///
/// The header is longer than [`HEADER_MAX_BYTES`], or the payload than [`PAYLOAD_MAX_BYTES`].
pub fn encode_header(envelope: &Envelope) -> Result<Vec<u8>, Unreadable> {
    let length = envelope.payload.len();
    if length > PAYLOAD_MAX_BYTES {
        let problem = format!("its payload has {length} bytes, more than {PAYLOAD_MAX_BYTES}");
        return Err(Unreadable(problem));
    }
    let line = HeaderLine { header: &envelope.header, length: envelope.payload.len() as u64 };
    let mut line = serde_json::to_vec(&line).map_err(|error| Unreadable(error.to_string()))?;
    line.pop(); // the closing brace
    let check = check_of(&line);
    line.extend_from_slice(CHECK_FIELD);
    line.extend_from_slice(check.as_bytes());
    line.extend_from_slice(b"\"}\n");
    if line.len() > HEADER_MAX_BYTES {
        return Err(Unreadable(format!("its header has more than {HEADER_MAX_BYTES} bytes")));
    }
    Ok(line)
}

/// The digits that stand for `bytes` in a header line.
fn check_of(bytes: &[u8]) -> String {
    let mut digits = Digest::of(bytes).to_string();
    digits.truncate(CHECK_DIGITS);
    digits
}

/// Whether a header line is as it was written. Lines of the first version end with the length and
/// have no check.
fn is_intact(line: &[u8]) -> bool {
    let at = line.len().saturating_sub(CHECK_FIELD.len() + CHECK_DIGITS + 2);
    let (covered, check) = line.split_at(at);
    let digits = check.strip_prefix(CHECK_FIELD).and_then(|rest| rest.strip_suffix(b"\"}"));
    if let Some(digits) = digits {
        return digits == check_of(covered).as_bytes();
    }
    let rest = line.strip_suffix(b"}").unwrap_or_default();
    let length = rest.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    length > 0 && rest[..rest.len() - length].ends_with(b",\"length\":")
}

/// Why a file is not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

/// Reads an event from the bytes of its file.
///
/// # Errors
///
/// The bytes are not a whole, undamaged event.
pub fn decode(file: &Bytes) -> Result<Envelope, Unreadable> {
    let (header, length) = decode_header(file)?;
    let (_, payload) = split(file);
    if payload.len() as u64 != length {
        let is = payload.len();
        return Err(Unreadable(format!("its payload has {is} bytes instead of {length}")));
    }
    let envelope = Envelope { header, payload };
    if !envelope.is_intact() {
        return Err(Unreadable("its payload does not match its digest".to_owned()));
    }
    Ok(envelope)
}

/// The header line without its newline, and the payload. A file without a newline is all header.
pub(crate) fn split(file: &Bytes) -> (Bytes, Bytes) {
    let end = memchr_newline(file).unwrap_or(file.len());
    (file.slice(..end), file.slice((end + 1).min(file.len())..))
}

/// Reads the header, and the length that the payload should have.
pub(crate) fn decode_header(file: &[u8]) -> Result<(Header, u64), Unreadable> {
    let end = memchr_newline(file).ok_or_else(|| Unreadable("it has no header line".to_owned()))?;
    let line: HeaderLine<Header> = serde_json::from_slice(&file[..end])
        .map_err(|error| Unreadable(format!("its header cannot be read: {error}")))?;
    if line.header.version > arrakis_core::base::envelope::ENVELOPE_VERSION {
        let version = line.header.version;
        return Err(Unreadable(format!("it was written by a newer version (format {version})")));
    }
    if !is_intact(&file[..end]) {
        return Err(Unreadable("its header does not match its check".to_owned()));
    }
    Ok((line.header, line.length))
}

fn memchr_newline(bytes: &[u8]) -> Option<usize> {
    bytes.iter().take(HEADER_MAX_BYTES).position(|byte| *byte == b'\n')
}

#[cfg(test)]
mod tests {
    use arrakis_core::base::clock::Timestamp;
    use arrakis_core::base::envelope::Source;

    use super::*;

    fn envelope() -> Envelope {
        let id = "019abc-x:y.z".parse().unwrap();
        Envelope::new(id, Timestamp::from_millis(1), "http://h/", Source::default(), &b"a\nb\n"[..])
    }

    fn file(envelope: &Envelope) -> Vec<u8> {
        let mut file = encode_header(envelope).unwrap();
        file.extend_from_slice(&envelope.payload);
        file
    }

    #[test]
    fn files_read_back() {
        let envelope = envelope();
        assert_eq!(decode(&file(&envelope).into()), Ok(envelope));
    }

    #[test]
    fn any_damage_is_noticed() {
        let whole = file(&envelope());
        for length in 0..whole.len() {
            assert!(decode(&whole[..length].to_vec().into()).is_err(), "cut at {length}");
        }
        assert!(decode(&[&whole[..], b"x"].concat().into()).is_err(), "something appended");
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged.into()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn files_of_the_first_version_are_read() {
        let whole = file(&envelope());
        let text = String::from_utf8(whole).unwrap();
        let (before, after) = text.split_once(",\"check\":\"").unwrap();
        let first = format!("{before}{}", &after[CHECK_DIGITS + 1..]);
        assert!(first.starts_with(&format!("{before}}}\n")));
        assert_eq!(decode(&first.into_bytes().into()), Ok(envelope()));
    }
}
