//! Log files that several processes write at once: one JSON object per line, rotated by size.
//!
//! A line is one `write` to a file opened for appending, so lines of different processes do not tear
//! each other; what a full disk has torn is ended before the next line. A line that is just being written
//! may look torn, too: then an empty one follows it, which readers pass over. Whoever finds the file at its
//! limit takes a lock, looks again, and renames it to a name with the time in it
//! (`webhook-error-20261124T101500.123456Z.log`); a line that another process writes meanwhile goes into
//! the renamed file and is not lost. Only the newest rotated files are kept.
//!
//! Nobody waits: where the lock is taken somebody else is rotating already, and a log that is no
//! regular file is not written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrakis_core::base::clock::{Clock, SystemClock};
use nix::fcntl::OFlag;
use serde_json::Value;

use crate::config::LogLimits;

/// The names of the log files, less their ending.
pub const LOG_NAMES: [&str; 4] =
    ["webhook-success", "webhook-error", "webhook-queue", "webhook-debug"];

/// The four log files of a home.
#[derive(Debug)]
pub struct LogFiles {
    /// Events that were delivered.
    pub success: LogFile,
    /// Warnings and errors.
    pub error: LogFile,
    /// What happens to each event.
    pub queue: LogFile,
    /// Everything.
    pub debug: LogFile,
}

impl LogFiles {
    /// The log files in `directory`. Nothing is created before the first line.
    #[must_use]
    pub fn new(directory: &Path, limits: LogLimits) -> Self {
        let [success, error, queue, debug] =
            LOG_NAMES.map(|name| LogFile::new(directory, name, limits));
        Self { success, error, queue, debug }
    }
}

/// One log file and its rotated predecessors.
#[derive(Debug)]
pub struct LogFile {
    directory: PathBuf,
    name: &'static str,
    limits: LogLimits,
    open: Mutex<Option<Open>>,
}

/// The file as it was found last.
#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
    /// Whether it ends within a line.
    is_torn: bool,
    since: Instant,
}

/// How long a file stays open: opening it for each line costs a busy server more than the line does, and
/// others rotate it meanwhile.
const STAYS_OPEN: Duration = Duration::from_secs(1);

impl LogFile {
    /// The file `<name>.log` in `directory`.
    #[must_use]
    pub fn new(directory: &Path, name: &'static str, limits: LogLimits) -> Self {
        Self { directory: directory.to_owned(), name, limits, open: Mutex::default() }
    }

    /// Appends one line, and rotates the file if that filled it. It waits for nobody.
    ///
    /// # Errors
    ///
    /// The line could not be written.
    pub fn append(&self, line: &Value) -> io::Result<()> {
        let path = self.directory.join(format!("{}.log", self.name));
        // The hook links this, and parking_lot is not in its tree.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let current = open.take().filter(|open| open.since.elapsed() < STAYS_OPEN);
        let mut current = current.map_or_else(|| self.open(&path), Ok)?;
        let mut bytes = Vec::with_capacity(256);
        if std::mem::take(&mut current.is_torn) {
            bytes.push(b'\n');
        }
        serde_json::to_writer(&mut bytes, line)?;
        bytes.push(b'\n');
        // A file that it could not be written to is looked at again before the next line.
        current.file.write_all(&bytes)?;
        current.bytes += bytes.len() as u64;
        if current.bytes < self.limits.max_bytes {
            *open = Some(current);
        } else {
            // The line is written; a file that could not be rotated now is rotated after another.
            self.rotate(&path).ok();
        }
        Ok(())
    }

