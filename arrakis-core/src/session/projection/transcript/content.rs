//! What a message of a transcript is made of.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::session::hook::{Field, object};

/// A part of a message's content.
pub(super) enum Part<'a> {
    Text(Cow<'a, str>),
    Thinking(Cow<'a, str>),
    ToolUse(ToolCall<'a>),
    ToolResult(ToolResult<'a>),
    /// What a model has said that advises the one that writes.
    Advice(Cow<'a, str>),
    /// With its media type.
    Image(Option<String>),
    /// With its type.
    Other(Cow<'a, str>),
}

/// The call to use a tool.
pub(super) struct ToolCall<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) name: Field<'a>,
    pub(super) input: Field<'a>,
}

/// What a tool gave back.
pub(super) struct ToolResult<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) content: Field<'a>,
    pub(super) is_error: Field<'a>,
}

impl ToolResult<'_> {
    /// Whether its words say that the tool was not permitted: clients before 2.1 say it in no other way.
    pub(super) fn says_denied(&self) -> bool {
        self.is_error.read() == Some(true)
            && self.content.text().is_some_and(|text| {
                text.starts_with("The user doesn't want to proceed with this tool use")
            })
    }
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow, default, rename = "type")]
    part_type: Field<'a>,
    #[serde(borrow, default)]
    text: Field<'a>,
    #[serde(borrow, default)]
    thinking: Field<'a>,
    #[serde(borrow, default)]
    id: Field<'a>,
    #[serde(borrow, default)]
    name: Field<'a>,
    #[serde(borrow, default)]
    input: Field<'a>,
    #[serde(borrow, default)]
    tool_use_id: Field<'a>,
    #[serde(borrow, default)]
    content: Field<'a>,
    #[serde(borrow, default)]
    is_error: Field<'a>,
    #[serde(borrow, default)]
    source: Field<'a>,
}

/// The parts of a content, which is text or a list of blocks. The number of a part is its place in the
/// list, so what cannot be read keeps its place.
pub(super) fn parts(content: Field<'_>) -> Vec<Part<'_>> {
    if let Some(text) = content.text() {
        return vec![Part::Text(shown(text))];
    }
    let blocks = content.read::<Vec<&RawValue>>().unwrap_or_default();
    blocks.into_iter().map(part).collect()
}

fn part(block: &RawValue) -> Part<'_> {
    let Ok(raw) = object::<Raw<'_>>(block.get().as_bytes()) else {
        return Part::Other(Cow::Borrowed("unknown"));
    };
    match raw.part_type.text().as_deref() {
        Some("text") => Part::Text(raw.text.text().map(shown).unwrap_or_default()),
        Some("thinking") => Part::Thinking(raw.thinking.text().unwrap_or_default()),
        Some("redacted_thinking") => Part::Thinking(Cow::Borrowed("")),
        Some("tool_use") if raw.id.text().is_some() => Part::ToolUse(ToolCall {
            id: raw.id.text().unwrap_or_default(),
            name: raw.name,
            input: raw.input,
        }),
        Some("tool_result") if raw.tool_use_id.text().is_some() => Part::ToolResult(ToolResult {
            id: raw.tool_use_id.text().unwrap_or_default(),
            content: raw.content,
            is_error: raw.is_error,
        }),
        Some("image") => {
            #[derive(Deserialize)]
            struct Source<'a> {
                #[serde(borrow, default)]
                media_type: Field<'a>,
            }
            let source = raw.source.object::<Source<'_>>();
            let media_type = source.and_then(|source| source.media_type.text());
            Part::Image(media_type.map(|text| super::name(&text)))
        }
        Some("advisor_tool_result") => {
            #[derive(Deserialize)]
            struct Result<'a> {
                #[serde(borrow, default)]
                text: Field<'a>,
            }
            let result = raw.content.object::<Result<'_>>();
            Part::Advice(result.and_then(|result| result.text.text()).unwrap_or_default())
        }
        _ => Part::Other(raw.part_type.text().unwrap_or(Cow::Borrowed("unknown"))),
    }
}

/// The words of a content.
pub(super) fn texts<'p>(parts: &'p [Part<'_>]) -> impl Iterator<Item = &'p str> {
    parts.iter().filter_map(|part| match part {
        Part::Text(text) => Some(&**text),
        _ => None,
    })
}

/// Whether a text is a command of the client, such as `/clear`, and not the path of a file.
pub(super) fn is_command(text: &str) -> bool {
    let name = text.split_whitespace().next().and_then(|word| word.strip_prefix('/'));
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:.".contains(&byte);
    name.is_some_and(|name| !name.is_empty() && name.bytes().all(is_of_name))
}

/// A command as the person has typed it; any other text as it is.
fn shown(text: Cow<'_, str>) -> Cow<'_, str> {
    let tag = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0.trim())
    };
    if !text.starts_with("<command-name>") && !text.starts_with("<command-message>") {
        return text;
    }
    let Some(command) = tag("command-name") else { return text };
    let arguments = tag("command-args").unwrap_or_default();
    let slash = if command.starts_with('/') { "" } else { "/" };
    Cow::Owned(format!("{slash}{command} {arguments}").trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_told_from_a_path() {
        for text in ["/clear", " /review src/a.rs\nplease", "/mcp__lab:saw oak"] {
            assert!(is_command(text), "{text}");
        }
        for text in ["", "/", "/ clear", "/etc/hosts is wrong", "see /clear", "//"] {
            assert!(!is_command(text), "{text}");
        }
    }

    #[test]
    fn a_command_is_shown_as_it_was_typed() {
        for (text, expected) in [
            (
                "<command-name>/compact</command-name>\n  <command-message>compact</command-message>\n  \
                 <command-args>keep it short</command-args>",
                "/compact keep it short",
            ),
            ("<command-message>x</command-message><command-name>review</command-name>", "/review"),
            ("<command-name>broken", "<command-name>broken"),
            (
                "what is <command-name>/x</command-name>?",
                "what is <command-name>/x</command-name>?",
            ),
        ] {
            assert_eq!(shown(Cow::Borrowed(text)), expected);
        }
    }
}
