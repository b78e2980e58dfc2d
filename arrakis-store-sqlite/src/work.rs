//! What happens to audit rows after they are recorded: claims, completion, changes of state.

use std::slice;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::adapter::{Counts, LedgerAnswer, Merged, Outcome, failure_text};
use arrakis_core::record::store::{Arrival, Claim, StoreError, Verdict};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::Bool;
use uuid::Uuid;

use crate::apply;
use crate::error::TxError;
use crate::feed::Touched;
use crate::rollups;
use crate::row::{ArrivalRow, Now, parse, to_json};
use crate::schema::{event_transitions, request_ids, webhook_events};

/// Who is named in the trail for what the store's own workers do.
const WORKER: &str = "worker";

/// Takes up to `limit` rows that are due.
pub(crate) fn claim_due(
    conn: &mut SqliteConnection,
    due: Timestamp,
    stalled: Timestamp,
    limit: usize,
) -> Result<Vec<Claim>, TxError> {
    let now = &Now::new(due);
    let mut ids: Vec<String> = Vec::new();
    for kind in [Due::Pending, Due::Retry, Due::Error, Due::Stalled] {
        ids.extend(kind.ids(conn, due, stalled, limit.saturating_sub(ids.len()))?);
    }
    let mut counts = rollups::leaving(conn, &ids)?;
    let claims = ids.iter().map(|id| claim(conn, id, now)).collect::<Result<_, _>>()?;
    rollups::joining(conn, &ids, &mut counts)?;
    Touched::events(ids, counts).write(conn, now)?;
    Ok(claims)
}

/// Why a row is due. The states are literals, because a partial index serves only what SQLite can
/// prove to be inside it when it prepares the statement.
#[derive(Clone, Copy)]
enum Due {
    Pending,
    Retry,
    Error,
    Stalled,
}

impl Due {
    fn ids(
        self,
        conn: &mut SqliteConnection,
        due: Timestamp,
        stalled: Timestamp,
        limit: usize,
    ) -> QueryResult<Vec<String>> {
        use webhook_events::{claimed_at, id, retry_after, table};
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let state = match self {
            Self::Pending => "status = 'PENDING'",
            Self::Retry => "status = 'PENDING_RETRY'",
            Self::Error => "status = 'ERROR'",
            Self::Stalled => "status = 'PROCESSING'",
        };
        let mut query = table
            .filter(diesel::dsl::sql::<Bool>(state))
            .order((retry_after.asc(), id.asc()))
            .select(id)
            .limit(limit)
            .into_boxed();
        query = match self {
            Self::Pending => query,
            Self::Retry | Self::Error => query.filter(retry_after.le(due.to_string())),
            Self::Stalled => query.filter(claimed_at.lt(stalled.to_string())),
        };
        query.load(conn)
    }
}

fn claim(conn: &mut SqliteConnection, id: &str, now: &Now) -> Result<Claim, TxError> {
    let (status, code, message) = webhook_events::table
        .find(id)
        .select((webhook_events::status, webhook_events::error_code, webhook_events::error_message))
        .get_result::<(String, Option<String>, Option<String>)>(conn)?;
    let mut by_worker = |from, to, reason: &str| change(conn, id, from, to, WORKER, reason, now);
    match parse("status", &status)? {
        EventStatus::Processing => {
            let reason = "its worker did not finish in time";
            by_worker(EventStatus::Processing, EventStatus::Pending, reason)?;
            by_worker(EventStatus::Pending, EventStatus::Processing, "claimed")?;
        }
        EventStatus::Error => {
            let reason = failure_text(code.as_deref(), message.as_deref());
            by_worker(EventStatus::Error, EventStatus::PendingRetry, &reason)?;
            by_worker(EventStatus::PendingRetry, EventStatus::Processing, "claimed")?;
        }
        from => by_worker(from, EventStatus::Processing, "claimed")?,
    }
    let row = webhook_events::table.find(id).select(ArrivalRow::as_select()).get_result(conn)?;
    let in_ledger = ledger_names(conn, id)?;
    Ok(Claim {
        retry_count: u32::try_from(row.retry_count).unwrap_or(u32::MAX),
        token: row.claim_token.to_string(),
        arrival: row.into_arrival(in_ledger)?,
    })
}

