//! What is said in a conversation.

use std::io;

use anstyle::Style;
use arrakis_core::base::clock::Timestamp;
use arrakis_core::session::conversation::{Message, Notice, Role};

use super::{Reader, SHOWN_MESSAGE_BYTES, left, queued};
use crate::cli::output::{self, ansi, text};
use arrakis_core::record::reading::spoken::{self, Speaker};
use arrakis_core::record::reading::thread::{Part, What};

/// Lines of what the client itself says that are shown: it may be the summary of a whole conversation.
const SHOWN_SYSTEM_LINES: usize = 6;

/// How the client tells, in brackets, that the person has stopped the model.
const INTERRUPTED: &str = "Request interrupted by user";

/// How the name of a block begins that the client wrote for the model before the person's words.
const REMINDER: &str = "reminder: ";

impl Reader<'_> {
    /// A message: its parts, and how it ended.
    pub(super) fn message(&mut self, message: &Message, parts: &[Part<'_>]) -> io::Result<()> {
        if spoken::is_for_model(message) && !self.unfold.system {
            return Ok(());
        }
        parts.iter().try_for_each(|part| self.part(message, part))?;
        let end = parts.last().map_or(message.content.stamp.at, |part| part.at);
        if let Some(left) = spoken::blocks_left_out(message) {
            self.more(&left)?;
        }
        if let Some(told) = spoken::early_end(message) {
            let told = text::fit(&text::one_line(&told), self.room(0)).into_owned();
            self.line(end, &self.terminal.paint(output::BAD, &told))?;
        }
        if let Some(tokens) = spoken::tokens(message).filter(|_| self.unfold.tokens) {
            let tokens = text::fit(&text::one_line(&tokens), self.room(0)).into_owned();
            self.line(end, &self.terminal.paint(output::DIM, &tokens))?;
        }
        Ok(())
    }

    fn part(&mut self, message: &Message, part: &Part<'_>) -> io::Result<()> {
        match &part.what {
            What::Text(words) => self.words(message, part.at, words),
            What::Thinking("") => self.named(part.at, "thinking  not in the transcript"),
            What::Redacted => self.named(part.at, "thinking  redacted"),
            What::Thinking(words) if self.unfold.thinking => {
                self.needs_gap = true;
                self.begin(part.at, "thinking", output::DIM)?;
                self.text(words, Some(output::DIM), usize::MAX)
            }
            What::Thinking(words) => {
                let count = words.trim().lines().count();
                let lines = output::count(count, "line");
                let end = if count > 1 { format!("  ({lines})") } else { String::new() };
                let room = self.room("thinking".len() + 2 + end.len());
                let first = text::one_line(words.trim().lines().next().unwrap_or_default());
                self.named(part.at, &format!("thinking  {}{end}", text::fit(&first, room)))
            }
            What::Tool(call) => self.tool(call),
            What::Attached(told) => self.attached(told),
            What::Named(what) if what.starts_with(REMINDER) && !self.unfold.system => Ok(()),
            What::Named(what) => {
                let what = format!("[{}]", text::fit(&text::one_line(what), self.room(2)));
                self.named(part.at, &what)
            }
        }
    }

    /// A dim line of its own.
    fn named(&mut self, at: Timestamp, told: &str) -> io::Result<()> {
        self.line(at, &self.terminal.paint(output::DIM, told.trim_end()))
    }

    /// What the client has sent beside the prompt above.
    fn attached(&mut self, told: &str) -> io::Result<()> {
        self.needs_gap = false;
        let told = text::fit(&text::one_line(told), self.room(0)).into_owned();
        writeln!(self.out, "{}{}", self.indent(), self.terminal.paint(output::DIM, &told))?;
        self.needs_gap = true;
        Ok(())
    }

    fn words(&mut self, message: &Message, at: Timestamp, words: &str) -> io::Result<()> {
        let is_system = message.role == Role::System;
        let is_command = message.notice == Some(Notice::Command);
        let is_below = std::mem::replace(&mut self.awaits_output, is_command);
        if is_below && message.notice == Some(Notice::Output) {
            self.needs_gap = false;
            self.client(words)?;
            self.awaits_output = true;
            self.needs_gap = true;
            return Ok(());
        }
        let speaker = Speaker::of(message, words, self.in_aside);
        let style = match speaker {
            Speaker::You | Speaker::Task => output::GOOD.bold(),
            Speaker::Claude | Speaker::Advisor => output::NAME.bold(),
            Speaker::Shell | Speaker::System => output::WARN,
        };
        self.needs_gap = true;
        let mut label = self.terminal.paint(style, speaker.name());
        if message.role == Role::User && message.origin.has_waited() {
            label +=
                &self.terminal.paint(output::DIM, &format!("  {}", queued(message, self.zone)));
        }
        if message.standing.copied {
            label += &self.terminal.paint(output::DIM, "  copied from another session");
        }
        if let Some(part) = self.replaced.iter().find(|part| part.prompt_id == message.id) {
            let what = if part.is_answered { "  rewound" } else { "  withdrawn" };
            label += &self.terminal.paint(output::DIM, what);
        }
        self.line(at, &label)?;
        self.needs_gap = true;
        if is_system && !is_command {
            return self.client(words);
        }
        let is_pasted = message.role == Role::User;
        let words =
            if is_pasted { spoken::pasted(words, self.unfold.system) } else { words.into() };
        self.text(&words, None, usize::MAX)
    }

    /// Words of the client, such as the output of a command. They may have colours.
    fn client(&mut self, words: &str) -> io::Result<()> {
        let words = ansi::without_colours(words);
        let interruption = words.strip_prefix('[').and_then(|words| words.strip_suffix(']'));
        let interruption = interruption.filter(|words| words.starts_with(INTERRUPTED));
        let words = interruption.unwrap_or(&words);
        let is_whole = self.unfold.system;
        self.text(words, Some(output::DIM), if is_whole { usize::MAX } else { SHOWN_SYSTEM_LINES })
    }

    /// Running text, at most so many lines of it.
    fn text(&mut self, words: &str, style: Option<Style>, lines: usize) -> io::Result<()> {
        let shown = arrakis_core::base::limits::cut(words, SHOWN_MESSAGE_BYTES);
        let indent = self.indent();
        let wrapped = text::wrap(&text::many_lines(shown), self.terminal.text_columns(), &indent);
        let all = wrapped.lines().count();
        for line in wrapped.lines().take(lines) {
            let words = line.strip_prefix(&indent).unwrap_or_default();
            match style {
                Some(style) if !words.is_empty() => {
                    writeln!(self.out, "{indent}{}", self.terminal.paint(style, words))?;
                }
                _ => writeln!(self.out, "{line}")?,
            }
        }
        if all > lines {
            self.more(&format!("… {}; --unfold shows them", left(all - lines)))
        } else if shown.len() < words.len() {
            self.more(&format!("… {} in all; --json shows them", output::size(words.len())))
        } else {
            Ok(())
        }
    }
}
