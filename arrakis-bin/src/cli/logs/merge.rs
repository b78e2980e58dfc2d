//! Many log files as one, in time order, without holding them in memory.
//!
//! Several processes append to one file, so its lines are in order up to small inversions; and one
//! line may stand in several files. Each file is therefore read through a window that sorts, the
//! smallest head of all windows comes next, and a line that another kind of file has told already is
//! left out.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, BufReader, Read, Take};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::Timestamp;
use serde_json::{Map, Value};

use crate::log_file::LOG_NAMES;

/// Longest line that is read, in bytes; of a longer one, the beginning.
pub(super) const LINE_MAX_BYTES: u64 = 256 * 1024;

/// How many lines a line may stand too late in its file: far more than there are writers.
const WINDOW_LINES: usize = 64;

/// How many lines are remembered to recognize them in another file.
const REMEMBERED_LINES: usize = 4096;

/// How far a line may stand behind a later one among those that are remembered.
const DISORDER: Duration = Duration::from_secs(1);

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

impl Line {
    /// A line of a file, whose line before had the time `last`.
    pub(super) fn read(raw: String, file: &Arc<str>, kind: usize, last: Timestamp) -> Self {
        let fields: Option<Map<String, Value>> = serde_json::from_str(&raw).ok();
        let at = fields.as_ref().and_then(|fields| fields.get("timestamp")?.as_str()?.parse().ok());
        let fields = fields.filter(|_| at.is_some());
        Self { at: at.unwrap_or(last), raw, fields, file: Arc::clone(file), kind }
    }
}

/// The text of a line without its line break; none where it is empty.
pub(super) fn text_of(bytes: &[u8]) -> Option<String> {
    let line = String::from_utf8_lossy(bytes);
    let line = line.trim_end_matches(['\n', '\r']);
    (!line.is_empty()).then(|| line.to_owned())
}

/// A log file that is open for reading.
#[derive(Debug)]
pub(super) struct LogSource {
    pub(super) file: File,
    pub(super) name: Arc<str>,
    /// Which of the four kinds of file.
    pub(super) kind: usize,
    /// What of it is read, in bytes.
    pub(super) length: u64,
    pub(super) id: FileId,
    written: Timestamp,
}

/// Opens the log files in `directory`, rotated ones too, but for those that `is_known`. A directory
/// that does not exist has none.
pub(super) fn find(
    directory: &Path,
    is_known: impl Fn(FileId) -> bool,
) -> io::Result<Vec<LogSource>> {
    let mut found = Vec::<LogSource>::new();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        entries => Some(entries?),
    };
    for entry in entries.into_iter().flatten() {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let Some(kind) = kind_of(&name) else { continue };
        // A pipe or a link of this name is none of ours, and opening it might wait.
        if !entry.metadata().is_ok_and(|found| found.is_file() && !is_known(file_id(&found))) {
            continue;
        }
        let file = match File::open(entry.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        let metadata = file.metadata()?;
        let (written, length) = (metadata.modified()?.into(), metadata.len());
        let id = file_id(&metadata);
        // One that is renamed while the directory is read may be met twice.
        if !is_known(id) && found.iter().all(|other| other.id != id) {
            found.push(LogSource { file, name: name.into(), kind, length, id, written });
        }
    }
    // Lines of one moment come in the same order at every run.
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// What a file is known by through its renames: device and inode.
pub(super) type FileId = (u64, u64);

/// What an open file, or one that was looked at, is known by.
pub(super) fn file_id(found: &Metadata) -> FileId {
    (found.dev(), found.ino())
}

/// The lines that came last, to recognize them in another kind of file.
#[derive(Debug, Default)]
pub(super) struct Told(VecDeque<Line>);

impl Told {
    /// Whether another kind of file has not told this line before; then it has now.
    pub(super) fn is_new(&mut self, line: &Line) -> bool {
        if line.fields.is_none() {
            return true;
        }
        let mut lately = self.0.iter().rev().take_while(|told| told.at.plus(DISORDER) >= line.at);
        if lately.any(|told| told.at == line.at && told.kind != line.kind && told.raw == line.raw) {
            return false;
        }
        if self.0.len() == REMEMBERED_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line.clone());
        true
    }
}

/// The lines of log files.
#[derive(Debug)]
pub(super) struct Merge {
    sources: Vec<Source>,
    told: Told,
}

impl Merge {
    /// Merges the log files in `directory`, but for those that were last written before `since`.
    pub(super) fn open(directory: &Path, since: Option<Timestamp>) -> io::Result<Self> {
        let mut sources = find(directory, |_| false)?;
        sources.retain(|source| since.is_none_or(|since| source.written >= since));
        Self::new(sources)
    }

    /// Merges these files, each as far as its length.
    pub(super) fn new(sources: Vec<LogSource>) -> io::Result<Self> {
        let mut sources: Vec<_> = sources.into_iter().map(Source::new).collect();
        for source in &mut sources {
            source.fill()?;
        }
        Ok(Self { sources, told: Told::default() })
    }

    /// What was told, for whoever goes on reading.
    pub(super) fn into_told(self) -> Told {
        self.told
    }

    /// The next line, told before or not.
    fn pop(&mut self) -> io::Result<Option<Line>> {
        let with_head = self.sources.iter_mut().filter(|source| !source.window.is_empty());
        let Some(source) = with_head.min_by_key(|source| source.head()) else { return Ok(None) };
        let line = source.window.pop().map(|Reverse(Waiting { line, .. })| line);
        source.fill()?;
        Ok(line)
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
            if self.told.is_new(&line) {
                return Some(Ok(line));
            }
        }
    }
}

/// One file, read through a window of sorted lines.
#[derive(Debug)]
struct Source {
    reader: BufReader<Take<File>>,
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
    fn new(LogSource { file, name, kind, length, .. }: LogSource) -> Self {
        Self {
            reader: BufReader::new(file.take(length)),
            file: name,
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
            let line = Line::read(raw, &self.file, self.kind, self.last);
            self.last = line.at;
            self.read += 1;
            self.window.push(Reverse(Waiting { key: (line.at, self.read), line }));
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
            if let Some(line) = text_of(&bytes) {
                return Ok(Some(line));
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
