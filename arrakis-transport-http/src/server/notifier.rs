//! Polls the store's feed once for all live streams.
//!
//! A stream reads the feed from its own position, at its own client's pace. It learns here when to
//! read, so many streams of a store at rest ask it no more often than one.

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

/// Tells subscribers when the feed moves on.
#[derive(Debug)]
pub(super) struct FeedNotifier {
    store: Arc<dyn EventStore>,
    /// How long the store may take.
    store_timeout: Duration,
    poller: Mutex<Weak<Poller>>,
}

/// One subscriber's share of the poller, which ends with the last of them.
#[derive(Debug)]
pub(super) struct Subscription {
    changes: watch::Receiver<()>,
    _poller: Arc<Poller>,
}

#[derive(Debug)]
struct Poller {
    changes: watch::Receiver<()>,
    task: JoinHandle<()>,
}

impl FeedNotifier {
    pub(super) fn new(store: Arc<dyn EventStore>, store_timeout: Duration) -> Self {
        Self { store, store_timeout, poller: Mutex::default() }
    }

    /// A subscription to everything that is stored or changed from now on.
    pub(super) fn subscribe(&self) -> Subscription {
        let mut shared = self.poller.lock();
        let alive = shared.upgrade().filter(|poller| !poller.task.is_finished());
        let poller = alive.unwrap_or_else(|| {
            let (sender, changes) = watch::channel(());
            let task = tokio::spawn(poll(Arc::clone(&self.store), self.store_timeout, sender));
            Arc::new(Poller { changes, task })
        });
        *shared = Arc::downgrade(&poller);
        let mut changes = poller.changes.clone();
        changes.mark_unchanged();
        Subscription { changes, _poller: poller }
    }
}

impl Subscription {
    /// Waits until the feed has moved on since the last call; returns whether the poller goes on. Whoever
    /// reads the feed afterwards misses nothing: a change during the read ends the next wait.
    pub(super) async fn changed(&mut self) -> bool {
        self.changes.changed().await.is_ok()
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Tells subscribers when the feed moves on. It logs a failure once, not once a subscriber or an attempt.
async fn poll(store: Arc<dyn EventStore>, store_timeout: Duration, subscribers: watch::Sender<()>) {
    let mut position = None;
    let mut away = false;
    loop {
        let looked = timeout(store_timeout, look(&*store, position.clone())).await;
        let failure = match looked {
            Ok(Ok((moved_on, cursor))) => {
                position = Some(cursor);
                if moved_on {
                    subscribers.send_replace(());
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
    // What is stored up to here is seen by every read that comes after the notification.
    Ok((true, store.feed(None, 1).await?.cursor))
}
