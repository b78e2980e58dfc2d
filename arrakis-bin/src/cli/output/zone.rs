//! Times of day, in the reader's time zone.

use std::fmt;

use arrakis_core::base::clock::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// The time zone in which people read and write times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// The time zone of the environment is not known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownZone(String);

impl fmt::Display for UnknownZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TZ={} is no time zone that this machine knows: times are in UTC", self.0)
    }
}

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// The zone that `TZ` names, else the system's; UTC where there is neither.
    ///
    /// # Errors
    ///
    /// `TZ` names none.
    pub fn of_process() -> Result<Self, UnknownZone> {
        match (TimeZone::try_system(), std::env::var_os("TZ")) {
            (Ok(zone), _) => Ok(Self(zone)),
            (Err(_), None) => Ok(Self::UTC),
            (Err(_), Some(name)) => Err(UnknownZone(name.to_string_lossy().into_owned())),
        }
    }

    /// The zone of a POSIX rule such as `CET-1CEST,M3.5.0,M10.5.0/3`, which needs no database.
    #[must_use]
    pub fn of_rule(rule: &str) -> Option<Self> {
        TimeZone::posix(rule).ok().map(Self)
    }

    /// `2026-11-24 00:55:31`; without the year where `narrow`. What stands around it names the zone.
    #[must_use]
    pub fn moment(&self, at: Timestamp, narrow: bool) -> String {
        let format = if narrow { "%m-%d %H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
        self.zoned(at).strftime(format).to_string()
    }

    /// `2026-11-24 00:55:31 UTC`.
    #[must_use]
    pub fn whole_moment(&self, at: Timestamp) -> String {
        self.zoned(at).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
    }

    /// `2026-11-24 00:55:31.217+01:00`; without the offset in UTC.
    #[must_use]
    pub fn exact_moment(&self, at: Timestamp) -> String {
        let offset = if self.day(at).1 == "UTC" { "" } else { "%:z" };
        self.zoned(at).strftime(&format!("%Y-%m-%d %H:%M:%S%.3f{offset}")).to_string()
    }

    /// `00:55:31`.
    #[must_use]
    pub fn time_of_day(&self, at: Timestamp) -> String {
        self.zoned(at).strftime("%H:%M:%S").to_string()
    }

    /// The day and how the zone is called on it: `2026-10-25` and `CEST`.
    #[must_use]
    pub fn day(&self, at: Timestamp) -> (String, String) {
        let at = self.zoned(at);
        (at.strftime("%Y-%m-%d").to_string(), at.strftime("%Z").to_string())
    }

    /// The Monday of the week: `2026-10-19`.
    #[must_use]
    pub fn week(&self, at: Timestamp) -> String {
        let day = self.zoned(at).date();
        let since_monday = i64::from(day.weekday().to_monday_zero_offset());
        let monday = day.checked_sub(jiff::Span::new().days(since_monday)).unwrap_or(day);
        monday.strftime("%Y-%m-%d").to_string()
    }

    /// The month: `2026-10`.
    #[must_use]
    pub fn month(&self, at: Timestamp) -> String {
        self.zoned(at).strftime("%Y-%m").to_string()
    }

    /// The moment at which the day of `at` began.
    #[must_use]
    pub fn midnight(&self, at: Timestamp) -> Timestamp {
        self.at(self.zoned(at).date().to_datetime(jiff::civil::Time::midnight()))
    }

    /// The heading of a column with these times: `STARTED (CEST/CET)` where they lie on both sides of a change.
    #[must_use]
    pub fn heading(&self, name: &str, times: impl IntoIterator<Item = Timestamp>) -> String {
        let mut called = Vec::new();
        for at in times {
            let (_, zone) = self.day(at);
            if !called.contains(&zone) {
                called.push(zone);
            }
        }
        if called.is_empty() { name.to_owned() } else { format!("{name} ({})", called.join("/")) }
    }

    /// The moment at which clocks of this zone show `local`: the earlier of two, and the one that clocks would
    /// have shown where they jump over it.
    #[must_use]
    pub fn at(&self, local: DateTime) -> Timestamp {
        let end = if local.year() < 1970 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        Timestamp::from_micros(self.0.to_timestamp(local).unwrap_or(end).as_microsecond())
    }

    fn zoned(&self, at: Timestamp) -> jiff::ZonedDateTime {
        // The last day of the year 9999 is beyond jiff's range.
        let at = jiff::Timestamp::from_microsecond(at.as_micros()).unwrap_or(jiff::Timestamp::MAX);
        at.to_zoned_datetime(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> Zone {
        Zone::of_rule("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn utc_is_as_it_is_stored() {
        let noon = at("2026-11-24T12:00:01.217999Z");
        assert_eq!(Zone::UTC.moment(noon, false), "2026-11-24 12:00:01");
        assert_eq!(Zone::UTC.moment(noon, true), "11-24 12:00:01");
        assert_eq!(Zone::UTC.whole_moment(noon), "2026-11-24 12:00:01 UTC");
        assert_eq!(Zone::UTC.exact_moment(noon), "2026-11-24 12:00:01.217");
        assert_eq!(Zone::UTC.time_of_day(noon), "12:00:01");
        for micros in [i64::MIN, i64::MAX] {
            let extreme = Timestamp::from_micros(micros);
            assert_eq!(Zone::UTC.moment(extreme, false)[..4], extreme.to_string()[..4]);
            assert!(!berlin().moment(extreme, false).is_empty());
        }
    }

    #[test]
    fn a_change_of_clocks_is_visible() {
        let (summer, winter) = (at("2026-10-25T00:59:59Z"), at("2026-10-25T01:00:00Z"));
        assert_eq!(berlin().whole_moment(summer), "2026-10-25 02:59:59 CEST");
        assert_eq!(berlin().whole_moment(winter), "2026-10-25 02:00:00 CET");
        assert_eq!(berlin().exact_moment(winter), "2026-10-25 02:00:00.000+01:00");
        assert_eq!(berlin().heading("STARTED", [winter, summer, winter]), "STARTED (CET/CEST)");
        assert_eq!(berlin().heading("STARTED", [winter]), "STARTED (CET)");
        assert_eq!(Zone::UTC.heading("STARTED", []), "STARTED");
    }

    #[test]
    fn weeks_begin_on_monday_and_days_at_midnight_of_the_zone() {
        // A Sunday in UTC, and Monday in Berlin.
        let late = at("2026-10-25T23:30:00Z");
        assert_eq!(
            (Zone::UTC.week(late).as_str(), &berlin().week(late)[..]),
            ("2026-10-19", "2026-10-26")
        );
        assert_eq!(berlin().month(at("2026-10-31T23:30:00Z")), "2026-11");
        assert_eq!(berlin().midnight(late), at("2026-10-25T23:00:00Z"));
        assert_eq!(berlin().midnight(at("2026-10-25T12:00:00Z")), at("2026-10-24T22:00:00Z"));
    }

    #[test]
    fn local_times_around_a_change_are_moments() {
        let local = |text: &str| berlin().at(text.parse().unwrap());
        assert_eq!(local("2026-07-01"), at("2026-06-30T22:00:00Z"));
        assert_eq!(local("2026-12-01T10:15"), at("2026-12-01T09:15:00Z"));
        // 02:30 comes twice in autumn and never in spring.
        assert_eq!(local("2026-10-25T02:30"), at("2026-10-25T00:30:00Z"));
        assert_eq!(local("2026-03-29T02:30"), at("2026-03-29T01:30:00Z"));
        assert!(local("9999-12-31") > at("9999-12-30T00:00:00Z"));
    }
}
