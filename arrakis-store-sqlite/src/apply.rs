//! Applying changes: load what is there, merge in memory, write back what differs.
//!
//! Changes of a whole transaction are merged with each other first, so a value is loaded and written
//! once however many events touch it.
//!
//! Each statement is one of a fixed few, prepared once and kept. That is why rows are replaced whole
//! (Diesel prepares an `UPDATE` or an upsert anew each time), and why a row is found without a
//! `LIMIT` (SQLite prepares a statement anew when a bound one is bound again).

use std::borrow::Cow;
use std::collections::BTreeMap;

use arrakis_core::conversation::{Changes, Conversation, Message, ToolUse};
use diesel::prelude::*;
use diesel::result::QueryResult;
use uuid::Uuid;

use crate::row::{ConversationRow, Kept, MessageRow, Now, ToolUseRow};
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

    /// Joins everything to what is stored; returns the ids of the messages that were written.
    pub(crate) fn write(self, conn: &mut SqliteConnection, now: &Now) -> QueryResult<Vec<String>> {
        let mut written = Vec::new();
        for value in self.conversations.into_values() {
            let (stored, kept) = load_conversation(conn, value.id)?.unzip();
            if let Some(value) = joined(stored, value, Conversation::merge) {
                let row = ConversationRow::new(&value, kept, now)?;
                diesel::replace_into(conversations::table).values(&row).execute(conn)?;
            }
        }
        for (workspace, value) in self.messages.into_values() {
            let stored = load_message(conn, value.id)?;
            if let Some(value) = joined(stored, value, Message::merge) {
                let row = MessageRow::new(&value, workspace)?;
                diesel::replace_into(messages::table).values(&row).execute(conn)?;
                written.push(row.id);
            }
        }
        for (workspace, value) in self.tool_uses.into_values() {
            let stored = load_tool_use(conn, value.id)?;
            if let Some(value) = joined(stored, value, ToolUse::merge) {
                let row = ToolUseRow::new(&value, workspace)?;
                diesel::replace_into(tool_uses::table).values(&row).execute(conn)?;
            }
        }
        Ok(written)
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

fn load_conversation(
    conn: &mut SqliteConnection,
    id: Uuid,
) -> QueryResult<Option<(Conversation, Kept)>> {
    conversations::table
        .find(id.to_string())
        .select(ConversationRow::as_select())
        .get_result(conn)
        .optional()?
        .map(ConversationRow::into_parts)
        .transpose()
}

fn load_message(conn: &mut SqliteConnection, id: Uuid) -> QueryResult<Option<Message>> {
    messages::table
        .find(id.to_string())
        .select(MessageRow::as_select())
        .get_result(conn)
        .optional()?
        .map(MessageRow::into_value)
        .transpose()
}

fn load_tool_use(conn: &mut SqliteConnection, id: Uuid) -> QueryResult<Option<ToolUse>> {
    tool_uses::table
        .find(id.to_string())
        .select(ToolUseRow::as_select())
        .get_result(conn)
        .optional()?
        .map(ToolUseRow::into_value)
        .transpose()
}
