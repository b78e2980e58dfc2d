//! `GET /api/live`: what happens, as it happens, as Server-Sent Events.
//!
//! The stream begins with `event: ready`. Each audit row that is stored or changes its state is an
//! `event: event` with the row as JSON. Who asks for them gets an `event: conversation` for each conversation that
//! has changed, and an `event: spool` for each report of a spool that this server hears. The last row of what was
//! read at one time has the position after it as its id, and where nothing of the workspace happens for a while a
//! block of an id alone moves the position on. A client that comes back with `Last-Event-ID` misses nothing; it
//! may see a few rows again.
//!
//! A task reads the feed and puts blocks into a buffer of limited size, from which the client takes them. It reads
//! no more while the buffer is full. A client that takes nothing for a while gets a last block, `event: dropped`,
//! and its place goes to others.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::error::Retryable;
use arrakis_core::record::store::{
    EventStore, EventSummary, FeedCursor, FeedPage, HeardSpool, StoreError,
};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ServerState;
use super::auth::Principal;
use super::error::HttpError;
use super::notifier::{AFTER_FAILURE, FeedNotifier, Subscription};

/// Most streams at one time: each reads the store when something happens.
const LISTENERS_MAX: usize = 64;

/// Most streams of one workspace at one time: half, so that no workspace takes all.
const WORKSPACE_LISTENERS_MAX: usize = 32;

/// Most streams of one key at one time: a dashboard has a few, in some windows.
const KEY_LISTENERS_MAX: usize = 16;

/// How often something is sent where nothing happens, so that no proxy takes the stream for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How often the key is looked at again, and a client of a quiet workspace told its position. Also how
/// often the feed is read though nothing rang.
const REVIEW: Duration = Duration::from_secs(15);

/// About how many rows are read at one time. Nothing more is read before they are in the buffer.
const PAGE: usize = 100;

/// What waits for a client at most, in bytes: some hundred rows, and 16 MiB for all streams together.
const BUFFER_BYTES: usize = 256 * 1024;

/// What a block costs besides its data.
const BLOCK_BYTES: usize = 128;

/// How long a client may leave a full buffer as it is: long enough for a network that is away for a moment.
const SLOW_READER: Duration = Duration::from_secs(30);

/// What a client that is too slow is told.
const DROPPED: &str = "the stream was closed because its reader is too slow: connect again with the last id \
    that you got in Last-Event-ID or ?after=, and nothing is missed";

/// Marks an answer that has no end of its own, for which nobody waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endless;

/// What the streams share.
#[derive(Debug)]
pub(super) struct Live {
    places: Arc<Mutex<Places>>,
    notifier: FeedNotifier,
    shutdown: CancellationToken,
}

impl Live {
    pub(super) fn new(
        store: Arc<dyn EventStore>,
        timeout: Duration,
        shutdown: CancellationToken,
    ) -> Self {
        Self { places: Arc::default(), notifier: FeedNotifier::new(store, timeout), shutdown }
    }
}

/// How many streams there are.
#[derive(Debug, Default)]
struct Places {
    all: usize,
    by_workspace: HashMap<String, usize>,
    by_key: HashMap<String, usize>,
}

/// The place of one stream.
#[derive(Debug)]
struct Place {
    places: Arc<Mutex<Places>>,
    workspace: String,
    key_id: String,
}

