//! Keys that take several lines: PEM, PGP and PuTTY.
//!
//! The lines may stand in strings of any depth, be numbered, quoted or marked as a diff, and the block may be
//! cut off at either end. What makes a block a key and not a sentence about keys is a line of base64.

use std::ops::Range;

use super::scan::Scan;
use super::text::{self, unit, units};
use super::value;
use crate::base::limits::REDACTED_BLOCK_MAX_BYTES;

/// How long a line of base64 is at least, in characters.
const LINE_MIN: usize = 16;

/// Longest label: `ENCRYPTED PRIVATE KEY` and the like.
const LABEL_MAX: usize = 60;

/// `-----BEGIN … PRIVATE KEY-----`, from there to its end.
pub(super) fn key_block(scan: &mut Scan<'_>, hit: Range<usize>) {
    let Some(body) = key_label(scan.text, hit.end) else { return };
    let most = scan.text.len().min(hit.start + REDACTED_BLOCK_MAX_BYTES);
    let body_end = block_end(&scan.text[..most], body);
    let end_label =
        scan.text[body_end..].starts_with(b"-----END").then(|| key_label(scan.text, body_end + 8));
    let end = match end_label.flatten() {
        Some(end) if has_line(&scan.text[body..body_end]) => end,
        Some(_) => return,
        None => {
            let end = key_lines_end(&scan.text[..most], body);
            if !has_line(&scan.text[body..end]) {
                return;
            }
            end
        }
    };
    scan.take(hit.start..end);
}

/// `-----END … PRIVATE KEY-----` of a block whose beginning is cut off.
pub(super) fn key_block_end(scan: &mut Scan<'_>, hit: Range<usize>) {
    if scan.is_taken(hit.start) {
        return;
    }
    let Some(end) = key_label(scan.text, hit.end) else { return };
    let least = hit.start.saturating_sub(REDACTED_BLOCK_MAX_BYTES);
    let start = key_lines_start(scan.text, hit.start, least);
    if has_line(&scan.text[start..hit.start]) {
        scan.take(start..end);
    }
}

/// `Private-Lines: n` of a PuTTY key, and the lines.
pub(super) fn putty_lines(scan: &mut Scan<'_>, hit: Range<usize>) {
    // What stands in lines that were looked through was looked through with them.
    if hit.start < scan.passed {
        return;
    }
    let most = scan.text.len().min(hit.start + REDACTED_BLOCK_MAX_BYTES);
    let end = key_lines_end(&scan.text[..most], hit.end);
    scan.passed = end;
    if has_line(&scan.text[hit.end..end]) {
        scan.take(hit.end..end);
    }
}

/// Base64 of a PEM private key, as in a kubeconfig: the label is in it at one of three alignments.
pub(super) fn encoded_block(scan: &mut Scan<'_>, hit: Range<usize>) {
    if hit.start < scan.passed {
        return;
    }
    let mut end = hit.end;
    for (at, unit) in units(scan.text, hit.end).take(REDACTED_BLOCK_MAX_BYTES) {
        if !unit.byte.is_ascii_alphanumeric() && !b"+/=".contains(&unit.byte) {
            break;
        }
        end = at + unit.len;
    }
    scan.passed = end;
    let head = &scan.text[hit.start..end.min(hit.start + 120)];
    let label = [&b"UFJJVkFURSBLRV"[..], b"QUklWQVRFIEtFW", b"BSSVZBVEUgS0VZ"];
    if label.iter().any(|label| head.windows(label.len()).any(|part| part == *label)) {
        scan.take(hit.start..end);
    }
}

/// Where the rest of a label ends that is one of a private key.
fn key_label(text: &[u8], at: usize) -> Option<usize> {
    let rest = &text[at..text.len().min(at + LABEL_MAX)];
    let length = rest.windows(5).position(|part| part == b"-----")?;
    let label = &rest[..length];
    let private = label.windows(11).any(|part| part == b"PRIVATE KEY");
    let plain = label
        .iter()
        .all(|byte| byte.is_ascii_uppercase() || *byte == b' ' || byte.is_ascii_digit());
    (private && plain).then_some(at + length + 5)
}

/// Where the text of a block ends: at its last line, or at what cannot be part of it.
fn block_end(text: &[u8], from: usize) -> usize {
    for (at, unit) in units(text, from) {
        let outside = unit.byte == b'"' && text::depth(unit.backslashes) == 0;
        if outside || unit.byte == b'-' && text[at..].starts_with(b"-----") {
            return at;
        }
    }
    text.len()
}

/// Whether a byte may stand in or between the lines of a key: base64, headers, line numbers, marks of a diff.
fn in_lines(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || b"+/=-:,.>|*_ \t\r\n()".contains(&byte)
}

/// Where lines of base64 end that begin at `from`: behind the last of them.
fn key_lines_end(text: &[u8], from: usize) -> usize {
    let mut end = from;
    for (at, unit) in units(text, from) {
        if !in_lines(unit.byte) || unit.byte == b'-' && text[at..].starts_with(b"-----") {
            break;
        }
        if unit.byte.is_ascii_alphanumeric() || b"+/=".contains(&unit.byte) {
            end = at + unit.len;
        }
    }
    end
}

/// Where lines of base64 begin that end at `to`.
fn key_lines_start(text: &[u8], to: usize, least: usize) -> usize {
    let mut start = to;
    let mut at = to;
    while at > least {
        let byte = text[at - 1];
        if byte != b'\\' && !in_lines(byte) || text[..at].ends_with(b"-----") {
            break;
        }
        at -= 1;
        let escape = at > 0 && text[at - 1] == b'\\' && matches!(byte, b'n' | b'r' | b't');
        if (byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)) && !escape {
            start = at;
        }
    }
    start
}

/// Whether there is a line of base64 in `body`, and not only words.
fn has_line(body: &[u8]) -> bool {
    let mut line = Vec::new();
    let mut at = 0;
    loop {
        let next = unit(body, at);
        match next {
            Some(next) if next.byte.is_ascii_alphanumeric() || b"+/=".contains(&next.byte) => {
                line.push(next.byte);
            }
            _ => {
                let long = line.len() >= LINE_MIN && !value::is_repeated(&line);
                if long && (line.len() >= 40 || !value::is_wordy(&line) || line.ends_with(b"=")) {
                    return true;
                }
                line.clear();
            }
        }
        match next {
            Some(next) => at += next.len,
            None => return false,
        }
    }
}
