//! Reads text as it is meant, whatever escapes it is written with.
//!
//! A payload is JSON whose strings quote other text: commands, files, and JSON again. So one line break
//! may be the byte 10, `\n`, `\\n` or `\\\\n`, and one quote `"`, `\"` or `\\\"`. The functions here read
//! the payload as it is written and give what a reader of the innermost text would see. Nothing is
//! copied, and a range that begins and ends between two units never cuts an escape.
//!
//! Where an escape is ambiguous (`\\n` is a line break in JSON in JSON, and the end of a folder's name in
//! `C:\\new`), it counts as an end of words: a secret may begin and end there.

use std::borrow::Cow;
use std::ops::Range;

/// One character of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    /// What it means. A byte of a longer UTF-8 sequence stands for itself, and so does 0xff for an escaped
    /// character outside ASCII.
    pub(super) byte: u8,
    /// How many bytes it is written with.
    pub(super) len: usize,
    /// How many of these are backslashes before it.
    pub(super) backslashes: usize,
}

/// The unit at `at`; `None` at the end.
pub(super) fn unit(text: &[u8], at: usize) -> Option<Unit> {
    let first = *text.get(at)?;
    if first != b'\\' {
        return Some(Unit { byte: first, len: 1, backslashes: 0 });
    }
    let backslashes = text[at..].iter().take_while(|byte| **byte == b'\\').count();
    let escaped = |byte, len| Some(Unit { byte, len: backslashes + len, backslashes });
    match text.get(at + backslashes) {
        Some(b'n' | b'v' | b'f') => escaped(b'\n', 1),
        Some(b'r') => escaped(b'\r', 1),
        Some(b't') => escaped(b'\t', 1),
        Some(b'b') => escaped(0x08, 1),
        Some(byte @ (b'"' | b'\'' | b'`' | b'/' | b'=' | b'&' | b'!' | b'$' | b'@' | b'#')) => {
            escaped(*byte, 1)
        }
        Some(b'u') => match hex(text.get(at + backslashes + 1..at + backslashes + 5)) {
            Some(code) => escaped(u8::try_from(code).ok().filter(u8::is_ascii).unwrap_or(0xff), 5),
            None => Some(Unit { byte: b'\\', len: backslashes, backslashes: 0 }),
        },
        _ => Some(Unit { byte: b'\\', len: backslashes, backslashes: 0 }),
    }
}

fn hex(digits: Option<&[u8]>) -> Option<u32> {
    digits?.iter().try_fold(0, |sum, digit| Some(sum * 16 + char::from(*digit).to_digit(16)?))
}

/// The units from `at` on, each with where it begins.
pub(super) fn units(text: &[u8], mut at: usize) -> impl Iterator<Item = (usize, Unit)> {
    std::iter::from_fn(move || {
        let unit = unit(text, at)?;
        let start = at;
        at += unit.len;
        Some((start, unit))
    })
}

/// What `range` means, its first `max` bytes; borrowed where it is written as it is meant.
pub(super) fn decode(text: &[u8], range: Range<usize>, max: usize) -> Cow<'_, [u8]> {
    let written = &text[range.start..range.end.min(range.start.saturating_add(max))];
    if !written.contains(&b'\\') {
        return Cow::Borrowed(written);
    }
    units(&text[..range.end], range.start).take(max).map(|(_, unit)| unit.byte).collect()
}

/// Whether a byte can be part of a word.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether no word runs across `at`, seen from the left: what stands before is no part of a word, or is the
/// last letter of an escape (`\n`, `\u003e`, `%3D`) or of a terminal's colour (`ESC[32m`).
pub(super) fn begins(text: &[u8], at: usize) -> bool {
    let Some(before) = at.checked_sub(1).map(|last| text[last]) else { return true };
    if !is_word(before) {
        return true;
    }
    let back = |bytes: usize| at.checked_sub(bytes).and_then(|start| text.get(start..at));
    if matches!(before, b'n' | b'r' | b't' | b'b' | b'f' | b'v' | b'e')
        && at >= 2
        && text[at - 2] == b'\\'
    {
        return true;
    }
    if let Some([b'\\', b'u', digits @ ..]) = back(6) {
        let means = hex(Some(digits)).and_then(|code| u8::try_from(code).ok());
        return !means.is_some_and(is_word);
    }
    if let Some([b'%', high, low]) = back(3)
        && high.is_ascii_hexdigit()
        && low.is_ascii_hexdigit()
    {
        return true;
    }
    if let Some([b'\\', b'x', high, low]) = back(4)
        && high.is_ascii_hexdigit()
        && low.is_ascii_hexdigit()
    {
        return true;
    }
    before.is_ascii_alphabetic() && ends_colour(&text[..at - 1])
}

/// Whether `text` ends in the beginning of a terminal's control sequence: an escape, `[` and numbers.
fn ends_colour(text: &[u8]) -> bool {
    let numbers = |byte: &&u8| byte.is_ascii_digit() || matches!(byte, b';' | b'?');
    let digits = text.iter().rev().take(16).take_while(numbers).count();
    let Some(text) = text[..text.len() - digits].strip_suffix(b"[") else { return false };
    let escapes: [&[u8]; 6] = [b"\x1b", b"u001b", b"u001B", b"x1b", b"033", b"\\e"];
    escapes.iter().any(|escape| text.ends_with(escape))
}

/// How deep a quote stands in strings, by the backslashes before it: `"` in none, `\"` in one, `\\\"` in
/// two. Backslashes that are part of the text come in pairs at each level, so only the lowest bits count.
pub(super) fn depth(backslashes: usize) -> u32 {
    backslashes.trailing_ones()
}

