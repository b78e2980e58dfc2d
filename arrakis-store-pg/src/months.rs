//! Audit rows by month: parts are made ahead, and old ones are dropped.
//!
//! `webhook_events`, `event_transitions` and `event_search` have the same parts: ranges of the audit rows' ids, which
//! begin with the time of the receipt. What tells parts apart stands behind the tables' names:
//!
//! | name | what has its place there |
//! |---|---|
//! | `before` | everything before the first month, and months that were dropped since |
//! | `2026_11` | a month; more than one where the next was not made in time |
//! | `gap_2026_11` | nothing any more: the month was dropped while one before it stays |
//! | `rest` | everything behind the last month |
//!
//! Together they take every id. So `rest` gets what has no month, and gives up what of its place it does not need when
//! months are made: rows are not moved. While a month is made or dropped nobody else may use the tables. Whoever wants
//! to waits, so this itself waits for others only for a moment, and is otherwise left to the next pass.

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::store::{Cutoffs, PruneKind, first_id};
use diesel::QueryableByName;
use diesel::result::QueryResult;
use diesel::sql_types::{BigInt, Bool, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use uuid::Uuid;

use crate::error::{TxError, unreadable};
use crate::index;
use crate::statement::Statement;

/// The tables that have these parts, and what of them is the audit row's id.
const TABLES: [(&str, &str); 3] =
    [("webhook_events", "id"), ("event_transitions", "event_id"), ("event_search", "event_id")];

/// How many months there are at least: this one and the next two.
const MONTHS: usize = 3;

/// The advisory lock that is held while months are made or dropped.
const LOCK: i64 = crate::migrate::LOCK + 2;

/// Locks all use of the tables. Others queue behind a lock that waits, so it waits for less than anybody notices.
const LOCK_TABLES: &str = "SET LOCAL lock_timeout = '100ms'; SET LOCAL statement_timeout = '2s'; \
    LOCK TABLE ONLY webhook_events, ONLY event_transitions, ONLY event_search \
    IN ACCESS EXCLUSIVE MODE";

/// A range of ids, the same in each table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// What stands behind the tables' names.
    name: String,
    /// The first id; `None` is the least there can be.
    pub(crate) from: Option<Uuid>,
    /// The first id behind it; `None` where it has no end.
    pub(crate) to: Option<Uuid>,
}

impl Part {
    /// The part from `from` to `to`, by its usual name.
    fn new(from: Option<Uuid>, to: Option<Uuid>) -> Self {
        let name = match (from, to) {
            (_, None) => "rest".to_owned(),
            (None, _) => "before".to_owned(),
            (Some(from), _) => month_of(from),
        };
        Self { name, from, to }
    }

    /// Whether it may be dropped whole.
    pub(crate) fn is_month(&self) -> bool {
        self.name.starts_with(|first: char| first.is_ascii_digit())
    }

    /// Its place, as SQL says it.
    fn range(&self) -> String {
        let bound = |id: Option<Uuid>, open: &str| {
            id.map_or_else(|| open.to_owned(), |id| format!("'{id}'"))
        };
        let (from, to) = (bound(self.from, "MINVALUE"), bound(self.to, "MAXVALUE"));
        format!("FOR VALUES FROM ({from}) TO ({to})")
    }

    /// The SQL that `sql` makes for each of its tables, from the names of the whole table and of the part.
    fn sql(&self, sql: impl Fn(&str, &str) -> String) -> String {
        let of = |(table, _): &(&str, &str)| sql(table, &format!("{table}_{}", self.name));
        TABLES.iter().map(of).collect::<Vec<_>>().join("; ")
    }

    async fn create(&self, conn: &mut AsyncPgConnection) -> QueryResult<()> {
        let range = self.range();
        let sql =
            self.sql(|table, part| format!("CREATE TABLE {part} PARTITION OF {table} {range}"));
        conn.batch_execute(&sql).await
    }

    async fn drop(&self, conn: &mut AsyncPgConnection) -> QueryResult<()> {
        conn.batch_execute(&self.sql(|_, part| format!("DROP TABLE {part}"))).await
    }

    /// Makes it the part `other`, with all rows that it has.
    async fn turn_into(&self, conn: &mut AsyncPgConnection, other: &Self) -> QueryResult<()> {
        let detach = self.sql(|table, part| format!("ALTER TABLE {table} DETACH PARTITION {part}"));
        conn.batch_execute(&detach).await?;
        if self.name != other.name {
            let name = &other.name;
            let rename =
                self.sql(|table, part| format!("ALTER TABLE {part} RENAME TO {table}_{name}"));
            conn.batch_execute(&rename).await?;
        }
        let range = other.range();
        let attach =
            other.sql(|table, part| format!("ALTER TABLE {table} ATTACH PARTITION {part} {range}"));
        conn.batch_execute(&attach).await
    }

