//! The spool as a model: random steps of hooks and drainers over a file system that loses its power, with
//! an oracle that knows what was promised.
//!
//! `cargo test -p arrakis-store-fs --test it -- model:: --nocapture` prints how many cases there were;
//! `ARRAKIS_MODEL_CASES=100000` asks for more of them, `ARRAKIS_MODEL_SEED=<n>` for one alone.

#![allow(clippy::print_stdout, reason = "the figures are its result too")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arrakis_core::base::clock::{Clock, ManualClock, Timestamp};
use arrakis_core::base::dead_letter::{DeadLetters, Failure};
use arrakis_core::delivery::queue::{Disposition, Lane, Lease, LeaseRequest, Queue};
use arrakis_core::testkit::queue::envelope;
use arrakis_store_fs::admin::entry::Filter;
use arrakis_store_fs::admin::repair::repair;
use arrakis_store_fs::spool::durability::FileSystem;
use arrakis_store_fs::spool::format::decode;
use arrakis_store_fs::{FsQueue, FsQueueConfig, Layout, Spool, SpoolLimits};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::support::crash::{CrashFs, Without};
use crate::support::on;

/// Cases of a usual run.
const CASES: u64 = 10_000;

/// Cases in which a missing fsync must show.
const CASES_FOR_TEETH: u64 = 1_000;

/// What the names of files that are no events contain.
const GARBAGE: &str = "garbage";

/// What is known about one event.
#[derive(Debug, Default)]
struct Event {
    payload: Vec<u8>,
    /// Whether its capture returned `Ok`.
    promised: bool,
    /// How often a receiver got it and the queue was told.
    delivered: u32,
    /// Whether a person has given it up; then it may be there or not.
    discarded: bool,
}

impl Event {
    /// Whether it must be in the spool.
    fn is_owed(&self) -> bool {
        self.promised && self.delivered == 0 && !self.discarded
    }
}

/// One case.
struct Case<'a> {
    runtime: &'a Runtime,
    rng: StdRng,
    fs: CrashFs,
    layout: Layout,
    clock: Arc<ManualClock>,
    queue: Option<FsQueue>,
    leases: Vec<Lease>,
    events: BTreeMap<String, Event>,
    crashes: u64,
    /// How many files were made that are no events.
    garbage: u32,
    /// Whether something has happened after which an event may be delivered twice.
    disturbed: bool,
}

/// What a run has covered.
#[derive(Debug, Default)]
struct Covered {
    crashes: AtomicU64,
    captures: AtomicU64,
    promised: AtomicU64,
    delivered: AtomicU64,
}

impl<'a> Case<'a> {
    fn new(runtime: &'a Runtime, root: &Path, seed: u64, without: Without) -> Self {
        let fs = CrashFs::new(root, seed.wrapping_mul(2) + 1, without);
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
        Self {
            runtime,
            rng: StdRng::seed_from_u64(seed),
            fs,
            layout: Layout::new(root.join("home")),
            clock,
            queue: None,
            leases: Vec::new(),
            events: BTreeMap::new(),
            crashes: 0,
            garbage: 0,
            disturbed: false,
        }
    }

    fn run(mut self, covered: &Covered) -> Result<(), String> {
        if self.rng.random_bool(0.3) {
            self.disturbed = true;
            self.fs.set_faults(self.rng.random_range(1..12));
        }
        for _ in 0..self.rng.random_range(4..24) {
            if self.rng.random_bool(0.1) {
                self.fs.fail_after(self.rng.random_range(1..16));
            }
            self.step();
            if self.fs.is_dead() || self.rng.random_bool(0.03) {
                self.crash()?;
            }
        }
        self.fs.set_faults(0);
        self.fs.repair();
        if self.rng.random_bool(0.5) {
            self.crash()?;
        }
        self.finish()?;
        covered.crashes.fetch_add(self.crashes, Ordering::Relaxed);
        covered.captures.fetch_add(self.events.len() as u64, Ordering::Relaxed);
        for event in self.events.values() {
            covered.promised.fetch_add(u64::from(event.promised), Ordering::Relaxed);
            covered.delivered.fetch_add(u64::from(event.delivered), Ordering::Relaxed);
        }
        Ok(())
    }

