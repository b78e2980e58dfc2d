//! One event: what became of it, how it went from the hook to the database, and what it says.

use std::collections::BTreeMap;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::limits::cut;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::reading::words::indent_json;
use arrakis_core::record::store::{
    EventDetail, EventFilter, EventKey, EventSummary, Page, Transition,
};
use askama::Template;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::events::{class, words};
use super::{Asked, Context, Reader, answer};
use crate::server::ServerState;
use crate::server::dashboard::shell::{Place, Shell};
use crate::server::dashboard::viewer::{Failure, Viewer};
use crate::server::dashboard::zone;
use crate::server::error::HttpError;

/// Bytes of a payload that a page shows; the rest is had by download.
const SHOWN_BYTES: usize = 256 * 1024;

/// Repeats that are listed.
const REPEATS: usize = 50;

/// What may be asked: nothing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::server::dashboard) struct Wanted {}

/// What the page shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::server::dashboard) struct EventView {
    #[serde(flatten)]
    event: EventSummary,
    headers: BTreeMap<String, String>,
    ip_address: Option<String>,
    transitions: Vec<Transition>,
    /// The rows of repeats, newest first.
    repeats: Vec<EventSummary>,
    life: Vec<Step>,
    /// The payload, cut.
    payload: Option<String>,
    payload_bytes: u64,
}

/// Something that happened to the event.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    at: Timestamp,
    what: String,
    /// From the step before, in milliseconds.
    after_ms: Option<u64>,
    /// Whether it is a machine's own clock that says so.
    other_clock: bool,
}

/// `GET /events/{id}`.
pub(in crate::server::dashboard) async fn page(
    State(state): State<ServerState>,
    viewer: Viewer,
    Path(id): Path<String>,
    asked: Asked<Wanted>,
) -> Response {
    let view = async |context: &Context<'_>, _| view(context, &id).await;
    let page = |shell, view| EventPage { shell, view };
    answer(&state, &viewer, asked, Place::Events, view, page).await
}

/// `GET /api/v1/events/{id}`.
pub(in crate::server::dashboard) async fn twin(
    State(state): State<ServerState>,
    reader: Reader,
    Path(id): Path<String>,
    asked: Asked<Wanted>,
) -> Response {
    super::twin(&state, &reader, asked, async |context: &Context<'_>, _| view(context, &id).await)
        .await
}

/// `GET /events/{id}/payload`: the bytes as they came, to keep and not to look at in the browser.
pub(in crate::server::dashboard) async fn payload(
    State(state): State<ServerState>,
    viewer: Viewer,
    Path(id): Path<String>,
) -> Response {
    let inner = &*state.0;
    let now = inner.clock.now();
    let context =
        Context { inner, workspace: &viewer.principal.workspace, zone: viewer.zone(), now };
    match found(&context, &id).await {
        Ok(EventDetail { summary, body: Some(body), .. }) => {
            let mut response = body.into_response();
            let headers = response.headers_mut();
            let kind = HeaderValue::from_static("application/octet-stream");
            headers.insert(CONTENT_TYPE, kind);
            headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
            let name = format!("attachment; filename=\"{}.json\"", summary.id);
            if let Ok(name) = HeaderValue::from_str(&name) {
                headers.insert(CONTENT_DISPOSITION, name);
            }
            response
        }
        Ok(_) => {
            let message = "this row has no payload: it is a repeat, and the first row has it";
            let error = HttpError::new(StatusCode::NOT_FOUND, "not_found", message);
            Failure::seen_by(error, &viewer, now).into_response()
        }
        Err(error) => Failure::seen_by(error, &viewer, now).into_response(),
    }
}

/// The row of an id, or the first row of a request id.
async fn found(context: &Context<'_>, id: &str) -> Result<EventDetail, HttpError> {
    let key = match (id.parse::<Uuid>(), id.parse()) {
        (Ok(id), _) => Some(EventKey::Id(id)),
        (_, Ok(request)) => Some(EventKey::Request(request)),
        _ => None,
    };
    let store = &context.inner.store;
    let mut event = match key.clone() {
        Some(key) => context.read(store.event(context.workspace, key)).await?,
        None => None,
    };
    // A request id may look like the id of a row.
    if let (None, Some(EventKey::Id(_)), Ok(request)) = (&event, key, id.parse()) {
        event = context.read(store.event(context.workspace, EventKey::Request(request))).await?;
    }
    event.ok_or_else(|| {
        let message = "there is no such event in this workspace; it may have been pruned, as the retention says";
        HttpError::new(StatusCode::NOT_FOUND, "not_found", message)
    })
}

async fn view(context: &Context<'_>, id: &str) -> Result<EventView, HttpError> {
    let EventDetail { summary, body, headers, ip_address, transitions } =
        found(context, id).await?;
    let repeats = EventFilter {
        workspace: Some(context.workspace.to_owned()),
        request_id: Some(summary.request_id.clone()),
        ..EventFilter::default()
    };
    let repeats = context.read(context.inner.store.events(repeats, Page::first(REPEATS))).await?;
    let repeats = repeats.events.into_iter().filter(|row| row.id != summary.id).collect();
    let payload_bytes = body.as_ref().map_or(0, |body| body.len() as u64);
    let payload = body.as_ref().map(|body| {
        let text = String::from_utf8_lossy(body);
        cut(&pretty(&text), SHOWN_BYTES).to_owned()
    });
    Ok(EventView {
        life: life(&summary, &transitions),
        event: summary,
        headers,
        ip_address: ip_address.map(|ip| ip.to_string()),
        transitions,
        repeats,
        payload,
        payload_bytes,
    })
}

/// JSON with a line for each value, in which no digit and no order of keys is another; anything else as it is.
fn pretty(text: &str) -> String {
    if text.len() > SHOWN_BYTES || serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
        return text.to_owned();
    }
    indent_json(text)
}

