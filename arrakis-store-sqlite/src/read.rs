//! Reading: what lists, details and the dashboard show.
//!
//! Audit rows are listed in the order of their ids, which is the order of receipt, so a cursor is an
//! id and needs no row to still exist.

use std::collections::{BTreeMap, HashMap};

use arrakis_core::base::id::{RequestId, conversation_id};
use arrakis_core::base::limits::PAGE_MAX;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::{
    ConversationDetail, ConversationSummary, EventDetail, EventFilter, EventKey, EventSummary,
    Page, Transition,
};
use arrakis_core::session::conversation::{MessageCounts, TwoSides};
use diesel::dsl::{count_star, sql};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{BigInt, Bool};
use uuid::Uuid;

use crate::messages;
use crate::row::{
    ConversationRow, DetailRow, SubagentRow, SummaryRow, ToolUseRow, TransitionRow, parse,
};
use crate::schema::{
    conversations, event_transitions, message_rows, request_ids, subagents, tool_uses,
    webhook_events,
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

/// Audit rows, newest first.
pub(crate) fn events(
    conn: &mut SqliteConnection,
    filter: &EventFilter,
    page: Page,
) -> QueryResult<Vec<EventSummary>> {
    use webhook_events::{event_type, id, request_id, session_id, status, table, workspace};
    let mut query = table.select(SummaryRow::as_select()).into_boxed();
    if let Some(value) = &filter.workspace {
        query = query.filter(workspace.eq(value));
    }
    if let Some(value) = filter.status {
        query = query.filter(status.eq(value.as_str()));
        if value != EventStatus::Success {
            // Nearly all rows succeed, and the index on states leaves these out.
            query = query.filter(sql::<Bool>("status <> 'SUCCESS'"));
        }
    }
    if let Some(value) = &filter.event_type {
        query = query.filter(event_type.eq(value));
    }
    if let Some(value) = &filter.session_id {
        query = query.filter(session_id.eq(value));
    }
    if let Some(value) = &filter.request_id {
        query = query.filter(request_id.eq(value.as_str()));
    }
    if let Some(after) = page.after {
        query = query.filter(id.lt(after.to_string()));
    }
    let rows = query.order(id.desc()).limit(limit(page)).load(conn)?;
    rows.into_iter().map(EventSummary::try_from).collect()
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

/// Conversations, those of the latest events first.
pub(crate) fn conversations(
    conn: &mut SqliteConnection,
    workspace: &str,
    page: Page,
) -> QueryResult<Vec<ConversationSummary>> {
    use conversations::{id, last_event_at, table};
    let mut query = table
        .filter(conversations::workspace.eq(workspace))
        .select(ConversationRow::as_select())
        .into_boxed();
    if let Some(after) = page.after {
        let after = after.to_string();
        let seen = table
            .find(&after)
            .filter(conversations::workspace.eq(workspace))
            .select(last_event_at)
            .get_result::<String>(conn)
            .optional()?;
        let Some(seen) = seen else { return Ok(Vec::new()) };
        query = query
            .filter(last_event_at.lt(seen.clone()).or(last_event_at.eq(seen).and(id.lt(after))));
    }
    let rows = query.order((last_event_at.desc(), id.desc())).limit(limit(page)).load(conn)?;
    let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
    let messages = count_messages(conn, &ids)?;
    let tool_uses = count_tool_uses(conn, &ids)?;
    let summary = |row: ConversationRow<'_>| {
        let (messages, from_transcript) = messages.get(&row.id).copied().unwrap_or_default();
        let (tool_uses, sides) = tool_uses.get(&row.id).copied().unwrap_or_default();
        let sides = TwoSides { transcript_messages: from_transcript, ..sides };
        Ok(ConversationSummary { messages, tool_uses, sides, conversation: row.into_value()? })
    };
    rows.into_iter().map(summary).collect()
}

/// Messages by where they come from, as [`MessageCounts`] has them.
const LINES: &str = "count(*) FILTER (WHERE metadata ->> 'origin' IN ('transcript', 'queued'))";
const HOOKS: &str =
    "count(*) FILTER (WHERE metadata ->> 'origin' IN ('prompt', 'stop', 'failure'))";
const WAITING: &str = "count(*) FILTER (WHERE metadata ->> 'origin' = 'enqueued')";

/// How many messages each conversation has, and how many of them are from transcripts.
fn count_messages(
    conn: &mut SqliteConnection,
    ids: &[String],
) -> QueryResult<HashMap<String, (u64, u64)>> {
    let counts = message_rows::table
        .filter(message_rows::conversation_id.eq_any(ids))
        .group_by(message_rows::conversation_id)
        .select((
            message_rows::conversation_id,
            sql::<BigInt>(LINES),
            sql::<BigInt>(HOOKS),
            sql::<BigInt>(WAITING),
        ))
        .load::<(String, i64, i64, i64)>(conn)?;
    let count = |(id, lines, hooks, waiting): (String, i64, i64, i64)| {
        let [lines, hooks, waiting] = [lines, hooks, waiting].map(i64::unsigned_abs);
        (id, (MessageCounts { lines, hooks, waiting }.shown(), lines))
    };
    Ok(counts.into_iter().map(count).collect())
}

/// How many tool uses each conversation has, and how many of them only one side has told of.
fn count_tool_uses(
    conn: &mut SqliteConnection,
    ids: &[String],
) -> QueryResult<HashMap<String, (u64, TwoSides)>> {
    let no_hook = "count(*) FILTER (WHERE metadata ->> '$.seen.hook' = 0)";
    let no_transcript = "count(*) FILTER (WHERE (metadata ->> '$.seen.transcript') IS NOT 1)";
    let counts = tool_uses::table
        .filter(tool_uses::conversation_id.eq_any(ids))
        .group_by(tool_uses::conversation_id)
        .select((
            tool_uses::conversation_id,
            count_star(),
            sql::<BigInt>(no_hook),
            sql::<BigInt>(no_transcript),
        ))
        .load::<(String, i64, i64, i64)>(conn)?;
    let count = |(id, all, no_hook, no_transcript): (String, i64, i64, i64)| {
        let sides = TwoSides {
            transcript_messages: 0,
            tool_uses_without_hook: no_hook.unsigned_abs(),
            tool_uses_without_transcript: no_transcript.unsigned_abs(),
        };
        (id, (all.unsigned_abs(), sides))
    };
    Ok(counts.into_iter().map(count).collect())
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

pub(crate) fn limit(page: Page) -> i64 {
    i64::try_from(page.limit.min(PAGE_MAX)).unwrap_or(i64::MAX)
}
