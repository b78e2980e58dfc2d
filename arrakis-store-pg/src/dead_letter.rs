//! The dead letters of a workspace: rows in `FAILED`, out of retries, that nobody has discarded.

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::dead_letter::{DeadLetter, DeadLetterDetail};
use arrakis_core::base::id::RequestId;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::adapter::{self, Counts};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::Bool;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::error::TxError;
use crate::feed::{self, Touched};
use crate::read;
use crate::row::{DetailRow, SummaryRow, shown};
use crate::schema::webhook_events;
use crate::work;

/// What makes a row a dead letter. The state is a literal, because a partial index serves only what
/// the planner can prove to be inside it.
const DEAD: &str = "status = 'FAILED' AND discarded_at IS NULL";

/// Dead letters in the order of their request ids.
pub(crate) async fn list(
    conn: &mut AsyncPgConnection,
    workspace: &str,
    after: Option<&RequestId>,
    limit: usize,
) -> QueryResult<Vec<DeadLetter>> {
    let mut query = webhook_events::table
        .filter(webhook_events::workspace.eq(shown(workspace)))
        .filter(diesel::dsl::sql::<Bool>(DEAD))
        .order(webhook_events::request_id.asc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select(SummaryRow::as_select())
        .into_boxed();
    if let Some(after) = after {
        query = query.filter(webhook_events::request_id.gt(after.as_str()));
    }
    let mut letters = Vec::new();
    for row in query.load::<SummaryRow>(conn).await? {
        let transitions = read::transitions(conn, row.id).await?;
        letters.push(adapter::dead_letter(&row.try_into()?, &transitions));
    }
    Ok(letters)
}

/// One dead letter, whole.
pub(crate) async fn show(
    conn: &mut AsyncPgConnection,
    workspace: &str,
    id: &RequestId,
) -> QueryResult<Option<DeadLetterDetail>> {
    let found = webhook_events::table
        .filter(webhook_events::workspace.eq(shown(workspace)))
        .filter(webhook_events::request_id.eq(id.as_str()))
        .filter(diesel::dsl::sql::<Bool>(DEAD))
        .select(DetailRow::as_select())
        .first::<DetailRow>(conn)
        .await
        .optional()?;
    let Some(row) = found else { return Ok(None) };
    let transitions = read::transitions(conn, row.summary.id).await?;
    Ok(Some(adapter::dead_letter_detail(row.into_detail(transitions)?)))
}

/// Has these events tried again; returns how many there were.
pub(crate) async fn redrive(
    conn: &mut AsyncPgConnection,
    workspace: &str,
    ids: &[RequestId],
    now: Timestamp,
) -> Result<u64, TxError> {
    let rows = dead_rows(conn, workspace, ids).await?;
    for row in &rows {
        work::transition(conn, *row, EventStatus::Pending, PERSON, "redriven", now).await?;
    }
    Ok(rows.len() as u64)
}

/// Gives these events up; returns how many there were.
pub(crate) async fn discard(
    conn: &mut AsyncPgConnection,
    workspace: &str,
    ids: &[RequestId],
    now: Timestamp,
) -> Result<u64, TxError> {
    let rows = dead_rows(conn, workspace, ids).await?;
    work::give_up(conn, &rows, PERSON, "discarded", now).await?;
    let count = rows.len() as u64;
    feed::commit(conn, &Touched::events(rows, Counts::default()), now).await?;
    Ok(count)
}

/// Who is named in the trail: only people touch dead letters.
const PERSON: &str = "person";

async fn dead_rows(
    conn: &mut AsyncPgConnection,
    workspace: &str,
    ids: &[RequestId],
) -> QueryResult<Vec<Uuid>> {
    let ids: Vec<&str> = ids.iter().map(RequestId::as_str).collect();
    webhook_events::table
        .filter(webhook_events::workspace.eq(shown(workspace)))
        .filter(webhook_events::request_id.eq_any(ids))
        .filter(diesel::dsl::sql::<Bool>(DEAD))
        .order(webhook_events::id.asc())
        .select(webhook_events::id)
        .for_update()
        .load(conn)
        .await
}
