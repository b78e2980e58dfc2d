//! What drainers have told of their spools: the `spools` table.

use arrakis_core::base::conservation::SpoolReport;
use arrakis_core::record::store::HeardSpool;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::upsert::excluded;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::row::At;
use crate::schema::spools;

/// Keeps a report unless a later one is there already, and of the workspace's spools no more than `max`.
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
            spools::report.eq(report),
        ))
        .on_conflict((spools::workspace, spools::spool_id))
        .do_update()
        .set((
            spools::heard_at.eq(excluded(spools::heard_at)),
            spools::report.eq(excluded(spools::report)),
        ));
    let later = spools::heard_at.le(excluded(spools::heard_at));
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
    let heard = |(At(heard_at), report): (At, String)| {
        let report: SpoolReport = serde_json::from_str(&report).ok()?;
        Some(HeardSpool { heard_at, report })
    };
    Ok(rows.into_iter().filter_map(heard).collect())
}
