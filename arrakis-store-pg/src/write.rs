//! Recording arrivals inside one transaction: the ledger decides, the audit row tells, the changes
//! apply.
//!
//! However many arrivals there are, the number of statements is the same: the ledger is offered all new
//! request ids and says which it took; who holds the others is looked up; then the audit rows, and what
//! `apply` does. As long as no repeats come, these do not wait for the ledger's word. In each statement
//! rows are in the order of their keys, and tables follow each other in one order, so servers that record
//! the same things wait for each other and do not deadlock.

use std::collections::{BTreeSet, HashMap, HashSet};

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::store::adapter::{CountedRow, LedgerAnswer, LedgerEntry, Outcome};
use arrakis_core::record::store::{Admission, AdmissionKind, Arrival, Verdict};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, Binary, Jsonb, Nullable, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join, join3};
use uuid::Uuid;

use crate::apply::{Applying, Started};
use crate::error::{TxError, is_data, is_unclear};
use crate::feed::Touched;
use crate::pool;
use crate::rollups::as_shown;
use crate::row::{At, JsonText, Prepared, State, digest, insert_events, json, shown};
use crate::schema::{request_ids, webhook_events};
use crate::statement::Statement;

/// Stores arrivals in one transaction; returns one admission each, in order. `is_hopeful` says, and is
/// told, whether repeats are not to be expected: then everything goes out with the offer to the ledger,
/// and is undone where the ledger does not take it all.
///
/// # Errors
///
/// Nothing is stored; or, because the connection was lost at the very end, whether it is cannot be known.
pub(crate) async fn record(
    conn: &AsyncPgConnection,
    rows: &[&Prepared],
    now: Timestamp,
    is_hopeful: &mut bool,
) -> Result<Vec<Admission>, TxError> {
    let mut begin = conn;
    let begin = begin.batch_execute(pool::WRITE);
    if std::mem::replace(is_hopeful, true) && may_be_new(rows) {
        let plan = Plan::of_new(rows);
        // The statements do not wait for the transaction to have begun, nor for each other.
        let (begun, taken, started) =
            join3(begin, offer(conn, rows, now), plan.start(conn, now)).await;
        begun?;
        let done = match (taken, started) {
            (Ok(taken), Ok(started)) if taken.len() == rows.len() => {
                plan.finish(conn, started, now).await
            }
            (Ok(taken), _) if taken.len() < rows.len() => Err(TxError::Raced),
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(_), Ok(_)) => Err(TxError::Raced),
        };
        *is_hopeful = !matches!(done, Err(TxError::Raced));
        return end(conn, done).await;
    }
    let (begun, taken) = join(begin, offer(conn, rows, now)).await;
    begun?;
    let done = match taken {
        Ok(taken) => {
            *is_hopeful = taken.len() == rows.len();
            store(conn, rows, &taken, now).await
        }
        Err(error) => Err(error),
    };
    end(conn, done).await
}

/// What names an event: its workspace and its request id.
type Name<'a> = (&'a str, &'a str);

fn name(row: &Prepared) -> Name<'_> {
    (&row.arrival.workspace, row.arrival.request_id.as_str())
}

/// Whether nothing in these arrivals themselves speaks against all of them being new.
fn may_be_new(rows: &[&Prepared]) -> bool {
    let mut seen = HashSet::new();
    rows.iter().all(|row| row.arrival.in_ledger && seen.insert(name(row)))
}

/// Stores arrivals of whose request ids the ledger took `taken`.
async fn store(
    conn: &AsyncPgConnection,
    rows: &[&Prepared],
    taken: &HashSet<Name<'_>>,
    now: Timestamp,
) -> Result<Vec<Admission>, TxError> {
    let (admissions, decided) = admit(conn, rows, taken).await?;
    let plan = Plan::new(admissions, decided);
    let started = plan.start(conn, now).await?;
    plan.finish(conn, started, now).await
}

/// The audit rows that were written, and what is known of what else is.
type Begun<'a> = (HashSet<Uuid>, Started<'a>);

