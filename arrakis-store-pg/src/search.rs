//! What a search asks for, as Postgres writes it.
//!
//! The words are those of `arrakis_core::session::search`, so Postgres' own parsing of text plays no part.

use arrakis_core::session::search::query_words;

/// The condition that all words of `text` are there, as Postgres writes one; `None` for text without a
/// word, which finds nothing. Words hold letters and digits only, so a quoted one needs no escape.
pub(crate) fn condition(text: &str) -> Option<String> {
    let words = query_words(text);
    (!words.is_empty()).then(|| all_of(words))
}

/// The condition that all of these terms are there.
pub(crate) fn all_of(terms: impl IntoIterator<Item = String>) -> String {
    let quoted = terms.into_iter().map(|term| format!("'{term}'"));
    quoted.collect::<Vec<_>>().join(" & ")
}
