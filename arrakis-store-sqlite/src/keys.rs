//! API keys: the `api_keys` table.

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::digest::Digest;
use arrakis_core::record::key::ApiKey;
use diesel::prelude::*;
use diesel::result::QueryResult;

use crate::row::{digest, maybe_time, parse, time};
use crate::schema::api_keys;

type KeyRow = (String, String, String, String, Vec<u8>, String, Option<String>, Option<String>);

/// Adds a key.
pub(crate) fn create(conn: &mut SqliteConnection, key: &ApiKey) -> QueryResult<()> {
    diesel::insert_into(api_keys::table)
        .values((
            api_keys::id.eq(&key.id),
            api_keys::name.eq(&key.name),
            api_keys::scope.eq(key.scope.as_str()),
            api_keys::workspace.eq(&key.workspace),
            api_keys::hash.eq(&key.hash.as_bytes()[..]),
            api_keys::created_at.eq(key.created_at.to_string()),
            api_keys::revoked_at.eq(key.revoked_at.map(|at| at.to_string())),
            api_keys::last_used_at.eq(key.last_used_at.map(|at| at.to_string())),
        ))
        .execute(conn)?;
    Ok(())
}

/// The key of this id.
pub(crate) fn find(conn: &mut SqliteConnection, id: &str) -> QueryResult<Option<ApiKey>> {
    api_keys::table.find(id).get_result::<KeyRow>(conn).optional()?.map(key).transpose()
}

/// Every key, oldest first.
pub(crate) fn all(conn: &mut SqliteConnection) -> QueryResult<Vec<ApiKey>> {
    let rows = api_keys::table
        .order((api_keys::created_at.asc(), api_keys::id.asc()))
        .load::<KeyRow>(conn)?;
    rows.into_iter().map(key).collect()
}

/// Marks a key as revoked, unless it is already; returns whether it exists.
pub(crate) fn revoke(conn: &mut SqliteConnection, id: &str, now: Timestamp) -> QueryResult<bool> {
    diesel::update(api_keys::table.find(id).filter(api_keys::revoked_at.is_null()))
        .set(api_keys::revoked_at.eq(now.to_string()))
        .execute(conn)?;
    diesel::select(diesel::dsl::exists(api_keys::table.find(id))).get_result(conn)
}

/// Notes when keys were used, unless a later use is known.
pub(crate) fn note_uses(
    conn: &mut SqliteConnection,
    uses: &[(String, Timestamp)],
) -> QueryResult<()> {
    for (id, at) in uses {
        let at = at.to_string();
        let is_later = api_keys::last_used_at.is_null().or(api_keys::last_used_at.lt(at.clone()));
        diesel::update(api_keys::table.find(id).filter(is_later))
            .set(api_keys::last_used_at.eq(at))
            .execute(conn)?;
    }
    Ok(())
}

fn key(row: KeyRow) -> QueryResult<ApiKey> {
    let (id, name, scope, workspace, hash, created_at, revoked_at, last_used_at) = row;
    let hash: Digest = digest("hash", &hash)?;
    Ok(ApiKey {
        scope: parse("scope", &scope)?,
        created_at: time("created_at", &created_at)?,
        revoked_at: maybe_time("revoked_at", revoked_at.as_deref())?,
        last_used_at: maybe_time("last_used_at", last_used_at.as_deref())?,
        id,
        name,
        workspace,
        hash,
    })
}
