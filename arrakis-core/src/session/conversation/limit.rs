//! What names, identifiers and paths may take. They are indexed, and stand in rows that many events write again, so
//! each has a limit. Words and JSON have none of their own: the payload's limit is theirs.

use super::{Block, Blocks, Message, MessageKey, Subagent, ToolUse};
#[cfg(feature = "runtime")]
use super::{Changes, Conversation, Stamped};
use crate::base::digest::Digest;
#[cfg(feature = "runtime")]
use crate::base::limits::{CLIENT_COST_MAX_MODELS, PATH_MAX_BYTES};
use crate::base::limits::{INDEXED_TEXT_MAX_BYTES, cut};

/// What stands where the rest of a text was cut off, before the beginning of the whole text's digest: two texts stay
/// two.
const MARK: &str = "…";

/// How many characters of the digest there are.
const DIGEST_CHARACTERS: usize = 16;

/// An identifier or a name as it is kept: without U+0000, which no identifier has and not every column can hold, and
/// not longer than [`INDEXED_TEXT_MAX_BYTES`]. What is kept of a longer one ends with [`MARK`] and a digest.
#[cfg(feature = "runtime")]
pub(crate) fn name(text: &str) -> String {
    limited(text.to_owned(), INDEXED_TEXT_MAX_BYTES)
}

fn limited(mut text: String, max_bytes: usize) -> String {
    if text.contains('\0') {
        text = text.replace('\0', "\u{fffd}");
    }
    if text.len() > max_bytes {
        let digest = Digest::of(text.as_bytes()).to_string();
        let mark = [MARK, cut(&digest, DIGEST_CHARACTERS)].concat();
        text.truncate(text.floor_char_boundary(max_bytes - mark.len()));
        text.push_str(&mark);
    }
    text
}

fn limit(text: &mut String, max_bytes: usize) {
    *text = limited(std::mem::take(text), max_bytes);
}

fn limit_names<'a>(texts: impl IntoIterator<Item = Option<&'a mut String>>) {
    texts.into_iter().flatten().for_each(|text| limit(text, INDEXED_TEXT_MAX_BYTES));
}

#[cfg(feature = "runtime")]
fn value(stamped: &mut Option<Stamped<String>>) -> Option<&mut String> {
    stamped.as_mut().map(|stamped| &mut stamped.value)
}

#[cfg(feature = "runtime")]
impl Conversation {
    /// Limits its names and paths.
    pub(crate) fn limit(&mut self) {
        for path in [&mut self.project_path, &mut self.transcript_path] {
            value(path).into_iter().for_each(|path| limit(path, PATH_MAX_BYTES));
        }
        let Self { title, model, git_branch, version, ended, .. } = self;
        limit_names([model, git_branch, version, ended].map(value));
        limit_names([title.as_mut().map(|title| &mut title.value)]);
        limit_names([self.host.as_mut()]);
        if let Some(cost) = &mut self.client_cost {
            let models = std::mem::take(&mut cost.models).into_iter();
            let models = models.take(CLIENT_COST_MAX_MODELS);
            cost.models = models.map(|(model, cost)| (name(&model), cost)).collect();
        }
    }
}

impl MessageKey {
    pub(crate) fn limit(&mut self) {
        if let Self::Api(id) = self {
            limit(id, INDEXED_TEXT_MAX_BYTES);
        }
    }
}

impl Message {
    /// Limits its names.
    pub(crate) fn limit(&mut self) {
        let Self { api_id, model, agent_id, prompt_id, stop_reason, blocks, .. } = self;
        limit_names([api_id, model, agent_id, prompt_id, stop_reason].map(Option::as_mut));
        blocks.limit();
    }
}

impl Blocks {
    fn limit(&mut self) {
        for block in self.values_mut() {
            match block {
                Block::ToolUse { tool_use_id: text } | Block::Other { kind: text } => {
                    limit(text, INDEXED_TEXT_MAX_BYTES);
                }
                Block::Image { media_type } => limit_names([media_type.as_mut()]),
                Block::Text { .. } | Block::Thinking { .. } => {}
            }
        }
    }
}

impl ToolUse {
    /// Limits its names.
    pub(crate) fn limit(&mut self) {
        let Self { tool_use_id, tool_name, agent_id, prompt_id, message_key, .. } = self;
        limit_names([tool_use_id, agent_id, prompt_id].map(Option::as_mut));
        limit(tool_name, INDEXED_TEXT_MAX_BYTES);
        message_key.iter_mut().for_each(MessageKey::limit);
    }
}

impl Subagent {
    /// Limits its names.
    pub(crate) fn limit(&mut self) {
        let Self { agent_id, agent_type, tool_use_id, .. } = self;
        limit_names([Some(agent_id), agent_type.as_mut(), tool_use_id.as_mut()]);
    }
}

#[cfg(feature = "runtime")]
impl Changes {
    /// Limits what all values are named.
    pub(crate) fn limit(&mut self) {
        self.conversations.iter_mut().for_each(Conversation::limit);
        self.messages.iter_mut().for_each(Message::limit);
        self.tool_uses.iter_mut().for_each(ToolUse::limit);
        self.subagents.iter_mut().for_each(Subagent::limit);
    }
}

#[cfg(all(test, feature = "runtime"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_says_so_and_stays_what_it_is() {
        assert_eq!(name("main"), "main");
        assert_eq!(name("a\0b"), "a\u{fffd}b");
        let long = "é".repeat(1000);
        let kept = name(&long);
        assert!(kept.len() <= INDEXED_TEXT_MAX_BYTES, "{}", kept.len());
        assert!(kept.starts_with("éé") && kept.contains(MARK), "{kept}");
        assert_eq!(name(&kept), kept, "it is not cut again");
        assert_ne!(name(&format!("{long}x")), kept, "two texts stay two");
    }
}
