//! Recording arrivals inside one transaction: the ledger decides, the audit row tells, the changes
//! apply.
//!
//! Every arrival costs a look into the ledger and two inserts; a conversation, a message or a tool
//! use costs a look and an upsert, once per transaction however many events touch it; the feed costs
//! one insert per transaction. The statements are single-row, of a fixed few kinds, and prepared once:
//! inside one process that is quicker than statements of many rows, whose text changes with their
//! number.

use arrakis_core::record::store::adapter::{
    CountedRow, Counts, LedgerAnswer, LedgerEntry, Merged, Outcome,
};
use arrakis_core::record::store::{Admission, AdmissionKind, Arrival, Verdict};
use diesel::prelude::*;
use diesel::result::QueryResult;

use crate::apply;
use crate::error::{TxError, is_data};
use crate::feed::Touched;
use crate::row::{Now, Prepared, digest, json, parse, to_json, uuid};
use crate::schema::{request_ids, webhook_events};

/// Stores arrivals, with the commit's row in the feed; returns one admission each, in order.
///
/// # Errors
///
/// The caller rolls back.
pub(crate) fn record(
    conn: &mut SqliteConnection,
    rows: &[&Prepared],
    now: &Now,
) -> QueryResult<Vec<Admission>> {
    let (admissions, touched) = store(conn, rows, now)?;
    touched.write(conn, now)?;
    Ok(admissions)
}

/// The same for arrivals of which the database refuses at least one: halves them until the culprits
/// stand alone, and keeps those as `ERROR` without their changes.
///
/// # Errors
///
/// The database is not available, or refuses a row even so.
pub(crate) fn record_bisecting(
    conn: &mut SqliteConnection,
    rows: &[&Prepared],
    now: &Now,
) -> Result<Vec<Admission>, TxError> {
    let (admissions, touched) = store_bisecting(conn, rows, 0, now)?;
    touched.write(conn, now)?;
    Ok(admissions)
}

/// What came of storing arrivals: an admission each, and what was written.
type Stored = (Vec<Admission>, Touched);

/// Stores arrivals; the caller writes the commit's row.
fn store(conn: &mut SqliteConnection, rows: &[&Prepared], now: &Now) -> QueryResult<Stored> {
    let mut merged = Merged::default();
    let mut admissions = Vec::with_capacity(rows.len());
    let stored = rows.iter().map(|row| (row.arrival.workspace.as_str(), row.event_id.clone()));
    let mut touched = Touched::stored(stored);
    let mut counts = Counts::default();
    for row in rows {
        let (admission, outcome) = admit(conn, row, now)?;
        counts.add(CountedRow::new(&row.arrival, &outcome, now.at));
        if admission.kind == AdmissionKind::New
            && let Verdict::Apply(changes) = &row.verdict
        {
            merged.add(&row.arrival.workspace, changes);
        }
        admissions.push(admission);
    }
    touched.count(counts);
    apply::write(merged, conn, &mut touched, now)?;
    Ok((admissions, touched))
}

/// The same, halving; `first` is the place of the first row.
fn store_bisecting(
    conn: &mut SqliteConnection,
    rows: &[&Prepared],
    first: usize,
    now: &Now,
) -> Result<Stored, TxError> {
    let error = match conn.transaction(|conn| store(conn, rows, now)) {
        Ok(stored) => return Ok(stored),
        Err(error) if !is_data(&error) => return Err(error.into()),
        Err(error) => error,
    };
    match rows {
        [row] => {
            tracing::warn!(
                request_id = %row.arrival.request_id,
                %error,
                "the database refuses an event: it is kept as an error, without its changes"
            );
            let refused = row.refused(&error);
            conn.transaction(|conn| store(conn, &[&refused], now)).map_err(|error| {
                if is_data(&error) {
                    TxError::Culprit { index: first, error }
                } else {
                    TxError::Db(error)
                }
            })
        }
        rows => {
            let (left, right) = rows.split_at(rows.len() / 2);
            let (mut admissions, mut touched) = store_bisecting(conn, left, first, now)?;
            let (more, also) = store_bisecting(conn, right, first + left.len(), now)?;
            admissions.extend(more);
            touched.extend(also);
            Ok((admissions, touched))
        }
    }
}

/// Decides about one arrival and writes its rows.
fn admit(
    conn: &mut SqliteConnection,
    row: &Prepared,
    now: &Now,
) -> QueryResult<(Admission, Outcome)> {
    let arrival = &row.arrival;
    let Some(first) = find(conn, arrival)? else {
        let outcome = Outcome::of(&row.verdict);
        insert_event(conn, row, &outcome, now)?;
        if arrival.in_ledger {
            insert_ledger(conn, row, &outcome, now)?;
        }
        return Ok((LedgerEntry::of(arrival, &outcome).admitted(arrival), outcome));
    };
    let (admission, outcome) = first.repeated(arrival);
    insert_event(conn, row, &outcome, now)?;
    Ok((admission, outcome))
}

/// The ledger's entry of an arrival's request id, with the first event's current state while its row exists.
fn find(conn: &mut SqliteConnection, arrival: &Arrival) -> QueryResult<Option<LedgerEntry>> {
    let found = request_ids::table
        .left_join(webhook_events::table.on(webhook_events::id.eq(request_ids::event_id)))
        .filter(request_ids::workspace.eq(&arrival.workspace))
        .filter(request_ids::request_id.eq(arrival.request_id.as_str()))
        .select((
            request_ids::digest,
            request_ids::claimed,
            request_ids::event_id,
            request_ids::answer,
            webhook_events::status.nullable(),
        ))
        .get_result::<(Vec<u8>, Option<Vec<u8>>, String, String, Option<String>)>(conn)
        .optional()?;
    let Some((own, claimed, event_id, answer, status)) = found else { return Ok(None) };
    let answer: LedgerAnswer = json("answer", &answer)?;
    Ok(Some(LedgerEntry {
        event_id: uuid("event_id", &event_id)?,
        digest: digest("digest", &own)?,
        claimed: claimed.map(|bytes| digest("claimed", &bytes)).transpose()?,
        status: status.map_or(Ok(answer.status), |status| parse("status", &status))?,
        answer: answer.ids(),
    }))
}

fn insert_event(
    conn: &mut SqliteConnection,
    row: &Prepared,
    outcome: &Outcome,
    now: &Now,
) -> QueryResult<()> {
    diesel::insert_into(webhook_events::table).values(row.row(outcome, now)).execute(conn)?;
    Ok(())
}

fn insert_ledger(
    conn: &mut SqliteConnection,
    row: &Prepared,
    outcome: &Outcome,
    now: &Now,
) -> QueryResult<()> {
    let claimed = row.arrival.claimed_digest();
    diesel::insert_into(request_ids::table)
        .values((
            request_ids::workspace.eq(&row.arrival.workspace),
            request_ids::request_id.eq(row.arrival.request_id.as_str()),
            request_ids::digest.eq(&row.arrival.digest.as_bytes()[..]),
            request_ids::claimed.eq(claimed.as_ref().map(|digest| &digest.as_bytes()[..])),
            request_ids::event_id.eq(&row.event_id),
            request_ids::answer.eq(to_json(&LedgerAnswer::new(outcome.status, outcome.answer))?),
            request_ids::created_at.eq(&now.text),
        ))
        .execute(conn)?;
    Ok(())
}