    /// The first and the last id that any of its tables has; `None` where all are empty.
    async fn extent(&self, conn: &mut AsyncPgConnection) -> QueryResult<Option<(Uuid, Uuid)>> {
        #[derive(QueryableByName)]
        struct Extent {
            #[diesel(sql_type = Nullable<SqlUuid>)]
            first: Option<Uuid>,
            #[diesel(sql_type = Nullable<SqlUuid>)]
            last: Option<Uuid>,
        }
        let ends = |order: &str| {
            let end = |(table, id): &(&str, &str)| {
                format!("(SELECT {id} FROM {table}_{} ORDER BY {id} {order} LIMIT 1)", self.name)
            };
            TABLES.iter().map(end).collect::<Vec<_>>().join(", ")
        };
        let (firsts, lasts) = (ends("ASC"), ends("DESC"));
        let sql = format!("SELECT least({firsts}) AS first, greatest({lasts}) AS last");
        let Extent { first, last } = diesel::sql_query(sql).get_result(conn).await?;
        Ok(first.zip(last))
    }
}

/// All parts, in the order of their ids.
async fn all(conn: &mut AsyncPgConnection) -> QueryResult<Vec<Part>> {
    const SQL: &str = "SELECT substr(relname, length('webhook_events_') + 1), \
        pg_get_expr(relpartbound, c.oid) FROM pg_inherits JOIN pg_class AS c ON c.oid = inhrelid \
        WHERE inhparent = 'webhook_events'::regclass";
    let rows: Vec<(String, String)> = Statement::<(Text, Text)>::new(SQL).load(conn).await?;
    let mut parts = Vec::new();
    for (name, range) in rows {
        let bounds = range.strip_prefix("FOR VALUES FROM (").and_then(|range| {
            let (from, to) = range.strip_suffix(')')?.split_once(") TO (")?;
            Some((bound(from)?, bound(to)?))
        });
        let (from, to) = bounds.ok_or_else(|| unreadable("relpartbound", range))?;
        parts.push(Part { name, from, to });
    }
    parts.sort_by_key(|part| part.from);
    Ok(parts)
}

fn bound(text: &str) -> Option<Option<Uuid>> {
    match text {
        "MINVALUE" | "MAXVALUE" => Some(None),
        id => id.trim_matches('\'').parse().ok().map(Some),
    }
}

/// The part in which this id has its place, or the next one behind it.
pub(crate) async fn at(conn: &mut AsyncPgConnection, id: Uuid) -> QueryResult<Option<Part>> {
    let parts = all(conn).await?;
    Ok(parts.into_iter().find(|part| part.to.is_none_or(|to| id < to)))
}

/// Makes the months that are missing of those that there must be at `now`; says whether there were any.
///
/// # Errors
///
/// Others use the tables, or the user may not change them. What has no month is stored all the same.
pub(crate) async fn make_ahead(
    conn: &mut AsyncPgConnection,
    now: Timestamp,
) -> Result<bool, TxError> {
    if missing(conn, now).await?.is_none() {
        return Ok(false);
    }
    index::hold(conn).await?;
    hold(conn).await?;
    // Another server may have made them while this one waited for the lock.
    let Some((rest, ranges)) = missing(conn, now).await? else { return Ok(false) };
    conn.batch_execute(LOCK_TABLES).await?;
    let place = |id: Uuid| {
        ranges
            .iter()
            .position(|range| range.to.is_none_or(|to| id < to))
            .unwrap_or(ranges.len() - 1)
    };
    // The rows of the rest stay in one part, if need be a large one.
    let (first, last) = match rest.extent(conn).await? {
        Some((first, last)) => (place(first), place(last)),
        None => (ranges.len() - 1, ranges.len() - 1),
    };
    let (before, behind) = (&ranges[..first], &ranges[last + 1..]);
    let of_rows = Part::new(ranges[first].from, ranges[last].to);
    if before.is_empty() && behind.is_empty() {
        tracing::warn!(
            "audit rows of the future are in the way of the months that are to be made: rows are \
             deleted one by one when they are old, as long as these stay"
        );
        return Ok(false);
    }
    rest.turn_into(conn, &of_rows).await?;
    for part in before.iter().chain(behind) {
        part.create(conn).await?;
    }
    Ok(true)
}

/// The part that has no end, and those in which it is to be parted; `None` where there are enough months.
async fn missing(
    conn: &mut AsyncPgConnection,
    now: Timestamp,
) -> QueryResult<Option<(Part, Vec<Part>)>> {
    let Some(rest) = all(conn).await?.pop().filter(|part| part.to.is_none()) else {
        return Ok(None);
    };
    let starts = month_starts(now).into_iter().map(|start| Some(first_id(start)));
    let new: Vec<_> = starts.filter(|start| *start > rest.from).collect();
    if new.is_empty() {
        return Ok(None);
    }
    let froms = std::iter::once(rest.from).chain(new.iter().copied());
    let tos = new.iter().copied().chain([None]);
    let ranges = froms.zip(tos).map(|(from, to)| Part::new(from, to)).collect();
    Ok(Some((rest, ranges)))
}

