//! Events in the hook's own form: the JSON that Claude Code writes.

use super::{Input, ProjectionError, Projector, missing_event, name, not_an_object, session};
use crate::base::id;
use crate::base::json::Canonical;
use crate::session::conversation::{
    Changes, Json, MessageOrigin, ResultRank, Role, Stamped, Subagent, ToolResult, ToolStatus,
    ToolUse,
};
use crate::session::hook::{Event, Field, HookEvent, SubagentStop, ToolCall, object};

pub(super) fn project(
    input: Input<'_>,
    session_required: bool,
) -> Result<(Changes, String), ProjectionError> {
    let read = HookEvent::read(input.body).map_err(not_an_object)?;
    let summary = read.summary();
    let HookEvent { common, event } = read;
    if event.event_type().is_empty() {
        return Err(missing_event("hook_event_name"));
    }
    let Some(session_id) = session(input, session_required)? else {
        return Ok((Changes::default(), summary));
    };

    let (agent_id, prompt_id) = (given(common.agent_id), given(common.prompt_id));
    let agent_id = agent_id.as_deref().map(name);
    let mut projector = Projector::new(input, session_id, None)
        .in_thread(agent_id.as_deref(), prompt_id.as_deref());
    let stamp = projector.stamp.clone();
    let stamped = |text: Option<String>| given(text).map(|text| Stamped::new(&stamp, text));
    projector.conversation.project_path = stamped(common.cwd);
    projector.conversation.transcript_path = stamped(common.transcript_path);

    match event {
        Event::SessionStart(e) => {
            projector.conversation.alive = Some(stamp.clone());
            projector.conversation.model = stamped(e.model);
            projector.named(e.session_title.as_deref());
        }
        Event::PostModelSwitch(e) => projector.conversation.model = stamped(e.to_model),
        Event::UserPromptSubmit(e) => {
            match given(e.prompt) {
                Some(prompt) => projector.prompt(&prompt),
                None => projector.conversation.alive = Some(stamp.clone()),
            }
            projector.named(e.session_title.as_deref());
        }
        Event::PreToolUse(e) => {
            projector.tool_use(e.tool_use_id, e.tool_name, e.tool_input, None);
        }
        Event::PostToolUse(e) => {
            let started = e.tool_name.as_deref().is_some_and(starts_subagents);
            let started = e.tool_response.as_ref().filter(|_| started).and_then(subagent_of);
            if let (Some((agent, kind)), Some(id)) = (started, &e.tool_use_id) {
                projector.subagent(&agent, kind, Some(id.clone()));
            }
            let is_interrupted = e.tool_response.as_ref().is_some_and(is_interrupted);
            let status =
                if is_interrupted { ToolStatus::Interrupted } else { ToolStatus::Succeeded };
            let result = (status, e.tool_response, e.duration_ms);
            projector.tool_use(e.tool_use_id, e.tool_name, e.tool_input, Some(result));
        }
        Event::PostToolUseFailure(e) => {
            let is_interrupted = e.is_interrupt == Some(true);
            let status = if is_interrupted { ToolStatus::Interrupted } else { ToolStatus::Failed };
            let result = (status, e.error, e.duration_ms);
            projector.tool_use(e.tool_use_id, e.tool_name, e.tool_input, Some(result));
        }
        Event::PermissionDenied(e) => {
            let reason = e.reason.and_then(|reason| Json::of(&reason).ok());
            let result = (ToolStatus::Denied, reason, None);
            projector.tool_use(e.tool_use_id, e.tool_name, e.tool_input, Some(result));
        }
        Event::PostToolBatch(e) => {
            e.tool_calls
                .unwrap_or_default()
                .into_iter()
                .for_each(|call| projector.batch_call(call));
        }
        Event::Stop(e) => {
            if let Some(words) = given(e.last_assistant_message) {
                projector.message_of_this_event(Role::Assistant, MessageOrigin::Stop, &words);
            }
        }
        Event::StopFailure(e) => {
            if let Some(words) = given(e.last_assistant_message).or_else(|| given(e.error)) {
                projector.message_of_this_event(Role::System, MessageOrigin::Failure, &words);
            }
        }
        Event::SubagentStart(_) => {
            if let Some(agent) = &agent_id {
                projector.subagent(agent, given(common.agent_type), None);
            }
        }
        Event::SubagentStop(e) if !is_compaction(common.agent_type.as_deref(), &e) => {
            if let Some(agent) = &agent_id {
                let at = stamp.at;
                projector.subagent(agent, given(common.agent_type), None).stopped_at = Some(at);
            }
            if let Some(words) = given(e.last_assistant_message) {
                projector.message_of_this_event(Role::Assistant, MessageOrigin::Stop, &words);
            }
        }
        Event::SessionEnd(e) => {
            let reason = given(e.reason).unwrap_or_else(|| "other".to_owned());
            projector.conversation.ended = Some(projector.stamped(reason));
        }
        _ => {}
    }
    Ok((projector.finish(), summary))
}

