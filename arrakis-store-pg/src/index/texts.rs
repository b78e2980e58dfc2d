//! Messages and tool uses: what the index holds of them, and writing it, each into its bucket.

use arrakis_core::base::clock::Timestamp;
use arrakis_core::session::search::SearchDocument;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::{buckets, in_bucket, off_the_runtime};
use crate::error::TxError;
use crate::messages;
use crate::row::{At, ToolUseRow, readable};
use crate::schema::{message_rows, tool_uses};
use crate::statement::Statement;

/// What the index holds of a text.
pub(super) struct Indexed {
    pub(super) id: Uuid,
    pub(super) at: Timestamp,
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
    pub(super) fn weight(&self) -> i32 {
        let terms = i32::try_from(self.terms.len() + self.said.len()).unwrap_or(i32::MAX);
        buckets::TEXT_WEIGHT.saturating_add(terms)
    }

    fn words(&self, bucket: i64) -> String {
        let terms = self.terms.iter().map(|term| in_bucket(bucket, term));
        terms.chain(self.said.iter().cloned()).collect::<Vec<_>>().join(" ")
    }
}

/// Makes messages searchable as they are now; returns how many terms that are.
pub(super) async fn index_messages(
    conn: &mut AsyncPgConnection,
    ids: &[Uuid],
) -> Result<usize, TxError> {
    if ids.is_empty() {
        return Ok(0);
    }
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
    Ok(write(conn, indexed.await?).await?)
}

/// Makes tool uses searchable as they are now; returns how many terms that are.
pub(super) async fn index_tool_uses(
    conn: &mut AsyncPgConnection,
    ids: &[Uuid],
) -> Result<usize, TxError> {
    if ids.is_empty() {
        return Ok(0);
    }
    let rows: Vec<(String, ToolUseRow, Option<String>)> = tool_uses::table
        .left_join(message_rows::table.on(message_rows::id.nullable().eq(tool_uses::message_id)))
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
    Ok(write(conn, indexed.await?).await?)
}

/// Writes texts, each into its bucket; returns how many terms that are.
async fn write(conn: &mut AsyncPgConnection, mut indexed: Vec<Indexed>) -> QueryResult<usize> {
    indexed.sort_by_key(|text| (text.at, text.id));
    let mut rest = &indexed[..];
    while !rest.is_empty() {
        let (bucket, count) = buckets::place(conn, rest).await?;
        let (texts, others) = rest.split_at(count);
        put(conn, bucket, texts).await?;
        rest = others;
    }
    Ok(indexed.iter().map(|text| text.terms.len() + text.said.len()).sum())
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
