//! Tells secrets from what code and prose put in their place.
//!
//! A name such as `token` says that a secret may follow. Mostly none does: a type, a variable, a call, a
//! placeholder, a word. The functions here look at the value alone.

use super::words::{is_wordlike, segments};

/// How much of a value is looked at, in bytes; what decides stands at its beginning.
pub(super) const LOOK_BYTES: usize = 256;

/// Words that stand where a secret would, alone or beside others.
const STAND_INS: &[&str] = &[
    "admin",
    "and",
    "any",
    "argument",
    "arguments",
    "async",
    "auth",
    "await",
    "basic",
    "bearer",
    "bool",
    "boolean",
    "byte",
    "bytes",
    "char",
    "const",
    "credential",
    "credentials",
    "current",
    "default",
    "default_value",
    "define",
    "digest",
    "disabled",
    "dummy",
    "email",
    "empty",
    "enabled",
    "enum",
    "env",
    "environ",
    "environment",
    "export",
    "fake",
    "false",
    "field",
    "file",
    "final",
    "flag",
    "flags",
    "float",
    "fn",
    "foo",
    "func",
    "function",
    "get",
    "hash",
    "hashed",
    "hidden",
    "import",
    "include",
    "input",
    "int",
    "integer",
    "is",
    "key",
    "let",
    "list",
    "local",
    "login",
    "long",
    "map",
    "match",
    "missing",
    "mock",
    "mut",
    "name",
    "never",
    "new",
    "nil",
    "no",
    "none",
    "null",
    "number",
    "object",
    "omit",
    "oauth",
    "option",
    "optional",
    "options",
    "or",
    "parameter",
    "parameters",
    "params",
    "plain",
    "private",
    "process",
    "prompt",
    "props",
    "public",
    "query",
    "raw",
    "ref",
    "req",
    "request",
    "required",
    "return",
    "same-origin",
    "sample",
    "secret",
    "self",
    "static",
    "str",
    "string",
    "struct",
    "super",
    "symbol",
    "test",
    "text",
    "this",
    "token",
    "true",
    "type",
    "undefined",
    "union",
    "unknown",
    "unset",
    "user",
    "username",
    "val",
    "value",
    "var",
    "vec",
    "void",
    "with",
    "yes",
];

/// What marks a value as made up, wherever it stands in it as a word.
const PLACEHOLDER_WORDS: &[&str] = &[
    "changeme",
    "changeit",
    "example",
    "examples",
    "fixme",
    "goes",
    "here",
    "insert",
    "placeholder",
    "redacted",
    "removed",
    "replace",
    "replaceme",
    "sample",
    "todo",
    "your",
    "yours",
    "yourkey",
    "yourtoken",
    "yoursecret",
    "yourpassword",
    "dummy",
    "fake",
    "masked",
    "hidden",
    "omitted",
    "change",
];

/// What a value says of itself.
#[derive(Debug, Clone, Copy, Default)]
struct Signs {
    letters: usize,
    digits: usize,
    upper: usize,
    lower: usize,
    specials: usize,
    /// Letters in runs that read like words.
    worded: usize,
    /// Separators of words: `-`, `_`, `.`, `/`, a space.
    separators: usize,
    distinct: u32,
}

impl Signs {
    fn of(value: &[u8]) -> Self {
        let mut signs = Self::default();
        let mut seen = [0_u128; 2];
        for byte in value {
            seen[usize::from(byte >> 7)] |= 1 << (byte & 0x7f);
            match byte {
                b'a'..=b'z' => signs.lower += 1,
                b'A'..=b'Z' => signs.upper += 1,
                b'0'..=b'9' => signs.digits += 1,
                b'-' | b'_' | b'.' | b'/' | b' ' | b':' => signs.separators += 1,
                _ => signs.specials += 1,
            }
        }
        signs.letters = signs.lower + signs.upper;
        signs.distinct = seen.iter().map(|half| half.count_ones()).sum();
        signs.worded = segments(value).filter(|run| is_wordlike(run)).map(<[u8]>::len).sum();
        signs
    }

