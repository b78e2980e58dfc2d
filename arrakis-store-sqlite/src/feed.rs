//! The feed: which rows each transaction touched, in the order of the commits.
//!
//! A transaction that stores audit rows, changes their state or writes messages or tool uses leaves a row for each
//! of their workspaces in `commits`. SQLite has one writer, so the ids of these rows are in the order of the commits, and
//! whoever has seen one has seen everything before it. Rows go a day after their commit, once they
//! are searchable and added up; a cursor that is older goes on with the earliest that is left.

use std::collections::BTreeMap;
use std::time::Duration;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::error::BoxError;
use arrakis_core::base::limits::PAGE_MAX;
use arrakis_core::record::store::adapter::Counts;
use arrakis_core::record::store::{EventSummary, FeedCursor, FeedPage, StoreError};
use diesel::prelude::*;
use diesel::result::QueryResult;

use crate::row::{Now, SummaryRow, json, to_json};
use crate::schema::{commits, index_position, rollup_position, webhook_events};

/// What a transaction touched, by workspace, and how it changes the counts of audit rows.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    workspaces: BTreeMap<String, Items>,
    counts: Counts,
}

/// What of one workspace it touched.
#[derive(Debug, Default)]
struct Items {
    /// Ids of audit rows that were stored or changed.
    events: Vec<String>,
    /// Messages that were written.
    messages: Vec<Place>,
    /// Tool uses that were written.
    tool_uses: Vec<Place>,
}

/// The key of a message or a tool use: its conversation's id and its own.
pub(crate) type Place = (String, String);

/// The workspace of rows that only changed their state. Their texts are searchable already, so whose they are
/// does not matter.
const ANY_WORKSPACE: &str = "";

/// The JSON of no counts.
const NO_COUNTS: &str = "[]";

impl Touched {
    /// Audit rows that changed their state, and nothing else.
    pub(crate) fn events(events: Vec<String>, counts: Counts) -> Self {
        let items = Items { events, ..Items::default() };
        Self { workspaces: [(ANY_WORKSPACE.to_owned(), items)].into(), counts }
    }

    /// Audit rows that were stored, each with its workspace.
    pub(crate) fn stored<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let mut touched = Self::default();
        for (workspace, id) in rows {
            touched.of(workspace).events.push(id);
        }
        touched
    }

    /// Adds how the counts change.
    pub(crate) fn count(&mut self, counts: Counts) {
        self.counts.merge(counts);
    }

    /// Adds a message.
    pub(crate) fn message(&mut self, workspace: &str, place: Place) {
        self.of(workspace).messages.push(place);
    }

    /// Adds a tool use.
    pub(crate) fn tool_use(&mut self, workspace: &str, place: Place) {
        self.of(workspace).tool_uses.push(place);
    }

    fn of(&mut self, workspace: &str) -> &mut Items {
        self.workspaces.entry(workspace.to_owned()).or_default()
    }

    /// Adds what another part of the same transaction touched.
    pub(crate) fn extend(&mut self, other: Self) {
        self.counts.merge(other.counts);
        for (workspace, items) in other.workspaces {
            let mine = self.of(&workspace);
            mine.events.extend(items.events);
            mine.messages.extend(items.messages);
            mine.tool_uses.extend(items.tool_uses);
        }
    }

    /// Writes the commit's rows, unless nothing was touched; at the end of the transaction. The first has the counts.
    pub(crate) fn write(&self, conn: &mut SqliteConnection, now: &Now) -> QueryResult<()> {
        let mut counts = to_json(&self.counts)?;
        for (workspace, items) in &self.workspaces {
            if items.events.is_empty() && items.messages.is_empty() && items.tool_uses.is_empty() {
                continue;
            }
            diesel::insert_into(commits::table)
                .values((
                    commits::workspace.eq(workspace),
                    commits::at.eq(&now.text),
                    commits::events.eq(to_json(&items.events)?),
                    commits::messages.eq(to_json(&items.messages)?),
                    commits::tool_uses.eq(to_json(&items.tool_uses)?),
                    commits::counts.eq(&counts),
                ))
                .execute(conn)?;
            NO_COUNTS.clone_into(&mut counts);
        }
        Ok(())
    }
}

/// A place among the commits: everything before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// The commit to go on with, which may be still to come.
    pub(crate) commit: i64,
    /// How many of that commit's rows are done.
    pub(crate) done: usize,
}

impl Position {
    /// Reads a cursor: `commit.done`.
    ///
    /// # Errors
    ///
    /// The cursor is not this store's.
    pub(crate) fn of(cursor: &FeedCursor) -> Result<Self, StoreError> {
        let read = || -> Result<Self, BoxError> {
            let (commit, done) = cursor.0.split_once('.').ok_or("it has no dot")?;
            Ok(Self { commit: commit.parse()?, done: done.parse()? })
        };
        read().map_err(|error| foreign(cursor, error))
    }

