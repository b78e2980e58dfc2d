//! Reading one transcript: its new lines become slices, and the slices are pushed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use arrakis_core::base::digest::Digest;
use arrakis_core::base::envelope::Envelope;
use arrakis_core::base::limits::TRANSCRIPT_CHECKPOINT_BYTES;
use arrakis_core::session::transcript::{
    Copies, Repeats, Sidechains, Slice, Slicer, TranscriptFile,
};

use super::access::{allowed, meta, open};
use super::checkpoint::{Checkpoint, Fingerprint, Intent, Seen};
use super::reader::{Last, Line, Lines, first_line, is_whole};
use super::ship::{Reading, ShipConfig, ShipError, Shipper};

/// Why a pass ended.
pub(super) enum Failure {
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
pub(super) struct Pass<'a> {
    pub(super) shipper: &'a Shipper,
    pub(super) config: &'a ShipConfig,
    pub(super) observe: &'a mut dyn FnMut(&Slice),
    pub(super) reading: &'a mut Reading,
}

/// What stays the same while a file is read.
struct Opened<'a> {
    file: &'a File,
    found: fs::Metadata,
    first: Digest,
}

impl Pass<'_> {
    /// Reads until there is no whole line left. A last line needs no newline if it is whole without it.
    pub(super) fn read(&mut self, checkpoint: &mut Checkpoint, file: &File) -> Result<(), Failure> {
        let found = file.metadata()?;
        let Some(first) = first_line(file)? else {
            checkpoint.seen = Some(Seen::of(&found));
            return Ok(());
        };
        let opened = Opened { file, found, first };
        let mut last = self.resume(checkpoint, &opened)?;
        while self.shipper.is_enabled() {
            let found = file.metadata()?;
            let (start, length) = (checkpoint.offset, found.len());
            // Where the file ends before the intent, that is of a file that was.
            checkpoint.intent =
                checkpoint.intent.filter(|intent| (start + 1..=length).contains(&intent.end));
            let had_intent = checkpoint.intent.is_some();
            let new = || Intent { end: length, at: self.shipper.dir.now() };
            let intent = checkpoint.intent.unwrap_or_else(new);
            let passed = self.pass(checkpoint, &opened, intent, &mut last);
            if !matches!(passed, Err(Failure::Spool(_))) {
                checkpoint.intent = None;
            }
            passed?;
            if checkpoint.offset == start && !had_intent {
                // One that has a half line at its end, however long, is read again when it has changed.
                checkpoint.seen = self.shipper.is_enabled().then(|| Seen::of(&found));
                break;
            }
        }
        Ok(())
    }

    /// The last bytes that were read of this file; begins anew where it is not the file that was read.
    fn resume(&self, checkpoint: &mut Checkpoint, opened: &Opened<'_>) -> io::Result<Last> {
        let Some(known) = checkpoint.file.as_ref().filter(|_| checkpoint.offset > 0) else {
            return Ok(Last::default());
        };
        let place = (opened.found.dev(), opened.found.ino(), opened.first);
        let may_be = opened.found.len() >= checkpoint.offset
            && place == (known.device, known.inode, known.first);
        if may_be {
            let last = Last::read(opened.file, checkpoint.offset, known.last_bytes)?;
            if last.digest() == known.last {
                return Ok(last);
            }
        }
        tracing::warn!(target: "arrakis::queue", path = checkpoint.path, read_bytes = checkpoint.offset,
            length_bytes = opened.found.len(),
            "a transcript was written anew; it is read again from its beginning");
        checkpoint.rewind();
        Ok(Last::default())
    }

    /// Reads the lines up to the end of `intent`.
    fn pass(
        &mut self,
        checkpoint: &mut Checkpoint,
        opened: &Opened<'_>,
        intent: Intent,
        last: &mut Last,
    ) -> Result<(), Failure> {
        self.reading.left_bytes = 0;
        let transcript = self.describe(checkpoint, opened.first);
        self.look_for_copies(checkpoint, opened, intent.end)?;
        let mut slicer =
            Slicer::new(&transcript, checkpoint.offset, self.config.slices, &self.config.redactor)
                .copied_until(checkpoint.copied)
                .in_sidechains(self.sidechains(checkpoint, opened)?)
                .behind_answers(checkpoint.answers.clone());
        let mut lines = Lines::new(opened.file.try_clone()?, checkpoint.offset, intent.end)?;
        let mut saved = checkpoint.offset;
        let ended = loop {
            if self.shipper.stopped.load(Ordering::Relaxed) {
                break Ok(());
            }
            let (slice, end) = match lines.next(&self.shipper.stopped) {
                Ok(Some(Line::Whole(line))) => (slicer.push(line), line),
                Ok(Some(Line::Long(line, end))) => (slicer.push_long(line), end),
                Ok(Some(Line::Last(line))) if is_whole(line) => (slicer.push(line), line),
                Ok(Some(Line::Last(line))) => {
                    self.reading.left_bytes = line.len() as u64;
                    break Ok(());
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            if let Some(slice) = slice {
                self.take(slice, checkpoint, opened, intent, last)?;
                if checkpoint.offset - saved >= TRANSCRIPT_CHECKPOINT_BYTES {
                    self.shipper.save(checkpoint)?;
                    saved = checkpoint.offset;
                }
            }
            last.push(end);
        };
        // What was read before the file failed is kept.
        if let Some(slice) = slicer.finish() {
            self.take(slice, checkpoint, opened, intent, last)?;
        }
        Ok(ended?)
    }

    /// Finds out what of the file up to `end` is a copy of another session's, unless that is known.
    fn look_for_copies(
        &self,
        checkpoint: &mut Checkpoint,
        opened: &Opened<'_>,
        end: u64,
    ) -> io::Result<()> {
        if checkpoint.copies_over {
            return Ok(());
        }
        if checkpoint.agent_id.is_some() {
            return self.look_for_repeats(checkpoint, opened, end);
        }
        let mut copies = Copies::new(checkpoint.copied, checkpoint.offset);
        let mut lines = Lines::new(opened.file.try_clone()?, checkpoint.offset, end)?;
        while !copies.is_over {
            match lines.next(&self.shipper.stopped)? {
                Some(Line::Whole(line)) => copies.look(line, &checkpoint.session_id),
                Some(Line::Long(line, _)) => copies.pass_over(line.bytes),
                Some(Line::Last(_)) | None => break,
            }
        }
        (checkpoint.copied, checkpoint.copies_over) = (copies.end, copies.is_over);
        Ok(())
    }

    /// Finds out what of a subagent's transcript up to `end` repeats the main thread. Few do: where the first line does not,
    /// no other is looked at.
    fn look_for_repeats(
        &self,
        checkpoint: &mut Checkpoint,
        opened: &Opened<'_>,
        end: u64,
    ) -> io::Result<()> {
        let mut lines = Lines::new(opened.file.try_clone()?, checkpoint.copied, end)?;
        let Some(Line::Whole(first)) = lines.next(&self.shipper.stopped)? else { return Ok(()) };
        let first = first.to_vec();
        let mut repeats = Repeats::default();
        if let Some(main) = main_of(checkpoint, &self.config.folders)
            && mentions(&main, &first, &self.shipper.stopped)?
        {
            let mut lines = Lines::new(main.try_clone()?, 0, main.metadata()?.len())?;
            while let Some(line) = lines.next(&self.shipper.stopped)? {
                if let Line::Whole(line) = line {
                    repeats.look(line);
                }
            }
        }
        let mut line = Some(Line::Whole(&first));
        while let Some(Line::Whole(text)) = line {
            checkpoint.copies_over = !repeats.has(text);
            if checkpoint.copies_over {
                break;
            }
            checkpoint.copied += text.len() as u64;
            line = lines.next(&self.shipper.stopped)?;
        }
        Ok(())
    }

    /// The sidechains of what was read before, where there are any.
    fn sidechains(&self, checkpoint: &Checkpoint, opened: &Opened<'_>) -> io::Result<Sidechains> {
        let mut sidechains = Sidechains::default();
        if checkpoint.has_sidechains {
            let mut lines = Lines::new(opened.file.try_clone()?, 0, checkpoint.offset)?;
            while let Some(line) = lines.next(&self.shipper.stopped)? {
                if let Line::Whole(line) | Line::Last(line) = line {
                    sidechains.look(line);
                }
            }
        }
        Ok(sidechains)
    }

    /// Pushes a slice; then all before its end is done with.
    fn take(
        &mut self,
        mut slice: Slice,
        checkpoint: &mut Checkpoint,
        opened: &Opened<'_>,
        intent: Intent,
        last: &Last,
    ) -> Result<(), ShipError> {
        if !slice.is_empty() {
            if checkpoint.intent.is_none() {
                checkpoint.intent = Some(intent);
                self.shipper.save(checkpoint)?;
            }
            let payload = std::mem::take(&mut slice.payload);
            let source = self.config.source.clone();
            let id = slice.request_id.clone();
            let mut envelope =
                Envelope::new(id, intent.at, &checkpoint.destination, source, payload);
            envelope.header.redacted = slice.removed.clone();
            let (layout, bytes) = (&self.shipper.dir.layout, envelope.payload.len() as u64);
            let room = self.shipper.room.take(layout, self.config.limits, bytes);
            room.map_err(ShipError::HalfFull)?;
            self.shipper.spool.push(&envelope)?;
            self.reading.slices += 1;
            tell(checkpoint, &slice);
        }
        checkpoint.offset = slice.end;
        checkpoint.count_unknown(&slice.unknown);
        checkpoint.has_sidechains |= slice.has_sidechains;
        checkpoint.answers.clone_from(&slice.answers);
        checkpoint.file = Some(Fingerprint {
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
    fn describe(&self, checkpoint: &Checkpoint, first: Digest) -> TranscriptFile {
        let mut transcript = TranscriptFile {
            identity: first.to_string(),
            path: checkpoint.place().to_owned(),
            ..checkpoint.transcript()
        };
        if let Some(agent) = &mut transcript.agent {
            let meta = meta(checkpoint.place(), &self.config.folders).unwrap_or_default();
            let text = |name: &str| meta[name].as_str().map(str::to_owned);
            agent.agent_type = text("agentType").or(agent.agent_type.take());
            agent.tool_use_id = text("toolUseId");
        }
        transcript
    }
}

/// The transcript of the session that a subagent's belongs to: it lies beside the folder that has the session's name.
fn main_of(checkpoint: &Checkpoint, folders: &[PathBuf]) -> Option<File> {
    let place = Path::new(checkpoint.place());
    let is_named = |folder: &&Path| {
        folder.file_name().is_some_and(|name| name.to_str() == Some(&*checkpoint.session_id))
    };
    let folder = place.ancestors().find(is_named)?;
    let mut main = folder.as_os_str().to_owned();
    main.push(".jsonl");
    // What a person has imported may lie anywhere, beside its own transcript.
    let real = match allowed(main.to_str()?, folders) {
        Ok(real) => real,
        Err(_) if checkpoint.imported => main.into(),
        Err(_) => return None,
    };
    open(&real).ok()
}

/// Whether a file has the id of this line somewhere.
fn mentions(file: &File, line: &[u8], stopped: &AtomicBool) -> io::Result<bool> {
    let Some(id) = Repeats::id_of(line) else { return Ok(false) };
    let mut lines = Lines::new(file.try_clone()?, 0, file.metadata()?.len())?;
    while let Some(line) = lines.next(stopped)? {
        if let Line::Whole(line) = line
            && std::str::from_utf8(line).is_ok_and(|line| line.contains(&id))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Logs what became of a slice.
fn tell(checkpoint: &Checkpoint, slice: &Slice) {
    let Slice { request_id, start, end, lines, .. } = slice;
    tracing::info!(target: "arrakis::queue", %request_id, path = checkpoint.path, start, end, lines,
        "spooled a part of a transcript");
    if let Some(first) = slice.unreadable.first() {
        tracing::warn!(target: "arrakis::queue", %request_id, path = checkpoint.path,
            lines = slice.unreadable.len(), offset = first.offset, bytes = first.bytes,
            reason = first.reason, "a transcript has lines that cannot be read; the event names them");
    }
}
