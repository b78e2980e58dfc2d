//! Transcripts on their way into the spool: what is read of a file, when, and what becomes of it whatever
//! happens to the file, the disk and the process.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::{Clock, ManualClock, Timestamp};
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::base::id::slice_id;
use arrakis_core::base::limits::TRANSCRIPT_NOTE_MAX_AGE;
use arrakis_core::delivery::drain::Witness;
use arrakis_core::delivery::queue::{Depth, Disposition, Lane, Lease, LeaseRequest, Queue, Wake};
use arrakis_core::session::redact::Redactor;
use arrakis_core::session::transcript::{SliceConfig, TranscriptFile};
use arrakis_core::testkit::queue::DESTINATION;
use arrakis_store_fs::source::{
    Follower, Found, ReadMode, ShipConfig, ShipError, Shipper, Survey, identify, survey,
};
use arrakis_store_fs::spool::durability::{FileSystem, RealFileSystem};
use arrakis_store_fs::spool::format::decode;
use arrakis_store_fs::{Layout, Spool, SpoolDir, SpoolError, SpoolLimits};
use nix::sys::stat::Mode;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::crash::{CrashFs, Without};
use crate::support::{any, entries, ids, lease_all, on, open, settle};

/// A folder with transcripts and a spool.
pub(crate) struct Scene {
    pub(crate) directory: TempDir,
    pub(crate) layout: Layout,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) shipper: Shipper,
}

fn config(folder: &Path) -> ShipConfig {
    ShipConfig {
        enabled: true,
        folders: vec![folder.to_owned()],
        slices: SliceConfig::default(),
        redactor: Redactor::default(),
        source: Source::default(),
        limits: SpoolLimits { max_files: u64::MAX, max_bytes: u64::MAX },
    }
}

impl Scene {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let layout = Layout::new(directory.path().join("home"));
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
        let folder = directory.path().join("claude");
        fs::create_dir(&folder).unwrap();
        let time: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        let shipper = Shipper::new(SpoolDir::new(layout.clone()).with_clock(time), config(&folder));
        Self { directory, layout, clock, shipper }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("claude").join(name)
    }

    pub(crate) fn file(&self, name: &str) -> TranscriptFile {
        transcript(&self.path(name))
    }

    /// Reads a session's transcript; returns how many slices that made.
    pub(crate) fn read(&self, name: &str) -> u64 {
        self.shipper.read_session(&self.file(name), DESTINATION).unwrap()
    }

    pub(crate) fn append(&self, name: &str, text: impl AsRef<[u8]>) {
        append(&self.path(name), text.as_ref());
    }

    pub(crate) fn troubles(&self) -> Vec<String> {
        let troubles = survey(&self.layout).unwrap().troubles;
        troubles.into_iter().map(|(_, trouble)| trouble).collect()
    }
}

pub(crate) fn transcript(path: &Path) -> TranscriptFile {
    TranscriptFile {
        session_id: "s".to_owned(),
        path: path.to_str().unwrap().to_owned(),
        cwd: None,
        agent: None,
        identity: String::new(),
    }
}

pub(crate) fn append(path: &Path, text: &[u8]) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(text).unwrap();
}

pub(crate) fn line(n: impl std::fmt::Display) -> String {
    let place = r#""uuid":"u","timestamp":"2026-11-24T00:00:00Z""#;
    format!("{{\"type\":\"user\",{place},\"n\":\"{n}\"}}\n")
}

/// A line of a type that nobody knows.
const UNKNOWN: &str = "{\"type\":\"from-the-future\",\"n\":\"?\"}\n";

/// How many such lines are noted.
fn unknown(layout: &Layout) -> u64 {
    let lines = survey(layout).unwrap().unknown_lines;
    assert!(lines.keys().all(|name| name == "from-the-future"), "{lines:?}");
    lines.values().sum()
}

/// The payloads of the slices in the spool, in the order of the files and of their places in them.
pub(crate) fn slices(layout: &Layout) -> Vec<Value> {
    let files = fs::read_dir(layout.pending()).into_iter().flatten();
    let payload = |path: PathBuf| {
        let event = decode(&fs::read(path).unwrap().into()).unwrap();
        serde_json::from_slice(&event.payload).unwrap()
    };
    let mut slices: Vec<Value> = files.map(|file| payload(file.unwrap().path())).collect();
    slices.sort_by_key(|slice| {
        (slice["transcript_path"].as_str().unwrap().to_owned(), slice["start"].as_u64())
    });
    slices
}

