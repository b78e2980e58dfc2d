//! Pruning, in small steps, because each holds the writer.
//!
//! What is old is found beside the writer, in the order of ids; a transaction of its own then deletes what is still
//! old. Deleting is what takes time, so a step ends by its rows or by their bytes, whichever comes first. Space
//! that becomes free is used again; what is left of it goes back to the file system in small steps as well.

use std::time::Duration;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::{
    Cutoffs, Prunable, PruneKind, PrunePosition, PruneStep, Pruned, first_id,
};
use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use uuid::Uuid;

use crate::error::TxError;
use crate::feed::Touched;
use crate::row::{Now, maybe_time, parse, time, to_json, uuid};
use crate::schema::{
    conversations, message_blocks, message_rows, request_ids, subagents, tool_uses, webhook_events,
};
use crate::work;

/// Most rows of a step, whatever is asked for. Each is in ten trees, and events that come meanwhile wait.
pub(crate) const STEP_ROWS: usize = 100;

/// How many bytes of payloads or texts a step deletes before it ends; the last row may go beyond. SQLite visits
/// each page of a value that it deletes.
const STEP_BYTES: u64 = 64 * 1024;

/// Pages that one step gives back to the file system: 1 MiB.
const SPACE_STEP_PAGES: i64 = 256;

/// Free pages that stay in the file, for what is stored next: 4 MiB.
const KEPT_FREE_PAGES: i64 = 1024;

/// The states of rows that may be deleted. The plus keeps SQLite off the index on states, which would read every
/// settled row.
const SETTLED: &str = "+status IN ('SUCCESS', 'DUPLICATE', 'INVALID', 'FAILED')";

/// What a step found: rows that may be deleted, and where the pass continues behind them.
#[derive(Debug)]
pub(crate) struct Found {
    /// Their ids.
    pub(crate) ids: Vec<String>,
    /// Where to continue.
    pub(crate) next: PrunePosition,
}

/// Finds old audit rows among up to `limit` of them behind `after`.
pub(crate) fn old_events(
    conn: &mut SqliteConnection,
    cutoffs: &Cutoffs,
    after: Uuid,
    limit: usize,
) -> QueryResult<Found> {
    use webhook_events::{id, received_at, status, table, workspace};
    let mut found = Found { ids: Vec::new(), next: PrunePosition::Conversations(Uuid::nil()) };
    let Some(end) = cutoffs.events_below() else { return Ok(found) };
    let size = "coalesce(octet_length(raw_body), octet_length(request_body), 0)";
    let rows = table
        .filter(id.gt(after.to_string()))
        .filter(id.lt(end.to_string()))
        .order(id.asc())
        .select((id, workspace, status, received_at, sql::<BigInt>(size)))
        .limit(row_limit(limit))
        .load::<(String, String, String, String, i64)>(conn)?;
    let is_full = rows.len() >= limit;
    let mut bytes = 0;
    for (row, owner, state, at, size) in rows {
        let state: EventStatus = parse("status", &state)?;
        let last = uuid("id", &row)?;
        if cutoffs.takes_event(&owner, state, time("received_at", &at)?) {
            bytes += size.unsigned_abs();
            found.ids.push(row);
        }
        if is_full || bytes >= STEP_BYTES {
            found.next = PrunePosition::Events(last);
        }
        if bytes >= STEP_BYTES {
            break;
        }
    }
    Ok(found)
}

/// Deletes these audit rows, unless they have become unsettled meanwhile, with their trails. The commit names them, so
/// the search index forgets them too.
pub(crate) fn delete_events(
    conn: &mut SqliteConnection,
    ids: &[String],
    now: &Now,
) -> Result<Pruned, TxError> {
    let mut pruned = Pruned::default();
    let mut gone = Vec::new();
    for id in ids {
        let row = webhook_events::table
            .find(id)
            .filter(sql::<Bool>(SETTLED))
            .select((webhook_events::workspace, webhook_events::request_id, webhook_events::status))
            .get_result::<(String, String, String)>(conn)
            .optional()?;
        let Some((workspace, request_id, status)) = row else { continue };
        work::keep_final_status(conn, id, (&workspace, &request_id), &status)?;
        diesel::delete(webhook_events::table.find(id)).execute(conn)?;
        gone.push((workspace, id.clone()));
        pruned.events += 1;
    }
    let gone = gone.iter().map(|(workspace, id)| (workspace.as_str(), id.clone()));
    Touched::stored(gone).write(conn, now)?;
    Ok(pruned)
}

