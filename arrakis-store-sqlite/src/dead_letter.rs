//! The store's dead letters: rows in `FAILED`, out of retries, that nobody has discarded.

use std::collections::BTreeSet;

use arrakis_core::audit::EventStatus;
use arrakis_core::envelope::Header;
use arrakis_core::id::RequestId;
use arrakis_core::queue::{DeadLetter, DeadLetterDetail, Failure, QueueError};
use arrakis_core::store::{EventDetail, EventSummary, StoreError, Transition};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::Bool;

use crate::error::Trouble;
use crate::feed::Touched;
use crate::read;
use crate::row::{DetailRow, Now, SummaryRow};
use crate::schema::webhook_events;
use crate::work::{self, failure_parts};

/// What makes a row a dead letter. The state is a literal, because a partial index serves only what
/// SQLite can prove to be inside it when it prepares the statement.
const DEAD: &str = "status = 'FAILED' AND discarded_at IS NULL";

/// Dead letters in the order of their request ids.
pub(crate) fn list(
    conn: &mut SqliteConnection,
    after: Option<&RequestId>,
    limit: usize,
) -> QueryResult<Vec<DeadLetter>> {
    let mut query = webhook_events::table
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
        letters.push(letter(&row.try_into()?, history(&transitions).pop()));
    }
    Ok(letters)
}

/// One dead letter, whole.
pub(crate) fn show(
    conn: &mut SqliteConnection,
    id: &RequestId,
) -> QueryResult<Option<DeadLetterDetail>> {
    let found = webhook_events::table
        .filter(webhook_events::request_id.eq(id.as_str()))
        .filter(diesel::dsl::sql::<Bool>(DEAD))
        .select(DetailRow::as_select())
        .first::<DetailRow>(conn)
        .optional()?;
    let Some(row) = found else { return Ok(None) };
    let transitions = read::transitions(conn, row.id())?;
    let detail = row.into_detail(transitions)?;
    let history = history(&detail.transitions);
    Ok(Some(DeadLetterDetail {
        letter: letter(&detail.summary, history.last().cloned()),
        header: header(&detail),
        payload: detail.body.unwrap_or_default(),
        history,
    }))
}

/// Has these events tried again; returns how many there were.
pub(crate) fn redrive(
    conn: &mut SqliteConnection,
    ids: &[RequestId],
    now: &Now,
) -> Result<u64, Trouble> {
    let rows = dead_rows(conn, ids)?;
    for row in &rows {
        work::move_to(conn, row, EventStatus::Pending, PERSON, "redriven", now)?;
    }
    let redriven = rows.len() as u64;
    Touched::events(rows).write(conn, now)?;
    Ok(redriven)
}

/// Gives these events up; returns how many there were.
pub(crate) fn discard(
    conn: &mut SqliteConnection,
    ids: &[RequestId],
    now: &Now,
) -> Result<u64, Trouble> {
    let rows = dead_rows(conn, ids)?;
    for row in &rows {
        diesel::update(webhook_events::table.find(row))
            .set((
                webhook_events::discarded_at.eq(&now.text),
                webhook_events::updated_at.eq(&now.text),
            ))
            .execute(conn)?;
    }
    let discarded = rows.len() as u64;
    Touched::events(rows).write(conn, now)?;
    Ok(discarded)
}

/// The store's error as a queue's.
pub(crate) fn queue_error(error: StoreError) -> QueueError {
    QueueError::Medium { action: "reach the dead letters".to_owned(), source: Box::new(error) }
}

/// Who is named in the trail: only people touch dead letters.
const PERSON: &str = "person";

fn dead_rows(conn: &mut SqliteConnection, ids: &[RequestId]) -> QueryResult<Vec<String>> {
    let mut rows = Vec::new();
    for id in ids.iter().collect::<BTreeSet<_>>() {
        rows.extend(
            webhook_events::table
                .filter(webhook_events::request_id.eq(id.as_str()))
                .filter(diesel::dsl::sql::<Bool>(DEAD))
                .select(webhook_events::id)
                .load::<String>(conn)?,
        );
    }
    Ok(rows)
}

fn letter(row: &EventSummary, failure: Option<Failure>) -> DeadLetter {
    DeadLetter {
        request_id: row.request_id.clone(),
        event_type: Some(row.event_type.clone()),
        session_id: row.session_id.clone(),
        failure,
    }
}

/// Every failure of a row: each time that it left `ERROR`, for another try or for good, the trail says
/// why.
fn history(transitions: &[Transition]) -> Vec<Failure> {
    let told = |one: &&Transition| {
        one.from == EventStatus::Error
            && matches!(one.to, EventStatus::PendingRetry | EventStatus::Failed)
    };
    (1..)
        .zip(transitions.iter().filter(told))
        .map(|(round, one)| {
            let (code, message) = failure_parts(&one.reason);
            Failure { at: one.at, round, code: code.to_owned(), message: message.to_owned() }
        })
        .collect()
}

/// The envelope's header, which the row keeps in its metadata less what has a column.
fn header(detail: &EventDetail) -> Option<Header> {
    let row = &detail.summary;
    let mut header = row.metadata.clone();
    header.insert("requestId".to_owned(), row.request_id.as_str().into());
    header.insert("eventType".to_owned(), row.event_type.as_str().into());
    if let Some(session_id) = &row.session_id {
        header.insert("sessionId".to_owned(), session_id.as_str().into());
    }
    serde_json::from_value(header.into()).ok()
}
