//! Audit rows: [`insert_events`] writes them; the types are read, each no wider than its reader needs.

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
use diesel::sql_types::{Array, BigInt, Binary, Jsonb, Nullable, Text, Timestamptz};
use uuid::Uuid;

use super::value::{At, JsonText, State, shown};
use super::{digest, json, parse};
use crate::body::{self, BodyColumns};
use crate::schema::{event_transitions, webhook_events};
use crate::statement::Statement;

/// An arrival with everything serialized that can be before its turn comes.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) arrival: Arrival,
    pub(crate) verdict: Verdict,
    headers: JsonText<'static>,
    metadata: JsonText<'static>,
    ip_address: Option<String>,
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
            headers: JsonText::of(&arrival.headers)?,
            metadata: JsonText::of(&arrival.metadata)?,
            ip_address: arrival.ip_address.map(|address| address.to_string()),
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
            headers: self.headers.clone(),
            metadata: self.metadata.clone(),
            ip_address: self.ip_address.clone(),
            plain_json: false,
            refusal: Some(shown(&error.to_string()).into_owned()),
        }
    }

    /// An arrival of the same size, of which the database has nothing to refuse. It is only tried.
    pub(crate) fn probe(&self) -> Self {
        let empty = || JsonText("{}".into());
        let request_id = self.arrival.event_id.to_string().parse();
        Self {
            arrival: Arrival {
                request_id: request_id.unwrap_or_else(|_| self.arrival.request_id.clone()),
                workspace: String::new(),
                event_type: String::new(),
                session_id: None,
                in_ledger: false,
                ..self.arrival.clone()
            },
            verdict: Verdict::Failed { code: String::new(), message: String::new() },
            headers: empty(),
            metadata: empty(),
            ip_address: None,
            plain_json: false,
            refusal: None,
        }
    }
}

/// The conflict names no column: each statement would look for its index among all those of the month, which costs half as
/// much as a row. States come as text: Diesel would write every value twice to find out where the number of a type of the
/// database's own stands among them.
const INSERT: &str = "INSERT INTO webhook_events (id, workspace, request_id, digest, event_type, \
    session_id, received_at, request_body, raw_body, request_headers, ip_address, status, \
    processed_at, processing_time, conversation_id, message_id, tool_use_id, error_code, \
    error_message, error_stack, retry_after, metadata, payload_bytes, created_at, updated_at) \
    SELECT id, workspace, request_id, digest, event_type, session_id, received_at, request_body, \
    raw_body, request_headers, ip_address, status::event_status, processed_at, processing_time, \
    conversation_id, message_id, tool_use_id, error_code, error_message, error_stack, retry_after, \
    metadata, payload_bytes, now, now \
    FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) AS v (id, workspace, \
    request_id, digest, event_type, session_id, received_at, request_body, raw_body, \
    request_headers, ip_address, status, processed_at, processing_time, conversation_id, message_id, \
    tool_use_id, error_code, error_message, error_stack, retry_after, metadata, payload_bytes), \
    (SELECT ? AS now) AS n ORDER BY id ON CONFLICT DO NOTHING RETURNING id";

