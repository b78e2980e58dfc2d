//! Making a file durable, step by step, over a file system that can be replaced.
//!
//! The order is what durability consists of:
//!
//! 1. create the file in `tmp/`, exclusively;
//! 2. write it;
//! 3. fsync it: before the rename, or a crash could leave the name with no content;
//! 4. rename it to where it belongs;
//! 5. fsync that directory, or a crash could take the name away.
//!
//! An fsync that failed may have thrown the data away and succeed the next time, so after any failure
//! the file is written anew.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::statvfs::statvfs;
use nix::sys::time::TimeSpec;

/// Every call that changes a spool, so that tests can let each of them fail, or take the power away between
/// two.
///
/// Three things go to the machine's own file system:
///
/// * reading: what a reader does about a failure does not depend on which call failed;
/// * lock files, `observed` among them: a lock means something while its process lives, and a crash may take the
///   file or its last seconds;
/// * the records that are appended to `tally`: see [`counters`](crate::spool::counters) for what their loss means.
pub trait FileSystem: fmt::Debug + Send + Sync + 'static {
    /// Creates a file that is not there yet, 0600.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>>;

    /// Renames a file.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// Creates a directory, 0700, and returns whether it did; one that is there already is fine.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    fn create_directory(&self, path: &Path) -> io::Result<bool>;

    /// Removes an empty directory.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    fn remove_directory(&self, path: &Path) -> io::Result<()>;

    /// Writes a small file, 0600, in place of what it held. It is not durable.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Appends to a file, 0600, and makes the content durable. A file that is not there is created, which is
    /// durable only once its directory is synced.
    ///
    /// # Errors
    ///
    /// As the operating system says; a part of `bytes` may be there.
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Gives a regular file a second name, unless somebody has that name.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Sets when a file was last modified, in seconds since 1970. A link is not followed.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    fn set_modified(&self, path: &Path, seconds: i64) -> io::Result<()>;

    /// How many bytes this user may still write where `path` is.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// A file that is being written.
pub trait NewFile {
    /// Writes all of `bytes`.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes the content durable.
    ///
    /// # Errors
    ///
    /// As the operating system says.
    fn sync(&mut self) -> io::Result<()>;
}

/// The machine's own file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFileSystem;

#[allow(clippy::disallowed_methods, reason = "this is what the others are to call")]
impl FileSystem for RealFileSystem {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn create_directory(&self, path: &Path) -> io::Result<bool> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
                Ok(false)
            }
            result => result.map(|()| true),
        }
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Write::write_all(&mut file, bytes)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        Write::write_all(&mut file, bytes)?;
        file.sync_data()
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn set_modified(&self, path: &Path, seconds: i64) -> io::Result<()> {
        let (omit, modified) = (TimeSpec::UTIME_OMIT, TimeSpec::new(seconds, 0));
        Ok(utimensat(AT_FDCWD, path, &omit, &modified, UtimensatFlags::NoFollowSymlink)?)
    }

    #[allow(clippy::useless_conversion, reason = "systems differ in the types")]
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let found = statvfs(path)?;
        Ok(u64::from(found.blocks_available()) * u64::from(found.fragment_size()))
    }
}

impl NewFile for File {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(self, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// Writes `parts` to `temporary` and moves the file to `target`, durably.
///
/// # Errors
///
/// The file may or may not be at `target`, and is not known to be durable; `temporary` is removed
/// where possible, unless it was there before.
pub fn write_durably(
    fs: &dyn FileSystem,
    temporary: &Path,
    target: &Path,
    parts: &[&[u8]],
) -> io::Result<()> {
    let mut file = fs.create_new(temporary)?;
    let written = (|| {
        for part in parts {
            file.write_all(part)?;
        }
        file.sync()?;
        drop(file);
        fs.rename(temporary, target)
    })();
    if let Err(error) = written {
        // Nothing to be done if this fails too: what is left in `tmp` is swept later.
        fs.remove(temporary).ok();
        return Err(error);
    }
    fs.sync_directory(target.parent().unwrap_or(target))
}

/// Replaces the file at `target` durably, by way of `temporary`: a name in the same file system that nobody else
/// uses meanwhile. What a crash has left there is overwritten.
///
/// # Errors
///
/// The file may be the old or the new one, and never a part of either.
pub fn replace_durably(
    fs: &dyn FileSystem,
    temporary: &Path,
    target: &Path,
    bytes: &[u8],
) -> io::Result<()> {
    let write = || write_durably(fs, temporary, target, &[bytes]);
    match write() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs.remove(temporary)?;
            write()
        }
        written => written,
    }
}

/// Renames a regular file, unless somebody has the new name.
#[cfg(feature = "queue")]
pub(crate) fn rename_new(fs: &dyn FileSystem, from: &Path, to: &Path) -> io::Result<()> {
    match fs.hard_link(from, to) {
        Ok(()) => fs.remove(from),
        // A file system without links: the check and the rename are two steps there.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
            ) =>
        {
            if to.symlink_metadata().is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs.rename(from, to)
        }
        Err(error) => Err(error),
    }
}

/// Removes a directory with all that is in it. Links are removed, not followed.
#[cfg(feature = "queue")]
pub(crate) fn remove_tree(fs: &dyn FileSystem, directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(fs, &entry.path())?;
        } else {
            fs.remove(&entry.path())?;
        }
    }
    fs.remove_directory(directory)
}

/// Creates the directories, parents first, each durable before anything is put into it. Parents of
/// the first that do not exist are created too.
///
/// # Errors
///
/// As the operating system says.
pub fn create_directories<'a>(
    fs: &dyn FileSystem,
    directories: impl IntoIterator<Item = &'a Path>,
) -> io::Result<()> {
    for directory in directories {
        create_with_parents(fs, directory)?;
    }
    Ok(())
}

fn create_with_parents(fs: &dyn FileSystem, directory: &Path) -> io::Result<()> {
    let is_new = match fs.create_directory(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = directory.parent().ok_or(error)?;
            create_with_parents(fs, parent)?;
            fs.create_directory(directory)?
        }
        result => result?,
    };
    match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            fs.sync_directory(parent).inspect_err(|_| {
                // One that may not last must not be taken for one that does.
                if is_new {
                    fs.remove_directory(directory).ok();
                }
            })
        }
        _ => Ok(()),
    }
}
