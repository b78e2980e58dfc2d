//! The entries of a spool one by one, for those who look after it.
//!
//! Nothing here takes a lock or holds more than one entry at a time: directories are read as streams
//! while drainers work in them. So what is met is no snapshot. An event that moves meanwhile may be
//! met twice or not at all, and a file that is gone when it is to be read or moved is no error.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::dead_letter::Failure;
use arrakis_core::base::envelope::{Envelope, Header};
use bytes::Bytes;
use serde::{Serialize, Serializer};

use crate::spool::file;
use crate::spool::format::{HEADER_MAX_BYTES, Unreadable, decode_header};
use crate::spool::history;
use crate::spool::layout::{EVENT_SUFFIX, EntryName, Layout, REASON_SUFFIX, destination_tag};
use crate::spool::quarantine::reason_path;

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It waits.
    Pending,
    /// A drainer has leased it.
    Processing,
    /// It is a dead letter.
    Failed,
    /// It could not be read.
    Quarantined,
}

impl State {
    /// All states, in the order in which entries are listed.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Processing, Self::Failed, Self::Quarantined];

    /// The state's word: `pending`, `processing`, `failed` or `quarantined`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Failed => "failed",
            Self::Quarantined => "quarantined",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The text names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a state is pending, processing, failed or quarantined")]
pub struct InvalidState;

impl FromStr for State {
    type Err = InvalidState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(InvalidState)
    }
}

/// One entry, as far as its name tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub state: State,
    /// Its file.
    pub path: PathBuf,
    /// What the file's name says; none where it is not one of an event.
    pub named: Option<EntryName>,
}

/// What came of reading a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<T> {
    /// It is an event.
    Whole(T),
    /// It is none, and why.
    Unreadable(Unreadable),
    /// It is not there any more.
    Gone,
}

impl<T> Found<T> {
    /// The event, if it is one.
    #[must_use]
    pub fn whole(self) -> Option<T> {
        match self {
            Self::Whole(whole) => Some(whole),
            Self::Unreadable(_) | Self::Gone => None,
        }
    }

    fn of(read: io::Result<Result<T, Unreadable>>) -> io::Result<Self> {
        match read {
            Ok(Ok(whole)) => Ok(Self::Whole(whole)),
            Ok(Err(reason)) => Ok(Self::Unreadable(reason)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::Gone),
            Err(error) => Err(error),
        }
    }
}

impl Entry {
    /// The name of its file. What is not UTF-8 in it is replaced.
    #[must_use]
    pub fn file_name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// What names it to people: the request id, or the file name where that tells none.
    #[must_use]
    pub fn id(&self) -> String {
        match (&self.named, self.state) {
            (Some(name), State::Pending | State::Processing | State::Failed) => {
                name.request_id.to_string()
            }
            _ => self.file_name(),
        }
    }

    /// Reads the header alone. Its payload may be damaged all the same.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn header(&self) -> io::Result<Found<Header>> {
        Found::of(file::open(&self.path).and_then(|opened| match opened {
            Ok(mut file) => read_header(&mut file),
            Err(reason) => Ok(Err(reason)),
        }))
    }

    /// Reads the event and checks it.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn read(&self) -> io::Result<Found<Envelope>> {
        Found::of(file::read(&self.path))
    }

    /// The bytes of the file, unless it is no regular file or longer than an event may be.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn bytes(&self) -> io::Result<Found<Bytes>> {
        Found::of(file::read_bytes(&self.path))
    }

    /// The first `max` bytes of the file, whatever it is.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn head(&self, max: u64) -> io::Result<Found<Bytes>> {
        Found::of(file::open(&self.path).and_then(|opened| match opened {
            Ok(file) => {
                let mut bytes = Vec::new();
                file.take(max).read_to_end(&mut bytes)?;
                Ok(Ok(bytes.into()))
            }
            Err(reason) => Ok(Err(reason)),
        }))
    }

    /// Its failed rounds, oldest first; last the failure of having waited for too long, if it did.
    #[must_use]
    pub fn history(&self, layout: &Layout) -> Vec<Failure> {
        let Some(name) = &self.named else { return Vec::new() };
        let mut history = history::read(layout, &name.request_id);
        history.extend(history::expiry(&self.path, name));
        history
    }

    /// Why it is in quarantine, where that is recorded.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        const MAX_BYTES: u64 = 4096;
        let mut reason = Vec::new();
        let file = file::open(&reason_path(&self.path)).ok()?.ok()?;
        file.take(MAX_BYTES).read_to_end(&mut reason).ok()?;
        Some(String::from_utf8_lossy(&reason).trim().to_owned())
    }
}

/// Which entries are meant: those that match everything that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// In one of these states; in any where there is none.
    pub states: BTreeSet<State>,
    /// With one of these request ids or file names; with any where there is none.
    pub names: BTreeSet<String>,
    /// Of this event type.
    pub event_type: Option<String>,
    /// Of this session.
    pub session_id: Option<String>,
    /// For this URL.
    pub destination: Option<String>,
    /// Captured before this time.
    pub captured_before: Option<Timestamp>,
    /// Whose last failed round has this code.
    pub failure_code: Option<String>,
}