/// What is written of arrivals that have been decided about.
struct Plan<'a> {
    admissions: Vec<Admission>,
    decided: Decided<'a>,
    applying: Applying<'a>,
}

impl<'a> Plan<'a> {
    fn new(admissions: Vec<Admission>, decided: Decided<'a>) -> Self {
        let mut applying = Applying::default();
        for ((row, _), admission) in decided.iter().zip(&admissions) {
            if admission.kind == AdmissionKind::New
                && let Verdict::Apply(changes) = &row.verdict
            {
                applying.0.add(&row.arrival.workspace, changes);
            }
        }
        Self { admissions, decided, applying }
    }

    /// The plan where each arrival is the first of its id.
    fn of_new(rows: &[&'a Prepared]) -> Self {
        let decide = |row: &&'a Prepared| {
            let outcome = Outcome::of(&row.verdict);
            let first = LedgerEntry::of(&row.arrival, &outcome);
            (first.admitted(&row.arrival), (*row, outcome))
        };
        let (admissions, decided) = rows.iter().map(decide).unzip();
        Self::new(admissions, decided)
    }

    /// Writes the audit rows, and begins with the changes. The statements go out together.
    async fn start(&self, conn: &AsyncPgConnection, now: Timestamp) -> Result<Begun<'a>, TxError> {
        let inserting = insert_events(&self.decided, now);
        let (inserted, started) =
            join(inserting.load(&mut &*conn), self.applying.start(conn)).await;
        let inserted: Vec<Uuid> = inserted?;
        Ok((inserted.into_iter().collect(), started?))
    }

    async fn finish(
        self,
        conn: &AsyncPgConnection,
        (inserted, started): Begun<'a>,
        now: Timestamp,
    ) -> Result<Vec<Admission>, TxError> {
        let mut touched = Touched::default();
        for (row, outcome) in &self.decided {
            let arrival: &'a Arrival = &row.arrival;
            let items = touched.of(&arrival.workspace);
            items.events.push(arrival.event_id);
            // What a commit whose answer was lost has stored, it has counted.
            if inserted.contains(&arrival.event_id) {
                items.counts.add(as_shown(CountedRow::new(arrival, outcome, now)));
            }
        }
        self.applying.finish(conn, started, touched, now).await?;
        Ok(self.admissions)
    }
}

/// Ends the transaction.
async fn end<T>(conn: &AsyncPgConnection, done: Result<T, TxError>) -> Result<T, TxError> {
    match done {
        Ok(value) => {
            (&mut &*conn).batch_execute("COMMIT").await?;
            Ok(value)
        }
        Err(error) => {
            // What went wrong before matters more than that undoing it failed too.
            (&mut &*conn).batch_execute("ROLLBACK").await.ok();
            Err(error)
        }
    }
}

/// Stores arrivals of which the database refuses at least one: halves them until the culprits stand
/// alone, and keeps those as `ERROR` without their changes.
///
/// # Errors
///
/// The database is not available, or refuses a row even so.
pub(crate) async fn record_bisecting(
    conn: &AsyncPgConnection,
    rows: &[&Prepared],
    now: Timestamp,
) -> Result<Vec<Admission>, TxError> {
    (&mut &*conn).batch_execute(pool::WRITE).await?;
    let done = halve(conn, rows, 0, now).await;
    end(conn, done).await
}

/// `first` is the place of the first row.
fn halve<'c>(
    conn: &'c AsyncPgConnection,
    rows: &'c [&'c Prepared],
    first: usize,
    now: Timestamp,
) -> BoxFuture<'c, Result<Vec<Admission>, TxError>> {
    async move {
        let error = match part(conn, rows, now).await {
            Err(TxError::Db(error)) if is_data(&error) || is_unclear(&error) => error,
            done => return done,
        };
        match rows {
            [row] => alone(conn, row, error, first, now).await.map(|one| vec![one]),
            rows => {
                let (left, right) = rows.split_at(rows.len() / 2);
                let mut admissions = halve(conn, left, first, now).await?;
                admissions.extend(halve(conn, right, first + left.len(), now).await?);
                Ok(admissions)
            }
        }
    }
    .boxed()
}

