//! The directory tree, the names in it, and the format of a spool file.
//!
//! ```text
//! <home>
//!   config.toml           settings and the ingest key, 0600
//!   arrakis.db            the embedded store (the server's)
//!   logs/                 the four log files
//!   queue/
//!     tmp/                files that are being written
//!     pending/            events that wait; `poke` asks a running drainer to try them all now
//!     processing/<owner>/ events that a drainer has leased; `lock` is held by its process
//!     failed/             dead letters
//!     quarantine/         entries that could not be read, each with a `.reason`
//!     attempts/           the rounds that an event lost, one JSON line each, by request id
//!     transcripts/        how far each transcript was read, one file each; see `transcript`
//!     tally, tally.<n>    what became of events, a letter a step; see `counters`
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
//! Directories are 0700 and files 0600. An event is one file:
//!
//! ```text
//! 1764000000000-00-5f2a9c01-019abc….event
//! └ due, ms ──┘ │  │        └ request id
//!               │  └ the first eight hexadecimal digits of the destination's SHA-256
//!               └ rounds lost
//! ```
//!
//! so that a listing tells what is due, and for whom, without reading. The file holds one line of
//! JSON, then the payload bytes. The line holds the envelope's header, the payload's `length`, and as
//! its last field `check`, the first sixteen hexadecimal digits of the SHA-256 of all that stands before
//! it. (Files of the first version have no `check`; their line ends with `length`.) The content is
//! written once; every later step is a rename. With no round lost the due time is the time of capture, and
//! the event is due whatever the clock says. The end of all times that fit into a name is the due time
//! of an event that waited for too long and is in `failed/` until its receiver is back.
//!
//! When an event was first seen by a drainer is kept as its file's time of modification, in seconds of
//! the time that drainers have watched pass (`observed`) after [`OBSERVED_EPOCH`]: it costs no file, and no
//! clock that is set changes it.

use std::fmt;
use std::path::{Path, PathBuf};

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::digest::Digest;
use arrakis_core::base::envelope::{Envelope, Header};
use arrakis_core::base::id::RequestId;
use arrakis_core::base::limits::{DUE_HORIZON, PAYLOAD_MAX_BYTES};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The ending of every event's file name.
pub const EVENT_SUFFIX: &str = ".event";

/// The ending of the file that says why an entry is in quarantine.
pub const REASON_SUFFIX: &str = ".reason";

/// Longest header line, in bytes: a generous multiple of what its fields can hold.
pub const HEADER_MAX_BYTES: usize = 64 * 1024;

/// Longest event file, in bytes.
pub const FILE_MAX_BYTES: u64 = (HEADER_MAX_BYTES + PAYLOAD_MAX_BYTES + 1) as u64;

/// Which time of modification, in seconds since 1970, stands for the first second that a drainer has
/// watched: in 1973, where no clock shows.
pub const OBSERVED_EPOCH: i64 = 100_000_000;

/// The latest due time that fits into a name.
const MAX_DUE_MS: i64 = 9_999_999_999_999;

/// What stands before the check at the end of a header line, and how many digits it has.
const CHECK_FIELD: &[u8] = b",\"check\":\"";
const CHECK_DIGITS: usize = 16;

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

    /// Where it is noted how far each transcript was read.
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

/// The header line, as it is written.
#[derive(Serialize, Deserialize)]
struct HeaderLine<H> {
    #[serde(flatten)]
    header: H,
    length: u64,
}

/// The line that stands before the payload, with its newline.
///
/// # Errors
///
/// The header is longer than [`HEADER_MAX_BYTES`], or the payload than [`PAYLOAD_MAX_BYTES`].
pub fn encode_header(envelope: &Envelope) -> Result<Vec<u8>, Unreadable> {
    let length = envelope.payload.len();
    if length > PAYLOAD_MAX_BYTES {
        let problem = format!("its payload has {length} bytes, more than {PAYLOAD_MAX_BYTES}");
        return Err(Unreadable(problem));
    }
    let line = HeaderLine { header: &envelope.header, length: envelope.payload.len() as u64 };
    let mut line = serde_json::to_vec(&line).map_err(|error| Unreadable(error.to_string()))?;
    line.pop(); // the closing brace
    let check = check_of(&line);
    line.extend_from_slice(CHECK_FIELD);
    line.extend_from_slice(check.as_bytes());
    line.extend_from_slice(b"\"}\n");
    if line.len() > HEADER_MAX_BYTES {
        return Err(Unreadable(format!("its header has more than {HEADER_MAX_BYTES} bytes")));
    }
    Ok(line)
}

/// The digits that stand for `bytes` in a header line.
fn check_of(bytes: &[u8]) -> String {
    let mut digits = Digest::of(bytes).to_string();
    digits.truncate(CHECK_DIGITS);
    digits
}

