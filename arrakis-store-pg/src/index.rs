//! Full text: the words of payloads, messages and tool uses, indexed behind the hot path.
//!
//! A stored position goes through the commits of each workspace. Each step makes some of what those of one
//! workspace wrote searchable, and moves its position. Workspaces take turns, one step each, so a flood of one
//! delays its own texts only. While there are no commits, steps go through what waits to be indexed anew. One server
//! indexes at a time.
//!
//! GIN gives what it finds in no order, and a search wants the newest. So texts are parted into buckets in the
//! order of their times and ids, and each term of a text stands in the index behind the text's bucket. `buckets`
//! decides which that is.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::error::BoxError;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::session::search::payload_words;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Bool, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::error::{TxError, unreadable};
use crate::feed::{self, Items, NoPosition, Position};
use crate::row::{At, JsonText, State, body_of};
use crate::schema::{message_rows, search_backlog, tool_uses, webhook_events};
use crate::statement::Statement;

mod buckets;
mod texts;

/// How many texts are read and written at one time, and how many bytes of them, as they are stored, unless one alone
/// has more.
const TEXTS_AT_ONCE: usize = 32;
const BYTES_AT_ONCE: usize = 128 * 1024;

/// How long commits are kept for the feed.
const COMMITS_KEPT: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// Most commits of a step; each holds the ids of a group.
const STEP_COMMITS: usize = 100;

/// How many bytes of text a step reads before it ends, as they are stored; the last texts may go beyond.
const STEP_BYTES: usize = 4 * 1024 * 1024;

/// How many terms a step writes before it ends; the last texts may go beyond. To store so many takes about a second.
const STEP_TERMS: usize = 64 * 1024;

/// What a text costs besides its bytes, so that a step has not too many small ones either.
const TEXT_BYTES: usize = 1024;

/// The advisory lock that is held while texts are indexed, and while what may be indexed is deleted.
const LOCK: i64 = crate::migrate::LOCK + 1;

/// A term as it stands in the index.
pub(crate) fn in_bucket(bucket: i64, term: &str) -> String {
    format!("{}{term}", bucket_prefix(bucket))
}

/// What the terms of a bucket's texts begin with.
fn bucket_prefix(bucket: i64) -> String {
    format!("{bucket:x}:")
}

/// The workspaces that have commits to be indexed, those behind `last` first: it had its turn.
pub(crate) async fn turns(
    conn: &mut AsyncPgConnection,
    last: &str,
) -> QueryResult<VecDeque<String>> {
    // Each workspace is one look into the index of commits, however many commits it has.
    const WAITING: &str = "WITH RECURSIVE workspaces (name) AS (\
            SELECT min(workspace) FROM commits \
            UNION ALL SELECT (SELECT min(workspace) FROM commits WHERE workspace > name) \
            FROM workspaces WHERE name IS NOT NULL) \
        SELECT name FROM workspaces LEFT JOIN (\
            SELECT workspace, strpos(position, '/') > 0 AS is_within, \
            split_part(position, '/', 1)::pg_snapshot AS seen FROM search_position) AS p \
            ON p.workspace = name \
        WHERE name IS NOT NULL AND (seen IS NULL OR is_within OR EXISTS (\
            SELECT FROM commits AS c WHERE c.workspace = name \
            AND xid >= pg_snapshot_xmin(seen) AND NOT pg_visible_in_snapshot(xid, seen))) \
        ORDER BY name";
    let waiting: Vec<String> = Statement::<Text>::new(WAITING).load(conn).await?;
    let (done, next): (Vec<String>, Vec<String>) =
        waiting.into_iter().partition(|name| name.as_str() <= last);
    Ok(next.into_iter().chain(done).collect())
}

