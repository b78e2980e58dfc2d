//! Names and what is given to them, in the many ways of code, settings, commands and sentences.

use std::ops::Range;

use super::scan::Scan;
use super::text::{self, is_word, unit, units};
use crate::base::limits::REDACTED_VALUE_MAX_BYTES;

/// How much white space may stand between a name and its value, in characters: a column of settings is
/// aligned with fewer.
const SPACE_MAX: usize = 40;

/// Longest end of a name behind what says that it is secret, in bytes: `_production` and signs.
const SUFFIX_MAX_BYTES: usize = 20;

/// How far back an identifier is followed, in bytes.
pub(super) const NAME_MAX_BYTES: usize = 64;

/// An identifier in the text.
#[derive(Debug, Clone)]
pub(super) struct Name {
    pub(super) range: Range<usize>,
    /// `DB_PASSWORD`.
    pub(super) upper: bool,
    /// `--password`.
    pub(super) option: bool,
    /// `<password>`.
    pub(super) tag: bool,
    /// It is at the beginning of a line, or behind `export`.
    pub(super) leads: bool,
    /// A quote stands directly before it.
    pub(super) quoted: bool,
}

/// How a value is given to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// `a=b`, without spaces.
    Tight,
    /// `a = b`, `a := b`, `a => b`.
    Loose,
    /// `a: b`.
    Colon,
    /// `"a", "b"`.
    Comma,
    /// `--a b`.
    Option,
    /// `<a>b</a>`.
    Tag,
    /// `a("b")`.
    Call,
    /// `a is b`, `a b`: in a sentence.
    Prose,
}

/// What is given to a name.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub(super) range: Range<usize>,
    pub(super) quoted: bool,
    pub(super) link: Link,
}

/// Where the identifier ends whose last words are a keyword that ends at `at`; `None` where it goes on
/// with what makes it another thing (`password_hash`, `token_type`).
pub(super) fn name_end(text: &[u8], at: usize) -> Option<usize> {
    const SUFFIXES: &[&str] = &[
        "",
        "s",
        "1",
        "2",
        "3",
        "key",
        "keybase",
        "base",
        "value",
        "val",
        "b64",
        "base64",
        "hex",
        "raw",
        "plain",
        "plaintext",
        "prod",
        "production",
        "dev",
        "development",
        "staging",
        "test",
        "live",
        "old",
        "new",
        "current",
        "primary",
        "secondary",
        "default",
        "main",
        "accesskey",
        "str",
        "text",
        "data",
        "header",
        "env",
        "local",
        "root",
        "admin",
        "user",
        "db",
        "api",
    ];
    let word = |byte: &&u8| is_word(**byte) || **byte == b'-';
    if !text.get(at).is_some_and(|byte| word(&byte)) {
        return Some(at);
    }
    let length = text[at..].iter().take(SUFFIX_MAX_BYTES + 1).take_while(word).count();
    if length > SUFFIX_MAX_BYTES {
        return None;
    }
    let rest = text[at..at + length].iter().filter(|byte| byte.is_ascii_alphanumeric());
    let known = |suffix: &str| suffix.bytes().eq(rest.clone().map(u8::to_ascii_lowercase));
    SUFFIXES.iter().any(|suffix| known(suffix)).then_some(at + length)
}

/// Where the identifier begins that `at` is in.
pub(super) fn name_start(text: &[u8], at: usize) -> usize {
    let least = at.saturating_sub(NAME_MAX_BYTES);
    let inside = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(**byte, b'_' | b'-' | b'.');
    let start = at - text[least..at].iter().rev().take_while(inside).count();
    // The first letters may be the end of an escape or of a colour.
    let first = (start..at.min(start + 6)).rev();
    let mut edges =
        first.filter(|edge| *edge > start && is_word(text[edge - 1]) && text::begins(text, *edge));
    edges.next().unwrap_or(start)
}

impl Name {
    pub(super) fn around(text: &[u8], at: usize, end: usize) -> Self {
        let mut start = name_start(text, at);
        let dashes = text[start..at].iter().take_while(|byte| **byte == b'-').count();
        start += dashes;
        let before = &text[..start - dashes];
        let letters = || text[start..end].iter().filter(|byte| byte.is_ascii_alphabetic());
        let outside = before.trim_ascii_end();
        let leads = outside.is_empty()
            || outside.ends_with(b"export")
            || outside.ends_with(b"ENV")
            || outside.ends_with("→".as_bytes())
            || before.ends_with(b"\n")
            || before.last().is_some_and(|byte| b"\"'`:+>&?;".contains(byte))
            || text::backslashes_before(text, before.len().saturating_sub(1)) > 0;
        Self {
            range: start..end,
            upper: letters().all(u8::is_ascii_uppercase),
            option: dashes > 0 && text::begins(text, before.len()),
            tag: before.ends_with(b"<") || before.ends_with(b"u003c"),
            leads,
            quoted: before.last().is_some_and(|byte| is_quote(*byte)),
        }
    }
}

