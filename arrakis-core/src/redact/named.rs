//! Values that a name says to be secret: `DB_PASSWORD=…`, `"token": "…"`, `--api-key …`.
//!
//! Nearly all code that has such a name has no secret behind it, so a value must look like one as well
//! (see [`super::value`]), and where it has no quotes it must not be an expression.

use std::ops::Range;

use super::scan::Scan;
use super::text::{self, is_word, unit, units};
use super::value;
use crate::limits::REDACTED_VALUE_MAX_BYTES;

/// How much white space may stand between a name and its value, in characters: a column of settings is
/// aligned with fewer.
const SPACE_MAX: usize = 40;

/// How far back an identifier is followed, in bytes.
const NAME_MAX_BYTES: usize = 64;

/// What kind of value a name promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// What a person may have thought of.
    Password,
    /// What a machine made.
    Opaque,
}

/// An identifier in the text.
#[derive(Debug, Clone)]
struct Name {
    range: Range<usize>,
    /// `DB_PASSWORD`.
    upper: bool,
    /// `--password`.
    option: bool,
    /// `<password>`.
    tag: bool,
    /// It is at the beginning of a line, or behind `export`.
    leads: bool,
    /// A quote stands directly before it.
    quoted: bool,
}

/// How a value is given to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
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
    link: Link,
}

/// `password`, `passphrase` and their like.
pub(super) fn password(scan: &mut Scan<'_>, hit: Range<usize>) {
    named(scan, hit, Kind::Password);
}

/// `pass`, `pw` and `auth`, which are a name only as a word of their own: `DB_PASS`, `_auth`.
pub(super) fn short_name(scan: &mut Scan<'_>, hit: Range<usize>) {
    let before = hit.start.checked_sub(1).map(|at| scan.text[at]);
    let first = scan.text[hit.start];
    let apart = !first.is_ascii_alphanumeric()
        || !before.is_some_and(|byte| byte.is_ascii_alphanumeric())
        || before.is_some_and(|byte| byte.is_ascii_lowercase()) && first.is_ascii_uppercase()
        || text::begins(scan.text, hit.start);
    let ends = !scan.text.get(hit.end).is_some_and(|byte| is_word(*byte) || *byte == b'-');
    if apart && ends {
        let auth = scan.text[hit.clone()].to_ascii_lowercase().ends_with(b"auth");
        named(scan, hit, if auth { Kind::Opaque } else { Kind::Password });
    }
}

/// `token`, `secret`, `api_key` and their like.
pub(super) fn opaque(scan: &mut Scan<'_>, hit: Range<usize>) {
    named(scan, hit, Kind::Opaque);
}

/// `key` behind a word that makes it a secret: `encryption_key`, `STRIPE_KEY`.
pub(super) fn key(scan: &mut Scan<'_>, hit: Range<usize>) {
    const SECRET: &[&str] = &[
        "access",
        "account",
        "admin",
        "aes",
        "api",
        "app",
        "application",
        "auth",
        "bot",
        "cipher",
        "client",
        "consumer",
        "crypt",
        "crypto",
        "data",
        "db",
        "decryption",
        "deploy",
        "encrypt",
        "encryption",
        "function",
        "functions",
        "hmac",
        "host",
        "ingest",
        "instrumentation",
        "integration",
        "jwt",
        "license",
        "master",
        "oauth",
        "private",
        "recovery",
        "rest",
        "root",
        "rsa",
        "sas",
        "secret",
        "security",
        "server",
        "service",
        "session",
        "shared",
        "signature",
        "signing",
        "sign",
        "ssh",
        "storage",
        "subscription",
        "token",
        "unseal",
        "vault",
        "webhook",
        "write",
    ];
    let start = name_start(scan.text, hit.start);
    let before = String::from_utf8_lossy(&scan.text[start..hit.start]).to_ascii_lowercase();
    let before = before.trim_end_matches(['_', '-', '.']);
    let word = |word: &&str| before.ends_with(*word);
    // The names of firms come with rules of their own; what is left are variables of an environment.
    let upper =
        !before.is_empty() && scan.text[start..hit.end].iter().all(|b| !b.is_ascii_lowercase());
    let public =
        ["public", "publishable", "primary", "foreign", "sort", "cache", "partition", "host"];
    let public = public.iter().any(|word| before.ends_with(word));
    if SECRET.iter().any(|name| word(&name)) || (upper && !public) {
        named(scan, hit, Kind::Opaque);
    }
}