/// Whether a header line is as it was written. Lines of the first version end with the length and
/// have no check.
fn is_intact(line: &[u8]) -> bool {
    let at = line.len().saturating_sub(CHECK_FIELD.len() + CHECK_DIGITS + 2);
    let (covered, check) = line.split_at(at);
    let digits = check.strip_prefix(CHECK_FIELD).and_then(|rest| rest.strip_suffix(b"\"}"));
    if let Some(digits) = digits {
        return digits == check_of(covered).as_bytes();
    }
    let rest = line.strip_suffix(b"}").unwrap_or_default();
    let length = rest.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    length > 0 && rest[..rest.len() - length].ends_with(b",\"length\":")
}

/// Why a file is not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

/// Reads an event from the bytes of its file.
///
/// # Errors
///
/// The bytes are not a whole, undamaged event.
pub fn decode(file: &Bytes) -> Result<Envelope, Unreadable> {
    let (header, length) = decode_header(file)?;
    let (_, payload) = split(file);
    if payload.len() as u64 != length {
        let is = payload.len();
        return Err(Unreadable(format!("its payload has {is} bytes instead of {length}")));
    }
    let envelope = Envelope { header, payload };
    if !envelope.is_intact() {
        return Err(Unreadable("its payload does not match its digest".to_owned()));
    }
    Ok(envelope)
}

/// The header line without its newline, and the payload. A file without a newline is all header.
pub(crate) fn split(file: &Bytes) -> (Bytes, Bytes) {
    let end = memchr_newline(file).unwrap_or(file.len());
    (file.slice(..end), file.slice((end + 1).min(file.len())..))
}

/// Reads the header, and the length that the payload should have.
pub(crate) fn decode_header(file: &[u8]) -> Result<(Header, u64), Unreadable> {
    let end = memchr_newline(file).ok_or_else(|| Unreadable("it has no header line".to_owned()))?;
    let line: HeaderLine<Header> = serde_json::from_slice(&file[..end])
        .map_err(|error| Unreadable(format!("its header cannot be read: {error}")))?;
    if line.header.version > arrakis_core::base::envelope::ENVELOPE_VERSION {
        let version = line.header.version;
        return Err(Unreadable(format!("it was written by a newer version (format {version})")));
    }
    if !is_intact(&file[..end]) {
        return Err(Unreadable("its header does not match its check".to_owned()));
    }
    Ok((line.header, line.length))
}

fn memchr_newline(bytes: &[u8]) -> Option<usize> {
    bytes.iter().take(HEADER_MAX_BYTES).position(|byte| *byte == b'\n')
}

#[cfg(test)]
mod tests {
    use arrakis_core::base::envelope::Source;

    use super::*;

    fn envelope() -> Envelope {
        let id = "019abc-x:y.z".parse().unwrap();
        Envelope::new(id, Timestamp::from_millis(1), "http://h/", Source::default(), &b"a\nb\n"[..])
    }

    fn file(envelope: &Envelope) -> Vec<u8> {
        let mut file = encode_header(envelope).unwrap();
        file.extend_from_slice(&envelope.payload);
        file
    }

    #[test]
    fn names_read_back() {
        let name = EntryName { rounds: 3, ..EntryName::of(&envelope().header) };
        let text = name.to_string();
        assert!(text.starts_with("0000000000001-03-"), "{text}");
        assert_eq!(EntryName::parse(&text), Some(name));
        for other in ["", "poke", "x.event", "1-2-3-4.event", "0000000000001-03-00000000-a b.event"]
        {
            assert_eq!(EntryName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn files_read_back() {
        let envelope = envelope();
        assert_eq!(decode(&file(&envelope).into()), Ok(envelope));
    }

    #[test]
    fn any_damage_is_noticed() {
        let whole = file(&envelope());
        for length in 0..whole.len() {
            assert!(decode(&whole[..length].to_vec().into()).is_err(), "cut at {length}");
        }
        assert!(decode(&[&whole[..], b"x"].concat().into()).is_err(), "something appended");
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged.into()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn files_of_the_first_version_are_read() {
        let whole = file(&envelope());
        let text = String::from_utf8(whole).unwrap();
        let (before, after) = text.split_once(",\"check\":\"").unwrap();
        let first = format!("{before}{}", &after[CHECK_DIGITS + 1..]);
        assert!(first.starts_with(&format!("{before}}}\n")));
        assert_eq!(decode(&first.into_bytes().into()), Ok(envelope()));
    }

    #[test]
    fn an_event_that_waited_too_long_keeps_its_rounds_and_is_due_if_it_comes_back() {
        let name = EntryName { rounds: 3, ..EntryName::of(&envelope().header) };
        assert!(!name.is_expired());
        let expired = EntryName::parse(&name.expired().to_string()).unwrap();
        assert!(expired.is_expired() && expired.is_due(Timestamp::from_millis(1)));
        assert_eq!(expired.rounds, 3);
    }
}