/// Whether a name is a setting that has its value behind a space, as `requirepass` of Redis does.
fn is_directive(text: &[u8], name: &Name) -> bool {
    const DIRECTIVES: &[&str] =
        &["requirepass", "masterauth", "storepass", "keypass", "authtoken", "_authtoken"];
    let label = &text[name.range.clone()];
    DIRECTIVES.iter().any(|directive| label.eq_ignore_ascii_case(directive.as_bytes()))
}

/// Where the verb ends of a sentence that tells a secret: `is `, in a few languages.
fn verb_end(text: &[u8], at: usize) -> usize {
    let verbs =
        [&b"is "[..], b"was ", b"ist ", b"lautet ", b"est ", b"es ", b"is: ", b"to ", b"are "];
    let verb = verbs.iter().find(|verb| text[at..].starts_with(verb));
    at + verb.map_or(0, |verb| verb.len())
}

/// Skips white space from `at`; where it ends, and whether a line ended in it.
pub(super) fn skip_space(text: &[u8], at: usize) -> (usize, bool) {
    let mut line_ended = false;
    for (at, unit) in units(text, at).take(SPACE_MAX) {
        match unit.byte {
            b' ' | b'\t' => {}
            b'\n' | b'\r' => line_ended = true,
            _ => return (at, line_ended),
        }
    }
    (text.len().min(at + SPACE_MAX), line_ended)
}

fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'' | b'`')
}

/// What is given to `name`.
pub(super) fn value_after(scan: &mut Scan<'_>, name: &Name, wide: bool) -> Option<Value> {
    let text = scan.text;
    let mut at = name.range.end;
    let mut quoted = false;
    while let Some(next) = unit(text, at) {
        match next.byte {
            byte if is_quote(byte) && !quoted => quoted = true,
            b']' if quoted => {}
            b'*' => {} // **Password:**
            b'?' if text.get(at + 1) == Some(&b':') => {}
            _ => break,
        }
        at += next.len;
    }
    let (mut next, mut line_ended) = skip_space(text, at);
    let spaced = next > at;
    if let Some(after) = pair(text, next, quoted).or_else(|| default_of(text, next, quoted)) {
        (next, line_ended) = (after, false);
    }
    let link = match unit(text, next)?.byte {
        b'>' if name.tag => Link::Tag,
        _ if line_ended => return None,
        b',' if quoted && name.quoted => Link::Comma,
        b':' if text.get(next + 1) == Some(&b':') => return None,
        b':' if text.get(next + 1) == Some(&b'=') => Link::Loose,
        b':' => Link::Colon,
        b'=' if spaced || matches!(text.get(next + 1), Some(b'=' | b'>' | b' ')) => Link::Loose,
        b'=' => Link::Tight,
        b'!' | b'?' | b'|' if text.get(next + 1) == Some(&b'=') => Link::Loose,
        b'|' if text[next..].starts_with(b"||=") => Link::Loose,
        b'(' if !quoted
            && !spaced
            && unit(text, next + 1).is_some_and(|unit| is_quote(unit.byte)) =>
        {
            Link::Call
        }
        b'<' if text.get(next + 1) == Some(&b'-') => Link::Loose,
        byte if (name.option && !quoted || is_quote(byte) && name.upper) && spaced => Link::Option,
        _ if spaced && !quoted && is_directive(text, name) => Link::Option,
        _ if spaced && !quoted => Link::Prose,
        _ => return None,
    };
    let mut at = next;
    if link == Link::Prose {
        at = verb_end(text, at);
    } else if link == Link::Call {
        at += 1;
    } else if text[at..].starts_with(b"<-") {
        at += 2;
    } else if link != Link::Option {
        while let Some(next) = unit(text, at)
            && matches!(next.byte, b':' | b'=' | b'>' | b',' | b'!' | b'?' | b'|')
        {
            at += next.len;
            if at - next.len > name.range.end + SPACE_MAX * 2 {
                return None;
            }
        }
    }
    while text.get(at) == Some(&b'*') {
        at += 1;
    }
    if link == Link::Tag {
        let mut rest = units(text, at).take(REDACTED_VALUE_MAX_BYTES);
        let (end, stop) =
            rest.find(|(_, unit)| matches!(unit.byte, b'<' | b'"' | b'\n' | b'\r'))?;
        let closed =
            stop.byte == b'<' && unit(text, end + stop.len).is_some_and(|unit| unit.byte == b'/');
        return closed.then_some(Value { range: at..end, quoted: true, link });
    }
    let (start, line_ended) = skip_space(text, at);
    let link = if link == Link::Tight && start > at { Link::Loose } else { link };
    let start = typed(text, start, link).unwrap_or(start);
    let opening = open_quote(text, start);
    let Some((content, quote, backslashes)) = opening else {
        // JSON has no text without quotes, and must stay JSON.
        if quoted || line_ended || link == Link::Comma {
            return None;
        }
        let wide = wide && link == Link::Tight && name.upper && name.leads;
        let end = scan.ends.of_bare(text, start, wide);
        return Some(Value { range: start..end, quoted: false, link });
    };
    match scan.ends.of_quoted(text, content, quote, backslashes) {
        Some(end) => {
            let value = &text[content..end];
            // A quote that ends the string around the name begins no value.
            let closing = !quoted
                && matches!(value.trim_ascii_start().first(), Some(b',' | b':' | b'}' | b']'));
            (!closing).then_some(Value { range: content..end, quoted: true, link })
        }
        None => {
            let end = scan.ends.of_bare(text, content, false);
            (!quoted || end == text.len()).then_some(Value {
                range: content..end,
                quoted: true,
                link,
            })
        }
    }
}

