//! What an event says, in one line.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Event, Field, HookEvent, object};
use crate::base::json::Canonical;
use crate::base::limits::{SUMMARY_MAX_BYTES, cut};
use crate::session::conversation::Json;
use crate::session::snapshot::SNAPSHOT_EVENT;
use crate::session::transcript::TRANSCRIPT_EVENT;

/// What the event of this type and payload says, in one line of at most [`SUMMARY_MAX_BYTES`] that is safe
/// to write to a terminal; empty where nothing can be told.
#[must_use]
pub fn summary(event_type: &str, payload: &[u8]) -> String {
    if event_type == TRANSCRIPT_EVENT {
        return one_line(&slice(payload).unwrap_or_default(), SUMMARY_MAX_BYTES);
    }
    HookEvent::read(payload).map(|event| event.summary()).unwrap_or_default()
}

impl HookEvent {
    /// What it says, as [`summary`] does.
    #[must_use]
    pub fn summary(&self) -> String {
        one_line(&told(self), SUMMARY_MAX_BYTES)
    }
}

/// Whether an event of this type shows in its conversation by itself, as a message or a tool use or as a part
/// of one; the others are told by their [`summary`].
#[must_use]
pub fn shows_by_itself(event_type: &str) -> bool {
    matches!(
        event_type,
        "UserPromptSubmit"
            | "PreToolUse"
            | "PostToolUse"
            | "PostToolUseFailure"
            | "PostToolBatch"
            | "PermissionDenied"
            | "Stop"
            | "StopFailure"
            | "SubagentStop"
            | "MessageDisplay"
            | TRANSCRIPT_EVENT
            | SNAPSHOT_EVENT
    )
}

/// `text` on one line of at most `max` bytes: white space and control characters are single spaces, and
/// characters that reorder or hide text are gone.
#[must_use]
pub fn one_line(text: &str, max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(max));
    for c in text.chars() {
        if line.len() > max {
            break;
        }
        match c {
            _ if c.is_whitespace() || c.is_control() => {
                if !line.is_empty() && !line.ends_with(' ') {
                    line.push(' ');
                }
            }
            '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => {}
            '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => {}
            _ => line.push(c),
        }
    }
    if line.len() > max {
        line.truncate(cut(&line, max.saturating_sub('…'.len_utf8())).len());
        line.push('…');
    }
    line.truncate(line.trim_end().len());
    line
}

/// The parameter that tells best what a tool use is about: the first of these that it has.
const KEY_PARAMETERS: [&str; 11] = [
    "command",
    "file_path",
    "notebook_path",
    "path",
    "pattern",
    "url",
    "query",
    "skill",
    "description",
    "subject",
    "prompt",
];

/// What a tool use with these parameters is about: one of them, or all where none is known.
#[must_use]
pub fn key_argument(parameters: &Json) -> String {
    type Object<'a> = BTreeMap<String, &'a RawValue>;
    let Ok(all) = serde_json::from_str::<Object<'_>>(parameters.as_str()) else {
        return parameters.as_str().to_owned();
    };
    let text = |value: &RawValue| serde_json::from_str::<String>(value.get()).ok();
    let known = KEY_PARAMETERS.iter().find_map(|name| text(all.get(*name)?));
    let known = known.or_else(|| questions(all.get("questions")?));
    let any = || all.values().find_map(|value| text(value));
    known.or_else(any).unwrap_or_else(|| {
        if all.is_empty() { String::new() } else { parameters.as_str().to_owned() }
    })
}

/// The questions of a list of them.
fn questions(list: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Question {
        question: String,
    }
    let list: Vec<Question> = serde_json::from_str(list.get()).ok()?;
    let questions: Vec<String> = list.into_iter().map(|one| one.question).collect();
    (!questions.is_empty()).then(|| questions.join(" "))
}

fn slice(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Slice<'a> {
        #[serde(borrow, default)]
        agent_id: Field<'a>,
        #[serde(borrow, default)]
        lines: Field<'a>,
        #[serde(borrow, default)]
        unreadable: Field<'a>,
        #[serde(borrow, default)]
        start: Field<'a>,
        #[serde(borrow, default)]
        end: Field<'a>,
    }
    let slice: Slice<'_> = object(payload).ok()?;
    let count = |field: Field<'_>| field.read::<Vec<&RawValue>>().map_or(0, |all| all.len());
    let (lines, unreadable) = (count(slice.lines), count(slice.unreadable));
    let mut told = format!("{lines} line{}", if lines == 1 { "" } else { "s" });
    if let (Some(start), Some(end)) = (slice.start.read::<u64>(), slice.end.read::<u64>()) {
        told += &format!(", bytes {start} to {end}");
    }
    if let Some(agent) = slice.agent_id.text() {
        told += &format!(", of subagent {agent}");
    }
    if unreadable > 0 {
        told += &format!(", {unreadable} more could not be read");
    }
    Some(told)
}

