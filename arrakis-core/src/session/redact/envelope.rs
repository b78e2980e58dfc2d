//! Redacts whole envelopes.
//!
//! An event is redacted when it is captured, by the rules of that moment. What was captured while a rule could
//! not be used, or before it was added, waits in the queue as it is, and is redacted again before it leaves.

use std::sync::Arc;

use super::{RedactedPayload, Redactor};
use crate::base::digest::Digest;
use crate::base::envelope::Envelope;

impl Redactor {
    /// `envelope` with a redacted payload; the same where it holds no secret. It keeps its digest, as a repeat
    /// must have the same, and its header has the digest of the payload that it holds.
    #[must_use]
    pub fn redact_envelope(&self, envelope: Arc<Envelope>) -> Arc<Envelope> {
        let truncated = envelope.header.truncated.clone();
        let redacted = RedactedPayload::new(&envelope.payload, truncated, self);
        if redacted.removed.is_empty() {
            return envelope;
        }
        let mut header = envelope.header.clone();
        header.truncated = redacted.truncated;
        header.redacted.add(&redacted.removed);
        header.payload_digest = Some(Digest::of(&redacted.bytes));
        Arc::new(Envelope { header, payload: redacted.bytes.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::base::envelope::{Source, Truncation, TruncationReason};
    use crate::session::redact::{RedactConfig, UserRule};

    fn envelope(payload: &str) -> Envelope {
        let id = "e".parse().unwrap();
        Envelope::new(id, Timestamp::EPOCH, "http://h/", Source::default(), payload.to_owned())
    }

    fn sent(envelope: Envelope) -> Arc<Envelope> {
        let rule = UserRule {
            name: "badge".to_owned(),
            pattern: "badge-[0-9]+".to_owned(),
            literals: Vec::new(),
        };
        let redactor = Redactor::new(RedactConfig { enabled: true, rules: vec![rule] }).0;
        let sent = redactor.redact_envelope(Arc::new(envelope));
        assert!(sent.is_intact());
        sent
    }

    #[test]
    fn a_rule_of_now_is_applied_and_the_event_stays_the_same() {
        let event = envelope(r#"{"prompt":"badge-17"}"#);
        let once = sent(event.clone());
        assert_eq!(&once.payload[..], br#"{"prompt":"[REDACTED:badge]"}"#);
        assert_eq!(once.header.digest, event.header.digest, "a repeat has the same");
        assert_eq!(once.header.redacted.iter().collect::<Vec<_>>(), [("badge", 1)]);
        assert_eq!(sent((*once).clone()), once, "twice is as good as once");
        let harmless = envelope("{}");
        assert_eq!(*sent(harmless.clone()), harmless);
    }

    #[test]
    fn a_payload_that_was_cut_keeps_its_cut() {
        let mut event = envelope("head badge-1|badge-22 tail");
        event.header.truncated = Some(Truncation {
            reason: TruncationReason::TooLarge,
            original_bytes: 1 << 30,
            original_digest: Digest::of(b""),
            head_bytes: 13,
        });
        let sent = sent(event);
        let head = sent.header.truncated.as_ref().unwrap().head_bytes as usize;
        let (head, tail) = sent.payload.split_at(head);
        assert_eq!((head, tail), (&b"head [REDACTED:badge]|"[..], &b"[REDACTED:badge] tail"[..]));
    }
}
