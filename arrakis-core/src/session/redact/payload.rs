//! Redacted payloads, whole or truncated.

use std::borrow::Cow;

use super::Redactor;
use crate::base::envelope::{Removed, Truncation};

/// A payload after redaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redacted<'a> {
    /// The payload with every secret replaced; borrowed where there was none.
    pub text: Cow<'a, [u8]>,
    /// What was replaced.
    pub removed: Removed,
}

/// A payload that may be kept and sent: redacted, and within [`PAYLOAD_MAX_BYTES`](crate::base::limits::PAYLOAD_MAX_BYTES).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedactedPayload {
    /// The payload.
    pub bytes: Vec<u8>,
    /// Set where it is not all of what came.
    pub truncated: Option<Truncation>,
    /// What redaction has removed from it.
    pub removed: Removed,
}

impl RedactedPayload {
    /// Redacts `payload`, then limits it. Head and tail of one that is `truncated` already are redacted apart:
    /// they do not belong together, and the place where they meet stays known.
    #[must_use]
    pub fn new(payload: &[u8], truncated: Option<Truncation>, redactor: &Redactor) -> Self {
        let head_bytes = truncated.as_ref().map_or(0, |truncated| truncated.head_bytes);
        let head_bytes = usize::try_from(head_bytes).unwrap_or(usize::MAX).min(payload.len());
        let (head, tail) = payload.split_at(head_bytes);
        let (head, tail) = (redactor.redact(head), redactor.redact(tail));
        let head_bytes = head.text.len() as u64;
        let truncated = truncated.map(|truncated| Truncation { head_bytes, ..truncated });
        let mut removed = head.removed;
        removed.add(&tail.removed);
        let redacted = [head.text, tail.text].concat();
        let (bytes, truncated) = Truncation::limit(redacted, payload, truncated);
        Self { bytes, truncated, removed }
    }
}
