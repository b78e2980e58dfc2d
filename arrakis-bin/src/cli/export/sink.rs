//! Where an export goes: standard output, or a file that is there once it is whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// Takes text in whole pieces.
pub(super) enum Sink<'a> {
    /// Standard output, and what makes a piece safe where that is a terminal.
    Out(&'a mut (dyn Write + Send), Option<fn(&str) -> String>),
    /// A file.
    File(NewFile),
}

impl<'a> Sink<'a> {
    /// Standard output; pieces go through `safe` where it is a terminal.
    pub(super) fn out(out: &'a mut (dyn Write + Send), safe: fn(&str) -> String) -> Self {
        Self::Out(out, Some(safe).filter(|_| io::stdout().is_terminal()))
    }

    /// Writes one piece.
    pub(super) fn put(&mut self, piece: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Out(out, Some(safe)) => {
                out.write_all(safe(&String::from_utf8_lossy(piece)).as_bytes())?;
            }
            Self::Out(out, None) => out.write_all(piece)?,
            Self::File(file) => file.put(piece)?,
        }
        Ok(())
    }

    /// Ends it: the file is durable and in its place.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Out(out, _) => Ok(out.flush()?),
            Self::File(file) => file.finish(),
        }
    }
}

/// A file that has another name until it is whole, and is removed if it never is.
pub(super) struct NewFile {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    is_done: bool,
}

impl NewFile {
    /// A file for `path`, which must not be there unless it may be replaced. Only its owner may read it.
    pub(super) fn create(path: &Path, overwrite: bool) -> anyhow::Result<Self> {
        if !overwrite && path.symlink_metadata().is_ok() {
            bail!("{} is there already; name a new file, or add --overwrite", path.display());
        }
        let Some(name) = path.file_name() else { bail!("{} names no file", path.display()) };
        let temporary = format!(".{}.{}.part", name.to_string_lossy(), std::process::id());
        let temporary = path.with_file_name(temporary);
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&temporary);
        let file = file.with_context(|| format!("cannot write {}", temporary.display()))?;
        Ok(Self { path: path.to_owned(), temporary, file: BufWriter::new(file), is_done: false })
    }

    pub(super) fn put(&mut self, piece: &[u8]) -> anyhow::Result<()> {
        let written = self.file.write_all(piece);
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }

    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        let written = self.file.flush().and_then(|()| {
            self.file.get_ref().sync_all()?;
            fs::rename(&self.temporary, &self.path)?;
            self.is_done = true;
            File::open(directory)?.sync_all()
        });
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_done {
            fs::remove_file(&self.temporary).ok();
        }
    }
}
