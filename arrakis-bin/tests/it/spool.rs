//! The spool under the real programs: many drainers, owners that stop and die, disks in trouble, damage.

#![allow(clippy::print_stdout, reason = "the figures are its result too")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::world::{Up, World, feed};
use arrakis_core::base::clock::{Clock, SystemClock};
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_store_fs::spool::capacity::RESERVE_BYTES;
use arrakis_store_fs::spool::format::encode_header;
use arrakis_store_fs::spool::layout::EntryName;
use arrakis_store_fs::{Layout, Spool};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A server, and nobody who drains: the tests start the drainers.
fn server(world: &World) -> Up {
    world.lone_up()
}

fn layout(world: &World) -> Layout {
    Layout::new(world.home())
}

fn event(id: &str, up: &Up, payload: &str) -> Envelope {
    let now = SystemClock.now();
    Envelope::new(id.parse().unwrap(), now, &up.url, Source::default(), payload.to_owned())
}

fn capture(world: &World, up: &Up, id: &str) {
    Spool::new(layout(world)).capture(&event(id, up, r#"{"hook_event_name":"Stop"}"#)).unwrap();
}

fn drain(world: &World, arguments: &[&str]) -> Child {
    let mut command = world.command(env!("CARGO_BIN_EXE_arrakis"));
    command.arg("drain").args(arguments).stdout(Stdio::null()).spawn().unwrap()
}

fn signal(process: &Child, signal: Signal) {
    kill(Pid::from_raw(process.id().cast_signed()), signal).unwrap();
}

fn end(mut process: Child) {
    process.kill().ok();
    process.wait().unwrap();
}

/// Takes a directory of the home away at one stroke, as a drainer would put things into it meanwhile.
fn delete(world: &World, directory: &str) {
    let away = world.directory.path().join("away");
    fs::rename(world.home().join(directory), &away).unwrap();
    fs::remove_dir_all(away).unwrap();
}

/// Every event was stored, once, and sent once.
fn assert_stored_and_sent_once(world: &World, count: i64) {
    assert_eq!(world.count("webhook_events WHERE status = 'SUCCESS'"), count);
    assert_eq!(world.count("webhook_events"), count, "none was sent twice");
    assert_empty(world);
}

fn assert_empty(world: &World) {
    for directory in ["pending", "processing", "failed", "quarantine"] {
        assert!(world.spooled(directory).is_empty(), "{directory} is empty");
    }
}

fn is_stored(world: &World, count: i64) -> bool {
    let left = world.spooled("pending").len() + world.spooled("processing").len();
    left == 0 && world.count("webhook_events WHERE status = 'SUCCESS'") == count
}

#[test]
fn eight_drainers_on_one_spool_send_each_event_once() {
    let world = World::new();
    let up = server(&world);
    for n in 0..600 {
        let path = layout(&world).pending();
        let event = event(&format!("e{n}"), &up, r#"{"hook_event_name":"Stop"}"#);
        let bytes = [&encode_header(&event).unwrap()[..], &event.payload].concat();
        fs::write(path.join(EntryName::of(&event.header).to_string()), bytes).unwrap();
    }
    let drainers: Vec<_> = (0..8).map(|_| drain(&world, &["--once", "--parallel"])).collect();
    for mut drainer in drainers {
        assert!(drainer.wait().unwrap().success());
    }
    assert_stored_and_sent_once(&world, 600);
}

#[test]
fn a_stopped_owner_is_not_robbed() {
    let world = World::new();
    let up = server(&world);
    signal(&up.child, Signal::SIGSTOP);
    capture(&world, &up, "a");
    let owner = drain(&world, &[]);
    world.wait_until("it is leased", |world| !world.spooled("processing").is_empty());
    signal(&owner, Signal::SIGSTOP);
    signal(&up.child, Signal::SIGCONT);
    for _ in 0..3 {
        assert!(drain(&world, &["--once", "--parallel"]).wait().unwrap().success());
        assert_eq!(world.spooled("processing").len(), 1, "it is its owner's");
    }
    signal(&owner, Signal::SIGCONT);
    world.wait_until("its owner has settled it", |world| is_stored(world, 1));
    end(owner);
    assert_stored_and_sent_once(&world, 1);
}

#[test]
fn what_a_killed_owner_held_is_taken_over_by_the_drainer_beside_it() {
    let world = World::new();
    let up = server(&world);
    signal(&up.child, Signal::SIGSTOP);
    let beside = drain(&world, &["--parallel"]);
    for n in 0..20 {
        capture(&world, &up, &format!("e{n}"));
    }
    let owner = drain(&world, &["--parallel"]);
    world.wait_until("they are leased", |world| {
        world.spooled("pending").is_empty() && world.spooled("processing").len() == 20
    });
    end(owner);
    signal(&up.child, Signal::SIGCONT);
    world.wait_until("they are stored", |world| is_stored(world, 20));
    end(beside);
    assert_empty(&world);
}

#[test]
fn a_spool_that_is_deleted_under_a_drainer_works_again_with_the_next_event() {
    let world = World::new();
    let up = server(&world);
    let drainer = drain(&world, &[]);
    capture(&world, &up, "first");
    world.wait_until("the first is stored", |world| is_stored(world, 1));
    delete(&world, "queue");
    feed(world.hook(), br#"{"hook_event_name":"Stop"}"#);
    world.wait_until("the second is stored", |world| is_stored(world, 2));
    for victim in ["pending", "processing"] {
        delete(&world, &format!("queue/{victim}"));
        feed(world.hook(), br#"{"hook_event_name":"Stop"}"#);
    }
    world.wait_until("all are stored", |world| is_stored(world, 4));
    end(drainer);
}

#[test]
fn every_kind_of_damage_is_set_aside_by_the_drainer_and_its_neighbours_are_delivered() {
    let world = World::new();
    let up = server(&world);
    let pending = layout(&world).pending();
    let mut named = 0;
    let mut name = || {
        named += 1;
        pending.join(format!("1800000000000-00-00000000-bad{named}.event"))
    };
    let good = event("copied", &up, r#"{"hook_event_name":"Stop"}"#);
    let bytes = [&encode_header(&good).unwrap()[..], &good.payload].concat();
    capture(&world, &up, "before");
    let mut flipped = bytes.clone();
    flipped[40] ^= 4;
    let newer =
        String::from_utf8(bytes.clone()).unwrap().replace("\"envelope\":1", "\"envelope\":3");
    let contents: [&[u8]; 7] = [
        &flipped,
        &bytes[..bytes.len() / 2],
        &[&bytes[..], b"garbage"].concat(),
        &[0; 4096],
        b"",
        newer.as_bytes(),
        &bytes, // under the name of another event
    ];
    for content in contents {
        fs::write(name(), content).unwrap();
    }
    symlink("/etc/hostname", name()).unwrap();
    nix::unistd::mkfifo(&name(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(name()).unwrap();
    fs::File::create(name()).unwrap().set_len(5 << 30).unwrap();
    let other_names =
        ["a name that is none.event".to_owned(), format!("{}.event", "x".repeat(249))];
    for other in &other_names {
        fs::write(pending.join(other), &bytes).unwrap();
    }
    use std::os::unix::ffi::OsStrExt;
    fs::write(pending.join(std::ffi::OsStr::from_bytes(b"\xff.event")), &bytes).unwrap();
    capture(&world, &up, "after");
    assert!(drain(&world, &["--once"]).wait().unwrap().success());
    let rows: Vec<_> = world.rows().into_iter().map(|row| row.request_id).collect();
    assert_eq!(rows.len(), 2, "{rows:?}");
    let quarantined = fs::read_dir(layout(&world).quarantine()).unwrap().flatten();
    let reasons =
        quarantined.filter(|entry| entry.path().extension().is_some_and(|e| e == "reason"));
    assert_eq!(reasons.count(), contents.len() + 4 + 3);
    assert!(world.spooled("pending").is_empty());
}

#[test]
fn a_full_spool_refuses_visibly_and_takes_events_again_by_itself() {
    let world = World::new();
    let up = server(&world);
    let config = world.home().join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\n[spool]\nmax_files = 5\n")).unwrap();
    signal(&up.child, Signal::SIGSTOP);
    let full = layout(&world).full();
    for _ in 0..8 {
        feed(world.lone_hook(), br#"{"hook_event_name":"Stop"}"#);
    }
    // The hook that is refused starts the drainer that makes room.
    fs::write(&full, b"").unwrap();
    feed(world.hook(), br#"{"hook_event_name":"Refused"}"#);
    let log = fs::read_to_string(world.home().join("logs/webhook-error.log")).unwrap();
    assert!(log.contains("is full") && log.contains("\"captured\":false"), "{log}");
    assert_eq!(world.spooled("pending").len() + world.spooled("processing").len(), 8);
    signal(&up.child, Signal::SIGCONT);
    world.wait_until("there is room again", |world| !full.exists() && is_stored(world, 8));
    feed(world.hook(), br#"{"hook_event_name":"Stop"}"#);
    world.wait_until("the next is stored", |world| is_stored(world, 9));
}

#[test]
fn a_home_that_cannot_be_written_is_stood_in_for_by_the_fallback_home() {
    let world = World::new();
    let up = server(&world);
    // A drainer is at work already when the fallback home comes into being.
    let drainer = drain(&world, &[]);
    capture(&world, &up, "first");
    world.wait_until("the first is stored", |world| is_stored(world, 1));
    fs::remove_dir_all(layout(&world).tmp()).unwrap();
    fs::write(layout(&world).tmp(), b"no directory").unwrap();
    feed(world.hook(), br#"{"hook_event_name":"Stop"}"#);
    world.wait_until("the second is stored", |world| is_stored(world, 2));
    let fallback = Layout::new(world.directory.path().join("fallback"));
    world.wait_until("the fallback home is empty", |_| {
        arrakis_store_fs::is_idle(&fallback).unwrap()
    });
    end(drainer);
}

/// A file system in memory at the home of a world; taken away when dropped.
struct Mount(PathBuf);

impl Mount {
    /// `None` where this process may not mount.
    fn new(world: &World, options: &str) -> Option<Self> {
        fs::create_dir_all(world.home()).unwrap();
        let mount = Self(world.home());
        let mounted = mount.call(&["-t", "tmpfs", "-o", options, "tmpfs"]);
        if !mounted {
            println!(
                "MOUNTING IS NOT ALLOWED HERE, so no real disk is filled: this is covered only by the \
                 injected faults of arrakis-store-fs/tests/trouble.rs and by the fallback test above"
            );
        }
        mounted.then_some(mount)
    }

    fn call(&self, arguments: &[&str]) -> bool {
        let mut command = Command::new("mount");
        command.args(arguments).arg(&self.0).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

/// A world whose home is on a small disk, and another with the server, whose key the first has.
fn small_disk(options: &str) -> Option<(World, World, Up, Mount)> {
    let (sender, receiver) = (World::new(), World::new());
    let mount = Mount::new(&sender, options)?;
    let up = server(&receiver);
    let config = fs::read_to_string(receiver.home().join("config.toml")).unwrap();
    let key = config.lines().find(|line| line.starts_with("api_key")).unwrap();
    let text = format!("url = \"{}\"\n{key}\n", up.url);
    fs::write(sender.home().join("config.toml"), text).unwrap();
    Some((sender, receiver, up, mount))
}

/// Writes until nothing more fits.
fn fill(file: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(file).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
}

fn reserve(world: &World) -> u64 {
    fs::metadata(layout(world).reserve()).map_or(0, |found| found.len())
}

#[test]
fn a_disk_without_a_byte_left_loses_nothing_and_is_emptied_while_it_is_full() {
    let Some((sender, receiver, up, _mount)) = small_disk("size=24m,mode=700") else { return };
    let drainer = drain(&sender, &[]);
    sender.wait_until("space is set aside", |sender| reserve(sender) == RESERVE_BYTES as u64);
    let junk = sender.home().join("junk");
    fill(&junk);
    signal(&up.child, Signal::SIGSTOP);
    let payload = format!(r#"{{"hook_event_name":"Stop","text":"{}"}}"#, "x".repeat(64 * 1024));
    let hooks = 120;
    for _ in 0..hooks {
        feed(sender.hook(), payload.as_bytes());
    }
    let fallback = Layout::new(sender.directory.path().join("fallback"));
    assert_eq!(reserve(&sender), 0, "it was given up");
    assert!(!arrakis_store_fs::is_idle(&fallback).unwrap(), "and was not enough");
    assert!(!arrakis_store_fs::is_idle(&layout(&sender)).unwrap(), "but held some");
    signal(&up.child, Signal::SIGCONT);
    receiver.wait_until("all are stored", |receiver| is_stored(receiver, hooks));
    sender.wait_until("both homes are empty, on a full disk", |sender| {
        let idle = |layout: &Layout| arrakis_store_fs::is_idle(layout).unwrap();
        idle(&layout(sender)) && idle(&fallback)
    });
    assert!(junk.exists());
    fs::remove_file(junk).unwrap();
    sender.wait_until("space is set aside again", |sender| reserve(sender) == RESERVE_BYTES as u64);
    end(drainer);
}

#[test]
fn a_drainer_starts_on_a_disk_without_a_byte_or_a_file_left() {
    let Some((sender, receiver, up, _mount)) = small_disk("size=24m,nr_inodes=60,mode=700") else {
        return;
    };
    assert!(drain(&sender, &["--once"]).wait().unwrap().success());
    for _ in 0..5 {
        feed(sender.lone_hook(), br#"{"hook_event_name":"Stop"}"#);
    }
    fill(&sender.home().join("junk"));
    let mut files = 0;
    while fs::File::create(sender.home().join(format!("junk-{files}"))).is_ok() {
        files += 1;
    }
    println!("{files} files until there was none left");
    for _ in 0..5 {
        feed(sender.lone_hook(), br#"{"hook_event_name":"Stop"}"#);
    }
    assert!(drain(&sender, &["--once"]).wait().unwrap().success());
    assert!(is_stored(&receiver, 10));
    drop(up);
}

#[test]
fn a_disk_that_becomes_read_only_is_waited_for() {
    let Some((sender, receiver, _up, mount)) = small_disk("size=24m,mode=700") else { return };
    feed(sender.lone_hook(), br#"{"hook_event_name":"Stop"}"#);
    assert!(mount.call(&["-o", "remount,ro"]));
    feed(sender.hook(), br#"{"hook_event_name":"Stop"}"#);
    receiver.wait_until("the second is stored", |receiver| is_stored(receiver, 1));
    assert!(mount.call(&["-o", "remount,rw"]));
    receiver.wait_until("the first is stored", |receiver| is_stored(receiver, 2));
}
