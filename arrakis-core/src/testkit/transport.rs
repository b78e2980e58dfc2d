//! The conformance suite of [`Transport`]: an implementation together with a receiver that works.

use std::sync::Arc;

use async_trait::async_trait;

use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::base::envelope::{Envelope, Source};
use crate::base::id::RequestId;
use crate::delivery::transport::{Batch, Loopback, Outcome, Receipt, Transport};

/// A transport, and a look at what its receiver has stored.
#[async_trait]
pub trait TransportFixture: Send + Sync {
    /// The transport.
    fn transport(&self) -> Arc<dyn Transport>;

    /// Where its receiver is.
    fn destination(&self) -> String;

    /// The digest under which the receiver has stored an event; `None` if it has not.
    async fn stored(&self, id: &RequestId) -> Option<Digest>;
}

/// Makes one `#[tokio::test]` of each case of the suite; `$make` is an async function without
/// arguments that returns a fresh [`TransportFixture`].
#[macro_export]
macro_rules! transport_conformance {
    ($make:path) => {
        $crate::transport_conformance!(@cases $make:
            an_accepted_event_is_stored_under_its_digest,
            a_repeat_is_told_as_a_duplicate_with_the_first_receipt,
            a_batch_has_one_outcome_per_envelope_in_order,
            every_kind_of_payload_arrives,
            one_id_with_two_payloads_is_refused_alone,
        );
    };
    (@cases $make:path: $($case:ident,)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::testkit::transport::$case(&$make().await).await;
            }
        )*
    };
}

fn envelope(fixture: &impl TransportFixture, id: &str, payload: &[u8]) -> Arc<Envelope> {
    let id = id.parse().expect("a valid id");
    let at = Timestamp::from_millis(1_800_000_000_000);
    Arc::new(Envelope::new(id, at, fixture.destination(), Source::default(), payload.to_vec()))
}

async fn deliver(fixture: &impl TransportFixture, envelopes: &[Arc<Envelope>]) -> Vec<Outcome> {
    let batch = Batch::new(envelopes.to_vec()).expect("one destination, one envelope at least");
    fixture.transport().deliver(batch).await.expect("the receiver works")
}

fn receipt(outcome: &Outcome) -> &Receipt {
    match outcome {
        Outcome::Accepted(receipt) | Outcome::Duplicate(receipt) => receipt,
        other => panic!("no receipt: {other:?}"),
    }
}

