//! A scenario: many cases of one kind, judged after each and at the end.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use arrakis_core::base::clock::{Clock, SystemClock};
use arrakis_core::base::dead_letter::DeadLetters;
use arrakis_core::base::digest::Digest;
use arrakis_store_fs::spool::layout::EntryName;
use arrakis_store_fs::{FsQueue, FsQueueConfig, Layout, SpoolDir};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use tempfile::TempDir;

use crate::oracle::{Event, Oracle, Size};
use crate::world::{Up, World, event_files, feed};

/// A server of `world`, which starts no drainer.
pub(crate) fn lone_up(world: &World, address: &str) -> Command {
    let mut up = world.up_command(address);
    up.env("ARRAKIS_BIN", "true");
    up
}

/// A world whose files are in memory, where there is room for them. A process that is killed leaves what
/// it has written either way, and syncing it to a disk would take most of the time.
pub(crate) fn quick_world() -> World {
    const MEMORY: &str = "/dev/shm";
    const ROOM_BYTES: u64 = 1 << 30;
    let room = nix::sys::statvfs::statvfs(MEMORY);
    match room.map(|found| found.blocks_available() * found.fragment_size()) {
        Ok(room) if room >= ROOM_BYTES => World { directory: TempDir::new_in(MEMORY).unwrap() },
        _ => World::new(),
    }
}

/// A real server with a database of its own.
pub(crate) struct Receiver {
    pub(crate) world: World,
    pub(crate) up: Up,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        let world = quick_world();
        let up = Up::start(lone_up(&world, "127.0.0.1:0"));
        Self { world, up }
    }

    /// A home without a spool yet, whose events go to this receiver.
    pub(crate) fn new_home(&self) -> World {
        self.new_home_via(&self.up.url)
    }

    /// The same, by way of another URL.
    pub(crate) fn new_home_via(&self, url: &str) -> World {
        let home = quick_world();
        std::fs::create_dir(home.home()).unwrap();
        let config = std::fs::read_to_string(self.world.home().join("config.toml")).unwrap();
        std::fs::write(home.home().join("config.toml"), config.replace(&self.up.url, url)).unwrap();
        home
    }
}

/// What random choices begin with; `ARRAKIS_RELIABILITY_SEED` repeats a run.
pub(crate) fn seed() -> u64 {
    let chosen = std::env::var("ARRAKIS_RELIABILITY_SEED").ok();
    chosen.map_or(11, |seed| seed.parse().expect("ARRAKIS_RELIABILITY_SEED is a number"))
}

/// The directories that a world's programs keep events in.
pub(crate) fn roots(world: &World) -> Vec<PathBuf> {
    vec![world.home(), world.directory.path().join("fallback")]
}

/// Delivers what is due in a world's spools, soon after the last attempt, and ends.
pub(crate) fn drain_once(world: &World) -> Command {
    let mut drain = world.command(env!("CARGO_BIN_EXE_arrakis"));
    drain.args(["drain", "--once"]).env("ARRAKIS_RETRY_DELAY", "1");
    drain
}

/// What the name of an event's file says.
pub(crate) fn entry_name(file: &Path) -> EntryName {
    let name = file.file_name().and_then(|name| name.to_str()).and_then(EntryName::parse);
    name.expect("the name of an event")
}

/// Gives the newest event that waits another name.
pub(crate) fn rename_newest(world: &World, name: impl FnOnce(EntryName) -> EntryName) -> PathBuf {
    let files = world.spooled("pending").into_iter();
    let newest = files.max_by_key(|file| entry_name(file).request_id).expect("an event");
    let renamed = newest.with_file_name(name(entry_name(&newest)).to_string());
    std::fs::rename(newest, &renamed).unwrap();
    renamed
}

/// Puts every dead letter of a world back.
pub(crate) fn redrive(world: &World) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (layout, clock) = (Layout::new(world.home()), Arc::new(SystemClock));
        let queue =
            FsQueue::open(SpoolDir::new(layout).with_clock(clock), FsQueueConfig::default())
                .unwrap();
        let letters = queue.list(None, usize::MAX).await.unwrap();
        let ids: Vec<_> = letters.into_iter().map(|letter| letter.request_id).collect();
        queue.redrive(&ids).await.unwrap();
    });
}

