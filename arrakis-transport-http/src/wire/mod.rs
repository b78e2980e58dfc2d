//! The protocol.
//!
//! `POST /api/claude-hooks` takes one event, `POST /api/claude-hooks/batch` up to 500 of them, one a
//! line (NDJSON). An event has one of three forms:
//!
//! | form | told by | request id | digest |
//! |---|---|---|---|
//! | (a) envelope | `envelope` and `digest` | its `requestId` | of the payload bytes, verified |
//! | (b) the original system's payload | `event` | `_trace.requestId`, else `X-Request-Id` | of the body without `_trace`, keys sorted |
//! | (c) raw hook JSON | `hook_event_name` | `X-Request-Id`, else a new one | of the body |
//!
//! The forms are told apart by `arrakis_core::record::ingest`, for this transport and others. An envelope is
//! written as [`encode_envelope`] says. One that was redacted again before the delivery, or that comes back from an
//! export, keeps the digest under which the event was captured; where that is of other bytes, the payload's own is in
//! `payloadDigest`, and `form` says in which form the event first came. Only a key of scope `admin` makes the server
//! know the event by that digest; from other keys it finds repeats ([`Request::restores`]).
//!
//! [`Request::restores`]: arrakis_core::record::ingest::Request::restores
//!
//! Every event is answered with an [`Answer`] or an [`ErrorAnswer`]; a batch with a [`BatchAnswer`]
//! that has one of them per line, in order. A sender deletes nothing before an answer names the
//! event's request id and digest.
//!
//! A request may tell of the spool that its events come from, in the header `X-Arrakis-Spool`: a report as
//! JSON in ASCII, up to 4 KiB. What is no report is passed over.

mod answer;
mod spool;

pub use arrakis_core::base::envelope::{decode_envelope, encode_envelope};

pub use answer::{Answer, BatchAnswer, ErrorAnswer, ErrorBody, EventResult};
pub use spool::{decode_report, encode_report};

/// The path of the endpoint for one event.
pub const EVENT_PATH: &str = "/api/claude-hooks";

/// The path of the endpoint for many events; also what is appended to a destination URL.
pub const BATCH_PATH: &str = "/api/claude-hooks/batch";

/// Where stored events are listed.
pub const EVENTS_PATH: &str = "/api/events";

/// Where what happens can be followed.
pub const LIVE_PATH: &str = "/api/live";

/// Where conversations are searched.
pub const SEARCH_PATH: &str = "/api/search";

/// Where spools are reported and shown.
pub const SPOOLS_PATH: &str = "/api/spools";

/// The header of a delivery that tells of the spool that it comes from.
pub const SPOOL_HEADER: &str = "x-arrakis-spool";

/// The media type of a batch.
pub const NDJSON: &str = "application/x-ndjson";

/// The header that carries a request id.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

/// The header that carries a W3C trace context.
pub const TRACEPARENT_HEADER: &str = "traceparent";
