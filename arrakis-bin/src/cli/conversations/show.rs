//! A conversation to read on a terminal.
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
//! 10:15:02  you  queued
//!           And run the tests.
//!
//! 10:15:03  Bash  cargo build  failed, 1.2 s, 14 lines
//! 10:15:04  Agent  find the cause  ok, 2.1 s, 1 line
//!           subagent general-purpose a1b2
//! 10:15:05  │ Read  src/lib.rs  ok, 4 ms, 120 lines
//!           │
//! 10:15:06  │ claude
//!           │ It lacks a semicolon.
//!
//! 10:15:07  thinking  That is easily mended  (3 lines)
//! ```
//!
//! With `--tools` what a tool was given and gave back stands below its line:
//!
//! ```text
//! 10:15:08  Edit  src/lib.rs  ok, 9 ms
//!             file_path: src/lib.rs
//!             - let a = 1
//!             + let a = 1;
//! 10:15:09  Bash  cargo build  ok, 1.1 s, 1 line
//!             command: cargo build
//!             = Finished
//! ```

mod header;
mod tools;
mod words;

use std::io::{self, Write};

use anstyle::Style;
use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::store::{ConversationDetail, EventSummary};
use arrakis_core::session::conversation::{Message, Replaced};

use super::Unfold;
use crate::cli::output::zone::Zone;
use crate::cli::output::{self, Terminal, text};
use arrakis_core::record::reading::spoken;
use arrakis_core::record::reading::thread::{self, Item, Thread};

/// Columns of the time at the left, with the gap after it.
const TIME_COLUMNS: usize = 10;

/// What is shown of one message, in bytes; JSON output has all of it.
const SHOWN_MESSAGE_BYTES: usize = 16 * 1024;

/// Writes the conversation, or the last `prompts` prompts of it and what came after them.
pub(super) fn write(
    detail: &ConversationDetail,
    now: Timestamp,
    unfold: Unfold,
    prompts: Option<usize>,
    zone: &Zone,
    terminal: Terminal,
    out: &mut dyn Write,
) -> io::Result<()> {
    header::write(detail, now, unfold, zone, terminal, out)?;
    let main = Thread::of(detail);
    let is_prompt =
        |item: &Item<'_>| matches!(item, Item::Message(message, _) if thread::is_prompt(message));
    let starts: Vec<usize> = (0..main.items.len()).filter(|n| is_prompt(&main.items[*n])).collect();
    let first = prompts.map_or(0, |prompts| match starts.len().checked_sub(prompts) {
        Some(n) => starts.get(n).copied().unwrap_or(main.items.len()),
        None => 0,
    });
    let replaced = &detail.replaced[..];
    let mut reader = Reader {
        zone,
        terminal,
        unfold,
        replaced,
        out,
        marks: String::new(),
        day: None,
        needs_gap: true,
        awaits_output: false,
        in_aside: false,
    };
    let mut rest = &main.items[first..];
    while let Some(item) = rest.first() {
        let part = replaced.iter().find(|part| part.has(item.at()));
        let Some(part) = part.filter(|_| !unfold.system) else {
            reader.item(item)?;
            rest = &rest[1..];
            continue;
        };
        let count = rest.iter().take_while(|item| part.has(item.at())).count();
        reader.replaced(part, &rest[..count])?;
        rest = &rest[count..];
    }
    Ok(())
}

/// Writes items, and what changes between them.
struct Reader<'a> {
    zone: &'a Zone,
    terminal: Terminal,
    unfold: Unfold,
    replaced: &'a [Replaced],
    out: &'a mut dyn Write,
    /// What stands before each line of a subagent.
    marks: String,
    /// The day of what was written last, and how the zone is called on it.
    day: Option<(String, String)>,
    /// Whether an empty line must stand before what comes.
    needs_gap: bool,
    /// Whether a command of the person was shown last, whose output may follow.
    awaits_output: bool,
    /// Whether this is a thread that the person began beside the conversation.
    in_aside: bool,
}

