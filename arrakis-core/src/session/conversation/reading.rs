//! What readers see of stored values.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::attached::Attached;
use super::{Message, MessageOrigin, Role, SIDECHAIN, Subagent, ToolUse, branches, name, prompts};
use crate::base::clock::Timestamp;
use crate::session::price::{self, PromptSize};
use crate::session::usage::{UNKNOWN_MODEL, Usage, Usd};

/// The messages that a reader sees, oldest first.
///
/// What an event says of a message is provisional where the transcript says it under another id. Of the last
/// words of a `Stop` and the error of a `StopFailure`, one is hidden for each line of the transcript of the same
/// thread, speaker and text. `prompts.rs` says which prompts are hidden. What stands beside a prompt is a part of it.
#[must_use]
pub fn visible(mut messages: Vec<Message>) -> Vec<Message> {
    branches::Links::take(&mut messages);
    let attached = Attached::take(&mut messages);
    branches::sort(&mut messages);
    let mut messages = branches::split(messages);
    branches::sort(&mut messages);
    let mut hidden = prompts::hidden(&messages);
    hide_last_words(&messages, &mut hidden);
    let mut hidden = hidden.into_iter();
    messages.retain(|_| !hidden.next().unwrap_or_default());
    attached.give(&mut messages);
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
    link(&mut subagents, messages, tool_uses);
    begin_with_own(&mut subagents, messages, tool_uses);
    subagents.sort_by(|a, b| (a.started_at, &a.agent_id).cmp(&(b.started_at, &b.agent_id)));
    subagents
}

/// Has subagents begin with what is their own, where their transcript began with what it repeats of the main thread.
fn begin_with_own(subagents: &mut [Subagent], messages: &[Message], tool_uses: &[ToolUse]) {
    let said = messages.iter().map(|one| (&one.agent_id, one.content.stamp.at));
    let done = tool_uses.iter().map(|one| (&one.agent_id, one.first.at));
    let mut main = HashSet::new();
    let mut own: HashMap<&str, Timestamp> = HashMap::new();
    for (agent_id, at) in said.chain(done) {
        match agent_id {
            Some(agent_id) => {
                let first = own.entry(agent_id).or_insert(at);
                *first = at.min(*first);
            }
            None => {
                main.insert(at);
            }
        }
    }
    for subagent in subagents {
        if let Some(first) = own.get(&*subagent.agent_id)
            && main.contains(&subagent.started_at)
        {
            subagent.started_at = subagent.started_at.max(*first);
        }
    }
}

/// Completes what is known of subagents by the tool uses that started them. Those of sidechains are told by their
/// tasks, the first of two like ones by the first tool use.
fn link(subagents: &mut [Subagent], messages: &[Message], tool_uses: &[ToolUse]) {
    let mut started: Vec<(&ToolUse, Task<'_>)> =
        tool_uses.iter().filter_map(|one| Some((one, Task::of(one)?))).collect();
    started.sort_by(|(a, _), (b, _)| (&a.first, a.id).cmp(&(&b.first, b.id)));
    let mut used = vec![false; started.len()];
    let mut unlinked: Vec<&mut Subagent> = subagents.iter_mut().collect();
    unlinked.sort_by(|a, b| (a.started_at, &a.agent_id).cmp(&(b.started_at, &b.agent_id)));
    for subagent in unlinked {
        if subagent.tool_use_id.is_none() && subagent.agent_id.starts_with(SIDECHAIN) {
            let of_it =
                messages.iter().filter(|one| one.agent_id.as_deref() == Some(&subagent.agent_id));
            let first =
                of_it.min_by(|a, b| (&a.content.stamp, a.id).cmp(&(&b.content.stamp, b.id)));
            let task = first.map(|first| strip_whitespace(&first.content.value));
            let place = started.iter().zip(&used).position(|((_, known), used)| {
                !used && Some(strip_whitespace(&known.prompt)) == task
            });
            if let Some(place) = place {
                used[place] = true;
                subagent.tool_use_id.clone_from(&started[place].0.tool_use_id);
            }
        }
        if subagent.agent_type.is_none() && subagent.tool_use_id.is_some() {
            let task = started.iter().find(|(one, _)| one.tool_use_id == subagent.tool_use_id);
            subagent.agent_type =
                task.and_then(|(_, task)| task.subagent_type.as_deref().map(name));
        }
    }
}

/// What a tool use says that starts a subagent.
#[derive(Deserialize)]
struct Task<'a> {
    #[serde(borrow, default)]
    prompt: Cow<'a, str>,
    #[serde(borrow, default)]
    subagent_type: Option<Cow<'a, str>>,
}

impl<'a> Task<'a> {
    fn of(tool_use: &'a ToolUse) -> Option<Self> {
        let starts = matches!(tool_use.tool_name.as_str(), "Agent" | "Task");
        let parameters = tool_use.parameters.as_ref().filter(|_| starts)?;
        serde_json::from_str(parameters.value.as_str()).ok()
    }
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
    /// Whether the cost depends on a price that nobody has read on a page of the provider.
    #[serde(default)]
    pub has_unverified_price: bool,
    /// What the client says of the messages that they cost; none where it says so of none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cost: Option<Usd>,
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
            // What was copied is counted in the session that it comes from.
            if message.standing.copied {
                continue;
            }
            if let Some(cost) = message.client_cost {
                report.client_cost = Some(report.client_cost.unwrap_or_default() + cost);
            }
            let Some(usage) = message.usage else { continue };
            report.total += usage;
            if message.agent_id.is_some() {
                report.subagents += usage;
            }
            let name = message.model.as_deref().unwrap_or(UNKNOWN_MODEL);
            let at = message.content.stamp.at;
            let cost = price::table().cost(name, at, &usage);
            report.has_unverified_price |=
                price::table().is_unverified(name, at, PromptSize::of(&usage));
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
