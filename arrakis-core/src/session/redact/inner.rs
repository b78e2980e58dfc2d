//! Secrets whose keyword stands in their middle, or needs a look around.

use std::ops::Range;

use super::scan::Scan;
use super::shape::{ALNUM, DIGIT, HEX, LOWER, Lit, Part, Run, URL64, end_of};
use super::text::{self, unit, units};
use super::value;

/// Three parts of base64 between dots, of which the first two are JSON.
pub(super) fn jwt(scan: &mut Scan<'_>, hit: Range<usize>) {
    const SIGNED: &[Part] = &[
        Run(URL64, 12, 4096),
        Lit("."),
        Lit("eyJ"),
        Run(URL64, 8, 16384),
        Lit("."),
        Run(URL64, 8, 2048),
    ];
    const ENCRYPTED: &[Part] = &[
        Run(URL64, 12, 4096),
        Lit("."),
        Run(URL64, 0, 2048),
        Lit("."),
        Run(URL64, 16, 64),
        Lit("."),
        Run(URL64, 16, 16384),
        Lit("."),
        Run(URL64, 16, 64),
    ];
    if scan.is_taken(hit.start) || !text::begins(scan.text, hit.start) {
        return;
    }
    let end = end_of(scan.text, hit.end, SIGNED).or_else(|| end_of(scan.text, hit.end, ENCRYPTED));
    if let Some(end) = end {
        scan.take(hit.start..end);
    }
}

/// The private part of a JSON web key: `d`, or `k` of a symmetric one.
pub(super) fn jwk(scan: &mut Scan<'_>, hit: Range<usize>) {
    const AROUND_BYTES: usize = 1500;
    let text = scan.text;
    let Some(quote) = unit(text, hit.start + 2).filter(|unit| unit.byte == b'"') else { return };
    let mut at = hit.start + 2 + quote.len;
    let mut linked = false;
    let (start, opening) = loop {
        let Some(next) = unit(text, at) else { return };
        at += next.len;
        match next.byte {
            b' ' => {}
            b':' if !linked => linked = true,
            b'"' if linked => break (at, next),
            _ => return,
        }
    };
    let Some(end) = scan.ends.of_quoted(text, start, b'"', opening.backslashes) else { return };
    if end_of(text, start, &[Run(URL64, 32, 1400)]) != Some(end) {
        return;
    }
    let around = &text[hit.start.saturating_sub(AROUND_BYTES)..text.len().min(end + AROUND_BYTES)];
    if around.windows(3).any(|part| part == b"kty") {
        scan.take(start..end);
    }
}

/// `<id>:AA<33 characters>`.
pub(super) fn telegram(scan: &mut Scan<'_>, hit: Range<usize>) {
    let start = back(scan.text, hit.start, u8::is_ascii_digit);
    if (6..=12).contains(&(hit.start - start))
        && (text::begins(scan.text, start) || scan.text[..start].ends_with(b"bot"))
        && let Some(end) = end_of(scan.text, hit.end, &[Run(URL64, 32, 33)])
    {
        scan.take(start..end);
    }
}

/// `<14 characters>.atlasv1.<60 to 70 characters>`.
pub(super) fn terraform(scan: &mut Scan<'_>, hit: Range<usize>) {
    let start = back(scan.text, hit.start, u8::is_ascii_alphanumeric);
    let start = start.max(hit.start.saturating_sub(14));
    if hit.start - start >= 10
        && let Some(end) = end_of(scan.text, hit.end, &[Run(URL64, 60, 80)])
    {
        scan.take(start..end);
    }
}

/// `<6 characters>_<29 characters>_mmk`.
pub(super) fn maxmind(scan: &mut Scan<'_>, hit: Range<usize>) {
    const FORM: &[Part] = &[Run(ALNUM, 6, 6), Lit("_"), Run(ALNUM, 29, 29), Lit("_mmk")];
    let Some(start) = hit.start.checked_sub(36) else { return };
    if end_of(scan.text, start, FORM) == Some(hit.end) {
        scan.take(start..hit.end);
    }
}

