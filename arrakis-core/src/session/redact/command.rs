//! Passwords in command lines whose options have no name that tells: `mysql -pX`, `curl -u a:b`.

use std::ops::Range;

use super::scan::Scan;
use super::text::{self, unit, units};
use super::value;

/// How far before an option its command is looked for, in bytes.
const BACK_BYTES: usize = 160;

/// How the password is given to an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `-pX`
    Attached,
    /// `-p X`
    Spaced,
    /// `-u user:X`, `-u 'user:X'`
    Pair,
    /// `-U user%X`
    Percent,
}

use Form::{Attached, Pair, Percent, Spaced};

/// The options, and the commands that have them.
const OPTIONS: &[(&str, Form, &[&str])] = &[
    (
        " -p",
        Attached,
        &[
            "mysql",
            "mysqldump",
            "mysqladmin",
            "mariadb",
            "mysqlimport",
            "mysqlcheck",
            "7z",
            "7za",
            "sshpass",
        ],
    ),
    (
        " -p",
        Spaced,
        &[
            "sshpass",
            "docker",
            "podman",
            "helm",
            "oc",
            "az",
            "mongo",
            "mongosh",
            "mongodump",
            "mongorestore",
            "buildah",
            "skopeo",
            "ftp",
            "ncftp",
            "vncdo",
            "cockroach",
            "crane",
            "oras",
        ],
    ),
    (" -a", Spaced, &["redis-cli"]),
    (" -a", Pair, &["http", "https", "xh"]),
    (" -w", Spaced, &["ldapsearch", "ldapmodify", "ldapadd", "ldapwhoami"]),
    (" -P", Spaced, &["unzip", "zip", "sqlcmd", "bcp", "isql"]),
    (" -P", Attached, &["sqlcmd", "bcp", "isql"]),
    (" -u", Pair, &["ab", "lftp", "wget"]),
    (" -U", Percent, &["smbclient", "rpcclient", "net"]),
    (" --creds", Pair, &["skopeo", "podman", "buildah"]),
];

/// The options of [`OPTIONS`] as they stand in a text.
pub(super) const KEYWORDS: &[&str] = &[" -p", " -a", " -w", " -P", " -u", " -U", " --creds"];

/// The password behind an option of a command.
pub(super) fn option(scan: &mut Scan<'_>, hit: Range<usize>) {
    let text = scan.text;
    let Some(next) = unit(text, hit.end) else { return };
    let spaced = matches!(next.byte, b' ' | b'=');
    let start = if spaced { hit.end + next.len } else { hit.end };
    let Some(value) = argument(scan, start).filter(|value| value.len() >= 3) else { return };
    let shown = text::decode(text, value.clone(), value::LOOK_BYTES);
    if shown[0] == b'-' {
        return;
    }
    let rows = rows_before(scan, hit.start);
    let forms = OPTIONS.iter().zip(0..).filter(|(_, row)| rows >> row & 1 == 1);
    let forms = forms.filter(|((name, ..), _)| name.as_bytes() == &text[hit.clone()]);
    for ((name, form, _), _) in forms {
        let apart = match form {
            Attached if !spaced => Some(0),
            Spaced if spaced => Some(0),
            Attached | Spaced => None,
            Pair => shown.iter().position(|byte| *byte == b':').map(|colon| colon + 1),
            Percent => shown.iter().position(|byte| *byte == b'%').map(|sign| sign + 1),
        };
        let Some(apart) = apart else { continue };
        let secret = &shown[apart..];
        // Ports and ids of users are numbers: `docker run -p 80:80`, `-u 1000:1000`.
        let number = secret.iter().all(u8::is_ascii_digit) && secret.len() < 6;
        let port =
            *name == " -p" && secret.iter().all(|byte| byte.is_ascii_digit() || *byte == b':');
        if secret.len() < 3 || number || port || secret[0] == b'/' {
            continue;
        }
        if !is_made_up(secret) {
            let start = units(text, value.start).nth(apart).map_or(value.end, |(at, _)| at);
            scan.take(start..value.end);
            return;
        }
    }
}

fn is_made_up(secret: &[u8]) -> bool {
    value::is_placeholder(secret) || value::is_stand_in(secret) || value::names_itself(secret)
}

/// `curl -u user:X`, with other letters before the `u` or not, and `--user user:X`.
pub(super) fn curl(scan: &mut Scan<'_>, hit: Range<usize>) {
    const COMMAND_MAX_BYTES: usize = 4096;
    let text = scan.text;
    let most = text.len().min(hit.end + COMMAND_MAX_BYTES);
    let mut at = hit.end;
    while at < most {
        let Some(next) = unit(text, at) else { return };
        // A second command has a search of its own, so none costs more than its length.
        if matches!(next.byte, b';' | b'|') || text[at..].starts_with(b"curl") {
            return;
        }
        let option = next.byte == b'-' && text::begins(text, at);
        let word = &text[at..];
        let length = word
            .iter()
            .take(24)
            .take_while(|byte| byte.is_ascii_alphabetic() || **byte == b'-')
            .count();
        at += next.len.max(if option { length } else { 0 });
        if !option || !is_user_option(&word[..length]) {
            continue;
        }
        let spaces =
            text[at..].iter().take(4).take_while(|byte| matches!(byte, b' ' | b'=')).count();
        let Some(value) = argument(scan, at + spaces) else { continue };
        let shown = text::decode(text, value.clone(), value::LOOK_BYTES);
        let Some(colon) = shown.iter().position(|byte| *byte == b':') else { continue };
        let secret = &shown[colon + 1..];
        if secret.len() >= 3 && !is_made_up(secret) {
            let start = units(text, value.start).nth(colon + 1).map_or(value.end, |(at, _)| at);
            scan.take(start..value.end);
        }
        at = value.end;
    }
}

