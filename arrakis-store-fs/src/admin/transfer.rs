//! Taking events from one spool to another: lines of JSON that hold everything.
//!
//! An event is one line,
//!
//! ```text
//! {"arrakisSpool":1,"state":"failed","name":"1764…-06-5f2a9c01-019abc….event",
//!  "header":{…},"payload":"…","history":[…]}
//! ```
//!
//! with the header as it stands in the file, byte for byte, and the payload as text, or in
//! `payloadBase64` where that is shorter or it is no text. An entry from quarantine is
//!
//! ```text
//! {"arrakisSpool":1,"state":"quarantined","name":"…","reason":"…","fileBase64":"…"}
//! ```

use std::borrow::Cow;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{self, BufRead, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use arrakis_core::base::dead_letter::Failure;
use arrakis_core::base::digest::Digest;
use arrakis_core::base::envelope::Envelope;
use arrakis_core::base::limits::SPOOL_LINE_MAX_BYTES;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::admin::entry::{Entry, Found, State};
use crate::admin::ids::Ids;
use crate::spool::capacity::check_not_full;
use crate::spool::counters::Recorder;
use crate::spool::dir::SpoolDir;
use crate::spool::durability::replace_durably;
use crate::spool::format::{FILE_MAX_BYTES, Unreadable, decode, split};
use crate::spool::history;
use crate::spool::layout::{EntryName, Layout};
use crate::spool::quarantine::{free_name, write_reason};
use crate::spool::{Spool, SpoolError};

/// Events that are written at once: they share the disk's flushes.
const WRITERS: usize = 16;

/// The version of the lines that this code writes.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    arrakis_spool: u32,
    state: &'a str,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    header: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    payload: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    payload_base64: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    file_base64: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    history: Vec<Failure>,
}

/// Makes lines of entries.
#[derive(Debug, Default)]
pub struct Exporter {
    /// What has its line: an event that moves may be met twice.
    exported: Ids,
}

impl Exporter {
    /// One entry as a line, with its line break. An entry that is no event has one only if it is in
    /// quarantine and a regular file; an event that has its line already counts as gone.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn line(&mut self, layout: &Layout, entry: &Entry) -> io::Result<Found<Vec<u8>>> {
        let name = entry.named.as_ref().filter(|_| entry.state != State::Quarantined);
        if name.is_some_and(|name| self.exported.contains(&name.request_id)) {
            return Ok(Found::Gone);
        }
        let line = line(layout, entry)?;
        if let (Found::Whole(_), Some(name)) = (&line, name) {
            self.exported.insert(&name.request_id);
        }
        Ok(line)
    }
}

fn line(layout: &Layout, entry: &Entry) -> io::Result<Found<Vec<u8>>> {
    let file = match entry.bytes()? {
        Found::Whole(file) => file,
        Found::Unreadable(reason) => return Ok(Found::Unreadable(reason)),
        Found::Gone => return Ok(Found::Gone),
    };
    let name = entry.file_name();
    let mut line = Line {
        arrakis_spool: VERSION,
        state: entry.state.as_str(),
        name: Cow::Borrowed(&name),
        reason: None,
        header: None,
        payload: None,
        payload_base64: None,
        file_base64: None,
        history: Vec::new(),
    };
    let (header, payload) = split(&file);
    if entry.state == State::Quarantined {
        line.reason = entry.reason().map(Cow::Owned);
        line.file_base64 = Some(BASE64.encode(&file).into());
    } else {
        if let Err(reason) = decode(&file) {
            return Ok(Found::Unreadable(reason));
        }
        line.header = Some(serde_json::from_slice(&header)?);
        match as_text(&payload)? {
            Some(text) => line.payload = Some(text.into()),
            None => line.payload_base64 = Some(BASE64.encode(&payload).into()),
        }
        line.history = entry
            .named
            .as_ref()
            .map_or_else(Vec::new, |name| history::read(layout, &name.request_id));
    }
    let mut line = serde_json::to_vec(&line)?;
    line.push(b'\n');
    if line.len() > SPOOL_LINE_MAX_BYTES {
        let reason = format!("it takes more than {SPOOL_LINE_MAX_BYTES} bytes to export it");
        return Ok(Found::Unreadable(Unreadable(reason)));
    }
    Ok(Found::Whole(line))
}