    /// Whether most letters are in words: an identifier, a path, a sentence.
    fn is_wordy(&self) -> bool {
        self.letters > 0 && self.worded * 2 > self.letters + self.digits / 2
    }
}

/// The words of a value: runs of letters.
fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| !byte.is_ascii_alphabetic()).filter(|word| !word.is_empty())
}

/// Whether `word` is one of `list`, in upper or lower case.
fn is_one_of(word: &[u8], list: &[&str]) -> bool {
    list.iter()
        .any(|known| known.len() == word.len() && known.as_bytes().eq_ignore_ascii_case(word))
}

fn lower(value: &[u8]) -> String {
    String::from_utf8_lossy(value).to_ascii_lowercase()
}

/// Whether the value stands for another: a template, a variable, a placeholder.
pub(super) fn is_placeholder(value: &[u8]) -> bool {
    let has = |what: &[u8]| value.windows(what.len()).any(|part| part == what);
    let signs = value.iter().any(|byte| b"$#{}%.*[<\\@".contains(byte));
    if !signs {
        return is_repeated(value) || is_placeholder_word(value);
    }
    let template = [
        &b"${"[..],
        b"{{",
        b"#{",
        b"$(",
        b"<%",
        b"%(",
        b"%{",
        b"%s",
        b"%d",
        b"...",
        b"***",
        b"[REDACTED:",
        b"\\(",
        b"@{",
    ];
    if value.first() == Some(&b'$') && value.get(1).is_some_and(|byte| text_word(*byte)) {
        return true; // a variable of a shell, or a hash of a password: `$2b$10$…`
    }
    if template.iter().any(|mark| has(mark)) {
        return true;
    }
    if let (Some(b'<' | b'{' | b'['), Some(b'>' | b'}' | b']')) = (value.first(), value.last()) {
        return true;
    }
    if matches!(value, [b'%', b's' | b'd' | b'v' | b'q'] | [b'%', .., b'%']) {
        return true;
    }
    if let Some(open) = value.iter().position(|byte| *byte == b'{')
        && let Some(length) = value[open..].iter().position(|byte| *byte == b'}')
        && value[open + 1..open + length]
            .iter()
            .all(|byte| text_word(*byte) || b".:".contains(byte))
    {
        return true; // `Bearer {token}`
    }
    is_repeated(value) || is_placeholder_word(value)
}

fn text_word(byte: u8) -> bool {
    super::text::is_word(byte)
}

/// Whether a value is one or two characters again and again (`xxxx-xxxx`), or counts (`12345678`).
pub(super) fn is_repeated(value: &[u8]) -> bool {
    let mut counts = [0_u16; 36];
    let mut length = 0;
    for byte in value.iter().take(LOOK_BYTES) {
        let place = match byte.to_ascii_lowercase() {
            digit @ b'0'..=b'9' => digit - b'0',
            letter @ b'a'..=b'z' => letter - b'a' + 10,
            _ => continue,
        };
        counts[usize::from(place)] += 1;
        length += 1;
    }
    let most = counts.iter().max().copied().unwrap_or(0);
    let distinct = counts.iter().filter(|count| **count > 0).count();
    length == 0 || length >= 6 && (distinct <= 2 || most * 4 >= length * 3)
}

/// Whether a value stands for itself as a word of code or prose would: a type, a keyword, `changeme`.
pub(super) fn is_stand_in(value: &[u8]) -> bool {
    is_one_of(value, STAND_INS)
}

/// Whether the value is a UUID.
pub(super) fn is_uuid(value: &[u8]) -> bool {
    value.len() == 36
        && value.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// Whether the value is an address, a path, a digest that says so, or embedded data.
fn is_reference(value: &[u8]) -> bool {
    let starts = [
        "/", "./", "../", "~/", "data:", "arn:", "urn:", "sha1-", "sha256", "sha384", "sha512",
        "md5:",
    ];
    let begins = |start: &&str| {
        value.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start.as_bytes()))
    };
    starts.iter().any(begins) && !is_base64(value)
        || value.windows(3).any(|part| part == b"://")
        || value.starts_with(b"iVBORw0KGgo")
}

