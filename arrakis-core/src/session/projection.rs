//! From one event to what it changes.
//!
//! Pure: no clock, no randomness, no database. What an event changes depends on nothing but itself,
//! and its changes merge with those of other events in any order.
//!
//! | event | what it changes, beside touching its conversation |
//! |---|---|
//! | `SessionStart` | the conversation is alive; its model; the title that the person has given it |
//! | `PostModelSwitch` | the model |
//! | `UserPromptSubmit` | a message of the person, or of the client (`speaker.rs`), provisional; the person's first one that is no command gives the title |
//! | `PreToolUse` | a tool use, running |
//! | `PostToolUse`, `PostToolUseFailure`, `PermissionDenied` | its result |
//! | `PostToolBatch` | a result for every tool use of the batch, worth less than its own |
//! | `Stop`, `SubagentStop` | an assistant message, provisional |
//! | `StopFailure` | a system message with the error, provisional |
//! | `SubagentStart`, `SubagentStop` | a subagent |
//! | `SessionEnd` | the end, and its reason |
//! | `Transcript` | what its lines say, see below |
//! | `Snapshot` | what its values say, and nothing by itself |
//! | all others | nothing: they are on the timeline |
//!
//! What a line of a transcript is, is decided by lists (`transcript/line_type.rs`). A line of the conversation has
//! an id and a time; one that has not changes nothing, and neither does a type that is not known.
//!
//! | line of a transcript | what it changes, beside touching its conversation |
//! |---|---|
//! | `assistant` | blocks and usage of the message with the API's id; a tool use for each call |
//! | `user` with a prompt | a user message; the person's first one in the main thread that is no command gives the title |
//! | `user` with results | the results of tool uses, worth more than a batch's and less than their own; a user message of what the person said to a question or a rejection |
//! | `user` that the client wrote, `system`, an API error | a system message, of its fields where it has no words |
//! | `attachment` with a `queued_command` | a user message that has waited in the queue, or a system message |
//! | `queue-operation`: `enqueue` | a user message that waits in the queue, provisional |
//! | `queue-operation`: `popAll` | a user message that was withdrawn: nobody is shown it |
//! | `custom-title`, `ai-title`, `summary` | the title: the person's own outweighs the client's, and that the first prompt |
//! | `cost-state` | what the client says that the session costs |
//! | all others | nothing, and they do not touch it |
//!
//! A prompt that several of these tell of is several messages; which of them are shown is decided when they are
//! read (`conversation/prompts.rs`).

mod hook;
mod original;
mod snapshot;
mod speaker;
mod transcript;

use crate::base::clock::Timestamp;
use crate::base::envelope::Form;
use crate::base::id::{RequestId, conversation_id};
use crate::base::limits::{INDEXED_TEXT_MAX_BYTES, cut};
use crate::session::conversation::{
    Blocks, Changes, Conversation, Message, MessageOrigin, Role, Stamp, Stamped, Title,
    TitleSource, name,
};
use crate::session::hook::summary;
use crate::session::snapshot::SNAPSHOT_EVENT;
use crate::session::transcript::TRANSCRIPT_EVENT;

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

/// What projection reads of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input<'a> {
    /// The form of the body.
    pub form: Form,
    /// The workspace that the event belongs to.
    pub workspace: &'a str,
    /// Names the event.
    pub request_id: &'a RequestId,
    /// The event type.
    pub event_type: &'a str,
    /// The session, where it is known.
    pub session_id: Option<&'a str>,
    /// When the event was captured; when it was received, where that is not known.
    pub at: Timestamp,
    /// The host that captured the event, where it is known.
    pub host: Option<&'a str>,
    /// The event itself.
    pub body: &'a [u8],
}

/// What an event changes, and what it says in one line ([`summary`]).
///
/// # Errors
///
/// The event is invalid, or cannot be understood.
pub fn project(input: Input<'_>) -> Result<(Changes, String), ProjectionError> {
    let (mut changes, summary) = read(input)?;
    for conversation in changes.conversations.iter_mut().filter(|one| one.host.is_none()) {
        conversation.host = input.host.map(str::to_owned);
    }
    changes.limit();
    Ok((changes, summary))
}

/// The changes of an event, and its summary.
fn read(input: Input<'_>) -> Result<(Changes, String), ProjectionError> {
    match input.form {
        Form::Envelope | Form::Raw if input.event_type == TRANSCRIPT_EVENT => {
            let summary = summary(TRANSCRIPT_EVENT, input.body);
            Ok((transcript::project(input)?, summary))
        }
        Form::Envelope if input.event_type == SNAPSHOT_EVENT => {
            Ok((snapshot::project(input)?, String::new()))
        }
        Form::Envelope => hook::project(input, false),
        Form::Raw => hook::project(input, true),
        Form::Original => Ok((original::project(input)?, String::new())),
    }
}

