//! What audit rows and messages add up to. A transaction that stores rows or changes their state says in its commit
//! how it changes the counts: [`leaving`] and [`joining`] find that out. [`fold`] adds it up behind the writer.

pub(crate) mod fold;
pub(crate) mod sums;

use arrakis_core::record::store::adapter::{CountKey, CountedRow, Counts, host_of};
use arrakis_core::record::store::{EventMetadata, RollupStep};
use diesel::prelude::*;
use diesel::result::QueryResult;

use crate::row::{json, parse, time};
use crate::schema::webhook_events;

/// The counts without these rows as they are now, before they change.
pub(crate) fn leaving(conn: &mut SqliteConnection, ids: &[String]) -> QueryResult<Counts> {
    let mut counts = Counts::default();
    for id in ids {
        counts.remove(row(conn, id)?);
    }
    Ok(counts)
}

/// Adds these rows as they are now, after they have changed.
pub(crate) fn joining(
    conn: &mut SqliteConnection,
    ids: &[String],
    counts: &mut Counts,
) -> QueryResult<()> {
    for id in ids {
        counts.add(row(conn, id)?);
    }
    Ok(())
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = webhook_events)]
struct Row {
    workspace: String,
    received_at: String,
    event_type: String,
    status: String,
    error_code: Option<String>,
    metadata: String,
    payload_bytes: i64,
    processing_time: Option<i64>,
}

fn row(conn: &mut SqliteConnection, id: &str) -> QueryResult<CountedRow> {
    let row = webhook_events::table.find(id).select(Row::as_select()).get_result(conn)?;
    let metadata: EventMetadata = json("metadata", &row.metadata)?;
    Ok(CountedRow {
        received_at: time("received_at", &row.received_at)?,
        key: CountKey {
            status: parse("status", &row.status)?,
            event_type: row.event_type,
            error_code: row.error_code.unwrap_or_default(),
            host: host_of(&metadata),
        },
        workspace: row.workspace,
        bytes: u64::try_from(row.payload_bytes).unwrap_or(0),
        latency_ms: row.processing_time.and_then(|ms| u64::try_from(ms).ok()),
    })
}

/// The table of a step.
fn table(step: RollupStep) -> &'static str {
    match step {
        RollupStep::Minute => "rollup_minute",
        RollupStep::Hour => "rollup_hour",
        RollupStep::Day => "rollup_day",
    }
}
