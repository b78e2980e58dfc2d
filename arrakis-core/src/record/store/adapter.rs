//! What stores on a database share: decisions and forms that do not depend on which one it is.

mod blocks;
mod body;
mod counts;
mod group;
mod list;
mod message;
mod metadata;
mod usage;
mod values;

pub use blocks::blocks_to_json;
pub use body::{raw_body_preview, raw_body_wrapper};
pub use counts::{Bucket, Count, CountKey, CountedRow, Counts, event_sums, host_of, in_order};
pub use group::{Call, Group, Reply};
pub use list::{EventIndex, event_page, page_rows};
pub use message::{
    BlockKind, BlockRows, MESSAGE_ROW_MAX_BYTES, MessageWrite, NeededBlocks, StoredBlock,
    StoredMessage,
};
pub use metadata::duplicate_metadata;
pub use usage::{CountedMessage, MessageParts, UsageChange, UsageChanges, UsageKey, usage_sums};
pub use values::{
    ConversationColumns, ConversationMetadata, MessageColumns, MessageMetadata, ToolUseColumns,
    ToolUseMetadata,
};

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Admission, AdmissionKind, Arrival, EventDetail, EventMetadata, EventSummary, ID_CONFLICT,
    StoreError, Transition, Verdict,
};
use crate::base::dead_letter::{DeadLetter, DeadLetterDetail, Failure};
use crate::base::digest::Digest;
use crate::base::envelope::Header;
use crate::base::error::BoxError;
use crate::record::audit::EventStatus;
use crate::session::conversation::{AnswerIds, Changes, Conversation, Message, Subagent, ToolUse};

/// The changes of several events, merged with each other, so that each value is loaded and written once
/// however many events touch it. Values are borrowed from the events and copied only where two have to
/// be joined.
#[derive(Debug, Default)]
pub struct Merged<'a> {
    /// Conversations by their ids.
    pub conversations: BTreeMap<Uuid, Cow<'a, Conversation>>,
    /// Messages by their ids, each with its workspace.
    pub messages: BTreeMap<Uuid, (&'a str, Cow<'a, Message>)>,
    /// Tool uses by their ids, each with its workspace.
    pub tool_uses: BTreeMap<Uuid, (&'a str, Cow<'a, ToolUse>)>,
    /// Subagents by their ids, each with its workspace.
    pub subagents: BTreeMap<Uuid, (&'a str, Cow<'a, Subagent>)>,
}

impl<'a> Merged<'a> {
    /// Joins the changes of one event of `workspace` to the others'.
    pub fn add(&mut self, workspace: &'a str, changes: &'a Changes) {
        for value in &changes.conversations {
            self.conversations
                .entry(value.id)
                .and_modify(|mine| mine.to_mut().merge(value.clone()))
                .or_insert(Cow::Borrowed(value));
        }
        join(&mut self.messages, workspace, &changes.messages, |one| one.id, Message::merge);
        join(&mut self.tool_uses, workspace, &changes.tool_uses, |one| one.id, ToolUse::merge);
        join(&mut self.subagents, workspace, &changes.subagents, |one| one.id, Subagent::merge);
    }
}

fn join<'a, T: Clone>(
    all: &mut BTreeMap<Uuid, (&'a str, Cow<'a, T>)>,
    workspace: &'a str,
    came: &'a [T],
    id: fn(&T) -> Uuid,
    merge: fn(&mut T, T),
) {
    for value in came {
        all.entry(id(value))
            .and_modify(|(_, mine)| merge(mine.to_mut(), value.clone()))
            .or_insert((workspace, Cow::Borrowed(value)));
    }
}

/// What is to be written of a value that is stored already and came again: nothing where what is stored
/// says it all.
pub fn joined<T: Clone + PartialEq>(
    stored: T,
    came: T,
    merge: impl FnOnce(&mut T, T),
) -> Option<T> {
    let mut value = stored.clone();
    merge(&mut value, came);
    (value != stored).then_some(value)
}

/// What the ledger answers a repeat, as JSON: `request_ids.answer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerAnswer {
    /// The state when the ledger was last written; the audit row's own counts while there is one.
    pub status: EventStatus,
    conversation_id: Option<Uuid>,
    message_id: Option<Uuid>,
    tool_use_id: Option<Uuid>,
}

impl LedgerAnswer {
    /// The answer of an event in this state, about these.
    #[must_use]
    pub fn new(status: EventStatus, ids: AnswerIds) -> Self {
        let AnswerIds { conversation_id, message_id, tool_use_id } = ids;
        Self { status, conversation_id, message_id, tool_use_id }
    }

    /// What the event was about.
    #[must_use]
    pub fn ids(self) -> AnswerIds {
        AnswerIds {
            conversation_id: self.conversation_id,
            message_id: self.message_id,
            tool_use_id: self.tool_use_id,
        }
    }
}

/// What has been decided about an arrival, as its audit row tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The state.
    pub status: EventStatus,
    /// What the event is about.
    pub answer: AnswerIds,
    /// The code and the message of what is wrong.
    pub error: Option<(Cow<'static, str>, Cow<'static, str>)>,
    /// The row that it repeats.
    pub duplicate_of: Option<Uuid>,
}

impl Outcome {
    /// What becomes of the first arrival of a request id.
    #[must_use]
    pub fn of(verdict: &Verdict) -> Self {
        let (answer, error) = match verdict {
            Verdict::Apply(changes) => (changes.answer, None),
            Verdict::Invalid { code, message } | Verdict::Failed { code, message } => {
                let error = (Cow::Owned(code.clone()), Cow::Owned(message.clone()));
                (AnswerIds::default(), Some(error))
            }
        };
        Self { status: verdict.status(), answer, error, duplicate_of: None }
    }
}

