//! Reading everything back, to keep it elsewhere.

use std::collections::HashSet;

use arrakis_core::base::id::conversation_id;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::{Arrival, ArrivalFilter, Page, page_length};
use arrakis_core::session::conversation::{AnswerIds, Changes};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::BigInt;

use crate::list::limit;
use crate::messages;
use crate::row::{ArrivalRow, ConversationRow, SubagentRow, ToolUseRow};
use crate::schema::{conversations, request_ids, subagents, tool_uses, webhook_events};

/// What arrived, oldest first, duplicates left out.
pub(crate) fn arrivals(
    conn: &mut SqliteConnection,
    filter: &ArrivalFilter,
    page: Page,
) -> QueryResult<Vec<Arrival>> {
    use webhook_events::{conversation_id, event_type, id, session_id, status, table, workspace};
    let size = "coalesce(octet_length(raw_body), octet_length(request_body), 0)";
    let mut query = table
        .filter(workspace.eq(&filter.workspace))
        .filter(status.ne(EventStatus::Duplicate.as_str()))
        .select((id, sql::<BigInt>(size)))
        .into_boxed();
    if let Some(value) = &filter.session_id {
        query = query.filter(session_id.eq(value));
    }
    if let Some(value) = &filter.event_type {
        query = query.filter(event_type.eq(value));
    }
    if let Some(value) = filter.status {
        query = query.filter(status.eq(value.as_str()));
    }
    match filter.in_conversation {
        Some(true) => query = query.filter(conversation_id.is_not_null()),
        Some(false) => query = query.filter(conversation_id.is_null()),
        None => {}
    }
    if let Some(after) = page.after {
        query = query.filter(id.gt(after.to_string()));
    }
    let found: Vec<(String, i64)> = query.order(id.asc()).limit(limit(page)).load(conn)?;
    let length = page_length(found.iter().map(|(_, bytes)| bytes.unsigned_abs()));
    let ids: Vec<String> = found.into_iter().take(length).map(|(found, _)| found).collect();
    let rows: Vec<ArrivalRow> =
        table.filter(id.eq_any(&ids)).order(id.asc()).select(ArrivalRow::as_select()).load(conn)?;
    let requests = rows.iter().map(|row| row.request_id.as_str());
    let taken: HashSet<String> = request_ids::table
        .filter(request_ids::workspace.eq(&filter.workspace))
        .filter(request_ids::request_id.eq_any(requests))
        .select(request_ids::event_id)
        .load(conn)?
        .into_iter()
        .collect();
    let arrival = |row: ArrivalRow| {
        let in_ledger = taken.contains(&row.id);
        row.into_arrival(in_ledger)
    };
    rows.into_iter().map(arrival).collect()
}

/// What is stored of a conversation.
pub(crate) fn values(
    conn: &mut SqliteConnection,
    workspace: &str,
    session_id: &str,
) -> QueryResult<Option<Changes>> {
    let id = conversation_id(workspace, session_id).to_string();
    let row = conversations::table
        .find(&id)
        .select(ConversationRow::as_select())
        .get_result(conn)
        .optional()?;
    let Some(row) = row else { return Ok(None) };
    let tool_uses: Vec<ToolUseRow<'_>> = tool_uses::table
        .filter(tool_uses::conversation_id.eq(&id))
        .select(ToolUseRow::as_select())
        .load(conn)?;
    let subagents: Vec<SubagentRow<'_>> = subagents::table
        .filter(subagents::conversation_id.eq(&id))
        .select(SubagentRow::as_select())
        .load(conn)?;
    Ok(Some(Changes {
        conversations: vec![row.into_value()?],
        messages: messages::of_conversation(conn, &id)?,
        tool_uses: tool_uses.into_iter().map(ToolUseRow::into_value).collect::<QueryResult<_>>()?,
        subagents: subagents
            .into_iter()
            .map(SubagentRow::into_value)
            .collect::<QueryResult<_>>()?,
        answer: AnswerIds::default(),
    }))
}
