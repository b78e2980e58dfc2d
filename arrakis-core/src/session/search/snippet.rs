//! What is shown of a text that was found.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::SearchQuery;

/// Longest snippet, in characters: two or three lines of a terminal.
pub const SNIPPET_MAX_CHARS: usize = 200;

/// What of it stands before the first match.
const BEFORE_CHARS: usize = 60;

/// The surroundings of the first match in a text, in parts, as they were written; without words asked for, its beginning. White
/// space is one space each, and `…` stands where the text was cut.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Snippet(pub Vec<SnippetPart>);

/// A part of a [`Snippet`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnippetPart {
    /// Its text, never empty.
    pub text: String,
    /// Whether it is a word or a phrase that was asked for.
    #[serde(rename = "match")]
    pub is_match: bool,
}

impl Snippet {
    /// The snippet of the first of `texts` that holds what `query` asks for, or a part of it; of the first that says
    /// something, where none does.
    #[must_use]
    pub fn of(texts: &[Cow<'_, str>], query: &SearchQuery) -> Self {
        let mut texts = texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
        let found = texts.clone().find_map(|text| {
            let mut places = query.places(text).map(|place| place.range).peekable();
            let place = places.peek()?.start;
            Some((text, place, Some(places)))
        });
        let first = || texts.next().map(|text| (text, 0, None));
        let Some((text, place, places)) = found.or_else(first) else { return Self::default() };
        let start = begin(text, place);
        let length = text[start..].char_indices().nth(SNIPPET_MAX_CHARS).map(|(length, _)| length);
        let end = length.map_or(text.len(), |length| start + length);

        let mut snippet = Self::default();
        if start > 0 {
            snippet.push("…", false);
        }
        let mut done = start;
        let matches = places.into_iter().flatten().filter(|place| place.start < end);
        for place in matches {
            // Two matches may share words.
            let (from, to) = (place.start.max(done), place.end.min(end));
            if from < to {
                snippet.push(&text[done..from], false);
                snippet.push(&text[from..to], true);
                done = to;
            }
        }
        snippet.push(&text[done..end], false);
        if end < text.len() {
            snippet.push("…", false);
        }
        snippet
    }

    /// The text, in one piece.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.iter().map(|part| part.text.as_str()).collect()
    }

    fn push(&mut self, text: &str, is_match: bool) {
        let mut plain = String::with_capacity(text.len());
        for letter in text.chars() {
            if !letter.is_whitespace() {
                plain.push(letter);
            } else if !plain.ends_with(' ') {
                plain.push(' ');
            }
        }
        match self.0.last_mut() {
            Some(last) if last.is_match == is_match => last.text.push_str(&plain),
            _ if plain.is_empty() => {}
            _ => self.0.push(SnippetPart { text: plain, is_match }),
        }
    }
}

/// Where a snippet begins that shows what is at `place`: at a word, unless that is a long one.
fn begin(text: &str, place: usize) -> usize {
    let before = text[..place].char_indices().rev().nth(BEFORE_CHARS - 1);
    let Some((start, _)) = before else { return 0 };
    let gap = text[start..place].char_indices().find(|(_, letter)| letter.is_whitespace());
    gap.map_or(start, |(gap, letter)| start + gap + letter.len_utf8())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(texts: &[&str], wanted: &str) -> String {
        let texts: Vec<Cow<'_, str>> = texts.iter().map(|text| Cow::Borrowed(*text)).collect();
        let Snippet(parts) = Snippet::of(&texts, &wanted.parse().unwrap_or_default());
        let shown = |part: &SnippetPart| match part.is_match {
            true => format!("[{}]", part.text),
            false => part.text.clone(),
        };
        parts.iter().map(shown).collect()
    }

    #[test]
    fn the_words_that_were_asked_for_are_marked() {
        assert_eq!(shown(&["Fix  src/Main.rs,\n\tmain"], "main RS"), "Fix src/[Main].[rs], [main]");
        assert_eq!(shown(&["nothing", "the needle"], "needle"), "the [needle]");
        assert_eq!(shown(&[" ", "the beginning"], ""), "the beginning");
        assert_eq!(shown(&[], "needle"), "");
    }

    #[test]
    fn a_long_text_is_cut_on_both_sides() {
        let text = format!("{} the needle {}", "before ".repeat(50), "after ".repeat(50));
        let snippet = shown(&[&text], "needle");
        assert!(snippet.starts_with("…before before"), "{snippet}");
        assert!(snippet.contains("the [needle] after"), "{snippet}");
        assert!(snippet.ends_with('…') && snippet.chars().count() < 210, "{snippet}");
        let word = "ä".repeat(1000);
        assert_eq!(shown(&[&word], &word), format!("[{}]…", "ä".repeat(SNIPPET_MAX_CHARS)));
    }

    #[test]
    fn what_is_marked_is_as_it_was_written() {
        assert_eq!(
            shown(&["Das Re\u{301}sume\u{301} von ZOË"], "resume zoe"),
            "Das [Re\u{301}sume\u{301}] von [ZOË]"
        );
        assert_eq!(shown(&["ユーザー認証のﾃｽﾄです"], "テスト 認証"), "ユーザー[認証]の[ﾃｽﾄ]です");
        assert_eq!(
            shown(&["fix the build, the build!"], "\"the build\""),
            "fix [the build], [the build]!"
        );
        assert_eq!(
            shown(&["do fix the build"], "fix \"do fix\" \"fix the\""),
            "[do fix the] build"
        );
        assert_eq!(shown(&["serialize a serializer"], "serializer*"), "serialize a [serializer]");
    }

    proptest! {
        #[test]
        fn any_text_has_a_snippet(text in "(?s).{0,900}", wanted in "\\PC{0,3}[a-z\"* 登é]{0,6}") {
            let Snippet(parts) = Snippet::of(&[Cow::Borrowed(&text)], &wanted.parse().unwrap_or_default());
            prop_assert!(parts.iter().all(|part| !part.text.is_empty()));
            let length = parts.iter().map(|part| part.text.chars().count()).sum::<usize>();
            prop_assert!(length <= SNIPPET_MAX_CHARS + 2);
        }
    }
}
