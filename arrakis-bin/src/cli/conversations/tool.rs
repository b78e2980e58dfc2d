//! What a tool was given and what it gave back, as people read it.

use arrakis_core::session::conversation::{Json, ToolStatus, ToolUse};
use serde_json::{Map, Value};

use crate::cli::output;

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
    let response = tool_use.result.as_ref().and_then(|result| result.response.as_ref());
    let response = response.and_then(object);
    response.is_some_and(|response| {
        response.get("status").and_then(Value::as_str) == Some("async_launched")
            || response.get("isAsync") == Some(&Value::Bool(true))
    })
}

/// Where the client keeps an output that it has cut, and how long that is in bytes, as far as it says so.
pub(in crate::cli) fn kept_elsewhere(tool_use: &ToolUse) -> Option<String> {
    let response = tool_use.result.as_ref()?.response.as_ref()?;
    let response: Value = serde_json::from_str(response.as_str()).ok()?;
    if let Some(path) = response.get("persistedOutputPath").and_then(Value::as_str) {
        let bytes = response.get("persistedOutputSize").and_then(Value::as_u64);
        let size = bytes.map(|bytes| output::size(usize::try_from(bytes).unwrap_or(usize::MAX)));
        return Some(format!("{} in {path}", size.as_deref().unwrap_or("the whole output")));
    }
    let text = told(&response)?;
    let text = text.trim_start().strip_prefix("<persisted-output>")?;
    let size = text.split_once("too large (").and_then(|(_, rest)| rest.split_once(')'));
    let size = size.map_or("the whole output", |(size, _)| size);
    let (_, path) = text.split_once("saved to: ")?;
    Some(format!("{size} in {}", path.lines().next().unwrap_or_default().trim()))
}

/// What a tool gave back; empty where that is nothing or not known.
pub(in crate::cli) fn output(tool_use: &ToolUse) -> String {
    let response = tool_use.result.as_ref().and_then(|result| result.response.as_ref());
    let Some(response) = response else { return String::new() };
    match serde_json::from_str(response.as_str()) {
        Ok(value) => told(&value).unwrap_or_else(|| output::indent_json(response.as_str())),
        // More than can be parsed.
        Err(_) => response.as_str().to_owned(),
    }
}

/// The words of a tool's result, where it is of a known form.
fn told(value: &Value) -> Option<String> {
    let object = match value {
        Value::String(text) => return Some(text.clone()),
        Value::Null => return Some(String::new()),
        Value::Array(blocks) if !blocks.is_empty() => {
            let texts: Option<Vec<String>> = blocks.iter().map(block).collect();
            return texts.map(|texts| texts.join("\n"));
        }
        Value::Object(object) => object,
        _ => return None,
    };
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    if text("stdout").is_some() || text("stderr").is_some() {
        let streams = [text("stdout"), text("stderr")].into_iter().flatten();
        let streams: Vec<&str> = streams.filter(|text| !text.is_empty()).collect();
        return Some(streams.join("\n"));
    }
    if let Some(content) = object.get("file").and_then(|file| file.get("content")?.as_str()) {
        return Some(content.to_owned());
    }
    if object.contains_key("filePath") && object.contains_key("structuredPatch") {
        return Some(String::new()); // a change of a file, which the input tells
    }
    told(object.get("content")?)
}

/// The words of a block; what is no text is named.
fn block(block: &Value) -> Option<String> {
    match block.get("type")?.as_str()? {
        "text" => block.get("text")?.as_str().map(str::to_owned),
        other => Some(format!("[{other}]")),
    }
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

    #[test]
    fn results_of_known_forms_are_words() {
        let told = |json: &str| told(&serde_json::from_str(json).unwrap());
        assert_eq!(told(r#"{"stdout":"a","stderr":"b"}"#).as_deref(), Some("a\nb"));
        assert_eq!(told(r#"{"type":"text","file":{"content":"c\n"}}"#).as_deref(), Some("c\n"));
        let blocks = r#"[{"type":"text","text":"d"},{"type":"image"}]"#;
        assert_eq!(told(blocks).as_deref(), Some("d\n[image]"));
        assert_eq!(told(&format!(r#"{{"content":{blocks}}}"#)).as_deref(), Some("d\n[image]"));
        let changed = r#"{"filePath":"f","structuredPatch":[],"content":"e"}"#;
        assert_eq!(told(changed).as_deref(), Some(""));
        assert_eq!(told(r#"{"success":true}"#), None);
        assert_eq!(told("7"), None);
    }
}