/// What the lines in the spool say.
pub(crate) fn said(layout: &Layout) -> Vec<String> {
    let slices = slices(layout);
    let lines = slices.iter().flat_map(|slice| slice["lines"].as_array().unwrap());
    lines.map(|line| line["n"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_a_file_gains_is_pushed_once_and_a_half_line_waits() {
    let scene = Scene::new();
    let third = line(3);
    scene.append("s.jsonl", line(1) + &line(2) + &third[..9]);
    assert_eq!(scene.read("s.jsonl"), 1);
    assert_eq!((scene.read("s.jsonl"), said(&scene.layout)), (0, vec!["1".into(), "2".into()]));
    scene.append("s.jsonl", &third[9..]);
    assert_eq!(scene.read("s.jsonl"), 1);
    assert_eq!(said(&scene.layout), ["1", "2", "3"]);
    // Lines that do not matter make no event, and are not read again.
    scene.append("s.jsonl", "{\"type\":\"mode\"}\n");
    assert_eq!(scene.read("s.jsonl"), 0);
    let known = survey(&scene.layout).unwrap();
    assert_eq!((known.files, known.unread_bytes, known.troubles), (1, 0, vec![]));
    for note in entries(&scene.layout.transcripts()) {
        assert_eq!(note.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn lines_of_unknown_types_are_kept_and_counted_once() {
    let scene = Scene::new();
    scene.append("s.jsonl", line(1) + UNKNOWN + UNKNOWN);
    scene.append("t.jsonl", UNKNOWN);
    assert_eq!((scene.read("s.jsonl"), scene.read("t.jsonl")), (1, 1));
    assert_eq!(
        (unknown(&scene.layout), said(&scene.layout)),
        (3, ["1", "?", "?", "?"].map(Into::into).to_vec())
    );
    assert_eq!(scene.read("s.jsonl"), 0);
    scene.append("s.jsonl", UNKNOWN);
    scene.read("s.jsonl");
    assert_eq!(unknown(&scene.layout), 4);
    // From its beginning, because somebody wants that or the file is another one.
    let again = ReadMode { again: true, ..ReadMode::default() };
    scene.shipper.read(&scene.file("s.jsonl"), DESTINATION, again, &mut |_| {}).unwrap();
    assert_eq!(unknown(&scene.layout), 4);
    fs::write(scene.path("s.jsonl"), line(2) + UNKNOWN).unwrap();
    scene.read("s.jsonl");
    assert_eq!(unknown(&scene.layout), 2);
    // Long ones, and those that may hold thinking, are counted only.
    scene.shipper.configure(ShipConfig {
        slices: SliceConfig { thinking: false },
        ..config(&scene.path(""))
    });
    scene.append("u.jsonl", UNKNOWN);
    assert_eq!((scene.read("u.jsonl"), unknown(&scene.layout)), (0, 3));
}

#[test]
fn a_file_that_was_written_anew_is_read_from_its_beginning() {
    type Write<'a> = &'a dyn Fn(&Path);
    let first = line(1) + &line(2);
    let write: [(&str, Write<'_>); 4] = [
        ("truncated", &|path| fs::write(path, line(9)).unwrap()),
        ("emptied and grown", &|path| fs::write(path, line(1) + &line(9) + &line(9)).unwrap()),
        ("rewritten in the same size", &|path| {
            fs::write(path, line(1) + &line(9)).unwrap();
            // Two changes within one tick of the clock look the same.
            let later = std::time::SystemTime::now() + Duration::from_secs(1);
            fs::File::options().write(true).open(path).unwrap().set_modified(later).unwrap();
        }),
        ("replaced", &|path| {
            let other = path.with_extension("new");
            fs::write(&other, line(1) + &line(2) + &line(9)).unwrap();
            fs::rename(other, path).unwrap();
        }),
    ];
    for (what, write) in write {
        let scene = Scene::new();
        scene.append("s.jsonl", &first);
        scene.read("s.jsonl");
        write(&scene.path("s.jsonl"));
        assert_eq!(scene.read("s.jsonl"), 1, "{what}");
        let again = slices(&scene.layout).into_iter().filter(|slice| slice["start"] == 0);
        assert_eq!(again.count(), 2, "{what}");
        assert!(said(&scene.layout).contains(&"9".to_owned()), "{what}");
        assert_eq!(scene.read("s.jsonl"), 0, "{what}");
    }
}

#[test]
fn a_file_that_is_gone_is_forgotten_after_its_time_and_read_when_it_comes_back() {
    let scene = Scene::new();
    scene.shipper.register(&scene.file("s.jsonl"), DESTINATION).unwrap();
    assert_eq!(scene.shipper.read_known().unwrap(), 0, "it is not there yet");
    scene.append("s.jsonl", line(1));
    assert_eq!(scene.shipper.read_known().unwrap(), 1);
    fs::remove_file(scene.path("s.jsonl")).unwrap();
    assert_eq!(scene.shipper.read_known().unwrap(), 0);
    assert_eq!(survey(&scene.layout).unwrap().missing, 1);
    scene.clock.advance(TRANSCRIPT_NOTE_MAX_AGE);
    scene.append("s.jsonl", line(1) + &line(2));
    assert_eq!(scene.shipper.read_known().unwrap(), 1, "its place is still known");
    fs::remove_file(scene.path("s.jsonl")).unwrap();
    scene.shipper.read_known().unwrap();
    scene.clock.advance(TRANSCRIPT_NOTE_MAX_AGE + Duration::from_secs(1));
    scene.shipper.read_known().unwrap();
    assert_eq!(entries(&scene.layout.transcripts()), Vec::<PathBuf>::new());
}

#[test]
fn only_regular_files_in_the_folders_are_read_wherever_links_lead() {
    let scene = Scene::new();
    let outside = scene.directory.path().join("outside.jsonl");
    fs::write(&outside, line("secret")).unwrap();
    symlink(&outside, scene.path("out.jsonl")).unwrap();
    nix::unistd::mkfifo(&scene.path("fifo.jsonl"), Mode::S_IRWXU).unwrap();
    fs::create_dir(scene.path("folder.jsonl")).unwrap();
    symlink("/dev/zero", scene.path("device.jsonl")).unwrap();
    symlink(scene.path("loop.jsonl"), scene.path("loop.jsonl")).unwrap();
    for name in ["out.jsonl", "fifo.jsonl", "folder.jsonl", "device.jsonl", "loop.jsonl"] {
        assert_eq!(scene.read(name), 0, "{name}");
    }
    for path in [outside.as_path(), Path::new("claude/relative.jsonl")] {
        assert_eq!(scene.shipper.read_session(&transcript(path), DESTINATION).unwrap(), 0);
    }
    assert_eq!(slices(&scene.layout), Vec::<Value>::new());
    let mut troubles = scene.troubles();
    troubles.sort();
    let expected = [
        "Too many levels",
        "it is not a regular file",
        "it is not a regular file",
        "it lies at /dev/zero, outside",
        "it lies at",
        "it lies at",
        "its path is not absolute",
    ];
    assert_eq!(troubles.len(), expected.len(), "{troubles:?}");
    for expected in expected {
        assert!(troubles.iter().any(|trouble| trouble.starts_with(expected)), "{troubles:?}");
    }
    // A link that stays inside leads to a file like any other, and a trouble that is over is forgotten.
    scene.append("s.jsonl", line(1));
    symlink(scene.path("s.jsonl"), scene.path("in.jsonl")).unwrap();
    fs::remove_file(scene.path("out.jsonl")).unwrap();
    scene.append("out.jsonl", line(2));
    assert_eq!((scene.read("in.jsonl"), scene.read("out.jsonl")), (1, 1));
    assert_eq!(scene.troubles().len(), expected.len() - 1);
}

#[test]
fn a_person_may_have_a_file_outside_imported_which_is_not_followed_there() {
    let scene = Scene::new();
    let outside = scene.directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let path = outside.join("s.jsonl");
    append(&path, line(1).as_bytes());
    let time: Arc<dyn Clock> = Arc::<ManualClock>::clone(&scene.clock);
    let import =
        Shipper::new(SpoolDir::new(scene.layout.clone()).with_clock(time), config(&outside));
    let mode = ReadMode { imported: true, asked: true, ..ReadMode::default() };
    let file = identify(&path).unwrap();
    assert_eq!(import.read(&file, DESTINATION, mode, &mut |_| {}).unwrap().slices, 1);
    append(&path, line(2).as_bytes());
    assert_eq!(scene.shipper.read_known().unwrap(), 0);
    assert_eq!(scene.troubles(), Vec::<String>::new());
    let again = ReadMode { again: true, ..mode };
    assert_eq!(import.read(&file, DESTINATION, again, &mut |_| {}).unwrap().slices, 1);
    let mut said = said(&scene.layout);
    said.sort();
    assert_eq!(said, ["1", "1", "2"]);
}

#[test]
fn subagents_are_read_with_their_session_and_know_what_started_them() {
    let scene = Scene::new();
    scene.append("s.jsonl", line(1));
    fs::create_dir_all(scene.path("s/subagents")).unwrap();
    for n in 0..3 {
        scene.append(&format!("s/subagents/agent-a{n}.jsonl"), line(format!("a{n}")));
    }
    let meta = json!({"agentType": "Explore", "toolUseId": "toolu_1"}).to_string();
    fs::write(scene.path("s/subagents/agent-a0.meta.json"), meta).unwrap();
    fs::write(scene.path("s/subagents/notes.txt"), "no transcript").unwrap();
    // What keeps one from being read keeps no other.
    fs::create_dir(scene.path("s/subagents/agent-bad.jsonl")).unwrap();
    assert_eq!(scene.read("s.jsonl"), 4);
    let slices = slices(&scene.layout);
    let agent = slices.iter().find(|slice| slice["agent_id"] == "a0").unwrap();
    assert_eq!(
        (&agent["agent_type"], &agent["agent_tool_use_id"]),
        (&json!("Explore"), &json!("toolu_1"))
    );
    assert!(slices.iter().all(|slice| slice["session_id"] == "s"));
    assert_eq!(scene.read("s.jsonl"), 0);
}

#[test]
fn while_the_spool_is_full_the_place_waits() {
    let scene = Scene::new();
    scene.shipper.register(&scene.file("s.jsonl"), DESTINATION).unwrap();
    fs::write(scene.layout.full(), "").unwrap();
    scene.append("s.jsonl", line(1));
    let refused = scene.shipper.read_known();
    assert!(matches!(refused, Err(ShipError::Spool(SpoolError::Full(_)))), "{refused:?}");
    assert_eq!(survey(&scene.layout).unwrap().unread_bytes, line(1).len() as u64);
    fs::remove_file(scene.layout.full()).unwrap();
    assert_eq!(scene.shipper.read_known().unwrap(), 1);
}

#[test]
fn a_note_that_is_damaged_has_the_file_read_again() {
    let scene = Scene::new();
    scene.append("s.jsonl", line(1));
    scene.read("s.jsonl");
    let note = entries(&scene.layout.transcripts()).remove(0);
    for damage in ["", "{}", "[]", "\0\0"] {
        fs::write(&note, damage).unwrap();
        assert_eq!(scene.read("s.jsonl"), 1, "{damage:?}");
    }
}

#[test]
fn files_are_found_below_a_folder_and_know_their_session() {
    let scene = Scene::new();
    fs::create_dir_all(scene.path("projects/p/named/subagents")).unwrap();
    let said = |more: &str| format!("{{\"type\":\"mode\"}}\nbroken\n{{{more}\"x\":1}}\n");
    let files = [
        ("projects/p/said.jsonl", said("\"sessionId\":\"other\",\"cwd\":\"/c\",")),
        ("projects/p/named.jsonl", said("")),
        ("projects/p/named/subagents/agent-a.jsonl", said("")),
        ("projects/p/agent-old.jsonl", said("\"sessionId\":\"parent\",")),
    ];
    for (name, text) in &files {
        scene.append(name, text);
    }
    fs::write(scene.path("projects/p/named/subagents/agent-a.meta.json"), "{}").unwrap();
    symlink(scene.path("projects/p/said.jsonl"), scene.path("projects/p/link.jsonl")).unwrap();
    let mut found = Found::default();
    found.add(&scene.path("projects"));
    found.add(&scene.path("nothing"));
    assert_eq!(found.files.len(), files.len());
    assert_eq!(found.passed_over.len(), 1, "{:?}", found.passed_over);
    assert_eq!(found.left_out.len(), 1, "the link leads to what is found without it");
    let of = |name: &str| {
        let file = identify(&scene.path(name)).unwrap();
        (file.session_id, file.agent.map(|agent| agent.id))
    };
    assert_eq!(of("projects/p/said.jsonl"), ("other".into(), None));
    assert_eq!(of("projects/p/named.jsonl"), ("named".into(), None));
    assert_eq!(of("projects/p/named/subagents/agent-a.jsonl"), ("named".into(), Some("a".into())));
    assert_eq!(of("projects/p/agent-old.jsonl"), ("parent".into(), None));
    assert_eq!(identify(&scene.path(files[0].0)).unwrap().cwd.as_deref(), Some("/c"));
}

/// The disk loses its power at random calls while a file grows, is read and its slices are delivered. In the
/// end every line has been in exactly one slice: one that came twice has the same id. Lines of unknown types
/// are counted once.
#[test]
fn no_crash_loses_a_line_or_cuts_a_slice_anew() {
    let (mut crashes, mut repeated) = (0, 0);
    for seed in 0..60 {
        let directory = TempDir::new().unwrap();
        let root = directory.path().join("disk");
        fs::create_dir(&root).unwrap();
        let disk = CrashFs::new(&root, seed, Without::Nothing);
        let layout = Layout::new(root.join("home"));
        let folder = directory.path().join("claude");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("s.jsonl");
        let mut rng = StdRng::seed_from_u64(seed);
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
        let mut delivered = BTreeMap::new();
        let mut deliver = |all: bool, rng: &mut StdRng| {
            let files: Vec<_> = fs::read_dir(layout.pending()).into_iter().flatten().collect();
            for file in files {
                let file = file.unwrap().path();
                if !all && rng.random_bool(0.5) {
                    continue;
                }
                let event = decode(&fs::read(&file).unwrap().into()).unwrap();
                disk.remove(&file).unwrap();
                let slice: Value = serde_json::from_slice(&event.payload).unwrap();
                let place = (slice["start"].as_u64().unwrap(), slice["end"].as_u64().unwrap());
                let id = event.request_id().clone();
                repeated += usize::from(delivered.insert(id, place).is_some());
            }
        };
        let (mut written, mut unknown_lines) = (0, 0);
        for _ in 0..12 {
            for _ in 0..rng.random_range(0..3) {
                append(&path, UNKNOWN.as_bytes());
                unknown_lines += 1;
            }
            for _ in 0..rng.random_range(0..5) {
                // Some are so long that a slice holds few.
                let size = if rng.random_bool(0.3) { 100_000 } else { 10 };
                append(&path, line(format!("{written}-{}", "x".repeat(size))).as_bytes());
                written += 1;
            }
            let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
            let time: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
            let shipper = Shipper::new(on(layout.clone(), fs).with_clock(time), config(&folder));
            clock.advance(Duration::from_secs(1));
            disk.fail_after(rng.random_range(1..60));
            shipper.read_session(&transcript(&path), DESTINATION).ok();
            if disk.is_dead() {
                disk.crash();
                crashes += 1;
            }
            disk.repair();
            deliver(false, &mut rng);
        }
        let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
        let time: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        let shipper = Shipper::new(on(layout.clone(), fs).with_clock(time), config(&folder));
        shipper.read_session(&transcript(&path), DESTINATION).unwrap();
        deliver(true, &mut rng);
        assert_eq!(unknown(&layout), unknown_lines, "seed {seed}");
        let mut places: Vec<_> = delivered.into_values().collect();
        places.sort_unstable();
        let mut at = 0;
        for (start, end) in places {
            assert_eq!(start, at, "seed {seed}: slices follow each other");
            at = end;
        }
        assert_eq!(at, fs::metadata(&path).map_or(0, |found| found.len()), "seed {seed}");
    }
    assert!(crashes > 60 && repeated > 10, "{crashes} crashes, {repeated} slices came again");
}

fn slice(moment: i64) -> Envelope {
    let at = Timestamp::from_millis(1_800_000_000_000 + moment);
    Envelope::new(slice_id(&["a", "b"]), at, DESTINATION, Source::default(), &b"{}"[..])
}

#[tokio::test]
async fn slices_are_left_to_the_backlog_so_that_they_delay_no_fresh_event() {
    let (_guard, layout) = crate::support::home();
    let queue = open(&layout);
    Spool::new(layout.clone()).capture(&slice(0)).unwrap();
    assert_eq!(queue.wait().await, Wake::Pushed);
    let fresh = LeaseRequest { lane: Lane::Fresh, ..any(10) };
    assert!(queue.lease(fresh).await.unwrap().leases.is_empty());
    assert_eq!(lease_all(&queue).await.len(), 1);
}

#[tokio::test]
async fn a_slice_that_was_pushed_at_two_times_is_leased_once() {
    let (_guard, layout) = crate::support::home();
    let queue = open(&layout);
    for moment in [0, 1, 2] {
        Spool::new(layout.clone()).capture(&slice(moment)).unwrap();
    }
    let leases = lease_all(&queue).await;
    assert_eq!(ids(&leases).len(), 1);
    settle(&queue, leases, &Disposition::Delivered).await;
    assert_eq!(queue.depth().await.unwrap(), Depth::default());
    let tally = arrakis_store_fs::spool::counters::read(&layout).unwrap().counters;
    assert_eq!((tally.captured, tally.delivered, tally.duplicate), (3, 1, 2));
}

fn lease(path: &Path, event: &str) -> Lease {
    let payload = json!({"session_id": "s", "transcript_path": path, "hook_event_name": event});
    let payload = payload.to_string().into_bytes();
    let at = Timestamp::from_millis(1_800_000_000_000);
    let id = "r".parse().unwrap();
    let envelope = Envelope::new(id, at, DESTINATION, Source::default(), payload);
    Lease { envelope: Arc::new(envelope), failed_rounds: 0, token: String::new() }
}

#[tokio::test(start_paused = true)]
async fn a_transcript_is_read_at_once_and_again_while_it_may_lag_and_every_minute() {
    let scene = Scene::new();
    let path = scene.path("s.jsonl");
    let follower = Follower::new(Arc::new(scene.shipper));
    let script = async {
        let count = || said(&scene.layout).len();
        let pause = |millis| tokio::time::sleep(Duration::from_millis(millis));
        // Any event makes a transcript known; those that end a turn have it read.
        follower.see(&[lease(&path, "UserPromptSubmit")]).await;
        append(&path, line(0).as_bytes());
        pause(1000).await;
        assert_eq!(count(), 0);
        follower.see(&[lease(&path, "PostToolUse"), lease(&path, "Stop")]).await;
        for (n, (before, after)) in (1..).zip([(0, 100), (399, 100), (1400, 100), (7900, 100)]) {
            pause(before).await;
            assert_eq!(count(), n - 1, "before reading {n}");
            pause(after).await;
            assert_eq!(count(), n, "after reading {n}");
            append(&path, line(n).as_bytes());
        }
        assert!(!follower.is_due());
        pause(48_000).await;
        assert_eq!(count(), 4);
        pause(1_500).await;
        assert_eq!(count(), 5, "a turn may take hours");
        append(&path, line(5).as_bytes());
        assert_eq!(follower.catch_up().await, 1);
    };
    tokio::select! {
        () = follower.run() => {}
        () = script => {}
    }
}

#[tokio::test]
async fn a_transcript_is_known_before_its_event_can_be_settled_and_a_disk_that_fails_holds_no_event_up()
 {
    let scene = Scene::new();
    let path = scene.path("s.jsonl");
    let follower = Follower::new(Arc::new(scene.shipper));
    // A file where the directory should be.
    fs::create_dir_all(scene.layout.queue()).unwrap();
    fs::write(scene.layout.transcripts(), "").unwrap();
    follower.see(&[lease(&path, "SessionStart")]).await;
    fs::remove_file(scene.layout.transcripts()).unwrap();
    follower.see(&[lease(&path, "UserPromptSubmit")]).await;
    assert_eq!(survey(&scene.layout).unwrap().missing, 1);
    // A later drainer reads it, whatever became of this one.
    drop(follower);
    append(&path, line(1).as_bytes());
    let time: Arc<dyn Clock> = Arc::<ManualClock>::clone(&scene.clock);
    let folder = scene.directory.path().join("claude");
    let later = Shipper::new(
        on(scene.layout.clone(), Arc::new(RealFileSystem)).with_clock(time),
        config(&folder),
    );
    assert_eq!(later.read_known().unwrap(), 1);
}

#[test]
fn nothing_is_read_that_is_not_wanted() {
    let scene = Scene::new();
    scene.append("s.jsonl", line(1));
    let folder = scene.directory.path().join("claude");
    scene.shipper.configure(ShipConfig { enabled: false, ..config(&folder) });
    assert_eq!(scene.read("s.jsonl"), 0);
    scene.shipper.configure(config(&folder));
    assert_eq!(scene.read("s.jsonl"), 1);
}

#[test]
fn a_file_that_is_being_read_is_left_to_that_reading_by_everybody_else() {
    let scene = Scene::new();
    scene.append("s.jsonl", line(1));
    let file = scene.file("s.jsonl");
    let folder = scene.directory.path().join("claude");
    let time: Arc<dyn Clock> = Arc::<ManualClock>::clone(&scene.clock);
    let other = Shipper::new(SpoolDir::new(scene.layout.clone()).with_clock(time), config(&folder));
    std::thread::scope(|threads| {
        let mut waiting = None;
        let reading = scene.shipper.read(&file, DESTINATION, ReadMode::default(), &mut |_| {
            for shipper in [&scene.shipper, &other] {
                let read = shipper.read(&file, DESTINATION, ReadMode::default(), &mut |_| {});
                assert_eq!(read.unwrap().slices, 0);
            }
            assert_eq!(other.read_known().unwrap(), 0);
            waiting.get_or_insert_with(|| {
                let wait = ReadMode { again: true, asked: true, ..ReadMode::default() };
                let (other, file) = (&other, &file);
                threads.spawn(move || other.read(file, DESTINATION, wait, &mut |_| {}).unwrap())
            });
        });
        assert_eq!(reading.unwrap().slices, 1);
        scene.clock.advance(Duration::from_secs(1));
        assert_eq!(waiting.unwrap().join().unwrap().slices, 1);
    });
    let tally = arrakis_store_fs::spool::counters::read(&scene.layout).unwrap().counters;
    assert_eq!(tally.captured, entries(&scene.layout.pending()).len() as u64);
    assert_eq!(entries(&scene.layout.transcripts()).len(), 1, "no lock is left");
}

#[test]
fn of_what_events_name_only_transcripts_are_read() {
    let scene = Scene::new();
    scene.append("settings.json", "{\"apiKeyHelper\":\"a secret\"}\n");
    symlink(scene.path("settings.json"), scene.path("s.jsonl")).unwrap();
    for name in ["settings.json", "s.jsonl"] {
        assert_eq!(scene.read(name), 0, "{name}");
    }
    let troubles = scene.troubles();
    assert!(troubles.iter().all(|trouble| trouble.contains("end with .jsonl")), "{troubles:?}");
    assert_eq!((troubles.len(), slices(&scene.layout)), (2, vec![]));
    // A person may ask for it.
    let asked = ReadMode { asked: true, imported: true, ..ReadMode::default() };
    let file = scene.file("settings.json");
    let reading = scene.shipper.read(&file, DESTINATION, asked, &mut |_| {}).unwrap();
    assert_eq!((reading.slices, reading.trouble), (0, None), "it has no line of a transcript");
}

#[test]
fn no_folder_outside_is_listed() {
    let scene = Scene::new();
    let outside = scene.directory.path().join("outside");
    fs::create_dir_all(outside.join("s/subagents")).unwrap();
    append(&outside.join("s/subagents/agent-a.jsonl"), line(1).as_bytes());
    fs::create_dir(scene.path("link")).unwrap();
    symlink(outside.join("s/subagents"), scene.path("link/subagents")).unwrap();
    scene.append("link.jsonl", line(2));
    scene.shipper.read_session(&transcript(&outside.join("s.jsonl")), DESTINATION).unwrap();
    assert_eq!(scene.read("link.jsonl"), 1);
    // What was listed there would be noted.
    assert_eq!(entries(&scene.layout.transcripts()).len(), 2);
}

#[test]
fn what_is_read_again_is_not_read_once_more_after_that() {
    let scene = Scene::new();
    scene.append("s.jsonl", line(1));
    scene.read("s.jsonl");
    let again = ReadMode { again: true, ..ReadMode::default() };
    scene.clock.advance(Duration::from_secs(1));
    let file = scene.file("s.jsonl");
    scene.shipper.read(&file, DESTINATION, again, &mut |_| {}).unwrap();
    let spooled = slices(&scene.layout).len();
    assert_eq!((scene.read("s.jsonl"), scene.shipper.read_known().unwrap()), (0, 0));
    assert_eq!(slices(&scene.layout).len(), spooled);
    assert_eq!(spooled, 2);
    let note = fs::read_to_string(entries(&scene.layout.transcripts()).remove(0)).unwrap();
    assert!(!note.contains("intent"), "{note}");
}

#[test]
fn slices_go_to_the_receiver_of_today() {
    let scene = Scene::new();
    scene.append("s.jsonl", line(1));
    scene.read("s.jsonl");
    let destinations = || {
        let event = |path: PathBuf| decode(&fs::read(path).unwrap().into()).unwrap().header;
        let found = entries(&scene.layout.pending()).into_iter().map(event);
        let mut found: Vec<_> = found.map(|header| header.destination).collect();
        found.sort();
        found
    };
    let again = ReadMode { again: true, ..ReadMode::default() };
    let file = scene.file("s.jsonl");
    scene.shipper.read(&file, "http://new/", again, &mut |_| {}).unwrap();
    assert_eq!(destinations(), [DESTINATION, "http://new/"]);
    scene.append("s.jsonl", line(2));
    assert_eq!(scene.shipper.read_known().unwrap(), 1);
    assert_eq!(destinations(), [DESTINATION, "http://new/", "http://new/"]);
}

#[tokio::test]
async fn a_slice_for_two_receivers_goes_to_both() {
    let (_guard, layout) = crate::support::home();
    let queue = open(&layout);
    let mut other = slice(0);
    other.header.destination = "http://other/".to_owned();
    for slice in [slice(0), other] {
        Spool::new(layout.clone()).capture(&slice).unwrap();
    }
    let first = lease_all(&queue).await;
    assert_eq!(first.len(), 1, "the other waits for its turn");
    settle(&queue, first, &Disposition::Delivered).await;
    let second = lease_all(&queue).await;
    assert_eq!(second.len(), 1);
    settle(&queue, second, &Disposition::Delivered).await;
    assert_eq!(queue.depth().await.unwrap(), Depth::default());
}

#[test]
fn transcripts_take_half_of_the_spool_and_leave_the_reserve_to_events() {
    for (max_files, max_bytes) in [(8, u64::MAX), (u64::MAX, 900_000)] {
        let scene = Scene::new();
        let spool = Spool::new(scene.layout.clone());
        let folder = scene.directory.path().join("claude");
        scene.shipper.configure(ShipConfig {
            limits: SpoolLimits { max_files, max_bytes },
            ..config(&folder)
        });
        spool.capture(&slice(0)).unwrap();
        for n in 0..5 {
            scene.append("s.jsonl", line(format!("{n}{}", "x".repeat(200_000))));
        }
        let file = scene.file("s.jsonl");
        let refused = scene.shipper.read_session(&file, DESTINATION);
        assert!(matches!(refused, Err(ShipError::HalfFull(_))), "{refused:?}");
        let spooled = entries(&scene.layout.pending());
        assert_eq!(spooled.len(), if max_files == 8 { 4 } else { 3 });
        // It goes on once there is room.
        spooled.into_iter().for_each(|path| fs::remove_file(path).unwrap());
        scene.shipper.read_known().ok();
        assert!(!entries(&scene.layout.pending()).is_empty());
    }
    let scene = Scene::new();
    let spool = Spool::new(scene.layout.clone());
    spool.create().unwrap();
    spool.reserve().unwrap();
    scene.append("s.jsonl", line(1));
    let full = crate::support::faulty::Faulty::new(|_, what, path| {
        let is_event = what == "create" && path.parent().unwrap().ends_with("tmp");
        if is_event { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    });
    let time: Arc<dyn Clock> = Arc::<ManualClock>::clone(&scene.clock);
    let folder = scene.directory.path().join("claude");
    let shipper =
        Shipper::new(on(scene.layout.clone(), Arc::new(full)).with_clock(time), config(&folder));
    assert!(shipper.read_session(&scene.file("s.jsonl"), DESTINATION).is_err());
    assert!(scene.layout.reserve().exists());
}

#[test]
fn a_half_line_is_not_read_again_before_the_file_has_changed() {
    let scene = Scene::new();
    let long = [line(1).into_bytes(), vec![b'x'; 20_000_000]].concat();
    for (name, text) in [("half.jsonl", long.as_slice()), ("only.jsonl", &long[line(1).len()..])] {
        scene.append(name, text);
        scene.read(name);
        let notes = entries(&scene.layout.transcripts());
        let note = notes.into_iter().find(|note| fs::read_to_string(note).unwrap().contains(name));
        let inode = || note.as_ref().unwrap().metadata().unwrap().ino();
        assert!(fs::read_to_string(note.as_ref().unwrap()).unwrap().contains("seen"), "{name}");
        // Whoever reads takes the lock.
        let lock = note.as_ref().unwrap().with_extension("lock");
        fs::create_dir(&lock).unwrap();
        let before = inode();
        assert_eq!((scene.read(name), inode()), (0, before), "{name}");
        fs::remove_dir(&lock).unwrap();
        scene.append(name, format!("\n{}", line(2)));
        assert_eq!(scene.read(name), 1, "{name}");
    }
}

#[test]
fn a_file_that_could_not_be_read_is_forgotten_too_when_it_is_gone() {
    let scene = Scene::new();
    fs::create_dir(scene.path("s.jsonl")).unwrap();
    scene.read("s.jsonl");
    // Not a folder any more, so that what is below it is not merely missing.
    scene.append("file", "");
    scene.read("file/t.jsonl");
    assert_eq!(scene.troubles().len(), 2);
    fs::remove_dir(scene.path("s.jsonl")).unwrap();
    scene.shipper.read_known().unwrap();
    scene.clock.advance(TRANSCRIPT_NOTE_MAX_AGE + Duration::from_secs(1));
    scene.shipper.read_known().unwrap();
    assert_eq!(entries(&scene.layout.transcripts()), Vec::<PathBuf>::new());
}

#[test]
fn a_note_that_could_not_be_read_back_is_not_written() {
    let scene = Scene::new();
    let file = TranscriptFile { cwd: Some("x".repeat(200_000)), ..scene.file("s.jsonl") };
    assert!(matches!(
        scene.shipper.register(&file, DESTINATION),
        Err(ShipError::Checkpoint { .. })
    ));
    assert_eq!(survey(&scene.layout).unwrap(), Survey::default());
}

#[tokio::test]
async fn whoever_catches_up_waits_for_what_is_being_read() {
    let scene = Scene::new();
    scene.append("s.jsonl", line(1));
    let (begins, mut began) = tokio::sync::mpsc::unbounded_channel();
    let (go_on, goes_on) = std::sync::mpsc::channel::<()>();
    let slow = crate::support::faulty::Faulty::new(move |_, what, path| {
        if what == "create" && path.parent().unwrap().ends_with("tmp") {
            begins.send(()).ok();
            goes_on.recv().ok(); // until it is dropped
        }
        Ok(())
    });
    let folder = scene.directory.path().join("claude");
    let time: Arc<dyn Clock> = Arc::<ManualClock>::clone(&scene.clock);
    let shipper =
        Shipper::new(on(scene.layout.clone(), Arc::new(slow)).with_clock(time), config(&folder));
    let followed = Follower::new(Arc::new(shipper));
    let follower = &followed;
    let path = scene.path("s.jsonl");
    // The note is there already: making it would wait for the slow file system too.
    let other = Arc::new(scene.shipper);
    Follower::new(Arc::clone(&other)).see(&[lease(&path, "Stop")]).await;
    let script = async move {
        follower.see(&[lease(&path, "Stop")]).await;
        began.recv().await.unwrap();
        let mut caught_up = std::pin::pin!(follower.catch_up());
        let look = tokio::task::spawn_blocking(move || other.read_known());
        tokio::select! {
            _ = &mut caught_up => panic!("a slice is still to come"),
            read = look => assert_eq!(read.unwrap().unwrap(), 0),
        }
        drop(go_on);
        assert_eq!(caught_up.await, 0);
        assert_eq!(said(&scene.layout), ["1"]);
    };
    tokio::select! {
        () = follower.run() => {}
        () = script => {}
    }
}
