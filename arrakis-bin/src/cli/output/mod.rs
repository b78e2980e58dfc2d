//! How commands show things: colours, tables, JSON, times.

pub mod ansi;
pub mod pager;
pub mod table;
pub mod text;
pub mod zone;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use arrakis_core::base::limits::cut;
use arrakis_core::record::audit::EventStatus;
pub use arrakis_core::record::reading::words::{count, indent_json, size};
use serde::Serialize;

/// What stands out.
pub const BOLD: Style = Style::new().bold();
/// What stands back: headings, ids, labels.
pub const DIM: Style = Style::new().dimmed();
/// What went well.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// What waits or was not perfect.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// What went wrong.
pub const BAD: Style = AnsiColor::Red.on_default();
/// What names a speaker or a tool.
pub const NAME: Style = AnsiColor::Cyan.on_default();

/// What was searched for.
pub const MATCH: Style = AnsiColor::Yellow.on_default().bold();

/// What is shown of a payload to people, in bytes; JSON output has all of it.
pub const SHOWN_PAYLOAD_BYTES: usize = 64 * 1024;

/// Columns of a terminal that does not say how many it has.
const DEFAULT_COLUMNS: usize = 100;

/// Most columns of running text: longer lines are hard to read.
const MAX_TEXT_COLUMNS: usize = 110;

/// What the output is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Whether to paint.
    pub colour: bool,
    /// Its columns; none where the output goes to a file or a pipe.
    pub width: Option<usize>,
}

impl Terminal {
    /// No terminal: neither colours nor a limit to the width.
    pub const NONE: Self = Self { colour: false, width: None };

    /// What standard output is. Colours need a terminal that is not `dumb`, and `NO_COLOR` to be
    /// unset or empty.
    #[must_use]
    pub fn of_stdout() -> Self {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Self::NONE;
        }
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        Self {
            colour: set("NO_COLOR").is_none() && !dumb,
            width: terminal_size::terminal_size_of(&stdout)
                .map(|(terminal_size::Width(columns), _)| usize::from(columns))
                .filter(|columns| *columns > 0)
                .or(Some(DEFAULT_COLUMNS)),
        }
    }

    /// `text` in this style, where the terminal has colours. The text must be safe.
    #[must_use]
    pub fn paint(self, style: Style, text: &str) -> String {
        if self.colour && !style.is_plain() && !text.is_empty() {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    /// Columns for running text: no limit where it goes to a file or a pipe.
    #[must_use]
    pub fn text_columns(self) -> usize {
        self.width.map_or(usize::MAX, |columns| columns.min(MAX_TEXT_COLUMNS))
    }
}

/// The colour of a state.
#[must_use]
pub fn status_style(status: EventStatus) -> Style {
    match status {
        EventStatus::Success => GOOD,
        EventStatus::Duplicate => DIM,
        EventStatus::Pending | EventStatus::Processing | EventStatus::PendingRetry => WARN,
        EventStatus::Invalid | EventStatus::Error | EventStatus::Failed => BAD,
    }
}

/// Writes `value` as indented JSON and a line break. Characters that a terminal would obey are
/// escaped, which changes nothing of its meaning.
///
/// # Errors
///
/// `out` does not take it.
pub fn write_json(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_string_pretty(value)?;
    writeln!(out, "{}", text::safe_json(&json))
}

/// Writes a payload below a heading that begins with `what`: indented where it is JSON, made safe, and cut
/// after [`SHOWN_PAYLOAD_BYTES`].
///
/// # Errors
///
/// `out` does not take it.
pub fn write_payload(
    what: &str,
    bytes: &[u8],
    terminal: Terminal,
    out: &mut dyn Write,
) -> io::Result<()> {
    let heading = format!("{what}, {}", size(bytes.len()));
    writeln!(out, "\n{}", terminal.paint(DIM, &heading))?;
    let whole = String::from_utf8_lossy(bytes);
    let indented = match serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
        Ok(_) => indent_json(&whole),
        Err(_) => whole.into_owned(),
    };
    let shown = cut(&indented, SHOWN_PAYLOAD_BYTES);
    writeln!(out, "{}", text::many_lines(shown))?;
    if shown.len() < indented.len() {
        let more = format!("… cut after {}; --json shows all", size(shown.len()));
        writeln!(out, "{}", terminal.paint(WARN, &more))?;
    }
    Ok(())
}

/// Names lines of types that are not known, the most frequent first; `None` where there are none.
#[must_use]
pub fn unknown_lines(lines: &BTreeMap<String, u64>) -> Option<String> {
    let all = lines.values().fold(0_u64, |all, lines| all.saturating_add(*lines));
    let mut types: Vec<_> = lines.iter().collect();
    types.sort_by_key(|(line_type, lines)| (std::cmp::Reverse(*lines), *line_type));
    let types = match &types[..] {
        [] => return None,
        [(line_type, _)] => (*line_type).clone(),
        many => {
            let named = many.iter().take(UNKNOWN_TYPES_SHOWN);
            let named: Vec<_> = named.map(|(name, lines)| format!("{lines} {name}")).collect();
            let more = if many.len() > named.len() { ", …" } else { "" };
            named.join(", ") + more
        }
    };
    let of = if lines.len() == 1 { "a type" } else { "types" };
    let count = count(usize::try_from(all).unwrap_or(usize::MAX), "line");
    Some(text::one_line(&format!("{count} of {of} that this version does not know: {types}")))
}

/// How many types of lines are named that are not known.
const UNKNOWN_TYPES_SHOWN: usize = 8;

/// What to do about lines of types that are not known.
pub const UNKNOWN_LINES_REMEDY: &str = "nothing is lost: update Arrakis, then read them with \
    `arrakis import --again`";

/// `87 ms`, `1.2 s`, `2 min 3 s`, `1 h 4 min`.
#[must_use]
pub fn duration(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// `1,234,567`.
#[must_use]
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indented_json_is_what_serde_writes() {
        let value = serde_json::json!({
            "a": [1, {"b \\\" {": "x, y: [z]"}, [], {}], "c": null, "d": "\\"
        });
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        assert_eq!(indent_json(&value.to_string()), pretty);
        assert_eq!(indent_json(&pretty), pretty);
        assert_eq!(
            indent_json("{\"b\":1.50,\"a\":1e400,\"b\":[ ]}"),
            "{\n  \"b\": 1.50,\n  \"a\": 1e400,\n  \"b\": []\n}"
        );
    }

    #[test]
    fn durations_have_two_units_at_most() {
        let shown = [0, 999, 1250, 61_000, 3_660_000].map(duration);
        assert_eq!(shown, ["0 ms", "999 ms", "1.2 s", "1 min 1 s", "1 h 1 min"]);
    }

    #[test]
    fn numbers_are_in_groups_of_three() {
        let shown = [0, 999, 1000, 123_456, 1_234_567].map(number);
        assert_eq!(shown, ["0", "999", "1,000", "123,456", "1,234,567"]);
    }

    #[test]
    fn paint_needs_colours() {
        assert_eq!(Terminal::NONE.paint(BAD, "x"), "x");
        let colours = Terminal { colour: true, width: None };
        assert_eq!(colours.paint(BAD, "x"), "\u{1b}[31mx\u{1b}[0m");
        assert_eq!(colours.paint(BAD, ""), "");
    }
}
