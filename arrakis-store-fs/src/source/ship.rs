//! Reading what a transcript has gained, and pushing it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::digest::Digest;
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::base::limits::{TRANSCRIPT_CHECKPOINT_BYTES, TRANSCRIPT_NOTE_MAX_AGE};
use arrakis_core::session::redact::Redactor;
use arrakis_core::session::transcript::{Slice, SliceConfig, Slicer, TranscriptFile};
use parking_lot::{Mutex, MutexGuard};

use super::access::{allowed, followed, meta, open, subagents};
use super::checkpoint::{FileIdentity, Intent, Note, Notes, Seen};
use super::reader::{Last, Line, Lines, first_line};
use crate::spool::capacity::SpoolLimits;
use crate::spool::dir::SpoolDir;
use crate::spool::{Spool, SpoolError, survey};

/// How long it is relied on how much was in the spool: in this time hooks do not fill the half of it that
/// is theirs.
const ROOM_MAX_AGE: Duration = Duration::from_secs(60);

/// The settings of a [`Shipper`].
#[derive(Debug)]
pub struct ShipConfig {
    /// Whether anything is read.
    pub enabled: bool,
    /// Only files below one of these are read.
    pub folders: Vec<PathBuf>,
    /// What becomes of the lines.
    pub slices: SliceConfig,
    /// Takes secrets out of them.
    pub redactor: Redactor,
    /// The machine and the user, for the events.
    pub source: Source,
    /// What the spool holds before it refuses new events; transcripts take half of that.
    pub limits: SpoolLimits,
}

/// What came of reading a transcript.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// How many slices were pushed.
    pub slices: u64,
    /// Whether there is no such file.
    pub is_missing: bool,
    /// Why it could not be read, or not to its end.
    pub trouble: Option<String>,
}

/// How a transcript is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadMode {
    /// From its beginning, whatever was read before.
    pub again: bool,
    /// Because a person has named it, wherever it lies.
    pub imported: bool,
    /// Because a person has asked for it: whatever its name is, and after the reading that another process
    /// is at, where there is one, instead of leaving it to that.
    pub asked: bool,
}

