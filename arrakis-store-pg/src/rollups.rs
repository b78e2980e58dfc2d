//! What audit rows and messages add up to. A transaction that stores rows or changes their state says in its commit
//! how it changes the counts: [`leaving`] and [`joining`] find that out. [`fold`] adds it up behind the lanes, so these
//! never wait for each other's sums.

pub(crate) mod fold;
pub(crate) mod sums;

use arrakis_core::record::store::EventMetadata;
use arrakis_core::record::store::adapter::{CountKey, CountedRow, Counts, host_of};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::row::{At, JsonText, State, json, shown};
use crate::schema::webhook_events;

/// The counts without these rows as they are now, before they change.
pub(crate) async fn leaving(conn: &mut AsyncPgConnection, ids: &[Uuid]) -> QueryResult<Counts> {
    let mut counts = Counts::default();
    rows(conn, ids).await?.into_iter().for_each(|row| counts.remove(row));
    Ok(counts)
}

/// Adds these rows as they are now, after they have changed.
pub(crate) async fn joining(
    conn: &mut AsyncPgConnection,
    ids: &[Uuid],
    counts: &mut Counts,
) -> QueryResult<()> {
    rows(conn, ids).await?.into_iter().for_each(|row| counts.add(row));
    Ok(())
}

/// A row as it is counted, its texts as columns hold them.
pub(crate) fn as_shown(mut row: CountedRow) -> CountedRow {
    let CountKey { event_type, error_code, host, .. } = &mut row.key;
    for text in [&mut row.workspace, event_type, error_code, host] {
        *text = shown(text).into_owned();
    }
    row
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = webhook_events)]
struct Row {
    workspace: String,
    received_at: At,
    event_type: String,
    status: State,
    error_code: Option<String>,
    metadata: JsonText<'static>,
    payload_bytes: i64,
    processing_time: Option<i64>,
}

async fn rows(conn: &mut AsyncPgConnection, ids: &[Uuid]) -> QueryResult<Vec<CountedRow>> {
    let rows: Vec<Row> = webhook_events::table
        .filter(webhook_events::id.eq_any(ids))
        .select(Row::as_select())
        .load(conn)
        .await?;
    let counted = |row: Row| {
        let metadata: EventMetadata = json("metadata", row.metadata)?;
        Ok(as_shown(CountedRow {
            received_at: row.received_at.0,
            key: CountKey {
                event_type: row.event_type,
                status: row.status.0,
                error_code: row.error_code.unwrap_or_default(),
                host: host_of(&metadata),
            },
            workspace: row.workspace,
            bytes: u64::try_from(row.payload_bytes).unwrap_or(0),
            latency_ms: row.processing_time.and_then(|ms| u64::try_from(ms).ok()),
        }))
    };
    rows.into_iter().map(counted).collect()
}

/// SQL about the table of a step, which stands between these two parts.
macro_rules! sql_of_step {
    ($step:expr, $before:literal, $after:literal) => {
        match $step {
            RollupStep::Minute => concat!($before, "rollup_minute", $after),
            RollupStep::Hour => concat!($before, "rollup_hour", $after),
            RollupStep::Day => concat!($before, "rollup_day", $after),
        }
    };
}
use sql_of_step;
