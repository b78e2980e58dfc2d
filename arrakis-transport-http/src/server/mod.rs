//! The receiver: what stands between the network and an `EventStore`.

mod auth;
mod body;
mod client_ip;
mod dashboard;
mod error;
mod events;
mod ingest;
mod listen;
mod live;
mod notifier;
mod readiness;
mod search;
mod spools;
mod stall;
mod tls;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::Clock;
use arrakis_core::base::heavy::HeavyPool;
use arrakis_core::record::ingest::Ingest;
use arrakis_core::record::job::key_uses::KeyUses;
use arrakis_core::record::store::{
    BrowserSessions, EventStore, KeyStore, MemorySpoolReports, Rollups, SpoolReports,
};
use arrakis_core::session::redact::Redactor;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use secrecy::SecretString;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

pub use dashboard::sign_in::LINK_LIFE;
pub use listen::{ServeConfig, bind, serve};
pub use tls::{Tls, TlsError};

use crate::wire::{BATCH_PATH, EVENT_PATH, EVENTS_PATH, LIVE_PATH, SEARCH_PATH, SPOOLS_PATH};
use auth::Authenticator;
use body::Budget;
use dashboard::sign_in::SignIns;
use error::HttpError;
use live::Live;
use readiness::Readiness;
use spools::Spools;

/// The settings of a server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// Ingest keys that are in no store, such as one from the server's environment.
    pub ingest_keys: Vec<SecretString>,
    /// How long a request waits for the store before it is answered 503.
    pub store_timeout: Duration,
    /// Ends the live streams, which have no end of their own.
    pub shutdown: CancellationToken,
    /// Keeps what drainers tell of their spools; in memory unless told otherwise.
    pub spools: Arc<dyn SpoolReports>,
    /// Remembers which keys were used, for the job that writes it down.
    pub key_uses: Arc<KeyUses>,
    /// What the pages of the dashboard need; without it there are none.
    pub dashboard: Option<DashboardConfig>,
}

/// What the pages of the dashboard need.
#[derive(Debug, Clone)]
pub struct DashboardConfig {
    /// What events and messages add up to.
    pub rollups: Arc<dyn Rollups>,
    /// Keeps which browsers are signed in.
    pub sessions: Arc<dyn BrowserSessions>,
    /// The token of a link that signs in once, as an administrator of the default workspace, within
    /// [`LINK_LIFE`]: `/sign-in/link?token=…`.
    pub link: Option<SecretString>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            trusted_proxies: Vec::new(),
            ingest_keys: Vec::new(),
            // Longer than a store takes to find out by itself that its database is away.
            store_timeout: Duration::from_secs(30),
            shutdown: CancellationToken::new(),
            spools: Arc::new(MemorySpoolReports::default()),
            key_uses: Arc::default(),
            dashboard: None,
        }
    }
}

/// What the handlers share. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct ServerState(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<dyn EventStore>,
    authenticator: Authenticator,
    clock: Arc<dyn Clock>,
    ingest: Ingest,
    budget: Budget,
    heavy: HeavyPool,
    trusted_proxies: Vec<IpAddr>,
    store_timeout: Duration,
    readiness: Readiness,
    live: Live,
    spools: Spools,
    rollups: Option<Arc<dyn Rollups>>,
}

impl Inner {
    /// What the store answers, unless that takes too long.
    async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Result<T, HttpError> {
        let answer = tokio::time::timeout(self.store_timeout, answer).await;
        answer.map_err(|_| HttpError::store_hangs())
    }
}

impl ServerState {
    /// The state of a server that stores in `store` and knows the keys of `keys`.
    #[must_use]
    pub fn new(
        store: Arc<dyn EventStore>,
        keys: Arc<dyn KeyStore>,
        clock: Arc<dyn Clock>,
        redactor: Redactor,
        config: ServerConfig,
    ) -> Self {
        let heavy = HeavyPool::default();
        let (rollups, sign_ins) = match config.dashboard {
            Some(DashboardConfig { rollups, sessions, link }) => {
                let sign_ins = SignIns::new(sessions, link.as_ref(), Arc::clone(&clock));
                (Some(rollups), Some(sign_ins))
            }
            None => (None, None),
        };
        Self(Arc::new(Inner {
            authenticator: Authenticator::new(
                keys,
                config.ingest_keys,
                config.store_timeout,
                Arc::clone(&clock),
                config.key_uses,
                sign_ins,
            ),
            ingest: Ingest::new(Arc::clone(&store), redactor, Arc::clone(&clock)),
            clock,
            budget: Budget::new(heavy.clone()),
            heavy,
            trusted_proxies: config.trusted_proxies,
            store_timeout: config.store_timeout,
            readiness: Readiness::new(Arc::clone(&store)),
            spools: Spools::new(config.spools, config.store_timeout),
            live: Live::new(Arc::clone(&store), config.store_timeout, config.shutdown),
            store,
            rollups,
        }))
    }
}

/// The routes of a server.
pub fn router(state: ServerState) -> Router {
    let pages = match state.0.rollups {
        Some(_) => dashboard::routes(),
        None => Router::new(),
    };
    Router::new()
        .route(EVENT_PATH, post(ingest::event))
        .route(BATCH_PATH, post(ingest::batch))
        .route(EVENTS_PATH, get(events::list))
        .route(LIVE_PATH, get(live::stream))
        .route(SEARCH_PATH, get(search::find))
        .route(SPOOLS_PATH, get(spools::list).post(spools::report))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .merge(pages)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(state)
}

/// The process is alive.
async fn healthz() -> Json<serde_json::Value> {
    Json(json!({ "status": "ok" }))
}

/// The store takes writes.
async fn readyz(State(state): State<ServerState>) -> Response {
    match state.0.readiness.check().await {
        Ok(()) => Json(json!({ "status": "ok" })).into_response(),
        Err(why) => HttpError::busy(why).into_response(),
    }
}

async fn not_found() -> HttpError {
    let message = format!("there is nothing at this path; events go to {EVENT_PATH}");
    HttpError::new(StatusCode::NOT_FOUND, "not_found", message)
}

async fn method_not_allowed() -> HttpError {
    let message = "this path takes another method";
    HttpError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

#[allow(clippy::needless_pass_by_value, reason = "the signature is the layer's")]
fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    tracing::error!(target: "arrakis::server", panic = text, "a request made the server panic");
    let message = "the server failed on this request";
    HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message).into_response()
}