fn is_user_option(word: &[u8]) -> bool {
    match word {
        [b'-', b'-', name @ ..] => name == b"user" || name == b"proxy-user",
        [b'-', letters @ .., b'u' | b'U'] => letters.len() <= 8 && !letters.contains(&b'-'),
        _ => false,
    }
}

/// `ConvertTo-SecureString 'X'` of PowerShell.
pub(super) fn secure_string(scan: &mut Scan<'_>, hit: Range<usize>) {
    let text = scan.text;
    let mut at = hit.end;
    for skip in [&b" "[..], b"-String", b" "] {
        if text[at..].len() >= skip.len() && text[at..at + skip.len()].eq_ignore_ascii_case(skip) {
            at += skip.len();
        }
    }
    if !unit(text, at).is_some_and(|unit| matches!(unit.byte, b'"' | b'\'')) {
        return;
    }
    let Some(value) = argument(scan, at) else { return };
    take_if_chosen(scan, value);
}

/// `echo user:X | chpasswd`.
pub(super) fn chpasswd(scan: &mut Scan<'_>, hit: Range<usize>) {
    let back = hit.start.saturating_sub(BACK_BYTES);
    let before = &scan.text[back..hit.start];
    let Some(echo) = before.windows(5).rposition(|part| part == b"echo ") else { return };
    let Some(value) = argument(scan, back + echo + 5) else { return };
    let Some(colon) = scan.text[value.clone()].iter().position(|byte| *byte == b':') else {
        return;
    };
    take_if_chosen(scan, value.start + colon + 1..value.end);
}

/// `sqlplus user/X@host` and `jdbc:oracle:thin:user/X@host`.
pub(super) fn oracle(scan: &mut Scan<'_>, hit: Range<usize>) {
    let text = scan.text;
    let start = hit.end + text[hit.end..].iter().take(8).take_while(|byte| **byte == b' ').count();
    let end = scan.ends.of_bare(text, start, true).min(start + 256);
    let login = &text[start..end];
    let Some(slash) = login.iter().position(|byte| *byte == b'/') else { return };
    let Some(at_sign) = login.iter().position(|byte| *byte == b'@').filter(|at| *at > slash) else {
        return;
    };
    if slash > 0 {
        take_if_chosen(scan, start + slash + 1..start + at_sign);
    }
}

/// `kubectl create secret … --from-literal=name=X`.
pub(super) fn literal(scan: &mut Scan<'_>, hit: Range<usize>) {
    let text = scan.text;
    let spaced = matches!(text.get(hit.end), Some(b'=' | b' '));
    let Some(argument) = argument(scan, hit.end + usize::from(spaced)) else { return };
    let Some(equals) = text[argument.clone()].iter().position(|byte| *byte == b'=') else { return };
    let name = text[argument.start..argument.start + equals].to_ascii_lowercase();
    let secret = ["pass", "token", "secret", "key", "pwd", "auth", "cred"];
    let mut value = argument.start + equals + 1..argument.end;
    // Quotes may stand around the value alone.
    if value.is_empty()
        && let Some(inner) = self::argument(scan, value.start)
    {
        value = inner;
    }
    if secret.iter().any(|part| name.windows(part.len()).any(|window| window == part.as_bytes())) {
        take_if_chosen(scan, value);
    }
}

fn take_if_chosen(scan: &mut Scan<'_>, range: Range<usize>) {
    let shown = text::decode(scan.text, range.clone(), value::LOOK_BYTES);
    if !is_made_up(&shown) && (value::is_password(&shown) || value::is_random(&shown)) {
        scan.take(range);
    }
}

/// The argument at `at`, without its quotes.
fn argument(scan: &mut Scan<'_>, at: usize) -> Option<Range<usize>> {
    let next = unit(scan.text, at)?;
    if matches!(next.byte, b'"' | b'\'') {
        let start = at + next.len;
        let end = scan.ends.of_quoted(scan.text, start, next.byte, next.backslashes);
        if let Some(end) = end.filter(|end| end - start <= 512) {
            return Some(start..end);
        }
        return None;
    }
    let end = scan.ends.of_bare(scan.text, at, true);
    (end - at <= 512).then_some(at..end)
}

