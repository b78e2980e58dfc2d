//! Tokens and money.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Stands for the model where a message names none.
pub const UNKNOWN_MODEL: &str = "unknown";

/// What a message of the API took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    /// Tokens of input that no cache was involved in.
    pub input_tokens: u64,
    /// Tokens of output, thinking included.
    pub output_tokens: u64,
    /// Tokens of input that were read from the cache.
    pub cache_read_tokens: u64,
    /// Tokens of input that were written to the cache.
    pub cache_creation_tokens: u64,
    /// What of these is kept for an hour; the rest is kept for five minutes.
    pub cache_creation_1h_tokens: u64,
    /// What of the output was thinking.
    pub thinking_tokens: u64,
    /// Searches of the web that the API made.
    pub web_searches: u64,
}

impl Usage {
    /// Field by field the greater: repeated lines of one message count once, and a line that was written
    /// before the message was complete counts less than one after it.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        self.zip(other, u64::max)
    }

    /// Tokens of input, whatever part the cache had in them.
    #[must_use]
    pub fn prompt_tokens(&self) -> u64 {
        self.input_tokens
            .saturating_add(self.cache_read_tokens)
            .saturating_add(self.cache_creation_tokens)
    }

    fn zip(self, other: Self, with: fn(u64, u64) -> u64) -> Self {
        Self {
            input_tokens: with(self.input_tokens, other.input_tokens),
            output_tokens: with(self.output_tokens, other.output_tokens),
            cache_read_tokens: with(self.cache_read_tokens, other.cache_read_tokens),
            cache_creation_tokens: with(self.cache_creation_tokens, other.cache_creation_tokens),
            cache_creation_1h_tokens: with(
                self.cache_creation_1h_tokens,
                other.cache_creation_1h_tokens,
            ),
            thinking_tokens: with(self.thinking_tokens, other.thinking_tokens),
            web_searches: with(self.web_searches, other.web_searches),
        }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        *self = self.zip(other, u64::saturating_add);
    }
}

/// Money, in billionths of a US dollar, so that sums are exact. As JSON it is a number of dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Usd(u64);

impl Usd {
    /// This many billionths of a dollar.
    #[must_use]
    pub fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// This many dollars, to the nearest billionth; none for what is no amount of money.
    #[must_use]
    pub fn from_dollars(dollars: f64) -> Option<Self> {
        /// What a JSON number holds exactly: nine million dollars.
        const MAX_NANOS: f64 = 9_007_199_254_740_992.0;
        let nanos = (dollars * 1e9).round();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range is checked before"
        )]
        (0.0..=MAX_NANOS).contains(&nanos).then_some(Self(nanos as u64))
    }

    /// The amount in billionths of a dollar.
    #[must_use]
    pub fn as_nanos(self) -> u64 {
        self.0
    }

    /// The amount in dollars.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a double has more digits than anybody pays")]
    pub fn as_dollars(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl Add for Usd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// `$1.23`; `$0.0042` below ten cents.
impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.0 < 100_000_000 && self.0 > 0 { 4 } else { 2 };
        write!(f, "${:.digits$}", self.as_dollars())
    }
}

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.as_dollars())
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let dollars = f64::deserialize(deserializer)?;
        Self::from_dollars(dollars).ok_or_else(|| serde::de::Error::custom("no amount of money"))
    }
}

/// What the client says that a session has cost so far (the `cost-state` lines of its transcript). It counts
/// on through the whole session, so of two the later in time is the one that counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientCost {
    /// How long the session has lasted, in milliseconds. First, because it orders two of these.
    pub duration_ms: u64,
    /// All of it.
    pub total: Usd,
    /// How long the API took, in milliseconds.
    pub api_duration_ms: u64,
    /// How long tools took, in milliseconds.
    pub tool_duration_ms: u64,
    /// Lines that were added to files.
    pub lines_added: u64,
    /// Lines that were removed from files.
    pub lines_removed: u64,
    /// Whether a model was used whose price the client does not know.
    pub has_unknown_model_cost: bool,
    /// What each model took and cost.
    pub models: BTreeMap<String, ClientModelCost>,
}

/// What the client says of one model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientModelCost {
    /// How much.
    pub usage: Usage,
    /// What it cost.
    pub cost: Usd,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_exact_and_reads_back() {
        let usd = Usd::from_dollars(0.030_000_000_000_000_002).unwrap();
        assert_eq!(usd.as_nanos(), 30_000_000);
        assert_eq!(serde_json::to_string(&usd).unwrap(), "0.03");
        for nanos in [0, 1, 999_999_999, 123_456_789_012_345] {
            let text = serde_json::to_string(&Usd(nanos)).unwrap();
            assert_eq!(serde_json::from_str::<Usd>(&text).unwrap(), Usd(nanos), "{text}");
        }
        for dollars in [-0.01, f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(Usd::from_dollars(dollars), None);
        }
        let shown = [0, 4_200_000, 99_990_000, 100_000_000, 12_345_000_000].map(Usd);
        assert_eq!(
            shown.map(|usd| usd.to_string()),
            ["$0.00", "$0.0042", "$0.1000", "$0.10", "$12.35"]
        );
    }

    #[test]
    fn usage_takes_the_greater_of_two_and_adds_up() {
        let usage = |input, output| Usage {
            input_tokens: input,
            output_tokens: output,
            ..Usage::default()
        };
        assert_eq!(usage(5, 1).max(usage(4, 42)), usage(5, 42));
        let mut sum = usage(u64::MAX, 1);
        sum += usage(1, 1);
        assert_eq!(sum, usage(u64::MAX, 2));
    }
}
