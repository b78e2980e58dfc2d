//! Whether the store takes writes, asked no more often than it helps.

use std::time::Duration;

use arrakis_core::store::EventStore;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long the store may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long an answer holds: probes come from several sides, and each is a write.
const FRESH: Duration = Duration::from_millis(500);

/// The last answer. Whoever asks while the store is being asked waits for that answer.
#[derive(Debug, Default)]
pub(super) struct Readiness(Mutex<Option<(Instant, Result<(), String>)>>);

impl Readiness {
    /// Whether the store takes writes, and why not.
    pub(super) async fn check(&self, store: &dyn EventStore) -> Result<(), String> {
        let mut last = self.0.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < FRESH
        {
            return answer.clone();
        }
        let answer = match tokio::time::timeout(PATIENCE, store.ping()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(target: "arrakis::server", %error, cause, "the store takes no writes");
                Err("the store is not available at the moment".to_owned())
            }
            Err(_) => {
                tracing::error!(target: "arrakis::server", "the store does not answer");
                Err("the store takes too long to answer".to_owned())
            }
        };
        *last = Some((Instant::now(), answer.clone()));
        answer
    }
}
