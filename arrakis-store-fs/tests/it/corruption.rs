//! Every kind of damage to a file of the spool: it ends in quarantine with a reason, its bytes as they
//! were, and delays nothing else.

#![allow(clippy::print_stdout, reason = "the figures are its result too")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::delivery::queue::{Disposition, Queue};
use arrakis_core::testkit::queue::envelope;
use arrakis_store_fs::spool::format::encode_header;
use arrakis_store_fs::spool::layout::EntryName;
use arrakis_store_fs::{Layout, Spool};
use nix::sys::stat::Mode;

use crate::support::{entries, home, ids, lease_all, open, settle};

/// A spool with two sound events, and names for more files between them.
struct Scene {
    _guard: tempfile::TempDir,
    layout: Layout,
    named: u32,
}

impl Scene {
    fn new() -> Self {
        let (guard, layout) = home();
        let scene = Self { _guard: guard, layout, named: 0 };
        for id in ["first", "last"] {
            scene.spool().capture(&envelope(id, br#"{"sound":true}"#)).unwrap();
        }
        scene
    }

    fn spool(&self) -> Spool {
        Spool::new(self.layout.clone())
    }

    /// The file of an event as it should be, and where it should be.
    fn file(&mut self) -> (PathBuf, Vec<u8>) {
        self.named += 1;
        let envelope = envelope(&format!("bad{}", self.named), b"{\"a\":1}\nsecond line");
        (self.path(&envelope), bytes_of(&envelope))
    }

    fn path(&self, envelope: &Envelope) -> PathBuf {
        self.layout.pending().join(EntryName::of(&envelope.header).to_string())
    }

    fn put(&mut self, damage: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
        let (path, bytes) = self.file();
        let bytes = damage(bytes);
        fs::write(path, &bytes).unwrap();
        bytes
    }

    /// Leases everything: exactly the sound events, and `expected` entries are in quarantine.
    async fn look(&self, expected: usize) -> Vec<PathBuf> {
        let queue = open(&self.layout);
        let leases = lease_all(&queue).await;
        assert_eq!(ids(&leases), ["first", "last"]);
        settle(&queue, leases, &Disposition::Delivered).await;
        assert!(queue.is_idle().await.unwrap());
        assert_eq!(queue.depth().await.unwrap().quarantined, expected as u64);
        let all = entries(&self.layout.quarantine());
        let (reasons, kept): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|path| path.extension() == Some(OsStr::new("reason")));
        assert_eq!((reasons.len(), kept.len()), (expected, expected));
        for reason in reasons {
            assert!(fs::read_to_string(&reason).unwrap().starts_with("it"), "{}", reason.display());
        }
        kept
    }

    /// As [`look`](Self::look), and these are the contents of what is in quarantine.
    async fn expect(&self, contents: Vec<Vec<u8>>) {
        let kept = self.look(contents.len()).await;
        let count = |all: Vec<Vec<u8>>| {
            let mut counts = BTreeMap::<Vec<u8>, usize>::new();
            for content in all {
                *counts.entry(content).or_default() += 1;
            }
            counts
        };
        let found = count(kept.iter().map(|path| fs::read(path).unwrap()).collect());
        assert!(found == count(contents), "every byte is as it was");
    }

    fn reason_of(&self, path: &Path) -> String {
        let mut name = path.as_os_str().to_owned();
        name.push(".reason");
        fs::read_to_string(name).unwrap().trim().to_owned()
    }
}

fn bytes_of(envelope: &Envelope) -> Vec<u8> {
    let mut bytes = encode_header(envelope).unwrap();
    bytes.extend_from_slice(&envelope.payload);
    bytes
}

#[tokio::test]
async fn a_flip_of_any_bit_of_the_header() {
    let mut scene = Scene::new();
    let (_, bytes) = scene.file();
    let header = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let mut contents = Vec::new();
    for bit in 0..header * 8 {
        contents.push(scene.put(|mut bytes| {
            // Ids differ in length, so the header does.
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        }));
    }
    println!("{} bits of the header flipped", contents.len());
    scene.expect(contents).await;
}

#[tokio::test]
async fn a_flip_of_a_bit_of_the_payload() {
    let mut scene = Scene::new();
    let contents = (0..8).map(|bit| {
        scene.put(|mut bytes| {
            *bytes.last_mut().unwrap() ^= 1 << bit;
            bytes
        })
    });
    let contents = contents.collect();
    scene.expect(contents).await;
}

#[tokio::test]
async fn a_truncation_at_every_length() {
    let mut scene = Scene::new();
    let length = scene.file().1.len();
    let contents: Vec<_> = (0..length)
        .map(|at| scene.put(|bytes| bytes[..at.min(bytes.len() - 1)].to_vec()))
        .collect();
    println!("{} truncations", contents.len());
    scene.expect(contents).await;
}

#[tokio::test]
async fn garbage_appended() {
    let mut scene = Scene::new();
    let contents = [&b"x"[..], b"\n", b"\0", &[0xff; 5000]]
        .map(|garbage| scene.put(|bytes| [&bytes, garbage].concat()));
    scene.expect(contents.to_vec()).await;
}

#[tokio::test]
async fn zeros_and_nothing() {
    let mut scene = Scene::new();
    let contents = [
        scene.put(|_| Vec::new()),
        scene.put(|bytes| vec![0; bytes.len()]),
        scene.put(|_| vec![0; 1 << 20]),
        // What a crash leaves of a file whose length was written and whose last block was not.
        scene.put(|mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle..].fill(0);
            bytes
        }),
    ];
    scene.expect(contents.to_vec()).await;
}