impl Place {
    fn take(places: &Arc<Mutex<Places>>, principal: &Principal) -> Result<Self, HttpError> {
        let (workspace, key_id) = (principal.workspace.clone(), principal.key_id.clone());
        let mut taken = places.lock();
        let of = |counts: &HashMap<String, usize>, name| counts.get(name).copied().unwrap_or(0);
        let full = if of(&taken.by_key, &key_id) >= KEY_LISTENERS_MAX {
            Some(format!("this key has {KEY_LISTENERS_MAX} streams already: close one of them"))
        } else if of(&taken.by_workspace, &workspace) >= WORKSPACE_LISTENERS_MAX {
            Some(format!(
                "this workspace has {WORKSPACE_LISTENERS_MAX} streams already: close one of them"
            ))
        } else if taken.all >= LISTENERS_MAX {
            Some(format!("{LISTENERS_MAX} others listen already: try again later"))
        } else {
            None
        };
        if let Some(message) = full {
            let status = StatusCode::TOO_MANY_REQUESTS;
            return Err(HttpError::new(status, "too_many_listeners", message));
        }
        taken.all += 1;
        *taken.by_workspace.entry(workspace.clone()).or_default() += 1;
        *taken.by_key.entry(key_id.clone()).or_default() += 1;
        drop(taken);
        Ok(Self { places: Arc::clone(places), workspace, key_id })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fn leave(counts: &mut HashMap<String, usize>, name: &str) {
            if let Some(count) = counts.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(name);
                }
            }
        }
        let mut taken = self.places.lock();
        taken.all -= 1;
        leave(&mut taken.by_workspace, &self.workspace);
        leave(&mut taken.by_key, &self.key_id);
    }
}

/// What a client may ask for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// A position to go on from; `Last-Event-ID` comes before it.
    after: Option<String>,
    /// A session id, or the id of a conversation: nothing of others.
    conversation: Option<String>,
    /// Kinds with commas between them; `event` if there is none.
    kind: Option<String>,
}

/// What of it is sent.
#[derive(Debug)]
struct Filter {
    workspace: String,
    conversation: Option<String>,
    conversation_id: Option<Uuid>,
    events: bool,
    conversations: bool,
    spools: bool,
}

impl Filter {
    fn new(workspace: &str, wanted: &Wanted) -> Result<Self, HttpError> {
        let conversation = wanted.conversation.clone();
        let mut filter = Self {
            workspace: workspace.to_owned(),
            conversation_id: conversation.as_ref().and_then(|id| id.parse().ok()),
            conversation,
            events: false,
            conversations: false,
            spools: false,
        };
        for kind in wanted.kind.as_deref().unwrap_or("event").split(',') {
            match kind {
                "event" => filter.events = true,
                "conversation" => filter.conversations = true,
                "spool" => filter.spools = true,
                _ => {
                    let message = "kind is one of event, conversation and spool, or several of them with commas";
                    return Err(HttpError::new(StatusCode::BAD_REQUEST, "invalid_query", message));
                }
            }
        }
        Ok(filter)
    }

    fn admits(&self, row: &EventSummary) -> bool {
        let id = self.conversation_id;
        row.workspace == self.workspace
            && self.conversation.as_ref().is_none_or(|wanted| {
                row.session_id.as_ref() == Some(wanted)
                    || (id.is_some() && row.answer.conversation_id == id)
            })
    }
}

/// `GET /api/live`.
pub(super) async fn stream(
    State(state): State<ServerState>,
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    match Listener::open(state, wanted, headers).await {
        Ok((listener, page)) => listener.into_response(page),
        Err(error) => error.into_response(),
    }
}

/// A block of a stream, and the room that it takes in the buffer until it is sent.
type Block = (Event, Option<OwnedSemaphorePermit>);

/// One stream.
struct Listener {
    state: ServerState,
    /// What the client showed of itself.
    headers: HeaderMap,
    filter: Filter,
    feed: Subscription,
    spools: broadcast::Receiver<Arc<(String, HeardSpool)>>,
    cursor: FeedCursor,
    /// Whether there is something to read without waiting for the feed.
    behind: bool,
    /// When the client was last told its position.
    told_at: Instant,
    /// When the key was last looked at.
    reviewed_at: Instant,
    _place: Place,
}

/// Where a listener puts its blocks.
struct Buffer {
    blocks: mpsc::UnboundedSender<Block>,
    room: Arc<Semaphore>,
}

/// The stream ends: the client has gone, or was too slow.
struct Ended;