/// Where the value of a name follows under a second name: `name: DB_PASSWORD`, then `value: …`.
fn pair(text: &[u8], at: usize, quoted: bool) -> Option<usize> {
    let mut at = at;
    if quoted && text.get(at) == Some(&b',') {
        at = skip_space(text, at + 1).0;
    }
    let open = unit(text, at).filter(|unit| is_quote(unit.byte));
    at += open.map_or(0, |unit| unit.len);
    if !text.get(at..at + 5)?.eq_ignore_ascii_case(b"value") {
        return None;
    }
    at += 5;
    at += unit(text, at)
        .filter(|unit| open.is_some() && is_quote(unit.byte))
        .map_or(0, |unit| unit.len);
    let (at, _) = skip_space(text, at);
    matches!(unit(text, at)?.byte, b':' | b'=').then_some(at)
}

/// Where the default of a variable of Terraform follows: `variable "db_password" { default = …`.
fn default_of(text: &[u8], at: usize, quoted: bool) -> Option<usize> {
    const BODY_MAX_BYTES: usize = 200;
    if !quoted || text.get(at) != Some(&b'{') {
        return None;
    }
    let body = &text[at..text.len().min(at + BODY_MAX_BYTES)];
    let body = &body[..body.iter().position(|byte| *byte == b'}').unwrap_or(body.len())];
    let found = body.windows(7).position(|part| part == b"default")?;
    let (at, _) = skip_space(text, at + found + 7);
    (text.get(at) == Some(&b'=')).then_some(at)
}

/// Where the value begins behind a type: `: &'static str = "…"`.
fn typed(text: &[u8], at: usize, link: Link) -> Option<usize> {
    if link != Link::Colon {
        return None;
    }
    let part = |byte: &&u8| byte.is_ascii_alphanumeric() || b"_&<>'[]., ?|:*".contains(byte);
    let rest = &text[at..text.len().min(at + 60)];
    let length = rest.iter().take_while(part).count();
    let rest = &text[at + length..];
    if length == 0 || !rest.starts_with(b"= ") {
        return None;
    }
    let start = at + length + 2;
    open_quote(text, start).map(|_| start)
}

/// The quote that opens a value at `at`, behind at most two letters that say what string it is (`b"`, `f'`,
/// `@"`): where its content begins, the quote, and the backslashes before it.
fn open_quote(text: &[u8], at: usize) -> Option<(usize, u8, usize)> {
    for at in at..at + 3 {
        let next = unit(text, at)?;
        if is_quote(next.byte) {
            return Some((at + next.len, next.byte, next.backslashes));
        }
        if !b"bBrRuUfFLNc@$&".contains(&next.byte) || next.len > 1 {
            return None;
        }
    }
    None
}
