//! Going on with the log files as they grow.
//!
//! A file is known by its inode, so a rotation changes nothing: what is written to the renamed file by
//! somebody who had it open comes before what is written to the new one, and each line comes once.
//! Lines wait for a moment before they are shown, so that those of several files come in order.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::Timestamp;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::merge::{FileId, LINE_MAX_BYTES, Line, LogSource, Merge, Told, file_id, find, text_of};

/// How long a line waits for earlier ones from other files.
const WINDOW: Duration = Duration::from_millis(150);

/// How long to wait after a change for more of them: a busy log changes thousands of times a second.
const BREATH: Duration = Duration::from_millis(50);

/// How often to look where no change is told: the system may have no watches left.
const POLL: Duration = Duration::from_secs(1);

/// How much of a file is read at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Log files that are read on as they grow.
#[derive(Debug)]
pub(super) struct Follower {
    directory: PathBuf,
    tails: HashMap<FileId, Tail>,
    /// Lines that wait for earlier ones, with the time they came at.
    waiting: BinaryHeap<Reverse<Waiting>>,
    count: u64,
    told: Told,
    changes: Changes,
}

#[derive(Debug, PartialEq, Eq)]
struct Waiting {
    key: (Timestamp, u64),
    came: Instant,
    line: Line,
}

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

impl Follower {
    /// Follows the log files in `directory`; returns also what is in them already. Every line is in one
    /// or the other.
    pub(super) fn open(directory: &Path) -> io::Result<(Self, Merge)> {
        // Watched before it is looked at, so that no change falls between the two.
        let changes = Changes::new(directory);
        let mut sources = find(directory, |_| false)?;
        let mut tails = HashMap::new();
        for source in &mut sources {
            source.length = end_of_last_line(source)?;
            tails.insert(source.id, Tail::new(source)?);
        }
        let (waiting, count, told) = Default::default();
        let directory = directory.to_owned();
        Ok((Self { directory, tails, waiting, count, told, changes }, Merge::new(sources)?))
    }

    /// Takes over what was told of the lines that were there already.
    pub(super) fn goes_on_after(&mut self, told: Told) {
        self.told = told;
    }

    /// Waits until there may be something new to show.
    pub(super) async fn changed(&mut self) {
        let next = self.waiting.iter().map(|Reverse(waiting)| waiting.came + WINDOW).min();
        let poll = Instant::now() + POLL;
        let is_change = tokio::select! {
            () = self.changes.next() => true,
            () = tokio::time::sleep_until(next.unwrap_or(poll)) => false,
        };
        if is_change {
            tokio::time::sleep(BREATH).await;
        }
    }

    /// Reads what is new, and returns the lines that have waited long enough; all where it is `at_last`.
    pub(super) fn read(&mut self, at_last: bool) -> io::Result<Vec<Line>> {
        self.changes.recreate(&self.directory);
        for mut source in find(&self.directory, |id| self.tails.contains_key(&id))? {
            source.length = 0;
            self.tails.insert(source.id, Tail::new(&source)?);
        }
        let now = Instant::now();
        for tail in self.tails.values_mut() {
            tail.read(|line| {
                self.count += 1;
                let key = (line.at, self.count);
                self.waiting.push(Reverse(Waiting { key, came: now, line }));
            })?;
        }
        self.tails.retain(|_, tail| tail.file.metadata().is_ok_and(|found| found.nlink() > 0));
        let is_ripe = |waiting: &Waiting| at_last || waiting.came + WINDOW <= now;
        let waiting = self.waiting.iter().map(|Reverse(waiting)| waiting);
        let last = waiting.filter(|waiting| is_ripe(waiting)).map(|waiting| waiting.key).max();
        let mut lines = Vec::new();
        while self.waiting.peek().is_some_and(|Reverse(waiting)| Some(waiting.key) <= last) {
            let Some(Reverse(Waiting { line, .. })) = self.waiting.pop() else { break };
            if self.told.is_new(&line) {
                lines.push(line);
            }
        }
        Ok(lines)
    }
}

/// One file that is read on.
#[derive(Debug)]
struct Tail {
    file: File,
    name: Arc<str>,
    kind: usize,
    offset: u64,
    /// The beginning of a line whose end is not written yet.
    begun: Vec<u8>,
    last: Timestamp,
}

impl Tail {
    /// Goes on where the source ends.
    fn new(source: &LogSource) -> io::Result<Self> {
        Ok(Self {
            file: source.file.try_clone()?,
            name: Arc::clone(&source.name),
            kind: source.kind,
            offset: source.length,
            begun: Vec::new(),
            last: Timestamp::EPOCH,
        })
    }

    /// Reads every line that is whole. It does not move the place that the file is read at, which
    /// another reader shares.
    fn read(&mut self, mut take: impl FnMut(Line)) -> io::Result<()> {
        if self.file.metadata()?.len() < self.offset {
            // Somebody has emptied it.
            self.offset = 0;
            self.begun.clear();
        }
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = match self.file.read_at(&mut chunk, self.offset)? {
                0 => return Ok(()),
                count => count,
            };
            self.offset += count as u64;
            for part in chunk[..count].split_inclusive(|byte| *byte == b'\n') {
                let room = (LINE_MAX_BYTES as usize).saturating_sub(self.begun.len());
                self.begun.extend_from_slice(&part[..part.len().min(room)]);
                if part.last() != Some(&b'\n') {
                    continue;
                }
                if let Some(raw) = text_of(&self.begun) {
                    let line = Line::read(raw, &self.name, self.kind, self.last);
                    self.last = line.at;
                    take(line);
                }
                self.begun.clear();
            }
        }
    }
}

/// Where the last whole line of a file ends.
fn end_of_last_line(source: &LogSource) -> io::Result<u64> {
    let mut end = source.length;
    let mut chunk = vec![0; CHUNK_BYTES];
    while end > 0 {
        let start = end.saturating_sub(CHUNK_BYTES as u64);
        let part = &mut chunk[..(end - start) as usize];
        source.file.read_exact_at(part, start)?;
        if let Some(newline) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Tells when something in a directory has changed.
#[derive(Debug)]
struct Changes {
    changed: Arc<Notify>,
    /// Stops watching when dropped; none while the directory cannot be watched.
    watcher: Option<(RecommendedWatcher, FileId)>,
}

impl Changes {
    fn new(directory: &Path) -> Self {
        let mut changes = Self { changed: Arc::default(), watcher: None };
        changes.recreate(directory);
        changes
    }

    async fn next(&self) {
        self.changed.notified().await;
    }

    /// Watches the directory that is there now; a watch ends with the directory that it is on.
    fn recreate(&mut self, directory: &Path) {
        let there = directory.metadata().ok().map(|found| file_id(&found));
        if there.is_none() || self.watcher.as_ref().map(|(_, on)| *on) == there {
            return;
        }
        let changed = Arc::clone(&self.changed);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is no change.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                changed.notify_one();
            }
        });
        let watcher = watcher.and_then(|mut watcher| {
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        self.watcher = watcher.ok().zip(there);
    }
}
