//! The two endpoints that take events.
//!
//! A request goes through ten steps, each of which leaves a tracing event (target `arrakis::ingest`)
//! with the request id: extract metadata, authenticate, parse, read the trace, check duplicate,
//! validate, record, process, finish, answer. Checking for a duplicate, recording, processing and
//! finishing are one transaction of the store, so theirs come when it has committed.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::digest::Digest;
use arrakis_core::base::envelope::{Form, Truncation};
use arrakis_core::base::id::{RequestId, uuid_v7};
use arrakis_core::base::limits::{
    BATCH_BODY_MAX_BYTES, BATCH_MAX_EVENTS, BODY_MAX_BYTES, PAYLOAD_MAX_BYTES,
};
use arrakis_core::record::arrival::{EventMetadata, UNKNOWN_EVENT_TYPE};
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::ingest::{Incoming, Reception, admit};
use arrakis_core::record::key::Scope;
use arrakis_core::record::store::{Admission, AdmissionKind, Arrival, Verdict};
use arrakis_core::session::redact::Redacted;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use bytes::Bytes;

use super::client_ip::client_ip;
use super::error::HttpError;
use super::{Inner, ServerState};
use crate::wire::{
    Answer, BatchAnswer, EventResult, Parsed, REQUEST_ID_HEADER, SPOOL_HEADER, TRACEPARENT_HEADER,
    WireError, parse,
};

/// `POST /api/claude-hooks`: one event.
pub(super) async fn event(State(state): State<ServerState>, request: Request) -> Response {
    let shared = Arc::clone(&state.0);
    let state = &*state.0;
    let metadata = match Metadata::extract(state, &request) {
        Ok(metadata) => metadata,
        Err(error) => return error.into_response(),
    };
    let mut id = metadata.request_id.clone();
    let result = async {
        let workspace = authenticate(state, request.headers(), &metadata).await?;
        let (parts, body) = request.into_parts();
        let body = state.budget.read(&parts.headers, body, BODY_MAX_BYTES).await?;
        let bytes = body.bytes.len();
        let (sender, about) = (workspace.clone(), metadata.clone());
        let judging = move || (Judged::of(&shared, &about, &sender, body.bytes.clone()), body);
        let (judged, _held) = state.heavy.run(bytes, judging).await;
        id.clone_from(&judged.arrival.request_id);
        let mut results = record(state, vec![judged]).await?;
        state.spools.hear(&workspace, parts.headers.get(SPOOL_HEADER), metadata.received_at);
        Ok(results.remove(0))
    };
    let response = match result.await {
        Ok(Ok(answer)) => Json(answer).into_response(),
        Ok(Err(error)) => error.into_response(),
        Err(error) => HttpError::about(error, &id).into_response(),
    };
    echo(response, &id)
}

/// `POST /api/claude-hooks/batch`: up to 500 events, one a line.
pub(super) async fn batch(State(state): State<ServerState>, request: Request) -> Response {
    let shared = Arc::clone(&state.0);
    let state = &*state.0;
    let metadata = match Metadata::extract(state, &request) {
        Ok(metadata) => metadata,
        Err(error) => return error.into_response(),
    };
    let result = async {
        let workspace = authenticate(state, request.headers(), &metadata).await?;
        let (parts, body) = request.into_parts();
        let body = state.budget.read(&parts.headers, body, BODY_MAX_BYTES).await?;
        let bytes = body.bytes.len();
        let (sender, about) = (workspace.clone(), metadata.clone());
        let judging = move || (judge_lines(&shared, &about, &sender, &body.bytes), body);
        let (judged, _held) = state.heavy.run(bytes, judging).await;
        let results = record(state, judged?).await?;
        state.spools.hear(&workspace, parts.headers.get(SPOOL_HEADER), metadata.received_at);
        Ok(results)
    };
    let response = match result.await {
        Ok(results) => {
            let results = results.into_iter().map(|result| match result {
                Ok(answer) => EventResult::Stored(answer),
                Err(error) => EventResult::Refused(error.into_answer()),
            });
            Json(BatchAnswer { success: true, results: results.collect() }).into_response()
        }
        Err(error) => HttpError::about(error, &metadata.request_id).into_response(),
    };
    echo(response, &metadata.request_id)
}

/// What is known of a request before its body.
#[derive(Debug, Clone)]
struct Metadata {
    /// The id that the request was given, else a new one.
    request_id: RequestId,
    received_at: Timestamp,
    headers: BTreeMap<String, String>,
    ip_address: Option<IpAddr>,
}

