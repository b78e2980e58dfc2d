//! Who owns what is leased: the dead are inherited from, whatever their process ids, boots and containers
//! were; the living and those on other machines are not.

use std::fs;
use std::path::{Path, PathBuf};

use arrakis_core::delivery::queue::{Depth, Disposition, Queue};
use arrakis_core::testkit::queue::envelope;
use arrakis_store_fs::{FsQueue, Layout, Spool, is_idle};
use serde_json::{Value, json};

use crate::support::{entries, home, ids, lease_all, open, settle};

/// Has an owner that died leave one event; returns its directory.
///
/// The directory is the one of a real owner. `change` says what differs in its `owner.json`.
fn leave(layout: &Layout, id: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    let before = entries(&layout.processing());
    let queue = open(layout);
    let made =
        entries(&layout.processing()).into_iter().find(|path| !before.contains(path)).unwrap();
    drop(queue);
    let mut owner: Value =
        serde_json::from_slice(&fs::read(made.join("owner.json")).unwrap()).unwrap();
    fs::remove_dir_all(made).unwrap();
    let directory = layout.processing().join(format!("1-{id}"));
    fs::create_dir(&directory).unwrap();
    change(&mut owner);
    fs::write(directory.join("owner.json"), serde_json::to_vec(&owner).unwrap()).unwrap();
    fs::write(directory.join("lock"), b"").unwrap();
    put(layout, &directory, id);
    directory
}

/// Captures an event and moves it into an owner's directory.
fn put(layout: &Layout, directory: &Path, id: &str) {
    let path = Spool::new(layout.clone()).capture(&envelope(id, b"{}")).unwrap();
    fs::rename(&path, directory.join(path.file_name().unwrap())).unwrap();
}

/// A drainer that ran before the others died, so that it took nothing over when it began.
fn witness(layout: &Layout) -> FsQueue {
    Spool::new(layout.clone()).create().unwrap();
    open(layout)
}

async fn assert_inherited(layout: &Layout, queue: &FsQueue, id: &str, directory: &Path) {
    assert_eq!(queue.reap().await.unwrap(), 1);
    assert!(!directory.exists());
    let leases = lease_all(queue).await;
    assert_eq!(ids(&leases), [id]);
    settle(queue, leases, &Disposition::Delivered).await;
    assert!(is_idle(layout).unwrap());
}

#[tokio::test]
async fn a_process_id_that_lives_again_saves_no_dead_owner() {
    let (_guard, layout) = home();
    let queue = witness(&layout);
    // This process's own id, which lives, and the one that every container begins with.
    for (id, pid) in [("reused", std::process::id()), ("container", 1)] {
        let directory = leave(&layout, id, |owner| owner["pid"] = json!(pid));
        assert_inherited(&layout, &queue, id, &directory).await;
    }
}

#[tokio::test]
async fn an_owner_from_before_a_reboot_is_dead() {
    let (_guard, layout) = home();
    let queue = witness(&layout);
    let boot = json!("00000000-0000-0000-0000-000000000000");
    let directory = leave(&layout, "a", |owner| owner["boot"] = boot);
    assert_inherited(&layout, &queue, "a", &directory).await;
}

#[tokio::test]
async fn a_container_that_was_made_anew_inherits_from_the_one_before() {
    // It has another name, and so is another machine; but the kernel is the same, and so are its locks.
    let (_guard, layout) = home();
    let queue = witness(&layout);
    let machine = json!("5f2a9c01b3d4");
    let directory = leave(&layout, "a", |owner| owner["machine"] = machine);
    assert_inherited(&layout, &queue, "a", &directory).await;
}

#[tokio::test]
async fn another_machine_is_left_alone_and_keeps_nobody_busy() {
    let (_guard, layout) = home();
    let queue = witness(&layout);
    let directory = leave(&layout, "theirs", |owner| {
        owner["machine"] = json!("another");
        owner["boot"] = json!("00000000-0000-0000-0000-000000000000");
    });
    assert_eq!(queue.reap().await.unwrap(), 0);
    drop(open(&layout));
    assert!(lease_all(&queue).await.is_empty());
    assert_eq!(queue.depth().await.unwrap(), Depth { processing: 1, ..Depth::default() });
    assert!(queue.is_idle().await.unwrap(), "there is nothing to wait for here");
    assert_eq!(entries(&directory).len(), 3);
}