/// What the ledger has on a request id of a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The audit row of the first arrival.
    pub event_id: Uuid,
    /// The first arrival's digest.
    pub digest: Digest,
    /// The digest that the first arrival's sender has named, where that is another
    /// ([`Arrival::claimed_digest`]).
    pub claimed: Option<Digest>,
    /// The first arrival's current state.
    pub status: EventStatus,
    /// What the first arrival was about.
    pub answer: AnswerIds,
}

impl LedgerEntry {
    /// The entry of an arrival that takes its request id.
    #[must_use]
    pub fn of(arrival: &Arrival, outcome: &Outcome) -> Self {
        let (Outcome { status, answer, .. }, claimed) = (outcome, arrival.claimed_digest());
        let Arrival { event_id, digest, .. } = *arrival;
        Self { event_id, digest, claimed, status: *status, answer: *answer }
    }

    /// What the sender of the first arrival is told.
    #[must_use]
    pub fn admitted(&self, first: &Arrival) -> Admission {
        self.admission(AdmissionKind::New, first.named_digest())
    }

    fn admission(&self, kind: AdmissionKind, digest: Digest) -> Admission {
        let Self { event_id, status, answer, .. } = *self;
        Admission { kind, event_id, digest, status, answer }
    }

    /// What becomes of another arrival under the same id.
    ///
    /// It is a repeat where its bytes are the first's, or where it names the digest that the first has, or where both
    /// name one digest. It is none where other bytes have the digest that the first has only named: what the first
    /// brought cannot be told to be the same, and must not hide this one.
    #[must_use]
    pub fn repeated(&self, again: &Arrival) -> (Admission, Outcome) {
        let claimed = again.claimed_digest();
        let is_repeat = again.digest == self.digest
            || claimed == Some(self.digest)
            || claimed.is_some() && claimed == self.claimed
            // An import that may say under which digest an event first came brings what another import brought.
            || self.claimed == Some(again.digest) && Digest::of(&again.body) == self.digest;
        if is_repeat {
            let outcome = Outcome {
                status: EventStatus::Duplicate,
                answer: self.answer,
                error: None,
                duplicate_of: Some(self.event_id),
            };
            return (self.admission(AdmissionKind::Duplicate, again.named_digest()), outcome);
        }
        let (code, message) = ID_CONFLICT;
        let outcome = Outcome {
            status: EventStatus::Invalid,
            answer: AnswerIds::default(),
            error: Some((Cow::Borrowed(code), Cow::Borrowed(message))),
            duplicate_of: None,
        };
        (self.admission(AdmissionKind::Conflict, self.digest), outcome)
    }
}

/// A failure as the trail of an audit row tells it; [`failures`] reads it back.
#[must_use]
pub fn failure_text(code: Option<&str>, message: Option<&str>) -> String {
    format!("{}: {}", code.unwrap_or("unknown"), message.unwrap_or_default())
}

/// Every failure of an audit row: each time that it left `ERROR`, for another try or for good, its trail
/// says why.
#[must_use]
pub fn failures(trail: &[Transition]) -> Vec<Failure> {
    let told = |one: &&Transition| {
        one.from == EventStatus::Error
            && matches!(one.to, EventStatus::PendingRetry | EventStatus::Failed)
    };
    (1..)
        .zip(trail.iter().filter(told))
        .map(|(round, one)| {
            let (code, message) = one.reason.split_once(": ").unwrap_or(("unknown", &one.reason));
            Failure { at: one.at, round, code: code.to_owned(), message: message.to_owned() }
        })
        .collect()
}

/// An audit row in `FAILED`, as a list of dead letters shows it.
#[must_use]
pub fn dead_letter(row: &EventSummary, trail: &[Transition]) -> DeadLetter {
    DeadLetter {
        request_id: row.request_id.clone(),
        event_type: Some(row.event_type.clone()),
        session_id: row.session_id.clone(),
        failure: failures(trail).pop(),
    }
}

/// An audit row in `FAILED`, as a dead letter, whole.
#[must_use]
pub fn dead_letter_detail(row: EventDetail) -> DeadLetterDetail {
    DeadLetterDetail {
        letter: dead_letter(&row.summary, &row.transitions),
        header: header(&row.summary),
        history: failures(&row.transitions),
        payload: row.body.unwrap_or_default(),
    }
}

/// The header of the envelope in which an event came, if it came in one.
fn header(row: &EventSummary) -> Option<Header> {
    let EventMetadata { form, capture, redacted, .. } = row.metadata.clone();
    let (event_type, session_id) = (Some(row.event_type.clone()), row.session_id.clone());
    let header = capture?.into_header(row.request_id.clone(), event_type, session_id);
    Some(Header { form, redacted, ..header })
}

/// One failure of a group for each of its callers, all of whom may try again.
fn share(error: StoreError) -> impl Fn() -> StoreError {
    let (what, source): (String, Arc<dyn std::error::Error + Send + Sync>) = match error {
        StoreError::Unavailable { what, source } => (what, source.into()),
        other => ("record events".to_owned(), Arc::new(other)),
    };
    move || StoreError::Unavailable {
        what: what.clone(),
        source: Box::new(Shared(Arc::clone(&source))) as BoxError,
    }
}

/// An error that several owners have.
#[derive(Debug)]
struct Shared(Arc<dyn std::error::Error + Send + Sync>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}
