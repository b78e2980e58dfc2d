//! Whether anything happened: one look at the store's feed for everybody who listens.
//!
//! A stream reads the feed from its own position, at its own client's pace. When to read it learns
//! here, so that many streams of a store at rest ask it no more often than one.

use std::sync::{Arc, Weak};
use std::time::Duration;

use arrakis_core::base::error::Retryable;
use arrakis_core::record::store::{EventStore, FeedCursor, StoreError};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How often the store is asked.
const INTERVAL: Duration = Duration::from_millis(250);

/// How long a store that failed is left alone.
pub(super) const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Tells who listens that something happened.
#[derive(Debug)]
pub(super) struct News {
    store: Arc<dyn EventStore>,
    /// How long the store may take.
    patience: Duration,
    lookout: Mutex<Weak<Lookout>>,
}

/// One listener's part in the lookout, which ends with the last of them.
#[derive(Debug)]
pub(super) struct Bell {
    rung: watch::Receiver<()>,
    _lookout: Arc<Lookout>,
}

#[derive(Debug)]
struct Lookout {
    bell: watch::Receiver<()>,
    task: JoinHandle<()>,
}

impl News {
    pub(super) fn new(store: Arc<dyn EventStore>, patience: Duration) -> Self {
        Self { store, patience, lookout: Mutex::default() }
    }

    /// A bell for everything that is stored or changed from now on.
    pub(super) fn bell(&self) -> Bell {
        let mut shared = self.lookout.lock();
        let alive = shared.upgrade().filter(|lookout| !lookout.task.is_finished());
        let lookout = alive.unwrap_or_else(|| {
            let (ring, bell) = watch::channel(());
            let task = tokio::spawn(look_out(Arc::clone(&self.store), self.patience, ring));
            Arc::new(Lookout { bell, task })
        });
        *shared = Arc::downgrade(&lookout);
        let mut rung = lookout.bell.clone();
        rung.mark_unchanged();
        Bell { rung, _lookout: lookout }
    }
}

impl Bell {
    /// Waits until something happened since it last rang; returns whether the lookout goes on. Whoever
    /// reads the feed afterwards misses nothing: what happens during the read rings again.
    pub(super) async fn ring(&mut self) -> bool {
        self.rung.changed().await.is_ok()
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Rings when the feed moves on. Failures are told once, not once a listener or an attempt.
async fn look_out(store: Arc<dyn EventStore>, patience: Duration, bell: watch::Sender<()>) {
    let mut position = None;
    let mut away = false;
    loop {
        let looked = timeout(patience, look(&*store, position.clone())).await;
        let failure = match looked {
            Ok(Ok((news, cursor))) => {
                position = Some(cursor);
                if news {
                    bell.send_replace(());
                }
                if std::mem::take(&mut away) {
                    tracing::info!(target: "arrakis::server", "the live feed goes on");
                }
                sleep(INTERVAL).await;
                continue;
            }
            Ok(Err(error)) => {
                if !error.is_retryable() {
                    // The position is worth nothing any more, as after a restored backup.
                    position = None;
                }
                error.to_string()
            }
            Err(_) => "the store takes too long to answer".to_owned(),
        };
        if !std::mem::replace(&mut away, true) {
            tracing::warn!(target: "arrakis::server", error = failure, "the live feed waits");
        }
        sleep(AFTER_FAILURE).await;
    }
}

/// Whether anything happened since `position`, and where to look from next. Without a position
/// something may have happened.
async fn look(
    store: &dyn EventStore,
    position: Option<FeedCursor>,
) -> Result<(bool, FeedCursor), StoreError> {
    if let Some(position) = position {
        let page = store.feed(Some(position), 1).await?;
        if page.events.is_empty() && !page.more {
            return Ok((false, page.cursor));
        }
    }
    // What is stored up to here is seen by every read that comes after the bell.
    Ok((true, store.feed(None, 1).await?.cursor))
}
