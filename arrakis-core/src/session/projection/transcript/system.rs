//! What the client tells by the fields of a line, and not by its words.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::line::Line;
use crate::session::hook::{Field, object};

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct System<'a> {
    #[serde(borrow, default)]
    subtype: Field<'a>,
    #[serde(borrow, default)]
    content: Field<'a>,
    #[serde(borrow, default)]
    error: Field<'a>,
    #[serde(borrow, default)]
    cause: Field<'a>,
    #[serde(borrow, default)]
    retry_in_ms: Field<'a>,
    #[serde(borrow, default)]
    retry_attempt: Field<'a>,
    #[serde(borrow, default)]
    max_retries: Field<'a>,
    #[serde(borrow, default)]
    hook_errors: Field<'a>,
    #[serde(borrow, default)]
    prevented_continuation: Field<'a>,
    #[serde(borrow, default)]
    stop_reason: Field<'a>,
    #[serde(borrow, default)]
    compact_metadata: Field<'a>,
}

/// The sentence that a line of the client stands for; nothing where its words say all.
pub(super) fn sentence(line: &Line<'_>) -> Option<String> {
    let system: System<'_> = object(line.raw).ok()?;
    match system.subtype.text()?.as_ref() {
        "api_error" => Some(system.api_error()),
        "stop_hook_summary" => system.stop_hooks(),
        "compact_boundary" => system.compaction(),
        _ => None,
    }
}

impl System<'_> {
    fn api_error(&self) -> String {
        let error: Value = self.error.read().unwrap_or_default();
        let cause: Value = self.cause.read().unwrap_or_default();
        let mut text = "API error".to_owned();
        if let Some(status) = error.get("status").and_then(Value::as_u64) {
            text += &format!(" {status}");
        }
        let told = [message(&error), message(&cause), self.content.text().map(String::from)];
        if let Some(told) = told.into_iter().flatten().next() {
            text += &format!(": {told}");
        }
        let attempts = (self.retry_attempt.read::<u64>(), self.max_retries.read::<u64>());
        if let (Some(attempt), Some(most)) = attempts {
            text += &format!("; retry {attempt} of {most}");
            if let Some(ms) = self.retry_in_ms.read::<f64>() {
                text += &format!(" in {:.1} s", ms / 1000.0);
            }
        }
        text
    }

    fn stop_hooks(&self) -> Option<String> {
        let errors: Vec<Value> = self.hook_errors.read().unwrap_or_default();
        let mut told: Vec<String> = errors
            .iter()
            .map(|error| match error {
                Value::String(text) => text.clone(),
                other => message(other).unwrap_or_else(|| other.to_string()),
            })
            .collect();
        if self.prevented_continuation.read() == Some(true) {
            let reason = self.stop_reason.text().map(|text| format!(": {text}"));
            told.push(format!("the session was stopped{}", reason.unwrap_or_default()));
        }
        (!told.is_empty()).then(|| format!("Stop hook: {}", told.join("\n")))
    }

    fn compaction(&self) -> Option<String> {
        let told: BTreeMap<String, Value> = self.compact_metadata.read()?;
        let number = |name: &str| told.get(name).and_then(Value::as_u64);
        let mut details = Vec::new();
        if let Some(trigger) = told.get("trigger").and_then(Value::as_str) {
            details.push(trigger.to_owned());
        }
        if let Some(count) = number("messagesSummarized") {
            details.push(format!("{count} lines summed up"));
        }
        match (number("preTokens"), number("postTokens")) {
            (Some(before), Some(after)) => details.push(format!("{before} to {after} tokens")),
            (Some(before), None) => details.push(format!("{before} tokens before")),
            _ => {}
        }
        let text = self.content.text();
        let text = text.as_deref().unwrap_or("Conversation compacted");
        (!details.is_empty()).then(|| format!("{text} ({})", details.join(", ")))
    }
}

/// The message of an error: the innermost one, else its code.
fn message(error: &Value) -> Option<String> {
    let inner = ["error", "cause"].iter().find_map(|name| message(error.get(name)?));
    let own = ["message", "formatted", "code", "type"].iter();
    let own = || own.clone().find_map(|name| error.get(name)?.as_str().map(str::to_owned));
    inner.or_else(own)
}
