//! Full text: the words of payloads, messages and tool uses, indexed behind the hot path. [`step`] follows the
//! feed of commits from a stored position.
//!
//! GIN gives what it finds in no order, and a search wants the newest. So texts are parted into buckets in the
//! order of their times and ids, and each term of a text stands in the index behind the text's bucket. `buckets`
//! decides which that is.

use std::collections::BTreeSet;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::error::BoxError;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::session::search::{SearchDocument, payload_words};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::error::{TxError, unreadable};
use crate::feed::{self, Budget, Commits, NoPosition, Position};
use crate::messages;
use crate::row::{At, JsonText, State, ToolUseRow, body_of, readable};
use crate::schema::{message_rows, search_backlog, tool_uses, webhook_events};
use crate::statement::Statement;

pub(crate) mod buckets;

/// How many texts are read at one time: each may have the largest size that a payload can.
const TEXTS_AT_ONCE: usize = 32;

/// How long commits are kept for the feed.
const COMMITS_KEPT: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// What one step indexes, unless a single commit holds more: little enough for one transaction.
const STEP: Budget = Budget { commits: 100, events: 500, bytes: 16 * 1024 * 1024, documents: 2000 };

/// A term as it stands in the index.
pub(crate) fn in_bucket(bucket: i64, term: &str) -> String {
    format!("{}{term}", bucket_prefix(bucket))
}

/// What the terms of a bucket's texts begin with.
fn bucket_prefix(bucket: i64) -> String {
    format!("{bucket:x}:")
}

/// Indexes some of up to `limit` commits; returns how many end with it, or nothing where there is nothing to
/// do, as while another server does it.
pub(crate) async fn step(
    conn: &mut AsyncPgConnection,
    limit: usize,
    now: Timestamp,
) -> Result<Option<usize>, TxError> {
    const TAKE: &str = "SELECT position FROM search_position FOR UPDATE SKIP LOCKED";
    let position: Option<String> =
        Statement::<Text>::new(TAKE).get_result(conn).await.optional()?;
    let Some(position) = position else { return Ok(None) };
    let position: Position = position
        .parse()
        .map_err(|NoPosition| unreadable("position", "this is no position of the feed"))?;
    let budget = Budget { commits: limit.min(STEP.commits), ..STEP };
    let Commits { commits, next, .. } = feed::commits(conn, &position, budget).await?;
    let mut touched = feed::Touched::default();
    if commits.is_empty() {
        return Ok(index_backlog(conn).await?.then_some(1));
    }
    let whole = commits.len() - usize::from(next.is_in_commit());
    commits.into_iter().for_each(|one| touched.add(one));
    index_events(conn, &touched.events).await?;
    index_messages(conn, &touched.messages).await?;
    index_tool_uses(conn, &touched.tool_uses).await?;
    if next != position {
        Statement::<()>::new("UPDATE search_position SET position = ?")
            .bind::<Text>(next.to_string())
            .execute(conn)
            .await?;
    }
    forget(conn, now).await?;
    Ok(Some(whole))
}

/// Keeps everybody from indexing until this transaction is over; waits for whoever does.
pub(crate) async fn hold(conn: &mut AsyncPgConnection) -> QueryResult<()> {
    const HOLD: &str = "SELECT position FROM search_position FOR UPDATE";
    Statement::<Text>::new(HOLD).get_result::<String>(conn).await.map(|_| ())
}

