//! Times as the reader's clock shows them.

use std::time::Duration;

use arrakis_core::base::clock::Timestamp;
use jiff::ZonedDateTime;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

/// Longest name of a time zone that is looked at.
const NAME_MAX_BYTES: usize = 64;

/// The reader's time zone.
#[derive(Debug, Clone)]
pub(super) struct Zone(TimeZone);

impl Zone {
    /// The zone of an IANA name; UTC where there is none, or none that this machine knows.
    pub(super) fn named(name: Option<&str>) -> Self {
        let name = name.filter(|name| name.len() <= NAME_MAX_BYTES);
        Self(name.and_then(|name| TimeZone::get(name).ok()).unwrap_or(TimeZone::UTC))
    }

    /// Its IANA name.
    pub(super) fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// `09:41:07`.
    pub(super) fn time(&self, at: Timestamp) -> String {
        self.zoned(at).strftime("%H:%M:%S").to_string()
    }

    /// `24 Nov 09:41`.
    pub(super) fn short(&self, at: Timestamp) -> String {
        self.zoned(at).strftime("%-d %b %H:%M").to_string()
    }

    /// `2026-11-24`.
    pub(super) fn day(&self, at: Timestamp) -> String {
        self.zoned(at).strftime("%Y-%m-%d").to_string()
    }

    /// `Tue 24 Nov 2026`.
    pub(super) fn long_day(&self, at: Timestamp) -> String {
        self.zoned(at).strftime("%a %-d %b %Y").to_string()
    }

    /// When the day of `at` began, `before` days earlier.
    pub(super) fn start_of_day(&self, at: Timestamp, before: i64) -> Timestamp {
        let day = self.zoned(at).date().checked_sub(jiff::Span::new().days(before));
        day.ok().and_then(|day| self.midnight(day)).unwrap_or(at)
    }

    /// When the month of `at` began.
    pub(super) fn start_of_month(&self, at: Timestamp) -> Timestamp {
        self.midnight(self.zoned(at).date().first_of_month()).unwrap_or(at)
    }

    /// When a day written as `2026-11-24` begins.
    pub(super) fn parse_day(&self, text: &str) -> Option<Timestamp> {
        let day = (text.len() == 10).then(|| text.parse().ok()).flatten()?;
        self.midnight(day)
    }

    /// When a day begins.
    fn midnight(&self, day: Date) -> Option<Timestamp> {
        let begin = self.0.to_timestamp(day.to_datetime(Time::midnight())).ok()?;
        Some(Timestamp::from_micros(begin.as_microsecond()))
    }

    fn zoned(&self, at: Timestamp) -> ZonedDateTime {
        let at = jiff::Timestamp::from_microsecond(at.as_micros()).unwrap_or_default();
        at.to_zoned_datetime(self.0.clone())
    }
}

/// How long ago: `4 s`, `12 min`, `3 h`, `2 d`.
pub(super) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// How long something took: `840 ms`, `1.2 s`, `3 min 4 s`, `2 h 10 min`.
pub(super) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", seconds, ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_begin_where_the_reader_is() {
        let zone = Zone::named(Some("Asia/Kathmandu"));
        let at: Timestamp = "2026-11-24T20:00:00Z".parse().unwrap();
        assert_eq!(zone.day(at), "2026-11-25");
        assert_eq!(zone.start_of_day(at, 0).to_string(), "2026-11-24T18:15:00.000000Z");
        assert_eq!(zone.start_of_day(at, 1).to_string(), "2026-11-23T18:15:00.000000Z");
        assert_eq!(zone.start_of_month(at).to_string(), "2026-10-31T18:15:00.000000Z");
    }

    #[test]
    fn what_is_no_zone_is_utc() {
        let long = "x".repeat(1000);
        for name in [None, Some(""), Some("Mars/Base"), Some("../../etc/passwd"), Some(&long)] {
            assert_eq!(Zone::named(name).name(), "UTC", "{name:?}");
        }
    }

    #[test]
    fn times_that_passed_are_short() {
        assert_eq!(age(Duration::from_secs(59)), "59 s");
        assert_eq!(age(Duration::from_secs(47 * 3600)), "47 h");
        assert_eq!(duration(999), "999 ms");
        assert_eq!(duration(61_500), "1 min 1 s");
    }
}
