//! Embeds all of Arrakis in one process: captures events, delivers them, and stores them without their secrets.
//!
//! `cargo run -p arrakis-examples --bin embed`

#![allow(clippy::print_stdout, reason = "it shows what it stored")]

use std::error::Error;
use std::sync::Arc;

use arrakis_core::base::clock::{Clock, SystemClock};
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::base::id::RequestId;
use arrakis_core::base::retry::Jitter;
use arrakis_core::delivery::drain::{DrainConfig, Drainer, Until};
use arrakis_core::delivery::layers::{DeliveryConfig, delivery_stack};
use arrakis_core::delivery::queue::{MemoryQueue, Queue};
use arrakis_core::delivery::transport::{
    Batch, Outcome, Reason, Receipt, Transport, TransportError,
};
use arrakis_core::record::ingest::{Ingest, Received};
use arrakis_core::record::store::{
    AdmissionKind, DEFAULT_WORKSPACE, EventFilter, EventReader, EventSummary, MemoryStore, Page,
};
use arrakis_core::session::redact::Redactor;
use async_trait::async_trait;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;

/// What Claude Code gives to a hook. The prompt holds a secret.
const PAYLOADS: [&str; 2] = [
    r#"{"session_id":"demo","hook_event_name":"UserPromptSubmit","prompt":"Log in with password=hunter2"}"#,
    r#"{"session_id":"demo","hook_event_name":"Stop","last_assistant_message":"I am in."}"#,
];

/// Delivers into a store of this process.
#[derive(Debug)]
struct ToStore(Ingest);

#[async_trait]
impl Transport for ToStore {
    async fn deliver(&self, batch: Batch) -> Result<Vec<Outcome>, TransportError> {
        let events = batch.envelopes().iter().map(|envelope| Envelope::clone(envelope).into());
        let received = self.0.receive_batch(DEFAULT_WORKSPACE, events.collect()).await;
        let received = received.map_err(|error| TransportError::Unreachable {
            destination: batch.destination().to_owned(),
            source: Box::new(error),
        })?;
        Ok(received.into_iter().map(outcome).collect())
    }
}

fn outcome(received: Received) -> Outcome {
    let Received { request_id, admission, refusal } = received;
    if let Some(refusal) = refusal {
        let (code, message) = (refusal.code().to_owned(), refusal.to_string());
        return Outcome::Refused(Reason { code, message });
    }
    let (digest, event_id) = (admission.digest, admission.event_id);
    let receipt = Receipt { request_id, digest, event_id };
    match admission.kind {
        AdmissionKind::Duplicate => Outcome::Duplicate(receipt),
        _ => Outcome::Accepted(receipt),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let ingest =
        Ingest::new(Arc::<MemoryStore>::clone(&store), Redactor::default(), Arc::new(SystemClock));

    let queue = Arc::new(MemoryQueue::new(Arc::new(SystemClock)));
    for payload in PAYLOADS {
        let now = SystemClock.now();
        let id = RequestId::mint(now, rand::random());
        queue.push(Envelope::new(id, now, "this process", Source::default(), payload)).await?;
    }

    let jitter = Jitter::new(StdRng::from_seed(rand::random()));
    let delivery = DeliveryConfig::new(jitter.clone());
    let receivers = delivery.receivers.clone();
    let stack = delivery_stack(Arc::new(ToStore(ingest)), delivery);
    let drainer = Drainer::new(queue, Arc::new(stack), receivers, DrainConfig::new(jitter));
    let report = drainer.run(Until::NothingDue, &CancellationToken::new()).await;
    println!("delivered {}", report.delivered);

    let mut events = store.events(EventFilter::default(), Page::first(10)).await?.events;
    // Events of one delivery are received at the same time, so a list has them in any order.
    events.sort_by_key(EventSummary::captured_at);
    for event in events {
        let removed = event.metadata.redacted.total();
        println!("{} {}, {removed} secrets removed", event.event_type, event.status);
    }
    let conversation = store.conversation(DEFAULT_WORKSPACE, "demo").await?;
    for message in conversation.into_iter().flat_map(|conversation| conversation.messages) {
        println!("{:>9}: {}", message.role.as_str(), message.content.value);
    }
    Ok(())
}
