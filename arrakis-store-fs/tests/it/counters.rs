//! Counting through everything: what a spool says became of its events.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arrakis_core::base::clock::{ManualClock, Timestamp};
use arrakis_core::base::conservation::{Balance, Counters};
use arrakis_core::base::dead_letter::{DeadLetters, Failure};
use arrakis_core::delivery::queue::{Disposition, Lane, Lease, LeaseRequest, Queue};
use arrakis_core::testkit::queue::envelope;
use arrakis_store_fs::admin::inspect::{Elsewhere, Inspection, inspect};
use arrakis_store_fs::spool::counters;
use arrakis_store_fs::{FsQueue, FsQueueConfig, Layout, Spool, SpoolDir};
use tempfile::TempDir;

struct Home {
    _directory: TempDir,
    layout: Layout,
}

impl Home {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let layout = Layout::new(directory.path().join("home"));
        Self { _directory: directory, layout }
    }

    fn queue(&self) -> FsQueue {
        FsQueue::open(self.dir(), FsQueueConfig::default()).unwrap()
    }

    fn dir(&self) -> SpoolDir {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
        SpoolDir::new(self.layout.clone()).with_clock(clock)
    }

    fn capture(&self, id: &str) -> PathBuf {
        Spool::new(self.layout.clone()).capture(&envelope(id, b"{}")).unwrap()
    }

    fn tally(&self) -> Counters {
        counters::read(&self.layout).unwrap().counters
    }

    /// A look at the spool as if nothing had happened in it lately.
    fn inspect(&self) -> Inspection {
        let owners = fs::read_dir(self.layout.processing()).unwrap();
        let owners = owners.map(|owner| owner.unwrap().path());
        for directory in self.layout.directories().into_iter().chain(owners) {
            let long_ago = SystemTime::now() - Duration::from_secs(60);
            File::open(directory).unwrap().set_modified(long_ago).unwrap();
        }
        inspect(&self.layout).unwrap()
    }

    /// Appends letters to the tally as if somebody had counted so much.
    fn write_letters(&self, letters: &[u8]) {
        let mut tally = OpenOptions::new().append(true).open(self.layout.tally()).unwrap();
        tally.write_all(letters).unwrap();
    }
}

async fn lease(queue: &FsQueue) -> Vec<Lease> {
    let any = LeaseRequest { lane: Lane::Any, events: 100, bytes: 1 << 30, closed: Vec::new() };
    queue.lease(any).await.unwrap().leases
}

fn failure() -> Failure {
    let (code, message) = ("refused".to_owned(), "no".to_owned());
    Failure { at: Timestamp::from_millis(1_800_000_000_000), round: 6, code, message }
}

#[tokio::test]
async fn every_way_of_an_event_is_counted_and_adds_up_in_a_later_process() {
    let home = Home::new();
    for n in 0..6 {
        home.capture(&format!("c{n}"));
    }
    let queue = home.queue();
    queue.push(envelope("pushed", b"{}")).await.unwrap();
    queue.push(envelope("pushed", b"{}")).await.unwrap();
    let mut leases = lease(&queue).await;
    assert_eq!(leases.len(), 7);
    let kept = leases.pop().unwrap();
    let dispositions = [
        Disposition::Delivered,
        Disposition::Delivered,
        Disposition::Duplicate,
        Disposition::DeadLetter { failure: failure() },
        Disposition::DeadLetter { failure: failure() },
        Disposition::Released,
    ];
    let letter = leases[3].envelope.request_id().clone();
    queue.settle(leases.into_iter().zip(dispositions).collect()).await.unwrap();
    assert_eq!(queue.discard(&[letter.clone(), letter]).await.unwrap(), 1);
    let broken = home.capture("broken");
    fs::write(&broken, b"nothing of an event").unwrap();
    assert_eq!(lease(&queue).await.len(), 1, "the released one; the broken one is set aside");
    counters::count_refused(&home.layout).unwrap();

    let seen = home.inspect();
    let Inspection { counters: tally, present, balance, .. } = seen;
    let expected = Counters {
        captured: 8,
        delivered: 2,
        duplicate: 1,
        discarded: 1,
        refused: 1,
        ..Counters::default()
    };
    assert_eq!(tally, expected);
    let there = (present.pending, present.processing, present.failed, present.quarantined);
    assert_eq!(there, (0, 2, 1, 1));
    assert_eq!(balance, Balance::Even);
    drop((queue, kept));
    let later = home.inspect();
    assert_eq!(
        (later.counters, later.present.pending, later.balance),
        (expected, 2, Balance::Even)
    );
    assert_eq!(later.spool_id, seen.spool_id, "a spool keeps its name");
    assert!(later.spool_id.is_some());
}