/// The statement that writes the rows of these arrivals at `now`; it returns the ids of those that were not there.
pub(crate) fn insert_events<'a>(
    rows: &'a [(&'a Prepared, Outcome)],
    now: Timestamp,
) -> Statement<'a, diesel::sql_types::Uuid> {
    let arrivals = || rows.iter().map(|(row, _)| &row.arrival);
    let outcomes = || rows.iter().map(|(_, outcome)| outcome);
    let bodies: Vec<BodyColumns<'a>> = rows.iter().map(body_columns).collect();
    let raw: Vec<Option<&[u8]>> = bodies.iter().map(|body| body.raw).collect();
    let json: Vec<Option<JsonText<'a>>> = bodies.into_iter().map(|body| body.json).collect();
    let waits = |outcome: &Outcome| outcome.status == EventStatus::Error;
    let elapsed = |arrival: &Arrival| {
        i64::try_from(now.since(arrival.received_at).as_millis()).unwrap_or(i64::MAX)
    };
    let error = |pick: fn(&'a (Cow<'static, str>, Cow<'static, str>)) -> &'a str| {
        let of = move |outcome: &'a Outcome| outcome.error.as_ref().map(pick).map(shown);
        outcomes().map(of).collect::<Vec<Option<Cow<'a, str>>>>()
    };
    let ids = |pick: fn(&AnswerIds) -> Option<Uuid>| {
        outcomes().map(|outcome| pick(&outcome.answer)).collect::<Vec<_>>()
    };
    let refusals: Vec<_> = rows.iter().map(|(row, _)| row.refusal.as_deref()).collect();
    let addresses: Vec<_> = rows.iter().map(|(row, _)| row.ip_address.as_deref()).collect();
    let first_retry = At(now.plus(FIRST_RETRY_DELAY));
    let settled = |outcome: &Outcome| (!waits(outcome)).then_some(At(now));
    let retry = |outcome: &Outcome| waits(outcome).then_some(first_retry);
    Statement::new(INSERT)
        .bind::<Array<diesel::sql_types::Uuid>>(
            arrivals().map(|one| one.event_id).collect::<Vec<_>>(),
        )
        .bind::<Array<Text>>(arrivals().map(|one| shown(&one.workspace)).collect::<Vec<_>>())
        .bind::<Array<Text>>(arrivals().map(|one| one.request_id.as_str()).collect::<Vec<_>>())
        .bind::<Array<Binary>>(
            arrivals().map(|one| one.digest.as_bytes().as_slice()).collect::<Vec<_>>(),
        )
        .bind::<Array<Text>>(arrivals().map(|one| shown(&one.event_type)).collect::<Vec<_>>())
        .bind::<Array<Nullable<Text>>>(
            arrivals().map(|one| one.session_id.as_deref().map(shown)).collect::<Vec<_>>(),
        )
        .bind::<Array<Timestamptz>>(arrivals().map(|one| At(one.received_at)).collect::<Vec<_>>())
        .bind::<Array<Nullable<Jsonb>>>(json)
        .bind::<Array<Nullable<Binary>>>(raw)
        .bind::<Array<Jsonb>>(rows.iter().map(|(row, _)| row.headers.clone()).collect::<Vec<_>>())
        .bind::<Array<Nullable<Text>>>(addresses)
        .bind::<Array<Text>>(outcomes().map(|one| one.status.as_str()).collect::<Vec<_>>())
        .bind::<Array<Nullable<Timestamptz>>>(outcomes().map(settled).collect::<Vec<_>>())
        .bind::<Array<BigInt>>(arrivals().map(elapsed).collect::<Vec<_>>())
        .bind::<Array<Nullable<diesel::sql_types::Uuid>>>(ids(|answer| answer.conversation_id))
        .bind::<Array<Nullable<diesel::sql_types::Uuid>>>(ids(|answer| answer.message_id))
        .bind::<Array<Nullable<diesel::sql_types::Uuid>>>(ids(|answer| answer.tool_use_id))
        .bind::<Array<Nullable<Text>>>(error(|(code, _)| code.as_ref()))
        .bind::<Array<Nullable<Text>>>(error(|(_, message)| message.as_ref()))
        .bind::<Array<Nullable<Text>>>(refusals)
        .bind::<Array<Nullable<Timestamptz>>>(outcomes().map(retry).collect::<Vec<_>>())
        .bind::<Array<Jsonb>>(rows.iter().map(metadata).collect::<Vec<_>>())
        .bind::<Array<BigInt>>(rows.iter().map(payload_bytes).collect::<Vec<_>>())
        .bind::<Timestamptz>(At(now))
}

fn payload_bytes((row, outcome): &(&Prepared, Outcome)) -> i64 {
    match outcome.duplicate_of {
        Some(_) => 0,
        None => i64::try_from(row.arrival.body.len()).unwrap_or(i64::MAX),
    }
}