/// How many backslashes stand directly before `at`.
pub(super) fn backslashes_before(text: &[u8], at: usize) -> usize {
    text[..at].iter().rev().take_while(|byte| **byte == b'\\').count()
}

/// Where the scan has looked for ends of values before, so that a text of openings without an end costs one
/// pass and not one for each of them.
#[derive(Debug, Default)]
pub(super) struct Ends {
    quoted: [[Option<End>; 4]; 3],
    bare: Option<(Range<usize>, bool)>,
    line: Option<Range<usize>>,
}

#[derive(Debug, Clone, Copy)]
struct End {
    from: usize,
    /// The quote that closes the value, or where it cannot go on.
    at: usize,
    closed: bool,
}

impl Ends {
    /// The end of a quoted value that begins at `from`, behind a quote of `backslashes` backslashes: where its
    /// closing quote is written. `None` where a string around it ends before.
    pub(super) fn of_quoted(
        &mut self,
        text: &[u8],
        from: usize,
        quote: u8,
        backslashes: usize,
    ) -> Option<usize> {
        let kind = match quote {
            b'"' => 0,
            b'\'' => 1,
            _ => 2,
        };
        let depth = depth(backslashes);
        let known = self.quoted[kind].get(depth as usize).copied().flatten();
        let end = match known {
            Some(end) if end.from <= from && from <= end.at => end,
            _ => {
                let end = find_close(text, from, quote, depth);
                if let Some(slot) = self.quoted[kind].get_mut(depth as usize) {
                    *slot = Some(end);
                }
                end
            }
        };
        let start = end.at.checked_sub(backslashes)?;
        (end.closed && start >= from).then_some(start)
    }

    /// The end of a value without quotes that begins at `from`. A `wide` one ends at a space, a quote or a
    /// semicolon only.
    pub(super) fn of_bare(&mut self, text: &[u8], from: usize, wide: bool) -> usize {
        if let Some((range, known)) = &self.bare
            && *known == wide
            && range.contains(&from)
        {
            return range.end;
        }
        let mut end = from;
        for (at, unit) in units(text, from) {
            end = at;
            if ends_bare(unit.byte, wide) {
                break;
            }
            end = at + unit.len;
        }
        self.bare = Some((from..end, wide));
        end
    }
}

impl Ends {
    /// The end of a line of a header that `from` is in: a line break or a quote.
    pub(super) fn of_line(&mut self, text: &[u8], from: usize) -> usize {
        if let Some(known) = self.line.as_ref().filter(|known| known.contains(&from)) {
            return known.end;
        }
        let ends = |byte| matches!(byte, b'\n' | b'\r' | b'"' | b'\'' | b'`' | b'\\');
        let end =
            units(text, from).find(|(_, unit)| ends(unit.byte)).map_or(text.len(), |(at, _)| at);
        self.line = Some(from..end);
        end
    }
}

fn ends_bare(byte: u8, wide: bool) -> bool {
    let always = byte <= b' ' || matches!(byte, b'"' | b'\'' | b'`' | b'\\' | b';' | 0x7f);
    let code =
        matches!(byte, b',' | b'&' | b'<' | b'>' | b'(' | b')' | b'{' | b'}' | b'[' | b']' | b'|');
    always || (!wide && code)
}

fn find_close(text: &[u8], from: usize, quote: u8, depth: u32) -> End {
    for (at, byte) in text.iter().enumerate().skip(from) {
        if *byte != quote && *byte != b'"' {
            continue;
        }
        let found = self::depth(backslashes_before(&text[from..at], at - from));
        if *byte == quote && found == depth {
            return End { from, at, closed: true };
        }
        let around = if quote == b'"' { found < depth } else { *byte == b'"' && found == 0 };
        if around {
            return End { from, at, closed: false };
        }
    }
    End { from, at: text.len(), closed: false }
}

#[cfg(test)]
mod tests {
    use super::{Ends, begins, decode, unit};

    fn read(text: &str) -> String {
        String::from_utf8_lossy(&decode(text.as_bytes(), 0..text.len(), 99)).into_owned()
    }

    #[test]
    fn an_escape_is_what_it_means_at_each_level() {
        assert_eq!(read(r#"a\nb\\nc\\\\nd"#), "a\nb\nc\nd");
        assert_eq!(read(r#"a\"b\\\"c"#), "a\"b\"c");
        assert_eq!(read(r"https:\/\/x\u003dy"), "https://x=y");
        assert_eq!(read(r"\q \"), r"\q \");
        assert_eq!(unit(br"\u12", 0).unwrap().byte, b'\\');
    }

    #[test]
    fn words_begin_after_escapes() {
        for text in
            ["", " ", r"\n", r"\\n", "→", "%3D", r"\u003e", "\x1b[1;32m", r"\u001b[0m", r"\x1b[m"]
        {
            assert!(begins(format!("{text}ghp_").as_bytes(), text.len()), "{text}");
        }
        for text in ["n", "_", "9", r"\u0041", "3D", "[32m"] {
            assert!(!begins(format!("{text}ghp_").as_bytes(), text.len()), "{text}");
        }
    }

    #[test]
    fn a_value_ends_at_the_quote_of_its_own_level() {
        let close = |text: &str, quote, backslashes| {
            Ends::default().of_quoted(text.as_bytes(), 0, quote, backslashes)
        };
        assert_eq!(close(r#"a\"b" "#, b'"', 0), Some(4));
        assert_eq!(close(r#"a\\" "#, b'"', 0), Some(3));
        assert_eq!(close(r#"a\\\"b\" "#, b'"', 1), Some(6));
        assert_eq!(close(r#"ab" \" "#, b'"', 1), None);
        assert_eq!(close(r#"a\"b' "#, b'\'', 0), Some(4));
        assert_eq!(close(r#"a"b' "#, b'\'', 0), None);
    }
}