impl Reader<'_> {
    fn item(&mut self, item: &Item<'_>) -> io::Result<()> {
        match item {
            Item::Message(message, parts) => self.message(message, parts),
            Item::Tool(call) => self.tool(call),
            Item::Event(event) => self.event(event),
            Item::Subagent(thread) => {
                self.needs_gap = true;
                self.subagent(thread)
            }
        }
    }

    /// A part of the conversation that a later prompt has replaced: how it began, and how much it is.
    fn replaced(&mut self, part: &Replaced, items: &[Item<'_>]) -> io::Result<()> {
        let count = items.iter().filter(|item| matches!(item, Item::Message(..))).count();
        let count = output::count(count, "message");
        let what = match part.is_answered {
            true => format!("rewound ({count}; --unfold shows them)"),
            false => "withdrawn".to_owned(),
        };
        let words = items.iter().find_map(|item| match item {
            Item::Message(message, _) if message.id == part.prompt_id => {
                Some(&message.content.value)
            }
            _ => None,
        });
        let words = text::one_line(words.map_or("", String::as_str));
        let words = text::fit(&words, self.room(text::width(&what) + 2));
        self.needs_gap = true;
        self.line(part.from, &self.terminal.paint(output::DIM, &format!("{what}  {words}")))
    }

    /// The line with which something of several lines begins.
    fn begin(&mut self, at: Timestamp, label: &str, style: Style) -> io::Result<()> {
        let label = self.terminal.paint(style, label);
        self.line(at, &label)?;
        self.needs_gap = true;
        Ok(())
    }

    fn subagent(&mut self, thread: &Thread<'_>) -> io::Result<()> {
        let Some(subagent) = thread.subagent else { return Ok(()) };
        let is_aside = spoken::is_aside(thread);
        let kind = subagent.agent_type.as_deref().unwrap_or_default();
        let label = match is_aside {
            true => "beside the conversation (/btw)".to_owned(),
            false => text::one_line(&format!("subagent {kind} {}", subagent.agent_id)),
        };
        self.gap()?;
        let label = self.terminal.paint(output::WARN, &text::fit(&label, self.room(0)));
        writeln!(self.out, "{}{label}", self.indent())?;
        let marks = self.marks.len();
        self.marks.push_str("│ ");
        self.needs_gap = false;
        let was_aside = std::mem::replace(&mut self.in_aside, is_aside);
        let written = thread.items.iter().try_for_each(|item| self.item(item));
        self.marks.truncate(marks);
        self.in_aside = was_aside;
        self.needs_gap = true;
        written
    }

    fn event(&mut self, event: &EventSummary) -> io::Result<()> {
        self.awaits_output = false;
        let (name, told) = spoken::event(event);
        let name = text::one_line(&name);
        let room = self.room(text::width(&name) + 2);
        let line = format!("{name}  {}", text::fit(&text::one_line(&told), room));
        self.line(event.captured_at(), &self.terminal.paint(output::DIM, line.trim_end()))
    }

    /// A line of its own: painted text that is safe and fits.
    fn line(&mut self, at: Timestamp, line: &str) -> io::Result<()> {
        self.change_day(at)?;
        self.gap()?;
        let time = format!("{:<TIME_COLUMNS$}", self.zone.time_of_day(at));
        let time = self.terminal.paint(output::DIM, &time);
        writeln!(self.out, "{time}{}{line}", self.marks)
    }

    /// A line for each day after the first, and where the clocks change.
    fn change_day(&mut self, at: Timestamp) -> io::Result<()> {
        let (day, zone) = self.zone.day(at);
        let shown = match &self.day {
            Some((_, known)) if *known != zone => Some(format!("{day} {zone}")),
            Some((known, _)) if *known != day => Some(day.clone()),
            _ => None,
        };
        if let Some(shown) = shown {
            writeln!(self.out, "\n{}", self.terminal.paint(output::DIM, &shown))?;
            self.needs_gap = true;
        }
        self.day = Some((day, zone));
        Ok(())
    }

    fn gap(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.needs_gap) {
            let indent = if self.marks.is_empty() { String::new() } else { self.indent() };
            writeln!(self.out, "{}", indent.trim_end())?;
        }
        Ok(())
    }

    fn more(&mut self, told: &str) -> io::Result<()> {
        writeln!(self.out, "{}{}", self.indent(), self.terminal.paint(output::WARN, told))
    }

    fn indent(&self) -> String {
        format!("{:TIME_COLUMNS$}{}", "", self.marks)
    }

    /// The columns that are left in a line of which so many are taken.
    fn room(&self, taken: usize) -> usize {
        let taken = TIME_COLUMNS + text::width(&self.marks) + taken;
        self.terminal.text_columns().saturating_sub(taken).max(4)
    }
}

/// That a prompt waited in the queue while the model worked, and since when, where it stands further below.
pub(in crate::cli) fn queued(message: &Message, zone: &Zone) -> String {
    match message.sent_at {
        Some(at) => format!("queued at {}", zone.time_of_day(at)),
        None => "queued".to_owned(),
    }
}

/// `1 more line`, `7 more lines`.
fn left(lines: usize) -> String {
    output::count(lines, "more line")
}
