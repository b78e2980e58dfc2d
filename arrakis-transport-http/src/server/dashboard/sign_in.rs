//! Browsers that are signed in: their cookies, one-time links, and who a request is from.
//!
//! A cookie holds 256 random bits, of which the store keeps the SHA-256. It is worth nothing to scripts (`HttpOnly`) nor to
//! other sites (`SameSite=Strict`). A session ends when its key is revoked, after 12 hours without use, and after 30 days.

use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::{Clock, Timestamp};
use arrakis_core::base::digest::Digest;
use arrakis_core::base::limits::cut;
use arrakis_core::record::key::Scope;
use arrakis_core::record::store::{BrowserSession, BrowserSessions};
use axum::http::HeaderMap;
use axum::http::header::{COOKIE, USER_AGENT};
use cookie::{Cookie, SameSite};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use lru::LruCache;
use parking_lot::Mutex;
use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use crate::server::auth::Principal;
use crate::server::error::HttpError;

/// The cookie of a connection that is encrypted. Browsers take this name for one host and over TLS only.
const COOKIE_TLS: &str = "__Host-arrakis";

/// The cookie of a connection that is not: on this machine.
const COOKIE_PLAIN: &str = "arrakis";

/// How long a session lasts that nobody uses.
const IDLE: Duration = Duration::from_secs(12 * 3600);

/// How long a session lasts at most.
const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long a session that was found is taken as valid without asking the store: the longest that one works which
/// was signed out on another server.
const CACHE_TIME: Duration = Duration::from_secs(1);

/// Most sessions that are remembered.
const CACHE_MAX: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();

/// Most sessions of a workspace: some browsers for each person of a team.
const SESSIONS_MAX: usize = 1_000;

/// How often it is written down that a session is in use.
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// How long a one-time link works.
pub const LINK_LIFE: Duration = Duration::from_secs(10 * 60);

/// Tries of one address in a minute.
const TRIES: NonZeroU32 = NonZeroU32::new(5).unwrap();

/// Tries of all addresses in a minute.
const TRIES_OF_ALL: NonZeroU32 = NonZeroU32::new(30).unwrap();

/// Bytes of a browser's name for itself that are kept.
const BROWSER_MAX_BYTES: usize = 200;

/// Knows who is signed in.
#[derive(Debug)]
pub(in crate::server) struct SignIns {
    sessions: Arc<dyn BrowserSessions>,
    clock: Arc<dyn Clock>,
    cache: Mutex<LruCache<Digest, (Instant, BrowserSession)>>,
    link: Mutex<Option<(Digest, Timestamp)>>,
    by_address: DefaultKeyedRateLimiter<IpAddr>,
    of_all: DefaultDirectRateLimiter,
}

impl SignIns {
    pub(in crate::server) fn new(
        sessions: Arc<dyn BrowserSessions>,
        link: Option<&SecretString>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let link = link.map(|link| (Digest::of(link.expose_secret().as_bytes()), clock.now()));
        Self {
            sessions,
            clock,
            cache: Mutex::new(LruCache::new(CACHE_MAX)),
            link: Mutex::new(link),
            by_address: RateLimiter::keyed(Quota::per_minute(TRIES)),
            of_all: RateLimiter::direct(Quota::per_minute(TRIES_OF_ALL)),
        }
    }

    /// Whether this address may try to sign in now.
    pub(super) fn may_try(&self, address: Option<IpAddr>) -> bool {
        self.by_address.retain_recent();
        let address = address.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        self.by_address.check_key(&address).is_ok() && self.of_all.check().is_ok()
    }

    /// Takes a one-time link: whether it is the one, still works, and was not used. It works once.
    pub(super) fn take_link(&self, presented: &str) -> bool {
        // Compared by hashes, which tell nothing of how much was right.
        let presented = Digest::of(presented.as_bytes());
        let mut link = self.link.lock();
        let works = link.is_some_and(|(known, made)| {
            known == presented && self.clock.now().since(made) <= LINK_LIFE
        });
        if works {
            *link = None;
        }
        works
    }

