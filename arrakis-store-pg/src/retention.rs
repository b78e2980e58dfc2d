//! Pruning, in small transactions that wait for nobody: rows that others hold are left for the next pass.
//!
//! A month of audit rows goes as a whole where everything in it is old and settled: its rows are counted, in parts, and
//! it is dropped. Other rows are deleted.
//!
//! What is deleted and what is made searchable must not pass each other by. So a step holds the position of the
//! index, as whoever indexes does.

use std::time::Duration;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::store::{
    Cutoffs, Prunable, PruneKind, PrunePosition, PruneStep, Pruned, first_id,
};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::error::TxError;
use crate::row::{At, BlockPlace, State, block_key, delete_blocks, shown};
use crate::schema::{
    conversations, message_rows, request_ids, subagents, tool_uses, webhook_events,
};
use crate::statement::Statement;
use crate::{index, months};

mod month;

/// How many bytes of payloads or texts a step deletes before it ends; the last row may go beyond. Each 2 KB of a
/// large value is a row to delete.
const STEP_BYTES: u64 = 4 * 1024 * 1024;

/// The states of rows that may be deleted.
const SETTLED: &str = "status IN ('SUCCESS', 'DUPLICATE', 'INVALID', 'FAILED')";

/// Makes one step.
pub(crate) async fn prune(
    conn: &mut AsyncPgConnection,
    cutoffs: &Cutoffs,
    from: PrunePosition,
    limit: usize,
    now: Timestamp,
) -> Result<PruneStep, TxError> {
    let limit = limit.max(1);
    let (pruned, next) = match from {
        PrunePosition::Events(after) => prune_events(conn, cutoffs, after, limit).await?,
        PrunePosition::Part { after, rows } => month::prune(conn, cutoffs, after, rows).await?,
        PrunePosition::Conversations(after) => {
            prune_conversations(conn, cutoffs, after, limit).await?
        }
        PrunePosition::Ledger(after) => prune_ledger(conn, cutoffs, after, limit).await?,
        // Space is given back by the server's own vacuum.
        PrunePosition::Space => {
            index::forget(conn, now).await?;
            return Ok(PruneStep { pruned: Pruned::default(), next: None });
        }
    };
    Ok(PruneStep { pruned, next: Some(next) })
}

async fn prune_events(
    conn: &mut AsyncPgConnection,
    cutoffs: &Cutoffs,
    after: Uuid,
    limit: usize,
) -> Result<(Pruned, PrunePosition), TxError> {
    use webhook_events::{id, received_at, status, table, workspace};
    let end_of_pass = PrunePosition::Conversations(Uuid::nil());
    let Some(end) = cutoffs.events_below() else { return Ok((Pruned::default(), end_of_pass)) };
    let Some(part) = months::at(conn, next_id(after)).await? else {
        return Ok((Pruned::default(), end_of_pass));
    };
    let begins = part.from.is_some_and(|from| after < from);
    if begins && part.is_month() && months::is_old(conn, &part, cutoffs).await? {
        let after = part.from.map_or(after, id_before);
        return Ok((Pruned::default(), PrunePosition::Part { after, rows: 0 }));
    }
    let (end, mut next) = match part.to {
        Some(to) if to < end => (to, PrunePosition::Events(id_before(to))),
        _ => (end, end_of_pass),
    };
    let size = "coalesce(pg_column_size(raw_body), pg_column_size(request_body), 0)::bigint";
    let rows: Vec<(Uuid, String, State, At, i64)> = table
        .filter(id.gt(after))
        .filter(id.lt(end))
        .order(id.asc())
        .select((id, workspace, status, received_at, sql::<BigInt>(size)))
        .limit(row_limit(limit))
        .load(conn)
        .await?;
    let is_full = rows.len() >= limit;
    let (mut old, mut bytes) = (Vec::new(), 0);
    for (row, owner, State(state), At(at), size) in rows {
        if cutoffs.takes_event(&owner, state, at) {
            bytes += size.unsigned_abs();
            old.push(row);
        }
        if is_full || bytes >= STEP_BYTES {
            next = PrunePosition::Events(row);
        }
        if bytes >= STEP_BYTES {
            break;
        }
    }
    if old.is_empty() {
        return Ok((Pruned::default(), next));
    }
    index::hold(conn).await?;
    let ids: Vec<Uuid> = table
        .filter(id.eq_any(&old))
        .filter(sql::<Bool>(SETTLED))
        .order(id.asc())
        .select(id)
        .for_update()
        .skip_locked()
        .load(conn)
        .await?;
    // The ledger outlives the audit row, and from then on is the only one to know its state.
    const KEEP_STATUS: &str = "UPDATE request_ids AS r \
        SET answer = jsonb_set(r.answer, '{status}', to_jsonb(e.status::text)) \
        FROM webhook_events AS e WHERE e.id = ANY(?) \
        AND r.workspace = e.workspace AND r.request_id = e.request_id \
        AND r.event_id = e.id AND r.answer ->> 'status' <> e.status::text";
    for sql in [
        KEEP_STATUS,
        "DELETE FROM event_search WHERE event_id = ANY(?)",
        "DELETE FROM event_transitions WHERE event_id = ANY(?)",
    ] {
        let ids = Statement::<()>::new(sql).bind::<Array<SqlUuid>>(&ids);
        ids.execute(conn).await?;
    }
    diesel::delete(table.filter(id.eq_any(&ids))).execute(conn).await?;
    Ok((Pruned { events: ids.len() as u64, ..Pruned::default() }, next))
}

