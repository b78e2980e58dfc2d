//! The dashboard: pages that show what is captured, what failed and what was said.
//!
//! Each page is made in two steps. A function of `view` reads the store and returns a plain struct. A template of `templates/`
//! shows it; the same struct as JSON is the page's twin below `/api/v1`. So the two cannot differ. Pages read, filter, sign
//! in and retry without JavaScript; scripts only make them live.

mod assets;
mod chart;
mod markdown;
mod page;
mod shell;
pub(super) mod sign_in;
mod viewer;
mod zone;

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::{get, post};

use super::ServerState;

/// What a page may load and do: its own files and requests to its own server. Nothing is inline, so nothing that a payload
/// says can become a script or a style.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
    trusted-types arrakis";

/// The pages, their twins and their files.
pub(super) fn routes() -> Router<ServerState> {
    Router::new()
        .route("/", get(page::overview::page))
        .route("/api/v1/overview", get(page::overview::twin))
        .route("/events", get(page::events::page))
        .route("/api/v1/events", get(page::events::twin))
        .route("/events/{id}", get(page::event::page))
        .route("/events/{id}/payload", get(page::event::payload))
        .route("/api/v1/events/{id}", get(page::event::twin))
        .route("/conversations", get(page::conversations::page))
        .route("/api/v1/conversations", get(page::conversations::twin))
        .route("/c/{session}", get(page::reading::page))
        .route("/c/{session}/m/{id}", get(page::reading::place))
        .route("/api/v1/c/{session}", get(page::reading::twin))
        .route("/usage", get(page::usage::page))
        .route("/api/v1/usage", get(page::usage::twin))
        .route("/machines", get(page::machines::page))
        .route("/api/v1/machines", get(page::machines::twin))
        .route("/search", get(page::search::page))
        .route("/api/v1/search", get(page::search::twin))
        .route("/failed", get(page::failed::page).post(page::failed::change))
        .route("/api/v1/failed", get(page::failed::twin))
        .route("/keys", get(page::keys::page).post(page::keys::make))
        .route("/keys/revoke", post(page::keys::revoke))
        .route("/api/v1/keys", get(page::keys::twin))
        .route("/sign-in", get(page::sign_in::page).post(page::sign_in::sign_in))
        .route("/sign-in/link", get(page::sign_in::link).post(page::sign_in::take_link))
        .route("/sign-out", post(page::sign_in::sign_out))
        .route("/assets/{name}", get(assets::asset))
        .layer(map_response(guarded))
}

/// Tells the browser what an answer of the dashboard may do.
async fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(POLICY));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let same_origin = HeaderValue::from_static("same-origin");
    headers.insert("cross-origin-opener-policy", same_origin.clone());
    headers.insert("cross-origin-resource-policy", same_origin);
    response
}
