//! Takes secrets out of payloads before they are written anywhere.
//!
//! A payload is JSON that quotes other text: commands, files, and JSON again. A secret is replaced by
//! `[REDACTED:<rule>]` inside whatever quotes it stands in, so valid JSON stays valid JSON. Bytes that
//! are no JSON are searched all the same.
//!
//! One pass over the payload looks for the literals of all rules; only a rule whose literal was found
//! has its regular expression compiled and run. Most payloads hold none, and cost that pass.

mod removed;
mod rules;

pub use removed::{Redacted, Removed};

use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use regex::bytes::Regex;
use serde::Deserialize;

use rules::DEFAULT_RULES;

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
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserRule {
    /// What stands in the replacement.
    pub name: String,
    /// A regular expression over bytes. Its first group is replaced, or all of it where it has none.
    pub pattern: String,
    /// The rule only runs where one of these stands, in upper or lower case; always where there are
    /// none.
    #[serde(default)]
    pub literals: Vec<String>,
}

/// A user's rule that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the redaction rule {name:?} does not work and is left out: {problem}")]
pub struct RuleProblem {
    /// The rule's name.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Finds secrets in text and replaces them.
#[derive(Debug)]
pub struct Redactor {
    rules: Vec<Rule>,
    /// Finds the literals of all rules at once; pattern `n` belongs to the rule `owners[n]`.
    literals: Option<AhoCorasick>,
    owners: Vec<usize>,
}

#[derive(Debug)]
struct Rule {
    name: Cow<'static, str>,
    pattern: Cow<'static, str>,
    always: bool,
    compiled: OnceLock<Option<Regex>>,
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
        let mut redactor = Self { rules: Vec::new(), literals: None, owners: Vec::new() };
        if !config.enabled {
            return (redactor, problems);
        }
        let mut literals: Vec<Cow<'static, str>> = Vec::new();
        for rule in DEFAULT_RULES {
            redactor.owners.extend(rule.literals.iter().map(|_| redactor.rules.len()));
            literals.extend(rule.literals.iter().map(|literal| Cow::Borrowed(*literal)));
            redactor.rules.push(Rule::new(rule.name.into(), rule.pattern.into(), false));
        }
        for UserRule { name, pattern, literals: wanted } in config.rules {
            // A user's rule is compiled at once only to learn whether it can be: there are few.
            if let Err(error) = Regex::new(&pattern) {
                problems.push(RuleProblem { name, problem: error.to_string() });
                continue;
            }
            redactor.owners.extend(wanted.iter().map(|_| redactor.rules.len()));
            redactor.rules.push(Rule::new(name.into(), pattern.into(), wanted.is_empty()));
            literals.extend(wanted.into_iter().map(Cow::Owned));
        }
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(literals.iter().map(|literal| literal.as_bytes()));
        match automaton {
            Ok(automaton) => redactor.literals = Some(automaton),
            // Literals of absurd size; without the prefilter every rule runs, which is only slower.
            Err(_) => redactor.rules.iter_mut().for_each(|rule| rule.always = true),
        }
        (redactor, problems)
    }

    /// `payload` with every secret replaced by `[REDACTED:<rule>]`, and how often each rule matched.
    #[must_use]
    pub fn redact<'a>(&self, payload: &'a [u8]) -> Redacted<'a> {
        let findings = self.find(payload);
        let mut removed = Removed::default();
        if findings.is_empty() {
            return Redacted { text: Cow::Borrowed(payload), removed };
        }
        let mut text = Vec::with_capacity(payload.len());
        let mut copied = 0;
        for Finding { rule, range } in findings {
            text.extend_from_slice(&payload[copied..range.start]);
            text.extend_from_slice(b"[REDACTED:");
            text.extend_from_slice(rule.as_bytes());
            text.push(b']');
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
        let mut wanted: Vec<bool> = self.rules.iter().map(|rule| rule.always).collect();
        if let Some(literals) = &self.literals {
            for found in literals.find_overlapping_iter(payload) {
                wanted[self.owners[found.pattern().as_usize()]] = true;
            }
        }
        let mut findings: Vec<Finding<'_>> = Vec::new();
        for (rule, _) in self.rules.iter().zip(wanted).filter(|(_, wanted)| *wanted) {
            findings.extend(rule.find(payload));
        }
        // The sort is stable: of two that begin together the earlier rule's comes first, and wins.
        findings.sort_by_key(|finding| finding.range.start);
        let mut apart: Vec<Finding<'_>> = Vec::with_capacity(findings.len());
        for finding in findings {
            match apart.last_mut() {
                Some(last) if finding.range.start < last.range.end => {
                    last.range.end = last.range.end.max(finding.range.end);
                }
                _ => apart.push(finding),
            }
        }
        apart
    }
}

/// A secret in a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding<'a> {
    /// The name of the rule that found it.
    pub rule: &'a str,
    /// Where it is in the payload as it is written, in bytes.
    pub range: Range<usize>,
}

impl Rule {
    fn new(name: Cow<'static, str>, pattern: Cow<'static, str>, always: bool) -> Self {
        Self { name, pattern, always, compiled: OnceLock::new() }
    }

    fn find<'a>(&'a self, text: &[u8]) -> Vec<Finding<'a>> {
        let regex = self.compiled.get_or_init(|| Regex::new(&self.pattern).ok()).as_ref();
        let found = regex.into_iter().flat_map(|regex| regex.captures_iter(text));
        let secrets = found.filter_map(|captures| captures.get(1).or_else(|| captures.get(0)));
        secrets.map(|secret| Finding { rule: &self.name, range: secret.range() }).collect()
    }
}