/// A long value of base64 may begin with a slash, and is no path.
fn is_base64(value: &[u8]) -> bool {
    value.len() >= 32 && value.ends_with(b"=")
}

/// Whether nobody would think of such a value: a key or token that a machine made.
pub(super) fn is_random(value: &[u8]) -> bool {
    let value = &value[..value.len().min(LOOK_BYTES)];
    if value.len() < 16 && !value.iter().any(u8::is_ascii_digit) {
        return false;
    }
    if value.len() < 8 || is_uuid(value) || is_placeholder(value) || is_reference(value) {
        return false;
    }
    if value.iter().any(|byte| *byte <= b' ' || b"(){}[]<>,;\"'`\\|".contains(byte)) {
        return false;
    }
    let signs = Signs::of(value);
    if signs.distinct < 6 || signs.letters + signs.digits < value.len() / 2 {
        return false;
    }
    if signs.letters < 2 {
        return false; // a number, a date, a version
    }
    if signs.letters >= 3 && signs.digits >= 3 && value.iter().all(u8::is_ascii_hexdigit) {
        return value.len() >= 12;
    }
    if signs.digits == 0 {
        // A long token without a digit is rare; letters of both cases without a word are none of ours.
        let mixed = signs.upper >= 3 && signs.lower >= 3;
        return value.len() >= 16 && mixed && signs.worded * 3 < signs.letters;
    }
    !signs.is_wordy()
}

/// Whether the value is one run of many different characters with digits among them, which a rule that
/// knows its form may believe though parts of it read like words.
pub(super) fn is_dense(value: &[u8]) -> bool {
    let signs = Signs::of(value);
    let parts = value.iter().filter(|byte| b"-_. ".contains(byte)).count();
    value.len() >= 15 && signs.distinct >= 10 && signs.digits > 0 && signs.letters > 0 && parts == 0
}

/// Whether the value is a long mixture of all kinds of characters, as generators of keys make them.
pub(super) fn is_jumble(value: &[u8]) -> bool {
    let value = &value[..value.len().min(LOOK_BYTES)];
    if value.len() < 16 || value.iter().any(u8::is_ascii_whitespace) || is_placeholder_word(value) {
        return false;
    }
    let signs = Signs::of(value);
    let kinds = [signs.lower, signs.upper, signs.digits, signs.specials];
    let kinds = kinds.iter().filter(|count| **count > 0).count();
    let mixed = signs.specials >= 3 && signs.digits >= 2 || signs.specials >= 8;
    kinds >= 3 && mixed && signs.distinct >= 14 && !signs.is_wordy()
}

/// Whether the value names a form or an algorithm: `SHA-256-hashed`, `base64`.
pub(super) fn is_technical(value: &[u8]) -> bool {
    let terms = [
        "hash", "encod", "crypt", "sha", "utf", "bit", "char", "base", "pbkdf", "argon", "hmac",
        "http", "v1", "v2",
    ];
    let text = lower(value);
    terms.iter().any(|term| text.contains(term))
}

fn is_placeholder_word(value: &[u8]) -> bool {
    words(value).any(|word| is_one_of(word, PLACEHOLDER_WORDS))
}

/// Whether a person may have thought of the value as a password: not a word alone, and nothing of code.
pub(super) fn is_password(value: &[u8]) -> bool {
    if value.len() < 4
        || value.len() > LOOK_BYTES
        || value.starts_with(b"\\x") && value.len() < 8
        || is_placeholder(value)
        || is_reference(value)
    {
        return false;
    }
    let signs = Signs::of(value);
    if signs.letters == 0 {
        // Digits alone are a number unless there are many of them.
        let number = signs.separators == 0 && signs.digits >= 6;
        return signs.specials > 0 && signs.digits > 0 || number;
    }
    let number = matches!(value, [b'0', b'x' | b'X', digits @ ..] if digits.iter().all(u8::is_ascii_hexdigit));
    if signs.digits > 0 || signs.specials > 0 {
        return !number;
    }
    // Letters alone: what no word looks like.
    signs.letters >= 6 && !signs.is_wordy()
}

