//! Subagents: threads of a conversation beside the main one.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::base::clock::Timestamp;

/// What the ids begin with that subagents are given here: clients before 2.1 have given none to those whose lines stand
/// in the transcript of the session itself.
#[cfg(feature = "runtime")]
pub(crate) const SIDECHAIN: &str = "sidechain";

/// A subagent of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subagent {
    /// Derived from the conversation and `agent_id`.
    pub id: Uuid,
    /// The conversation.
    pub conversation_id: Uuid,
    /// Claude Code's id of it, which its messages and tool uses carry.
    pub agent_id: String,
    /// Its type, such as `general-purpose`.
    pub agent_type: Option<String>,
    /// Claude Code's id of the tool use that started it.
    pub tool_use_id: Option<String>,
    /// When the earliest event or line about it was captured or written.
    pub started_at: Timestamp,
    /// When the latest event or line about it was captured or written.
    pub last_event_at: Timestamp,
    /// When it stopped: its latest `SubagentStop`.
    pub stopped_at: Option<Timestamp>,
}

impl Subagent {
    /// A subagent of which nothing is known but that something at `at` is about it.
    #[must_use]
    pub fn new(conversation_id: Uuid, agent_id: &str, at: Timestamp) -> Self {
        let subagent = Self {
            id: Uuid::nil(),
            conversation_id,
            agent_id: agent_id.to_owned(),
            agent_type: None,
            tool_use_id: None,
            started_at: at,
            last_event_at: at,
            stopped_at: None,
        };
        subagent.taken_into(conversation_id)
    }

    /// The same subagent in this conversation: its names are limited, and its id is derived again.
    pub(crate) fn taken_into(mut self, conversation_id: Uuid) -> Self {
        self.limit();
        let id = crate::base::id::subagent_id(conversation_id, &self.agent_id);
        Self { id, conversation_id, ..self }
    }

    /// Joins what `other` knows of the same subagent into this.
    pub fn merge(&mut self, other: Self) {
        if other.conversation_id != self.conversation_id {
            return; // an id belongs to one conversation: this one was made up
        }
        self.agent_type = self.agent_type.take().max(other.agent_type);
        self.tool_use_id = self.tool_use_id.take().max(other.tool_use_id);
        self.started_at = self.started_at.min(other.started_at);
        self.last_event_at = self.last_event_at.max(other.last_event_at);
        self.stopped_at = self.stopped_at.max(other.stopped_at);
    }
}