impl Metadata {
    fn extract(state: &Inner, request: &Request) -> Result<Self, HttpError> {
        let (headers, received_at) = (request.headers(), state.clock.now());
        let request_id = match headers.get(REQUEST_ID_HEADER) {
            None => RequestId::mint(received_at, rand::random()),
            Some(value) => value.to_str().unwrap_or_default().parse().map_err(
                |error: arrakis_core::base::id::InvalidRequestId| {
                    let message = format!("X-Request-Id: {error}");
                    HttpError::new(StatusCode::BAD_REQUEST, "invalid_request_id", message)
                },
            )?,
        };
        let peer =
            request.extensions().get().map(|ConnectInfo(peer): &ConnectInfo<SocketAddr>| *peer);
        let metadata = Self {
            request_id,
            received_at,
            headers: selected(headers),
            ip_address: client_ip(peer, headers, &state.trusted_proxies),
        };
        step(&metadata.request_id, "extract metadata");
        Ok(metadata)
    }
}

/// The headers that the audit row keeps; of the key only that there was one.
fn selected(headers: &HeaderMap) -> BTreeMap<String, String> {
    let kept = [CONTENT_TYPE.as_str(), USER_AGENT.as_str(), REQUEST_ID_HEADER, TRACEPARENT_HEADER];
    let text = |name: &str| {
        let value = String::from_utf8_lossy(headers.get(name)?.as_bytes()).into_owned();
        Some((name.to_owned(), arrakis_core::base::limits::cut(&value, 512).to_owned()))
    };
    let mut selected: BTreeMap<_, _> = kept.into_iter().filter_map(text).collect();
    if headers.contains_key(AUTHORIZATION) {
        selected.insert(AUTHORIZATION.to_string(), "[REDACTED]".to_owned());
    }
    selected
}

async fn authenticate(
    state: &Inner,
    headers: &HeaderMap,
    metadata: &Metadata,
) -> Result<String, HttpError> {
    let principal = state.authenticator.authenticate(headers, Scope::Ingest).await?;
    step(&metadata.request_id, "authenticate");
    Ok(principal.workspace)
}

/// The events of a batch, ready to be recorded.
fn judge_lines(
    state: &Inner,
    metadata: &Metadata,
    workspace: &str,
    body: &Bytes,
) -> Result<Vec<Judged>, HttpError> {
    let lines = lines(body);
    if lines.len() > 1 && body.len() > BATCH_BODY_MAX_BYTES {
        return Err(HttpError::too_large(BATCH_BODY_MAX_BYTES));
    }
    if lines.len() > BATCH_MAX_EVENTS {
        let message = format!("a batch has at most {BATCH_MAX_EVENTS} events");
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        return Err(HttpError::new(status, "too_many_events", message));
    }
    let judged = lines.into_iter().map(|line| {
        // The request's id is no event's: each that has none gets one of its own.
        let request_id = RequestId::mint(metadata.received_at, rand::random());
        let metadata = Metadata { request_id, ..metadata.clone() };
        Judged::of(state, &metadata, workspace, line)
    });
    Ok(judged.collect())
}

/// The lines of a batch, without empty ones.
fn lines(body: &Bytes) -> Vec<Bytes> {
    let trimmed = |line: &[u8]| body.slice_ref(line.trim_ascii());
    body.split(|byte| *byte == b'\n').map(trimmed).filter(|line| !line.is_empty()).collect()
}

/// An event that is ready to be recorded, and how it is refused if it is.
struct Judged {
    arrival: Arrival,
    verdict: Verdict,
    /// Set where the sender must hear that the event is not taken as it is.
    refusal: Option<HttpError>,
}

impl Judged {
    fn of(state: &Inner, metadata: &Metadata, workspace: &str, body: Bytes) -> Self {
        let reception = Reception {
            event_id: uuid_v7(metadata.received_at, rand::random()),
            received_at: metadata.received_at,
            workspace: workspace.to_owned(),
            headers: metadata.headers.clone(),
            ip_address: metadata.ip_address,
        };
        let id = || metadata.request_id.clone();
        let redacted = || {
            let Redacted { text, removed } = state.redactor.redact(&body);
            (Bytes::from(text.into_owned()), removed)
        };
        let incoming = match parse(&body) {
            Ok(Parsed::Envelope(envelope)) => (*envelope).into(),
            Ok(Parsed::Original { request_id, digest }) => {
                let (form, request_id) = (Form::Original, request_id.unwrap_or_else(id));
                let (body, redacted) = redacted();
                Incoming { form, request_id, digest, body, header: None, redacted }
            }
            Ok(Parsed::Raw { digest }) => {
                let (form, (body, redacted)) = (Form::Raw, redacted());
                Incoming { form, request_id: id(), digest, body, header: None, redacted }
            }
            Err(error) => return Self::unreadable(&error, id(), redacted().0, reception),
        };
        if incoming.body.len() > PAYLOAD_MAX_BYTES {
            return Self::too_long(incoming, reception);
        }
        step(&incoming.request_id, "parse");
        step(&incoming.request_id, "read the trace");
        let in_envelope = incoming.header.is_some();
        let (arrival, verdict) = admit(incoming, reception);
        step(&arrival.request_id, "validate");
        let refusal = match &verdict {
            Verdict::Invalid { code, message } if !in_envelope => {
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                Some(HttpError::new(status, code, message.clone()).about(&arrival.request_id))
            }
            _ => None,
        };
        Self { arrival, verdict, refusal }
    }