/// Why a body cannot be read.
fn not_an_object(error: serde_json::Error) -> ProjectionError {
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
}

fn missing_event(field: &str) -> ProjectionError {
    let message = format!("the payload has no {field}, or one that is not text");
    ProjectionError::invalid("missing_event", message)
}

/// The session that an event must name, unless it came in an envelope: then it may have none, and
/// belongs to no conversation.
fn session(input: Input<'_>, required: bool) -> Result<Option<&str>, ProjectionError> {
    let session = input.session_id.filter(|id| !id.is_empty());
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
    /// The changes of `input`, which happened at `at` where its body says so.
    fn new(input: Input<'_>, session_id: &str, at: Option<Timestamp>) -> Self {
        let at = at.unwrap_or(input.at);
        let stamp = Stamp { at, request_id: input.request_id.clone() };
        let conversation = Conversation::new(input.workspace, session_id, &stamp);
        debug_assert_eq!(conversation.id, conversation_id(input.workspace, session_id));
        Self { stamp, conversation, agent_id: None, prompt_id: None, changes: Changes::default() }
    }

    fn in_thread(mut self, agent_id: Option<&'a str>, prompt_id: Option<&'a str>) -> Self {
        (self.agent_id, self.prompt_id) = (agent_id, prompt_id);
        self
    }

    fn stamped<T>(&self, value: T) -> Stamped<T> {
        Stamped::new(&self.stamp, value)
    }

    /// A prompt: a message, a sign of life, and the title if it is the person's first. Two prompts may have one
    /// prompt id, so it does not name the message.
    fn prompt(&mut self, text: &str) {
        self.conversation.alive = Some(self.stamp.clone());
        let parts = speaker::parts(text.into());
        let of =
            |is_client| parts.iter().filter(move |part| part.0 == is_client).map(|part| &*part.1);
        let role = if of(false).next().is_some() { Role::User } else { Role::System };
        let words = of(role == Role::System).collect::<Vec<_>>().join(Blocks::SEPARATOR);
        if role == Role::User {
            self.conversation.title = prompt_title(&words, None, &self.stamp);
        }
        self.message_of_this_event(role, MessageOrigin::Prompt, &words);
    }

    /// The title that the person has given the session.
    fn named(&mut self, text: Option<&str>) {
        if let Some(value) = text.and_then(title) {
            self.conversation.title = Some(Title::new(TitleSource::Hook, &self.stamp, value));
        }
    }

    /// A message that no id names but the event's own.
    fn message_of_this_event(&mut self, role: Role, origin: MessageOrigin, text: &str) {
        let content = self.stamped(text.to_owned());
        let message = Message::new(self.conversation.id, None, role, origin, content);
        self.changes.answer.message_id = Some(message.id);
        self.changes.messages.push(Message {
            agent_id: self.agent_id.map(str::to_owned),
            prompt_id: self.prompt_id.map(str::to_owned),
            ..message
        });
    }

    fn finish(self) -> Changes {
        let mut changes = Changes { answer: self.changes.answer, ..Changes::default() };
        changes.answer.conversation_id = Some(self.conversation.id);
        changes.absorb(self.changes);
        changes.conversations.push(self.conversation);
        changes
    }
}

/// The title that a prompt gives; none where it is a command.
fn prompt_title(prompt: &str, prompt_index: Option<u32>, stamp: &Stamp) -> Option<Title> {
    let value = title(prompt).filter(|_| !speaker::is_command(prompt))?;
    Some(Title { prompt_index, ..Title::new(TitleSource::Prompt, stamp, value) })
}

/// The first line of a text as a title. One that is cut ends with three dots.
fn title(prompt: &str) -> Option<String> {
    const DOTS: &str = "…";
    // The client marks what was pasted by a tag on a line of its own.
    let is_mark =
        |line: &str| line.starts_with("<pasted_content") || line.starts_with("</pasted_content");
    let lines = prompt.lines().map(str::trim);
    let first_line = lines.into_iter().find(|line| !line.is_empty() && !is_mark(line))?;
    if first_line.len() <= INDEXED_TEXT_MAX_BYTES {
        return Some(first_line.to_owned());
    }
    Some([cut(first_line, INDEXED_TEXT_MAX_BYTES - DOTS.len()), DOTS].concat())
}
