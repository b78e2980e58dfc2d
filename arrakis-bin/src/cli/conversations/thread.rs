//! A conversation in the order in which it is read: threads, each of messages, tool uses and events.
//!
//! A tool use stands where its message wishes for it, else where it began; a subagent's thread hangs on the tool
//! use that started it, else where it began.

use std::collections::{HashMap, HashSet};

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::store::{ConversationDetail, EventSummary};
use arrakis_core::session::conversation::{
    Block, BlockKey, Message, MessageOrigin, Role, Subagent, ToolUse,
};
use arrakis_core::session::hook::shows_by_itself;

use super::tool;

/// The block that stands for thinking that the API has encrypted.
const REDACTED_THINKING: &str = "redacted_thinking";

/// The block with which a model asks the one that advises it.
const ADVISOR: &str = "advisor";

/// Whether a message is the person's: in a subagent's thread what they answered, else all that is said there is its
/// task.
pub(in crate::cli) fn is_of_person(message: &Message) -> bool {
    let is_answer = message.origin == MessageOrigin::Answer;
    message.role == Role::User && (message.agent_id.is_none() || is_answer)
}

/// Whether a message is a prompt of the person.
pub(in crate::cli) fn is_prompt(message: &Message) -> bool {
    is_of_person(message) && message.origin != MessageOrigin::Answer
}

/// A thread: the main one, or a subagent's.
#[derive(Debug)]
pub(in crate::cli) struct Thread<'a> {
    /// Whose it is; none is the main thread.
    pub(in crate::cli) subagent: Option<&'a Subagent>,
    /// What is in it, oldest first.
    pub(in crate::cli) items: Vec<Item<'a>>,
}

/// Something in a thread.
#[derive(Debug)]
pub(in crate::cli) enum Item<'a> {
    /// A message, in parts.
    Message(&'a Message, Vec<Part<'a>>),
    /// A tool use that no message wishes for.
    Tool(Call<'a>),
    /// Something that no message and no tool use tells.
    Event(&'a EventSummary),
    /// A subagent that no tool use is known to have started.
    Subagent(Thread<'a>),
}

/// A part of a message.
#[derive(Debug)]
pub(in crate::cli) struct Part<'a> {
    /// When it was written.
    pub(in crate::cli) at: Timestamp,
    /// The block that it is.
    pub(in crate::cli) key: Option<&'a BlockKey>,
    pub(in crate::cli) what: What<'a>,
}

/// What a part of a message is.
#[derive(Debug)]
pub(in crate::cli) enum What<'a> {
    Text(&'a str),
    /// The model's thinking; empty where it was left out.
    Thinking(&'a str),
    Tool(Call<'a>),
    /// Something that is only named, such as an image.
    Named(String),
    /// What the client has sent beside a prompt, such as a file that it mentions.
    Attached(&'a str),
    /// Thinking that nobody can read.
    Redacted,
}

/// A tool use, and what it started.
#[derive(Debug)]
pub(in crate::cli) struct Call<'a> {
    pub(in crate::cli) tool_use: &'a ToolUse,
    pub(in crate::cli) subagents: Vec<Thread<'a>>,
}

impl<'a> Thread<'a> {
    /// The main thread of a conversation; the others hang on it.
    pub(in crate::cli) fn of(detail: &'a ConversationDetail) -> Self {
        let mut tools: HashMap<&str, Vec<&ToolUse>> = HashMap::new();
        for tool_use in &detail.tool_uses {
            if let Some(id) = &tool_use.tool_use_id {
                tools.entry(id).or_default().push(tool_use);
            }
        }
        let mut placer = Placer { detail, tools, placed: HashSet::new(), told: HashSet::new() };
        let mut main = placer.thread(None);
        // What started a subagent may not be known, or hang on the subagent itself.
        for subagent in &detail.subagents {
            if placer.told.insert(&subagent.agent_id) {
                main.items.push(Item::Subagent(placer.thread(Some(subagent))));
            }
        }
        main.items.sort_by_key(Item::at); // stable: what has one time stays in the order of its kind
        main
    }
}

impl Call<'_> {
    /// How long it took, in milliseconds. An agent that works beside the conversation is there at once, and ends when it
    /// stops.
    pub(in crate::cli) fn duration_ms(&self) -> Option<u64> {
        if !tool::works_beside(self.tool_use) {
            return self.tool_use.duration_ms();
        }
        let end = |one: &Subagent| one.stopped_at.unwrap_or(one.last_event_at);
        let stopped = self.subagents.iter().filter_map(|thread| thread.subagent.map(end)).max();
        let whole = stopped.map(|at| at.since(self.tool_use.first.at).as_millis());
        let whole = whole.and_then(|ms| u64::try_from(ms).ok());
        self.tool_use.duration_ms().max(whole)
    }
}

impl Item<'_> {
    /// When it began.
    pub(in crate::cli) fn at(&self) -> Timestamp {
        match self {
            Self::Message(message, parts) => {
                parts.first().map_or(message.content.stamp.at, |part| part.at)
            }
            Self::Tool(call) => call.tool_use.first.at,
            Self::Event(event) => event.captured_at(),
            Self::Subagent(thread) => {
                thread.subagent.map_or(Timestamp::EPOCH, |subagent| subagent.started_at)
            }
        }
    }
}

/// Puts everything in its place, and nothing in two.
struct Placer<'a> {
    detail: &'a ConversationDetail,
    /// Tool uses by Claude Code's ids.
    tools: HashMap<&'a str, Vec<&'a ToolUse>>,
    /// Tool uses that a message wishes for.
    placed: HashSet<uuid::Uuid>,
    /// Subagents whose thread has its place.
    told: HashSet<&'a str>,
}

