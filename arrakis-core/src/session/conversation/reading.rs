//! What readers see of stored values.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::{Message, MessageOrigin, Role, Subagent, ToolUse, branches, prompts};
use crate::session::price;
use crate::session::usage::{UNKNOWN_MODEL, Usage, Usd};

/// The messages that a reader sees, oldest first.
///
/// What an event says of a message is provisional where the transcript says it under another id. Of the last
/// words of a `Stop` and the error of a `StopFailure`, one is hidden for each line of the transcript of the same
/// thread, speaker and text. `prompts.rs` says which prompts are hidden.
#[must_use]
pub fn visible(mut messages: Vec<Message>) -> Vec<Message> {
    branches::Links::take(&mut messages);
    branches::sort(&mut messages);
    let mut messages = branches::split(messages);
    branches::sort(&mut messages);
    let mut hidden = prompts::hidden(&messages);
    hide_last_words(&messages, &mut hidden);
    let mut hidden = hidden.into_iter();
    messages.retain(|_| !hidden.next().unwrap_or_default());
    messages
}

/// Hides what `Stop` and `StopFailure` say where the transcript says it, or where one before it in the turn does.
fn hide_last_words(messages: &[Message], hidden: &mut [bool]) {
    hide_repeats(messages, hidden);
    let mut said: HashMap<(Option<&str>, Role, String), Vec<usize>> = HashMap::new();
    for (n, message) in messages.iter().enumerate().rev() {
        for text in said_by(message, strip_whitespace) {
            let key = (message.agent_id.as_deref(), message.role, text);
            said.entry(key).or_default().push(n);
        }
    }
    let mut used = vec![false; messages.len()];
    for (n, message) in messages.iter().enumerate() {
        if hidden[n] || !is_last_words(message) {
            continue;
        }
        let text = strip_whitespace(&message.content.value);
        let places = said.get_mut(&(message.agent_id.as_deref(), message.role, text));
        let Some(places) = places else { continue };
        while let Some(place) = places.pop() {
            if !std::mem::replace(&mut used[place], true) {
                hidden[n] = true;
                break;
            }
        }
    }
}

fn is_last_words(message: &Message) -> bool {
    matches!(message.origin, MessageOrigin::Stop | MessageOrigin::Failure)
}

/// Hides last words that one has said already since the latest prompt of their thread: hooks run again where one of them
/// has kept the turn going, or where several clients run them.
fn hide_repeats(messages: &[Message], hidden: &mut [bool]) {
    let mut said: HashMap<Option<&str>, Vec<(Role, String)>> = HashMap::new();
    for (n, message) in messages.iter().enumerate() {
        let turn = said.entry(message.agent_id.as_deref()).or_default();
        if is_last_words(message) {
            let words = (message.role, strip_whitespace(&message.content.value));
            hidden[n] |= turn.contains(&words);
            turn.push(words);
        } else if message.role != Role::Assistant {
            turn.clear();
        }
    }
}

/// The texts, each as `compared`, under which an event may say the same as this line of the transcript: all of it,
/// then the last block. A `Stop` may have no more, and in a prompt the client's own blocks come first.
pub(crate) fn said_by(message: &Message, compared: fn(&str) -> String) -> Vec<String> {
    if !message.origin.is_line() {
        return Vec::new();
    }
    let mut texts = vec![compared(&message.content.value)];
    texts.extend(message.blocks.texts().last().map(compared));
    texts.dedup();
    texts
}

/// The text without white space: the client trims and joins in ways that differ.
pub(crate) fn strip_whitespace(text: &str) -> String {
    text.split_whitespace().collect()
}

/// How many messages of a conversation are stored, by where they come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MessageCounts {
    /// Lines of transcripts ([`MessageOrigin::is_line`]).
    pub lines: u64,
    /// What hooks told: prompts, last words and errors.
    pub hooks: u64,
    /// Prompts that were put into the queue ([`MessageOrigin::Enqueued`]).
    pub waiting: u64,
}

impl MessageCounts {
    /// How many messages a list says that the conversation has: its lines, and what is provisional only while
    /// there are none. It equals what [`visible`] shows once the transcript has all that hooks told.
    #[must_use]
    pub fn shown(self) -> u64 {
        if self.lines > 0 { self.lines } else { self.hooks.max(self.waiting) }
    }
}

/// The subagents that a reader sees, earliest first: also those of which only messages or tool uses are
/// known.
pub(crate) fn all_subagents(
    mut subagents: Vec<Subagent>,
    messages: &[Message],
    tool_uses: &[ToolUse],
) -> Vec<Subagent> {
    let said =
        messages.iter().map(|one| (one.conversation_id, &one.agent_id, one.content.stamp.at));
    let done = tool_uses.iter().map(|one| (one.conversation_id, &one.agent_id, one.first.at));
    let mut implied: BTreeMap<&str, Subagent> = BTreeMap::new();
    for (conversation_id, agent_id, at) in said.chain(done) {
        let Some(agent_id) = agent_id else { continue };
        if subagents.iter().any(|known| known.agent_id == *agent_id) {
            continue;
        }
        let came = Subagent::new(conversation_id, agent_id, at);
        let place = implied.entry(agent_id).or_insert_with(|| came.clone());
        place.merge(came);
    }
    subagents.extend(implied.into_values());
    subagents.sort_by(|a, b| (a.started_at, &a.agent_id).cmp(&(b.started_at, &b.agent_id)));
    subagents
}

/// What a conversation took, and what that costs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageReport {
    /// All of it: the sum over the API's messages, each counted once.
    pub total: Usage,
    /// What of it subagents took.
    pub subagents: Usage,
    /// The same by model.
    pub models: BTreeMap<String, ModelUsage>,
    /// What the models with a known price cost, by the table of [`price`].
    pub cost: Usd,
    /// Whether there is usage without a known price, so that the cost is not all of it.
    pub has_unknown_price: bool,
}

/// What one model took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelUsage {
    /// How much.
    pub usage: Usage,
    /// What it costs; none where the price is not known.
    pub cost: Option<Usd>,
}

impl UsageReport {
    /// The usage of these messages.
    #[must_use]
    pub fn of(messages: &[Message]) -> Self {
        let mut report = Self::default();
        for message in messages {
            let Some(usage) = message.usage else { continue };
            report.total += usage;
            if message.agent_id.is_some() {
                report.subagents += usage;
            }
            let name = message.model.as_deref().unwrap_or(UNKNOWN_MODEL);
            let cost = price::table().cost(name, &usage);
            let model = report.models.entry(name.to_owned()).or_default();
            model.usage += usage;
            match cost {
                Some(cost) => {
                    model.cost = Some(model.cost.unwrap_or_default() + cost);
                    report.cost = report.cost + cost;
                }
                None => report.has_unknown_price = true,
            }
        }
        report
    }
}
