//! `GET /api/events`: audit rows, found by filters.

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::envelope::Form;
use arrakis_core::base::id::RequestId;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::{EventFilter, Page, StoreError};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use uuid::Uuid;

use super::ServerState;
use super::error::HttpError;

/// Events of a page where nothing else is asked for.
const LIMIT: usize = 50;

/// Most events of a page: each takes some kilobytes at most.
const LIMIT_MAX: usize = 1000;

/// What a reader may ask for: [`EventFilter`], and which page of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    status: Option<EventStatus>,
    #[serde(rename = "type")]
    event_type: Option<String>,
    session: Option<String>,
    request: Option<String>,
    text: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    host: Option<String>,
    user: Option<String>,
    project: Option<String>,
    error: Option<String>,
    form: Option<Form>,
    discarded: Option<bool>,
    after: Option<Uuid>,
    limit: Option<usize>,
}

/// A page of the audit rows of the key's workspace.
pub(super) async fn list(
    State(state): State<ServerState>,
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let inner = &*state.0;
    let listed = async {
        let principal = inner.authenticator.authenticate_reader(&headers).await?;
        let invalid =
            |message: String| HttpError::new(StatusCode::BAD_REQUEST, "invalid_filter", message);
        let Query(wanted) = wanted.map_err(|error| invalid(error.body_text()))?;
        let limit = wanted.limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(invalid(format!("limit is a number from 1 to {LIMIT_MAX}")));
        }
        let request = wanted.request.map(|id| id.parse::<RequestId>()).transpose();
        let filter = EventFilter {
            workspace: Some(principal.workspace),
            status: wanted.status,
            event_type: wanted.event_type,
            session_id: wanted.session,
            request_id: request.map_err(|error| invalid(format!("request: {error}")))?,
            text: wanted.text,
            since: wanted.since,
            until: wanted.until,
            host: wanted.host,
            user: wanted.user,
            project: wanted.project,
            error_code: wanted.error,
            form: wanted.form,
            discarded: wanted.discarded,
        };
        filter.query().map_err(|error| invalid(error.to_string()))?;
        let page = Page { after: wanted.after, ..Page::first(limit) };
        let page = inner.in_time(inner.store.events(filter, page)).await?;
        Ok(Json(page.map_err(|error: StoreError| HttpError::from(error))?))
    };
    let listed: Result<_, HttpError> = listed.await;
    listed.into_response()
}
