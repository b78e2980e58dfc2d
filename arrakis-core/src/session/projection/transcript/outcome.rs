//! How a tool use ended, and what the person said on that occasion.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::content::{Part, ToolResult, parts};
use super::line::Line;
use crate::session::conversation::ToolStatus;
use crate::session::hook::{Field, object};

/// How results begin of tool uses that were not permitted. Clients before 2.1 say it in no other way.
const DENIED: &[&str] = &[
    "Claude requested permissions to ",
    "Hook PreToolUse:",
    "Permission for this action has been denied",
    "Permission for this tool use was denied",
    "Permission to use ",
    "PreToolUse:",
    "The agent proposed a plan that was rejected by the user",
    "The user doesn't want to proceed with this tool use",
    "The user doesn't want to take this action right now",
    "This command requires approval",
    "User rejected ",
];

/// How results begin of tool uses that the person stopped.
const INTERRUPTED: &[&str] = &["[Request interrupted by user", "Interrupted by user"];

/// What stands before the words with which a person rejects a tool use.
const BEFORE_WORDS: &[&str] = &[
    "To tell you how to proceed, the user said:",
    "the user said:",
    "The user provided the following reason for the rejection:",
];

/// What the client writes behind them.
const BEHIND_WORDS: &[&str] = &["\n\nNote: The user's next message", "\n\n<system-reminder>"];

/// How results begin that tell of answers to questions.
const ANSWERED: &[&str] = &[
    "User has answered your questions:",
    "Your questions have been answered:",
    "The user answered:",
];

/// What a line says of its tool use beside the result.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Beside<'a> {
    #[serde(borrow, default)]
    tool_denial_kind: Field<'a>,
    #[serde(borrow, default)]
    tool_denial_before_run: Field<'a>,
    #[serde(borrow, default)]
    user_feedback: Field<'a>,
    #[serde(borrow, default)]
    permission_decision: Field<'a>,
    #[serde(borrow, default)]
    tool_use_result: Field<'a>,
}

/// What a tool itself gave back.
#[derive(Deserialize, Default)]
struct Structure<'a> {
    #[serde(borrow, default)]
    interrupted: Field<'a>,
    #[serde(borrow, default)]
    answers: Field<'a>,
    #[serde(borrow, default)]
    annotations: Field<'a>,
}

/// The end of a tool use.
pub(super) struct Outcome {
    pub(super) status: ToolStatus,
    /// Whether the person was asked for permission, and decided.
    pub(super) is_by_person: bool,
    /// What the person said; empty where that is nothing.
    pub(super) words: String,
}

impl Outcome {
    /// What a line says with one of its results.
    pub(super) fn of(line: &Line<'_>, result: &ToolResult<'_>) -> Self {
        let beside: Beside<'_> = object(line.raw).unwrap_or_default();
        let structure: Structure<'_> = beside.tool_use_result.object().unwrap_or_default();
        let text = text_of(result);
        let status = beside.status(&structure, result.is_error, &text);
        let words = match status {
            ToolStatus::Denied | ToolStatus::Interrupted => {
                let feedback = beside.user_feedback.text();
                feedback.map_or_else(|| said(&text).to_owned(), Cow::into_owned)
            }
            ToolStatus::Succeeded => answers(&structure, &text),
            _ => String::new(),
        };
        let is_by_person =
            beside.decision().source.text().is_some_and(|by| by.starts_with("user_"));
        Self { status, is_by_person, words: words.trim().to_owned() }
    }
}

/// Who permitted a tool use or did not.
#[derive(Deserialize, Default)]
struct Decision<'a> {
    #[serde(borrow, default)]
    decision: Field<'a>,
    #[serde(borrow, default)]
    source: Field<'a>,
}

impl<'a> Beside<'a> {
    fn decision(&self) -> Decision<'a> {
        self.permission_decision.object().unwrap_or_default()
    }

    fn status(&self, structure: &Structure<'_>, is_error: bool, text: &str) -> ToolStatus {
        let is_rejected = self.decision().decision.text().as_deref() == Some("reject");
        let begins = |all: &[&str]| is_error && all.iter().any(|one| text.starts_with(one));
        let is_interrupted = structure.interrupted.read() == Some(true) || begins(INTERRUPTED);
        match self.tool_denial_kind.text().as_deref() {
            Some("user-rejected") => {
                let before = self.tool_denial_before_run.read() == Some(true);
                let asked = before || is_rejected || self.user_feedback.text().is_some();
                // It ran, and the person stopped it.
                if asked { ToolStatus::Denied } else { ToolStatus::Interrupted }
            }
            Some("interrupted") => ToolStatus::Interrupted,
            Some(_) => ToolStatus::Denied,
            None if is_rejected || begins(DENIED) => ToolStatus::Denied,
            None if is_interrupted => ToolStatus::Interrupted,
            None if is_error => ToolStatus::Failed,
            None => ToolStatus::Succeeded,
        }
    }
}

/// The words of a result, without what the client puts around an error.
fn text_of(result: &ToolResult<'_>) -> String {
    let texts = parts(result.content);
    let texts = texts.iter().filter_map(|part| match part {
        Part::Text(text) => Some(&**text),
        _ => None,
    });
    let text = texts.collect::<Vec<_>>().join("\n");
    let inner = text.trim_start();
    let inner = inner.strip_prefix("<tool_use_error>").unwrap_or(inner);
    inner.strip_prefix("Error: ").unwrap_or(inner).to_owned()
}

/// The words of the person in the result of a tool use that was rejected.
fn said(text: &str) -> &str {
    let words = BEFORE_WORDS.iter().find_map(|before| Some(text.split_once(before)?.1));
    let words = words.unwrap_or_default();
    let end = BEHIND_WORDS.iter().filter_map(|behind| words.find(behind)).min();
    &words[..end.unwrap_or(words.len())]
}

/// The answers of the person to the questions of a tool, each behind its question where there are several.
fn answers(structure: &Structure<'_>, text: &str) -> String {
    let told: Option<BTreeMap<String, serde_json::Value>> = structure.answers.read();
    let mut pairs: Vec<(String, String)> = match told {
        Some(told) => {
            told.into_iter().map(|(question, answer)| (question, plain(&answer))).collect()
        }
        None if ANSWERED.iter().any(|beginning| text.starts_with(beginning)) => quoted(text),
        None => return String::new(),
    };
    let notes: BTreeMap<String, serde_json::Value> =
        structure.annotations.read().unwrap_or_default();
    for (question, annotation) in notes {
        if let Some(note) = annotation.get("notes").and_then(serde_json::Value::as_str) {
            pairs.push((question, note.to_owned()));
        }
    }
    pairs.retain(|(_, answer)| !answer.trim().is_empty());
    match &pairs[..] {
        [(_, answer)] => answer.clone(),
        several => {
            let lines = several.iter().map(|(question, answer)| format!("{question} {answer}"));
            lines.collect::<Vec<_>>().join("\n")
        }
    }
}

fn plain(answer: &serde_json::Value) -> String {
    match answer {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(several) => {
            several.iter().map(plain).collect::<Vec<_>>().join(", ")
        }
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The pairs of a text such as `"Which brush?"="the wide one", "How often?"="twice".`
fn quoted(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("\"=\"") {
        let question = before.rsplit_once('"').map_or(before, |(_, question)| question);
        let Some((answer, after)) = behind.split_once('"') else { break };
        pairs.push((question.to_owned(), answer.to_owned()));
        rest = after;
    }
    pairs
}