fn payload(name: &str) -> Vec<u8> {
    format!(r#"{{"session_id":"s","hook_event_name":"Stop","name":"{name}"}}"#).into_bytes()
}

/// An accepted event is at the receiver, under the digest that the receipt names.
pub async fn an_accepted_event_is_stored_under_its_digest(fixture: &impl TransportFixture) {
    let envelope = envelope(fixture, "a", &payload("a"));
    let outcomes = deliver(fixture, &[Arc::clone(&envelope)]).await;
    assert!(matches!(outcomes[..], [Outcome::Accepted(_)]), "{outcomes:?}");
    assert_eq!(&receipt(&outcomes[0]).request_id, envelope.request_id());
    assert_eq!(receipt(&outcomes[0]).digest, envelope.header.digest);
    assert_eq!(fixture.stored(envelope.request_id()).await, Some(envelope.header.digest));
}

/// Delivering again is harmless, and is told.
pub async fn a_repeat_is_told_as_a_duplicate_with_the_first_receipt(
    fixture: &impl TransportFixture,
) {
    let envelope = envelope(fixture, "a", &payload("a"));
    let first = deliver(fixture, &[Arc::clone(&envelope)]).await;
    let second = deliver(fixture, &[Arc::clone(&envelope)]).await;
    assert!(matches!(second[..], [Outcome::Duplicate(_)]), "{second:?}");
    assert_eq!(receipt(&first[0]), receipt(&second[0]));
}

/// Outcomes come in the order of the envelopes, new and repeated ones mixed.
pub async fn a_batch_has_one_outcome_per_envelope_in_order(fixture: &impl TransportFixture) {
    let known = envelope(fixture, "known", &payload("known"));
    deliver(fixture, &[Arc::clone(&known)]).await;
    let mut batch: Vec<_> =
        (0..20).map(|n| envelope(fixture, &format!("e{n}"), &payload(&n.to_string()))).collect();
    batch.insert(7, known);
    let outcomes = deliver(fixture, &batch).await;
    assert_eq!(outcomes.len(), batch.len());
    for (n, (outcome, envelope)) in outcomes.iter().zip(&batch).enumerate() {
        assert_eq!(&receipt(outcome).request_id, envelope.request_id());
        assert_eq!(matches!(outcome, Outcome::Duplicate(_)), n == 7, "{outcome:?}");
    }
}

/// Bytes arrive as they are, whether they are JSON or not, alone and in a batch.
pub async fn every_kind_of_payload_arrives(fixture: &impl TransportFixture) {
    let deep = "[".repeat(200) + &"]".repeat(200);
    let payloads: [&[u8]; 9] = [
        b"",
        b"no json",
        &[0, 255, 254],
        b"{\"a\":1,\"a\":2}",
        br#" {"leading":"space"}"#,
        b"{\n\"lines\":2}",
        br#"{"surrogate":"\ud800","nul":"\u0000","n":1e999}"#,
        "{\"text\":\"\u{1f41b} \u{2028}\"}".as_bytes(),
        deep.as_bytes(),
    ];
    let all: Vec<_> = payloads
        .iter()
        .enumerate()
        .map(|(n, payload)| envelope(fixture, &format!("batch{n}"), payload))
        .collect();
    let mut outcomes = deliver(fixture, &all).await;
    for (n, payload) in payloads.iter().enumerate() {
        let single = envelope(fixture, &format!("single{n}"), payload);
        outcomes.extend(deliver(fixture, &[Arc::clone(&single)]).await);
        assert_eq!(fixture.stored(single.request_id()).await, Some(single.header.digest));
        assert_eq!(fixture.stored(all[n].request_id()).await, Some(all[n].header.digest));
    }
    assert!(outcomes.iter().all(|o| matches!(o, Outcome::Accepted(_))), "{outcomes:?}");
}

/// The same id with another payload is refused; its neighbours in the batch are not.
pub async fn one_id_with_two_payloads_is_refused_alone(fixture: &impl TransportFixture) {
    let first = envelope(fixture, "a", &payload("first"));
    deliver(fixture, &[Arc::clone(&first)]).await;
    let second = envelope(fixture, "a", &payload("second"));
    let neighbour = envelope(fixture, "b", &payload("b"));
    let outcomes = deliver(fixture, &[Arc::clone(&second), neighbour]).await;
    assert!(matches!(outcomes[..], [Outcome::Refused(_), Outcome::Accepted(_)]), "{outcomes:?}");
    let alone = deliver(fixture, &[second]).await;
    assert!(matches!(alone[..], [Outcome::Refused(_)]), "{alone:?}");
    assert_eq!(fixture.stored(first.request_id()).await, Some(first.header.digest));
}

#[async_trait]
impl TransportFixture for Arc<Loopback> {
    fn transport(&self) -> Arc<dyn Transport> {
        Self::clone(self)
    }

    fn destination(&self) -> String {
        "loopback".to_owned()
    }

    async fn stored(&self, id: &RequestId) -> Option<Digest> {
        Loopback::stored(self).get(id).copied()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::base::retry::Jitter;
    use crate::delivery::layers::{DeliveryConfig, DeliveryStack, delivery_stack};

    /// A transport inside the whole delivery stack.
    struct Stacked(Arc<Loopback>, Arc<DeliveryStack>);

    #[async_trait]
    impl TransportFixture for Stacked {
        fn transport(&self) -> Arc<dyn Transport> {
            Arc::<DeliveryStack>::clone(&self.1)
        }

        fn destination(&self) -> String {
            self.0.destination()
        }

        async fn stored(&self, id: &RequestId) -> Option<Digest> {
            TransportFixture::stored(&self.0, id).await
        }
    }

    mod loopback {
        use std::sync::Arc;

        use crate::delivery::transport::Loopback;

        async fn make() -> Arc<Loopback> {
            Arc::default()
        }

        transport_conformance!(make);
    }

    mod stack {
        use super::*;

        async fn make() -> Stacked {
            let loopback = Arc::<Loopback>::default();
            let config = DeliveryConfig::new(Jitter::new(StdRng::seed_from_u64(1)));
            let stack = delivery_stack(Arc::<Loopback>::clone(&loopback), config);
            Stacked(loopback, Arc::new(stack))
        }

        transport_conformance!(make);
    }
}
