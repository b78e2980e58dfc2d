//! A span around each round of delivery.

use std::task::{Context, Poll};

use tower::{Layer, Service};
use tracing::Instrument;
use tracing::instrument::Instrumented;

use crate::delivery::transport::Batch;

/// Puts each call into a span that says where it goes and how much it carries.
#[derive(Debug, Clone, Copy, Default)]
pub struct TraceLayer;

impl<S> Layer<S> for TraceLayer {
    type Service = Trace<S>;

    fn layer(&self, inner: S) -> Trace<S> {
        Trace { inner }
    }
}

/// The service of [`TraceLayer`].
#[derive(Debug, Clone)]
pub struct Trace<S> {
    inner: S,
}

impl<S: Service<Batch>> Service<Batch> for Trace<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = Instrumented<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, batch: Batch) -> Self::Future {
        let span = tracing::info_span!(
            "delivery",
            destination = batch.destination(),
            events = batch.len(),
            trace_id = batch.envelopes()[0].header.trace.trace_id,
        );
        let _entered = span.enter();
        self.inner.call(batch).instrument(span.clone())
    }
}