#[tokio::test]
async fn a_directory_without_its_papers_belongs_to_whoever_has_its_lock() {
    let (_guard, layout) = home();
    let queue = witness(&layout);
    for missing in [&["lock"][..], &["owner.json"], &["lock", "owner.json"]] {
        let directory = leave(&layout, "a", |_| {});
        for file in missing {
            fs::remove_file(directory.join(file)).unwrap();
        }
        assert_inherited(&layout, &queue, "a", &directory).await;
    }
    // A crash may have emptied it.
    let directory = leave(&layout, "a", |_| {});
    fs::write(directory.join("owner.json"), b"").unwrap();
    assert_inherited(&layout, &queue, "a", &directory).await;

    let living = open(&layout);
    let owned = entries(&layout.processing());
    Spool::new(layout.clone()).capture(&envelope("b", b"{}")).unwrap();
    let leases = lease_all(&living).await;
    for directory in owned {
        fs::remove_file(directory.join("owner.json")).unwrap();
    }
    assert_eq!(queue.reap().await.unwrap(), 0, "its lock is held");
    settle(&living, leases, &Disposition::Delivered).await;
}

#[tokio::test]
async fn what_a_crash_has_left_half_made_is_cleared_away() {
    let (_guard, layout) = home();
    let queue = witness(&layout);
    let [bare, locked, signed] =
        [".1-bare", ".1-locked", ".1-signed"].map(|name| layout.processing().join(name));
    for directory in [&bare, &locked, &signed] {
        fs::create_dir(directory).unwrap();
    }
    for directory in [&locked, &signed] {
        fs::write(directory.join("lock"), b"").unwrap();
    }
    fs::write(signed.join("owner.json"), b"{\"mach").unwrap();
    queue.reap().await.unwrap();
    assert_eq!(entries(&layout.processing()).len(), 1, "its own is left");
}

#[tokio::test]
async fn a_half_made_directory_that_somebody_is_making_is_not_taken() {
    let (_guard, layout) = home();
    let queue = witness(&layout);
    let hidden = layout.processing().join(".1-new");
    fs::create_dir(&hidden).unwrap();
    let lock = fs::File::create(hidden.join("lock")).unwrap();
    lock.lock().unwrap();
    queue.reap().await.unwrap();
    assert!(hidden.exists());
}

#[tokio::test]
async fn an_owner_whose_directory_was_taken_from_it_makes_another() {
    let (_guard, layout) = home();
    let queue = witness(&layout);
    fs::remove_dir_all(layout.processing()).unwrap();
    Spool::new(layout.clone()).capture(&envelope("a", b"{}")).unwrap();
    let leases = lease_all(&queue).await;
    assert_eq!(ids(&leases), ["a"]);
    settle(&queue, leases, &Disposition::Delivered).await;
}

#[tokio::test]
async fn an_owner_that_ends_leaves_its_directory_to_the_next() {
    let (_guard, layout) = home();
    let spool = Spool::new(layout.clone());
    spool.capture(&envelope("a", b"{}")).unwrap();
    let first = open(&layout);
    let leases = lease_all(&first).await;
    let directories = entries(&layout.processing());
    drop((first, leases));
    let next = open(&layout);
    assert_eq!(entries(&layout.processing()), directories);
    assert_eq!(ids(&lease_all(&next).await), ["a"], "with what was in it");
    // Two at a time have two.
    let beside = open(&layout);
    assert_eq!(entries(&layout.processing()).len(), 2);
    drop(beside);
}

#[tokio::test]
async fn many_owners_that_come_and_go_lose_nothing() {
    let (_guard, layout) = home();
    let spool = Spool::new(layout.clone());
    for n in 0..100 {
        spool.capture(&envelope(&format!("e{n}"), b"{}")).unwrap();
    }
    let work = (0..8).map(|worker| {
        let layout = layout.clone();
        tokio::spawn(async move {
            let mut delivered = Vec::new();
            for turn in 0.. {
                let queue = open(&layout);
                queue.reap().await.unwrap();
                let leases = queue.lease(crate::support::any(7)).await.unwrap().leases;
                if leases.is_empty() && queue.is_idle().await.unwrap() {
                    return delivered;
                }
                // Every other time it goes without a word, and others inherit.
                if (turn + worker) % 2 == 0 {
                    delivered.extend(ids(&leases));
                    settle(&queue, leases, &Disposition::Delivered).await;
                }
            }
            delivered
        })
    });
    let mut delivered = Vec::new();
    for worker in work.collect::<Vec<_>>() {
        delivered.extend(worker.await.unwrap());
    }
    delivered.sort();
    let mut all: Vec<_> = (0..100).map(|n| format!("e{n}")).collect();
    all.sort();
    assert_eq!(delivered, all, "each once");
}
