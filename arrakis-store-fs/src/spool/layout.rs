//! The directory tree, and the names in it.
//!
//! ```text
//! <home>
//!   config.toml           settings and the ingest key, 0600
//!   arrakis.db            the embedded store (the server's)
//!   arrakis.db-search     its search index
//!   logs/                 the four log files
//!   queue/
//!     tmp/                files that are being written
//!     pending/            events that wait; `poke` asks a running drainer to try them all now
//!     processing/<owner>/ events that a drainer has leased; `lock` is held by its process
//!     failed/             dead letters
//!     quarantine/         entries that could not be read, each with a `.reason`
//!     attempts/           the failed rounds of an event, one JSON line each, by request id
//!     transcripts/        how far each transcript was read, one file each; see `source`
//!     tally, tally.<n>    what became of events, a record a step; see `counters`
//!     counters.json       the counts that were folded, and the spool's id
//!     observed            how many seconds drainers have watched pass; held by the one that does
//!     full                present while the spool refuses new events
//!     reserve             space that is given up when the disk is full
//!     drainer.lock        held by the one drainer
//!     counters.lock       held by whoever folds the counts
//!     receivers.json      what the circuit breaker knows about the receivers
//!     receivers.lock      taken while that is written
//! ```
//!
//! Directories are 0700 and files 0600. An event is one file (see [`format`](super::format)) under a name that
//! tells what is due, and for whom, without reading:
//!
//! ```text
//! 1764000000000-00-5f2a9c01-019abc….event
//! └ due, ms ──┘ │  │        └ request id
//!               │  └ the first eight hexadecimal digits of the destination's SHA-256
//!               └ failed rounds
//! ```
//!
//! Every step after the first is a rename. With no round lost the due time is the time of capture, and the
//! event is due whatever the clock says. The largest due time that fits into a name marks an event that waited
//! for too long and is in `failed/` until its receiver is back.
//!
//! When an event was first seen by a drainer is kept as its file's time of modification, in seconds of
//! the time that drainers have watched pass (`observed`) after [`OBSERVED_EPOCH`]: it costs no file, and no
//! clock that is set changes it.

use std::fmt;
use std::path::{Path, PathBuf};

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::digest::Digest;
use arrakis_core::base::envelope::Header;
use arrakis_core::base::id::RequestId;
use arrakis_core::base::limits::DUE_HORIZON;

/// The ending of every event's file name.
pub const EVENT_SUFFIX: &str = ".event";

/// The ending of the file that says why an entry is in quarantine.
pub const REASON_SUFFIX: &str = ".reason";

/// Which time of modification, in seconds since 1970, stands for the first second that a drainer has
/// watched: in 1973, where no clock shows.
pub const OBSERVED_EPOCH: i64 = 100_000_000;

/// The latest due time that fits into a name.
const MAX_DUE_MS: i64 = 9_999_999_999_999;

/// The paths of one home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    home: PathBuf,
}

impl Layout {
    /// The layout below `home`.
    #[must_use]
    pub fn new(home: impl Into<PathBuf>) -> Self {
        Self { home: home.into() }
    }

    /// The home itself.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The directory of the spool.
    #[must_use]
    pub fn queue(&self) -> PathBuf {
        self.home.join("queue")
    }

    /// Where files are written before they appear.
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.home.join("queue/tmp")
    }

    /// Where events wait.
    #[must_use]
    pub fn pending(&self) -> PathBuf {
        self.home.join("queue/pending")
    }

    /// Where each drainer has a directory for what it has leased.
    #[must_use]
    pub fn processing(&self) -> PathBuf {
        self.home.join("queue/processing")
    }

    /// Where dead letters are.
    #[must_use]
    pub fn failed(&self) -> PathBuf {
        self.home.join("queue/failed")
    }

    /// Where entries are that could not be read.
    #[must_use]
    pub fn quarantine(&self) -> PathBuf {
        self.home.join("queue/quarantine")
    }

    /// Where histories are.
    #[must_use]
    pub fn attempts(&self) -> PathBuf {
        self.home.join("queue/attempts")
    }

    /// Where the checkpoints of transcripts are.
    #[must_use]
    pub fn transcripts(&self) -> PathBuf {
        self.home.join("queue/transcripts")
    }

    /// The file that steps are counted in.
    #[must_use]
    pub fn tally(&self) -> PathBuf {
        self.home.join("queue/tally")
    }

    /// The `number`-th such file, once it is to be folded.
    pub(crate) fn folding(&self, number: u64) -> PathBuf {
        self.home.join(format!("queue/tally.{number}"))
    }

    /// The counts that were folded.
    #[must_use]
    pub fn counters(&self) -> PathBuf {
        self.home.join("queue/counters.json")
    }

    /// The file that whoever folds holds locked.
    pub(crate) fn counters_lock(&self) -> PathBuf {
        self.home.join("queue/counters.lock")
    }

    /// The file that counts the seconds that drainers have watched pass.
    #[must_use]
    pub fn observed(&self) -> PathBuf {
        self.home.join("queue/observed")
    }

    /// The file that is there while the spool refuses new events.
    #[must_use]
    pub fn full(&self) -> PathBuf {
        self.home.join("queue/full")
    }

    /// The file that is given up when the disk is full.
    #[must_use]
    pub fn reserve(&self) -> PathBuf {
        self.home.join("queue/reserve")
    }

    /// The file that the one drainer holds locked.
    #[must_use]
    pub fn drainer_lock(&self) -> PathBuf {
        self.home.join("queue/drainer.lock")
    }

    /// The file that keeps what the circuit breaker knows.
    #[must_use]
    pub fn receivers(&self) -> PathBuf {
        self.home.join("queue/receivers.json")
    }

    /// The file whose appearance asks a drainer to try everything now.
    #[must_use]
    pub fn poke(&self) -> PathBuf {
        self.home.join("queue/pending/poke")
    }

    /// The directory of the log files.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.home.join("logs")
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.home.join("config.toml")
    }

    /// The embedded store.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.home.join("arrakis.db")
    }

    /// Every directory of the spool, parents first. `tmp/` is the last to be created: events are
    /// written there first, so none is before all the others are durable.
    #[must_use]
    pub fn directories(&self) -> [PathBuf; 9] {
        [
            self.home.clone(),
            self.queue(),
            self.pending(),
            self.processing(),
            self.failed(),
            self.quarantine(),
            self.attempts(),
            self.transcripts(),
            self.tmp(),
        ]
    }
}

