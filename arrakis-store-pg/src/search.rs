//! Full text: the words of payloads, messages and tool uses, indexed behind the hot path.
//!
//! [`step`] follows the feed of commits from a stored position. The words are those of
//! `arrakis_core::session::search`, so Postgres' own parsing of text plays no part.

use std::collections::BTreeSet;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::error::BoxError;
use arrakis_core::session::search::{payload_words, query_words};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::error::{Trouble, unreadable};
use crate::feed::{self, Budget, Commits, NoPosition, Position};
use crate::index;
use crate::row::{At, JsonText, State, body_of};
use crate::schema::webhook_events;
use crate::statement::Statement;

/// How many texts are read at one time: each may have the largest size that a payload can.
pub(crate) const TEXTS_AT_ONCE: usize = 32;

/// How long commits are kept for the feed.
const COMMITS_KEPT: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// What one step indexes, unless a single commit holds more: little enough for one transaction.
const STEP: Budget = Budget { commits: 100, events: 500, bytes: 16 * 1024 * 1024, subjects: 2000 };

/// Indexes some of up to `limit` commits; returns how many end with it, or nothing where there is nothing to
/// do, as while another server does it.
pub(crate) async fn step(
    conn: &mut AsyncPgConnection,
    limit: usize,
    now: Timestamp,
) -> Result<Option<usize>, Trouble> {
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
        return Ok(index::index_backlog(conn).await?.then_some(1));
    }
    let whole = commits.len() - usize::from(next.is_in_commit());
    commits.into_iter().for_each(|one| touched.add(one));
    index_events(conn, &touched.events).await?;
    index::index_messages(conn, &touched.messages).await?;
    index::index_tool_uses(conn, &touched.tool_uses).await?;
    if next != position {
        Statement::<()>::new("UPDATE search_position SET position = ?")
            .bind::<Text>(next.to_string())
            .execute(conn)
            .await?;
    }
    forget(conn, now).await?;
    Ok(Some(whole))
}

async fn index_events(conn: &mut AsyncPgConnection, ids: &[Uuid]) -> Result<(), Trouble> {
    const WRITE: &str = "INSERT INTO event_search (event_id, words) \
        SELECT v.id, array_to_tsvector(string_to_array(v.words, ' ')) \
        FROM unnest(?, ?) AS v (id, words) ORDER BY 1 ON CONFLICT DO NOTHING";
    type Row = (Uuid, Option<JsonText<'static>>, Option<Vec<u8>>);
    for ids in ids.chunks(TEXTS_AT_ONCE) {
        let rows: Vec<Row> = webhook_events::table
            .filter(webhook_events::id.eq_any(ids))
            .filter(
                webhook_events::status
                    .ne(State(arrakis_core::record::audit::EventStatus::Duplicate)),
            )
            .select((webhook_events::id, webhook_events::request_body, webhook_events::raw_body))
            .load(conn)
            .await?;
        let texts = rows.into_iter().filter_map(|(id, json, raw)| Some((id, body_of(json, raw)?)));
        let texts: Vec<_> = texts.collect();
        let indexed = off_the_runtime(move || {
            texts.into_iter().map(|(id, text)| (id, payload_words(&text))).collect()
        });
        write(conn, WRITE, indexed.await?).await?;
    }
    Ok(())
}

/// What is written of a text.
type Indexed = Vec<(Uuid, BTreeSet<String>)>;

/// Does what takes a processor for a while where it holds nobody up.
pub(crate) async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Trouble> {
    let failed = |error: tokio::task::JoinError| {
        let source: BoxError = error.into();
        Trouble::Refused(crate::error::unavailable("look through texts", source))
    };
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

async fn write(
    conn: &mut AsyncPgConnection,
    sql: &'static str,
    indexed: Indexed,
) -> QueryResult<()> {
    let joined =
        |words: &BTreeSet<String>| words.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
    Statement::<()>::new(sql)
        .bind::<Array<diesel::sql_types::Uuid>>(indexed.iter().map(|one| one.0).collect::<Vec<_>>())
        .bind::<Array<Text>>(indexed.iter().map(|one| joined(&one.1)).collect::<Vec<_>>())
        .execute(conn)
        .await?;
    Ok(())
}

/// Deletes old commits, a few at a time; what waits to be indexed is never that old while a server runs.
async fn forget(conn: &mut AsyncPgConnection, now: Timestamp) -> QueryResult<()> {
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

/// The condition that all words of `text` are there, as Postgres writes one; `None` for text without a
/// word, which finds nothing. Words hold letters and digits only, so a quoted one needs no escape.
pub(crate) fn condition(text: &str) -> Option<String> {
    let words = query_words(text);
    (!words.is_empty()).then(|| all_of(words))
}

/// The condition that all of these terms are there.
pub(crate) fn all_of(terms: impl IntoIterator<Item = String>) -> String {
    let quoted = terms.into_iter().map(|term| format!("'{term}'"));
    quoted.collect::<Vec<_>>().join(" & ")
}