/// Whether the value is one word, or words that name things: an identifier, a key of a translation.
pub(super) fn is_identifier(value: &[u8]) -> bool {
    let word = |byte: &u8| text_word(*byte) || matches!(byte, b'.' | b'$');
    let first = value.first().is_some_and(|byte| !byte.is_ascii_digit());
    first && value.iter().all(word)
}

/// Whether the value names what it should be (`userPassword`, `DB_TOKEN`): no secret holds its own name.
pub(super) fn names_itself(value: &[u8]) -> bool {
    if value.iter().any(u8::is_ascii_digit) {
        return false;
    }
    let text = lower(value);
    let names = [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "apikey",
        "api_key",
        "api-key",
        "credential",
    ];
    names.iter().any(|name| text.contains(name))
}

/// Whether the value is a sentence or a label rather than a passphrase: it begins like one, ends like one or
/// speaks of passwords.
pub(super) fn is_prose(value: &[u8]) -> bool {
    if !value.iter().any(u8::is_ascii_whitespace) {
        return false;
    }
    let text = String::from_utf8_lossy(value);
    let title = text.starts_with(|first: char| first.is_uppercase() || !first.is_ascii());
    let ends = text.ends_with(['.', '?', '!', ':', '…', '*']);
    let speech = [
        "password", "passwort", "token", "secret", "key", "the", "your", "enter", "must", "please",
        "is", "to", "for", "invalid", "required", "forgot", "reset", "confirm", "new", "old",
    ];
    title || ends || words(value).any(|word| is_one_of(word, &speech))
}

/// Whether the value is words between separators, as a name or a placeholder is: `your-key-here`.
pub(super) fn is_dictionary(value: &[u8]) -> bool {
    let separators = value.iter().filter(|byte| b"-_. ".contains(byte)).count();
    let digits = value.iter().filter(|byte| byte.is_ascii_digit()).count();
    separators > 0 && digits * 4 < value.len() && is_wordy(value)
}

/// Whether the value reads like words alone, without anything that a secret has.
pub(super) fn is_wordy(value: &[u8]) -> bool {
    Signs::of(value).is_wordy()
}

#[cfg(test)]
mod tests {
    use super::{is_password, is_placeholder, is_random};

    #[test]
    fn random_values_are_told_from_names() {
        for value in [
            "J2OXtPAtLpByQxCGClbaNFDp",
            "0123456789abcdef",
            "abc123def456",
            "bttOofL9H2WjQ5TY4MyWuUFjsUNPjc01",
            "4f31af3176813e02ea68ef786e4d3cea27d26934",
            "k8s7d6f5g4h3j2k1",
            "QmFzZTY0RW5jb2RlZA9x==",
            "xYzAbCqWeRtYuIoP",
        ] {
            assert!(is_random(value.as_bytes()), "{value}");
        }
        for value in [
            "getAccessToken",
            "access_token_v2",
            "user.session.token2",
            "3c150d3c-db13-4f61-a50b-1445b3409e6e",
            "your-api-key-123456",
            "xxxxxxxxxxxxxxxx",
            "https://example.org/a1b2c3d4",
            "4096",
            "2026-11-20",
            "./target/debug/deps/abc123",
            "my-service-account-1",
            "application/json",
            "HmacSHA256",
            "AES256-GCM-encrypted",
            "${TOKEN_1a2b3c}",
            "claude-opus-4-8",
        ] {
            assert!(!is_random(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn passwords_are_told_from_words() {
        for value in ["hunter2", "s3cr3t!pass", "p4ss.word", "Tr0ub4dor&3", "xkqzvbw", "123456"] {
            assert!(is_password(value.as_bytes()), "{value}");
        }
        for value in
            ["string", "required", "password", "1024", "$PASSWORD", "{{ password }}", "<password>"]
        {
            assert!(!is_password(value.as_bytes()), "{value}");
        }
        assert!(is_placeholder(b"Bearer {token}") && is_placeholder(b"********"));
    }
}