/// Ends a claim; returns whether it still held.
pub(crate) fn complete(
    conn: &mut SqliteConnection,
    claim: &Claim,
    verdict: &Verdict,
    retry_at: Option<Timestamp>,
    now: &Now,
) -> Result<bool, TxError> {
    let id = claim.arrival.event_id.to_string();
    let held = webhook_events::table
        .find(&id)
        .select((webhook_events::status, webhook_events::claim_token))
        .get_result::<(String, i64)>(conn)
        .optional()?;
    let held = held.is_some_and(|(status, token)| {
        status == EventStatus::Processing.as_str() && token.to_string() == claim.token
    });
    if !held {
        return Ok(false);
    }
    let mut counts = rollups::leaving(conn, slice::from_ref(&id))?;
    let outcome = Outcome::of(verdict);
    let mut touched = Touched::stored([(claim.arrival.workspace.as_str(), id.clone())]);
    if let Verdict::Apply(changes) = verdict {
        let mut merged = Merged::default();
        merged.add(&claim.arrival.workspace, changes);
        apply::write(merged, conn, &mut touched, now)?;
    }
    set_outcome(conn, &id, &outcome, now)?;
    let status = finish(conn, &id, &outcome, retry_at, now)?;
    let Arrival { workspace, request_id, .. } = &claim.arrival;
    diesel::update(request_ids::table.find((workspace, request_id.as_str())))
        .filter(request_ids::event_id.eq(&id))
        .set(request_ids::answer.eq(to_json(&LedgerAnswer::new(status, outcome.answer))?))
        .execute(conn)?;
    rollups::joining(conn, slice::from_ref(&id), &mut counts)?;
    touched.count(counts);
    touched.write(conn, now)?;
    Ok(true)
}

/// Writes what a verdict says into the row.
fn set_outcome(
    conn: &mut SqliteConnection,
    id: &str,
    outcome: &Outcome,
    now: &Now,
) -> QueryResult<()> {
    let answer = outcome.answer;
    let error = outcome.error.as_ref();
    diesel::update(webhook_events::table.find(id))
        .set((
            webhook_events::conversation_id.eq(answer.conversation_id.map(|id| id.to_string())),
            webhook_events::message_id.eq(answer.message_id.map(|id| id.to_string())),
            webhook_events::tool_use_id.eq(answer.tool_use_id.map(|id| id.to_string())),
            webhook_events::error_code.eq(error.map(|(code, _)| code.as_ref())),
            webhook_events::error_message.eq(error.map(|(_, message)| message.as_ref())),
            webhook_events::error_stack.eq(None::<&str>),
            webhook_events::retry_count.eq(webhook_events::retry_count + 1),
            webhook_events::retry_after.eq(None::<&str>),
            webhook_events::updated_at.eq(&now.text),
        ))
        .execute(conn)?;
    Ok(())
}

/// Brings a claimed row into the state after its verdict; returns that state.
fn finish(
    conn: &mut SqliteConnection,
    id: &str,
    outcome: &Outcome,
    retry_at: Option<Timestamp>,
    now: &Now,
) -> Result<EventStatus, TxError> {
    use EventStatus::{Error, Failed, PendingRetry, Processing};
    let status = outcome.status;
    if status != Error {
        change(conn, id, Processing, status, WORKER, "completed", now)?;
        return Ok(status);
    }
    let (code, message) = outcome
        .error
        .as_ref()
        .map_or((None, None), |(code, message)| (Some(code.as_ref()), Some(message.as_ref())));
    let reason = failure_text(code, message);
    change(conn, id, Processing, Error, WORKER, &reason, now)?;
    let status = if retry_at.is_some() { PendingRetry } else { Failed };
    change(conn, id, Error, status, WORKER, &reason, now)?;
    diesel::update(webhook_events::table.find(id))
        .set(webhook_events::retry_after.eq(retry_at.map(|at| at.to_string())))
        .execute(conn)?;
    Ok(status)
}

/// Changes the state of a row because `actor` asked for it.
pub(crate) fn transition(
    conn: &mut SqliteConnection,
    event_id: Uuid,
    to: EventStatus,
    actor: &str,
    reason: &str,
    now: &Now,
) -> Result<(), TxError> {
    let id = event_id.to_string();
    state_of(conn, &id)?;
    let mut counts = rollups::leaving(conn, slice::from_ref(&id))?;
    move_to(conn, &id, to, actor, reason, now)?;
    rollups::joining(conn, slice::from_ref(&id), &mut counts)?;
    Touched::events(vec![id], counts).write(conn, now)?;
    Ok(())
}

/// The same, for a transaction that writes the commit's row itself.
pub(crate) fn move_to(
    conn: &mut SqliteConnection,
    id: &str,
    to: EventStatus,
    actor: &str,
    reason: &str,
    now: &Now,
) -> Result<(), TxError> {
    let from = state_of(conn, id)?;
    if !from.may_become(to) {
        return Err(TxError::Refused(StoreError::IllegalTransition { from, to }));
    }
    change(conn, id, from, to, actor, reason, now)?;
    if to == EventStatus::Pending {
        // A redriven row has all its tries before it.
        diesel::update(webhook_events::table.find(id))
            .set((
                webhook_events::retry_count.eq(0),
                webhook_events::retry_after.eq(None::<&str>),
                webhook_events::processed_at.eq(None::<&str>),
            ))
            .execute(conn)?;
    }
    Ok(())
}

