//! The spool through its public interface: durability in the right order, damage, and who owns what.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use arrakis_core::base::clock::{ManualClock, Timestamp};
use arrakis_core::base::limits::PAYLOAD_MAX_BYTES;
use arrakis_core::delivery::queue::{Depth, Lane, LeaseRequest, Queue, QueueError};
use arrakis_core::testkit::queue::envelope;
use arrakis_store_fs::is_drainer_running;
use arrakis_store_fs::spool::format::HEADER_MAX_BYTES;
use arrakis_store_fs::{
    DrainerLock, FsQueue, FsQueueConfig, Layout, Spool, SpoolDir, SpoolError, SpoolLimits,
};
use nix::sys::stat::Mode;
use tempfile::TempDir;

use crate::support::faulty::Faulty;
use crate::support::on;

fn home() -> (TempDir, Layout) {
    let directory = TempDir::new().unwrap();
    let layout = Layout::new(directory.path().join("a/new/home"));
    (directory, layout)
}

fn open(layout: &Layout) -> FsQueue {
    open_with(layout, FsQueueConfig::default())
}

fn open_with(layout: &Layout, config: FsQueueConfig) -> FsQueue {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
    FsQueue::open(SpoolDir::new(layout.clone()).with_clock(clock), config).unwrap()
}

async fn leased(queue: &FsQueue) -> Vec<String> {
    let any = LeaseRequest { lane: Lane::Any, events: 100, bytes: 1 << 30, closed: Vec::new() };
    let leases = queue.lease(any).await.unwrap().leases;
    let mut ids: Vec<_> = leases.iter().map(|l| l.envelope.request_id().to_string()).collect();
    ids.sort();
    ids
}

#[test]
fn a_capture_is_durable_before_it_is_visible_and_costs_six_calls() {
    let (_guard, layout) = home();
    Spool::new(layout.clone()).create().unwrap();
    let fs = Faulty::sound();
    let spool = Spool::new(on(layout, Arc::new(fs.clone())));
    spool.capture(&envelope("a", b"{}")).unwrap();
    assert_eq!(
        fs.calls(),
        [
            "create tmp",
            "write tmp",
            "write tmp",
            "sync tmp",
            "rename pending",
            "sync_directory pending"
        ]
    );
    assert_eq!(spool.captured(), 1);
}

#[test]
fn missing_directories_are_made_durable_before_anything_is_put_into_them() {
    let (_guard, layout) = home();
    let fs = Faulty::sound();
    Spool::new(on(layout, Arc::new(fs.clone()))).capture(&envelope("a", b"{}")).unwrap();
    let calls = fs.calls();
    let position = |call: &str| calls.iter().rposition(|c| c == call).unwrap();
    assert!(position("create_directory queue") < position("sync_directory queue"));
    assert!(position("sync_directory queue") < position("rename pending"));
}

#[tokio::test]
async fn a_crash_at_any_call_leaves_the_whole_event_or_none() {
    for at in 0..6 {
        let (_guard, layout) = home();
        Spool::new(layout.clone()).create().unwrap();
        let fs = Faulty::at(at, io::ErrorKind::Other, true);
        let spool = Spool::new(on(layout.clone(), Arc::new(fs)));
        assert!(spool.capture(&envelope("a", b"{}")).is_err(), "crashed at call {at}");
        let queue = open(&layout);
        let expected: &[&str] = if at == 5 { &["a"] } else { &[] };
        assert_eq!(leased(&queue).await, expected, "crashed at call {at}");
        assert_eq!(queue.depth().await.unwrap().quarantined, 0);
    }
}

#[tokio::test]
async fn a_failure_of_any_single_call_is_overcome_with_a_new_file() {
    for at in 0..6 {
        let (_guard, layout) = home();
        Spool::new(layout.clone()).create().unwrap();
        let fs = Faulty::at(at, io::ErrorKind::Other, false);
        let spool = Spool::new(on(layout.clone(), Arc::new(fs.clone())));
        spool.capture(&envelope("a", b"{}")).unwrap();
        let creations = fs.calls().iter().filter(|call| *call == "create tmp").count();
        assert_eq!(creations, 2, "failed at call {at}");
        assert_eq!(leased(&open(&layout)).await, ["a"]);
    }
}

