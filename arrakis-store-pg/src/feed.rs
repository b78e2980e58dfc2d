//! The feed of commits: one row per transaction, and cursors that skip none.
//!
//! Transactions do not commit in the order of their numbers, so "newer than the last one seen" would
//! skip those that took long. A cursor is therefore a snapshot (`pg_current_snapshot()`): it says which
//! transactions were over when it was taken. What a later reader sees and that snapshot did not show is
//! new. In the middle of a page a cursor also has the later snapshot, and how far in it the reader is; of a
//! commit that is too much for one step of the index it has how much is done.

use std::fmt;
use std::str::FromStr;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::store::adapter::Counts;
use arrakis_core::record::store::{EventSummary, FeedCursor, FeedPage, StoreError};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Jsonb, Nullable, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::error::TxError;
use crate::pool;
use crate::row::{At, JsonText, SummaryRow, json};
use crate::schema::webhook_events;
use crate::statement::Statement;

/// What a transaction has written.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// Audit rows stored, or changed in their state.
    pub(crate) events: Vec<Uuid>,
    /// Messages.
    pub(crate) messages: Vec<Uuid>,
    /// Tool uses.
    pub(crate) tool_uses: Vec<Uuid>,
    /// The size of the payloads stored.
    pub(crate) bytes: usize,
    /// How the counts of audit rows change.
    pub(crate) counts: Counts,
}

impl Touched {
    /// Only audit rows, and how they change the counts.
    pub(crate) fn events(events: Vec<Uuid>, counts: Counts) -> Self {
        Self { events, counts, ..Self::default() }
    }

    /// Adds what another part of the transaction has written.
    pub(crate) fn add(&mut self, other: Self) {
        self.events.extend(other.events);
        self.messages.extend(other.messages);
        self.tool_uses.extend(other.tool_uses);
        self.bytes += other.bytes;
        self.counts.merge(other.counts);
    }

    /// How many messages and tool uses there are.
    fn documents(&self) -> usize {
        self.messages.len() + self.tool_uses.len()
    }

    /// Leaves out these many messages and tool uses, and what comes before them.
    fn skip(&mut self, done: usize) {
        let messages = done.min(self.messages.len());
        self.messages.drain(..messages);
        self.tool_uses.drain(..(done - messages).min(self.tool_uses.len()));
        (self.events, self.bytes, self.counts) = (Vec::new(), 0, Counts::default());
    }

    /// Leaves these many messages and tool uses.
    fn truncate(&mut self, documents: usize) {
        self.messages.truncate(documents);
        self.tool_uses.truncate(documents - self.messages.len());
    }
}

/// Tells the feed what this transaction has written.
pub(crate) async fn commit(
    conn: &AsyncPgConnection,
    touched: &Touched,
    now: Timestamp,
) -> QueryResult<()> {
    const SQL: &str = "INSERT INTO commits (events, messages, tool_uses, bytes, counts, at) VALUES (?, ?, ?, ?, ?, ?)";
    Statement::<()>::new(SQL)
        .bind::<Array<diesel::sql_types::Uuid>>(&touched.events)
        .bind::<Array<diesel::sql_types::Uuid>>(&touched.messages)
        .bind::<Array<diesel::sql_types::Uuid>>(&touched.tool_uses)
        .bind::<BigInt>(i64::try_from(touched.bytes).unwrap_or(i64::MAX))
        .bind::<Jsonb>(JsonText::of(&touched.counts)?)
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
    let written = commit(conn, &Touched::default(), now).await;
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
    /// What the transactions before this one wrote was seen, and of this one all that `done` does not exclude.
    xid: u64,
    /// How many of its messages and tool uses were, where not all.
    done: Option<usize>,
}

impl Position {
    /// Everything that is committed when `snapshot` is taken.
    pub(crate) fn at(snapshot: Snapshot) -> Self {
        Self { seen: snapshot, within: None }
    }

    /// Whether a part of a commit was seen.
    pub(crate) fn is_in_commit(&self) -> bool {
        self.within.as_ref().is_some_and(|within| within.done.is_some())
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
            Some(Within { until: Snapshot(until), xid, done }) => {
                write!(f, "{seen}/{until}/{xid}")?;
                done.map_or(Ok(()), |done| write!(f, "/{done}"))
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
        let xid = parts.next().and_then(|xid| xid.parse().ok()).ok_or(NoPosition)?;
        let done = parts.next().map(str::parse).transpose().map_err(|_| NoPosition)?;
        if parts.next().is_some() {
            return Err(NoPosition);
        }
        Ok(Self { seen, within: Some(Within { until, xid, done }) })
    }
}

/// How much is read at one time, unless a single commit holds more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    /// Commits.
    pub(crate) commits: usize,
    /// Audit rows.
    pub(crate) events: usize,
    /// Payload bytes.
    pub(crate) bytes: usize,
    /// Messages and tool uses; of a single commit that holds more, a part is read.
    pub(crate) documents: usize,
}

/// Commits after a position.
#[derive(Debug)]
pub(crate) struct Commits {
    /// What they wrote, oldest number first.
    pub(crate) commits: Vec<Touched>,
    /// Where to go on.
    pub(crate) next: Position,
    /// Whether there was more.
    pub(crate) more: bool,
}

