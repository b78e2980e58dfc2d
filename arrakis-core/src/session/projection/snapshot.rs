//! Snapshots: the values themselves, which merge with what there is.
//!
//! No id of a value is believed. All of them are derived again, under the conversation that the event's session is in
//! the event's workspace, from what the values carry for it ([`Message::key`] and its like). So a snapshot can say of
//! its own session what that session's events could say, and nothing of any other.

use serde::Deserialize;

use super::{Input, ProjectionError, not_an_object, session};
use crate::base::id::conversation_id;
use crate::session::conversation::{AnswerIds, Changes, Conversation, Message, Subagent, ToolUse};

#[derive(Deserialize)]
struct Snapshot {
    conversation: Conversation,
    #[serde(default)]
    messages: Vec<Message>,
    #[serde(default)]
    tool_uses: Vec<ToolUse>,
    #[serde(default)]
    subagents: Vec<Subagent>,
}

pub(super) fn project(input: Input<'_>) -> Result<Changes, ProjectionError> {
    let Some(session_id) = session(input, true)? else { return Ok(Changes::default()) };
    let Snapshot { conversation, messages, tool_uses, subagents } =
        serde_json::from_slice(input.body).map_err(not_an_object)?;
    let id = conversation_id(input.workspace, session_id);
    let conversation = Conversation {
        id,
        workspace: input.workspace.to_owned(),
        session_id: session_id.to_owned(),
        ..conversation
    };
    let mut changes = Changes {
        answer: AnswerIds { conversation_id: Some(id), ..AnswerIds::default() },
        ..Changes::default()
    };
    // Each value stands there once, whatever came.
    changes.absorb(Changes {
        conversations: vec![conversation],
        messages: messages.into_iter().map(|one| one.taken_into(id)).collect(),
        tool_uses: tool_uses.into_iter().map(|one| one.taken_into(id)).collect(),
        subagents: subagents.into_iter().map(|one| one.taken_into(id)).collect(),
        ..Changes::default()
    });
    Ok(changes)
}
