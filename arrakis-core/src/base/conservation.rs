//! What became of the events of a spool, and whether that adds up.
//!
//! No event leaves a spool unseen:
//!
//! ```text
//! captured + found = delivered + duplicate + discarded + lost
//!                  + pending + processing + failed + quarantined
//! ```
//!
//! The counts of the first three lines are kept ([`Counters`]), those of the last are had by looking
//! ([`Present`]). Events that were refused were never in the spool and stand apart. A process that is
//! killed between an event's step and its count leaves one count unsure; then the law holds within a
//! range.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::base::limits::cut;

/// Counts since the spool was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counters {
    /// Events that were put into the spool.
    pub captured: u64,
    /// Events that a receiver has stored.
    pub delivered: u64,
    /// Events that a receiver had before.
    pub duplicate: u64,
    /// Events that a person gave up.
    pub discarded: u64,
    /// Events that could not be kept: they were never in the spool.
    pub refused: u64,
    /// Captures that began and did not end: they are under way, or their process was killed. Each of
    /// these events is in the spool or was never acknowledged.
    pub unsure_captured: u64,
    /// Events that were about to leave and were not seen to: the same.
    pub unsure_settled: u64,
    /// Events that nobody had counted, accepted by a person.
    pub found: u64,
    /// Events that were counted and are nowhere, accepted by a person.
    pub lost: u64,
}

/// What is in a spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Present {
    /// Events that wait.
    pub pending: u64,
    /// Events that drainers have leased.
    pub processing: u64,
    /// Dead letters.
    pub failed: u64,
    /// Entries that could not be read.
    pub quarantined: u64,
}

impl Present {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        [self.pending, self.processing, self.failed, self.quarantined]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

/// Whether the counts of a spool add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "verdict")]
pub enum Balance {
    /// Every event is accounted for.
    Even,
    /// Every event is accounted for as far as can be told: so many are unsure, because processes were
    /// killed, or moved while they were counted.
    Within {
        /// How many.
        events: u64,
    },
    /// At least so many were captured, have not left, and are not there.
    Missing {
        /// How many.
        events: u64,
    },
    /// At least so many are there, or have left, and were never counted as captured.
    Surplus {
        /// How many.
        events: u64,
    },
}

impl Counters {
    /// Events that have left the spool for good.
    #[must_use]
    pub fn settled(&self) -> u64 {
        [self.delivered, self.duplicate, self.discarded, self.lost]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    /// Compares with what is there. `moved` is how many events may have been seen twice or not at all,
    /// because they moved during the look.
    #[must_use]
    pub fn balance(&self, present: &Present, moved: u64) -> Balance {
        let came = self.captured.saturating_add(self.found);
        let accounted = self.settled().saturating_add(present.total());
        let slack = |unsure: u64| unsure.saturating_add(moved);
        let missing = came.saturating_sub(accounted.saturating_add(slack(self.unsure_settled)));
        let surplus = accounted.saturating_sub(came.saturating_add(slack(self.unsure_captured)));
        let unsure = slack(self.unsure_captured.saturating_add(self.unsure_settled));
        match (missing, surplus, unsure) {
            (0, 0, 0) => Balance::Even,
            (0, 0, events) => Balance::Within { events },
            (events @ 1.., _, _) => Balance::Missing { events },
            (_, events, _) => Balance::Surplus { events },
        }
    }
}

/// What a drainer tells a receiver of its spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpoolReport {
    /// Names the spool: made once, at random, and kept in it.
    pub spool_id: Uuid,
    /// The machine's name.
    #[serde(default)]
    pub host: Option<String>,
    /// Whose spool it is.
    #[serde(default)]
    pub user: Option<String>,
    /// The home that it is in.
    #[serde(default)]
    pub home: Option<String>,
    /// The version of the drainer.
    #[serde(default)]
    pub version: Option<String>,
    /// When this was found, by the machine's clock.
    pub observed_at: Timestamp,
    /// The counts.
    #[serde(flatten)]
    pub counters: Counters,
    /// What is there.
    #[serde(flatten)]
    pub present: Present,
    /// Whether the two add up.
    pub balance: Balance,
    /// How long the oldest event that waits has waited when this was found.
    #[serde(default)]
    pub oldest_pending_age_ms: Option<u64>,
    /// Whether the spool refuses new events.
    #[serde(default)]
    pub full: bool,
    /// What is known of the receivers that it delivers to.
    #[serde(default)]
    pub receivers: Vec<Receiver>,
    /// The latest warning or error.
    #[serde(default)]
    pub last_error: Option<LastError>,
}

/// What a drainer knows of a receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receiver {
    /// Its URL.
    pub destination: String,
    /// The state of its circuit breaker: `closed`, `open` or `half_open`.
    pub state: String,
    /// The latest failure since the last success.
    #[serde(default)]
    pub last_failure: Option<LastError>,
}

