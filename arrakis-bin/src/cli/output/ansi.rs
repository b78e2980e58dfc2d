//! The colours of what programs have put out.
//!
//! A program may write anything to its output. On a terminal only the colour of the letters and their weight are drawn
//! anew; a background could hide text, and everything else could command the terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar;

use super::text;

/// What ends all colours.
const RESET: &str = "\u{1b}[0m";

/// The text without the escape sequences with which programs colour it and move the cursor.
#[must_use]
pub fn without_colours(text: &str) -> String {
    if !text.contains('\u{1b}') {
        return text.to_owned();
    }
    anstream::adapter::strip_str(text).to_string()
}

/// The text, several lines of it, made safe but for its colours. A line may change the colours of those below it: see
/// [`Carried`].
#[must_use]
pub fn with_colours(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, codes, behind)) = next_colour(rest) {
        kept.push_str(&text::many_lines(&without_colours(before)));
        if !codes.is_empty() {
            write!(kept, "\u{1b}[{codes}m").ok();
        }
        rest = behind;
    }
    kept.push_str(&text::many_lines(&without_colours(rest)));
    kept
}

/// What stands before the next sequence that sets colours, what of it may be drawn, and what stands behind it.
fn next_colour(text: &str) -> Option<(&str, String, &str)> {
    let mut from = 0;
    while let Some(found) = text[from..].find("\u{1b}[") {
        let start = from + found;
        let codes = start + 2;
        let length =
            text[codes..].bytes().take_while(|byte| matches!(byte, b'0'..=b'9' | b';')).count();
        from = codes + length;
        if text[from..].starts_with('m') {
            return Some((&text[..start], drawn(&text[codes..from]), &text[from + 1..]));
        }
    }
    None
}

/// Those of the codes that set the colour of letters, or their weight.
fn drawn(codes: &str) -> String {
    if codes.is_empty() {
        return "0".to_owned();
    }
    let mut codes = codes.split(';').map(|code| code.parse::<u8>().unwrap_or(u8::MAX));
    let mut kept: Vec<String> = Vec::new();
    while let Some(code) = codes.next() {
        match code {
            0..=4 | 22..=24 | 30..=37 | 39 | 90..=97 => kept.push(code.to_string()),
            38 | 48 => {
                let count = match codes.next() {
                    Some(5) => 1,
                    Some(2) => 3,
                    _ => break,
                };
                let told: Vec<u8> = codes.by_ref().take(count).collect();
                if code == 38 && told.len() == count {
                    let kind = if count == 1 { "5" } else { "2" };
                    kept.extend(["38".to_owned(), kind.to_owned()]);
                    kept.extend(told.iter().map(u8::to_string));
                }
            }
            _ => {}
        }
    }
    kept.join(";")
}

/// Colours that go on over lines: each line of [`with_colours`] becomes one that stands for itself.
#[derive(Debug, Default)]
pub struct Carried(String);

impl Carried {
    /// The line with the colours with which it begins, and without any at its end.
    pub fn line<'l>(&mut self, line: &'l str) -> Cow<'l, str> {
        let begins = self.0.clone();
        let mut rest = line;
        while let Some((_, codes, behind)) = next_colour(rest) {
            if codes == "0" {
                self.0.clear();
            } else if self.0.len() < 256 {
                write!(self.0, "\u{1b}[{codes}m").ok();
            }
            rest = behind;
        }
        if begins.is_empty() && rest.len() == line.len() {
            return Cow::Borrowed(line);
        }
        Cow::Owned(format!("{begins}{line}{RESET}"))
    }
}

/// A line of [`with_colours`], or of [`Carried`], in at most `max` columns; `…` ends what was cut.
#[must_use]
pub fn fit(line: &str, max: usize) -> String {
    let mut kept = String::with_capacity(line.len());
    let (mut columns, mut rest) = (0, line);
    let whole: usize = text::width(&without_colours(line));
    let room = if whole > max { max.saturating_sub(1) } else { max };
    loop {
        let next = next_colour(rest);
        let words = next.as_ref().map_or(rest, |(before, _, _)| before);
        for letter in words.chars() {
            columns += letter.width().unwrap_or(0);
            if columns > room {
                kept.push('…');
                if kept.contains('\u{1b}') {
                    kept.push_str(RESET);
                }
                return kept;
            }
            kept.push(letter);
        }
        let Some((_, codes, behind)) = next else { return kept };
        write!(kept, "\u{1b}[{codes}m").ok();
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_colours_of_letters_are_drawn() {
        for (text, expected) in [
            ("\u{1b}[1;31mred\u{1b}[m end", "\u{1b}[1;31mred\u{1b}[0m end"),
            ("\u{1b}[38;5;200;41mx", "\u{1b}[38;5;200mx"),
            ("\u{1b}[48;2;1;2;3;38;2;4;5;6mx", "\u{1b}[38;2;4;5;6mx"),
            ("\u{1b}[8mhidden\u{1b}[7m", "hidden"),
            ("\u{1b}[2J\u{1b}[Hx\u{1b}]0;title\u{7}y", "xy"),
            ("\u{1b}]8;;http://x\u{1b}[31m\u{7}z", "\u{1b}[31m\\x07z"),
            ("\u{1b}[31", ""),
            ("a\tb\u{9b}31m", "a    b\\u{9b}31m"),
        ] {
            assert_eq!(with_colours(text), expected, "{text:?}");
        }
    }

    #[test]
    fn each_line_stands_for_itself() {
        let text = with_colours("\u{1b}[31mone\ntwo\u{1b}[0m\nthree");
        let mut carried = Carried::default();
        let lines: Vec<_> = text.lines().map(|line| carried.line(line).into_owned()).collect();
        assert_eq!(lines, ["\u{1b}[31mone\u{1b}[0m", "\u{1b}[31mtwo\u{1b}[0m\u{1b}[0m", "three"]);
    }

    #[test]
    fn colours_take_no_columns() {
        assert_eq!(fit("\u{1b}[31mabcdef\u{1b}[0m", 6), "\u{1b}[31mabcdef\u{1b}[0m");
        assert_eq!(fit("\u{1b}[31mabcdef\u{1b}[0m", 4), "\u{1b}[31mabc…\u{1b}[0m");
    }
}
