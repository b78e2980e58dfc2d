//! Applying changes: load what is there, merge in memory, write back what differs.
//!
//! Changes of a whole transaction are merged with each other first, so a value is loaded and written
//! once however many events touch it. What is there is locked while it is merged; what is not is added,
//! and where another server has added it meanwhile the whole transaction is tried again.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use arrakis_core::clock::Timestamp;
use arrakis_core::conversation::{Changes, Conversation, Message, ToolUse};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::error::Trouble;
use crate::row::{
    ConversationRow, MessageRow, ToolUseRow, insert_conversations, insert_messages,
    insert_tool_uses, update_conversations, update_messages, update_tool_uses,
};
use crate::schema::{conversations, messages, tool_uses};
use crate::statement::Statement;

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

    /// Joins everything to what is stored; returns the messages that were written.
    pub(crate) async fn write(
        self,
        conn: &mut AsyncPgConnection,
        now: Timestamp,
    ) -> Result<Vec<Uuid>, Trouble> {
        self.write_conversations(conn, now).await?;
        let written = self.write_messages(conn).await?;
        self.write_tool_uses(conn).await?;
        Ok(written)
    }

    async fn write_conversations(
        &self,
        conn: &mut AsyncPgConnection,
        now: Timestamp,
    ) -> Result<(), Trouble> {
        if self.conversations.is_empty() {
            return Ok(());
        }
        let stored = conversations::table
            .filter(
                conversations::id.eq_any(self.conversations.keys().copied().collect::<Vec<_>>()),
            )
            .order(conversations::id.asc())
            .for_update()
            .select(ConversationRow::as_select())
            .load(conn)
            .await?;
        let values = stored.into_iter().map(|row| Ok((row.id, row.into_value()?)));
        let mut stored: HashMap<Uuid, Conversation> = values.collect::<QueryResult<_>>()?;
        let (mut new, mut changed) = (Vec::new(), Vec::new());
        for (id, came) in &self.conversations {
            match stored.remove(id) {
                None => new.push(&**came),
                Some(is) => changed.extend(joined(is, came, Conversation::merge)),
            }
        }
        let changed: Vec<&Conversation> = changed.iter().collect();
        if !new.is_empty() {
            add(conn, insert_conversations(&new, now)?, new.len()).await?;
        }
        if !changed.is_empty() {
            update_conversations(&changed, now)?.execute(conn).await?;
        }
        Ok(())
    }

    async fn write_messages(&self, conn: &mut AsyncPgConnection) -> Result<Vec<Uuid>, Trouble> {
        if self.messages.is_empty() {
            return Ok(Vec::new());
        }
        let stored = messages::table
            .filter(messages::id.eq_any(self.messages.keys().copied().collect::<Vec<_>>()))
            .order(messages::id.asc())
            .for_update()
            .select(MessageRow::as_select())
            .load(conn)
            .await?;
        let values = stored.into_iter().map(MessageRow::into_value);
        let values = values.map(|value| value.map(|value| (value.id, value)));
        let mut stored: HashMap<Uuid, Message> = values.collect::<QueryResult<_>>()?;
        let (mut new, mut changed) = (Vec::new(), Vec::new());
        for (id, (workspace, came)) in &self.messages {
            match stored.remove(id) {
                None => new.push((*workspace, &**came)),
                Some(is) => {
                    changed.extend(joined(is, came, Message::merge).map(|one| (*workspace, one)));
                }
            }
        }
        let changed: Vec<(&str, &Message)> =
            changed.iter().map(|(name, one)| (*name, one)).collect();
        if !new.is_empty() {
            add(conn, insert_messages(&new)?, new.len()).await?;
        }
        if !changed.is_empty() {
            update_messages(&changed)?.execute(conn).await?;
        }
        Ok(new.iter().chain(&changed).map(|(_, message)| message.id).collect())
    }

    async fn write_tool_uses(&self, conn: &mut AsyncPgConnection) -> Result<(), Trouble> {
        if self.tool_uses.is_empty() {
            return Ok(());
        }
        let stored = tool_uses::table
            .filter(tool_uses::id.eq_any(self.tool_uses.keys().copied().collect::<Vec<_>>()))
            .order(tool_uses::id.asc())
            .for_update()
            .select(ToolUseRow::as_select())
            .load(conn)
            .await?;
        let values = stored.into_iter().map(ToolUseRow::into_value);
        let values = values.map(|value| value.map(|value| (value.id, value)));
        let mut stored: HashMap<Uuid, ToolUse> = values.collect::<QueryResult<_>>()?;
        let (mut new, mut changed) = (Vec::new(), Vec::new());
        for (id, (workspace, came)) in &self.tool_uses {
            match stored.remove(id) {
                None => new.push((*workspace, &**came)),
                Some(is) => {
                    changed.extend(joined(is, came, ToolUse::merge).map(|one| (*workspace, one)));
                }
            }
        }
        let changed: Vec<(&str, &ToolUse)> =
            changed.iter().map(|(name, one)| (*name, one)).collect();
        if !new.is_empty() {
            add(conn, insert_tool_uses(&new)?, new.len()).await?;
        }
        if !changed.is_empty() {
            update_tool_uses(&changed)?.execute(conn).await?;
        }
        Ok(())
    }
}

/// Adds rows that were not there a moment ago.
async fn add(
    conn: &mut AsyncPgConnection,
    statement: Statement<'_, diesel::sql_types::Uuid>,
    count: usize,
) -> Result<(), Trouble> {
    let added: Vec<Uuid> = statement.load(conn).await?;
    if added.len() == count { Ok(()) } else { Err(Trouble::Raced) }
}

/// What is to be written: nothing where what is stored says it all already.
fn joined<T: Clone + PartialEq>(stored: T, came: &T, merge: impl FnOnce(&mut T, T)) -> Option<T> {
    let mut value = stored.clone();
    merge(&mut value, came.clone());
    (value != stored).then_some(value)
}
