//! Events in the hook's own form: the JSON that Claude Code writes.

use std::borrow::Cow;

use serde::Deserialize;

use super::{ProjectionError, Projector, parse, session};
use crate::conversation::{
    Changes, MessageOrigin, ResultRank, Role, ToolResult, ToolStatus, ToolUse,
};
use crate::event::Field;
use crate::id::tool_use_id;
use crate::limits::{INDEXED_TEXT_MAX_BYTES, cut};
use crate::store::Arrival;

/// The fields that a projection reads. A field of an unexpected type counts as absent: what the
/// client will send next year must not make an event invalid.
#[derive(Deserialize)]
struct Hook<'a> {
    #[serde(borrow, default)]
    hook_event_name: Field<'a>,
    #[serde(borrow, default)]
    cwd: Field<'a>,
    #[serde(borrow, default)]
    transcript_path: Field<'a>,
    #[serde(borrow, default)]
    prompt_id: Field<'a>,
    #[serde(borrow, default)]
    agent_id: Field<'a>,
    #[serde(borrow, default)]
    model: Field<'a>,
    #[serde(borrow, default)]
    to_model: Field<'a>,
    #[serde(borrow, default)]
    prompt: Field<'a>,
    #[serde(borrow, default)]
    reason: Field<'a>,
    #[serde(borrow, default)]
    last_assistant_message: Field<'a>,
    #[serde(borrow, default)]
    error: Field<'a>,
    #[serde(borrow, default)]
    duration_ms: Field<'a>,
    #[serde(borrow, default)]
    tool_name: Field<'a>,
    #[serde(borrow, default)]
    tool_use_id: Field<'a>,
    #[serde(borrow, default)]
    tool_input: Field<'a>,
    #[serde(borrow, default)]
    tool_response: Field<'a>,
    #[serde(borrow, default)]
    tool_calls: Field<'a>,
}

/// A tool call of a batch.
#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow, default)]
    tool_name: Field<'a>,
    #[serde(borrow, default)]
    tool_use_id: Field<'a>,
    #[serde(borrow, default)]
    tool_input: Field<'a>,
    #[serde(borrow, default)]
    tool_response: Field<'a>,
}

pub(super) fn project(
    arrival: &Arrival,
    session_required: bool,
) -> Result<Changes, ProjectionError> {
    let hook: Hook<'_> = parse(&arrival.body)?;
    let Some(event) = hook.hook_event_name.text() else {
        return Err(ProjectionError::invalid(
            "missing_event",
            "the payload has no hook_event_name, or one that is not text",
        ));
    };
    let Some(session_id) = session(arrival, session_required)? else {
        return Ok(Changes::default());
    };

    let (agent_id, prompt_id) = (hook.agent_id.text(), hook.prompt_id.text());
    let mut projector = Projector::new(arrival, session_id, None)
        .in_thread(agent_id.as_deref(), prompt_id.as_deref());
    let stamped = |field: Field<'_>| field.text().map(Cow::into_owned);
    projector.conversation.project_path = stamped(hook.cwd).map(|v| projector.stamped(v));
    projector.conversation.transcript_path =
        stamped(hook.transcript_path).map(|v| projector.stamped(v));
    projector.conversation.model =
        stamped(hook.model).or_else(|| stamped(hook.to_model)).map(|v| projector.stamped(v));

    match event.as_ref() {
        "SessionStart" => projector.conversation.alive = Some(projector.stamp.clone()),
        "UserPromptSubmit" => {
            if let Some(prompt) = hook.prompt.text() {
                projector.prompt(&prompt);
            } else {
                projector.conversation.alive = Some(projector.stamp.clone());
            }
        }
        "PreToolUse" => projector.tool_use(&hook, None),
        "PostToolUse" => {
            projector.tool_use(&hook, Some((ToolStatus::Succeeded, hook.tool_response)));
        }
        "PostToolUseFailure" => projector.tool_use(&hook, Some((ToolStatus::Failed, hook.error))),
        "PermissionDenied" => {
            let response = if hook.error.0.is_some() { hook.error } else { hook.reason };
            projector.tool_use(&hook, Some((ToolStatus::Denied, response)));
        }
        "PostToolBatch" => {
            for call in hook.tool_calls.read::<Vec<Call<'_>>>().unwrap_or_default() {
                projector.batch_call(call);
            }
        }
        "Stop" | "SubagentStop" => {
            if let Some(words) = hook.last_assistant_message.text() {
                projector.message_of_this_event(Role::Assistant, MessageOrigin::Stop, &words);
            }
        }
        "StopFailure" => {
            let words = hook.last_assistant_message.text().or_else(|| hook.error.text());
            if let Some(words) = words {
                projector.message_of_this_event(Role::System, MessageOrigin::Failure, &words);
            }
        }
        "SessionEnd" => {
            let reason = hook.reason.text().unwrap_or(Cow::Borrowed("other")).into_owned();
            projector.conversation.ended = Some(projector.stamped(reason));
        }
        _ => {}
    }
    Ok(projector.finish())
}

impl Projector<'_> {
    /// A tool's own event.
    fn tool_use(&mut self, hook: &Hook<'_>, result: Option<(ToolStatus, Field<'_>)>) {
        let result = result.map(|(status, response)| ToolResult {
            rank: ResultRank::Own,
            stamp: self.stamp.clone(),
            status,
            response: response.json(),
            duration_ms: hook.duration_ms.read(),
        });
        let id = self.add_tool_use(hook.tool_use_id, hook.tool_name, hook.tool_input, result);
        self.changes.answer.tool_use_id = Some(id);
    }

    /// One call of a batch. A batch repeats the results that the tools' own events carry. A tool that
    /// has none of its own did not run: it was denied or is not known, and the batch says why.
    fn batch_call(&mut self, call: Call<'_>) {
        let result = ToolResult {
            rank: ResultRank::Batch,
            stamp: self.stamp.clone(),
            status: ToolStatus::Denied,
            response: call.tool_response.json(),
            duration_ms: None,
        };
        self.add_tool_use(call.tool_use_id, call.tool_name, call.tool_input, Some(result));
    }

    fn add_tool_use(
        &mut self,
        id: Field<'_>,
        name: Field<'_>,
        input: Field<'_>,
        result: Option<ToolResult>,
    ) -> uuid::Uuid {
        let given = id.text().map(Cow::into_owned);
        let key = given.as_deref().unwrap_or(self.stamp.request_id.as_str());
        let name = name.text().unwrap_or(Cow::Borrowed("unknown"));
        let id = tool_use_id(self.conversation.id, key);
        let tool_use = ToolUse {
            id,
            conversation_id: self.conversation.id,
            message_id: None,
            tool_name: cut(&name, INDEXED_TEXT_MAX_BYTES).to_owned(),
            parameters: input.json().map(|input| self.stamped(input)),
            first: self.stamp.clone(),
            result,
            agent_id: self.agent_id.map(str::to_owned),
            prompt_id: self.prompt_id.map(str::to_owned),
            tool_use_id: given,
        };
        self.changes.absorb_tool_use(tool_use);
        id
    }
}