/// `<3 characters><digit>Q~<31 to 34 characters>`.
pub(super) fn azure_secret(scan: &mut Scan<'_>, hit: Range<usize>) {
    let Some(start) = hit.start.checked_sub(3) else { return };
    let fits = scan.text[start..hit.start]
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"_~.".contains(byte));
    let rest = units(scan.text, hit.end)
        .take(40)
        .take_while(|(_, unit)| unit.byte.is_ascii_alphanumeric() || b"_~.-".contains(&unit.byte));
    let (count, end) = rest.fold((0, hit.end), |(count, _), (at, unit)| (count + 1, at + unit.len));
    if fits && (31..=36).contains(&count) {
        scan.take(start..end);
    }
}

/// `<32 hexadecimal digits>-us<number>`.
pub(super) fn mailchimp(scan: &mut Scan<'_>, hit: Range<usize>) {
    let Some(start) = hit.start.checked_sub(32) else { return };
    const FORM: &[Part] = &[Run(HEX, 32, 32), Lit("-us"), Run(DIGIT, 1, 2)];
    if text::begins(scan.text, start)
        && let Some(end) = end_of(scan.text, start, FORM)
    {
        scan.take(start..end);
    }
}

/// `1/<number>:<32 hexadecimal digits>`, with a second number in newer ones.
pub(super) fn asana(scan: &mut Scan<'_>, hit: Range<usize>) {
    let number = hit.start + 2;
    const ONE: &[Part] = &[Run(DIGIT, 13, 18), Lit(":"), Run(LOWER, 32, 32)];
    const TWO: &[Part] =
        &[Run(DIGIT, 13, 18), Lit("/"), Run(DIGIT, 13, 18), Lit(":"), Run(LOWER, 32, 32)];
    if !text::begins(scan.text, hit.start) {
        return;
    }
    if let Some(end) = end_of(scan.text, number, ONE).or_else(|| end_of(scan.text, number, TWO))
        && !value::is_repeated(&scan.text[end - 32..end])
    {
        scan.take(hit.start..end);
    }
}

/// Where the characters of a kind begin that end before `at`.
fn back(text: &[u8], at: usize, kind: fn(&u8) -> bool) -> usize {
    let start = at - text[..at].iter().rev().take(32).take_while(|byte| kind(byte)).count();
    start.max(end_of_escape(text, start)).min(at)
}

/// Where an escape ends of which the letter or the digits begin at `at`: that of `\n` or `\u2192`.
fn end_of_escape(text: &[u8], at: usize) -> usize {
    let has_code = |from: usize| {
        text.get(from..from + 4).is_some_and(|code| code.iter().all(u8::is_ascii_hexdigit))
    };
    if text[..at].ends_with(b"\\u") && has_code(at) {
        return at + 4;
    }
    match text.get(at) {
        Some(b'u') if text[..at].ends_with(b"\\") && has_code(at + 1) => at + 5,
        Some(b'n' | b'r' | b't' | b'f' | b'b') if text[..at].ends_with(b"\\") => at + 1,
        _ => at,
    }
}

#[cfg(test)]
mod tests {
    use crate::session::redact::Redactor;

    #[test]
    fn what_is_followed_back_does_not_run_into_an_escape() {
        let telegram = "7054742701:AAQN9CpscYi0zaEIJrp7EYcpFr2jUssFMEH";
        let terraform = format!("a1B2c3D4e5F6g7.atlasv1.{}", "x9Y8z7W6v5".repeat(6) + "abcdefg");
        for secret in [telegram, &terraform] {
            for before in
                ["3\\u2192", "3\\\\u2192", "x\\n", "x\\t", "x\\\\n", "\\u003e", "\u{2192}", ""]
            {
                let text = format!("{{\"a\":\"{before}{secret}\"}}");
                let redacted = Redactor::default().redact(text.as_bytes()).text.into_owned();
                let redacted = String::from_utf8(redacted).unwrap();
                assert!(!redacted.contains(&secret[..10]), "{text} -> {redacted}");
                assert!(
                    redacted.contains(&format!("\"{before}[REDACTED:")),
                    "{text} -> {redacted}"
                );
            }
        }
    }
}