/// Indexes some of up to `limit` commits of a workspace; returns how many end with it, or nothing while another
/// server indexes.
pub(crate) async fn step(
    conn: &mut AsyncPgConnection,
    workspace: &str,
    limit: usize,
    now: Timestamp,
) -> Result<Option<usize>, TxError> {
    if !take(conn).await? {
        return Ok(None);
    }
    let position = position(conn, workspace).await?;
    let commits = feed::commits(conn, &position, Some(workspace), limit.min(STEP_COMMITS)).await?;
    let mut items = Vec::new();
    for (row, commit) in commits.rows.iter().enumerate() {
        let numbered = all_items(&commit.items).enumerate().skip(commit.done);
        items.extend(numbered.map(|(done, item)| Place { row, done, item }));
    }
    let taken = index_some(conn, &items).await?;
    let (whole, done) =
        items.get(taken).map_or((commits.rows.len(), 0), |next| (next.row, next.done));
    let next = commits.position(whole, done);
    if next != position {
        keep_position(conn, workspace, &next).await?;
    }
    forget(conn, now).await?;
    Ok(Some(whole))
}

/// Indexes some of what waits to be indexed anew; returns whether there was any, or nothing while another server
/// indexes.
pub(crate) async fn backlog_step(conn: &mut AsyncPgConnection) -> Result<Option<bool>, TxError> {
    if !take(conn).await? {
        return Ok(None);
    }
    Ok(Some(index_backlog(conn).await?))
}

/// Takes the lock for indexing until this transaction is over; returns false where another server holds it.
async fn take(conn: &mut AsyncPgConnection) -> QueryResult<bool> {
    let take = Statement::<Bool>::new("SELECT pg_try_advisory_xact_lock(?)");
    take.bind::<BigInt>(LOCK).get_result(conn).await
}

/// Keeps everybody from indexing until this transaction is over; waits for whoever does.
pub(crate) async fn hold(conn: &mut AsyncPgConnection) -> QueryResult<()> {
    let hold = Statement::<()>::new("SELECT pg_advisory_xact_lock(?)");
    hold.bind::<BigInt>(LOCK).execute(conn).await.map(|_| ())
}

/// How far the commits of a workspace are searchable.
async fn position(conn: &mut AsyncPgConnection, workspace: &str) -> QueryResult<Position> {
    const FIND: &str = "SELECT position FROM search_position WHERE workspace = ?";
    let find = Statement::<Text>::new(FIND).bind::<Text>(workspace);
    let Some(position) = find.get_result::<String>(conn).await.optional()? else {
        return Ok(Position::start());
    };
    let no_position = |NoPosition| unreadable("position", "this is no position of the feed");
    position.parse().map_err(no_position)
}