fn told(HookEvent { common, event }: &HookEvent) -> String {
    let agent = || join(" ", [start(&common.agent_type), start(&common.agent_id)]);
    match event {
        Event::PreToolUse(e) => tool(&e.tool_name, &e.tool_input, ""),
        Event::PostToolUse(e) => tool(&e.tool_name, &e.tool_input, &took("done", e.duration_ms)),
        Event::PostToolUseFailure(e) => {
            let what = if e.is_interrupt == Some(true) { "interrupted" } else { "failed" };
            let error = e.error.as_ref().map(text).unwrap_or_default();
            let outcome = join(": ", [took(what, e.duration_ms).as_str(), &error]);
            tool(&e.tool_name, &e.tool_input, &outcome)
        }
        Event::PostToolBatch(e) => {
            let calls = e.tool_calls.as_deref().unwrap_or_default();
            let names = calls.iter().map(|call| start(&call.tool_name));
            format!("{} done: {}", calls.len(), join(", ", names))
        }
        Event::Notification(e) => join(": ", [start(&e.title), start(&e.message)]),
        Event::UserPromptSubmit(e) => start(&e.prompt).to_owned(),
        Event::UserPromptExpansion(e) => {
            let command = format!("/{}", start(&e.command_name));
            join(" ", [&command, start(&e.command_args)])
        }
        Event::SessionStart(e) => join(", ", [start(&e.source), start(&e.model)]),
        Event::SessionEnd(e) => start(&e.reason).to_owned(),
        Event::Stop(e) => start(&e.last_assistant_message).to_owned(),
        Event::StopFailure(e) => join(": ", [start(&e.error), start(&e.last_assistant_message)]),
        Event::SubagentStart(_) => agent(),
        Event::SubagentStop(e) => join(": ", [&agent(), start(&e.last_assistant_message)]),
        Event::PreCompact(e) => join(": ", [start(&e.trigger), start(&e.custom_instructions)]),
        Event::PostCompact(e) => join(": ", [start(&e.trigger), start(&e.compact_summary)]),
        Event::PreModelSwitch(e) => switch(&e.from_model, &e.to_model, &e.source),
        Event::PostModelSwitch(e) => switch(&e.from_model, &e.to_model, &e.source),
        Event::PermissionRequest(e) => tool(&e.tool_name, &e.tool_input, ""),
        Event::PermissionDenied(e) => tool(&e.tool_name, &e.tool_input, start(&e.reason)),
        Event::Setup(e) => start(&e.trigger).to_owned(),
        Event::TeammateIdle(e) => join(" of ", [start(&e.teammate_name), start(&e.team_name)]),
        Event::TaskCreated(e) => join(", ", [start(&e.task_subject), start(&e.teammate_name)]),
        Event::TaskCompleted(e) => join(", ", [start(&e.task_subject), start(&e.teammate_name)]),
        Event::Elicitation(e) => join(": ", [start(&e.mcp_server_name), start(&e.message)]),
        Event::ElicitationResult(e) => {
            let said = e.content.as_ref().map(answers).unwrap_or_default();
            let said = one_line(&said, SUMMARY_MAX_BYTES / 2);
            let said = join(", ", [start(&e.action), &said]);
            join(": ", [start(&e.mcp_server_name), &said])
        }
        Event::ConfigChange(e) => join(": ", [start(&e.source), start(&e.file_path)]),
        Event::WorktreeCreate(e) => start(&e.name).to_owned(),
        Event::WorktreeRemove(e) => start(&e.worktree_path).to_owned(),
        Event::InstructionsLoaded(e) => join(", ", [start(&e.file_path), start(&e.load_reason)]),
        Event::CwdChanged(e) => join(" to ", [start(&e.old_cwd), start(&e.new_cwd)]),
        Event::FileChanged(e) => join(": ", [start(&e.event), start(&e.file_path)]),
        Event::DirectoryAdded(e) => start(&e.directory).to_owned(),
        Event::MessageDisplay(e) => start(&e.delta).to_owned(),
        Event::PreSkillShellCommand(e) => {
            let command = tool(&e.tool_name, &e.tool_input, "");
            join(": ", [start(&e.command_name), &command])
        }
        Event::Other { .. } => String::new(),
    }
}

