//! What a line of a transcript is, decided by lists of the types that are known.
//!
//! Nothing is inferred from what else a line holds: clients repeat requests to the model in lines of
//! their own, with a `message` in them that nobody said. The types and subtypes are those of the client's
//! versions up to 2.1.332.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use crate::base::clock::Timestamp;
use crate::base::id::RequestId;
use crate::base::limits::{LINE_TYPES_MAX, cut};
use crate::session::hook::{Field, object};

/// What a line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LineType {
    /// What the person said, what the client said in their name, or results of tools.
    User,
    /// A block of an answer of the model.
    Assistant,
    /// Something that the client tells.
    System,
    /// A prompt that was handed over within a turn.
    QueuedCommand,
    /// A file that the client sends to the model beside a prompt.
    Attached,
    /// A prompt that was put into the queue.
    Enqueue,
    /// A prompt that was taken out of the queue by the person.
    PopAll,
    /// What the session costs.
    CostState,
    /// A title or a summary, without a time.
    Title,
    /// A known type that holds nothing of the conversation.
    Other,
    /// A type that this version does not know, by its name.
    Unknown(String),
    /// A line of the conversation that lacks what every such line has: its name, and what it lacks.
    Incomplete(String),
}

/// The fields of a line that say what it is.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(crate) struct Named<'a> {
    #[serde(borrow, default, rename = "type")]
    pub(crate) line_type: Field<'a>,
    #[serde(borrow, default)]
    pub(crate) subtype: Field<'a>,
    #[serde(borrow, default)]
    pub(crate) operation: Field<'a>,
    #[serde(borrow, default)]
    pub(crate) attachment: Field<'a>,
    #[serde(borrow, default)]
    pub(crate) uuid: Field<'a>,
    #[serde(borrow, default)]
    pub(crate) timestamp: Field<'a>,
    #[serde(borrow, default, rename = "startTime")]
    pub(crate) start_time: Field<'a>,
}

/// Types of lines that hold nothing of the conversation.
const OTHERS: &[&str] = &[
    "agent-color",
    "agent-name",
    "agent-setting",
    "api-request",
    "api-request-blob",
    "api-request-shape",
    "artifact-autoreact-ledger",
    "artifact-comment-monitor",
    "atis-latch",
    "attribution-snapshot",
    "bridge-session",
    "content-replacement",
    "file-history-delta",
    "file-history-snapshot",
    "frame-link",
    "history-suppression",
    "last-prompt",
    "mode",
    "permission-mode",
    "pr-link",
    "progress",
    "relocated",
    "tag",
    "tools-used",
    "worktree-state",
];

/// Attachments of a prompt: what it mentions.
const ATTACHED: &[&str] =
    &["already_read_file", "directory", "file", "mcp_resource", "pdf_reference"];

/// Attachments that hold nothing of the conversation: what the client tells the model beside the prompts.
const OTHER_ATTACHMENTS: &[&str] = &[
    "agent_listing_delta",
    "agent_mention",
    "async_hook_response",
    "auto_mode",
    "auto_mode_exit",
    "budget_usd",
    "command_permissions",
    "compact_file_reference",
    "compaction_reminder",
    "context_efficiency",
    "critical_system_reminder",
    "current_session_memory",
    "date",
    "date_change",
    "deferred_tools_delta",
    "diagnostics",
    "dynamic_skill",
    "edited_image_file",
    "edited_text_file",
    "environment",
    "hook_additional_context",
    "hook_blocking_error",
    "hook_cancelled",
    "hook_error_during_execution",
    "hook_non_blocking_error",
    "hook_permission_decision",
    "hook_stopped_continuation",
    "hook_success",
    "hook_system_message",
    "instructions",
    "invoked_skills",
    "max_turns_reached",
    "mcp_instructions_delta",
    "model",
    "nested_memory",
    "opened_file_in_ide",
    "output_style",
    "output_style_instructions",
    "output_token_usage",
    "plan_file_reference",
    "plan_mode",
    "plan_mode_exit",
    "plan_mode_reentry",
    "prompt_snapshot",
    "relevant_memories",
    "remote_session_change",
    "selected_lines_in_ide",
    "session_context",
    "silent_turn_reminder",
    "skill_discovery",
    "skill_listing",
    "structured_output",
    "task_reminder",
    "task_status",
    "team_context",
    "teammate_mailbox",
    "todo",
    "todo_reminder",
    "token_usage",
    "total_tokens_reminder",
    "ultrathink_effort",
    "verify_plan_reminder",
];