fn next_id(id: Uuid) -> Uuid {
    Uuid::from_u128(id.as_u128().saturating_add(1))
}

fn id_before(id: Uuid) -> Uuid {
    Uuid::from_u128(id.as_u128().saturating_sub(1))
}

/// Deletes what belongs to old conversations, up to `limit` rows of it, and those of which nothing is left. A
/// conversation without all of its messages is whole; messages without their conversation are not.
async fn prune_conversations(
    conn: &mut AsyncPgConnection,
    cutoffs: &Cutoffs,
    after: Uuid,
    limit: usize,
) -> Result<(Pruned, PrunePosition), TxError> {
    use conversations::{id, last_event_at, table, workspace};
    let mut next = PrunePosition::Ledger(Uuid::nil());
    let mut pruned = Pruned::default();
    if cutoffs.latest(PruneKind::Conversations).is_none() {
        return Ok((pruned, next));
    }
    let rows: Vec<(Uuid, String, At)> = table
        .filter(id.gt(after))
        .order(id.asc())
        .select((id, workspace, last_event_at))
        .limit(row_limit(limit))
        .load(conn)
        .await?;
    if let Some((last, ..)) = rows.last().filter(|_| rows.len() >= limit) {
        next = PrunePosition::Conversations(*last);
    }
    let takes = |owner: &str, at: &At| cutoffs.takes_conversation(owner, at.0);
    let old = rows.iter().filter(|(_, owner, at)| takes(owner, at));
    let old: Vec<Uuid> = old.map(|row| row.0).collect();
    if old.is_empty() {
        return Ok((pruned, next));
    }
    index::hold(conn).await?;
    let mut budget = Budget { rows: limit, bytes: STEP_BYTES };
    let mut done = after;
    for one in old {
        // An event of this session waits until the step is over, and then begins the conversation anew.
        let held: Option<(String, At)> = table
            .find(one)
            .select((workspace, last_event_at))
            .for_update()
            .skip_locked()
            .get_result(conn)
            .await
            .optional()?;
        if held.is_some_and(|(owner, at)| takes(&owner, &at)) {
            if !budget.delete_parts(conn, one, &mut pruned).await? {
                return Ok((pruned, PrunePosition::Conversations(done)));
            }
            diesel::delete(table.find(one)).execute(conn).await?;
            pruned.conversations += 1;
        }
        done = one;
    }
    Ok((pruned, next))
}

/// How much more a step may delete.
struct Budget {
    rows: usize,
    bytes: u64,
}

