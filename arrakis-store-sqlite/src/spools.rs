//! What drainers have told of their spools: the tables `spools` and `spool_hours`.

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::conservation::SpoolReport;
use arrakis_core::record::store::{HeardSpool, hour_of};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::upsert::excluded;
use uuid::Uuid;

use crate::row::{time, to_json};
use crate::schema::{spool_hours, spools};

/// Keeps a report unless a later one is there already, for the spool and for the hour, and of the workspace's spools
/// no more than `max`.
pub(crate) fn report(
    conn: &mut SqliteConnection,
    workspace: &str,
    heard: &HeardSpool,
    max: usize,
) -> QueryResult<()> {
    let id = heard.report.spool_id.to_string();
    let (heard_at, report) = (heard.heard_at.to_string(), to_json(&heard.report)?);
    let known = diesel::dsl::exists(spools::table.find((workspace, &id)));
    let known: bool = diesel::select(known).get_result(conn)?;
    let kept = diesel::insert_into(spools::table)
        .values((
            spools::workspace.eq(workspace),
            spools::spool_id.eq(&id),
            spools::heard_at.eq(&heard_at),
            spools::report.eq(&report),
        ))
        .on_conflict((spools::workspace, spools::spool_id))
        .do_update()
        .set((
            spools::heard_at.eq(excluded(spools::heard_at)),
            spools::report.eq(excluded(spools::report)),
        ));
    let later = spools::heard_at.le(excluded(spools::heard_at));
    diesel::query_dsl::methods::FilterDsl::filter(kept, later).execute(conn)?;
    let kept = diesel::insert_into(spool_hours::table)
        .values((
            spool_hours::workspace.eq(workspace),
            spool_hours::spool_id.eq(&id),
            spool_hours::hour.eq(hour_of(heard.heard_at).to_string()),
            spool_hours::heard_at.eq(&heard_at),
            spool_hours::report.eq(&report),
        ))
        .on_conflict((spool_hours::workspace, spool_hours::spool_id, spool_hours::hour))
        .do_update()
        .set((
            spool_hours::heard_at.eq(excluded(spool_hours::heard_at)),
            spool_hours::report.eq(excluded(spool_hours::report)),
        ));
    let later = spool_hours::heard_at.le(excluded(spool_hours::heard_at));
    diesel::query_dsl::methods::FilterDsl::filter(kept, later).execute(conn)?;
    if known {
        return Ok(());
    }
    let beyond: Vec<String> = spools::table
        .filter(spools::workspace.eq(workspace))
        .order((spools::heard_at.desc(), spools::spool_id.desc()))
        .offset(i64::try_from(max).unwrap_or(i64::MAX))
        .select(spools::spool_id)
        .load(conn)?;
    for id in beyond {
        diesel::delete(spools::table.find((workspace, &id))).execute(conn)?;
        let hours = spool_hours::table
            .filter(spool_hours::workspace.eq(workspace))
            .filter(spool_hours::spool_id.eq(&id));
        diesel::delete(hours).execute(conn)?;
    }
    Ok(())
}

/// Spools of a workspace, those heard of lately first. A report that a later version wrote and this one
/// cannot read is passed over.
pub(crate) fn list(
    conn: &mut SqliteConnection,
    workspace: &str,
    limit: usize,
) -> QueryResult<Vec<HeardSpool>> {
    let rows: Vec<(String, String)> = spools::table
        .filter(spools::workspace.eq(workspace))
        .order((spools::heard_at.desc(), spools::spool_id.desc()))
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select((spools::heard_at, spools::report))
        .load(conn)?;
    readable(rows)
}

/// The hours of a spool in a range of time, oldest first.
pub(crate) fn history(
    conn: &mut SqliteConnection,
    workspace: &str,
    spool: Uuid,
    since: Timestamp,
    until: Timestamp,
) -> QueryResult<Vec<HeardSpool>> {
    let rows: Vec<(String, String)> = spool_hours::table
        .filter(spool_hours::workspace.eq(workspace))
        .filter(spool_hours::spool_id.eq(spool.to_string()))
        .filter(spool_hours::hour.ge(hour_of(since).to_string()))
        .filter(spool_hours::heard_at.ge(since.to_string()))
        .filter(spool_hours::heard_at.lt(until.to_string()))
        .order(spool_hours::hour.asc())
        .select((spool_hours::heard_at, spool_hours::report))
        .load(conn)?;
    readable(rows)
}

/// Deletes up to `limit` of the oldest hours that had ended before `before`; returns how many.
pub(crate) fn prune(
    conn: &mut SqliteConnection,
    before: Timestamp,
    limit: usize,
) -> QueryResult<u64> {
    use spool_hours::{hour, spool_id, table, workspace};
    let old: Vec<(String, String, String)> = table
        .filter(hour.lt(hour_of(before).to_string()))
        .order(hour.asc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select((workspace, spool_id, hour))
        .load(conn)?;
    for key in &old {
        diesel::delete(table.find(key.clone())).execute(conn)?;
    }
    Ok(old.len() as u64)
}

fn readable(rows: Vec<(String, String)>) -> QueryResult<Vec<HeardSpool>> {
    let mut spools = Vec::with_capacity(rows.len());
    for (heard_at, report) in rows {
        let heard_at = time("heard_at", &heard_at)?;
        let report: Option<SpoolReport> = serde_json::from_str(&report).ok();
        spools.extend(report.map(|report| HeardSpool { heard_at, report }));
    }
    Ok(spools)
}
