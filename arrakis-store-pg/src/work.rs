//! What happens to audit rows after they are recorded: claims, completion, changes of state.

use std::collections::HashSet;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::adapter::{Counts, LedgerAnswer, Outcome, failure_text};
use arrakis_core::record::store::{Arrival, Claim, StoreError, Verdict};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, Bool, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::apply::Applying;
use crate::error::{TxError, is_unclear};
use crate::feed::{self, Touched};
use crate::pool;
use crate::rollups;
use crate::row::{ArrivalRow, At, JsonText, State, shown};
use crate::schema::{request_ids, sql_types, webhook_events};
use crate::statement::Statement;

/// Who is named in the trail for what the store's own workers do.
const WORKER: &str = "worker";

/// Takes up to `limit` rows that are due. Rows that another server is just taking are left to it.
pub(crate) async fn claim_due(
    conn: &mut AsyncPgConnection,
    now: Timestamp,
    stalled: Timestamp,
    limit: usize,
) -> Result<Vec<Claim>, TxError> {
    let mut due: Vec<DueRow> = Vec::new();
    for kind in [Due::Pending, Due::Retry, Due::Error, Due::Stalled] {
        let left = limit.saturating_sub(due.len());
        due.extend(kind.rows(conn, now, stalled, left).await?);
    }
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = due.iter().map(|row| row.0).collect();
    let mut counts = rollups::leaving(conn, &ids).await?;
    let of = |state: EventStatus| {
        let rows = due.iter().filter(move |row| row.1.0 == state);
        rows.map(|(id, _, code, message)| (*id, failure_text(code.as_deref(), message.as_deref())))
            .collect::<Vec<_>>()
    };
    use EventStatus::{Error, Pending, PendingRetry, Processing};
    let by_worker = Change { actor: WORKER, now };
    let stalled: Vec<_> = of(Processing)
        .into_iter()
        .map(|(id, _)| (id, "its worker did not finish in time".to_owned()))
        .collect();
    by_worker.make(conn, Processing, Pending, &stalled).await?;
    by_worker.make(conn, Error, PendingRetry, &of(Error)).await?;
    let claimed = |row: &DueRow| (row.0, "claimed".to_owned());
    let (again, new): (Vec<_>, Vec<_>) =
        due.iter().partition(|row| matches!(row.1.0, Error | PendingRetry));
    let again: Vec<_> = again.into_iter().map(claimed).collect();
    let new: Vec<_> = new.into_iter().map(claimed).collect();
    by_worker.make(conn, PendingRetry, Processing, &again).await?;
    by_worker.make(conn, Pending, Processing, &new).await?;
    let claims = claims(conn, &ids).await?;
    rollups::joining(conn, &ids, &mut counts).await?;
    feed::commit(conn, &Touched::events(ids, counts), now).await?;
    Ok(claims)
}

/// A row that is due: its id, its state, and how it last failed.
type DueRow = (Uuid, State, Option<String>, Option<String>);

/// Why a row is due. The states are literals, because a partial index serves only what the planner can
/// prove to be inside it.
#[derive(Clone, Copy)]
enum Due {
    Pending,
    Retry,
    Error,
    Stalled,
}

