//! The pieces of a text that can be found: a word of a script that writes spaces, one sign of a script that does not.
//!
//! Pieces are compared in a form that is the same however a text was typed ([`Unit::fold`]): compatibility forms
//! such as full-width letters are taken apart, accents are left out, and what remains is in lower case and in NFC.
//! Signs that change what a letter is stay: vowels of Thai and Hindi, the voicing of kana.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::WORD_MAX_BYTES;

/// The longest word as it is written whose whole folded form counts, in bytes: a letter of a folded word may be
/// written with several accents.
const WRITTEN_MAX_BYTES: usize = 8 * WORD_MAX_BYTES;

/// A word, or one sign of a script without spaces together with the marks on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit<'a> {
    /// Where it stands in the text, in bytes.
    pub(super) start: usize,
    /// As it is written.
    pub(super) text: &'a str,
    /// Whether it is a sign of a script without spaces.
    pub(super) is_sign: bool,
    /// Whether it stands right behind another such sign.
    pub(super) is_joined: bool,
}

impl Unit<'_> {
    /// Where it ends in the text.
    pub(super) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// Makes `folded` the form in which units are compared, at most [`WORD_MAX_BYTES`] of it; empty where nothing of it can be
    /// found.
    pub(super) fn fold(&self, folded: &mut String) {
        folded.clear();
        if self.text.is_ascii() {
            folded.push_str(&self.text[..self.text.len().min(WORD_MAX_BYTES)]);
            folded.make_ascii_lowercase();
        } else if self.is_sign && self.text.chars().all(is_plain_sign) {
            folded.push_str(self.text);
        } else {
            let written = &self.text[..self.text.floor_char_boundary(WRITTEN_MAX_BYTES)];
            let letters = written.nfkd().flat_map(char::to_lowercase).filter(is_kept);
            folded.extend(letters.flat_map(Letters::of).nfc());
            let max = if self.is_sign { WORD_MAX_BYTES / 2 } else { WORD_MAX_BYTES };
            folded.truncate(folded.floor_char_boundary(max));
        }
    }
}

/// The units of a text, in its order.
pub(super) fn units(text: &str) -> Units<'_> {
    Units { text, at: 0, after_sign: false }
}

/// See [`units`].
#[derive(Debug, Clone)]
pub(super) struct Units<'a> {
    text: &'a str,
    at: usize,
    /// Whether a sign ends here.
    after_sign: bool,
}

impl<'a> Iterator for Units<'a> {
    type Item = Unit<'a>;

    fn next(&mut self) -> Option<Unit<'a>> {
        let is_joined = !self.skip_gap()? && self.after_sign;
        let start = self.at;
        let first = self.text[start..].chars().next()?;
        self.after_sign = is_sign(first);
        self.at += first.len_utf8();
        if self.after_sign {
            self.skip(|_| false, is_continuing);
        } else {
            let is_letter = |c: char| is_continuing(c) || (c.is_alphanumeric() && !is_sign(c));
            self.skip(|byte| byte.is_ascii_alphanumeric(), is_letter);
        }
        let text = &self.text[start..self.at];
        let is_joined = is_joined && self.after_sign;
        Some(Unit { start, text, is_sign: self.after_sign, is_joined })
    }
}

impl Units<'_> {
    /// Goes to the next letter or digit, if there is one; returns whether anything stands before it.
    fn skip_gap(&mut self) -> Option<bool> {
        let start = self.at;
        self.skip(|byte| !byte.is_ascii_alphanumeric(), |c| !c.is_alphanumeric());
        (self.at < self.text.len()).then_some(self.at > start)
    }

    /// Goes on while characters are like this. Most are ASCII, which is asked for as bytes.
    fn skip(&mut self, is_ascii: impl Fn(u8) -> bool, is_other: impl Fn(char) -> bool) {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            if byte.is_ascii() {
                if !is_ascii(byte) {
                    return;
                }
                self.at += 1;
            } else {
                match self.text[self.at..].chars().next().filter(|c| is_other(*c)) {
                    Some(c) => self.at += c.len_utf8(),
                    None => return,
                }
            }
        }
    }
}

/// Whether a character belongs to the letter before it: a mark, a part of a Korean syllable, or something that is not
/// seen.
fn is_continuing(c: char) -> bool {
    match c {
        '\0'..='\u{7f}' => false,
        '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' => true,
        '\u{1160}'..='\u{11ff}' | '\u{d7b0}'..='\u{d7ff}' | '\u{ff9e}' | '\u{ff9f}' => true,
        _ => c >= '\u{300}' && is_combining_mark(c),
    }
}

/// Whether a letter or digit is of a script that writes no spaces between words, or, as in Korean, joins to a word what
/// other languages write apart.
fn is_sign(c: char) -> bool {
    matches!(c,
        // Thai and Lao, Burmese, Hangul, Khmer, Tai.
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1100}'..='\u{11ff}'
        | '\u{1780}'..='\u{17ff}' | '\u{1950}'..='\u{19df}' | '\u{1a20}'..='\u{1aaf}'
        // Kana, bopomofo, Hangul and Han.
        | '\u{3005}'..='\u{3007}' | '\u{3040}'..='\u{318f}' | '\u{31a0}'..='\u{31ff}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{a960}'..='\u{a97f}'
        | '\u{a9e0}'..='\u{a9ff}' | '\u{aa60}'..='\u{aadf}' | '\u{ac00}'..='\u{d7ff}'
        | '\u{f900}'..='\u{faff}' | '\u{ff65}'..='\u{ffdc}' | '\u{1aff0}'..='\u{1b16f}'
        | '\u{20000}'..='\u{3ffff}')
}

