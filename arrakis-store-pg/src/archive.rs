//! Reading everything back, to keep it elsewhere.

use std::collections::HashSet;

use arrakis_core::base::id::conversation_id;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::{Arrival, ArrivalFilter, Page, page_length};
use arrakis_core::session::conversation::{AnswerIds, Changes};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{BigInt, Bool};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::list::limit;
use crate::messages;
use crate::row::{ArrivalRow, ConversationRow, State, SubagentRow, ToolUseRow, shown};
use crate::schema::{conversations, request_ids, subagents, tool_uses, webhook_events};

/// What arrived, oldest first, duplicates left out.
pub(crate) async fn arrivals(
    conn: &mut AsyncPgConnection,
    filter: &ArrivalFilter,
    page: Page,
) -> QueryResult<Vec<Arrival>> {
    use webhook_events::{conversation_id, event_type, id, session_id, status, table, workspace};
    // The size as it is stored: to know it no body is read.
    let size = "coalesce(pg_column_size(raw_body), pg_column_size(request_body), 0)::bigint";
    let mut query = table
        .filter(workspace.eq(shown(&filter.workspace)))
        .filter(status.ne(State(EventStatus::Duplicate)))
        .select((id, sql::<BigInt>(size)))
        .into_boxed();
    if let Some(value) = &filter.session_id {
        query = query.filter(session_id.eq(shown(value)));
    }
    if let Some(value) = &filter.event_type {
        query = query.filter(event_type.eq(shown(value)));
    }
    if let Some(value) = filter.status {
        // A literal, because a partial index serves only what the planner can prove to be inside it.
        query = query.filter(sql::<Bool>(&format!("status = '{value}'")));
    }
    match filter.in_conversation {
        Some(true) => query = query.filter(conversation_id.is_not_null()),
        Some(false) => query = query.filter(conversation_id.is_null()),
        None => {}
    }
    if let Some(after) = page.after {
        query = query.filter(id.gt(after));
    }
    let found: Vec<(Uuid, i64)> = query.order(id.asc()).limit(limit(page)).load(conn).await?;
    let length = page_length(found.iter().map(|(_, bytes)| bytes.unsigned_abs()));
    let ids: Vec<Uuid> = found.into_iter().take(length).map(|(found, _)| found).collect();
    let rows: Vec<ArrivalRow> = table
        .filter(id.eq_any(&ids))
        .order(id.asc())
        .select(ArrivalRow::as_select())
        .load(conn)
        .await?;
    let requests: Vec<&str> = rows.iter().map(|row| row.request_id.as_str()).collect();
    let taken: Vec<Uuid> = request_ids::table
        .filter(request_ids::workspace.eq(shown(&filter.workspace)))
        .filter(request_ids::request_id.eq_any(requests))
        .select(request_ids::event_id)
        .load(conn)
        .await?;
    let taken: HashSet<Uuid> = taken.into_iter().collect();
    let arrival = |row: ArrivalRow| {
        let in_ledger = taken.contains(&row.id);
        row.into_arrival(in_ledger)
    };
    rows.into_iter().map(arrival).collect()
}

/// What is stored of a conversation.
pub(crate) async fn values(
    conn: &mut AsyncPgConnection,
    workspace: &str,
    session_id: &str,
) -> QueryResult<Option<Changes>> {
    let id = conversation_id(workspace, session_id);
    let row: Option<ConversationRow> = conversations::table
        .find(id)
        .select(ConversationRow::as_select())
        .first(conn)
        .await
        .optional()?;
    let Some(row) = row else { return Ok(None) };
    let tool_uses: Vec<ToolUseRow> = tool_uses::table
        .filter(tool_uses::conversation_id.eq(id))
        .select(ToolUseRow::as_select())
        .load(conn)
        .await?;
    let subagents: Vec<SubagentRow> = subagents::table
        .filter(subagents::conversation_id.eq(id))
        .select(SubagentRow::as_select())
        .load(conn)
        .await?;
    Ok(Some(Changes {
        conversations: vec![row.into_value()?],
        messages: messages::of_conversation(conn, id).await?,
        tool_uses: tool_uses.into_iter().map(ToolUseRow::into_value).collect::<QueryResult<_>>()?,
        subagents: subagents.into_iter().map(SubagentRow::into_value).collect(),
        answer: AnswerIds::default(),
    }))
}
