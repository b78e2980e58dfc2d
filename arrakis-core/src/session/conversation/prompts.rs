//! Which of a conversation's prompts are hidden, because something else tells of them.
//!
//! A prompt leaves up to three traces: `UserPromptSubmit`, a line of the queue, and a line of its own. They
//! have no id in common: the hook of a prompt that waits has the id of the prompt before it. So they are matched
//! by thread and text, one for one, and by time where there are more of one kind than of another.
//!
//! | trace | shown |
//! |---|---|
//! | a line of its own | always; it says whose words they are |
//! | the line that it was put into the queue | unless it has a line of its own, or was withdrawn |
//! | the hook | unless any of the lines tells of it, or it was withdrawn |
//! | the line that it was withdrawn | never |
//!
//! A hook whose text no line has (the client may have changed it) is hidden by a line of the person with the
//! same prompt id, if that line has no other hook.

use std::collections::BTreeMap;

use super::reading::{said_by, strip_whitespace};
use super::{Message, MessageOrigin, Role};
use crate::base::clock::Timestamp;

/// A thread, and a text or a prompt id.
type Key<'a> = (Option<&'a str>, String);

/// The places of messages that have something in common, by time.
type Groups<'a> = BTreeMap<Key<'a>, Vec<usize>>;

/// For each message, whether it is a prompt that is not shown. `messages` are in order of time.
pub(super) fn hidden(messages: &[Message]) -> Vec<bool> {
    let mut prompts = Prompts { messages, hidden: vec![false; messages.len()] };
    let withdrawn = prompts.of(|message| message.origin == MessageOrigin::Withdrawn);
    let waiting = prompts.of(|message| message.origin == MessageOrigin::Enqueued);
    let hooks = prompts.of(|message| message.origin == MessageOrigin::Prompt);
    prompts.hide(&withdrawn);
    prompts.hide_told(&waiting, &withdrawn);
    let without_hook = prompts.hide_told(&hooks, &withdrawn);
    // What is left of the queue is shown, and tells of a hook.
    prompts.pair(&hooks, &waiting, |message| strip_whitespace(&message.content.value));
    let of_person: Vec<usize> =
        without_hook.into_iter().filter(|n| messages[*n].role == Role::User).collect();
    prompts.pair(&hooks, &of_person, |message| message.prompt_id.clone().unwrap_or_default());
    prompts.hidden
}

struct Prompts<'a> {
    messages: &'a [Message],
    hidden: Vec<bool>,
}

impl<'a> Prompts<'a> {
    fn of(&self, is_wanted: fn(&Message) -> bool) -> Vec<usize> {
        (0..self.messages.len()).filter(|n| is_wanted(&self.messages[*n])).collect()
    }

    fn hide(&mut self, all: &[usize]) {
        for n in all {
            self.hidden[*n] = true;
        }
    }

    /// Messages by thread and what `key` says, without those of which it says nothing.
    fn groups(&self, all: &[usize], key: impl Fn(&Message) -> Option<String>) -> Groups<'a> {
        let mut groups = Groups::new();
        for n in all {
            let message = &self.messages[*n];
            if let Some(key) = key(message) {
                groups.entry((message.agent_id.as_deref(), key)).or_default().push(*n);
            }
        }
        groups
    }

    /// Hides those of `provisional` that were withdrawn, or that a line of the same text tells of. Returns the
    /// lines that tell of none.
    fn hide_told(&mut self, provisional: &[usize], withdrawn: &[usize]) -> Vec<usize> {
        let text = |message: &Message| Some(strip_whitespace(&message.content.value));
        let mut open = self.groups(provisional, text);
        for n in withdrawn {
            let message = &self.messages[*n];
            let key = (message.agent_id.as_deref(), strip_whitespace(&message.content.value));
            let Some(group) = open.get_mut(&key).filter(|group| !group.is_empty()) else {
                continue;
            };
            // The latest before it was withdrawn.
            let before = group.partition_point(|one| one < n).saturating_sub(1);
            self.hidden[group.remove(before)] = true;
        }
        let mut lines =
            self.of(|message| is_prompt_line(message.origin) && message.role != Role::Assistant);
        if open.is_empty() {
            return lines;
        }
        for nth in 0..2 {
            let said = self
                .groups(&lines, |message| said_by(message, strip_whitespace).into_iter().nth(nth));
            let mut telling = vec![false; self.messages.len()];
            for (key, lines) in said {
                let Some(group) = open.get_mut(&key) else { continue };
                for (one, line) in pairs(self.messages, group, &lines) {
                    self.hidden[one] = true;
                    telling[line] = true;
                }
                group.retain(|one| !self.hidden[*one]);
            }
            lines.retain(|line| !telling[*line]);
        }
        lines
    }

    /// Hides of `hooks` one for each that is still shown of `others` in the same thread of which `key` says the
    /// same, where it says anything.
    fn pair(&mut self, hooks: &[usize], others: &[usize], key: impl Fn(&Message) -> String) {
        let is_shown = |n: &&usize| !self.hidden[**n];
        let hooks: Vec<usize> = hooks.iter().filter(is_shown).copied().collect();
        let others: Vec<usize> = others.iter().filter(is_shown).copied().collect();
        let key = |message: &Message| Some(key(message)).filter(|key| !key.is_empty());
        let (hooks, others) = (self.groups(&hooks, key), self.groups(&others, key));
        for (key, others) in others {
            let hooks = hooks.get(&key).map(Vec::as_slice).unwrap_or_default();
            for (hook, _) in pairs(self.messages, hooks, &others) {
                self.hidden[hook] = true;
            }
        }
    }
}

/// Pairs messages that have something in common in their order of time, as many as there can be. Where there are
/// more of one kind, those are left that are further in time.
fn pairs(messages: &[Message], some: &[usize], others: &[usize]) -> Vec<(usize, usize)> {
    let at = |n: usize| sent_at(&messages[n]);
    let mut others = others.to_vec();
    others.sort_by_key(|n| (at(*n), *n));
    let is_fewer = some.len() <= others.len();
    let (few, many) = if is_fewer { (some, &others[..]) } else { (&others[..], some) };
    let mut place = 0;
    let mut pairs = Vec::with_capacity(few.len());
    for (n, one) in few.iter().enumerate() {
        let last = many.len() - (few.len() - n);
        let apart = |place: usize| {
            let (one, other) = (at(*one), at(many[place]));
            one.since(other).max(other.since(one))
        };
        while place < last && apart(place + 1) < apart(place) {
            place += 1;
        }
        pairs.push(if is_fewer { (*one, many[place]) } else { (many[place], *one) });
        place += 1;
    }
    pairs
}

/// Whether a message of this origin is a line that may be a prompt.
fn is_prompt_line(origin: MessageOrigin) -> bool {
    origin.is_line() && origin != MessageOrigin::Answer
}

fn sent_at(message: &Message) -> Timestamp {
    message.sent_at.unwrap_or(message.content.stamp.at)
}
