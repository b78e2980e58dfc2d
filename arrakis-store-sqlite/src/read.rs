//! Everything that only reads.

use std::collections::BTreeMap;

use arrakis_core::audit::EventStatus;
use arrakis_core::conversation::Conversation;
use arrakis_core::store::{
    ConversationDetail, ConversationSummary, EventDetail, EventFilter, EventKey, EventReader,
    EventSummary, Page, StoreError, Transition,
};
use async_trait::async_trait;
use diesel::dsl::count_star;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use diesel_async::RunQueryDsl;

use crate::SqliteStore;
use crate::error::{damaged, store_error};
use crate::row::{BodyRow, ConversationRow, EventRow, MessageRow, ToolUseRow};
use crate::schema::{
    conversations, event_transitions, messages, request_ids, tool_uses, webhook_events,
};

#[async_trait]
impl EventReader for SqliteStore {
    async fn event(&self, key: EventKey) -> Result<Option<EventDetail>, StoreError> {
        let failed = |error| store_error("read an event", error);
        let mut connection = self.readers.get().await?;
        let id = match key {
            EventKey::Id(id) => Some(id.to_string()),
            EventKey::Request(id) => {
                let first: Option<String> = request_ids::table
                    .find(id.as_str())
                    .select(request_ids::event_id)
                    .first(&mut connection)
                    .await
                    .optional()
                    .map_err(failed)?;
                match first {
                    Some(first) => Some(first),
                    // One that took no place in the ledger.
                    None => webhook_events::table
                        .filter(webhook_events::request_id.eq(id.as_str()))
                        .order(webhook_events::id)
                        .select(webhook_events::id)
                        .first(&mut connection)
                        .await
                        .optional()
                        .map_err(failed)?,
                }
            }
        };
        let Some(id) = id else { return Ok(None) };
        let row: Option<(EventRow, BodyRow)> = webhook_events::table
            .find(&id)
            .select((EventRow::as_select(), BodyRow::as_select()))
            .first(&mut connection)
            .await
            .optional()
            .map_err(failed)?;
        let Some((row, mut body)) = row else { return Ok(None) };
        let transitions: Vec<TransitionRow> = event_transitions::table
            .filter(event_transitions::event_id.eq(&id))
            .order(event_transitions::id)
            .select(TransitionRow::as_select())
            .load(&mut connection)
            .await
            .map_err(failed)?;
        Ok(Some(EventDetail {
            summary: row.into_summary()?,
            headers: body.headers()?,
            ip_address: body.ip_address.as_deref().and_then(|ip| ip.parse().ok()),
            body: body.body().map(Into::into),
            transitions: transitions
                .into_iter()
                .map(TransitionRow::read)
                .collect::<Result<_, _>>()?,
        }))
    }

    async fn events(
        &self,
        filter: EventFilter,
        page: Page,
    ) -> Result<Vec<EventSummary>, StoreError> {
        let mut query = webhook_events::table
            .select(EventRow::as_select())
            .order(webhook_events::id.desc())
            .limit(limit(page))
            .into_boxed::<Sqlite>();
        if let Some(after) = page.after {
            query = query.filter(webhook_events::id.lt(after.to_string()));
        }
        if let Some(workspace) = filter.workspace {
            query = query.filter(webhook_events::workspace.eq(workspace));
        }
        if let Some(status) = filter.status {
            query = query.filter(webhook_events::status.eq(status.as_str()));
        }
        if let Some(event_type) = filter.event_type {
            query = query.filter(webhook_events::event_type.eq(event_type));
        }
        if let Some(session_id) = filter.session_id {
            query = query.filter(webhook_events::session_id.eq(session_id));
        }
        if let Some(request_id) = filter.request_id {
            query = query.filter(webhook_events::request_id.eq(request_id.to_string()));
        }
        let mut connection = self.readers.get().await?;
        let rows: Vec<EventRow> =
            query.load(&mut connection).await.map_err(|error| store_error("list events", error))?;
        rows.into_iter().map(EventRow::into_summary).collect()
    }

