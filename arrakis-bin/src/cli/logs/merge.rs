//! Many log files as one, in time order, without holding them in memory.
//!
//! Several processes append to one file, so its lines are in order up to small inversions; and one
//! line may stand in several files. Each file is therefore read through a window that sorts, the
//! smallest head of all windows comes next, and a line that another kind of file has told already is
//! left out.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use arrakis_core::clock::Timestamp;
use serde_json::{Map, Value};

use crate::log_file::LOG_NAMES;

/// Longest line that is read, in bytes; of a longer one, the beginning.
const LINE_MAX_BYTES: u64 = 256 * 1024;

/// How many lines a line may stand too late in its file: far more than there are writers.
const WINDOW_LINES: usize = 64;

/// How many lines of one moment are remembered to recognize them in another file.
const REMEMBERED_LINES: usize = 256;

/// One line of a log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Its time; where it has none, the time of the line before it.
    pub(super) at: Timestamp,
    /// Its text, without the line break. What is not UTF-8 is replaced.
    pub(super) raw: String,
    /// Its fields, if it is a JSON object with a time.
    pub(super) fields: Option<Map<String, Value>>,
    /// The name of its file.
    pub(super) file: Arc<str>,
    /// Which of the four kinds of file.
    kind: usize,
}

/// The lines of all log files of a directory.
#[derive(Debug)]
pub(super) struct Merge {
    sources: Vec<Source>,
    moment: Timestamp,
    /// The lines of this moment that came last.
    told: VecDeque<Line>,
}

impl Merge {
    /// Opens the log files in `directory`, rotated ones too; not those that were last written before
    /// `since`. A directory that does not exist has no lines.
    pub(super) fn open(directory: &Path, since: Option<Timestamp>) -> io::Result<Self> {
        let mut sources = Vec::new();
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            entries => Some(entries?),
        };
        for entry in entries.into_iter().flatten() {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let Some(kind) = kind_of(&name) else { continue };
            // A pipe or a link of this name is none of ours.
            if !entry.file_type()?.is_file() {
                continue;
            }
            let file = match File::open(entry.path()) {
                // It was rotated away meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            let written = Timestamp::from(file.metadata()?.modified()?);
            if since.is_none_or(|since| written >= since) {
                sources.push(Source::new(BufReader::new(file), &name, kind));
            }
        }
        // Lines of one moment come in the same order at every run.
        sources.sort_by(|a, b| a.file.cmp(&b.file));
        for source in &mut sources {
            source.fill()?;
        }
        Ok(Self { sources, moment: Timestamp::EPOCH, told: VecDeque::new() })
    }

    /// The next line, told before or not.
    fn pop(&mut self) -> io::Result<Option<Line>> {
        let with_head = self.sources.iter_mut().filter(|source| !source.window.is_empty());
        let Some(source) = with_head.min_by_key(|source| source.head()) else { return Ok(None) };
        let line = source.window.pop().map(|Reverse(Waiting { line, .. })| line);
        source.fill()?;
        Ok(line)
    }

    fn was_told(&self, line: &Line) -> bool {
        self.told.iter().any(|told| told.kind != line.kind && told.raw == line.raw)
    }
}

impl Iterator for Merge {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = match self.pop() {
                Ok(line) => line?,
                Err(error) => {
                    // An error ends the iteration: the order of the rest could not be known.
                    self.sources.clear();
                    return Some(Err(error));
                }
            };
            if line.at != self.moment {
                self.moment = line.at;
                self.told.clear();
            }
            if line.fields.is_some() {
                if self.was_told(&line) {
                    continue;
                }
                if self.told.len() == REMEMBERED_LINES {
                    self.told.pop_front();
                }
                self.told.push_back(line.clone());
            }
            return Some(Ok(line));
        }
    }
}

/// One file, read through a window of sorted lines.
#[derive(Debug)]
struct Source {
    reader: BufReader<File>,
    file: Arc<str>,
    kind: usize,
    read: u64,
    last: Timestamp,
    window: BinaryHeap<Reverse<Waiting>>,
}

/// A line in a window: by time, then by its place in the file.
#[derive(Debug)]
struct Waiting {
    key: (Timestamp, u64),
    line: Line,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

impl Source {
    fn new(reader: BufReader<File>, file: &str, kind: usize) -> Self {
        Self {
            reader,
            file: file.into(),
            kind,
            read: 0,
            last: Timestamp::EPOCH,
            window: BinaryHeap::new(),
        }
    }

    fn head(&self) -> Option<Timestamp> {
        self.window.peek().map(|Reverse(waiting)| waiting.key.0)
    }

    /// Reads until the window is full or the file ends.
    fn fill(&mut self) -> io::Result<()> {
        while self.window.len() < WINDOW_LINES {
            let Some(raw) = self.read_line()? else { break };
            let fields: Option<Map<String, Value>> = serde_json::from_str(&raw).ok();
            let at =
                fields.as_ref().and_then(|fields| fields.get("timestamp")?.as_str()?.parse().ok());
            let fields = fields.filter(|_| at.is_some());
            let at = at.unwrap_or(self.last);
            self.last = at;
            self.read += 1;
            let line = Line { at, raw, fields, file: Arc::clone(&self.file), kind: self.kind };
            self.window.push(Reverse(Waiting { key: (at, self.read), line }));
        }
        Ok(())
    }

    /// The next line that is not empty.
    fn read_line(&mut self) -> io::Result<Option<String>> {
        loop {
            let mut bytes = Vec::new();
            let count = (&mut self.reader).take(LINE_MAX_BYTES).read_until(b'\n', &mut bytes)?;
            if count == 0 {
                return Ok(None);
            }
            if bytes.last() != Some(&b'\n') && count as u64 == LINE_MAX_BYTES {
                self.reader.skip_until(b'\n')?;
            }
            let line = String::from_utf8_lossy(&bytes);
            let line = line.trim_end_matches(['\n', '\r']);
            if !line.is_empty() {
                return Ok(Some(line.to_owned()));
            }
        }
    }
}

/// The kind of a log file, rotated or not; none where it is something else.
fn kind_of(name: &str) -> Option<usize> {
    let stem = name.strip_suffix(".log")?;
    LOG_NAMES.iter().position(|kind| {
        stem.strip_prefix(kind).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    })
}