impl<'a> Placer<'a> {
    fn thread(&mut self, subagent: Option<&'a Subagent>) -> Thread<'a> {
        let detail = self.detail;
        let agent_id = subagent.map(|subagent| subagent.agent_id.as_str());
        let mut items = Vec::new();
        for message in detail.messages.iter().filter(|one| one.agent_id.as_deref() == agent_id) {
            let parts = self.parts(message);
            items.push(Item::Message(message, parts));
        }
        for tool_use in detail.tool_uses.iter().filter(|one| one.agent_id.as_deref() == agent_id) {
            if self.placed.insert(tool_use.id) {
                items.push(Item::Tool(self.call(tool_use)));
            }
        }
        // A subagent's thread tells of its start.
        let is_told = |kind: &str| shows_by_itself(kind) || kind == "SubagentStart";
        let is_here = |event: &&EventSummary| self.subagent_of(event) == agent_id;
        let events = detail.events.iter().filter(|event| !is_told(&event.event_type));
        items.extend(events.filter(is_here).map(Item::Event));
        items.sort_by_key(Item::at); // stable, as above
        Thread { subagent, items }
    }

    fn parts(&mut self, message: &'a Message) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        for (key, block) in message.blocks.iter() {
            let what = match block {
                Block::Text { text } => What::Text(text),
                Block::Thinking { text } => What::Thinking(text),
                Block::ToolUse { tool_use_id } => match self.asked(tool_use_id, key) {
                    Some(tool_use) if self.placed.insert(tool_use.id) => {
                        What::Tool(self.call(tool_use))
                    }
                    _ => continue,
                },
                Block::Image { media_type: None } => What::Named("image".to_owned()),
                Block::Image { media_type: Some(kind) } => What::Named(format!("image, {kind}")),
                Block::Other { kind } if kind == REDACTED_THINKING => What::Redacted,
                Block::Other { kind } if kind == ADVISOR && self.has_advice(message) => continue,
                Block::Other { kind } if kind == ADVISOR => {
                    What::Named("advisor, no answer".to_owned())
                }
                // Only what stands beside a prompt has a number in it.
                Block::Other { kind } if message.role == Role::User && key.index > 0 => {
                    What::Attached(kind)
                }
                Block::Other { kind } => What::Named(kind.clone()),
            };
            parts.push(Part { at: key.at, key: Some(key), what });
        }
        if message.blocks.is_empty() && !message.content.value.is_empty() {
            let what = What::Text(&message.content.value);
            parts.push(Part { at: message.content.stamp.at, key: None, what });
        }
        parts
    }

    /// The subagent in whose thread an event stands.
    fn subagent_of(&self, event: &EventSummary) -> Option<&'a str> {
        let agent_id = event.metadata.agent_id.as_deref()?;
        let mut all = self.detail.subagents.iter().map(|one| one.agent_id.as_str());
        all.find(|known| *known == agent_id)
    }

    /// Whether an advisor has answered that the message has asked.
    fn has_advice(&self, message: &Message) -> bool {
        let is_of_it = |one: &&Message| {
            let id = one.api_id.as_deref().zip(message.api_id.as_deref());
            one.is_advice() && id.is_some_and(|(advice, asked)| advice.starts_with(asked))
        };
        let mut advice = self.detail.messages.iter().filter(is_of_it);
        advice.any(|one| !one.content.value.is_empty())
    }

    /// The tool use of this id that a block asks for.
    fn asked(&self, tool_use_id: &str, key: &BlockKey) -> Option<&'a ToolUse> {
        let mut all = self.tools.get(tool_use_id)?.iter().copied();
        all.find(|one| one.caller.as_ref().is_none_or(|caller| *caller == key.line))
    }

    fn call(&mut self, tool_use: &'a ToolUse) -> Call<'a> {
        let mut subagents = Vec::new();
        for subagent in &self.detail.subagents {
            let is_started =
                subagent.tool_use_id.is_some() && subagent.tool_use_id == tool_use.tool_use_id;
            if is_started && self.told.insert(&subagent.agent_id) {
                subagents.push(self.thread(Some(subagent)));
            }
        }
        Call { tool_use, subagents }
    }
}
