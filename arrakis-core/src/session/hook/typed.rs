//! The events of Claude Code, a type for each.
//!
//! Nothing of a payload is lost and nothing makes it unreadable: a field that is missing or has another
//! type than documented is `None`, and what is not documented, or not as documented, is in `more`. An event
//! of a type that is not known is [`Event::Other`]. Written as JSON, an event has every field that it
//! was read from.

use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Number;
use serde_json::value::RawValue;

use super::object::{FromRaw, RawFields, name_of};
use crate::session::conversation::Json;

/// Fields by name, as they stand.
pub type Fields = BTreeMap<String, Json>;

object! {
    /// What every event may carry.
    Common {
        /// The session.
        session_id: String,
        /// Where the client keeps the session's transcript.
        transcript_path: String,
        /// The working directory.
        cwd: String,
        /// The prompt that is being worked on; absent before the first.
        prompt_id: String,
        /// How tools are permitted, such as `default` or `bypassPermissions`.
        permission_mode: String,
        /// The subagent that it happened in.
        agent_id: String,
        /// The subagent's type.
        agent_type: String,
        /// The effort that the model makes, as an object with a `level`.
        effort: Json,
    }
}

object! {
    /// One call of a batch of tool calls.
    ToolCall {
        /// The tool.
        tool_name: String,
        /// What it was called with.
        tool_input: Json,
        /// Names the call.
        tool_use_id: String,
        /// What the model was given back.
        tool_response: Json,
    }
}

/// An event: what any may carry, and what its type has besides.
#[derive(Debug, Clone, PartialEq)]
pub struct HookEvent {
    /// What any event may carry.
    pub common: Common,
    /// What its type has besides.
    pub event: Event,
}

impl HookEvent {
    /// Reads a payload.
    ///
    /// # Errors
    ///
    /// It is not a JSON object.
    pub fn read(payload: &[u8]) -> Result<Self, serde_json::Error> {
        let RawFields(fields) = serde_json::from_slice(payload)?;
        let (mut common, mut event_type) = (Common::default(), String::new());
        let mut rest = RawFields::default();
        for (name, raw) in fields {
            let named = (name == "hook_event_name").then(|| String::from_raw(raw)).flatten();
            match named {
                Some(text) => event_type = text,
                None if common.take(&name, raw) => {}
                // Also what any event may carry, but in another form.
                None => rest.0.push((name, raw)),
            }
        }
        Ok(Self { common, event: Event::of_type(event_type, rest) })
    }
}

impl Serialize for HookEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.common.write(&mut map)?;
        if !self.event.event_type().is_empty() {
            map.serialize_entry("hook_event_name", self.event.event_type())?;
        }
        self.event.write(&mut map)?;
        map.end()
    }
}

