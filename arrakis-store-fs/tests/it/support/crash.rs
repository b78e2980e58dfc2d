//! A file system that can lose its power.
//!
//! Files and names lie in a real directory, where the code under test reads them. Beside it the model
//! keeps what is durable: the content of a file as of its last fsync, and the names of a directory as of
//! that directory's last fsync. After a crash
//!
//! * a file that was written since holds its durable content, or any part of the new one, or zeros in
//!   place of what was not written out;
//! * of the changes of names since, any are there and any are not, in whatever order they were made.
//!   One promise of journalling file systems is kept, since without it no rename is safe: a renamed file
//!   may have both names, but never none;
//! * what was written past the model (locks, `observed`, the records in `tally`) is there or not.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use arrakis_store_fs::spool::durability::{FileSystem, NewFile, RealFileSystem};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What is taken out, to show that the model notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Without {
    Nothing,
    FileSync,
    DirectorySync,
}

/// The file system; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct CrashFs(Arc<Mutex<Disk>>);

type Node = usize;

/// A name in a directory.
type Name = (Node, String);

const ROOT: Node = 0;

#[derive(Debug)]
struct Disk {
    root: PathBuf,
    rng: StdRng,
    without: Without,
    /// Calls that are left before the power fails.
    power: Option<u32>,
    /// How likely a call is to fail by itself, in percent.
    faults: u32,
    nodes: Vec<Content>,
    names: HashMap<Name, Node>,
    durable: BTreeMap<Name, Node>,
    changes: Vec<Change>,
}

#[derive(Debug, Clone, Default)]
struct Content {
    is_directory: bool,
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Whether an fsync has failed: what was to be written is forgotten, and the next one says yes.
    forgotten: bool,
}

/// A name that was given or taken away and is not durable yet.
#[derive(Debug, Clone)]
struct Change {
    name: Name,
    to: Option<Node>,
    /// For a name that a rename has taken away: the one that it gave.
    given: Option<Name>,
}

impl CrashFs {
    /// An empty disk whose files are below `root`.
    pub(crate) fn new(root: &Path, seed: u64, without: Without) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        let (names, durable, changes) = Default::default();
        let nodes = vec![Content { is_directory: true, ..Content::default() }];
        let (root, power, faults) = (root.to_owned(), None, 0);
        let disk = Disk { root, rng, without, power, faults, nodes, names, durable, changes };
        Self(Arc::new(Mutex::new(disk)))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    /// Has the power fail after this many calls.
    pub(crate) fn fail_after(&self, calls: u32) {
        self.disk().power = Some(calls);
    }

    /// Whether it has failed.
    pub(crate) fn is_dead(&self) -> bool {
        self.disk().power == Some(0)
    }

    /// Gives the power back, or takes a failure back that has not come yet.
    pub(crate) fn repair(&self) {
        self.disk().power = None;
    }

    /// Has calls fail by themselves, so many of a hundred.
    pub(crate) fn set_faults(&self, percent: u32) {
        self.disk().faults = percent;
    }

    /// What is there after the power has failed and come back.
    pub(crate) fn crash(&self) {
        self.disk().crash();
    }
}

