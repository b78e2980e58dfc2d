//! Which words of a text can be searched for; every store indexes and asks by these.
//!
//! A word is a run of letters and digits, in lower case and without accents: `src/Résumé.rs` has the words `src`,
//! `resume` and `rs`. A script that writes no spaces has no such words: of a run of its signs each two that stand beside
//! each other are a word, and the last one by itself. So two signs or more are found wherever they stand, and one
//! sign as the beginning of words.
//!
//! A search finds what holds all of its words, wherever they stand. Where a [`SearchQuery`] asks for more, an index only
//! tells what may be found, and the text decides.
//!
//! What a search asks for besides words is a word too, as far as it can be: a [`FilterTerm`]. So one index
//! answers all of it. A [`SearchDocument`] is what conversations are searched for.

pub(crate) mod document;
mod filter_term;
mod query;
mod snippet;
mod unit;

use std::collections::BTreeSet;

pub use document::SearchDocument;
pub use filter_term::FilterTerm;
pub use query::{IndexTerm, InvalidSearch, PREFIX_MIN_CHARS, QUERY_WORDS_MAX, SearchQuery};
pub use snippet::{SNIPPET_MAX_CHARS, Snippet, SnippetPart};

use unit::units;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::base::limits::{INDEXED_WORDS_MAX, SEARCHED_TEXT_MAX_BYTES, cut};

/// Longest word, in bytes; longer ones are found by their beginning. Nobody types what is longer, but
/// payloads hold encoded files.
pub const WORD_MAX_BYTES: usize = 64;

/// The words of a text, as far as it is searched: its beginning, and of that the first
/// [`INDEXED_WORDS_MAX`] distinct words.
#[must_use]
pub fn words(text: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    add_words(text, &mut words);
    words
}

/// The words of a payload, as far as it is searched: those of its strings where it is JSON, else of its text.
#[must_use]
pub fn payload_words(payload: &[u8]) -> BTreeSet<String> {
    let mut strings = Strings { words: BTreeSet::new(), left: SEARCHED_TEXT_MAX_BYTES };
    let mut json = serde_json::Deserializer::from_slice(payload);
    let read = (&mut strings).deserialize(&mut json).and_then(|()| json.end());
    match read {
        Ok(()) => strings.words,
        Err(_) => words(&String::from_utf8_lossy(payload)),
    }
}

/// Adds the words of a text, as long as there are not too many.
///
/// Pairs of signs were compared with a segmenter (the dictionaries and models of ICU4X) on 400 pages of a manual each in
/// Chinese, Japanese, Korean and Thai, with 300 queries of one or two of the segmenter's own words each. Pairs find all of
/// what has the query (the segmenter 98, 98, 81 and 99 in 100), and of what they find 99 in 100 have it (76, 90, 100 and
/// 95), before the text is looked at. They make 1.6 to 2.7 times as many terms as the segmenter does, and read 15 to 25 MB/s
/// (the segmenter 13 to 22, of Thai 0.6). Triples make 6 in 100 more terms and find nothing better.
fn add_words(text: &str, words: &mut BTreeSet<String>) {
    let (mut folded, mut signs) = (String::new(), String::new());
    for unit in units(cut(text, SEARCHED_TEXT_MAX_BYTES)) {
        if words.len() >= INDEXED_WORDS_MAX {
            return;
        }
        unit.fold(&mut folded);
        if unit.is_joined {
            signs.push_str(&folded);
        }
        insert(&mut signs, words);
        if unit.is_sign {
            signs.push_str(&folded);
        } else {
            insert(&mut folded, words);
        }
    }
    insert(&mut signs, words);
}

/// Moves a word to the others, if it is one and there are not too many.
fn insert(word: &mut String, words: &mut BTreeSet<String>) {
    if !word.is_empty() && words.len() < INDEXED_WORDS_MAX {
        words.insert(std::mem::take(word));
    }
}

/// Collects the words of every string in a JSON text, keys left out, until enough text was seen.
struct Strings {
    words: BTreeSet<String>,
    left: usize,
}

impl<'de> DeserializeSeed<'de> for &mut Strings {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Strings {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        let text = cut(text, self.left);
        self.left -= text.len();
        add_words(text, &mut self.words);
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        add_words(&number.to_string(), &mut self.words);
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        add_words(&number.unsigned_abs().to_string(), &mut self.words);
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(&mut *self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_key::<serde::de::IgnoredAny>()?.is_some() {
            map.next_value_seed(&mut *self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: BTreeSet<String>) -> String {
        Vec::from_iter(words).join(" ")
    }

    #[test]
    fn words_are_runs_of_letters_and_digits_in_lower_case() {
        assert_eq!(list(words("Fix src/main.rs: ÄRGER, don't!")), "arger don fix main rs src t");
        assert_eq!(words(&"x".repeat(1000)).first().map(String::len), Some(WORD_MAX_BYTES));
        assert!(words("-- ,;").is_empty());
    }

    #[test]
    fn words_without_spaces_are_pairs_of_signs_and_the_last_sign() {
        assert_eq!(list(words("登录失败，认")), "失败 录失 登录 认 败");
        assert_eq!(list(words("用Python写")), "python 写 用");
        assert_eq!(list(words("로그인을")), "그인 로그 을 인을");
        assert_eq!(list(words("ที่นี่ม")), "ที่นี่ นี่ม ม");
    }

    #[test]
    fn a_payload_is_searched_by_its_strings_and_numbers() {
        let payload = br#"{"key":"one\ntwo","list":[3,{"deep":"four"}],"x":true}"#;
        assert_eq!(list(payload_words(payload)), "3 four one two");
        assert_eq!(list(payload_words(b"{\"broken\": \"json")), "broken json");
    }

    #[test]
    fn no_more_text_is_searched_than_the_limit() {
        let payload = format!(r#"["{}","late"]"#, "x ".repeat(SEARCHED_TEXT_MAX_BYTES));
        assert_eq!(list(payload_words(payload.as_bytes())), "x");
    }

    #[test]
    fn no_more_distinct_words_are_searched_than_the_limit() {
        let many = (0..2 * INDEXED_WORDS_MAX).map(|n| format!("w{n:05} ")).collect::<String>();
        let numbers = Vec::from_iter(0..2 * INDEXED_WORDS_MAX);
        for words in [
            words(&many),
            payload_words(many.as_bytes()),
            payload_words(format!("[\"{many}\",7]").as_bytes()),
            payload_words(serde_json::to_string(&numbers).unwrap().as_bytes()),
        ] {
            assert_eq!(words.len(), INDEXED_WORDS_MAX);
        }
        assert!(words(&many).contains("w08191") && !words(&many).contains("w08192"));
    }
}
