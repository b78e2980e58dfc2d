//! What the tests of commands share: a context whose output can be read.

pub(crate) mod world;

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use arrakis_bin::cli::Context;
use arrakis_bin::cli::output::Terminal;
use arrakis_bin::cli::output::zone::Zone;
use arrakis_core::base::clock::{ManualClock, Timestamp};
use arrakis_core::record::ingest::judge;
use arrakis_core::record::store::{EventStore, MemoryStore};
use arrakis_core::testkit::sessions::Session;

/// A writer whose text can be read by whoever holds a clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    /// What was written so far; it is forgotten.
    pub(crate) fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The time zone of Berlin: an hour before UTC, two in summer.
pub(crate) const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

/// A context and the two ends of its output.
pub(crate) struct Bench {
    pub(crate) context: Context,
    pub(crate) out: Captured,
    pub(crate) err: Captured,
}

fn noon() -> Arc<ManualClock> {
    let noon: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
    Arc::new(ManualClock::new(noon))
}

/// A store with the events of these sessions.
pub(crate) async fn store_of(sessions: &[Session]) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new(noon()));
    for arrival in sessions.iter().flat_map(|session| session.in_order("main")) {
        let verdict = judge(&arrival);
        store.record(vec![(arrival, verdict)]).await.unwrap();
    }
    store
}

/// A context at noon of 24 November 2026 in UTC, without a terminal.
pub(crate) fn bench(home: &Path) -> Bench {
    let (out, err) = (Captured::default(), Captured::default());
    let context = Context {
        home: home.to_owned(),
        json: false,
        terminal: Terminal::NONE,
        clock: noon(),
        zone: Zone::UTC,
        out: Box::new(out.clone()),
        err: Box::new(err.clone()),
    };
    Bench { context, out, err }
}