/// A value of a given form, for a rule that knows whose secrets have it: `ADOBE_ID=<32 hex digits>`. The
/// keyword may stand anywhere in the name.
pub(super) fn value_of_owner(scan: &mut Scan<'_>, hit: Range<usize>) -> Option<Value> {
    let end = units(scan.text, hit.end)
        .take(NAME_MAX_BYTES)
        .find(|(_, unit)| !is_word(unit.byte) && unit.byte != b'-' && unit.byte != b'.')
        .map_or(scan.text.len(), |(at, _)| at);
    let name = Name::around(scan.text, hit.start, end);
    let value = value_after(scan, &name, false)?;
    (!value::is_placeholder(&text::decode(scan.text, value.range.clone(), value::LOOK_BYTES)))
        .then_some(value)
}

fn named(scan: &mut Scan<'_>, hit: Range<usize>, kind: Kind) {
    let Some(end) = name_end(scan.text, hit.end) else { return };
    let name = Name::around(scan.text, hit.start, end);
    let Some(value) = value_after(scan, &name, kind == Kind::Password) else { return };
    if is_secret(scan.text, &name, &value, kind) {
        scan.take(value.range);
    }
}

/// Where the identifier ends whose last words are a keyword that ends at `at`; `None` where it goes on
/// with what makes it another thing (`password_hash`, `token_type`).
fn name_end(text: &[u8], at: usize) -> Option<usize> {
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
    let length = text[at..].iter().take(NAME_MAX_BYTES).take_while(word).count();
    let rest = text[at..at + length].iter().filter(|byte| byte.is_ascii_alphanumeric());
    let known = |suffix: &&str| suffix.bytes().eq(rest.clone().map(u8::to_ascii_lowercase));
    SUFFIXES.iter().any(|suffix| known(&suffix)).then_some(at + length)
}

