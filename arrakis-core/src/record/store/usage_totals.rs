//! What messages took, read from [`Rollups`] and added up.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Rollups, StoreError, USAGE_BUCKET, UsageGroups, UsageSum, UsageSums};
use crate::base::clock::Timestamp;
use crate::session::usage::{Usage, Usd};

/// Commits that are added up at a time.
const BATCH: usize = 100;

/// How many batches are added up before the sums are read: some seconds' work where no server runs, and none where one does.
const MAX_BATCHES: usize = 50;

/// Adds up what was stored lately; returns whether that is all.
///
/// # Errors
///
/// As [`Rollups::fold`].
pub async fn fold_all(rollups: &dyn Rollups) -> Result<bool, StoreError> {
    for _ in 0..MAX_BATCHES {
        if rollups.fold(BATCH).await? < BATCH {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Sums of usage of some time. A time that has too many of them is read in parts, so a group may come more than once.
///
/// # Errors
///
/// As [`Rollups::usage_sums`].
pub async fn read_usage(
    rollups: &dyn Rollups,
    workspace: &str,
    (from, to): (Timestamp, Timestamp),
    by: UsageGroups,
) -> Result<Vec<UsageSum>, StoreError> {
    let mut sums = Vec::new();
    let mut left = vec![(from, to)];
    while let Some((from, to)) = left.pop() {
        let query = UsageSums { workspace: workspace.to_owned(), from, to, by };
        match rollups.usage_sums(query).await {
            Ok(part) => sums.extend(part),
            Err(error @ StoreError::Data { .. }) => match middle(from, to) {
                Some(middle) => left.extend([(middle, to), (from, middle)]),
                None => return Err(error),
            },
            Err(error) => return Err(error),
        }
    }
    Ok(sums)
}

/// A beginning of a bucket between two moments; none where there is none.
fn middle(from: Timestamp, to: Timestamp) -> Option<Timestamp> {
    let bucket = i64::try_from(USAGE_BUCKET.as_micros()).unwrap_or(i64::MAX);
    let half = from.as_micros() / 2 + to.as_micros() / 2;
    let middle = Timestamp::from_micros(half.div_euclid(bucket) * bucket);
    (from < middle && middle < to).then_some(middle)
}

/// What was used, and what that costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageTotal {
    /// How many messages of the API.
    pub messages: u64,
    /// What they took.
    #[serde(flatten)]
    pub usage: Usage,
    /// All tokens, those of the cache included.
    pub total_tokens: u64,
    /// What that costs whose price is known.
    pub cost: Usd,
    /// Whether there is something whose price is not known.
    pub has_unknown_price: bool,
    /// Whether the cost depends on a price that nobody has read on a page of the provider.
    pub has_unverified_price: bool,
}

impl UsageTotal {
    /// Adds a sum.
    pub fn add(&mut self, sum: &UsageSum) {
        let tokens = sum.usage.prompt_tokens().saturating_add(sum.usage.output_tokens);
        self.messages += sum.messages;
        self.usage += sum.usage;
        self.total_tokens = self.total_tokens.saturating_add(tokens);
        self.has_unverified_price |= tokens > 0 && sum.has_unverified_price();
        match sum.cost() {
            Some(cost) => self.cost = self.cost + cost,
            None => self.has_unknown_price |= tokens > 0,
        }
    }

    /// Adds what is added up already.
    pub fn merge(&mut self, other: &Self) {
        self.messages += other.messages;
        self.usage += other.usage;
        self.total_tokens = self.total_tokens.saturating_add(other.total_tokens);
        self.cost = self.cost + other.cost;
        self.has_unknown_price |= other.has_unknown_price;
        self.has_unverified_price |= other.has_unverified_price;
    }

    /// The cost to read: `$1.23`, and `>$1.23` where that is not all.
    #[must_use]
    pub fn cost_text(&self) -> String {
        format!("{}{}", if self.has_unknown_price { ">" } else { "" }, self.cost)
    }
}

/// Sums with and without subagents, and by model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct UsageTotals {
    /// With subagents.
    pub total: UsageTotal,
    /// Without subagents.
    pub own: UsageTotal,
    /// By model.
    pub models: BTreeMap<String, UsageTotal>,
}

impl UsageTotals {
    /// Adds a sum.
    pub fn add(&mut self, sum: &UsageSum) {
        self.total.add(sum);
        if sum.is_subagent != Some(true) {
            self.own.add(sum);
        }
        self.models.entry(sum.model.clone()).or_default().add(sum);
    }

    /// Adds what is added up already.
    pub fn merge(&mut self, other: &Self) {
        self.total.merge(&other.total);
        self.own.merge(&other.own);
        for (model, part) in &other.models {
            self.models.entry(model.clone()).or_default().merge(part);
        }
    }
}