/// The payload as text, unless base64 is shorter: each control character takes six bytes in JSON.
fn as_text(payload: &[u8]) -> io::Result<Option<&str>> {
    let Ok(text) = std::str::from_utf8(payload) else { return Ok(None) };
    let escaped = serde_json::to_vec(text)?.len();
    Ok((escaped <= payload.len().div_ceil(3) * 4 + 2).then_some(text))
}

/// Takes exported lines into a spool.
#[derive(Debug)]
pub struct Importer {
    dir: SpoolDir,
    known: Ids,
    /// Files that a line of this import has brought into quarantine.
    set_aside: HashSet<Digest>,
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Imported {
    /// Its entry is in the spool now, durably, in this state.
    New(State),
    /// An entry of its request id was there already.
    Known,
}

/// A line could not be taken in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The line is no undamaged entry. Other lines may be.
    #[error("{0}")]
    Line(String),
    /// The spool does not take it; nor will it take the next one.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl Importer {
    /// An importer into the spool in `dir`, which is created where it is missing.
    ///
    /// # Errors
    ///
    /// The spool cannot be created or read.
    pub fn new(dir: impl Into<SpoolDir>) -> Result<Self, SpoolError> {
        let dir = dir.into();
        Spool::new(dir.clone()).create()?;
        let known = Ids::of(&dir.layout, &[State::Pending, State::Processing, State::Failed])
            .map_err(|source| SpoolError::Io { path: dir.layout.queue(), source })?;
        Ok(Self { dir, known, set_aside: HashSet::new() })
    }

    /// Takes one line in. What was leased where it comes from waits here.
    ///
    /// # Errors
    ///
    /// The line is no undamaged entry, or the spool does not take it.
    pub fn take(&mut self, line: &[u8]) -> Result<Imported, ImportError> {
        let line: Line<'_> = serde_json::from_slice(line).map_err(bad)?;
        if line.arrakis_spool != VERSION {
            let version = line.arrakis_spool;
            return Err(bad(format!("it was written by another version (format {version})")));
        }
        check_not_full(&self.dir.layout)?;
        match line.state.parse().map_err(bad)? {
            State::Quarantined => self.take_quarantined(&line),
            State::Pending | State::Processing => self.take_event(&line, State::Pending),
            State::Failed => self.take_event(&line, State::Failed),
        }
    }

