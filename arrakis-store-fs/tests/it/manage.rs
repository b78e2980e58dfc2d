//! Looking after a spool: lists, retries, discards, verification, repair, and moves to another spool.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::{Clock, ManualClock, Timestamp};
use arrakis_core::base::dead_letter::{DeadLetters, Failure};
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::delivery::queue::{Disposition, Lane, Lease, LeaseRequest, Queue, Wake};
use arrakis_store_fs::admin::action::{Action, Discarder, retry};
use arrakis_store_fs::admin::entry::{Entry, Filter, Found, State, entries};
use arrakis_store_fs::admin::inspect::inspect;
use arrakis_store_fs::admin::repair::repair;
use arrakis_store_fs::admin::transfer::{Exporter, ImportError, Imported, Importer, read_line};
use arrakis_store_fs::admin::verify::{Finding, Kind, Step, verify};
use arrakis_store_fs::spool::layout::EntryName;
use arrakis_store_fs::{FsQueue, FsQueueConfig, Layout, Spool, SpoolDir, SpoolLimits};
use tempfile::TempDir;

struct Home {
    _directory: TempDir,
    layout: Layout,
    clock: Arc<ManualClock>,
}

impl Home {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let layout = Layout::new(directory.path().join("home"));
        Spool::new(layout.clone()).create().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
        Self { _directory: directory, layout, clock }
    }

    fn queue(&self) -> FsQueue {
        FsQueue::open(self.dir(), FsQueueConfig::default()).unwrap()
    }

    fn dir(&self) -> SpoolDir {
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
        SpoolDir::new(self.layout.clone()).with_clock(clock)
    }

    /// The spool as it is seen at another time.
    fn dir_at(&self, now: Timestamp) -> SpoolDir {
        self.dir().with_clock(Arc::new(ManualClock::new(now)))
    }

    fn capture(&self, id: &str, payload: &[u8]) -> PathBuf {
        self.capture_for(id, payload, "http://h/")
    }

    fn capture_for(&self, id: &str, payload: &[u8], destination: &str) -> PathBuf {
        let now = self.clock.now();
        let payload = payload.to_vec();
        let event =
            Envelope::new(id.parse().unwrap(), now, destination, Source::default(), payload);
        Spool::new(self.layout.clone()).capture(&event).unwrap()
    }

    /// An event that has lost `rounds` rounds, and is a dead letter then or due in an hour.
    async fn capture_failed(&self, id: &str, rounds: u32, dead: bool) {
        self.capture(id, br#"{"session_id":"s","hook_event_name":"Stop"}"#);
        let queue = self.queue();
        for round in 1..=rounds {
            let lease = lease(&queue, id).await.unwrap();
            let code = "receiver_failed".to_owned();
            let message = format!("round {round}");
            let failure = Failure { at: self.clock.now(), round, code, message };
            let due = self.clock.now().plus(Duration::from_secs(3600));
            let end = if dead && round == rounds {
                Disposition::DeadLetter { failure }
            } else {
                Disposition::RetryAt { due, failure }
            };
            queue.settle(vec![(lease, end)]).await.unwrap();
        }
    }

    fn entries(&self, filter: &Filter) -> Vec<Entry> {
        entries(&self.layout, filter).map(Result::unwrap).collect()
    }

    fn entry(&self, name: &str) -> Entry {
        let names = BTreeSet::from([name.to_owned()]);
        let mut found = self.entries(&Filter { names, ..Filter::default() });
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        found.remove(0)
    }

    fn ids(&self, filter: &Filter) -> Vec<String> {
        let mut ids: Vec<_> = self.entries(filter).iter().map(Entry::id).collect();
        ids.sort();
        ids
    }

    fn in_state(&self, state: State) -> Vec<String> {
        self.ids(&Filter { states: [state].into(), ..Filter::default() })
    }

    fn verify(&self) -> Vec<Finding> {
        findings(|tell| {
            verify(&self.layout, &Filter::default(), tell);
        })
    }

    /// Repairs a day later, so that what nobody writes to counts as left behind.
    fn repair(&self) -> Vec<Finding> {
        let tomorrow =
            Timestamp::from(std::time::SystemTime::now()).plus(Duration::from_secs(24 * 3600));
        findings(|tell| {
            let (all, limits) = Default::default();
            repair(&self.dir_at(tomorrow), &all, limits, tell).unwrap();
        })
    }
}

