//! What a message of a transcript is made of.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::session::hook::{Field, object};
use crate::session::projection::speaker;

/// A part of a message's content.
pub(super) enum Part<'a> {
    Text(Cow<'a, str>),
    /// Words of the client in the person's name.
    Client(Cow<'a, str>),
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
        return vec![Part::Text(text)];
    }
    let blocks = content.read::<Vec<&RawValue>>().unwrap_or_default();
    blocks.into_iter().map(part).collect()
}

fn part(block: &RawValue) -> Part<'_> {
    let Ok(raw) = object::<Raw<'_>>(block.get().as_bytes()) else {
        return Part::Other(Cow::Borrowed("unknown"));
    };
    match raw.part_type.text().as_deref() {
        Some("text") => Part::Text(raw.text.text().unwrap_or_default()),
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

/// The parts of a content in the person's name: what the client wrote there is told from the person's words, and both
/// are as people read them.
pub(super) fn spoken(content: Field<'_>) -> Vec<Part<'_>> {
    let told = |(is_client, text)| if is_client { Part::Client(text) } else { Part::Text(text) };
    let spoken = |part| match part {
        Part::Text(text) => speaker::parts(text).into_iter().map(told).collect(),
        other => vec![other],
    };
    parts(content).into_iter().flat_map(spoken).collect()
}

/// For each text of a content, whether it is the client's.
pub(super) fn speakers<'p>(parts: &'p [Part<'_>]) -> impl Iterator<Item = bool> + 'p {
    parts.iter().filter_map(|part| match part {
        Part::Text(_) => Some(false),
        Part::Client(_) => Some(true),
        _ => None,
    })
}
