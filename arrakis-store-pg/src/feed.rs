//! The feed of commits: a row per transaction and workspace, and cursors that skip none.
//!
//! Transactions do not commit in the order of their numbers, so "newer than the last one seen" would
//! skip those that took long. A cursor is therefore a snapshot (`pg_current_snapshot()`): it says which
//! transactions were over when it was taken. What a later reader sees and that snapshot did not show is
//! new. In the middle of a page a cursor also has the later snapshot, and how far in it the reader is; of a
//! row that is too much for one step of the index it has how much is done.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::store::adapter::Counts;
use arrakis_core::record::store::{EventSummary, FeedCursor, FeedPage, StoreError};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Jsonb, Nullable, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::try_join_all;
use uuid::Uuid;

use crate::error::{TxError, unreadable};
use crate::pool;
use crate::row::{At, JsonText, SummaryRow, json, shown};
use crate::schema::webhook_events;
use crate::statement::Statement;

/// What a transaction has written, by workspace.
#[derive(Debug, Default)]
pub(crate) struct Touched<'a>(BTreeMap<&'a str, Items>);

/// What a transaction has written in one workspace.
#[derive(Debug, Default)]
pub(crate) struct Items {
    /// Audit rows stored, or changed in their state.
    pub(crate) events: Vec<Uuid>,
    /// Messages.
    pub(crate) messages: Vec<Uuid>,
    /// Tool uses.
    pub(crate) tool_uses: Vec<Uuid>,
    /// How the counts of audit rows change.
    pub(crate) counts: Counts,
}

/// The workspace of rows that only changed their state. Their texts are searchable already, so whose they are
/// does not matter.
const ANY_WORKSPACE: &str = "";

impl<'a> Touched<'a> {
    /// Audit rows that changed their state, and how that changes the counts.
    pub(crate) fn events(events: Vec<Uuid>, counts: Counts) -> Self {
        Self([(ANY_WORKSPACE, Items { events, counts, ..Items::default() })].into())
    }

    /// What was written in a workspace, to add to it.
    pub(crate) fn of(&mut self, workspace: &'a str) -> &mut Items {
        self.0.entry(workspace).or_default()
    }
}

/// Tells the feed what this transaction has written.
pub(crate) async fn commit(
    conn: &AsyncPgConnection,
    touched: &Touched<'_>,
    now: Timestamp,
) -> QueryResult<()> {
    let rows = touched.0.iter().map(|(workspace, items)| add_row(conn, workspace, items, now));
    try_join_all(rows).await.map(|_| ())
}

async fn add_row(
    conn: &AsyncPgConnection,
    workspace: &str,
    items: &Items,
    now: Timestamp,
) -> QueryResult<()> {
    const SQL: &str = "INSERT INTO commits (workspace, events, messages, tool_uses, counts, at) \
        VALUES (?, ?, ?, ?, ?, ?)";
    Statement::<()>::new(SQL)
        .bind::<Text>(shown(workspace))
        .bind::<Array<diesel::sql_types::Uuid>>(&items.events)
        .bind::<Array<diesel::sql_types::Uuid>>(&items.messages)
        .bind::<Array<diesel::sql_types::Uuid>>(&items.tool_uses)
        .bind::<Jsonb>(JsonText::of(&items.counts)?)
        .bind::<Timestamptz>(At(now))
        .execute(&mut &*conn)
        .await?;
    Ok(())
}

/// Whether this transaction can write: writes to the feed, and undoes it.
///
/// # Errors
///
/// It cannot.
pub(crate) async fn probe(conn: &AsyncPgConnection, now: Timestamp) -> QueryResult<()> {
    pool::begin_part(conn).await?;
    let written = commit(conn, &Touched::events(Vec::new(), Counts::default()), now).await;
    pool::undo_part(conn).await?;
    written
}

/// A position among the commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    /// What this snapshot shows was seen.
    seen: Snapshot,
    /// Of what a later snapshot shows, some was seen as well.
    within: Option<Within>,
}

/// How far a reader is in what a snapshot shows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Within {
    until: Snapshot,
    /// The rows before this one, in the order of transactions and ids, were seen.
    xid: u64,
    id: i64,
    /// And of this one so many of its items.
    done: usize,
}

impl Position {
    /// Nothing was seen: no transaction is older than the first.
    pub(crate) fn start() -> Self {
        Self::at(Snapshot("1:1:".to_owned()))
    }

    /// Everything that is committed when `snapshot` is taken.
    pub(crate) fn at(snapshot: Snapshot) -> Self {
        Self { seen: snapshot, within: None }
    }
}

/// The text of a `pg_snapshot`: `xmin:xmax:xip,xip`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot(String);

/// The text is no position.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoPosition;

