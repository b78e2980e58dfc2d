//! What tokens cost: the table of `prices.json`, which is part of the program.
//!
//! A model has a row for each time in which its price did not change: it holds from the day `from` (UTC), or from the
//! model's first day, and says where and on which day (`checked`) it was looked up, and what of it nobody has read on a page
//! of the provider (`unverified`). A message is priced by itself and by
//! its time, because some models cost more from a length of the prompt on, and some did for a time only.
//!
//! What changes the price of a whole message is part of its model's name ([`priced_name`]): `-fast` for fast mode and
//! `-us` for inference in the US alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use serde::{Deserialize, Deserializer};

use crate::base::clock::Timestamp;
use crate::session::usage::{Usage, Usd};

/// Prices by model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct PriceTable {
    /// Where the prices were looked up, by the names that rows use.
    sources: BTreeMap<String, String>,
    /// US dollars for one search of the web.
    web_search: f64,
    models: BTreeMap<String, Vec<Row>>,
}

/// What a model costs for a time.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Row {
    /// When it begins to hold; without one, with the model.
    #[serde(default, deserialize_with = "day")]
    from: Timestamp,
    /// The day on which this was looked up.
    checked: String,
    /// Where, by its name in the table.
    source: String,
    /// Where the factor of fast mode was looked up.
    fast_source: Option<String>,
    #[serde(flatten)]
    prices: Prices,
    long_prompt: Option<LongPrompt>,
    /// How many times the price is taken in fast mode, whatever the length of the prompt.
    fast: Option<f64>,
    /// How many times the price is taken for inference in the US alone.
    us: Option<f64>,
    /// What of the row was not read on a page of the provider.
    #[serde(default)]
    unverified: Vec<Unverified>,
}

/// A part of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Unverified {
    Fast,
    Us,
    LongPrompt,
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

/// The beginning of a day.
fn day<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let day = String::deserialize(deserializer)?;
    format!("{day}T00:00:00Z").parse().map_err(serde::de::Error::custom)
}

const FAST: &str = "-fast";
const US: &str = "-us";