async fn keep_position(
    conn: &mut AsyncPgConnection,
    workspace: &str,
    position: &Position,
) -> QueryResult<()> {
    const KEEP: &str = "INSERT INTO search_position (workspace, position) VALUES (?, ?) \
        ON CONFLICT (workspace) DO UPDATE SET position = excluded.position";
    Statement::<()>::new(KEEP)
        .bind::<Text>(workspace)
        .bind::<Text>(position.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

/// Something that a commit wrote.
#[derive(Debug, Clone, Copy)]
enum Item {
    Event(Uuid),
    Message(Uuid),
    ToolUse(Uuid),
}

impl Item {
    fn id(self) -> Uuid {
        let (Self::Event(id) | Self::Message(id) | Self::ToolUse(id)) = self;
        id
    }
}

fn all_items(items: &Items) -> impl Iterator<Item = Item> + '_ {
    let events = items.events.iter().copied().map(Item::Event);
    let messages = items.messages.iter().copied().map(Item::Message);
    events.chain(messages).chain(items.tool_uses.iter().copied().map(Item::ToolUse))
}

/// An item, and where it stands: which of the rows, and which of the row's items.
#[derive(Debug)]
struct Place {
    row: usize,
    done: usize,
    item: Item,
}

/// Indexes the first of these items, as many as a step may; returns how many.
async fn index_some(conn: &mut AsyncPgConnection, items: &[Place]) -> Result<usize, TxError> {
    // More than a step may take.
    let items = &items[..items.len().min(STEP_BYTES / TEXT_BYTES)];
    let sizes = sizes(conn, items).await?;
    let size = |place: &Place| sizes.get(&place.item.id()).copied().unwrap_or(0);
    let (mut taken, mut bytes, mut terms) = (0, 0, 0);
    // Commits name what they have in common.
    let mut seen = HashSet::new();
    while taken < items.len() && bytes < STEP_BYTES && terms < STEP_TERMS {
        let (mut few, mut few_bytes) = (Items::default(), 0);
        for place in items[taken..].iter().take(TEXTS_AT_ONCE) {
            few_bytes += size(place);
            if few_bytes > BYTES_AT_ONCE && few_bytes > size(place) {
                break;
            }
            (taken, bytes) = (taken + 1, bytes + size(place) + TEXT_BYTES);
            if seen.insert(place.item.id()) {
                match place.item {
                    Item::Event(id) => few.events.push(id),
                    Item::Message(id) => few.messages.push(id),
                    Item::ToolUse(id) => few.tool_uses.push(id),
                }
            }
        }
        terms += index_events(conn, &few.events).await?;
        terms += texts::index_messages(conn, &few.messages).await?;
        terms += texts::index_tool_uses(conn, &few.tool_uses).await?;
    }
    Ok(taken)
}

/// How large the texts of these items are as they are stored: to know it none is read.
async fn sizes(
    conn: &mut AsyncPgConnection,
    places: &[Place],
) -> QueryResult<HashMap<Uuid, usize>> {
    const SQL: &str = "SELECT id, coalesce(pg_column_size(raw_body), \
            pg_column_size(request_body), 0)::bigint FROM webhook_events WHERE id = ANY(?) \
        UNION ALL SELECT id, coalesce(pg_column_size(content), 262144)::bigint FROM message_rows WHERE id = ANY(?) \
        UNION ALL SELECT id, (coalesce(pg_column_size(parameters), 0) \
            + coalesce(pg_column_size(response), 0))::bigint FROM tool_uses WHERE id = ANY(?)";
    type SqlUuid = diesel::sql_types::Uuid;
    let mut items = Items::default();
    for place in places {
        match place.item {
            Item::Event(id) => items.events.push(id),
            Item::Message(id) => items.messages.push(id),
            Item::ToolUse(id) => items.tool_uses.push(id),
        }
    }
    let rows: Vec<(Uuid, i64)> = Statement::<(SqlUuid, BigInt)>::new(SQL)
        .bind::<Array<SqlUuid>>(items.events)
        .bind::<Array<SqlUuid>>(items.messages)
        .bind::<Array<SqlUuid>>(items.tool_uses)
        .load(conn)
        .await?;
    let size = |(id, bytes): (Uuid, i64)| (id, usize::try_from(bytes).unwrap_or(0));
    Ok(rows.into_iter().map(size).collect())
}

/// Makes payloads searchable, each once: they never change. Returns how many terms that are.
async fn index_events(conn: &mut AsyncPgConnection, ids: &[Uuid]) -> Result<usize, TxError> {
    type Row = (Uuid, Option<JsonText<'static>>, Option<Vec<u8>>);
    if ids.is_empty() {
        return Ok(0);
    }
    let is_new = "NOT EXISTS (SELECT FROM event_search WHERE event_id = id)";
    let rows: Vec<Row> = webhook_events::table
        .filter(webhook_events::id.eq_any(ids))
        .filter(webhook_events::status.ne(State(EventStatus::Duplicate)))
        .filter(sql::<Bool>(is_new))
        .select((webhook_events::id, webhook_events::request_body, webhook_events::raw_body))
        .load(conn)
        .await?;
    let texts = rows.into_iter().filter_map(|(id, json, raw)| Some((id, body_of(json, raw)?)));
    let texts: Vec<_> = texts.collect();
    let indexed = off_the_runtime(move || {
        texts.into_iter().map(|(id, text)| (id, payload_words(&text))).collect::<Vec<_>>()
    });
    let indexed = indexed.await?;
    let terms = indexed.iter().map(|(_, words)| words.len()).sum();
    write_events(conn, indexed).await?;
    Ok(terms)
}

/// Does what takes a processor for a while where it holds nobody up.
pub(crate) async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, TxError> {
    let failed = |error: tokio::task::JoinError| {
        let source: BoxError = error.into();
        TxError::Refused(crate::error::unavailable("look through texts", source))
    };
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

async fn write_events(
    conn: &mut AsyncPgConnection,
    indexed: Vec<(Uuid, BTreeSet<String>)>,
) -> QueryResult<()> {
    const WRITE: &str = "INSERT INTO event_search (event_id, words) \
        SELECT v.id, array_to_tsvector(string_to_array(v.words, ' ')) \
        FROM unnest(?, ?) AS v (id, words) ORDER BY 1 ON CONFLICT DO NOTHING";
    let joined =
        |words: &BTreeSet<String>| words.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
    Statement::<()>::new(WRITE)
        .bind::<Array<diesel::sql_types::Uuid>>(indexed.iter().map(|one| one.0).collect::<Vec<_>>())
        .bind::<Array<Text>>(indexed.iter().map(|one| joined(&one.1)).collect::<Vec<_>>())
        .execute(conn)
        .await?;
    Ok(())
}

/// Deletes old commits, a few at a time, once they are searchable and added up: while a server runs, what waits for that
/// is never so old.
pub(crate) async fn forget(conn: &mut AsyncPgConnection, now: Timestamp) -> QueryResult<()> {
    const SQL: &str = "DELETE FROM commits WHERE (xid, id) IN (\
        SELECT xid, id FROM (SELECT xid, id, workspace, at FROM commits ORDER BY xid, id LIMIT 1000) \
            AS c JOIN search_position AS p USING (workspace) \
        WHERE at < ? AND pg_visible_in_snapshot(xid, split_part(position, '/', 1)::pg_snapshot) \
        AND pg_visible_in_snapshot(xid, \
            (SELECT split_part(position, '/', 1)::pg_snapshot FROM rollup_position)))";
    Statement::<()>::new(SQL)
        .bind::<Timestamptz>(At(now.minus(COMMITS_KEPT)))
        .execute(conn)
        .await?;
    Ok(())
}

/// Makes some of what was stored before there was this index searchable; returns whether there was any.
async fn index_backlog(conn: &mut AsyncPgConnection) -> Result<bool, TxError> {
    let next = search_backlog::table.order(search_backlog::table_name.asc());
    let next: Option<(String, Uuid)> = next.first(conn).await.optional()?;
    let Some((table_name, after_id)) = next else { return Ok(false) };
    let some = i64::try_from(TEXTS_AT_ONCE).unwrap_or(i64::MAX);
    let ids: Vec<Uuid> = if table_name == "messages" {
        let rows = message_rows::table.filter(message_rows::id.gt(after_id));
        rows.order(message_rows::id.asc()).select(message_rows::id).limit(some).load(conn).await?
    } else {
        let rows = tool_uses::table.filter(tool_uses::id.gt(after_id)).order(tool_uses::id.asc());
        rows.select(tool_uses::id).limit(some).load(conn).await?
    };
    match table_name.as_str() {
        "messages" => texts::index_messages(conn, &ids).await?,
        _ => texts::index_tool_uses(conn, &ids).await?,
    };
    let row = search_backlog::table.find(table_name);
    match ids.last() {
        Some(last) => {
            let moved = diesel::update(row).set(search_backlog::after_id.eq(last));
            moved.execute(conn).await?
        }
        None => diesel::delete(row).execute(conn).await?,
    };
    Ok(true)
}
