//! From lines to slices.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;
use serde_json::value::RawValue;

use super::answers::Answers;
use super::damage::{self, Piece};
use super::line_type::{LineType, Named, count_line_type};
use super::sidechains::Sidechains;
use super::{TRANSCRIPT_EVENT, attached, thinking};
use crate::base::clock::Timestamp;
use crate::base::digest::{Digest, DigestBuilder};
use crate::base::envelope::Removed;
use crate::base::envelope::{Envelope, Source};
use crate::base::id::{self, RequestId};
use crate::base::limits::{
    SLICE_MAX_BYTES, SLICE_MAX_LINES, TRANSCRIPT_LINE_MAX_BYTES, UNKNOWN_LINE_MAX_BYTES,
    UNKNOWN_LINES_MAX_BYTES, UNREADABLE_TEXT_MAX_BYTES, cut,
};
use crate::session::hook::object;
use crate::session::redact::{Redacted, Redactor};

/// Names a transcript.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TranscriptFile {
    /// The session that it belongs to; for a subagent's transcript, that of its parent.
    pub session_id: String,
    /// Where it is, as the events name it.
    pub path: String,
    /// The session's working directory, where it is known.
    pub cwd: Option<String>,
    /// The subagent whose transcript it is; none is the session's own.
    pub agent: Option<TranscriptAgent>,
    /// What tells this file from another that was or will be at its path, such as device and inode. It
    /// is part of the request ids.
    pub identity: String,
}

/// A subagent that has a transcript of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TranscriptAgent {
    /// Its id.
    pub id: String,
    /// Its type, as the file beside the transcript says.
    pub agent_type: Option<String>,
    /// Claude Code's id of the tool use that started it, as the file beside the transcript says.
    pub tool_use_id: Option<String>,
}

/// What becomes of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceConfig {
    /// Whether the model's thinking is sent. Without it, only that there was some is sent, and no text of
    /// lines that may hold it: those that cannot be read or are of unknown types.
    pub thinking: bool,
}

impl Default for SliceConfig {
    fn default() -> Self {
        Self { thinking: true }
    }
}

/// A line that was not read whole because it has more than
/// [`TRANSCRIPT_LINE_MAX_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongLine<'a> {
    /// How long it is, its newline included.
    pub bytes: u64,
    /// The digest of all of it, its newline included.
    pub digest: Digest,
    /// Its beginning.
    pub head: &'a [u8],
}

/// A part of a transcript.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Names it. The same lines, cut and redacted in the same way, have the same id.
    pub request_id: RequestId,
    /// Where it begins in the file, in bytes.
    pub start: u64,
    /// Where it ends in the file, in bytes.
    pub end: u64,
    /// The digest of the file's bytes from start to end, where no line was too long; such a line counts
    /// as the 32 bytes of its own digest.
    pub digest: Digest,
    /// The payload of its event.
    pub payload: Vec<u8>,
    /// How many lines are in it.
    pub lines: usize,
    /// How many lines were left out because their type holds nothing of the conversation, by type.
    pub skipped: BTreeMap<String, u64>,
    /// How many lines are of types that this version does not know, or lack what every line of their type
    /// has, by type. The payload has those that are short.
    pub unknown: BTreeMap<String, u64>,
    /// The lines that could not be read.
    pub unreadable: Vec<Unreadable>,
    /// Whether it has lines of sidechains that name no subagent.
    pub has_sidechains: bool,
    /// What is known of the ids of answers behind it: where the next slice of the file goes on.
    pub answers: Answers,
    /// What redaction has removed from what is in it.
    pub removed: Removed,
}

impl Slice {
    /// Whether there is nothing in it that anybody could want: it need not be sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines == 0 && self.unreadable.is_empty()
    }

    /// The event that carries it.
    #[must_use]
    pub fn into_envelope(
        self,
        captured_at: Timestamp,
        destination: impl Into<String>,
        source: Source,
    ) -> Envelope {
        let Self { request_id, payload, removed, .. } = self;
        let mut envelope = Envelope::new(request_id, captured_at, destination, source, payload);
        envelope.header.redacted = removed;
        envelope
    }
}

/// Makes slices of the lines of a transcript, in memory that does not depend on how long it is.
///
/// A slice is full with [`SLICE_MAX_BYTES`] or [`SLICE_MAX_LINES`]; a line is never divided.
#[derive(Debug)]
pub struct Slicer<'a> {
    file: &'a TranscriptFile,
    config: SliceConfig,
    redactor: &'a Redactor,
    start: u64,
    /// Before this offset all lines are copies.
    copied: u64,
    sidechains: Sidechains,
    /// The ids of answers up to the line that is being taken, and up to the one before it.
    answers: Answers,
    answers_before: Answers,
    part: Part,
}

