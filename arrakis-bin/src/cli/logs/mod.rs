//! `arrakis logs`: the log files of a home as one, in time order.
//!
//! As JSON, each line of output is a line of a log file as it stands there: an object with at least
//! `timestamp`, `level`, `message` and, where it is about an event, `requestId`. A line that is no such
//! object comes as `{"unreadable": …, "file": …}`.

mod follow;
mod merge;

use std::collections::VecDeque;
use std::io;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::id::RequestId;
use clap::{Args, ValueEnum};
use jiff::civil::{DateTime, Time};
use jiff::fmt::temporal::Pieces;
use serde_json::{Map, Value, json};

use super::Context;
use super::output::zone::Zone;
use super::output::{self, Terminal, text};
use crate::shutdown;
use follow::Follower;
use merge::{Line, Merge};

/// Lines that are shown unless told otherwise.
const DEFAULT_LIMIT: u64 = 200;

/// Most lines that are shown: they are held in memory until the last one is known.
const MAX_LIMIT: u64 = 100_000;

/// The arguments of `arrakis logs`.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// Go on with new lines as they are written, until Ctrl-C.
    #[arg(long, short)]
    pub follow: bool,

    /// Only lines about this request id: one event's life, from capture to its row.
    #[arg(long, value_name = "ID")]
    pub request: Option<RequestId>,

    /// Only lines of this level or a worse one.
    #[arg(long, value_name = "LEVEL")]
    pub level: Option<Level>,

    /// Only lines since then: a duration such as 15m or 2days, or a time such as 2026-11-24,
    /// 2026-11-24T10:15 or 2026-11-24T10:15:00Z.
    #[arg(long, value_name = "DURATION|TIME")]
    pub since: Option<Since>,

    /// Only the newest N of those lines; with --follow, of those that are there already.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT,
          value_parser = clap::value_parser!(u64).range(1..=MAX_LIMIT))]
    pub limit: u64,
}

impl Default for LogsArgs {
    fn default() -> Self {
        Self { follow: false, request: None, level: None, since: None, limit: DEFAULT_LIMIT }
    }
}

/// How bad a line is. A worse level is less than a better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Level {
    /// Something is lost or does not work.
    Error,
    /// Something went wrong and is dealt with.
    Warn,
    /// What is done.
    Info,
    /// How it is done.
    Debug,
    /// Everything.
    Trace,
}

/// A point in time, absolute or counted back from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// This long ago.
    Ago(Duration),
    /// At this time.
    At(Timestamp),
    /// When clocks of the reader's time zone show this.
    Local(DateTime),
}

/// The text is neither a duration nor a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("give a duration such as 15m, 2h or 3days, or a time such as 2026-11-24T10:15:00Z")]
pub struct InvalidSince;

impl FromStr for Since {
    type Err = InvalidSince;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if let Ok(ago) = humantime::parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        if let Ok(at) = text.parse() {
            return Ok(Self::At(at));
        }
        let parts = Pieces::parse(text).map_err(|_| InvalidSince)?;
        if parts.offset().is_some() || parts.time_zone_annotation().is_some() {
            return Err(InvalidSince);
        }
        let time = parts.time().unwrap_or(Time::midnight());
        Ok(Self::Local(parts.date().to_datetime(time)))
    }
}

impl Since {
    /// The time that is meant.
    #[must_use]
    pub fn before(self, now: Timestamp, zone: &Zone) -> Timestamp {
        match self {
            Self::Ago(ago) => now.minus(ago),
            Self::At(at) => at,
            Self::Local(at) => zone.at(at),
        }
    }
}

