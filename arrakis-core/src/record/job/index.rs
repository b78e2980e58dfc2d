//! Makes what was stored searchable, behind the requests that store it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::record::store::{EventStore, StoreError};

/// How often the store is asked: what was stored is found a second later.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the job leaves a store alone that failed: less than the five seconds in which what was stored
/// is found, also after an outage.
const AFTER_FAILURE: Duration = Duration::from_secs(3);

/// Commits that are taken at one time.
const BATCH: usize = 100;

/// Brings the search index of a store up to date, again and again.
#[derive(Debug)]
pub struct IndexJob {
    store: Arc<dyn EventStore>,
}

impl IndexJob {
    /// A job over `store`.
    #[must_use]
    pub fn new(store: Arc<dyn EventStore>) -> Self {
        Self { store }
    }

    /// Works every second until `shutdown`.
    pub async fn run(&self, shutdown: &CancellationToken) {
        loop {
            let pause = match self.run_once(shutdown).await {
                Ok(_) => INTERVAL,
                Err(error) => {
                    tracing::warn!(target: "arrakis::job", job = "index", %error,
                        "the job failed; it is tried again");
                    AFTER_FAILURE
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Indexes everything that is not yet; returns how many commits that were. Stops early at
    /// `shutdown`.
    ///
    /// # Errors
    ///
    /// The store failed; the rest is indexed the next time.
    pub async fn run_once(&self, shutdown: &CancellationToken) -> Result<usize, StoreError> {
        let mut taken = 0;
        loop {
            let began = Instant::now();
            let now = self.store.index(BATCH).await?;
            taken += now;
            if now < BATCH {
                return Ok(taken);
            }
            // A third of the time is for those who store: a flood comes in faster than it can be indexed.
            tokio::select! {
                () = shutdown.cancelled() => return Ok(taken),
                () = tokio::time::sleep(began.elapsed() / 2) => {}
            }
        }
    }
}
