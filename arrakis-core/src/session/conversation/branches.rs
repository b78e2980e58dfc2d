//! The order of messages of one time, and where a conversation went back to before a prompt.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Message, MessageOrigin, Role, ToolUse};
use crate::base::clock::Timestamp;
use crate::base::id::RequestId;

/// Puts messages in order: by time; those of one time as they follow each other in the transcript, else by their ids.
pub(super) fn sort(messages: &mut Vec<Message>) {
    messages.sort_by(|a, b| (&a.content.stamp, a.id).cmp(&(&b.content.stamp, b.id)));
    let mut sorted = Vec::with_capacity(messages.len());
    let mut rest = std::mem::take(messages).into_iter().peekable();
    while let Some(first) = rest.next() {
        let at = first.content.stamp.at;
        let mut same = vec![first];
        while let Some(next) = rest.next_if(|next| next.content.stamp.at == at) {
            same.push(next);
        }
        if same.len() == 1 {
            sorted.append(&mut same);
        } else {
            sorted.extend(by_parents(same));
        }
    }
    *messages = sorted;
}

/// Parts the messages to which several prompts have led, as gateways give all answers one id. Each part took what the
/// whole message did.
pub(super) fn split(messages: Vec<Message>) -> Vec<Message> {
    let is_shared = |one: &Message| one.role == Role::Assistant && one.parents.len() > 1;
    if !messages.iter().any(is_shared) {
        return messages;
    }
    let prompts: HashMap<RequestId, Timestamp> = messages
        .iter()
        .filter(|one| is_prompt(one))
        .flat_map(|one| lines(one).map(|line| (line.clone(), one.content.stamp.at)))
        .collect();
    let mut parted = Vec::with_capacity(messages.len());
    for mut message in messages {
        if is_shared(&message) {
            let begins = message.parents.iter().filter_map(|line| prompts.get(line).copied());
            let begins = begins.filter(|at| *at > message.content.stamp.at);
            let begins: BTreeSet<Timestamp> = begins.collect();
            for at in begins.into_iter().rev() {
                parted.extend(message.split_off(at));
            }
        }
        parted.push(message);
    }
    parted
}

/// Messages of one time, each behind those that it follows.
fn by_parents(messages: Vec<Message>) -> Vec<Message> {
    let mut place_of: HashMap<&RequestId, usize> = HashMap::new();
    for (n, message) in messages.iter().enumerate() {
        place_of.extend(lines(message).map(|line| (line, n)));
    }
    let before: Vec<Vec<usize>> = messages
        .iter()
        .enumerate()
        .map(|(n, message)| {
            let parents = message.parents.iter().filter_map(|line| place_of.get(line).copied());
            parents.filter(|parent| *parent != n).collect()
        })
        .collect();
    let mut is_placed = vec![false; messages.len()];
    let mut order = Vec::with_capacity(messages.len());
    while order.len() < messages.len() {
        let is_next = |n: &usize| !is_placed[*n] && before[*n].iter().all(|n| is_placed[*n]);
        // Lines that follow each other in a circle stay as they are.
        let next = (0..messages.len()).find(is_next);
        let Some(next) = next.or_else(|| is_placed.iter().position(|placed| !placed)) else {
            break;
        };
        is_placed[next] = true;
        order.push(next);
    }
    let mut messages: Vec<Option<Message>> = messages.into_iter().map(Some).collect();
    order.into_iter().filter_map(|n| messages[n].take()).collect()
}

/// The lines that a message is made of.
fn lines(message: &Message) -> impl Iterator<Item = &RequestId> {
    let of_blocks = message.blocks.iter().map(|(key, _)| &key.line);
    std::iter::once(&message.content.stamp.request_id).chain(of_blocks)
}

/// When the lines were written that say nothing and that others follow ([`MessageOrigin::Link`]).
#[derive(Debug, Default)]
pub(crate) struct Links(HashMap<RequestId, Timestamp>);

