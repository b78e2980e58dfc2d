//! API keys, as hashes.

use arrakis_core::clock::Timestamp;
use arrakis_core::key::ApiKey;
use arrakis_core::store::{KeyStore, StoreError};
use async_trait::async_trait;
use diesel::prelude::*;

use crate::SqliteStore;
use crate::error::{damaged, store_error};
use crate::row::KeyRow;
use crate::schema::api_keys;

#[async_trait]
impl KeyStore for SqliteStore {
    async fn create_key(&self, key: ApiKey) -> Result<(), StoreError> {
        let row = KeyRow {
            id: key.id,
            name: key.name,
            scope: key.scope.as_str().to_owned(),
            workspace: key.workspace,
            hash: key.hash.to_string(),
            created_at: key.created_at.to_string(),
            revoked_at: key.revoked_at.map(|at| at.to_string()),
        };
        self.writer
            .run("create a key", move |connection| {
                diesel::insert_into(api_keys::table).values(&row).execute(connection)?;
                Ok(())
            })
            .await
    }

    async fn key(&self, id: &str) -> Result<Option<ApiKey>, StoreError> {
        use diesel_async::RunQueryDsl;
        let mut connection = self.readers.get().await?;
        let found = api_keys::table.find(id).select(KeyRow::as_select());
        let row = RunQueryDsl::first(found, &mut connection).await.optional();
        row.map_err(|error| store_error("read a key", error))?.map(read).transpose()
    }

    async fn keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        use diesel_async::RunQueryDsl;
        let mut connection = self.readers.get().await?;
        let all = api_keys::table.order((api_keys::created_at, api_keys::id));
        let rows = RunQueryDsl::load(all.select(KeyRow::as_select()), &mut connection).await;
        let rows = rows.map_err(|error| store_error("list keys", error))?;
        rows.into_iter().map(read).collect()
    }

    async fn revoke_key(&self, id: &str, now: Timestamp) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.writer
            .run("revoke a key", move |connection| {
                let known: i64 = api_keys::table.find(&id).count().get_result(connection)?;
                let open = api_keys::table.find(&id).filter(api_keys::revoked_at.is_null());
                let revoked = api_keys::revoked_at.eq(now.to_string());
                diesel::update(open).set(revoked).execute(connection)?;
                Ok(known > 0)
            })
            .await
    }
}

fn read(row: KeyRow) -> Result<ApiKey, StoreError> {
    let what = format!("key {}", row.id);
    let read = || -> Result<ApiKey, arrakis_core::error::BoxError> {
        Ok(ApiKey {
            id: row.id,
            name: row.name,
            scope: row.scope.parse()?,
            workspace: row.workspace,
            hash: row.hash.parse()?,
            created_at: row.created_at.parse()?,
            revoked_at: row.revoked_at.map(|at| at.parse()).transpose()?,
        })
    };
    read().map_err(|error| damaged(&what, error))
}