/// The state of a row that is not discarded.
fn state_of(conn: &mut SqliteConnection, id: &str) -> Result<EventStatus, TxError> {
    let found = webhook_events::table
        .find(id)
        .filter(webhook_events::discarded_at.is_null())
        .select(webhook_events::status)
        .get_result::<String>(conn)
        .optional()?;
    match found {
        Some(status) => Ok(parse("status", &status)?),
        None => Err(TxError::Refused(StoreError::NotFound(format!("event {id}")))),
    }
}

/// Discards a row in `FAILED` because `actor` asked for it.
pub(crate) fn discard(
    conn: &mut SqliteConnection,
    event_id: Uuid,
    actor: &str,
    reason: &str,
    now: &Now,
) -> Result<(), TxError> {
    let id = event_id.to_string();
    let from = state_of(conn, &id)?;
    let to = EventStatus::Failed;
    if from != to {
        return Err(TxError::Refused(StoreError::IllegalTransition { from, to }));
    }
    give_up(conn, &id, actor, reason, now)?;
    Touched::events(vec![id], Counts::default()).write(conn, now)?;
    Ok(())
}

/// Marks a row in `FAILED` as discarded, for a transaction that writes the commit's row itself.
pub(crate) fn give_up(
    conn: &mut SqliteConnection,
    id: &str,
    actor: &str,
    reason: &str,
    now: &Now,
) -> QueryResult<()> {
    diesel::update(webhook_events::table.find(id))
        .set((webhook_events::discarded_at.eq(&now.text), webhook_events::updated_at.eq(&now.text)))
        .execute(conn)?;
    leave_trail(conn, id, EventStatus::Failed, EventStatus::Failed, actor, reason, now)
}

/// Changes a row's state and leaves a row in the trail. Every change of state passes here.
fn change(
    conn: &mut SqliteConnection,
    id: &str,
    from: EventStatus,
    to: EventStatus,
    actor: &str,
    reason: &str,
    now: &Now,
) -> QueryResult<()> {
    use webhook_events::{claim_token, claimed_at, processed_at, status, updated_at};
    let row = webhook_events::table.find(id);
    if to == EventStatus::Processing {
        diesel::update(row)
            .set((
                status.eq(to.as_str()),
                updated_at.eq(&now.text),
                claimed_at.eq(&now.text),
                claim_token.eq(claim_token + 1),
            ))
            .execute(conn)?;
    } else {
        let is_final = matches!(
            to,
            EventStatus::Success
                | EventStatus::Invalid
                | EventStatus::Failed
                | EventStatus::Duplicate
        );
        diesel::update(row)
            .set((
                status.eq(to.as_str()),
                updated_at.eq(&now.text),
                claimed_at.eq(None::<&str>),
                processed_at.eq(is_final.then_some(&now.text)),
            ))
            .execute(conn)?;
    }
    leave_trail(conn, id, from, to, actor, reason, now)
}

/// Tells the trail what happened to a row.
fn leave_trail(
    conn: &mut SqliteConnection,
    id: &str,
    from: EventStatus,
    to: EventStatus,
    actor: &str,
    reason: &str,
    now: &Now,
) -> QueryResult<()> {
    diesel::insert_into(event_transitions::table)
        .values((
            event_transitions::event_id.eq(id),
            event_transitions::from_status.eq(from.as_str()),
            event_transitions::to_status.eq(to.as_str()),
            event_transitions::at.eq(&now.text),
            event_transitions::actor.eq(actor),
            event_transitions::reason.eq(reason),
        ))
        .execute(conn)?;
    Ok(())
}

/// The ledger outlives the audit row, and from now on is the only one to know its state.
pub(crate) fn keep_final_status(
    conn: &mut SqliteConnection,
    id: &str,
    (workspace, request_id): (&str, &str),
    status: &str,
) -> QueryResult<()> {
    diesel::sql_query(
        "UPDATE request_ids SET answer = json_set(answer, '$.status', ?) \
         WHERE workspace = ? AND request_id = ? AND event_id = ? AND answer ->> '$.status' <> ?",
    )
    .bind::<diesel::sql_types::Text, _>(status)
    .bind::<diesel::sql_types::Text, _>(workspace)
    .bind::<diesel::sql_types::Text, _>(request_id)
    .bind::<diesel::sql_types::Text, _>(id)
    .bind::<diesel::sql_types::Text, _>(status)
    .execute(conn)?;
    Ok(())
}

fn ledger_names(conn: &mut SqliteConnection, id: &str) -> QueryResult<bool> {
    let entry = request_ids::table
        .inner_join(
            webhook_events::table.on(webhook_events::workspace
                .eq(request_ids::workspace)
                .and(webhook_events::request_id.eq(request_ids::request_id))),
        )
        .filter(webhook_events::id.eq(id))
        .filter(request_ids::event_id.eq(webhook_events::id));
    diesel::select(diesel::dsl::exists(entry)).get_result(conn)
}