/// What of a field may show: a prompt can have megabytes.
fn start(field: &Option<String>) -> &str {
    // White space is taken together later, so more than a line's worth may be needed.
    cut(field.as_deref().unwrap_or_default(), 8 * SUMMARY_MAX_BYTES)
}

fn join<'a>(separator: &str, parts: impl IntoIterator<Item = &'a str>) -> String {
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(separator)
}

/// What a person has filled in: each field with its value.
fn answers(content: &Json) -> String {
    let Ok(fields) = serde_json::from_str::<BTreeMap<String, Value>>(content.as_str()) else {
        return String::new();
    };
    let told = |(name, value): (&String, &Value)| match value {
        Value::String(text) => format!("{name}: {text}"),
        other => format!("{name}: {}", Canonical(other)),
    };
    fields.iter().map(told).collect::<Vec<_>>().join(", ")
}

fn tool(name: &Option<String>, input: &Option<Json>, outcome: &str) -> String {
    let about = input.as_ref().map(key_argument).unwrap_or_default();
    // What came of it must not be cut off by what it was about.
    let about = one_line(&about, SUMMARY_MAX_BYTES / 2);
    join(" ", [start(name), &about, outcome])
}

fn took(what: &str, duration_ms: Option<u64>) -> String {
    match duration_ms {
        Some(ms) => format!("({what} in {ms} ms)"),
        None => format!("({what})"),
    }
}

fn switch(from: &Option<String>, to: &Option<String>, source: &Option<String>) -> String {
    join(", ", [&join(" to ", [start(from), start(to)]), start(source)])
}

/// A string as its words, anything else as JSON.
fn text(json: &Json) -> String {
    serde_json::from_str(json.as_str()).unwrap_or_else(|_| json.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(event_type: &str, fields: &str) -> String {
        summary(event_type, format!(r#"{{"hook_event_name":"{event_type}",{fields}}}"#).as_bytes())
    }

    #[test]
    fn events_are_told_in_a_line() {
        let bash = r#""tool_name":"Bash","tool_input":{"command":"echo\nhi"}"#;
        for (event_type, fields, expected) in [
            ("PreToolUse", bash.to_owned(), "Bash echo hi"),
            ("PostToolUse", format!(r#"{bash},"duration_ms":25"#), "Bash echo hi (done in 25 ms)"),
            (
                "PostToolUseFailure",
                format!(r#"{bash},"error":"Exit code 3\noops","duration_ms":9"#),
                "Bash echo hi (failed in 9 ms): Exit code 3 oops",
            ),
            (
                "SubagentStart",
                r#""agent_id":"a1","agent_type":"explorer""#.to_owned(),
                "explorer a1",
            ),
            ("SessionStart", r#""source":"resume""#.to_owned(), "resume"),
            (
                "Elicitation",
                r#""mcp_server_name":"lab","message":"Which wood?""#.to_owned(),
                "lab: Which wood?",
            ),
            (
                "ElicitationResult",
                r#""mcp_server_name":"lab","action":"accept","content":{"wood":"oak","pieces":2}"#
                    .to_owned(),
                "lab: accept, pieces: 2, wood: oak",
            ),
            ("CwdChanged", r#""old_cwd":"/a","new_cwd":"/b""#.to_owned(), "/a to /b"),
            ("PostToolBatch", r#""tool_calls":[{"tool_name":"Read"},7]"#.to_owned(), "0 done:"),
            ("FromTheFuture", r#""x":1"#.to_owned(), ""),
            (
                "Transcript",
                r#""lines":[{},{}],"start":0,"end":9,"unreadable":[{}],"agent_id":"a""#.to_owned(),
                "2 lines, bytes 0 to 9, of subagent a, 1 more could not be read",
            ),
        ] {
            assert_eq!(of(event_type, &fields), expected, "{event_type}");
        }
    }

    #[test]
    fn no_text_breaks_out_of_the_line() {
        let nasty = r#""message":"\u001b[31mred\u0007\u0000 \u202eright\u200b\r\n\tend""#;
        assert_eq!(of("Notification", nasty), "[31mred right end");
        let long = format!(r#""prompt":"{}""#, "ü".repeat(1000));
        let told = of("UserPromptSubmit", &long);
        assert!(told.len() <= SUMMARY_MAX_BYTES && told.ends_with('…'), "{told}");
        for payload in [&b""[..], b"null", b"{\"a\":", b"\xff", b"[]"] {
            assert_eq!(summary("Stop", payload), "");
            assert_eq!(summary("Transcript", payload), "");
        }
    }
}
