//! What an export as JSONL is made of, one JSON object a line.
//!
//! ```text
//! {"arrakisExport":1,"workspace":"main","exportedAt":"…","program":"arrakis 0.1.0"}
//! {"envelope":1,"requestId":"…","capturedAt":"…","digest":"sha256:…",…,"payload":{…}}
//! {"arrakisExportEnd":{"events":1,"conversations":1}}
//! ```
//!
//! Between the first line and the last each line is an event, as the envelope that brings it, in the form in
//! which envelopes travel ([`arrakis_transport_http::wire`]). What a conversation has from events
//! that are stored no more is in [snapshots](arrakis_core::session::snapshot). Exports may be put one behind the other.

use arrakis_core::base::clock::Timestamp;
use serde::{Deserialize, Serialize};

/// The version of the lines that this code writes.
pub(in crate::cli) const VERSION: u32 = 1;

/// How every export begins.
const BEGINNING: &[u8] = b"{\"arrakisExport\":";

/// How each event of an export begins.
const EVENT: &[u8] = b"{\"envelope\":";

/// Whether bytes are the beginning of an export, or of a part of one.
#[must_use]
pub(in crate::cli) fn is_export(beginning: &[u8]) -> bool {
    is_head(beginning) || beginning.starts_with(EVENT)
}

/// Whether a line is the first one of an export.
#[must_use]
pub(in crate::cli) fn is_head(line: &[u8]) -> bool {
    line.starts_with(BEGINNING)
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Head {
    pub(in crate::cli) arrakis_export: u32,
    /// The workspace that the events are of.
    pub(in crate::cli) workspace: String,
    pub(in crate::cli) exported_at: Timestamp,
    /// What wrote it.
    pub(in crate::cli) program: String,
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Tail {
    pub(in crate::cli) arrakis_export_end: Counts,
}

/// How much was exported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Counts {
    pub(in crate::cli) events: u64,
    pub(in crate::cli) conversations: u64,
}
