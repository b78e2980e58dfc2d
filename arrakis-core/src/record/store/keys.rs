//! Keeping API keys.

use async_trait::async_trait;

use super::StoreError;
use crate::base::clock::Timestamp;
use crate::record::key::ApiKey;

/// Keeps API keys, as hashes.
///
/// # Behavior
///
/// * A key that was created is found by its id until it is revoked, and afterwards too, marked so.
/// * Revoking twice is as good as once.
/// * A key knows when it was last used, whichever server says so first, and ids that are no key's are passed over.
#[async_trait]
pub trait KeyStore: std::fmt::Debug + Send + Sync + 'static {
    /// Keeps a new key.
    ///
    /// # Errors
    ///
    /// It is not kept.
    async fn create_key(&self, key: ApiKey) -> Result<(), StoreError>;

    /// The key of this id.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn key(&self, id: &str) -> Result<Option<ApiKey>, StoreError>;

    /// Every key, oldest first.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn keys(&self) -> Result<Vec<ApiKey>, StoreError>;

    /// Makes a key useless from `now` on; returns whether there is one of this id.
    ///
    /// # Errors
    ///
    /// It is as it was.
    async fn revoke_key(&self, id: &str, now: Timestamp) -> Result<bool, StoreError>;

    /// Notes when these keys, each by its id, were last used. A time before the one that is known changes nothing.
    ///
    /// # Errors
    ///
    /// Nothing is noted.
    async fn note_key_uses(&self, uses: Vec<(String, Timestamp)>) -> Result<(), StoreError>;
}

const _: Option<&dyn KeyStore> = None; // object safe