events! {
    /// A tool is about to run.
    PreToolUse {
        /// The tool.
        tool_name: String,
        /// What it is called with.
        tool_input: Json,
        /// Names the call.
        tool_use_id: String,
        /// The MCP server that the tool is from.
        mcp_server: Json,
    }
    /// A tool has succeeded.
    PostToolUse {
        /// The tool.
        tool_name: String,
        /// What it was called with.
        tool_input: Json,
        /// What it gave back; its shape differs by tool.
        tool_response: Json,
        /// Names the call.
        tool_use_id: String,
        /// How long it took, in milliseconds.
        duration_ms: u64,
        /// The MCP server that the tool is from.
        mcp_server: Json,
    }
    /// A tool has failed or was interrupted.
    PostToolUseFailure {
        /// The tool.
        tool_name: String,
        /// What it was called with.
        tool_input: Json,
        /// Names the call.
        tool_use_id: String,
        /// What went wrong.
        error: Json,
        /// Whether it was interrupted.
        is_interrupt: bool,
        /// How long it took, in milliseconds.
        duration_ms: u64,
        /// The MCP server that the tool is from.
        mcp_server: Json,
    }
    /// All calls that the model asked for at once are done.
    PostToolBatch {
        /// The calls.
        tool_calls: Vec<ToolCall>,
    }
    /// The client tells the person something.
    Notification {
        /// What.
        message: String,
        /// Its title.
        title: String,
        /// Its kind, such as `agent_needs_input`.
        notification_type: String,
    }
    /// A prompt was given.
    UserPromptSubmit {
        /// The prompt.
        prompt: String,
        /// Who gave it, such as `user` or `sdk`.
        source: String,
        /// The title of the session.
        session_title: String,
    }
    /// A command was turned into a prompt.
    UserPromptExpansion {
        /// `slash_command` or `mcp_prompt`.
        expansion_type: String,
        /// The command.
        command_name: String,
        /// What stood behind it.
        command_args: String,
        /// Where the command is from.
        command_source: String,
        /// The prompt.
        prompt: String,
    }
    /// A session has started or goes on.
    SessionStart {
        /// `startup`, `resume`, `clear`, `compact` or `fork`.
        source: String,
        /// The model.
        model: String,
        /// The title of the session.
        session_title: String,
        /// Seconds since the model's last response, where the session is resumed.
        seconds_since_last_response: Number,
        /// How many tokens the context has, where the session is resumed.
        context_tokens: u64,
        /// Whether the prompt cache is likely to have expired.
        prompt_cache_likely_expired: bool,
        /// What writing the cache anew may cost, in US dollars.
        estimated_cache_write_usd: Number,
    }
    /// A session has ended.
    SessionEnd {
        /// Why, such as `clear`, `logout`, `prompt_input_exit` or `other`.
        reason: String,
    }
    /// The model has answered.
    Stop {
        /// Whether it goes on because of an earlier hook.
        stop_hook_active: bool,
        /// Its last words.
        last_assistant_message: String,
        /// What runs in the background.
        background_tasks: Vec<Json>,
        /// What is to run by the clock.
        session_crons: Vec<Json>,
    }
    /// The model could not answer.
    StopFailure {
        /// Why, such as `server_error`.
        error: String,
        /// More about it.
        error_details: String,
        /// What is shown instead of an answer.
        last_assistant_message: String,
    }
    /// A subagent has started.
    SubagentStart {}
    /// A subagent has answered.
    SubagentStop {
        /// Whether it goes on because of an earlier hook.
        stop_hook_active: bool,
        /// Where the client keeps its transcript.
        agent_transcript_path: String,
        /// Its last words.
        last_assistant_message: String,
        /// What runs in the background.
        background_tasks: Vec<Json>,
        /// What is to run by the clock.
        session_crons: Vec<Json>,
    }
    /// The conversation is about to be compacted.
    PreCompact {
        /// `manual` or `auto`.
        trigger: String,
        /// What the person asked of the summary.
        custom_instructions: String,
    }
    /// The conversation was compacted.
    PostCompact {
        /// `manual` or `auto`.
        trigger: String,
        /// The summary.
        compact_summary: String,
    }
    /// The model is about to be changed.
    PreModelSwitch {
        /// From which model.
        from_model: String,
        /// To which model.
        to_model: String,
        /// What was asked for.
        requested_model: String,
        /// Who asked: `command`, `picker` or `sdk`.
        source: String,
        /// How many tokens the context has.
        context_tokens: u64,
        /// Whether the prompt cache is in use.
        prompt_cache_warm: bool,
        /// How long the cache is kept: `5m` or `1h`.
        cache_ttl: String,
        /// What writing the cache anew may cost, in US dollars.
        estimated_cache_write_usd: Number,
        /// Where the price is from.
        pricing: String,
    }
    /// The model was changed.
    PostModelSwitch {
        /// From which model.
        from_model: String,
        /// To which model.
        to_model: String,
        /// What was asked for.
        requested_model: String,
        /// Who asked: `command`, `picker`, `sdk`, `auto` or `resume`.
        source: String,
        /// How many tokens the context has.
        context_tokens: u64,
        /// Whether the prompt cache is in use.
        prompt_cache_warm: bool,
        /// How long the cache is kept: `5m` or `1h`.
        cache_ttl: String,
        /// What writing the cache anew may cost, in US dollars.
        estimated_cache_write_usd: Number,
        /// Where the price is from.
        pricing: String,
    }
    /// The person is asked whether a tool may run.
    PermissionRequest {
        /// The tool.
        tool_name: String,
        /// What it is called with.
        tool_input: Json,
        /// Rules that would permit it.
        permission_suggestions: Vec<Json>,
        /// The MCP server that the tool is from.
        mcp_server: Json,
    }
    /// A tool was not permitted.
    PermissionDenied {
        /// The tool.
        tool_name: String,
        /// What it was called with.
        tool_input: Json,
        /// Names the call.
        tool_use_id: String,
        /// Why.
        reason: String,
        /// The MCP server that the tool is from.
        mcp_server: Json,
    }
    /// The client prepares or tends a project.
    Setup {
        /// `init` or `maintenance`.
        trigger: String,
    }
    /// A teammate has nothing to do.
    TeammateIdle {
        /// The teammate.
        teammate_name: String,
        /// The team.
        team_name: String,
    }
    /// A task was made.
    TaskCreated {
        /// Names the task.
        task_id: String,
        /// What it is about.
        task_subject: String,
        /// More about it.
        task_description: String,
        /// Who made it.
        teammate_name: String,
        /// The team.
        team_name: String,
    }
    /// A task is done.
    TaskCompleted {
        /// Names the task.
        task_id: String,
        /// What it is about.
        task_subject: String,
        /// More about it.
        task_description: String,
        /// Who did it.
        teammate_name: String,
        /// The team.
        team_name: String,
    }
    /// An MCP server asks the person something.
    Elicitation {
        /// The server.
        mcp_server_name: String,
        /// The question.
        message: String,
        /// `form` or `url`.
        mode: String,
        /// Where to answer.
        url: String,
        /// Names the question.
        elicitation_id: String,
        /// The shape of an answer.
        requested_schema: Json,
    }
    /// The person has answered an MCP server.
    ElicitationResult {
        /// The server.
        mcp_server_name: String,
        /// Names the question.
        elicitation_id: String,
        /// `form` or `url`.
        mode: String,
        /// `accept`, `decline` or `cancel`.
        action: String,
        /// The answer.
        content: Json,
    }
    /// Settings have changed.
    ConfigChange {
        /// Which, such as `user_settings`.
        source: String,
        /// In which file.
        file_path: String,
    }
    /// A worktree is to be made.
    WorktreeCreate {
        /// Its name.
        name: String,
    }
    /// A worktree is to be removed.
    WorktreeRemove {
        /// Where it is.
        worktree_path: String,
    }
    /// A file of instructions was read.
    InstructionsLoaded {
        /// The file.
        file_path: String,
        /// Whose they are: `User`, `Project`, `Local` or `Managed`.
        memory_type: String,
        /// Why they were read, such as `session_start`.
        load_reason: String,
        /// The patterns of files that they are for.
        globs: Vec<String>,
        /// The file because of which they were read.
        trigger_file_path: String,
        /// The file that includes them.
        parent_file_path: String,
    }
    /// The working directory has changed.
    CwdChanged {
        /// From which.
        old_cwd: String,
        /// To which.
        new_cwd: String,
    }
    /// A watched file has changed.
    FileChanged {
        /// The file.
        file_path: String,
        /// `change`, `add` or `unlink`.
        event: String,
    }
    /// A directory was added to the session.
    DirectoryAdded {
        /// The directory.
        directory: String,
        /// Who added it.
        source: String,
    }
    /// A part of an answer was shown.
    MessageDisplay {
        /// Names the turn.
        turn_id: String,
        /// Names the message.
        message_id: String,
        /// The number of the part.
        index: u64,
        /// Whether it is the last part.
        r#final: bool,
        /// The words.
        delta: String,
    }
    /// A shell command in the text of a skill is about to run.
    PreSkillShellCommand {
        /// The shell tool that runs it: `Bash` or `PowerShell`.
        tool_name: String,
        /// The command, with its arguments filled in.
        tool_input: Json,
        /// Names the command. No tool call of the transcript has this id.
        tool_use_id: String,
        /// The skill or the slash command.
        command_name: String,
        /// Where that comes from.
        command_source: String,
        /// Who started it: `user`, `claude` or `other`.
        invoked_by: String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_written_as_it_was_read() {
        let payload = r#"{"session_id":"s","hook_event_name":"MessageDisplay","index":1,"final":true,
            "delta":"x","turn_id":7,"new":{"n":1.50},"cwd":null}"#;
        let read = HookEvent::read(payload.as_bytes()).unwrap();
        let Event::MessageDisplay(event) = &read.event else { panic!("{read:?}") };
        assert_eq!(
            (event.index, event.r#final, event.turn_id.as_ref()),
            (Some(1), Some(true), None)
        );
        assert_eq!(event.more["turn_id"].as_str(), "7");
        assert_eq!(event.more["new"].as_str(), r#"{"n":1.50}"#);
        assert_eq!(event.more["cwd"].as_str(), "null");
        let written: serde_json::Value =
            serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(payload).unwrap());
    }

    #[test]
    fn what_is_not_known_is_kept() {
        let read = HookEvent::read(br#"{"hook_event_name":"FromTheFuture","x":[1]}"#).unwrap();
        let Event::Other { event_type, fields } = &read.event else { panic!("{read:?}") };
        assert_eq!((event_type.as_str(), fields["x"].as_str()), ("FromTheFuture", "[1]"));
        let nameless = HookEvent::read(br#"{"hook_event_name":7}"#).unwrap();
        assert_eq!(nameless.event.event_type(), "");
        assert_eq!(serde_json::to_string(&nameless).unwrap(), r#"{"hook_event_name":7}"#);
        for text in [&b"[]"[..], b"[1]", b"null", b"{", b"", b"{}{}"] {
            assert!(HookEvent::read(text).is_err(), "{text:?}");
        }
    }
}