    async fn conversation(
        &self,
        workspace: &str,
        key: &str,
    ) -> Result<Option<ConversationDetail>, StoreError> {
        let failed = |error| store_error("read a conversation", error);
        let mut connection = self.readers.get().await?;
        let row: Option<ConversationRow> = conversations::table
            .filter(conversations::workspace.eq(workspace))
            .filter(conversations::session_id.eq(key).or(conversations::id.eq(key)))
            .select(ConversationRow::as_select())
            .first(&mut connection)
            .await
            .optional()
            .map_err(failed)?;
        let Some(row) = row else { return Ok(None) };
        let id = row.id.clone();
        let conversation = row.into_conversation()?;

        let rows: Vec<MessageRow> = messages::table
            .filter(messages::conversation_id.eq(&id))
            .select(MessageRow::as_select())
            .load(&mut connection)
            .await
            .map_err(failed)?;
        let mut messages =
            rows.into_iter().map(MessageRow::into_message).collect::<Result<Vec<_>, _>>()?;
        messages.sort_by(|a, b| (&a.content.stamp, a.id).cmp(&(&b.content.stamp, b.id)));

        let rows: Vec<ToolUseRow> = tool_uses::table
            .filter(tool_uses::conversation_id.eq(&id))
            .select(ToolUseRow::as_select())
            .load(&mut connection)
            .await
            .map_err(failed)?;
        let mut tool_uses =
            rows.into_iter().map(ToolUseRow::into_tool_use).collect::<Result<Vec<_>, _>>()?;
        tool_uses.sort_by(|a, b| (&a.first, a.id).cmp(&(&b.first, b.id)));

        let rows: Vec<EventRow> = webhook_events::table
            .filter(webhook_events::conversation_id.eq(&id))
            .filter(webhook_events::status.ne(EventStatus::Duplicate.as_str()))
            .order(webhook_events::id)
            .select(EventRow::as_select())
            .load(&mut connection)
            .await
            .map_err(failed)?;
        let events = rows.into_iter().map(EventRow::into_summary).collect::<Result<_, _>>()?;
        Ok(Some(ConversationDetail { conversation, messages, tool_uses, events }))
    }

    async fn conversations(
        &self,
        workspace: &str,
        page: Page,
    ) -> Result<Vec<ConversationSummary>, StoreError> {
        let failed = |error| store_error("list conversations", error);
        let mut connection = self.readers.get().await?;
        let mut query = conversations::table
            .filter(conversations::workspace.eq(workspace))
            .select(ConversationRow::as_select())
            .order((conversations::last_event_at.desc(), conversations::id.desc()))
            .limit(limit(page))
            .into_boxed::<Sqlite>();
        if let Some(after) = page.after {
            let after = after.to_string();
            let last: Option<String> = conversations::table
                .find(&after)
                .select(conversations::last_event_at)
                .first(&mut connection)
                .await
                .optional()
                .map_err(failed)?;
            let Some(last) = last else { return Ok(Vec::new()) };
            let older = conversations::last_event_at.lt(last.clone());
            let same = conversations::last_event_at.eq(last).and(conversations::id.lt(after));
            query = query.filter(older.or(same));
        }
        let rows: Vec<ConversationRow> = query.load(&mut connection).await.map_err(failed)?;
        let mut summaries = Vec::new();
        for row in rows {
            let id = row.id.clone();
            let messages: i64 = messages::table
                .filter(messages::conversation_id.eq(&id))
                .count()
                .get_result(&mut connection)
                .await
                .map_err(failed)?;
            let tool_uses: i64 = tool_uses::table
                .filter(tool_uses::conversation_id.eq(&id))
                .count()
                .get_result(&mut connection)
                .await
                .map_err(failed)?;
            summaries.push(summary(row.into_conversation()?, messages, tool_uses));
        }
        Ok(summaries)
    }

    async fn counts(&self) -> Result<BTreeMap<EventStatus, u64>, StoreError> {
        let mut connection = self.readers.get().await?;
        let rows: Vec<(String, i64)> = webhook_events::table
            .group_by(webhook_events::status)
            .select((webhook_events::status, count_star()))
            .load(&mut connection)
            .await
            .map_err(|error| store_error("count events", error))?;
        let read = |(status, count): (String, i64)| {
            let status = status.parse().map_err(|error| damaged("the count of events", error))?;
            Ok((status, count.unsigned_abs()))
        };
        rows.into_iter().map(read).collect()
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = event_transitions)]
struct TransitionRow {
    from_status: String,
    to_status: String,
    actor: String,
    reason: String,
    created_at: String,
}

impl TransitionRow {
    fn read(self) -> Result<Transition, StoreError> {
        let read = || -> Result<Transition, arrakis_core::error::BoxError> {
            Ok(Transition {
                from: self.from_status.parse()?,
                to: self.to_status.parse()?,
                at: self.created_at.parse()?,
                actor: self.actor,
                reason: self.reason,
            })
        };
        read().map_err(|error| damaged("the trail of an event", error))
    }
}

fn summary(conversation: Conversation, messages: i64, tool_uses: i64) -> ConversationSummary {
    ConversationSummary {
        conversation,
        messages: messages.unsigned_abs(),
        tool_uses: tool_uses.unsigned_abs(),
    }
}

fn limit(page: Page) -> i64 {
    i64::try_from(page.limit).unwrap_or(i64::MAX)
}
