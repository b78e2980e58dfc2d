//! A drainer's own directory below `processing/`, and the inheritance of those whose owner is dead.
//!
//! The directory is made under a name that begins with a dot, its `lock` file is taken, and only then
//! is it given its real name: whoever sees it sees it locked. A lock that can be taken therefore
//! means that its owner is dead, whatever process ids and boots have come and gone.
//!
//! A lock means something only to those who share a kernel, or did before it was booted anew. So a
//! directory is this machine's if it was made under this boot, in whatever container, or by the same
//! machine under an earlier one. Directories of other machines on a shared home are left alone.
//!
//! An owner that ends leaves its empty directory to the next: taking one over needs no space, so a
//! full disk keeps no drainer from starting.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use arrakis_core::base::clock::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use crate::spool::dir::SpoolDir;
use crate::spool::layout::EVENT_SUFFIX;
use crate::spool::lock::{is_at, try_lock};

const LOCK: &str = "lock";
const OWNER: &str = "owner.json";
const NEW_OWNER: &str = "owner.new";

/// How often a new directory is tried to be made where others take it for one of the dead.
const ATTEMPTS: u32 = 5;

/// This process's own directory, until it is dropped.
#[derive(Debug)]
pub(crate) struct Owner {
    dir: SpoolDir,
    machine: String,
    held: Mutex<Held>,
    /// Directories of other machines that were reported.
    reported: Mutex<HashSet<PathBuf>>,
}

/// A directory whose lock this process has.
#[derive(Debug)]
struct Held {
    directory: PathBuf,
    lock: File,
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
    /// Takes over the directory of a dead owner, or makes one.
    pub(crate) fn new(dir: SpoolDir) -> io::Result<Self> {
        let machine = this_machine();
        let held = Mutex::new(hold(&dir, &machine)?);
        Ok(Self { dir, machine, held, reported: Mutex::default() })
    }

    /// Where this process keeps what it has leased.
    pub(crate) fn directory(&self) -> PathBuf {
        self.held().directory.clone()
    }

    /// Makes a new directory if somebody has removed this process's own.
    pub(crate) fn renew(&self) -> io::Result<()> {
        let mut held = self.held();
        if !is_at(&held.lock, &held.directory.join(LOCK)) {
            *held = hold(&self.dir, &self.machine)?;
        }
        Ok(())
    }

    /// Puts the events of dead owners back into `pending/`; returns how many. What cannot be put back
    /// now stays for the next time, and keeps nothing else from its place.
    pub(crate) fn reap(&self) -> io::Result<u64> {
        let own = Some(self.directory());
        reap(&self.dir, own, |directory, machine| self.report(directory, &machine))
    }

