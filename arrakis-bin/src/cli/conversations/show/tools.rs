//! Tool uses: a line each, and below it what the tool was given and gave back.

use std::io;

use anstyle::Style;
use arrakis_core::session::conversation::{ToolStatus, ToolUse};

use super::{Reader, SHOWN_MESSAGE_BYTES, left};
use crate::cli::conversations::tool::{self, Body, Input, Line, Mark, Row};
use crate::cli::output::{self, ansi, text};
use arrakis_core::record::reading::thread::Call;

/// Most lines of a tool's input or output that are shown.
const SHOWN_TOOL_LINES: usize = 60;

impl Reader<'_> {
    pub(super) fn tool(&mut self, call: &Call<'_>) -> io::Result<()> {
        self.awaits_output = false;
        let tool_use = call.tool_use;
        let style = match tool_use.status() {
            ToolStatus::Running => output::WARN,
            ToolStatus::Denied | ToolStatus::Interrupted | ToolStatus::Failed => output::BAD,
            ToolStatus::Succeeded => output::GOOD,
        };
        let outcome = tool::outcome(tool_use);
        let mut more = String::new();
        if tool_use.is_by_person {
            more += match tool_use.status() {
                ToolStatus::Denied => " by you",
                _ => ", allowed by you",
            };
        }
        if let Some(ms) = call.duration_ms() {
            more += &format!(", {}", output::duration(ms));
        }
        if let Some(amount) = tool::amount(tool_use) {
            more += &format!(", {amount}");
        }
        if tool_use.standing.copied {
            more += ", copied from another session";
        }
        let elsewhere = tool::kept_elsewhere(tool_use);
        if elsewhere.is_some() {
            more += " of an output that the client cut";
        }
        let name = tool::name(tool_use);
        let name = text::fit(&name, self.terminal.text_columns() / 3);
        let room = self.room(text::width(&name) + 2 + 2 + outcome.len() + more.len());
        let argument = tool::argument(tool_use);
        let line = format!(
            "{}  {}{}{}",
            self.terminal.paint(output::NAME, &name),
            format!("{}  ", text::fit(&argument, room)).trim_start(),
            self.terminal.paint(style, outcome),
            self.terminal.paint(output::DIM, &more)
        );
        self.line(tool_use.first.at, &line)?;
        if let Some(body) = tool::body(tool_use) {
            self.body(&body)?;
        }
        if self.unfold.tools {
            tool::input(tool_use).iter().try_for_each(|input| self.input(input))?;
            self.tool_output(tool_use)?;
            if let Some(elsewhere) = elsewhere {
                self.more(&text::one_line(&format!("  … cut by the client: {elsewhere}")))?;
            }
            self.needs_gap = true;
        }
        call.subagents.iter().try_for_each(|thread| self.subagent(thread))
    }

    /// What is shown of a tool use, whatever is folded.
    fn body(&mut self, body: &Body) -> io::Result<()> {
        let lines: Vec<String> = match body {
            Body::Markdown(text) => text.trim().lines().map(str::to_owned).collect(),
            Body::Rows(rows) => rows.iter().map(row).collect(),
        };
        self.tool_lines(lines.iter().map(String::as_str), "", Style::new())
    }

    fn input(&mut self, input: &Input) -> io::Result<()> {
        match input {
            Input::Short(name, value) => {
                self.tool_lines([format!("{name}: {value}").as_str()].into_iter(), "", Style::new())
            }
            Input::Long(name, value) => {
                let name = format!("{name}:");
                self.tool_lines([name.as_str()].into_iter(), "", Style::new())?;
                self.tool_lines(value.lines(), "  ", Style::new())
            }
            Input::Change(lines) => {
                let style = |line: &Line| match line {
                    Line::Kept(_) => output::DIM,
                    Line::Removed(_) => output::BAD,
                    Line::Added(_) => output::GOOD,
                };
                for line in lines.iter().take(SHOWN_TOOL_LINES) {
                    self.tool_lines([line.signed().as_str()].into_iter(), "", style(line))?;
                }
                self.tool_lines_left(lines.len())
            }
        }
    }

    /// Lines of a tool's input or output, each after `sign`.
    fn tool_lines<'a>(
        &mut self,
        lines: impl Iterator<Item = &'a str>,
        sign: &str,
        style: Style,
    ) -> io::Result<()> {
        let mut count = 0;
        let room = self.room(2 + sign.len());
        for line in lines {
            count += 1;
            if count > SHOWN_TOOL_LINES {
                continue;
            }
            let line = text::many_lines(arrakis_core::base::limits::cut(line, SHOWN_MESSAGE_BYTES));
            let line = self.terminal.paint(style, &text::fit(&line, room));
            writeln!(self.out, "{}", format!("{}  {sign}{line}", self.indent()).trim_end())?;
        }
        self.tool_lines_left(count)
    }

    /// What a tool gave back: on a terminal in the colours in which it wrote that.
    fn tool_output(&mut self, tool_use: &ToolUse) -> io::Result<()> {
        let written = tool::coloured_output(tool_use);
        if !self.terminal.colour || !written.contains('\u{1b}') {
            let given_back = ansi::without_colours(&written);
            return self.tool_lines(given_back.trim_end().lines(), "= ", output::DIM);
        }
        let mut carried = ansi::Carried::default();
        let room = self.room(4);
        let lines = written.trim_end().lines();
        let all = lines.clone().count();
        for line in lines.take(SHOWN_TOOL_LINES) {
            let line =
                ansi::with_colours(arrakis_core::base::limits::cut(line, SHOWN_MESSAGE_BYTES));
            let line = ansi::fit(&carried.line(&line), room);
            writeln!(self.out, "{}  = {line}", self.indent())?;
        }
        self.tool_lines_left(all)
    }

    fn tool_lines_left(&mut self, count: usize) -> io::Result<()> {
        match count.checked_sub(SHOWN_TOOL_LINES) {
            None | Some(0) => Ok(()),
            Some(more) => self.more(&format!("  … {}; --json shows them", left(more))),
        }
    }
}

/// A row of a list, on one line.
fn row(row: &Row) -> String {
    let (mark, text) = match row {
        Row::Text(text) => ("", text),
        Row::Item(Mark::Open, text) => ("[ ] ", text),
        Row::Item(Mark::Active, text) => ("[~] ", text),
        Row::Item(Mark::Done, text) => ("[x] ", text),
    };
    format!("{mark}{}", text::one_line(text))
}