    fn step(&mut self) {
        match self.rng.random_range(0..24) {
            0..8 => self.capture(),
            8..12 => self.lease(3),
            12..16 => self.settle(),
            16 => {
                if let Some(queue) = &self.queue {
                    self.runtime.block_on(queue.reap()).ok();
                }
            }
            17 => {
                if let Some(queue) = &self.queue {
                    self.runtime.block_on(queue.age(Duration::from_secs(3600))).ok();
                }
            }
            18 => self.end(),
            19 => self.redrive(),
            20 => self.discard(),
            21 => self.damage(),
            22 => self.repair(),
            _ => self.kill(),
        }
    }

    /// A person has the dead letters tried again.
    fn redrive(&mut self) {
        let Some(queue) = &self.queue else { return };
        let letters = self.runtime.block_on(queue.list(None, 10)).unwrap_or_default();
        let ids: Vec<_> = letters.into_iter().map(|letter| letter.request_id).collect();
        self.runtime.block_on(queue.redrive(&ids)).ok();
    }

    /// A person gives one dead letter up.
    fn discard(&mut self) {
        let Some(queue) = &self.queue else { return };
        let letters = self.runtime.block_on(queue.list(None, 1)).unwrap_or_default();
        for letter in letters {
            self.events.get_mut(letter.request_id.as_str()).unwrap().discarded = true;
            self.runtime.block_on(queue.discard(&[letter.request_id])).ok();
        }
    }

    /// A file that is no event gets among those that wait.
    fn damage(&mut self) {
        self.garbage += 1;
        let name = format!("1800000000000-00-00000000-{GARBAGE}{}.event", self.garbage);
        self.fs.write(&self.layout.pending().join(name), b"no event").ok();
    }

    /// A person repairs the spool, beside the drainer.
    fn repair(&mut self) {
        // What was written an hour ago counts as left behind.
        let later = Timestamp::from(SystemTime::now()).plus(Duration::from_secs(24 * 3600));
        let fs = Arc::new(self.fs.clone());
        let dir = on(self.layout.clone(), fs).with_clock(Arc::new(ManualClock::new(later)));
        repair(&dir, &Filter::default(), SpoolLimits::default(), |_| {}).ok();
    }

    fn capture(&mut self) {
        let id = format!("e{}", self.events.len());
        let length = self.rng.random_range(0..300);
        let payload: Vec<u8> = (0..length).map(|_| self.rng.random()).collect();
        let spool = Spool::new(on(self.layout.clone(), Arc::new(self.fs.clone())));
        let promised = spool.capture(&envelope(&id, &payload)).is_ok();
        self.events.insert(id, Event { payload, promised, ..Event::default() });
    }

    fn open(&mut self) -> Option<FsQueue> {
        if self.queue.is_none() {
            let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
            let config = FsQueueConfig { watch: false, ..FsQueueConfig::default() };
            let fs = Arc::new(self.fs.clone());
            self.queue = FsQueue::open(on(self.layout.clone(), fs).with_clock(clock), config).ok();
        }
        self.queue.clone()
    }

    fn lease(&mut self, events: usize) {
        let Some(queue) = self.open() else { return };
        let any = LeaseRequest { lane: Lane::Any, events, bytes: 1 << 20, closed: Vec::new() };
        if let Ok(leased) = self.runtime.block_on(queue.lease(any)) {
            self.leases.extend(leased.leases);
        }
    }

    fn settle(&mut self) {
        if self.leases.is_empty() {
            return;
        }
        let Some(queue) = self.queue.clone() else { return };
        let lease = self.leases.swap_remove(self.rng.random_range(0..self.leases.len()));
        let id = lease.envelope.request_id().to_string();
        let failure =
            Failure { at: self.clock.now(), round: 1, code: "x".into(), message: "y".into() };
        let due = self.clock.now();
        let disposition = match self.rng.random_range(0..8) {
            0..4 => Disposition::Delivered,
            4 => Disposition::Released,
            5 => Disposition::RetryAt { due, failure },
            6 => Disposition::Deferred { due, failure },
            _ => Disposition::DeadLetter { failure },
        };
        if disposition == Disposition::Delivered {
            self.receive(&id, &lease.envelope.payload).unwrap();
        }
        self.runtime.block_on(queue.settle(vec![(lease, disposition)])).ok();
    }

    /// A receiver gets an event: it must be one that was captured, as it was.
    fn receive(&mut self, id: &str, payload: &[u8]) -> Result<(), String> {
        let event = self.events.get_mut(id).ok_or_else(|| format!("{id} was never captured"))?;
        if event.payload != payload {
            return Err(format!("{id} is not what was captured"));
        }
        event.delivered += 1;
        Ok(())
    }