/// Where the identifier begins that `at` is in.
fn name_start(text: &[u8], at: usize) -> usize {
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
    fn around(text: &[u8], at: usize, end: usize) -> Self {
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
fn skip_space(text: &[u8], at: usize) -> (usize, bool) {
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
fn value_after(scan: &mut Scan<'_>, name: &Name, wide: bool) -> Option<Value> {
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
    let mut at = at;
    for _ in 0..3 {
        let next = unit(text, at)?;
        if is_quote(next.byte) {
            return Some((at + next.len, next.byte, next.backslashes));
        }
        if !b"bBrRuUfFLNc@$&".contains(&next.byte) || next.len > 1 {
            return None;
        }
        at += 1;
    }
    None
}

/// Whether `value`, which `name` has, is a secret.
fn is_secret(text: &[u8], name: &Name, value: &Value, kind: Kind) -> bool {
    let least = if kind == Kind::Password && value.link != Link::Prose { 4 } else { 8 };
    if value.range.len() > REDACTED_VALUE_MAX_BYTES || value.range.len() < least {
        return false;
    }
    let strict = kind == Kind::Opaque && value.range.len() < 16 || value.link == Link::Prose;
    if strict && !text[value.range.clone()].iter().any(u8::is_ascii_digit) {
        return false;
    }
    let shown = text::decode(text, value.range.clone(), value::LOOK_BYTES);
    let bare = shown.iter().rposition(|byte| !b"!?;".contains(byte)).map_or(0, |last| last + 1);
    let label = &text[name.range.clone()];
    if shown.is_empty()
        || shown.contains(&b'\n')
        || value::is_placeholder(&shown)
        || value::is_stand_in(&shown[..bare])
        || value::is_uuid(&shown)
        || is_pattern(&shown)
        || ends_with(label, &shown)
        || value::names_itself(&shown)
    {
        return false;
    }
    if !value.quoted && is_expression(text, value, &shown) {
        return false;
    }
    match (kind, value.quoted) {
        _ if value.link == Link::Prose => is_told(&shown, kind),
        (Kind::Password, true) if shown.iter().any(u8::is_ascii_whitespace) => {
            let command = text[..value.range.start].ends_with(b"`");
            let listed = matches!(value.link, Link::Comma | Link::Call);
            shown.len() >= 8 && !listed && !command && !value::is_prose(&shown)
        }
        (Kind::Password, true) if matches!(value.link, Link::Comma | Link::Call) => {
            let digit = shown.iter().any(u8::is_ascii_digit);
            let constant =
                value::is_identifier(&shown) && !shown.iter().any(u8::is_ascii_lowercase);
            let set = digit
                && !constant
                && (name.upper || value.link == Link::Call)
                && value::is_password(&shown);
            value::is_random(&shown) || set
        }
        (Kind::Password, true) => {
            let set = name.upper && matches!(value.link, Link::Tight | Link::Option);
            let phrase = name.upper && shown.len() >= 10 && shown.contains(&b'-');
            let chosen = set || phrase || value.link == Link::Tag;
            value::is_password(&shown) || chosen && is_chosen(&shown)
        }
        // What tests print: `PASS: name-of-the-test`.
        (Kind::Password, false)
            if value.link == Link::Colon && label.eq_ignore_ascii_case(b"pass") =>
        {
            value::is_random(&shown)
        }
        (Kind::Password, false) => is_bare_password(text, name, value, &shown),
        (Kind::Opaque, true) => {
            let strict = matches!(value.link, Link::Comma | Link::Call) && !name.upper;
            value::is_random(&shown)
                || value::is_jumble(&shown)
                || (!strict && shown.len() >= 8 && is_mixed(&shown))
        }
        (Kind::Opaque, false) => value::is_random(&shown) && !shown.contains(&b':'),
    }
}

/// Whether `label` ends with `word`, in upper or lower case.
fn ends_with(label: &[u8], word: &[u8]) -> bool {
    label.len().checked_sub(word.len()).is_some_and(|at| label[at..].eq_ignore_ascii_case(word))
}

/// Whether a password without quotes is one: less is believed the more the text looks like code.
fn is_bare_password(text: &[u8], name: &Name, value: &Value, shown: &[u8]) -> bool {
    let next = unit(text, value.range.end).map(|unit| unit.byte);
    let ends_line = matches!(next, None | Some(b'\n' | b'\r' | b'"' | b'\'' | b'`'));
    let argument = matches!(next, Some(b',' | b')' | b'}')) && value::is_identifier(shown);
    let digits = shown.iter().any(u8::is_ascii_digit);
    let hyphens = shown.contains(&b'-') && shown.len() >= 8 && shown[0].is_ascii_alphanumeric();
    match value.link {
        Link::Tight if name.upper || name.option => value::is_password(shown) || is_chosen(shown),
        // Password=letmein;Database=x
        Link::Tight if next == Some(b';') => {
            !argument && (value::is_password(shown) || is_chosen(shown))
        }
        Link::Tight => !argument && value::is_password(shown),
        Link::Option => {
            let last = ends_line || next == Some(b' ') && ends_option(text, value.range.end);
            value::is_password(shown) && digits
                || last && is_chosen(shown)
                || value::is_random(shown)
        }
        _ => {
            let rest = units(text, value.range.end).take(2).map(|(_, unit)| unit.byte);
            let rest: Vec<u8> = rest.collect();
            let ends = ends_line || rest == b" #" || rest == b"  ";
            let code = next == Some(b';') && value::is_identifier(shown);
            !argument
                && !code
                && value::is_password(shown)
                && (ends || !value::is_identifier(shown))
                || ends && hyphens && value.link == Link::Colon
        }
    }
}

/// Whether a sentence tells a secret: a value that no other word of a sentence looks like.
fn is_told(shown: &[u8], kind: Kind) -> bool {
    let shown = shown.strip_suffix(b".").unwrap_or(shown);
    let digits = shown.iter().filter(|byte| byte.is_ascii_digit()).count();
    let upper = shown.iter().any(u8::is_ascii_uppercase);
    let sign = shown.iter().any(|byte| b"!@#$%^&*+~".contains(byte));
    let lower = shown.iter().any(u8::is_ascii_lowercase);
    if kind == Kind::Opaque || shown.len() < 8 {
        return value::is_random(shown) && shown.len() >= 16;
    }
    digits >= 2
        && lower
        && (upper || sign)
        && !shown.contains(&b'=')
        && value::is_password(shown)
        && !value::is_technical(shown)
}

/// Whether an option's value is followed by another option or the command's end, not by more of a sentence.
fn ends_option(text: &[u8], at: usize) -> bool {
    let rest = text[at..].trim_ascii_start();
    rest.first().is_some_and(|byte| b"-|&;>@\\/".contains(byte))
}

/// Whether a word was chosen as a password: what stands behind `DB_PASSWORD=` is no expression.
fn is_chosen(shown: &[u8]) -> bool {
    shown.len() >= 4
        && shown.iter().any(u8::is_ascii_alphabetic)
        && !shown.iter().any(|b| b"()=".contains(b))
}

/// Whether a value has what passwords have: letters, digits and signs, and no words.
fn is_mixed(shown: &[u8]) -> bool {
    let digits = shown.iter().any(u8::is_ascii_digit);
    let letters = shown.iter().any(u8::is_ascii_alphabetic);
    let signs = shown.iter().any(|byte| b"!@#$%^&*+=~?".contains(byte));
    let spaces = shown.iter().any(|byte| byte.is_ascii_whitespace() || b"(){}<>[]".contains(byte));
    digits && letters && signs && !spaces && !value::is_wordy(shown)
}

/// Whether a value is a regular expression or a rule of validation.
fn is_pattern(shown: &[u8]) -> bool {
    let has = |part: &[u8]| shown.windows(part.len()).any(|window| window == part);
    shown.starts_with(b"^")
        || has(b"[a-z")
        || has(b"[A-Z")
        || has(b"(?")
        || has(b"\\d")
        || has(b"|min")
}

/// Whether a value without quotes is an expression: a call, an index, a member, a path of names.
fn is_expression(text: &[u8], value: &Value, shown: &[u8]) -> bool {
    let next = unit(text, value.range.end).map(|unit| unit.byte);
    let spaced = unit(text, skip_space(text, value.range.end).0).map(|unit| unit.byte);
    let called = matches!(next, Some(b'(' | b'[' | b'{' | b'<')) || spaced == Some(b'(');
    let has = |part: &[u8]| shown.windows(part.len()).any(|window| window == part);
    // A member of something: `user.name`. Passwords of two words have a number at the end.
    let ends =
        matches!(next, Some(b',' | b')' | b'}')) || !shown.last().is_some_and(u8::is_ascii_digit);
    let numbered = shown.iter().any(u8::is_ascii_digit) && !ends;
    let line_ends = matches!(next, None | Some(b'\n' | b'\r' | b'"' | b'\''));
    let numbered =
        numbered || line_ends && shown.iter().filter(|byte| byte.is_ascii_digit()).count() >= 2;
    let capital = shown[0].is_ascii_uppercase() && shown.iter().any(u8::is_ascii_digit);
    let digits = shown.iter().any(u8::is_ascii_digit);
    let member = value::is_identifier(shown)
        && shown.contains(&b'.')
        && (!digits || value::is_wordy(shown) && !numbered && !capital);
    let operator = matches!(shown[0], b'!' | b'&' | b'*' | b'-' | b'=' | b'@' | b'.' | b'$' | b':')
        && value.link != Link::Tight;
    called || member || operator || has(b"::") || has(b"->") || has(b"=>")
}
