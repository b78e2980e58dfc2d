//! What a search asks for: words, phrases and beginnings of words.

use std::collections::{BTreeSet, VecDeque};
use std::ops::{Bound, Range};

use super::unit::{Unit, units};
use crate::base::limits::{SEARCHED_TEXT_MAX_BYTES, cut};

/// Most words of one search; further ones are left out. A sign of a script without spaces counts as one.
pub const QUERY_WORDS_MAX: usize = 32;

/// Fewest letters of a beginning: an index reads all words that have it, with all of their texts. SQLite takes half a second
/// for one that 260,000 texts have, and 30 ms for one that 80,000 have.
pub const PREFIX_MIN_CHARS: usize = 3;

/// The words that a text must hold, each phrase as a whole.
///
/// ```
/// use arrakis_core::session::search::SearchQuery;
///
/// let query: SearchQuery = r#"resume "fix the build" serial*"#.parse()?;
/// assert!(query.is_in(["Fix the build. My Résumé needs it: serialize."]));
/// assert!(!query.is_in(["Fix my résumé, build the serializer."]));
/// # Ok::<(), arrakis_core::session::search::InvalidSearch>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchQuery {
    /// The longest first, so that what is found is marked as a whole.
    phrases: Vec<Phrase>,
}

/// Words that stand one behind another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Phrase {
    words: Vec<Word>,
    /// Whether the last word may go on.
    is_prefix: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    folded: String,
    is_sign: bool,
    is_joined: bool,
}

/// The text is nothing that can be searched for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSearch {
    /// It has no letter and no digit.
    #[error("there is no word in {0:?}: write at least one letter or digit")]
    NoWord(String),
    /// A beginning is too short.
    #[error("{0}* is too short: write at least {PREFIX_MIN_CHARS} letters before the *")]
    ShortPrefix(String),
}

/// What an index must hold of a text that is found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum IndexTerm {
    /// This term. It has letters, digits, marks and `§` only.
    Whole(String),
    /// A term that begins so.
    Beginning(String),
}

impl IndexTerm {
    /// Whether these terms of a text are such that it may be found.
    #[must_use]
    pub fn is_in(&self, terms: &BTreeSet<String>) -> bool {
        match self {
            Self::Whole(term) => terms.contains(term),
            Self::Beginning(beginning) => {
                let from = (Bound::Included(beginning.as_str()), Bound::Unbounded);
                terms.range::<str, _>(from).next().is_some_and(|term| term.starts_with(beginning))
            }
        }
    }
}

impl std::str::FromStr for SearchQuery {
    type Err = InvalidSearch;

    fn from_str(text: &str) -> Result<Self, InvalidSearch> {
        let mut query = Self::default();
        let mut left = QUERY_WORDS_MAX;
        for (n, part) in text.split(['"', '“', '”', '„', '＂']).enumerate() {
            query.add(part, n % 2 == 1, &mut left)?;
        }
        if query.phrases.is_empty() {
            return Err(InvalidSearch::NoWord(cut(text.trim(), 100).to_owned()));
        }
        query.phrases.sort_by_key(|phrase| std::cmp::Reverse(phrase.words.len()));
        Ok(query)
    }
}

impl SearchQuery {
    /// Adds what stands inside or outside of quotes.
    fn add(&mut self, text: &str, is_quoted: bool, left: &mut usize) -> Result<(), InvalidSearch> {
        let mut phrase = Phrase::default();
        for unit in units(cut(text, SEARCHED_TEXT_MAX_BYTES)) {
            if *left == 0 {
                break;
            }
            let Some(word) = Word::of(&unit) else { continue };
            *left -= 1;
            if !is_quoted && !word.is_joined {
                self.push(std::mem::take(&mut phrase));
            }
            let rest = text[unit.end()..].strip_prefix('*');
            let is_end =
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
            if is_end && !word.is_sign && (!is_quoted || rest == Some("")) {
                if word.folded.chars().count() < PREFIX_MIN_CHARS {
                    return Err(InvalidSearch::ShortPrefix(word.folded));
                }
                phrase.is_prefix = true;
            }
            phrase.words.push(word);
        }
        self.push(phrase);
        Ok(())
    }

