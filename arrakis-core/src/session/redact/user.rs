//! Rules of the user's own: regular expressions over the text as it is meant.
//!
//! A payload that is JSON is searched string by string, each with its escapes resolved, those of JSON inside
//! JSON too: a line break is a line break at any depth. So `(?m)^` is the beginning of a line, `^` that of a
//! string, and no match reaches from one string into another. A number, `true` or `null` is a text of its
//! own, and becomes a string where it is replaced. A payload that is no JSON is one text.
//!
//! Patterns are compiled without Unicode: `\d`, `\w`, `\s`, `\b` and `(?i)` know ASCII, `.` is one byte, and
//! other characters stand for themselves. So a pattern means the same in each program, whatever else it links.

use std::borrow::Cow;
use std::ops::Range;

use regex::bytes::{Regex, RegexBuilder};
use serde::de::IgnoredAny;

use super::scan::{Found, Rank};
use super::text::{self, units};
use super::{RuleProblem, UserRule};
use crate::base::limits::{RULE_NAME_MAX_BYTES, USER_PATTERN_MAX_BYTES};

/// A user's rule, compiled.
#[derive(Debug, Clone)]
pub(super) struct Compiled {
    pub(super) name: String,
    pattern: Regex,
}

impl Compiled {
    pub(super) fn new(rule: &UserRule) -> Result<Self, RuleProblem> {
        let problem = |problem: String| RuleProblem { name: rule.name.clone(), problem };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_. ".contains(&byte);
        if rule.name.is_empty()
            || rule.name.len() > RULE_NAME_MAX_BYTES
            || !rule.name.bytes().all(plain)
        {
            let most = RULE_NAME_MAX_BYTES;
            return Err(problem(format!(
                "its name must be 1 to {most} letters, digits, `-`, `_` or `.`"
            )));
        }
        if asks_for_unicode(&rule.pattern) {
            return Err(problem(NO_UNICODE.to_owned()));
        }
        let parsed = regex_syntax::ParserBuilder::new()
            .unicode(false)
            .utf8(false)
            .build()
            .parse(&rule.pattern)
            .map_err(|error| problem(explain(&error)))?;
        if parsed.properties().minimum_len().is_none_or(|length| length == 0) {
            return Err(problem(
                "it can match an empty text; let it match at least one character".into(),
            ));
        }
        let pattern = RegexBuilder::new(&rule.pattern)
            .unicode(false)
            .size_limit(USER_PATTERN_MAX_BYTES)
            .build()
            .map_err(|error| problem(error.to_string()))?;
        Ok(Self { name: rule.name.clone(), pattern })
    }
}

fn explain(error: &regex_syntax::Error) -> String {
    use regex_syntax::hir::ErrorKind;
    let unicode = match error {
        regex_syntax::Error::Translate(error) => matches!(
            error.kind(),
            ErrorKind::UnicodeNotAllowed
                | ErrorKind::UnicodePropertyNotFound
                | ErrorKind::UnicodePropertyValueNotFound
                | ErrorKind::UnicodePerlClassNotFound
                | ErrorKind::UnicodeCaseUnavailable
        ),
        _ => false,
    };
    if unicode { NO_UNICODE.to_owned() } else { error.to_string() }
}

const NO_UNICODE: &str = "it asks for Unicode classes, which are not built in; write ASCII classes such as \
                          [a-z] or \\w, and other characters outside of brackets";

/// Whether a pattern switches Unicode on: whether that would work depends on who else uses the library.
fn asks_for_unicode(pattern: &str) -> bool {
    use regex_syntax::ast::{Ast, Flag, Flags, GroupKind, Visitor, parse::Parser, visit};
    struct Asks(bool);
    impl Asks {
        fn see(&mut self, flags: &Flags) {
            self.0 |= flags.flag_state(Flag::Unicode) == Some(true);
        }
    }
    impl Visitor for Asks {
        type Output = bool;
        type Err = ();
        fn finish(self) -> Result<bool, ()> {
            Ok(self.0)
        }
        fn visit_pre(&mut self, ast: &Ast) -> Result<(), ()> {
            match ast {
                Ast::Flags(set) => self.see(&set.flags),
                Ast::Group(group) => {
                    if let GroupKind::NonCapturing(flags) = &group.kind {
                        self.see(flags);
                    }
                }
                _ => {}
            }
            Ok(())
        }
    }
    Parser::new().parse(pattern).is_ok_and(|ast| visit(&ast, Asks(false)).unwrap_or(false))
}