/// Reads the commits after `position`, as far as `budget` goes.
///
/// # Errors
///
/// The database fails, or refuses the position.
pub(crate) async fn commits(
    conn: &mut AsyncPgConnection,
    position: &Position,
    budget: Budget,
) -> QueryResult<Commits> {
    // One statement, so that the snapshot is the one under which the rows were read. Numbers past the
    // snapshot's end can only be from another server's dump.
    const SQL: &str = "WITH s AS MATERIALIZED (\
            SELECT ?::pg_snapshot AS seen, coalesce(?::pg_snapshot, pg_current_snapshot()) AS until, \
            ?::text::xid8 AS after) \
        SELECT s.until::text, c.xid::text, c.events, c.messages, c.tool_uses, c.bytes, c.counts \
        FROM s LEFT JOIN LATERAL (\
            SELECT xid, events, messages, tool_uses, bytes, counts FROM commits \
            WHERE xid >= pg_snapshot_xmin(s.seen) AND xid < pg_snapshot_xmax(s.until) \
            AND NOT pg_visible_in_snapshot(xid, s.seen) AND pg_visible_in_snapshot(xid, s.until) \
            AND xid > s.after ORDER BY xid LIMIT ?) AS c ON true ORDER BY c.xid";
    type Ids = Option<Vec<Uuid>>;
    type Row = (String, Option<String>, Ids, Ids, Ids, Option<i64>, Option<JsonText<'static>>);
    let within = position.within.as_ref();
    let until = within.map(|within| within.until.0.as_str());
    // A commit of which a part is done is read again.
    let after = within.map_or(0, |at| at.xid.saturating_sub(u64::from(at.done.is_some())));
    let begun = within.and_then(|within| Some((within.xid, within.done?)));
    let one_more = i64::try_from(budget.commits).unwrap_or(i64::MAX - 1).saturating_add(1);
    type Sql = (
        Text,
        Nullable<Text>,
        Nullable<Array<diesel::sql_types::Uuid>>,
        Nullable<Array<diesel::sql_types::Uuid>>,
        Nullable<Array<diesel::sql_types::Uuid>>,
        Nullable<BigInt>,
        Nullable<Jsonb>,
    );
    let rows: Vec<Row> = Statement::<Sql>::new(SQL)
        .bind::<Text>(position.seen.0.as_str())
        .bind::<Nullable<Text>>(until)
        .bind::<Text>(after.to_string())
        .bind::<BigInt>(one_more)
        .load(conn)
        .await?;
    let unreadable = |_| crate::error::unreadable("xid", "this is no transaction number");
    let until = rows.as_slice().first().map_or(position.seen.0.as_str(), |row| row.0.as_str());
    let until: Snapshot = until.parse().map_err(|NoPosition| unreadable(NoPosition))?;
    let (mut last, mut more) = (None, false);
    let mut commits = Vec::new();
    let (mut events_taken, mut bytes_taken, mut documents_taken) = (0, 0, 0);
    for (_, xid, events, messages, tool_uses, bytes, counts) in rows {
        let (Some(xid), Some(events)) = (xid, events) else { break };
        let [messages, tool_uses] = [messages, tool_uses].map(Option::unwrap_or_default);
        let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
        let xid = xid.parse::<u64>().map_err(|error| crate::error::unreadable("xid", error))?;
        let counts = counts.map(|counts| json("counts", counts)).transpose()?.unwrap_or_default();
        let mut one = Touched { events, messages, tool_uses, bytes, counts };
        let seen = begun.filter(|(begun, _)| *begun == xid).map(|(_, done)| done);
        if let Some(done) = seen {
            one.skip(done);
        }
        events_taken += one.events.len();
        bytes_taken += one.bytes;
        documents_taken += one.documents();
        let enough = commits.len() == budget.commits
            || events_taken > budget.events
            || bytes_taken > budget.bytes
            || documents_taken > budget.documents;
        if enough && !commits.is_empty() {
            more = true;
            break;
        }
        let is_cut = one.documents() > budget.documents;
        one.truncate(budget.documents);
        last = Some((xid, is_cut.then(|| seen.unwrap_or(0) + budget.documents)));
        commits.push(one);
    }
    let next = match last {
        Some((xid, done)) if more || done.is_some() => {
            more = true;
            Position { seen: position.seen.clone(), within: Some(Within { until, xid, done }) }
        }
        _ => Position::at(until),
    };
    Ok(Commits { commits, next, more })
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
    let budget = Budget { commits: limit, events: limit, bytes: usize::MAX, documents: usize::MAX };
    let Commits { commits, next, more } = commits(conn, &position, budget).await?;
    let ids = commits.into_iter().flat_map(|one| one.events).collect();
    let events = summaries(conn, ids).await?;
    Ok(FeedPage { events, cursor: FeedCursor(next.to_string()), more })
}

/// The present snapshot.
pub(crate) async fn snapshot(conn: &mut AsyncPgConnection) -> QueryResult<Snapshot> {
    let text: String =
        Statement::<Text>::new("SELECT pg_current_snapshot()::text").get_result(conn).await?;
    text.parse().map_err(|NoPosition| crate::error::unreadable("snapshot", text))
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
        for text in ["10:20:10,14", "1:1:", "10:20:10/15:30:/17", "1:1:/1:2:/3/4"] {
            assert_eq!(text.parse::<Position>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in
            ["", "x", "1:2", "2:1:", "0:1:", "1:2:x", "1:2:/3", "1:2:/1:2:/x", "1:2:/1:2:/3/4/5"]
        {
            assert_eq!(text.parse::<Position>(), Err(NoPosition), "{text}");
        }
    }
}