    /// An event that no envelope could carry again: redaction may have made it longer. Its ends are kept.
    fn too_long(incoming: Incoming, reception: Reception) -> Self {
        let length = incoming.body.len();
        let error = WireError::Invalid {
            code: "too_long",
            message: format!("the event has {length} bytes, more than {PAYLOAD_MAX_BYTES}"),
        };
        let (body, _) = Truncation::limit(incoming.body.into(), &[], None);
        Self::unreadable(&error, incoming.request_id, body.into(), reception)
    }

    /// What could not be read is kept as an `INVALID` row, and its sender hears of it.
    fn unreadable(error: &WireError, id: RequestId, body: Bytes, reception: Reception) -> Self {
        let request_id = match error {
            WireError::DigestMismatch { request_id } => request_id.clone(),
            _ => id,
        };
        let arrival = Arrival {
            event_id: reception.event_id,
            digest: Digest::of(&body),
            in_ledger: false,
            workspace: reception.workspace,
            event_type: UNKNOWN_EVENT_TYPE.to_owned(),
            session_id: None,
            received_at: reception.received_at,
            body,
            headers: reception.headers,
            ip_address: reception.ip_address,
            metadata: EventMetadata::default(),
            request_id,
        };
        let verdict =
            Verdict::Invalid { code: error.code().to_owned(), message: error.to_string() };
        let refusal = Some(HttpError::from(error).about(&arrival.request_id));
        Self { arrival, verdict, refusal }
    }
}

/// Stores events in one call; one result each, in order.
async fn record(
    state: &Inner,
    judged: Vec<Judged>,
) -> Result<Vec<Result<Answer, HttpError>>, HttpError> {
    let mut batch = Vec::with_capacity(judged.len());
    let mut senders = Vec::with_capacity(judged.len());
    for Judged { arrival, verdict, refusal } in judged {
        senders.push((arrival.request_id.clone(), arrival.received_at, refusal));
        batch.push((arrival, verdict));
    }
    if batch.is_empty() {
        let message = "the body has no event in it";
        return Err(HttpError::new(StatusCode::BAD_REQUEST, "empty_batch", message));
    }
    // What takes too long may still be stored; then a repeat is answered as one.
    let recorded = state.in_time(state.store.record(batch)).await.and_then(|done| Ok(done?));
    state.readiness.took_events(!recorded.as_ref().is_err_and(HttpError::is_temporary));
    let admissions = recorded.inspect_err(|error| {
        for (id, ..) in &senders {
            tracing::warn!(target: "arrakis::ingest", request_id = %id, error = error.message(),
                "event not stored");
        }
    })?;
    let now = state.clock.now();
    let results = senders.into_iter().zip(admissions).map(|((id, received_at, refusal), admission)| {
        for done in ["check duplicate", "record", "process", "finish"] {
            step(&id, done);
        }
        tracing::info!(target: "arrakis::ingest", request_id = %id, event_id = %admission.event_id,
            step = "answer", status = %admission.status,
            duplicate = admission.kind == AdmissionKind::Duplicate,
            duration_ms = now.since(received_at).as_millis(), "event received");
        answer(id, admission, refusal)
    });
    Ok(results.collect())
}

fn answer(
    request_id: RequestId,
    admission: Admission,
    refusal: Option<HttpError>,
) -> Result<Answer, HttpError> {
    if admission.kind == AdmissionKind::Conflict {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        let (code, message) = arrakis_core::record::store::ID_CONFLICT;
        return Err(HttpError::new(status, code, message).about(request_id));
    }
    if let Some(refusal) = refusal
        && admission.status == EventStatus::Invalid
    {
        return Err(refusal);
    }
    let duplicate = admission.kind == AdmissionKind::Duplicate;
    Ok(Answer {
        success: true,
        request_id,
        event_id: admission.event_id,
        digest: admission.digest,
        status: admission.status,
        duplicate,
        cached: duplicate,
        ids: admission.answer,
    })
}

fn step(request_id: &RequestId, step: &'static str) {
    tracing::debug!(target: "arrakis::ingest", %request_id, step);
}

/// Names the request in the response, as it was named or as it was found out.
fn echo(mut response: Response, request_id: &RequestId) -> Response {
    // A request id is made of header characters only.
    if let Ok(value) = HeaderValue::from_str(request_id.as_str()) {
        response.headers_mut().insert(REQUEST_ID_HEADER, value);
    }
    response
}