/// Finds old conversations among up to `limit` of them behind `after`.
pub(crate) fn old_conversations(
    conn: &mut SqliteConnection,
    cutoffs: &Cutoffs,
    after: Uuid,
    limit: usize,
) -> QueryResult<Found> {
    use conversations::{id, last_event_at, table, workspace};
    let mut found = Found { ids: Vec::new(), next: PrunePosition::Ledger(Uuid::nil()) };
    if cutoffs.latest(PruneKind::Conversations).is_none() {
        return Ok(found);
    }
    let rows = table
        .filter(id.gt(after.to_string()))
        .order(id.asc())
        .select((id, workspace, last_event_at))
        .limit(row_limit(limit))
        .load::<(String, String, String)>(conn)?;
    if let Some((last, ..)) = rows.last().filter(|_| rows.len() >= limit) {
        found.next = PrunePosition::Conversations(uuid("id", last)?);
    }
    for (row, owner, at) in rows {
        if cutoffs.takes_conversation(&owner, time("last_event_at", &at)?) {
            found.ids.push(row);
        }
    }
    Ok(found)
}

/// Deletes what belongs to these conversations, up to `limit` rows of it, and those of which nothing is left. A
/// conversation without all of its messages is whole; messages without their conversation are not.
pub(crate) fn delete_conversations(
    conn: &mut SqliteConnection,
    cutoffs: &Cutoffs,
    after: Uuid,
    found: &Found,
    limit: usize,
    now: &Now,
) -> Result<PruneStep, TxError> {
    let mut budget = Budget { rows: limit, bytes: STEP_BYTES, gone: Touched::default() };
    let mut pruned = Pruned::default();
    let mut next = Some(found.next);
    let mut done = after;
    for id in &found.ids {
        let row = conversations::table
            .find(id)
            .select((conversations::workspace, conversations::last_event_at))
            .get_result::<(String, String)>(conn)
            .optional()?;
        // It may have gone on meanwhile.
        if let Some((workspace, at)) = row
            && cutoffs.takes_conversation(&workspace, time("last_event_at", &at)?)
        {
            if !budget.delete_parts(conn, (&workspace, id), &mut pruned)? {
                next = Some(PrunePosition::Conversations(done));
                break;
            }
            diesel::delete(conversations::table.find(id)).execute(conn)?;
            pruned.conversations += 1;
        }
        done = uuid("id", id)?;
    }
    budget.gone.write(conn, now)?;
    Ok(PruneStep { pruned, next })
}

/// How much more a step may delete, and what is gone.
struct Budget {
    rows: usize,
    bytes: u64,
    gone: Touched,
}

impl Budget {
    /// Deletes what belongs to a conversation; returns whether that was all.
    fn delete_parts(
        &mut self,
        conn: &mut SqliteConnection,
        (workspace, conversation): (&str, &str),
        pruned: &mut Pruned,
    ) -> QueryResult<bool> {
        let size = "coalesce(octet_length(content), 0) + coalesce(octet_length(blocks), 0)";
        let rows = message_rows::table
            .filter(message_rows::conversation_id.eq(conversation))
            .select((message_rows::id, message_rows::content.is_null(), sql::<BigInt>(size)))
            .limit(row_limit(self.rows))
            .load::<(String, bool, i64)>(conn)?;
        for (id, has_blocks, size) in rows {
            if has_blocks {
                self.delete_blocks(conn, (conversation, &id))?;
            }
            if self.is_used_up() {
                return Ok(false);
            }
            diesel::delete(message_rows::table.find((conversation, &id))).execute(conn)?;
            self.gone.message(workspace, (conversation.to_owned(), id));
            pruned.messages += 1;
            self.take(size);
        }
        let size = "coalesce(octet_length(parameters), 0) + coalesce(octet_length(response), 0)";
        let rows = tool_uses::table
            .filter(tool_uses::conversation_id.eq(conversation))
            .select((tool_uses::id, sql::<BigInt>(size)))
            .limit(row_limit(self.rows))
            .load::<(String, i64)>(conn)?;
        for (id, size) in rows {
            if self.is_used_up() {
                return Ok(false);
            }
            diesel::delete(tool_uses::table.find((conversation, &id))).execute(conn)?;
            self.gone.tool_use(workspace, (conversation.to_owned(), id));
            pruned.tool_uses += 1;
            self.take(size);
        }
        let rows = subagents::table
            .filter(subagents::conversation_id.eq(conversation))
            .select(subagents::id)
            .limit(row_limit(self.rows))
            .load::<String>(conn)?;
        for id in rows {
            diesel::delete(subagents::table.find(&id)).execute(conn)?;
            pruned.subagents += 1;
            self.take(0);
        }
        // With nothing left to spend there may be more.
        Ok(!self.is_used_up())
    }

