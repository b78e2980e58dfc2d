//! What drainers have told of their spools: the `spools` table.

use arrakis_core::base::conservation::SpoolReport;
use arrakis_core::record::store::HeardSpool;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::upsert::excluded;

use crate::row::{time, to_json};
use crate::schema::spools;

/// Keeps a report unless a later one is there already, and of the workspace's spools no more than `max`.
pub(crate) fn report(
    conn: &mut SqliteConnection,
    workspace: &str,
    heard: &HeardSpool,
    max: usize,
) -> QueryResult<()> {
    let id = heard.report.spool_id.to_string();
    let known = diesel::dsl::exists(spools::table.find((workspace, &id)));
    let known: bool = diesel::select(known).get_result(conn)?;
    let kept = diesel::insert_into(spools::table)
        .values((
            spools::workspace.eq(workspace),
            spools::spool_id.eq(&id),
            spools::heard_at.eq(heard.heard_at.to_string()),
            spools::report.eq(to_json(&heard.report)?),
        ))
        .on_conflict((spools::workspace, spools::spool_id))
        .do_update()
        .set((
            spools::heard_at.eq(excluded(spools::heard_at)),
            spools::report.eq(excluded(spools::report)),
        ));
    let later = spools::heard_at.le(excluded(spools::heard_at));
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
        diesel::delete(spools::table.find((workspace, id))).execute(conn)?;
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
    let mut spools = Vec::with_capacity(rows.len());
    for (heard_at, report) in rows {
        let heard_at = time("heard_at", &heard_at)?;
        let report: Option<SpoolReport> = serde_json::from_str(&report).ok();
        spools.extend(report.map(|report| HeardSpool { heard_at, report }));
    }
    Ok(spools)
}
