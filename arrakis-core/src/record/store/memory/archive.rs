//! The archive of a store in memory.

use async_trait::async_trait;

use super::{MemoryStore, Row, ledger_key};
use crate::base::id::conversation_id;
use crate::record::audit::EventStatus;
use crate::record::store::{Archive, Arrival, ArrivalFilter, Page, StoreError, page_length};
use crate::session::conversation::{AnswerIds, Changes};

#[async_trait]
impl Archive for MemoryStore {
    async fn arrivals(
        &self,
        filter: ArrivalFilter,
        page: Page,
    ) -> Result<Vec<Arrival>, StoreError> {
        let state = self.state();
        let wanted = |row: &&Row| {
            row.status != EventStatus::Duplicate
                && row.arrival.workspace == filter.workspace
                && filter.session_id.is_none() | (filter.session_id == row.arrival.session_id)
                && filter.event_type.as_ref().is_none_or(|kind| *kind == row.arrival.event_type)
                && filter.status.is_none_or(|status| status == row.status)
                && filter
                    .in_conversation
                    .is_none_or(|belongs| belongs == row.answer.conversation_id.is_some())
        };
        let rows = state.rows.iter().filter(|(id, _)| page.after.is_none_or(|after| **id > after));
        let mut rows: Vec<&Row> =
            rows.map(|(_, row)| row).filter(wanted).take(page.limit).collect();
        rows.truncate(page_length(rows.iter().map(|row| row.arrival.body.len() as u64)));
        let arrival = |row: &Row| {
            let mut arrival = row.arrival.clone();
            let taken = state.ledger.get(&ledger_key(&arrival));
            arrival.in_ledger = taken.is_some_and(|taken| taken.event_id == arrival.event_id);
            arrival
        };
        Ok(rows.into_iter().map(arrival).collect())
    }

    async fn values(
        &self,
        workspace: &str,
        session_id: &str,
    ) -> Result<Option<Changes>, StoreError> {
        let id = conversation_id(workspace, session_id);
        let state = self.state();
        let Some(conversation) = state.conversations.get(&id).cloned() else { return Ok(None) };
        let messages = state.messages.values().filter(|one| one.conversation_id == id);
        let tool_uses = state.tool_uses.values().filter(|one| one.conversation_id == id);
        let subagents = state.subagents.values().filter(|one| one.conversation_id == id);
        Ok(Some(Changes {
            conversations: vec![conversation],
            messages: messages.cloned().collect(),
            tool_uses: tool_uses.cloned().collect(),
            subagents: subagents.cloned().collect(),
            answer: AnswerIds::default(),
        }))
    }
}
