//! The two endpoints that take events.
//!
//! A request goes through ten steps, each of which leaves a tracing event (target `arrakis::ingest`)
//! with the request id: extract metadata, authenticate, parse, read the trace, check duplicate,
//! validate, record, process, finish, answer. Checking for a duplicate, recording, processing and
//! finishing are one transaction of the store, so theirs come when it has committed. What lies between the
//! key and the answer is [`Ingest`]'s.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::id::RequestId;
use arrakis_core::base::limits::{BATCH_BODY_MAX_BYTES, BATCH_MAX_EVENTS, BODY_MAX_BYTES};
use arrakis_core::record::ingest::{self, Ingest, Judged, Received};
use arrakis_core::record::key::Scope;
use arrakis_core::record::store::AdmissionKind;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use bytes::Bytes;

use super::auth::Principal;
use super::client_ip::client_ip;
use super::error::HttpError;
use super::{Inner, ServerState};
use crate::wire::{
    Answer, BatchAnswer, EventResult, REQUEST_ID_HEADER, SPOOL_HEADER, TRACEPARENT_HEADER,
};

/// `POST /api/claude-hooks`: one event.
pub(super) async fn event(State(state): State<ServerState>, request: Request) -> Response {
    let state = &*state.0;
    let metadata = match Metadata::extract(state, &request) {
        Ok(metadata) => metadata,
        Err(error) => return error.into_response(),
    };
    let mut id = metadata.request_id.clone();
    let result = async {
        let sender = authenticate(state, request.headers(), &metadata).await?;
        let (parts, body) = request.into_parts();
        let body = state.budget.read(&parts.headers, body, BODY_MAX_BYTES).await?;
        let named = metadata.request(&sender, Some(metadata.request_id.clone()));
        let (bytes, ingest) = (body.bytes.len(), state.ingest.clone());
        let judge = move || (ingest.judge(&named, body.bytes.clone()), body);
        let (judged, _held) = state.heavy.run(bytes, judge).await;
        id.clone_from(judged.request_id());
        let mut results = record(state, metadata.received_at, vec![judged]).await?;
        state.spools.hear(&sender.workspace, parts.headers.get(SPOOL_HEADER), metadata.received_at);
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
    let state = &*state.0;
    let metadata = match Metadata::extract(state, &request) {
        Ok(metadata) => metadata,
        Err(error) => return error.into_response(),
    };
    let result = async {
        let sender = authenticate(state, request.headers(), &metadata).await?;
        let (parts, body) = request.into_parts();
        let body = state.budget.read(&parts.headers, body, BODY_MAX_BYTES).await?;
        // The request's id is no event's: each that has none gets one of its own.
        let unnamed = metadata.request(&sender, None);
        let (bytes, ingest) = (body.bytes.len(), state.ingest.clone());
        let judge = move || (judge_lines(&ingest, &unnamed, &body.bytes), body);
        let (judged, _held) = state.heavy.run(bytes, judge).await;
        let results = record(state, metadata.received_at, judged?).await?;
        state.spools.hear(&sender.workspace, parts.headers.get(SPOOL_HEADER), metadata.received_at);
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
) -> Result<Principal, HttpError> {
    let principal = state.authenticator.authenticate(headers, Scope::Ingest).await?;
    step(&metadata.request_id, "authenticate");
    Ok(principal)
}

/// The events of a batch, ready to be recorded.
fn judge_lines(
    ingest: &Ingest,
    request: &ingest::Request,
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
    Ok(lines.into_iter().map(|line| ingest.judge(request, line)).collect())
}

/// The lines of a batch, without empty ones.
fn lines(body: &Bytes) -> Vec<Bytes> {
    let trimmed = |line: &[u8]| body.slice_ref(line.trim_ascii());
    body.split(|byte| *byte == b'\n').map(trimmed).filter(|line| !line.is_empty()).collect()
}

impl Metadata {
    /// The request of `sender`, whose event is named `request_id` where it has no name of its own.
    fn request(&self, sender: &Principal, request_id: Option<RequestId>) -> ingest::Request {
        ingest::Request {
            received_at: self.received_at,
            workspace: sender.workspace.clone(),
            restores: sender.scope.allows(Scope::Admin),
            request_id,
            headers: self.headers.clone(),
            ip_address: self.ip_address,
        }
    }
}

/// Stores events in one call; one result each, in order.
async fn record(
    state: &Inner,
    received_at: Timestamp,
    judged: Vec<Judged>,
) -> Result<Vec<Result<Answer, HttpError>>, HttpError> {
    if judged.is_empty() {
        let message = "the body has no event in it";
        return Err(HttpError::new(StatusCode::BAD_REQUEST, "empty_batch", message));
    }
    let ids: Vec<_> = judged.iter().map(|one| one.request_id().clone()).collect();
    // What takes too long may still be stored; then a repeat is answered as one.
    let recorded = state.in_time(state.ingest.record(judged)).await.and_then(|done| Ok(done?));
    state.readiness.took_events(!recorded.as_ref().is_err_and(HttpError::is_temporary));
    let received = recorded.inspect_err(|error| {
        for id in &ids {
            tracing::warn!(target: "arrakis::ingest", request_id = %id, error = error.message(),
                "event not stored");
        }
    })?;
    let duration_ms = state.clock.now().since(received_at).as_millis();
    let results = received.into_iter().map(|received| {
        let Received { request_id, admission, .. } = &received;
        tracing::info!(target: "arrakis::ingest", %request_id, event_id = %admission.event_id,
            step = "answer", status = %admission.status,
            duplicate = admission.kind == AdmissionKind::Duplicate, duration_ms, "event received");
        answer(received)
    });
    Ok(results.collect())
}

fn answer(received: Received) -> Result<Answer, HttpError> {
    let Received { request_id, admission, refusal } = received;
    if let Some(refusal) = refusal {
        return Err(HttpError::from(&refusal).about(request_id));
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
