//! Lists of audit rows and of conversations, page by page.
//!
//! Audit rows are listed in the order of their ids, which is the order of receipt, so a cursor is an
//! id and needs no row to still exist. A page looks at a bounded number of rows
//! ([`EventIndex`]): it goes through one index, and all other conditions are looked at row by row.

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::limits::{COUNTED_MAX, PAGE_MAX};
use arrakis_core::record::store::adapter::{EventIndex, event_page, page_rows};
use arrakis_core::record::store::{
    ConversationCursor, ConversationFilter, ConversationPage, ConversationSummary, EventFilter,
    EventPage, EventSummary, Page, directory,
};
use arrakis_core::session::conversation::{MessageCounts, TwoSides};
use diesel::dsl::{AsExprOf, sql};
use diesel::expression::{SqlLiteral, UncheckedBind};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{BigInt, Bool, Text};
use diesel::sqlite::Sqlite;
use uuid::Uuid;

use crate::row::{ConversationRow, SummaryRow, time, uuid};
use crate::schema::{conversations, webhook_events};

/// Audit rows, newest first.
pub(crate) fn events(
    conn: &mut SqliteConnection,
    filter: &EventFilter,
    page: Page,
) -> QueryResult<EventPage> {
    use webhook_events::id;
    let index = EventIndex::of(filter);
    let rest = index.rest(filter);
    let end = if rest == EventFilter::default() {
        None
    } else {
        let last = in_index(index, filter, page.after).select(id).order(id.desc());
        last.offset(last_look(page)).limit(1).get_result::<String>(conn).optional()?
    };
    let mut query = where_all(in_index(index, filter, page.after), &rest);
    if let Some(end) = &end {
        query = query.filter(id.ge(end.clone()));
    }
    let rows = query
        .select(SummaryRow::as_select())
        .order(id.desc())
        .limit(page_rows(page.limit))
        .load(conn)?;
    let rows = rows.into_iter().map(EventSummary::try_from).collect::<QueryResult<_>>()?;
    let end = end.map(|end| uuid("id", &end)).transpose()?;
    Ok(event_page(rows, filter, page, end))
}

type Events<'a> = webhook_events::BoxedQuery<'a, Sqlite>;

/// How many rows to pass over to the last that a page looks at.
fn last_look<C>(page: Page<C>) -> i64 {
    i64::try_from(page.looks.saturating_sub(1)).unwrap_or(i64::MAX)
}

/// The part of an index that a list goes through behind a cursor.
fn in_index<'a>(index: EventIndex<'a>, filter: &EventFilter, after: Option<Uuid>) -> Events<'a> {
    use webhook_events::{event_type, id, request_id, session_id, status, table, workspace};
    let mut query = table.into_boxed();
    query = match index {
        EventIndex::Request(of, value) => {
            query.filter(workspace.eq(of)).filter(request_id.eq(value.as_str()))
        }
        EventIndex::Session(value) => query.filter(session_id.eq(value)),
        // Nearly all rows succeed, and the index on states leaves these out.
        EventIndex::Status(value) => {
            query.filter(status.eq(value.as_str())).filter(sql::<Bool>("status <> 'SUCCESS'"))
        }
        EventIndex::EventType(value) => query.filter(event_type.eq(value)),
        EventIndex::Workspace(value) => query.filter(workspace.eq(value)),
        EventIndex::Id => query,
    };
    if let Some(first) = filter.first_id() {
        query = query.filter(id.ge(first.to_string()));
    }
    let ends = [filter.end_id(), after];
    if let Some(end) = ends.into_iter().flatten().min() {
        query = query.filter(id.lt(end.to_string()));
    }
    if let Some(since) = filter.since {
        query = query.filter(is("received_at >= ", since.to_string()));
    }
    if let Some(until) = filter.until {
        query = query.filter(is("received_at < ", until.to_string()));
    }
    query
}

/// Rows for which all of this is true.
fn where_all<'a>(mut query: Events<'a>, rest: &EventFilter) -> Events<'a> {
    let equal = [
        ("workspace = ", rest.workspace.clone()),
        ("status = ", rest.status.map(|status| status.as_str().to_owned())),
        ("event_type = ", rest.event_type.clone()),
        ("session_id = ", rest.session_id.clone()),
        ("request_id = ", rest.request_id.as_ref().map(ToString::to_string)),
        ("metadata ->> '$.source.host' = ", rest.host.clone()),
        ("metadata ->> '$.source.user' = ", rest.user.clone()),
        ("error_code = ", rest.error_code.clone()),
        ("metadata ->> '$.form' = ", rest.form.map(|form| form.as_str().to_owned())),
    ];
    for (column, value) in equal {
        if let Some(value) = value {
            query = query.filter(is(column, value));
        }
    }
    if let Some(project) = &rest.project {
        query = query.filter(is_within("metadata ->> '$.source.projectDir'", project));
    }
    match rest.discarded {
        Some(true) => query.filter(sql::<Bool>("discarded_at IS NOT NULL")),
        Some(false) => query.filter(sql::<Bool>("discarded_at IS NULL")),
        None => query,
    }
}

