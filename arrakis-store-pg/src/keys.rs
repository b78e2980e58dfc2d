//! API keys: the `api_keys` table.

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::digest::Digest;
use arrakis_core::record::key::ApiKey;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::row::{At, digest, parse};
use crate::schema::api_keys;

type KeyRow = (String, String, String, String, Vec<u8>, At, Option<At>, Option<At>);

/// Adds a key.
pub(crate) async fn create(conn: &mut AsyncPgConnection, key: &ApiKey) -> QueryResult<()> {
    diesel::insert_into(api_keys::table)
        .values((
            api_keys::id.eq(&key.id),
            api_keys::name.eq(&key.name),
            api_keys::scope.eq(key.scope.as_str()),
            api_keys::workspace.eq(&key.workspace),
            api_keys::hash.eq(&key.hash.as_bytes()[..]),
            api_keys::created_at.eq(At(key.created_at)),
            api_keys::revoked_at.eq(key.revoked_at.map(At)),
            api_keys::last_used_at.eq(key.last_used_at.map(At)),
        ))
        .execute(conn)
        .await?;
    Ok(())
}

/// The key of this id.
pub(crate) async fn find(conn: &mut AsyncPgConnection, id: &str) -> QueryResult<Option<ApiKey>> {
    let row = api_keys::table.find(id).get_result::<KeyRow>(conn).await.optional()?;
    row.map(key).transpose()
}

/// Every key, oldest first.
pub(crate) async fn all(conn: &mut AsyncPgConnection) -> QueryResult<Vec<ApiKey>> {
    let rows: Vec<KeyRow> =
        api_keys::table.order((api_keys::created_at.asc(), api_keys::id.asc())).load(conn).await?;
    rows.into_iter().map(key).collect()
}

/// Marks a key as revoked, unless it is already; returns whether it exists.
pub(crate) async fn revoke(
    conn: &mut AsyncPgConnection,
    id: &str,
    now: Timestamp,
) -> QueryResult<bool> {
    diesel::update(api_keys::table.find(id).filter(api_keys::revoked_at.is_null()))
        .set(api_keys::revoked_at.eq(At(now)))
        .execute(conn)
        .await?;
    diesel::select(diesel::dsl::exists(api_keys::table.find(id))).get_result(conn).await
}

/// Notes when keys were used, unless a later use is known.
pub(crate) async fn note_uses(
    conn: &mut AsyncPgConnection,
    uses: &[(String, Timestamp)],
) -> QueryResult<()> {
    for (id, at) in uses {
        let is_later = api_keys::last_used_at.is_null().or(api_keys::last_used_at.lt(At(*at)));
        diesel::update(api_keys::table.find(id).filter(is_later))
            .set(api_keys::last_used_at.eq(At(*at)))
            .execute(conn)
            .await?;
    }
    Ok(())
}

fn key(row: KeyRow) -> QueryResult<ApiKey> {
    let (id, name, scope, workspace, hash, created_at, revoked_at, last_used_at) = row;
    let hash: Digest = digest("hash", &hash)?;
    Ok(ApiKey {
        scope: parse("scope", &scope)?,
        created_at: created_at.0,
        revoked_at: revoked_at.map(|at| at.0),
        last_used_at: last_used_at.map(|at| at.0),
        id,
        name,
        workspace,
        hash,
    })
}