impl Buffer {
    /// Puts a block of `bytes` into the buffer once there is room for it.
    async fn put(&self, event: Event, bytes: usize) -> Result<(), Ended> {
        let bytes = u32::try_from((bytes + BLOCK_BYTES).min(BUFFER_BYTES)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes);
        let Ok(room) = timeout(SLOW_READER, room).await else {
            // It stands behind what the client has not taken yet.
            let dropped = json!({ "code": "slow_reader", "message": DROPPED }).to_string();
            self.blocks.send((Event::default().event("dropped").data(dropped), None)).ok();
            return Err(Ended);
        };
        self.blocks.send((event, room.ok())).map_err(|_| Ended)
    }

    /// Puts something into the buffer as JSON.
    async fn put_json(
        &self,
        kind: &str,
        value: &impl Serialize,
        position: Option<&FeedCursor>,
    ) -> Result<(), Ended> {
        // Plain fields always serialize.
        let Ok(data) = serde_json::to_string(value) else { return Ok(()) };
        let event = Event::default().event(kind).data(&data);
        let event = position.into_iter().fold(event, |event, position| event.id(&position.0));
        self.put(event, data.len()).await
    }
}

impl Listener {
    async fn open(
        state: ServerState,
        wanted: Result<Query<Wanted>, QueryRejection>,
        headers: HeaderMap,
    ) -> Result<(Self, FeedPage), HttpError> {
        let inner = &*state.0;
        let principal = inner.authenticator.authenticate_reader(&headers).await?;
        let Query(wanted) = wanted.map_err(|error| {
            HttpError::new(StatusCode::BAD_REQUEST, "invalid_query", error.body_text())
        })?;
        let filter = Filter::new(&principal.workspace, &wanted)?;
        let after = position(wanted, &headers)?;
        let place = Place::take(&inner.live.places, &principal)?;
        // Before the first read, so that nothing is stored between the two unnoticed.
        let feed = inner.live.notifier.subscribe();
        let spools = inner.spools.subscribe();
        let resumes = after.is_some();
        let page = inner.in_time(inner.store.feed(after, PAGE)).await?;
        let page = page.map_err(|error| match error {
            StoreError::Data { .. } if resumes => unknown_cursor(),
            error => error.into(),
        })?;
        let now = Instant::now();
        let listener = Self {
            headers,
            filter,
            feed,
            spools,
            cursor: page.cursor.clone(),
            behind: false,
            told_at: now,
            reviewed_at: now,
            _place: place,
            state,
        };
        Ok((listener, page))
    }

    fn into_response(self, page: FeedPage) -> Response {
        let shutdown = self.state.0.live.shutdown.clone();
        let (blocks, taken) = mpsc::unbounded_channel();
        let buffer = Buffer { blocks, room: Arc::new(Semaphore::new(BUFFER_BYTES)) };
        tokio::spawn(self.run(buffer, page));
        let changes = stream::unfold((taken, shutdown), |(mut taken, shutdown)| async move {
            let block: Option<Block> = tokio::select! {
                biased;
                () = shutdown.cancelled() => None,
                block = taken.recv() => block,
            };
            let (event, _room) = block?;
            Some((Ok::<_, Infallible>(event), (taken, shutdown)))
        });
        let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
        let mut response = Sse::new(changes).keep_alive(keep_alive).into_response();
        // Proxies that gather a response before they pass it on would hold changes back.
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        response.extensions_mut().insert(Endless);
        response
    }

