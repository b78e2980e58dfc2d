//! Applying changes: load what is there, merge in memory, write back what differs.
//!
//! Changes of a whole transaction are merged with each other first, so a value is loaded and written
//! once however many events touch it. Each statement is one of a fixed few, prepared once and kept.

use std::borrow::Cow;
use std::collections::BTreeMap;

use arrakis_core::conversation::{Changes, Conversation, Message, ToolUse};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::upsert::excluded;
use uuid::Uuid;

use crate::row::{ConversationRow, MessageRow, Now, ToolUseRow};
use crate::schema::{conversations, messages, tool_uses};

/// The changes of several events, merged. Values are borrowed from the events and copied only where
/// two have to be joined.
#[derive(Debug, Default)]
pub(crate) struct Merged<'a> {
    conversations: BTreeMap<Uuid, Cow<'a, Conversation>>,
    messages: BTreeMap<Uuid, (&'a str, Cow<'a, Message>)>,
    tool_uses: BTreeMap<Uuid, (&'a str, Cow<'a, ToolUse>)>,
}

impl<'a> Merged<'a> {
    /// Joins the changes of one event of `workspace` to the others'.
    pub(crate) fn add(&mut self, workspace: &'a str, changes: &'a Changes) {
        for value in &changes.conversations {
            self.conversations
                .entry(value.id)
                .and_modify(|mine| mine.to_mut().merge(value.clone()))
                .or_insert(Cow::Borrowed(value));
        }
        for value in &changes.messages {
            self.messages
                .entry(value.id)
                .and_modify(|(_, mine)| mine.to_mut().merge(value.clone()))
                .or_insert((workspace, Cow::Borrowed(value)));
        }
        for value in &changes.tool_uses {
            self.tool_uses
                .entry(value.id)
                .and_modify(|(_, mine)| mine.to_mut().merge(value.clone()))
                .or_insert((workspace, Cow::Borrowed(value)));
        }
    }

    /// Joins everything to what is stored.
    pub(crate) fn write(self, conn: &mut SqliteConnection, now: &Now) -> QueryResult<()> {
        for value in self.conversations.into_values() {
            let stored = load_conversation(conn, value.id)?;
            if let Some(value) = joined(stored, value, Conversation::merge) {
                put_conversation(conn, &ConversationRow::new(&value, now)?)?;
            }
        }
        for (workspace, value) in self.messages.into_values() {
            let stored = load_message(conn, value.id)?;
            if let Some(value) = joined(stored, value, Message::merge) {
                put_message(conn, &MessageRow::new(&value, workspace)?)?;
            }
        }
        for (workspace, value) in self.tool_uses.into_values() {
            let stored = load_tool_use(conn, value.id)?;
            if let Some(value) = joined(stored, value, ToolUse::merge) {
                put_tool_use(conn, &ToolUseRow::new(&value, workspace)?)?;
            }
        }
        Ok(())
    }
}

/// What is to be written: nothing where what is stored says it all already.
fn joined<'a, T: Clone + PartialEq>(
    stored: Option<T>,
    came: Cow<'a, T>,
    merge: impl FnOnce(&mut T, T),
) -> Option<Cow<'a, T>> {
    let Some(stored) = stored else { return Some(came) };
    let mut value = stored.clone();
    merge(&mut value, came.into_owned());
    (value != stored).then_some(Cow::Owned(value))
}

fn load_conversation(conn: &mut SqliteConnection, id: Uuid) -> QueryResult<Option<Conversation>> {
    conversations::table
        .find(id.to_string())
        .select(ConversationRow::as_select())
        .first(conn)
        .optional()?
        .map(ConversationRow::into_value)
        .transpose()
}

fn load_message(conn: &mut SqliteConnection, id: Uuid) -> QueryResult<Option<Message>> {
    messages::table
        .find(id.to_string())
        .select(MessageRow::as_select())
        .first(conn)
        .optional()?
        .map(MessageRow::into_value)
        .transpose()
}

fn load_tool_use(conn: &mut SqliteConnection, id: Uuid) -> QueryResult<Option<ToolUse>> {
    tool_uses::table
        .find(id.to_string())
        .select(ToolUseRow::as_select())
        .first(conn)
        .optional()?
        .map(ToolUseRow::into_value)
        .transpose()
}

fn put_conversation(conn: &mut SqliteConnection, row: &ConversationRow<'_>) -> QueryResult<()> {
    use conversations::{
        ended_at, id, last_event_at, metadata, project_path, started_at, title, updated_at,
    };
    diesel::insert_into(conversations::table)
        .values(row)
        .on_conflict(id)
        .do_update()
        .set((
            project_path.eq(excluded(project_path)),
            title.eq(excluded(title)),
            started_at.eq(excluded(started_at)),
            ended_at.eq(excluded(ended_at)),
            last_event_at.eq(excluded(last_event_at)),
            metadata.eq(excluded(metadata)),
            updated_at.eq(excluded(updated_at)),
        ))
        .execute(conn)?;
    Ok(())
}

fn put_message(conn: &mut SqliteConnection, row: &MessageRow<'_>) -> QueryResult<()> {
    use messages::{content, id, metadata, role, timestamp};
    diesel::insert_into(messages::table)
        .values(row)
        .on_conflict(id)
        .do_update()
        .set((
            role.eq(excluded(role)),
            content.eq(excluded(content)),
            timestamp.eq(excluded(timestamp)),
            metadata.eq(excluded(metadata)),
        ))
        .execute(conn)?;
    Ok(())
}

fn put_tool_use(conn: &mut SqliteConnection, row: &ToolUseRow<'_>) -> QueryResult<()> {
    use tool_uses::{
        duration, id, message_id, metadata, parameters, response, status, timestamp, tool_name,
    };
    diesel::insert_into(tool_uses::table)
        .values(row)
        .on_conflict(id)
        .do_update()
        .set((
            message_id.eq(excluded(message_id)),
            tool_name.eq(excluded(tool_name)),
            parameters.eq(excluded(parameters)),
            response.eq(excluded(response)),
            duration.eq(excluded(duration)),
            status.eq(excluded(status)),
            timestamp.eq(excluded(timestamp)),
            metadata.eq(excluded(metadata)),
        ))
        .execute(conn)?;
    Ok(())
}
