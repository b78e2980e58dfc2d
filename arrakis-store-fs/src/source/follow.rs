//! When transcripts are read: after the events that end a turn, and now and then.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::delivery::drain::Witness;
use arrakis_core::delivery::queue::Lease;
use arrakis_core::session::transcript::{Mention, TranscriptFile};
use async_trait::async_trait;
use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, RwLock};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ship::Shipper;

/// When a transcript is read after an event that ends a turn: the file lags the hooks, by how much is not
/// documented.
const DELAYS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(10)];

/// How often all known transcripts are checked: a turn may take hours.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Most files that are read at once, so that one that is slow holds no other.
const READINGS_MAX: usize = 4;

/// Most sessions that are remembered as registered; beyond it they are looked up again.
const KNOWN_MAX: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// Follows the transcripts that the events of a drainer name.
#[derive(Debug)]
pub struct Follower {
    shipper: Arc<Shipper>,
    state: Mutex<State>,
    changed: Notify,
    /// Held by each reading; alone by the one that catches up.
    reading: Arc<RwLock<()>>,
}

#[derive(Debug)]
struct State {
    /// The sessions whose transcript has a checkpoint.
    known: LruCache<String, ()>,
    /// What is to be read, by when; the number tells what is due at the same moment.
    due: BTreeMap<(Instant, u64), Transcript>,
    numbered: u64,
}

/// A transcript, and where its slices go.
#[derive(Debug, Clone)]
struct Transcript {
    file: TranscriptFile,
    destination: String,
}

impl Follower {
    /// Follows by means of `shipper`.
    #[must_use]
    pub fn new(shipper: Arc<Shipper>) -> Self {
        let state = State { known: LruCache::new(KNOWN_MAX), due: BTreeMap::new(), numbered: 0 };
        Self { shipper, state: Mutex::new(state), changed: Notify::new(), reading: Arc::default() }
    }

    /// Reads what is due, and now and then everything that has grown; for as long as it is polled.
    pub async fn run(&self) {
        let mut readings = JoinSet::new();
        let mut next_sweep = Instant::now();
        loop {
            let now = Instant::now();
            while readings.len() < READINGS_MAX {
                let (shipper, reading) = (Arc::clone(&self.shipper), Arc::clone(&self.reading));
                if now >= next_sweep {
                    next_sweep = now + SWEEP_INTERVAL;
                    readings.spawn_blocking(move || {
                        let _reading = reading.blocking_read();
                        shipper.warn(shipper.read_known())
                    });
                } else if let Some(Transcript { file, destination }) = self.state().next_due(now) {
                    readings.spawn_blocking(move || {
                        let _reading = reading.blocking_read();
                        shipper.warn(shipper.read_session(&file, &destination))
                    });
                } else {
                    break;
                }
            }
            let next =
                self.state().due.keys().next().map_or(next_sweep, |(at, _)| next_sweep.min(*at));
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(next), if readings.len() < READINGS_MAX => {}
                Some(_) = readings.join_next() => {}
            }
        }
    }

    /// Reads everything that has grown, after the readings that are under way; returns how many slices
    /// that made.
    pub async fn catch_up(&self) -> u64 {
        let _alone = self.reading.write().await;
        let shipper = Arc::clone(&self.shipper);
        let read = tokio::task::spawn_blocking(move || shipper.warn(shipper.read_known()));
        read.await.ok().flatten().unwrap_or_default()
    }

    /// Whether a transcript is to be read soon.
    #[must_use]
    pub fn is_due(&self) -> bool {
        !self.state().due.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    /// Takes what is due, once however often it is.
    fn next_due(&mut self, now: Instant) -> Option<Transcript> {
        let first = self.due.first_entry().filter(|entry| entry.key().0 <= now)?.remove();
        self.due.retain(|(at, _), other| *at > now || other.file.path != first.file.path);
        Some(first)
    }

    fn schedule(&mut self, transcript: &Transcript) {
        let now = Instant::now();
        // The delays count from the last event.
        self.due.retain(|(at, _), other| *at <= now || other.file.path != transcript.file.path);
        for delay in DELAYS {
            self.numbered += 1;
            self.due.insert((now + delay, self.numbered), transcript.clone());
        }
    }
}

#[async_trait]
impl Witness for Follower {
    async fn see(&self, leases: &[Lease]) {
        if !self.shipper.is_enabled() {
            return;
        }
        let mut named = Vec::new();
        for lease in leases {
            let header = &lease.envelope.header;
            let is_due = Mention::is_due(header.event_type.as_deref());
            let is_known = |session: &String| self.state().known.contains(session);
            if !is_due && header.session_id.as_ref().is_none_or(is_known) {
                continue;
            }
            let Some(Mention { session, subagent }) = Mention::of(&lease.envelope) else {
                continue;
            };
            let destination = &header.destination;
            for file in subagent.into_iter().chain([session]) {
                let transcript = Transcript { file, destination: destination.clone() };
                if is_due {
                    self.state().schedule(&transcript);
                }
                named.push(transcript);
            }
        }
        if named.is_empty() {
            return;
        }
        let shipper = Arc::clone(&self.shipper);
        let registered = tokio::task::spawn_blocking(move || {
            named.retain(|Transcript { file, destination }| {
                // A disk that takes no checkpoint must not hold the events up: each reading tries again.
                let registered = shipper.warn(shipper.register(file, destination));
                registered.is_some() && file.agent.is_none()
            });
            named
        });
        let registered = registered.await.unwrap_or_default();
        let mut state = self.state();
        for transcript in registered {
            state.known.put(transcript.file.session_id, ());
        }
        drop(state);
        self.changed.notify_one();
    }
}
