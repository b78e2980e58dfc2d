//! From what came on stdin to the payload that is kept: redacted, and within the limit.

use arrakis_core::envelope::Truncation;
use arrakis_core::redact::{Redactor, Removed};

use super::stdin::Input;

/// A payload that may be written to disk.
pub(super) struct Payload {
    pub(super) bytes: Vec<u8>,
    /// Set where it is not all of what came.
    pub(super) truncated: Option<Truncation>,
    /// What redaction has removed from it.
    pub(super) removed: Removed,
}

impl Payload {
    /// Redacts what came, then limits it: redaction can make a payload longer.
    pub(super) fn of(input: &Input, redactor: &Redactor) -> Self {
        let mut truncated = input.truncated.clone();
        let (redacted, removed) = match truncated.as_mut() {
            None => {
                let redacted = redactor.redact(&input.bytes);
                (redacted.text.into_owned(), redacted.removed)
            }
            // Each part by itself, so that the place where they meet stays known.
            Some(truncation) => {
                let (head, tail) = input.bytes.split_at(truncation.head_bytes as usize);
                let (head, tail) = (redactor.redact(head), redactor.redact(tail));
                truncation.head_bytes = head.text.len() as u64;
                let mut removed = head.removed;
                removed.add(&tail.removed);
                ([head.text, tail.text].concat(), removed)
            }
        };
        let (bytes, truncated) = Truncation::limit(redacted, &input.bytes, truncated);
        Self { bytes, truncated, removed }
    }
}