impl FromStr for Snapshot {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        let mut parts = text.splitn(3, ':');
        let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
        let bounds = number().zip(number());
        let running = parts.next().unwrap_or("none");
        let is_list =
            running.is_empty() || running.split(',').all(|one| one.parse::<u64>().is_ok());
        // Postgres itself refuses bounds in the wrong order, and what runs outside of them.
        match bounds {
            Some((min, max)) if (1..=max).contains(&min) && is_list => Ok(Self(text.to_owned())),
            _ => Err(NoPosition),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seen: Snapshot(seen), within } = self;
        match within {
            None => f.write_str(seen),
            Some(Within { until: Snapshot(until), xid, id, done }) => {
                write!(f, "{seen}/{until}/{xid}/{id}/{done}")
            }
        }
    }
}

impl FromStr for Position {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        let mut parts = text.split('/');
        let seen = parts.next().ok_or(NoPosition)?.parse()?;
        let Some(until) = parts.next() else { return Ok(Self::at(seen)) };
        let until = until.parse()?;
        let numbers = (parts.next(), parts.next(), parts.next(), parts.next());
        let (Some(xid), Some(id), Some(done), None) = numbers else { return Err(NoPosition) };
        let xid = xid.parse().map_err(|_| NoPosition)?;
        let id = id.parse().map_err(|_| NoPosition)?;
        let done = done.parse().map_err(|_| NoPosition)?;
        Ok(Self { seen, within: Some(Within { until, xid, id, done }) })
    }
}

/// Rows of commits behind a position.
#[derive(Debug)]
pub(crate) struct Commits {
    /// The rows, in the order of their transactions.
    pub(crate) rows: Vec<Commit>,
    /// Whether these are all.
    pub(crate) is_all: bool,
    /// The position that they are behind, and the snapshot that shows them.
    from: Position,
    until: Snapshot,
}

/// What a transaction has written in one workspace, as its row tells it.
#[derive(Debug)]
pub(crate) struct Commit {
    xid: u64,
    id: i64,
    /// All that it has written.
    pub(crate) items: Items,
    /// How many of its items were seen before.
    pub(crate) done: usize,
}

impl Commits {
    /// The position behind the first `rows` of the rows and `done` items of the next.
    pub(crate) fn position(&self, rows: usize, done: usize) -> Position {
        let (xid, id) = match (self.rows.get(rows), self.rows.last()) {
            (Some(row), _) => (row.xid, row.id),
            (None, _) if self.is_all => return Position::at(self.until.clone()),
            (None, Some(last)) => (last.xid, last.id.saturating_add(1)),
            (None, None) => return self.from.clone(),
        };
        let within = Within { until: self.until.clone(), xid, id, done };
        Position { seen: self.from.seen.clone(), within: Some(within) }
    }
}

/// Reads up to `limit` rows behind `position`, of a workspace or of all.
///
/// # Errors
///
/// The database fails, or refuses the position.
pub(crate) async fn commits(
    conn: &mut AsyncPgConnection,
    position: &Position,
    workspace: Option<&str>,
    limit: usize,
) -> QueryResult<Commits> {
    // One statement, so that the snapshot is the one under which the rows were read. Numbers past the
    // snapshot's end can only be from another server's dump.
    macro_rules! select {
        ($condition:literal) => {
            concat!(
                "WITH s AS MATERIALIZED (\
                    SELECT ?::pg_snapshot AS seen, \
                    coalesce(?::pg_snapshot, pg_current_snapshot()) AS until, \
                    ?::text::xid8 AS xid, ?::bigint AS id) \
                SELECT s.until::text, c.xid::text, c.id, c.events, c.messages, c.tool_uses, c.counts \
                FROM s LEFT JOIN LATERAL (\
                    SELECT xid, id, events, messages, tool_uses, counts FROM commits WHERE ",
                $condition,
                "xid >= pg_snapshot_xmin(s.seen) AND xid < pg_snapshot_xmax(s.until) \
                    AND (xid, id) >= (s.xid, s.id) \
                    AND NOT pg_visible_in_snapshot(xid, s.seen) \
                    AND pg_visible_in_snapshot(xid, s.until) \
                    ORDER BY xid, id LIMIT ?) AS c ON true ORDER BY c.xid, c.id"
            )
        };
    }
    type Ids = Nullable<Array<diesel::sql_types::Uuid>>;
    type Sql = (Text, Nullable<Text>, Nullable<BigInt>, Ids, Ids, Ids, Nullable<Jsonb>);
    let sql = if workspace.is_some() { select!("workspace = ? AND ") } else { select!("") };
    let within = position.within.as_ref();
    let mut statement = Statement::<Sql>::new(sql)
        .bind::<Text>(position.seen.0.as_str())
        .bind::<Nullable<Text>>(within.map(|within| within.until.0.as_str()))
        .bind::<Text>(within.map_or(0, |within| within.xid).to_string())
        .bind::<BigInt>(within.map_or(0, |within| within.id));
    if let Some(workspace) = workspace {
        statement = statement.bind::<Text>(workspace);
    }
    let one_more = i64::try_from(limit).unwrap_or(i64::MAX - 1).saturating_add(1);
    let found: Vec<CommitRow> = statement.bind::<BigInt>(one_more).load(conn).await?;
    let until = found.as_slice().first().map_or(position.seen.0.as_str(), |row| row.0.as_str());
    let until = until.parse().map_err(|NoPosition| unreadable("snapshot", until))?;
    let mut rows = Vec::new();
    for row in found {
        rows.extend(Commit::of(row, within)?);
    }
    let is_all = rows.len() <= limit;
    rows.truncate(limit);
    Ok(Commits { rows, is_all, from: position.clone(), until })
}