/// Whether a compaction has ended and no subagent: it names no type and has nothing but a summary. A question beside the
/// conversation names no type either, and ends with its answer.
fn is_compaction(agent_type: Option<&str>, stop: &SubagentStop) -> bool {
    let words = stop.last_assistant_message.as_deref().unwrap_or_default().trim_start();
    let is_summary = ["<analysis>", "<summary>"].iter().any(|tag| words.starts_with(tag));
    agent_type == Some("") && (words.is_empty() || is_summary)
}

/// The text, unless it is empty.
fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// Whether a tool's result says that the person stopped it.
fn is_interrupted(result: &Json) -> bool {
    #[derive(serde::Deserialize)]
    struct Result<'a> {
        #[serde(borrow, default)]
        interrupted: Field<'a>,
    }
    let result: Option<Result<'_>> = object(result.as_str().as_bytes()).ok();
    result.is_some_and(|result| result.interrupted.read() == Some(true))
}

/// Whether a tool of this name starts subagents.
fn starts_subagents(tool: &str) -> bool {
    matches!(tool, "Agent" | "Task")
}

/// The id and the type of the subagent that a tool's result is of.
pub(super) fn subagent_of(result: &Json) -> Option<(String, Option<String>)> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Started<'a> {
        #[serde(borrow, default)]
        agent_id: Field<'a>,
        #[serde(borrow, default)]
        agent_type: Field<'a>,
    }
    let result: Started<'_> = object(result.as_str().as_bytes()).ok()?;
    let agent_id = result.agent_id.text()?;
    Some((name(&agent_id), result.agent_type.text().map(|text| name(&text))))
}

impl Projector<'_> {
    /// Notes that this event is about a subagent.
    fn subagent(
        &mut self,
        agent_id: &str,
        agent_type: Option<String>,
        tool_use_id: Option<String>,
    ) -> &mut Subagent {
        let subagent = Subagent::new(self.conversation.id, agent_id, self.stamp.at);
        let agent_type = agent_type.as_deref().map(name);
        let tool_use_id = tool_use_id.as_deref().map(name);
        self.changes.subagents.push(Subagent { agent_type, tool_use_id, ..subagent });
        let last = self.changes.subagents.len() - 1;
        &mut self.changes.subagents[last]
    }

    /// A tool's own event.
    fn tool_use(
        &mut self,
        id: Option<String>,
        tool: Option<String>,
        input: Option<Json>,
        result: Option<(ToolStatus, Option<Json>, Option<u64>)>,
    ) {
        let result = result.map(|(status, response, duration_ms)| ToolResult {
            rank: ResultRank::Own,
            stamp: self.stamp.clone(),
            status,
            response,
            duration_ms,
        });
        let id = self.add_tool_use(id, tool, input, result);
        self.changes.answer.tool_use_id = Some(id);
    }

    /// One call of a batch. A batch repeats the results that the tools' own events carry. A tool that
    /// has none of its own did not run: it was denied or is not known, and the batch says why.
    fn batch_call(&mut self, call: ToolCall) {
        let result = ToolResult {
            rank: ResultRank::Batch,
            stamp: self.stamp.clone(),
            status: ToolStatus::Denied,
            response: call.tool_response,
            duration_ms: None,
        };
        self.add_tool_use(call.tool_use_id, call.tool_name, call.tool_input, Some(result));
    }

    fn add_tool_use(
        &mut self,
        given_id: Option<String>,
        tool: Option<String>,
        input: Option<Json>,
        result: Option<ToolResult>,
    ) -> uuid::Uuid {
        let mut tool_use = ToolUse::new(self.conversation.id, given(given_id), &self.stamp);
        if tool_use.comes_again() {
            // What the events of one tool use have in common.
            let input = input.as_ref().and_then(|json| serde_json::from_str(json.as_str()).ok());
            let input = input.map(|value| Canonical(&value).to_string()).unwrap_or_default();
            let common = [self.prompt_id, tool.as_deref()].map(Option::unwrap_or_default);
            tool_use = tool_use.called_by(id::slice_id(&["call", common[0], common[1], &input]));
        }
        let id = tool_use.id;
        if let Some(tool) = given(tool) {
            tool_use.tool_name = tool;
        }
        tool_use.parameters = input.map(|input| self.stamped(input));
        tool_use.result = result;
        tool_use.agent_id = self.agent_id.map(str::to_owned);
        tool_use.prompt_id = self.prompt_id.map(str::to_owned);
        tool_use.seen.hook = true;
        self.changes.tool_uses.push(tool_use);
        id
    }
}