impl Links {
    /// Takes them out of the messages of a conversation.
    pub(crate) fn take(messages: &mut Vec<Message>) -> Self {
        let is_link = |one: &mut Message| one.origin == MessageOrigin::Link;
        let links = messages.extract_if(.., is_link).map(|one| one.content.stamp);
        Self(links.map(|stamp| (stamp.request_id, stamp.at)).collect())
    }
}

/// A part of the main thread that a later prompt has replaced: what was said from `from` until `until`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replaced {
    /// The prompt that was replaced.
    pub prompt_id: Uuid,
    /// The prompt that replaced it.
    pub by: Uuid,
    /// When the first was sent.
    pub from: Timestamp,
    /// When the other was sent.
    pub until: Timestamp,
    /// Whether it was answered: the person went back behind the answer. Else it was withdrawn before.
    pub is_answered: bool,
}

impl Replaced {
    /// The parts of a conversation that were replaced, earliest first. `messages` are in order.
    ///
    /// A prompt replaces another one that follows the same line, or that has the same number and is not answered. It
    /// does not where the part goes on later: then two clients have the session open, and both were heard.
    pub(crate) fn of(messages: &[Message], tool_uses: &[ToolUse], links: &Links) -> Vec<Self> {
        let main: Vec<&Message> = messages.iter().filter(|one| one.agent_id.is_none()).collect();
        let prompts: Vec<&Message> = main.iter().copied().filter(|one| is_prompt(one)).collect();
        let mut found: Vec<Self> = Vec::new();
        for (n, prompt) in prompts.iter().enumerate() {
            let from = prompt.content.stamp.at;
            if found.last().is_some_and(|last| from < last.until) {
                continue;
            }
            let later = &prompts[n + 1..];
            let sibling = later.iter().rev().find(|one| !one.parents.is_disjoint(&prompt.parents));
            let same = |one: &&&Message| {
                one.prompt_index.is_some() && one.prompt_index == prompt.prompt_index
            };
            let is_answered = |until| {
                let is_between = |at: Timestamp| from <= at && at < until;
                main.iter()
                    .any(|one| one.role == Role::Assistant && is_between(one.content.stamp.at))
            };
            let anew = later.first().filter(same);
            let anew = anew.filter(|one| !is_answered(one.content.stamp.at));
            let Some(by) = sibling.or(anew) else { continue };
            let until = by.content.stamp.at;
            if goes_on(&main, tool_uses, links, from..until) {
                continue;
            }
            let is_answered = is_answered(until);
            found.push(Self { prompt_id: prompt.id, by: by.id, from, until, is_answered });
        }
        found
    }

    /// Whether something of the main thread at this time belongs to the part.
    #[must_use]
    pub fn has(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.until
    }
}

fn is_prompt(message: &Message) -> bool {
    let is_line = matches!(message.origin, MessageOrigin::Transcript | MessageOrigin::Queued);
    message.role == Role::User && is_line
}

/// Whether something after a part of the main thread follows a line of it.
fn goes_on(
    main: &[&Message],
    tool_uses: &[ToolUse],
    links: &Links,
    Range { start, end }: Range<Timestamp>,
) -> bool {
    let is_between = |at: Timestamp| start <= at && at < end;
    let of_links = |line: &RequestId| links.0.get(line).copied().is_some_and(is_between);
    let of_blocks = |line: &RequestId| {
        main.iter()
            .any(|one| one.blocks.iter().any(|(key, _)| key.line == *line && is_between(key.at)))
    };
    let of_results = |line: &RequestId| {
        tool_uses
            .iter()
            .filter_map(|one| one.result.as_ref())
            .any(|result| result.stamp.request_id == *line && is_between(result.stamp.at))
    };
    let later = main.iter().filter(|one| one.content.stamp.at > end);
    later
        .flat_map(|one| &one.parents)
        .any(|line| of_links(line) || of_blocks(line) || of_results(line))
}
