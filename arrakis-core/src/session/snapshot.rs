//! Snapshots: what is stored of a conversation, as events.
//!
//! A conversation outlives its events, which are pruned. To take it elsewhere its values travel as events of the
//! type [`SNAPSHOT_EVENT`]: they merge, so it does not matter what is there already. The payload of a snapshot is one
//! line of JSON:
//!
//! ```text
//! {"hook_event_name":"Snapshot","session_id":S,"conversation":{…},
//!  "messages":[…],"tool_uses":[…],"subagents":[…]}
//! ```
//!
//! The projection derives the ids of all values again, from the receiving workspace and from what the values carry. It
//! ignores the ids in the payload. So a snapshot can be imported into any workspace.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use crate::base::digest::Digest;
use crate::base::envelope::{Envelope, Source};
use crate::base::id::snapshot_id;
use crate::base::limits::{PAYLOAD_MAX_BYTES, SNAPSHOT_MAX_BYTES};
use crate::session::conversation::{Changes, Conversation, Message, Subagent, ToolUse};

/// The event type of a snapshot.
pub const SNAPSHOT_EVENT: &str = "Snapshot";

/// A conversation as events.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// The events.
    pub envelopes: Vec<Envelope>,
    /// How many values are too large for an event.
    pub left_out: usize,
}

#[derive(Serialize)]
struct Payload<'a> {
    hook_event_name: &'a str,
    session_id: &'a str,
    conversation: &'a Conversation,
    messages: &'a [Box<RawValue>],
    tool_uses: &'a [Box<RawValue>],
    subagents: &'a [Box<RawValue>],
}

/// What `stored` has of a conversation that `known` does not say already; nothing where that is all of it.
///
/// # Errors
///
/// A value cannot be written as JSON.
pub fn snapshots(stored: &Changes, known: &Changes) -> Result<Snapshots, serde_json::Error> {
    let mut parts = Vec::new();
    let messages = missing(&stored.messages, &known.messages, |one| one.id, Message::merge);
    let tool_uses = missing(&stored.tool_uses, &known.tool_uses, |one| one.id, ToolUse::merge);
    let subagents = missing(&stored.subagents, &known.subagents, |one| one.id, Subagent::merge);
    for message in messages {
        parts.push((Kind::Message, to_raw_value(message)?));
    }
    for tool_use in tool_uses {
        parts.push((Kind::ToolUse, to_raw_value(tool_use)?));
    }
    for subagent in subagents {
        parts.push((Kind::Subagent, to_raw_value(subagent)?));
    }
    let mut snapshots = Snapshots::default();
    let Some(conversation) = stored.conversations.first() else { return Ok(snapshots) };
    let conversations =
        missing(&stored.conversations, &known.conversations, |one| one.id, Conversation::merge);
    if parts.is_empty() && conversations.is_empty() {
        return Ok(snapshots);
    }
    let before = parts.len();
    parts.retain(|(_, value)| value.get().len() < PAYLOAD_MAX_BYTES - SNAPSHOT_MAX_BYTES);
    snapshots.left_out = before - parts.len();
    let mut parts = parts.into_iter().peekable();
    loop {
        let mut bytes = 0;
        let mut lists: [Vec<Box<RawValue>>; 3] = Default::default();
        while let Some((kind, value)) =
            parts.next_if(|(_, next)| bytes == 0 || bytes + next.get().len() <= SNAPSHOT_MAX_BYTES)
        {
            bytes += value.get().len();
            lists[kind as usize].push(value);
        }
        let [messages, tool_uses, subagents] = &lists;
        let payload = serde_json::to_vec(&Payload {
            hook_event_name: SNAPSHOT_EVENT,
            session_id: &conversation.session_id,
            conversation,
            messages,
            tool_uses,
            subagents,
        })?;
        let id = snapshot_id(&[&conversation.workspace, &Digest::of(&payload).to_string()]);
        let at = conversation.last_event_at;
        snapshots.envelopes.push(Envelope::new(id, at, "", Source::default(), payload));
        if parts.peek().is_none() {
            return Ok(snapshots);
        }
    }
}

/// The list that a value belongs to.
#[derive(Clone, Copy)]
enum Kind {
    Message,
    ToolUse,
    Subagent,
}

/// The values of which `known` does not say everything.
fn missing<'a, T: Clone + PartialEq>(
    stored: &'a [T],
    known: &[T],
    id: fn(&T) -> Uuid,
    merge: fn(&mut T, T),
) -> Vec<&'a T> {
    let known: HashMap<Uuid, &T> = known.iter().map(|value| (id(value), value)).collect();
    let is_missing = |value: &&T| {
        known.get(&id(value)).is_none_or(|known| {
            let mut whole = (*known).clone();
            merge(&mut whole, (*value).clone());
            whole != **known
        })
    };
    stored.iter().filter(is_missing).collect()
}
