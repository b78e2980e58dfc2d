//! Applying changes: load what is there, merge in memory, write back what differs.
//!
//! Changes of a whole transaction are merged with each other first, so a value is loaded and written
//! once however many events touch it. What is there is locked while it is merged; what is not is added,
//! and where another server has added a conversation meanwhile the whole transaction is tried again.
//!
//! Statements that do not need each other's results go out together and wait for one answer: on a network
//! a round trip costs more than a statement.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::store::adapter::{Merged, MessageWrite, StoredMessage, joined};
use arrakis_core::session::conversation::{Conversation, Message, Subagent, ToolUse};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::{join3, join4};
use uuid::Uuid;

use crate::error::TxError;
use crate::feed::{self, Touched};
use crate::messages;
use crate::row::{
    ConversationRow, SubagentRow, ToolUseRow, insert_conversations, insert_messages,
    insert_subagents, insert_tool_uses, update_conversations, update_subagents, update_tool_uses,
};
use crate::schema::{conversations, subagents, tool_uses};

/// Changes on their way into the database.
#[derive(Debug, Default)]
pub(crate) struct Applying<'a>(pub(crate) Merged<'a>);

impl<'a> Applying<'a> {
    /// Locks and reads the conversations that are there, and adds the messages, tool uses and subagents
    /// that are not. The statements go out together.
    pub(crate) async fn start(&self, conn: &AsyncPgConnection) -> Result<Started<'a>, TxError> {
        let whole = |(workspace, one): &(&'a str, Cow<'a, Message>)| {
            (*workspace, MessageWrite::whole(one.clone()))
        };
        let whole: Vec<_> = self.0.messages.values().map(whole).collect();
        let (conversations, messages, tool_uses, subagents) = join4(
            self.lock_conversations(conn),
            add_messages(conn, &whole),
            self.add_tool_uses(conn),
            self.add_subagents(conn),
        )
        .await;
        // Statements fail after one that failed; the first error is the one that says why.
        let added = messages?;
        let added_messages = whole.into_iter().map(|(_, one)| one);
        let added_messages = added_messages.filter(|one| added.contains(&one.message.id));
        Ok(Started {
            conversations: conversations?,
            added_messages: added_messages.collect(),
            added_tool_uses: tool_uses?,
            added_subagents: subagents?,
        })
    }

    /// Joins everything else to what is stored, and tells the feed what `touched` and this have written.
    pub(crate) async fn finish(
        &self,
        conn: &AsyncPgConnection,
        started: Started<'a>,
        touched: Touched<'a>,
        now: Timestamp,
    ) -> Result<(), TxError> {
        let Started { conversations, added_messages, added_tool_uses, added_subagents } = started;
        let (messages, tool_uses, subagents) = join3(
            self.lock_messages(conn, &added_messages),
            self.lock_tool_uses(conn, &added_tool_uses),
            self.lock_subagents(conn, &added_subagents),
        )
        .await;
        let (messages, tool_uses, subagents) = (messages?, tool_uses?, subagents?);

        let mut is: HashMap<Uuid, Conversation> = conversations;
        let (mut new, mut changed) = (Vec::new(), Vec::new());
        for (id, came) in &self.0.conversations {
            match is.remove(id) {
                None => new.push(&**came),
                Some(is) => changed.extend(joined(is, (**came).clone(), Conversation::merge)),
            }
        }
        let changed: Vec<&Conversation> = changed.iter().collect();
        let messages = self.join_messages(conn, messages).await?;
        let tool_uses = changes(tool_uses, &self.0.tool_uses, ToolUse::merge);
        let tool_uses: Vec<(&str, &ToolUse)> = tool_uses.iter().map(|(w, one)| (*w, one)).collect();
        let subagents = changes(subagents, &self.0.subagents, Subagent::merge);
        let subagents: Vec<(&str, &Subagent)> =
            subagents.iter().map(|(w, one)| (*w, one)).collect();
        let mut touched = touched;
        let written = messages.iter().map(|(_, one)| one).chain(&added_messages);
        for one in written.clone() {
            if let Some((workspace, _)) = self.0.messages.get(&one.message.id) {
                touched.of(workspace).messages.push(one.message.id);
            }
        }
        let added =
            added_tool_uses.iter().filter_map(|id| Some((self.0.tool_uses.get(id)?.0, *id)));
        for (workspace, id) in added.chain(tool_uses.iter().map(|(name, one)| (*name, one.id))) {
            touched.of(workspace).tool_uses.push(id);
        }

        let conversations = async {
            if !new.is_empty() {
                let added: Vec<Uuid> = insert_conversations(&new, now)?.load(&mut &*conn).await?;
                if added.len() < new.len() {
                    return Err(TxError::Raced);
                }
            }
            if !changed.is_empty() {
                update_conversations(&changed, now)?.execute(&mut &*conn).await?;
            }
            Ok(())
        };
        let rest = async {
            messages::update(conn, &messages).await?;
            messages::put(conn, written).await?;
            if !tool_uses.is_empty() {
                update_tool_uses(&tool_uses)?.execute(&mut &*conn).await?;
            }
            if !subagents.is_empty() {
                update_subagents(&subagents).execute(&mut &*conn).await?;
            }
            Ok::<_, TxError>(())
        };
        let (conversations, rest, told) =
            join3(conversations, rest, feed::commit(conn, &touched, now)).await;
        conversations?;
        rest?;
        Ok(told?)
    }

    async fn lock_conversations(
        &self,
        conn: &AsyncPgConnection,
    ) -> Result<HashMap<Uuid, Conversation>, TxError> {
        if self.0.conversations.is_empty() {
            return Ok(HashMap::new());
        }
        let rows: Vec<ConversationRow> = conversations::table
            .filter(
                conversations::id.eq_any(self.0.conversations.keys().copied().collect::<Vec<_>>()),
            )
            .order(conversations::id.asc())
            .for_update()
            .select(ConversationRow::as_select())
            .load(&mut &*conn)
            .await?;
        let values = rows.into_iter().map(|row| Ok((row.id, row.into_value()?)));
        Ok(values.collect::<QueryResult<_>>()?)
    }

    async fn add_tool_uses(&self, conn: &AsyncPgConnection) -> Result<HashSet<Uuid>, TxError> {
        if self.0.tool_uses.is_empty() {
            return Ok(HashSet::new());
        }
        let all: Vec<_> = self.0.tool_uses.values().map(|(name, one)| (*name, &**one)).collect();
        let added: Vec<Uuid> = insert_tool_uses(&all)?.load(&mut &*conn).await?;
        Ok(added.into_iter().collect())
    }

    async fn add_subagents(&self, conn: &AsyncPgConnection) -> Result<HashSet<Uuid>, TxError> {
        if self.0.subagents.is_empty() {
            return Ok(HashSet::new());
        }
        let all: Vec<_> = self.0.subagents.values().map(|(name, one)| (*name, &**one)).collect();
        let added: Vec<Uuid> = insert_subagents(&all).load(&mut &*conn).await?;
        Ok(added.into_iter().collect())
    }

    async fn lock_messages(
        &self,
        conn: &AsyncPgConnection,
        added: &[MessageWrite<'_>],
    ) -> Result<Vec<StoredMessage>, TxError> {
        let added: HashSet<Uuid> = added.iter().map(|one| one.message.id).collect();
        let ids = self.0.messages.keys().copied().filter(|id| !added.contains(id)).collect();
        Ok(messages::lock(conn, ids).await?)
    }

    /// What is to be written of messages that are there, each in its workspace. Of their blocks only those are read
    /// that what came names.
    async fn join_messages(
        &self,
        conn: &AsyncPgConnection,
        stored: Vec<StoredMessage>,
    ) -> Result<Vec<(&'a str, MessageWrite<'static>)>, TxError> {
        let came = |one: &StoredMessage| self.0.messages.get(&one.value.id);
        let needed = stored.iter().filter_map(|one| Some((one.value.id, one.needs(&came(one)?.1))));
        let needed: Vec<_> = needed.collect();
        let (mut found, mut last) = messages::load_needed(conn, &needed).await?;
        let join = |one: StoredMessage| {
            let id = one.value.id;
            let (workspace, came) = self.0.messages.get(&id)?;
            let found = found.remove(&id).unwrap_or_default();
            let last = last.remove(&id).unwrap_or_default();
            Some((*workspace, one.join((**came).clone(), found, last)?))
        };
        Ok(stored.into_iter().filter_map(join).collect())
    }

    async fn lock_tool_uses(
        &self,
        conn: &AsyncPgConnection,
        added: &HashSet<Uuid>,
    ) -> Result<Vec<(Uuid, ToolUse)>, TxError> {
        let ids: Vec<Uuid> =
            self.0.tool_uses.keys().copied().filter(|id| !added.contains(id)).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<ToolUseRow> = tool_uses::table
            .filter(tool_uses::id.eq_any(ids))
            .order(tool_uses::id.asc())
            .for_update()
            .select(ToolUseRow::as_select())
            .load(&mut &*conn)
            .await?;
        let values = rows.into_iter().map(ToolUseRow::into_value);
        Ok(values.map(|one| one.map(|one| (one.id, one))).collect::<QueryResult<_>>()?)
    }

    async fn lock_subagents(
        &self,
        conn: &AsyncPgConnection,
        added: &HashSet<Uuid>,
    ) -> Result<Vec<(Uuid, Subagent)>, TxError> {
        let ids: Vec<Uuid> =
            self.0.subagents.keys().copied().filter(|id| !added.contains(id)).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<SubagentRow> = subagents::table
            .filter(subagents::id.eq_any(ids))
            .order(subagents::id.asc())
            .for_update()
            .select(SubagentRow::as_select())
            .load(&mut &*conn)
            .await?;
        Ok(rows.into_iter().map(SubagentRow::into_value).map(|one| (one.id, one)).collect())
    }
}

