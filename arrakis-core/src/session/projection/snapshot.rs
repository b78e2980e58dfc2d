//! Snapshots: the values themselves, which merge with what there is.
//!
//! No id of a value is believed. All of them are derived again, under the conversation that the event's session is in
//! the event's workspace, from what the values carry for it ([`Message::key`] and its like). So a snapshot can say of
//! its own session what that session's events could say, and nothing of any other.

use serde::Deserialize;

use super::{Input, ProjectionError, name, not_an_object, session};
use crate::base::id::conversation_id;
use crate::base::limits::{INDEXED_TEXT_MAX_BYTES, cut};
use crate::session::conversation::{
    AnswerIds, Changes, Conversation, Message, MessageKey, Subagent, ToolUse,
};

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
        messages: messages.into_iter().map(|one| limited(one).taken_into(id)).collect(),
        tool_uses: tool_uses.into_iter().map(|one| limited_tool_use(one).taken_into(id)).collect(),
        subagents: subagents.into_iter().map(|one| limited_subagent(one).taken_into(id)).collect(),
        ..Changes::default()
    });
    Ok(changes)
}

/// The message with names that an event could have given: an id is derived from some of them, and not every column
/// holds every text.
fn limited(message: Message) -> Message {
    Message {
        api_id: limited_name(message.api_id),
        model: limited_name(message.model),
        agent_id: limited_name(message.agent_id),
        ..message
    }
}

fn limited_tool_use(tool_use: ToolUse) -> ToolUse {
    ToolUse {
        message_key: tool_use.message_key.map(|key| match key {
            MessageKey::Api(id) => MessageKey::Api(name(&id)),
            stamp @ MessageKey::Stamp(_) => stamp,
        }),
        tool_name: cut(&tool_use.tool_name, INDEXED_TEXT_MAX_BYTES).to_owned(),
        agent_id: limited_name(tool_use.agent_id),
        ..tool_use
    }
}

fn limited_subagent(subagent: Subagent) -> Subagent {
    Subagent {
        agent_id: name(&subagent.agent_id),
        agent_type: limited_name(subagent.agent_type),
        tool_use_id: limited_name(subagent.tool_use_id),
        ..subagent
    }
}

fn limited_name(given: Option<String>) -> Option<String> {
    given.map(|given| name(&given))
}
