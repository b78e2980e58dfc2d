//! What redaction took out: which rules matched, and how often.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How many secrets each rule replaced. In JSON it is an object: `{"github-token":2}`.
///
/// It never holds any of the replaced text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Removed(BTreeMap<String, u64>);

impl Removed {
    /// Whether nothing was replaced.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many secrets were replaced, by all rules together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Rules and their counts, in the order of the rules' names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(rule, count)| (rule.as_str(), *count))
    }

    /// Counts `count` more replacements by `rule`.
    pub fn count(&mut self, rule: &str, count: u64) {
        if count == 0 {
            return;
        }
        match self.0.get_mut(rule) {
            Some(sum) => *sum = sum.saturating_add(count),
            None => _ = self.0.insert(rule.to_owned(), count),
        }
    }

    /// Adds what `other` counts.
    pub fn add(&mut self, other: &Self) {
        for (rule, count) in other.iter() {
            self.count(rule, count);
        }
    }
}