#[tokio::test]
async fn an_event_that_is_gone_and_one_that_nobody_captured_are_told_until_accepted() {
    let home = Home::new();
    let queue = home.queue();
    let first = home.capture("a");
    home.capture("b");
    fs::remove_file(&first).unwrap();
    assert_eq!(home.inspect().balance, Balance::Missing { events: 1 });
    let present = home.inspect().present;
    assert_eq!(counters::accept(&home.dir(), &present).unwrap(), Balance::Missing { events: 1 });
    let Inspection { balance, counters: tally, .. } = home.inspect();
    assert_eq!((balance, tally.lost), (Balance::Even, 1));

    let other = Home::new();
    let path = other.capture("from-elsewhere");
    fs::copy(&path, home.layout.pending().join(path.file_name().unwrap())).unwrap();
    assert_eq!(home.inspect().balance, Balance::Surplus { events: 1 });
    let present = home.inspect().present;
    assert_eq!(counters::accept(&home.dir(), &present).unwrap(), Balance::Surplus { events: 1 });
    let Inspection { balance, counters: tally, .. } = home.inspect();
    assert_eq!((balance, tally.found), (Balance::Even, 1));
    drop(queue);
}

#[test]
fn a_capture_that_was_killed_leaves_a_range_wherever_it_was() {
    for (event_is_there, letters) in [(false, &b"+"[..]), (true, b"+")] {
        let home = Home::new();
        home.capture("whole");
        let killed = home.capture("killed");
        let tally = fs::read(home.layout.tally()).unwrap();
        assert_eq!(tally, b"+c+c");
        fs::write(home.layout.tally(), [b"+c", letters].concat()).unwrap();
        if !event_is_there {
            fs::remove_file(killed).unwrap();
        }
        assert_eq!(home.inspect().balance, Balance::Within { events: 1 });
        assert_eq!((home.tally().captured, home.tally().unsure_captured), (1, 1));
        counters::accept(&home.dir(), &home.inspect().present).unwrap();
        assert_eq!(home.inspect().balance, Balance::Even);
        assert_eq!(home.tally().found, u64::from(event_is_there));
        home.capture("later");
        assert_eq!(home.inspect().balance, Balance::Even);
    }
}

#[tokio::test]
async fn a_settlement_that_was_killed_leaves_a_range_of_one_however_large_its_batch() {
    let home = Home::new();
    for n in 0..10 {
        home.capture(&format!("e{n}"));
    }
    let queue = home.queue();
    let leases = lease(&queue).await;
    let before = fs::read(home.layout.tally()).unwrap();
    queue.settle(leases.into_iter().map(|l| (l, Disposition::Delivered)).collect()).await.unwrap();
    let after = fs::read(home.layout.tally()).unwrap();
    assert_eq!(&after[before.len()..], b"sdsdsdsdsdsdsdsdsdsd");
    for end in 0..=20 {
        fs::write(home.layout.tally(), &after[..before.len() + end]).unwrap();
        let Counters { delivered, unsure_settled, .. } = home.tally();
        assert_eq!((delivered, unsure_settled), (end as u64 / 2, end as u64 % 2));
    }
}

#[test]
fn a_failed_capture_is_not_counted_and_one_that_failed_after_it_appeared_is() {
    let home = Home::new();
    home.capture("a");
    // A file where the directory should be: nothing can be written.
    fs::remove_dir(home.layout.tmp()).unwrap();
    fs::write(home.layout.tmp(), b"").unwrap();
    Spool::new(home.layout.clone()).capture(&envelope("b", b"{}")).unwrap_err();
    assert_eq!(home.tally(), Counters { captured: 1, ..Counters::default() });
}

