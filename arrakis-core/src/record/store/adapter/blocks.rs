//! The blocks of a message as a column holds them: a list without the texts, which the content has.

use serde::{Deserialize, Serialize};

use crate::session::conversation::{Block, BlockKey, Blocks};

/// A block as it is stored: of a text, only how long it is.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(flatten)]
    key: BlockKey,
    #[serde(flatten)]
    what: What,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum What {
    Text { bytes: usize },
    Block(Block),
}

/// The column `message_rows.blocks`; none for a message without blocks.
///
/// # Errors
///
/// The blocks cannot be written as JSON.
pub fn blocks_to_json(blocks: &Blocks) -> Result<Option<String>, serde_json::Error> {
    if blocks.is_empty() {
        return Ok(None);
    }
    let stored = |(key, block): (&BlockKey, &Block)| Stored {
        key: key.clone(),
        what: match block {
            Block::Text { text } => What::Text { bytes: text.len() },
            other => What::Block(other.clone()),
        },
    };
    serde_json::to_string(&blocks.iter().map(stored).collect::<Vec<_>>()).map(Some)
}

/// The blocks whose column is `json`, of the message whose words are `content`.
///
/// # Errors
///
/// The column is not what [`blocks_to_json`] writes, or belongs to other words.
pub(super) fn blocks_from_json(
    content: &str,
    json: Option<&str>,
) -> Result<Blocks, serde_json::Error> {
    let stored: Vec<Stored> = json.map_or_else(|| Ok(Vec::new()), serde_json::from_str)?;
    let mut rest = content;
    let block = |Stored { key, what }| {
        let bytes = match what {
            What::Block(block) => return Ok((key, block)),
            What::Text { bytes } => bytes,
        };
        let Some((text, behind)) = rest.split_at_checked(bytes) else {
            return Err(serde::de::Error::custom("the blocks do not belong to the content"));
        };
        rest = behind.strip_prefix(Blocks::SEPARATOR).unwrap_or(behind);
        Ok((key, Block::Text { text: text.to_owned() }))
    };
    stored.into_iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;

    #[test]
    fn blocks_come_back_from_their_column() {
        let blocks: Blocks = [
            Block::Thinking { text: "hm".to_owned() },
            Block::Text { text: "one\n\n".to_owned() },
            Block::ToolUse { tool_use_id: "t".to_owned() },
            Block::Text { text: "\n\nzw\u{f6}lf \0".to_owned() },
            Block::Image { media_type: None },
            Block::Other { kind: "x".to_owned() },
        ]
        .into_iter()
        .zip(0..)
        .map(|(block, n)| {
            let at = Timestamp::from_micros(1_764_000_000_123_456);
            (BlockKey { at, index: 3, line: "l".parse().unwrap(), n }, block)
        })
        .collect();
        let content = blocks.texts().collect::<Vec<_>>().join(Blocks::SEPARATOR);
        let json = blocks_to_json(&blocks).unwrap().unwrap();
        assert!(!json.contains("one"), "{json}");
        assert_eq!(blocks_from_json(&content, Some(&json)).unwrap(), blocks);
        assert_eq!(blocks_to_json(&Blocks::default()).unwrap(), None);
        assert_eq!(blocks_from_json("x", None).unwrap(), Blocks::default());
        assert!(blocks_from_json("one", Some(&json)).is_err());
    }
}
