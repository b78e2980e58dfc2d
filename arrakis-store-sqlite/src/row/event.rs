//! Audit rows: [`NewEvent`] is written; the others are read, each no wider than its reader needs.

use std::borrow::Cow;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::adapter::{Outcome, duplicate_metadata};
use arrakis_core::record::store::{
    Arrival, EventDetail, EventSummary, FIRST_RETRY_DELAY, Transition, Verdict,
};
use arrakis_core::session::conversation::AnswerIds;
use bytes::Bytes;
use diesel::prelude::*;
use diesel::result::QueryResult;

use super::{digest, json, maybe_time, maybe_uuid, parse, time, to_json, uuid};
use crate::body::{self, BodyColumns};
use crate::schema::{event_transitions, webhook_events};

/// An arrival with everything serialized that can be before its turn comes, so that the writer's
/// thread only binds and steps.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) arrival: Arrival,
    pub(crate) verdict: Verdict,
    pub(crate) event_id: String,
    received_at: String,
    headers: String,
    ip_address: Option<String>,
    metadata: String,
    plain_json: bool,
    /// What the database said when it refused the row as it was.
    refusal: Option<String>,
}

impl Prepared {
    /// Serializes what does not depend on the database.
    ///
    /// # Errors
    ///
    /// The headers or the metadata cannot be written as JSON.
    pub(crate) fn new(arrival: Arrival, verdict: Verdict) -> QueryResult<Self> {
        Ok(Self {
            event_id: arrival.event_id.to_string(),
            received_at: arrival.received_at.to_string(),
            headers: to_json(&arrival.headers)?,
            ip_address: arrival.ip_address.map(|address| address.to_string()),
            metadata: to_json(&arrival.metadata)?,
            plain_json: body::is_plain_json(&arrival.body),
            refusal: None,
            arrival,
            verdict,
        })
    }

    /// The same arrival as it is kept when the database refuses it: failed, its body as bytes.
    pub(crate) fn refused(&self, error: &diesel::result::Error) -> Self {
        Self {
            arrival: self.arrival.clone(),
            verdict: Verdict::Failed {
                code: "store_refused".to_owned(),
                message: "the database refused to store this event as it was".to_owned(),
            },
            event_id: self.event_id.clone(),
            received_at: self.received_at.clone(),
            headers: self.headers.clone(),
            ip_address: self.ip_address.clone(),
            metadata: self.metadata.clone(),
            plain_json: false,
            refusal: Some(error.to_string()),
        }
    }

    fn payload_bytes(&self) -> i64 {
        i64::try_from(self.arrival.body.len()).unwrap_or(i64::MAX)
    }

    /// The row, with `outcome`, written at `now`.
    pub(crate) fn row<'a>(&'a self, outcome: &'a Outcome, now: &'a Now) -> NewEvent<'a> {
        let Outcome { status, answer, error, duplicate_of } = outcome;
        let (metadata, body) = match duplicate_of {
            // What else the envelope says, the first row has.
            Some(first) => (Cow::Owned(duplicate_metadata(*first)), BodyColumns::NONE),
            None => (
                Cow::Borrowed(self.metadata.as_str()),
                BodyColumns::of(&self.arrival.body, self.plain_json),
            ),
        };
        let waits = *status == EventStatus::Error;
        let elapsed = now.at.since(self.arrival.received_at).as_millis();
        NewEvent {
            id: &self.event_id,
            workspace: &self.arrival.workspace,
            request_id: self.arrival.request_id.as_str(),
            digest: self.arrival.digest.as_bytes(),
            event_type: &self.arrival.event_type,
            session_id: self.arrival.session_id.as_deref(),
            received_at: &self.received_at,
            request_body: body.text,
            raw_body: body.raw,
            request_headers: &self.headers,
            ip_address: self.ip_address.as_deref(),
            status: status.as_str(),
            processed_at: (!waits).then_some(now.text.as_str()),
            processing_time: Some(i64::try_from(elapsed).unwrap_or(i64::MAX)),
            conversation_id: answer.conversation_id.map(|id| id.to_string()),
            message_id: answer.message_id.map(|id| id.to_string()),
            tool_use_id: answer.tool_use_id.map(|id| id.to_string()),
            error_code: error.as_ref().map(|(code, _)| code.as_ref()),
            error_message: error.as_ref().map(|(_, message)| message.as_ref()),
            error_stack: self.refusal.as_deref(),
            payload_bytes: if duplicate_of.is_some() { 0 } else { self.payload_bytes() },
            retry_after: waits.then_some(now.first_retry.as_str()),
            metadata,
            created_at: &now.text,
            updated_at: &now.text,
        }
    }
}

/// The moment of a transaction, written once for all its rows.
#[derive(Debug)]
pub(crate) struct Now {
    pub(crate) at: Timestamp,
    pub(crate) text: String,
    /// When a row that failed is first tried again.
    pub(crate) first_retry: String,
}

impl Now {
    /// The present moment in its text forms.
    pub(crate) fn new(at: Timestamp) -> Self {
        Self { at, text: at.to_string(), first_retry: at.plus(FIRST_RETRY_DELAY).to_string() }
    }
}

