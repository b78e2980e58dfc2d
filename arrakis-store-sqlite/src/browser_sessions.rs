//! Who is signed in at a dashboard: the table `browser_sessions`.

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::digest::Digest;
use arrakis_core::record::store::BrowserSession;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::upsert::excluded;

use crate::row::{digest, parse, time};
use crate::schema::browser_sessions;

type SessionRow = (Vec<u8>, String, String, String, String, String, String);

/// Keeps a session, in place of the one of the same hash, and of its workspace's sessions no more than `max`.
pub(crate) fn open(
    conn: &mut SqliteConnection,
    session: &BrowserSession,
    max: usize,
) -> QueryResult<()> {
    use browser_sessions::{browser, created_at, hash, key_id, scope, seen_at, table, workspace};
    diesel::insert_into(table)
        .values((
            hash.eq(&session.hash.as_bytes()[..]),
            workspace.eq(&session.workspace),
            key_id.eq(&session.key_id),
            scope.eq(session.scope.as_str()),
            browser.eq(&session.browser),
            created_at.eq(session.created_at.to_string()),
            seen_at.eq(session.seen_at.to_string()),
        ))
        .on_conflict(hash)
        .do_update()
        .set((
            workspace.eq(excluded(workspace)),
            key_id.eq(excluded(key_id)),
            scope.eq(excluded(scope)),
            browser.eq(excluded(browser)),
            created_at.eq(excluded(created_at)),
            seen_at.eq(excluded(seen_at)),
        ))
        .execute(conn)?;
    let beyond: Vec<Vec<u8>> = table
        .filter(workspace.eq(&session.workspace))
        .order((seen_at.desc(), hash.desc()))
        .offset(i64::try_from(max).unwrap_or(i64::MAX))
        .select(hash)
        .load(conn)?;
    for old in beyond {
        diesel::delete(table.find(old)).execute(conn)?;
    }
    Ok(())
}

/// The session of this hash.
pub(crate) fn find(
    conn: &mut SqliteConnection,
    hash: &Digest,
) -> QueryResult<Option<BrowserSession>> {
    let found = browser_sessions::table.find(&hash.as_bytes()[..]);
    let row = found.get_result::<SessionRow>(conn).optional()?;
    row.map(session).transpose()
}

/// The sessions of a workspace, those used lately first.
pub(crate) fn list(
    conn: &mut SqliteConnection,
    workspace: &str,
) -> QueryResult<Vec<BrowserSession>> {
    let rows: Vec<SessionRow> = browser_sessions::table
        .filter(browser_sessions::workspace.eq(workspace))
        .order((browser_sessions::seen_at.desc(), browser_sessions::hash.asc()))
        .load(conn)?;
    rows.into_iter().map(session).collect()
}

/// Notes when a session was last used, unless a later use is known.
pub(crate) fn note(conn: &mut SqliteConnection, hash: &Digest, at: Timestamp) -> QueryResult<()> {
    let found = browser_sessions::table.find(&hash.as_bytes()[..]);
    diesel::update(found.filter(browser_sessions::seen_at.lt(at.to_string())))
        .set(browser_sessions::seen_at.eq(at.to_string()))
        .execute(conn)?;
    Ok(())
}

/// Ends a session; returns whether there was one.
pub(crate) fn close(conn: &mut SqliteConnection, hash: &Digest) -> QueryResult<bool> {
    let found = browser_sessions::table.find(&hash.as_bytes()[..]);
    Ok(diesel::delete(found).execute(conn)? > 0)
}

/// Ends the sessions that were last used before `seen`, or signed in before `created`; returns how many.
pub(crate) fn forget(
    conn: &mut SqliteConnection,
    seen: Timestamp,
    created: Timestamp,
) -> QueryResult<u64> {
    let is_unused = browser_sessions::seen_at.lt(seen.to_string());
    let is_old = browser_sessions::created_at.lt(created.to_string());
    let old = browser_sessions::table.filter(is_unused.or(is_old));
    Ok(diesel::delete(old).execute(conn)? as u64)
}

fn session(row: SessionRow) -> QueryResult<BrowserSession> {
    let (hash, workspace, key_id, scope, browser, created_at, seen_at) = row;
    Ok(BrowserSession {
        hash: digest("hash", &hash)?,
        scope: parse("scope", &scope)?,
        created_at: time("created_at", &created_at)?,
        seen_at: time("seen_at", &seen_at)?,
        key_id,
        workspace,
        browser,
    })
}
