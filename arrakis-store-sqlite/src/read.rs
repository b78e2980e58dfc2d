//! Reading: what details and the dashboard show. Lists are in `list.rs`.

use std::collections::BTreeMap;

use arrakis_core::base::id::{RequestId, conversation_id};
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::{
    ConversationDetail, EventDetail, EventKey, EventSummary, Transition,
};
use diesel::dsl::{count_star, sql};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::Bool;
use uuid::Uuid;

use crate::messages;
use crate::row::{
    ConversationRow, DetailRow, SubagentRow, SummaryRow, ToolUseRow, TransitionRow, parse,
};
use crate::schema::{
    conversations, event_transitions, request_ids, subagents, tool_uses, webhook_events,
};

/// One audit row of a workspace, whole.
pub(crate) fn event(
    conn: &mut SqliteConnection,
    workspace: &str,
    key: &EventKey,
) -> QueryResult<Option<EventDetail>> {
    let id = match key {
        EventKey::Id(id) => Some(id.to_string()),
        EventKey::Request(request) => first_of(conn, workspace, request)?,
    };
    let Some(id) = id else { return Ok(None) };
    let row = webhook_events::table
        .find(id)
        .filter(webhook_events::workspace.eq(workspace))
        .select(DetailRow::as_select())
        .get_result(conn)
        .optional()?;
    let Some(row) = row else { return Ok(None) };
    let transitions = transitions(conn, row.id())?;
    row.into_detail(transitions).map(Some)
}

/// The row that the ledger names; for a request id that is still free, the earliest row.
fn first_of(
    conn: &mut SqliteConnection,
    workspace: &str,
    request: &RequestId,
) -> QueryResult<Option<String>> {
    let admitted = request_ids::table
        .find((workspace, request.as_str()))
        .select(request_ids::event_id)
        .get_result(conn)
        .optional()?;
    if admitted.is_some() {
        return Ok(admitted);
    }
    webhook_events::table
        .filter(webhook_events::workspace.eq(workspace))
        .filter(webhook_events::request_id.eq(request.as_str()))
        .order(webhook_events::id.asc())
        .select(webhook_events::id)
        .first(conn)
        .optional()
}

/// Every change of a row's state, oldest first.
pub(crate) fn transitions(conn: &mut SqliteConnection, id: &str) -> QueryResult<Vec<Transition>> {
    let rows = event_transitions::table
        .filter(event_transitions::event_id.eq(id))
        .order(event_transitions::id.asc())
        .select(TransitionRow::as_select())
        .load(conn)?;
    rows.into_iter().map(Transition::try_from).collect()
}

/// One conversation, whole, by its session id or its own.
pub(crate) fn conversation(
    conn: &mut SqliteConnection,
    workspace: &str,
    key: &str,
) -> QueryResult<Option<ConversationDetail>> {
    let mine = || {
        conversations::table
            .filter(conversations::workspace.eq(workspace.to_owned()))
            .select(ConversationRow::as_select())
    };
    let of_session = conversation_id(workspace, key).to_string();
    let mut row = mine().filter(conversations::id.eq(of_session)).get_result(conn).optional()?;
    if let (None, Ok(id)) = (&row, key.parse::<Uuid>()) {
        row = mine().filter(conversations::id.eq(id.to_string())).get_result(conn).optional()?;
    }
    let Some(row) = row else { return Ok(None) };
    let id = row.id.clone();
    let conversation = row.into_value()?;
    let events = timeline(conn, &id, &conversation.session_id)?;
    let messages = messages::of_conversation(conn, &id)?;
    let tool_uses = tool_uses::table
        .filter(tool_uses::conversation_id.eq(&id))
        .select(ToolUseRow::as_select())
        .load(conn)?;
    let subagents = subagents::table
        .filter(subagents::conversation_id.eq(&id))
        .select(SubagentRow::as_select())
        .load(conn)?;
    Ok(Some(ConversationDetail::new(
        conversation,
        messages,
        tool_uses.into_iter().map(ToolUseRow::into_value).collect::<QueryResult<_>>()?,
        subagents.into_iter().map(SubagentRow::into_value).collect::<QueryResult<_>>()?,
        events,
    )))
}

/// The audit rows of a conversation, oldest first, duplicates left out. The session finds them.
fn timeline(
    conn: &mut SqliteConnection,
    conversation_id: &str,
    session_id: &str,
) -> QueryResult<Vec<EventSummary>> {
    let rows = webhook_events::table
        .filter(webhook_events::session_id.eq(session_id))
        .filter(webhook_events::conversation_id.eq(conversation_id))
        .filter(webhook_events::status.ne(EventStatus::Duplicate.as_str()))
        .order(webhook_events::id.asc())
        .select(SummaryRow::as_select())
        .load(conn)?;
    rows.into_iter().map(EventSummary::try_from).collect()
}

/// How many audit rows are in each state.
pub(crate) fn counts(conn: &mut SqliteConnection) -> QueryResult<BTreeMap<EventStatus, u64>> {
    let others = webhook_events::table
        .filter(sql::<Bool>("status <> 'SUCCESS'"))
        .group_by(webhook_events::status)
        .select((webhook_events::status, count_star()))
        .load::<(String, i64)>(conn)?;
    let all: i64 = webhook_events::table.count().get_result(conn)?;
    let succeeded = all - others.iter().map(|(_, count)| count).sum::<i64>();
    let count =
        |(status, count): (String, i64)| Ok((parse("status", &status)?, count.unsigned_abs()));
    let mut counts: BTreeMap<_, _> = others.into_iter().map(count).collect::<QueryResult<_>>()?;
    if succeeded > 0 {
        counts.insert(EventStatus::Success, succeeded.unsigned_abs());
    }
    Ok(counts)
}
