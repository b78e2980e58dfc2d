//! Setting aside what cannot be read: bytes intact, the reason in a file beside it.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use arrakis_core::base::digest::Digest;

use crate::spool::dir::SpoolDir;
use crate::spool::format::Unreadable;
use crate::spool::layout::REASON_SUFFIX;

/// Longest name in quarantine, in bytes: file systems allow 255, and a number and
/// [`REASON_SUFFIX`] must fit behind it.
const NAME_MAX_BYTES: usize = 230;

/// Moves `path` into quarantine. Somebody else may have been quicker.
///
/// The reason is worth less than the queue's progress: on a full disk the entry is moved without.
pub(crate) fn quarantine(dir: &SpoolDir, path: &Path, reason: &Unreadable) -> io::Result<()> {
    let name = path.file_name().unwrap_or_else(|| OsStr::new("unnamed"));
    let target = free_name(&dir.layout.quarantine(), name);
    match dir.fs.rename(path, &target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !exists(path) => return Ok(()),
        renamed => renamed?,
    }
    tracing::error!(target: "arrakis::queue", file = %target.display(), %reason,
        "a spool file cannot be read; it is kept in quarantine");
    if let Err(error) = write_reason(dir, &target, reason) {
        tracing::warn!(target: "arrakis::queue", file = %target.display(), %error,
            "cannot write the reason beside a file in quarantine");
    }
    Ok(())
}

/// Writes why an entry is in quarantine.
pub(crate) fn write_reason(dir: &SpoolDir, entry: &Path, reason: &Unreadable) -> io::Result<()> {
    dir.fs.write(&reason_path(entry), format!("{reason}\n").as_bytes())
}

/// Where it is said why an entry is in quarantine.
pub(crate) fn reason_path(entry: &Path) -> PathBuf {
    with_suffix(entry, REASON_SUFFIX)
}

/// A name in `directory` that is not taken: `name`, or `name` with a number. A name that is too long
/// is cut, and its digest put behind.
pub(crate) fn free_name(directory: &Path, name: &OsStr) -> PathBuf {
    let bytes = name.as_bytes();
    let name = if bytes.len() > NAME_MAX_BYTES {
        let digest = Digest::of(bytes).to_string();
        let kept = &bytes[..NAME_MAX_BYTES - digest.len()];
        Cow::Owned([kept, digest.as_bytes()].concat())
    } else {
        Cow::Borrowed(bytes)
    };
    let plain = directory.join(OsStr::from_bytes(&name));
    let numbered = (1..).map(|n| with_suffix(&plain, &format!(".{n}")));
    std::iter::once(plain.clone()).chain(numbered).find(|path| !exists(path)).unwrap_or(plain)
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
