//! Redacted payloads, whole or truncated.

use std::borrow::Cow;

use super::Redactor;
use crate::base::envelope::{Removed, Truncation};
use crate::base::limits::PAYLOAD_MAX_BYTES;

/// A payload after redaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redacted<'a> {
    /// The payload with every secret replaced; borrowed where there was none.
    pub text: Cow<'a, [u8]>,
    /// What was replaced.
    pub removed: Removed,
}

/// A payload that may be kept and sent: redacted, and within [`PAYLOAD_MAX_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedactedPayload<'a> {
    /// The payload; borrowed where it is as it came.
    pub bytes: Cow<'a, [u8]>,
    /// Set where it is not all of what came.
    pub truncated: Option<Truncation>,
    /// What redaction has removed from it.
    pub removed: Removed,
}

impl<'a> RedactedPayload<'a> {
    /// Redacts `payload`, then limits it. Head and tail of one that is `truncated` already are redacted apart:
    /// they do not belong together, and the place where they meet stays known.
    #[must_use]
    pub fn new(payload: &'a [u8], truncated: Option<Truncation>, redactor: &Redactor) -> Self {
        let head_bytes = truncated.as_ref().map_or(0, |truncated| truncated.head_bytes);
        let head_bytes = usize::try_from(head_bytes).unwrap_or(usize::MAX).min(payload.len());
        let (head, tail) = payload.split_at(head_bytes);
        let (head, tail) = (redactor.redact(head), redactor.redact(tail));
        let head_bytes = head.text.len() as u64;
        let truncated = truncated.map(|truncated| Truncation { head_bytes, ..truncated });
        let mut removed = head.removed;
        removed.add(&tail.removed);
        let bytes = match removed.is_empty() {
            true => Cow::Borrowed(payload),
            false => Cow::Owned([head.text, tail.text].concat()),
        };
        if bytes.len() <= PAYLOAD_MAX_BYTES {
            return Self { bytes, truncated, removed };
        }
        let (bytes, truncated) = Truncation::limit(bytes.into_owned(), payload, truncated);
        Self { bytes: bytes.into(), truncated, removed }
    }
}