/// What the name of an event's file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryName {
    /// When the event is due.
    pub due: Timestamp,
    /// How many rounds it has lost.
    pub rounds: u32,
    /// Which destination it is for: see [`destination_tag`].
    pub tag: String,
    /// Names the event.
    pub request_id: RequestId,
}

impl EntryName {
    /// The name of an event that was just captured.
    #[must_use]
    pub fn of(header: &Header) -> Self {
        Self {
            due: header.captured_at,
            rounds: 0,
            tag: destination_tag(&header.destination),
            request_id: header.request_id.clone(),
        }
    }

    /// Reads a file name; `None` if it is not one of an event.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(EVENT_SUFFIX)?.splitn(4, '-');
        let digits = |text: &str, count| {
            (text.len() == count && text.bytes().all(|b| b.is_ascii_digit())).then_some(())
        };
        let due = parts.next().filter(|due| digits(due, 13).is_some())?;
        let rounds = parts.next().filter(|rounds| digits(rounds, 2).is_some())?;
        let tag = parts.next().filter(|tag| tag.len() == 8)?;
        Some(Self {
            due: Timestamp::from_millis(due.parse().ok()?),
            rounds: rounds.parse().ok()?,
            tag: tag.to_owned(),
            request_id: parts.next()?.parse().ok()?,
        })
    }

    /// The name of the event once it has waited for too long.
    #[must_use]
    pub fn expired(self) -> Self {
        Self { due: Timestamp::from_millis(MAX_DUE_MS), ..self }
    }

    /// Whether the event has waited for too long.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.due.as_millis() == MAX_DUE_MS
    }

    /// Whether the event is to be tried at `now`.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.rounds == 0 || is_due(self.due, now)
    }
}

/// Whether a due time has come, or is one that only a jump of the clock explains.
pub(crate) fn is_due(due: Timestamp, now: Timestamp) -> bool {
    due <= now || due > now.plus(DUE_HORIZON)
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let due = self.due.as_millis().clamp(0, MAX_DUE_MS);
        let rounds = self.rounds.min(99);
        write!(f, "{due:013}-{rounds:02}-{}-{}{EVENT_SUFFIX}", self.tag, self.request_id)
    }
}

/// The part of a file name that tells the destination.
#[must_use]
pub fn destination_tag(destination: &str) -> String {
    let digest = Digest::of(destination.as_bytes());
    digest.as_bytes()[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use arrakis_core::base::envelope::{Envelope, Source};

    use super::*;

    fn name() -> EntryName {
        let id = "019abc-x:y.z".parse().unwrap();
        let at = Timestamp::from_millis(1);
        EntryName::of(&Envelope::new(id, at, "http://h/", Source::default(), &b"{}"[..]).header)
    }

    #[test]
    fn names_read_back() {
        let name = EntryName { rounds: 3, ..name() };
        let text = name.to_string();
        assert!(text.starts_with("0000000000001-03-"), "{text}");
        assert_eq!(EntryName::parse(&text), Some(name));
        for other in ["", "poke", "x.event", "1-2-3-4.event", "0000000000001-03-00000000-a b.event"]
        {
            assert_eq!(EntryName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn an_event_that_waited_too_long_keeps_its_rounds_and_is_due_if_it_comes_back() {
        let name = EntryName { rounds: 3, ..name() };
        assert!(!name.is_expired());
        let expired = EntryName::parse(&name.expired().to_string()).unwrap();
        assert!(expired.is_expired() && expired.is_due(Timestamp::from_millis(1)));
        assert_eq!(expired.rounds, 3);
    }
}
