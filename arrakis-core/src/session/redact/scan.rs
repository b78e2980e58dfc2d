//! What a search through one payload has found so far.

use std::ops::Range;

use super::text::{self, Ends};

/// What a rule took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) range: Range<usize>,
    pub(super) rule: u16,
    pub(super) rank: Rank,
    /// It is a number or another value of JSON outside of strings.
    pub(super) bare: bool,
}

/// Which of two rules that took the same text names it: the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// The text was said to be secret by a name, such as `token`.
    Named,
    /// By a name that also says whose it is.
    Owned,
    /// The text itself has the form that an issuer gives its secrets.
    Issued,
    /// The user says so.
    User,
}

/// A search through one payload.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    pub(super) text: &'a [u8],
    pub(super) ends: Ends,
    pub(super) found: Vec<Found>,
    /// Up to where the text was looked through for cookies, credentials or lines of keys that stand in a row.
    pub(super) passed: usize,
    /// Up to where commands were looked for, and the options that the last one has.
    pub(super) command: (usize, u32),
    /// The rule that is being tried.
    pub(super) rule: u16,
    pub(super) rank: Rank,
}

impl<'a> Scan<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        let (ends, found) = (Ends::default(), Vec::new());
        Self { text, ends, found, passed: 0, command: (0, 0), rule: 0, rank: Rank::Named }
    }

    /// Takes `range`, for the rule that is being tried.
    pub(super) fn take(&mut self, range: Range<usize>) {
        let start = whole_escape(self.text, range.start);
        if start < range.end {
            let (rule, rank) = (self.rule, self.rank);
            self.found.push(Found { range: start..range.end, rule, rank, bare: false });
        }
    }

    /// Whether `at` is in what was last taken.
    pub(super) fn is_taken(&self, at: usize) -> bool {
        self.found.last().is_some_and(|last| last.range.contains(&at))
    }

    /// What was found, in order, without overlaps.
    pub(super) fn finish(mut self) -> Vec<Found> {
        self.found.sort_by_key(|found| (found.range.start, found.range.end));
        self.found.dedup_by(|next, last| {
            let overlap = next.range.start < last.range.end;
            if overlap {
                last.range.end = last.range.end.max(next.range.end);
                if next.rank > last.rank {
                    (last.rule, last.rank) = (next.rule, next.rank);
                }
            }
            overlap
        });
        self.found
    }
}

/// The beginning of the escape that `at` stands in, or `at`: a replacement must not begin inside `\n` or
/// `\u00e9`, or JSON would not stay JSON.
fn whole_escape(text: &[u8], at: usize) -> usize {
    if text::backslashes_before(text, at) % 2 == 1 {
        return at - 1;
    }
    for digits in 0..4 {
        let Some(start) = at.checked_sub(digits + 2) else { break };
        if text[start..].starts_with(b"\\u")
            && text[start + 2..at].iter().all(u8::is_ascii_hexdigit)
            && text::backslashes_before(text, start).is_multiple_of(2)
        {
            return start;
        }
    }
    at
}
