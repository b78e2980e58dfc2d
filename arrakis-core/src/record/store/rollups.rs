//! What events and messages add up to: [`Rollups`].

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::StoreError;
use crate::base::clock::Timestamp;
use crate::base::limits::{ROLLUP_HOURS_KEPT, ROLLUP_MINUTES_KEPT};
use crate::record::audit::EventStatus;
use crate::record::sketch::Sketch;
use crate::session::price::{self, PromptSize};
use crate::session::usage::{Usage, Usd};

/// Keeps sums of audit rows by minute, hour and day, and of the tokens of messages by quarter of an hour.
///
/// Each transaction that stores audit rows or changes their state leaves in its commit how it changes the counts.
/// [`fold`](Self::fold) adds that to the sums, behind the transactions.
///
/// # Behavior
///
/// * Once all is folded, the counts of events are those of all audit rows, each under its present state in the
///   minute of its receipt.
/// * Folding again changes nothing, and each commit is folded once, however the steps fall.
/// * What is pruned stays counted.
/// * Each workspace has its own sums.
/// * A minute, an hour or a day has at most [`ROLLUP_ROWS_MAX`](crate::base::limits::ROLLUP_ROWS_MAX) rows of a
///   workspace; what is beyond is counted under [`OTHER`].
/// * Minutes and hours go when they are old, days stay.
/// * Counts are grouped as asked, and quantiles are those of the rows' latencies within
///   [`Sketch::MAX_ERROR`].
/// * Usage counts each message of the API once, in whatever conversations it stands and in whatever order it comes.
/// * Usage grows with its message, and stays when its conversation is pruned.
/// * The cost of sums is the sum of the costs, each by the prices of its time.
#[async_trait]
pub trait Rollups: std::fmt::Debug + Send + Sync + 'static {
    /// Adds up to `limit` commits to the sums; returns how many that were: fewer than `limit` where all is folded, or
    /// another server is at it.
    ///
    /// # Errors
    ///
    /// The store failed. What it has not added is added the next time.
    async fn fold(&self, limit: usize) -> Result<usize, StoreError>;

    /// Deletes up to about `limit` sums that are kept no longer ([`RollupStep::kept`]); returns how many. None means
    /// that there are no more.
    ///
    /// # Errors
    ///
    /// Nothing is deleted.
    async fn forget_sums(&self, limit: usize) -> Result<usize, StoreError>;

    /// Counts of events, in the order of their fields.
    ///
    /// # Errors
    ///
    /// [`StoreError::Data`]: there are more than [`SUMS_MAX`](crate::base::limits::SUMS_MAX) of them. Else the store
    /// could not be read.
    async fn event_sums(&self, query: EventSums) -> Result<Vec<EventSum>, StoreError>;

    /// Sums of what messages took, in the order of their fields.
    ///
    /// # Errors
    ///
    /// As [`event_sums`](Self::event_sums).
    async fn usage_sums(&self, query: UsageSums) -> Result<Vec<UsageSum>, StoreError>;
}

/// Stands for the event type, the error code and the host of events that are not counted under their own.
pub const OTHER: &str = "(other)";

/// How long a bucket of events is. Buckets begin at whole minutes, hours and days of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RollupStep {
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
}

impl RollupStep {
    /// Every step.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// How long it is.
    #[must_use]
    pub fn length(self) -> Duration {
        Duration::from_secs(match self {
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => 24 * 3600,
        })
    }

    /// How long its buckets are kept; `None` is for ever.
    #[must_use]
    pub fn kept(self) -> Option<Duration> {
        match self {
            Self::Minute => Some(ROLLUP_MINUTES_KEPT),
            Self::Hour => Some(ROLLUP_HOURS_KEPT),
            Self::Day => None,
        }
    }

    /// The beginning of the bucket of `at`.
    #[must_use]
    pub fn bucket(self, at: Timestamp) -> Timestamp {
        rounded_down(at, self.length())
    }
}

/// How long a bucket of usage is: every zone's days and hours begin at a quarter of an hour.
pub const USAGE_BUCKET: Duration = Duration::from_secs(15 * 60);

