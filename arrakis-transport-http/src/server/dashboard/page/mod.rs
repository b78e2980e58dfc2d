//! One file for each page: what it may be asked, what it shows, and how it is answered.

pub(super) mod conversations;
pub(super) mod event;
pub(super) mod events;
pub(super) mod failed;
pub(super) mod keys;
pub(super) mod machines;
pub(super) mod overview;
pub(super) mod reading;
pub(super) mod search;
pub(super) mod sign_in;
pub(super) mod usage;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::store::{Rollups, StoreError};
use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use serde::Serialize;
use tokio::time::Instant;

use super::shell::{Place, Shell};
use super::viewer::{Failure, Look, Viewer, rendered, unreadable};
use super::zone::Zone;
use crate::server::auth::Principal;
use crate::server::error::HttpError;
use crate::server::{Inner, ServerState};

/// What a page was asked, if that could be read.
pub(super) type Asked<T> = Result<Query<T>, QueryRejection>;

/// What the views read from, and for whom.
#[derive(Debug)]
pub(super) struct Context<'a> {
    inner: &'a Inner,
    workspace: &'a str,
    zone: &'a Zone,
    now: Timestamp,
}

impl Context<'_> {
    /// What the store answers, unless that takes too long.
    async fn read<T>(
        &self,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, HttpError> {
        Ok(self.inner.in_time(answer).await??)
    }

    fn rollups(&self) -> Result<&dyn Rollups, HttpError> {
        let rollups = self.inner.rollups.as_deref();
        rollups.ok_or_else(|| {
            HttpError::new(StatusCode::NOT_FOUND, "not_found", "this server adds nothing up")
        })
    }
}

/// Answers a page: reads what it shows, and shows it. What goes wrong is a page as well.
async fn answer<Q, V, T: Template>(
    state: &ServerState,
    viewer: &Viewer,
    asked: Asked<Q>,
    place: Place,
    view: impl AsyncFnOnce(&Context<'_>, Q) -> Result<V, HttpError>,
    page: impl FnOnce(Shell, V) -> T,
) -> Response {
    let inner = &*state.0;
    let now = inner.clock.now();
    let workspace = &viewer.principal.workspace;
    let context = Context { inner, workspace, zone: viewer.zone(), now };
    let read = async {
        let Query(wanted) = asked.map_err(|error| unreadable(&error))?;
        view(&context, wanted).await
    };
    match read.await {
        Ok(view) => {
            let shell = Shell { twin: viewer.twin(), ..viewer.shell(now, place) };
            rendered(&page(shell, view))
        }
        Err(error) => Failure::seen_by(error, viewer, now).into_response(),
    }
}

/// Answers a page's twin: the same as JSON.
async fn twin<Q, V: Serialize>(
    state: &ServerState,
    reader: &Reader,
    asked: Asked<Q>,
    view: impl AsyncFnOnce(&Context<'_>, Q) -> Result<V, HttpError>,
) -> Response {
    let inner = &*state.0;
    let (began, now) = (Instant::now(), inner.clock.now());
    let context =
        Context { inner, workspace: &reader.principal.workspace, zone: &reader.zone, now };
    let read = async {
        let Query(wanted) = asked.map_err(|error| unreadable(&error))?;
        view(&context, wanted).await
    };
    let mut response = match read.await {
        Ok(view) => Json(view).into_response(),
        Err(error) => error.into_response(),
    };
    let took = format!("view;dur={:.1}", began.elapsed().as_secs_f64() * 1000.0);
    if let Ok(took) = HeaderValue::from_str(&took) {
        response.headers_mut().insert("server-timing", took);
    }
    response
}

/// Somebody who reads JSON: with a key of scope read, or signed in.
#[derive(Debug)]
pub(super) struct Reader {
    principal: Principal,
    zone: Zone,
}

impl FromRequestParts<ServerState> for Reader {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &ServerState) -> Result<Self, HttpError> {
        let principal = state.0.authenticator.authenticate_reader(&parts.headers).await?;
        Ok(Self { principal, zone: Look::of(&parts.headers).zone() })
    }
}

/// A query string of these pairs, without those that are empty.
fn query(pairs: &[(&str, &str)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        query.append_pair(name, value);
    }
    query.finish()
}

/// A path with a query string, where there is one.
fn link(path: &str, pairs: &[(&str, &str)]) -> String {
    let query = query(pairs);
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}
