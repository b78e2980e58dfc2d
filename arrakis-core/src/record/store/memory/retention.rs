//! Pruning a store in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;
use uuid::Uuid;

use super::{MemoryStore, State, ledger_key};
use crate::base::clock::Timestamp;
use crate::record::store::{
    Cutoffs, Prunable, PruneKind, PrunePosition, PruneStep, Pruned, Retention, StoreError,
};

#[async_trait]
impl Retention for MemoryStore {
    async fn prune(
        &self,
        cutoffs: &Cutoffs,
        from: PrunePosition,
        limit: usize,
    ) -> Result<PruneStep, StoreError> {
        let (mut state, limit) = (self.state(), limit.max(1));
        Ok(match from {
            PrunePosition::Events(after) | PrunePosition::Part { after, .. } => {
                state.prune_events(cutoffs, after, limit)
            }
            PrunePosition::Conversations(after) => state.prune_conversation(cutoffs, after),
            PrunePosition::Ledger(after) => state.prune_ledger(cutoffs, after, limit),
            PrunePosition::Space => PruneStep { pruned: Pruned::default(), next: None },
        })
    }

    async fn prunable(&self, cutoffs: &Cutoffs) -> Result<Vec<Prunable>, StoreError> {
        let state = self.state();
        let mut found = BTreeMap::<(&str, PruneKind), Prunable>::new();
        let mut add = |workspace, kind, at: Option<Timestamp>, bytes: Option<u64>| {
            let new = || Prunable {
                workspace: String::from(workspace),
                kind,
                count: 0,
                oldest: at,
                bytes: bytes.map(|_| 0),
            };
            let one = found.entry((workspace, kind)).or_insert_with(new);
            one.count += 1;
            one.oldest = one.oldest.min(at);
            one.bytes = one.bytes.zip(bytes).map(|(sum, bytes)| sum + bytes);
        };
        for row in state.rows.values() {
            let (workspace, at) = (row.arrival.workspace.as_str(), row.arrival.received_at);
            if cutoffs.takes_event(workspace, row.status, at) {
                let bytes = row.arrival.body.len() as u64;
                add(workspace, PruneKind::Events, Some(at), Some(bytes));
            }
        }
        for one in state.conversations.values() {
            if cutoffs.takes_conversation(&one.workspace, one.last_event_at) {
                add(&one.workspace, PruneKind::Conversations, Some(one.last_event_at), None);
            }
        }
        for ((workspace, _), entry) in &state.ledger {
            // One whose audit row is settled goes with it: that is older than it need be.
            let row = state.rows.get(&entry.event_id);
            let goes = row.is_none_or(|row| row.status.is_settled());
            if goes && cutoffs.takes_entry(workspace, entry.event_id) {
                add(workspace, PruneKind::Ledger, None, None);
            }
        }
        Ok(found.into_values().collect())
    }
}

impl State {
    fn prune_events(&mut self, cutoffs: &Cutoffs, after: Uuid, limit: usize) -> PruneStep {
        let end = cutoffs.events_below().unwrap_or(Uuid::nil());
        let looked_at = self.rows.iter().skip_while(|(id, _)| **id <= after);
        let looked_at = looked_at.take_while(|(id, _)| **id < end).take(limit);
        let looked_at: Vec<(Uuid, bool)> = looked_at
            .map(|(id, row)| {
                let arrival = &row.arrival;
                let goes = cutoffs.takes_event(&arrival.workspace, row.status, arrival.received_at);
                (*id, goes)
            })
            .collect();
        let mut pruned = Pruned::default();
        for (id, _) in looked_at.iter().filter(|(_, goes)| *goes) {
            // The ledger is the only one to know its state from now on.
            if let Some(row) = self.rows.remove(id)
                && let Some(entry) = self.ledger.get_mut(&ledger_key(&row.arrival))
                && entry.event_id == *id
            {
                entry.status = row.status;
            }
            pruned.events += 1;
        }
        let last = looked_at.get(limit.saturating_sub(1)).map(|(id, _)| *id);
        let next = last.map_or(PrunePosition::Conversations(Uuid::nil()), PrunePosition::Events);
        PruneStep { pruned, next: Some(next) }
    }

    /// Prunes the next conversation that is old, whole.
    fn prune_conversation(&mut self, cutoffs: &Cutoffs, after: Uuid) -> PruneStep {
        let old = self.conversations.values().filter(|one| {
            one.id > after && cutoffs.takes_conversation(&one.workspace, one.last_event_at)
        });
        let Some(id) = old.map(|one| one.id).min() else {
            let next = Some(PrunePosition::Ledger(Uuid::nil()));
            return PruneStep { pruned: Pruned::default(), next };
        };
        let before = [self.messages.len(), self.tool_uses.len(), self.subagents.len()];
        self.conversations.remove(&id);
        self.messages.retain(|_, one| one.conversation_id != id);
        self.tool_uses.retain(|_, one| one.conversation_id != id);
        self.subagents.retain(|_, one| one.conversation_id != id);
        let pruned = Pruned {
            conversations: 1,
            messages: (before[0] - self.messages.len()) as u64,
            tool_uses: (before[1] - self.tool_uses.len()) as u64,
            subagents: (before[2] - self.subagents.len()) as u64,
            ..Pruned::default()
        };
        PruneStep { pruned, next: Some(PrunePosition::Conversations(id)) }
    }

    fn prune_ledger(&mut self, cutoffs: &Cutoffs, after: Uuid, limit: usize) -> PruneStep {
        let end = cutoffs.ledger_below().unwrap_or(Uuid::nil());
        let old = self.ledger.iter().filter(|(_, one)| one.event_id > after && one.event_id < end);
        let mut old: Vec<_> = old.map(|(key, one)| (one.event_id, key.clone())).collect();
        old.sort();
        old.truncate(limit);
        let mut pruned = Pruned::default();
        for (id, key) in &old {
            if !self.rows.contains_key(id) && cutoffs.takes_entry(&key.0, *id) {
                self.ledger.remove(key);
                pruned.ledger += 1;
            }
        }
        let last = old.get(limit.saturating_sub(1)).map(|(id, _)| *id);
        let next = last.map_or(PrunePosition::Space, PrunePosition::Ledger);
        PruneStep { pruned, next: Some(next) }
    }
}
