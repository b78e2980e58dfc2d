//! What a tool use is, in a line: its name, what it is about, and how much it gave back.

use crate::session::conversation::ToolUse;
use crate::session::hook::key_argument;
use serde_json::Value;

use super::body::{Body, Row, body};
use super::{Input, Line, coloured_output, given_back, input, parameters};
use crate::record::reading::words;

/// Columns of a command before its description.
const COMMAND_COLUMNS: usize = 60;

/// The name of the tool; that of a server of MCP stands before its tool's.
pub fn name(tool_use: &ToolUse) -> String {
    let name = &tool_use.tool_name;
    let of_server = name.strip_prefix("mcp__").and_then(|rest| rest.split_once("__"));
    let told = of_server.map(|(server, tool)| format!("{server} · {tool}"));
    words::one_line(told.as_ref().unwrap_or(name))
}

/// What the tool use is about, in a line; empty where nothing tells.
pub fn argument(tool_use: &ToolUse) -> String {
    let given = parameters(tool_use);
    let given = |name: &str| given.get(name).and_then(Value::as_str);
    let told = match tool_use.tool_name.as_str() {
        "Bash" => given("command").zip(given("description")).map(|(command, description)| {
            let command = words::one_line(command);
            format!("{}  # {description}", words::fit(&command, COMMAND_COLUMNS))
        }),
        "Glob" | "Grep" => given("pattern").map(|pattern| match given("path") {
            Some(path) => format!("{pattern} in {path}"),
            None => pattern.to_owned(),
        }),
        "TaskCreate" => given("subject").map(|subject| match created(tool_use) {
            Some(id) => format!("#{id} {subject}"),
            None => subject.to_owned(),
        }),
        "TaskUpdate" => given("taskId").map(|id| {
            let told = [given("status"), given("subject")].into_iter().flatten();
            format!("#{id} {}", told.collect::<Vec<_>>().join(" "))
        }),
        "ExitPlanMode" => given("planFilePath").or(Some("")).map(str::to_owned),
        "TodoWrite" | "TaskList" => Some(String::new()),
        _ => None,
    };
    let any = || tool_use.parameters.as_ref().map(|json| key_argument(&json.value));
    words::one_line(&told.or_else(any).unwrap_or_default())
}

/// The number of the task that was created.
fn created(tool_use: &ToolUse) -> Option<String> {
    given_back(tool_use)?.get("task")?.get("id")?.as_str().map(str::to_owned)
}

/// How much was found, read or changed; none where that is nothing.
pub fn amount(tool_use: &ToolUse) -> Option<String> {
    let response = given_back(tool_use);
    let known = response.and_then(|response| match tool_use.tool_name.as_str() {
        "Glob" | "Grep" => found(&response),
        "Read" => read(&response),
        "Edit" | "MultiEdit" | "Write" | "NotebookEdit" => changed(tool_use, &response),
        "WebSearch" | "web_search" => results(&response),
        _ => None,
    });
    known.or_else(|| done(tool_use)).or_else(|| {
        let given_back = coloured_output(tool_use);
        let lines = given_back.trim_end().lines().count();
        (!given_back.trim().is_empty()).then(|| words::count(lines, "line"))
    })
}

/// How many files, lines or matches a search in files has found.
fn found(response: &Value) -> Option<String> {
    let number = |name: &str| {
        let number = response.get(name).and_then(Value::as_u64)?;
        usize::try_from(number).ok()
    };
    let files = number("numFiles").map(|files| words::count(files, "file"));
    let more = if response.get("truncated") == Some(&Value::Bool(true)) { " and more" } else { "" };
    match (number("numMatches"), number("numLines")) {
        (Some(1), _) => Some(format!("1 match in {}", files?)),
        (Some(matches), _) => Some(format!("{matches} matches in {}", files?)),
        (None, Some(lines)) => Some(words::count(lines, "line")),
        (None, None) => files.map(|files| files + more),
    }
}

/// How many lines of a file were read.
fn read(response: &Value) -> Option<String> {
    let file = response.get("file")?;
    let number = |name: &str| usize::try_from(file.get(name)?.as_u64()?).ok();
    if let Some(cells) = file.get("cells").and_then(Value::as_array) {
        return Some(words::count(cells.len(), "cell"));
    }
    if let Some(size) = number("originalSize") {
        return Some(words::size(size));
    }
    let lines = number("numLines")?;
    match number("totalLines") {
        Some(all) if all > lines => Some(format!("{lines} of {all} lines")),
        _ => Some(words::count(lines, "line")),
    }
}

/// How many lines of a file are new, and how many are gone.
fn changed(tool_use: &ToolUse, response: &Value) -> Option<String> {
    let patch = response.get("structuredPatch").and_then(Value::as_array);
    let lines = patch.into_iter().flatten().filter_map(|hunk| hunk.get("lines")?.as_array());
    let lines: Vec<&str> = lines.flatten().filter_map(Value::as_str).collect();
    let count = |sign: &str| lines.iter().filter(|line| line.starts_with(sign)).count();
    let (mut added, mut removed) = (count("+"), count("-"));
    if lines.is_empty() {
        for line in input(tool_use).iter().filter_map(|input| match input {
            Input::Change(lines) => Some(lines),
            _ => None,
        }) {
            added += line.iter().filter(|line| matches!(line, Line::Added(_))).count();
            removed += line.iter().filter(|line| matches!(line, Line::Removed(_))).count();
        }
    }
    if added + removed > 0 {
        return Some(format!("+{added} -{removed}"));
    }
    let content = response.get("content").and_then(Value::as_str)?;
    Some(words::count(content.lines().count(), "line"))
}

/// How many pages a search has found.
fn results(response: &Value) -> Option<String> {
    let is_page = |one: &&Value| one.get("url").is_some();
    let pages = match response {
        Value::Array(pages) => pages.iter().filter(is_page).count(),
        response => {
            let results = response.get("results")?.as_array()?.iter();
            let pages = results.filter_map(|one| one.get("content")?.as_array());
            pages.flatten().filter(is_page).count()
        }
    };
    Some(words::count(pages, "result"))
}

/// How much of a list is done.
fn done(tool_use: &ToolUse) -> Option<String> {
    let Body::Rows(rows) = body(tool_use)? else { return None };
    if tool_use.tool_name == super::body::QUESTIONS {
        return None;
    }
    let items = rows.iter().filter(|row| matches!(row, Row::Item(..))).count();
    let done = rows.iter().filter(|row| row.is_done()).count();
    Some(format!("{done} of {items} done"))
}
