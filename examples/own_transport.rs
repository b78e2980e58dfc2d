//! Embeds the delivery side: a transport of one's own, a layer of tower's, and the drain loop.
//!
//! `cargo run -p arrakis-examples --bin own-transport`

#![allow(clippy::print_stdout, reason = "it shows what it delivers")]

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
    Batch, Outcome, Receipt, ServiceTransport, Transport, TransportError, TransportService,
};
use async_trait::async_trait;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use tower::limit::ConcurrencyLimitLayer;

/// Prints events instead of sending them.
#[derive(Debug)]
struct Printer;

#[async_trait]
impl Transport for Printer {
    async fn deliver(&self, batch: Batch) -> Result<Vec<Outcome>, TransportError> {
        let printed = batch.envelopes().iter().map(|envelope| {
            println!("{}", String::from_utf8_lossy(&envelope.payload));
            Outcome::Accepted(Receipt {
                request_id: envelope.request_id().clone(),
                digest: envelope.header.digest,
                event_id: Default::default(),
            })
        });
        Ok(printed.collect())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Between the transport and the stack any tower layer fits; here at most one call at a time.
    let limited = ServiceBuilder::new()
        .layer(ConcurrencyLimitLayer::new(1))
        .service(TransportService::new(Arc::new(Printer)));
    let transport = Arc::new(ServiceTransport::new(limited));

    let jitter = Jitter::new(StdRng::from_seed(rand::random()));
    // What the layers learn about the receivers, the drain loop must know too.
    let delivery = DeliveryConfig::new(jitter.clone());
    let receivers = delivery.receivers.clone();
    let stack = Arc::new(delivery_stack(transport, delivery));
    let queue = Arc::new(MemoryQueue::new(Arc::new(SystemClock)));
    for n in 1..=3 {
        let now = SystemClock.now();
        let id = RequestId::mint(now, rand::random());
        let payload = format!(r#"{{"hook_event_name":"Stop","n":{n}}}"#);
        queue.push(Envelope::new(id, now, "printer", Source::default(), payload)).await?;
    }
    let drainer = Drainer::new(queue, stack, receivers, DrainConfig::new(jitter));
    let report = drainer.run(Until::NothingDue, &CancellationToken::new()).await;
    println!("delivered {}", report.delivered);
    Ok(())
}