/// A condition on SQL with one value in it.
type Condition = SqlLiteral<Bool, UncheckedBind<SqlLiteral<Bool>, AsExprOf<String, Text>>>;

/// That a comparison is true. No index is chosen for it.
fn is(compared: &str, value: String) -> Condition {
    sql::<Bool>(&format!("(({compared}")).bind::<Text, _>(value).sql(") IS TRUE)")
}

/// That a path is this directory, or is below it.
pub(crate) fn is_within(path: &str, project: &str) -> Condition {
    let directory = directory(project).to_owned();
    let length = directory.chars().count();
    let rest = format!("substr({path}, {}, 1) IN ('', '/', '\\')", length + 1);
    sql::<Bool>(&format!("(({rest} AND substr({path}, 1, {length}) = "))
        .bind::<Text, _>(directory)
        .sql(") IS TRUE)")
}

/// Conversations, those of the latest events first.
pub(crate) fn conversations(
    conn: &mut SqliteConnection,
    filter: &ConversationFilter,
    page: Page<ConversationCursor>,
) -> QueryResult<ConversationPage> {
    use conversations::{id, last_event_at};
    let in_order = || of_workspace(filter, page.after).order((last_event_at.desc(), id.desc()));
    let mut query = in_order();
    let mut end = None;
    if let Some(project) = &filter.project {
        let last = in_order().select((last_event_at, id)).offset(last_look(page)).limit(1);
        let last = last.get_result::<(String, String)>(conn).optional()?;
        end = last.map(|(at, last)| cursor(&at, &last)).transpose()?;
        query = query.filter(is_within("project_path", project));
        if let Some(end) = end {
            let (at, end) = (end.at.to_string(), end.id.to_string());
            query = query.filter(last_event_at.ge(at.clone()));
            query = query.filter(last_event_at.gt(at).or(id.ge(end)));
        }
    }
    let rows: Vec<ConversationRow<'_>> =
        query.select(ConversationRow::as_select()).limit(page_rows(page.limit)).load(conn)?;
    let is_full = rows.len() > page.limit.min(PAGE_MAX);
    let rows = rows.into_iter().take(page.limit.min(PAGE_MAX));
    let found = rows.map(|row| summary(conn, row)).collect::<QueryResult<Vec<_>>>()?;
    let last = found.last().map(|last| ConversationCursor::of(&last.conversation));
    Ok(ConversationPage { next: if is_full { last } else { end }, conversations: found })
}

/// The part of the index on latest events that a list goes through behind a cursor.
fn of_workspace(
    filter: &ConversationFilter,
    after: Option<ConversationCursor>,
) -> conversations::BoxedQuery<'_, Sqlite> {
    use conversations::{id, last_event_at, table, workspace};
    let mut query = table.into_boxed().filter(workspace.eq(&filter.workspace));
    if let Some(since) = filter.since {
        query = query.filter(last_event_at.ge(since.to_string()));
    }
    if let Some(until) = filter.until {
        query = query.filter(last_event_at.lt(until.to_string()));
    }
    if let Some(after) = after {
        let (at, after) = (after.at.to_string(), after.id.to_string());
        query = query.filter(last_event_at.le(at.clone()));
        query = query.filter(last_event_at.lt(at).or(id.lt(after)));
    }
    query
}

fn cursor(at: &str, id: &str) -> QueryResult<ConversationCursor> {
    let at: Timestamp = time("last_event_at", at)?;
    Ok(ConversationCursor { at, id: uuid("id", id)? })
}

/// What a list shows of a conversation.
fn summary(
    conn: &mut SqliteConnection,
    row: ConversationRow<'_>,
) -> QueryResult<ConversationSummary> {
    let messages = count(conn, &row.id, MESSAGES)?;
    let tool_uses = count(conn, &row.id, TOOL_USES)?;
    let [lines, hooks, waiting] = [messages.first, messages.second, messages.third];
    Ok(ConversationSummary {
        messages: MessageCounts { lines, hooks, waiting }.shown(),
        tool_uses: tool_uses.total,
        counts_capped: messages.total.max(tool_uses.total) == COUNTED_MAX as u64,
        sides: TwoSides {
            transcript_messages: lines,
            tool_uses_without_hook: tool_uses.first,
            tool_uses_without_transcript: tool_uses.second,
        },
        conversation: row.into_value()?,
    })
}

