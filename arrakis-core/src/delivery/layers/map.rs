//! Changes events just before they leave.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::base::envelope::Envelope;
use crate::delivery::transport::{Batch, Outcome, Transport, TransportError};

/// What makes of an envelope the one that is sent. It keeps the destination.
pub type EnvelopeMap = Arc<dyn Fn(Arc<Envelope>) -> Arc<Envelope> + Send + Sync>;

/// A transport that changes each event before `inner` sends it. Where that fails, nothing is sent.
pub struct MapEnvelopes<F> {
    inner: Arc<dyn Transport>,
    map: F,
    failure: fn() -> TransportError,
}

impl<F> MapEnvelopes<F>
where
    F: Fn() -> Result<Option<EnvelopeMap>, TransportError> + Send + Sync + 'static,
{
    /// A transport around `inner`. It asks `map` at each delivery for the map to use: events leave as they are
    /// where there is none, and its error is that of the delivery. Where a map panics, the error is `failure`.
    #[must_use]
    pub fn new(inner: Arc<dyn Transport>, map: F, failure: fn() -> TransportError) -> Self {
        Self { inner, map, failure }
    }
}

#[async_trait]
impl<F> Transport for MapEnvelopes<F>
where
    F: Fn() -> Result<Option<EnvelopeMap>, TransportError> + Send + Sync + 'static,
{
    async fn deliver(&self, batch: Batch) -> Result<Vec<Outcome>, TransportError> {
        let Some(map) = (self.map)()? else { return self.inner.deliver(batch).await };
        let envelopes = batch.envelopes().to_vec();
        // Megabytes of payload would keep a thread of the runtime from everything else.
        let mapping = tokio::task::spawn_blocking(move || {
            envelopes.into_iter().map(|envelope| map(envelope)).collect()
        });
        match mapping.await.ok().and_then(Batch::new) {
            Some(batch) => self.inner.deliver(batch).await,
            None => Err((self.failure)()),
        }
    }
}

impl<F> fmt::Debug for MapEnvelopes<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapEnvelopes").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::base::envelope::Source;
    use crate::delivery::transport::Loopback;

    fn failure() -> TransportError {
        let (problem, remedy) = ("a rule does not work".to_owned(), "correct it".to_owned());
        TransportError::Misconfigured { problem, remedy }
    }

    fn batch() -> Batch {
        let id = "e".parse().unwrap();
        let envelope =
            Envelope::new(id, Timestamp::EPOCH, "http://h/", Source::default(), &b"{}"[..]);
        Batch::one(Arc::new(envelope))
    }

    #[tokio::test]
    async fn what_is_sent_is_what_the_map_of_now_makes() {
        let receiver = Arc::<Loopback>::default();
        let maps: [Option<EnvelopeMap>; 2] = [
            None,
            Some(Arc::new(|envelope| {
                let mut header = envelope.header.clone();
                header.request_id = "changed".parse().unwrap();
                Arc::new(Envelope { header, payload: envelope.payload.clone() })
            })),
        ];
        for (map, id) in maps.into_iter().zip(["e", "changed"]) {
            let inner = Arc::<Loopback>::clone(&receiver);
            let mapping = MapEnvelopes::new(inner, move || Ok(map.clone()), failure);
            let outcomes = mapping.deliver(batch()).await.unwrap();
            assert!(matches!(outcomes[..], [Outcome::Accepted(_)]));
            assert!(receiver.stored().contains_key(&id.parse().unwrap()));
        }
    }

    #[tokio::test]
    async fn without_a_map_that_works_nothing_is_sent() {
        let panicking: EnvelopeMap = Arc::new(|_| panic!("the map does not work"));
        for map in [None, Some(panicking)] {
            let receiver = Arc::<Loopback>::default();
            let map = move || map.clone().map(Some).ok_or_else(failure);
            let mapping = MapEnvelopes::new(Arc::<Loopback>::clone(&receiver), map, failure);
            let error = mapping.deliver(batch()).await.unwrap_err();
            assert_eq!(error.to_string(), "a rule does not work; correct it");
            assert!(receiver.attempts().is_empty());
        }
    }
}