fn findings(look: impl FnOnce(&mut dyn FnMut(Step))) -> Vec<Finding> {
    let mut findings = Vec::new();
    look(&mut |step| {
        if let Step::Finding(finding) = step {
            findings.push(finding);
        }
    });
    findings.sort_by_key(|finding| (finding.kind, finding.path.clone()));
    findings
}

async fn lease(queue: &FsQueue, id: &str) -> Option<Lease> {
    let lane = Lane::One(id.parse().unwrap());
    let request = LeaseRequest { lane, events: 1, bytes: 1 << 20, closed: Vec::new() };
    queue.lease(request).await.unwrap().leases.pop()
}

async fn due(queue: &FsQueue) -> Vec<String> {
    let any = LeaseRequest { lane: Lane::Any, events: 100, bytes: 1 << 30, closed: Vec::new() };
    let leases = queue.lease(any).await.unwrap().leases;
    let mut ids: Vec<_> = leases.iter().map(|l| l.envelope.request_id().to_string()).collect();
    ids.sort();
    ids
}

/// Every file below a directory with its bytes, by its name from there.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push((entry.path(), fs::read(entry.path()).unwrap()));
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn entries_are_found_by_everything_that_is_known_of_them() {
    let home = Home::new();
    home.capture("old", br#"{"session_id":"s-1","hook_event_name":"SessionStart"}"#);
    home.clock.advance(Duration::from_secs(60));
    home.capture_for("other", br#"{"session_id":"s-2","hook_event_name":"Stop"}"#, "http://o/");
    home.capture_failed("dead", 6, true).await;
    home.capture("text", b"no JSON");
    fs::write(home.layout.quarantine().join("odd name"), b"x").unwrap();
    fs::write(home.layout.quarantine().join("odd name.reason"), b"because\n").unwrap();
    let queue = home.queue();
    let _lease = lease(&queue, "text").await.unwrap();

    assert_eq!(home.ids(&Filter::default()), ["dead", "odd name", "old", "other", "text"]);
    assert_eq!(home.in_state(State::Pending), ["old", "other"]);
    assert_eq!(home.in_state(State::Processing), ["text"]);
    assert_eq!(home.in_state(State::Failed), ["dead"]);
    assert_eq!(home.in_state(State::Quarantined), ["odd name"]);
    let some = |text: &str| Some(text.to_owned());
    let cases = [
        (Filter { event_type: some("Stop"), ..Filter::default() }, vec!["dead", "other"]),
        (Filter { session_id: some("s-2"), ..Filter::default() }, vec!["other"]),
        (Filter { destination: some("http://o/"), ..Filter::default() }, vec!["other"]),
        (Filter { captured_before: Some(home.clock.now()), ..Filter::default() }, vec!["old"]),
        (Filter { failure_code: some("receiver_failed"), ..Filter::default() }, vec!["dead"]),
        (Filter { failure_code: some("refused"), ..Filter::default() }, vec![]),
        (
            Filter { session_id: some("s"), states: [State::Pending].into(), ..Filter::default() },
            vec![],
        ),
    ];
    for (filter, expected) in cases {
        assert_eq!(home.ids(&filter), expected, "{filter:?}");
    }
    let odd = home.entry("odd name");
    assert_eq!(odd.reason().as_deref(), Some("because"));
    assert_eq!(home.entry("dead").history(&home.layout).len(), 6);
}

#[test]
fn a_header_of_any_length_is_read_without_its_payload() {
    let home = Home::new();
    let long = format!("http://h/{}", "x".repeat(20_000));
    let path = home.capture_for("a", &vec![b'p'; 1 << 20], &long);
    // Damage in the payload is not looked for.
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(25_000).unwrap();
    let header = home.entry("a").header().unwrap().whole().unwrap();
    assert_eq!(header.destination, long);
    assert!(matches!(home.entry("a").read().unwrap(), Found::Unreadable(_)));
}

#[tokio::test]
async fn retry_makes_what_waits_and_what_failed_due_at_once() {
    let home = Home::new();
    home.capture_failed("waits", 2, false).await;
    home.capture_failed("dead", 6, true).await;
    home.capture("fresh", b"{}");
    home.capture("leased", b"{}");
    let queue = home.queue();
    let held = lease(&queue, "leased").await.unwrap();
    for (id, expected) in [
        ("waits", Action::Done),
        ("dead", Action::Done),
        ("fresh", Action::Done),
        ("leased", Action::Leased),
    ] {
        assert_eq!(retry(&home.dir(), &home.entry(id)).unwrap(), expected, "{id}");
    }
    assert_eq!(home.entry("waits").named.unwrap().rounds, 2);
    assert_eq!(home.entry("dead").named.unwrap().rounds, 0, "all rounds are before it");
    assert_eq!(home.entry("dead").history(&home.layout).len(), 6, "its history goes on");
    Spool::new(home.layout.clone()).poke().unwrap();
    while queue.wait().await != Wake::Poked {}
    assert_eq!(due(&queue).await, ["dead", "fresh", "waits"]);
    queue.settle(vec![(held, Disposition::Delivered)]).await.unwrap();
}

#[tokio::test]
async fn what_had_waited_for_too_long_gets_its_time_anew() {
    let home = Home::new();
    let path = home.capture("old", b"{}");
    let queue = home.queue();
    let week = Duration::from_secs(7 * 24 * 3600);
    queue.age(Duration::from_secs(1)).await.unwrap();
    assert_eq!(queue.age(week).await.unwrap().expired, 1);
    assert!(!path.exists());
    let expired = home.entry("old");
    let history = expired.history(&home.layout);
    assert_eq!((expired.state, history.len()), (State::Failed, 1), "{history:?}");
    assert_eq!(history[0].code, "expired");

    // Elsewhere it is told once, too.
    let other = Home::new();
    assert_eq!(imported(&other, &exported(&home)), [Imported::New(State::Failed)]);
    assert_eq!(other.entry("old").history(&other.layout).len(), 1);

    assert_eq!(retry(&home.dir(), &expired).unwrap(), Action::Done);
    assert_eq!(queue.age(Duration::from_secs(1)).await.unwrap().expired, 0);
    assert_eq!(home.in_state(State::Pending), ["old"]);
}

#[tokio::test]
async fn an_entry_that_was_met_and_is_gone_is_passed_over() {
    let home = Home::new();
    home.capture_failed("waits", 1, false).await;
    home.capture_failed("dead", 1, true).await;
    home.capture("fresh", b"{}");
    let met = home.entries(&Filter::default());
    assert_eq!(met.len(), 3);
    let queue = home.queue();
    queue.redrive(&["dead".parse().unwrap()]).await.unwrap();
    for id in ["waits", "dead", "fresh"] {
        let lease = lease(&queue, id).await.unwrap();
        queue.settle(vec![(lease, Disposition::Delivered)]).await.unwrap();
    }
    for entry in &met {
        assert_eq!(discard(&home, entry).unwrap(), Action::Gone);
        assert_eq!(entry.read().unwrap(), Found::Gone);
        let line = Exporter::default().line(&home.layout, entry);
        assert_eq!(line.unwrap(), Found::Gone);
        if entry.id() != "fresh" {
            assert_eq!(retry(&home.dir(), entry).unwrap(), Action::Gone);
        }
    }
    assert_eq!(home.entries(&Filter::default()), []);
}

#[tokio::test]
async fn discard_takes_the_entry_and_everything_about_it() {
    let home = Home::new();
    home.capture_failed("dead", 6, true).await;
    home.capture_failed("waits", 1, false).await;
    home.capture("leased", b"{}");
    let queue = home.queue();
    let _held = lease(&queue, "leased").await.unwrap();
    let set_aside = home.layout.quarantine().join("1800000000000-00-00000000-bad.event.1");
    fs::write(&set_aside, b"x").unwrap();
    fs::write(home.layout.quarantine().join("1800000000000-00-00000000-bad.event.1.reason"), b"r")
        .unwrap();
    fs::create_dir_all(home.layout.quarantine().join("folder.event/inner")).unwrap();
    symlink("/nowhere", home.layout.quarantine().join("link.event")).unwrap();
    for entry in home.entries(&Filter::default()) {
        let expected = if entry.id() == "leased" { Action::Leased } else { Action::Done };
        assert_eq!(discard(&home, &entry).unwrap(), expected, "{entry:?}");
    }
    assert_eq!(home.ids(&Filter::default()), ["leased"]);
    assert_eq!(fs::read_dir(home.layout.quarantine()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(home.layout.attempts()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_comes_in_and_what_is_given_up_adds_up() {
    let home = Home::new();
    for id in ["a", "b", "c"] {
        home.capture(id, b"{}");
    }
    home.capture_failed("dead", 1, true).await;
    fs::write(home.entry("c").path, b"damaged").unwrap();
    assert_eq!(home.repair().len(), 1);
    let other = Home::new();
    imported(&other, &exported(&home));
    for home in [&home, &other] {
        let all = home.entries(&Filter::default());
        for entry in all.iter().filter(|entry| entry.state != State::Pending) {
            discard(home, entry).unwrap();
            assert_eq!(discard(home, entry).unwrap(), Action::Gone);
        }
        let found = inspect(&home.layout).unwrap();
        assert_eq!(
            (found.counters.captured, found.counters.discarded, found.present.pending),
            (4, 2, 2)
        );
    }
}

#[tokio::test]
async fn what_reads_well_again_leaves_quarantine() {
    let home = Home::new();
    let path = home.capture("a", b"{}");
    let whole = fs::read(&path).unwrap();
    let name = path.file_name().unwrap();
    let set_aside = home.layout.quarantine().join(name);
    fs::rename(&path, &set_aside).unwrap();
    fs::write(set_aside.with_extension("event.reason"), b"a newer version\n").unwrap();
    let damaged = home.layout.quarantine().join("1800000000000-00-00000000-b.event");
    fs::write(&damaged, &whole[..whole.len() - 1]).unwrap();

    let quarantined = Filter { states: [State::Quarantined].into(), ..Filter::default() };
    for entry in home.entries(&quarantined) {
        let retried = retry(&home.dir(), &entry).unwrap();
        if entry.path == damaged {
            assert!(matches!(retried, Action::Kept(why) if why.contains("1 bytes instead of 2")));
        } else {
            assert_eq!(retried, Action::Done);
        }
    }
    assert_eq!(fs::read(home.layout.pending().join(name)).unwrap(), whole);
    assert_eq!(fs::read_dir(home.layout.quarantine()).unwrap().count(), 1);

    // A second one of the same id does not take the place of the first.
    fs::write(&set_aside, &whole).unwrap();
    let again = home.entries(&quarantined).into_iter().find(|e| e.path == set_aside).unwrap();
    assert!(matches!(retry(&home.dir(), &again).unwrap(), Action::Kept(_)));
    assert!(set_aside.exists());
}

#[tokio::test]
async fn no_ids_are_not_all_ids() {
    let home = Home::new();
    home.capture_failed("dead", 1, true).await;
    let queue = home.queue();
    assert_eq!(queue.redrive(&[]).await.unwrap(), 0);
    assert_eq!(queue.discard(&[]).await.unwrap(), 0);
    assert_eq!(home.in_state(State::Failed), ["dead"]);
}

#[tokio::test]
async fn dead_letters_are_listed_in_order_and_past_damaged_ones() {
    let home = Home::new();
    for id in ["d", "b", "a", "c"] {
        home.capture_failed(id, 1, true).await;
    }
    let damaged = home.entry("b").path;
    fs::write(&damaged, b"x").unwrap();
    let queue = home.queue();
    let page = queue.list(None, 2).await.unwrap();
    let ids: Vec<_> = page.iter().map(|letter| letter.request_id.as_str()).collect();
    assert_eq!(ids, ["a", "c"], "what is damaged takes no place");
    let rest = queue.list(Some("c".parse().unwrap()), 9).await.unwrap();
    assert_eq!(rest.len(), 1);
    assert_eq!(queue.depth().await.unwrap().quarantined, 1);
}

#[tokio::test]
async fn a_torn_line_takes_no_other_round_out_of_a_history() {
    let home = Home::new();
    home.capture_failed("a", 1, false).await;
    let history = home.layout.attempts().join("a.jsonl");
    let mut torn = fs::read(&history).unwrap();
    torn.extend_from_slice(b"{\"at\":\"2026-");
    torn.extend_from_slice(&[0xff, 0xfe]);
    fs::write(&history, &torn).unwrap();
    let queue = home.queue();
    let lease = lease(&queue, "a").await.unwrap();
    let (code, message) = ("refused".to_owned(), "no".to_owned());
    let failure = Failure { at: home.clock.now(), round: 2, code, message };
    queue.settle(vec![(lease, Disposition::DeadLetter { failure })]).await.unwrap();
    let detail = queue.show(&"a".parse().unwrap()).await.unwrap().unwrap();
    let rounds: Vec<_> = detail.history.iter().map(|failure| failure.round).collect();
    assert_eq!(rounds, [1, 2]);
    assert_eq!(detail.letter.failure.unwrap().code, "refused");
}

#[tokio::test]
async fn names_of_any_length_go_to_quarantine_and_delay_nothing() {
    let home = Home::new();
    let names =
        ["x".repeat(249) + ".event", "y".repeat(243) + ".event", "é".repeat(124) + ".event"];
    for name in &names {
        fs::write(home.layout.pending().join(name), name).unwrap();
        // As if one of its name had been set aside before.
        fs::write(home.layout.quarantine().join(name), b"before").unwrap();
    }
    let raw = std::ffi::OsStr::from_bytes(b"\xff\xfe.event");
    fs::write(home.layout.pending().join(raw), b"raw").unwrap();
    home.capture("whole", b"{}");
    let queue = home.queue();
    assert_eq!(due(&queue).await, ["whole"]);
    let kept: Vec<_> = files(&home.layout.quarantine()).into_iter().map(|(_, b)| b).collect();
    for name in &names {
        assert!(kept.contains(&name.clone().into_bytes()), "{name}");
    }
    let reasons = kept.iter().filter(|bytes| bytes.starts_with(b"its name is not")).count();
    assert_eq!(reasons, 4);
}

#[tokio::test]
async fn verify_tells_all_damage_and_changes_nothing() {
    let home = Home::new();
    assert_eq!(home.verify(), []);
    let a = home.capture("a", b"{}");
    home.capture_failed("dead", 6, true).await;
    let dead = home.entry("dead").path;
    home.capture("fine", b"{}");
    home.capture("leased", b"{}");
    let queue = home.queue();
    let _held = lease(&queue, "leased").await.unwrap();
    let leased = home.entry("leased").path;
    fs::write(home.layout.quarantine().join("known.event"), b"x").unwrap();
    assert_eq!(home.verify(), []);

    for damaged in [&a, &leased] {
        let mut bytes = fs::read(damaged).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(damaged, bytes).unwrap();
    }
    let wrong = dead.with_file_name("1800000000000-06-00000000-other.event");
    fs::rename(&dead, &wrong).unwrap();
    fs::write(home.layout.pending().join("none.event"), b"x").unwrap();
    symlink("/etc/hostname", home.layout.pending().join("link.event")).unwrap();
    fs::remove_dir(home.layout.tmp()).unwrap();
    let before = files(home.layout.home());
    let found = home.verify();
    let kinds: Vec<_> = found.iter().map(|finding| finding.kind).collect();
    use Kind::{Damaged, Misnamed, MissingDirectory};
    assert_eq!(kinds, [Damaged, Damaged, Damaged, Damaged, Misnamed, MissingDirectory]);
    assert!(found[4].problem.contains("-06-") && found[4].problem.contains("-dead.event"));
    assert!(found.iter().all(|finding| finding.remedy.is_none()));
    assert_eq!(files(home.layout.home()), before);
}

#[tokio::test]
async fn repair_mends_what_it_can_and_finds_nothing_the_second_time() {
    let home = Home::new();
    let a = home.capture("a", b"{}");
    let mut damaged = fs::read(&a).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&a, &damaged).unwrap();
    home.capture_failed("dead", 6, true).await;
    let dead = home.entry("dead").path;
    fs::rename(&dead, dead.with_file_name("1800000000000-06-00000000-other.event")).unwrap();
    home.capture("taken", b"{}");
    fs::rename(home.entry("taken").path, home.layout.pending().join("notaname.event")).unwrap();
    home.capture("unfinished", b"{}");
    fs::rename(home.entry("unfinished").path, home.layout.tmp().join("unfinished.0")).unwrap();
    fs::write(home.layout.tmp().join("torn.0"), b"{\"envelope\":1").unwrap();
    fs::write(home.layout.quarantine().join("why.event"), b"x").unwrap();
    fs::write(home.layout.quarantine().join("gone.event.reason"), b"x").unwrap();
    fs::write(home.layout.attempts().join("gone.jsonl"), b"{}\n").unwrap();
    // One that is alive keeps what it has.
    home.capture("leased", b"{}");
    let queue = home.queue();
    let _held = lease(&queue, "leased").await.unwrap();
    // A drainer that has died: its lock can be taken.
    let orphan = home.capture("orphan", b"{}");
    let owner = home.layout.processing().join("1-1-1-0");
    fs::create_dir(&owner).unwrap();
    fs::write(owner.join("lock"), b"").unwrap();
    fs::rename(&orphan, owner.join(orphan.file_name().unwrap())).unwrap();
    fs::write(home.layout.full(), b"").unwrap();

    let found = home.repair();
    let kinds: Vec<_> = found.iter().map(|finding| finding.kind).collect();
    use Kind::*;
    assert_eq!(
        kinds,
        [
            Damaged,
            Misnamed,
            Misnamed,
            Orphaned,
            Unfinished,
            Unfinished,
            LostHistory,
            LostReason,
            LostReason,
            StaleFlag
        ],
        "{found:#?}"
    );
    assert!(found.iter().all(|finding| finding.remedy.is_some()), "{found:#?}");
    assert_eq!(home.repair(), []);
    assert_eq!(home.verify(), []);
    assert_eq!(home.in_state(State::Pending), ["orphan", "taken", "unfinished"]);
    assert_eq!(home.in_state(State::Failed), ["dead"]);
    assert_eq!(home.in_state(State::Processing), ["leased"]);
    assert_eq!(home.entry("dead").named.unwrap().rounds, 6);
    assert_eq!(home.entry("dead").history(&home.layout).len(), 6);
    let kept = home.layout.quarantine().join(a.file_name().unwrap());
    assert_eq!(fs::read(kept).unwrap(), damaged, "bytes are intact");
    assert!(!home.layout.full().exists());

    fs::remove_dir_all(home.layout.queue()).unwrap();
    assert!(home.repair().iter().all(|finding| finding.kind == MissingDirectory));
    assert_eq!(home.verify(), []);
}

#[test]
fn verify_and_repair_can_be_about_some_entries_only() {
    let home = Home::new();
    for id in ["a", "b"] {
        let path = home.capture(id, b"{}");
        fs::write(&path, b"x").unwrap();
    }
    fs::write(home.layout.quarantine().join("no reason"), b"x").unwrap();
    let a = Filter { names: ["a".to_owned()].into(), ..Filter::default() };
    let found = findings(|tell| {
        verify(&home.layout, &a, tell);
    });
    assert_eq!(found.len(), 1);
    let repaired = findings(|tell| {
        repair(&home.dir(), &a, SpoolLimits::default(), tell).unwrap();
    });
    assert_eq!((repaired.len(), &repaired[0].path), (1, &found[0].path));
    assert_eq!(home.in_state(State::Pending), ["b"]);
}

#[test]
fn repair_leaves_alone_what_may_be_in_work() {
    let home = Home::new();
    fs::write(home.layout.tmp().join("young.0"), b"{").unwrap();
    fs::write(home.layout.attempts().join("young.jsonl"), b"{}\n").unwrap();
    let now = Timestamp::from(std::time::SystemTime::now());
    let found = findings(|tell| {
        repair(&home.dir_at(now), &Filter::default(), SpoolLimits::default(), tell).unwrap();
    });
    assert_eq!(found, []);
    assert!(home.layout.tmp().join("young.0").exists());
}

fn discard(home: &Home, entry: &Entry) -> std::io::Result<Action> {
    Discarder::new(&home.dir()).discard(entry)
}

/// Everything of a spool as lines.
fn exported(home: &Home) -> Vec<Vec<u8>> {
    let entries = home.entries(&Filter::default());
    let mut exporter = Exporter::default();
    let mut line = |entry: &Entry| exporter.line(&home.layout, entry).unwrap();
    let lines = entries.iter().filter_map(|entry| line(entry).whole()).collect();
    for entry in entries.iter().filter(|entry| entry.state != State::Quarantined) {
        assert_eq!(line(entry), Found::Gone, "an event has one line");
    }
    lines
}

fn imported(home: &Home, lines: &[Vec<u8>]) -> Vec<Imported> {
    let mut importer = Importer::new(home.layout.clone()).unwrap();
    lines.iter().map(|line| importer.take(line).unwrap()).collect()
}

/// The files of a spool's entries and histories.
fn kept(home: &Home) -> Vec<(PathBuf, Vec<u8>)> {
    let layout = &home.layout;
    let directories = [layout.pending(), layout.failed(), layout.quarantine(), layout.attempts()];
    let all = directories.iter().flat_map(|directory| files(directory));
    all.map(|(path, bytes)| (path.strip_prefix(layout.home()).unwrap().to_owned(), bytes)).collect()
}

#[tokio::test]
async fn what_is_exported_comes_in_byte_for_byte_and_once() {
    let home = Home::new();
    home.capture("json", br#"{"session_id":"s","hook_event_name":"Stop"}"#);
    home.capture("text", "a \u{fffd} line\nand \u{202e} more".as_bytes());
    home.capture("binary", &[0, 255, 10, 13, 254]);
    home.capture("controls", &[7; 300]);
    home.capture("empty", b"");
    home.capture_failed("waits", 2, false).await;
    home.capture_failed("dead", 6, true).await;
    // A header of the first version, which has no check, with a field that no version knows.
    let path = home.capture("first", b"{}");
    let text = fs::read_to_string(&path).unwrap();
    let (line, rest) = text.split_once(",\"check\":\"").unwrap();
    let line = line.replacen('{', "{ \"new\": [1.50, \"\\u00e9\"],", 1);
    fs::write(&path, format!("{line}}}{}", &rest[17..].trim_start_matches('}'))).unwrap();
    for (name, bytes) in [("odd", &b"\x00\xff"[..]), ("odd.1", b"more")] {
        fs::write(home.layout.quarantine().join(name), bytes).unwrap();
        fs::write(home.layout.quarantine().join(format!("{name}.reason")), "why\n").unwrap();
    }
    let lines = exported(&home);
    assert_eq!(lines.len(), 10);
    let controls = lines.iter().find(|line| line.windows(9).any(|w| w == b"-controls")).unwrap();
    assert!(controls.len() < 1200, "no six bytes for each");

    let other = Home::new();
    assert!(imported(&other, &lines).iter().all(|line| matches!(line, Imported::New(_))));
    assert_eq!(kept(&other), kept(&home));
    assert_eq!(Spool::new(other.layout.clone()).captured(), 10);
    assert!(imported(&other, &lines).iter().all(|line| *line == Imported::Known));
    assert_eq!(kept(&other), kept(&home));
    let third = Home::new();
    let mut again = Importer::new(third.layout.clone()).unwrap();
    assert!(matches!(again.take(&lines[0]).unwrap(), Imported::New(_)));
    assert_eq!(again.take(&lines[0]).unwrap(), Imported::Known, "within one import, too");
}

#[tokio::test]
async fn what_was_leased_waits_where_it_is_imported() {
    let home = Home::new();
    home.capture("leased", b"{}");
    let queue = home.queue();
    let _held = lease(&queue, "leased").await.unwrap();
    let other = Home::new();
    assert_eq!(imported(&other, &exported(&home)), [Imported::New(State::Pending)]);
}

#[test]
fn an_event_that_is_damaged_is_not_exported() {
    let home = Home::new();
    let path = home.capture("a", b"{}");
    fs::write(&path, b"x").unwrap();
    let found = Exporter::default().line(&home.layout, &home.entry("a")).unwrap();
    assert!(matches!(found, Found::Unreadable(_)), "{found:?}");
}

#[test]
fn a_bad_line_is_told_and_leaves_nothing() {
    let home = Home::new();
    home.capture("a", b"{\"x\":1}");
    let line = String::from_utf8(exported(&home).remove(0)).unwrap();
    let quarantined = |name: &str| {
        format!(r#"{{"arrakisSpool":1,"state":"quarantined","name":"{name}","fileBase64":"eA=="}}"#)
    };
    let bad = [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        line[..line.len() / 2].to_owned(),
        line.replace("\"arrakisSpool\":1", "\"arrakisSpool\":2"),
        line.replace("\"pending\"", "\"elsewhere\""),
        line.replace("{\\\"x\\\":1}", "{\\\"x\\\":2}"),
        line.replace("{\\\"x\\\":1}", "{\\\"x\\\":11}"),
        line.replace("\"payload\"", "\"payloadBase64\""),
        line.replace("\"envelope\":1", "\"envelope\":9"),
        line.replace("\"header\"", "\"head\""),
        quarantined("../../escape"),
        quarantined(".."),
        quarantined(""),
        quarantined("x").replace("eA==", "e"),
    ];
    let other = Home::new();
    let mut importer = Importer::new(other.layout.clone()).unwrap();
    for bad in &bad {
        assert_ne!(*bad, line);
        let taken = importer.take(bad.as_bytes());
        assert!(matches!(taken, Err(ImportError::Line(_))), "{bad}: {taken:?}");
    }
    assert_eq!(kept(&other), []);

    // A name that lies about its event is not believed.
    let lying = line.replace("-00-", "-03-").replacen("-a.event", "-b.event", 1);
    importer.take(lying.as_bytes()).unwrap();
    let tag = "/../../x";
    let name = EntryName::of(&home.entry("a").header().unwrap().whole().unwrap());
    let escaping = line.replacen(&name.tag, tag, 1);
    assert!(escaping.contains(tag));
    let third = Home::new();
    Importer::new(third.layout.clone()).unwrap().take(escaping.as_bytes()).unwrap();
    for home in [&other, &third] {
        assert_eq!(home.entry("a").named.unwrap(), name);
    }
}

#[test]
fn a_full_spool_takes_no_import() {
    let home = Home::new();
    home.capture("a", b"{}");
    let lines = exported(&home);
    let other = Home::new();
    let mut importer = Importer::new(other.layout.clone()).unwrap();
    fs::write(other.layout.full(), b"").unwrap();
    assert!(matches!(importer.take(&lines[0]), Err(ImportError::Spool(_))));
    fs::remove_file(other.layout.full()).unwrap();
    assert_eq!(importer.take(&lines[0]).unwrap(), Imported::New(State::Pending));
}

#[test]
fn lines_are_read_within_a_limit() {
    let long = arrakis_core::base::limits::SPOOL_LINE_MAX_BYTES;
    let mut input = b"one\n".to_vec();
    input.resize(input.len() + long + 5, b'x');
    input.extend_from_slice(b"\n\nlast");
    let mut input = &input[..];
    let mut next = || read_line(&mut input).unwrap();
    assert_eq!(next().unwrap().unwrap(), b"one");
    assert!(next().unwrap().unwrap_err().to_string().contains("more than"));
    assert_eq!(next().unwrap().unwrap(), b"");
    assert_eq!(next().unwrap().unwrap(), b"last");
    assert!(next().is_none());
}