/// A row of `webhook_events` as it is first written.
#[derive(Debug, Insertable)]
#[diesel(table_name = webhook_events, treat_none_as_default_value = false)]
pub(crate) struct NewEvent<'a> {
    id: &'a str,
    workspace: &'a str,
    request_id: &'a str,
    digest: &'a [u8],
    event_type: &'a str,
    session_id: Option<&'a str>,
    received_at: &'a str,
    request_body: Option<Cow<'a, str>>,
    raw_body: Option<&'a [u8]>,
    request_headers: &'a str,
    ip_address: Option<&'a str>,
    status: &'a str,
    processed_at: Option<&'a str>,
    processing_time: Option<i64>,
    conversation_id: Option<String>,
    message_id: Option<String>,
    tool_use_id: Option<String>,
    error_code: Option<&'a str>,
    error_message: Option<&'a str>,
    error_stack: Option<&'a str>,
    payload_bytes: i64,
    retry_after: Option<&'a str>,
    metadata: Cow<'a, str>,
    created_at: &'a str,
    updated_at: &'a str,
}

/// What a list shows of an audit row.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = webhook_events)]
pub(crate) struct SummaryRow {
    id: String,
    workspace: String,
    request_id: String,
    event_type: String,
    session_id: Option<String>,
    received_at: String,
    status: String,
    processing_time: Option<i64>,
    conversation_id: Option<String>,
    message_id: Option<String>,
    tool_use_id: Option<String>,
    error_code: Option<String>,
    error_message: Option<String>,
    retry_count: i64,
    retry_after: Option<String>,
    discarded_at: Option<String>,
    metadata: String,
}

impl SummaryRow {
    /// The row's own id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }
}

impl TryFrom<SummaryRow> for EventSummary {
    type Error = diesel::result::Error;

    fn try_from(row: SummaryRow) -> QueryResult<Self> {
        Ok(Self {
            id: uuid("id", &row.id)?,
            workspace: row.workspace,
            request_id: parse("request_id", &row.request_id)?,
            event_type: row.event_type,
            session_id: row.session_id,
            received_at: time("received_at", &row.received_at)?,
            status: parse("status", &row.status)?,
            processing_time_ms: row.processing_time.and_then(|ms| u64::try_from(ms).ok()),
            answer: AnswerIds {
                conversation_id: maybe_uuid("conversation_id", row.conversation_id.as_deref())?,
                message_id: maybe_uuid("message_id", row.message_id.as_deref())?,
                tool_use_id: maybe_uuid("tool_use_id", row.tool_use_id.as_deref())?,
            },
            error_code: row.error_code,
            error_message: row.error_message,
            retry_count: u32::try_from(row.retry_count).unwrap_or(u32::MAX),
            retry_after: maybe_time("retry_after", row.retry_after.as_deref())?,
            discarded_at: maybe_time("discarded_at", row.discarded_at.as_deref())?,
            metadata: json("metadata", &row.metadata)?,
        })
    }
}

/// What a detail shows of an audit row besides its summary.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = webhook_events)]
pub(crate) struct DetailRow {
    #[diesel(embed)]
    summary: SummaryRow,
    request_body: Option<String>,
    raw_body: Option<Vec<u8>>,
    request_headers: String,
    ip_address: Option<String>,
}

impl DetailRow {
    /// The row's own id.
    pub(crate) fn id(&self) -> &str {
        self.summary.id()
    }

    /// The audit row, whole.
    pub(crate) fn into_detail(self, transitions: Vec<Transition>) -> QueryResult<EventDetail> {
        Ok(EventDetail {
            body: body_of(self.request_body, self.raw_body),
            headers: json("request_headers", &self.request_headers)?,
            ip_address: self.ip_address.map(|text| parse("ip_address", &text)).transpose()?,
            summary: self.summary.try_into()?,
            transitions,
        })
    }
}

/// What a worker needs of an audit row.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = webhook_events)]
pub(crate) struct ArrivalRow {
    pub(crate) id: String,
    workspace: String,
    pub(crate) request_id: String,
    digest: Vec<u8>,
    event_type: String,
    session_id: Option<String>,
    received_at: String,
    request_body: Option<String>,
    raw_body: Option<Vec<u8>>,
    request_headers: String,
    ip_address: Option<String>,
    pub(crate) retry_count: i64,
    pub(crate) claim_token: i64,
    metadata: String,
}

impl ArrivalRow {
    /// The arrival as it was recorded; `in_ledger` says whether the ledger names this row.
    pub(crate) fn into_arrival(self, in_ledger: bool) -> QueryResult<Arrival> {
        Ok(Arrival {
            event_id: uuid("id", &self.id)?,
            request_id: parse("request_id", &self.request_id)?,
            digest: digest("digest", &self.digest)?,
            in_ledger,
            workspace: self.workspace,
            event_type: self.event_type,
            session_id: self.session_id,
            received_at: time("received_at", &self.received_at)?,
            body: body_of(self.request_body, self.raw_body).unwrap_or_default(),
            headers: json("request_headers", &self.request_headers)?,
            ip_address: self.ip_address.map(|text| parse("ip_address", &text)).transpose()?,
            metadata: json("metadata", &self.metadata)?,
        })
    }
}

/// A row of the trail.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = event_transitions)]
pub(crate) struct TransitionRow {
    from_status: String,
    to_status: String,
    at: String,
    actor: String,
    reason: String,
}

impl TryFrom<TransitionRow> for Transition {
    type Error = diesel::result::Error;

    fn try_from(row: TransitionRow) -> QueryResult<Self> {
        Ok(Self {
            from: parse("from_status", &row.from_status)?,
            to: parse("to_status", &row.to_status)?,
            at: time("at", &row.at)?,
            actor: row.actor,
            reason: row.reason,
        })
    }
}

/// The body that a row's two columns hold, if it has one.
pub(crate) fn body_of(text: Option<String>, raw: Option<Vec<u8>>) -> Option<Bytes> {
    raw.map(Bytes::from).or_else(|| text.map(Bytes::from))
}