/// The slice that is being filled.
#[derive(Debug, Default)]
struct Part {
    /// How long the taken lines are in the file.
    taken: u64,
    /// How long the kept lines are.
    bytes: usize,
    digest: DigestBuilder,
    lines: Vec<Box<RawValue>>,
    /// Where its lines with titles begin in the file, in bytes.
    titles: Vec<u64>,
    skipped: BTreeMap<String, u64>,
    unknown: BTreeMap<String, u64>,
    /// How long the kept lines of unknown types are.
    unknown_bytes: usize,
    unreadable: Vec<Unreadable>,
    sidechains: BTreeMap<String, String>,
    answers: BTreeMap<String, u32>,
    removed: Removed,
}

/// A line, or a part of one, that could not be read, as a slice names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// How long it is, its newline included.
    pub bytes: u64,
    /// Why: `not_json`, `not_utf8` or `too_long`. What is not UTF-8 is kept as well, with U+FFFD in its place.
    pub reason: &'static str,
    /// The digest of all of it, its newline included.
    pub digest: Digest,
    /// Its beginning, redacted.
    pub text: String,
}

/// What becomes of a line.
enum Line {
    Kept(Kept),
    /// A title, which has no time: its place says which is the latest.
    Title(Kept),
    /// Of the conversation, but lacking something.
    Incomplete(String, Kept),
    Skipped(String),
    /// Of a type that is not known; the line where it may be kept.
    Unknown(String, Option<Kept>),
    Unreadable(&'static str),
    Blank,
    /// Parts of a line, and where they are in it.
    Parts(Vec<(Line, Range<usize>)>),
}

/// A line as it is kept, and what redaction has removed from it.
struct Kept {
    json: Box<RawValue>,
    removed: Removed,
    /// Its id, and that of the first line of its sidechain.
    sidechain: Option<(String, String)>,
    /// Its id, and which of the answers with the same id it belongs to, from the second on.
    answer: Option<(String, u32)>,
}

impl Kept {
    fn len(&self) -> usize {
        self.json.get().len()
    }
}

#[derive(Serialize)]
struct Payload<'a> {
    hook_event_name: &'static str,
    session_id: &'a str,
    transcript_path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cwd: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_tool_use_id: Option<&'a str>,
    start: u64,
    end: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    copied: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    sidechains: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    answers: &'a BTreeMap<String, u32>,
    lines: &'a [Box<RawValue>],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    titles: &'a [u64],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    skipped: &'a BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unknown: &'a BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    unreadable: &'a [Unreadable],
}

impl<'a> Slicer<'a> {
    /// A slicer of the lines of `file` from the offset `start` on, where a line begins.
    #[must_use]
    pub fn new(
        file: &'a TranscriptFile,
        start: u64,
        config: SliceConfig,
        redactor: &'a Redactor,
    ) -> Self {
        let (sidechains, answers, answers_before) =
            (Sidechains::default(), Answers::default(), Answers::default());
        let (copied, part) = (0, Part::default());
        Self { file, config, redactor, start, copied, sidechains, answers, answers_before, part }
    }

    /// The same slicer for a file whose lines before this offset are copies of those of another session. No slice has
    /// lines of both kinds.
    #[must_use]
    pub fn copied_until(self, offset: u64) -> Self {
        Self { copied: offset, ..self }
    }

    /// The same slicer, which goes on in these sidechains: those of the lines before the start.
    #[must_use]
    pub fn in_sidechains(self, sidechains: Sidechains) -> Self {
        Self { sidechains, ..self }
    }

    /// The same slicer, which goes on behind these answers: those of the lines before the start.
    #[must_use]
    pub fn behind_answers(self, answers: Answers) -> Self {
        Self { answers, ..self }
    }

    /// Takes the next line, with its newline if it has one. Returns the slice before it, where that is
    /// full.
    #[must_use = "the slice holds the lines before this one"]
    pub fn push(&mut self, line: &[u8]) -> Option<Slice> {
        let (bytes, digest) = (line.len() as u64, || Digest::of(line));
        self.answers_before.clone_from(&self.answers);
        let what = if line.len() > TRANSCRIPT_LINE_MAX_BYTES {
            Line::Unreadable("too_long")
        } else {
            self.read(line)
        };
        let full = self.make_room(&what);
        self.part.digest.update(line);
        self.take(what, 0, bytes, &digest, line);
        self.part.taken += bytes;
        full
    }