/// Whether a sign is compared as it is. These are the frequent ones; of Thai and Lao also those of which NFKD makes two.
fn is_plain_sign(c: char) -> bool {
    matches!(c,
        '\u{e01}'..='\u{ecd}' | '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}' | '\u{30fc}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}')
}

/// Whether a character of a text in NFKD and lower case is compared: a letter, a digit, or a mark that is no accent.
/// Points of Hebrew and Arabic, which are mostly left out in writing, are accents here.
fn is_kept(c: &char) -> bool {
    let is_accent = matches!(c,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{487}' | '\u{591}'..='\u{5c7}'
        | '\u{610}'..='\u{61a}' | '\u{640}' | '\u{64b}'..='\u{65f}' | '\u{670}'
        | '\u{6d6}'..='\u{6ed}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe00}'..='\u{fe2f}' | '\u{e0100}'..='\u{e01ef}');
    !is_accent && (c.is_alphanumeric() || is_combining_mark(*c))
}

/// The letters for which one stands that Unicode does not take apart.
struct Letters([char; 2], usize);

impl Letters {
    fn of(c: char) -> impl Iterator<Item = char> {
        let Self(letters, count) = match c {
            'ß' => Self(['s', 's'], 2),
            'æ' => Self(['a', 'e'], 2),
            'œ' => Self(['o', 'e'], 2),
            'þ' => Self(['t', 'h'], 2),
            'ı' => Self(['i', ' '], 1),
            'ø' => Self(['o', ' '], 1),
            'ł' => Self(['l', ' '], 1),
            'đ' | 'ð' => Self(['d', ' '], 1),
            'ħ' => Self(['h', ' '], 1),
            'ς' => Self(['σ', ' '], 1),
            _ => Self([c, ' '], 1),
        };
        letters.into_iter().take(count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn folded(text: &str) -> String {
        let mut all = Vec::new();
        for unit in units(text) {
            let mut folded = String::new();
            unit.fold(&mut folded);
            all.push(folded);
        }
        all.join(" ")
    }

    #[test]
    fn a_unit_is_a_word_or_a_sign() {
        assert_eq!(folded("Fix src/main.rs: don't!"), "fix src main rs don t");
        assert_eq!(folded("用Python3写 テスト"), "用 python3 写 テ ス ト");
        assert_eq!(folded("로그인을 ที่นี่ ພາສາ"), "로 그 인 을 ที่ นี่ ພ າ ສ າ");
        assert_eq!(folded("हिन्दी में"), "हिन्दी में");
        let joined: Vec<_> = units("登录a 失败，认").map(|unit| unit.is_joined).collect();
        assert_eq!(joined, [false, true, false, false, true, false]);
    }

    #[test]
    fn what_is_written_in_several_ways_is_one() {
        for (texts, expected) in [
            (&["Résumé", "Re\u{301}sume\u{301}", "RESUME", "ｒｅｓｕｍｅ"][..], "resume"),
            (&["Straße", "STRASSE", "straſse"], "strasse"),
            (&["İstanbul", "ıstanbul", "ISTANBUL"], "istanbul"),
            (&["ΟΔΟΣ", "οδός", "οδοσ"], "οδοσ"),
            (&["Ёлка", "ЕЛКА", "е\u{308}лка"], "елка"),
            (&["أصلح", "اصلح", "أَصْلِح"], "اصلح"),
            (&["ガード", "ｶﾞｰﾄﾞ", "カ\u{3099}ート\u{3099}"], "ガ ー ド"),
            (&["로그인", "\u{1105}\u{1169}\u{1100}\u{1173}\u{110b}\u{1175}\u{11ab}"], "로 그 인"),
            (&["ﬁle", "file", "fi\u{ad}le"], "file"),
            (&["می‌خواهم", "میخواهم"], "میخواهم"),
            (&["Ægir Łódź", "aegir lodz"], "aegir lodz"),
        ] {
            for text in texts {
                assert_eq!(folded(text), expected, "{text}");
            }
        }
        assert_ne!(folded("か"), folded("が"));
    }

    #[test]
    fn a_long_word_is_found_by_its_beginning_however_it_is_written() {
        let (one, two) = ("é".repeat(300), "e\u{301}".repeat(300));
        assert_eq!(folded(&one), "e".repeat(WORD_MAX_BYTES));
        assert_eq!(folded(&two), folded(&one));
    }

    proptest! {
        #[test]
        fn units_stand_in_order_and_their_forms_hold_letters_only(text in "(?s).{0,200}") {
            let mut end = 0;
            for unit in units(&text) {
                prop_assert!(unit.start >= end && !unit.text.is_empty());
                end = unit.end();
                prop_assert_eq!(&text[unit.start..end], unit.text);
                let mut folded = String::new();
                unit.fold(&mut folded);
                prop_assert!(folded.len() <= WORD_MAX_BYTES);
                prop_assert!(folded.chars().all(|c| c.is_alphanumeric() || is_combining_mark(c)));
            }
        }

        #[test]
        fn a_normal_form_changes_no_form(text in "(?s).{0,60}") {
            let [composed, apart] = [text.nfc().collect::<String>(), text.nfd().collect()];
            prop_assert_eq!(folded(&composed), folded(&apart));
        }
    }
}
