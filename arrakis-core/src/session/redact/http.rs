//! Secrets of requests: `Authorization`, bearer tokens, cookies, passwords in URLs.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::scan::Scan;
use super::text::{self, is_word, unit, units};
use super::value;
use crate::base::limits::REDACTED_VALUE_MAX_BYTES;

/// Schemes whose credentials are a list of names and values, some of them in quotes.
const STRUCTURED: &[&str] = &["digest", "hawk", "oauth", "aws4-hmac-sha256", "signature"];

/// `Authorization: <scheme> <credentials>`, as a header, a field or a variable.
pub(super) fn authorization(scan: &mut Scan<'_>, hit: Range<usize>) {
    let text = scan.text;
    let Some((start, _)) = value_start(text, hit.end) else { return };
    let word = |byte: &&u8| is_word(**byte) || **byte == b'-';
    let word = &text[start..start + text[start..].iter().take(32).take_while(word).count()];
    let structured = STRUCTURED.iter().any(|name| word.eq_ignore_ascii_case(name.as_bytes()));
    if structured {
        return credentials_list(scan, start + word.len());
    }
    let end = scan.ends.of_line(text, start);
    let shown = text::decode(text, start..end, value::LOOK_BYTES);
    let scheme = shown.iter().take_while(|byte| is_word(**byte) || **byte == b'-').count();
    // Several spaces may stand behind the scheme.
    let gap = shown[scheme..].iter().take_while(|byte| **byte == b' ').count();
    let (credentials, secret) = if gap == 0 {
        (start, &shown[..])
    } else {
        let skipped = units(text, start).nth(scheme + gap);
        (skipped.map_or(end, |(at, _)| at), &shown[scheme + gap..])
    };
    let first = secret.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    let first_end = units(text, credentials).nth(first.len()).map_or(end, |(at, _)| at).min(end);
    if is_credential(&shown[..scheme], first, gap > 0) {
        scan.take(credentials..first_end);
    }
}

/// `Bearer <token>` anywhere.
pub(super) fn bearer(scan: &mut Scan<'_>, hit: Range<usize>) {
    let (start, _) = skip_spaces(scan.text, hit.end);
    let end = token_end(scan.text, start);
    let shown = text::decode(scan.text, start..end, value::LOOK_BYTES);
    if text::begins(scan.text, hit.start) && shown.len() >= 16 && value::is_random(&shown) {
        scan.take(start..end);
    }
}

/// Whether `secret` is what an `Authorization` header carries.
fn is_credential(scheme: &[u8], secret: &[u8], has_scheme: bool) -> bool {
    if secret.len() < 6 || value::is_placeholder(secret) || value::is_stand_in(secret) {
        return false;
    }
    if secret.iter().any(|byte| b"(){}[]<>,;|".contains(byte)) {
        return false;
    }
    if has_scheme && scheme.eq_ignore_ascii_case(b"basic") {
        let decoded = STANDARD.decode(secret).unwrap_or_default();
        return decoded.contains(&b':') || value::is_random(secret);
    }
    value::is_random(secret) || has_scheme && value::is_uuid(secret)
}

/// The values of cookies: `Cookie: a=…; b=…`, `Set-Cookie: a=…; Path=/`, `--cookie "a=…"`.
pub(super) fn cookie(scan: &mut Scan<'_>, hit: Range<usize>) {
    // A cookie that is part of a line of cookies was looked at with it.
    if hit.start < scan.passed {
        return;
    }
    let text = scan.text;
    let Some((start, _)) = value_start(text, hit.end).or_else(|| option_value(text, &hit)) else {
        return;
    };
    let end = scan.ends.of_line(text, start).min(start + REDACTED_VALUE_MAX_BYTES);
    scan.passed = end;
    let mut at = start;
    while at < end {
        let (name, _) = skip_spaces(text, at);
        let part_end = units(&text[..end], name).find(|(_, unit)| unit.byte == b';');
        let part_end = part_end.map_or(end, |(at, _)| at);
        let equals = units(&text[..part_end], name).take(128).find(|(_, unit)| unit.byte == b'=');
        if let Some((equals, unit)) = equals {
            let value = equals + unit.len..part_end;
            let shown = text::decode(text, value.clone(), value::LOOK_BYTES);
            if value.len() <= REDACTED_VALUE_MAX_BYTES && is_session(&text[name..equals], &shown) {
                scan.take(value);
            }
        }
        at = part_end + 1;
    }
}

/// Whether a cookie says who somebody is, and does not only remember a setting.
fn is_session(name: &[u8], shown: &[u8]) -> bool {
    const NAMES: &[&str] =
        &["sess", "sid", "auth", "token", "jwt", "csrf", "xsrf", "remember", "login", "connect"];
    if shown.is_empty() || shown.contains(&b' ') || value::is_placeholder(shown) {
        return false;
    }
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    if matches!(name.as_str(), "expires" | "path" | "domain" | "max-age" | "samesite") {
        return false;
    }
    let session = NAMES.iter().any(|part| name.contains(part));
    let uuid = value::is_uuid(shown);
    session && (uuid || value::is_random(shown)) || shown.len() >= 20 && value::is_random(shown)
}

