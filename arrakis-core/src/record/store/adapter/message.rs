//! A message in two tables: its own row, and a row for each block where they are many or large.
//!
//! A message that takes at most [`MESSAGE_ROW_MAX_BYTES`] stands in its row as a whole. The words and blocks of a larger
//! one are rows of their own, so that adding a block writes that block and a small row, however much is stored already.
//! The large words of a message without blocks are such a row as well. A reader sees no difference, and merging gives
//! what [`Message::merge`] gives.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::joined;
use crate::base::limits::MESSAGE_MAX_BLOCKS;
use crate::session::conversation::{Block, BlockKey, Blocks, Message, Stamp};

/// What the words and blocks of a message take at most in its own row, in bytes: so much is written again when another
/// block comes. Most messages take less, and one row costs less than two.
pub const MESSAGE_ROW_MAX_BYTES: usize = 4 * 1024;

/// What a block takes in the column `blocks` beside its words, in bytes.
const BLOCK_BYTES: usize = 128;

/// Which of a message's blocks are rows: a part of its row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRows {
    /// The first of them.
    first: BlockKey,
    /// How many blocks there are; none where the only row is [`BlockKind::Words`].
    count: usize,
}

/// What a row of `message_blocks` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockKind {
    /// The words of a message without blocks.
    Words,
    /// [`Block::Text`].
    Text,
    /// [`Block::Thinking`].
    Thinking,
    /// [`Block::ToolUse`].
    ToolUse,
    /// [`Block::Image`].
    Image,
    /// [`Block::Other`].
    Other,
}

impl BlockKind {
    /// The name, as it is stored: for a block the `type` of its JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Words => "words",
            Self::Text => "text",
            Self::Thinking => "thinking",
            Self::ToolUse => "tool_use",
            Self::Image => "image",
            Self::Other => "other",
        }
    }
}

/// A row of `message_blocks`, without its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBlock {
    /// Where the block stands.
    pub key: BlockKey,
    /// What it is.
    pub kind: BlockKind,
    /// Its words, id, media type or type; only an image may have none.
    pub value: Option<String>,
}

impl StoredBlock {
    fn of(key: BlockKey, block: Block) -> Self {
        let (kind, value) = match block {
            Block::Text { text } => (BlockKind::Text, Some(text)),
            Block::Thinking { text } => (BlockKind::Thinking, Some(text)),
            Block::ToolUse { tool_use_id } => (BlockKind::ToolUse, Some(tool_use_id)),
            Block::Image { media_type } => (BlockKind::Image, media_type),
            Block::Other { kind } => (BlockKind::Other, Some(kind)),
        };
        Self { key, kind, value }
    }

    /// The block; the words of a message without blocks are none.
    fn into_block(self) -> Option<(BlockKey, Block)> {
        let value = self.value;
        let block = match self.kind {
            BlockKind::Words => return None,
            BlockKind::Text => Block::Text { text: value.unwrap_or_default() },
            BlockKind::Thinking => Block::Thinking { text: value.unwrap_or_default() },
            BlockKind::ToolUse => Block::ToolUse { tool_use_id: value.unwrap_or_default() },
            BlockKind::Image => Block::Image { media_type: value },
            BlockKind::Other => Block::Other { kind: value.unwrap_or_default() },
        };
        Some((self.key, block))
    }
}

/// A message as its row holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// The value. Where its blocks are rows it has neither words nor blocks, only the stamp of the words.
    pub value: Message,
    /// The blocks that are rows.
    pub rows: Option<BlockRows>,
}

/// Which rows of a message's blocks are needed before something can be merged into it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct NeededBlocks {
    /// Those with these keys, as far as they are there.
    pub keys: Vec<BlockKey>,
    /// Of the last ones so many, for their keys.
    pub last: usize,
}

/// What is to be written of a message.
#[derive(Debug)]
pub struct MessageWrite<'a> {
    /// The value for the row. Where its blocks are rows, only the stamp of its words counts.
    pub message: Cow<'a, Message>,
    /// The blocks that are rows, once this is written. The row then has no words and no blocks.
    pub rows: Option<BlockRows>,
    /// Rows of blocks to be added, or to be written in the place of those with their keys.
    pub put: Vec<StoredBlock>,
    /// Rows of blocks to be deleted.
    pub delete: Vec<BlockKey>,
}

