//! What drainers tell of their spools: heard with deliveries, or by itself at `POST /api/spools`, and shown at
//! `GET /api/spools`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::limits::{SPOOL_REPORT_MAX_BYTES, SPOOLS_MAX};
use arrakis_core::record::key::Scope;
use arrakis_core::record::store::{HeardSpool, SpoolReports, StoreError};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Semaphore, broadcast};
use tokio::time::Instant;
use uuid::Uuid;

use super::ServerState;
use super::error::HttpError;
use crate::wire::decode_report;

/// Least time between two reports of one spool that come with deliveries and are kept: a delivery must not
/// cost a second transaction. Of those that come in between the last one is kept at its end.
const INTERVAL: Duration = Duration::from_secs(5);

/// Most reports that are being written at one time; others are passed over, and come again.
const WRITES_MAX: usize = 4;

/// Reports that are remembered for live streams, which take them at once; a stream that is further behind hears
/// the next ones.
const REPORTS_REMEMBERED: usize = 256;

/// How many spools are listed where nothing else is asked for.
const LISTED: usize = 1000;

/// What was kept of a spool.
#[derive(Debug)]
struct Kept {
    /// When.
    at: Instant,
    /// The newest report since then. It is kept when its time has come, so that the last one of a burst is.
    later: Option<HeardSpool>,
}

/// When a report is kept.
enum Turn {
    Now,
    /// In a while, unless a newer one comes until then.
    At(Instant),
    /// With one that waits already, or not at all.
    Never,
}

/// Hears of spools. Cloning is cheap.
#[derive(Debug, Clone)]
pub(super) struct Spools {
    pub(super) reports: Arc<dyn SpoolReports>,
    /// What was kept of each spool lately, and what waits to be.
    kept: Arc<Mutex<HashMap<(String, Uuid), Kept>>>,
    writes: Arc<Semaphore>,
    timeout: Duration,
    /// Tells live streams of each report that is kept, with its workspace.
    heard: broadcast::Sender<Arc<(String, HeardSpool)>>,
}

impl Spools {
    pub(super) fn new(reports: Arc<dyn SpoolReports>, timeout: Duration) -> Self {
        let writes = Arc::new(Semaphore::new(WRITES_MAX));
        let (heard, _) = broadcast::channel(REPORTS_REMEMBERED);
        Self { reports, kept: Arc::default(), writes, timeout, heard }
    }

    /// The reports that this server keeps from now on, each with its workspace.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Arc<(String, HeardSpool)>> {
        self.heard.subscribe()
    }

    /// Keeps what a delivery said of its spool, beside the delivery: it neither waits for this nor hears
    /// of a failure.
    pub(super) fn hear(&self, workspace: &str, header: Option<&HeaderValue>, now: Timestamp) {
        let Some(report) = header.and_then(|header| decode_report(header.as_bytes())) else {
            return;
        };
        let heard = HeardSpool { heard_at: now, report };
        let key = (workspace.to_owned(), heard.report.spool_id);
        match self.turn(&key, &heard) {
            Turn::Never => {}
            Turn::Now => self.keep(key.0, heard),
            Turn::At(at) => {
                let (kept, spools) = (Arc::clone(&self.kept), self.clone());
                tokio::spawn(async move {
                    tokio::time::sleep_until(at).await;
                    let later = kept.lock().get_mut(&key).and_then(|one| {
                        one.at = Instant::now();
                        one.later.take()
                    });
                    if let Some(heard) = later {
                        spools.keep(key.0, heard);
                    }
                });
            }
        }
    }

    /// Writes a report down, unless others are being written already.
    fn keep(&self, workspace: String, heard: HeardSpool) {
        let Ok(place) = Arc::clone(&self.writes).try_acquire_owned() else { return };
        let (reports, timeout) = (Arc::clone(&self.reports), self.timeout);
        let listeners = self.heard.clone();
        tokio::spawn(async move {
            let writing = reports.report_spool(&workspace, heard.clone(), SPOOLS_MAX);
            let problem = match tokio::time::timeout(timeout, writing).await {
                Ok(Ok(())) => {
                    listeners.send(Arc::new((workspace, heard))).ok();
                    return;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the store took too long".to_owned(),
            };
            tracing::warn!(target: "arrakis::server", workspace, problem,
                "the report of a spool cannot be kept; another will come");
            drop(place);
        });
    }

    fn turn(&self, key: &(String, Uuid), heard: &HeardSpool) -> Turn {
        let now = Instant::now();
        let mut kept = self.kept.lock();
        if kept.len() >= SPOOLS_MAX {
            kept.retain(|_, one| one.later.is_some() || now.duration_since(one.at) < INTERVAL);
        }
        let is_full = kept.len() >= SPOOLS_MAX;
        match kept.get_mut(key) {
            Some(one) if one.later.is_some() => {
                one.later = Some(heard.clone());
                Turn::Never
            }
            Some(one) if now.duration_since(one.at) < INTERVAL => {
                one.later = Some(heard.clone());
                Turn::At(one.at + INTERVAL)
            }
            None if is_full => Turn::Never,
            _ => {
                kept.insert(key.clone(), Kept { at: now, later: None });
                Turn::Now
            }
        }
    }
}

/// `POST /api/spools`: a report by itself, as a drainer sends it when it ends.
pub(super) async fn report(State(state): State<ServerState>, request: Request) -> Response {
    let inner = &*state.0;
    let reported = async {
        let principal = inner.authenticator.authenticate(request.headers(), Scope::Ingest).await?;
        let (parts, body) = request.into_parts();
        let body = inner.budget.read(&parts.headers, body, SPOOL_REPORT_MAX_BYTES).await?;
        let report = decode_report(&body.bytes).ok_or_else(|| {
            let message = "the body is not the report of a spool";
            HttpError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_report", message)
        })?;
        let heard = HeardSpool { heard_at: inner.clock.now(), report };
        let spools = &inner.spools;
        let keeping = spools.reports.report_spool(&principal.workspace, heard.clone(), SPOOLS_MAX);
        inner.in_time(keeping).await??;
        spools.heard.send(Arc::new((principal.workspace, heard))).ok();
        Ok(Json(json!({ "success": true })))
    };
    let reported: Result<_, HttpError> = reported.await;
    reported.into_response()
}

/// What a reader may ask for.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    limit: Option<usize>,
}

/// `GET /api/spools`: the spools of the key's workspace, those heard of lately first.
pub(super) async fn list(
    State(state): State<ServerState>,
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let inner = &*state.0;
    let listed = async {
        let principal = inner.authenticator.authenticate_reader(&headers).await?;
        let limit = wanted.ok().and_then(|Query(Wanted { limit })| limit.or(Some(LISTED)));
        let limit = limit.filter(|limit| (1..=SPOOLS_MAX).contains(limit)).ok_or_else(|| {
            let message = format!("limit is a number from 1 to {SPOOLS_MAX}");
            HttpError::new(StatusCode::BAD_REQUEST, "invalid_limit", message)
        })?;
        let spools =
            inner.in_time(inner.spools.reports.spools(&principal.workspace, limit)).await?;
        Ok(Json(json!({ "spools": spools.map_err(|error: StoreError| HttpError::from(error))? })))
    };
    let listed: Result<_, HttpError> = listed.await;
    listed.into_response()
}