impl Disk {
    fn call(&mut self) -> io::Result<()> {
        match &mut self.power {
            Some(0) => return Err(io::Error::other("no power")),
            Some(calls) => *calls -= 1,
            None => {}
        }
        if self.power == Some(0) {
            return Err(io::Error::other("the power fails"));
        }
        if self.faults > 0 && self.rng.random_range(0..100) < self.faults {
            let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::Other];
            return Err(kinds[self.rng.random_range(0..kinds.len())].into());
        }
        Ok(())
    }

    /// The directory and the name that a path is.
    fn name(&self, path: &Path) -> io::Result<Name> {
        let relative = path.strip_prefix(&self.root).map_err(io::Error::other)?;
        let mut parts: Vec<_> =
            relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let last = parts.pop().ok_or(io::ErrorKind::NotFound)?;
        let mut directory = ROOT;
        for part in parts {
            directory = *self.names.get(&(directory, part)).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok((directory, last))
    }

    fn node(&self, path: &Path) -> io::Result<Node> {
        if path == self.root {
            return Ok(ROOT);
        }
        Ok(*self.names.get(&self.name(path)?).ok_or(io::ErrorKind::NotFound)?)
    }

    fn give(&mut self, name: Name, node: Node) {
        self.names.insert(name.clone(), node);
        self.changes.push(Change { name, to: Some(node), given: None });
    }

    fn take_away(&mut self, name: Name, given: Option<Name>) {
        self.names.remove(&name);
        self.changes.push(Change { name, to: None, given });
    }

    fn add(&mut self, path: &Path, is_directory: bool) -> io::Result<Node> {
        let name = self.name(path)?;
        self.nodes.push(Content { is_directory, ..Content::default() });
        let node = self.nodes.len() - 1;
        self.give(name, node);
        Ok(node)
    }

    fn apply(&mut self, change: &Change) {
        match change.to {
            Some(node) => self.durable.insert(change.name.clone(), node),
            None => self.durable.remove(&change.name),
        };
    }

    fn sync_directory(&mut self, directory: Node) {
        let changes = std::mem::take(&mut self.changes);
        let renamed: Vec<Name> = changes
            .iter()
            .filter(|change| change.name.0 == directory)
            .filter_map(|change| change.given.clone())
            .collect();
        for change in changes {
            let is_other_end = change.to.is_some() && renamed.contains(&change.name);
            if change.name.0 == directory || is_other_end {
                // What was to become of the name before is of no interest any more.
                self.changes.retain(|before| before.name != change.name);
                self.apply(&change);
            } else {
                self.changes.push(change);
            }
        }
    }

    fn crash(&mut self) {
        let past_the_model = self.past_the_model();
        let mut dropped = Vec::new();
        for change in std::mem::take(&mut self.changes) {
            let other_end_is_lost = change.given.as_ref().is_some_and(|n| dropped.contains(n));
            // A file may be left under both of its names; a directory is never in two places.
            let moved = change.given.as_ref().and_then(|name| self.durable.get(name));
            let is_directory = moved.is_some_and(|node| self.nodes[*node].is_directory);
            if !other_end_is_lost && (is_directory || self.rng.random_bool(0.5)) {
                self.apply(&change);
            } else if change.to.is_some() {
                dropped.push(change.name);
            }
        }
        for node in 0..self.nodes.len() {
            let content = self.after_crash(node);
            let is_directory = self.nodes[node].is_directory;
            let (now, durable) = (content.clone(), content);
            self.nodes[node] = Content { is_directory, now, durable, forgotten: false };
        }
        for entry in fs::read_dir(&self.root).unwrap() {
            fs::remove_dir_all(entry.unwrap().path()).unwrap();
        }
        self.names.clear();
        let root = self.root.clone();
        self.restore(ROOT, &root);
        for (path, content) in past_the_model {
            if self.rng.random_bool(0.5) && path.parent().is_some_and(Path::exists) {
                fs::write(path, content).unwrap();
            }
        }
        self.power = None;
    }

    /// What a file holds after a crash.
    fn after_crash(&mut self, node: Node) -> Vec<u8> {
        let Content { now, durable, .. } = self.nodes[node].clone();
        if now == durable || self.rng.random_bool(0.25) {
            return durable;
        }
        let whole = self.rng.random_range(0..=now.len());
        let mut torn = now[..whole].to_vec();
        if self.rng.random_bool(0.5) {
            torn.resize(now.len(), 0);
        }
        torn
    }

    fn restore(&mut self, directory: Node, path: &Path) {
        let first = (directory, String::new());
        let entries =
            self.durable.range(first..).take_while(|((parent, _), _)| *parent == directory);
        let entries: Vec<_> = entries.map(|((_, name), node)| (name.clone(), *node)).collect();
        for (name, node) in entries {
            let path = path.join(&name);
            self.names.insert((directory, name), node);
            if self.nodes[node].is_directory {
                fs::create_dir(&path).unwrap();
                self.restore(node, &path);
            } else {
                fs::write(&path, &self.nodes[node].now).unwrap();
            }
        }
    }

    /// The files that nobody has told the model of.
    fn past_the_model(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut directories = vec![self.root.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else if self.node(&path).is_err() {
                    found.push((path.clone(), fs::read(path).unwrap()));
                }
            }
        }
        found
    }
}

