//! Counts of audit rows: what a transaction changes of them, which its commit carries, and how that is added to what is
//! stored.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Outcome;
use crate::base::clock::Timestamp;
use crate::base::limits::{ROLLUP_ROWS_MAX, SUMS_MAX};
use crate::record::arrival::{Arrival, EventMetadata};
use crate::record::audit::EventStatus;
use crate::record::sketch::Sketch;
use crate::record::store::{EventSum, EventSums, OTHER, RollupStep, StoreError};

/// An audit row as it is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedRow {
    /// Its workspace.
    pub workspace: String,
    /// When it was received.
    pub received_at: Timestamp,
    /// What it is counted under.
    pub key: CountKey,
    /// The bytes of its payload as it came; none of a duplicate, whose payload is not stored.
    pub bytes: u64,
    /// How long it took from receipt to commit, in milliseconds, where that is known.
    pub latency_ms: Option<u64>,
}

/// What audit rows are counted under, within a bucket of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CountKey {
    /// The event type.
    pub event_type: String,
    /// The state.
    pub status: EventStatus,
    /// The error code; may be empty.
    pub error_code: String,
    /// The host of the capture; may be empty.
    pub host: String,
}

impl CountedRow {
    /// The row of an arrival with this outcome, written at `now`.
    #[must_use]
    pub fn new(arrival: &Arrival, outcome: &Outcome, now: Timestamp) -> Self {
        let is_repeat = outcome.duplicate_of.is_some();
        let code = outcome.error.as_ref().map(|(code, _)| code.as_ref());
        Self {
            workspace: arrival.workspace.clone(),
            received_at: arrival.received_at,
            key: CountKey {
                event_type: arrival.event_type.clone(),
                status: outcome.status,
                error_code: code.unwrap_or_default().to_owned(),
                host: if is_repeat { String::new() } else { host_of(&arrival.metadata) },
            },
            bytes: if is_repeat { 0 } else { arrival.body.len() as u64 },
            latency_ms: u64::try_from(now.since(arrival.received_at).as_millis()).ok(),
        }
    }
}

/// The host that captured an event; empty where it is not known.
#[must_use]
pub fn host_of(metadata: &EventMetadata) -> String {
    let host = metadata.capture.as_ref().and_then(|capture| capture.source.host.clone());
    host.unwrap_or_default()
}

/// How many audit rows there are, or how many more, and what they add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub events: i64,
    /// The bytes of their payloads.
    pub bytes: i64,
    /// Their latencies, in milliseconds.
    pub latency: Sketch,
}

impl Count {
    /// Adds another count.
    pub fn merge(&mut self, other: &Self) {
        self.events = self.events.saturating_add(other.events);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.latency.merge(&other.latency);
    }

    fn is_zero(&self) -> bool {
        self.events == 0 && self.bytes == 0 && self.latency.is_empty()
    }
}

/// How a transaction changes the counts, by workspace, minute and key. Its JSON is an array of arrays:
/// `[workspace, minute, event type, state, error code, host, events, bytes, latencies]`, where minutes are counted from
/// 1970 on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<(String, Timestamp, CountKey), Count>);

impl Counts {
    /// Counts a row that was stored, or that is now as it is here.
    pub fn add(&mut self, row: CountedRow) {
        self.put(row, 1);
    }

    /// Counts a row no longer as it is here.
    pub fn remove(&mut self, row: CountedRow) {
        self.put(row, -1);
    }

    fn put(&mut self, row: CountedRow, times: i64) {
        let minute = RollupStep::Minute.bucket(row.received_at);
        let count = self.0.entry((row.workspace, minute, row.key)).or_default();
        count.events += times;
        let bytes = i64::try_from(row.bytes).unwrap_or(i64::MAX);
        count.bytes = count.bytes.saturating_add(bytes.saturating_mul(times));
        if let Some(latency_ms) = row.latency_ms {
            count.latency.add(latency_ms, times);
        }
    }

    /// Adds what another part of the transaction changes, or another transaction.
    pub fn merge(&mut self, other: Self) {
        for (place, count) in other.0 {
            self.0.entry(place).or_default().merge(&count);
        }
    }

    /// What changes in each bucket of a step; those before `floor` are gone, and stay so.
    #[must_use]
    pub fn buckets(&self, step: RollupStep, floor: Timestamp) -> Vec<Bucket> {
        let mut buckets = BTreeMap::<(&str, Timestamp), BTreeMap<CountKey, Count>>::new();
        for ((workspace, minute, key), count) in &self.0 {
            let at = step.bucket(*minute);
            if at >= floor {
                let bucket = buckets.entry((workspace, at)).or_default();
                bucket.entry(key.clone()).or_default().merge(count);
            }
        }
        let bucket = |((workspace, at), mut changes): ((&str, _), BTreeMap<_, Count>)| {
            changes.retain(|_, count| !count.is_zero());
            Bucket { workspace: workspace.to_owned(), at, changes }
        };
        let buckets = buckets.into_iter().map(bucket);
        buckets.filter(|bucket| !bucket.changes.is_empty()).collect()
    }
}

/// What changes in one minute, hour or day of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// The workspace.
    pub workspace: String,
    /// The bucket's beginning.
    pub at: Timestamp,
    changes: BTreeMap<CountKey, Count>,
}

