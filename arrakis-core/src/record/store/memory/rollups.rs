//! The sums of a store in memory.

use std::collections::{BTreeMap, HashMap, VecDeque};

use async_trait::async_trait;
use uuid::Uuid;

use super::{MemoryStore, Row, State};
use crate::base::clock::Timestamp;
use crate::record::store::adapter::{
    self, Bucket, Count, CountKey, CountedMessage, CountedRow, Counts, UsageChange, UsageChanges,
    UsageKey, host_of, in_order,
};
use crate::record::store::{
    EventSum, EventSums, RollupStep, Rollups, StoreError, UsageSum, UsageSums,
};

/// What is added up, and what waits for that.
#[derive(Debug, Default)]
pub(super) struct Sums {
    waiting: VecDeque<Waiting>,
    events: BTreeMap<(RollupStep, String, Timestamp), BTreeMap<CountKey, Count>>,
    /// Buckets of a step before this moment are gone.
    floors: HashMap<RollupStep, Timestamp>,
    messages: HashMap<(String, String), CountedMessage>,
    usage: BTreeMap<UsageKey, UsageChange>,
}

/// What one change of the store has to add.
#[derive(Debug, Default)]
struct Waiting {
    counts: Counts,
    /// Messages that were written, with their workspace.
    messages: (String, Vec<Uuid>),
}

impl Row {
    /// The row as it is counted now.
    pub(super) fn counted(&self) -> CountedRow {
        CountedRow {
            workspace: self.arrival.workspace.clone(),
            received_at: self.arrival.received_at,
            key: CountKey {
                event_type: self.arrival.event_type.clone(),
                status: self.status,
                error_code: self.error.as_ref().map(|(code, _)| code.clone()).unwrap_or_default(),
                host: host_of(&self.arrival.metadata),
            },
            bytes: self.arrival.body.len() as u64,
            latency_ms: Some(self.processing_time_ms),
        }
    }
}

impl Sums {
    /// A row was stored.
    pub(super) fn stored(&mut self, row: &Row) {
        let mut waiting = Waiting::default();
        waiting.counts.add(row.counted());
        self.waiting.push_back(waiting);
    }

    /// A row was counted as `before`, and has changed.
    pub(super) fn changed(&mut self, before: CountedRow, row: &Row) {
        let mut waiting = Waiting::default();
        waiting.counts.remove(before);
        waiting.counts.add(row.counted());
        self.waiting.push_back(waiting);
    }

    /// Messages were written.
    pub(super) fn wrote(&mut self, workspace: &str, messages: Vec<Uuid>) {
        if !messages.is_empty() {
            let messages = (workspace.to_owned(), messages);
            self.waiting.push_back(Waiting { messages, ..Waiting::default() });
        }
    }

    fn floor(&self, step: RollupStep) -> Timestamp {
        self.floors.get(&step).copied().unwrap_or_default()
    }

    fn add(&mut self, counts: &Counts) {
        for step in RollupStep::ALL {
            for bucket in counts.buckets(step, self.floor(step)) {
                let Bucket { workspace, at, .. } = &bucket;
                let rows = self.events.entry((step, workspace.clone(), *at)).or_default();
                let keys = bucket.keys().into_iter();
                let known = keys.filter_map(|key| Some((key.clone(), rows.get(&key)?.clone())));
                let known = known.collect();
                let count = rows.len();
                rows.extend(bucket.joined(known, count));
            }
        }
    }

    fn count(&mut self, messages: Vec<CountedMessage>) {
        let name = |one: &CountedMessage| (one.workspace.clone(), one.api_id.clone());
        let known = messages.iter().filter_map(|one| self.messages.get(&name(one))).cloned();
        let (messages, changes) = UsageChanges::of(known.collect(), messages);
        self.messages.extend(messages.into_iter().map(|one| (name(&one), one)));
        for (key, change) in changes.iter() {
            self.usage.entry(key.clone()).or_default().merge(change);
        }
        self.usage.retain(|_, sum| sum.messages > 0);
    }
}

impl State {
    fn fold(&mut self, limit: usize) -> usize {
        let mut folded = 0;
        while folded < limit
            && let Some(Waiting { counts, messages: (workspace, messages) }) =
                self.sums.waiting.pop_front()
        {
            self.sums.add(&counts);
            let messages = messages.iter().filter_map(|id| self.messages.get(id));
            let counted = messages.filter_map(|one| CountedMessage::of(&workspace, one.into()));
            let counted = counted.collect();
            self.sums.count(counted);
            folded += 1;
        }
        folded
    }
}

#[async_trait]
impl Rollups for MemoryStore {
    async fn fold(&self, limit: usize) -> Result<usize, StoreError> {
        Ok(self.state().fold(limit))
    }

    async fn forget_sums(&self, limit: usize) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let sums = &mut self.state().sums;
        for step in RollupStep::ALL {
            if let Some(kept) = step.kept() {
                let floor = step.bucket(now.minus(kept)).max(sums.floor(step));
                sums.floors.insert(step, floor);
            }
        }
        let is_old = |(step, _, at): &&(RollupStep, String, Timestamp)| *at < sums.floor(*step);
        let old: Vec<_> = sums.events.keys().filter(is_old).cloned().collect();
        let mut forgotten = 0;
        for place in old {
            if forgotten >= limit {
                break;
            }
            forgotten += sums.events.remove(&place).map_or(0, |rows| rows.len());
        }
        Ok(forgotten)
    }

    async fn event_sums(&self, query: EventSums) -> Result<Vec<EventSum>, StoreError> {
        let state = self.state();
        let from = (query.step, query.workspace.clone(), query.step.bucket(query.from));
        let to = (query.step, query.workspace.clone(), query.to.max(from.2));
        let buckets = state.sums.events.range(from..to);
        let rows = buckets
            .flat_map(|((.., at), rows)| rows.iter().map(move |(key, count)| (*at, key, count)));
        in_order(adapter::event_sums(&query, rows), EventSum::group)
    }

    async fn usage_sums(&self, query: UsageSums) -> Result<Vec<UsageSum>, StoreError> {
        let state = self.state();
        let from = query.first_bucket();
        let rows = state.sums.usage.iter().filter(|(key, _)| {
            key.workspace == query.workspace && (from..query.to).contains(&key.at)
        });
        in_order(adapter::usage_sums(&query, rows), UsageSum::group)
    }
}