/// Messages by where they come from, as [`MessageCounts`] has them.
const MESSAGES: &str = "SELECT count(*) AS total, \
    count(*) FILTER (WHERE origin IN ('transcript', 'queued', 'answer')) AS first, \
    count(*) FILTER (WHERE origin IN ('prompt', 'stop', 'failure')) AS second, \
    count(*) FILTER (WHERE origin = 'enqueued') AS third \
    FROM (SELECT metadata ->> 'origin' AS origin FROM message_rows WHERE conversation_id = ? LIMIT ?)";

/// Tool uses, and those that only one side has told of.
const TOOL_USES: &str = "SELECT count(*) AS total, \
    count(*) FILTER (WHERE hook = 0) AS first, \
    count(*) FILTER (WHERE transcript IS NOT 1) AS second, 0 AS third \
    FROM (SELECT metadata ->> '$.seen.hook' AS hook, \
    metadata ->> '$.seen.transcript' AS transcript \
    FROM tool_uses WHERE conversation_id = ? LIMIT ?)";

struct Counts {
    total: u64,
    first: u64,
    second: u64,
    third: u64,
}

/// Counts what a conversation has, up to [`COUNTED_MAX`] of it.
fn count(conn: &mut SqliteConnection, conversation: &str, counted: &str) -> QueryResult<Counts> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = BigInt)]
        total: i64,
        #[diesel(sql_type = BigInt)]
        first: i64,
        #[diesel(sql_type = BigInt)]
        second: i64,
        #[diesel(sql_type = BigInt)]
        third: i64,
    }
    let row: Row = diesel::sql_query(counted)
        .bind::<Text, _>(conversation)
        .bind::<BigInt, _>(i64::try_from(COUNTED_MAX).unwrap_or(i64::MAX))
        .get_result(conn)?;
    let [total, first, second, third] =
        [row.total, row.first, row.second, row.third].map(i64::unsigned_abs);
    Ok(Counts { total, first, second, third })
}

/// How many items a page has at most.
pub(crate) fn limit(page: Page) -> i64 {
    i64::try_from(page.limit.min(PAGE_MAX)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use arrakis_core::record::audit::EventStatus;

    use super::*;
    use crate::search::tests::plans;

    #[test]
    fn a_page_goes_through_one_index_whatever_else_is_asked_for() {
        let text = |text: &str| Some(text.to_owned());
        let any = || EventFilter { host: text("h"), project: text("/p"), ..EventFilter::default() };
        let status = Some(EventStatus::Failed);
        let workspace = text("main");
        let request = "r".parse().ok();
        for (filter, index) in [
            (EventFilter { workspace: workspace.clone(), ..any() }, "webhook_events_workspace"),
            (EventFilter { event_type: text("t"), workspace, ..any() }, "webhook_events_type"),
            (EventFilter { status, event_type: text("t"), ..any() }, "webhook_events_status"),
            (EventFilter { session_id: text("s"), status, ..any() }, "webhook_events_session"),
            (
                EventFilter { workspace: text("main"), request_id: request, ..any() },
                "webhook_events_request",
            ),
            (any(), "sqlite_autoindex_webhook_events_1"),
        ] {
            let page = Page::after(Uuid::max(), 9);
            let plans = plans(|conn| {
                events(conn, &filter, page).unwrap();
            });
            assert_eq!(plans.len(), 2, "{plans:?}");
            for plan in plans {
                assert!(plan.contains(&format!("INDEX {index} ")), "{index}: {plan}");
                assert!(!plan.contains("B-TREE"), "{plan}");
            }
        }
    }

    #[test]
    fn conversations_come_from_the_index_in_their_order() {
        let filter = ConversationFilter {
            project: Some("/p".to_owned()),
            since: Some(Timestamp::EPOCH),
            ..ConversationFilter::new("main")
        };
        let after = ConversationCursor { at: Timestamp::EPOCH, id: Uuid::max() };
        for page in [Page::first(9), Page::after(after, 9)] {
            let plans = plans(|conn| {
                conversations(conn, &filter, page).unwrap();
            });
            for plan in plans {
                assert!(plan.contains("INDEX conversations_latest "), "{plan}");
                assert!(!plan.contains("B-TREE"), "{plan}");
            }
        }
    }
}
