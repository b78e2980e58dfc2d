//! Search: what was said and done, in all conversations.

use arrakis_core::record::store::{SearchCursor, SearchFilter, SearchHit};
use arrakis_core::session::conversation::{Role, ToolStatus};
use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::{Asked, Context, Reader, answer, link};
use crate::server::ServerState;
use crate::server::dashboard::shell::{Place, Shell};
use crate::server::dashboard::viewer::Viewer;
use crate::server::error::HttpError;

/// Hits of a page.
const LIMIT: usize = 30;

/// What may be asked. A field that is left empty in the form asks for nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::server::dashboard) struct Wanted {
    q: String,
    project: String,
    session: String,
    tool: String,
    model: String,
    role: String,
    outcome: String,
    since: String,
    until: String,
    after: String,
}

/// What the page shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::server::dashboard) struct Found {
    filter: Vec<(&'static str, String)>,
    /// Hits of one conversation that follow each other stand together.
    groups: Vec<Vec<SearchHit>>,
    next: Option<SearchCursor>,
}

/// `GET /search`.
pub(in crate::server::dashboard) async fn page(
    State(state): State<ServerState>,
    viewer: Viewer,
    asked: Asked<Wanted>,
) -> Response {
    let page = |shell, view| SearchPage { shell, view };
    answer(&state, &viewer, asked, Place::Search, view, page).await
}

/// `GET /api/v1/search`.
pub(in crate::server::dashboard) async fn twin(
    State(state): State<ServerState>,
    reader: Reader,
    asked: Asked<Wanted>,
) -> Response {
    super::twin(&state, &reader, asked, view).await
}

async fn view(context: &Context<'_>, wanted: Wanted) -> Result<Found, HttpError> {
    let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let filter = SearchFilter {
        text: given(&wanted.q),
        session_id: given(&wanted.session),
        project: given(&wanted.project),
        since: context.moment("since", &wanted.since)?,
        until: context.moment("until", &wanted.until)?,
        role: named::<Role>("role", &wanted.role)?,
        tool_name: given(&wanted.tool),
        outcome: named::<ToolStatus>("outcome", &wanted.outcome)?,
        model: given(&wanted.model),
        ..SearchFilter::new(context.workspace)
    };
    filter.query().map_err(|error| invalid(error.to_string()))?;
    let after = given(&wanted.after).map(|after| after.parse::<SearchCursor>()).transpose();
    let after = after.map_err(|error| invalid(format!("after: {error}")))?;
    let all = [
        ("q", wanted.q),
        ("project", wanted.project),
        ("session", wanted.session),
        ("tool", wanted.tool),
        ("model", wanted.model),
        ("role", wanted.role),
        ("outcome", wanted.outcome),
        ("since", wanted.since),
        ("until", wanted.until),
    ];
    let given: Vec<_> = all.into_iter().filter(|(_, value)| !value.trim().is_empty()).collect();
    if given.is_empty() {
        return Ok(Found { filter: given, groups: Vec::new(), next: None });
    }
    let found = context.read(context.inner.store.search(filter, after, LIMIT)).await?;
    let mut groups = Vec::<Vec<SearchHit>>::new();
    for hit in found.hits {
        match groups.last_mut() {
            Some(group) if group[0].conversation_id == hit.conversation_id => group.push(hit),
            _ => groups.push(vec![hit]),
        }
    }
    Ok(Found { filter: given, groups, next: found.next })
}

fn named<T: serde::de::DeserializeOwned>(name: &str, text: &str) -> Result<Option<T>, HttpError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let value = serde_json::from_value(text.into());
    value.map(Some).map_err(|error| invalid(format!("{name}: {error}")))
}

fn invalid(message: impl Into<String>) -> HttpError {
    HttpError::new(StatusCode::BAD_REQUEST, "invalid_search", message)
}

#[derive(Template)]
#[template(path = "search.html")]
struct SearchPage {
    shell: Shell,
    view: Found,
}

impl SearchPage {
    fn of(&self, name: &str) -> &str {
        let found = self.view.filter.iter().find(|(known, _)| *known == name);
        found.map_or("", |(_, value)| value)
    }

    fn older(&self) -> Option<String> {
        let next = self.view.next.as_ref()?.to_string();
        let filter = self.view.filter.iter().map(|(name, value)| (*name, value.as_str()));
        Some(link("/search", &filter.chain([("after", next.as_str())]).collect::<Vec<_>>()))
    }

    /// Where a hit stands in its conversation.
    fn place(&self, hit: &SearchHit) -> String {
        let session: String =
            url::form_urlencoded::byte_serialize(hit.session_id.as_bytes()).collect();
        format!("/c/{session}/m/{}", hit.id)
    }
}
