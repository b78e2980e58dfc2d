//! Applying changes: load what is there, merge in memory, write back what differs.
//!
//! Changes of a whole transaction are merged with each other first, so a value is loaded and written
//! once however many events touch it.
//!
//! Each statement is one of a fixed few, prepared once and kept. That is why rows are replaced whole
//! (Diesel prepares an `UPDATE` or an upsert anew each time), and why a row is found without a
//! `LIMIT` (SQLite prepares a statement anew when a bound one is bound again).

use std::borrow::Cow;

use arrakis_core::record::store::adapter::{Merged, MessageWrite, joined};
use arrakis_core::session::conversation::{Conversation, Message, Subagent, ToolUse};
use diesel::prelude::*;
use diesel::result::QueryResult;
use uuid::Uuid;

use crate::feed::{Place, Touched};
use crate::messages;
use crate::row::{ConversationRow, Kept, Now, SubagentRow, ToolUseRow};
use crate::schema::{conversations, subagents, tool_uses};

/// Joins changes to what is stored; tells `written` which messages and tool uses were written.
pub(crate) fn write(
    merged: Merged<'_>,
    conn: &mut SqliteConnection,
    written: &mut Touched,
    now: &Now,
) -> QueryResult<()> {
    for value in merged.conversations.into_values() {
        let (stored, kept) = load_conversation(conn, value.id)?.unzip();
        if let Some(value) = changed(stored, value, Conversation::merge) {
            let row = ConversationRow::new(&value, kept, now)?;
            diesel::replace_into(conversations::table).values(&row).execute(conn)?;
        }
    }
    for (workspace, came) in merged.messages.into_values() {
        let place = place(came.conversation_id, came.id);
        if let Some(write) = join_message(conn, (&place.0, &place.1), came)? {
            messages::write(conn, workspace, &write)?;
            written.message(workspace, place);
        }
    }
    for (workspace, value) in merged.tool_uses.into_values() {
        let stored = load_tool_use(conn, place(value.conversation_id, value.id))?;
        if let Some(value) = changed(stored, value, ToolUse::merge) {
            let row = ToolUseRow::new(&value, workspace)?;
            diesel::replace_into(tool_uses::table).values(&row).execute(conn)?;
            written.tool_use(workspace, (row.conversation_id, row.id));
        }
    }
    for (workspace, value) in merged.subagents.into_values() {
        let stored = load_subagent(conn, value.id)?;
        if let Some(value) = changed(stored, value, Subagent::merge) {
            let row = SubagentRow::new(&value, workspace);
            diesel::replace_into(subagents::table).values(&row).execute(conn)?;
        }
    }
    Ok(())
}

/// What is to be written of a value that came.
fn changed<'a, T: Clone + PartialEq>(
    stored: Option<T>,
    came: Cow<'a, T>,
    merge: impl FnOnce(&mut T, T),
) -> Option<Cow<'a, T>> {
    match stored {
        None => Some(came),
        Some(stored) => joined(stored, came.into_owned(), merge).map(Cow::Owned),
    }
}

fn place(conversation_id: Uuid, id: Uuid) -> Place {
    (conversation_id.to_string(), id.to_string())
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

/// What is to be written of a message that came: of one that is there only its row and those blocks are read that
/// it names.
fn join_message<'a>(
    conn: &mut SqliteConnection,
    place: (&str, &str),
    came: Cow<'a, Message>,
) -> QueryResult<Option<MessageWrite<'a>>> {
    let Some(stored) = messages::load(conn, place)? else {
        return Ok(Some(MessageWrite::whole(came)));
    };
    let (found, last) = messages::load_needed(conn, place, &stored.needs(&came))?;
    Ok(stored.join(came.into_owned(), found, last))
}

fn load_tool_use(conn: &mut SqliteConnection, place: Place) -> QueryResult<Option<ToolUse>> {
    tool_uses::table
        .find(place)
        .select(ToolUseRow::as_select())
        .get_result(conn)
        .optional()?
        .map(ToolUseRow::into_value)
        .transpose()
}

fn load_subagent(conn: &mut SqliteConnection, id: Uuid) -> QueryResult<Option<Subagent>> {
    subagents::table
        .find(id.to_string())
        .select(SubagentRow::as_select())
        .get_result(conn)
        .optional()?
        .map(SubagentRow::into_value)
        .transpose()
}