fn life(event: &EventSummary, transitions: &[Transition]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut step = |at: Timestamp, what: String, other_clock| {
        steps.push(Step { at, what, after_ms: None, other_clock });
    };
    if let Some(capture) = &event.metadata.capture {
        let host = capture.source.host.as_deref().unwrap_or("its machine");
        step(capture.captured_at, format!("captured on {host}"), true);
    }
    step(event.received_at, "received by the server".to_owned(), false);
    if let Some(ms) = event.processing_time_ms {
        let stored = event.received_at.plus(std::time::Duration::from_millis(ms));
        let first = transitions.first().map_or(event.status, |first| first.from);
        step(stored, format!("recorded as {}", first.as_str()), false);
    }
    for change in transitions {
        let why =
            if change.reason.is_empty() { String::new() } else { format!(": {}", change.reason) };
        step(change.at, format!("{} by {}{why}", change.to.as_str(), change.actor), false);
    }
    for at in 1..steps.len() {
        let (before, now) = (steps[at - 1].at, steps[at].at);
        let passed = u64::try_from(now.since(before).as_millis()).ok();
        // Two clocks may disagree: less than nothing is not a time.
        steps[at].after_ms = passed.filter(|_| now >= before);
    }
    steps
}

#[derive(Template)]
#[template(path = "event.html")]
struct EventPage {
    shell: Shell,
    view: EventView,
}

impl EventPage {
    fn class(&self, event: &EventSummary) -> &'static str {
        class(event.status)
    }

    fn words(&self, event: &EventSummary) -> &'static str {
        words(event.status)
    }

    /// What became of it, in a sentence.
    fn verdict(&self) -> String {
        let event = &self.view.event;
        let came = match self.view.repeats.len() {
            0 => "came once".to_owned(),
            n => format!("came {} times, was stored once", n + 1),
        };
        match event.status {
            EventStatus::Success => format!("It {came}, and is applied."),
            EventStatus::Duplicate => {
                "It repeats an event that had been stored before. Nothing was stored twice."
                    .to_owned()
            }
            EventStatus::Invalid => {
                format!("It {came}, and is kept as it is: {}.", self.reason())
            }
            EventStatus::Error | EventStatus::PendingRetry => {
                format!(
                    "It {came}. It could not be applied yet: {}. It will be tried again.",
                    self.reason()
                )
            }
            EventStatus::Failed => {
                format!(
                    "It {came}. It could not be applied, and is tried no more: {}.",
                    self.reason()
                )
            }
            EventStatus::Pending | EventStatus::Processing => {
                format!("It {came}, and is about to be applied.")
            }
        }
    }

    fn reason(&self) -> &str {
        let event = &self.view.event;
        let reason = event.error_message.as_deref().or(event.error_code.as_deref());
        reason.unwrap_or("no reason was given").trim_end_matches('.')
    }

    fn took(&self, step: &Step) -> Option<String> {
        step.after_ms.map(zone::duration)
    }

    fn removed(&self) -> Vec<(String, u64)> {
        let value = serde_json::to_value(&self.view.event.metadata.redacted).unwrap_or_default();
        let all = value.as_object().into_iter().flatten();
        all.filter_map(|(rule, count)| Some((rule.clone(), count.as_u64()?))).collect()
    }

    fn is_cut(&self) -> bool {
        self.view.payload.as_ref().is_some_and(|shown| shown.len() >= SHOWN_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::pretty;

    #[test]
    fn a_payload_keeps_its_digits_and_its_order() {
        let json = r#"{"z":1.0,"a":[12345678901234567890,{}, [] ],"s":"a,b:{\"c\"}"}"#;
        let lines = "{\n  \"z\": 1.0,\n  \"a\": [\n    12345678901234567890,\n    {},\n    []\n  ],\n  \
            \"s\": \"a,b:{\\\"c\\\"}\"\n}";
        assert_eq!(pretty(json), lines);
        assert_eq!(pretty("no json"), "no json");
    }
}
