//! Lists of audit rows and of conversations, page by page.
//!
//! Audit rows are listed in the order of their ids, which is the order of receipt, so a cursor is an
//! id and needs no row to still exist. A page looks at a bounded number of rows
//! ([`EventIndex`]): it goes through one index, and all other conditions are looked at row by row.

use std::collections::HashMap;

use arrakis_core::base::envelope::Form;
use arrakis_core::base::id::RequestId;
use arrakis_core::base::limits::{COUNTED_MAX, PAGE_MAX};
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::adapter::{EventIndex, event_page, page_rows};
use arrakis_core::record::store::{
    ConversationCursor, ConversationFilter, ConversationPage, ConversationSummary,
    DEFAULT_WORKSPACE, EventFilter, EventPage, EventSummary, Page, directory, hour_of,
};
use arrakis_core::session::conversation::{Conversation, MessageCounts, TwoSides};
use diesel::dsl::{AsExprOf, sql};
use diesel::expression::{SqlLiteral, UncheckedBind};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Bool, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::row::{At, ConversationRow, SummaryRow, shown};
use crate::schema::{conversations, webhook_events};
use crate::search;
use crate::statement::Statement;

/// Audit rows, newest first.
pub(crate) async fn events(
    conn: &mut AsyncPgConnection,
    filter: &EventFilter,
    page: Page,
) -> QueryResult<EventPage> {
    use webhook_events::id;
    let index = match EventIndex::of(filter) {
        // Nearly all rows are of this workspace, and the index on workspaces leaves these out.
        EventIndex::Workspace(DEFAULT_WORKSPACE) => EventIndex::Id,
        index => index,
    };
    let rest = index.rest(filter);
    let end: Option<Uuid> = if rest == EventFilter::default() || filter.text.is_some() {
        None
    } else {
        let last = in_index(index, filter, page.after).select(id).order(id.desc());
        last.offset(last_look(page)).limit(1).get_result(conn).await.optional()?
    };
    let mut query = where_all(in_index(index, filter, page.after), &rest);
    if let Some(end) = end {
        query = query.filter(id.ge(end));
    }
    if let Some(text) = &filter.text {
        let Some(condition) = search::condition(text) else { return Ok(EventPage::default()) };
        let found = "webhook_events.id IN (SELECT event_id FROM event_search WHERE words @@ ";
        query = query.filter(sql::<Bool>(found).bind::<Text, _>(condition).sql("::tsquery)"));
    }
    let query = query.select(SummaryRow::as_select()).order(id.desc());
    let rows: Vec<SummaryRow> = query.limit(page_rows(page.limit)).load(conn).await?;
    let rows = rows.into_iter().map(EventSummary::try_from).collect::<QueryResult<_>>()?;
    Ok(event_page(rows, filter, page, end))
}

type Events<'a> = webhook_events::BoxedQuery<'a, Pg>;

/// How many rows to pass over to the last that a page looks at.
fn last_look<C>(page: Page<C>) -> i64 {
    i64::try_from(page.looks.saturating_sub(1)).unwrap_or(i64::MAX)
}

/// The part of an index that a list goes through behind a cursor.
fn in_index<'a>(index: EventIndex<'a>, filter: &EventFilter, after: Option<Uuid>) -> Events<'a> {
    use webhook_events::{event_type, id, request_id, session_id, table, workspace};
    let mut query = table.into_boxed();
    query = match index {
        EventIndex::Request(of, value) => {
            query.filter(workspace.eq(shown(of))).filter(request_id.eq(value.as_str()))
        }
        EventIndex::Session(value) => query.filter(session_id.eq(shown(value))),
        // A literal, because a partial index serves only what the planner can prove to be inside it.
        EventIndex::Status(value) => query.filter(sql::<Bool>(&format!("status = '{value}'"))),
        EventIndex::EventType(value) => query.filter(event_type.eq(shown(value))),
        EventIndex::Workspace(value) => {
            query.filter(workspace.eq(shown(value))).filter(sql::<Bool>("workspace <> 'main'"))
        }
        EventIndex::Id => query,
    };
    if let Some(first) = filter.first_id() {
        query = query.filter(id.ge(first));
    }
    let ends = [filter.end_id(), after];
    if let Some(end) = ends.into_iter().flatten().min() {
        query = query.filter(id.lt(end));
    }
    if let Some(since) = filter.since {
        query = query.filter(webhook_events::received_at.ge(At(since)));
    }
    if let Some(until) = filter.until {
        query = query.filter(webhook_events::received_at.lt(At(until)));
    }
    query
}