/// What is known after the first statements.
#[derive(Debug)]
pub(crate) struct Started<'a> {
    conversations: HashMap<Uuid, Conversation>,
    added_messages: Vec<MessageWrite<'a>>,
    added_tool_uses: HashSet<Uuid>,
    added_subagents: HashSet<Uuid>,
}

/// Adds messages, each in its workspace, without the rows of their blocks; returns the ids of those that were not
/// there.
async fn add_messages(
    conn: &AsyncPgConnection,
    whole: &[(&str, MessageWrite<'_>)],
) -> Result<HashSet<Uuid>, TxError> {
    if whole.is_empty() {
        return Ok(HashSet::new());
    }
    let all: Vec<_> = whole.iter().map(|(name, one)| (*name, one)).collect();
    let added: Vec<Uuid> = insert_messages(&all)?.load(&mut &*conn).await?;
    Ok(added.into_iter().collect())
}

/// What differs once what came is joined to what is there, each in its workspace.
fn changes<'a, T: Clone + PartialEq>(
    is: Vec<(Uuid, T)>,
    came: &BTreeMap<Uuid, (&'a str, Cow<'_, T>)>,
    merge: impl Fn(&mut T, T),
) -> Vec<(&'a str, T)> {
    let join = |(id, is): (Uuid, T)| {
        let (workspace, came) = came.get(&id)?;
        Some((*workspace, joined(is, (**came).clone(), &merge)?))
    };
    is.into_iter().filter_map(join).collect()
}