/// The rows of a bucket that are kept for [`OTHER`]: one for each state, so that sums by state are right.
const OTHER_ROWS: usize = EventStatus::ALL.len();

impl Bucket {
    /// The rows that have to be known, where they are there: those that change, and those of [`OTHER`].
    #[must_use]
    pub fn keys(&self) -> BTreeSet<CountKey> {
        self.changes.keys().cloned().chain(self.changes.keys().map(other)).collect()
    }

    /// Whether all rows that change are there, so that it does not matter how many the bucket has.
    #[must_use]
    pub fn has_all(&self, stored: &BTreeMap<CountKey, Count>) -> bool {
        self.changes.keys().all(|key| stored.contains_key(key))
    }

    /// The rows to write: those of [`keys`](Self::keys) that are `stored` with what changes. `rows` is how many the
    /// bucket has. A row stays where its count falls to zero, so what once had a row of its own keeps it, and what had
    /// none never gets one while the bucket is full.
    #[must_use]
    pub fn joined(
        &self,
        mut stored: BTreeMap<CountKey, Count>,
        mut rows: usize,
    ) -> BTreeMap<CountKey, Count> {
        let mut written = BTreeSet::new();
        for (key, change) in &self.changes {
            let key = if stored.contains_key(key) {
                key.clone()
            } else if rows < ROLLUP_ROWS_MAX - OTHER_ROWS {
                rows += 1;
                key.clone()
            } else {
                other(key)
            };
            stored.entry(key.clone()).or_default().merge(change);
            written.insert(key);
        }
        stored.retain(|key, _| written.contains(key));
        stored
    }
}

/// Where a key is counted that has no row of its own.
fn other(key: &CountKey) -> CountKey {
    let other = || OTHER.to_owned();
    CountKey { event_type: other(), status: key.status, error_code: other(), host: other() }
}

type Entry<'a> =
    (&'a str, i64, &'a str, EventStatus, &'a str, &'a str, i64, i64, std::borrow::Cow<'a, str>);

const MINUTE_MICROS: i64 = 60_000_000;

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let changes = self.0.iter().filter(|(_, count)| !count.is_zero());
        serializer.collect_seq(changes.map(|((workspace, minute, key), count)| -> Entry<'_> {
            let minute = minute.as_micros().div_euclid(MINUTE_MICROS);
            let CountKey { event_type, status, error_code, host } = key;
            let latency = count.latency.to_string().into();
            let Count { events, bytes, .. } = *count;
            (workspace, minute, event_type, *status, error_code, host, events, bytes, latency)
        }))
    }
}

impl<'de> Deserialize<'de> for Counts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        type Owned = (String, i64, String, EventStatus, String, String, i64, i64, String);
        let mut counts = Self::default();
        for entry in Vec::<Owned>::deserialize(deserializer)? {
            let (workspace, minute, event_type, status, error_code, host, events, bytes, latency) =
                entry;
            let minute = Timestamp::from_micros(minute.saturating_mul(MINUTE_MICROS));
            let key = CountKey { event_type, status, error_code, host };
            let latency = latency.parse().map_err(de::Error::custom)?;
            let count = Count { events, bytes, latency };
            counts.0.entry((workspace, minute, key)).or_default().merge(&count);
        }
        Ok(counts)
    }
}

/// Groups stored counts as asked; for stores that cannot do it themselves.
#[must_use]
pub fn event_sums<'a>(
    query: &EventSums,
    rows: impl Iterator<Item = (Timestamp, &'a CountKey, &'a Count)>,
) -> Vec<EventSum> {
    let mut sums = Vec::<EventSum>::new();
    let mut places = BTreeMap::new();
    for (at, key, count) in rows.filter(|(.., count)| count.events != 0) {
        let by = query.by;
        let new = EventSum {
            at: by.bucket.then_some(at),
            event_type: by.event_type.then(|| key.event_type.clone()),
            status: by.status.then_some(key.status),
            error_code: by.error_code.then(|| key.error_code.clone()),
            host: by.host.then(|| key.host.clone()),
            ..EventSum::default()
        };
        let place = *places.entry(new.group()).or_insert(sums.len());
        if place == sums.len() {
            sums.push(new);
        }
        let sum = &mut sums[place];
        sum.events += u64::try_from(count.events).unwrap_or(0);
        sum.bytes += u64::try_from(count.bytes).unwrap_or(0);
        if query.latency {
            sum.latency.merge(&count.latency);
        }
    }
    sums
}

/// Sums in the order of their groups, all stores alike.
///
/// # Errors
///
/// There are more than [`SUMS_MAX`].
pub fn in_order<T, G: Ord>(
    mut sums: Vec<T>,
    group: impl Fn(&T) -> G,
) -> Result<Vec<T>, StoreError> {
    if sums.len() > SUMS_MAX {
        return Err(StoreError::Data {
            what: "read sums".to_owned(),
            source: format!(
                "there are more than {SUMS_MAX}: ask for a shorter time, or for longer buckets"
            )
            .into(),
        });
    }
    sums.sort_by_cached_key(group);
    Ok(sums)
}
