//! Writes down when API keys were last used, behind the requests that use them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::base::clock::Timestamp;
use crate::record::store::{KeyStore, StoreError};

/// How often uses are written down, and how exact their times are.
const INTERVAL: Duration = Duration::from_secs(60);

const MINUTE_MILLIS: i64 = 60_000;

/// Remembers which keys were used, until a job writes it down.
#[derive(Debug, Default)]
pub struct KeyUses(Mutex<HashMap<String, Timestamp>>);

impl KeyUses {
    /// Notes that a key of a store, known by its id, was used.
    pub fn note(&self, id: &str, now: Timestamp) {
        let minute = now.as_millis().div_euclid(MINUTE_MILLIS).saturating_mul(MINUTE_MILLIS);
        let minute = Timestamp::from_millis(minute);
        let mut uses = self.0.lock();
        match uses.get_mut(id) {
            Some(known) => *known = minute.max(*known),
            None => {
                uses.insert(id.to_owned(), minute);
            }
        }
    }

    fn take(&self) -> HashMap<String, Timestamp> {
        std::mem::take(&mut *self.0.lock())
    }

    fn put_back(&self, uses: HashMap<String, Timestamp>) {
        for (id, at) in uses {
            self.note(&id, at);
        }
    }
}

/// Writes down the uses of keys, about once a minute.
#[derive(Debug)]
pub struct KeyUseJob {
    store: Arc<dyn KeyStore>,
    uses: Arc<KeyUses>,
}

impl KeyUseJob {
    /// A job that takes what `uses` remembers into `store`.
    #[must_use]
    pub fn new(store: Arc<dyn KeyStore>, uses: Arc<KeyUses>) -> Self {
        Self { store, uses }
    }

    /// Works every minute until `shutdown`. Requests may still be answered then: who waits for these calls
    /// [`run_once`](Self::run_once) once more.
    pub async fn run(&self, shutdown: &CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            if let Err(error) = self.run_once().await {
                tracing::warn!(target: "arrakis::job", job = "key_uses", %error,
                    "the job failed; it is tried again");
            }
        }
    }

    /// Writes down what was used since the last time. Nothing is asked of the store where no key was.
    ///
    /// # Errors
    ///
    /// The store failed; the uses are remembered for the next time.
    pub async fn run_once(&self) -> Result<(), StoreError> {
        let uses = self.uses.take();
        if uses.is_empty() {
            return Ok(());
        }
        let mut rows: Vec<_> = uses.iter().map(|(id, at)| (id.clone(), *at)).collect();
        // Servers that write the same rows do so in the same order.
        rows.sort();
        let noted = self.store.note_key_uses(rows).await;
        if noted.is_err() {
            self.uses.put_back(uses);
        }
        noted
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::base::clock::ManualClock;
    use crate::record::key::{ApiKey, Scope};
    use crate::record::store::MemoryStore;

    #[tokio::test(start_paused = true)]
    async fn uses_are_written_down_once_a_minute_to_the_minute() {
        let start = Timestamp::from_millis(1_800_000_000_000);
        let clock = Arc::new(ManualClock::new(start));
        let store = Arc::new(MemoryStore::new(clock));
        let mut rng = StdRng::seed_from_u64(1);
        let (_, key) = ApiKey::generate("k", Scope::Ingest, "main", start, &mut rng);
        store.create_key(key.clone()).await.unwrap();
        let uses = Arc::new(KeyUses::default());
        let job = KeyUseJob::new(Arc::<MemoryStore>::clone(&store), Arc::clone(&uses));
        let used = async || store.key(&key.id).await.unwrap().unwrap().last_used_at;
        let shutdown = CancellationToken::new();
        let stopped = shutdown.clone();
        let work = async {
            uses.note(&key.id, start.plus(Duration::from_secs(119)));
            uses.note(&key.id, start.plus(Duration::from_secs(3)));
            tokio::time::sleep(INTERVAL / 2).await;
            assert_eq!(used().await, None);
            tokio::time::sleep(INTERVAL).await;
            assert_eq!(used().await, Some(start.plus(Duration::from_secs(60))));
            stopped.cancel();
        };
        tokio::join!(job.run(&shutdown), work);
        uses.note(&key.id, start.plus(Duration::from_secs(600)));
        job.run_once().await.unwrap();
        assert_eq!(used().await, Some(start.plus(Duration::from_secs(600))));
    }
}