/// Keeps an arrival that the database refused with `error`, as a failure and its body as bytes.
async fn alone(
    conn: &AsyncPgConnection,
    row: &Prepared,
    error: diesel::result::Error,
    index: usize,
    now: Timestamp,
) -> Result<Admission, TxError> {
    let refused = row.refused(&error);
    let error = match part(conn, &[&refused], now).await {
        Ok(mut admissions) => {
            tracing::warn!(
                request_id = %row.arrival.request_id, %error,
                "the database refuses an event: it is kept as an error, without its changes"
            );
            return admissions.pop().ok_or(TxError::Raced);
        }
        Err(TxError::Db(error)) if is_data(&error) || is_unclear(&error) => error,
        Err(error) => return Err(error),
    };
    // Either nothing of its size can be written now, or this arrival alone cannot.
    pool::begin_part(conn).await?;
    let probe = row.probe();
    let written = match offer(conn, &[&probe], now).await {
        Ok(taken) => store(conn, &[&probe], &taken, now).await,
        Err(error) => Err(error),
    };
    pool::undo_part(conn).await?;
    written?;
    Err(TxError::Culprit { index, error })
}

/// Stores arrivals so that they can be undone by themselves.
async fn part(
    conn: &AsyncPgConnection,
    rows: &[&Prepared],
    now: Timestamp,
) -> Result<Vec<Admission>, TxError> {
    pool::begin_part(conn).await?;
    let done = match offer(conn, rows, now).await {
        Ok(taken) => store(conn, rows, &taken, now).await,
        Err(error) => Err(error),
    };
    pool::end_part(conn, done).await
}

/// Each arrival and what has been decided about it.
type Decided<'a> = Vec<(&'a Prepared, Outcome)>;

/// Decides about each arrival, of whose request ids the ledger took `taken`.
async fn admit<'a>(
    conn: &AsyncPgConnection,
    rows: &[&'a Prepared],
    taken: &HashSet<Name<'_>>,
) -> Result<(Vec<Admission>, Decided<'a>), TxError> {
    let mut known = look_up(conn, rows, taken).await?;
    let (mut admissions, mut decided) = (Vec::new(), Vec::new());
    for row in rows {
        let arrival = &row.arrival;
        let name = name(row);
        let (admission, outcome) = match known.get(&(name.0.into(), name.1.into())) {
            // Recorded before, by a commit whose answer was lost: what is written again changes nothing.
            Some(first) if first.event_id == arrival.event_id => {
                (first.admitted(arrival), Outcome::of(&row.verdict))
            }
            Some(first) => first.repeated(arrival),
            None if arrival.in_ledger && !taken.contains(&name) => {
                // Somebody held this id and gave it up since: the ledger was pruned this very moment.
                return Err(TxError::Raced);
            }
            None => {
                let outcome = Outcome::of(&row.verdict);
                let first = LedgerEntry::of(arrival, &outcome);
                let admission = first.admitted(arrival);
                if arrival.in_ledger {
                    known.insert((name.0.into(), name.1.into()), first);
                }
                (admission, outcome)
            }
        };
        admissions.push(admission);
        decided.push((*row, outcome));
    }
    Ok((admissions, decided))
}

