//! Events: the audit rows, found by filters, newest first.

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::envelope::Form;
use arrakis_core::base::id::RequestId;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::{EventFilter, EventSummary, Page};
use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Asked, Context, Reader, answer, link};
use crate::server::ServerState;
use crate::server::dashboard::shell::{Place, Shell};
use crate::server::dashboard::viewer::Viewer;
use crate::server::error::HttpError;

/// Rows of a page.
const LIMIT: usize = 50;

/// What may be asked. A field that is left empty in the form asks for nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::server::dashboard) struct Wanted {
    q: String,
    status: String,
    r#type: String,
    session: String,
    host: String,
    user: String,
    project: String,
    error: String,
    form: String,
    request: String,
    discarded: String,
    since: String,
    until: String,
    after: String,
}

/// What the page shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::server::dashboard) struct Events {
    /// What was asked for, without what was left empty.
    filter: Vec<(&'static str, String)>,
    events: Vec<EventSummary>,
    next: Option<Uuid>,
}

/// `GET /events`.
pub(in crate::server::dashboard) async fn page(
    State(state): State<ServerState>,
    viewer: Viewer,
    asked: Asked<Wanted>,
) -> Response {
    let page = |shell, view| EventsPage { shell, view };
    answer(&state, &viewer, asked, Place::Events, view, page).await
}

/// `GET /api/v1/events`.
pub(in crate::server::dashboard) async fn twin(
    State(state): State<ServerState>,
    reader: Reader,
    asked: Asked<Wanted>,
) -> Response {
    super::twin(&state, &reader, asked, view).await
}

async fn view(context: &Context<'_>, wanted: Wanted) -> Result<Events, HttpError> {
    let filter = wanted.filter(context)?;
    let after = parsed::<Uuid>("after", &wanted.after)?;
    let page = Page { after, ..Page::first(LIMIT) };
    let found = context.read(context.inner.store.events(filter, page)).await?;
    Ok(Events { filter: wanted.given(), events: found.events, next: found.next })
}

/// A value that was asked for; `None` where it was left empty.
fn parsed<T: std::str::FromStr>(name: &str, text: &str) -> Result<Option<T>, HttpError>
where
    T::Err: std::fmt::Display,
{
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| invalid(&format!("{name}: {error}")))
}

fn invalid(message: &str) -> HttpError {
    HttpError::new(StatusCode::BAD_REQUEST, "invalid_filter", message)
}

fn said(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

impl Wanted {
    fn filter(&self, context: &Context<'_>) -> Result<EventFilter, HttpError> {
        // A name in a query reads as in JSON.
        let named = |name: &str, text: &str| {
            let text = said(text)?;
            Some(serde_json::from_value::<Form>(text.clone().into()).map_err(|_| {
                invalid(&format!("{name} is envelope, original or raw, and not {text}"))
            }))
        };
        let discarded = match self.discarded.trim() {
            "" => None,
            "true" => Some(true),
            "false" => Some(false),
            _ => return Err(invalid("discarded is true or false")),
        };
        let filter = EventFilter {
            workspace: Some(context.workspace.to_owned()),
            status: parsed::<EventStatus>("status", &self.status)?,
            event_type: said(&self.r#type),
            session_id: said(&self.session),
            request_id: parsed::<RequestId>("request", &self.request)?,
            text: said(&self.q),
            since: context.moment("since", &self.since)?,
            until: context.moment("until", &self.until)?,
            host: said(&self.host),
            user: said(&self.user),
            project: said(&self.project),
            error_code: said(&self.error),
            form: named("form", &self.form).transpose()?,
            discarded,
        };
        filter.query().map_err(|error| invalid(&error.to_string()))?;
        Ok(filter)
    }

    fn given(self) -> Vec<(&'static str, String)> {
        let all = [
            ("q", self.q),
            ("status", self.status),
            ("type", self.r#type),
            ("session", self.session),
            ("host", self.host),
            ("user", self.user),
            ("project", self.project),
            ("error", self.error),
            ("form", self.form),
            ("request", self.request),
            ("discarded", self.discarded),
            ("since", self.since),
            ("until", self.until),
        ];
        all.into_iter().filter(|(_, value)| !value.trim().is_empty()).collect()
    }
}

impl Context<'_> {
    /// A moment that was asked for: how long ago (`15m`, `2h`, `7d`), a day of the reader's zone (`2026-11-24`), or a
    /// time such as `2026-11-24T10:15:00Z`.
    pub(super) fn moment(&self, name: &str, text: &str) -> Result<Option<Timestamp>, HttpError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        if let Some(ago) = ago(text) {
            return Ok(Some(self.now.minus(ago)));
        }
        if let Some(day) = self.zone.parse_day(text) {
            return Ok(Some(day));
        }
        text.parse().map(Some).map_err(|_| {
            invalid(&format!(
                "{name} is how long ago (2h, 7d), a day (2026-11-24), or a time (2026-11-24T10:15:00Z)"
            ))
        })
    }
}

fn ago(text: &str) -> Option<std::time::Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return None,
    };
    let number = number.parse::<u32>().ok()?;
    Some(std::time::Duration::from_secs(u64::from(number) * seconds))
}

#[derive(Template)]
#[template(path = "events.html")]
struct EventsPage {
    shell: Shell,
    view: Events,
}

impl EventsPage {
    fn of(&self, name: &str) -> &str {
        let found = self.view.filter.iter().find(|(known, _)| *known == name);
        found.map_or("", |(_, value)| value)
    }

    fn statuses(&self) -> [EventStatus; 8] {
        EventStatus::ALL
    }

    /// The same list without this filter.
    fn without(&self, name: &str) -> String {
        let kept = self.view.filter.iter().filter(|(known, _)| *known != name);
        let pairs: Vec<_> = kept.map(|(name, value)| (*name, value.as_str())).collect();
        link("/events", &pairs)
    }

    fn older(&self) -> Option<String> {
        let next = self.view.next?.to_string();
        let filter = self.view.filter.iter().map(|(name, value)| (*name, value.as_str()));
        Some(link("/events", &filter.chain([("after", next.as_str())]).collect::<Vec<_>>()))
    }

    /// Whether a filter is set that the box of words does not show.
    fn has_more(&self) -> bool {
        self.view.filter.iter().any(|(name, _)| !matches!(*name, "q" | "status" | "type" | "since"))
    }
}

/// The class that says in colour and shape how an event is.
pub(super) fn class(status: EventStatus) -> &'static str {
    match status {
        EventStatus::Success => "ok",
        EventStatus::Duplicate => "again",
        EventStatus::Pending | EventStatus::Processing | EventStatus::PendingRetry => "wait",
        EventStatus::Invalid | EventStatus::Error | EventStatus::Failed => "bad",
    }
}

/// A state as people write it.
pub(super) fn words(status: EventStatus) -> &'static str {
    match status {
        EventStatus::Success => "stored",
        EventStatus::Duplicate => "repeat",
        EventStatus::Pending => "pending",
        EventStatus::Processing => "processing",
        EventStatus::PendingRetry => "waits for retry",
        EventStatus::Invalid => "invalid",
        EventStatus::Error => "error",
        EventStatus::Failed => "failed",
    }
}

impl EventsPage {
    fn class(&self, event: &EventSummary) -> &'static str {
        class(event.status)
    }

    fn words(&self, event: &EventSummary) -> &'static str {
        words(event.status)
    }

    fn host<'a>(&self, event: &'a EventSummary) -> &'a str {
        let capture = event.metadata.capture.as_ref();
        capture.and_then(|capture| capture.source.host.as_deref()).unwrap_or_default()
    }
}