impl Filter {
    /// Whether nothing is set, so that every entry matches.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    fn matches_name(&self, entry: &Entry) -> bool {
        let named = self.names.is_empty()
            || entry.named.as_ref().is_some_and(|n| self.names.contains(n.request_id.as_str()))
            || self.names.contains(&entry.file_name());
        // The tag tells without reading; a name that has none is read.
        let destined = self.destination.as_deref().zip(entry.named.as_ref());
        named && destined.is_none_or(|(url, name)| name.tag == destination_tag(url))
    }

    fn matches_content(&self, entry: &Entry, layout: &Layout) -> io::Result<bool> {
        if let Some(code) = &self.failure_code
            && entry.history(layout).last().is_none_or(|last| last.code != *code)
        {
            return Ok(false);
        }
        let Self { event_type, session_id, destination, captured_before, .. } = self;
        if event_type.is_none()
            && session_id.is_none()
            && destination.is_none()
            && captured_before.is_none()
        {
            return Ok(true);
        }
        let Some(header) = entry.header()?.whole() else { return Ok(false) };
        Ok((event_type.is_none() || header.event_type == *event_type)
            && (session_id.is_none() || header.session_id == *session_id)
            && destination.as_ref().is_none_or(|url| header.destination == *url)
            && captured_before.is_none_or(|before| header.captured_at < before))
    }
}

/// The entries of a spool that match, in the order of [`State::ALL`] and in none within a state. A
/// directory that is missing has no entries.
///
/// An error is about one entry or one directory; the iteration goes on after it.
pub fn entries(layout: &Layout, filter: &Filter) -> impl Iterator<Item = io::Result<Entry>> {
    let states = State::ALL
        .into_iter()
        .filter(|state| filter.states.is_empty() || filter.states.contains(state));
    states.flat_map(|state| in_state(layout, state)).filter_map(|entry| {
        let matches = |entry: &Entry| -> io::Result<bool> {
            Ok(filter.matches_name(entry) && filter.matches_content(entry, layout)?)
        };
        match entry {
            Ok(entry) => match matches(&entry) {
                Ok(matches) => matches.then_some(Ok(entry)),
                Err(error) => Some(Err(about(&entry.path, &error))),
            },
            Err(error) => Some(Err(error)),
        }
    })
}

/// Every entry in one state.
fn in_state(layout: &Layout, state: State) -> Box<dyn Iterator<Item = io::Result<Entry>>> {
    match state {
        State::Pending => in_directory(layout.pending(), state),
        State::Failed => in_directory(layout.failed(), state),
        State::Quarantined => in_directory(layout.quarantine(), state),
        State::Processing => {
            let owners = read_directory(&layout.processing());
            Box::new(owners.flat_map(move |owner| match owner {
                Ok(owner) if owner.file_type().is_ok_and(|kind| kind.is_dir()) => {
                    in_directory(owner.path(), state)
                }
                Ok(_) => Box::new(std::iter::empty()),
                Err(error) => Box::new(std::iter::once(Err(error))),
            }))
        }
    }
}

fn in_directory(path: PathBuf, state: State) -> Box<dyn Iterator<Item = io::Result<Entry>>> {
    Box::new(read_directory(&path).filter_map(move |entry| {
        let path = match entry {
            Ok(entry) => entry.path(),
            Err(error) => return Some(Err(about(&path, &error))),
        };
        let name = path.file_name().unwrap_or_default();
        let bytes = name.as_encoded_bytes();
        let named = name.to_str().and_then(EntryName::parse);
        let (is_entry, named) = match state {
            State::Quarantined => {
                let numbered = || EntryName::parse(name.to_str()?.rsplit_once('.')?.0);
                (!bytes.ends_with(REASON_SUFFIX.as_bytes()), named.or_else(numbered))
            }
            _ => (bytes.ends_with(EVENT_SUFFIX.as_bytes()), named),
        };
        is_entry.then_some(Ok(Entry { state, path, named }))
    }))
}

fn read_directory(path: &Path) -> Box<dyn Iterator<Item = io::Result<fs::DirEntry>>> {
    match fs::read_dir(path) {
        Ok(entries) => Box::new(entries),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Box::new(std::iter::empty()),
        Err(error) => Box::new(std::iter::once(Err(about(path, &error)))),
    }
}

/// Reads no more than the header line.
fn read_header(file: &mut fs::File) -> io::Result<Result<Header, Unreadable>> {
    const STEP_BYTES: usize = 4096;
    let mut bytes = Vec::with_capacity(STEP_BYTES);
    loop {
        let before = bytes.len();
        file.by_ref().take(STEP_BYTES as u64).read_to_end(&mut bytes)?;
        let is_enough = bytes[before..].contains(&b'\n') || bytes.len() > HEADER_MAX_BYTES;
        if is_enough || bytes.len() == before {
            return Ok(decode_header(&bytes).map(|(header, _)| header));
        }
    }
}

/// An error with the path that it is about.
pub(crate) fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
