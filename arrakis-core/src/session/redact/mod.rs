//! Takes secrets out of payloads before they are written anywhere.
//!
//! A payload is JSON that quotes other text: commands, files, and JSON again. It is read as what it means
//! (`text.rs`), so a secret is found whatever stands before it and however often it was quoted. Each is
//! replaced by `[REDACTED:<rule>]` inside whatever quotes it stands in, and no escape is cut: JSON stays
//! JSON. Bytes that are no JSON are searched all the same.
//!
//! One pass over the payload looks for the keywords of all rules (`keywords.rs`). Where one stands, its rules
//! look at what is around it (`rules/`), in time that depends on what they match. Most payloads hold few
//! keywords, and cost that pass. No rule is a regular expression but those of the user (`user.rs`).

mod assignment;
mod block;
mod command;
mod envelope;
mod http;
mod inner;
mod keywords;
mod named;
mod payload;
mod rules;
mod scan;
mod shape;
mod text;
mod user;
mod value;
mod words;

pub use payload::{Redacted, RedactedPayload};

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;

use crate::base::envelope::Removed;
use keywords::Keywords;
use rules::Rule;
use scan::{Found, Scan};
use user::Compiled;

/// What to redact.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedactConfig {
    /// Whether anything is redacted at all; the default rules are on unless this is off.
    pub enabled: bool,
    /// Rules beside the default ones.
    pub rules: Vec<UserRule>,
}

impl Default for RedactConfig {
    fn default() -> Self {
        Self { enabled: true, rules: Vec::new() }
    }
}

/// A rule of the user's own.
///
/// It sees the text as it is meant: each string of the payload with its escapes resolved, those of JSON
/// inside JSON too. `^` is the beginning of a string, `(?m)^` that of a line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserRule {
    /// What stands in the replacement.
    pub name: String,
    /// A regular expression over bytes, without Unicode classes: `\d`, `\w`, `\s`, `\b` and `(?i)` know ASCII.
    /// Its first group is replaced, or all of it where it has none. It must not match an empty text.
    pub pattern: String,
    /// The rule only runs where one of these stands, in upper or lower case; always where there are
    /// none.
    #[serde(default)]
    pub literals: Vec<String>,
}

/// A user's rule that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the redaction rule {name:?} cannot be used: {problem}")]
pub struct RuleProblem {
    /// The rule's name.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
}

/// A secret in a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding<'a> {
    /// The name of the rule that found it.
    pub rule: &'a str,
    /// Where it is in the payload as it is written, in bytes.
    pub range: Range<usize>,
}

