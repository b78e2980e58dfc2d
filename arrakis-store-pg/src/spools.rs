//! What drainers have told of their spools: the tables `spools` and `spool_hours`.

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::conservation::SpoolReport;
use arrakis_core::record::store::{HeardSpool, hour_of};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::upsert::excluded;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::row::At;
use crate::schema::{spool_hours, spools};

/// Keeps a report unless a later one is there already, for the spool and for the hour, and of the workspace's spools
/// no more than `max`.
pub(crate) async fn report(
    conn: &mut AsyncPgConnection,
    workspace: &str,
    heard: &HeardSpool,
    max: usize,
) -> QueryResult<()> {
    let id = heard.report.spool_id;
    let known = diesel::dsl::exists(spools::table.find((workspace, id)));
    let known: bool = diesel::select(known).get_result(conn).await?;
    let report = serde_json::to_string(&heard.report)
        .map_err(|error| diesel::result::Error::SerializationError(error.into()))?;
    let kept = diesel::insert_into(spools::table)
        .values((
            spools::workspace.eq(workspace),
            spools::spool_id.eq(id),
            spools::heard_at.eq(At(heard.heard_at)),
            spools::report.eq(&report),
        ))
        .on_conflict((spools::workspace, spools::spool_id))
        .do_update()
        .set((
            spools::heard_at.eq(excluded(spools::heard_at)),
            spools::report.eq(excluded(spools::report)),
        ));
    let later = spools::heard_at.le(excluded(spools::heard_at));
    diesel::query_dsl::methods::FilterDsl::filter(kept, later).execute(conn).await?;
    let kept = diesel::insert_into(spool_hours::table)
        .values((
            spool_hours::workspace.eq(workspace),
            spool_hours::spool_id.eq(id),
            spool_hours::hour.eq(At(hour_of(heard.heard_at))),
            spool_hours::heard_at.eq(At(heard.heard_at)),
            spool_hours::report.eq(&report),
        ))
        .on_conflict((spool_hours::workspace, spool_hours::spool_id, spool_hours::hour))
        .do_update()
        .set((
            spool_hours::heard_at.eq(excluded(spool_hours::heard_at)),
            spool_hours::report.eq(excluded(spool_hours::report)),
        ));
    let later = spool_hours::heard_at.le(excluded(spool_hours::heard_at));
    diesel::query_dsl::methods::FilterDsl::filter(kept, later).execute(conn).await?;
    if known {
        return Ok(());
    }
    let beyond: Vec<Uuid> = spools::table
        .filter(spools::workspace.eq(workspace))
        .order((spools::heard_at.desc(), spools::spool_id.desc()))
        .offset(i64::try_from(max).unwrap_or(i64::MAX))
        .select(spools::spool_id)
        .load(conn)
        .await?;
    for id in beyond {
        diesel::delete(spools::table.find((workspace, id))).execute(conn).await?;
        let hours = spool_hours::table
            .filter(spool_hours::workspace.eq(workspace))
            .filter(spool_hours::spool_id.eq(id));
        diesel::delete(hours).execute(conn).await?;
    }
    Ok(())
}

/// Spools of a workspace, those heard of lately first. A report that a later version wrote and this one
/// cannot read is passed over.
pub(crate) async fn list(
    conn: &mut AsyncPgConnection,
    workspace: &str,
    limit: usize,
) -> QueryResult<Vec<HeardSpool>> {
    let rows: Vec<(At, String)> = spools::table
        .filter(spools::workspace.eq(workspace))
        .order((spools::heard_at.desc(), spools::spool_id.desc()))
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select((spools::heard_at, spools::report))
        .load(conn)
        .await?;
    Ok(readable(rows))
}

/// The hours of a spool in a range of time, oldest first.
pub(crate) async fn history(
    conn: &mut AsyncPgConnection,
    workspace: &str,
    spool: Uuid,
    since: Timestamp,
    until: Timestamp,
) -> QueryResult<Vec<HeardSpool>> {
    let rows: Vec<(At, String)> = spool_hours::table
        .filter(spool_hours::workspace.eq(workspace))
        .filter(spool_hours::spool_id.eq(spool))
        .filter(spool_hours::hour.ge(At(hour_of(since))))
        .filter(spool_hours::heard_at.ge(At(since)))
        .filter(spool_hours::heard_at.lt(At(until)))
        .order(spool_hours::hour.asc())
        .select((spool_hours::heard_at, spool_hours::report))
        .load(conn)
        .await?;
    Ok(readable(rows))
}

/// Deletes up to `limit` of the oldest hours that had ended before `before`; returns how many.
pub(crate) async fn prune(
    conn: &mut AsyncPgConnection,
    before: Timestamp,
    limit: usize,
) -> QueryResult<u64> {
    use spool_hours::{hour, spool_id, table, workspace};
    let old: Vec<(String, Uuid, At)> = table
        .filter(hour.lt(At(hour_of(before))))
        .order(hour.asc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select((workspace, spool_id, hour))
        .load(conn)
        .await?;
    let mut pruned = 0;
    for key in old {
        // Another server may have deleted it meanwhile.
        pruned += diesel::delete(table.find(key)).execute(conn).await? as u64;
    }
    Ok(pruned)
}

fn readable(rows: Vec<(At, String)>) -> Vec<HeardSpool> {
    let heard = |(At(heard_at), report): (At, String)| {
        let report: SpoolReport = serde_json::from_str(&report).ok()?;
        Some(HeardSpool { heard_at, report })
    };
    rows.into_iter().filter_map(heard).collect()
}