    /// Deletes blocks of a message, the last ones first: a message without those is whole.
    fn delete_blocks(
        &mut self,
        conn: &mut SqliteConnection,
        place: (&str, &str),
    ) -> QueryResult<()> {
        use message_blocks::{at, block_index, conversation_id, line, message_id, n, table};
        let size = "coalesce(octet_length(value), 0)";
        let rows = table
            .filter(conversation_id.eq(place.0))
            .filter(message_id.eq(place.1))
            .order((at.desc(), block_index.desc(), line.desc(), n.desc()))
            .select((at, block_index, line, n, sql::<BigInt>(size)))
            .limit(row_limit(self.rows))
            .load::<(String, i64, String, i64, i64)>(conn)?;
        for (time, number, of_line, in_line, bytes) in rows {
            if self.is_used_up() {
                break;
            }
            let row = table.find((place.0, place.1, time, number, of_line, in_line));
            diesel::delete(row).execute(conn)?;
            self.take(bytes);
        }
        Ok(())
    }

    fn is_used_up(&self) -> bool {
        self.rows == 0 || self.bytes == 0
    }

    fn take(&mut self, bytes: i64) {
        self.rows = self.rows.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes.unsigned_abs());
    }
}

/// Finds old entries of the ledger among up to `limit` of them behind `after`, by the ids of their events: those
/// whose audit row is gone.
pub(crate) fn old_ledger(
    conn: &mut SqliteConnection,
    cutoffs: &Cutoffs,
    after: Uuid,
    limit: usize,
) -> QueryResult<Found> {
    use request_ids::{event_id, table, workspace};
    let mut found = Found { ids: Vec::new(), next: PrunePosition::Space };
    let Some(end) = cutoffs.ledger_below() else { return Ok(found) };
    let has_row = "EXISTS (SELECT 1 FROM webhook_events AS e WHERE e.id = event_id)";
    let rows = table
        .filter(event_id.gt(after.to_string()))
        .filter(event_id.lt(end.to_string()))
        .order(event_id.asc())
        .select((workspace, event_id, sql::<Bool>(has_row)))
        .limit(row_limit(limit))
        .load::<(String, String, bool)>(conn)?;
    let is_full = rows.len() >= limit;
    for (owner, event, has_row) in rows {
        let id = uuid("event_id", &event)?;
        if is_full {
            found.next = PrunePosition::Ledger(id);
        }
        if !has_row && cutoffs.takes_entry(&owner, id) {
            found.ids.push(event);
        }
    }
    Ok(found)
}

/// Deletes the ledger's entries of these events.
pub(crate) fn delete_ledger(
    conn: &mut SqliteConnection,
    ids: &[String],
) -> Result<Pruned, TxError> {
    let mut pruned = Pruned::default();
    for id in ids {
        let entry = request_ids::table.filter(request_ids::event_id.eq(id));
        pruned.ledger += diesel::delete(entry).execute(conn)? as u64;
    }
    Ok(pruned)
}