/// Rows for which all of this is true.
fn where_all<'a>(mut query: Events<'a>, rest: &EventFilter) -> Events<'a> {
    let equal = [
        ("workspace = ", rest.workspace.as_deref()),
        ("status::text = ", rest.status.map(EventStatus::as_str)),
        ("event_type = ", rest.event_type.as_deref()),
        ("session_id = ", rest.session_id.as_deref()),
        ("request_id = ", rest.request_id.as_ref().map(RequestId::as_str)),
        ("error_code = ", rest.error_code.as_deref()),
        ("metadata ->> 'form' = ", rest.form.map(Form::as_str)),
        ("metadata #>> '{source,host}' = ", rest.host.as_deref()),
        ("metadata #>> '{source,user}' = ", rest.user.as_deref()),
    ];
    for (column, value) in equal {
        if let Some(value) = value {
            let is = is(column, value);
            // What JSONB cannot hold as it is, is looked at later.
            query = match column.starts_with("metadata") {
                true => query.filter(is.or(sql::<Bool>(WRAPPED))),
                false => query.filter(is),
            };
        }
    }
    if let Some(project) = &rest.project {
        let is_within = is_within("metadata #>> '{source,projectDir}'", project);
        query = query.filter(is_within.or(sql::<Bool>(WRAPPED)));
    }
    match rest.discarded {
        Some(true) => query.filter(sql::<Bool>("discarded_at IS NOT NULL")),
        Some(false) => query.filter(sql::<Bool>("discarded_at IS NULL")),
        None => query,
    }
}

/// That the metadata of a row stand in a wrapper.
const WRAPPED: &str = "jsonb_exists(metadata, '$json')";

/// A condition on SQL with one value in it.
type Condition = SqlLiteral<Bool, UncheckedBind<SqlLiteral<Bool>, AsExprOf<String, Text>>>;

/// That a comparison is true. No index is chosen for it.
fn is(compared: &str, value: &str) -> Condition {
    let value = shown(value).into_owned();
    sql::<Bool>(&format!("(({compared}")).bind::<Text, _>(value).sql(") IS TRUE)")
}

/// That a path is this directory, or is below it.
pub(crate) fn is_within(path: &str, project: &str) -> Condition {
    let directory = shown(directory(project)).into_owned();
    let length = directory.chars().count();
    let rest = format!("substr({path}, {}, 1) IN ('', '/', '\\')", length + 1);
    sql::<Bool>(&format!("(({rest} AND substr({path}, 1, {length}) = "))
        .bind::<Text, _>(directory)
        .sql(") IS TRUE)")
}

/// Conversations, those of the latest events first. They are read by the hours of these, and sorted within.
pub(crate) async fn conversations(
    conn: &mut AsyncPgConnection,
    filter: &ConversationFilter,
    page: Page<ConversationCursor>,
) -> QueryResult<ConversationPage> {
    use conversations::{id, last_event_at, last_event_hour};
    let order = (last_event_hour.desc(), last_event_at.desc(), id.desc());
    let in_order = || of_workspace(filter, page.after).order(order);
    let mut query = in_order();
    let mut end = None;
    if let Some(project) = &filter.project {
        let last = in_order().select((last_event_at, id)).offset(last_look(page)).limit(1);
        let last: Option<(At, Uuid)> = last.get_result(conn).await.optional()?;
        end = last.map(|(at, last)| ConversationCursor { at: at.0, id: last });
        query = query.filter(is_within("project_path", project));
        if let Some(end) = end {
            let (at, end) = (end.at, end.id);
            query = query.filter(last_event_hour.ge(At(hour_of(at))));
            query = query.filter(last_event_at.ge(At(at)));
            query = query.filter(last_event_at.gt(At(at)).or(id.ge(end)));
        }
    }
    let query = query.select(ConversationRow::as_select()).limit(page_rows(page.limit));
    let mut rows: Vec<ConversationRow> = query.load(conn).await?;
    let limit = page.limit.min(PAGE_MAX);
    let is_full = rows.len() > limit;
    rows.truncate(limit);
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let messages = count(conn, &ids, MESSAGES).await?;
    let tool_uses = count(conn, &ids, TOOL_USES).await?;
    let counts = |of: &HashMap<Uuid, Counts>, one: Uuid| of.get(&one).copied().unwrap_or_default();
    let found = rows.into_iter().map(|row| {
        let (messages, tool_uses) = (counts(&messages, row.id), counts(&tool_uses, row.id));
        Ok(summary(row.into_value()?, messages, tool_uses))
    });
    let found = found.collect::<QueryResult<Vec<_>>>()?;
    let last = found.last().map(|last| ConversationCursor::of(&last.conversation));
    Ok(ConversationPage { next: if is_full { last } else { end }, conversations: found })
}

