//! Values that a name says to be secret: `DB_PASSWORD=…`, `"token": "…"`, `--api-key …`.
//!
//! Nearly all code that has such a name has no secret behind it, so a value must look like one as well
//! (see [`super::value`]), and where it has no quotes it must not be an expression.

use std::ops::Range;

use super::assignment::{
    Link, NAME_MAX_BYTES, Name, Value, name_end, name_start, skip_space, value_after,
};
use super::scan::Scan;
use super::text::{self, is_word, unit, units};
use super::value;
use crate::base::limits::REDACTED_VALUE_MAX_BYTES;

/// What kind of value a name promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// What a person may have thought of.
    Password,
    /// What a machine made.
    Opaque,
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
    if name_end(scan.text, hit.end).is_none() {
        return;
    }
    let start = name_start(scan.text, hit.start);
    let before = String::from_utf8_lossy(&scan.text[start..hit.start]).to_ascii_lowercase();
    let before = before.trim_end_matches(['_', '-', '.']);
    let word = |word: &str| before.ends_with(word);
    // The names of firms come with rules of their own; what is left are variables of an environment.
    let upper =
        !before.is_empty() && scan.text[start..hit.end].iter().all(|b| !b.is_ascii_lowercase());
    let public =
        ["public", "publishable", "primary", "foreign", "sort", "cache", "partition", "host"];
    let public = public.iter().any(|word| before.ends_with(word));
    if SECRET.iter().any(|name| word(name)) || (upper && !public) {
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
