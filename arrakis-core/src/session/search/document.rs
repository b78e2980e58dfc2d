//! What conversations are searched for: messages and tool uses.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::Value;
use uuid::Uuid;

use super::{FilterTerm, add_words, words};
use crate::base::clock::Timestamp;
use crate::base::json::fields;
use crate::base::limits::{SEARCHED_TEXT_MAX_BYTES, cut};
use crate::session::conversation::{
    Block, Json, Message, MessageOrigin, Role, ToolUse, said_by, strip_whitespace,
};

/// A message or a tool use, as it is searched.
#[derive(Debug, Clone, Copy)]
pub enum SearchDocument<'a> {
    /// A message: its words, then its thinking.
    Message(&'a Message),
    /// A tool use: the texts of its input, then those of its output.
    ToolUse {
        /// The tool use.
        tool_use: &'a ToolUse,
        /// The model of the message that asked for it, where that is known.
        model: Option<&'a str>,
    },
}

impl<'a> SearchDocument<'a> {
    /// The id of the message or the tool use.
    #[must_use]
    pub fn id(&self) -> Uuid {
        match self {
            Self::Message(message) => message.id,
            Self::ToolUse { tool_use, .. } => tool_use.id,
        }
    }

    /// The conversation.
    #[must_use]
    pub fn conversation_id(&self) -> Uuid {
        match self {
            Self::Message(message) => message.conversation_id,
            Self::ToolUse { tool_use, .. } => tool_use.conversation_id,
        }
    }

    /// The time by which it stands among others.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Message(message) => message.content.stamp.at,
            Self::ToolUse { tool_use, .. } => tool_use.first.at,
        }
    }

    /// The subagent whose thread it belongs to.
    #[must_use]
    pub fn agent_id(&self) -> Option<&'a str> {
        match *self {
            Self::Message(message) => message.agent_id.as_deref(),
            Self::ToolUse { tool_use, .. } => tool_use.agent_id.as_deref(),
        }
    }

    /// The model that wrote it, or asked for it.
    #[must_use]
    pub fn model(&self) -> Option<&'a str> {
        match *self {
            Self::Message(message) => message.model.as_deref(),
            Self::ToolUse { model, .. } => model,
        }
    }

    /// What is searched of it, [`SEARCHED_TEXT_MAX_BYTES`] each of a message, an input and an output.
    #[must_use]
    pub fn texts(&self) -> Vec<Cow<'a, str>> {
        match *self {
            Self::Message(message) => {
                let mut left = SEARCHED_TEXT_MAX_BYTES;
                let thinking = message.blocks.iter().filter_map(|(_, block)| match block {
                    Block::Thinking { text } => Some(text.as_str()),
                    _ => None,
                });
                let all = std::iter::once(message.content.value.as_str()).chain(thinking);
                all.map(|text| {
                    let text = cut(text, left);
                    left -= text.len();
                    Cow::Borrowed(text)
                })
                .collect()
            }
            Self::ToolUse { tool_use, .. } => {
                let input = tool_use.parameters.as_ref().map(|input| &input.value);
                let output = tool_use.result.as_ref().and_then(|result| result.response.as_ref());
                input.into_iter().chain(output).map(|json| Cow::Owned(strings_of(json))).collect()
            }
        }
    }

    /// The words of it; none for a message that is not searchable because it says nothing.
    #[must_use]
    pub fn words(&self) -> BTreeSet<String> {
        let mut words = BTreeSet::new();
        self.texts().iter().for_each(|text| add_words(text, &mut words));
        words
    }

    /// What an index holds of it in `workspace`: its words and its filter terms. Nothing where it is not
    /// searchable.
    #[must_use]
    pub fn terms(&self, workspace: &str) -> BTreeSet<String> {
        if matches!(self, Self::Message(message) if message.origin == MessageOrigin::Withdrawn) {
            return BTreeSet::new();
        }
        let mut terms = self.words();
        if terms.is_empty() && matches!(self, Self::Message(_)) {
            return terms;
        }
        terms.insert(FilterTerm::Workspace.word(workspace));
        terms.insert(FilterTerm::Conversation.word(&self.conversation_id().to_string()));
        terms.insert(FilterTerm::Thread.word(thread(self.agent_id().is_some())));
        terms.extend(self.model().iter().flat_map(|model| model_terms(model)));
        match self {
            Self::Message(message) => {
                terms.insert(FilterTerm::Role.word(message.role.as_str()));
            }
            Self::ToolUse { tool_use, .. } => {
                terms.insert(FilterTerm::Tool.word(&tool_use.tool_name));
                terms.insert(FilterTerm::Outcome.word(tool_use.status().as_str()));
            }
        }
        terms
    }

    /// The dedup terms of a message: an index holds them too, wherever the message stands in time. They tell that an
    /// event with the same words is another trace of this message. What is hidden, and by what, is as for
    /// [`visible`](crate::session::conversation::visible), but not one for one.
    #[must_use]
    pub fn dedup_terms(&self) -> Vec<String> {
        let Self::Message(message) = self else { return Vec::new() };
        let mut terms = Vec::new();
        let texts = match message.origin {
            MessageOrigin::Answer => Vec::new(),
            MessageOrigin::Enqueued | MessageOrigin::Withdrawn => {
                vec![beginning(&message.content.value)]
            }
            _ => said_by(message, beginning),
        };
        for text in texts.iter().filter(|text| !text.is_empty()) {
            if message.origin.is_line() && message.role != Role::User {
                terms.push(said(message, message.role.as_str(), text));
            }
            if message.role != Role::Assistant {
                terms.push(said(message, PROMPT, text));
                if message.origin != MessageOrigin::Enqueued {
                    terms.push(said(message, WAITING, text));
                }
            }
        }
        terms
    }

    /// The dedup term that hides this document: while an index holds it, another trace of the same words is
    /// found instead.
    #[must_use]
    pub fn hidden_by(&self) -> Option<String> {
        let Self::Message(message) = self else { return None };
        let what = match message.origin {
            MessageOrigin::Prompt => PROMPT,
            MessageOrigin::Enqueued => WAITING,
            MessageOrigin::Stop | MessageOrigin::Failure => message.role.as_str(),
            _ => return None,
        };
        Some(said(message, what, &beginning(&message.content.value)))
    }
}