impl<'a> MessageWrite<'a> {
    /// A message that is written whole, while no block of it is a row.
    #[must_use]
    pub fn whole(message: Cow<'a, Message>) -> Self {
        if fits_row(&message) {
            return Self { message, rows: None, put: Vec::new(), delete: Vec::new() };
        }
        let mut message = message.into_owned();
        let count = message.blocks.len();
        let blocks = Vec::from_iter(std::mem::take(&mut message.blocks));
        let value = std::mem::take(&mut message.content.value);
        let put = if blocks.is_empty() {
            let key = words_key(&message.content.stamp);
            vec![StoredBlock { key, kind: BlockKind::Words, value: Some(value) }]
        } else {
            blocks.into_iter().map(|(key, block)| StoredBlock::of(key, block)).collect()
        };
        let rows = put.first().map(|first| BlockRows { first: first.key.clone(), count });
        Self { message: Cow::Owned(message), rows, put, delete: Vec::new() }
    }
}

/// Whether a message stands in its row as a whole.
fn fits_row(message: &Message) -> bool {
    let beside = |block: &Block| match block {
        Block::Text { .. } => 0, // its words are in the content
        Block::Thinking { text: value }
        | Block::ToolUse { tool_use_id: value }
        | Block::Image { media_type: Some(value) }
        | Block::Other { kind: value } => value.len(),
        Block::Image { media_type: None } => 0,
    };
    let blocks: usize = message.blocks.iter().map(|(_, block)| BLOCK_BYTES + beside(block)).sum();
    message.content.value.len() + blocks <= MESSAGE_ROW_MAX_BYTES
}

/// The key of the row that holds the words of a message without blocks.
fn words_key(stamp: &Stamp) -> BlockKey {
    BlockKey { at: stamp.at, index: 0, line: stamp.request_id.clone(), n: 0 }
}

impl StoredMessage {
    /// The rows that [`join`](Self::join) needs.
    #[must_use]
    pub fn needs(&self, came: &Message) -> NeededBlocks {
        let Some(rows) = &self.rows else { return NeededBlocks::default() };
        if rows.count > 0 {
            let last = (rows.count + came.blocks.len()).saturating_sub(MESSAGE_MAX_BLOCKS);
            let keys = came.blocks.iter().map(|(key, _)| key.clone()).collect();
            return NeededBlocks { keys, last };
        }
        let is_same = came.blocks.is_empty() && came.content.stamp == self.value.content.stamp;
        NeededBlocks { keys: Vec::from_iter(is_same.then(|| rows.first.clone())), last: 0 }
    }

    /// Joins `came` to this; returns what is to be written, nothing where what is stored says it all. `found` are the
    /// rows with the keys that are [needed](Self::needs), `last` the keys of the last ones.
    #[must_use]
    pub fn join(
        self,
        came: Message,
        found: Vec<StoredBlock>,
        last: Vec<BlockKey>,
    ) -> Option<MessageWrite<'static>> {
        let Self { value, rows } = self;
        match rows {
            None => {
                joined(value, came, Message::merge).map(|one| MessageWrite::whole(Cow::Owned(one)))
            }
            Some(rows) if rows.count == 0 => join_words(value, rows, came, found),
            Some(rows) => join_blocks(value, rows, came, found, last),
        }
    }

    /// The whole message, of whose blocks `blocks` are the rows, or as many of them as the reader wants; nothing where
    /// there should be some and are none: the message is being deleted.
    #[must_use]
    pub fn whole(self, blocks: Vec<StoredBlock>) -> Option<Message> {
        let Self { mut value, rows } = self;
        if rows.is_none() {
            return Some(value);
        }
        if let [StoredBlock { kind: BlockKind::Words, value: words, .. }] = &blocks[..] {
            value.content.value = words.clone().unwrap_or_default();
            return Some(value);
        }
        let stamp = value.content.stamp.clone();
        let blocks: Blocks = blocks.into_iter().filter_map(StoredBlock::into_block).collect();
        let has_blocks = !blocks.is_empty();
        let mut value = value.with_blocks(blocks);
        value.content.stamp = stamp;
        has_blocks.then_some(value)
    }
}

