//! Snapshots: the values themselves, which merge with what there is.

use serde::Deserialize;

use super::{Input, ProjectionError, not_an_object, session};
use crate::base::id::conversation_id;
use crate::base::limits::{INDEXED_TEXT_MAX_BYTES, cut};
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
    let Snapshot { conversation, messages, mut tool_uses, subagents } =
        serde_json::from_slice(input.body).map_err(not_an_object)?;
    // Whatever it says, it must be what an event could have said.
    let messages: Vec<_> = messages.into_iter().map(Message::made_consistent).collect();
    for tool_use in &mut tool_uses {
        tool_use.tool_name = cut(&tool_use.tool_name, INDEXED_TEXT_MAX_BYTES).to_owned();
    }
    let id = conversation_id(input.workspace, session_id);
    let is_own = conversation.id == id
        && conversation.workspace == input.workspace
        && conversation.session_id == session_id
        && messages.iter().all(|one| one.conversation_id == id)
        && tool_uses.iter().all(|one| one.conversation_id == id)
        && subagents.iter().all(|one| one.conversation_id == id);
    if !is_own {
        return Err(ProjectionError::invalid(
            "other_conversation",
            "the snapshot has values of another conversation or workspace; \
             it can be taken in only by the workspace that it is of",
        ));
    }
    let mut changes = Changes {
        answer: AnswerIds { conversation_id: Some(id), ..AnswerIds::default() },
        ..Changes::default()
    };
    let conversations = vec![conversation];
    // Each value stands there once, whatever came.
    changes.absorb(Changes { conversations, messages, tool_uses, subagents, ..Changes::default() });
    Ok(changes)
}