    /// The drainer ends as it should.
    fn end(&mut self) {
        self.leases.clear();
        self.queue = None;
    }

    /// The drainer is killed.
    fn kill(&mut self) {
        self.disturbed = true;
        self.fs.fail_after(0);
        self.end();
        self.fs.repair();
    }

    fn crash(&mut self) -> Result<(), String> {
        self.crashes += 1;
        self.kill();
        self.fs.crash();
        self.check()
    }

    /// Every promised event is there, whole, unless it was delivered; and nothing else is.
    fn check(&self) -> Result<(), String> {
        let mut there = BTreeMap::new();
        for directory in [self.layout.pending(), self.layout.processing(), self.layout.failed()] {
            let files = event_files(&directory);
            for file in files.iter().filter(|file| !file.to_string_lossy().contains(GARBAGE)) {
                let read = decode(&fs::read(file).unwrap().into());
                let read = read.map_err(|reason| format!("{}: {reason}", file.display()))?;
                there.insert(read.request_id().to_string(), read.payload);
            }
        }
        for (id, payload) in &there {
            let event = self.events.get(id).ok_or_else(|| format!("{id} was never captured"))?;
            if event.payload[..] != payload[..] {
                return Err(format!("{id} is not what was captured"));
            }
        }
        for (id, event) in &self.events {
            if event.is_owed() && !there.contains_key(id) {
                return Err(format!("{id} is lost"));
            }
        }
        Ok(())
    }

    /// Everything that was promised reaches a receiver, or people as a dead letter.
    fn finish(&mut self) -> Result<(), String> {
        self.check()?;
        self.disturbed |= self.crashes > 0;
        self.end();
        let queue = self.open().ok_or("the spool cannot be opened")?;
        self.runtime.block_on(queue.reap()).map_err(|error| error.to_string())?;
        loop {
            self.lease(1000);
            if self.leases.is_empty() {
                break;
            }
            for lease in std::mem::take(&mut self.leases) {
                let id = lease.envelope.request_id().to_string();
                self.receive(&id, &lease.envelope.payload)?;
                self.runtime
                    .block_on(queue.settle(vec![(lease, Disposition::Delivered)]))
                    .map_err(|error| error.to_string())?;
            }
        }
        let failed: Vec<String> = event_files(&self.layout.failed())
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        for (id, event) in &self.events {
            let is_dead_letter = failed.iter().any(|path| path.ends_with(&format!("-{id}.event")));
            if event.is_owed() && !is_dead_letter {
                return Err(format!("{id} reached nobody"));
            }
            if !self.disturbed && event.delivered > 1 {
                return Err(format!("{id} was delivered {} times", event.delivered));
            }
        }
        match self.runtime.block_on(queue.is_idle()) {
            Ok(true) => Ok(()),
            other => Err(format!("something is left: {other:?}")),
        }
    }
}

/// The event files below a directory.
fn event_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(event_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "event") {
            files.push(path);
        }
    }
    files
}

/// A directory in memory, where there is one: the model makes durable what is to be.
fn root() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

/// Runs cases with these seeds, on every processor; returns the first that fails, and why.
fn run(seeds: std::ops::Range<u64>, without: Without, covered: &Covered) -> Option<(u64, String)> {
    let next = AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return None;
            }
            let root = root();
            let case = Case::new(&runtime, root.path(), seed, without);
            if let Err(problem) = case.run(covered) {
                next.store(seeds.end, Ordering::Relaxed);
                return Some((seed, problem));
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).min()
    })
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn what_was_promised_survives_any_crash() {
    let seeds = match variable("ARRAKIS_MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("ARRAKIS_MODEL_CASES").unwrap_or(CASES),
    };
    let covered = Covered::default();
    let failed = run(seeds.clone(), Without::Nothing, &covered);
    println!("{} cases: {covered:?}", seeds.end - seeds.start);
    assert_eq!(failed, None, "run it again with ARRAKIS_MODEL_SEED=<the number>");
    assert!(covered.promised.load(Ordering::Relaxed) > 0);
    assert!(seeds.end - seeds.start == 1 || covered.crashes.load(Ordering::Relaxed) > 0);
}

#[test]
fn without_either_fsync_events_are_lost() {
    for without in [Without::FileSync, Without::DirectorySync] {
        let failed = run(0..CASES_FOR_TEETH, without, &Covered::default());
        println!("{without:?} taken out: {failed:?}");
        assert!(failed.is_some(), "nothing noticed that it is missing: {without:?}");
    }
}
