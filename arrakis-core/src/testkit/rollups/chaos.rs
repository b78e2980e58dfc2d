//! Random series of what can happen to audit rows, and what counting all of them gives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use super::{ALL, sums};
use crate::base::clock::{Clock, ManualClock, Timestamp};
use crate::record::audit::EventStatus;
use crate::record::store::{
    Arrival, EventGroups, EventStore, EventSum, RollupStep, Rollups, Verdict,
};
use crate::testkit::event_store::{Arrivals, hook};

/// Does something random to a store each time, and remembers what cannot be read of it.
#[derive(Debug)]
pub struct Chaos {
    clock: Arc<ManualClock>,
    arrivals: Arrivals,
    random: StdRng,
    /// The bytes of payloads by their rows.
    bytes: BTreeMap<Uuid, u64>,
    /// Request ids, each with its workspace and what was sent.
    sent: Vec<(String, &'static str, String)>,
}

impl Chaos {
    /// The workspaces of the events.
    pub const WORKSPACES: [&'static str; 2] = ["one", "two"];

    /// A series that depends on `seed`.
    #[must_use]
    pub fn new(clock: Arc<ManualClock>, seed: u64) -> Self {
        Self {
            arrivals: Arrivals::new(Arc::clone(&clock)),
            clock,
            random: StdRng::seed_from_u64(seed),
            bytes: BTreeMap::new(),
            sent: Vec::new(),
        }
    }

    /// Heads or tails.
    pub fn toss(&mut self) -> bool {
        self.random.random_range(0..2) == 0
    }

    /// Does the next thing.
    ///
    /// # Panics
    ///
    /// The store fails.
    pub async fn step(&mut self, store: &dyn EventStore) {
        self.clock.advance(Duration::from_secs(self.random.random_range(0..90)));
        match self.random.random_range(0..8) {
            0 => self.work(store).await,
            1 => self.change(store).await,
            _ => {
                let batch = self.batch();
                store.record(batch).await.expect("record");
            }
        }
    }

    /// How many arrivals there were.
    #[must_use]
    pub fn sent(&self) -> usize {
        self.sent.len()
    }

    /// An arrival with this payload.
    pub fn next(&mut self, workspace: &'static str, payload: String) -> (Arrival, Verdict) {
        let id = format!("r{}", self.sent.len());
        self.sent.push((id.clone(), workspace, payload.clone()));
        self.arrivals.go_on_in(workspace);
        let (arrival, verdict) = self.arrivals.next(&id, payload);
        self.bytes.insert(arrival.event_id, arrival.body.len() as u64);
        (arrival, verdict)
    }

    /// Arrivals, some of which repeat an earlier one or its id.
    pub fn batch(&mut self) -> Vec<(Arrival, Verdict)> {
        (0..self.random.random_range(1..5)).map(|_| self.arrival()).collect()
    }

    fn arrival(&mut self) -> (Arrival, Verdict) {
        const TYPES: [&str; 4] = ["Stop", "UserPromptSubmit", "PreToolUse", "Notification"];
        let n = self.sent.len();
        let workspace = Self::WORKSPACES[self.random.random_range(0..2)];
        let event = TYPES[self.random.random_range(0..TYPES.len())];
        let text = "x".repeat(self.random.random_range(0..50));
        let mut payload = hook("s", event, &format!(r#","prompt":"{text}","n":{n}"#));
        if self.random.random_range(0..6) == 0 {
            payload = "not json".to_owned();
        }
        let (mut id, mut workspace) = (format!("r{n}"), workspace);
        if n > 0 && self.random.random_range(0..4) == 0 {
            let is_repeat = self.toss();
            let earlier = &self.sent[self.random.random_range(0..n)];
            (id, workspace) = (earlier.0.clone(), earlier.1);
            if is_repeat {
                payload = earlier.2.clone();
            }
        }
        self.sent.push((id.clone(), workspace, payload.clone()));
        self.arrivals.go_on_in(workspace);
        let (mut arrival, verdict) = self.arrivals.next(&id, payload);
        let waited = Duration::from_millis(self.random.random_range(0..5000));
        arrival.received_at = arrival.received_at.minus(waited);
        if let Some(capture) = &mut arrival.metadata.capture {
            let host = self.random.random_range(0..4);
            capture.source.host = (host > 0).then(|| format!("h\u{f6}st-{host}"));
        }
        self.bytes.insert(arrival.event_id, arrival.body.len() as u64);
        let verdict = if self.random.random_range(0..3) == 0 { self.failed() } else { verdict };
        (arrival, verdict)
    }

    fn failed(&mut self) -> Verdict {
        let code = format!("code-{}", self.random.random_range(0..3));
        Verdict::Failed { code, message: "it failed".to_owned() }
    }

    /// Claims what is due, and completes some of it.
    async fn work(&mut self, store: &dyn EventStore) {
        let due = self.clock.now().plus(Duration::from_secs(3600));
        let stalled = if self.toss() { due } else { Timestamp::EPOCH };
        for claim in store.claim_due(due, stalled, 5).await.expect("claim") {
            let verdict = match self.random.random_range(0..4) {
                0 => continue,
                1 => crate::record::ingest::judge(&claim.arrival),
                _ => self.failed(),
            };
            let retry_at = self.toss().then_some(due);
            assert!(store.complete(claim, verdict, retry_at).await.expect("complete"));
        }
    }

    /// Tries what failed or is invalid again, or gives it up.
    async fn change(&mut self, store: &dyn EventStore) {
        for row in super::rows(store).await {
            let may = matches!(row.status, EventStatus::Failed | EventStatus::Invalid);
            if !may || row.discarded_at.is_some() || self.random.random_range(0..4) > 0 {
                continue;
            }
            if row.status == EventStatus::Failed && self.toss() {
                store.give_up(row.id, "me", "no more").await.expect("give up");
            } else {
                let to = EventStatus::Pending;
                store.transition(row.id, to, "me", "again").await.expect("redrive");
            }
        }
    }

    /// Compares the counts of each step with all rows.
    ///
    /// # Panics
    ///
    /// They differ, or the store fails.
    pub async fn assert_counted(&self, store: &dyn EventStore, rollups: &dyn Rollups) {
        for workspace in Self::WORKSPACES {
            for step in RollupStep::ALL {
                let found = sums(rollups, workspace, step, ALL).await;
                assert_eq!(found, self.rows(store, workspace, step).await, "{workspace} {step:?}");
            }
        }
    }

    /// The counts of the rows that there are.
    pub(super) async fn rows(
        &self,
        store: &dyn EventStore,
        workspace: &str,
        step: RollupStep,
    ) -> Vec<EventSum> {
        let mut counted = Vec::new();
        for row in super::rows(store).await {
            if row.workspace != workspace {
                continue;
            }
            let host = row.metadata.capture.and_then(|capture| capture.source.host);
            let is_repeat = row.status == EventStatus::Duplicate;
            let mut sum = EventSum {
                at: Some(step.bucket(row.received_at)),
                event_type: Some(row.event_type),
                status: Some(row.status),
                error_code: Some(row.error_code.unwrap_or_default()),
                host: Some(host.unwrap_or_default()),
                events: 1,
                bytes: if is_repeat { 0 } else { self.bytes[&row.id] },
                ..EventSum::default()
            };
            sum.latency.add(row.processing_time_ms.expect("it was measured"), 1);
            counted.push(sum);
        }
        grouped(counted.iter(), ALL, true)
    }

    /// How long each row took, in milliseconds.
    pub(super) async fn latencies(&self, store: &dyn EventStore, workspace: &str) -> Vec<u64> {
        let rows = super::rows(store).await.into_iter().filter(|row| row.workspace == workspace);
        rows.filter_map(|row| row.processing_time_ms).collect()
    }
}

/// Counts in fewer groups.
pub(super) fn grouped<'a>(
    sums: impl Iterator<Item = &'a EventSum>,
    by: EventGroups,
    latency: bool,
) -> Vec<EventSum> {
    let mut grouped = BTreeMap::new();
    for sum in sums {
        let group = EventSum {
            at: sum.at.filter(|_| by.bucket),
            event_type: sum.event_type.clone().filter(|_| by.event_type),
            status: sum.status.filter(|_| by.status),
            error_code: sum.error_code.clone().filter(|_| by.error_code),
            host: sum.host.clone().filter(|_| by.host),
            ..EventSum::default()
        };
        let place = grouped.entry(group.group()).or_insert(group);
        place.events += sum.events;
        place.bytes += sum.bytes;
        if latency {
            place.latency.merge(&sum.latency);
        }
    }
    grouped.into_values().collect()
}
