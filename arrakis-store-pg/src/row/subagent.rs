//! Rows of `subagents`.

use arrakis_core::session::conversation::Subagent;
use diesel::prelude::*;
use diesel::sql_types::{Array, Nullable, Text, Timestamptz};
use uuid::Uuid;

use super::value::{At, shown};
use crate::schema::subagents;
use crate::statement::Statement;

/// A row of `subagents`.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = subagents)]
pub(crate) struct SubagentRow {
    id: Uuid,
    conversation_id: Uuid,
    agent_id: String,
    agent_type: Option<String>,
    tool_use_id: Option<String>,
    started_at: At,
    last_event_at: At,
    stopped_at: Option<At>,
}

impl SubagentRow {
    /// The value that was written.
    pub(crate) fn into_value(self) -> Subagent {
        Subagent {
            id: self.id,
            conversation_id: self.conversation_id,
            agent_id: self.agent_id,
            agent_type: self.agent_type,
            tool_use_id: self.tool_use_id,
            started_at: self.started_at.0,
            last_event_at: self.last_event_at.0,
            stopped_at: self.stopped_at.map(|at| at.0),
        }
    }
}

/// Adds subagents, each in its workspace; the ids of those that were not there are returned.
pub(crate) fn insert_subagents<'a>(
    values: &[(&'a str, &'a Subagent)],
) -> Statement<'a, diesel::sql_types::Uuid> {
    const SQL: &str = "INSERT INTO subagents (id, workspace, conversation_id, agent_id, agent_type, \
        tool_use_id, started_at, last_event_at, stopped_at) \
        SELECT * FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?) ORDER BY 1 \
        ON CONFLICT DO NOTHING RETURNING id";
    subagent_columns(Statement::new(SQL), values)
}

/// Writes subagents that are there.
pub(crate) fn update_subagents<'a>(values: &[(&'a str, &'a Subagent)]) -> Statement<'a> {
    const SQL: &str = "UPDATE subagents AS s SET agent_type = v.agent_type, \
        tool_use_id = v.tool_use_id, started_at = v.started_at, last_event_at = v.last_event_at, \
        stopped_at = v.stopped_at FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?) AS v (id, workspace, \
        conversation_id, agent_id, agent_type, tool_use_id, started_at, last_event_at, stopped_at) \
        WHERE s.id = v.id";
    subagent_columns(Statement::new(SQL), values)
}

fn subagent_columns<'a, ST>(
    statement: Statement<'a, ST>,
    values: &[(&'a str, &'a Subagent)],
) -> Statement<'a, ST> {
    let all = || values.iter().map(|(_, value)| *value);
    let texts = |of: fn(&Subagent) -> &Option<String>| {
        all().map(|one| of(one).as_deref()).collect::<Vec<_>>()
    };
    statement
        .bind::<Array<diesel::sql_types::Uuid>>(all().map(|one| one.id).collect::<Vec<_>>())
        .bind::<Array<Text>>(values.iter().map(|(name, _)| shown(name)).collect::<Vec<_>>())
        .bind::<Array<diesel::sql_types::Uuid>>(
            all().map(|one| one.conversation_id).collect::<Vec<_>>(),
        )
        .bind::<Array<Text>>(all().map(|one| one.agent_id.as_str()).collect::<Vec<_>>())
        .bind::<Array<Nullable<Text>>>(texts(|one| &one.agent_type))
        .bind::<Array<Nullable<Text>>>(texts(|one| &one.tool_use_id))
        .bind::<Array<Timestamptz>>(all().map(|one| At(one.started_at)).collect::<Vec<_>>())
        .bind::<Array<Timestamptz>>(all().map(|one| At(one.last_event_at)).collect::<Vec<_>>())
        .bind::<Array<Nullable<Timestamptz>>>(
            all().map(|one| one.stopped_at.map(At)).collect::<Vec<_>>(),
        )
}