#[test]
fn what_another_process_is_writing_is_left_alone() {
    let (_guard, layout) = home();
    Spool::new(layout.clone()).create().unwrap();
    // As where two containers share a home and a process number.
    let others = layout.tmp().join(format!("a.{}.0", std::process::id()));
    fs::write(&others, "half").unwrap();
    Spool::new(layout.clone()).capture(&envelope("a", b"{}")).unwrap();
    assert_eq!(fs::read(others).unwrap(), b"half");
    assert_eq!(fs::read_dir(layout.pending()).unwrap().count(), 1);
}

#[test]
fn a_full_disk_is_overcome_with_the_reserve() {
    let (_guard, layout) = home();
    let plain = Spool::new(layout.clone());
    plain.create().unwrap();
    plain.reserve().unwrap();
    let reserved = fs::metadata(layout.reserve()).unwrap();
    assert_eq!(reserved.len(), arrakis_store_fs::spool::capacity::RESERVE_BYTES as u64);

    let full = Faulty::at(1, io::ErrorKind::StorageFull, false);
    let spool = Spool::new(on(layout.clone(), Arc::new(full)));
    spool.capture(&envelope("a", b"{}")).unwrap();
    assert!(!layout.reserve().exists(), "the reserve was given up");

    let still_full = Faulty::at(0, io::ErrorKind::StorageFull, true);
    let spool = Spool::new(on(layout, Arc::new(still_full)));
    let error = spool.capture(&envelope("b", b"{}")).unwrap_err();
    assert!(matches!(error, SpoolError::Io { .. }), "{error}");
}

