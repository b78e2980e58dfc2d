//! Rows of `subagents`.

use std::borrow::Cow;

use arrakis_core::session::conversation::Subagent;
use diesel::prelude::*;
use diesel::result::QueryResult;

use super::{maybe_time, time, uuid};
use crate::schema::subagents;

/// A row of `subagents`.
#[derive(Debug, Queryable, Selectable, Insertable)]
#[diesel(table_name = subagents, treat_none_as_default_value = false)]
pub(crate) struct SubagentRow<'a> {
    id: String,
    workspace: Cow<'a, str>,
    conversation_id: String,
    agent_id: Cow<'a, str>,
    agent_type: Option<Cow<'a, str>>,
    tool_use_id: Option<Cow<'a, str>>,
    started_at: String,
    last_event_at: String,
    stopped_at: Option<String>,
}

impl<'a> SubagentRow<'a> {
    /// The row of `value` in `workspace`.
    pub(crate) fn new(value: &'a Subagent, workspace: &'a str) -> Self {
        Self {
            id: value.id.to_string(),
            workspace: workspace.into(),
            conversation_id: value.conversation_id.to_string(),
            agent_id: value.agent_id.as_str().into(),
            agent_type: value.agent_type.as_deref().map(Cow::Borrowed),
            tool_use_id: value.tool_use_id.as_deref().map(Cow::Borrowed),
            started_at: value.started_at.to_string(),
            last_event_at: value.last_event_at.to_string(),
            stopped_at: value.stopped_at.map(|at| at.to_string()),
        }
    }

    /// The value that was written.
    pub(crate) fn into_value(self) -> QueryResult<Subagent> {
        Ok(Subagent {
            id: uuid("id", &self.id)?,
            conversation_id: uuid("conversation_id", &self.conversation_id)?,
            agent_id: self.agent_id.into_owned(),
            agent_type: self.agent_type.map(Cow::into_owned),
            tool_use_id: self.tool_use_id.map(Cow::into_owned),
            started_at: time("started_at", &self.started_at)?,
            last_event_at: time("last_event_at", &self.last_event_at)?,
            stopped_at: maybe_time("stopped_at", self.stopped_at.as_deref())?,
        })
    }
}
