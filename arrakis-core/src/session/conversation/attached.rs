//! What stands beside prompts: it is shown as a part of them.

use std::collections::HashMap;

use uuid::Uuid;

use super::{Block, BlockKey, Message, MessageOrigin, Role};
use crate::base::id::RequestId;

/// How far in time something is from its prompt at most, where no line tells of which prompt it is.
const NEAR_MILLIS: u128 = 50;

/// What the client has sent to the model beside prompts ([`MessageOrigin::Attachment`]).
#[derive(Debug, Default)]
pub(super) struct Attached(Vec<Message>);

impl Attached {
    /// Takes it out of the messages of a conversation.
    pub(super) fn take(messages: &mut Vec<Message>) -> Self {
        let is_attached = |one: &mut Message| one.origin == MessageOrigin::Attachment;
        let mut taken: Vec<Message> = messages.extract_if(.., is_attached).collect();
        taken.sort_by(|a, b| (&a.content.stamp, a.id).cmp(&(&b.content.stamp, b.id)));
        Self(taken)
    }

    /// Adds it to the prompts that it belongs to. What belongs to none, such as the files that the client reads again
    /// after a compaction, is left out.
    pub(super) fn give(self, messages: &mut [Message]) {
        if self.0.is_empty() {
            return;
        }
        let prompts: HashMap<RequestId, Uuid> = messages
            .iter()
            .filter(|one| one.role == Role::User && one.origin.is_line())
            .map(|one| (one.content.stamp.request_id.clone(), one.id))
            .collect();
        let parents: HashMap<&RequestId, &Message> =
            self.0.iter().map(|one| (&one.content.stamp.request_id, one)).collect();
        let mut given: HashMap<Uuid, Vec<(RequestId, Block)>> = HashMap::new();
        for one in &self.0 {
            let of = prompt_of(one, &prompts, &parents).or_else(|| near(one, messages));
            let Some(of) = of else { continue };
            let blocks = one.blocks.iter().map(|(key, block)| (key.line.clone(), block.clone()));
            given.entry(of).or_default().extend(blocks);
        }
        for message in messages {
            let Some(blocks) = given.remove(&message.id) else { continue };
            let at = message.blocks.iter().map(|(key, _)| key.at).max();
            let at = at.unwrap_or(message.content.stamp.at);
            let keyed = (1..)
                .zip(blocks)
                .map(|(index, (line, block))| (BlockKey { at, index, line, n: 0 }, block));
            let all = message.blocks.iter().map(|(key, block)| (key.clone(), block.clone()));
            message.blocks = all.chain(keyed).collect();
        }
    }
}

/// The prompt that it follows, maybe behind others of its kind.
fn prompt_of(
    one: &Message,
    prompts: &HashMap<RequestId, Uuid>,
    others: &HashMap<&RequestId, &Message>,
) -> Option<Uuid> {
    let mut at = one;
    for _ in 0..=others.len() {
        let parent = at.parents.first()?;
        if let Some(prompt) = prompts.get(parent) {
            return Some(*prompt);
        }
        at = others.get(parent)?;
    }
    None
}

/// The prompt of the same thread that is nearest in time.
fn near(one: &Message, messages: &[Message]) -> Option<Uuid> {
    let at = one.content.stamp.at;
    let apart = |other: &Message| {
        let other = other.content.stamp.at;
        let apart = at.since(other).max(other.since(at));
        apart.as_millis()
    };
    let is_prompt = |other: &&Message| {
        other.role == Role::User && other.origin.is_line() && other.agent_id == one.agent_id
    };
    let nearest = messages.iter().filter(is_prompt).min_by_key(|other| apart(other))?;
    (apart(nearest) <= NEAR_MILLIS).then_some(nearest.id)
}