    /// Signs a browser in, and returns the secret of its cookie.
    pub(super) async fn open(
        &self,
        principal: &Principal,
        headers: &HeaderMap,
    ) -> Result<SecretString, HttpError> {
        let secret = hex::encode(rand::rng().random::<[u8; 32]>());
        let browser = headers.get(USER_AGENT).and_then(|name| name.to_str().ok());
        let now = self.clock.now();
        let forget = self.sessions.forget_browser_sessions(now.minus(IDLE), now.minus(LIFE)).await;
        if let Err(error) = forget {
            tracing::warn!(target: "arrakis::server", %error, "old sessions of browsers stay");
        }
        let session = BrowserSession {
            hash: Digest::of(secret.as_bytes()),
            key_id: principal.key_id.clone(),
            scope: principal.scope,
            workspace: principal.workspace.clone(),
            browser: cut(browser.unwrap_or_default(), BROWSER_MAX_BYTES).to_owned(),
            created_at: now,
            seen_at: now,
        };
        self.sessions.open_browser_session(session, SESSIONS_MAX).await?;
        Ok(secret.into())
    }

    /// The session of a request's cookie, with its secret's hash; `None` where there is none that still works.
    pub(in crate::server) async fn session(
        &self,
        headers: &HeaderMap,
    ) -> Result<Option<BrowserSession>, HttpError> {
        let Some(secret) = secret(headers) else { return Ok(None) };
        let hash = Digest::of(secret.expose_secret().as_bytes());
        let now = Instant::now();
        if let Some((until, session)) = self.cache.lock().get(&hash)
            && *until > now
        {
            return Ok(Some(session.clone()));
        }
        let at = self.clock.now();
        let found = self.sessions.browser_session(&hash).await?;
        let lives = |one: &BrowserSession| {
            at.since(one.seen_at) <= IDLE && at.since(one.created_at) <= LIFE
        };
        let Some(mut session) = found.filter(lives) else { return Ok(None) };
        if at.since(session.seen_at) >= NOTE_EVERY {
            self.sessions.note_browser_session(&hash, at).await?;
            session.seen_at = at;
        }
        self.cache.lock().put(hash, (now + CACHE_TIME, session.clone()));
        Ok(Some(session))
    }

    /// Signs the browser of a request out.
    pub(super) async fn close(&self, headers: &HeaderMap) -> Result<(), HttpError> {
        let Some(secret) = secret(headers) else { return Ok(()) };
        let hash = Digest::of(secret.expose_secret().as_bytes());
        self.sessions.close_browser_session(&hash).await?;
        self.cache.lock().pop(&hash);
        Ok(())
    }
}

/// Who a session is.
pub(in crate::server) fn principal(session: BrowserSession) -> Principal {
    let BrowserSession { key_id, scope, workspace, .. } = session;
    Principal { key_id, scope, workspace }
}

/// Who came by a one-time link: whoever started the server.
pub(super) fn owner(workspace: &str) -> Principal {
    Principal { key_id: String::new(), scope: Scope::Admin, workspace: workspace.to_owned() }
}

/// The header that gives a browser its cookie.
pub(super) fn given(secret: &SecretString, encrypted: bool) -> String {
    let name = if encrypted { COOKIE_TLS } else { COOKIE_PLAIN };
    let life = cookie::time::Duration::seconds(i64::try_from(LIFE.as_secs()).unwrap_or(i64::MAX));
    let cookie = Cookie::build((name, secret.expose_secret().to_owned())).max_age(life);
    kept(cookie, encrypted)
}

/// The header that takes it away.
pub(super) fn taken(encrypted: bool) -> String {
    let name = if encrypted { COOKIE_TLS } else { COOKIE_PLAIN };
    kept(Cookie::build((name, "")).max_age(cookie::time::Duration::ZERO), encrypted)
}

fn kept(cookie: cookie::CookieBuilder<'_>, encrypted: bool) -> String {
    let cookie = cookie.http_only(true).same_site(SameSite::Strict).path("/").secure(encrypted);
    cookie.build().to_string()
}

/// A cookie of a request.
pub(super) fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let sent = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies = sent.flat_map(Cookie::split_parse).filter_map(Result::ok);
    cookies.find(|cookie| cookie.name() == name).map(|cookie| cookie.value().to_owned())
}

fn secret(headers: &HeaderMap) -> Option<SecretString> {
    let secret = cookie(headers, COOKIE_TLS).or_else(|| cookie(headers, COOKIE_PLAIN))?;
    (secret.len() == 64).then(|| secret.into())
}
