//! Text of others, made safe to show.
//!
//! Payloads, paths and log lines may hold anything, escape sequences included. Nothing of them
//! reaches a terminal but printable characters: control characters are shown as `\x1b` or `\u{9b}`,
//! and so are the invisible ones that reorder or hide what stands around them.

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns of a tab stop.
const TAB: &str = "    ";

/// `text` on one line: white space and line breaks become single spaces, the rest is made safe.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&safe(word));
    }
    line
}

/// `text` with its line breaks kept, tabs as spaces, and the rest made safe.
#[must_use]
pub fn many_lines(text: &str) -> String {
    let mut lines = String::with_capacity(text.len());
    for (n, line) in text.split('\n').enumerate() {
        if n > 0 {
            lines.push('\n');
        }
        let line = line.strip_suffix('\r').unwrap_or(line);
        lines.push_str(&safe(&line.replace('\t', TAB)));
    }
    lines
}

/// `text` with every character escaped that a terminal would not show as itself.
#[must_use]
pub fn safe(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if !is_unsafe(letter) {
            safe.push(letter);
        } else if letter.is_ascii() {
            write!(safe, "\\x{:02x}", u32::from(letter)).ok();
        } else {
            write!(safe, "\\u{{{:x}}}", u32::from(letter)).ok();
        }
    }
    Cow::Owned(safe)
}

/// JSON text with every character escaped that `safe` escapes; it means the same.
#[must_use]
pub fn safe_json(json: &str) -> Cow<'_, str> {
    // Line breaks and tabs stand between values only; inside strings JSON has them escaped.
    let is_unsafe = |letter| is_unsafe(letter) && !matches!(letter, '\n' | '\r' | '\t');
    if !json.contains(is_unsafe) {
        return Cow::Borrowed(json);
    }
    let mut safe = String::with_capacity(json.len() + 16);
    for letter in json.chars() {
        if is_unsafe(letter) {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                write!(safe, "\\u{unit:04x}").ok();
            }
        } else {
            safe.push(letter);
        }
    }
    Cow::Owned(safe)
}

/// Columns that `text` takes on a terminal.
#[must_use]
pub fn width(text: &str) -> usize {
    text.width()
}

/// `text` in at most `max` columns; `…` ends what was cut.
#[must_use]
pub fn fit(text: &str, max: usize) -> Cow<'_, str> {
    if text.width() <= max {
        return Cow::Borrowed(text);
    }
    let mut columns = 0;
    let kept = text.chars().take_while(|letter| {
        columns += letter.width().unwrap_or(0);
        columns < max
    });
    let mut kept: String = kept.collect();
    kept.push('…');
    Cow::Owned(kept)
}

/// `text` wrapped to `columns`, each line after `indent`. Line breaks of the text stay.
#[must_use]
pub fn wrap(text: &str, columns: usize, indent: &str) -> String {
    let room = columns.saturating_sub(indent.width()).max(20);
    let mut wrapped = String::with_capacity(text.len() + 64);
    for line in text.trim_end().split('\n') {
        for part in textwrap::wrap(line, room) {
            let whole = format!("{indent}{part}");
            wrapped.push_str(whole.trim_end());
            wrapped.push('\n');
        }
    }
    wrapped
}

fn is_unsafe(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            // Marks and overrides of direction, line and paragraph separators, invisible ones, byte
            // order mark, tags. The two joiners stay: they make one sign of several, as in emoji.
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_are_shown_and_not_obeyed() {
        assert_eq!(safe("\u{1b}]0;owned\u{7}"), "\\x1b]0;owned\\x07");
        assert_eq!(safe("\u{9b}2J"), "\\u{9b}2J");
        assert_eq!(safe("abc\u{202e}def"), "abc\\u{202e}def");
        assert_eq!(safe("👩\u{200d}💻"), "👩\u{200d}💻");
        assert_eq!(one_line(" a\n\tb \u{1b}[31m"), "a b \\x1b[31m");
        assert_eq!(many_lines("a\r\nb\tc\rd"), "a\nb    c\\x0dd");
    }

    #[test]
    fn escaped_json_means_the_same() {
        let value = serde_json::json!({ "a\u{7f}": "x\u{9b}\u{202e}\u{e0001}é\u{1b}\n" });
        let text = serde_json::to_string_pretty(&value).unwrap();
        let safe = safe_json(&text);
        assert!(!safe.chars().any(|c| c != '\n' && is_unsafe(c)), "{safe}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
    }

    #[test]
    fn fit_counts_columns_and_not_characters() {
        assert_eq!(fit("abcdef", 6), "abcdef");
        assert_eq!(fit("abcdef", 4), "abc…");
        assert_eq!(fit("日本語", 4), "日…");
        assert_eq!(fit("日本語", 5), "日本…");
    }

    #[test]
    fn wrap_keeps_line_breaks_and_indentation() {
        let text = "one two three four five\n\n    six seven\n";
        let wrapped = "  one two three four\n  five\n\n      six seven\n";
        assert_eq!(wrap(text, 22, "  "), wrapped);
        assert_eq!(wrap(&"x".repeat(30), 22, "  ").lines().count(), 2);
    }
}