    /// Takes the next line where it is too long to be read whole. Returns the slice before it, where
    /// that is full.
    #[must_use = "the slice holds the lines before this one"]
    pub fn push_long(&mut self, line: LongLine<'_>) -> Option<Slice> {
        let what = Line::Unreadable("too_long");
        self.answers_before.clone_from(&self.answers);
        let full = self.make_room(&what);
        self.part.digest.update(line.digest.as_bytes());
        self.take(what, 0, line.bytes, &|| line.digest, line.head);
        self.part.taken += line.bytes;
        full
    }

    /// The slice of the lines that are left; none where no line came since the last slice.
    #[must_use]
    pub fn finish(mut self) -> Option<Slice> {
        self.answers_before.clone_from(&self.answers);
        self.close()
    }

    fn read(&mut self, line: &[u8]) -> Line {
        let place = damage::core(line);
        let record = &line[place.clone()];
        if record.is_empty() {
            return Line::Blank;
        }
        let text = String::from_utf8_lossy(record);
        if object::<Named<'_>>(text.as_bytes()).is_ok() {
            let read = self.read_record(text.as_bytes());
            return match text {
                Cow::Borrowed(_) => read,
                Cow::Owned(_) => {
                    Line::Parts(vec![(read, place), (Line::Unreadable("not_utf8"), 0..line.len())])
                }
            };
        }
        let pieces = damage::pieces(line);
        if pieces.is_empty() {
            return Line::Unreadable("not_json"); // or JSON that is no object
        }
        let parts = pieces.into_iter().map(|piece| match piece {
            Piece::Record(place) => (self.read_record(&line[place.clone()]), place),
            Piece::Rest(place) => (Line::Unreadable("not_json"), place),
        });
        Line::Parts(parts.collect())
    }

    fn read_record(&mut self, line: &[u8]) -> Line {
        let Ok(named) = object::<Named<'_>>(line) else {
            return Line::Unreadable("not_json");
        };
        let answer = self.answers.of(line, &named);
        // The client's requests are repeated in long lines: what is left out is not redacted first.
        if LineType::of(&named) == LineType::Other {
            return Line::Skipped(named.line_type.text().unwrap_or_default().into_owned());
        }
        let reduced = match LineType::of(&named) {
            LineType::Attached => match attached::reduced(line) {
                Some(reduced) => Cow::Owned(reduced),
                None => return Line::Unreadable("not_json"),
            },
            _ => Cow::Borrowed(line),
        };
        let Redacted { text: redacted, removed } = self.redactor.redact(&reduced);
        let Ok(named) = object::<Named<'_>>(&redacted) else {
            return Line::Unreadable("not_json");
        };
        let line_type = LineType::of(&named);
        if let LineType::Unknown(name) = &line_type {
            // It may be the model's thinking, in a form that is not known; without a type it is of no
            // transcript.
            let may_be_sent = self.config.thinking && named.line_type.text().is_some();
            if !may_be_sent || redacted.len() > UNKNOWN_LINE_MAX_BYTES {
                return Line::Unknown(name.clone(), None);
            }
        }
        let text = match std::str::from_utf8(&redacted) {
            Ok(text) if self.config.thinking => Some(Cow::Borrowed(text)),
            Ok(text) => thinking::left_out(text),
            Err(_) => return self.read(String::from_utf8_lossy(&redacted).as_bytes()),
        };
        let Some(text) = text else { return Line::Unreadable("not_json") };
        let kept = text.trim().to_owned();
        if kept.len() > TRANSCRIPT_LINE_MAX_BYTES {
            return Line::Unreadable("too_long"); // redacted, it is longer than it was
        }
        let Ok(json) = RawValue::from_string(kept) else { return Line::Unreadable("not_json") };
        let sidechain = self.sidechains.of(json.get());
        let kept = Kept { json, removed, sidechain, answer };
        match line_type {
            LineType::Unknown(name) => Line::Unknown(name, Some(kept)),
            LineType::Incomplete(name) => Line::Incomplete(name, kept),
            LineType::Title => Line::Title(kept),
            _ => Line::Kept(kept),
        }
    }

    /// Ends the slice before a line that does not fit into it.
    fn make_room(&mut self, line: &Line) -> Option<Slice> {
        let more = self.part.room_for(line);
        if more == 0 {
            return None;
        }
        let is_own = self.start + self.part.taken >= self.copied;
        if self.start < self.copied && is_own && self.part.taken > 0 {
            return self.close();
        }
        let lines = self.part.lines.len() + self.part.unreadable.len();
        let fits = self.part.bytes + more <= SLICE_MAX_BYTES && lines < SLICE_MAX_LINES;
        if fits || lines == 0 { None } else { self.close() }
    }

    /// Takes what is in the line that is next, `place` bytes behind its beginning.
    fn take(
        &mut self,
        what: Line,
        place: u64,
        bytes: u64,
        digest: &dyn Fn() -> Digest,
        line: &[u8],
    ) {
        let offset = self.start + self.part.taken + place;
        match what {
            Line::Kept(kept) => self.part.keep(kept),
            Line::Title(kept) => {
                self.part.titles.push(offset);
                self.part.keep(kept);
            }
            Line::Incomplete(name, kept) => {
                count_line_type(&mut self.part.unknown, &name, 1);
                self.part.keep(kept);
            }
            Line::Unknown(name, kept) => {
                count_line_type(&mut self.part.unknown, &name, 1);
                if let Some(kept) = kept.filter(|kept| self.part.has_room_for_unknown(kept)) {
                    self.part.unknown_bytes += kept.len();
                    self.part.keep(kept);
                }
            }
            Line::Unreadable(reason) => {
                // More than is shown is looked at, so that no secret stands half in what is shown.
                let head = &line[..line.len().min(SLICE_MAX_BYTES)];
                let Redacted { text, removed } = self.redactor.redact(head.trim_ascii());
                let text = String::from_utf8_lossy(&text);
                // What it is part of cannot be told: it may be thinking.
                let max = if self.config.thinking { UNREADABLE_TEXT_MAX_BYTES } else { 0 };
                let text = cut(&text, max).to_owned();
                if !text.is_empty() {
                    self.part.removed.add(&removed);
                }
                self.part.bytes += text.len();
                let digest = digest();
                self.part.unreadable.push(Unreadable { offset, bytes, reason, digest, text });
            }
            Line::Skipped(line_type) => count_line_type(&mut self.part.skipped, &line_type, 1),
            Line::Blank => {}
            Line::Parts(parts) => {
                for (part, place) in parts {
                    let line = &line[place.clone()];
                    let digest = || Digest::of(line);
                    self.take(part, place.start as u64, line.len() as u64, &digest, line);
                }
            }
        }
    }

    fn close(&mut self) -> Option<Slice> {
        let part = std::mem::take(&mut self.part);
        if part.taken == 0 {
            return None;
        }
        let (start, end) = (self.start, self.start + part.taken);
        self.start = end;
        let agent = self.file.agent.as_ref();
        let payload = Payload {
            hook_event_name: TRANSCRIPT_EVENT,
            session_id: &self.file.session_id,
            transcript_path: &self.file.path,
            cwd: self.file.cwd.as_deref(),
            agent_id: agent.map(|agent| agent.id.as_str()),
            agent_type: agent.and_then(|agent| agent.agent_type.as_deref()),
            agent_tool_use_id: agent.and_then(|agent| agent.tool_use_id.as_deref()),
            start,
            end,
            copied: start < self.copied,
            sidechains: &part.sidechains,
            answers: &part.answers,
            lines: &part.lines,
            titles: &part.titles,
            skipped: &part.skipped,
            unknown: &part.unknown,
            unreadable: &part.unreadable,
        };
        let payload = serde_json::to_vec(&payload).unwrap_or_default();
        let digest = part.digest.finish();
        // The payload's digest is part of the id: a line that is redacted by other rules than before
        // makes another event, not one that contradicts the first.
        let request_id = id::slice_id(&[
            &self.file.identity,
            &digest.to_string(),
            &Digest::of(&payload).to_string(),
        ]);
        Some(Slice {
            request_id,
            start,
            end,
            digest,
            payload,
            lines: part.lines.len(),
            skipped: part.skipped,
            unknown: part.unknown,
            unreadable: part.unreadable,
            has_sidechains: !part.sidechains.is_empty(),
            answers: self.answers_before.clone(),
            removed: part.removed,
        })
    }
}

impl Part {
    fn keep(&mut self, kept: Kept) {
        self.bytes += kept.len();
        self.removed.add(&kept.removed);
        self.sidechains.extend(kept.sidechain);
        self.answers.extend(kept.answer);
        self.lines.push(kept.json);
    }

    /// How much more a slice holds with this line, in bytes, at most.
    fn room_for(&self, line: &Line) -> usize {
        match line {
            Line::Kept(kept) | Line::Title(kept) | Line::Incomplete(_, kept) => kept.len(),
            Line::Unknown(_, Some(kept)) if self.has_room_for_unknown(kept) => kept.len(),
            Line::Unreadable(_) => UNREADABLE_TEXT_MAX_BYTES,
            Line::Unknown(..) | Line::Skipped(_) | Line::Blank => 0,
            Line::Parts(parts) => parts.iter().map(|(part, _)| self.room_for(part)).sum(),
        }
    }

    fn has_room_for_unknown(&self, kept: &Kept) -> bool {
        self.unknown_bytes + kept.len() <= UNKNOWN_LINES_MAX_BYTES
    }
}
