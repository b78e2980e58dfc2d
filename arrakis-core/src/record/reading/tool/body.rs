//! What is always shown of a tool use, for it is meant for people: lists, plans, and questions.

use crate::session::conversation::ToolUse;
use serde_json::Value;

use super::{given_back, parameters};

/// The tool that asks the person.
pub(super) const QUESTIONS: &str = "AskUserQuestion";

/// What a person is shown.
#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    /// A list.
    Rows(Vec<Row>),
    /// A text in Markdown.
    Markdown(String),
}

/// A row of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// What the items below are about.
    Text(String),
    /// Something that is done or chosen, or is not.
    Item(Mark, String),
}

/// How far an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It is still to be done, or was not chosen.
    Open,
    /// It is being done.
    Active,
    /// It is done, or was chosen.
    Done,
}

impl Row {
    /// Whether it is an item that is done or chosen.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Item(Mark::Done, _))
    }
}

/// The parameter that the [`body`] tells of.
pub(super) fn field(tool_use: &ToolUse) -> Option<&'static str> {
    let field = match tool_use.tool_name.as_str() {
        "TodoWrite" => "todos",
        "ExitPlanMode" => "plan",
        QUESTIONS => "questions",
        _ => return None,
    };
    body(tool_use).map(|_| field)
}

/// What is always shown of the tool use; none for most.
pub fn body(tool_use: &ToolUse) -> Option<Body> {
    let rows = match tool_use.tool_name.as_str() {
        "TodoWrite" => items(parameters(tool_use).get("todos")?, "content")?,
        "TaskList" => items(given_back(tool_use)?.get("tasks")?, "subject")?,
        "ExitPlanMode" => {
            let given = parameters(tool_use);
            let told = given_back(tool_use);
            let told = told.as_ref().and_then(|told| told.get("plan"));
            let plan = given.get("plan").or(told)?.as_str()?;
            return Some(Body::Markdown(plan.to_owned()));
        }
        QUESTIONS => {
            let given = parameters(tool_use);
            let questions = given.get("questions")?.as_array()?;
            let told = given_back(tool_use).unwrap_or_default();
            questions.iter().map(|one| question(one, &told)).collect::<Option<Vec<_>>>()?.concat()
        }
        _ => return None,
    };
    Some(Body::Rows(rows))
}

/// The rows of a list of what is to be done.
fn items(list: &Value, name: &str) -> Option<Vec<Row>> {
    let item = |one: &Value| {
        let mark = match one.get("status").and_then(Value::as_str) {
            Some("completed") => Mark::Done,
            Some("in_progress") => Mark::Active,
            _ => Mark::Open,
        };
        let number = one.get("id").and_then(Value::as_str).filter(|_| name == "subject");
        let number = number.map(|id| format!("#{id} ")).unwrap_or_default();
        Some(Row::Item(mark, format!("{number}{}", one.get(name)?.as_str()?)))
    };
    list.as_array()?.iter().map(item).collect()
}

/// A question, its options, and which of them the person chose.
fn question(one: &Value, told: &Value) -> Option<Vec<Row>> {
    let asked = one.get("question")?.as_str()?;
    let answer = told.get("answers").and_then(|answers| answers.get(asked));
    let answers: Vec<&str> = match answer {
        Some(Value::String(answer)) => vec![answer],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let mut left = answers.join(", ");
    let mut rows = vec![Row::Text(asked.to_owned())];
    let options = one.get("options").and_then(Value::as_array);
    for option in options.into_iter().flatten() {
        let Some(label) = option.get("label").and_then(Value::as_str) else { continue };
        let is_chosen = take(&mut left, label);
        let description = option.get("description").and_then(Value::as_str).unwrap_or_default();
        let text = if description.is_empty() {
            label.to_owned()
        } else {
            format!("{label}: {description}")
        };
        rows.push(Row::Item(if is_chosen { Mark::Done } else { Mark::Open }, text));
    }
    if !left.is_empty() {
        rows.push(Row::Item(Mark::Done, left));
    }
    Some(rows)
}

/// Takes a label out of answers that commas part; whether it was there.
fn take(answers: &mut String, label: &str) -> bool {
    let mut at = 0;
    while let Some(found) = answers[at..].find(label).filter(|_| !label.is_empty()) {
        let (start, end) = (at + found, at + found + label.len());
        let begins = start == 0 || answers[..start].ends_with(", ");
        let ends = end == answers.len() || answers[end..].starts_with(", ");
        if begins && ends {
            let end = if answers[end..].starts_with(", ") { end + 2 } else { end };
            answers.replace_range(start..end, "");
            let rest = answers.trim_end_matches(", ").len();
            answers.truncate(rest);
            return true;
        }
        at = end;
    }
    false
}