/// The last moment up to `at` that is a multiple of `length` after 1970 began.
pub(crate) fn rounded_down(at: Timestamp, length: Duration) -> Timestamp {
    let length = i64::try_from(length.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(at.as_micros().div_euclid(length).saturating_mul(length))
}

/// Which counts of events are asked for.
#[derive(Debug, Clone)]
pub struct EventSums {
    /// The workspace.
    pub workspace: String,
    /// How long the buckets are that are read.
    pub step: RollupStep,
    /// Buckets from the one that this lies in.
    pub from: Timestamp,
    /// Buckets that begin before this.
    pub to: Timestamp,
    /// What the counts are grouped by.
    pub by: EventGroups,
    /// Whether latencies are read. They are most of what is stored.
    pub latency: bool,
}

/// What counts of events are grouped by; none of these is one sum of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventGroups {
    /// The bucket.
    pub bucket: bool,
    /// The event type.
    pub event_type: bool,
    /// The state.
    pub status: bool,
    /// The error code.
    pub error_code: bool,
    /// The host.
    pub host: bool,
}

/// A count of events. What it is not grouped by is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventSum {
    /// The beginning of the bucket of their receipt.
    pub at: Option<Timestamp>,
    /// Their event type.
    pub event_type: Option<String>,
    /// Their present state.
    pub status: Option<EventStatus>,
    /// Their error code; empty where they have none.
    pub error_code: Option<String>,
    /// The host that captured them; empty where that is not known, as of duplicates.
    pub host: Option<String>,
    /// How many they are.
    pub events: u64,
    /// The bytes of their payloads as they came; a duplicate's is not stored and counts none.
    pub bytes: u64,
    /// How long they took from receipt to commit, in milliseconds; empty unless asked for.
    pub latency: Sketch,
}

impl EventSum {
    /// Orders it among others.
    #[must_use]
    pub fn group(&self) -> impl Ord + use<> {
        (self.at, self.event_type.clone(), self.status, self.error_code.clone(), self.host.clone())
    }
}

/// Which sums of usage are asked for.
#[derive(Debug, Clone)]
pub struct UsageSums {
    /// The workspace.
    pub workspace: String,
    /// Buckets of [`USAGE_BUCKET`] from the one that this lies in.
    pub from: Timestamp,
    /// Buckets that begin before this.
    pub to: Timestamp,
    /// What the sums are grouped by.
    pub by: UsageGroups,
}

impl UsageSums {
    /// The beginning of the first bucket.
    #[must_use]
    pub fn first_bucket(&self) -> Timestamp {
        rounded_down(self.from, USAGE_BUCKET)
    }

    /// The same sums for each time in which no price changes, with its beginning. Prices change with a day of UTC, so no
    /// bucket is of two.
    #[must_use]
    pub fn by_period(&self) -> Vec<(Timestamp, Self)> {
        let begins: Vec<Timestamp> = price::table().periods().into_iter().collect();
        let part = |n: usize| {
            let from = if n == 0 { self.from } else { self.from.max(begins[n]) };
            let to = begins.get(n + 1).map_or(self.to, |end| self.to.min(*end));
            (begins[n], Self { from, to, ..self.clone() })
        };
        (0..begins.len()).map(part).filter(|(_, part)| part.first_bucket() < part.to).collect()
    }
}

/// What sums of usage are grouped by, besides what their price depends on: the model, the size of the prompt, and the time
/// in which no price changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsageGroups {
    /// The bucket.
    pub bucket: bool,
    /// The conversation.
    pub conversation: bool,
    /// Whether a subagent took it.
    pub subagent: bool,
}

/// What messages took. What it is not grouped by is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageSum {
    /// The beginning of the bucket that the messages are of.
    pub at: Option<Timestamp>,
    /// Their conversation.
    pub conversation_id: Option<Uuid>,
    /// Whether they are of a subagent's thread.
    pub is_subagent: Option<bool>,
    /// Their model; [`UNKNOWN_MODEL`](crate::session::usage::UNKNOWN_MODEL) where none is named.
    pub model: String,
    /// The size of each of their prompts.
    pub prompt_size: PromptSize,
    /// The beginning of the time in which they were written and no price has changed.
    pub period: Timestamp,
    /// How many messages of the API they are.
    pub messages: u64,
    /// What they took.
    pub usage: Usage,
}

impl UsageSum {
    /// What they cost; `None` where the model's price is not known.
    #[must_use]
    pub fn cost(&self) -> Option<Usd> {
        price::table().cost_of_sum(&self.model, self.period, self.prompt_size, &self.usage)
    }

    /// Whether that depends on a price that nobody has read on a page of the provider.
    #[must_use]
    pub fn has_unverified_price(&self) -> bool {
        price::table().is_unverified(&self.model, self.period, self.prompt_size)
    }

    /// Orders it among others.
    #[must_use]
    pub fn group(&self) -> impl Ord + use<> {
        let price = (self.model.clone(), self.prompt_size, self.period);
        (self.at, self.conversation_id, self.is_subagent, price)
    }
}

const _: Option<&dyn Rollups> = None; // object safe
