//! What tokens cost: the table of `prices.json`, which is part of the program.
//!
//! The table has a date; prices that changed before it are not known. A message is priced by itself,
//! because some models cost more from a length of the prompt on.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;

use crate::session::usage::{Usage, Usd};

/// Prices by model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct PriceTable {
    /// The day on which the prices were looked up.
    pub date: String,
    /// Where they were looked up.
    pub source: String,
    /// US dollars for one search of the web.
    web_search: f64,
    models: BTreeMap<String, ModelPrices>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct ModelPrices {
    #[serde(flatten)]
    prices: Prices,
    long_prompt: Option<LongPrompt>,
}

/// What every token of a message costs whose prompt has more tokens than this.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct LongPrompt {
    above_tokens: u64,
    #[serde(flatten)]
    prices: Prices,
}

/// US dollars for a million tokens of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
struct Prices {
    input: f64,
    output: f64,
    cache_write_5m: f64,
    cache_write_1h: f64,
    cache_read: f64,
}

/// Lengths of prompts, in tokens, from which on models may have other prices: each `above_tokens` of the table is one.
const PROMPT_LENGTHS: [u64; 2] = [100_000, 200_000];

/// Which of the lengths a prompt exceeds from which on prices may change. Messages of one model whose prompts have one
/// size have one price.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PromptSize(u8);

impl PromptSize {
    /// The size of the prompt of one message.
    #[must_use]
    pub fn of(usage: &Usage) -> Self {
        let tokens = usage.prompt_tokens();
        Self(PROMPT_LENGTHS.iter().map(|length| u8::from(tokens > *length)).sum())
    }

    /// The size of this number, as it is stored: how many of the lengths the prompt exceeds.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub fn as_number(self) -> u8 {
        self.0
    }

    /// Whether prompts of this size have more tokens than `tokens`, which is one of the lengths.
    fn is_above(self, tokens: u64) -> bool {
        PROMPT_LENGTHS.iter().take(self.0.into()).any(|length| *length >= tokens)
    }
}

/// The table.
#[must_use]
pub fn table() -> &'static PriceTable {
    static TABLE: OnceLock<PriceTable> = OnceLock::new();
    TABLE.get_or_init(|| {
        #[allow(
            clippy::expect_used,
            reason = "the file is part of the program, and a test reads it"
        )]
        serde_json::from_str(include_str!("prices.json")).expect("prices.json is a price table")
    })
}

impl PriceTable {
    /// What one message of `model` costs that took `usage`; none where the model's price is not known.
    #[must_use]
    pub fn cost(&self, model: &str, usage: &Usage) -> Option<Usd> {
        self.price(model, usage, |above| usage.prompt_tokens() > above)
    }

    /// What messages of `model` cost that took `usage` together, where the prompt of each was of this size; none where
    /// the model's price is not known. It is the sum of their costs.
    #[must_use]
    pub fn cost_of_sum(&self, model: &str, size: PromptSize, usage: &Usage) -> Option<Usd> {
        self.price(model, usage, |above| size.is_above(above))
    }

    fn price(&self, model: &str, usage: &Usage, is_above: impl Fn(u64) -> bool) -> Option<Usd> {
        let model = self.models.get(family(model))?;
        let long = model.long_prompt.as_ref().filter(|long| is_above(long.above_tokens));
        let prices = long.map_or(&model.prices, |long| &long.prices);
        // It is a part of what was written, so that sums cost what the messages do.
        let written_1h = usage.cache_creation_1h_tokens.min(usage.cache_creation_tokens);
        let written_5m = usage.cache_creation_tokens - written_1h;
        let nanos = [
            (usage.input_tokens, prices.input * 1e3),
            (usage.output_tokens, prices.output * 1e3),
            (usage.cache_read_tokens, prices.cache_read * 1e3),
            (written_5m, prices.cache_write_5m * 1e3),
            (written_1h, prices.cache_write_1h * 1e3),
            (usage.web_searches, self.web_search * 1e9),
        ]
        .map(|(count, nanos_each)| count.saturating_mul(whole(nanos_each)));
        Some(Usd::from_nanos(nanos.into_iter().fold(0, u64::saturating_add)))
    }
}

/// A price in billionths of a dollar: a whole number, as prices have at most three digits after the point.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "prices are small and not negative"
)]
fn whole(nanos: f64) -> u64 {
    nanos.round() as u64
}