/// Offers the ledger each request id once, with the first arrival that may take it; returns those that
/// it took. An id that another server is just taking is waited for.
async fn offer<'a>(
    conn: &AsyncPgConnection,
    rows: &[&'a Prepared],
    now: Timestamp,
) -> Result<HashSet<Name<'a>>, TxError> {
    const SQL: &str = "INSERT INTO request_ids (workspace, request_id, digest, claimed, event_id, \
        answer, created_at) SELECT v.*, n.now FROM unnest(?, ?, ?, ?, ?, ?) AS v, \
        (SELECT ? AS now) AS n ORDER BY 1, 2 ON CONFLICT DO NOTHING RETURNING event_id";
    let mut seen = HashSet::new();
    let candidates: Vec<&'a Prepared> = rows
        .iter()
        .copied()
        .filter(|row| row.arrival.in_ledger && seen.insert(name(row)))
        .collect();
    if candidates.is_empty() {
        return Ok(HashSet::new());
    }
    let all = || candidates.iter().map(|row| &row.arrival);
    let answer = |row: &&Prepared| {
        let outcome = Outcome::of(&row.verdict);
        JsonText::of(&LedgerAnswer::new(outcome.status, outcome.answer))
    };
    let answers = candidates.iter().map(answer).collect::<QueryResult<Vec<_>>>()?;
    let claims: Vec<_> = all().map(Arrival::claimed_digest).collect();
    let claims = claims.iter().map(|claim| claim.as_ref().map(|one| one.as_bytes().as_slice()));
    let taken: Vec<Uuid> = Statement::<diesel::sql_types::Uuid>::new(SQL)
        .bind::<Array<Text>>(all().map(|one| shown(&one.workspace)).collect::<Vec<_>>())
        .bind::<Array<Text>>(all().map(|one| one.request_id.as_str()).collect::<Vec<_>>())
        .bind::<Array<Binary>>(
            all().map(|one| one.digest.as_bytes().as_slice()).collect::<Vec<_>>(),
        )
        .bind::<Array<Nullable<Binary>>>(claims.collect::<Vec<_>>())
        .bind::<Array<diesel::sql_types::Uuid>>(all().map(|one| one.event_id).collect::<Vec<_>>())
        .bind::<Array<Jsonb>>(answers)
        .bind::<Timestamptz>(At(now))
        .load(&mut &*conn)
        .await?;
    let taken: HashSet<Uuid> = taken.into_iter().collect();
    let rows = candidates.into_iter().filter(|row| taken.contains(&row.arrival.event_id));
    Ok(rows.map(name).collect())
}

/// A row of the ledger: its name, its digests, the audit row, the answer, and that row's state.
type LedgerRow =
    ((String, String), (Vec<u8>, Option<Vec<u8>>), Uuid, JsonText<'static>, Option<State>);

/// The ledger's entries of the request ids that were not just taken, each with the first event's current
/// state while its row exists.
async fn look_up(
    conn: &AsyncPgConnection,
    rows: &[&Prepared],
    taken: &HashSet<Name<'_>>,
) -> Result<HashMap<(String, String), LedgerEntry>, TxError> {
    let names: HashSet<Name<'_>> = rows.iter().map(|row| name(row)).collect();
    let names: Vec<Name<'_>> = names.into_iter().filter(|name| !taken.contains(name)).collect();
    if names.is_empty() {
        return Ok(HashMap::new());
    }
    // This may find more than was asked for: an id of one workspace in another. Nobody looks those up.
    let workspaces: BTreeSet<&str> = names.iter().map(|(workspace, _)| *workspace).collect();
    let workspaces: Vec<_> = workspaces.into_iter().map(shown).collect();
    let ids: Vec<&str> = names.iter().map(|(_, id)| *id).collect();
    let found = request_ids::table
        .left_join(webhook_events::table.on(webhook_events::id.eq(request_ids::event_id)))
        .filter(request_ids::workspace.eq_any(workspaces))
        .filter(request_ids::request_id.eq_any(ids))
        .select((
            (request_ids::workspace, request_ids::request_id),
            (request_ids::digest, request_ids::claimed),
            request_ids::event_id,
            request_ids::answer,
            webhook_events::status.nullable(),
        ))
        .load::<LedgerRow>(&mut &*conn)
        .await?;
    let entry = |(name, (own, claimed), event_id, answer, status): LedgerRow| {
        let answer: LedgerAnswer = json("answer", answer)?;
        let claimed = claimed.map(|bytes| digest("claimed", &bytes)).transpose()?;
        let digest = digest("digest", &own)?;
        let status = status.map_or(answer.status, |state| state.0);
        Ok((name, LedgerEntry { event_id, digest, claimed, status, answer: answer.ids() }))
    };
    Ok(found.into_iter().map(entry).collect::<QueryResult<_>>()?)
}
