//! Events in the form of the original Node system: camel case, one name for everything.
//!
//! Its tool uses have no id that a call and its result share, so each event is a tool use of its own.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Input, ProjectionError, Projector, missing_event, not_an_object, session};
use crate::base::clock::Timestamp;
use crate::base::json::whole_characters;
use crate::session::conversation::{
    Changes, Json, MessageOrigin, ResultRank, Role, ToolResult, ToolStatus, ToolUse,
};
use crate::session::transcript::line_type::is_possible;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Original<'a> {
    #[serde(default)]
    event: Value,
    #[serde(default)]
    timestamp: Value,
    #[serde(default)]
    project_path: Value,
    #[serde(default)]
    model: Value,
    #[serde(default)]
    prompt: Value,
    #[serde(default)]
    message: Value,
    #[serde(default)]
    reason: Value,
    #[serde(default)]
    error: Value,
    #[serde(default)]
    tool_name: Value,
    #[serde(borrow, default)]
    parameters: Option<&'a RawValue>,
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
    #[serde(default)]
    duration: Value,
    #[serde(default)]
    status: Value,
}

pub(super) fn project(input: Input<'_>) -> Result<Changes, ProjectionError> {
    let body = std::str::from_utf8(input.body).map(whole_characters);
    let body = body.as_ref().map_or(input.body, |body| body.as_bytes());
    let original: Original<'_> = serde_json::from_slice(body).map_err(not_an_object)?;
    let Some(event) = text(&original.event) else {
        return Err(missing_event("event"));
    };
    let Some(session_id) = session(input, true)? else { return Ok(Changes::default()) };

    let mut projector = Projector::new(input, session_id, timestamp(&original.timestamp));
    let stamped = |value: &Value| text(value).map(|value| projector.stamped(value.to_owned()));
    let (project_path, model) = (stamped(&original.project_path), stamped(&original.model));
    (projector.conversation.project_path, projector.conversation.model) = (project_path, model);

    match event {
        "SessionStart" => projector.conversation.alive = Some(projector.stamp.clone()),
        "UserPromptSubmit" => {
            let prompt = text(&original.prompt).or_else(|| text(&original.message));
            projector.prompt(prompt.unwrap_or_default());
        }
        "PreToolUse" | "PostToolUse" | "PostToolUseFailure" => {
            let result = result(&original, event);
            projector.original_tool_use(&original, result);
        }
        "Stop" | "SubagentStop" => {
            let words = text(&original.message);
            if let Some(words) = words {
                projector.message_of_this_event(Role::Assistant, MessageOrigin::Stop, words);
            }
        }
        "StopFailure" => {
            if let Some(words) = text(&original.error).or_else(|| text(&original.message)) {
                projector.message_of_this_event(Role::System, MessageOrigin::Failure, words);
            }
        }
        "SessionEnd" => {
            let reason = text(&original.reason).unwrap_or("other").to_owned();
            projector.conversation.ended = Some(projector.stamped(reason));
        }
        _ => {}
    }
    Ok(projector.finish())
}

/// What an event says of a tool's result: how it ended, what it gave back, how long it took in ms.
fn result(original: &Original<'_>, event: &str) -> Option<(ToolStatus, Option<Json>, Option<u64>)> {
    let said = text(&original.status).map(str::to_ascii_lowercase);
    let status = match (event, said.as_deref()) {
        ("PreToolUse", _) | (_, Some("running" | "pending")) => return None,
        (_, Some("error" | "failed" | "failure")) | ("PostToolUseFailure", _) => ToolStatus::Failed,
        (_, Some("denied" | "blocked")) => ToolStatus::Denied,
        _ => ToolStatus::Succeeded,
    };
    let duration = original.duration.as_f64().filter(|ms| *ms >= 0.0);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and the cast saturates"
    )]
    let duration = duration.map(|ms| ms.round() as u64);
    Some((status, original.response.map(Json::from), duration))
}

impl Projector<'_> {
    fn original_tool_use(
        &mut self,
        original: &Original<'_>,
        result: Option<(ToolStatus, Option<Json>, Option<u64>)>,
    ) {
        let mut tool_use = ToolUse::new(self.conversation.id, None, &self.stamp);
        self.changes.answer.tool_use_id = Some(tool_use.id);
        if let Some(name) = text(&original.tool_name) {
            tool_use.tool_name = name.to_owned();
        }
        tool_use.parameters = original.parameters.map(|json| self.stamped(Json::from(json)));
        tool_use.result = result.map(|(status, response, duration_ms)| ToolResult {
            rank: ResultRank::Own,
            stamp: self.stamp.clone(),
            status,
            response,
            duration_ms,
        });
        tool_use.seen.hook = true;
        self.changes.tool_uses.push(tool_use);
    }
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

/// A time as RFC 3339 text, or in milliseconds since 1970; none that nothing of the client can have.
fn timestamp(value: &Value) -> Option<Timestamp> {
    let at = match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.as_i64().map(Timestamp::from_millis),
        _ => None,
    };
    at.filter(is_possible)
}
