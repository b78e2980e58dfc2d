//! Who sends: the key of a request.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::Clock;
use arrakis_core::base::digest::Digest;
use arrakis_core::record::job::key_uses::KeyUses;
use arrakis_core::record::key::{ApiKey, Scope};
use arrakis_core::record::store::{BrowserSession, DEFAULT_WORKSPACE, KeyStore};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use lru::LruCache;
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::dashboard::sign_in::{SignIns, principal};
use super::error::HttpError;

/// How long a key that was found valid is taken as valid without asking the store: the longest that a
/// revoked key still works.
const CACHE_TIME: Duration = Duration::from_secs(1);

/// Most keys that are remembered.
const CACHE_MAX: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// Tells who holds a key.
#[derive(Debug)]
pub(super) struct Authenticator {
    keys: Arc<dyn KeyStore>,
    /// Hashes of ingest keys that are in no store.
    extra: Vec<Digest>,
    /// Keys by their hash.
    cache: Mutex<LruCache<Digest, (Instant, Principal)>>,
    /// How long the store may take.
    timeout: Duration,
    clock: Arc<dyn Clock>,
    uses: Arc<KeyUses>,
    /// The browsers that are signed in, where there is a dashboard.
    sign_ins: Option<SignIns>,
}

/// Who sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Principal {
    /// The id of the key; empty for one that is in no store.
    pub(super) key_id: String,
    pub(super) scope: Scope,
    pub(super) workspace: String,
}

impl Authenticator {
    pub(super) fn new(
        keys: Arc<dyn KeyStore>,
        extra: Vec<SecretString>,
        timeout: Duration,
        clock: Arc<dyn Clock>,
        uses: Arc<KeyUses>,
        sign_ins: Option<SignIns>,
    ) -> Self {
        let extra = extra.iter().map(|key| Digest::of(key.expose_secret().as_bytes())).collect();
        let cache = Mutex::new(LruCache::new(CACHE_MAX));
        Self { keys, extra, cache, timeout, clock, uses, sign_ins }
    }

    /// The sender of a request, who must be allowed to do what `needed` allows.
    pub(super) async fn authenticate(
        &self,
        headers: &HeaderMap,
        needed: Scope,
    ) -> Result<Principal, HttpError> {
        let Some(presented) = presented(headers) else {
            let message = "there is no key; send it as `Authorization: Bearer …`";
            return Err(HttpError::new(StatusCode::UNAUTHORIZED, "unauthorized", message));
        };
        let Some(principal) = self.principal(&presented).await? else {
            let message = "the key is not known, or it was revoked";
            return Err(HttpError::new(StatusCode::UNAUTHORIZED, "unauthorized", message));
        };
        if !principal.scope.allows(needed) {
            let message =
                format!("a key of scope {} may not do this; it needs {needed}", principal.scope);
            return Err(HttpError::new(StatusCode::FORBIDDEN, "forbidden", message));
        }
        if !principal.key_id.is_empty() {
            self.uses.note(&principal.key_id, self.clock.now());
        }
        Ok(principal)
    }

    /// Who reads: the holder of a key of scope read, or whoever is signed in. A cookie is enough for nothing else, since
    /// browsers send it by themselves.
    pub(super) async fn authenticate_reader(
        &self,
        headers: &HeaderMap,
    ) -> Result<Principal, HttpError> {
        if presented(headers).is_none()
            && let Some(session) = self.browser(headers).await?
        {
            return Ok(principal(session));
        }
        self.authenticate(headers, Scope::Read).await
    }

    /// The browser of a request, where it is signed in and its key is still good.
    pub(super) async fn browser(
        &self,
        headers: &HeaderMap,
    ) -> Result<Option<BrowserSession>, HttpError> {
        let Some(sign_ins) = &self.sign_ins else { return Ok(None) };
        let session = tokio::time::timeout(self.timeout, sign_ins.session(headers)).await;
        let session = session.map_err(|_| HttpError::store_hangs())??;
        let Some(session) = session else { return Ok(None) };
        if session.key_id.is_empty() {
            return Ok(Some(session));
        }
        let key = tokio::time::timeout(self.timeout, self.keys.key(&session.key_id)).await;
        let key = key.map_err(|_| HttpError::store_hangs())??;
        if key.is_none_or(|key| key.revoked_at.is_some()) {
            return Ok(None);
        }
        self.uses.note(&session.key_id, self.clock.now());
        Ok(Some(session))
    }

    /// Whose key this is, where it is one that works.
    pub(super) async fn reader(&self, key: &SecretString) -> Result<Option<Principal>, HttpError> {
        self.principal(key).await
    }

    /// How the trail of changes names somebody: by the name of the key.
    pub(super) async fn name(&self, principal: &Principal) -> Result<String, HttpError> {
        if principal.key_id.is_empty() {
            return Ok("whoever started the server".to_owned());
        }
        let key = tokio::time::timeout(self.timeout, self.keys.key(&principal.key_id)).await;
        let key = key.map_err(|_| HttpError::store_hangs())??;
        Ok(key.map_or_else(|| principal.key_id.clone(), |key| key.name))
    }

    pub(super) fn keys(&self) -> &dyn KeyStore {
        &*self.keys
    }

    /// The browsers that are signed in, where there is a dashboard.
    pub(super) fn sign_ins(&self) -> Option<&SignIns> {
        self.sign_ins.as_ref()
    }

    async fn principal(&self, presented: &SecretString) -> Result<Option<Principal>, HttpError> {
        // Keys are compared by their hashes, which tell nothing about how much of a key was right.
        let hash = Digest::of(presented.expose_secret().as_bytes());
        if self.extra.contains(&hash) {
            let workspace = DEFAULT_WORKSPACE.to_owned();
            let key_id = String::new();
            return Ok(Some(Principal { key_id, scope: Scope::Ingest, workspace }));
        }
        let Some(id) = ApiKey::id_of(presented.expose_secret()) else { return Ok(None) };
        let now = Instant::now();
        if let Some((until, principal)) = self.cache.lock().get(&hash)
            && *until > now
        {
            return Ok(Some(principal.clone()));
        }
        let found = tokio::time::timeout(self.timeout, self.keys.key(id)).await;
        let found = found.map_err(|_| HttpError::store_hangs())?;
        let key = found?.filter(|key| key.accepts(presented));
        let principal =
            key.map(|key| Principal { key_id: key.id, scope: key.scope, workspace: key.workspace });
        if let Some(principal) = &principal {
            self.cache.lock().put(hash, (now + CACHE_TIME, principal.clone()));
        }
        Ok(principal)
    }
}

/// The key in `Authorization: Bearer`, or in the original system's `X-API-Key`.
fn presented(headers: &HeaderMap) -> Option<SecretString> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let bearer = text(AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key)
    });
    let key = bearer.or_else(|| text("x-api-key"))?.trim();
    (!key.is_empty()).then(|| key.into())
}