/// What `rules` find in `payload`; each comes with its number.
pub(super) fn find(rules: &[(u16, &Compiled)], payload: &[u8], found: &mut Vec<Found>) {
    if rules.is_empty() {
        return;
    }
    let json = serde_json::from_slice::<IgnoredAny>(payload).is_ok();
    if !json {
        search(rules, payload, 0..payload.len(), found);
        return;
    }
    let mut at = 0;
    while at < payload.len() {
        let byte = payload[at];
        if byte == b'"' {
            let end = string_end(payload, at + 1);
            search(rules, payload, at + 1..end, found);
            at = end + 1;
        } else if is_bare(byte) {
            let end = at + payload[at..].iter().take_while(|byte| is_bare(**byte)).count();
            let before = found.len();
            search(rules, payload, at..end, found);
            if found.len() > before {
                found.truncate(before + 1);
                (found[before].range, found[before].bare) = (at..end, true);
            }
            at = end;
        } else {
            at += 1;
        }
    }
}

/// Whether a byte outside of strings is part of a number, `true`, `false` or `null`.
pub(super) fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)
}

/// Where the string ends whose content begins at `at`: at its closing quote.
fn string_end(payload: &[u8], mut at: usize) -> usize {
    while at < payload.len() && payload[at] != b'"' {
        at += if payload[at] == b'\\' { 2 } else { 1 };
    }
    at.min(payload.len())
}

/// Searches one text, which is written at `range`.
fn search(rules: &[(u16, &Compiled)], payload: &[u8], range: Range<usize>, found: &mut Vec<Found>) {
    let meant = text::decode(payload, range.clone(), usize::MAX);
    let plain = matches!(meant, Cow::Borrowed(_));
    for (rule, compiled) in rules {
        let matches = compiled.pattern.captures_iter(&meant).filter_map(|captures| {
            let part = captures.get(1).or_else(|| captures.get(0))?;
            (!part.is_empty() && !in_marker(&meant, part.range()))
                .then(|| whole_characters(&meant, part.range()))
        });
        // Where a match is written is found by going along the units, once for each rule.
        let mut units = units(&payload[..range.end], range.start).enumerate();
        for part in matches {
            let written = if plain {
                range.start + part.start..range.start + part.end
            } else {
                let mut inside = units.by_ref().skip_while(|(number, _)| *number < part.start);
                let Some((first, (start, unit))) = inside.next() else { break };
                let last = (first + 1 < part.end)
                    .then(|| inside.find(|(number, _)| number + 1 == part.end));
                let (last, unit) = last.flatten().map_or((start, unit), |(_, last)| last);
                start..last + unit.len
            };
            found.push(Found { range: written, rule: *rule, rank: Rank::User, bare: false });
        }
    }
}

/// Whether `range` touches the marker of an earlier replacement, which stays as it is.
fn in_marker(text: &[u8], range: Range<usize>) -> bool {
    const MARK: &[u8] = b"[REDACTED:";
    let from = range.start.saturating_sub(MARK.len() + RULE_NAME_MAX_BYTES);
    let near = &text[from..range.end];
    let last = near.windows(MARK.len()).rposition(|part| part == MARK);
    last.is_some_and(|at| {
        let marker = &text[from + at..];
        let end =
            marker.iter().position(|byte| *byte == b']').map_or(text.len(), |end| from + at + end);
        end >= range.start
    })
}

/// `range`, with the rest of the characters that it cuts.
fn whole_characters(text: &[u8], range: Range<usize>) -> Range<usize> {
    let inside = |at: usize| text.get(at).is_some_and(|byte| (0x80..0xc0).contains(byte));
    let (mut start, mut end) = (range.start, range.end);
    while start > 0 && inside(start) && range.start - start < 3 {
        start -= 1;
    }
    while inside(end) && end - range.end < 3 {
        end += 1;
    }
    start..end
}
