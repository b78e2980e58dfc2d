//! From one event to what it changes.
//!
//! Pure: no clock, no randomness, no database. What an event changes depends on nothing but itself,
//! and its changes merge with those of other events in any order.
//!
//! | event | what it changes, beside touching its conversation |
//! |---|---|
//! | `SessionStart` | the conversation is alive; its model |
//! | `UserPromptSubmit` | a user message; the first one gives the title |
//! | `PreToolUse` | a tool use, running |
//! | `PostToolUse`, `PostToolUseFailure`, `PermissionDenied` | its result |
//! | `PostToolBatch` | a result for every tool use of the batch, worth less than its own |
//! | `Stop`, `SubagentStop` | an assistant message, provisional |
//! | `StopFailure` | a system message with the error |
//! | `SessionEnd` | the end, and its reason |
//! | all others | nothing: they are on the timeline |

mod hook;
mod original;

use serde_json::Value;

use crate::clock::Timestamp;
use crate::conversation::{
    AnswerIds, Changes, Conversation, Message, MessageOrigin, Role, Stamp, Stamped,
};
use crate::id::{conversation_id, message_id};
use crate::ingest::Form;
use crate::limits::{INDEXED_TEXT_MAX_BYTES, cut};
use crate::store::Arrival;

/// Why an event cannot be projected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectionError {
    /// The event is not what it should be, and never will be.
    #[error("{message}")]
    Invalid {
        /// A stable word.
        code: &'static str,
        /// A sentence for people.
        message: String,
    },
    /// The event could not be understood by this version.
    #[error("{message}")]
    Failed {
        /// A stable word.
        code: &'static str,
        /// A sentence for people.
        message: String,
    },
}

impl ProjectionError {
    fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid { code, message: message.into() }
    }
}

/// What the event of `arrival` changes.
///
/// # Errors
///
/// The event is invalid, or cannot be understood.
pub fn project(arrival: &Arrival) -> Result<Changes, ProjectionError> {
    match form(arrival) {
        Form::Envelope => hook::project(arrival, false),
        Form::Raw => hook::project(arrival, true),
        Form::Original => original::project(arrival),
    }
}

fn form(arrival: &Arrival) -> Form {
    let form = arrival.metadata.get("form").cloned().unwrap_or(Value::Null);
    serde_json::from_value(form).unwrap_or(Form::Envelope)
}

/// Reads a body as `T`, with an error that says what is wrong with it.
fn parse<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, ProjectionError> {
    serde_json::from_slice(body).map_err(|error| {
        // The deserializer's own limit is about this version, not about the event.
        if error.to_string().starts_with("recursion limit") {
            return ProjectionError::Failed {
                code: "too_deep",
                message: "the payload nests deeper than 128 levels".to_owned(),
            };
        }
        match error.classify() {
            serde_json::error::Category::Data => ProjectionError::invalid(
                "not_an_object",
                format!("the payload is not a JSON object of the expected form: {error}"),
            ),
            _ => ProjectionError::invalid("not_json", format!("the payload is not JSON: {error}")),
        }
    })
}

/// The session that an event must name, unless it came in an envelope: then it may have none, and
/// belongs to no conversation.
fn session(arrival: &Arrival, required: bool) -> Result<Option<&str>, ProjectionError> {
    let session = arrival.session_id.as_deref().filter(|id| !id.is_empty());
    if session.is_none() && required {
        return Err(ProjectionError::invalid(
            "missing_session",
            "the payload names no session, or one with an id over 512 bytes",
        ));
    }
    Ok(session)
}

/// Collects the changes of one event.
struct Projector<'a> {
    stamp: Stamp,
    conversation: Conversation,
    agent_id: Option<&'a str>,
    prompt_id: Option<&'a str>,
    changes: Changes,
}

impl<'a> Projector<'a> {
    fn new(arrival: &Arrival, session_id: &str, at: Option<Timestamp>) -> Self {
        let captured_at = arrival.metadata.get("capturedAt").and_then(Value::as_str);
        let captured_at = captured_at.and_then(|text| text.parse().ok());
        let at = at.or(captured_at).unwrap_or(arrival.received_at);
        let stamp = Stamp { at, request_id: arrival.request_id.clone() };
        let conversation = Conversation::new(&arrival.workspace, session_id, &stamp);
        debug_assert_eq!(conversation.id, conversation_id(&arrival.workspace, session_id));
        Self { stamp, conversation, agent_id: None, prompt_id: None, changes: Changes::default() }
    }

    fn in_thread(mut self, agent_id: Option<&'a str>, prompt_id: Option<&'a str>) -> Self {
        (self.agent_id, self.prompt_id) = (agent_id, prompt_id);
        self
    }

    fn stamped<T>(&self, value: T) -> Stamped<T> {
        Stamped::new(&self.stamp, value)
    }

    /// A prompt: a user message, a sign of life, and the title if it is the first.
    fn prompt(&mut self, text: &str) {
        self.conversation.alive = Some(self.stamp.clone());
        let first_line = text.trim().lines().next().unwrap_or_default();
        if !first_line.is_empty() {
            let title = cut(first_line, INDEXED_TEXT_MAX_BYTES).to_owned();
            self.conversation.title = Some(self.stamped(title));
        }
        match self.prompt_id {
            Some(id) => self.message("prompt", id, Role::User, MessageOrigin::Prompt, text),
            None => self.message_of_this_event(Role::User, MessageOrigin::Prompt, text),
        }
    }

    /// A message that no id names but the event's own.
    fn message_of_this_event(&mut self, role: Role, origin: MessageOrigin, text: &str) {
        let key = self.stamp.request_id.as_str().to_owned();
        self.message("request", &key, role, origin, text);
    }

    fn message(&mut self, kind: &str, key: &str, role: Role, origin: MessageOrigin, text: &str) {
        let id = message_id(self.conversation.id, kind, key);
        self.changes.answer.message_id = Some(id);
        self.changes.messages.push(Message {
            id,
            conversation_id: self.conversation.id,
            role,
            origin,
            content: self.stamped(text.to_owned()),
            agent_id: self.agent_id.map(str::to_owned),
            prompt_id: self.prompt_id.map(str::to_owned),
        });
    }

    fn finish(self) -> Changes {
        let answer =
            AnswerIds { conversation_id: Some(self.conversation.id), ..self.changes.answer };
        Changes { conversations: vec![self.conversation], answer, ..self.changes }
    }
}