/// Gives some free pages back to the file system; returns whether there is more to give. The file becomes smaller
/// with the next checkpoint.
pub(crate) fn give_space_back(conn: &mut SqliteConnection) -> QueryResult<bool> {
    let free = free_pages(conn)?;
    if free <= KEPT_FREE_PAGES {
        return Ok(false);
    }
    let pages = SPACE_STEP_PAGES.min(free - KEPT_FREE_PAGES);
    conn.batch_execute(&format!("PRAGMA incremental_vacuum({pages})"))?;
    // A database that was made without it keeps its pages.
    let left = free_pages(conn)?;
    Ok(left < free && left > KEPT_FREE_PAGES)
}

fn free_pages(conn: &mut SqliteConnection) -> QueryResult<i64> {
    diesel::select(sql::<BigInt>("(SELECT freelist_count FROM pragma_freelist_count)"))
        .get_result(conn)
}

/// What a pass would delete.
pub(crate) fn prunable(
    conn: &mut SqliteConnection,
    cutoffs: &Cutoffs,
) -> QueryResult<Vec<Prunable>> {
    let mut all = Vec::new();
    for kind in [PruneKind::Events, PruneKind::Conversations, PruneKind::Ledger] {
        for (workspace, cutoff) in cutoffs.all() {
            if let Some(before) = cutoff.of(kind) {
                all.extend(count(conn, kind, before, workspace, cutoffs)?);
            }
        }
    }
    all.sort();
    Ok(all)
}

/// Counts what is older than `before` in one workspace, or in each of those that have no moments of their own.
fn count(
    conn: &mut SqliteConnection,
    kind: PruneKind,
    before: Timestamp,
    workspace: Option<&str>,
    cutoffs: &Cutoffs,
) -> QueryResult<Vec<Prunable>> {
    const CONVERSATIONS: &str = "SELECT workspace, count(*) AS count, \
        min(last_event_at) AS oldest, NULL AS bytes FROM conversations WHERE last_event_at < ?1";
    // An entry whose audit row is settled goes with it: that is older than it need be.
    const LEDGER: &str = "SELECT workspace, count(*) AS count, NULL AS oldest, NULL AS bytes \
        FROM request_ids WHERE event_id < ?1 AND NOT EXISTS (SELECT 1 FROM webhook_events AS e \
        WHERE e.id = event_id AND e.status NOT IN ('SUCCESS', 'DUPLICATE', 'INVALID', 'FAILED'))";
    const SCOPE: &str = "AND CASE WHEN ?2 IS NULL \
        THEN workspace NOT IN (SELECT value FROM json_each(?3)) ELSE workspace = ?2 END \
        GROUP BY workspace";
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        workspace: String,
        #[diesel(sql_type = BigInt)]
        count: i64,
        #[diesel(sql_type = Nullable<Text>)]
        oldest: Option<String>,
        #[diesel(sql_type = Nullable<BigInt>)]
        bytes: Option<i64>,
    }
    // Ids begin with the millisecond of receipt, and their index finds what is old.
    let end_id = first_id(before.plus(Duration::from_millis(1)));
    let events = format!(
        "SELECT workspace, count(*) AS count, min(received_at) AS oldest, \
         sum(coalesce(octet_length(raw_body), octet_length(request_body), 0)) AS bytes \
         FROM webhook_events WHERE id < '{end_id}' AND received_at < ?1 \
         AND +status IN ('SUCCESS', 'DUPLICATE', 'INVALID', 'FAILED')"
    );
    let (select, end) = match kind {
        PruneKind::Events => (events.as_str(), before.to_string()),
        PruneKind::Conversations => (CONVERSATIONS, before.to_string()),
        PruneKind::Ledger => (LEDGER, first_id(before).to_string()),
    };
    let named: Vec<&str> = cutoffs.named().collect();
    let rows: Vec<Row> = diesel::sql_query(format!("{select} {SCOPE}"))
        .bind::<Text, _>(end)
        .bind::<Nullable<Text>, _>(workspace)
        .bind::<Text, _>(to_json(&named)?)
        .load(conn)?;
    let prunable = |row: Row| {
        Ok(Prunable {
            workspace: row.workspace,
            kind,
            count: row.count.unsigned_abs(),
            oldest: maybe_time("oldest", row.oldest.as_deref())?,
            bytes: row.bytes.map(i64::unsigned_abs),
        })
    };
    rows.into_iter().map(prunable).collect()
}

fn row_limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
