//! Much that waits, and for long: limits, ages, and new events beside a backlog.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::base::limits::PENDING_MAX_AGE;
use arrakis_core::delivery::queue::{Aged, Depth, Disposition, Lane, LeaseRequest, Queue, Wake};
use arrakis_core::testkit::queue::{DESTINATION, envelope};
use arrakis_store_fs::spool::durability::RealFileSystem;
use arrakis_store_fs::spool::format::encode_header;
use arrakis_store_fs::spool::layout::EntryName;
use arrakis_store_fs::{FsQueue, FsQueueConfig, Layout, Spool, SpoolError, SpoolLimits};

use crate::support::{any, entries, home, ids, lease_all, open, open_on, settle};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn capture(layout: &Layout, id: &str) {
    Spool::new(layout.clone()).capture(&envelope(id, b"{}")).unwrap();
}

/// Puts events of an hour ago into `pending/`, without the cost of durability.
fn fill(layout: &Layout, count: usize, destination: &str) {
    for n in 0..count {
        let at = envelope("x", b"").header.captured_at.minus(Duration::from_secs(3600));
        let id = format!("fill{n}");
        let source = Source::default();
        let event = Envelope::new(id.parse().unwrap(), at, destination, source, &b"{}"[..]);
        let path = layout.pending().join(EntryName::of(&event.header).to_string());
        fs::write(path, [&encode_header(&event).unwrap()[..], &event.payload].concat()).unwrap();
    }
}

fn with_limits(layout: &Layout, max_files: u64, max_bytes: u64) -> FsQueue {
    let config =
        FsQueueConfig { limits: SpoolLimits { max_files, max_bytes }, ..FsQueueConfig::default() };
    open_on(layout, Arc::new(RealFileSystem), config)
}

#[tokio::test]
async fn a_spool_is_full_at_either_limit_and_has_room_with_the_first_event_that_leaves() {
    for (max_files, max_bytes) in [(20, u64::MAX), (u64::MAX, 20 * 370)] {
        let (_guard, layout) = home();
        let queue = with_limits(&layout, max_files, max_bytes);
        fill(&layout, 25, DESTINATION);
        let spool = Spool::new(layout.clone());
        capture(&layout, "before-it-is-noticed");
        queue.age(Duration::ZERO).await.unwrap();
        assert!(matches!(spool.capture(&envelope("refused", b"{}")), Err(SpoolError::Full(_))));
        let mut leases = lease_all(&queue).await;
        assert!(layout.full().exists(), "what is leased may come back");
        settle(&queue, leases.split_off(20), &Disposition::Delivered).await;
        settle(&queue, leases.split_off(10), &Disposition::Delivered).await;
        if layout.full().exists() {
            queue.age(Duration::ZERO).await.unwrap();
        }
        spool.capture(&envelope("taken", b"{}")).unwrap();
        settle(&queue, leases, &Disposition::Delivered).await;
        assert_eq!(queue.depth().await.unwrap(), Depth { pending: 1, ..Depth::default() });
    }
}

#[tokio::test]
async fn a_flag_that_a_drainer_left_behind_goes_with_the_next() {
    let (_guard, layout) = home();
    drop(open(&layout));
    fs::write(layout.full(), b"").unwrap();
    let queue = open(&layout);
    queue.age(Duration::ZERO).await.unwrap();
    assert!(!layout.full().exists());
}

#[tokio::test]
async fn ages_grow_over_many_drainers_and_are_counted_once() {
    let (_guard, layout) = home();
    capture(&layout, "a");
    for day in 0..7 {
        let (queue, beside) = (open(&layout), open(&layout));
        for _ in 0..24 {
            for queue in [&queue, &beside] {
                let aged = queue.age(DAY / 24).await.unwrap();
                assert_eq!(aged, Aged::default(), "on day {day}");
            }
        }
    }
    let queue = open(&layout);
    let aged = queue.age(DAY / 24).await.unwrap();
    assert_eq!(aged, Aged { expired: 1, revived: 0 });
    assert_eq!(queue.depth().await.unwrap(), Depth { failed: 1, ..Depth::default() });
    assert_eq!(entries(&layout.attempts()), [] as [std::path::PathBuf; 0], "it costs no file");
}

