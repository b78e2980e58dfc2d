//! `GET /api/search`: what conversations say, found by words and filters.

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::store::{SearchCursor, SearchFilter, StoreError};
use arrakis_core::session::conversation::{Role, ToolStatus};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;

use super::ServerState;
use super::error::HttpError;

/// Hits of a page where nothing else is asked for.
const LIMIT: usize = 20;

/// Most hits of a page: for each, a store reads all that a message or a tool use has, which may be an input
/// and an output of 16 MiB. It reads few of them at one time, and a page ends by its bytes as well.
const LIMIT_MAX: usize = 100;

/// What a reader may ask for: [`SearchFilter`], and which page of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    text: Option<String>,
    session: Option<String>,
    project: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    role: Option<Role>,
    tool: Option<String>,
    outcome: Option<ToolStatus>,
    model: Option<String>,
    subagent: Option<bool>,
    after: Option<SearchCursor>,
    limit: Option<usize>,
}

/// A page of what the conversations of the key's workspace have.
pub(super) async fn find(
    State(state): State<ServerState>,
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let inner = &*state.0;
    let found = async {
        let principal = inner.authenticator.authenticate_reader(&headers).await?;
        let invalid =
            |message: String| HttpError::new(StatusCode::BAD_REQUEST, "invalid_search", message);
        let Query(wanted) = wanted.map_err(|error| invalid(error.body_text()))?;
        let limit = wanted.limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(invalid(format!("limit is a number from 1 to {LIMIT_MAX}")));
        }
        let filter = SearchFilter {
            workspace: principal.workspace.clone(),
            text: wanted.text,
            session_id: wanted.session,
            project: wanted.project,
            since: wanted.since,
            until: wanted.until,
            role: wanted.role,
            tool_name: wanted.tool,
            outcome: wanted.outcome,
            model: wanted.model,
            is_subagent: wanted.subagent,
        };
        filter.query().map_err(|error| invalid(error.to_string()))?;
        let page = inner.in_time(inner.store.search(filter, wanted.after, limit)).await?;
        Ok(Json(page.map_err(|error: StoreError| HttpError::from(error))?))
    };
    let found: Result<_, HttpError> = found.await;
    found.into_response()
}
