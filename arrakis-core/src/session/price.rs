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
        let model = self.models.get(family(model))?;
        let long = model.long_prompt.as_ref();
        let long = long.filter(|long| usage.prompt_tokens() > long.above_tokens);
        let prices = long.map_or(&model.prices, |long| &long.prices);
        let written_5m = usage.cache_creation_tokens.saturating_sub(usage.cache_creation_1h_tokens);
        let nanos = [
            (usage.input_tokens, prices.input * 1e3),
            (usage.output_tokens, prices.output * 1e3),
            (usage.cache_read_tokens, prices.cache_read * 1e3),
            (written_5m, prices.cache_write_5m * 1e3),
            (usage.cache_creation_1h_tokens, prices.cache_write_1h * 1e3),
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
    fn the_table_says_where_it_is_from() {
        assert_eq!(table().date.len(), 10);
        assert!(table().source.starts_with("https://"));
        assert!(table().models.len() > 20);
    }
}