impl Budget {
    /// Deletes what belongs to a conversation; returns whether that was all.
    async fn delete_parts(
        &mut self,
        conn: &mut AsyncPgConnection,
        conversation: Uuid,
        pruned: &mut Pruned,
    ) -> QueryResult<bool> {
        let size =
            "(coalesce(pg_column_size(content), 0) + coalesce(pg_column_size(blocks), 0))::bigint";
        let rows: Vec<(Uuid, i64, bool)> = message_rows::table
            .filter(message_rows::conversation_id.eq(conversation))
            .select((message_rows::id, sql::<BigInt>(size), message_rows::content.is_null()))
            .limit(row_limit(self.rows))
            .load(conn)
            .await?;
        let with_blocks = rows.iter().filter(|(.., has_blocks)| *has_blocks);
        let with_blocks: Vec<Uuid> = with_blocks.map(|(id, ..)| *id).collect();
        if !with_blocks.is_empty() && !self.delete_blocks(conn, &with_blocks).await? {
            return Ok(false);
        }
        let ids = self.take(rows.into_iter().map(|(id, size, _)| (id, size)));
        forget_texts(conn, &ids).await?;
        let these = message_rows::table.filter(message_rows::id.eq_any(&ids));
        pruned.messages += diesel::delete(these).execute(conn).await? as u64;

        let size = "(coalesce(pg_column_size(parameters), 0) \
            + coalesce(pg_column_size(response), 0))::bigint";
        let rows: Vec<(Uuid, i64)> = tool_uses::table
            .filter(tool_uses::conversation_id.eq(conversation))
            .select((tool_uses::id, sql::<BigInt>(size)))
            .limit(row_limit(self.rows))
            .load(conn)
            .await?;
        let ids = self.take(rows);
        forget_texts(conn, &ids).await?;
        let these = tool_uses::table.filter(tool_uses::id.eq_any(&ids));
        pruned.tool_uses += diesel::delete(these).execute(conn).await? as u64;

        let rows: Vec<(Uuid, i64)> = subagents::table
            .filter(subagents::conversation_id.eq(conversation))
            .select((subagents::id, sql::<BigInt>("0::bigint")))
            .limit(row_limit(self.rows))
            .load(conn)
            .await?;
        let ids = self.take(rows);
        let these = subagents::table.filter(subagents::id.eq_any(&ids));
        pruned.subagents += diesel::delete(these).execute(conn).await? as u64;
        // With nothing left to spend there may be more.
        Ok(self.rows > 0 && self.bytes > 0)
    }

    /// Deletes blocks of messages, the last ones first: a message without those is whole. Returns whether that was
    /// all.
    async fn delete_blocks(
        &mut self,
        conn: &mut AsyncPgConnection,
        messages: &[Uuid],
    ) -> QueryResult<bool> {
        const SQL: &str = "SELECT message_id, at, block_index, line, n, \
            coalesce(pg_column_size(value), 0)::bigint FROM message_blocks WHERE message_id = ANY(?) \
            ORDER BY message_id, at DESC, block_index DESC, line DESC, n DESC LIMIT ?";
        type Columns = (diesel::sql_types::Uuid, Timestamptz, BigInt, Text, BigInt, BigInt);
        let rows: Vec<(Uuid, At, i64, String, i64, i64)> = Statement::<Columns>::new(SQL)
            .bind::<Array<diesel::sql_types::Uuid>>(messages)
            .bind::<BigInt>(row_limit(self.rows))
            .load(conn)
            .await?;
        let rows =
            rows.into_iter().map(|(id, at, index, line, n, size)| ((id, at, index, line, n), size));
        let places = self.take(rows);
        let key = |place: &BlockPlace| Ok((place.0, block_key(place)?));
        let keys = places.iter().map(key).collect::<QueryResult<Vec<_>>>()?;
        let keys: Vec<_> = keys.iter().map(|(id, key)| (*id, key)).collect();
        delete_blocks(&keys).execute(conn).await?;
        Ok(self.rows > 0 && self.bytes > 0)
    }

    /// Those of these rows that the budget is enough for.
    fn take<T>(&mut self, rows: impl IntoIterator<Item = (T, i64)>) -> Vec<T> {
        let mut taken = Vec::new();
        for (id, bytes) in rows {
            if self.rows == 0 || self.bytes == 0 {
                break;
            }
            self.rows -= 1;
            self.bytes = self.bytes.saturating_sub(bytes.unsigned_abs());
            taken.push(id);
        }
        taken
    }
}

async fn forget_texts(conn: &mut AsyncPgConnection, ids: &[Uuid]) -> QueryResult<()> {
    Statement::<()>::new("DELETE FROM subject_search WHERE subject_id = ANY(?)")
        .bind::<Array<SqlUuid>>(ids)
        .execute(conn)
        .await?;
    Ok(())
}