    fn report(&self, directory: PathBuf, machine: &str) {
        let mut reported = self.reported.lock();
        if !reported.contains(&directory) {
            tracing::warn!(target: "arrakis::queue", directory = %directory.display(), machine,
                "events are leased by a drainer on another machine; they are left to it");
            reported.insert(directory);
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // As far as it works: what stays is reaped by the next drainer.
        put_back(&self.dir, &self.directory()).ok();
    }
}

/// Puts the events of dead owners back into `pending/`; returns how many. What another machine has is
/// only told.
pub(crate) fn reap(
    dir: &SpoolDir,
    own: Option<PathBuf>,
    elsewhere: impl Fn(PathBuf, String),
) -> io::Result<u64> {
    let machine = this_machine();
    let mut reaped = 0;
    for entry in fs::read_dir(dir.layout.processing())? {
        let directory = entry?.path();
        if Some(&directory) == own.as_ref() || !directory.is_dir() {
            continue;
        }
        if let Some(machine) = other_machine(&directory, &machine) {
            elsewhere(directory, machine);
            continue;
        }
        // Half-made ones that never had a lock are empty, and their maker, if there is one, makes
        // another.
        if is_hidden(&directory) && dir.fs.remove_directory(&directory).is_ok() {
            continue;
        }
        let Ok(Some(_lock)) = try_lock(&directory.join(LOCK)) else { continue };
        match put_back(dir, &directory) {
            Ok(events) => {
                reaped += events;
                remove(dir, &directory);
            }
            Err(error) => tracing::warn!(target: "arrakis::queue", %error,
                directory = %directory.display(), "cannot take over from a dead drainer yet"),
        }
    }
    Ok(reaped)
}

fn hold(dir: &SpoolDir, machine: &str) -> io::Result<Held> {
    let held = match take_over(dir, machine)? {
        Some(held) => {
            sign(&held, dir, machine)?;
            held
        }
        None => make(dir, machine)?,
    };
    // Durable before an event is moved into it, whoever made it.
    dir.fs.sync_directory(&dir.layout.processing())?;
    Ok(held)
}

/// Writes this process as the owner of a directory that it took over.
fn sign(held: &Held, dir: &SpoolDir, machine: &str) -> io::Result<()> {
    // A full disk must neither keep this process from starting nor leave half of a file.
    let (new, file) = (held.directory.join(NEW_OWNER), held.directory.join(OWNER));
    let owner = owner_file(machine, dir.now())?;
    let written = dir.fs.write(&new, &owner).and_then(|()| dir.fs.rename(&new, &file));
    if written.is_err() {
        dir.fs.remove(&new).ok();
    }
    Ok(())
}

/// Takes the first directory whose owner is dead and whose events can be put back.
fn take_over(dir: &SpoolDir, machine: &str) -> io::Result<Option<Held>> {
    for entry in fs::read_dir(dir.layout.processing())? {
        let directory = entry?.path();
        let is_candidate = !is_hidden(&directory) && directory.join(LOCK).is_file();
        if !is_candidate || other_machine(&directory, machine).is_some() {
            continue;
        }
        if let Ok(Some(lock)) = try_lock(&directory.join(LOCK))
            && put_back(dir, &directory).is_ok()
        {
            return Ok(Some(Held { directory, lock }));
        }
    }
    Ok(None)
}

fn make(dir: &SpoolDir, machine: &str) -> io::Result<Held> {
    let (layout, fs, now) = (&dir.layout, &*dir.fs, dir.now());
    let mut attempt = 0;
    loop {
        let name = unique_name(now);
        let hidden = layout.processing().join(format!(".{name}"));
        let directory = layout.processing().join(name);
        let made = (|| -> io::Result<Held> {
            fs.create_directory(&hidden)?;
            let lock = try_lock(&hidden.join(LOCK))?
                .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            fs.write(&hidden.join(OWNER), &owner_file(machine, now)?)?;
            fs.rename(&hidden, &directory)?;
            Ok(Held { directory, lock })
        })();
        match made {
            // A reaper took it for a dead one's.
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => {
                attempt += 1;
            }
            Err(error) => {
                remove(dir, &hidden);
                return Err(error);
            }
            made => return made,
        }
    }
}

fn owner_file(machine: &str, since: Timestamp) -> io::Result<Vec<u8>> {
    let (machine, boot) = (machine.to_owned(), this_boot().unwrap_or_default());
    Ok(serde_json::to_vec(&OwnerFile { machine, boot, pid: std::process::id(), since })?)
}

/// Moves every event of an owner's directory to `pending/`, durably: the directory may be removed
/// next.
fn put_back(dir: &SpoolDir, directory: &Path) -> io::Result<u64> {
    let pending = dir.layout.pending();
    let mut moved = 0;
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if name.as_encoded_bytes().ends_with(EVENT_SUFFIX.as_bytes()) {
            dir.fs.rename(&directory.join(&name), &pending.join(&name))?;
            moved += 1;
        }
    }
    if moved > 0 {
        dir.fs.sync_directory(&pending)?;
    }
    Ok(moved)
}

/// Removes an owner's directory, unless something is left in it.
fn remove(dir: &SpoolDir, directory: &Path) {
    for file in [NEW_OWNER, OWNER, LOCK] {
        dir.fs.remove(&directory.join(file)).ok();
    }
    dir.fs.remove_directory(directory).ok();
}

fn is_hidden(directory: &Path) -> bool {
    directory.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// What tells this machine from others.
pub(crate) fn this_machine() -> String {
    first_line("/etc/machine-id").unwrap_or_else(host_name)
}

/// The present run of this machine's kernel, which its containers share.
fn this_boot() -> Option<String> {
    first_line("/proc/sys/kernel/random/boot_id")
}

/// The machine that a directory belongs to, if it is another than `machine`.
pub(crate) fn other_machine(directory: &Path, machine: &str) -> Option<String> {
    let owner: OwnerFile = serde_json::from_slice(&fs::read(directory.join(OWNER)).ok()?).ok()?;
    let is_here = owner.machine == machine || this_boot().is_some_and(|boot| boot == owner.boot);
    (!is_here).then_some(owner.machine)
}

/// Whether a directory belongs to another machine than this.
pub(crate) fn is_elsewhere(directory: &Path) -> bool {
    other_machine(directory, &this_machine()).is_some()
}

fn first_line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(str::to_owned).filter(|line| !line.is_empty())
}

fn host_name() -> String {
    nix::unistd::gethostname().map_or_else(|_| "unknown".to_owned(), |n| n.to_string_lossy().into())
}

/// A name that no other directory has: the process id, the time, a random number, and a count within the process.
fn unique_name(now: Timestamp) -> String {
    use std::hash::{BuildHasher, RandomState};
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let random = RandomState::new().hash_one(count) as u32;
    format!("{}-{:x}-{random:x}-{count}", std::process::id(), now.as_micros())
}