/// Joins `came` to a message without blocks whose words are a row.
fn join_words(
    stored: Message,
    rows: BlockRows,
    came: Message,
    found: Vec<StoredBlock>,
) -> Option<MessageWrite<'static>> {
    let mut known = stored.clone();
    // Where the words were not asked for, the stamps tell which words stay.
    known.content.value = found.into_iter().find_map(|row| row.value).unwrap_or_default();
    let words = known.content.clone();
    let mut message = known;
    message.merge(came);
    if message.blocks.is_empty() && message.content == words {
        message.content.value = String::new();
        return (message != stored).then(|| MessageWrite {
            message: Cow::Owned(message),
            rows: Some(rows),
            put: Vec::new(),
            delete: Vec::new(),
        });
    }
    let mut write = MessageWrite::whole(Cow::Owned(message));
    if write.put.iter().all(|row| row.key != rows.first) {
        write.delete.push(rows.first);
    }
    Some(write)
}

/// Joins `came` to a message whose blocks are rows.
fn join_blocks(
    stored: Message,
    rows: BlockRows,
    mut came: Message,
    found: Vec<StoredBlock>,
    last: Vec<BlockKey>,
) -> Option<MessageWrite<'static>> {
    if came.blocks.is_empty() {
        came.content = stored.content.clone(); // blocks outweigh it
    }
    let found: BTreeMap<BlockKey, Block> =
        found.into_iter().filter_map(StoredBlock::into_block).collect();
    let mut message = stored.clone();
    message.blocks = found.iter().map(|(key, block)| (key.clone(), block.clone())).collect();
    message.merge(came);

    let mut put: BTreeMap<BlockKey, Block> = std::mem::take(&mut message.blocks)
        .into_iter()
        .filter(|(key, block)| found.get(key) != Some(block))
        .collect();
    let is_new = |key: &&BlockKey| !found.contains_key(*key);
    let count = rows.count + put.keys().filter(is_new).count();
    let first = put.keys().next().filter(|key| **key < rows.first).unwrap_or(&rows.first).clone();
    // Those behind the first ones go, whether they are there or just came.
    let mut ends: BTreeSet<BlockKey> = last.into_iter().collect();
    let stored_ends = ends.clone();
    ends.extend(put.keys().filter(is_new).cloned());
    let beyond = count.saturating_sub(MESSAGE_MAX_BLOCKS);
    let mut delete = Vec::new();
    for key in ends.into_iter().rev().take(beyond) {
        put.remove(&key);
        if stored_ends.contains(&key) {
            delete.push(key);
        }
    }

    message.content.stamp = Stamp { at: first.at, request_id: first.line.clone() };
    message.content.value = String::new();
    let after = BlockRows { first, count: count.min(MESSAGE_MAX_BLOCKS) };
    let is_changed = message != stored || after != rows || !put.is_empty() || !delete.is_empty();
    is_changed.then(|| MessageWrite {
        message: Cow::Owned(message),
        rows: Some(after),
        put: put.into_iter().map(|(key, block)| StoredBlock::of(key, block)).collect(),
        delete,
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::base::clock::Timestamp;
    use crate::session::conversation::{MessageOrigin, Role, Stamped};

    /// A database of one message.
    #[derive(Default)]
    struct Rows {
        stored: Option<StoredMessage>,
        blocks: BTreeMap<BlockKey, StoredBlock>,
    }

    impl Rows {
        /// Merges as a store does; returns whether anything was written.
        fn merge(&mut self, came: Message) -> bool {
            let write = match &self.stored {
                None => Some(MessageWrite::whole(Cow::Owned(came))),
                Some(stored) => {
                    let needed = stored.needs(&came);
                    let found = needed.keys.iter().filter_map(|key| self.blocks.get(key));
                    let found = found.cloned().collect();
                    let last = self.blocks.keys().rev().take(needed.last).cloned().collect();
                    stored.clone().join(came, found, last)
                }
            };
            let Some(MessageWrite { message, rows, put, delete }) = write else { return false };
            for key in delete {
                assert!(self.blocks.remove(&key).is_some(), "only what is there is deleted");
            }
            self.blocks.extend(put.into_iter().map(|row| (row.key.clone(), row)));
            if let Some(rows) = &rows {
                assert!(message.blocks.is_empty() && message.content.value.is_empty());
                assert_eq!(Some(&rows.first), self.blocks.keys().next());
                let blocks = self.blocks.values().filter(|row| row.kind != BlockKind::Words);
                assert_eq!(rows.count, blocks.count());
            } else {
                assert!(self.blocks.is_empty());
            }
            self.stored = Some(StoredMessage { value: message.into_owned(), rows });
            true
        }

        fn read(&self) -> Message {
            let blocks = self.blocks.values().cloned().collect();
            self.stored.clone().unwrap().whole(blocks).unwrap()
        }
    }

    fn stamp(n: u32) -> Stamp {
        let at = Timestamp::from_micros(i64::from(n / 2));
        Stamp { at, request_id: format!("line-{}", n % 2).parse().unwrap() }
    }

    fn block(n: u32, kind: u8, size: usize) -> (BlockKey, Block) {
        let text = "x".repeat(size);
        let block = match kind {
            0 => Block::Text { text },
            1 => Block::Thinking { text },
            2 => Block::ToolUse { tool_use_id: text },
            3 => Block::Image { media_type: (size > 1).then_some(text) },
            _ => Block::Other { kind: text },
        };
        let Stamp { at, request_id } = stamp(n);
        (BlockKey { at, index: n % 3, line: request_id, n: 0 }, block)
    }

    /// The message `m` with words, blocks or neither, small or large.
    fn messages() -> impl Strategy<Value = Message> {
        let size = || prop_oneof![Just(0usize), Just(1), Just(9), Just(MESSAGE_ROW_MAX_BYTES + 1)];
        let few = vec((0..24u32, 0..5u8, size()), 0..6);
        let many = (0..1600u32, 0..900u32)
            .prop_map(|(from, count)| (from..from + count).map(|n| (n, 0u8, 1usize)).collect());
        let blocks = prop_oneof![3 => few, 1 => many];
        (blocks, 0..4u32, size(), 0..3u64).prop_map(|(blocks, at, size, tokens)| {
            let words = Stamped { stamp: stamp(at), value: "w".repeat(size) };
            let origin = MessageOrigin::Transcript;
            let api_id = Some("m".to_owned());
            let mut message = Message::new(Uuid::nil(), api_id, Role::Assistant, origin, words);
            message.model = (tokens > 0).then(|| tokens.to_string());
            message.with_blocks(
                blocks.into_iter().map(|(n, kind, size)| block(n, kind, size)).collect(),
            )
        })
    }

    proptest! {
        /// What the rows say is what merging in memory says, and what changes nothing writes nothing.
        #[test]
        fn rows_merge_as_values_do(came in vec(messages(), 1..8)) {
            let mut rows = Rows::default();
            let mut value: Option<Message> = None;
            for one in came {
                let before = value.clone();
                match &mut value {
                    None => value = Some(one.clone()),
                    Some(value) => value.merge(one.clone()),
                }
                let is_written = rows.merge(one.clone());
                let value = value.as_ref().unwrap();
                prop_assert_eq!(&rows.read(), value);
                prop_assert_eq!(is_written, before.as_ref() != Some(value));
                prop_assert!(!rows.merge(one), "a repeat changes nothing");
            }
        }
    }

    #[test]
    fn a_small_message_is_one_row_and_another_block_of_a_large_one_is_written_alone() {
        let message = |blocks: Vec<(BlockKey, Block)>| {
            let words = Stamped { stamp: stamp(0), value: String::new() };
            let origin = MessageOrigin::Transcript;
            let api_id = Some("m".to_owned());
            Message::new(Uuid::nil(), api_id, Role::Assistant, origin, words)
                .with_blocks(blocks.into_iter().collect())
        };
        let small = MessageWrite::whole(Cow::Owned(message(vec![block(0, 0, 100)])));
        assert!(small.rows.is_none() && small.put.is_empty());
        let large = message((0..900).map(|n| block(n, 0, 100)).collect());
        let write = MessageWrite::whole(Cow::Owned(large));
        assert_eq!(write.put.len(), 900);
        let stored = StoredMessage { value: write.message.into_owned(), rows: write.rows };
        let came = message(vec![block(950, 0, 100)]);
        let needed = stored.needs(&came);
        assert_eq!((needed.keys.len(), needed.last), (1, 0));
        let write = stored.join(came, Vec::new(), Vec::new()).unwrap();
        assert_eq!((write.put.len(), write.delete.len()), (1, 0));
    }
}
