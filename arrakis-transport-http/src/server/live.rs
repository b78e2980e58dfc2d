//! `GET /api/live`: what happens, as it happens, as Server-Sent Events.
//!
//! The stream begins with `event: ready`, whose id is the present position of the store's feed. Each
//! audit row that is stored or changes its state is an `event: event` with the row as JSON. The last row
//! of what was read at one time has the position after it as its id, so that a client that comes back
//! with `Last-Event-ID` misses nothing; it may see a few rows again.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::key::Scope;
use arrakis_core::store::{EventSummary, FeedCursor, StoreError};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::error::HttpError;
use super::{Inner, ServerState};

/// Most streams at one time: each asks the store for news.
const LISTENERS_MAX: usize = 64;

/// How often the store is asked.
const INTERVAL: Duration = Duration::from_millis(250);

/// How long a store that failed is left alone.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// How often something is sent where nothing happens, so that no proxy takes the stream for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// About how many rows are read at one time. Nothing more is read before the client has taken them.
const PAGE: usize = 200;

/// What the streams share.
#[derive(Debug)]
pub(super) struct Live {
    places: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Live {
    pub(super) fn new(shutdown: CancellationToken) -> Self {
        Self { places: Arc::new(Semaphore::new(LISTENERS_MAX)), shutdown }
    }
}

/// What a client may ask for.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    /// A position to go on from; `Last-Event-ID` comes before it.
    after: Option<String>,
}

/// `GET /api/live`.
pub(super) async fn stream(
    State(state): State<ServerState>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Response {
    match open(state, wanted, &headers).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn open(
    state: ServerState,
    wanted: Wanted,
    headers: &HeaderMap,
) -> Result<Response, HttpError> {
    let principal = state.0.authenticator.authenticate(headers, Scope::Read).await?;
    let place = Arc::clone(&state.0.live.places).try_acquire_owned().map_err(|_| {
        let message = format!("{LISTENERS_MAX} others listen already");
        HttpError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_listeners", message)
    })?;
    let last_seen = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let after = last_seen.map(str::to_owned).or(wanted.after).map(FeedCursor);
    let page = state.0.in_time(state.0.store.feed(after, PAGE)).await?;
    let page = page.map_err(|error| match error {
        StoreError::Data { .. } => {
            let message = "this position is not one of the feed; connect without Last-Event-ID";
            HttpError::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown_cursor", message)
        }
        error => error.into(),
    })?;
    let mut listener = Listener {
        state,
        workspace: principal.workspace,
        cursor: page.cursor.clone(),
        waiting: VecDeque::new(),
        more: page.more,
        _place: place,
    };
    // A client that came without a position has one from the start.
    let is_new = page.events.is_empty();
    if is_new {
        let ready = Event::default().event("ready").id(&page.cursor.0).data("{}");
        listener.waiting.push_back(ready);
    } else {
        listener.waiting.push_back(Event::default().event("ready").data("{}"));
    }
    listener.take(page.events);
    let news = stream::unfold(listener, |mut listener| async move {
        let event = listener.next().await?;
        Some((Ok::<_, Infallible>(event), listener))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response = Sse::new(news).keep_alive(keep_alive).into_response();
    // Proxies that gather a response before they pass it on would hold the news back.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// One stream.
struct Listener {
    state: ServerState,
    workspace: String,
    cursor: FeedCursor,
    waiting: VecDeque<Event>,
    more: bool,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    /// The next thing to send; none ends the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            let inner: &Inner = &self.state.0;
            let pause = if self.more { Duration::ZERO } else { INTERVAL };
            tokio::select! {
                () = inner.live.shutdown.cancelled() => return None,
                () = tokio::time::sleep(pause) => {}
            }
            let read = inner.store.feed(Some(self.cursor.clone()), PAGE);
            let read = tokio::select! {
                () = inner.live.shutdown.cancelled() => return None,
                read = inner.in_time(read) => read,
            };
            match read {
                Ok(Ok(page)) => {
                    self.cursor = page.cursor;
                    self.more = page.more;
                    self.take(page.events);
                }
                // The store comes back, and the position is still good.
                Ok(Err(_)) | Err(_) => {
                    self.more = false;
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Puts rows into the queue to be sent; the last one carries the position after them all.
    fn take(&mut self, rows: Vec<EventSummary>) {
        let mine = rows.into_iter().filter(|row| row.workspace == self.workspace);
        let mut rows: Vec<EventSummary> = mine.collect();
        let last = rows.pop();
        let event = |row: &EventSummary| Event::default().event("event").json_data(row);
        // A row of plain fields always serializes.
        self.waiting.extend(rows.iter().filter_map(|row| event(row).ok()));
        let last = last.and_then(|row| event(&row).ok());
        self.waiting.extend(last.map(|event| event.id(&self.cursor.0)));
    }
}
