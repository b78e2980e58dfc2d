//! What a message of a transcript is made of.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::session::conversation::{Json, Notice};
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
    pub(super) name: Option<Cow<'a, str>>,
    pub(super) input: Field<'a>,
}

/// What a tool gave back.
pub(super) struct ToolResult<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) content: Field<'a>,
    pub(super) is_error: bool,
}

/// What the API alone can read of the results of a web search; it may be longer than all the rest.
const ENCRYPTED: &str = "encrypted_content";

impl ToolResult<'_> {
    /// What the tool gave back, as far as people can read it.
    pub(super) fn response(&self) -> Option<Json> {
        let json = self.content.json()?;
        if !json.as_str().contains(ENCRYPTED) {
            return Some(json);
        }
        let Ok(Value::Array(mut found)) = serde_json::from_str(json.as_str()) else {
            return Some(json);
        };
        found.iter_mut().filter_map(Value::as_object_mut).for_each(|one| {
            one.remove(ENCRYPTED);
        });
        Json::of(&found).ok()
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
    server_name: Field<'a>,
    #[serde(borrow, default)]
    title: Field<'a>,
    #[serde(borrow, default)]
    source: Field<'a>,
}

/// Where an image or a document comes from.
#[derive(Deserialize, Default)]
struct Source<'a> {
    #[serde(borrow, default, rename = "type")]
    source_type: Field<'a>,
    #[serde(borrow, default)]
    media_type: Field<'a>,
    #[serde(borrow, default)]
    data: Field<'a>,
    #[serde(borrow, default)]
    url: Field<'a>,
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

/// The server tool whose answer is a message of its own. Its call is a block of this name.
const ADVISOR_TOOL: &str = "advisor";

/// Stands for thinking that the API has encrypted.
const REDACTED_THINKING: &str = "redacted_thinking";

fn part(block: &RawValue) -> Part<'_> {
    let Ok(raw) = object::<Raw<'_>>(block.get().as_bytes()) else {
        return Part::Other(Cow::Borrowed("unknown"));
    };
    let part_type = raw.part_type.text();
    match part_type.as_deref() {
        Some("text") => Part::Text(raw.text.text().unwrap_or_default()),
        Some("thinking") => Part::Thinking(raw.thinking.text().unwrap_or_default()),
        Some("image") => {
            let source = raw.source.object::<Source<'_>>();
            let media_type = source.and_then(|source| source.media_type.text());
            Part::Image(media_type.map(|text| super::name(&text)))
        }
        Some("document") => raw.document(),
        Some("advisor_tool_result") => {
            #[derive(Deserialize)]
            struct Result<'a> {
                #[serde(borrow, default)]
                text: Field<'a>,
            }
            let result = raw.content.object::<Result<'_>>();
            Part::Advice(result.and_then(|result| result.text.text()).unwrap_or_default())
        }
        Some("redacted_thinking") => Part::Other(Cow::Borrowed(REDACTED_THINKING)),
        Some(kind) => raw.tool(kind).unwrap_or_else(|| raw.unknown(kind, block.get().len())),
        None => Part::Other(Cow::Borrowed("unknown")),
    }
}

impl<'a> Raw<'a> {
    /// The call of a tool or its result, whoever runs the tool: the client, the API, or the API at a server of MCP.
    fn tool(&self, kind: &str) -> Option<Part<'a>> {
        let name = self.name.text();
        let name = match kind {
            "tool_use" => name,
            "server_tool_use" if name.as_deref() != Some(ADVISOR_TOOL) => name,
            "mcp_tool_use" => {
                let server = self.server_name.text().unwrap_or_default();
                name.map(|name| format!("mcp__{server}__{name}").into())
            }
            _ if kind == "tool_result" || kind.ends_with("_tool_result") => {
                return Some(Part::ToolResult(ToolResult {
                    id: self.tool_use_id.text()?,
                    content: self.content,
                    is_error: self.is_error.read() == Some(true) || self.has_failed(),
                }));
            }
            _ => return None,
        };
        Some(Part::ToolUse(ToolCall { id: self.id.text()?, name, input: self.input }))
    }

    /// A block of another type: its words where it has any, else its type and its size.
    fn unknown(&self, kind: &str, bytes: usize) -> Part<'a> {
        if kind == "server_tool_use" && self.name.text().as_deref() == Some(ADVISOR_TOOL) {
            return Part::Other(Cow::Borrowed(ADVISOR_TOOL));
        }
        let words = self.text.text().or_else(|| {
            let texts = parts(self.content).into_iter().filter_map(|part| match part {
                Part::Text(text) => Some(text),
                _ => None,
            });
            let texts: Vec<_> = texts.collect();
            (!texts.is_empty()).then(|| texts.join("\n\n").into())
        });
        words.map_or_else(|| Part::Other(format!("{kind}, {bytes} bytes").into()), Part::Text)
    }

    /// Whether the content is an error of a tool that the API runs, such as `web_search_tool_result_error`.
    fn has_failed(&self) -> bool {
        #[derive(Deserialize)]
        struct Failure<'a> {
            #[serde(borrow, default, rename = "type")]
            kind: Field<'a>,
        }
        let kind = self.content.object::<Failure<'_>>().and_then(|failure| failure.kind.text());
        kind.is_some_and(|kind| kind.ends_with("_tool_result_error"))
    }

    /// A document: its text where it is one, else its title, type and size.
    fn document(&self) -> Part<'a> {
        let source = self.source.object::<Source<'_>>().unwrap_or_default();
        let media_type = source.media_type.text();
        let data = source.data.text();
        let source_type = source.source_type.text();
        let mut named = "document".to_owned();
        for said in [self.title.text(), media_type, source.url.text()].into_iter().flatten() {
            named += &format!(", {said}");
        }
        match (source_type.as_deref(), data) {
            (Some("text"), Some(text)) => Part::Client(format!("[{named}]\n\n{text}").into()),
            (_, Some(data)) => {
                Part::Other(format!("{named}, {} bytes", base64_bytes(&data)).into())
            }
            _ => Part::Other(named.into()),
        }
    }
}

/// How many bytes a text in Base64 stands for.
fn base64_bytes(text: &str) -> usize {
    let letters = text.trim_end_matches('=').len();
    letters / 4 * 3 + (letters % 4) * 3 / 4
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

/// What words of the client in a content are to a person; none where it is not the client's alone.
pub(super) fn notice(content: Field<'_>) -> Option<Notice> {
    let parts = parts(content);
    let mut notices = parts.iter().map(|part| match part {
        Part::Text(text) => speaker::notice(text),
        _ => None,
    });
    let first = notices.next()??;
    notices.all(|notice| notice == Some(first)).then_some(first)
}

/// For each text of a content, whether it is the client's.
pub(super) fn speakers<'p>(parts: &'p [Part<'_>]) -> impl Iterator<Item = bool> + 'p {
    parts.iter().filter_map(|part| match part {
        Part::Text(_) => Some(false),
        Part::Client(_) => Some(true),
        _ => None,
    })
}
