//! A conversation to read: messages and tool uses in time order.
//!
//! ```text
//! Fix the build
//!   session  1f9b…
//!
//! 10:14:58  SessionStart  startup
//!
//! 10:15:00  you
//!           Fix the build, please.
//!
//! 10:15:03  Bash  cargo build  failed, 1.2 s
//!
//!           subagent a1b2
//! 10:15:05  │ Read  src/lib.rs  ok, 4 ms
//! 10:15:06  │ claude
//!           │ It lacks a semicolon.
//! ```

use std::io::{self, Write};

use anstyle::Style;
use arrakis_core::clock::Timestamp;
use arrakis_core::conversation::{Message, Role, ToolStatus, ToolUse};
use arrakis_core::event::{key_argument, shows_by_itself};
use arrakis_core::price;
use arrakis_core::store::{ConversationDetail, EventSummary};

use crate::cli::output::{self, Terminal, text};

/// Columns of the time at the left, with the gap after it.
const TIME_COLUMNS: usize = 10;

/// What is shown of one message, in bytes; JSON output has all of it.
const SHOWN_MESSAGE_BYTES: usize = 16 * 1024;

pub(super) fn write(
    detail: &ConversationDetail,
    terminal: Terminal,
    out: &mut dyn Write,
) -> io::Result<()> {
    write_header(detail, terminal, out)?;
    let mut timeline = Timeline { terminal, out, thread: None, day: None, after_message: true };
    items(detail).into_iter().try_for_each(|item| timeline.write(&item))
}

fn write_header(
    detail: &ConversationDetail,
    terminal: Terminal,
    out: &mut dyn Write,
) -> io::Result<()> {
    let conversation = &detail.conversation;
    let title = conversation.title.as_ref().map_or("(no prompt yet)", |title| &title.value);
    let title = text::one_line(title);
    let title = text::fit(&title, terminal.text_columns());
    writeln!(out, "{}", terminal.paint(output::BOLD, &title))?;
    let mut line = |label: &str, value: &str| {
        let label = terminal.paint(output::DIM, &format!("  {label:<9}"));
        writeln!(out, "{label}{}", text::one_line(value))
    };
    line("session", &conversation.session_id)?;
    if let Some(path) = &conversation.project_path {
        line("project", &path.value)?;
    }
    if let Some(model) = &conversation.model {
        line("model", &model.value)?;
    }
    let moment = |at: Timestamp| format!("{} UTC", output::moment(at, false));
    line("started", &moment(conversation.started_at))?;
    match (conversation.ended_at(), &conversation.ended) {
        (Some(at), Some(reason)) => {
            let lasted = at.since(conversation.started_at).as_millis();
            let lasted = output::duration(u64::try_from(lasted).unwrap_or(u64::MAX));
            line("ended", &format!("{}, after {lasted} ({})", moment(at), reason.value))?;
        }
        _ => line("open", &format!("last event {}", moment(conversation.last_event_at)))?,
    }
    let count = |n: usize, what: &str| output::count(n, what);
    line(
        "has",
        &format!(
            "{}, {}, {}",
            count(detail.messages.len(), "message"),
            count(detail.tool_uses.len(), "tool use"),
            count(detail.events.len(), "event")
        ),
    )?;
    let usage = &detail.usage;
    if usage.models.is_empty() {
        return Ok(());
    }
    let tokens = |n: u64| format!("{n} token{}", if n == 1 { "" } else { "s" });
    let total = usage.total;
    line(
        "used",
        &format!(
            "{} in ({} from the cache), {} out",
            tokens(total.prompt_tokens()),
            total.cache_read_tokens,
            tokens(total.output_tokens)
        ),
    )?;
    let mut costs = Vec::new();
    if usage.has_unknown_price {
        costs.push(format!("more than {}: not every model's price is known", usage.cost));
    } else {
        costs.push(format!("{} by the prices of {}", usage.cost, price::table().date));
    }
    if let Some(client) = &conversation.client_cost
        && client.total != usage.cost
    {
        costs.push(format!("{} by the client", client.total));
    }
    line("cost", &costs.join("; "))
}

/// One thing that happened.
#[derive(Clone, Copy)]
enum Item<'a> {
    Message(&'a Message),
    ToolUse(&'a ToolUse),
    Event(&'a EventSummary),
}

impl<'a> Item<'a> {
    fn at(&self) -> Timestamp {
        match self {
            Self::Message(message) => message.content.stamp.at,
            Self::ToolUse(tool_use) => tool_use.first.at,
            Self::Event(event) => event.captured_at(),
        }
    }

    /// The subagent that did it.
    fn thread(&self) -> Option<&'a str> {
        match self {
            Self::Message(message) => message.agent_id.as_deref(),
            Self::ToolUse(tool_use) => tool_use.agent_id.as_deref(),
            Self::Event(_) => None,
        }
    }
}

fn items(detail: &ConversationDetail) -> Vec<Item<'_>> {
    // What a message without words has is told by its tool uses.
    let messages = detail.messages.iter().filter(|message| !message.content.value.is_empty());
    let events = detail.events.iter().filter(|event| !shows_by_itself(&event.event_type));
    let mut items: Vec<Item<'_>> = messages.map(Item::Message).collect();
    items.extend(detail.tool_uses.iter().map(Item::ToolUse));
    items.extend(events.map(Item::Event));
    items.sort_by_key(Item::at); // stable: what has one time stays in the order of its kind
    items
}

