//! What the server answers.

use arrakis_core::base::digest::Digest;
use arrakis_core::base::id::RequestId;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::session::conversation::AnswerIds;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The event is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Always true.
    pub success: bool,
    /// The event.
    pub request_id: RequestId,
    /// The audit row of its first arrival.
    pub event_id: Uuid,
    /// The digest of what is stored.
    pub digest: Digest,
    /// The state of that row.
    pub status: EventStatus,
    /// Whether it had been stored before.
    pub duplicate: bool,
    /// The same, under the original system's name.
    pub cached: bool,
    /// What it is about.
    #[serde(flatten)]
    pub ids: AnswerIds,
}

/// The event, or the whole request, is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorAnswer {
    /// Always false.
    pub success: bool,
    /// What is wrong.
    pub error: ErrorBody,
    /// The event, or the request, where it could be told.
    pub request_id: Option<String>,
}

/// What is wrong with an event or a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// A stable word.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// More, where there is more to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<serde_json::Value>,
}

impl ErrorAnswer {
    /// An error with this code and message.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>, request_id: Option<String>) -> Self {
        let error = ErrorBody { code: code.to_owned(), message: message.into(), details: None };
        Self { success: false, error, request_id }
    }
}

/// The answer to one event of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EventResult {
    /// It is stored.
    Stored(Answer),
    /// It is not.
    Refused(ErrorAnswer),
}

/// The answer to a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchAnswer {
    /// Always true: what became of each event, its own result tells.
    pub success: bool,
    /// One per event, in order.
    pub results: Vec<EventResult>,
}
