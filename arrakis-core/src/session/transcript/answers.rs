//! Answers whose ids come again.
//!
//! Some gateways give all answers one id, and all requests as well. The lines of two such answers are told apart by the
//! prompts that led to them, which only the lines before them tell.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::line_type::{LineType, Named};
use crate::base::digest::Digest;
use crate::session::hook::{Field, object};

/// How many lines are remembered with the prompts that led to them. A line follows one that stands shortly before it.
const LINES_MAX: usize = 64;

/// How many ids are remembered: one that comes again does so soon.
const IDS_MAX: usize = 8;

/// How many prompts are remembered for each id.
const PROMPTS_MAX: usize = 32;

/// Which answers have had the ids of the latest lines of a file. It depends on the lines of the file before it alone, and
/// has a few kilobytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// The latest lines, and the prompts that led to them.
    lines: VecDeque<(u64, u64)>,
    /// The latest ids.
    ids: VecDeque<Id>,
}

/// An id, and the prompts that it has answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Id {
    id: u64,
    prompts: VecDeque<u64>,
    /// How many prompts came before these.
    before: u32,
    /// The number of the answer that had the id last.
    last: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Link<'a> {
    #[serde(borrow, default)]
    uuid: Field<'a>,
    #[serde(borrow, default)]
    parent_uuid: Field<'a>,
    #[serde(borrow, default)]
    request_id: Field<'a>,
    #[serde(borrow, default)]
    api_block_index: Field<'a>,
    #[serde(borrow, default)]
    is_meta: Field<'a>,
    #[serde(borrow, default)]
    tool_use_result: Field<'a>,
    #[serde(borrow, default)]
    message: Field<'a>,
}

#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow, default)]
    id: Field<'a>,
    #[serde(borrow, default)]
    content: Field<'a>,
}

impl Answers {
    /// Whether nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Looks at a line of the file.
    pub fn look(&mut self, line: &[u8]) {
        if let Ok(named) = object::<Named<'_>>(line) {
            self.of(line, &named);
        }
    }

    /// The id of a line of an answer whose id an earlier one has had, and the number of the answer among these.
    pub(super) fn of(&mut self, line: &[u8], named: &Named<'_>) -> Option<(String, u32)> {
        let line_type = named.line_type.text()?;
        if !matches!(&*line_type, "user" | "assistant" | "system" | "attachment") {
            return None;
        }
        let link: Link<'_> = object(line).ok()?;
        let uuid = link.uuid.text()?;
        let parent = link.parent_uuid.text().map(|parent| hash(&[&parent]));
        let led = parent.and_then(|parent| self.led_to(parent));
        let own = hash(&[&uuid]);
        let prompt = if link.is_prompt(named) { Some(own) } else { led };
        if let Some(prompt) = prompt {
            self.lines.push_back((own, prompt));
            if self.lines.len() > LINES_MAX {
                self.lines.pop_front();
            }
        }
        if LineType::of(named) != LineType::Assistant {
            return None;
        }
        let said: Said<'_> = link.message.object()?;
        let request = link.request_id.text().unwrap_or_default();
        let id = hash(&[&said.id.text()?, &request]);
        // Later blocks of an answer belong to its first one, whatever they follow.
        let begins = link.api_block_index.read::<u32>().unwrap_or(0) == 0;
        let number = self.number(id, prompt.filter(|_| begins));
        (number > 1).then(|| (uuid.into_owned(), number))
    }

    /// The prompt that led to a line.
    fn led_to(&self, line: u64) -> Option<u64> {
        self.lines.iter().rev().find(|(known, _)| *known == line).map(|(_, prompt)| *prompt)
    }

    /// The number of the answer with this id to this prompt; without a prompt, that of the last one.
    fn number(&mut self, id: u64, prompt: Option<u64>) -> u32 {
        let known = self.ids.iter().position(|one| one.id == id);
        let known = known.and_then(|place| self.ids.remove(place));
        let mut one = known.unwrap_or_else(|| Id { id, last: 1, ..Id::default() });
        if let Some(prompt) = prompt {
            let place =
                one.prompts.iter().position(|known| *known == prompt).unwrap_or_else(|| {
                    one.prompts.push_back(prompt);
                    if one.prompts.len() > PROMPTS_MAX {
                        one.prompts.pop_front();
                        one.before += 1;
                    }
                    one.prompts.len() - 1
                });
            one.last = one.before + u32::try_from(place).unwrap_or(0) + 1;
        }
        let number = one.last;
        self.ids.push_back(one);
        if self.ids.len() > IDS_MAX {
            self.ids.pop_front();
        }
        number
    }
}

impl Link<'_> {
    /// Whether the person may have said it: it is neither the client's nor the result of a tool.
    fn is_prompt(&self, named: &Named<'_>) -> bool {
        if LineType::of(named) != LineType::User
            || self.is_meta.is_set()
            || self.tool_use_result.is_set()
        {
            return false;
        }
        #[derive(Deserialize)]
        struct Block<'a> {
            #[serde(borrow, default, rename = "type")]
            kind: Field<'a>,
        }
        let Some(said) = self.message.object::<Said<'_>>() else { return false };
        let blocks: Vec<Block<'_>> = said.content.read().unwrap_or_default();
        blocks.iter().all(|block| block.kind.text().is_none_or(|kind| kind != "tool_result"))
    }
}

fn hash(parts: &[&str]) -> u64 {
    let digest = Digest::of(parts.join("\n").as_bytes());
    digest.as_bytes().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
