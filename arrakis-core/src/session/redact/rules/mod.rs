//! The default rules: a table of which secrets there are and how they are told.
//!
//! The kinds are those of the rule list of gitleaks (config/gitleaks.toml at v8.30.0-27-gb58d3f10, 222 rules),
//! from which client ids and other public names are left out, and some more. The forms are our own.
//!
//! Each rule has two texts that hold a secret, which stands between bars (`|`), and two that hold none. Tests
//! read them from here. A broken bar (`¦`) is no part of a text: it keeps the scanners of code hosts quiet.
//! All samples are made up.

mod ai;
mod cloud;
mod code;
mod general;
mod money;
mod packages;
mod talk;
mod vault;
mod watch;

use std::ops::Range;

use super::scan::{Rank, Scan};
use super::shape::{Part, end_of};
use super::{named, text, value};

/// A default rule.
#[derive(Debug)]
pub(super) struct Rule {
    /// What stands in the replacement. Several rules of one kind have one name.
    pub(super) name: &'static str,
    /// The rule is tried only where one of these stands.
    pub(super) keywords: &'static [&'static str],
    pub(super) shape: Shape,
    /// Texts with a secret between bars.
    pub(super) secrets: [&'static str; 2],
    /// Texts without one.
    pub(super) harmless: [&'static str; 2],
}

/// How a secret is told.
pub(super) enum Shape {
    /// It begins with the keyword, which has these parts behind it.
    Token(&'static [Part]),
    /// It follows the keyword.
    After(&'static [Part]),
    /// It has this form and is given to a name that holds the keyword.
    Owned(&'static [Part]),
    /// A function looks around the keyword.
    Find(fn(&mut Scan<'_>, Range<usize>)),
}

impl std::fmt::Debug for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token",
            Self::After(_) => "After",
            Self::Owned(_) => "Owned",
            Self::Find(_) => "Find",
        })
    }
}

type Samples = [&'static str; 2];
type Keywords = &'static [&'static str];
type Parts = &'static [Part];

const fn token(
    name: &'static str,
    keywords: Keywords,
    parts: Parts,
    secrets: Samples,
    harmless: Samples,
) -> Rule {
    Rule { name, keywords, shape: Shape::Token(parts), secrets, harmless }
}

const fn after(
    name: &'static str,
    keywords: Keywords,
    parts: Parts,
    secrets: Samples,
    harmless: Samples,
) -> Rule {
    Rule { name, keywords, shape: Shape::After(parts), secrets, harmless }
}

const fn owned(
    name: &'static str,
    keywords: Keywords,
    parts: Parts,
    secrets: Samples,
    harmless: Samples,
) -> Rule {
    Rule { name, keywords, shape: Shape::Owned(parts), secrets, harmless }
}

const fn find(
    name: &'static str,
    keywords: Keywords,
    find: fn(&mut Scan<'_>, Range<usize>),
    secrets: Samples,
    harmless: Samples,
) -> Rule {
    Rule { name, keywords, shape: Shape::Find(find), secrets, harmless }
}

/// All rules; a rule's number is its place here.
pub(super) fn all() -> impl Iterator<Item = &'static Rule> {
    let families = [
        general::RULES,
        ai::RULES,
        code::RULES,
        packages::RULES,
        cloud::RULES,
        vault::RULES,
        talk::RULES,
        money::RULES,
        watch::RULES,
    ];
    families.into_iter().flatten()
}

impl Rule {
    /// Whether upper and lower case differ in the keywords: they do where these are part of the secret.
    pub(super) fn is_exact(&self) -> bool {
        matches!(self.shape, Shape::Token(_))
    }

    fn rank(&self) -> Rank {
        match self.shape {
            Shape::Token(_) | Shape::After(_) => Rank::Issued,
            Shape::Owned(_) => Rank::Owned,
            Shape::Find(_) => general::rank(self.name),
        }
    }

    /// Takes what the rule finds around a keyword at `hit`.
    pub(super) fn apply(&self, scan: &mut Scan<'_>, number: u16, hit: Range<usize>) {
        (scan.rule, scan.rank) = (number, self.rank());
        if scan.rank < Rank::Issued && scan.is_taken(hit.start) {
            return;
        }
        match self.shape {
            Shape::Token(parts) => {
                if needs_edge(&scan.text[hit.clone()]) && !text::begins(scan.text, hit.start) {
                    return;
                }
                if let Some(end) = end_of(scan.text, hit.end, parts)
                    && !is_made_up(scan.text, hit.end..end)
                {
                    scan.take(hit.start..end);
                }
            }
            Shape::After(parts) => {
                if let Some(end) = end_of(scan.text, hit.end, parts)
                    && !is_made_up(scan.text, hit.end..end)
                {
                    scan.take(hit.end..end);
                }
            }
            Shape::Owned(parts) => {
                let Some(value) = named::value_of_owner(scan, hit) else { return };
                let shown = text::decode(scan.text, value.range.clone(), value::LOOK_BYTES);
                if end_of(scan.text, value.range.start, parts) == Some(value.range.end)
                    && (value::is_random(&shown)
                        || value::is_uuid(&shown)
                        || value::is_dense(&shown))
                {
                    scan.take(value.range);
                }
            }
            Shape::Find(find) => find(scan, hit),
        }
    }
}

/// Whether a keyword may be met in the middle of a word. One with a sign in it (`ghp_`) is so seldom that a
/// secret is believed whatever stands before it.
fn needs_edge(keyword: &[u8]) -> bool {
    keyword.len() < 4 || keyword.iter().all(u8::is_ascii_alphanumeric)
}

/// Whether the body of a token is no token's: `xxxx`, or words.
fn is_made_up(text: &[u8], body: Range<usize>) -> bool {
    let shown = text::decode(text, body, value::LOOK_BYTES);
    let plain = !shown.iter().any(u8::is_ascii_digit) && value::is_wordy(&shown);
    plain || value::is_repeated(&shown) || value::is_dictionary(&shown)
}