    /// The place behind a whole commit.
    pub(crate) fn behind(commit: i64) -> Self {
        Self { commit: commit.saturating_add(1), done: 0 }
    }

    /// How many rows are done of a commit that is not before this place.
    pub(crate) fn done_of(self, commit: i64) -> usize {
        if commit == self.commit { self.done } else { 0 }
    }

    fn cursor(self) -> FeedCursor {
        FeedCursor(format!("{}.{}", self.commit, self.done))
    }
}

/// The error for a cursor that this store did not give.
pub(crate) fn foreign(cursor: &FeedCursor, source: impl Into<BoxError>) -> StoreError {
    StoreError::Data {
        what: format!("continue the feed from {:?}", cursor.0),
        source: source.into(),
    }
}

/// Nothing, and the present end.
pub(crate) fn end(conn: &mut SqliteConnection) -> QueryResult<FeedPage> {
    let cursor = Position::behind(last_commit(conn)?).cursor();
    Ok(FeedPage { events: Vec::new(), cursor, more: false })
}

/// Up to `limit` rows from `start` on; none where that place is further than the store has come.
pub(crate) fn page(
    conn: &mut SqliteConnection,
    start: Position,
    limit: usize,
) -> QueryResult<Option<FeedPage>> {
    if start.commit > Position::behind(last_commit(conn)?).commit {
        return Ok(None);
    }
    let limit = limit.min(PAGE_MAX);
    let rows = commits::table
        .filter(commits::id.ge(start.commit))
        .order(commits::id.asc())
        .select((commits::id, commits::events))
        .load_iter::<(i64, String), _>(conn)?;
    let mut ids: Vec<String> = Vec::new();
    let (mut next, mut more) = (start, false);
    for row in rows {
        let (commit, events) = row?;
        let events: Vec<String> = json("events", &events)?;
        let total = events.len();
        let seen = start.done_of(commit);
        let done = seen.saturating_add(limit - ids.len());
        ids.extend(events.into_iter().take(done).skip(seen));
        more = done < total;
        if more {
            next = Position { commit, done };
            break;
        }
        next = Position::behind(commit);
    }
    let mut events = Vec::with_capacity(ids.len());
    for id in &ids {
        events.extend(summary(conn, id)?);
    }
    Ok(Some(FeedPage { events, cursor: next.cursor(), more }))
}

/// The last of the oldest few commits that may go: they are searchable, added up, and a day old. The search index is attached.
pub(crate) fn last_to_go(conn: &mut SqliteConnection, now: Timestamp) -> QueryResult<Option<i64>> {
    let oldest = commits::table
        .left_join(index_position::table.on(index_position::workspace.eq(commits::workspace)))
        .order(commits::id.asc())
        .select((commits::id, commits::at, index_position::commit_id.nullable()))
        .limit(CLEANED_AT_ONCE)
        .load::<(i64, String, Option<i64>)>(conn)?;
    let cut = now.minus(KEPT).to_string();
    let added_up = rollup_position::table.select(rollup_position::commit_id).get_result(conn)?;
    let is_done = |(id, at, next): &&(i64, String, Option<i64>)| {
        *at < cut && *id < added_up && next.is_some_and(|next| *id < next)
    };
    Ok(oldest.iter().take_while(is_done).last().map(|(id, ..)| *id))
}

/// Deletes the commits up to this one.
pub(crate) fn delete_up_to(conn: &mut SqliteConnection, last: i64) -> QueryResult<()> {
    diesel::delete(commits::table.filter(commits::id.le(last))).execute(conn)?;
    Ok(())
}

/// How long a commit stays in the feed at least: who was away for less misses nothing.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// How many commits are cleaned away at once: more than a step of the index takes, so that they go
/// faster than they come.
const CLEANED_AT_ONCE: i64 = 128;

/// The id of the last commit there ever was, which may have been cleaned away.
pub(crate) fn last_commit(conn: &mut SqliteConnection) -> QueryResult<i64> {
    let last = sqlite_sequence::table
        .filter(sqlite_sequence::name.eq("commits"))
        .select(sqlite_sequence::seq)
        .get_result(conn)
        .optional()?;
    Ok(last.unwrap_or(0))
}

diesel::table! {
    /// Where SQLite keeps the last id of each table with `AUTOINCREMENT`.
    sqlite_sequence (name) {
        name -> Text,
        seq -> BigInt,
    }
}

/// The row as it is now, unless it was pruned.
fn summary(conn: &mut SqliteConnection, id: &str) -> QueryResult<Option<EventSummary>> {
    webhook_events::table
        .find(id)
        .select(SummaryRow::as_select())
        .get_result(conn)
        .optional()?
        .map(EventSummary::try_from)
        .transpose()
}