async fn index_events(conn: &mut AsyncPgConnection, ids: &[Uuid]) -> Result<(), TxError> {
    type Row = (Uuid, Option<JsonText<'static>>, Option<Vec<u8>>);
    for ids in ids.chunks(TEXTS_AT_ONCE) {
        let rows: Vec<Row> = webhook_events::table
            .filter(webhook_events::id.eq_any(ids))
            .filter(webhook_events::status.ne(State(EventStatus::Duplicate)))
            .select((webhook_events::id, webhook_events::request_body, webhook_events::raw_body))
            .load(conn)
            .await?;
        let texts = rows.into_iter().filter_map(|(id, json, raw)| Some((id, body_of(json, raw)?)));
        let texts: Vec<_> = texts.collect();
        let indexed = off_the_runtime(move || {
            texts.into_iter().map(|(id, text)| (id, payload_words(&text))).collect()
        });
        write_events(conn, indexed.await?).await?;
    }
    Ok(())
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

/// Deletes old commits, a few at a time; what waits to be indexed is never that old while a server runs.
pub(crate) async fn forget(conn: &mut AsyncPgConnection, now: Timestamp) -> QueryResult<()> {
    const SQL: &str = "DELETE FROM commits WHERE id IN (\
        SELECT id FROM commits WHERE xid < (\
            SELECT pg_snapshot_xmin(split_part(position, '/', 1)::pg_snapshot) FROM search_position) \
        AND at < ? ORDER BY id LIMIT 1000)";
    Statement::<()>::new(SQL)
        .bind::<Timestamptz>(At(now.minus(COMMITS_KEPT)))
        .execute(conn)
        .await?;
    Ok(())
}

/// What the index holds of a text.
pub(crate) struct Indexed {
    pub(crate) id: Uuid,
    pub(crate) at: Timestamp,
    conversation_id: Uuid,
    is_tool_use: bool,
    /// How large the text is.
    bytes: usize,
    /// What stands behind the bucket.
    terms: Vec<String>,
    /// What stands alone, for it is asked for without a time.
    said: Vec<String>,
}

impl Indexed {
    /// Nothing where there is nothing to be found, and nothing that says what another text says.
    fn of(document: SearchDocument<'_>, bytes: usize, workspace: &str) -> Option<Self> {
        let (terms, said) = (document.terms(workspace), document.dedup_terms());
        if terms.is_empty() && said.is_empty() {
            return None;
        }
        Some(Self {
            id: document.id(),
            at: document.at(),
            conversation_id: document.conversation_id(),
            is_tool_use: matches!(document, SearchDocument::ToolUse { .. }),
            bytes,
            terms: Vec::from_iter(terms),
            said,
        })
    }

    /// How much of a bucket it takes.
    pub(crate) fn weight(&self) -> i32 {
        let terms = i32::try_from(self.terms.len() + self.said.len()).unwrap_or(i32::MAX);
        buckets::TEXT_WEIGHT.saturating_add(terms)
    }

    fn words(&self, bucket: i64) -> String {
        let terms = self.terms.iter().map(|term| in_bucket(bucket, term));
        terms.chain(self.said.iter().cloned()).collect::<Vec<_>>().join(" ")
    }
}

/// Makes messages searchable as they are now.
async fn index_messages(conn: &mut AsyncPgConnection, ids: &[Uuid]) -> Result<(), TxError> {
    for ids in ids.chunks(TEXTS_AT_ONCE) {
        let found = messages::searched(conn, ids).await?;
        let indexed = off_the_runtime(move || {
            let index = |mut one: messages::Found| {
                let workspace = std::mem::take(&mut one.row.workspace);
                let message = readable("messages", one.row.id, one.into_value())??;
                let bytes = message.content.value.len();
                Indexed::of(SearchDocument::Message(&message), bytes, &workspace)
            };
            found.into_iter().filter_map(index).collect()
        });
        write(conn, indexed.await?).await?;
    }
    Ok(())
}

/// Makes tool uses searchable as they are now.
async fn index_tool_uses(conn: &mut AsyncPgConnection, ids: &[Uuid]) -> Result<(), TxError> {
    for ids in ids.chunks(TEXTS_AT_ONCE) {
        let rows: Vec<(String, ToolUseRow, Option<String>)> = tool_uses::table
            .left_join(
                message_rows::table.on(message_rows::id.nullable().eq(tool_uses::message_id)),
            )
            .filter(tool_uses::id.eq_any(ids))
            .select((tool_uses::workspace, ToolUseRow::as_select(), message_rows::model.nullable()))
            .load(conn)
            .await?;
        let indexed = off_the_runtime(move || {
            let index = |(workspace, row, model): (String, ToolUseRow, Option<String>)| {
                let tool_use = &readable("tool_uses", row.id, row.into_value())?;
                let document = SearchDocument::ToolUse { tool_use, model: model.as_deref() };
                let input = tool_use.parameters.as_ref().map(|input| &input.value);
                let output = tool_use.result.as_ref().and_then(|result| result.response.as_ref());
                let bytes = input.into_iter().chain(output).map(|json| json.as_str().len()).sum();
                Indexed::of(document, bytes, &workspace)
            };
            rows.into_iter().filter_map(index).collect()
        });
        write(conn, indexed.await?).await?;
    }
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
        "messages" => index_messages(conn, &ids).await?,
        _ => index_tool_uses(conn, &ids).await?,
    }
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

/// Writes texts, each into its bucket.
async fn write(conn: &mut AsyncPgConnection, mut indexed: Vec<Indexed>) -> QueryResult<()> {
    indexed.sort_by_key(|text| (text.at, text.id));
    let mut rest = &indexed[..];
    while !rest.is_empty() {
        let (bucket, count) = buckets::place(conn, rest).await?;
        let (texts, others) = rest.split_at(count);
        put(conn, bucket, texts).await?;
        rest = others;
    }
    Ok(())
}

async fn put(conn: &mut AsyncPgConnection, bucket: i64, texts: &[Indexed]) -> QueryResult<()> {
    const WRITE: &str = "INSERT INTO subject_search \
        (subject_id, conversation_id, is_tool_use, at, bucket, weight, bytes, words) \
        SELECT v.id, v.conversation_id, v.is_tool_use, v.at, ?, v.weight, v.bytes, \
        array_to_tsvector(string_to_array(v.words, ' ')) \
        FROM unnest(?, ?, ?, ?, ?, ?, ?) \
        AS v (id, conversation_id, is_tool_use, at, weight, bytes, words) ORDER BY 1 \
        ON CONFLICT (subject_id) DO UPDATE SET at = excluded.at, bucket = excluded.bucket, \
        weight = excluded.weight, bytes = excluded.bytes, words = excluded.words";
    let all = || texts.iter();
    let bytes = |text: &Indexed| i32::try_from(text.bytes).unwrap_or(i32::MAX);
    Statement::<()>::new(WRITE)
        .bind::<BigInt>(bucket)
        .bind::<Array<diesel::sql_types::Uuid>>(all().map(|one| one.id).collect::<Vec<_>>())
        .bind::<Array<diesel::sql_types::Uuid>>(
            all().map(|one| one.conversation_id).collect::<Vec<_>>(),
        )
        .bind::<Array<Bool>>(all().map(|one| one.is_tool_use).collect::<Vec<_>>())
        .bind::<Array<Timestamptz>>(all().map(|one| At(one.at)).collect::<Vec<_>>())
        .bind::<Array<Integer>>(all().map(Indexed::weight).collect::<Vec<_>>())
        .bind::<Array<Integer>>(all().map(bytes).collect::<Vec<_>>())
        .bind::<Array<Text>>(all().map(|one| one.words(bucket)).collect::<Vec<_>>())
        .execute(conn)
        .await?;
    Ok(())
}