/// The name by which a model's messages are counted and priced.
#[must_use]
pub fn priced_name(model: &str, is_fast: bool, is_us: bool) -> String {
    let put = |is_so, end| if is_so { end } else { "" };
    [model, put(is_fast, FAST), put(is_us, US)].concat()
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
    /// The latest day on which prices were looked up: what changed after it is not known.
    #[must_use]
    pub fn date(&self) -> &str {
        let rows = self.models.values().flatten();
        rows.map(|row| row.checked.as_str()).max().unwrap_or_default()
    }

    /// Where the price of `model` at a time was looked up, and on which day; none where it is not known.
    #[must_use]
    pub fn source(&self, model: &str, at: Timestamp) -> Option<(&str, &str)> {
        let row = self.row(family(without_factors(model).0), at)?;
        Some((self.sources.get(&row.source)?, &row.checked))
    }

    /// The times in which no price changes, each by its beginning.
    #[must_use]
    pub fn periods(&self) -> BTreeSet<Timestamp> {
        let rows = self.models.values().flatten().map(|row| row.from);
        rows.chain([Timestamp::EPOCH]).collect()
    }

    /// The beginning of the time around `at` in which no price changes.
    #[must_use]
    pub fn period(&self, at: Timestamp) -> Timestamp {
        let rows = self.models.values().flatten().map(|row| row.from);
        rows.filter(|begins| *begins <= at).max().unwrap_or(Timestamp::EPOCH)
    }

    /// What one message of `model` costs that took `usage` at a time; none where the model's price is not known.
    #[must_use]
    pub fn cost(&self, model: &str, at: Timestamp, usage: &Usage) -> Option<Usd> {
        self.price(model, at, usage, |above| usage.prompt_tokens() > above)
    }

    /// What messages of `model` cost that took `usage` together, where the prompt of each was of this size and their
    /// times are of the period of `at`; none where the model's price is not known. It is the sum of their costs.
    #[must_use]
    pub fn cost_of_sum(
        &self,
        model: &str,
        at: Timestamp,
        size: PromptSize,
        usage: &Usage,
    ) -> Option<Usd> {
        self.price(model, at, usage, |above| size.is_above(above))
    }

    /// Whether the price of messages of `model` depends on something that nobody has read on a page of the provider. They are
    /// of the period of `at`, and the prompt of each was of this size.
    #[must_use]
    pub fn is_unverified(&self, model: &str, at: Timestamp, size: PromptSize) -> bool {
        let (model, is_fast, is_us) = without_factors(model);
        self.row(family(model), at).is_some_and(|row| {
            let long = row.long_prompt.as_ref();
            row.unverified.iter().any(|part| match part {
                Unverified::Fast => is_fast,
                Unverified::Us => is_us,
                Unverified::LongPrompt => {
                    !is_fast && long.is_some_and(|long| size.is_above(long.above_tokens))
                }
            })
        })
    }

    fn row(&self, family: &str, at: Timestamp) -> Option<&Row> {
        let rows = self.models.get(family)?;
        rows.iter().rfind(|row| row.from <= at).or(rows.first())
    }

    fn price(
        &self,
        model: &str,
        at: Timestamp,
        usage: &Usage,
        is_above: impl Fn(u64) -> bool,
    ) -> Option<Usd> {
        let (model, is_fast, is_us) = without_factors(model);
        let row = self.row(family(model), at)?;
        let long = row.long_prompt.as_ref().filter(|long| !is_fast && is_above(long.above_tokens));
        let prices = long.map_or(&row.prices, |long| &long.prices);
        let factor = |applies, factor: Option<f64>| if applies { factor } else { Some(1.0) };
        let factor = factor(is_fast, row.fast)? * factor(is_us, row.us)?;
        // It is a part of what was written, so that sums cost what the messages do.
        let written_1h = usage.cache_creation_1h_tokens.min(usage.cache_creation_tokens);
        let written_5m = usage.cache_creation_tokens - written_1h;
        let nanos = [
            (usage.input_tokens, prices.input * factor * 1e3),
            (usage.output_tokens, prices.output * factor * 1e3),
            (usage.cache_read_tokens, prices.cache_read * factor * 1e3),
            (written_5m, prices.cache_write_5m * factor * 1e3),
            (written_1h, prices.cache_write_1h * factor * 1e3),
            (usage.web_searches, self.web_search * 1e9),
        ]
        .map(|(count, nanos_each)| count.saturating_mul(whole(nanos_each)));
        Some(Usd::from_nanos(nanos.into_iter().fold(0, u64::saturating_add)))
    }
}

/// The model's own name, whether it was in fast mode, and whether in the US alone.
fn without_factors(model: &str) -> (&str, bool, bool) {
    let (model, is_us) = model.strip_suffix(US).map_or((model, false), |rest| (rest, true));
    let (model, is_fast) = model.strip_suffix(FAST).map_or((model, false), |rest| (rest, true));
    (model, is_fast, is_us)
}

