//! Setting aside what cannot be read: bytes intact, the reason in a file beside it.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::layout::{Layout, REASON_SUFFIX, Unreadable};

/// Moves `path` into quarantine.
pub(crate) fn quarantine(layout: &Layout, path: &Path, reason: &Unreadable) -> io::Result<()> {
    let name = path.file_name().unwrap_or_else(|| OsStr::new("unnamed"));
    let target = free_name(&layout.quarantine(), name);
    fs::rename(path, &target)?;
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(with_suffix(&target, REASON_SUFFIX))?;
    writeln!(file, "{reason}")?;
    tracing::error!(target: "arrakis::queue", file = %target.display(), %reason,
        "a spool file cannot be read; it is kept in quarantine");
    Ok(())
}

/// A name in `directory` that is not taken: `name`, or `name` with a number.
fn free_name(directory: &Path, name: &OsStr) -> PathBuf {
    let plain = directory.join(name);
    let numbered = (1..).map(|n| with_suffix(&plain, &format!(".{n}")));
    std::iter::once(plain.clone())
        .chain(numbered)
        .find(|path| path.symlink_metadata().is_err())
        .unwrap_or(plain)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
