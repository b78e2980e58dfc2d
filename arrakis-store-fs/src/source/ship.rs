//! Reading what transcripts have gained: which files, and what becomes of failures.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::envelope::Source;
use arrakis_core::base::limits::TRANSCRIPT_NOTE_MAX_AGE;
use arrakis_core::session::redact::Redactor;
use arrakis_core::session::transcript::{Slice, SliceConfig, TranscriptFile};
use parking_lot::Mutex;

use super::access::{allowed, elsewhere, followed, open, subagents};
use super::checkpoint::{Checkpoint, Checkpoints};
use super::pass::{Failure, Pass};
use super::room::Room;
use crate::spool::capacity::SpoolLimits;
use crate::spool::dir::SpoolDir;
use crate::spool::{Spool, SpoolError};

/// For how long a transcript that is not where events say is looked for in other folders.
const SEARCHED_FOR: Duration = Duration::from_secs(3600);

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
    /// How long the last line is that was left, because it is not written whole; 0 where none was.
    pub left_bytes: u64,
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
    /// The checkpoint cannot be saved.
    #[error("cannot note in {} how far {transcript} was read", .folder.display())]
    Checkpoint {
        /// The transcript.
        transcript: String,
        /// The directory of the checkpoints.
        folder: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// Reads transcripts into a spool.
#[derive(Debug)]
pub struct Shipper {
    pub(super) dir: SpoolDir,
    pub(super) spool: Spool,
    checkpoints: Checkpoints,
    config: Mutex<Arc<ShipConfig>>,
    pub(super) room: Room,
    pub(super) stopped: AtomicBool,
    /// Whether the log says already that the spool takes nothing.
    warned: AtomicBool,
}

impl Shipper {
    /// A shipper into the spool in `dir`.
    #[must_use]
    pub fn new(dir: impl Into<SpoolDir>, config: ShipConfig) -> Self {
        let dir = dir.into();
        Self {
            spool: Spool::new(dir.clone()).without_reserve(),
            checkpoints: Checkpoints::new(dir.clone()),
            dir,
            config: Mutex::new(Arc::new(config)),
            room: Room::default(),
            stopped: AtomicBool::new(false),
            warned: AtomicBool::new(false),
        }
    }

    /// Replaces the settings.
    pub fn configure(&self, config: ShipConfig) {
        *self.config.lock() = Arc::new(config);
    }

    /// Whether anything is read.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.config.lock().enabled && !self.stopped.load(Ordering::Relaxed)
    }

    /// Stops readings soon, and starts no new ones.
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
        let config = Arc::clone(&self.config.lock());
        allowed(path, &config.folders).map(drop)
    }

    /// Saves the first checkpoint of a transcript, unless it has one.
    ///
    /// # Errors
    ///
    /// It is not durable.
    pub fn register(&self, file: &TranscriptFile, destination: &str) -> Result<(), ShipError> {
        let known = self.load(&file.path)?.is_some();
        if known { Ok(()) } else { self.save(&Checkpoint::new(file, destination)) }
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
        let mut read = |file: &TranscriptFile| match self.read(
            file,
            destination,
            ReadMode::default(),
            &mut |_| {},
        ) {
            Ok(reading) => slices += reading.slices,
            Err(error) => failure = Some(error),
        };
        read(file);
        // Those of its subagents lie where the session's own does.
        let found = self.load(&file.path)?.and_then(|checkpoint| checkpoint.found_at);
        let path = found.unwrap_or_else(|| file.path.clone());
        self.subagents(&TranscriptFile { path, ..file.clone() }).iter().for_each(read);
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
        for checkpoint in
            self.checkpoints.all().map_err(|source| self.checkpoint_error("transcripts", source))?
        {
            if self.forget_old(&checkpoint)
                || (checkpoint.imported && !self.may_read(&checkpoint.path))
            {
                continue;
            }
            let file = checkpoint.transcript();
            let read = if file.agent.is_none() {
                self.read_session(&file, &checkpoint.destination)
            } else {
                let read =
                    self.read(&file, &checkpoint.destination, ReadMode::default(), &mut |_| {});
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
    /// the spool; also those that hold nothing worth sending. A file that another reader
    /// has locked is skipped, unless a user asked for this reading.
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
        if !mode.again
            && self.load(&file.path)?.is_some_and(|checkpoint| checkpoint.is_done(destination))
        {
            return Ok(reading);
        }
        let held = self.checkpoints.hold(&file.path, mode.asked);
        let held = held.map_err(|source| self.checkpoint_error(&file.path, source))?;
        let Some(_held) = held else { return Ok(reading) };
        let known = self.load(&file.path)?;
        let mut checkpoint = known.clone().unwrap_or_else(|| Checkpoint::new(file, destination));
        if mode.again {
            checkpoint.rewind();
        }
        checkpoint.imported = mode.imported && (known.is_none() || checkpoint.imported);
        // The receiver of today, not that of the last reading.
        checkpoint.destination = destination.to_owned();
        let config = Arc::clone(&self.config.lock());
        let mut pass = Pass { shipper: self, config: &config, observe, reading: &mut reading };
        if !self.locate(&mut checkpoint, mode, &config)? {
            return Ok(reading);
        }
        let found = match mode.asked {
            true => allowed(checkpoint.place(), &config.folders),
            false => followed(checkpoint.place(), &config.folders),
        };
        let read = match found.and_then(|path| open(&path)) {
            Ok(opened) => pass.read(&mut checkpoint, &opened),
            Err(error) => Err(Failure::File(error)),
        };
        let (trouble, failure) = match read {
            Ok(()) => (None, None),
            Err(Failure::Spool(error)) => (checkpoint.trouble.clone(), Some(error)),
            Err(Failure::File(error)) if error.kind() == io::ErrorKind::NotFound => {
                reading.is_missing = true;
                (None, None)
            }
            Err(Failure::File(error)) => (Some(error.to_string()), None),
        };
        self.tell(&checkpoint, &reading, trouble.as_deref());
        let is_gone =
            reading.is_missing || (trouble.is_some() && !Path::new(checkpoint.place()).exists());
        checkpoint.missing_since =
            is_gone.then(|| checkpoint.missing_since.unwrap_or_else(|| self.dir.now()));
        (reading.trouble, checkpoint.trouble) = (trouble.clone(), trouble);
        // A pass may have saved an intent meanwhile.
        let saved_before = self.load(&checkpoint.path).ok().flatten();
        let saved = if saved_before.as_ref() == Some(&checkpoint) {
            Ok(())
        } else {
            self.save(&checkpoint)
        };
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
        // Whoever finds the spool full logs that; the file waits.
        if !error.is_full() && !self.warned.swap(true, Ordering::Relaxed) {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(target: "arrakis::queue", %error, cause,
                "cannot spool what a transcript has gained; it is tried again");
        }
        None
    }

    /// Warns of what keeps a file from being read, when that is new.
    fn tell(&self, checkpoint: &Checkpoint, reading: &Reading, trouble: Option<&str>) {
        let path = &checkpoint.path;
        if let Some(trouble) =
            trouble.filter(|trouble| checkpoint.trouble.as_deref() != Some(*trouble))
        {
            tracing::warn!(target: "arrakis::queue", path, trouble, "cannot read a transcript");
        }
        if reading.is_missing && checkpoint.missing_since.is_none() && checkpoint.offset > 0 {
            tracing::warn!(target: "arrakis::queue", path, read_bytes = checkpoint.offset,
                "a transcript is gone; what it gained since it was read last is lost");
        }
    }

    /// Forgets a transcript that has been gone for long; says whether it was.
    fn forget_old(&self, checkpoint: &Checkpoint) -> bool {
        let now = self.dir.now();
        let is_old = |since: Timestamp| now.since(since) > TRANSCRIPT_NOTE_MAX_AGE;
        let is_gone =
            checkpoint.missing_since.is_some_and(is_old) && !Path::new(checkpoint.place()).exists();
        is_gone && self.checkpoints.forget(checkpoint).is_ok()
    }

    /// Finds out where the transcript of a checkpoint lies; says whether this checkpoint is the one to read it by.
    /// One whose file has moved to where events name it now has another checkpoint, and is forgotten.
    fn locate(
        &self,
        checkpoint: &mut Checkpoint,
        mode: ReadMode,
        config: &ShipConfig,
    ) -> Result<bool, ShipError> {
        if Path::new(&checkpoint.path).exists() {
            checkpoint.found_at = None;
            return Ok(true);
        }
        let is_there = checkpoint.found_at.as_deref().is_some_and(|path| Path::new(path).exists());
        let is_long_gone = |since: Timestamp| self.dir.now().since(since) > SEARCHED_FOR;
        if !is_there && (mode.asked || !checkpoint.missing_since.is_some_and(is_long_gone)) {
            let found = elsewhere(&checkpoint.path, &config.folders);
            checkpoint.found_at = found.and_then(|path| path.into_os_string().into_string().ok());
        }
        match &checkpoint.found_at {
            Some(path) if self.load(path)?.is_some() => {
                self.checkpoints.forget(checkpoint).ok(); // it may have none yet
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    /// The transcripts of the subagents of a session.
    fn subagents(&self, session: &TranscriptFile) -> Vec<TranscriptFile> {
        let Some(folder) = session.path.strip_suffix(".jsonl") else { return Vec::new() };
        let config = Arc::clone(&self.config.lock());
        if allowed(folder, &config.folders).is_ok() {
            subagents(session, Path::new(folder))
        } else {
            Vec::new()
        }
    }

    fn may_read(&self, path: &str) -> bool {
        let config = Arc::clone(&self.config.lock());
        followed(path, &config.folders).is_ok()
    }

    fn load(&self, path: &str) -> Result<Option<Checkpoint>, ShipError> {
        self.checkpoints.load(path).map_err(|source| self.checkpoint_error(path, source))
    }

    pub(super) fn save(&self, checkpoint: &Checkpoint) -> Result<(), ShipError> {
        self.checkpoints
            .save(checkpoint)
            .map_err(|source| self.checkpoint_error(&checkpoint.path, source))
    }

    fn checkpoint_error(&self, transcript: &str, source: io::Error) -> ShipError {
        let folder = self.dir.layout.transcripts();
        ShipError::Checkpoint { transcript: transcript.to_owned(), folder, source }
    }
}

impl ShipError {
    fn is_full(&self) -> bool {
        matches!(self, Self::HalfFull(_) | Self::Spool(SpoolError::Full(_)))
    }
}