    /// Takes in events that come from no spool: they wait to be delivered, like those that were captured. They are
    /// written side by side, because each waits for the disk.
    ///
    /// # Errors
    ///
    /// The spool does not take one of them; others may have been taken.
    pub fn take_envelopes(&mut self, envelopes: &[Envelope]) -> Result<Vec<Imported>, SpoolError> {
        let mut imported = Vec::with_capacity(envelopes.len());
        let mut new = Vec::new();
        for envelope in envelopes {
            if self.known.contains(envelope.request_id()) {
                imported.push(Imported::Known);
            } else {
                self.known.insert(envelope.request_id());
                imported.push(Imported::New(State::Pending));
                new.push(envelope);
            }
        }
        let spool = Spool::new(self.dir.clone());
        let capture = |part: &[&Envelope]| {
            part.iter().try_for_each(|envelope| spool.capture(envelope).map(drop))
        };
        std::thread::scope(|scope| {
            let parts = new.chunks(new.len().div_ceil(WRITERS).max(1));
            let writers: Vec<_> = parts.map(|part| scope.spawn(|| capture(part))).collect();
            writers.into_iter().try_for_each(|writer| match writer.join() {
                Ok(written) => written,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
        Ok(imported)
    }

    fn take_event(&mut self, line: &Line<'_>, state: State) -> Result<Imported, ImportError> {
        let header = line.header.ok_or_else(|| bad("it has no header"))?.get();
        let payload: Cow<'_, [u8]> = match (&line.payload, &line.payload_base64) {
            (Some(text), None) => text.as_bytes().into(),
            (None, Some(base64)) => BASE64.decode(base64.as_bytes()).map_err(bad)?.into(),
            _ => return Err(bad("it has no payload")),
        };
        if header.contains('\n') {
            return Err(bad("its header has more than one line"));
        }
        let file: Bytes = [header.as_bytes(), b"\n", &payload].concat().into();
        let envelope = decode(&file).map_err(bad)?;
        let id = envelope.request_id();
        if self.known.contains(id) {
            return Ok(Imported::Known);
        }
        let own = EntryName::of(&envelope.header);
        let name = match EntryName::parse(&line.name).filter(|name| name.request_id == *id) {
            Some(EntryName { due, rounds, .. }) => EntryName { due, rounds, ..own },
            None => own,
        };
        let directory = match state {
            State::Failed => self.dir.layout.failed(),
            _ => self.dir.layout.pending(),
        };
        // Before the event, so that whoever delivers it finds its history.
        history::replace(&self.dir, id, &line.history)
            .map_err(|source| SpoolError::Io { path: self.dir.layout.attempts(), source })?;
        self.write(&directory.join(name.to_string()), &file)?;
        self.known.insert(id);
        Ok(Imported::New(state))
    }

    fn take_quarantined(&mut self, line: &Line<'_>) -> Result<Imported, ImportError> {
        let base64 = line.file_base64.as_deref().ok_or_else(|| bad("it has no file"))?;
        let file = BASE64.decode(base64).map_err(bad)?;
        if file.len() as u64 > FILE_MAX_BYTES {
            return Err(bad(format!("its file has more than {FILE_MAX_BYTES} bytes")));
        }
        let name = OsStr::from_bytes(line.name.as_bytes());
        if Path::new(name).file_name() != Some(name) {
            return Err(bad("its name is no file name"));
        }
        let there = Entry {
            state: State::Quarantined,
            path: self.dir.layout.quarantine().join(name),
            named: None,
        };
        let is_there = matches!(there.bytes(), Ok(Found::Whole(bytes)) if *bytes == file);
        if is_there || !self.set_aside.insert(Digest::of(&file)) {
            return Ok(Imported::Known);
        }
        let target = free_name(&self.dir.layout.quarantine(), name);
        self.write(&target, &file)?;
        let reason = line.reason.as_deref().unwrap_or("it was in quarantine where it comes from");
        write_reason(&self.dir, &target, &Unreadable(reason.to_owned()))
            .map_err(|source| SpoolError::Io { path: target, source })?;
        Ok(Imported::New(State::Quarantined))
    }

    /// Writes a file durably, and counts it as one that came in.
    fn write(&self, target: &Path, file: &[u8]) -> Result<(), SpoolError> {
        let temporary = self.temporary();
        let written = Recorder::new(&self.dir.layout).capture(
            || replace_durably(&*self.dir.fs, &temporary, target, file),
            // After a failure the file may have appeared all the same.
            |_| target.exists(),
        );
        written.map_err(|source| SpoolError::Io { path: target.to_owned(), source })
    }

    /// A name in `tmp/` that nobody else uses.
    fn temporary(&self) -> PathBuf {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // What a process of the same id has left there was never acknowledged to anybody.
        self.dir.layout.tmp().join(format!("import.{process}.{count}"))
    }
}

/// Reads the next line without its line break; `None` at the end, an error in place of a line that is
/// longer than any export's.
///
/// # Errors
///
/// The input cannot be read.
pub fn read_line(input: &mut dyn BufRead) -> io::Result<Option<Result<Vec<u8>, ImportError>>> {
    let mut line = Vec::new();
    let limit = SPOOL_LINE_MAX_BYTES as u64;
    let read = input.take(limit).read_until(b'\n', &mut line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if read as u64 == limit {
        input.skip_until(b'\n')?;
        let problem = format!("the line has more than {SPOOL_LINE_MAX_BYTES} bytes");
        return Ok(Some(Err(ImportError::Line(problem))));
    }
    Ok((read > 0).then_some(Ok(line)))
}

fn bad(problem: impl ToString) -> ImportError {
    ImportError::Line(problem.to_string())
}
