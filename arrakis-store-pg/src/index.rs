//! Making messages and tool uses searchable.
//!
//! GIN gives what it finds in no order, and a search wants the newest. So time is parted into buckets, and
//! each term of a text stands in the index behind the bucket of the text's time.

use std::collections::BTreeSet;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::session::search::Subject;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Bool, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::error::Trouble;
use crate::row::{At, MessageRow, ToolUseRow, readable};
use crate::schema::{messages, search_backlog, tool_uses};
use crate::search::{TEXTS_AT_ONCE, off_the_runtime};
use crate::statement::Statement;

/// Milliseconds of a bucket, as a power of two: a day and a half. A bucket of a busy team holds some
/// ten thousand texts, a year some hundred buckets; a search may have to read all matches of the first and
/// to ask each of the others.
const BUCKET_BITS: u32 = 27;

/// The bucket of a time.
pub(crate) fn bucket_of(at: Timestamp) -> i64 {
    at.as_millis() >> BUCKET_BITS
}

/// A term as it stands in the index.
pub(crate) fn in_bucket(bucket: i64, term: &str) -> String {
    format!("{bucket:x}:{term}")
}

/// What the index holds of a text.
struct Indexed {
    id: Uuid,
    conversation_id: Uuid,
    is_tool_use: bool,
    at: Timestamp,
    words: String,
}

impl Indexed {
    /// Nothing where there is nothing to be found, and nothing that says what another text says.
    fn of(subject: Subject<'_>, workspace: &str) -> Option<Self> {
        let (terms, said) = (subject.terms(workspace), subject.says());
        if terms.is_empty() && said.is_empty() {
            return None;
        }
        let bucket = bucket_of(subject.at());
        let terms = terms.iter().map(|term| in_bucket(bucket, term));
        Some(Self {
            id: subject.id(),
            conversation_id: subject.conversation_id(),
            is_tool_use: matches!(subject, Subject::ToolUse { .. }),
            at: subject.at(),
            words: terms.chain(said).collect::<Vec<_>>().join(" "),
        })
    }
}

/// Makes messages searchable as they are now.
pub(crate) async fn index_messages(
    conn: &mut AsyncPgConnection,
    ids: &[Uuid],
) -> Result<(), Trouble> {
    for ids in ids.chunks(TEXTS_AT_ONCE) {
        let rows: Vec<(String, MessageRow)> = messages::table
            .filter(messages::id.eq_any(ids))
            .select((messages::workspace, MessageRow::as_select()))
            .load(conn)
            .await?;
        let indexed = off_the_runtime(move || {
            let index = |(workspace, row): (String, MessageRow)| {
                let message = readable("messages", row.id, row.into_value())?;
                Indexed::of(Subject::Message(&message), &workspace)
            };
            rows.into_iter().filter_map(index).collect()
        });
        write(conn, indexed.await?).await?;
    }
    Ok(())
}

/// Makes tool uses searchable as they are now.
pub(crate) async fn index_tool_uses(
    conn: &mut AsyncPgConnection,
    ids: &[Uuid],
) -> Result<(), Trouble> {
    for ids in ids.chunks(TEXTS_AT_ONCE) {
        let rows: Vec<(String, ToolUseRow, Option<String>)> = tool_uses::table
            .left_join(messages::table.on(messages::id.nullable().eq(tool_uses::message_id)))
            .filter(tool_uses::id.eq_any(ids))
            .select((tool_uses::workspace, ToolUseRow::as_select(), messages::model.nullable()))
            .load(conn)
            .await?;
        let indexed = off_the_runtime(move || {
            let index = |(workspace, row, model): (String, ToolUseRow, Option<String>)| {
                let tool_use = &readable("tool_uses", row.id, row.into_value())?;
                let subject = Subject::ToolUse { tool_use, model: model.as_deref() };
                Indexed::of(subject, &workspace)
            };
            rows.into_iter().filter_map(index).collect()
        });
        write(conn, indexed.await?).await?;
    }
    Ok(())
}

/// Makes some of what was stored before there was this index searchable; returns whether there was any.
pub(crate) async fn index_backlog(conn: &mut AsyncPgConnection) -> Result<bool, Trouble> {
    let next = search_backlog::table.order(search_backlog::table_name.asc());
    let next: Option<(String, Uuid)> = next.first(conn).await.optional()?;
    let Some((table_name, after_id)) = next else { return Ok(false) };
    let some = i64::try_from(TEXTS_AT_ONCE).unwrap_or(i64::MAX);
    let ids: Vec<Uuid> = if table_name == "messages" {
        let rows = messages::table.filter(messages::id.gt(after_id)).order(messages::id.asc());
        rows.select(messages::id).limit(some).load(conn).await?
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

async fn write(conn: &mut AsyncPgConnection, indexed: Vec<Indexed>) -> QueryResult<()> {
    const WRITE: &str = "INSERT INTO subject_search \
        (subject_id, conversation_id, is_tool_use, at, words) \
        SELECT v.id, v.conversation_id, v.is_tool_use, v.at, \
        array_to_tsvector(string_to_array(v.words, ' ')) \
        FROM unnest(?, ?, ?, ?, ?) AS v (id, conversation_id, is_tool_use, at, words) ORDER BY 1 \
        ON CONFLICT (subject_id) DO UPDATE SET at = excluded.at, words = excluded.words";
    const BUCKETS: &str =
        "INSERT INTO subject_buckets (bucket) SELECT unnest(?) ON CONFLICT DO NOTHING";
    let buckets: BTreeSet<i64> = indexed.iter().map(|one| bucket_of(one.at)).collect();
    Statement::<()>::new(BUCKETS)
        .bind::<Array<BigInt>>(Vec::from_iter(buckets))
        .execute(conn)
        .await?;
    let all = || indexed.iter();
    Statement::<()>::new(WRITE)
        .bind::<Array<diesel::sql_types::Uuid>>(all().map(|one| one.id).collect::<Vec<_>>())
        .bind::<Array<diesel::sql_types::Uuid>>(
            all().map(|one| one.conversation_id).collect::<Vec<_>>(),
        )
        .bind::<Array<Bool>>(all().map(|one| one.is_tool_use).collect::<Vec<_>>())
        .bind::<Array<Timestamptz>>(all().map(|one| At(one.at)).collect::<Vec<_>>())
        .bind::<Array<Text>>(all().map(|one| one.words.as_str()).collect::<Vec<_>>())
        .execute(conn)
        .await?;
    Ok(())
}