#[tokio::test]
async fn an_event_that_expired_under_another_drainer_comes_back_with_the_next_success() {
    let (_guard, layout) = home();
    capture(&layout, "old");
    {
        let queue = open(&layout);
        queue.age(Duration::ZERO).await.unwrap();
        queue.age(PENDING_MAX_AGE).await.unwrap();
    }
    let queue = open(&layout);
    capture(&layout, "new");
    let leases = lease_all(&queue).await;
    assert_eq!(ids(&leases), ["new"]);
    assert_eq!(queue.age(DAY).await.unwrap(), Aged::default());
    settle(&queue, leases, &Disposition::Delivered).await;
    assert_eq!(queue.age(DAY).await.unwrap(), Aged { expired: 0, revived: 1 });
    assert_eq!(queue.age(DAY * 6).await.unwrap(), Aged::default(), "its time begins anew");
    assert_eq!(ids(&lease_all(&queue).await), ["old"]);
}

#[tokio::test]
async fn observed_time_that_was_lost_makes_events_younger_and_never_older() {
    let (_guard, layout) = home();
    capture(&layout, "a");
    {
        let queue = open(&layout);
        queue.age(DAY * 6).await.unwrap();
        queue.age(DAY * 6).await.unwrap();
    }
    for damage in [&b""[..], b"garbage", b"99999999999999999999\n"] {
        fs::write(layout.observed(), damage).unwrap();
        let queue = open(&layout);
        for _ in 0..6 {
            assert_eq!(queue.age(DAY).await.unwrap(), Aged::default(), "{damage:?}");
        }
    }
}

#[tokio::test]
async fn a_new_event_is_found_beside_a_backlog_where_nothing_can_be_watched() {
    let (_guard, layout) = home();
    drop(open(&layout));
    fill(&layout, 2_000, DESTINATION);
    let config =
        FsQueueConfig { watch: false, poll: Duration::from_millis(1), ..FsQueueConfig::default() };
    let queue = open_on(&layout, Arc::new(RealFileSystem), config);
    let fresh = || LeaseRequest { lane: Lane::Fresh, ..any(10) };
    assert!(queue.lease(fresh()).await.unwrap().leases.is_empty(), "the backlog is not new");
    let mut event = envelope("new", b"{}");
    event.header.captured_at = event.header.captured_at.plus(Duration::from_millis(1));
    Spool::new(layout).capture(&event).unwrap();
    assert_eq!(queue.wait().await, Wake::Pushed);
    assert_eq!(ids(&queue.lease(fresh()).await.unwrap().leases), ["new"]);
}

#[tokio::test]
async fn the_event_that_a_drainer_is_started_for_does_not_wait_behind_a_backlog() {
    let (_guard, layout) = home();
    drop(open(&layout));
    fill(&layout, 2_000, DESTINATION);
    capture(&layout, "new");
    let queue = open(&layout);
    assert_eq!(queue.wait().await, Wake::Pushed);
    let fresh = LeaseRequest { lane: Lane::Fresh, ..any(10) };
    assert_eq!(ids(&queue.lease(fresh).await.unwrap().leases), ["new"]);
}

#[tokio::test]
async fn a_long_pass_in_vain_is_not_repeated_at_once_but_for_a_receiver_that_opens() {
    let (_guard, layout) = home();
    let queue = open(&layout);
    let away = "http://away.invalid/";
    fill(&layout, 20_000, away);
    let closed = || LeaseRequest { closed: vec![away.to_owned()], ..any(10) };
    let first = queue.lease(closed()).await.unwrap();
    assert!(first.leases.is_empty() && first.next_due.is_none());
    let second = queue.lease(closed()).await.unwrap();
    assert!(second.leases.is_empty() && second.next_due.is_some(), "a look is due a little later");
    assert_eq!(queue.lease(any(10)).await.unwrap().leases.len(), 10);

    queue.lease(closed()).await.unwrap();
    capture(&layout, "open");
    while queue.lease(closed()).await.unwrap().leases.is_empty() {
        tokio::task::yield_now().await;
    }
}
