//! Messages, and the blocks that they are made of.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Stamp, Stamped};
use crate::base::clock::Timestamp;
use crate::base::id::{RequestId, message_id};
use crate::base::limits::{MESSAGE_MAX_BLOCKS, MESSAGE_MAX_PARENTS};
use crate::session::usage::{Usage, Usd};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The client itself, such as an error of the API.
    System,
}

impl Role {
    /// The name in lower case, as it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::System => "system",
        }
    }
}

/// Where a message was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageOrigin {
    /// `UserPromptSubmit`; provisional, the transcript has the prompt too, unless it was withdrawn.
    Prompt,
    /// The last words that `Stop` or `SubagentStop` carries; provisional as well.
    Stop,
    /// `StopFailure`; provisional as well.
    Failure,
    /// The transcript says that the prompt was put into the queue; provisional as well. Clients 2.1.20 to
    /// 2.1.49 leave no other trace of a prompt that was handed over within a turn.
    Enqueued,
    /// The transcript says that the person took the prompt back out of the queue: the model never got it,
    /// though `UserPromptSubmit` has told of it. Nobody is shown it.
    Withdrawn,
    /// A line of the transcript that says nothing, and that others follow: it tells where those stand. Nobody is shown it.
    Link,
    /// The transcript.
    Transcript,
    /// The transcript, and the prompt waited in the queue while the model worked.
    Queued,
    /// The transcript: what the person said in answer to a question of a tool, or when rejecting a tool use. It is
    /// no prompt.
    Answer,
    /// The transcript: what the client sent to the model beside a prompt, such as a file that the prompt mentions. It is
    /// a part of that prompt.
    Attachment,
}

/// What words of the client are to a person, where the transcript tells it by more than the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// A command of the client that the person typed, such as `/rename`.
    Command,
    /// What a command has put out.
    Output,
    /// Only the model is meant to read it, such as a reminder or the summary of a compaction.
    ForModel,
}

impl MessageOrigin {
    /// Whether the transcript has, or will have, the same message under another id.
    #[must_use]
    pub fn is_provisional(self) -> bool {
        matches!(self, Self::Prompt | Self::Stop | Self::Failure | Self::Enqueued)
    }

    /// Whether a line of the transcript is the message.
    #[must_use]
    pub fn is_line(self) -> bool {
        matches!(self, Self::Transcript | Self::Queued | Self::Answer)
    }

    /// Whether the person sent it while the model worked, so that it had to wait.
    #[must_use]
    pub fn has_waited(self) -> bool {
        matches!(self, Self::Enqueued | Self::Queued)
    }
}

/// Where a block stands in its message. A transcript has one line for each block that came from the API,
/// so this begins with the line's time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlockKey {
    /// When the line was written.
    pub at: Timestamp,
    /// The number of the line's blocks in the API's message (`apiBlockIndex`); 0 where it has none.
    pub index: u32,
    /// Names the line.
    pub line: RequestId,
    /// The number of the block in the line.
    pub n: u32,
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Block {
    /// Words.
    Text {
        /// The words.
        text: String,
    },
    /// The model's thinking; empty where it was left out.
    Thinking {
        /// The words.
        text: String,
    },
    /// The wish to use a tool.
    ToolUse {
        /// Claude Code's tool use id.
        tool_use_id: String,
    },
    /// An image.
    Image {
        /// Its media type, such as `image/png`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        media_type: Option<String>,
    },
    /// Anything else.
    Other {
        /// Its type, as the transcript says.
        kind: String,
    },
}

/// The blocks of a message, in order: a keyed set of which the first [`MESSAGE_MAX_BLOCKS`] are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Entry>", into = "Vec<Entry>")]
pub struct Blocks(BTreeMap<BlockKey, Block>);

#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    key: BlockKey,
    #[serde(flatten)]
    block: Block,
}

impl From<Vec<Entry>> for Blocks {
    fn from(entries: Vec<Entry>) -> Self {
        entries.into_iter().map(|Entry { key, block }| (key, block)).collect()
    }
}

impl From<Blocks> for Vec<Entry> {
    fn from(blocks: Blocks) -> Self {
        blocks.0.into_iter().map(|(key, block)| Entry { key, block }).collect()
    }
}

impl IntoIterator for Blocks {
    type Item = (BlockKey, Block);
    type IntoIter = std::collections::btree_map::IntoIter<BlockKey, Block>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl FromIterator<(BlockKey, Block)> for Blocks {
    fn from_iter<I: IntoIterator<Item = (BlockKey, Block)>>(all: I) -> Self {
        let mut blocks = Self::default();
        for (key, block) in all {
            blocks.add(key, block);
        }
        blocks
    }
}

impl Blocks {
    /// What stands between the texts of two blocks.
    pub const SEPARATOR: &'static str = "\n\n";

