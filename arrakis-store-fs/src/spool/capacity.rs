//! How much a spool may hold, and the space that is set aside for a full disk.

use std::fs;
use std::io;
#[cfg(feature = "queue")]
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use arrakis_core::base::limits::{SPOOL_MAX_BYTES, SPOOL_MAX_FILES};

use crate::spool::SpoolError;
use crate::spool::dir::SpoolDir;
use crate::spool::layout::Layout;

/// Space that is set aside for the moment when the disk is full: room for a few hundred events of
/// usual size, or two large ones.
pub const RESERVE_BYTES: usize = 4 * 1024 * 1024;

/// What a spool may hold before it refuses new events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolLimits {
    /// Most events.
    pub max_files: u64,
    /// Most bytes.
    pub max_bytes: u64,
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self { max_files: SPOOL_MAX_FILES, max_bytes: SPOOL_MAX_BYTES }
    }
}

impl SpoolLimits {
    /// Whether a spool that holds so much refuses new events.
    #[must_use]
    pub fn are_reached(&self, files: u64, bytes: u64) -> bool {
        files >= self.max_files || bytes >= self.max_bytes
    }
}

/// Fails if the spool refuses new events.
pub(crate) fn check_not_full(layout: &Layout) -> Result<(), SpoolError> {
    if layout.full().exists() { Err(SpoolError::Full(layout.queue())) } else { Ok(()) }
}

/// Sets space aside for a full disk, unless that is done already.
pub(crate) fn set_reserve_aside(dir: &SpoolDir) -> io::Result<()> {
    let path = dir.layout.reserve();
    match fs::metadata(&path) {
        Ok(file) if file.len() == RESERVE_BYTES as u64 => return Ok(()),
        Ok(_) => dir.fs.remove(&path)?,
        Err(_) => {}
    }
    let mut file = dir.fs.create_new(&path)?;
    // Written out, not allocated sparsely: some file systems only promise what was written.
    let written = file.write_all(&vec![0; RESERVE_BYTES]).and_then(|()| file.sync());
    if written.is_err() {
        dir.fs.remove(&path).ok();
    }
    written
}

/// Sets space aside again that was given up, once there is twice as much.
#[cfg(feature = "queue")]
pub(crate) fn restore_reserve(dir: &SpoolDir) {
    let size = fs::metadata(dir.layout.reserve()).map_or(0, |found| found.len());
    let free = || dir.fs.free_bytes(&dir.layout.queue()).unwrap_or(0);
    if size != RESERVE_BYTES as u64
        && free() >= 2 * RESERVE_BYTES as u64
        && let Err(error) = set_reserve_aside(dir)
    {
        tracing::warn!(target: "arrakis::queue", %error, "cannot set space aside for a full disk");
    }
}

/// How full a spool was when it was counted last, less what has left since. It raises and lowers the flag
/// `full`.
#[cfg(feature = "queue")]
#[derive(Debug)]
pub(crate) struct Fill {
    limits: SpoolLimits,
    files: AtomicI64,
    bytes: AtomicI64,
    /// Whether the spool refuses new events because of what was counted here.
    full: AtomicBool,
}

#[cfg(feature = "queue")]
impl Fill {
    pub(crate) fn new(layout: &Layout, limits: SpoolLimits) -> Self {
        Self {
            limits,
            files: AtomicI64::new(i64::MAX),
            bytes: AtomicI64::new(i64::MAX),
            full: AtomicBool::new(layout.full().exists()),
        }
    }

    /// An event has left, so a spool that was full may have room again.
    pub(crate) fn left(&self, dir: &SpoolDir, bytes: u64) {
        let files = self.files.fetch_sub(1, Ordering::Relaxed);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let bytes = self.bytes.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        if self.full.load(Ordering::Relaxed) && !self.is_full(files - 1, bytes) {
            self.mark(dir, false).ok();
        }
    }

    /// So much waits: the spool refuses new events, or takes them again.
    pub(crate) fn counted(&self, dir: &SpoolDir, files: u64, bytes: u64) -> io::Result<()> {
        let [files, bytes] = [files, bytes].map(|count| i64::try_from(count).unwrap_or(i64::MAX));
        self.files.store(files, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        let full = self.is_full(files, bytes);
        if full && !dir.layout.full().exists() {
            tracing::error!(target: "arrakis::queue", files, bytes,
                "the spool is full and refuses new events until its receiver is back");
        }
        self.mark(dir, full)
    }

    /// More may have left than was counted.
    fn is_full(&self, files: i64, bytes: i64) -> bool {
        let [files, bytes] = [files, bytes].map(|count| u64::try_from(count).unwrap_or(0));
        self.limits.are_reached(files, bytes)
    }

    fn mark(&self, dir: &SpoolDir, full: bool) -> io::Result<()> {
        let flag = dir.layout.full();
        self.full.store(full, Ordering::Relaxed);
        match (full, flag.exists()) {
            (true, false) => dir.fs.write(&flag, b""),
            (false, true) => dir.fs.remove(&flag),
            _ => Ok(()),
        }
    }
}
