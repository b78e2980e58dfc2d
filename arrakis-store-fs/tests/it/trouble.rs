//! A disk that is full, fails, cannot be written or is taken away: nothing is lost, nothing stays stuck,
//! and all goes on by itself when the disk works again.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::dead_letter::DeadLetters;
use arrakis_core::delivery::queue::{
    Depth, Disposition, Lane, LeaseRequest, Queue, QueueError, Wake,
};
use arrakis_core::testkit::queue::envelope;
use arrakis_store_fs::spool::capacity::RESERVE_BYTES;
use arrakis_store_fs::{FsQueue, FsQueueConfig, Layout, Spool, SpoolError};

use crate::support::faulty::Faulty;
use crate::support::{any, entries, failure, home, ids, lease_all, on, open, open_on, settle};

/// Nothing new can be written: no bytes, or no files, are left.
fn is_full(call: &str, path: &Path) -> io::Result<()> {
    // Names that a directory has room for can be given without space; growing it cannot be assumed.
    let grows = matches!(call, "create" | "write" | "put" | "append" | "create_directory");
    let into_history = path.to_string_lossy().contains("attempts");
    if grows || into_history { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

fn is_read_only(_: &str, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

async fn world() -> (tempfile::TempDir, Layout, Faulty, FsQueue) {
    let (guard, layout) = home();
    let fs = Faulty::sound();
    let queue = open_on(&layout, Arc::new(fs.clone()), FsQueueConfig::default());
    (guard, layout, fs, queue)
}

fn capture(layout: &Layout, id: &str) {
    Spool::new(layout.clone()).capture(&envelope(id, b"{}")).unwrap();
}

/// A directory whose creation was neither made to last nor taken back must be made to last before anything
/// in it is promised.
#[test]
fn a_spool_that_was_created_by_half_holds_nothing_before_it_lasts() {
    let capture = |layout: &Layout, fs: &Faulty| {
        Spool::new(on(layout.clone(), Arc::new(fs.clone()))).capture(&envelope("a", b"{}"))
    };
    let syncs = |fs: &Faulty| {
        let calls = fs.calls().into_iter().filter(|call| call.starts_with("sync_directory"));
        calls.count() - 2 // one is for the event itself, one for `tmp`, which need not last
    };
    let (_guard, layout) = home();
    let sound = Faulty::sound();
    capture(&layout, &sound).unwrap();
    for good in 0..syncs(&sound) {
        let (_guard, layout) = home();
        let mut synced = 0;
        let by_half = Faulty::new(move |_, call, _| {
            synced += usize::from(call == "sync_directory");
            let fails = synced > good && matches!(call, "sync_directory" | "remove_directory");
            if fails { Err(io::Error::other("it fails")) } else { Ok(()) }
        });
        capture(&layout, &by_half).unwrap_err();
        let sound = Faulty::sound();
        capture(&layout, &sound).unwrap();
        let calls = sound.calls();
        let lasts = calls.iter().rposition(|call| call == "sync_directory queue");
        let promise = calls.iter().rposition(|call| call == "rename pending");
        assert!(lasts.is_some() && lasts < promise, "{good} of the directories last: {calls:?}");
    }
}

/// A directory that was there is no part of what a creation that fails has to take back.
#[test]
fn a_creation_that_fails_removes_no_directory_that_was_there() {
    let (_guard, layout) = home();
    Spool::new(layout.clone()).create().unwrap();
    for directory in layout.directories() {
        let failing = Faulty::new(move |_, call, path| match call {
            "sync_directory" if Some(path) == directory.parent() => {
                Err(io::ErrorKind::Other.into())
            }
            _ => Ok(()),
        });
        Spool::new(on(layout.clone(), Arc::new(failing))).create().unwrap_err();
    }
    assert!(layout.directories().iter().all(|directory| directory.is_dir()));
}

fn retry_at() -> Disposition {
    Disposition::RetryAt { due: Timestamp::from_millis(1_800_000_000_000), failure: failure() }
}

#[tokio::test]
async fn on_a_full_disk_events_are_leased_settled_and_deleted() {
    let (_guard, layout, fs, queue) = world().await;
    for id in ["delivered", "retried", "given-up", "released"] {
        capture(&layout, id);
    }
    // Not even a line of history fits.
    fs::remove_dir(layout.attempts()).unwrap();
    fs::write(layout.attempts(), b"no directory").unwrap();
    fs.now(|_, call, path| is_full(call, path));
    for lease in lease_all(&queue).await {
        let disposition = match lease.envelope.request_id().as_str() {
            "delivered" => Disposition::Delivered,
            "retried" => retry_at(),
            "given-up" => Disposition::DeadLetter { failure: failure() },
            _ => Disposition::Released,
        };
        settle(&queue, vec![lease], &disposition).await;
    }
    let depth = queue.depth().await.unwrap();
    assert_eq!(depth, Depth { pending: 2, failed: 1, ..Depth::default() });
    let leases = lease_all(&queue).await;
    assert_eq!(ids(&leases), ["released", "retried"]);
    let rounds: Vec<_> = leases.iter().map(|lease| lease.failed_rounds).collect();
    assert_eq!(rounds.iter().sum::<u32>(), 1, "the round counts, with no history too");
}

#[tokio::test]
async fn a_drainer_begins_on_a_full_disk() {
    let (_guard, layout) = home();
    drop(open(&layout));
    capture(&layout, "a");
    let full = Faulty::new(|_, call, path| match call {
        // What is there already is no growth.
        "create_directory" if path.is_dir() => Ok(()),
        _ => is_full(call, path),
    });
    let queue = open_on(&layout, Arc::new(full), FsQueueConfig::default());
    let leases = lease_all(&queue).await;
    assert_eq!(ids(&leases), ["a"]);
    settle(&queue, leases, &Disposition::Delivered).await;
}

#[tokio::test]
async fn a_settlement_that_the_disk_does_not_take_is_made_when_it_does() {
    for error in [io::ErrorKind::StorageFull, io::ErrorKind::ReadOnlyFilesystem] {
        let dead_letter = Disposition::DeadLetter { failure: failure() };
        for disposition in [Disposition::Delivered, Disposition::Released, retry_at(), dead_letter]
        {
            let (_guard, layout, fs, queue) = world().await;
            capture(&layout, "a");
            let lease = lease_all(&queue).await.remove(0);
            fs.now(move |_, _, _| Err(error.into()));
            let settled = queue.settle(vec![(lease, disposition.clone())]).await;
            assert!(matches!(settled, Err(QueueError::Medium { .. })));
            assert!(!queue.is_idle().await.unwrap());
            queue.reap().await.ok();
            assert!(!queue.is_idle().await.unwrap(), "still not");
            fs.now(|_, _, _| Ok(()));
            queue.reap().await.unwrap();
            let depth = queue.depth().await.unwrap();
            let expected = match disposition {
                Disposition::Delivered => Depth::default(),
                Disposition::DeadLetter { .. } => Depth { failed: 1, ..Depth::default() },
                _ => Depth { pending: 1, ..Depth::default() },
            };
            assert_eq!(depth, expected, "{disposition:?}");
            let again = lease_all(&queue).await.len() as u64;
            assert_eq!(again, expected.pending);
        }
    }
}

#[tokio::test]
async fn what_was_leased_before_the_disk_failed_is_delivered() {
    let (_guard, layout, fs, queue) = world().await;
    for n in 0..10 {
        capture(&layout, &format!("e{n}"));
    }
    let mut claims = 0;
    fs.now(move |_, call, _| {
        claims += i32::from(call == "rename");
        if claims > 4 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    });
    let leases = queue.lease(any(100)).await.unwrap().leases;
    assert_eq!(leases.len(), 4);
    assert!(queue.lease(any(100)).await.is_err(), "there is nothing but the failure to tell");
    fs.now(|_, _, _| Ok(()));
    settle(&queue, leases, &Disposition::Delivered).await;
    assert_eq!(lease_all(&queue).await.len(), 6);
}

#[tokio::test]
async fn entries_that_cannot_even_be_set_aside_keep_nothing_else() {
    let (_guard, layout) = home();
    let queue = open(&layout);
    for n in 0..5 {
        fs::write(layout.pending().join(format!("0000000000000-00-00000000-bad{n}.event")), b"x")
            .unwrap();
    }
    fs::write(layout.pending().join("no name.event"), b"x").unwrap();
    capture(&layout, "good");
    fs::remove_dir(layout.quarantine()).unwrap();
    fs::write(layout.quarantine(), b"no directory").unwrap();
    let leased = async || {
        let mut all = Vec::new();
        for _ in 0..3 {
            all.extend(queue.lease(any(100)).await.map(|leased| leased.leases).unwrap_or_default());
        }
        all
    };
    let leases = leased().await;
    assert_eq!(ids(&leases), ["good"]);
    settle(&queue, leases, &Disposition::Delivered).await;
    fs::remove_file(layout.quarantine()).unwrap();
    fs::create_dir(layout.quarantine()).unwrap();
    assert!(leased().await.is_empty());
    assert_eq!(queue.depth().await.unwrap(), Depth { quarantined: 6, ..Depth::default() });
}

#[tokio::test]
async fn a_read_only_disk_is_waited_for() {
    let (_guard, layout, fs, queue) = world().await;
    capture(&layout, "a");
    assert_eq!(queue.wait().await, Wake::Pushed);
    fs.now(|_, call, path| is_read_only(call, path));
    assert!(queue.lease(any(1)).await.is_err());
    assert!(queue.lease(LeaseRequest { lane: Lane::Fresh, ..any(1) }).await.is_err());
    queue.reap().await.unwrap();
    queue.age(Duration::from_secs(1)).await.unwrap();
    let spool = Spool::new(on(layout.clone(), Arc::new(fs.clone())));
    let before = fs.calls().len();
    assert!(matches!(spool.capture(&envelope("b", b"{}")), Err(SpoolError::Io { .. })));
    assert!(fs.calls().len() - before <= 3, "a hook does not try what cannot be");
    fs.now(|_, _, _| Ok(()));
    assert_eq!(ids(&lease_all(&queue).await), ["a"]);
}

#[tokio::test]
async fn the_reserve_is_set_aside_again_when_there_is_space() {
    let (_guard, layout, fs, queue) = world().await;
    let reserved = || fs::metadata(layout.reserve()).map_or(0, |found| found.len());
    queue.age(Duration::ZERO).await.unwrap();
    assert_eq!(reserved(), RESERVE_BYTES as u64);

    // A hook gives it up on a full disk.
    let mut written = false;
    let full = Faulty::new(move |_, call, _| {
        let fails = call == "write" && !std::mem::replace(&mut written, true);
        if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    });
    let spool = Spool::new(on(layout.clone(), Arc::new(full)));
    spool.capture(&envelope("a", b"{}")).unwrap();
    assert_eq!(reserved(), 0);

    fs.now(|_, call, _| match call {
        "free_bytes" => Err(io::ErrorKind::StorageFull.into()),
        _ => Ok(()),
    });
    queue.age(Duration::ZERO).await.unwrap();
    assert_eq!(reserved(), 0, "what is short is left to the events");
    fs.now(|_, _, _| Ok(()));
    queue.age(Duration::ZERO).await.unwrap();
    assert_eq!(reserved(), RESERVE_BYTES as u64);
}

#[tokio::test]
async fn a_capture_on_a_disk_whose_fsync_fails_is_refused_and_leaves_nothing_behind() {
    let (_guard, layout, fs, queue) = world().await;
    fs.now(|_, call, _| if call == "sync" { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) });
    let spool = Spool::new(on(layout.clone(), Arc::new(fs.clone())));
    assert!(spool.capture(&envelope("a", b"{}")).is_err());
    let tried = fs.calls().iter().filter(|call| *call == "create tmp").count();
    assert_eq!(tried, 3, "each time with a new file");
    assert!(entries(&layout.tmp()).is_empty());
    assert!(lease_all(&queue).await.is_empty());
    fs.now(|_, _, _| Ok(()));
    spool.capture(&envelope("a", b"{}")).unwrap();
    assert_eq!(ids(&lease_all(&queue).await), ["a"]);
}

#[tokio::test]
async fn a_spool_that_is_removed_comes_back_with_the_next_event() {
    let (_guard, layout, _, queue) = world().await;
    capture(&layout, "a");
    let lost = lease_all(&queue).await.remove(0);
    fs::remove_dir_all(layout.home()).unwrap();
    // Whoever has removed it wants it gone.
    assert!(queue.is_idle().await.unwrap());
    assert!(lease_all(&queue).await.is_empty());
    queue.reap().await.unwrap();
    queue.age(Duration::from_secs(1)).await.unwrap();
    assert!(!layout.home().exists());
    assert!(queue.settle(vec![(lost, Disposition::Delivered)]).await.is_err());

    for id in ["b", "c"] {
        capture(&layout, id);
        queue.reap().await.unwrap();
        let mut leases = Vec::new();
        // The new directory is watched. What was heard of the old one leads nowhere.
        while leases.is_empty() {
            assert_eq!(queue.wait().await, Wake::Pushed);
            let fresh = LeaseRequest { lane: Lane::Fresh, ..any(10) };
            leases = queue.lease(fresh).await.unwrap().leases;
        }
        assert_eq!(ids(&leases), [id], "as a fresh one");
        settle(&queue, leases, &Disposition::Delivered).await;
    }
}

#[tokio::test]
async fn any_directory_that_is_removed_is_made_again() {
    for victim in ["pending", "processing", "tmp"] {
        let (_guard, layout, _, queue) = world().await;
        fs::remove_dir_all(layout.queue().join(victim)).unwrap();
        queue.reap().await.unwrap();
        capture(&layout, "a");
        let leases = lease_all(&queue).await;
        assert_eq!(ids(&leases), ["a"], "without {victim}");
        settle(&queue, leases, &Disposition::Delivered).await;
    }
}

#[tokio::test]
async fn dead_letters_are_kept_where_their_directory_was_removed() {
    let (_guard, layout, _, queue) = world().await;
    capture(&layout, "a");
    let lease = lease_all(&queue).await.remove(0);
    fs::remove_dir_all(layout.failed()).unwrap();
    let dead_letter = Disposition::DeadLetter { failure: failure() };
    queue.settle(vec![(lease, dead_letter)]).await.ok();
    queue.reap().await.unwrap();
    assert_eq!(queue.list(None, 10).await.unwrap().len(), 1);
}