/// A row as it is read: the snapshot, and what else there is where there is a row.
type CommitRow = (
    String,
    Option<String>,
    Option<i64>,
    Option<Vec<Uuid>>,
    Option<Vec<Uuid>>,
    Option<Vec<Uuid>>,
    Option<JsonText<'static>>,
);

impl Commit {
    fn of(
        (_, xid, id, events, messages, tool_uses, counts): CommitRow,
        within: Option<&Within>,
    ) -> QueryResult<Option<Self>> {
        let (Some(xid), Some(id)) = (xid, id) else { return Ok(None) };
        let xid = xid.parse().map_err(|_| unreadable("xid", "this is no transaction number"))?;
        let [events, messages, tool_uses] =
            [events, messages, tool_uses].map(Option::unwrap_or_default);
        let begun = within.filter(|within| (within.xid, within.id) == (xid, id));
        let counts = counts.map(|counts| json("counts", counts)).transpose()?.unwrap_or_default();
        let items = Items { events, messages, tool_uses, counts };
        Ok(Some(Self { xid, id, items, done: begun.map_or(0, |within| within.done) }))
    }
}

/// A page of the feed.
///
/// # Errors
///
/// The database fails, or the cursor is not one of this store's.
pub(crate) async fn page(
    conn: &mut AsyncPgConnection,
    after: Option<&FeedCursor>,
    limit: usize,
) -> Result<FeedPage, TxError> {
    let Some(FeedCursor(text)) = after else {
        let now = snapshot(conn).await?;
        let cursor = FeedCursor(Position::at(now).to_string());
        return Ok(FeedPage { events: Vec::new(), cursor, more: false });
    };
    let position = text.parse::<Position>().map_err(|NoPosition| {
        TxError::Refused(StoreError::Data {
            what: format!(
                "continue the feed from {:?}",
                arrakis_core::base::limits::cut(text, 128)
            ),
            source: "this store did not give that cursor".into(),
        })
    })?;
    let commits = commits(conn, &position, None, limit.max(1)).await?;
    let (mut taken, mut ids) = (0, Vec::new());
    for row in &commits.rows {
        if taken > 0 && ids.len() + row.items.events.len() > limit {
            break;
        }
        ids.extend(&row.items.events);
        taken += 1;
    }
    let cursor = FeedCursor(commits.position(taken, 0).to_string());
    let more = taken < commits.rows.len() || !commits.is_all;
    let events = summaries(conn, ids).await?;
    Ok(FeedPage { events, cursor, more })
}

/// The present snapshot.
pub(crate) async fn snapshot(conn: &mut AsyncPgConnection) -> QueryResult<Snapshot> {
    let text: String =
        Statement::<Text>::new("SELECT pg_current_snapshot()::text").get_result(conn).await?;
    text.parse().map_err(|NoPosition| unreadable("snapshot", text))
}

/// Audit rows in the order of `ids`, each once; those that are gone are left out.
async fn summaries(conn: &mut AsyncPgConnection, ids: Vec<Uuid>) -> QueryResult<Vec<EventSummary>> {
    let rows: Vec<SummaryRow> = webhook_events::table
        .filter(webhook_events::id.eq_any(&ids))
        .select(SummaryRow::as_select())
        .load(conn)
        .await?;
    let mut rows: std::collections::HashMap<Uuid, SummaryRow> =
        rows.into_iter().map(|row| (row.id, row)).collect();
    ids.iter().filter_map(|id| rows.remove(id)).map(EventSummary::try_from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_back_from_its_text() {
        for text in ["10:20:10,14", "1:1:", "10:20:10/15:30:/17/8/0", "1:1:/1:2:/3/4/5"] {
            assert_eq!(text.parse::<Position>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in [
            "",
            "x",
            "1:2",
            "2:1:",
            "0:1:",
            "1:2:x",
            "1:2:/3",
            "1:2:/1:2:/3/4",
            "1:2:/1:2:/3/4/5/6",
        ] {
            assert_eq!(text.parse::<Position>(), Err(NoPosition), "{text}");
        }
    }
}