    fn push(&mut self, phrase: Phrase) {
        if !phrase.words.is_empty() && !self.phrases.contains(&phrase) {
            self.phrases.push(phrase);
        }
    }

    /// What an index must hold of what is found.
    #[must_use]
    pub fn terms(&self) -> BTreeSet<IndexTerm> {
        self.phrases.iter().flat_map(Phrase::terms).collect()
    }

    /// Whether one text or another has each word and each phrase.
    #[must_use]
    pub fn is_in<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> bool {
        let mut missing = self.phrases.clone();
        for text in texts {
            if missing.is_empty() {
                break;
            }
            let query = Self { phrases: std::mem::take(&mut missing) };
            let mut found = vec![false; query.phrases.len()];
            for place in query.places(text) {
                found[place.phrase] = true;
                if found.iter().all(|found| *found) {
                    break;
                }
            }
            let rest = query.phrases.into_iter().zip(found).filter(|(_, found)| !found);
            missing = rest.map(|(phrase, _)| phrase).collect();
        }
        missing.is_empty()
    }

    /// Whether an index that holds [`terms`](SearchQuery::terms) of a text tells already that it is found.
    #[must_use]
    pub fn is_of_words(&self) -> bool {
        self.phrases.iter().all(|phrase| matches!(&phrase.words[..], [word] if !word.is_sign))
    }

    /// Where a text has what is asked for, in the order in which that ends; what ends at the same place begins with
    /// the longest.
    pub(super) fn places<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Place> + 'a {
        let longest = self.phrases.first().map_or(0, |phrase| phrase.words.len());
        let mut units = units(cut(text, SEARCHED_TEXT_MAX_BYTES));
        let mut last: VecDeque<(usize, String)> = VecDeque::with_capacity(longest + 1);
        let (mut spare, mut end, mut next) = (String::new(), 0, self.phrases.len());
        std::iter::from_fn(move || {
            loop {
                while let Some(phrase) = self.phrases.get(next) {
                    next += 1;
                    if let Some(start) = phrase.ends(&last) {
                        return Some(Place { phrase: next - 1, range: start..end });
                    }
                }
                let unit = units.next()?;
                unit.fold(&mut spare);
                if spare.is_empty() {
                    continue;
                }
                last.push_back((unit.start, std::mem::take(&mut spare)));
                if last.len() > longest {
                    spare = last.pop_front().map(|(_, folded)| folded).unwrap_or_default();
                }
                (end, next) = (unit.end(), 0);
            }
        })
    }
}

/// Where a text has a phrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Which one.
    phrase: usize,
    /// Where it is, in bytes.
    pub(super) range: Range<usize>,
}

impl Word {
    fn of(unit: &Unit<'_>) -> Option<Self> {
        let mut folded = String::new();
        unit.fold(&mut folded);
        let Unit { is_sign, is_joined, .. } = *unit;
        (!folded.is_empty()).then_some(Self { folded, is_sign, is_joined })
    }
}