/// Subtypes of `system` that are read.
const SYSTEM_SUBTYPES: &[&str] = &[
    "agents_killed",
    "api_error",
    "api_metrics",
    "away_summary",
    "bridge_status",
    "compact_boundary",
    "informational",
    "local_command",
    "memory_saved",
    "microcompact_boundary",
    "permission_retry",
    "scheduled_task_fire",
    "stop_hook_summary",
    "turn_duration",
];

/// When the client was first released, in milliseconds since 1970: 2025-02-24. A line that says to be older
/// does not know the time.
pub(crate) const CLIENT_RELEASED_MILLIS: i64 = 1_740_355_200_000;

/// What is kept of the name of a type, in bytes: the longest known one has half of that.
const NAME_MAX_BYTES: usize = 64;

impl LineType {
    /// What the line with these fields is.
    pub(crate) fn of(named: &Named<'_>) -> Self {
        let Some(line_type) = named.line_type.text() else {
            return Self::Unknown("no type".to_owned());
        };
        let unknown = |subtype: &str| {
            let name = if subtype.is_empty() {
                line_type.to_string()
            } else {
                format!("{line_type}/{subtype}")
            };
            Self::Unknown(cut(&name, NAME_MAX_BYTES).to_owned())
        };
        let (found, needs_uuid) = match &*line_type {
            "user" => (Self::User, true),
            "assistant" => (Self::Assistant, true),
            "system" => match named.subtype.text() {
                // Clients before 2.1 name none.
                None => (Self::System, true),
                Some(subtype) if SYSTEM_SUBTYPES.contains(&&*subtype) => (Self::System, true),
                Some(subtype) => return unknown(&subtype),
            },
            "attachment" => match named.attachment_type() {
                Some(subtype) if subtype == "queued_command" => (Self::QueuedCommand, true),
                Some(subtype) if ATTACHED.contains(&&*subtype) => {
                    let is_whole = named.id().is_some() && named.written_at().is_some();
                    return if is_whole { Self::Attached } else { Self::Other };
                }
                Some(subtype) if OTHER_ATTACHMENTS.contains(&&*subtype) => return Self::Other,
                subtype => return unknown(subtype.as_deref().unwrap_or("no type")),
            },
            "queue-operation" => match named.operation.text().as_deref() {
                Some("enqueue") => (Self::Enqueue, false),
                Some("popAll") => (Self::PopAll, false),
                // What was handed over has a line of its own.
                Some("dequeue" | "remove") => return Self::Other,
                operation => return unknown(operation.unwrap_or("no operation")),
            },
            "cost-state" if named.started_at().is_none() => {
                return Self::Incomplete(format!("{line_type} without startTime"));
            }
            "cost-state" => return Self::CostState,
            "summary" | "custom-title" | "ai-title" => return Self::Title,
            other if OTHERS.contains(&other) => return Self::Other,
            _ => return unknown(""),
        };
        if needs_uuid && named.id().is_none() {
            Self::Incomplete(format!("{line_type} without uuid"))
        } else if named.written_at().is_none() {
            Self::Incomplete(format!("{line_type} without timestamp"))
        } else {
            found
        }
    }
}

impl<'a> Named<'a> {
    /// The line's own id.
    pub(crate) fn id(&self) -> Option<RequestId> {
        self.uuid.text()?.parse().ok()
    }

    /// When the line was written; none where it does not say, or says a time before the client existed.
    pub(crate) fn written_at(&self) -> Option<Timestamp> {
        self.timestamp.text()?.parse().ok().filter(is_possible)
    }

    /// When the session was started whose cost this is; none as above.
    pub(crate) fn started_at(&self) -> Option<Timestamp> {
        self.start_time.read().map(Timestamp::from_millis).filter(is_possible)
    }

    fn attachment_type(&self) -> Option<Cow<'a, str>> {
        #[derive(Deserialize)]
        struct Attachment<'a> {
            #[serde(borrow, default, rename = "type")]
            attachment_type: Field<'a>,
        }
        self.attachment.read::<Attachment<'a>>()?.attachment_type.text()
    }
}

