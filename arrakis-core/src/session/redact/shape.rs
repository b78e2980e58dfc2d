//! Forms of secrets: which characters, how many, what between.
//!
//! A form is matched from left to right without going back, so it costs what it matches. Escapes count as
//! what they mean (`\/` is a slash).

use super::text::{is_word, unit};

/// A set of ASCII characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Set(u128);

impl Set {
    /// The set of the characters and ranges in `text`, as in `a-z0-9_`; a `-` at the end is itself.
    pub(super) const fn of(text: &str) -> Self {
        let (bytes, mut set, mut at) = (text.as_bytes(), 0_u128, 0);
        while at < bytes.len() {
            if at + 2 < bytes.len() && bytes[at + 1] == b'-' {
                let mut byte = bytes[at];
                while byte <= bytes[at + 2] {
                    set |= 1 << byte;
                    byte += 1;
                }
                at += 3;
            } else {
                set |= 1 << bytes[at];
                at += 1;
            }
        }
        Self(set)
    }

    const fn has(self, byte: u8) -> bool {
        byte < 128 && self.0 >> byte & 1 == 1
    }
}

pub(super) const DIGIT: Set = Set::of("0-9");
pub(super) const HEX: Set = Set::of("0-9a-f");
pub(super) const ANYHEX: Set = Set::of("0-9a-fA-F");
pub(super) const UPPER: Set = Set::of("0-9A-Z");
pub(super) const LOWER: Set = Set::of("0-9a-z");
pub(super) const ALNUM: Set = Set::of("0-9A-Za-z");
pub(super) const WORD: Set = Set::of("0-9A-Za-z_");
/// Base64 for URLs, and what many issuers use.
pub(super) const URL64: Set = Set::of("0-9A-Za-z_-");
/// Base64 with its padding.
pub(super) const BASE64: Set = Set::of("0-9A-Za-z+/=");
pub(super) const LOOSE: Set = Set::of("0-9A-Za-z_=-");
pub(super) const DOTTED: Set = Set::of("0-9A-Za-z_.=-");
/// Base64 as it stands in a URL.
pub(super) const PERCENT: Set = Set::of("0-9A-Za-z%+/=_-");
const UUID: Set = Set::of("0-9a-fA-F-");

/// A part of a form.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// Characters of a set, from so many to so many.
    Run(Set, usize, usize),
    /// These characters.
    Lit(&'static str),
}

pub(super) use Part::{Lit, Run};

/// Any UUID.
pub(super) const A_UUID: Part = Run(UUID, 36, 36);

/// Where `parts` end that begin at `at`; `None` where the text has another form. A word that goes on behind
/// the last part is another word.
pub(super) fn end_of(text: &[u8], at: usize, parts: &[Part]) -> Option<usize> {
    let mut at = at;
    for part in parts {
        match *part {
            Lit(literal) => {
                for byte in literal.bytes() {
                    let found = unit(text, at).filter(|unit| unit.byte == byte)?;
                    at += found.len;
                }
            }
            Run(set, least, most) => {
                let mut count = 0;
                while count < most
                    && let Some(found) = unit(text, at)
                    && set.has(found.byte)
                {
                    (at, count) = (at + found.len, count + 1);
                }
                if count < least {
                    return None;
                }
            }
        }
    }
    if let (Some(Run(set, ..)), Some(next)) = (parts.last(), unit(text, at))
        && (set.has(next.byte) && next.byte != b'=' && next.byte != b'-' || is_word(next.byte))
    {
        return None;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::{ALNUM, BASE64, HEX, Lit, Run, end_of};

    #[test]
    fn forms_are_matched_to_the_end_of_the_word() {
        let parts = &[Run(HEX, 4, 4), Lit("."), Run(ALNUM, 2, 6)];
        assert_eq!(end_of(b"00ff.Ab9", 0, parts), Some(8));
        assert_eq!(end_of(b"00ff.Ab9 x", 0, parts), Some(8));
        assert_eq!(end_of(br"00ff.Ab9\n", 0, parts), Some(8));
        assert_eq!(end_of(b"00ff.Ab9Ab9x", 0, parts), None);
        assert_eq!(end_of(b"00fg.Ab9", 0, parts), None);
        assert_eq!(end_of(br"a\/b\u002bc=", 0, &[Run(BASE64, 4, 9)]), Some(12));
    }
}
