//! What stands between the drain loop and a transport: plain tower layers, the one place that puts them in
//! order, and a transport that changes events before another sends them.

mod breaker;
mod map;
mod retry;
mod trace;

use std::sync::Arc;
use std::time::Duration;

use tower::timeout::TimeoutLayer;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, ServiceExt};

pub use breaker::{Breaker, BreakerLayer};
pub use map::{EnvelopeMap, MapEnvelopes};
pub use retry::AttemptPolicy;
pub use trace::{Trace, TraceLayer};

use crate::base::clock::SystemClock;
use crate::base::retry::{FixedRetry, Jitter, RetryPolicy};
use crate::delivery::receiver::Receivers;
use crate::delivery::transport::{
    Batch, Outcome, ServiceTransport, Transport, TransportError, TransportService,
};

/// A transport with the whole stack around it, itself a [`Transport`].
pub type DeliveryStack = ServiceTransport<BoxCloneSyncService<Batch, Vec<Outcome>, TransportError>>;

/// The settings of [`delivery_stack`].
#[derive(Debug, Clone)]
pub struct DeliveryConfig {
    /// Decides over attempts within a round.
    pub attempts: Arc<dyn RetryPolicy>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Spreads the attempts.
    pub jitter: Jitter,
    /// How the receivers are. The [`Drainer`](crate::delivery::drain::Drainer) needs the same; stacks that
    /// share it let through no more than one would.
    pub receivers: Receivers,
}

impl DeliveryConfig {
    /// Three attempts one second apart, ten seconds each, and receivers about which nothing is known.
    #[must_use]
    pub fn new(jitter: Jitter) -> Self {
        let receivers = Receivers::new(Arc::new(SystemClock), jitter.clone());
        let attempts = Arc::new(FixedRetry::default());
        Self { attempts, timeout: Duration::from_secs(10), jitter, receivers }
    }
}

/// Puts the layers of delivery around `transport`, outermost first:
///
/// 1. **trace** sees a round as the drain loop does: one call, one result, all its attempts inside;
/// 2. **retry** repeats an attempt that failed as a whole;
/// 3. **breaker** lets nothing through to an unhealthy receiver. Inside of retry, so that it counts each
///    attempt and stops the next; outside of timeout, so that an attempt that times out counts as a failure;
/// 4. **timeout** bounds one attempt. Outside of retry it would bound the round, and one attempt that times
///    out would cost all three;
/// 5. the transport.
#[must_use]
pub fn delivery_stack(transport: Arc<dyn Transport>, config: DeliveryConfig) -> DeliveryStack {
    let DeliveryConfig { attempts, timeout, jitter, receivers } = config;
    let service = ServiceBuilder::new()
        .layer(TraceLayer)
        .retry(AttemptPolicy::new(attempts, jitter, receivers.clone()))
        .layer(BreakerLayer::new(receivers))
        .map_err(move |error| transport_error(error, timeout))
        .layer(TimeoutLayer::new(timeout))
        .service(TransportService::new(transport));
    ServiceTransport::new(BoxCloneSyncService::new(service.map_future(Box::pin)))
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
