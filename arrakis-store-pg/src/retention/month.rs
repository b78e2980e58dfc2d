//! A month of audit rows that goes as a whole.

use arrakis_core::record::store::{Cutoffs, PrunePosition, Pruned};
use diesel::result::QueryResult;
use diesel::sql_types::{BigInt, Nullable, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::{id_before, next_id};
use crate::error::{TxError, is_unclear};
use crate::statement::Statement;
use crate::{index, months, pool};

/// How many rows of a month are counted in a step, from the index alone.
const COUNTED_ROWS: i64 = 100_000;

/// Counts more rows of a month that is old, behind `rows` of them, and tells the ledger how they ended. When that is done
/// with all, drops the month.
pub(super) async fn prune(
    conn: &mut AsyncPgConnection,
    cutoffs: &Cutoffs,
    after: Uuid,
    rows: u64,
) -> Result<(Pruned, PrunePosition), TxError> {
    const COUNT: &str = "WITH more AS (\
            SELECT id FROM webhook_events WHERE id > ? AND id < ? ORDER BY id LIMIT ?) \
        SELECT count(*), (SELECT id FROM more ORDER BY id DESC LIMIT 1) FROM more";
    let part = months::at(conn, next_id(after)).await?;
    let Some((month, to)) = part.and_then(|part| part.to.map(|to| (part, to))) else {
        return Ok((Pruned::default(), PrunePosition::Events(after)));
    };
    let (counted, last): (i64, Option<Uuid>) = Statement::<(BigInt, Nullable<SqlUuid>)>::new(COUNT)
        .bind::<SqlUuid>(after)
        .bind::<SqlUuid>(to)
        .bind::<BigInt>(COUNTED_ROWS)
        .get_result(conn)
        .await?;
    let rows = rows + counted.unsigned_abs();
    if let Some(last) = last.filter(|_| counted == COUNTED_ROWS) {
        keep_final_status(conn, after, next_id(last)).await?;
        return Ok((Pruned::default(), PrunePosition::Part { after: last, rows }));
    }
    keep_final_status(conn, after, to).await?;
    index::hold(conn).await?;
    pool::begin_part(conn).await?;
    let dropped = months::drop_old(conn, &month, cutoffs).await;
    match pool::end_part(conn, dropped).await {
        Ok(true) => {
            let pruned = Pruned { events: rows, ..Pruned::default() };
            Ok((pruned, PrunePosition::Events(id_before(to))))
        }
        // Something in it is needed again: what else there is goes row by row.
        Ok(false) => {
            let next = month.from.unwrap_or(after);
            Ok((Pruned::default(), PrunePosition::Events(next)))
        }
        Err(TxError::Db(error)) if is_unclear(&error) => {
            tracing::warn!(%error, "an old month of events cannot be dropped now; the next pass tries again");
            Ok((Pruned::default(), PrunePosition::Events(id_before(to))))
        }
        Err(error) => Err(error),
    }
}

/// Tells the ledger the states of the audit rows behind `after` and before `end`: it outlives them, and is the only one to
/// know then. Where it may not know yet there is a trail.
async fn keep_final_status(
    conn: &mut AsyncPgConnection,
    after: Uuid,
    end: Uuid,
) -> QueryResult<()> {
    const KEEP: &str = "UPDATE request_ids AS r \
        SET answer = jsonb_set(r.answer, '{status}', to_jsonb(e.status::text)) \
        FROM webhook_events AS e WHERE e.id IN (\
            SELECT event_id FROM event_transitions WHERE event_id > ? AND event_id < ?) \
        AND e.id > ? AND e.id < ? \
        AND r.workspace = e.workspace AND r.request_id = e.request_id \
        AND r.event_id = e.id AND r.answer ->> 'status' <> e.status::text";
    let range = Statement::<()>::new(KEEP).bind::<SqlUuid>(after).bind::<SqlUuid>(end);
    range.bind::<SqlUuid>(after).bind::<SqlUuid>(end).execute(conn).await?;
    Ok(())
}