/// One row of the audit log that is not a repeat.
#[derive(QueryableByName)]
struct Admitted {
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = Binary)]
    digest: Vec<u8>,
    #[diesel(sql_type = Nullable<Text>)]
    request_body: Option<String>,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = Nullable<Text>)]
    session_id: Option<String>,
    #[diesel(sql_type = BigInt)]
    admitted: i64,
    #[diesel(sql_type = BigInt)]
    repeated: i64,
}

/// What is counted in a scenario.
#[derive(Debug, Default)]
struct Figures {
    cases: u64,
    faults: u64,
    lost: u64,
    doubled: u64,
    damaged: u64,
    unknown: u64,
    wedged: u64,
}

/// Many cases of one kind.
pub(crate) struct Scenario {
    name: String,
    pub(crate) oracle: Oracle,
    figures: Figures,
    /// What was found, in words.
    troubles: Vec<String>,
    /// How often each event was admitted, by the databases that were tallied.
    admitted: BTreeMap<String, i64>,
    repeated: i64,
}

impl Scenario {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            oracle: Oracle::default(),
            figures: Figures::default(),
            troubles: Vec::new(),
            admitted: BTreeMap::new(),
            repeated: 0,
        }
    }

    /// Captures an event with a hook that finds no drainer to start.
    pub(crate) fn capture(&self, world: &World, size: Size) -> Event {
        let event = self.oracle.issue(size);
        feed(world.lone_hook(), &event.payload);
        self.oracle.owe(&event);
        event
    }

    /// Counts a case, and the faults that happened in it.
    pub(crate) fn count(&mut self, faults: u64) {
        self.figures.cases += 1;
        self.figures.faults += faults;
    }

    /// Notes what must not be.
    fn trouble(&mut self, trouble: String) {
        self.troubles.push(trouble);
    }

    /// The fault is over: a fresh event must get through, and with it whatever else is in the spool.
    pub(crate) fn recover(
        &mut self,
        world: &World,
        database: &World,
        events: &[Event],
        case: &str,
    ) {
        let fresh = self.capture(world, Size::Small);
        let drained = drain_once(world).output().unwrap();
        if !drained.status.success() {
            let words = String::from_utf8_lossy(&drained.stderr).into_owned();
            self.wedged(format!("{case}: draining failed: {words}"));
        }
        self.wait_for_the_rest(world);
        for root in roots(world) {
            for directory in ["pending", "processing", "failed", "quarantine"] {
                let left = event_files(&root.join("queue").join(directory));
                if !left.is_empty() {
                    self.wedged(format!("{case}: {directory} holds {left:?}"));
                }
            }
        }
        self.judge(database, events, case);
        self.judge(database, &[fresh], case);
    }

    /// Delivers what one drain has left: an event that failed a round or was deferred waits for its time, which
    /// this does not, and a receiver that failed is spared for some seconds, for which a drainer waits.
    fn wait_for_the_rest(&self, world: &World) {
        let left = |world: &World| [world.spooled("pending"), world.spooled("processing")].concat();
        let now = SystemClock.now();
        for file in left(world).iter().filter(|file| entry_name(file).due > now) {
            world.arrakis(&["drain", "--only", entry_name(file).request_id.as_str()]);
        }
        if left(world).is_empty() {
            return;
        }
        let mut drainer =
            world.command(env!("CARGO_BIN_EXE_arrakis")).arg("drain").spawn().unwrap();
        world.wait_until("the rest is delivered", |world| left(world).is_empty());
        drainer.kill().unwrap();
        drainer.wait().unwrap();
    }

    /// Compares what was stored of these events with what was issued.
    pub(crate) fn judge(&mut self, database: &World, events: &[Event], case: &str) {
        let mut connection = database.database();
        for event in events {
            let Event { id, payload } = event;
            let rows: Vec<Admitted> = diesel::sql_query(
                "SELECT status, digest, request_body FROM webhook_events
                 WHERE session_id = ? AND status <> 'DUPLICATE' AND event_type IS NOT 'Transcript'",
            )
            .bind::<Text, _>(id)
            .load(&mut connection)
            .unwrap();
            match rows.as_slice() {
                [] if self.oracle.is_owed(event) => {
                    self.figures.lost += 1;
                    self.trouble(format!("{case}: {id} is lost"));
                }
                [] => {}
                [row] => {
                    let is_same = row.request_body.as_deref().map(str::as_bytes) == Some(payload)
                        && row.digest == Digest::of(payload).as_bytes();
                    if row.status != "SUCCESS" || !is_same {
                        self.figures.damaged += 1;
                        self.trouble(format!("{case}: {id} is {} and damaged", row.status));
                    }
                }
                rows => {
                    self.figures.doubled += 1;
                    self.trouble(format!("{case}: {id} is there {} times", rows.len()));
                }
            }
        }
    }

    /// Looks whether the slices of a session's transcript hold each of its bytes, and each once.
    pub(crate) fn judge_slices(&mut self, database: &World, session: &str, bytes: u64, case: &str) {
        let rows: Vec<Admitted> = diesel::sql_query(
            "SELECT status, digest, request_body FROM webhook_events
             WHERE session_id = ? AND status <> 'DUPLICATE' AND event_type = 'Transcript'",
        )
        .bind::<Text, _>(session)
        .load(&mut database.database())
        .unwrap();
        let place = |row: Admitted| -> (u64, u64) {
            assert_eq!(row.status, "SUCCESS");
            let body: serde_json::Value = serde_json::from_str(&row.request_body.unwrap()).unwrap();
            (body["start"].as_u64().unwrap(), body["end"].as_u64().unwrap())
        };
        let mut places: Vec<_> = rows.into_iter().map(place).collect();
        places.sort_unstable();
        let mut at = 0;
        for (start, end) in places.iter().copied().chain([(bytes, bytes)]) {
            if start > at {
                self.figures.lost += 1;
                self.trouble(format!("{case}: bytes {at} to {start} are lost: {places:?}"));
            } else if start < at {
                self.figures.doubled += 1;
                self.trouble(format!("{case}: bytes {start} to {at} came twice: {places:?}"));
            }
            at = end;
        }
    }

    fn wedged(&mut self, trouble: String) {
        self.figures.wedged += 1;
        self.trouble(trouble);
    }

    /// Counts every row of a database, once at its end.
    pub(crate) fn tally(&mut self, database: &World) {
        let rows: Vec<Count> = diesel::sql_query(
            "SELECT session_id, sum(status <> 'DUPLICATE') AS admitted,
                    sum(status = 'DUPLICATE') AS repeated
             FROM webhook_events WHERE event_type IS NOT 'Transcript' GROUP BY session_id",
        )
        .load(&mut database.database())
        .unwrap();
        for row in rows {
            self.repeated += row.repeated;
            *self.admitted.entry(row.session_id.unwrap_or_default()).or_default() += row.admitted;
        }
    }

    /// Accounts for every event that was issued and every row that was tallied, prints the figures,
    /// and fails if anything is not as it must be.
    pub(crate) fn finish(mut self) {
        let issued = self.oracle.issued();
        let (admitted, repeated) = (&self.admitted, self.repeated);
        let unknown = admitted.keys().filter(|id| !issued.contains_key(*id)).count();
        self.figures.unknown += unknown as u64;
        let owed = issued.iter().filter(|(_, is_owed)| **is_owed);
        let missing = owed.clone().filter(|(id, _)| !admitted.contains_key(*id)).count();
        let Figures { cases, faults, lost, doubled, damaged, unknown, wedged } = self.figures;
        let owed = owed.count();
        let line = format!(
            "reliability: {}: cases={cases} faults={faults} owed={owed} stored={} repeated={repeated} \
             lost={lost} doubled={doubled} damaged={damaged} unknown={unknown} wedged={wedged}",
            self.name,
            admitted.values().sum::<i64>(),
        );
        // Past the capture of the test harness: the figures are what the run is for.
        std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
        let shown: Vec<&String> = self.troubles.iter().take(20).collect();
        assert!(self.troubles.is_empty(), "{line}\n{shown:#?}");
        assert_eq!((missing, lost + doubled + damaged + unknown + wedged), (0, 0), "{line}");
        assert!(admitted.values().all(|count| *count == 1), "{line}");
        assert!(cases > 0 && faults > 0, "no fault happened: {line}");
    }
}