/// The model without what does not change its price: a provider's prefix and suffix (`us.anthropic.`,
/// `@20251101`, `-v1:0`), the day of its version, the size of its context (`[1m]`).
fn family(model: &str) -> &str {
    let model = model.rfind("claude-").map_or(model, |start| &model[start..]);
    let mut name = model.split(['[', '@', ':']).next().unwrap_or_default();
    loop {
        let Some((rest, last)) = name.rsplit_once('-') else { return name };
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let is_date = last.len() == 8 && is_number(last);
        let is_version = last.strip_prefix('v').is_some_and(is_number);
        if !is_date && !is_version && !matches!(last, "latest" | "0") {
            return name;
        }
        name = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_model_have_one_price() {
        for (name, expected) in [
            ("claude-opus-5-5", "claude-opus-5-5"),
            ("claude-opus-5-5[1m]", "claude-opus-5-5"),
            ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
            ("claude-opus-4-0", "claude-opus-4"),
            ("claude-opus-4-20250514", "claude-opus-4"),
            ("us.anthropic.claude-opus-4-5-20251101-v1:0", "claude-opus-4-5"),
            ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
            ("anthropic/claude-3-7-sonnet-latest", "claude-3-7-sonnet"),
            ("gpt-7", "gpt-7"),
            ("", ""),
        ] {
            assert_eq!(family(name), expected, "{name}");
        }
    }

    #[test]
    fn costs_are_those_of_the_price_list() {
        let usage = Usage {
            input_tokens: 1000,
            output_tokens: 42,
            cache_read_tokens: 300,
            cache_creation_tokens: 20,
            ..Usage::default()
        };
        // What the client itself says of such a message.
        assert_eq!(table().cost("claude-opus-5-5", &usage), Usd::from_dollars(0.005));
        let hour = Usage { cache_creation_1h_tokens: 20, ..usage };
        assert_eq!(table().cost("claude-opus-5-5", &hour), Usd::from_dollars(0.00506));
        let searched = Usage { web_searches: 2, ..usage };
        assert_eq!(table().cost("claude-opus-5-5", &searched), Usd::from_dollars(0.025));
        assert_eq!(table().cost("claude-opus-99", &usage), None);
        assert_eq!(table().cost("<synthetic>", &usage), None);
    }

    #[test]
    fn a_long_prompt_has_its_own_prices() {
        let usage = |input_tokens| Usage { input_tokens, ..Usage::default() };
        let cost = |tokens| table().cost("claude-haiku-5-5", &usage(tokens));
        assert_eq!(cost(100_000), Usd::from_dollars(0.01));
        assert_eq!(cost(100_001), Usd::from_dollars(0.050_000_5));
    }

    #[test]
    fn a_sum_costs_what_its_messages_do() {
        let usage = |input_tokens, cache_creation_tokens, cache_creation_1h_tokens| Usage {
            input_tokens,
            cache_creation_tokens,
            cache_creation_1h_tokens,
            output_tokens: 7,
            web_searches: 1,
            ..Usage::default()
        };
        let messages = [
            usage(100_000, 0, 0),
            usage(100_001, 0, 0),
            usage(0, 100_001, 3),
            usage(5, 3, 1),
            usage(300_000, 0, 0),
        ];
        for model in ["claude-haiku-5-5", "claude-opus-5-5"] {
            let mut sums = BTreeMap::<PromptSize, Usage>::new();
            for one in &messages {
                *sums.entry(PromptSize::of(one)).or_default() += *one;
            }
            assert_eq!(sums.len(), 3);
            let add = |sum, cost: Option<Usd>| sum + cost.unwrap();
            let alone = messages.iter().map(|one| table().cost(model, one));
            let summed = sums.iter().map(|(size, sum)| table().cost_of_sum(model, *size, sum));
            assert_eq!(alone.fold(Usd::default(), add), summed.fold(Usd::default(), add));
        }
    }

    #[test]
    fn each_length_at_which_a_price_changes_is_known() {
        for long in table().models.values().filter_map(|model| model.long_prompt.as_ref()) {
            assert!(PROMPT_LENGTHS.contains(&long.above_tokens), "{long:?}");
        }
    }

    #[test]
    fn the_table_says_where_it_is_from() {
        assert_eq!(table().date.len(), 10);
        assert!(table().source.starts_with("https://"));
        assert!(table().models.len() > 20);
    }
}