/// A default rule, as documentation and tests see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultRule {
    /// What stands in the replacement. Several rules may have one name.
    pub name: &'static str,
    /// The rule is tried only where one of these stands.
    pub keywords: &'static [&'static str],
    /// Texts in which the rule finds what stands between bars (`|`). A broken bar (`¦`) in them is no part of
    /// the text; it keeps the scanners of code hosts quiet.
    pub secrets: [&'static str; 2],
    /// Texts in which no rule finds anything.
    pub harmless: [&'static str; 2],
}

/// The default rules.
pub fn default_rules() -> impl Iterator<Item = DefaultRule> {
    rules::all().map(|rule| {
        let Rule { name, keywords, secrets, harmless, .. } = *rule;
        DefaultRule { name, keywords, secrets, harmless }
    })
}

/// Finds secrets in text and replaces them.
#[derive(Debug, Clone)]
pub struct Redactor {
    /// The default rules; empty where nothing is redacted.
    rules: Vec<&'static Rule>,
    /// The user's rules; their numbers follow those of the default ones.
    own: Vec<Own>,
    keywords: Keywords,
}

#[derive(Debug, Clone)]
struct Own {
    compiled: Compiled,
    /// It runs whether or not a literal was found.
    always: bool,
}

impl Default for Redactor {
    /// The default rules.
    fn default() -> Self {
        Self::new(RedactConfig::default()).0
    }
}

impl Redactor {
    /// A redactor, and what of the configuration cannot be used.
    #[must_use]
    pub fn new(config: RedactConfig) -> (Self, Vec<RuleProblem>) {
        let mut problems = Vec::new();
        let mut redactor = Self { rules: Vec::new(), own: Vec::new(), keywords: Keywords::new() };
        if !config.enabled {
            return (redactor, problems);
        }
        redactor.rules = rules::all().collect();
        for (number, rule) in (0..).zip(&redactor.rules) {
            for keyword in rule.keywords {
                let added = redactor.keywords.add(
                    Cow::Borrowed(keyword.as_bytes()),
                    rule.is_exact(),
                    number,
                );
                debug_assert!(added, "{keyword} is too short");
            }
        }
        for rule in config.rules {
            let compiled = match Compiled::new(&rule) {
                Ok(compiled) => compiled,
                Err(problem) => {
                    problems.push(problem);
                    continue;
                }
            };
            let Ok(number) = u16::try_from(redactor.rules.len() + redactor.own.len()) else {
                let problem = "there are too many rules; join some of them".to_owned();
                problems.push(RuleProblem { name: rule.name, problem });
                continue;
            };
            let mut always = rule.literals.is_empty();
            for literal in rule.literals {
                // What JSON may write in another way is not looked for as it is.
                let plain = literal
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && !b"\"\\/<>&'+".contains(&byte));
                always |=
                    !plain || !redactor.keywords.add(literal.into_bytes().into(), false, number);
            }
            redactor.own.push(Own { compiled, always });
        }
        (redactor, problems)
    }

    /// Whether it has rules of the user beside the default ones.
    #[must_use]
    pub fn has_user_rules(&self) -> bool {
        !self.own.is_empty()
    }

    /// `payload` with every secret replaced by `[REDACTED:<rule>]`, and how often each rule matched.
    #[must_use]
    pub fn redact<'a>(&self, payload: &'a [u8]) -> Redacted<'a> {
        let mut removed = Removed::default();
        let found = self.search(payload);
        if found.is_empty() {
            return Redacted { text: Cow::Borrowed(payload), removed };
        }
        let mut text = Vec::with_capacity(payload.len());
        let mut copied = 0;
        for Found { rule, range, bare, .. } in found {
            let rule = self.name(rule);
            text.extend_from_slice(&payload[copied..range.start]);
            text.extend_from_slice(if bare { b"\"[REDACTED:" } else { b"[REDACTED:" });
            text.extend_from_slice(rule.as_bytes());
            text.extend_from_slice(if bare { b"]\"" } else { b"]" });
            copied = range.end;
            removed.count(rule, 1);
        }
        text.extend_from_slice(&payload[copied..]);
        Redacted { text: Cow::Owned(text), removed }
    }

    /// What [`redact`](Self::redact) would replace in `payload`, in the order of the text. No two
    /// findings overlap.
    #[must_use]
    pub fn find(&self, payload: &[u8]) -> Vec<Finding<'_>> {
        let found = self.search(payload).into_iter();
        found.map(|found| Finding { rule: self.name(found.rule), range: found.range }).collect()
    }

    fn search(&self, payload: &[u8]) -> Vec<Found> {
        let mut scan = Scan::new(payload);
        let mut wanted: Vec<bool> = self.own.iter().map(|own| own.always).collect();
        self.keywords.each(payload, |number, start, end| {
            match self.rules.get(usize::from(number)) {
                Some(rule) => rule.apply(&mut scan, number, start..end),
                None => wanted[usize::from(number) - self.rules.len()] = true,
            }
        });
        let numbers = (0..).skip(self.rules.len());
        let own = numbers.zip(&self.own).zip(wanted).filter(|(_, wanted)| *wanted);
        let own: Vec<(u16, &Compiled)> =
            own.map(|((number, own), _)| (number, &own.compiled)).collect();
        user::find(&own, payload, &mut scan.found);
        scan.finish()
    }

    fn name(&self, number: u16) -> &str {
        let number = usize::from(number);
        match self.rules.get(number) {
            Some(rule) => rule.name,
            None => {
                self.own.get(number - self.rules.len()).map_or("rule", |own| &own.compiled.name)
            }
        }
    }
}
