//! Redacts events once more before they leave.
//!
//! An event is redacted when it is captured, by the rules of that moment. What was captured while a rule could
//! not be used, or before it was added, waits in the queue as it is; this transport applies the rules of now.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Batch, Outcome, Transport, TransportError};
use crate::base::digest::Digest;
use crate::base::envelope::Envelope;
use crate::session::redact::RedactedPayload;
use crate::session::redact::Redactor;

/// A transport that redacts each event before `inner` sends it. The event keeps its digest, as a repeat must
/// have the same; the header says that the payload's own digest is another.
pub struct Redacting<F> {
    inner: Arc<dyn Transport>,
    redactor: F,
}

impl<F> Redacting<F>
where
    F: Fn() -> Result<Option<Arc<Redactor>>, TransportError> + Send + Sync + 'static,
{
    /// A transport around `inner`. It asks `redactor` at each delivery for the redactor of now; where there is
    /// none, events leave as they are, and its error is that of the delivery.
    #[must_use]
    pub fn new(inner: Arc<dyn Transport>, redactor: F) -> Self {
        Self { inner, redactor }
    }
}

#[async_trait]
impl<F> Transport for Redacting<F>
where
    F: Fn() -> Result<Option<Arc<Redactor>>, TransportError> + Send + Sync + 'static,
{
    async fn deliver(&self, batch: Batch) -> Result<Vec<Outcome>, TransportError> {
        let Some(redactor) = (self.redactor)()? else { return self.inner.deliver(batch).await };
        let envelopes = batch.envelopes().to_vec();
        // Megabytes of payload would keep a thread of the runtime from everything else.
        let redacting = tokio::task::spawn_blocking(move || {
            envelopes.into_iter().map(|envelope| redacted(&redactor, envelope)).collect()
        });
        match redacting.await.ok().and_then(Batch::new) {
            Some(batch) => self.inner.deliver(batch).await,
            None => Err(TransportError::Misconfigured {
                problem: "redaction failed, and nothing was sent".to_owned(),
                remedy: "check your redaction rules".to_owned(),
            }),
        }
    }
}

impl<F> fmt::Debug for Redacting<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redacting").field("inner", &self.inner).finish_non_exhaustive()
    }
}

fn redacted(redactor: &Redactor, envelope: Arc<Envelope>) -> Arc<Envelope> {
    let truncated = envelope.header.truncated.clone();
    let redacted = RedactedPayload::new(&envelope.payload, truncated, redactor);
    if redacted.removed.is_empty() {
        return envelope;
    }
    let mut header = envelope.header.clone();
    header.truncated = redacted.truncated;
    header.redacted.add(&redacted.removed);
    header.payload_digest = Some(Digest::of(&redacted.bytes));
    Arc::new(Envelope { header, payload: redacted.bytes.into() })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::base::clock::Timestamp;
    use crate::base::envelope::{Source, Truncation, TruncationReason};
    use crate::delivery::transport::Loopback;
    use crate::session::redact::{RedactConfig, UserRule};

    /// Keeps what it is given.
    #[derive(Debug, Default)]
    struct Wire(Mutex<Vec<Arc<Envelope>>>, Loopback);

    #[async_trait]
    impl Transport for Wire {
        async fn deliver(&self, batch: Batch) -> Result<Vec<Outcome>, TransportError> {
            self.0.lock().unwrap().extend_from_slice(batch.envelopes());
            self.1.deliver(batch).await
        }
    }

    fn badges() -> Arc<Redactor> {
        let rule = UserRule {
            name: "badge".to_owned(),
            pattern: "badge-[0-9]+".to_owned(),
            literals: Vec::new(),
        };
        Arc::new(Redactor::new(RedactConfig { enabled: true, rules: vec![rule] }).0)
    }

    fn envelope(payload: &str) -> Envelope {
        let id = "e".parse().unwrap();
        Envelope::new(id, Timestamp::EPOCH, "http://h/", Source::default(), payload.to_owned())
    }

    async fn sent(envelope: Envelope) -> Arc<Envelope> {
        let wire = Arc::new(Wire::default());
        let redacting = Redacting::new(Arc::<Wire>::clone(&wire), || Ok(Some(badges())));
        let outcomes = redacting.deliver(Batch::one(Arc::new(envelope))).await.unwrap();
        assert!(matches!(outcomes[..], [Outcome::Accepted(_)]));
        let sent = wire.0.lock().unwrap().pop().unwrap();
        assert!(sent.is_intact());
        sent
    }

    #[tokio::test]
    async fn a_rule_of_now_is_applied_and_the_event_stays_the_same() {
        let event = envelope(r#"{"prompt":"badge-17"}"#);
        let once = sent(event.clone()).await;
        assert_eq!(&once.payload[..], br#"{"prompt":"[REDACTED:badge]"}"#);
        assert_eq!(once.header.digest, event.header.digest, "a repeat has the same");
        assert_eq!(once.header.redacted.iter().collect::<Vec<_>>(), [("badge", 1)]);
        assert_eq!(sent((*once).clone()).await, once, "twice is as good as once");
        let harmless = envelope("{}");
        assert_eq!(*sent(harmless.clone()).await, harmless);
    }

    #[tokio::test]
    async fn a_payload_that_was_cut_keeps_its_cut() {
        let mut event = envelope("head badge-1|badge-22 tail");
        event.header.truncated = Some(Truncation {
            reason: TruncationReason::TooLarge,
            original_bytes: 1 << 30,
            original_digest: Digest::of(b""),
            head_bytes: 13,
        });
        let sent = sent(event).await;
        let head = sent.header.truncated.as_ref().unwrap().head_bytes as usize;
        let (head, tail) = sent.payload.split_at(head);
        assert_eq!((head, tail), (&b"head [REDACTED:badge]|"[..], &b"[REDACTED:badge] tail"[..]));
    }

    #[tokio::test]
    async fn without_a_redactor_for_now_nothing_is_sent() {
        let wire = Arc::new(Wire::default());
        let redacting = Redacting::new(Arc::<Wire>::clone(&wire), || {
            let (problem, remedy) = ("a rule does not work".to_owned(), "correct it".to_owned());
            Err(TransportError::Misconfigured { problem, remedy })
        });
        let error = redacting.deliver(Batch::one(Arc::new(envelope("{}")))).await.unwrap_err();
        assert_eq!(error.to_string(), "a rule does not work; correct it");
        assert!(wire.0.lock().unwrap().is_empty());
    }
}
