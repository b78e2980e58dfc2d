//! A drainer's own directory below `processing/`, and the inheritance of those whose owner is dead.
//!
//! The directory is made under a name that begins with a dot, its `lock` file is taken, and only then
//! is it given its real name: whoever sees it sees it locked. A lock that can be taken therefore
//! means that its owner is dead, whatever process ids and boots have come and gone. A shared home
//! makes the lock of another machine worth nothing here, so directories of other machines are left
//! alone.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use arrakis_core::clock::Timestamp;
use serde::{Deserialize, Serialize};

use crate::durability::{FileSystem, RealFileSystem};
use crate::layout::{EVENT_SUFFIX, Layout};
use crate::lock::try_lock;

const LOCK: &str = "lock";
const OWNER: &str = "owner.json";

/// This process's own directory, until it is dropped.
#[derive(Debug)]
pub(crate) struct Owner {
    directory: PathBuf,
    layout: Layout,
    machine: String,
    /// Directories of other machines that were reported.
    reported: Mutex<HashSet<PathBuf>>,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnerFile {
    machine: String,
    boot: String,
    pid: u32,
    since: Timestamp,
}

impl Owner {
    /// Makes a directory for this process.
    pub(crate) fn new(layout: &Layout, now: Timestamp) -> io::Result<Self> {
        let machine = this_machine();
        let name = unique_name(now);
        let hidden = layout.processing().join(format!(".{name}"));
        let directory = layout.processing().join(name);
        RealFileSystem.create_directory(&hidden)?;
        let lock = try_lock(&hidden.join(LOCK))?
            .ok_or_else(|| io::Error::other("the lock of a new directory is taken"))?;
        let owner = OwnerFile {
            machine: machine.clone(),
            boot: first_line("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
            pid: std::process::id(),
            since: now,
        };
        fs::write(hidden.join(OWNER), serde_json::to_vec(&owner)?)?;
        fs::rename(&hidden, &directory)?;
        Ok(Self {
            directory,
            layout: layout.clone(),
            machine,
            reported: Mutex::default(),
            _lock: lock,
        })
    }

    /// Where this process keeps what it has leased.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Puts the events of dead owners back into `pending/`; returns how many.
    pub(crate) fn reap(&self) -> io::Result<u64> {
        let mut reaped = 0;
        for entry in fs::read_dir(self.layout.processing())? {
            let directory = entry?.path();
            if directory == self.directory || !directory.is_dir() {
                continue;
            }
            if let Some(machine) = other_machine(&directory, &self.machine) {
                let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
                if reported.insert(directory.clone()) {
                    tracing::warn!(target: "arrakis::queue", directory = %directory.display(), machine,
                        "events are leased by a drainer on another machine; they are left to it");
                }
                continue;
            }
            let hidden =
                directory.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
            if hidden && !directory.join(LOCK).exists() {
                continue; // being made right now
            }
            if let Ok(Some(_lock)) = try_lock(&directory.join(LOCK)) {
                reaped += put_back(&directory, &self.layout)?;
                remove(&directory);
            }
        }
        Ok(reaped)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // As far as it works: what stays is reaped by the next drainer.
        put_back(&self.directory, &self.layout).ok();
        remove(&self.directory);
    }
}

/// Moves every event of an owner's directory to `pending/`.
fn put_back(directory: &Path, layout: &Layout) -> io::Result<u64> {
    let mut moved = 0;
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if name.as_encoded_bytes().ends_with(EVENT_SUFFIX.as_bytes()) {
            fs::rename(directory.join(&name), layout.pending().join(&name))?;
            moved += 1;
        }
    }
    Ok(moved)
}

/// Removes an owner's directory, unless something is left in it.
fn remove(directory: &Path) {
    for file in [OWNER, LOCK] {
        fs::remove_file(directory.join(file)).ok();
    }
    fs::remove_dir(directory).ok();
}

/// What this machine is told from others by.
pub(crate) fn this_machine() -> String {
    first_line("/etc/machine-id").unwrap_or_else(host_name)
}

/// The machine that a directory belongs to, if it is another than `machine`.
pub(crate) fn other_machine(directory: &Path, machine: &str) -> Option<String> {
    let owner: OwnerFile = serde_json::from_slice(&fs::read(directory.join(OWNER)).ok()?).ok()?;
    (owner.machine != machine).then_some(owner.machine)
}

fn first_line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(str::to_owned).filter(|line| !line.is_empty())
}

fn host_name() -> String {
    nix::unistd::gethostname().map_or_else(|_| "unknown".to_owned(), |n| n.to_string_lossy().into())
}

/// A name that no other directory has: the process id, the time, and a count within the process.
fn unique_name(now: Timestamp) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.subsec_nanos());
    format!("{}-{:x}-{nanos:x}-{count}", std::process::id(), now.as_micros())
}
