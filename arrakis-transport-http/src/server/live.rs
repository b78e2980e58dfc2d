//! `GET /api/live`: what happens, as it happens, as Server-Sent Events.
//!
//! The stream begins with `event: ready`. Each audit row that is stored or changes its state is an
//! `event: event` with the row as JSON. The last row of what was read at one time has the position after
//! it as its id, and where nothing of the workspace happens for a while a block of an id alone moves the
//! position on. A client that comes back with `Last-Event-ID` misses nothing; it may see a few rows again.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::error::Retryable;
use arrakis_core::record::key::Scope;
use arrakis_core::record::store::{EventStore, EventSummary, FeedCursor, FeedPage, StoreError};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::ServerState;
use super::error::HttpError;
use super::notifier::{AFTER_FAILURE, FeedNotifier, Subscription};

/// Most streams at one time: each reads the store when something happens.
const LISTENERS_MAX: usize = 64;

/// How often something is sent where nothing happens, so that no proxy takes the stream for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How often the key is looked at again, and a client of a quiet workspace told its position. Also how
/// often the feed is read though nothing rang.
const REVIEW: Duration = Duration::from_secs(15);

/// About how many rows are read at one time. Nothing more is read before the client has taken them.
const PAGE: usize = 200;

/// Marks an answer that has no end of its own, for which nobody waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endless;

/// What the streams share.
#[derive(Debug)]
pub(super) struct Live {
    places: Arc<Semaphore>,
    notifier: FeedNotifier,
    shutdown: CancellationToken,
}

impl Live {
    pub(super) fn new(
        store: Arc<dyn EventStore>,
        timeout: Duration,
        shutdown: CancellationToken,
    ) -> Self {
        let places = Arc::new(Semaphore::new(LISTENERS_MAX));
        Self { places, notifier: FeedNotifier::new(store, timeout), shutdown }
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
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    match Listener::open(state, wanted, headers).await {
        Ok(listener) => listener.into_response(),
        Err(error) => error.into_response(),
    }
}

/// One stream.
struct Listener {
    state: ServerState,
    /// What the client showed of itself.
    headers: HeaderMap,
    workspace: String,
    feed: Subscription,
    cursor: FeedCursor,
    waiting: VecDeque<Event>,
    /// Whether there is something to read without waiting for the feed.
    behind: bool,
    /// When the client was last told its position.
    told_at: Instant,
    /// When the key was last looked at.
    reviewed_at: Instant,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    async fn open(
        state: ServerState,
        wanted: Result<Query<Wanted>, QueryRejection>,
        headers: HeaderMap,
    ) -> Result<Self, HttpError> {
        let inner = &*state.0;
        let principal = inner.authenticator.authenticate(&headers, Scope::Read).await?;
        let after = position(wanted, &headers)?;
        let place = Arc::clone(&inner.live.places).try_acquire_owned().map_err(|_| {
            let message = format!("{LISTENERS_MAX} others listen already");
            HttpError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_listeners", message)
        })?;
        // Before the first read, so that nothing is stored between the two unnoticed.
        let feed = inner.live.notifier.subscribe();
        let resumes = after.is_some();
        let page = inner.in_time(inner.store.feed(after, PAGE)).await?;
        let page = page.map_err(|error| match error {
            StoreError::Data { .. } if resumes => unknown_cursor(),
            error => error.into(),
        })?;
        let ready = Event::default().event("ready").data("{}");
        // A client that came without a position has one from the start.
        let ready = if page.events.is_empty() { ready.id(&page.cursor.0) } else { ready };
        let now = Instant::now();
        let mut listener = Self {
            headers,
            workspace: principal.workspace,
            feed,
            cursor: page.cursor.clone(),
            waiting: VecDeque::from([ready]),
            behind: false,
            told_at: now,
            reviewed_at: now,
            _place: place,
            state,
        };
        listener.take(page);
        Ok(listener)
    }

    fn into_response(self) -> Response {
        let changes = stream::unfold(self, |mut listener| async move {
            let event = listener.next().await?;
            Some((Ok::<_, Infallible>(event), listener))
        });
        let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
        let mut response = Sse::new(changes).keep_alive(keep_alive).into_response();
        // Proxies that gather a response before they pass it on would hold changes back.
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        response.extensions_mut().insert(Endless);
        response
    }

    /// The next thing to send; none ends the stream.
    async fn next(&mut self) -> Option<Event> {
        let shutdown = self.state.0.live.shutdown.clone();
        loop {
            if shutdown.is_cancelled() {
                return None;
            }
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            let goes_on = tokio::select! {
                () = shutdown.cancelled() => false,
                goes_on = self.read() => goes_on,
            };
            if !goes_on {
                return None;
            }
        }
    }

    /// Waits for changes and reads them; returns whether the stream goes on.
    async fn read(&mut self) -> bool {
        if !self.behind && timeout(REVIEW, self.feed.changed()).await == Ok(false) {
            return false;
        }
        if self.reviewed_at.elapsed() >= REVIEW {
            self.reviewed_at = Instant::now();
            let authenticator = &self.state.0.authenticator;
            let allowed = authenticator.authenticate(&self.headers, Scope::Read).await;
            if allowed.is_err_and(|error| !error.is_temporary()) {
                return false; // the key was revoked
            }
        }
        let inner = &*self.state.0;
        let read = inner.store.feed(Some(self.cursor.clone()), PAGE);
        match timeout(inner.store_timeout, read).await {
            Ok(Ok(page)) => self.take(page),
            // The position is lost; a client that comes back with it is told so.
            Ok(Err(error)) if !error.is_retryable() => return false,
            // The store comes back, and the position is still good.
            Ok(Err(_)) | Err(_) => {
                self.behind = true;
                sleep(AFTER_FAILURE).await;
            }
        }
        true
    }

    /// Puts rows into the queue to be sent; the last one carries the position after them all.
    fn take(&mut self, page: FeedPage) {
        let moved = self.cursor != page.cursor;
        self.cursor = page.cursor;
        self.behind = page.more;
        let mine = page.events.into_iter().filter(|row| row.workspace == self.workspace);
        let mut rows: Vec<EventSummary> = mine.collect();
        let event = |row: &EventSummary| Event::default().event("event").json_data(row);
        // A row of plain fields always serializes.
        let last = rows.pop().and_then(|row| event(&row).ok());
        self.waiting.extend(rows.iter().filter_map(|row| event(row).ok()));
        let position = match last {
            Some(last) => Some(last),
            // A client without data is none the wiser, and comes back to here.
            None if moved && self.told_at.elapsed() >= REVIEW => Some(Event::default()),
            None => None,
        };
        if let Some(position) = position {
            self.told_at = Instant::now();
            self.waiting.push_back(position.id(&self.cursor.0));
        }
    }
}

/// The position that the client names, if any.
fn position(
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: &HeaderMap,
) -> Result<Option<FeedCursor>, HttpError> {
    let Query(wanted) = wanted.map_err(|error| {
        HttpError::new(StatusCode::BAD_REQUEST, "invalid_query", error.body_text())
    })?;
    let last_seen = match headers.get("last-event-id") {
        Some(value) => Some(value.to_str().map_err(|_| unknown_cursor())?.to_owned()),
        None => None,
    };
    Ok(last_seen.or(wanted.after).map(FeedCursor))
}

fn unknown_cursor() -> HttpError {
    let message = "this position is not one of the feed; connect without one";
    HttpError::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown_cursor", message)
}
