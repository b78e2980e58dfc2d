//! Lets an attempt through to a receiver if its circuit does; the diagram is in `receiver/circuit.rs`.

use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tower::{Layer, Service};

use crate::delivery::receiver::{Pass, Receivers};
use crate::delivery::transport::{Batch, Outcome, TransportError};

/// Puts a circuit breaker around a transport.
#[derive(Debug, Clone)]
pub struct BreakerLayer(Receivers);

impl BreakerLayer {
    /// The layer with the circuits of `receivers`.
    #[must_use]
    pub fn new(receivers: Receivers) -> Self {
        Self(receivers)
    }
}

impl<S> Layer<S> for BreakerLayer {
    type Service = Breaker<S>;

    fn layer(&self, inner: S) -> Breaker<S> {
        Breaker { inner, receivers: self.0.clone() }
    }
}

/// The service of [`BreakerLayer`].
#[derive(Debug, Clone)]
pub struct Breaker<S> {
    inner: S,
    receivers: Receivers,
}

impl<S> Service<Batch> for Breaker<S>
where
    S: Service<Batch, Response = Vec<Outcome>, Error = TransportError>,
    S::Future: Send + 'static,
{
    type Response = Vec<Outcome>;
    type Error = TransportError;
    type Future = BoxFuture<'static, Result<Vec<Outcome>, TransportError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, batch: Batch) -> Self::Future {
        let pass = match self.receivers.admit(batch.destination()) {
            Ok(pass) => pass,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let mut attempt =
            Attempt { receivers: self.receivers.clone(), batch: batch.clone(), pass: Some(pass) };
        let answer = self.inner.call(batch);
        Box::pin(async move {
            let result = answer.await;
            attempt.end(Some(&result));
            result
        })
    }
}

/// An attempt that was let through; dropped before its end, it was given up.
struct Attempt {
    receivers: Receivers,
    batch: Batch,
    pass: Option<Pass>,
}

impl Attempt {
    fn end(&mut self, result: Option<&Result<Vec<Outcome>, TransportError>>) {
        if let Some(pass) = self.pass.take() {
            self.receivers.settle(&self.batch, pass, result);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.end(None);
    }
}