    #[allow(clippy::disallowed_methods, reason = "a log file is written without a runtime too")]
    fn open(&self, path: &Path) -> io::Result<Open> {
        let file = match append_to(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                use std::os::unix::fs::DirBuilderExt;
                fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
                append_to(path)?
            }
            opened => opened?,
        };
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("the log is not a regular file"));
        }
        let bytes = found.len();
        let mut last = [b'\n'];
        let is_read = bytes > 0 && file.read_exact_at(&mut last, bytes - 1).is_ok();
        Ok(Open { bytes, is_torn: is_read && last != *b"\n", file, since: Instant::now() })
    }

    fn rotate(&self, path: &Path) -> io::Result<()> {
        let lock = append_to(&self.directory.join(".rotate.lock"))?;
        if lock.try_lock().is_err() {
            return Ok(());
        }
        // Another process may have been quicker, and nobody may have written since.
        match fs::metadata(path) {
            Ok(found) if found.len() >= self.limits.max_bytes => {}
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        let stamp: String =
            SystemClock.now().to_string().chars().filter(|c| !matches!(c, '-' | ':')).collect();
        fs::rename(path, self.directory.join(format!("{}-{stamp}.log", self.name)))?;
        let rotated = self.rotated()?;
        for old in &rotated[..rotated.len().saturating_sub(self.limits.keep)] {
            fs::remove_file(old)?;
        }
        Ok(())
    }

    /// The rotated files, oldest first.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn rotated(&self) -> io::Result<Vec<PathBuf>> {
        let prefix = format!("{}-", self.name);
        let mut rotated = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(&prefix) && name.ends_with(".log") {
                rotated.push(path);
            }
        }
        rotated.sort();
        Ok(rotated)
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // A FIFO of this name is not waited for.
    options.custom_flags(OFlag::O_NONBLOCK.bits());
    options.read(true).append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_rotated_and_the_newest_kept_with_no_line_torn() {
        let directory = tempfile::TempDir::new().unwrap();
        let logs = directory.path().join("logs");
        let limits = LogLimits { max_bytes: 20_000, keep: 100 };
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let log = LogFile::new(&logs, "webhook-error", limits);
                scope.spawn(move || {
                    for n in 0..500 {
                        let padding = "x".repeat(200);
                        log.append(&serde_json::json!({ "id": thread * 1000 + n, "p": padding }))
                            .unwrap();
                    }
                });
            }
        });
        let log = LogFile::new(&logs, "webhook-error", limits);
        let mut files = log.rotated().unwrap();
        // How many depends on who noticed: a file stays open for a moment.
        assert!(files.len() > 2, "{}", files.len());
        files.push(logs.join("webhook-error.log"));
        let mut ids: Vec<i64> = Vec::new();
        for file in files.iter().filter(|file| file.exists()) {
            for line in fs::read_to_string(file).unwrap().lines().filter(|line| !line.is_empty()) {
                ids.push(serde_json::from_str::<Value>(line).unwrap()["id"].as_i64().unwrap());
            }
        }
        ids.sort_unstable();
        let all: Vec<i64> = (0..4).flat_map(|t| (0..500).map(move |n| t * 1000 + n)).collect();
        assert_eq!(ids, all);

        let few = LogFile::new(&logs, "webhook-error", LogLimits { max_bytes: 1, keep: 2 });
        few.append(&serde_json::json!({})).unwrap();
        assert_eq!(few.rotated().unwrap().len(), 2);
    }

    #[test]
    fn a_torn_line_takes_no_other_with_it() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("webhook-error.log");
        fs::write(&path, "{\"torn\":").unwrap();
        let log = LogFile::new(directory.path(), "webhook-error", LogLimits::default());
        log.append(&serde_json::json!({ "n": 1 })).unwrap();
        log.append(&serde_json::json!({ "n": 2 })).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"torn\":\n{\"n\":1}\n{\"n\":2}\n");
    }

    #[test]
    fn nobody_waits_for_a_rotation_or_a_pipe() {
        let directory = tempfile::TempDir::new().unwrap();
        let limits = LogLimits { max_bytes: 1, keep: 2 };
        let log = LogFile::new(directory.path(), "webhook-error", limits);
        let rotating = append_to(&directory.path().join(".rotate.lock")).unwrap();
        rotating.lock().unwrap();
        log.append(&serde_json::json!({ "n": 1 })).unwrap();
        assert_eq!(log.rotated().unwrap(), [] as [PathBuf; 0]);
        drop(rotating);
        log.append(&serde_json::json!({ "n": 2 })).unwrap();
        let rotated = log.rotated().unwrap();
        assert_eq!(fs::read_to_string(&rotated[0]).unwrap(), "{\"n\":1}\n{\"n\":2}\n");

        let pipe = directory.path().join("webhook-queue.log");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let log = LogFile::new(directory.path(), "webhook-queue", limits);
        assert!(log.append(&serde_json::json!({ "n": 1 })).is_err());
    }
}