/// Which options the command before `at` has: bit `n` is row `n` of [`OPTIONS`]. The text is gone through once,
/// from where the last option was.
fn rows_before(scan: &mut Scan<'_>, at: usize) -> u32 {
    let text = scan.text;
    let (mut word, mut rows) = scan.command;
    if at.saturating_sub(word) > BACK_BYTES {
        (word, rows) = (at - BACK_BYTES, 0);
    }
    let mut last = 0;
    for (place, unit) in units(&text[..at], word) {
        if unit.len == 1 && (unit.byte.is_ascii_alphanumeric() || b"_-".contains(&unit.byte)) {
            continue;
        }
        rows |= rows_of(&text[word..place.max(word)]);
        word = place + unit.len;
        // A backslash before the line's end goes on with the command; both may be written with several.
        let goes_on = last == b'\\' || unit.backslashes.count_ones() > 1;
        if matches!(unit.byte, b';' | b'|' | b'&') || unit.byte == b'\n' && !goes_on {
            rows = 0;
        }
        last = unit.byte;
    }
    rows |= rows_of(&text[word..at]);
    scan.command = (at, rows);
    rows
}

/// The rows of [`OPTIONS`] that a word is a command of.
fn rows_of(word: &[u8]) -> u32 {
    let is = |name: &&str| word.strip_suffix(name.as_bytes()).is_some_and(is_edge);
    let rows = OPTIONS.iter().zip(0..);
    rows.filter(|((.., commands), _)| commands.iter().any(is))
        .fold(0, |rows, (_, row)| rows | 1 << row)
}

/// Whether what stands before a word is no part of it: a colour's end, the sign of a diff.
fn is_edge(before: &[u8]) -> bool {
    match before {
        [] | [b'-'] => true,
        [digits @ .., b'm'] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// `-passin pass:X` of openssl.
pub(super) fn pass_argument(scan: &mut Scan<'_>, hit: Range<usize>) {
    let before = &scan.text[hit.start.saturating_sub(12)..hit.start];
    let known = [&b"-passin "[..], b"-passout ", b"-pass ", b"-passin '", b"-passin \""];
    if known.iter().any(|option| before.ends_with(option)) {
        take_word(scan, hit.end, 4);
    }
}

/// `IDENTIFIED BY 'X'` and `PASSWORD 'X'` of SQL.
pub(super) fn sql(scan: &mut Scan<'_>, hit: Range<usize>) {
    let at =
        hit.end + scan.text[hit.end..].iter().take(8).take_while(|byte| **byte == b' ').count();
    let Some(quote) = unit(scan.text, at).filter(|unit| matches!(unit.byte, b'"' | b'\'')) else {
        return;
    };
    let start = at + quote.len;
    let Some(end) = scan.ends.of_quoted(scan.text, start, quote.byte, quote.backslashes) else {
        return;
    };
    let shown = text::decode(scan.text, start..end, value::LOOK_BYTES);
    let words = value::is_stand_in(&shown) || value::names_itself(&shown);
    if (4..=128).contains(&shown.len()) && at > hit.end && !words && value::is_password(&shown) {
        scan.take(start..end);
    }
}

/// `machine host login name password X` of a netrc file.
pub(super) fn netrc(scan: &mut Scan<'_>, hit: Range<usize>) {
    let back = hit.start.saturating_sub(BACK_BYTES);
    let before = &scan.text[back..hit.start];
    let has = |word: &[u8]| before.windows(word.len()).any(|part| part == word);
    if !has(b"login ") || !(has(b"machine ") || has(b"default ")) {
        return;
    }
    let end = scan.ends.of_bare(scan.text, hit.end, true);
    let shown = text::decode(scan.text, hit.end..end, value::LOOK_BYTES);
    let last =
        unit(scan.text, end).is_none_or(|unit| matches!(unit.byte, b'\n' | b'\r' | b'"' | b'\''));
    let made_up = value::is_placeholder(&shown) || value::is_stand_in(&shown);
    if shown.len() >= 3 && !made_up && (last || value::is_password(&shown)) {
        scan.take(hit.end..end);
    }
}

/// A line of `.pgpass`: `host:5432:database:user:X`.
pub(super) fn pgpass(scan: &mut Scan<'_>, hit: Range<usize>) {
    let end = scan.ends.of_bare(scan.text, hit.end, true);
    let line = &scan.text[hit.end..end.min(hit.end + 512)];
    let mut fields = line.split(|byte| *byte == b':');
    let (Some(database), Some(user), Some(password), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return;
    };
    let shown = text::decode(scan.text, end - password.len()..end, value::LOOK_BYTES);
    if !database.is_empty() && !user.is_empty() && value::is_password(&shown) {
        scan.take(end - password.len()..end);
    }
}

fn take_word(scan: &mut Scan<'_>, at: usize, least: usize) {
    let end = scan.ends.of_bare(scan.text, at, true);
    let shown = text::decode(scan.text, at..end, value::LOOK_BYTES);
    if shown.len() >= least && !is_made_up(&shown) {
        scan.take(at..end);
    }
}
