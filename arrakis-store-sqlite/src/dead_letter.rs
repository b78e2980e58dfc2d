//! The dead letters of a workspace: rows in `FAILED`, out of retries, that nobody has discarded.

use std::collections::BTreeSet;

use arrakis_core::base::dead_letter::{DeadLetter, DeadLetterDetail};
use arrakis_core::base::id::RequestId;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::adapter::{self, Counts};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::Bool;

use crate::error::TxError;
use crate::feed::Touched;
use crate::read;
use crate::rollups;
use crate::row::{DetailRow, Now, SummaryRow};
use crate::schema::webhook_events;
use crate::work;

/// What makes a row a dead letter. The state is a literal, because a partial index serves only what
/// SQLite can prove to be inside it when it prepares the statement.
const DEAD: &str = "status = 'FAILED' AND discarded_at IS NULL";

/// Dead letters in the order of their request ids.
pub(crate) fn list(
    conn: &mut SqliteConnection,
    workspace: &str,
    after: Option<&RequestId>,
    limit: usize,
) -> QueryResult<Vec<DeadLetter>> {
    let mut query = webhook_events::table
        .filter(webhook_events::workspace.eq(workspace))
        .filter(diesel::dsl::sql::<Bool>(DEAD))
        .order(webhook_events::request_id.asc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select(SummaryRow::as_select())
        .into_boxed();
    if let Some(after) = after {
        query = query.filter(webhook_events::request_id.gt(after.as_str()));
    }
    let mut letters = Vec::new();
    for row in query.load::<SummaryRow>(conn)? {
        let transitions = read::transitions(conn, row.id())?;
        letters.push(adapter::dead_letter(&row.try_into()?, &transitions));
    }
    Ok(letters)
}

/// One dead letter, whole.
pub(crate) fn show(
    conn: &mut SqliteConnection,
    workspace: &str,
    id: &RequestId,
) -> QueryResult<Option<DeadLetterDetail>> {
    let found = webhook_events::table
        .filter(webhook_events::workspace.eq(workspace))
        .filter(webhook_events::request_id.eq(id.as_str()))
        .filter(diesel::dsl::sql::<Bool>(DEAD))
        .select(DetailRow::as_select())
        .first::<DetailRow>(conn)
        .optional()?;
    let Some(row) = found else { return Ok(None) };
    let transitions = read::transitions(conn, row.id())?;
    Ok(Some(adapter::dead_letter_detail(row.into_detail(transitions)?)))
}

/// Has these events tried again; returns how many there were.
pub(crate) fn redrive(
    conn: &mut SqliteConnection,
    workspace: &str,
    ids: &[RequestId],
    now: &Now,
) -> Result<u64, TxError> {
    let rows = dead_rows(conn, workspace, ids)?;
    let mut counts = rollups::leaving(conn, &rows)?;
    for row in &rows {
        work::move_to(conn, row, EventStatus::Pending, PERSON, "redriven", now)?;
    }
    let redriven = rows.len() as u64;
    rollups::joining(conn, &rows, &mut counts)?;
    Touched::events(rows, counts).write(conn, now)?;
    Ok(redriven)
}

/// Gives these events up; returns how many there were.
pub(crate) fn discard(
    conn: &mut SqliteConnection,
    workspace: &str,
    ids: &[RequestId],
    now: &Now,
) -> Result<u64, TxError> {
    let rows = dead_rows(conn, workspace, ids)?;
    for row in &rows {
        work::give_up(conn, row, PERSON, "discarded", now)?;
    }
    let discarded = rows.len() as u64;
    Touched::events(rows, Counts::default()).write(conn, now)?;
    Ok(discarded)
}

/// Who is named in the trail: only people touch dead letters.
const PERSON: &str = "person";

fn dead_rows(
    conn: &mut SqliteConnection,
    workspace: &str,
    ids: &[RequestId],
) -> QueryResult<Vec<String>> {
    let mut rows = Vec::new();
    for id in ids.iter().collect::<BTreeSet<_>>() {
        rows.extend(
            webhook_events::table
                .filter(webhook_events::workspace.eq(workspace))
                .filter(webhook_events::request_id.eq(id.as_str()))
                .filter(diesel::dsl::sql::<Bool>(DEAD))
                .select(webhook_events::id)
                .load::<String>(conn)?,
        );
    }
    Ok(rows)
}
