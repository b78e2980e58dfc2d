//! Filling a lease request: from the names that were heard of, or from a pass through `pending/`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrakis_core::base::clock::Timestamp;
use arrakis_core::delivery::queue::{Lane, Lease, LeaseRequest, Leased};
use parking_lot::Mutex;

use crate::queue::claim::Claims;
use crate::queue::deferral::Deferrals;
use crate::queue::watch::Watch;
use crate::spool::dir::SpoolDir;
use crate::spool::find;
use crate::spool::format::Unreadable;
use crate::spool::layout::{EVENT_SUFFIX, EntryName, Layout, destination_tag};
use crate::spool::quarantine::quarantine;

/// Entries of one request that may fail before it is given up: a few bad ones keep nothing from the
/// others, and a medium that fails is not tried a million times.
const FAILURES_MAX: usize = 16;

/// A pass through this many names that found nothing to lease is not repeated at once.
const LONG_PASS: u64 = 10_000;

/// How much longer than it took a long pass in vain is not repeated: so passes take at most a tenth of
/// one processor, however often somebody asks.
const REST_FACTOR: u32 = 10;

/// A pass through `pending/` that goes on from one lease to the next, so that a million files cost no
/// memory and the first of them no wait.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    entries: Option<fs::ReadDir>,
    next_due: Option<Timestamp>,
    looked_at: u64,
    rest: Option<Rest>,
}

/// What a long pass in vain has found.
#[derive(Debug)]
struct Rest {
    until: Instant,
    /// The tags of the destinations that were closed.
    closed: Vec<String>,
    next_due: Option<Timestamp>,
}

impl Rest {
    /// Until when a request is as much in vain as the one before; `None` if it may not be.
    fn until(&self, lessee: &Lessee<'_>) -> Option<Timestamp> {
        let left = self.until.saturating_duration_since(Instant::now());
        let still_closed = self.closed.iter().all(|tag| lessee.closed.contains(tag));
        let end = lessee.now.plus(left);
        let none_due = self.next_due.is_none_or(|due| due > lessee.now);
        (!left.is_zero() && still_closed && none_due)
            .then(|| self.next_due.map_or(end, |due| due.min(end)))
    }
}

/// What a request is filled from and with.
#[derive(Clone, Copy)]
pub(super) struct Lessor<'a> {
    pub(super) dir: &'a SpoolDir,
    /// Where this process keeps what it has leased.
    pub(super) directory: &'a Path,
    pub(super) watch: &'a Watch,
    pub(super) claims: &'a Claims,
    pub(super) deferrals: &'a Deferrals,
}

/// Fills a request.
pub(super) fn lease(
    lessor: Lessor<'_>,
    scan: &Mutex<Scan>,
    request: &LeaseRequest,
) -> io::Result<Leased> {
    let mut lessee = Lessee {
        lessor,
        closed: request.closed.iter().map(|d| destination_tag(d)).collect(),
        now: lessor.dir.now(),
        room_events: request.events,
        room_bytes: request.bytes,
        leases: Vec::new(),
        failures: Vec::new(),
    };
    let mut next_due = None;
    match &request.lane {
        Lane::Fresh => {
            while lessee.has_room() {
                let Some(name) = lessor.watch.next() else { break };
                lessee.offer(&name);
            }
        }
        Lane::Any => next_due = scan.lock().run(&lessor.dir.layout, &mut lessee)?,
        Lane::One(id) => {
            if let Some(name) = find(&lessor.dir.layout.pending(), id)? {
                lessee.take(&name)?;
            }
        }
    }
    lessee.into_leased(next_due)
}

