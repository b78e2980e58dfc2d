//! Errors as responses: always a JSON object.

use arrakis_core::base::error::Retryable;
use arrakis_core::record::ingest::{Refusal, UnreadableEvent};
use arrakis_core::record::store::StoreError;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Json, Response};

use crate::wire::ErrorAnswer;

/// How long a client is asked to wait when the server is busy or its store away, in seconds.
const RETRY_AFTER_SECONDS: u64 = 1;

/// A request that is not answered as it was meant.
#[derive(Debug)]
pub(super) struct HttpError {
    status: StatusCode,
    answer: ErrorAnswer,
}

impl HttpError {
    pub(super) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self { status, answer: ErrorAnswer::new(code, message, None) }
    }

    /// The same, about this event or request.
    pub(super) fn about(mut self, request_id: impl ToString) -> Self {
        self.answer.request_id = Some(request_id.to_string());
        self
    }

    pub(super) fn busy(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// The store did not answer in time.
    pub(super) fn store_hangs() -> Self {
        tracing::error!(target: "arrakis::server", "the store takes too long to answer");
        Self::busy("the store takes too long to answer")
    }

    /// Whether the same request may succeed later.
    pub(super) fn is_temporary(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Names the error.
    pub(super) fn code(&self) -> &str {
        &self.answer.error.code
    }

    /// What the client is told.
    pub(super) fn message(&self) -> &str {
        &self.answer.error.message
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("the body has more than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// What a result of a batch says of it.
    pub(super) fn into_answer(self) -> ErrorAnswer {
        self.answer
    }
}

impl From<StoreError> for HttpError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::SearchesBusy { .. } => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                return Self::new(status, "too_many_searches", error.to_string());
            }
            // Not 503: the same search would take as long again.
            StoreError::SearchTimeout { .. } => {
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                return Self::new(status, "search_timeout", error.to_string());
            }
            _ => {}
        }
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::error!(target: "arrakis::server", %error, cause, "the store failed");
        // Details of the database are the operator's, in the log; the client only waits.
        if error.is_retryable() {
            Self::busy("the store is not available at the moment")
        } else {
            let message = "the store could not take this event";
            Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
        }
    }
}

impl From<&Refusal> for HttpError {
    fn from(refusal: &Refusal) -> Self {
        let status = match refusal {
            Refusal::Unreadable(UnreadableEvent::Malformed(_)) => StatusCode::BAD_REQUEST,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, refusal.code(), refusal.to_string())
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.answer)).into_response();
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS.into());
            }
            StatusCode::UNAUTHORIZED => {
                let scheme = HeaderValue::from_static("Bearer");
                response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
            }
            _ => {}
        }
        response
    }
}
