//! What a search asks for, as Postgres writes it.
//!
//! The words are those of `arrakis_core::session::search`, so Postgres' own parsing of text plays no part.

use arrakis_core::session::search::{IndexTerm, SearchQuery};

/// The condition that all terms of a search for `text` are there, as Postgres writes one; `None` for a text that is no
/// search, which finds nothing.
pub(crate) fn condition(text: &str) -> Option<String> {
    let query = text.parse::<SearchQuery>().ok()?;
    Some(all_of(&query.terms(), str::to_owned))
}

/// The condition that all of these terms are there, each as `stored` says that it stands in the index. Terms hold no
/// quotes, so a quoted one needs no escape.
pub(crate) fn all_of<'a>(
    terms: impl IntoIterator<Item = &'a IndexTerm>,
    stored: impl Fn(&str) -> String,
) -> String {
    let asked = terms.into_iter().map(|term| match term {
        IndexTerm::Whole(term) => whole(&stored(term)),
        IndexTerm::Beginning(beginning) => format!("'{}':*", stored(beginning)),
    });
    asked.collect::<Vec<_>>().join(" & ")
}

/// The condition that this term is there.
pub(crate) fn whole(term: &str) -> String {
    format!("'{term}'")
}
