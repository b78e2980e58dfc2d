//! Redacts whole envelopes.
//!
//! An event is redacted when it is captured, by the rules of that moment. What was captured while a rule could
//! not be used, or before it was added, waits in the queue as it is, and is redacted again before it leaves.

use super::{RedactedPayload, Redactor};
use crate::base::digest::Digest;
use crate::base::envelope::Envelope;

impl Redactor {
    /// `envelope` with a redacted payload. It keeps its digest, as a repeat must have the same; where something was
    /// removed, its header has the digest of the payload that it holds too.
    #[must_use]
    pub fn redact_envelope(&self, envelope: Envelope) -> Envelope {
        let Envelope { mut header, payload } = envelope;
        let redacted = RedactedPayload::new(&payload, header.truncated.clone(), self);
        if redacted.removed.is_empty() {
            return Envelope { header, payload };
        }
        header.truncated = redacted.truncated;
        header.redacted.add(&redacted.removed);
        header.payload_digest = Some(Digest::of(&redacted.bytes));
        Envelope { header, payload: redacted.bytes.into_owned().into() }
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

    fn sent(envelope: Envelope) -> Envelope {
        let rule = UserRule {
            name: "badge".to_owned(),
            pattern: "badge-[0-9]+".to_owned(),
            literals: Vec::new(),
        };
        let redactor = Redactor::new(RedactConfig { enabled: true, rules: vec![rule] }).0;
        let sent = redactor.redact_envelope(envelope);
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
        assert_eq!(sent(once.clone()), once, "twice is as good as once");
        let harmless = envelope("{}");
        assert_eq!(sent(harmless.clone()), harmless);
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
