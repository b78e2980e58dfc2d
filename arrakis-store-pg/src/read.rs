//! Reading: what lists, details and the dashboard show.
//!
//! Audit rows are listed in the order of their ids, which is the order of receipt, so a cursor is an
//! id and needs no row to still exist.

use std::collections::{BTreeMap, HashMap};

use arrakis_core::base::id::{self, RequestId};
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
use diesel::sql_types::{BigInt, Bool, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::messages;
use crate::row::{
    At, ConversationRow, DetailRow, State, SubagentRow, SummaryRow, ToolUseRow, TransitionRow,
    shown,
};
use crate::schema::{
    conversations, event_transitions, message_rows, request_ids, subagents, tool_uses,
    webhook_events,
};
use crate::search;

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

/// Audit rows, newest first.
pub(crate) async fn events(
    conn: &mut AsyncPgConnection,
    filter: &EventFilter,
    page: Page,
) -> QueryResult<Vec<EventSummary>> {
    use webhook_events::{event_type, id, request_id, session_id, table, workspace};
    let mut query = table.select(SummaryRow::as_select()).into_boxed();
    if let Some(value) = &filter.workspace {
        query = query.filter(workspace.eq(shown(value)));
    }
    if let Some(value) = filter.status {
        // A literal, because a partial index serves only what the planner can prove to be inside it.
        query = query.filter(sql::<Bool>(&format!("status = '{value}'")));
    }
    if let Some(value) = &filter.event_type {
        query = query.filter(event_type.eq(shown(value)));
    }
    if let Some(value) = &filter.session_id {
        query = query.filter(session_id.eq(shown(value)));
    }
    if let Some(value) = &filter.request_id {
        query = query.filter(request_id.eq(value.as_str()));
    }
    if let Some(text) = &filter.text {
        let Some(condition) = search::condition(text) else { return Ok(Vec::new()) };
        let found = "webhook_events.id IN (SELECT event_id FROM event_search WHERE words @@ ";
        query = query.filter(sql::<Bool>(found).bind::<Text, _>(condition).sql("::tsquery)"));
    }
    if let Some(after) = page.after {
        query = query.filter(id.lt(after));
    }
    let rows: Vec<SummaryRow> = query.order(id.desc()).limit(limit(page)).load(conn).await?;
    rows.into_iter().map(EventSummary::try_from).collect()
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

/// Conversations, those of the latest events first.
pub(crate) async fn conversations(
    conn: &mut AsyncPgConnection,
    workspace: &str,
    page: Page,
) -> QueryResult<Vec<ConversationSummary>> {
    use conversations::{id, last_event_at, table};
    let mut query = table
        .filter(conversations::workspace.eq(shown(workspace)))
        .select(ConversationRow::as_select())
        .into_boxed();
    if let Some(after) = page.after {
        let of_mine = table.find(after).filter(conversations::workspace.eq(shown(workspace)));
        let seen = of_mine.select(last_event_at).get_result::<At>(conn).await;
        let Some(seen) = seen.optional()? else { return Ok(Vec::new()) };
        query = query.filter(last_event_at.lt(seen).or(last_event_at.eq(seen).and(id.lt(after))));
    }
    let query = query.order((last_event_at.desc(), id.desc())).limit(limit(page));
    let rows: Vec<ConversationRow> = query.load(conn).await?;
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let messages = count_messages(conn, &ids).await?;
    let tool_uses = count_tool_uses(conn, &ids).await?;
    let summary = |row: ConversationRow| {
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
async fn count_messages(
    conn: &mut AsyncPgConnection,
    ids: &[Uuid],
) -> QueryResult<HashMap<Uuid, (u64, u64)>> {
    let counts: Vec<(Uuid, i64, i64, i64)> = message_rows::table
        .filter(message_rows::conversation_id.eq_any(ids))
        .group_by(message_rows::conversation_id)
        .select((
            message_rows::conversation_id,
            sql::<BigInt>(LINES),
            sql::<BigInt>(HOOKS),
            sql::<BigInt>(WAITING),
        ))
        .load(conn)
        .await?;
    let count = |(id, lines, hooks, waiting): (Uuid, i64, i64, i64)| {
        let [lines, hooks, waiting] = [lines, hooks, waiting].map(i64::unsigned_abs);
        (id, (MessageCounts { lines, hooks, waiting }.shown(), lines))
    };
    Ok(counts.into_iter().map(count).collect())
}

/// How many tool uses each conversation has, and how many of them only one side has told of.
async fn count_tool_uses(
    conn: &mut AsyncPgConnection,
    ids: &[Uuid],
) -> QueryResult<HashMap<Uuid, (u64, TwoSides)>> {
    let no_hook = "count(*) FILTER (WHERE metadata #>> '{seen,hook}' = 'false')";
    let no_transcript =
        "count(*) FILTER (WHERE (metadata #>> '{seen,transcript}') IS DISTINCT FROM 'true')";
    let counts: Vec<(Uuid, i64, i64, i64)> = tool_uses::table
        .filter(tool_uses::conversation_id.eq_any(ids))
        .group_by(tool_uses::conversation_id)
        .select((
            tool_uses::conversation_id,
            count_star(),
            sql::<BigInt>(no_hook),
            sql::<BigInt>(no_transcript),
        ))
        .load(conn)
        .await?;
    let count = |(id, all, no_hook, no_transcript): (Uuid, i64, i64, i64)| {
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

pub(crate) fn limit(page: Page) -> i64 {
    i64::try_from(page.limit.min(PAGE_MAX)).unwrap_or(i64::MAX)
}