/// A price in billionths of a dollar: a whole number, as prices have at most three digits after the point; with the factor
/// of a place they may have one more, and are rounded.
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

    fn now() -> Timestamp {
        "2026-11-24T00:00:00Z".parse().unwrap()
    }

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
        assert_eq!(table().cost("claude-opus-5-5", now(), &usage), Usd::from_dollars(0.005));
        let hour = Usage { cache_creation_1h_tokens: 20, ..usage };
        assert_eq!(table().cost("claude-opus-5-5", now(), &hour), Usd::from_dollars(0.00506));
        let searched = Usage { web_searches: 2, ..usage };
        assert_eq!(table().cost("claude-opus-5-5", now(), &searched), Usd::from_dollars(0.025));
        assert_eq!(table().cost("claude-opus-99", now(), &usage), None);
        assert_eq!(table().cost("<synthetic>", now(), &usage), None);
    }

    #[test]
    fn a_long_prompt_has_its_own_prices() {
        let usage = |input_tokens| Usage { input_tokens, ..Usage::default() };
        let cost = |tokens| table().cost("claude-haiku-5-5", now(), &usage(tokens));
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
            let alone = messages.iter().map(|one| table().cost(model, now(), one));
            let of_sum = |(size, sum)| table().cost_of_sum(model, now(), size, sum);
            let summed = sums.iter().map(|(size, sum)| of_sum((*size, sum)));
            assert_eq!(alone.fold(Usd::default(), add), summed.fold(Usd::default(), add));
        }
    }

    #[test]
    fn fast_mode_and_the_us_have_their_price() {
        let usage = Usage { input_tokens: 1_000_000, output_tokens: 100_000, ..Usage::default() };
        let cost = |name: &str| table().cost(name, now(), &usage).map(Usd::as_dollars);
        assert_eq!(cost("claude-opus-4-8"), Some(7.5));
        for (model, is_fast, is_us, expected) in [
            ("claude-opus-4-8", true, false, Some(15.0)),
            ("claude-opus-4-6-20260205", true, false, Some(45.0)),
            ("claude-opus-4-8", false, true, Some(8.25)),
            ("claude-opus-5-5", true, true, Some(13.2)),
            // It has no fast mode whose price is known.
            ("claude-haiku-4-5", true, false, None),
            ("claude-haiku-4-5", false, true, None),
        ] {
            assert_eq!(cost(&priced_name(model, is_fast, is_us)), expected, "{model}");
        }
    }

    #[test]
    fn what_was_not_read_at_the_provider_is_said() {
        let size = |input_tokens| PromptSize::of(&Usage { input_tokens, ..Usage::default() });
        for (model, tokens, expected) in [
            ("claude-opus-5-5", 300_000, false),
            ("claude-opus-5-5-fast", 1, true),
            ("claude-opus-5-5-us", 1, true),
            ("claude-opus-4-8-fast", 1, false),
            ("claude-opus-4-8-fast-us", 1, true),
            ("claude-sonnet-4-5-20250929", 200_000, false),
            ("claude-sonnet-4-5-20250929", 200_001, true),
            ("gpt-7", 1, false),
        ] {
            let found = table().is_unverified(model, now(), size(tokens));
            assert_eq!(found, expected, "{model}, {tokens}");
        }
    }

    #[test]
    fn a_message_has_the_price_of_its_time() {
        let usage = Usage { input_tokens: 1_000_000, output_tokens: 100_000, ..Usage::default() };
        let cost = |model, at: &str| {
            let at = at.parse().unwrap();
            table().cost(model, at, &usage).map(Usd::as_dollars)
        };
        assert_eq!(cost("claude-opus-4-6", "2026-03-12T23:59:59Z"), Some(13.75));
        assert_eq!(cost("claude-opus-4-6-fast", "2026-03-12T23:59:59Z"), Some(45.0));
        assert_eq!(cost("claude-opus-4-6", "2026-03-13T00:00:00Z"), Some(7.5));
        assert_eq!(cost("claude-sonnet-4-6", "2026-03-01T00:00:00Z"), Some(8.25));
        assert_eq!(cost("claude-sonnet-4-6", "2026-04-01T00:00:00Z"), Some(4.5));
        assert_eq!(cost("claude-sonnet-4-5-20250929", "2026-04-01T00:00:00Z"), Some(8.25));

        let periods = table().periods();
        assert!(periods.len() > 1 && periods.first() == Some(&Timestamp::EPOCH));
        for begins in &periods {
            assert_eq!(table().period(*begins), *begins);
        }
    }

    #[test]
    fn each_length_at_which_a_price_changes_is_known() {
        let rows = table().models.values().flatten();
        for long in rows.filter_map(|row| row.long_prompt.as_ref()) {
            assert!(PROMPT_LENGTHS.contains(&long.above_tokens), "{long:?}");
        }
    }

    #[test]
    fn each_row_says_where_and_when_it_was_looked_up() {
        let source = |name: &str| table().sources.get(name).map(String::as_str).unwrap_or_default();
        for (model, rows) in &table().models {
            for row in rows {
                assert_eq!(row.checked.len(), 10, "{model}");
                assert!(source(&row.source).starts_with("https://"), "{model}");
                let fast = row.fast_source.as_deref().map(source);
                assert_eq!(fast.is_some_and(|url| url.starts_with("https://")), row.fast.is_some());
            }
            assert!(rows.is_sorted_by(|a, b| a.from < b.from), "{model}");
        }
        assert!(table().models.len() > 20 && table().date().len() == 10);
        let (url, checked) = table().source("claude-opus-4-8-fast", now()).unwrap();
        assert!(url.starts_with("https://") && checked <= table().date());
    }
}