/// The part of the index on the hours of latest events that a list goes through behind a cursor.
fn of_workspace(
    filter: &ConversationFilter,
    after: Option<ConversationCursor>,
) -> conversations::BoxedQuery<'_, Pg> {
    use conversations::{id, last_event_at, last_event_hour, table, workspace};
    let mut query = table.into_boxed().filter(workspace.eq(shown(&filter.workspace)));
    if let Some(since) = filter.since {
        query = query
            .filter(last_event_hour.ge(At(hour_of(since))))
            .filter(last_event_at.ge(At(since)));
    }
    if let Some(until) = filter.until {
        query = query
            .filter(last_event_hour.le(At(hour_of(until))))
            .filter(last_event_at.lt(At(until)));
    }
    if let Some(after) = after {
        let (at, after) = (after.at, after.id);
        query = query.filter(last_event_hour.le(At(hour_of(at))));
        query = query.filter(last_event_at.le(At(at)));
        query = query.filter(last_event_at.lt(At(at)).or(id.lt(after)));
    }
    query
}

/// What a list shows of a conversation.
fn summary(conversation: Conversation, messages: Counts, tool_uses: Counts) -> ConversationSummary {
    let [lines, hooks, waiting] = [messages.first, messages.second, messages.third];
    ConversationSummary {
        messages: MessageCounts { lines, hooks, waiting }.shown(),
        tool_uses: tool_uses.total,
        counts_capped: messages.total.max(tool_uses.total) == COUNTED_MAX as u64,
        sides: TwoSides {
            transcript_messages: lines,
            tool_uses_without_hook: tool_uses.first,
            tool_uses_without_transcript: tool_uses.second,
        },
        conversation,
    }
}

/// Messages by where they come from, as [`MessageCounts`] has them.
const MESSAGES: &str = "SELECT c.id, n.* FROM unnest(?) AS c (id), LATERAL (SELECT count(*), \
    count(*) FILTER (WHERE origin IN ('transcript', 'queued', 'answer')), \
    count(*) FILTER (WHERE origin IN ('prompt', 'stop', 'failure')), \
    count(*) FILTER (WHERE origin = 'enqueued') \
    FROM (SELECT metadata ->> 'origin' AS origin FROM message_rows \
    WHERE conversation_id = c.id LIMIT ?) AS m) AS n";

/// Tool uses, and those that only one side has told of.
const TOOL_USES: &str = "SELECT c.id, n.* FROM unnest(?) AS c (id), LATERAL (SELECT count(*), \
    count(*) FILTER (WHERE hook = 'false'), \
    count(*) FILTER (WHERE transcript IS DISTINCT FROM 'true'), 0::bigint \
    FROM (SELECT metadata #>> '{seen,hook}' AS hook, \
    metadata #>> '{seen,transcript}' AS transcript \
    FROM tool_uses WHERE conversation_id = c.id LIMIT ?) AS t) AS n";

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    total: u64,
    first: u64,
    second: u64,
    third: u64,
}

/// Counts what conversations have, up to [`COUNTED_MAX`] of it each.
async fn count(
    conn: &mut AsyncPgConnection,
    ids: &[Uuid],
    counted: &'static str,
) -> QueryResult<HashMap<Uuid, Counts>> {
    type Row = (diesel::sql_types::Uuid, BigInt, BigInt, BigInt, BigInt);
    let rows: Vec<(Uuid, i64, i64, i64, i64)> = Statement::<Row>::new(counted)
        .bind::<Array<diesel::sql_types::Uuid>>(ids)
        .bind::<BigInt>(i64::try_from(COUNTED_MAX).unwrap_or(i64::MAX))
        .load(conn)
        .await?;
    let counts = |(id, total, first, second, third): (Uuid, i64, i64, i64, i64)| {
        let [total, first, second, third] = [total, first, second, third].map(i64::unsigned_abs);
        (id, Counts { total, first, second, third })
    };
    Ok(rows.into_iter().map(counts).collect())
}

/// How many items a page has at most.
pub(crate) fn limit(page: Page) -> i64 {
    i64::try_from(page.limit.min(PAGE_MAX)).unwrap_or(i64::MAX)
}
