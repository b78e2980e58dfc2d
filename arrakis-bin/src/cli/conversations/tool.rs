//! What a tool was given and what it gave back, as people read it.

mod about;
mod body;
mod response;

use arrakis_core::session::conversation::{Json, ToolStatus, ToolUse};
use serde_json::{Map, Value};

pub(in crate::cli) use self::about::{amount, argument, name};
pub(in crate::cli) use self::body::{Body, Mark, Row, body};
pub(in crate::cli) use self::response::{coloured_output, kept_elsewhere, output};

/// How a tool use ended, in a word.
pub(in crate::cli) fn outcome(tool_use: &ToolUse) -> &'static str {
    match tool_use.status() {
        ToolStatus::Running => "no result",
        ToolStatus::Denied => "denied",
        ToolStatus::Interrupted => "interrupted",
        ToolStatus::Failed => "failed",
        ToolStatus::Succeeded => "ok",
    }
}

/// A part of a tool's input.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) enum Input {
    /// A parameter with a value of one line.
    Short(String, String),
    /// A parameter with a longer value.
    Long(String, String),
    /// A change of a text.
    Change(Vec<Line>),
}

/// A line of a change.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) enum Line {
    Kept(String),
    Removed(String),
    Added(String),
}

impl Line {
    /// The line with its sign before it.
    pub(in crate::cli) fn signed(&self) -> String {
        match self {
            Self::Kept(line) => format!("  {line}"),
            Self::Removed(line) => format!("- {line}"),
            Self::Added(line) => format!("+ {line}"),
        }
    }
}

/// What a tool was given.
pub(in crate::cli) fn input(tool_use: &ToolUse) -> Vec<Input> {
    let Some(parameters) = &tool_use.parameters else { return Vec::new() };
    let Some(mut object) = object(&parameters.value) else {
        return vec![Input::Long("input".to_owned(), parameters.value.as_str().to_owned())];
    };
    if let Some(field) = body::field(tool_use) {
        object.remove(field);
    }
    let mut changes: Vec<Input> = change(&mut object).into_iter().collect();
    if let Some(Value::Array(edits)) = object.get_mut("edits")
        && edits.iter().all(|edit| edit.get("old_string").is_some())
    {
        changes.extend(edits.iter_mut().filter_map(|edit| change(edit.as_object_mut()?)));
        object.remove("edits");
    }
    let given = object.into_iter().map(|(name, value)| {
        let value = text(value);
        if value.contains('\n') { Input::Long(name, value) } else { Input::Short(name, value) }
    });
    let (short, long): (Vec<_>, Vec<_>) =
        given.partition(|input| matches!(input, Input::Short(..)));
    short.into_iter().chain(long).chain(changes).collect()
}

/// Whether a tool use was over as soon as an agent had begun, which goes on beside the conversation.
pub(in crate::cli) fn works_beside(tool_use: &ToolUse) -> bool {
    given_back(tool_use).is_some_and(|response| {
        response.get("status").and_then(Value::as_str) == Some("async_launched")
            || response.get("isAsync") == Some(&Value::Bool(true))
    })
}

/// Takes a change out of parameters that have one.
fn change(parameters: &mut Map<String, Value>) -> Option<Input> {
    let both =
        parameters.get("old_string")?.is_string() && parameters.get("new_string")?.is_string();
    let mut take = || {
        let (old, new) = (parameters.remove("old_string")?, parameters.remove("new_string")?);
        Some(Input::Change(difference(old.as_str()?, new.as_str()?)))
    };
    if both { take() } else { None }
}

/// The lines that two texts differ in, with one line of what they have in common on each side.
fn difference(old: &str, new: &str) -> Vec<Line> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let (old_rest, new_rest) = (&old[same..], &new[same..]);
    let pairs = old_rest.iter().rev().zip(new_rest.iter().rev());
    let same_end = pairs.take_while(|(old, new)| old == new).count();
    let line = |line: &&str| (*line).to_owned();
    let before = old[..same].last().map(line).map(Line::Kept);
    let removed = old_rest[..old_rest.len() - same_end].iter().map(line).map(Line::Removed);
    let added = new_rest[..new_rest.len() - same_end].iter().map(line).map(Line::Added);
    let after = old_rest[old_rest.len() - same_end..].first().map(line).map(Line::Kept);
    before.into_iter().chain(removed).chain(added).chain(after).collect()
}

/// What a tool use was called with, as an object.
fn parameters(tool_use: &ToolUse) -> Map<String, Value> {
    tool_use.parameters.as_ref().and_then(|json| object(&json.value)).unwrap_or_default()
}

/// What a tool gave back; none where that is not known or more than can be parsed.
fn given_back(tool_use: &ToolUse) -> Option<Value> {
    let response = tool_use.result.as_ref()?.response.as_ref()?;
    serde_json::from_str(response.as_str()).ok()
}

fn object(json: &Json) -> Option<Map<String, Value>> {
    serde_json::from_str(json.as_str()).ok()
}

/// A string as its words, anything else as JSON.
fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_has_what_changed_and_a_line_around_it() {
        let signed =
            |old, new| difference(old, new).iter().map(Line::signed).collect::<Vec<_>>().join("|");
        assert_eq!(signed("a\nb\nc\nd", "a\nb\nX\nY\nd"), "  b|- c|+ X|+ Y|  d");
        assert_eq!(signed("", "new"), "+ new");
        assert_eq!(signed("a\na", "a"), "  a|- a");
        assert_eq!(signed("same", "same"), "  same");
    }
}