impl Scan {
    /// Goes on through `pending/` until there is no room left or a whole pass was made; returns the
    /// earliest due time that a whole pass has met.
    fn run(&mut self, layout: &Layout, lessee: &mut Lessee<'_>) -> io::Result<Option<Timestamp>> {
        if let Some(until) = self.rest.as_ref().and_then(|rest| rest.until(lessee)) {
            return Ok(Some(until));
        }
        self.rest = None;
        let mut pass = None;
        loop {
            if self.entries.is_none() {
                if let Some(began) = pass {
                    self.rest = self.rest_after(began, lessee);
                    return Ok(self.next_due);
                }
                let entries = Some(fs::read_dir(layout.pending())?);
                *self = Self { entries, ..Self::default() };
                pass = Some(Instant::now());
            }
            while lessee.has_room() {
                let Some(entry) = self.entries.as_mut().and_then(Iterator::next) else {
                    self.entries = None;
                    break;
                };
                self.looked_at += 1;
                let name = entry?.file_name();
                let Some(name) = name.to_str() else {
                    if name.as_encoded_bytes().ends_with(EVENT_SUFFIX.as_bytes()) {
                        lessee.set_aside(layout.pending().join(&name));
                    }
                    continue;
                };
                if let Offer::Later(due) = lessee.offer(name) {
                    self.next_due = Some(self.next_due.map_or(due, |next| next.min(due)));
                }
            }
            if !lessee.has_room() {
                return Ok(self.next_due);
            }
        }
    }

    fn rest_after(&self, began: Instant, lessee: &Lessee<'_>) -> Option<Rest> {
        let in_vain = lessee.leases.is_empty() && lessee.failures.is_empty();
        (in_vain && self.looked_at >= LONG_PASS).then(|| Rest {
            until: Instant::now() + (began.elapsed() * REST_FACTOR).max(Duration::from_millis(1)),
            closed: lessee.closed.clone(),
            next_due: self.next_due,
        })
    }
}

/// A lease request that is being filled.
struct Lessee<'a> {
    lessor: Lessor<'a>,
    closed: Vec<String>,
    now: Timestamp,
    room_events: usize,
    room_bytes: usize,
    leases: Vec<Lease>,
    failures: Vec<io::Error>,
}

/// What became of a name.
enum Offer {
    /// It was taken, could not be, or is none of ours.
    Done,
    /// It is due later.
    Later(Timestamp),
}

impl Lessee<'_> {
    fn has_room(&self) -> bool {
        // What was taken before the medium failed is delivered first: it may be what makes room.
        let limit = if self.leases.is_empty() { FAILURES_MAX } else { 1 };
        let has_room = self.leases.is_empty() || (self.room_events > 0 && self.room_bytes > 0);
        has_room && self.failures.len() < limit
    }

    fn offer(&mut self, name: &str) -> Offer {
        let Some(entry) = EntryName::parse(name) else {
            if name.ends_with(EVENT_SUFFIX) {
                self.set_aside(self.lessor.dir.layout.pending().join(name));
            }
            return Offer::Done;
        };
        if self.closed.contains(&entry.tag) {
            return Offer::Done;
        }
        if !entry.is_due(self.now) {
            return Offer::Later(entry.due);
        }
        if let Some(due) = self.lessor.deferrals.until(&entry.request_id, self.now) {
            return Offer::Later(due);
        }
        let taken = self.take(name);
        self.failures.extend(taken.err());
        Offer::Done
    }

    fn take(&mut self, name: &str) -> io::Result<()> {
        let Lessor { dir, watch, claims, .. } = self.lessor;
        let held = self.lessor.directory.join(name);
        let Some(envelope) = claims.claim(dir, watch, &held, name)? else { return Ok(()) };
        let size = envelope.payload.len();
        if size > self.room_bytes && !self.leases.is_empty() {
            self.room_bytes = 0;
            claims.release(envelope.request_id());
            return watch.put_back(dir, &held, name);
        }
        self.room_events = self.room_events.saturating_sub(1);
        self.room_bytes = self.room_bytes.saturating_sub(size);
        let failed_rounds = EntryName::parse(name).map_or(0, |entry| entry.rounds);
        let token = name.to_owned();
        self.leases.push(Lease { envelope: Arc::new(envelope), failed_rounds, token });
        Ok(())
    }

    fn set_aside(&mut self, path: PathBuf) {
        let reason = Unreadable("its name is not one of an event".to_owned());
        self.failures.extend(quarantine(self.lessor.dir, &path, &reason).err());
    }

    fn into_leased(mut self, next_due: Option<Timestamp>) -> io::Result<Leased> {
        if self.leases.is_empty() {
            return match self.failures.pop() {
                Some(error) => Err(error),
                None => Ok(Leased { leases: Vec::new(), next_due }),
            };
        }
        for error in self.failures {
            tracing::warn!(target: "arrakis::queue", %error, "an event cannot be leased for now");
        }
        Ok(Leased { leases: self.leases, next_due: None })
    }
}