/// Shows the lines that are there.
///
/// # Errors
///
/// The log directory or a file in it cannot be read, or the output cannot be written.
pub fn run(args: &LogsArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let directory = context.home.join("logs");
    let since = args.since.map(|since| since.before(context.clock.now(), &context.zone));
    let mut lines = Merge::open(&directory, since)
        .with_context(|| format!("the logs in {} cannot be read", directory.display()))?;
    let Counts { matching, unreadable } = show_newest(&mut lines, args, since, context)?;
    if matching == 0 {
        context.remark(&format!("No lines match in {}.", directory.display()))?;
    }
    if matching > args.limit {
        context.remark(&format!(
            "The newest {} of {matching} lines; --limit shows more.",
            args.limit
        ))?;
    }
    if unreadable > 0 {
        context.remark(&format!(
            "{unreadable} of {matching} lines could not be read; they are shown as they are."
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows the lines that are there, and those that come, until this process is to end.
///
/// # Errors
///
/// As [`run`].
pub async fn follow(args: &LogsArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let shutdown = shutdown::on_signal()?;
    let directory = context.home.join("logs");
    let since = args.since.map(|since| since.before(context.clock.now(), &context.zone));
    let unreadable = || format!("the logs in {} cannot be read", directory.display());
    let (mut follower, mut lines) = Follower::open(&directory).with_context(unreadable)?;
    show_newest(&mut lines, args, since, context)?;
    follower.goes_on_after(lines.into_told());
    loop {
        context.out.flush()?;
        let is_end = tokio::select! {
            () = shutdown.cancelled() => true,
            () = follower.changed() => false,
        };
        for line in follower.read(is_end).with_context(unreadable)? {
            if args.wants(&line, since) {
                write(&line, context)?;
            }
        }
        if is_end {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// How many lines there were.
struct Counts {
    matching: u64,
    unreadable: u64,
}

/// Shows the newest of the lines that are asked for.
fn show_newest(
    lines: &mut Merge,
    args: &LogsArgs,
    since: Option<Timestamp>,
    context: &mut Context,
) -> anyhow::Result<Counts> {
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let mut shown: VecDeque<Line> = VecDeque::new();
    let mut counts = Counts { matching: 0, unreadable: 0 };
    for line in lines {
        let line = line.context("a log file cannot be read")?;
        if !args.wants(&line, since) {
            continue;
        }
        counts.matching += 1;
        counts.unreadable += u64::from(line.fields.is_none());
        if shown.len() == limit {
            shown.pop_front();
        }
        shown.push_back(line);
    }
    for line in &shown {
        write(line, context)?;
    }
    Ok(counts)
}

fn write(line: &Line, context: &mut Context) -> io::Result<()> {
    if context.json {
        write_json(line, &mut context.out)
    } else {
        write_human(line, &context.zone, context.terminal, &mut context.out)
    }
}

impl LogsArgs {
    /// Whether a line is asked for. What cannot be read may be anything, so only what is visible
    /// rules it out.
    fn wants(&self, line: &Line, since: Option<Timestamp>) -> bool {
        if since.is_some_and(|since| line.at < since) {
            return false;
        }
        let Some(fields) = &line.fields else {
            return self.request.as_ref().is_none_or(|id| line.raw.contains(id.as_str()));
        };
        let of_request = self
            .request
            .as_ref()
            .is_none_or(|id| fields.get("requestId").and_then(Value::as_str) == Some(id.as_str()));
        of_request && self.level.is_none_or(|level| level_of(fields) <= level)
    }
}

/// The level of a line; one that is not known is taken for information.
fn level_of(fields: &Map<String, Value>) -> Level {
    let name = fields.get("level").and_then(Value::as_str).unwrap_or_default();
    Level::from_str(name, true).unwrap_or(Level::Info)
}

fn write_json(line: &Line, out: &mut dyn io::Write) -> io::Result<()> {
    match line.fields {
        Some(_) => writeln!(out, "{}", text::safe_json(&line.raw)),
        None => {
            let line = json!({ "unreadable": line.raw, "file": line.file.as_ref() }).to_string();
            writeln!(out, "{}", text::safe_json(&line))
        }
    }
}

/// `2026-11-24 10:15:00.123  error  drainer  the message  requestId=… code=…`
fn write_human(
    line: &Line,
    zone: &Zone,
    terminal: Terminal,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let Some(fields) = &line.fields else {
        let raw = text::one_line(&line.raw);
        let file = text::one_line(&line.file);
        return writeln!(out, "{} {raw}", terminal.paint(output::BAD, &format!("{file}?")));
    };
    let level = level_of(fields);
    let style = match level {
        Level::Error => output::BAD,
        Level::Warn => output::WARN,
        Level::Info => output::GOOD,
        Level::Debug | Level::Trace => output::DIM,
    };
    let written =
        |name: &str| text::one_line(fields.get(name).and_then(Value::as_str).unwrap_or_default());
    write!(
        out,
        "{}  {}  {:<7}  {}",
        terminal.paint(output::DIM, &zone.exact_moment(line.at)),
        terminal.paint(style, &format!("{:<5}", written("level").to_lowercase())),
        written("component"),
        written("message"),
    )?;
    let rest = fields.iter().filter(|(name, value)| {
        !matches!(name.as_str(), "timestamp" | "level" | "component" | "message")
            && !value.is_null()
    });
    for (name, value) in rest {
        let value = match value.as_str() {
            Some(text) if is_plain(text) => text.to_owned(),
            _ => value.to_string(),
        };
        let label = terminal.paint(output::DIM, &format!("{}=", text::one_line(name)));
        write!(out, "  {label}{}", text::one_line(&value))?;
    }
    writeln!(out)
}

/// Whether a text can stand without quotes.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '='))
}
