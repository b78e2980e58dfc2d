//! How values are spread: counts by bucket, from which quantiles are read.
//!
//! Values below 128 have a bucket each. Above, each power of two is parted into 64 buckets of one width, so a bucket is
//! at most 1/64 as wide as its least value, and its middle is at most 1/128 (0.8 %) away from any value in it.
//!
//! A bucket is found with integers alone, and counts may be taken out again. That is why this is not a crate: a row that
//! changes its state leaves one sketch and joins another, and must be found in the same bucket by any build on any
//! machine. Crates for such sketches only add, and round logarithms.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Counts of values by bucket.
///
/// Its text form is `bucket:count` for each bucket, separated by spaces: the text of two sketches, one behind the other,
/// is the text of their sum.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sketch(BTreeMap<u16, i64>);

/// Bits of a value that its bucket keeps, besides the highest one.
const KEPT_BITS: u32 = 6;

impl Sketch {
    /// The greatest error of a quantile, as a part of the true value.
    pub const MAX_ERROR: f64 = 1.0 / 128.0;

    /// Adds `value` so many times; takes it out where `times` is negative.
    pub fn add(&mut self, value: u64, times: i64) {
        self.add_bucket(bucket_of(value), times);
    }

    /// Adds what another sketch holds.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            self.add_bucket(*bucket, *count);
        }
    }

    fn add_bucket(&mut self, bucket: u16, count: i64) {
        let place = self.0.entry(bucket).or_default();
        *place = place.saturating_add(count);
        if *place == 0 {
            self.0.remove(&bucket);
        }
    }

    /// Whether it holds no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many values it holds.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts().fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// The value that the part `q` (0 to 1) of all values does not exceed, within [`MAX_ERROR`](Self::MAX_ERROR); `None`
    /// where there are no values.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "the rank lies between 1 and the count"
    )]
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let count = self.count();
        let rank = ((q.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0_u64;
        for (bucket, count) in self.counts() {
            seen = seen.saturating_add(count);
            if seen >= rank {
                return Some(middle_of(bucket));
            }
        }
        None
    }

    fn counts(&self) -> impl Iterator<Item = (u16, u64)> {
        self.0.iter().filter_map(|(bucket, count)| Some((*bucket, u64::try_from(*count).ok()?)))
    }
}

/// The highest bits of the value, behind how many were left out.
fn bucket_of(value: u64) -> u16 {
    let bits = u64::BITS - value.leading_zeros();
    let left_out = bits.saturating_sub(KEPT_BITS + 1);
    let bucket = (u64::from(left_out) << KEPT_BITS) + (value >> left_out);
    u16::try_from(bucket).unwrap_or(u16::MAX)
}

fn middle_of(bucket: u16) -> u64 {
    let left_out = (u32::from(bucket) >> KEPT_BITS).saturating_sub(1);
    let kept = u64::from(bucket) - (u64::from(left_out) << KEPT_BITS);
    let half = 1_u64.checked_shl(left_out).unwrap_or(0) / 2;
    kept.checked_shl(left_out).unwrap_or(u64::MAX).saturating_add(half)
}

impl fmt::Display for Sketch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (bucket, count)) in self.0.iter().enumerate() {
            let space = if n > 0 { " " } else { "" };
            write!(f, "{space}{bucket}:{count}")?;
        }
        Ok(())
    }
}

/// The text is no sketch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no bucket and its count")]
pub struct InvalidSketch(String);

impl FromStr for Sketch {
    type Err = InvalidSketch;

    fn from_str(text: &str) -> Result<Self, InvalidSketch> {
        let mut sketch = Self::default();
        for part in text.split_ascii_whitespace() {
            let read = part.split_once(':').and_then(|(bucket, count)| {
                Some((bucket.parse::<u16>().ok()?, count.parse::<i64>().ok()?))
            });
            let invalid = || InvalidSketch(crate::base::limits::cut(part, 32).to_owned());
            let (bucket, count) = read.ok_or_else(invalid)?;
            sketch.add_bucket(bucket, count);
        }
        Ok(sketch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Values of every size.
    fn value() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0_u32..64).prop_map(|(value, shift)| value >> shift)
    }

    #[allow(clippy::cast_precision_loss, reason = "a relative error needs no more digits")]
    fn error(is: u64, should: u64) -> f64 {
        is.abs_diff(should) as f64 / should.max(1) as f64
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_sorted_values(
            mut values in prop::collection::vec(value(), 1..200),
            q in 0.0..=1.0_f64,
        ) {
            let mut sketch = Sketch::default();
            values.iter().for_each(|value| sketch.add(*value, 1));
            values.sort_unstable();
            let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
            let (is, should) = (sketch.quantile(q).unwrap(), values[rank - 1]);
            prop_assert!(error(is, should) <= Sketch::MAX_ERROR, "{is} for {should}");
            prop_assert_eq!(sketch.count(), values.len() as u64);
        }

        #[test]
        fn what_is_taken_out_was_never_there(
            stay in prop::collection::vec(value(), 0..50),
            go in prop::collection::vec(value(), 0..50),
        ) {
            let (mut sketch, mut expected) = (Sketch::default(), Sketch::default());
            stay.iter().for_each(|value| expected.add(*value, 1));
            go.iter().for_each(|value| sketch.add(*value, -1));
            stay.iter().chain(&go).for_each(|value| sketch.add(*value, 1));
            prop_assert_eq!(sketch, expected);
        }

        #[test]
        fn texts_behind_each_other_are_the_sum(
            some in prop::collection::vec(value(), 0..50),
            more in prop::collection::vec(value(), 0..50),
        ) {
            let (mut first, mut second) = (Sketch::default(), Sketch::default());
            some.iter().for_each(|value| first.add(*value, 1));
            more.iter().for_each(|value| second.add(*value, 2));
            let text = format!("{first} {second}");
            first.merge(&second);
            prop_assert_eq!(text.parse(), Ok(first));
        }
    }

    #[test]
    fn nothing_has_no_quantiles_and_garbage_is_refused() {
        assert_eq!(Sketch::default().quantile(0.5), None);
        assert_eq!("".parse(), Ok(Sketch::default()));
        for text in ["1", "a:1", "1:b", "70000:1", "1:2:3"] {
            assert!(text.parse::<Sketch>().is_err(), "{text}");
        }
    }
}