fn body_columns<'a>((row, outcome): &'a (&'a Prepared, Outcome)) -> BodyColumns<'a> {
    match outcome.duplicate_of {
        Some(_) => BodyColumns::NONE,
        None => BodyColumns::of(&row.arrival.body, row.plain_json),
    }
}

fn metadata<'a>((row, outcome): &'a (&'a Prepared, Outcome)) -> JsonText<'a> {
    match outcome.duplicate_of {
        // What else the envelope says, the first row has.
        Some(first) => JsonText(duplicate_metadata(first).into()),
        None => row.metadata.clone(),
    }
}

/// What a list shows of an audit row.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = webhook_events)]
pub(crate) struct SummaryRow {
    pub(crate) id: Uuid,
    workspace: String,
    request_id: String,
    event_type: String,
    session_id: Option<String>,
    received_at: At,
    status: State,
    processing_time: Option<i64>,
    conversation_id: Option<Uuid>,
    message_id: Option<Uuid>,
    tool_use_id: Option<Uuid>,
    error_code: Option<String>,
    error_message: Option<String>,
    retry_count: i64,
    retry_after: Option<At>,
    discarded_at: Option<At>,
    metadata: JsonText<'static>,
}

impl TryFrom<SummaryRow> for EventSummary {
    type Error = diesel::result::Error;

    fn try_from(row: SummaryRow) -> QueryResult<Self> {
        Ok(Self {
            id: row.id,
            workspace: row.workspace,
            request_id: parse("request_id", &row.request_id)?,
            event_type: row.event_type,
            session_id: row.session_id,
            received_at: row.received_at.0,
            status: row.status.0,
            processing_time_ms: row.processing_time.and_then(|ms| u64::try_from(ms).ok()),
            answer: AnswerIds {
                conversation_id: row.conversation_id,
                message_id: row.message_id,
                tool_use_id: row.tool_use_id,
            },
            error_code: row.error_code,
            error_message: row.error_message,
            retry_count: u32::try_from(row.retry_count).unwrap_or(u32::MAX),
            retry_after: row.retry_after.map(|at| at.0),
            discarded_at: row.discarded_at.map(|at| at.0),
            metadata: json("metadata", row.metadata)?,
        })
    }
}

/// What a detail shows of an audit row besides its summary.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = webhook_events)]
pub(crate) struct DetailRow {
    #[diesel(embed)]
    pub(crate) summary: SummaryRow,
    request_body: Option<JsonText<'static>>,
    raw_body: Option<Vec<u8>>,
    request_headers: JsonText<'static>,
    ip_address: Option<String>,
}

impl DetailRow {
    /// The audit row, whole.
    pub(crate) fn into_detail(self, transitions: Vec<Transition>) -> QueryResult<EventDetail> {
        Ok(EventDetail {
            body: body_of(self.request_body, self.raw_body),
            headers: json("request_headers", self.request_headers)?,
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
    pub(crate) id: Uuid,
    workspace: String,
    pub(crate) request_id: String,
    digest: Vec<u8>,
    event_type: String,
    session_id: Option<String>,
    received_at: At,
    request_body: Option<JsonText<'static>>,
    raw_body: Option<Vec<u8>>,
    request_headers: JsonText<'static>,
    ip_address: Option<String>,
    pub(crate) retry_count: i64,
    pub(crate) claim_token: i64,
    metadata: JsonText<'static>,
}

impl ArrivalRow {
    /// The arrival as it was recorded; `in_ledger` says whether the ledger names this row.
    pub(crate) fn into_arrival(self, in_ledger: bool) -> QueryResult<Arrival> {
        Ok(Arrival {
            event_id: self.id,
            request_id: parse("request_id", &self.request_id)?,
            digest: digest("digest", &self.digest)?,
            in_ledger,
            workspace: self.workspace,
            event_type: self.event_type,
            session_id: self.session_id,
            received_at: self.received_at.0,
            body: body_of(self.request_body, self.raw_body).unwrap_or_default(),
            headers: json("request_headers", self.request_headers)?,
            ip_address: self.ip_address.map(|text| parse("ip_address", &text)).transpose()?,
            metadata: json("metadata", self.metadata)?,
        })
    }
}

/// A row of the trail.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = event_transitions)]
pub(crate) struct TransitionRow {
    from_status: State,
    to_status: State,
    at: At,
    actor: String,
    reason: String,
}

impl From<TransitionRow> for Transition {
    fn from(row: TransitionRow) -> Self {
        Self {
            from: row.from_status.0,
            to: row.to_status.0,
            at: row.at.0,
            actor: row.actor,
            reason: row.reason,
        }
    }
}

/// The body that was divided into these columns.
pub(crate) fn body_of(json: Option<JsonText<'static>>, raw: Option<Vec<u8>>) -> Option<Bytes> {
    raw.map(Bytes::from).or_else(|| json.map(|text| Bytes::from(text.0.into_owned())))
}
