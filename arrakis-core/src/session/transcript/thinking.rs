//! Leaving the model's thinking out of a line.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::session::hook::Field;

/// What stands for a block of thinking that was left out: its place stays taken, so that the other blocks
/// of the line keep their numbers.
const LEFT_OUT: &str = r#"{"type":"thinking"}"#;

/// The line without the model's thinking; borrowed where there is none. `None` where that cannot be told: a line
/// may say twice what its message is.
pub(super) fn left_out(line: &str) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(borrow, default)]
        message: Field<'a>,
    }
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow, default)]
        content: Field<'a>,
    }
    #[derive(Deserialize)]
    struct Block<'a> {
        #[serde(borrow, default, rename = "type")]
        block_type: Field<'a>,
    }
    // What says a field twice is refused here.
    let whole: Line<'_> = serde_json::from_str(line).ok()?;
    let message = whole.message.0.filter(|message| message.get().starts_with('{'));
    let message: Option<Message<'_>> =
        message.map(|message| serde_json::from_str(message.get())).transpose().ok()?;
    let blocks = message.and_then(|message| message.content.read::<Vec<&RawValue>>());
    let is_thinking = |block: &&RawValue| {
        let Ok(read) = serde_json::from_str::<Block<'_>>(block.get()) else {
            return block.get().starts_with('{');
        };
        let block_type = read.block_type.text();
        block_type.is_some_and(|name| matches!(&*name, "thinking" | "redacted_thinking"))
    };
    let thinking: Vec<&RawValue> =
        blocks.unwrap_or_default().into_iter().filter(is_thinking).collect();
    if thinking.is_empty() {
        return Some(Cow::Borrowed(line));
    }
    let (mut text, mut copied) = (String::with_capacity(line.len()), 0);
    for block in thinking {
        let Range { start, end } = place(line, block.get());
        text.push_str(&line[copied..start]);
        text.push_str(LEFT_OUT);
        copied = end;
    }
    text.push_str(&line[copied..]);
    Some(Cow::Owned(text))
}

/// Where `part`, which was borrowed from `whole`, stands in it.
fn place(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

#[cfg(test)]
mod tests {
    use super::left_out;

    #[test]
    fn thinking_is_left_out_and_nothing_else_changes() {
        let line = r#"{"message":{"content":[{"type":"thinking","thinking":"hm","signature":"x"}, {"type":"text","text":"\u00e9"},{"thinking":"y","type":"redacted_thinking"}]},"n":1.0}"#;
        let expected = r#"{"message":{"content":[{"type":"thinking"}, {"type":"text","text":"\u00e9"},{"type":"thinking"}]},"n":1.0}"#;
        assert_eq!(left_out(line).unwrap(), expected);
    }

    #[test]
    fn other_lines_stay_as_they_are() {
        for line in [
            r#"{"message":{"content":"thinking"}}"#,
            r#"{"message":{"content":[{"type":"text","text":"thinking"},7]}}"#,
            r#"{"message":null}"#,
        ] {
            assert_eq!(left_out(line).unwrap(), line);
        }
    }

    #[test]
    fn where_a_line_says_twice_what_it_is_nothing_of_it_is_sent() {
        let block = r#"{"type":"thinking","thinking":"hm"}"#;
        for line in [
            format!(r#"{{"message":{{"content":[{block}]}},"message":null}}"#),
            format!(r#"{{"message":{{"content":[{block}],"content":"x"}}}}"#),
        ] {
            assert_eq!(left_out(&line), None, "{line}");
        }
        let twice =
            r#"{"message":{"content":[{"type":"thinking","thinking":"hm","type":"text"}]}}"#;
        assert!(!left_out(twice).unwrap().contains("hm"));
    }
}