#[test]
fn files_and_directories_are_closed_to_others() {
    let (_guard, layout) = home();
    let path = Spool::new(layout.clone()).capture(&envelope("a", b"{}")).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&layout.tally()), 0o600);
    for directory in layout.directories() {
        assert_eq!(mode(&directory), 0o700, "{}", directory.display());
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_quarantined_intact_and_delays_nothing() {
    let (_guard, layout) = home();
    let spool = Spool::new(layout.clone());
    let whole = spool.capture(&envelope("whole", b"{\"a\":1}")).unwrap();
    let bytes = fs::read(&whole).unwrap();
    let mut named = 0;
    let mut name = || {
        named += 1;
        layout.pending().join(format!("1800000000000-00-00000000-bad{named}.event"))
    };
    let header_end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
    let newer =
        String::from_utf8(bytes.clone()).unwrap().replace("\"envelope\":1", "\"envelope\":9");
    let mut flipped = bytes.clone();
    flipped[header_end + 3] ^= 1;
    let damaged: [Vec<u8>; 8] = [
        Vec::new(),
        bytes[..header_end / 2].to_vec(),
        bytes[..bytes.len() - 1].to_vec(),
        [&bytes[..], b"garbage"].concat(),
        vec![0; 4096],
        flipped,
        newer.into_bytes(),
        b"not json\n{}".to_vec(),
    ];
    for content in &damaged {
        fs::write(name(), content).unwrap();
    }
    symlink("/etc/hostname", name()).unwrap();
    nix::unistd::mkfifo(&name(), Mode::S_IRWXU).unwrap();
    fs::create_dir(name()).unwrap();
    let sparse = fs::File::create(name()).unwrap();
    sparse.set_len(5 << 30).unwrap();
    fs::write(layout.pending().join("a name that is none.event"), b"x").unwrap();
    fs::write(layout.pending().join("notes.txt"), b"nobody's business").unwrap();

    let queue = open(&layout);
    let mut found = leased(&queue).await;
    while let more = leased(&queue).await
        && !more.is_empty()
    {
        found.extend(more);
    }
    assert_eq!(found, ["whole"]);
    assert_eq!(queue.depth().await.unwrap().quarantined, damaged.len() as u64 + 5);
    let kept = fs::read_dir(layout.quarantine()).unwrap().flatten().map(|entry| entry.path());
    let contents: Vec<_> = kept.filter(|path| path.is_file()).collect();
    for content in &damaged {
        assert!(contents.iter().any(|path| {
            fs::metadata(path).unwrap().len() == content.len() as u64
                && fs::read(path).unwrap() == *content
        }));
    }
    assert!(layout.pending().join("notes.txt").exists());
}

#[tokio::test]
async fn an_owner_of_another_machine_is_left_alone() {
    let (_guard, layout) = home();
    let queue = open(&layout);
    let foreign = layout.processing().join("1-1-1-0");
    fs::create_dir(&foreign).unwrap();
    let owner = r#"{"machine":"another","boot":"b","pid":1,"since":"2026-01-01T00:00:00Z"}"#;
    fs::write(foreign.join("owner.json"), owner).unwrap();
    fs::write(foreign.join("lock"), b"").unwrap();
    let path = Spool::new(layout.clone()).capture(&envelope("theirs", b"{}")).unwrap();
    fs::rename(&path, foreign.join(path.file_name().unwrap())).unwrap();
    assert_eq!(queue.reap().await.unwrap(), 0);
    assert_eq!(queue.depth().await.unwrap(), Depth { processing: 1, ..Depth::default() });
}

#[tokio::test]
async fn a_full_spool_refuses_and_takes_events_again_when_it_has_room() {
    let (_guard, layout) = home();
    let queue = open_with(
        &layout,
        FsQueueConfig {
            limits: SpoolLimits { max_files: 2, ..SpoolLimits::default() },
            ..FsQueueConfig::default()
        },
    );
    let spool = Spool::new(layout);
    for id in ["a", "b"] {
        spool.capture(&envelope(id, b"{}")).unwrap();
    }
    queue.depth().await.unwrap();
    assert!(matches!(spool.capture(&envelope("c", b"{}")), Err(SpoolError::Full(_))));
    assert!(matches!(queue.push(envelope("c", b"{}")).await, Err(QueueError::Full(_))));
    let any = LeaseRequest { lane: Lane::Any, events: 1, bytes: 1 << 20, closed: Vec::new() };
    let lease = queue.lease(any).await.unwrap().leases.remove(0);
    let delivered = arrakis_core::delivery::queue::Disposition::Delivered;
    queue.settle(vec![(lease, delivered)]).await.unwrap();
    queue.depth().await.unwrap();
    spool.capture(&envelope("c", b"{}")).unwrap();
}

#[tokio::test]
async fn a_poke_reaches_the_drainer() {
    let (_guard, layout) = home();
    let queue = open(&layout);
    let spool = Spool::new(layout);
    spool.poke().unwrap();
    assert_eq!(queue.wait().await, arrakis_core::delivery::queue::Wake::Poked);
}

#[test]
fn one_drainer_holds_the_lock() {
    let (_guard, layout) = home();
    assert!(!is_drainer_running(&layout), "there is no spool yet");
    Spool::new(layout.clone()).create().unwrap();
    let lock = DrainerLock::try_acquire(&layout).unwrap().unwrap();
    assert!(is_drainer_running(&layout));
    assert!(DrainerLock::try_acquire(&layout).unwrap().is_none());
    drop(lock);
    assert!(!is_drainer_running(&layout));
}

#[test]
fn a_header_that_is_too_long_is_refused_and_not_written() {
    let (_guard, layout) = home();
    let mut long = envelope("a", b"{}");
    long.header.destination = "x".repeat(HEADER_MAX_BYTES);
    let error = Spool::new(layout.clone()).capture(&long).unwrap_err();
    assert!(matches!(error, SpoolError::Format(_)), "{error}");
}

#[test]
fn a_payload_that_could_not_be_read_back_is_refused_and_not_written() {
    let (_guard, layout) = home();
    let spool = Spool::new(layout.clone());
    spool.capture(&envelope("a", &vec![b'x'; PAYLOAD_MAX_BYTES])).unwrap();
    let error = spool.capture(&envelope("b", &vec![b'x'; PAYLOAD_MAX_BYTES + 1])).unwrap_err();
    assert!(matches!(error, SpoolError::Format(_)), "{error}");
    assert!(error.to_string().contains("16777217 bytes"), "{error}");
    assert_eq!(fs::read_dir(layout.pending()).unwrap().count(), 1);
}