    /// The blocks, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&BlockKey, &Block)> {
        self.0.iter()
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Block> {
        self.0.values_mut()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The texts.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.values().filter_map(|block| match block {
            Block::Text { text } => Some(text.as_str()),
            _ => None,
        })
    }

    fn add(&mut self, key: BlockKey, block: Block) {
        // The same place says the same; where it does not (a line was redacted by other rules), the
        // greater stays.
        let place = self.0.entry(key).or_insert_with(|| block.clone());
        if block > *place {
            *place = block;
        }
        if self.0.len() > MESSAGE_MAX_BLOCKS {
            self.0.pop_last();
        }
    }

    /// The words of the message that these are.
    fn content(&self) -> Option<Stamped<String>> {
        let (first, _) = self.0.first_key_value()?;
        let stamp = Stamp { at: first.at, request_id: first.line.clone() };
        let texts: Vec<&str> = self.texts().collect();
        Some(Stamped { stamp, value: texts.join(Self::SEPARATOR) })
    }
}

/// What lines of transcripts tell of where a message or a tool use belongs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Standing {
    /// A line of the main thread is of it. It belongs there, though transcripts of subagents may repeat it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub main_thread: bool,
    /// The session has it from the one that it was forked from or goes on, where it is counted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub copied: bool,
}

impl Standing {
    /// Whether no line tells anything.
    pub(super) fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// Joins what `other` knows into this. What belongs to the main thread has no subagent.
    pub(super) fn merge(
        &mut self,
        other: Self,
        agent_id: &mut Option<String>,
        came: Option<String>,
    ) {
        self.main_thread |= other.main_thread;
        self.copied |= other.copied;
        *agent_id = agent_id.take().max(came).filter(|_| !self.main_thread);
    }
}

/// What makes a message one message of its conversation: its id is derived from this.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MessageKey {
    /// The API's ids of the message and its request. Every line with these adds to the message.
    Api(String),
    /// The event or the line that the message is.
    Stamp(RequestId),
}

impl MessageKey {
    /// The id of the message of this key.
    #[must_use]
    pub fn id(&self, conversation_id: Uuid) -> Uuid {
        match self {
            Self::Api(id) => message_id(conversation_id, "api", id),
            Self::Stamp(id) => message_id(conversation_id, "stamp", id.as_str()),
        }
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Derived from the conversation and [`key`](Self::key).
    pub id: Uuid,
    /// The conversation.
    pub conversation_id: Uuid,
    /// The API's ids of it and of its request, cut; `None` where an event or one line is the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_id: Option<String>,
    /// Who speaks.
    pub role: Role,
    /// Where it was read from.
    pub origin: MessageOrigin,
    /// The words. Those of the blocks where there are any, stamped by the first; else those of the
    /// earliest event that carries them. A message that only uses tools has none.
    pub content: Stamped<String>,
    /// What it is made of, as the transcript says.
    #[serde(default, skip_serializing_if = "Blocks::is_empty")]
    pub blocks: Blocks,
    /// The model that wrote it.
    pub model: Option<String>,
    /// What it took, where it came from the API.
    pub usage: Option<Usage>,
    /// The subagent whose thread it belongs to; none is the main thread.
    pub agent_id: Option<String>,
    /// The prompt that it belongs to.
    pub prompt_id: Option<String>,
    /// When the person sent it, where the transcript says that beside the time of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<Timestamp>,
    /// What the client says that it cost, as clients before 1.0.9 do on its lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cost: Option<Usd>,
    /// What the lines that it is tell of its place.
    #[serde(default, skip_serializing_if = "Standing::is_unknown")]
    pub standing: Standing,
    /// The lines that its lines follow in the transcript, the first [`MESSAGE_MAX_PARENTS`] in order. It orders lines of
    /// one time, and shows where the conversation went back.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub parents: BTreeSet<RequestId>,
    /// Which prompt of the session it is, as the client counts: a number that comes again replaces the prompt that
    /// had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_index: Option<u32>,
    /// What it is to a person, where the client wrote it and the transcript tells that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<Notice>,
    /// Why the model stopped, as the API says: `end_turn`, `max_tokens`, `refusal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<String>,
    /// How many blocks it has, where those are more than are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_count: Option<u32>,
}

impl Message {
    /// A message with these words. Without an `api_id` the stamp of the words names it.
    #[must_use]
    pub fn new(
        conversation_id: Uuid,
        api_id: Option<String>,
        role: Role,
        origin: MessageOrigin,
        content: Stamped<String>,
    ) -> Self {
        let message = Self {
            id: Uuid::nil(),
            conversation_id,
            api_id,
            role,
            origin,
            content,
            blocks: Blocks::default(),
            model: None,
            usage: None,
            agent_id: None,
            prompt_id: None,
            sent_at: None,
            client_cost: None,
            standing: Standing::default(),
            parents: BTreeSet::new(),
            prompt_index: None,
            notice: None,
            stop_reason: None,
            block_count: None,
        };
        message.named()
    }

