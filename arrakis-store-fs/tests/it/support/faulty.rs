//! A file system that keeps a list of the calls it gets, and fails those that its rule says.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arrakis_store_fs::spool::durability::{FileSystem, NewFile, RealFileSystem};

/// Decides about a call: its number, its name and its path.
type Rule = dyn FnMut(usize, &str, &Path) -> io::Result<()> + Send;

/// The machine's own file system with faults.
#[derive(Clone)]
pub(crate) struct Faulty(Arc<Mutex<State>>);

struct State {
    calls: Vec<String>,
    rule: Box<Rule>,
}

impl std::fmt::Debug for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Faulty")
    }
}

impl Faulty {
    /// Fails the calls that `rule` says.
    pub(crate) fn new(
        rule: impl FnMut(usize, &str, &Path) -> io::Result<()> + Send + 'static,
    ) -> Self {
        Self(Arc::new(Mutex::new(State { calls: Vec::new(), rule: Box::new(rule) })))
    }

    /// Fails call number `at`; with `crash` everything from there on.
    pub(crate) fn at(at: usize, error: io::ErrorKind, crash: bool) -> Self {
        Self::new(
            move |now, _, _| {
                if now == at || (crash && now > at) { Err(error.into()) } else { Ok(()) }
            },
        )
    }

    /// Fails nothing.
    pub(crate) fn sound() -> Self {
        Self::new(|_, _, _| Ok(()))
    }

    /// From now on another rule holds.
    pub(crate) fn now(
        &self,
        rule: impl FnMut(usize, &str, &Path) -> io::Result<()> + Send + 'static,
    ) {
        self.0.lock().unwrap().rule = Box::new(rule);
    }

    /// The calls so far, each with the directory that it was about.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.0.lock().unwrap().calls.clone()
    }

    fn call(&self, what: &str, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let directory = if what == "sync_directory" { Some(path) } else { path.parent() };
        let directory = directory.and_then(Path::file_name).unwrap_or_default();
        state.calls.push(format!("{what} {}", directory.to_string_lossy()));
        let number = state.calls.len() - 1;
        (state.rule)(number, what, path)
    }
}

impl FileSystem for Faulty {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        self.call("create", path)?;
        let file = RealFileSystem.create_new(path)?;
        Ok(Box::new(FaultyFile { file, path: path.to_owned(), fs: self.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call("rename", to)?;
        RealFileSystem.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call("remove", path)?;
        RealFileSystem.remove(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.call("sync_directory", path)?;
        RealFileSystem.sync_directory(path)
    }

    fn create_directory(&self, path: &Path) -> io::Result<bool> {
        self.call("create_directory", path)?;
        RealFileSystem.create_directory(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.call("remove_directory", path)?;
        RealFileSystem.remove_directory(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.call("put", path)?;
        RealFileSystem.write(path, bytes)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.call("append", path)?;
        RealFileSystem.append(path, bytes)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call("link", to)?;
        RealFileSystem.hard_link(from, to)
    }

    fn set_modified(&self, path: &Path, seconds: i64) -> io::Result<()> {
        self.call("set_modified", path)?;
        RealFileSystem.set_modified(path, seconds)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.call("free_bytes", path)?;
        RealFileSystem.free_bytes(path)
    }
}

struct FaultyFile {
    file: Box<dyn NewFile>,
    path: PathBuf,
    fs: Faulty,
}

impl NewFile for FaultyFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.fs.call("write", &self.path)?;
        self.file.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.fs.call("sync", &self.path)?;
        self.file.sync()
    }
}