async fn hold(conn: &mut AsyncPgConnection) -> QueryResult<()> {
    let hold = Statement::<()>::new("SELECT pg_advisory_xact_lock(?)");
    hold.bind::<BigInt>(LOCK).execute(conn).await.map(|_| ())
}

/// Drops a month, if everything in it is settled and old; returns whether it is gone. Whoever indexes has to be kept
/// from it.
///
/// # Errors
///
/// Others use the tables.
pub(crate) async fn drop_old(
    conn: &mut AsyncPgConnection,
    month: &Part,
    cutoffs: &Cutoffs,
) -> Result<bool, TxError> {
    hold(conn).await?;
    conn.batch_execute(LOCK_TABLES).await?;
    let parts = all(conn).await?;
    let Some(place) = parts.iter().position(|part| part == month) else { return Ok(false) };
    if !is_old(conn, month, cutoffs).await? {
        return Ok(false);
    }
    month.drop(conn).await?;
    // Something has to take its place.
    if let Some(before) = parts[..place].last()
        && !before.is_month()
        && before.to == month.from
        && before.extent(conn).await?.is_none()
    {
        before.turn_into(conn, &Part { to: month.to, ..before.clone() }).await?;
    } else {
        let name = format!("gap_{}", month.name);
        Part { name, ..month.clone() }.create(conn).await?;
    }
    Ok(true)
}

/// Whether every row of a month is settled, and kept no longer by its workspace.
pub(crate) async fn is_old(
    conn: &mut AsyncPgConnection,
    month: &Part,
    cutoffs: &Cutoffs,
) -> QueryResult<bool> {
    const UNSETTLED: &str = "SELECT EXISTS (SELECT FROM webhook_events WHERE id >= ? AND id < ? \
        AND status IN ('PENDING', 'PROCESSING', 'ERROR', 'PENDING_RETRY'))";
    let (Some(from), Some(to)) = (month.from, month.to) else { return Ok(false) };
    let takes = |cutoff: Option<Timestamp>| cutoff.is_some_and(|before| to <= first_id(before));
    if !takes(cutoffs.latest(PruneKind::Events)) {
        return Ok(false);
    }
    let unsettled = Statement::<Bool>::new(UNSETTLED).bind::<SqlUuid>(from).bind::<SqlUuid>(to);
    if unsettled.get_result(conn).await? {
        return Ok(false);
    }
    if cutoffs.all().all(|(_, cutoff)| takes(cutoff.events)) {
        return Ok(true);
    }
    let workspaces = workspaces(conn, month).await?;
    Ok(workspaces.iter().all(|name| takes(cutoffs.of(name).events)))
}

/// The workspaces that have rows in a part: one look into the index for each.
async fn workspaces(conn: &mut AsyncPgConnection, part: &Part) -> QueryResult<Vec<String>> {
    #[derive(QueryableByName)]
    struct Workspace {
        #[diesel(sql_type = Text)]
        name: String,
    }
    let table = format!("webhook_events_{}", part.name);
    let sql = format!(
        "WITH RECURSIVE workspaces (name) AS (\
            SELECT min(workspace) FROM {table} \
            UNION ALL SELECT (SELECT min(workspace) FROM {table} WHERE workspace > name) \
            FROM workspaces WHERE name IS NOT NULL) \
        SELECT name FROM workspaces WHERE name IS NOT NULL"
    );
    let rows: Vec<Workspace> = diesel::sql_query(sql).load(conn).await?;
    Ok(rows.into_iter().map(|row| row.name).collect())
}

/// The first moments of this month and of those that follow: one more than there are to be, which ends the last.
fn month_starts(now: Timestamp) -> Vec<Timestamp> {
    let text = now.to_string();
    let number = |part: Option<&str>| part.and_then(|digits| digits.parse::<usize>().ok());
    let (Some(year), Some(month)) = (number(text.get(..4)), number(text.get(5..7))) else {
        return Vec::new();
    };
    let start = |ahead: usize| {
        let months = year * 12 + month - 1 + ahead;
        format!("{:04}-{:02}-01T00:00:00Z", months / 12, months % 12 + 1).parse().ok()
    };
    (0..=MONTHS).filter_map(start).collect()
}

/// The month in which this id begins, as in the names of parts.
fn month_of(id: Uuid) -> String {
    let millis = i64::try_from(id.as_u128() >> 80).unwrap_or(i64::MAX);
    let text = Timestamp::from_millis(millis).to_string();
    text.get(..7).unwrap_or(&text).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_begin_on_their_first_day_also_over_the_end_of_a_year() {
        let now: Timestamp = "2026-11-30T23:59:59.999Z".parse().unwrap();
        let starts: Vec<_> = month_starts(now).iter().map(Timestamp::to_string).collect();
        let expected = ["2026-11-01", "2026-12-01", "2027-01-01", "2027-02-01"]
            .map(|day| format!("{day}T00:00:00.000000Z"));
        assert_eq!(starts, expected);
        assert_eq!(month_of(first_id(month_starts(now)[2])), "2027_01");
    }
}
