//! Reads a settings file, and replaces it so that nobody ever sees half of it.
//!
//! A new text is written beside the file, flushed to the disk and renamed over it; where the path is a
//! symbolic link, over the file that it leads to. Mode and owner stay. A backup is a copy of the old
//! bytes: `settings.json.arrakis-backup-<UTC time>`.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use arrakis_core::base::clock::Timestamp;

/// Largest settings file that is read: 4 MiB. Real ones have a few kilobytes.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Most names that are tried for a file that must not exist yet.
const MAX_NAMES: u32 = 100;

const BACKUP_MARK: &str = ".arrakis-backup-";

/// A settings file as it was read.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Where the file is, links followed.
    target: PathBuf,
    /// Where people know it to be.
    path: PathBuf,
    /// What was read; none where there is no file yet.
    text: Option<String>,
}

/// Why a snapshot was not replaced.
#[derive(Debug)]
pub(super) enum ReplaceError {
    /// Somebody else wrote the file after it was read.
    Changed,
    /// The system said no.
    Io(io::Error),
}

impl From<io::Error> for ReplaceError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Snapshot {
    /// Reads the file at `path`, which need not exist.
    ///
    /// # Errors
    ///
    /// It cannot be read, is no regular file, is too large or is not UTF-8.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let target = match fs::canonicalize(path) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if fs::symlink_metadata(path).is_ok() {
                    return Err(io::Error::other("it is a symbolic link that leads nowhere"));
                }
                path.to_owned()
            }
            Err(error) => return Err(error),
        };
        let text = read_text(&target)?;
        Ok(Self { target, path: path.to_owned(), text })
    }

    /// What was read; empty where there is no file yet.
    pub(super) fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }

    /// Whether there was a file.
    pub(super) fn exists(&self) -> bool {
        self.text.is_some()
    }

    /// The file that is read and replaced, links followed.
    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// Replaces the file by `text`. Returns the backup of what was there.
    ///
    /// # Errors
    ///
    /// The file is as it was.
    pub(super) fn replace(
        &self,
        text: &str,
        now: Timestamp,
    ) -> Result<Option<PathBuf>, ReplaceError> {
        let directory = self.target.parent().unwrap_or(Path::new("/"));
        if self.text.is_none() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let unchanged = || Ok::<_, io::Error>(read_text(&self.target)? == self.text);
        if !unchanged()? {
            return Err(ReplaceError::Changed);
        }
        let like = self.text.as_ref().map(|_| fs::metadata(&self.target)).transpose()?;
        let backup = match &self.text {
            Some(old) => Some(self.write_backup(old, now, like.as_ref())?),
            None => None,
        };
        let new = write_new(&with_suffix(&self.target, ".arrakis-new"), text, like.as_ref())?;
        let renamed = match unchanged() {
            Ok(true) => fs::rename(&new, &self.target).map_err(ReplaceError::Io),
            Ok(false) => Err(ReplaceError::Changed),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = renamed {
            // Nothing happened, so nothing is left behind.
            for file in backup.iter().chain([&new]) {
                fs::remove_file(file).ok();
            }
            return Err(error);
        }
        File::open(directory)?.sync_all()?;
        Ok(backup)
    }

    /// The backups of this file, newest first.
    pub(super) fn backups(&self) -> Vec<PathBuf> {
        let prefix = with_suffix(&self.path, BACKUP_MARK);
        let Some(directory) = self.path.parent() else { return Vec::new() };
        let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
        let is_backup = |path: &PathBuf| {
            path.as_os_str().as_encoded_bytes().starts_with(prefix.as_os_str().as_encoded_bytes())
        };
        let mut backups: Vec<PathBuf> =
            entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_backup).collect();
        backups.sort_unstable_by(|a, b| b.cmp(a));
        backups
    }

    fn write_backup(
        &self,
        old: &str,
        now: Timestamp,
        like: Option<&fs::Metadata>,
    ) -> io::Result<PathBuf> {
        let time: String = now.to_string().chars().filter(|c| !matches!(c, '-' | ':')).collect();
        write_new(&with_suffix(&self.path, &format!("{BACKUP_MARK}{time}")), old, like)
    }
}

/// The text of the file at `path`; none where there is no file.
pub(super) fn read_text(path: &Path) -> io::Result<Option<String>> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata?,
    };
    // Opening a pipe would wait for its other end.
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("it is larger than 4 MiB, too large for settings"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        io::Error::other(format!("it is not UTF-8: byte {at} is wrong"))
    })?;
    Ok(Some(text))
}

/// Writes `text` durably to a new file of this name, or of this name and a number. Mode and owner are
/// those of `like`; 0600 and the caller where there is none.
fn write_new(path: &Path, text: &str, like: Option<&fs::Metadata>) -> io::Result<PathBuf> {
    let (mut file, path) = create_new(path)?;
    let written = (|| {
        if let Some(like) = like {
            let mine = file.metadata()?;
            if (mine.uid(), mine.gid()) != (like.uid(), like.gid()) {
                fchown(&file, Some(like.uid()), Some(like.gid()))?;
            }
            file.set_permissions(Permissions::from_mode(like.mode() & 0o777))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()
    })();
    if let Err(error) = written {
        fs::remove_file(&path).ok();
        return Err(error);
    }
    Ok(path)
}

fn create_new(path: &Path) -> io::Result<(File, PathBuf)> {
    let mut names = (1..MAX_NAMES).map(|n| match n {
        1 => path.to_owned(),
        n => with_suffix(path, &format!("-{n}")),
    });
    loop {
        let Some(path) = names.next() else {
            return Err(io::Error::other(format!("too many files like {}", path.display())));
        };
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return Ok((opened?, path)),
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_somebody_else_wrote_meanwhile_is_left_to_them() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("settings.json");
        for (before, theirs) in
            [(Some("{}"), Some("{\"a\":1}")), (None, Some("{}")), (Some("{}"), None)]
        {
            fs::remove_file(&path).ok();
            before.map(|text| fs::write(&path, text)).transpose().unwrap();
            let snapshot = Snapshot::read(&path).unwrap();
            fs::remove_file(&path).ok();
            theirs.map(|text| fs::write(&path, text)).transpose().unwrap();
            let replaced = snapshot.replace("mine", Timestamp::EPOCH);
            assert!(matches!(replaced, Err(ReplaceError::Changed)), "{replaced:?}");
            assert_eq!(read_text(&path).unwrap().as_deref(), theirs);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), usize::from(theirs.is_some()));
        }
    }

    #[test]
    fn what_is_no_text_file_is_refused() {
        let dir = tempfile::TempDir::new().unwrap();
        let told = |path: &Path| Snapshot::read(path).unwrap_err().to_string();
        assert!(told(dir.path()).contains("not a regular file"));
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(told(&pipe).contains("not a regular file"));
        let large = dir.path().join("large");
        File::create(&large).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(told(&large).contains("too large"));
    }
}
