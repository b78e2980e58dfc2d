//! What stands between the drain loop and a transport: plain tower layers, and the one place that
//! puts them in order.

pub mod breaker;
mod retry;
mod trace;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tower::timeout::TimeoutLayer;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, ServiceExt};

pub use retry::AttemptPolicy;
pub use trace::{Trace, TraceLayer};

use crate::base::clock::SystemClock;
use crate::base::retry::{FixedRetry, Jitter, RetryPolicy};
use crate::delivery::layers::breaker::{BreakerHandle, BreakerLayer, BreakerState};
use crate::delivery::transport::{
    Batch, Outcome, ServiceTransport, Transport, TransportError, TransportService,
};

/// A transport with the whole stack around it, itself a [`Transport`].
#[derive(Debug)]
pub struct DeliveryStack {
    service: ServiceTransport<BoxCloneSyncService<Batch, Vec<Outcome>, TransportError>>,
    breaker: BreakerHandle,
}

#[async_trait]
impl Transport for DeliveryStack {
    async fn deliver(&self, batch: Batch) -> Result<Vec<Outcome>, TransportError> {
        self.service.deliver(batch).await
    }

    fn is_ill(&self, destination: &str) -> bool {
        self.breaker.state(destination) != BreakerState::Closed
    }
}

/// The settings of [`delivery_stack`].
#[derive(Debug, Clone)]
pub struct DeliveryConfig {
    /// Decides over attempts within a round.
    pub attempts: Arc<dyn RetryPolicy>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Spreads the attempts.
    pub jitter: Jitter,
    /// The circuits of the receivers. Stacks that share it let through no more than one would.
    pub breaker: BreakerHandle,
}

impl DeliveryConfig {
    /// Three attempts one second apart, ten seconds each, and circuits of its own.
    #[must_use]
    pub fn new(jitter: Jitter) -> Self {
        let breaker = BreakerHandle::new(Arc::new(SystemClock), jitter.clone());
        let attempts = Arc::new(FixedRetry::default());
        Self { attempts, timeout: Duration::from_secs(10), jitter, breaker }
    }
}

/// Puts the layers of delivery around `transport`, outermost first:
///
/// 1. **trace** sees a round as the drain loop does: one call, one result, all its attempts inside;
/// 2. **retry** repeats an attempt that failed as a whole;
/// 3. **breaker** lets nothing through to a receiver that is ill. Inside of retry, so that it counts
///    each attempt and stops the next; outside of timeout, so that a receiver that hangs is ill;
/// 4. **timeout** bounds one attempt. Outside of retry it would bound the round, and a receiver that
///    hangs once would cost all three attempts;
/// 5. the transport.
#[must_use]
pub fn delivery_stack(transport: Arc<dyn Transport>, config: DeliveryConfig) -> DeliveryStack {
    let DeliveryConfig { attempts, timeout, jitter, breaker } = config;
    let service = ServiceBuilder::new()
        .layer(TraceLayer)
        .retry(AttemptPolicy::new(attempts, jitter))
        .layer(BreakerLayer::new(breaker.clone()))
        .map_err(move |error| transport_error(error, timeout))
        .layer(TimeoutLayer::new(timeout))
        .service(TransportService::new(transport));
    let service = BoxCloneSyncService::new(service.map_future(Box::pin));
    DeliveryStack { service: ServiceTransport::new(service), breaker }
}

/// Back from tower's boxed error, which the timeout layer speaks, to ours.
fn transport_error(error: BoxError, after: Duration) -> TransportError {
    match error.downcast::<TransportError>() {
        Ok(error) => *error,
        Err(error) if error.is::<tower::timeout::error::Elapsed>() => {
            TransportError::Timeout { after }
        }
        Err(source) => {
            TransportError::Unreachable { destination: "the receiver".to_owned(), source }
        }
    }
}