/// `scheme://user:password@host`.
pub(super) fn url_password(scan: &mut Scan<'_>, hit: Range<usize>) {
    const USER_MAX: usize = 256;
    const PASSWORD_MAX: usize = 1024;
    let text = scan.text;
    if hit.start == 0 || !text[hit.start - 1].is_ascii_alphanumeric() {
        return;
    }
    let mut colon = None;
    let mut at_sign = None;
    for (at, unit) in units(text, hit.end).take(USER_MAX + PASSWORD_MAX) {
        match unit.byte {
            b':' if colon.is_none() => colon = Some(at + unit.len),
            b'@' => at_sign = Some(at),
            b'/' | b'"' | b'\'' | b'`' | b'\\' | b'<' | b'>' | b'(' | b')' | b'|' => break,
            byte if byte <= b' ' => break,
            _ => {}
        }
    }
    let (Some(colon), Some(at_sign)) = (colon, at_sign) else { return };
    if colon >= at_sign {
        return;
    }
    let shown = text::decode(text, colon..at_sign, value::LOOK_BYTES);
    let words =
        ["password", "passwd", "passwort", "pass", "pwd", "pw", "secret", "token", "xxx", "apikey"];
    let named = words.iter().any(|word| shown.eq_ignore_ascii_case(word.as_bytes()));
    let upper = shown.iter().all(|byte| byte.is_ascii_uppercase() || b"_-".contains(byte));
    let image = text[at_sign..].starts_with(b"@sha256:");
    let optional = shown.contains(&b'[') || shown.contains(&b']') || shown.contains(&b'{');
    let template = image
        || optional
        || matches!(shown.first(), Some(b'$' | b'{' | b'[' | b'<' | b'%'))
            && !matches!(shown.get(..3), Some([b'%', a, b]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    if shown.len() >= 3 && !named && !upper && !template && !value::is_placeholder(&shown) {
        scan.take(colon..at_sign);
    }
}

/// Where the value of a header or field begins, behind its name: `: `, `": "`, `=`, `", "`.
fn value_start(text: &[u8], at: usize) -> Option<(usize, bool)> {
    let mut at = at;
    let mut quoted = false;
    let mut linked = false;
    for _ in 0..24 {
        let next = unit(text, at)?;
        match next.byte {
            b' ' | b'\t' => {}
            b']' | b')' if quoted && !linked => {}
            b':' | b'=' | b'>' if !linked || next.byte != b':' => linked = true,
            b',' if quoted && !linked => linked = true,
            b'"' | b'\'' | b'`' if linked => return Some((at + next.len, true)),
            b'"' | b'\'' if !quoted => quoted = true,
            b'f' | b'b' | b'r' | b'$'
                if linked && text.get(at + 1).is_some_and(|b| b"\"'`".contains(b)) => {}
            _ => return linked.then_some((at, false)),
        }
        at += next.len;
    }
    None
}

/// Where the value of `--cookie VALUE` begins.
fn option_value(text: &[u8], hit: &Range<usize>) -> Option<(usize, bool)> {
    if !text[..hit.start].ends_with(b"--") {
        return None;
    }
    let (at, spaces) = skip_spaces(text, hit.end);
    let next = unit(text, at)?;
    let quote = matches!(next.byte, b'"' | b'\'');
    (spaces > 0).then_some((at + if quote { next.len } else { 0 }, quote))
}

fn skip_spaces(text: &[u8], at: usize) -> (usize, usize) {
    let spaces = text[at..].iter().take(32).take_while(|byte| **byte == b' ').count();
    (at + spaces, spaces)
}

/// Takes the values of a list of credentials: `username="ada", response="6629fae4"`. Each is taken by itself,
/// since the quotes between them may be those of JSON.
fn credentials_list(scan: &mut Scan<'_>, from: usize) {
    const LIST_MAX_BYTES: usize = 4096;
    if from < scan.passed {
        return;
    }
    let text = scan.text;
    let mut at = from;
    while let Some(next) = unit(text, at).filter(|_| at < from + LIST_MAX_BYTES) {
        at += next.len;
        scan.passed = at;
        if matches!(next.byte, b'\n' | b'\r') {
            return;
        }
        if next.byte != b'=' {
            continue;
        }
        let quote = unit(text, at).filter(|unit| unit.byte == b'"').map_or(0, |unit| unit.len);
        let end = token_end(text, at + quote);
        let shown = text::decode(text, at + quote..end, value::LOOK_BYTES);
        if shown.len() >= 8 && (value::is_random(&shown) || shown.iter().all(u8::is_ascii_hexdigit))
        {
            scan.take(at + quote..end);
        }
        at = end.max(at);
    }
}

fn token_end(text: &[u8], from: usize) -> usize {
    let mut end = from;
    for (at, unit) in units(text, from).take(REDACTED_VALUE_MAX_BYTES) {
        if !unit.byte.is_ascii_alphanumeric() && !b"._~+/=-".contains(&unit.byte) {
            break;
        }
        end = at + unit.len;
    }
    end
}
