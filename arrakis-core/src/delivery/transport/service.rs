//! The two ways between [`Transport`] and `tower::Service`.

use std::task::{Context, Poll};
use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tower::{Service, ServiceExt};

use super::{Batch, Outcome, Transport, TransportError};

/// A [`Transport`] as a tower service, so that any layer can be put around it.
#[derive(Debug, Clone)]
pub struct TransportService(Arc<dyn Transport>);

impl TransportService {
    /// Adapts `transport`.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self(transport)
    }
}

impl Service<Batch> for TransportService {
    type Response = Vec<Outcome>;
    type Error = TransportError;
    type Future = BoxFuture<'static, Result<Vec<Outcome>, TransportError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, batch: Batch) -> Self::Future {
        let transport = Arc::clone(&self.0);
        Box::pin(async move { transport.deliver(batch).await })
    }
}

/// A tower service as a [`Transport`]: the way back, for a stack of layers.
pub struct ServiceTransport<S>(Mutex<S>);

impl<S> ServiceTransport<S> {
    /// Adapts `service`. It is cloned for each call; what its clones share is its own matter.
    pub fn new(service: S) -> Self {
        Self(Mutex::new(service))
    }
}

impl<S> fmt::Debug for ServiceTransport<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceTransport").finish_non_exhaustive()
    }
}

#[async_trait]
impl<S> Transport for ServiceTransport<S>
where
    S: Service<Batch, Response = Vec<Outcome>, Error = TransportError> + Clone + Send + 'static,
    S::Future: Send,
{
    async fn deliver(&self, batch: Batch) -> Result<Vec<Outcome>, TransportError> {
        let service = self.0.lock().await.clone();
        service.oneshot(batch).await
    }
}
