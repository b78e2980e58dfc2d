//! The database file: where it may be, who may read it, and whether it is still the one opened.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use arrakis_core::record::store::StoreError;

use crate::error::unavailable;

/// A database file that exists, is private, and is on a local file system.
#[derive(Debug, Clone)]
pub(crate) struct DatabaseFile {
    path: PathBuf,
    url: String,
    identity: (u64, u64),
}

impl DatabaseFile {
    /// Creates the file (0600) and its folder (0700) where they are missing. An existing file becomes
    /// private too; SQLite gives the log beside it the same permissions.
    ///
    /// # Errors
    ///
    /// The file cannot be made, its name is not UTF-8, or it is on a network file system.
    pub(crate) fn prepare(path: &Path) -> Result<Self, StoreError> {
        let what = || format!("prepare database {}", path.display());
        let prepare = || -> io::Result<Self> {
            let path = std::path::absolute(path)?;
            let folder = path.parent().unwrap_or(Path::new("/"));
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            refuse_network(folder)?;
            // An existing file must not even be opened here: closing it would drop the locks that
            // SQLite holds on it elsewhere in this process.
            match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let found = fs::metadata(&path)?;
            if found.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            }
            let url = url(&path)?;
            Ok(Self { path, url, identity: (found.dev(), found.ino()) })
        };
        prepare().map_err(|error| unavailable(what(), error))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What SQLite opens. It never creates the file: that happens here, with the right permissions.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Checks that the path still leads to the file that was opened: what is written to a deleted file
    /// is lost.
    ///
    /// # Errors
    ///
    /// It does not.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let same =
            fs::metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if same {
            return Ok(());
        }
        Err(unavailable(
            format!("write to database {}", self.path.display()),
            "the file was removed or replaced while it was in use: start again",
        ))
    }
}

fn url(path: &Path) -> io::Result<String> {
    let text = path
        .to_str()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path is not UTF-8"))?;
    let mut url = String::from("file:");
    for character in text.chars() {
        match character {
            '%' => url.push_str("%25"),
            '?' => url.push_str("%3f"),
            '#' => url.push_str("%23"),
            other => url.push(other),
        }
    }
    url.push_str("?mode=rw");
    Ok(url)
}

/// The write-ahead log needs memory shared between processes, which a network file system has not.
#[cfg(target_os = "linux")]
fn refuse_network(folder: &Path) -> io::Result<()> {
    // From the kernel's `linux/magic.h` and the file systems' own headers.
    const NETWORK: [(u32, &str); 8] = [
        (0x6969, "NFS"),
        (0x517B, "SMB"),
        (0xFF53_4D42, "CIFS"),
        (0xFE53_4D42, "SMB 2"),
        (0x5346_414F, "AFS"),
        (0x7375_7245, "Coda"),
        (0x00C3_6400, "Ceph"),
        (0x0BD0_0BD0, "Lustre"),
    ];
    const FUSE: u32 = 0x6573_5546;
    let found = nix::sys::statfs::statfs(folder)?.filesystem_type().0;
    let name = if is_magic(found, FUSE) {
        fuse_name(&fs::canonicalize(folder)?, &fs::read_to_string("/proc/self/mountinfo")?)
    } else {
        NETWORK
            .iter()
            .find(|(magic, _)| is_magic(found, *magic))
            .map(|(_, name)| (*name).to_owned())
    };
    match name {
        None => Ok(()),
        Some(name) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("it is on a network file system ({name}): use a folder on a local disk"),
        )),
    }
}

#[cfg(not(target_os = "linux"))]
fn refuse_network(_folder: &Path) -> io::Result<()> {
    Ok(())
}

/// The kernel's field is signed or not, and 32 or 64 bits wide, by platform: the low half tells.
#[cfg(target_os = "linux")]
fn is_magic<T: Into<i128>>(found: T, magic: u32) -> bool {
    found.into() & 0xFFFF_FFFF == i128::from(magic)
}

/// The type of the FUSE file system that `folder` is on, if it is one of those that reach over a
/// network; others (an encrypted home, say) are as local as what they stand on.
#[cfg(target_os = "linux")]
fn fuse_name(folder: &Path, mountinfo: &str) -> Option<String> {
    const NETWORK: [&str; 10] = [
        "sshfs",
        "rclone",
        "s3fs",
        "gcsfuse",
        "glusterfs",
        "ceph-fuse",
        "davfs",
        "curlftpfs",
        "goofys",
        "juicefs",
    ];
    // Fields: id, parent, device, root, mount point, options, optional fields, "-", type, source.
    let (_, kind, source) = mountinfo
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mount = left.split(' ').nth(4)?.replace("\\040", " ");
            let mut right = right.split(' ');
            let (kind, source) = (right.next()?, right.next().unwrap_or_default());
            folder.starts_with(&mount).then_some((mount.len(), kind, source))
        })
        .max_by_key(|(length, ..)| *length)?;
    let is = |text: &str| NETWORK.iter().any(|name| text.contains(name));
    (is(kind) || is(source)).then(|| kind.to_owned())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn fuse_mounts_that_reach_over_a_network_are_told_from_others() {
        let mountinfo = "22 1 254:0 / / rw - ext4 /dev/vda rw\n\
            40 22 0:40 / /mnt/far\\040away rw shared:1 - fuse.sshfs me@host:/ rw\n\
            41 22 0:41 / /home/me rw - fuse.gocryptfs /cipher rw\n";
        let name = |folder: &str| fuse_name(Path::new(folder), mountinfo);
        assert_eq!(name("/mnt/far away/deep").as_deref(), Some("fuse.sshfs"));
        assert_eq!(name("/home/me/.arrakis"), None);
        assert_eq!(name("/mnt/farther"), None);
    }

    #[test]
    fn magic_numbers_compare_in_any_width() {
        assert!(is_magic(0xFF53_4D42_u32 as i32, 0xFF53_4D42));
        assert!(is_magic(0x6969_i64, 0x6969));
        assert!(!is_magic(0xEF53_i64, 0x6969));
    }

    #[test]
    fn a_url_keeps_every_character_of_a_path() {
        let url = url(Path::new("/a b/50%?#.db")).unwrap();
        assert_eq!(url, "file:/a b/50%25%3f%23.db?mode=rw");
    }
}