#[tokio::test]
async fn a_duplicate_of_an_event() {
    let scene = Scene::new();
    let original = envelope("first", br#"{"sound":true}"#);
    let again = EntryName { rounds: 1, ..EntryName::of(&original.header) };
    fs::write(scene.layout.pending().join(again.to_string()), bytes_of(&original)).unwrap();
    let forged = envelope("last", br#"{"sound":false}"#);
    let other = EntryName { rounds: 2, ..EntryName::of(&forged.header) };
    let path = scene.layout.pending().join(other.to_string());
    fs::write(&path, bytes_of(&forged)).unwrap();
    let kept = scene.look(2).await;
    for path in kept {
        assert_eq!(scene.reason_of(&path), "its event is being delivered from another file");
    }
}

#[tokio::test]
async fn a_file_under_the_name_of_another_event() {
    let mut scene = Scene::new();
    let (path, _) = scene.file();
    let original = bytes_of(&envelope("first", br#"{"sound":true}"#));
    fs::write(path, &original).unwrap();
    // One for another receiver would be tried while that one is away, again and again.
    let elsewhere = Envelope::new(
        "elsewhere".parse().unwrap(),
        envelope("x", b"").header.captured_at,
        "http://elsewhere.invalid/",
        Source::default(),
        &b"{}"[..],
    );
    let tag = EntryName::of(&envelope("x", b"").header).tag;
    let name = EntryName { tag, ..EntryName::of(&elsewhere.header) };
    fs::write(scene.layout.pending().join(name.to_string()), bytes_of(&elsewhere)).unwrap();
    scene.expect(vec![original, bytes_of(&elsewhere)]).await;
}

#[tokio::test]
async fn a_symbolic_link() {
    let mut scene = Scene::new();
    let outside = scene.layout.home().join("outside");
    let (good, nothing, directory) = (scene.file(), scene.file().0, scene.file().0);
    fs::write(&outside, good.1).unwrap();
    symlink(&outside, good.0).unwrap();
    symlink("/nowhere", nothing).unwrap();
    symlink("/", directory).unwrap();
    let kept = scene.look(3).await;
    assert!(kept.iter().all(|path| path.is_symlink()));
    assert!(outside.exists(), "what a link leads to is left alone");
}

#[tokio::test]
async fn a_fifo_a_socket_and_a_directory() {
    let mut scene = Scene::new();
    let [fifo, socket, empty, full] = std::array::from_fn(|_| scene.file().0);
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    fs::create_dir(empty).unwrap();
    fs::create_dir(&full).unwrap();
    fs::write(full.join("inside"), b"kept").unwrap();
    let kept = scene.look(4).await;
    let kinds: Vec<_> =
        kept.iter().map(|path| path.symlink_metadata().unwrap().file_type()).collect();
    assert_eq!(kinds.iter().filter(|kind| kind.is_fifo()).count(), 1);
    assert_eq!(kinds.iter().filter(|kind| kind.is_socket()).count(), 1);
    assert_eq!(kinds.iter().filter(|kind| kind.is_dir()).count(), 2);
    assert!(kept.iter().any(|path| path.join("inside").exists()));
}

#[tokio::test]
async fn a_sparse_file_of_5_gib() {
    let mut scene = Scene::new();
    let (path, bytes) = scene.file();
    fs::write(&path, &bytes).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(5 << 30).unwrap();
    let kept = scene.look(1).await;
    let found = kept[0].metadata().unwrap();
    assert_eq!(found.len(), 5 << 30);
    assert!(found.blocks() < 100, "it was neither read whole nor copied");
}

#[tokio::test]
async fn names_that_are_none() {
    let mut scene = Scene::new();
    let bytes = scene.file().1;
    let long = [&[b'x'; 249][..], b".event"].concat();
    let mut long_id = EntryName::of(&envelope("x", b"").header).to_string().into_bytes();
    long_id.splice(long_id.len() - 7.., [&[b'y'; 200][..], b".event"].concat());
    let names: [&[u8]; 6] =
        [b"\xff\xfe.event", b"a name.event", b".event", b"1-2-3-4.event", &long, &long_id];
    for name in names {
        fs::write(scene.layout.pending().join(OsStr::from_bytes(name)), &bytes).unwrap();
    }
    fs::write(scene.layout.pending().join("notes.txt"), b"nobody's business").unwrap();
    scene.expect(vec![bytes; names.len()]).await;
    assert!(scene.layout.pending().join("notes.txt").exists());
}

#[tokio::test]
async fn two_of_one_name_are_both_kept() {
    let mut scene = Scene::new();
    let (path, _) = scene.file();
    fs::write(&path, b"one").unwrap();
    let queue = open(&scene.layout);
    let leases = lease_all(&queue).await;
    settle(&queue, leases, &Disposition::Released).await;
    fs::write(&path, b"other").unwrap();
    drop(queue);
    scene.expect(vec![b"one".to_vec(), b"other".to_vec()]).await;
}

#[tokio::test]
async fn a_file_of_a_newer_version() {
    let mut scene = Scene::new();
    let newer = scene.put(|bytes| {
        String::from_utf8(bytes).unwrap().replace("\"envelope\":1", "\"envelope\":2").into_bytes()
    });
    let kept = scene.look(1).await;
    assert_eq!(fs::read(&kept[0]).unwrap(), newer);
    assert_eq!(scene.reason_of(&kept[0]), "it was written by a newer version (format 2)");
}