impl FileSystem for CrashFs {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        let mut disk = self.disk();
        disk.call()?;
        let file = RealFileSystem.create_new(path)?;
        let node = disk.add(path, false)?;
        Ok(Box::new(CrashFile { file, node, fs: self.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.call()?;
        RealFileSystem.rename(from, to)?;
        let (from, to) = (disk.name(from)?, disk.name(to)?);
        // The file may have been written past the model.
        if let Some(node) = disk.names.get(&from).copied() {
            disk.give(to.clone(), node);
            disk.take_away(from, Some(to));
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.call()?;
        RealFileSystem.remove(path)?;
        // Locks are made past the model.
        if let Ok(name) = disk.name(path) {
            // As with a rename, a file that has a second name keeps one of them.
            let node = disk.names.get(&name).copied();
            let other = disk.names.iter().find(|(other, at)| Some(**at) == node && **other != name);
            let other = other.map(|(other, _)| other.clone());
            disk.take_away(name, other);
        }
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.call()?;
        if disk.without != Without::DirectorySync && path.starts_with(&disk.root) {
            let node = disk.node(path)?;
            disk.sync_directory(node);
        }
        Ok(())
    }

    fn create_directory(&self, path: &Path) -> io::Result<bool> {
        let mut disk = self.disk();
        disk.call()?;
        let is_new = RealFileSystem.create_directory(path)?;
        if is_new {
            disk.add(path, true)?;
        }
        Ok(is_new)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.call()?;
        RealFileSystem.remove_directory(path)?;
        let name = disk.name(path)?;
        disk.take_away(name, None);
        Ok(())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        disk.call()?;
        RealFileSystem.write(path, bytes)?;
        let node = match disk.node(path) {
            Ok(node) => node,
            Err(_) => disk.add(path, false)?,
        };
        disk.nodes[node].now = bytes.to_vec();
        Ok(())
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        let called = disk.call();
        if called.is_err() && (disk.power.is_some() || disk.node(path).is_err()) {
            return called;
        }
        // An append that fails has got somewhere.
        let done =
            if called.is_ok() { bytes.len() } else { disk.rng.random_range(0..=bytes.len()) };
        RealFileSystem.append(path, &bytes[..done])?;
        let node = match disk.node(path) {
            Ok(node) => node,
            Err(_) => disk.add(path, false)?,
        };
        let without = disk.without;
        let content = &mut disk.nodes[node];
        content.now.extend_from_slice(&bytes[..done]);
        if called.is_ok() && without != Without::FileSync {
            content.durable = content.now.clone();
        }
        called
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.call()?;
        RealFileSystem.hard_link(from, to)?;
        let to = disk.name(to)?;
        // The file may have been written past the model.
        if let Ok(node) = disk.node(from) {
            disk.give(to, node);
        }
        Ok(())
    }

    fn set_modified(&self, path: &Path, seconds: i64) -> io::Result<()> {
        self.disk().call()?;
        RealFileSystem.set_modified(path, seconds)
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        // No reserve: it would be most of the work.
        Ok(0)
    }
}

struct CrashFile {
    file: Box<dyn NewFile>,
    node: Node,
    fs: CrashFs,
}

impl NewFile for CrashFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.fs.disk();
        let written = disk.call();
        // A write that fails has got somewhere.
        let done =
            if written.is_ok() { bytes.len() } else { disk.rng.random_range(0..=bytes.len()) };
        disk.nodes[self.node].now.extend_from_slice(&bytes[..done]);
        self.file.write_all(&bytes[..done])?;
        written
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut disk = self.fs.disk();
        let without = disk.without;
        let called = disk.call();
        let content = &mut disk.nodes[self.node];
        if called.is_err() {
            content.forgotten = true;
        } else if !content.forgotten && without != Without::FileSync {
            content.durable = content.now.clone();
        }
        called
    }
}