    /// Fills the buffer until the client has gone, was too slow, or the server stops.
    async fn run(mut self, buffer: Buffer, page: FeedPage) {
        let shutdown = self.state.0.live.shutdown.clone();
        let blocks = buffer.blocks.clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = blocks.closed() => {}
            _ = self.fill(&buffer, page) => {}
        }
    }

    async fn fill(&mut self, buffer: &Buffer, page: FeedPage) -> Result<Infallible, Ended> {
        let ready = Event::default().event("ready").data("{}");
        // A client that came without a position has one from the start.
        let ready = if page.events.is_empty() { ready.id(&page.cursor.0) } else { ready };
        buffer.put(ready, 0).await?;
        self.take(page, buffer).await?;
        loop {
            self.read(buffer).await?;
        }
    }

    /// Waits for changes, and reads them.
    async fn read(&mut self, buffer: &Buffer) -> Result<(), Ended> {
        if !self.behind && !self.changed(buffer).await? {
            return Err(Ended);
        }
        if self.reviewed_at.elapsed() >= REVIEW {
            self.reviewed_at = Instant::now();
            let authenticator = &self.state.0.authenticator;
            let allowed = authenticator.authenticate_reader(&self.headers).await;
            if allowed.is_err_and(|error| !error.is_temporary()) {
                return Err(Ended); // the key was revoked
            }
        }
        let inner = &*self.state.0;
        let read = inner.store.feed(Some(self.cursor.clone()), PAGE);
        match timeout(inner.store_timeout, read).await {
            Ok(Ok(page)) => self.take(page, buffer).await?,
            // The position is lost; a client that comes back with it is told so.
            Ok(Err(error)) if !error.is_retryable() => return Err(Ended),
            // The store comes back, and the position is still good.
            Ok(Err(_)) | Err(_) => {
                self.behind = true;
                sleep(AFTER_FAILURE).await;
            }
        }
        Ok(())
    }

    /// Waits until the feed has moved on, or for a while, and passes reports of spools on meanwhile; returns
    /// whether there still is somebody who looks at the feed.
    async fn changed(&mut self, buffer: &Buffer) -> Result<bool, Ended> {
        let review = Instant::now() + REVIEW;
        loop {
            let heard = tokio::select! {
                changed = timeout_at(review, self.feed.changed()) => return Ok(changed != Ok(false)),
                heard = self.spools.recv(), if self.filter.spools => heard,
            };
            match heard {
                Ok(heard) if heard.0 == self.filter.workspace => {
                    buffer.put_json("spool", &heard.1, None).await?;
                }
                // A report that was missed is followed by another.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                // The server, which is kept here, keeps the other end.
                Err(RecvError::Closed) => self.filter.spools = false,
            }
        }
    }

    /// Puts rows into the buffer; the last block carries the position after them all.
    async fn take(&mut self, page: FeedPage, buffer: &Buffer) -> Result<(), Ended> {
        let moved = self.cursor != page.cursor;
        self.cursor = page.cursor;
        self.behind = page.more;
        let mine: Vec<_> = page.events.into_iter().filter(|row| self.filter.admits(row)).collect();
        let conversations =
            if self.filter.conversations { conversations(&mine) } else { Vec::new() };
        let events = if self.filter.events { &mine[..] } else { &[] };
        let last = (events.len() + conversations.len()).checked_sub(1);
        let position = |n: usize| (Some(n) == last).then_some(&self.cursor);
        for (n, row) in events.iter().enumerate() {
            buffer.put_json("event", row, position(n)).await?;
        }
        for (n, one) in (events.len()..).zip(&conversations) {
            buffer.put_json("conversation", one, position(n)).await?;
        }
        if last.is_some() {
            self.told_at = Instant::now();
        } else if moved && self.told_at.elapsed() >= REVIEW {
            // A client without data is none the wiser, and comes back to here.
            self.told_at = Instant::now();
            buffer.put(Event::default().id(&self.cursor.0), 0).await?;
        }
        Ok(())
    }
}

/// The conversations that these rows have changed, each once.
fn conversations(rows: &[EventSummary]) -> Vec<serde_json::Value> {
    let mut seen = HashSet::new();
    let ids = rows.iter().filter_map(|row| Some((row.answer.conversation_id?, &row.session_id)));
    ids.filter(|(id, _)| seen.insert(*id))
        .map(|(id, session_id)| json!({ "id": id, "sessionId": session_id }))
        .collect()
}

/// The position that the client names, if any.
fn position(wanted: Wanted, headers: &HeaderMap) -> Result<Option<FeedCursor>, HttpError> {
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
