//! What a turn is made of, as a page shows it.

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::limits::cut;
use arrakis_core::record::reading::spoken::{self, Speaker};
use arrakis_core::record::reading::thread::{Call, Item, Thread, What};
use arrakis_core::record::reading::tool::{self, Body, Input, Line, Mark, Row};
use arrakis_core::record::reading::words;
use arrakis_core::session::conversation::{Message, ToolStatus, ToolUse};
use askama::Template;
use askama::filters::Safe;
use serde::Serialize;
use uuid::Uuid;

use super::Mode;
use crate::server::dashboard::markdown;
use crate::server::dashboard::shell::{Html, Shell, short};
use crate::server::dashboard::zone;

/// Bytes of what a tool was given or gave back that a page shows; the event has all of it.
const SHOWN_BYTES: usize = 32 * 1024;

/// Lines of it.
const SHOWN_LINES: usize = 400;

/// How deep subagents are shown inside each other.
const DEPTH: usize = 8;

/// A part of a turn.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub(super) enum Node {
    /// Words.
    #[serde(rename_all = "camelCase")]
    Said {
        id: Uuid,
        at: Timestamp,
        speaker: &'static str,
        text: String,
        /// What is to be known beside: that it was queued, copied, or ended early.
        notes: Vec<String>,
    },
    /// What the model thought.
    #[serde(rename_all = "camelCase")]
    Thought { at: Timestamp, text: String },
    /// Something that is only named.
    #[serde(rename_all = "camelCase")]
    Named { at: Timestamp, name: String },
    /// A tool use.
    Used(Box<Used>),
    /// What no message and no tool use tells.
    #[serde(rename_all = "camelCase")]
    Happened { id: Uuid, at: Timestamp, name: String, summary: String },
    /// The thread of a subagent.
    #[serde(rename_all = "camelCase")]
    Agent { name: String, at: Timestamp, nodes: Vec<Node> },
}

/// A tool use.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Used {
    id: Uuid,
    at: Timestamp,
    name: String,
    about: String,
    outcome: &'static str,
    status: ToolStatus,
    duration_ms: Option<u64>,
    amount: Option<String>,
    by_person: bool,
    /// Whether a hook has told of it, and whether the transcript has.
    by_hook: bool,
    by_transcript: bool,
    /// What is always shown, such as a list of what is to be done, as lines of Markdown.
    body: Option<String>,
    /// What it was given: names and values.
    given: Vec<(String, String)>,
    /// Lines of a change, each with its sign before it.
    changes: Vec<String>,
    /// What it gave back, cut.
    output: String,
    /// How much of it is not shown, in bytes.
    cut_bytes: u64,
    elsewhere: Option<String>,
    nodes: Vec<Node>,
}

/// Whether an item is this message or tool use, or has it inside.
pub(super) fn holds(item: &Item<'_>, id: Uuid) -> bool {
    let call = |call: &Call<'_>| {
        let inside = call.subagents.iter().flat_map(|thread| &thread.items);
        call.tool_use.id == id || inside.into_iter().any(|item| holds(item, id))
    };
    match item {
        Item::Message(message, parts) => {
            message.id == id
                || parts.iter().any(|part| matches!(&part.what, What::Tool(one) if call(one)))
        }
        Item::Tool(one) => call(one),
        Item::Event(event) => event.id == id,
        Item::Subagent(thread) => thread.items.iter().any(|item| holds(item, id)),
    }
}

/// The tool uses of an item in its own thread.
pub(super) fn tool_uses<'a>(item: &Item<'a>) -> Vec<&'a ToolUse> {
    match item {
        Item::Message(_, parts) => {
            let calls = parts.iter().filter_map(|part| match &part.what {
                What::Tool(call) => Some(call.tool_use),
                _ => None,
            });
            calls.collect()
        }
        Item::Tool(call) => vec![call.tool_use],
        Item::Event(_) | Item::Subagent(_) => Vec::new(),
    }
}

/// What an item shows.
pub(super) fn nodes(item: &Item<'_>, mode: Mode) -> Vec<Node> {
    let mut nodes = Vec::new();
    add(item, mode, false, 0, &mut nodes);
    nodes
}

fn add(item: &Item<'_>, mode: Mode, in_aside: bool, depth: usize, nodes: &mut Vec<Node>) {
    match item {
        Item::Message(message, _) if spoken::is_for_model(message) => {}
        Item::Message(message, parts) => {
            for part in parts {
                match &part.what {
                    What::Text(text) => nodes.push(said(message, part.at, text, in_aside)),
                    _ if mode != Mode::Full => {}
                    What::Thinking(text) if text.trim().is_empty() => {}
                    What::Thinking(text) => {
                        nodes.push(Node::Thought { at: part.at, text: (*text).to_owned() });
                    }
                    What::Tool(call) => nodes.push(used(call, mode, depth)),
                    What::Named(name) => {
                        nodes.push(Node::Named { at: part.at, name: name.clone() });
                    }
                    What::Attached(name) => {
                        nodes.push(Node::Named { at: part.at, name: (*name).to_owned() });
                    }
                    What::Redacted => {
                        let name = "thinking, redacted".to_owned();
                        nodes.push(Node::Named { at: part.at, name });
                    }
                }
            }
            if let Some(left) = spoken::blocks_left_out(message) {
                nodes.push(Node::Named { at: message.content.stamp.at, name: left });
            }
        }
        _ if mode != Mode::Full => {}
        Item::Tool(call) => nodes.push(used(call, mode, depth)),
        Item::Event(event) => {
            let (name, summary) = spoken::event(event);
            nodes.push(Node::Happened {
                id: event.id,
                at: event.captured_at(),
                name: name.into_owned(),
                summary: summary.into_owned(),
            });
        }
        Item::Subagent(thread) => nodes.extend(agent(thread, mode, depth)),
    }
}