/// What a line says that tells of a prompt, whoever speaks.
const PROMPT: &str = "prompt";

/// What a line says that tells of a prompt in the queue.
const WAITING: &str = "waiting";

/// The value of [`FilterTerm::Thread`].
pub(crate) fn thread(is_subagent: bool) -> &'static str {
    if is_subagent { "subagent" } else { "main" }
}

/// The filter terms of a model, one for each word of its name.
pub(crate) fn model_terms(model: &str) -> impl Iterator<Item = String> {
    words(model).into_iter().map(|word| FilterTerm::Model.word(&word))
}

/// What is compared of two texts of which one may hide the other: as much as can be searched, whatever white space
/// stands in it.
fn beginning(text: &str) -> String {
    let searched = strip_whitespace(cut(text, SEARCHED_TEXT_MAX_BYTES));
    cut(&searched, SEARCHED_TEXT_MAX_BYTES / 2).to_owned()
}

fn said(message: &Message, what: &str, text: &str) -> String {
    let Message { conversation_id, agent_id, .. } = message;
    FilterTerm::Dedup.word(&format!("{conversation_id} {what} {agent_id:?} {text}"))
}

/// The strings and whole numbers of JSON, a line each, without the keys. Fields come in the order of their keys:
/// a store may reorder them, and a long text is searched from its beginning.
fn strings_of(json: &Json) -> String {
    let mut text = String::new();
    match serde_json::from_str(json.as_str()) {
        Ok(value) => add_strings(&value, &mut text),
        Err(_) => text.push_str(cut(json.as_str(), SEARCHED_TEXT_MAX_BYTES)),
    }
    text
}

fn add_strings(value: &Value, text: &mut String) {
    let mut add = |more: &str| {
        let left = SEARCHED_TEXT_MAX_BYTES - text.len();
        text.push_str(cut(more, left));
        text.push_str(cut("\n", SEARCHED_TEXT_MAX_BYTES - text.len()));
    };
    match value {
        Value::String(string) => add(string),
        // However it is written: a store may keep 1e3 as 1000.
        Value::Number(number) if number.is_f64() => {
            if let Some(whole) = number.as_f64().filter(|number| number.fract() == 0.0) {
                add(&format!("{whole:.0}"));
            }
        }
        Value::Number(number) => add(&number.to_string()),
        Value::Array(values) => values.iter().for_each(|value| add_strings(value, text)),
        Value::Object(object) => {
            fields(object).into_iter().for_each(|(_, value)| add_strings(value, text));
        }
        Value::Null | Value::Bool(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::conversation::Stamp;

    #[test]
    fn a_tool_use_is_searched_by_its_strings_and_whole_numbers() {
        let json = r#"{"z":"last","a":["one\ntwo",{"x":7}],"n":[1e3,1000.0,-3,2.5,null,true]}"#;
        let json = Json::parse(json.to_owned()).unwrap();
        assert_eq!(strings_of(&json), "one\ntwo\n7\n1000\n1000\n-3\nlast\n");
        let long = Json::of(&["ä".repeat(SEARCHED_TEXT_MAX_BYTES), "x".to_owned()]).unwrap();
        assert_eq!(strings_of(&long).len(), SEARCHED_TEXT_MAX_BYTES);
    }

    #[test]
    fn a_tool_use_of_which_nothing_is_known_is_searchable() {
        let stamp = Stamp { at: Timestamp::EPOCH, request_id: "r".parse().unwrap() };
        let tool_use = ToolUse::new(Uuid::nil(), None, &stamp);
        let document = SearchDocument::ToolUse { tool_use: &tool_use, model: None };
        assert!(document.words().is_empty());
        assert!(document.terms("main").contains(&FilterTerm::Outcome.word("running")));
    }
}