/// Whether a line, which may begin with a byte order mark, is of a type that is known.
#[must_use]
pub fn is_line(line: &[u8]) -> bool {
    let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
    let named = object::<Named<'_>>(line);
    named.is_ok_and(|named| !matches!(LineType::of(&named), LineType::Unknown(_)))
}

/// What editors put before the first line of a file.
pub(super) const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Counts lines of a type: by its name while there are fewer than [`LINE_TYPES_MAX`] names, else as `other`.
pub fn count_line_type(counts: &mut BTreeMap<String, u64>, line_type: &str, lines: u64) {
    let is_named = counts.len() < LINE_TYPES_MAX || counts.contains_key(line_type);
    let name = if is_named { line_type } else { "other" };
    let count = counts.entry(name.to_owned()).or_default();
    *count = count.saturating_add(lines);
}

/// The earliest time that something of the client can have been at.
pub(crate) fn earliest_possible() -> Timestamp {
    Timestamp::from_millis(CLIENT_RELEASED_MILLIS)
}

/// Whether something of the client can have been at that time.
pub(crate) fn is_possible(at: &Timestamp) -> bool {
    *at >= earliest_possible()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> LineType {
        LineType::of(&serde_json::from_str(line).unwrap())
    }

    #[test]
    fn lists_decide_what_a_line_is() {
        let place = r#""uuid":"u","timestamp":"2026-11-24T00:00:00Z""#;
        let whole = |fields: &str| of(&format!("{{{fields},{place}}}"));
        let unknown = |name: &str| LineType::Unknown(name.to_owned());
        assert_eq!(whole(r#""type":"user""#), LineType::User);
        assert_eq!(whole(r#""type":"system","subtype":"informational""#), LineType::System);
        assert_eq!(whole(r#""type":"system","subtype":"new""#), unknown("system/new"));
        assert_eq!(
            whole(r#""type":"attachment","attachment":{"type":"queued_command"}"#),
            LineType::QueuedCommand
        );
        assert_eq!(whole(r#""type":"attachment","attachment":{"type":"date"}"#), LineType::Other);
        let file = r#""type":"attachment","attachment":{"type":"file"}"#;
        assert_eq!(whole(file), LineType::Attached);
        assert_eq!(of(&format!("{{{file}}}")), LineType::Other);
        assert_eq!(
            whole(r#""type":"attachment","attachment":{"type":"new"}"#),
            unknown("attachment/new")
        );
        assert_eq!(whole(r#""type":"attachment""#), unknown("attachment/no type"));
        assert_eq!(whole(r#""type":"queue-operation","operation":"enqueue""#), LineType::Enqueue);
        assert_eq!(
            whole(r#""type":"queue-operation","operation":"new""#),
            unknown("queue-operation/new")
        );
        assert_eq!(
            whole(r#""type":"api-request-blob","message":{"role":"user"}"#),
            LineType::Other
        );
        assert_eq!(whole(r#""type":"new","message":{"role":"user"}"#), unknown("new"));
        assert_eq!(whole(r#""message":{"role":"user"}"#), unknown("no type"));
        assert_eq!(of(&format!(r#"{{"type":"{}"}}"#, "é".repeat(99))), unknown(&"é".repeat(32)));
    }

    #[test]
    fn a_line_of_the_conversation_has_an_id_and_a_time() {
        let incomplete = |name: &str| LineType::Incomplete(name.to_owned());
        for (line, lacks) in [
            (r#"{"type":"user","timestamp":"2026-11-24T00:00:00Z"}"#, "user without uuid"),
            (r#"{"type":"user","uuid":"u"}"#, "user without timestamp"),
            (r#"{"type":"user","uuid":"u","timestamp":0}"#, "user without timestamp"),
            (
                r#"{"type":"user","uuid":"u","timestamp":"1970-01-01T00:00:00Z"}"#,
                "user without timestamp",
            ),
            (
                r#"{"type":"queue-operation","operation":"popAll"}"#,
                "queue-operation without timestamp",
            ),
            (r#"{"type":"cost-state"}"#, "cost-state without startTime"),
            (r#"{"type":"cost-state","startTime":0}"#, "cost-state without startTime"),
        ] {
            assert_eq!(of(line), incomplete(lacks), "{line}");
        }
        assert_eq!(of(r#"{"type":"cost-state","startTime":1795982131273}"#), LineType::CostState);
    }
}