/// Writes items, and what changes between them.
struct Timeline<'a> {
    terminal: Terminal,
    out: &'a mut dyn Write,
    thread: Option<String>,
    day: Option<String>,
    after_message: bool,
}

impl Timeline<'_> {
    fn write(&mut self, item: &Item<'_>) -> io::Result<()> {
        self.write_day(item.at())?;
        self.write_thread(item)?;
        match item {
            Item::Message(message) => self.write_message(message),
            Item::ToolUse(tool_use) => self.write_tool_use(tool_use),
            Item::Event(event) => self.write_event(event),
        }
    }

    fn write_event(&mut self, event: &EventSummary) -> io::Result<()> {
        if std::mem::take(&mut self.after_message) {
            writeln!(self.out)?;
        }
        let name = text::one_line(&event.event_type);
        let room =
            self.terminal.text_columns().saturating_sub(TIME_COLUMNS + text::width(&name) + 2);
        let told = text::fit(event.told(), room.max(12));
        let time = self.time(event.captured_at());
        writeln!(
            self.out,
            "{time}{}",
            self.terminal.paint(output::DIM, format!("{name}  {told}").trim_end())
        )
    }

    /// A line for each day after the first.
    fn write_day(&mut self, at: Timestamp) -> io::Result<()> {
        let day = output::moment(at, false).chars().take(10).collect::<String>();
        if self.day.as_ref().is_some_and(|known| *known != day) {
            writeln!(self.out, "\n{}", self.terminal.paint(output::DIM, &day))?;
            self.after_message = true;
        }
        self.day = Some(day);
        Ok(())
    }

    /// A line where another thread takes over.
    fn write_thread(&mut self, item: &Item<'_>) -> io::Result<()> {
        let thread = item.thread();
        if self.thread.as_deref() != thread {
            self.thread = thread.map(str::to_owned);
            self.after_message = true;
            if let Some(agent) = thread {
                let label = format!("subagent {}", text::one_line(agent));
                let label = self.terminal.paint(output::WARN, &label);
                writeln!(self.out, "\n{:TIME_COLUMNS$}{label}", "")?;
                self.after_message = false;
            }
        }
        Ok(())
    }

    fn write_message(&mut self, message: &Message) -> io::Result<()> {
        let (speaker, style) = match message.role {
            Role::User if message.agent_id.is_none() => ("you", output::GOOD.bold()),
            Role::User => ("task", output::GOOD.bold()),
            Role::Assistant => ("claude", output::NAME.bold()),
            Role::System => ("system", output::BAD.bold()),
        };
        let thread = self.thread_mark();
        if self.after_message || self.thread.is_none() {
            writeln!(self.out)?;
        }
        let time = self.time(message.content.stamp.at);
        writeln!(self.out, "{time}{thread}{}", self.terminal.paint(style, speaker))?;
        let whole = &message.content.value;
        let shown = arrakis_core::limits::cut(whole, SHOWN_MESSAGE_BYTES);
        let indent = format!("{:TIME_COLUMNS$}{thread}", "");
        let columns = self.terminal.text_columns();
        write!(self.out, "{}", text::wrap(&text::many_lines(shown), columns, &indent))?;
        if shown.len() < whole.len() {
            let more = format!("… {} in all; --json shows them", output::size(whole.len()));
            writeln!(self.out, "{indent}{}", self.terminal.paint(output::WARN, &more))?;
        }
        self.after_message = true;
        Ok(())
    }

    fn write_tool_use(&mut self, tool_use: &ToolUse) -> io::Result<()> {
        if std::mem::take(&mut self.after_message) {
            writeln!(self.out)?;
        }
        let (status, style) = match tool_use.status() {
            ToolStatus::Running => ("no result", output::WARN),
            ToolStatus::Denied => ("denied", output::BAD),
            ToolStatus::Failed => ("failed", output::BAD),
            ToolStatus::Succeeded => ("ok", output::GOOD),
        };
        let duration = tool_use
            .duration_ms()
            .map(|ms| format!(", {}", output::duration(ms)))
            .unwrap_or_default();
        let name = text::one_line(&tool_use.tool_name);
        let thread = self.thread_mark();
        let taken = TIME_COLUMNS + text::width(&thread) + text::width(&name);
        let end = 2 + 2 + status.len() + duration.len();
        let room = self.terminal.text_columns().saturating_sub(taken + end).max(12);
        let argument = tool_use.parameters.as_ref().map(|json| key_argument(&json.value));
        let argument = text::one_line(&argument.unwrap_or_default());
        let time = self.time(tool_use.first.at);
        let paint = |style: Style, shown: &str| self.terminal.paint(style, shown);
        writeln!(
            self.out,
            "{time}{thread}{}  {}  {}{}",
            paint(output::NAME, &name),
            text::fit(&argument, room),
            paint(style, status),
            paint(output::DIM, &duration)
        )
    }

    fn time(&self, at: Timestamp) -> String {
        let time = format!("{:<TIME_COLUMNS$}", output::time_of_day(at));
        self.terminal.paint(output::DIM, &time)
    }

    fn thread_mark(&self) -> String {
        if self.thread.is_some() { "│ ".to_owned() } else { String::new() }
    }
}