/// A slice could not be spooled. Nothing is lost: the next reading goes on before it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShipError {
    /// The spool does not take it.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The spool holds half of what it may. The rest is for events, which cannot be read again.
    #[error("the spool {} is half full, and the rest of it is for new events; bring its receiver back or \
             raise [spool] max_files and max_bytes", .0.display())]
    HalfFull(PathBuf),
    /// It cannot be noted how far the file was read.
    #[error("cannot note in {} how far {transcript} was read", .folder.display())]
    Note {
        /// The transcript.
        transcript: String,
        /// The directory of the notes.
        folder: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// Reads transcripts into a spool.
#[derive(Debug)]
pub struct Shipper {
    dir: SpoolDir,
    spool: Spool,
    notes: Notes,
    config: Mutex<Arc<ShipConfig>>,
    room: Mutex<Room>,
    stopped: AtomicBool,
    /// Whether it was told that the spool takes nothing.
    warned: AtomicBool,
}

impl Shipper {
    /// A shipper into the spool in `dir`.
    #[must_use]
    pub fn new(dir: impl Into<SpoolDir>, config: ShipConfig) -> Self {
        let dir = dir.into();
        Self {
            spool: Spool::new(dir.clone()).without_reserve(),
            notes: Notes::new(dir.clone()),
            dir,
            config: Mutex::new(Arc::new(config)),
            room: Mutex::default(),
            stopped: AtomicBool::new(false),
            warned: AtomicBool::new(false),
        }
    }

    /// Reads by other settings from now on.
    pub fn configure(&self, config: ShipConfig) {
        *lock(&self.config) = Arc::new(config);
    }

    /// Whether anything is read.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        lock(&self.config).enabled && !self.stopped.load(Ordering::Relaxed)
    }

    /// Has readings end soon, and no new ones begin.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether a path leads into one of the folders whose files may be read.
    ///
    /// # Errors
    ///
    /// It does not, or nothing is there.
    pub fn check(&self, path: &Path) -> io::Result<()> {
        let path = path.to_str().ok_or_else(|| io::Error::other("its path is not UTF-8"))?;
        let config = Arc::clone(&lock(&self.config));
        allowed(path, &config.folders).map(drop)
    }

    /// Makes durable that there is a transcript, unless that is known.
    ///
    /// # Errors
    ///
    /// It is not durable.
    pub fn note(&self, file: &TranscriptFile, destination: &str) -> Result<(), ShipError> {
        let known = self.load(&file.path)?.is_some();
        if known { Ok(()) } else { self.save(&Note::new(file, destination)) }
    }

    /// Reads what a session's transcript and those of its subagents have gained; returns how many
    /// slices that made. What keeps one file from being read keeps no other.
    ///
    /// # Errors
    ///
    /// At least one slice could not be spooled.
    pub fn read_session(&self, file: &TranscriptFile, destination: &str) -> Result<u64, ShipError> {
        let mut slices = 0;
        let mut failure = None;
        for file in std::iter::once(file.clone()).chain(self.subagents(file)) {
            match self.read(&file, destination, ReadMode::default(), &mut |_| {}) {
                Ok(reading) => slices += reading.slices,
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(slices), Err)
    }

    /// Reads what every known transcript has gained; returns how many slices that made.
    ///
    /// # Errors
    ///
    /// At least one slice could not be spooled.
    pub fn read_known(&self) -> Result<u64, ShipError> {
        let mut slices = 0;
        let mut failure = None;
        for note in self.notes.all().map_err(|source| self.note_error("transcripts", source))? {
            if self.forget_old(&note) || (note.imported && !self.may_read(&note.path)) {
                continue;
            }
            let file = note.transcript();
            let read = if file.agent.is_none() {
                self.read_session(&file, &note.destination)
            } else {
                let read = self.read(&file, &note.destination, ReadMode::default(), &mut |_| {});
                read.map(|reading| reading.slices)
            };
            match read {
                Ok(read) => slices += read,
                Err(error) if error.is_full() => return Err(error),
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(slices), Err)
    }

    /// Reads what a transcript has gained. `observe` sees each slice, without its payload, once it is in
    /// the spool; also those that hold nothing worth sending. A file that is being read already, here or
    /// by another process, is left to that reading unless somebody has asked.
    ///
    /// # Errors
    ///
    /// A slice could not be spooled.
    pub fn read(
        &self,
        file: &TranscriptFile,
        destination: &str,
        mode: ReadMode,
        observe: &mut dyn FnMut(&Slice),
    ) -> Result<Reading, ShipError> {
        let mut reading = Reading::default();
        if !self.is_enabled() {
            return Ok(reading);
        }
        if !mode.again && self.load(&file.path)?.is_some_and(|note| note.is_done(destination)) {
            return Ok(reading);
        }
        let held = self.notes.hold(&file.path, mode.asked);
        let held = held.map_err(|source| self.note_error(&file.path, source))?;
        let Some(_held) = held else { return Ok(reading) };
        let known = self.load(&file.path)?;
        let mut note = known.clone().unwrap_or_else(|| Note::new(file, destination));
        if mode.again {
            note.rewind();
        }
        note.imported = mode.imported && (known.is_none() || note.imported);
        // The receiver of today, not the one that the file was noted for.
        note.destination = destination.to_owned();
        let config = Arc::clone(&lock(&self.config));
        let mut pass = Pass { shipper: self, config: &config, observe, reading: &mut reading };
        let found = match mode.asked {
            true => allowed(&note.path, &config.folders),
            false => followed(&note.path, &config.folders),
        };
        let read = match found.and_then(|path| open(&path)) {
            Ok(opened) => pass.read(&mut note, &opened),
            Err(error) => Err(Failure::File(error)),
        };
        let (trouble, failure) = match read {
            Ok(()) => (None, None),
            Err(Failure::Spool(error)) => (note.trouble.clone(), Some(error)),
            Err(Failure::File(error)) if error.kind() == io::ErrorKind::NotFound => {
                reading.is_missing = true;
                (None, None)
            }
            Err(Failure::File(error)) => (Some(error.to_string()), None),
        };
        self.tell(&note, &reading, trouble.as_deref());
        let is_gone = reading.is_missing || (trouble.is_some() && !Path::new(&note.path).exists());
        note.missing_since = is_gone.then(|| note.missing_since.unwrap_or_else(|| self.dir.now()));
        (reading.trouble, note.trouble) = (trouble.clone(), trouble);
        // What is noted now, on the way, may be an intent.
        let noted = self.load(&note.path).ok().flatten();
        let saved = if noted.as_ref() == Some(&note) { Ok(()) } else { self.save(&note) };
        failure.map_or(saved.map(|()| reading), Err)
    }

    /// Warns of the first of several failures.
    pub(super) fn warn<T>(&self, done: Result<T, ShipError>) -> Option<T> {
        let error = match done {
            Ok(done) => {
                self.warned.store(false, Ordering::Relaxed);
                return Some(done);
            }
            Err(error) => error,
        };
        // That the spool is full is told by whoever has found it so; the file waits.
        if !error.is_full() && !self.warned.swap(true, Ordering::Relaxed) {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(target: "arrakis::queue", %error, cause,
                "cannot spool what a transcript has gained; it is tried again");
        }
        None
    }

    /// Warns of what keeps a file from being read, when that is new.
    fn tell(&self, note: &Note, reading: &Reading, trouble: Option<&str>) {
        let path = &note.path;
        if let Some(trouble) = trouble.filter(|trouble| note.trouble.as_deref() != Some(*trouble)) {
            tracing::warn!(target: "arrakis::queue", path, trouble, "cannot read a transcript");
        }
        if reading.is_missing && note.missing_since.is_none() && note.offset > 0 {
            tracing::warn!(target: "arrakis::queue", path, read_bytes = note.offset,
                "a transcript is gone; what it gained since it was read last is lost");
        }
    }

    /// Forgets a transcript that has been gone for long; says whether it was.
    fn forget_old(&self, note: &Note) -> bool {
        let now = self.dir.now();
        let is_old = |since: Timestamp| now.since(since) > TRANSCRIPT_NOTE_MAX_AGE;
        let is_gone = note.missing_since.is_some_and(is_old) && !Path::new(&note.path).exists();
        is_gone && self.notes.forget(note).is_ok()
    }

    /// The transcripts of the subagents of a session.
    fn subagents(&self, session: &TranscriptFile) -> Vec<TranscriptFile> {
        let Some(folder) = session.path.strip_suffix(".jsonl") else { return Vec::new() };
        let config = Arc::clone(&lock(&self.config));
        let folder = format!("{folder}/subagents");
        if allowed(&folder, &config.folders).is_ok() {
            subagents(session, &folder)
        } else {
            Vec::new()
        }
    }

    fn may_read(&self, path: &str) -> bool {
        let config = Arc::clone(&lock(&self.config));
        followed(path, &config.folders).is_ok()
    }

    /// Takes room for a slice of so many bytes.
    fn take_room(&self, config: &ShipConfig, bytes: u64) -> Result<(), ShipError> {
        let mut room = lock(&self.room);
        if room.take(bytes) {
            return Ok(());
        }
        // A spool that is not there yet is empty.
        let found = survey(&self.dir.layout).unwrap_or_default();
        let files = found.pending + found.processing;
        *room = Room {
            counted: Some(Instant::now()),
            files: (config.limits.max_files / 2).saturating_sub(files),
            bytes: (config.limits.max_bytes / 2).saturating_sub(found.pending_bytes),
        };
        if room.take(bytes) { Ok(()) } else { Err(ShipError::HalfFull(self.dir.layout.queue())) }
    }

    fn load(&self, path: &str) -> Result<Option<Note>, ShipError> {
        self.notes.load(path).map_err(|source| self.note_error(path, source))
    }

    fn save(&self, note: &Note) -> Result<(), ShipError> {
        self.notes.save(note).map_err(|source| self.note_error(&note.path, source))
    }

    fn note_error(&self, transcript: &str, source: io::Error) -> ShipError {
        let folder = self.dir.layout.transcripts();
        ShipError::Note { transcript: transcript.to_owned(), folder, source }
    }
}

impl ShipError {
    fn is_full(&self) -> bool {
        matches!(self, Self::HalfFull(_) | Self::Spool(SpoolError::Full(_)))
    }
}

/// What transcripts may still add to the spool, as it was counted last.
#[derive(Debug, Default)]
struct Room {
    counted: Option<Instant>,
    files: u64,
    bytes: u64,
}

impl Room {
    /// Takes so much of it, unless there is less, or it was counted too long ago.
    fn take(&mut self, bytes: u64) -> bool {
        let is_fresh = self.counted.is_some_and(|counted| counted.elapsed() < ROOM_MAX_AGE);
        let fits = is_fresh && self.files > 0 && self.bytes >= bytes;
        if fits {
            (self.files, self.bytes) = (self.files - 1, self.bytes - bytes);
        }
        fits
    }
}

/// Why a pass ended.
enum Failure {
    /// The file cannot be read.
    File(io::Error),
    /// Something cannot be written.
    Spool(ShipError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

impl From<ShipError> for Failure {
    fn from(error: ShipError) -> Self {
        Self::Spool(error)
    }
}

/// One file being read.
struct Pass<'a> {
    shipper: &'a Shipper,
    config: &'a ShipConfig,
    observe: &'a mut dyn FnMut(&Slice),
    reading: &'a mut Reading,
}

/// What stays the same while a file is read.
struct Opened<'a> {
    file: &'a File,
    found: fs::Metadata,
    first: Digest,
}

impl Pass<'_> {
    /// Reads until there is no whole line left.
    fn read(&mut self, note: &mut Note, file: &File) -> Result<(), Failure> {
        let found = file.metadata()?;
        let Some(first) = first_line(file)? else {
            note.seen = Some(Seen::of(&found));
            return Ok(());
        };
        let opened = Opened { file, found, first };
        let mut last = self.resume(note, &opened)?;
        while self.shipper.is_enabled() {
            let found = file.metadata()?;
            let (start, length) = (note.offset, found.len());
            // Where the file ends before the intent, that is of a file that was.
            note.intent = note.intent.filter(|intent| (start + 1..=length).contains(&intent.end));
            let had_intent = note.intent.is_some();
            let fresh = || Intent { end: length, at: self.shipper.dir.now() };
            let intent = note.intent.unwrap_or_else(fresh);
            let passed = self.pass(note, &opened, intent, &mut last);
            if !matches!(passed, Err(Failure::Spool(_))) {
                note.intent = None;
            }
            passed?;
            if note.offset == start && !had_intent {
                // One that has a half line at its end, however long, is read again when it has changed.
                note.seen = self.shipper.is_enabled().then(|| Seen::of(&found));
                break;
            }
        }
        Ok(())
    }

    /// The last bytes that were read of this file; begins anew where it is not the file that was read.
    fn resume(&self, note: &mut Note, opened: &Opened<'_>) -> io::Result<Last> {
        let Some(known) = note.file.as_ref().filter(|_| note.offset > 0) else {
            return Ok(Last::default());
        };
        let place = (opened.found.dev(), opened.found.ino(), opened.first);
        let may_be =
            opened.found.len() >= note.offset && place == (known.device, known.inode, known.first);
        if may_be {
            let last = Last::read(opened.file, note.offset, known.last_bytes)?;
            if last.digest() == known.last {
                return Ok(last);
            }
        }
        tracing::warn!(target: "arrakis::queue", path = note.path, read_bytes = note.offset,
            length_bytes = opened.found.len(),
            "a transcript was written anew; it is read again from its beginning");
        note.rewind();
        Ok(Last::default())
    }

    /// Reads the lines up to the end of `intent`.
    fn pass(
        &mut self,
        note: &mut Note,
        opened: &Opened<'_>,
        intent: Intent,
        last: &mut Last,
    ) -> Result<(), Failure> {
        let transcript = self.describe(note, opened.first);
        let mut slicer =
            Slicer::new(&transcript, note.offset, self.config.slices, &self.config.redactor);
        let mut lines = Lines::new(opened.file.try_clone()?, note.offset, intent.end)?;
        let mut noted = note.offset;
        let ended = loop {
            if self.shipper.stopped.load(Ordering::Relaxed) {
                break Ok(());
            }
            let (slice, end) = match lines.next(&self.shipper.stopped) {
                Ok(Some(Line::Whole(line))) => (slicer.push(line), line),
                Ok(Some(Line::Long(line, end))) => (slicer.push_long(line), end),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            if let Some(slice) = slice {
                self.take(slice, note, opened, intent, last)?;
                if note.offset - noted >= TRANSCRIPT_CHECKPOINT_BYTES {
                    self.shipper.save(note)?;
                    noted = note.offset;
                }
            }
            last.push(end);
        };
        // What was read before the file failed is kept.
        if let Some(slice) = slicer.finish() {
            self.take(slice, note, opened, intent, last)?;
        }
        Ok(ended?)
    }

    /// Pushes a slice; then all before its end is done with.
    fn take(
        &mut self,
        mut slice: Slice,
        note: &mut Note,
        opened: &Opened<'_>,
        intent: Intent,
        last: &Last,
    ) -> Result<(), ShipError> {
        if !slice.is_empty() {
            if note.intent.is_none() {
                note.intent = Some(intent);
                self.shipper.save(note)?;
            }
            let payload = std::mem::take(&mut slice.payload);
            let source = self.config.source.clone();
            let id = slice.request_id.clone();
            let mut envelope = Envelope::new(id, intent.at, &note.destination, source, payload);
            envelope.header.redacted = slice.removed.clone();
            self.shipper.take_room(self.config, envelope.payload.len() as u64)?;
            self.shipper.spool.push(&envelope)?;
            self.reading.slices += 1;
            tell(note, &slice);
        }
        note.offset = slice.end;
        note.count_unknown(&slice.unknown);
        note.file = Some(FileIdentity {
            device: opened.found.dev(),
            inode: opened.found.ino(),
            first: opened.first,
            last_bytes: last.len(),
            last: last.digest(),
        });
        (self.observe)(&slice);
        Ok(())
    }

    /// The transcript with what the file beside it says of its subagent.
    fn describe(&self, note: &Note, first: Digest) -> TranscriptFile {
        let mut transcript = TranscriptFile { identity: first.to_string(), ..note.transcript() };
        if let Some(agent) = &mut transcript.agent {
            let meta = meta(&note.path, &self.config.folders).unwrap_or_default();
            let text = |name: &str| meta[name].as_str().map(str::to_owned);
            agent.agent_type = text("agentType").or(agent.agent_type.take());
            agent.tool_use_id = text("toolUseId");
        }
        transcript
    }
}

/// Logs what became of a slice.
fn tell(note: &Note, slice: &Slice) {
    let Slice { request_id, start, end, lines, .. } = slice;
    tracing::info!(target: "arrakis::queue", %request_id, path = note.path, start, end, lines,
        "spooled a part of a transcript");
    if let Some(first) = slice.unreadable.first() {
        tracing::warn!(target: "arrakis::queue", %request_id, path = note.path,
            lines = slice.unreadable.len(), offset = first.offset, bytes = first.bytes,
            reason = first.reason, "a transcript has lines that cannot be read; the event names them");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}
