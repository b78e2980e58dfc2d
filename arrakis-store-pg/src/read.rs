//! Reading: what details and the dashboard show. Lists are in `list.rs`.

use std::collections::BTreeMap;

use arrakis_core::base::id::{self, RequestId};
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::{
    ConversationDetail, EventDetail, EventKey, EventSummary, Transition,
};
use diesel::dsl::count_star;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::messages;
use crate::row::{
    ConversationRow, DetailRow, State, SubagentRow, SummaryRow, ToolUseRow, TransitionRow, shown,
};
use crate::schema::{
    conversations, event_transitions, request_ids, subagents, tool_uses, webhook_events,
};

/// One audit row of a workspace, whole.
pub(crate) async fn event(
    conn: &mut AsyncPgConnection,
    workspace: &str,
    key: &EventKey,
) -> QueryResult<Option<EventDetail>> {
    let id = match key {
        EventKey::Id(id) => Some(*id),
        EventKey::Request(request) => first_of(conn, workspace, request).await?,
    };
    let Some(id) = id else { return Ok(None) };
    let row: Option<DetailRow> = webhook_events::table
        .find(id)
        .filter(webhook_events::workspace.eq(shown(workspace)))
        .select(DetailRow::as_select())
        .get_result(conn)
        .await
        .optional()?;
    let Some(row) = row else { return Ok(None) };
    let transitions = transitions(conn, id).await?;
    row.into_detail(transitions).map(Some)
}

/// The row that the ledger names; for a request id that is still free, the earliest row.
async fn first_of(
    conn: &mut AsyncPgConnection,
    workspace: &str,
    request: &RequestId,
) -> QueryResult<Option<Uuid>> {
    let admitted = request_ids::table
        .find((shown(workspace), request.as_str()))
        .select(request_ids::event_id)
        .get_result(conn)
        .await
        .optional()?;
    if admitted.is_some() {
        return Ok(admitted);
    }
    webhook_events::table
        .filter(webhook_events::workspace.eq(shown(workspace)))
        .filter(webhook_events::request_id.eq(request.as_str()))
        .order(webhook_events::id.asc())
        .select(webhook_events::id)
        .first(conn)
        .await
        .optional()
}

/// Every change of a row's state, oldest first.
pub(crate) async fn transitions(
    conn: &mut AsyncPgConnection,
    id: Uuid,
) -> QueryResult<Vec<Transition>> {
    let rows: Vec<TransitionRow> = event_transitions::table
        .filter(event_transitions::event_id.eq(id))
        .order(event_transitions::id.asc())
        .select(TransitionRow::as_select())
        .load(conn)
        .await?;
    Ok(rows.into_iter().map(Transition::from).collect())
}

/// One conversation, whole, by its session id or its own.
pub(crate) async fn conversation(
    conn: &mut AsyncPgConnection,
    workspace: &str,
    key: &str,
) -> QueryResult<Option<ConversationDetail>> {
    // The id follows from the session, so one look by id serves both keys.
    let ids = [Some(id::conversation_id(workspace, key)), key.parse::<Uuid>().ok()];
    let row: Option<ConversationRow> = conversations::table
        .filter(conversations::id.eq_any(ids.into_iter().flatten().collect::<Vec<_>>()))
        .filter(conversations::workspace.eq(shown(workspace)))
        .select(ConversationRow::as_select())
        .first(conn)
        .await
        .optional()?;
    let Some(row) = row else { return Ok(None) };
    let conversation = row.into_value()?;
    let events = timeline(conn, conversation.id, &conversation.session_id).await?;
    let messages = messages::of_conversation(conn, conversation.id).await?;
    let tool_uses: Vec<ToolUseRow> = tool_uses::table
        .filter(tool_uses::conversation_id.eq(conversation.id))
        .select(ToolUseRow::as_select())
        .load(conn)
        .await?;
    let subagents: Vec<SubagentRow> = subagents::table
        .filter(subagents::conversation_id.eq(conversation.id))
        .select(SubagentRow::as_select())
        .load(conn)
        .await?;
    Ok(Some(ConversationDetail::new(
        conversation,
        messages,
        tool_uses.into_iter().map(ToolUseRow::into_value).collect::<QueryResult<_>>()?,
        subagents.into_iter().map(SubagentRow::into_value).collect(),
        events,
    )))
}

/// The audit rows of a conversation, oldest first, duplicates left out. The session finds them.
async fn timeline(
    conn: &mut AsyncPgConnection,
    conversation_id: Uuid,
    session_id: &str,
) -> QueryResult<Vec<EventSummary>> {
    let rows: Vec<SummaryRow> = webhook_events::table
        .filter(webhook_events::session_id.eq(shown(session_id)))
        .filter(webhook_events::conversation_id.eq(conversation_id))
        .filter(webhook_events::status.ne(State(EventStatus::Duplicate)))
        .order(webhook_events::id.asc())
        .select(SummaryRow::as_select())
        .load(conn)
        .await?;
    rows.into_iter().map(EventSummary::try_from).collect()
}

/// How many audit rows are in each state.
pub(crate) async fn counts(
    conn: &mut AsyncPgConnection,
) -> QueryResult<BTreeMap<EventStatus, u64>> {
    let counts: Vec<(State, i64)> = webhook_events::table
        .group_by(webhook_events::status)
        .select((webhook_events::status, count_star()))
        .load(conn)
        .await?;
    Ok(counts.into_iter().map(|(state, count)| (state.0, count.unsigned_abs())).collect())
}