#[test]
fn zeros_that_a_power_loss_left_widen_the_range() {
    let home = Home::new();
    home.capture("a");
    home.capture("b");
    fs::write(home.layout.tally(), b"+c\0\0").unwrap();
    assert_eq!(home.inspect().balance, Balance::Within { events: 4 });
    counters::accept(&home.dir(), &home.inspect().present).unwrap();
    assert_eq!(home.inspect().balance, Balance::Even);
}

#[tokio::test]
async fn folding_while_many_processes_append_counts_each_letter_once() {
    let home = Home::new();
    drop(home.queue());
    let (writers, each) = (8, 25_000_u64);
    let written = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..writers {
            scope.spawn(|| {
                for _ in 0..each {
                    counters::count_refused(&home.layout).unwrap();
                }
                written.fetch_add(each, Ordering::Relaxed);
            });
        }
        let mut seen = 0;
        while written.load(Ordering::Relaxed) < writers * each {
            counters::open(&home.dir()).unwrap();
            let now = home.tally().refused;
            assert!(now >= seen, "{now} after {seen}: a reader saw counts twice or not at all");
            seen = now;
        }
    });
    assert_eq!(home.tally().refused, writers * each);
    let ledger = fs::read(home.layout.counters()).unwrap();
    let ledger: serde_json::Value = serde_json::from_slice(&ledger).unwrap();
    assert!(ledger["folded"].as_u64().unwrap() >= 2, "{ledger}");
    assert_eq!(fs::metadata(home.layout.counters()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_crash_at_any_step_of_folding_neither_loses_nor_doubles() {
    let home = Home::new();
    drop(home.queue());
    home.write_letters(&vec![b'r'; 70_000]);
    let tally = home.layout.tally();
    let number = |n: u64| home.layout.queue().join(format!("tally.{n}"));

    // Before anything was folded: the file is renamed.
    fs::rename(&tally, number(1)).unwrap();
    assert_eq!(home.tally().refused, 70_000);
    counters::count_refused(&home.layout).unwrap();
    assert_eq!(home.tally().refused, 70_001);
    let unfolded = fs::read(number(1)).unwrap();
    counters::open(&home.dir()).unwrap();
    assert_eq!(home.tally().refused, 70_001);
    assert!(!number(1).exists());

    // After the counts were written, before the file was removed.
    fs::write(number(1), unfolded).unwrap();
    assert_eq!(home.tally().refused, 70_001);
    home.write_letters(&vec![b'r'; 70_000]);
    counters::open(&home.dir()).unwrap();
    assert_eq!(home.tally().refused, 140_001);
    assert!(!number(1).exists() && !number(2).exists());
}

#[tokio::test]
async fn what_a_slow_writer_still_holds_is_not_folded_under_it() {
    let home = Home::new();
    drop(home.queue());
    home.write_letters(&vec![b'r'; 70_000]);
    let slow = OpenOptions::new().read(true).append(true).open(home.layout.tally()).unwrap();
    slow.lock_shared().unwrap();
    counters::open(&home.dir()).unwrap();
    counters::count_refused(&home.layout).unwrap();
    (&slow).write_all(b"r").unwrap();
    assert_eq!(home.tally().refused, 70_002);
    drop(slow);
    counters::open(&home.dir()).unwrap();
    assert_eq!(home.tally().refused, 70_002);
    assert!(!home.layout.queue().join("tally.1").exists(), "it is folded now");
}

#[tokio::test]
async fn what_redaction_removed_is_summed_by_rule_through_folding() {
    let home = Home::new();
    drop(home.queue());
    let spool = Spool::new(home.layout.clone());
    let redacted = || counters::read(&home.layout).unwrap().redacted;
    let mut sent = envelope("a", b"{}");
    sent.header.redacted.count("github-token", 2);
    sent.header.redacted.count("My rule, (1)", 1);
    spool.capture(&sent).unwrap();
    home.capture("b");
    let expected = BTreeMap::from([("github-token".to_owned(), 2), ("my_rule___1_".to_owned(), 1)]);
    assert_eq!(redacted(), expected);
    home.write_letters(&vec![b'r'; 70_000]);
    counters::open(&home.dir()).unwrap();
    assert_eq!(redacted(), expected, "folded");
    sent.header.request_id = "c".parse().unwrap();
    spool.capture(&sent).unwrap();
    assert_eq!(redacted()["github-token"], 4);
    assert_eq!(home.tally(), Counters { captured: 3, refused: 70_000, ..Counters::default() });
    assert_eq!(home.inspect().redacted, redacted());
}

#[test]
fn a_sum_of_redaction_that_a_power_loss_cut_costs_no_other_count() {
    let home = Home::new();
    home.capture("a");
    for cut in ["(", "(jwt", "(jwt=", "(jwt=1", "(jwt=1,", "(jwt=x)", "(=)", "(jwt=1\0", "(jwt=1+c"]
    {
        fs::write(home.layout.tally(), format!("+c{cut}+c(jwt=7)")).unwrap();
        let counted = counters::read(&home.layout).unwrap();
        assert_eq!(counted.redacted["jwt"], 7, "{cut}");
        let ends = 2 + u64::from(cut.ends_with("+c"));
        assert_eq!(counted.counters.captured, ends, "{cut}");
    }
}

#[test]
fn counts_that_cannot_be_written_cost_no_event_and_are_told() {
    let home = Home::new();
    home.capture("a");
    fs::remove_file(home.layout.tally()).unwrap();
    fs::create_dir(home.layout.tally()).unwrap();
    home.capture("b");
    fs::remove_dir(home.layout.tally()).unwrap();
    assert_eq!(home.inspect().balance, Balance::Surplus { events: 2 });
}

#[test]
fn damaged_counts_are_an_error_that_says_what_to_do() {
    let home = Home::new();
    home.capture("a");
    fs::write(home.layout.counters(), b"{\"spoolId\":").unwrap();
    let error = inspect(&home.layout).unwrap_err().to_string();
    assert!(error.contains("counters.json") && error.contains("remove it"), "{error}");
    home.capture("b");
    assert_eq!(fs::read_dir(home.layout.pending()).unwrap().count(), 2);
}

#[tokio::test]
async fn a_look_tells_the_oldest_event_and_what_other_machines_have_leased() {
    let home = Home::new();
    let queue = home.queue();
    let id = "019abc00-0000-7000-8000-000000000001"; // minted long before the others were captured
    queue.push(envelope(id, b"{}")).await.unwrap();
    home.capture("young");
    let young = Timestamp::from_millis(1_800_000_000_000);
    assert_eq!(home.inspect().oldest, Some(young), "before its first round the name tells");
    let leases = lease(&queue).await;
    for lease in leases {
        let due = young.plus(Duration::from_secs(60));
        let later = Disposition::RetryAt { due, failure: failure() };
        queue.settle(vec![(lease, later)]).await.unwrap();
    }
    assert_eq!(home.inspect().oldest, Some(Timestamp::from_millis(0x019a_bc00_0000)));
    assert!(home.inspect().elsewhere.is_empty());

    let theirs = home.layout.processing().join("theirs");
    fs::create_dir(&theirs).unwrap();
    let owner =
        br#"{"machine":"another","boot":"b","pid":1,"since":"2026-01-01T00:00:00.000000Z"}"#;
    fs::write(theirs.join("owner.json"), owner).unwrap();
    let path = home.capture("c");
    fs::rename(&path, theirs.join(path.file_name().unwrap())).unwrap();
    let seen = home.inspect();
    assert_eq!(seen.elsewhere, [Elsewhere { machine: "another".to_owned(), events: 1 }]);
    assert_eq!(seen.balance, Balance::Even);
}

#[test]
fn a_look_at_a_spool_that_has_just_moved_does_not_claim_to_be_exact() {
    let home = Home::new();
    inspect(&home.layout).unwrap_err(); // there is no spool yet
    home.capture("a");
    let balance = inspect(&home.layout).unwrap().balance;
    assert!(matches!(balance, Balance::Even | Balance::Within { events: 1 }), "{balance:?}");
    File::open(home.layout.pending()).unwrap().set_modified(SystemTime::now()).unwrap();
    assert_eq!(inspect(&home.layout).unwrap().balance, Balance::Within { events: 1 });
}