/// Deletes old entries of the ledger whose audit row is gone.
async fn prune_ledger(
    conn: &mut AsyncPgConnection,
    cutoffs: &Cutoffs,
    after: Uuid,
    limit: usize,
) -> Result<(Pruned, PrunePosition), TxError> {
    use request_ids::{event_id, table, workspace};
    let mut next = PrunePosition::Space;
    let Some(end) = cutoffs.ledger_below() else {
        return Ok((Pruned::default(), next));
    };
    let has_row = "EXISTS (SELECT FROM webhook_events AS e WHERE e.id = event_id)";
    let rows: Vec<(String, Uuid, bool)> = table
        .filter(event_id.gt(after))
        .filter(event_id.lt(end))
        .order(event_id.asc())
        .select((workspace, event_id, sql::<Bool>(has_row)))
        .limit(row_limit(limit))
        .load(conn)
        .await?;
    if let Some((_, last, _)) = rows.last().filter(|_| rows.len() >= limit) {
        next = PrunePosition::Ledger(*last);
    }
    let is_old = |row: &&(String, Uuid, bool)| !row.2 && cutoffs.takes_entry(&row.0, row.1);
    let old: Vec<Uuid> = rows.iter().filter(is_old).map(|row| row.1).collect();
    if old.is_empty() {
        return Ok((Pruned::default(), next));
    }
    let ledger = diesel::delete(table.filter(event_id.eq_any(&old))).execute(conn).await? as u64;
    Ok((Pruned { ledger, ..Pruned::default() }, next))
}

/// What a pass would delete.
pub(crate) async fn prunable(
    conn: &mut AsyncPgConnection,
    cutoffs: &Cutoffs,
) -> Result<Vec<Prunable>, TxError> {
    let mut all = Vec::new();
    for kind in [PruneKind::Events, PruneKind::Conversations, PruneKind::Ledger] {
        for (workspace, cutoff) in cutoffs.all() {
            if let Some(before) = cutoff.of(kind) {
                all.extend(count(conn, kind, before, workspace, cutoffs).await?);
            }
        }
    }
    all.sort();
    Ok(all)
}

/// Counts what is older than `before` in one workspace, or in each of those that have no moments of their own.
async fn count(
    conn: &mut AsyncPgConnection,
    kind: PruneKind,
    before: Timestamp,
    workspace: Option<&str>,
    cutoffs: &Cutoffs,
) -> QueryResult<Vec<Prunable>> {
    const EVENTS: &str = "SELECT workspace, count(*), min(received_at), \
        sum(coalesce(pg_column_size(raw_body), pg_column_size(request_body), 0))::bigint \
        FROM webhook_events WHERE received_at < ? AND id < ? \
        AND status IN ('SUCCESS', 'DUPLICATE', 'INVALID', 'FAILED') \
        AND (workspace = ? OR (? AND NOT workspace = ANY(?))) GROUP BY workspace";
    const CONVERSATIONS: &str = "SELECT workspace, count(*), min(last_event_at), NULL::bigint \
        FROM conversations WHERE last_event_at < ? \
        AND (workspace = ? OR (? AND NOT workspace = ANY(?))) GROUP BY workspace";
    // An entry whose audit row is settled goes with it: that is older than it need be.
    const LEDGER: &str = "SELECT workspace, count(*), NULL::timestamptz, NULL::bigint \
        FROM request_ids AS r WHERE event_id < ? AND NOT EXISTS (SELECT FROM webhook_events AS e \
        WHERE e.id = r.event_id AND e.status NOT IN ('SUCCESS', 'DUPLICATE', 'INVALID', 'FAILED')) \
        AND (workspace = ? OR (? AND NOT workspace = ANY(?))) GROUP BY workspace";
    type Row = (String, i64, Option<At>, Option<i64>);
    type Sql = (Text, BigInt, Nullable<Timestamptz>, Nullable<BigInt>);
    let named: Vec<_> = cutoffs.named().map(shown).collect();
    let statement = match kind {
        // Ids begin with the millisecond of receipt, so later months are not read.
        PruneKind::Events => Statement::<Sql>::new(EVENTS)
            .bind::<Timestamptz>(At(before))
            .bind::<SqlUuid>(first_id(before.plus(Duration::from_millis(1)))),
        PruneKind::Conversations => {
            Statement::<Sql>::new(CONVERSATIONS).bind::<Timestamptz>(At(before))
        }
        PruneKind::Ledger => Statement::<Sql>::new(LEDGER).bind::<SqlUuid>(first_id(before)),
    };
    let rows: Vec<Row> = statement
        .bind::<Nullable<Text>>(workspace.map(shown))
        .bind::<Bool>(workspace.is_none())
        .bind::<Array<Text>>(named)
        .load(conn)
        .await?;
    let prunable = |(workspace, count, oldest, bytes): Row| Prunable {
        workspace,
        kind,
        count: count.unsigned_abs(),
        oldest: oldest.map(|at| at.0),
        bytes: bytes.map(i64::unsigned_abs),
    };
    Ok(rows.into_iter().map(prunable).collect())
}

fn row_limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
