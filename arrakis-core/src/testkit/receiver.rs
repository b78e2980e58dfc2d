//! A receiver that can fail.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::delivery::transport::{Batch, Loopback, Outcome, Transport, TransportError};

/// A [`Loopback`] with faults at will, that remembers when it was tried.
#[derive(Debug, Default)]
pub struct FaultyReceiver {
    inner: Loopback,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    fault: Option<Arc<Fault>>,
    attempts: Vec<(Instant, Batch)>,
}

/// How an attempt fails; `None` lets it through.
type Fault = dyn Fn(&Batch) -> Option<TransportError> + Send + Sync;

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("attempts", &self.attempts.len()).finish_non_exhaustive()
    }
}

impl FaultyReceiver {
    /// From now on attempts fail as `fault` says, or not at all.
    pub fn fail(&self, fault: impl Fn(&Batch) -> Option<TransportError> + Send + Sync + 'static) {
        self.state().fault = Some(Arc::new(fault));
    }

    /// From now on it is well.
    pub fn recover(&self) {
        self.state().fault = None;
    }

    /// Every attempt so far: when, and with what.
    #[must_use]
    pub fn attempts(&self) -> Vec<(Instant, Batch)> {
        self.state().attempts.clone()
    }

    /// How many events it has stored.
    #[must_use]
    pub fn stored(&self) -> usize {
        self.inner.stored().len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

#[async_trait]
impl Transport for FaultyReceiver {
    async fn deliver(&self, batch: Batch) -> Result<Vec<Outcome>, TransportError> {
        let fault = {
            let mut state = self.state();
            state.attempts.push((Instant::now(), batch.clone()));
            state.fault.clone()
        };
        match fault.and_then(|fault| fault(&batch)) {
            Some(error) => Err(error),
            None => self.inner.deliver(batch).await,
        }
    }
}

/// The failure of a receiver that cannot be reached.
#[must_use]
pub fn unreachable() -> TransportError {
    let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into();
    TransportError::Unreachable { destination: "http://receiver/".to_owned(), source }
}

/// The failure of a receiver that asks to be left alone.
#[must_use]
pub fn unavailable(retry_after: Option<Duration>) -> TransportError {
    TransportError::Unavailable { answer: None, retry_after }
}

/// The failure of a receiver that fails on the request.
#[must_use]
pub fn failed() -> TransportError {
    TransportError::Failed { answer: None, message: "oops".to_owned() }
}