fn said(message: &Message, at: Timestamp, text: &str, in_aside: bool) -> Node {
    let mut notes = Vec::new();
    if message.origin.has_waited() {
        notes.push("queued".to_owned());
    }
    if message.standing.copied {
        notes.push("copied from another session".to_owned());
    }
    if let Some(end) = spoken::early_end(message) {
        notes.push(end.into_owned());
    }
    Node::Said {
        id: message.id,
        at,
        speaker: Speaker::of(message, text, in_aside).name(),
        text: spoken::pasted(text, false).into_owned(),
        notes,
    }
}

fn agent(thread: &Thread<'_>, mode: Mode, depth: usize) -> Option<Node> {
    let subagent = thread.subagent?;
    let kind = subagent.agent_type.as_deref().unwrap_or("subagent");
    let in_aside = spoken::is_aside(thread);
    let mut nodes = Vec::new();
    if depth < DEPTH {
        thread.items.iter().for_each(|item| add(item, mode, in_aside, depth + 1, &mut nodes));
    }
    let name = format!("{kind} {}", subagent.agent_id);
    Some(Node::Agent { name, at: subagent.started_at, nodes })
}

fn used(call: &Call<'_>, mode: Mode, depth: usize) -> Node {
    let tool_use = call.tool_use;
    let (mut given, mut changes) = (Vec::new(), Vec::new());
    for input in tool::input(tool_use) {
        match input {
            Input::Short(name, value) | Input::Long(name, value) => {
                given.push((name, shown(&value).0));
            }
            Input::Change(lines) => changes.extend(lines.iter().map(Line::signed)),
        }
    }
    changes.truncate(SHOWN_LINES);
    let plain = tool::coloured_output(tool_use);
    let (output, cut_bytes) = shown(&plain);
    let body = tool::body(tool_use).map(|body| match body {
        Body::Markdown(text) => text,
        Body::Rows(rows) => rows.iter().map(row).collect::<Vec<_>>().join("\n"),
    });
    Node::Used(Box::new(Used {
        id: tool_use.id,
        at: tool_use.first.at,
        name: tool::name(tool_use),
        about: tool::argument(tool_use),
        outcome: tool::outcome(tool_use),
        status: tool_use.status(),
        duration_ms: call.duration_ms(),
        amount: tool::amount(tool_use),
        by_person: tool_use.is_by_person,
        by_hook: tool_use.seen.hook,
        by_transcript: tool_use.seen.transcript,
        body,
        given,
        changes,
        output,
        cut_bytes,
        elsewhere: tool::kept_elsewhere(tool_use),
        nodes: call.subagents.iter().filter_map(|thread| agent(thread, mode, depth)).collect(),
    }))
}

fn row(row: &Row) -> String {
    let words = |text: &str| words::one_line(text);
    match row {
        Row::Text(text) => format!("\n{}\n", words(text)),
        Row::Item(Mark::Done, text) => format!("- [x] {}", words(text)),
        Row::Item(Mark::Active, text) => format!("- [ ] **{}**", words(text)),
        Row::Item(Mark::Open, text) => format!("- [ ] {}", words(text)),
    }
}

/// The beginning of a text, and how many bytes are left out.
fn shown(text: &str) -> (String, u64) {
    let mut part = cut(text, SHOWN_BYTES);
    if let Some((end, _)) = part.match_indices('\n').nth(SHOWN_LINES) {
        part = &part[..end];
    }
    (part.to_owned(), (text.len() - part.len()) as u64)
}

/// Nodes as HTML.
#[derive(Template)]
#[template(path = "nodes.html")]
pub(super) struct Nodes<'a> {
    pub(super) shell: &'a Shell,
    pub(super) nodes: &'a [Node],
    pub(super) has_hooks: bool,
}

impl Nodes<'_> {
    pub(super) fn html(&self) -> Html {
        Safe(self.render().unwrap_or_default())
    }

    fn inside(&self, nodes: &[Node]) -> Html {
        Nodes { shell: self.shell, nodes, has_hooks: self.has_hooks }.html()
    }

    fn markdown(&self, text: &str) -> Html {
        markdown::html(text)
    }

    fn lines(&self, text: &str) -> String {
        words::count(text.trim().lines().count(), "line")
    }

    fn first_line<'b>(&self, text: &'b str) -> &'b str {
        text.trim().lines().next().unwrap_or_default()
    }

    /// What a program has put out, without the codes with which it colours it and moves the cursor.
    fn plain(&self, output: &str) -> String {
        anstream::adapter::strip_str(output).to_string()
    }

    fn class(&self, used: &Used) -> &'static str {
        match used.status {
            ToolStatus::Succeeded => "ok",
            ToolStatus::Running => "idle",
            ToolStatus::Denied | ToolStatus::Interrupted => "wait",
            ToolStatus::Failed => "bad",
        }
    }

    /// Who has told of a tool use, where it is not both.
    fn sides(&self, used: &Used) -> Option<&'static str> {
        match (used.by_hook, used.by_transcript) {
            (true, false) => Some("by the hook alone"),
            (false, true) if self.has_hooks => Some("by the transcript alone"),
            _ => None,
        }
    }

    fn took(&self, used: &Used) -> Option<String> {
        used.duration_ms.map(zone::duration)
    }

    fn sign(&self, line: &str) -> &'static str {
        match line.as_bytes().first() {
            Some(b'+') => "added",
            Some(b'-') => "removed",
            _ => "kept",
        }
    }

    fn bytes(&self, n: &u64) -> String {
        short(*n)
    }
}