impl Phrase {
    /// Two signs that stand beside each other are one term of an index, and one by itself is the beginning of others.
    fn terms(&self) -> impl Iterator<Item = IndexTerm> + '_ {
        let words = &self.words;
        words.iter().enumerate().filter_map(move |(n, word)| {
            let next = words.get(n + 1).filter(|next| next.is_joined);
            let folded = word.folded.clone();
            Some(match (word.is_sign, next) {
                (true, Some(next)) => IndexTerm::Whole(folded + &next.folded),
                // The pair before has it.
                (true, None) if word.is_joined && n > 0 => return None,
                (true, None) => IndexTerm::Beginning(folded),
                (false, _) if self.is_prefix && n + 1 == words.len() => {
                    IndexTerm::Beginning(folded)
                }
                (false, _) => IndexTerm::Whole(folded),
            })
        })
    }

    /// Where it begins, if the last of these words are it.
    fn ends(&self, last: &VecDeque<(usize, String)>) -> Option<usize> {
        let first = last.len().checked_sub(self.words.len())?;
        let mut pairs = self.words.iter().zip(last.range(first..)).rev();
        let (end, (_, is)) = pairs.next()?;
        let fits = if self.is_prefix { is.starts_with(&end.folded) } else { *is == end.folded };
        let rest_fits = fits && pairs.all(|(word, (_, is))| *is == word.folded);
        rest_fits.then(|| last.get(first).map(|(start, _)| *start))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> SearchQuery {
        text.parse().unwrap()
    }

    fn terms(text: &str) -> String {
        let term = |term: IndexTerm| match term {
            IndexTerm::Whole(term) => term,
            IndexTerm::Beginning(beginning) => beginning + "*",
        };
        query(text).terms().into_iter().map(term).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn an_index_is_asked_for_words_pairs_of_signs_and_beginnings() {
        assert_eq!(terms("Two two TWO words"), "two words");
        assert_eq!(terms("\"fix the Build\" buil*"), "build fix the buil*");
        assert_eq!(terms("登录失败 认"), "失败 录失 登录 认*");
        assert_eq!(terms("用Python写"), "python 写* 用*");
        assert_eq!(terms("\"登录 失败\""), "失败 登录");
        assert_eq!(terms("a*b **/*.rs x"), "a b rs x");
    }

    #[test]
    fn a_search_asks_for_a_limited_number_of_words() {
        let text = (0..100).map(|n| format!("w{n} ")).collect::<String>();
        assert_eq!(query(&text).terms().len(), QUERY_WORDS_MAX);
        assert_eq!(query(&"登录失败".repeat(90)).phrases[0].words.len(), QUERY_WORDS_MAX);
    }

    #[test]
    fn what_cannot_be_searched_for_says_what_to_do() {
        let error = |text: &str| text.parse::<SearchQuery>().unwrap_err().to_string();
        assert_eq!(
            error("-- ,"),
            r#"there is no word in "-- ,": write at least one letter or digit"#
        );
        assert!(matches!("".parse::<SearchQuery>(), Err(InvalidSearch::NoWord(_))));
        assert_eq!(error("fix ab*"), "ab* is too short: write at least 3 letters before the *");
        assert!("écr*".parse::<SearchQuery>().is_ok() && "登*".parse::<SearchQuery>().is_ok());
    }

    #[test]
    fn a_phrase_is_found_whatever_stands_between_its_words() {
        for (asked, text, is_found) in [
            ("\"src main rs\"", "see src/main.rs", true),
            ("\"src rs\"", "see src/main.rs", false),
            ("\"main.rs sec*\"", "see src/main.rs, second line", true),
            ("\"main.rs sec\"", "see src/main.rs, second line", false),
            ("\"main.rs", "see src/main.rs", true),
            ("\"a b c\"", "a b a b a b c", true),
            ("登录失败", "用户登录失败的问题", true),
            ("登录失败", "登录的失败", false),
            ("認証", "ユーザー認証のテスト", true),
            ("로그인", "사용자 로그인을 수정", true),
            ("เข้าสู่ระบบ", "ปัญหาการเข้าสู่ระบบ", true),
        ] {
            assert_eq!(query(asked).is_in([text]), is_found, "{asked} in {text}");
        }
        assert!(query("one \"two three\"").is_in(["two three", "one"]));
        assert!(!query("\"two three\"").is_in(["two", "three"]));
    }

    #[test]
    fn places_are_those_of_the_text_as_it_was_written() {
        let places = |asked: &str, text: &str| {
            let query = query(asked);
            let all: Vec<_> =
                query.places(text).map(|place| text[place.range].to_owned()).collect();
            all.join("|")
        };
        assert_eq!(
            places("resume", "Mein Re\u{301}sume\u{301}, RÉSUMÉ"),
            "Re\u{301}sume\u{301}|RÉSUMÉ"
        );
        assert_eq!(places("テスト", "これはﾃｽﾄ、テスト"), "ﾃｽﾄ|テスト");
        assert_eq!(
            places("\"the build\" build buil*", "the build builds"),
            "the build|build|build|builds"
        );
    }
}