impl Due {
    async fn rows(
        self,
        conn: &mut AsyncPgConnection,
        now: Timestamp,
        stalled: Timestamp,
        limit: usize,
    ) -> QueryResult<Vec<DueRow>> {
        use webhook_events::{
            claimed_at, error_code, error_message, id, retry_after, status, table,
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let query = table
            .order((retry_after.asc(), id.asc()))
            .select((id, status, error_code, error_message))
            .limit(limit);
        let of = diesel::dsl::sql::<Bool>;
        match self {
            Self::Pending => {
                let query = query.filter(of("status = 'PENDING'"));
                query.for_update().skip_locked().load(conn).await
            }
            Self::Retry => {
                let query = query.filter(of("status = 'PENDING_RETRY'"));
                let query = query.filter(retry_after.le(At(now)));
                query.for_update().skip_locked().load(conn).await
            }
            Self::Error => {
                let query = query.filter(of("status = 'ERROR'")).filter(retry_after.le(At(now)));
                query.for_update().skip_locked().load(conn).await
            }
            Self::Stalled => {
                let query = query.filter(of("status = 'PROCESSING'"));
                let query = query.filter(claimed_at.lt(At(stalled)));
                query.for_update().skip_locked().load(conn).await
            }
        }
    }
}

async fn claims(conn: &mut AsyncPgConnection, ids: &[Uuid]) -> QueryResult<Vec<Claim>> {
    let rows: Vec<ArrivalRow> = webhook_events::table
        .filter(webhook_events::id.eq_any(ids))
        .order(webhook_events::id.asc())
        .select(ArrivalRow::as_select())
        .load(conn)
        .await?;
    let in_ledger: Vec<Uuid> = request_ids::table
        .inner_join(
            webhook_events::table.on(webhook_events::workspace
                .eq(request_ids::workspace)
                .and(webhook_events::request_id.eq(request_ids::request_id))),
        )
        .filter(webhook_events::id.eq_any(ids))
        .filter(request_ids::event_id.eq(webhook_events::id))
        .select(webhook_events::id)
        .load(conn)
        .await?;
    let in_ledger: HashSet<Uuid> = in_ledger.into_iter().collect();
    let claim = |row: ArrivalRow| {
        Ok(Claim {
            retry_count: u32::try_from(row.retry_count).unwrap_or(u32::MAX),
            token: row.claim_token.to_string(),
            arrival: {
                let named = in_ledger.contains(&row.id);
                row.into_arrival(named)?
            },
        })
    };
    rows.into_iter().map(claim).collect()
}

/// Ends a claim; returns whether it still held. Where the database refuses what the verdict applies, that
/// is told from a database that cannot write.
pub(crate) async fn complete(
    conn: &mut AsyncPgConnection,
    claim: &Claim,
    verdict: &Verdict,
    retry_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<bool, TxError> {
    pool::begin_part(conn).await?;
    let done = complete_part(conn, claim, verdict, retry_at, now).await;
    match pool::end_part(conn, done).await {
        Err(TxError::Db(error)) if is_unclear(&error) => {
            feed::probe(conn, now).await?;
            Err(TxError::Culprit { index: 0, error })
        }
        done => done,
    }
}

async fn complete_part(
    conn: &mut AsyncPgConnection,
    claim: &Claim,
    verdict: &Verdict,
    retry_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<bool, TxError> {
    let id = claim.arrival.event_id;
    let held = webhook_events::table
        .find(id)
        .select((webhook_events::status, webhook_events::claim_token))
        .for_update()
        .get_result::<(State, i64)>(conn)
        .await
        .optional()?;
    let held = held.is_some_and(|(status, token)| {
        status.0 == EventStatus::Processing && token.to_string() == claim.token
    });
    if !held {
        return Ok(false);
    }
    let mut counts = rollups::leaving(conn, &[id]).await?;
    let outcome = Outcome::of(verdict);
    let mut applying = Applying::default();
    if let Verdict::Apply(changes) = verdict {
        applying.0.add(&claim.arrival.workspace, changes);
    }
    let started = applying.start(conn).await?;
    set_outcome(conn, id, &outcome, now).await?;
    let status = finish(conn, id, &outcome, retry_at, now).await?;
    rollups::joining(conn, &[id], &mut counts).await?;
    applying.finish(conn, started, Touched::events(vec![id], counts), now).await?;
    let answer = JsonText::of(&LedgerAnswer::new(status, outcome.answer))?;
    let Arrival { workspace, request_id, .. } = &claim.arrival;
    diesel::update(request_ids::table.find((shown(workspace), request_id.as_str())))
        .filter(request_ids::event_id.eq(id))
        .set(request_ids::answer.eq(answer))
        .execute(conn)
        .await?;
    Ok(true)
}

/// Writes what a verdict says into the row.
async fn set_outcome(
    conn: &mut AsyncPgConnection,
    id: Uuid,
    outcome: &Outcome,
    now: Timestamp,
) -> QueryResult<()> {
    let answer = outcome.answer;
    let error = outcome.error.as_ref();
    diesel::update(webhook_events::table.find(id))
        .set((
            webhook_events::conversation_id.eq(answer.conversation_id),
            webhook_events::message_id.eq(answer.message_id),
            webhook_events::tool_use_id.eq(answer.tool_use_id),
            webhook_events::error_code.eq(error.map(|(code, _)| shown(code))),
            webhook_events::error_message.eq(error.map(|(_, message)| shown(message))),
            webhook_events::error_stack.eq(None::<&str>),
            webhook_events::retry_count.eq(webhook_events::retry_count + 1),
            webhook_events::retry_after.eq(None::<At>),
            webhook_events::updated_at.eq(At(now)),
        ))
        .execute(conn)
        .await?;
    Ok(())
}

/// Brings a claimed row into the state after its verdict; returns that state.
async fn finish(
    conn: &mut AsyncPgConnection,
    id: Uuid,
    outcome: &Outcome,
    retry_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<EventStatus, TxError> {
    use EventStatus::{Error, Failed, PendingRetry, Processing};
    let by_worker = Change { actor: WORKER, now };
    let status = outcome.status;
    if status != Error {
        by_worker.make(conn, Processing, status, &[(id, "completed".to_owned())]).await?;
        return Ok(status);
    }
    let (code, message) = outcome
        .error
        .as_ref()
        .map_or((None, None), |(code, message)| (Some(code.as_ref()), Some(message.as_ref())));
    let change = [(id, failure_text(code, message))];
    by_worker.make(conn, Processing, Error, &change).await?;
    let status = if retry_at.is_some() { PendingRetry } else { Failed };
    by_worker.make(conn, Error, status, &change).await?;
    diesel::update(webhook_events::table.find(id))
        .set(webhook_events::retry_after.eq(retry_at.map(At)))
        .execute(conn)
        .await?;
    Ok(status)
}

/// Changes the state of a row because `actor` asked for it.
pub(crate) async fn transition(
    conn: &mut AsyncPgConnection,
    event_id: Uuid,
    to: EventStatus,
    actor: &str,
    reason: &str,
    now: Timestamp,
) -> Result<(), TxError> {
    let from = state_of(conn, event_id).await?;
    if !from.may_become(to) {
        return Err(TxError::Refused(StoreError::IllegalTransition { from, to }));
    }
    let mut counts = rollups::leaving(conn, &[event_id]).await?;
    let change = Change { actor, now };
    change.make(conn, from, to, &[(event_id, reason.to_owned())]).await?;
    rollups::joining(conn, &[event_id], &mut counts).await?;
    if to == EventStatus::Pending {
        // A redriven row has all its tries before it.
        diesel::update(webhook_events::table.find(event_id))
            .set((
                webhook_events::retry_count.eq(0),
                webhook_events::retry_after.eq(None::<At>),
                webhook_events::processed_at.eq(None::<At>),
            ))
            .execute(conn)
            .await?;
    }
    feed::commit(conn, &Touched::events(vec![event_id], counts), now).await?;
    Ok(())
}

/// The state of a row that is not discarded; the row is locked.
async fn state_of(conn: &mut AsyncPgConnection, event_id: Uuid) -> Result<EventStatus, TxError> {
    let found = webhook_events::table
        .find(event_id)
        .filter(webhook_events::discarded_at.is_null())
        .select(webhook_events::status)
        .for_update()
        .get_result::<State>(conn)
        .await
        .optional()?;
    let not_found = || TxError::Refused(StoreError::NotFound(format!("event {event_id}")));
    found.map(|State(status)| status).ok_or_else(not_found)
}

/// Discards a row in `FAILED` because `actor` asked for it.
pub(crate) async fn discard(
    conn: &mut AsyncPgConnection,
    event_id: Uuid,
    actor: &str,
    reason: &str,
    now: Timestamp,
) -> Result<(), TxError> {
    let from = state_of(conn, event_id).await?;
    let to = EventStatus::Failed;
    if from != to {
        return Err(TxError::Refused(StoreError::IllegalTransition { from, to }));
    }
    give_up(conn, &[event_id], actor, reason, now).await?;
    feed::commit(conn, &Touched::events(vec![event_id], Counts::default()), now).await?;
    Ok(())
}

/// Marks rows in `FAILED` as discarded, for a transaction that tells the feed itself.
pub(crate) async fn give_up(
    conn: &mut AsyncPgConnection,
    ids: &[Uuid],
    actor: &str,
    reason: &str,
    now: Timestamp,
) -> QueryResult<()> {
    diesel::update(webhook_events::table.filter(webhook_events::id.eq_any(ids)))
        .set((webhook_events::discarded_at.eq(At(now)), webhook_events::updated_at.eq(At(now))))
        .execute(conn)
        .await?;
    let rows: Vec<_> = ids.iter().map(|id| (*id, reason.to_owned())).collect();
    let (from, to) = (EventStatus::Failed, EventStatus::Failed);
    Change { actor, now }.leave_trail(conn, from, to, &rows).await
}

/// Changes of state by one actor at one moment. Every change of state passes here.
struct Change<'a> {
    actor: &'a str,
    now: Timestamp,
}

impl Change<'_> {
    /// Changes the state of rows, each for its reason, and leaves rows in the trail.
    async fn make(
        &self,
        conn: &mut AsyncPgConnection,
        from: EventStatus,
        to: EventStatus,
        rows: &[(Uuid, String)],
    ) -> QueryResult<()> {
        use webhook_events::{claim_token, claimed_at, id, processed_at, status, updated_at};
        if rows.is_empty() {
            return Ok(());
        }
        let ids: Vec<Uuid> = rows.iter().map(|row| row.0).collect();
        let these = webhook_events::table.filter(id.eq_any(&ids));
        if to == EventStatus::Processing {
            diesel::update(these)
                .set((
                    status.eq(State(to)),
                    updated_at.eq(At(self.now)),
                    claimed_at.eq(At(self.now)),
                    claim_token.eq(claim_token + 1),
                ))
                .execute(conn)
                .await?;
        } else {
            use EventStatus::{Duplicate, Failed, Invalid, Success};
            let is_final = matches!(to, Success | Invalid | Failed | Duplicate);
            diesel::update(these)
                .set((
                    status.eq(State(to)),
                    updated_at.eq(At(self.now)),
                    claimed_at.eq(None::<At>),
                    processed_at.eq(is_final.then_some(At(self.now))),
                ))
                .execute(conn)
                .await?;
        }
        self.leave_trail(conn, from, to, rows).await
    }

    /// Tells the trail what happened to rows.
    async fn leave_trail(
        &self,
        conn: &mut AsyncPgConnection,
        from: EventStatus,
        to: EventStatus,
        rows: &[(Uuid, String)],
    ) -> QueryResult<()> {
        const TRAIL: &str = "INSERT INTO event_transitions \
            (event_id, from_status, to_status, at, actor, reason) \
            SELECT v.id, n.from_status, n.to_status, n.at, n.actor, v.reason \
            FROM unnest(?, ?) AS v (id, reason), \
            (SELECT ? AS from_status, ? AS to_status, ? AS at, ? AS actor) AS n";
        Statement::<()>::new(TRAIL)
            .bind::<Array<diesel::sql_types::Uuid>>(
                rows.iter().map(|row| row.0).collect::<Vec<_>>(),
            )
            .bind::<Array<Text>>(rows.iter().map(|row| shown(&row.1)).collect::<Vec<_>>())
            .bind::<sql_types::EventStatus>(State(from))
            .bind::<sql_types::EventStatus>(State(to))
            .bind::<Timestamptz>(At(self.now))
            .bind::<Text>(shown(self.actor))
            .execute(conn)
            .await?;
        Ok(())
    }
}