    /// The same message with limited names and the id that follows from them.
    fn named(mut self) -> Self {
        self.limit();
        Self { id: self.key().id(self.conversation_id), ..self }
    }

    /// Whether a model says it that advises the one that writes.
    #[must_use]
    pub fn is_advice(&self) -> bool {
        self.api_id.as_ref().is_some_and(|id| id.contains("#advisor_message"))
    }

    /// What makes it this message. Merging does not change it: what has the same id has the same key.
    #[must_use]
    pub fn key(&self) -> MessageKey {
        match &self.api_id {
            Some(id) => MessageKey::Api(id.clone()),
            None => MessageKey::Stamp(self.content.stamp.request_id.clone()),
        }
    }

    /// The message with these blocks, and their words.
    #[must_use]
    pub fn with_blocks(mut self, blocks: Blocks) -> Self {
        if let Some(content) = blocks.content() {
            (self.content, self.blocks) = (content, blocks);
        }
        self
    }

    /// A message from a snapshot, as a message of this conversation: its names and blocks are limited, its id is derived
    /// again, and its content is taken from its blocks.
    #[cfg(feature = "runtime")]
    pub(crate) fn taken_into(mut self, conversation_id: Uuid) -> Self {
        let mut blocks = Blocks::default();
        for (key, block) in std::mem::take(&mut self.blocks).0 {
            blocks.add(key, block);
        }
        Self { conversation_id, ..self.with_blocks(blocks) }.named()
    }

    /// Takes the blocks since `at` out of this message, as one of their own; none where there are none.
    #[cfg(feature = "runtime")]
    pub(super) fn split_off(&mut self, at: Timestamp) -> Option<Self> {
        let all = std::mem::take(&mut self.blocks).into_iter();
        let (before, behind): (Vec<_>, Vec<_>) = all.partition(|(key, _)| key.at < at);
        let part = self.clone();
        *self = part.clone().with_blocks(before.into_iter().collect());
        let line = behind.first()?.0.line.clone();
        let id = MessageKey::Stamp(line).id(self.conversation_id);
        Some(Self { id, ..part }.with_blocks(behind.into_iter().collect()))
    }

    /// Joins what `other` knows of the same message into this. Blocks outweigh what an event says.
    pub fn merge(&mut self, other: Self) {
        if other.conversation_id != self.conversation_id {
            return; // an id belongs to one conversation: this one was made up
        }
        self.api_id = self.api_id.take().max(other.api_id);
        self.role = self.role.max(other.role);
        self.origin = self.origin.max(other.origin);
        match (self.blocks.is_empty(), other.blocks.is_empty()) {
            (true, false) => (self.content, self.blocks) = (other.content, other.blocks),
            (true, true) if other.content < self.content => self.content = other.content,
            (false, false) if self.blocks != other.blocks => {
                for (key, block) in other.blocks.0 {
                    self.blocks.add(key, block);
                }
                if let Some(content) = self.blocks.content() {
                    self.content = content;
                }
            }
            _ => {}
        }
        self.model = self.model.take().max(other.model);
        self.usage = match (self.usage, other.usage) {
            (Some(mine), Some(other)) => Some(mine.max(other)),
            (mine, other) => mine.or(other),
        };
        self.standing.merge(other.standing, &mut self.agent_id, other.agent_id);
        self.prompt_id = self.prompt_id.take().max(other.prompt_id);
        self.sent_at = self.sent_at.max(other.sent_at);
        self.client_cost = self.client_cost.max(other.client_cost);
        self.parents.extend(other.parents);
        while self.parents.len() > MESSAGE_MAX_PARENTS {
            self.parents.pop_last();
        }
        self.prompt_index = self.prompt_index.max(other.prompt_index);
        self.notice = self.notice.max(other.notice);
        self.stop_reason = self.stop_reason.take().max(other.stop_reason);
        self.block_count = self.block_count.max(other.block_count);
    }
}