/// What went wrong last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// When.
    pub at: Timestamp,
    /// A sentence for people.
    pub message: String,
}

/// Most receivers that a report names: few spools have more than one, and a report is a request header.
const RECEIVERS_MAX: usize = 4;

impl SpoolReport {
    /// Cuts what is longer than a report should be.
    #[must_use]
    pub fn limited(mut self) -> Self {
        let shorten = |text: &mut String, max| text.truncate(cut(text, max).len());
        for text in [&mut self.host, &mut self.user, &mut self.version].into_iter().flatten() {
            shorten(text, 128);
        }
        self.home.iter_mut().for_each(|home| shorten(home, 256));
        self.receivers.truncate(RECEIVERS_MAX);
        for receiver in &mut self.receivers {
            shorten(&mut receiver.destination, 256);
            shorten(&mut receiver.state, 32);
        }
        let failures = self.receivers.iter_mut().flat_map(|receiver| &mut receiver.last_failure);
        failures.chain(&mut self.last_error).for_each(|error| shorten(&mut error.message, 256));
        self
    }
}

/// Gives what is to be told of a spool. It is asked at each delivery, so it must not take long: it gives
/// what was found lately.
pub trait SpoolReporter: std::fmt::Debug + Send + Sync + 'static {
    /// The newest report; `None` while there is none.
    fn spool_report(&self) -> Option<SpoolReport>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(captured: u64, delivered: u64) -> Counters {
        Counters { captured, delivered, ..Counters::default() }
    }

    fn pending(pending: u64) -> Present {
        Present { pending, ..Present::default() }
    }

    #[test]
    fn every_place_counts_once() {
        let counters = Counters {
            captured: 40,
            found: 5,
            delivered: 2,
            duplicate: 3,
            discarded: 4,
            lost: 6,
            refused: 99,
            ..Counters::default()
        };
        let present = Present { pending: 7, processing: 8, failed: 9, quarantined: 6 };
        assert_eq!(counters.balance(&present, 0), Balance::Even);
        let more = Present { quarantined: 7, ..present };
        assert_eq!(counters.balance(&more, 0), Balance::Surplus { events: 1 });
        let fewer = Present { failed: 6, ..present };
        assert_eq!(counters.balance(&fewer, 0), Balance::Missing { events: 3 });
    }

    #[test]
    fn what_is_unsure_explains_as_much_and_no_more() {
        let killed = Counters { unsure_captured: 1, unsure_settled: 2, ..counters(10, 5) };
        for (there, expected) in [
            (2, Balance::Missing { events: 1 }),
            (3, Balance::Within { events: 3 }),
            (5, Balance::Within { events: 3 }),
            (6, Balance::Within { events: 3 }),
            (7, Balance::Surplus { events: 1 }),
        ] {
            assert_eq!(killed.balance(&pending(there), 0), expected, "{there} are there");
        }
        assert_eq!(counters(10, 5).balance(&pending(3), 2), Balance::Within { events: 2 });
        assert_eq!(counters(10, 5).balance(&pending(2), 2), Balance::Missing { events: 1 });
        let most = counters(u64::MAX, u64::MAX);
        assert_eq!(
            most.balance(&pending(u64::MAX), u64::MAX),
            Balance::Within { events: u64::MAX }
        );
    }
}
