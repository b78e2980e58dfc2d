//! Which calls of the system touch files, and which of their arguments name them (Linux on x86-64).

use nix::libc;

/// Where an argument stands, and what it is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Argument {
    /// A file descriptor. A relative path after it is relative to it.
    File(usize),
    /// A path.
    Path(usize),
}

use Argument::{File, Path};

/// A call that touches files.
#[derive(Debug)]
pub(crate) struct FileCall {
    pub(crate) number: i64,
    pub(crate) name: &'static str,
    /// Those that say which files.
    pub(crate) arguments: &'static [Argument],
}

macro_rules! file_calls {
    ($($number:ident $name:literal: $arguments:expr,)*) => {
        &[$(FileCall { number: libc::$number, name: $name, arguments: &$arguments },)*]
    };
}

pub(crate) const FILE_CALLS: &[FileCall] = file_calls! {
    SYS_open "open": [Path(0)],
    SYS_stat "stat": [Path(0)],
    SYS_lstat "lstat": [Path(0)],
    SYS_access "access": [Path(0)],
    SYS_mkdir "mkdir": [Path(0)],
    SYS_rmdir "rmdir": [Path(0)],
    SYS_unlink "unlink": [Path(0)],
    SYS_rename "rename": [Path(0), Path(1)],
    SYS_link "link": [Path(0), Path(1)],
    SYS_symlink "symlink": [Path(1)],
    SYS_readlink "readlink": [Path(0)],
    SYS_chmod "chmod": [Path(0)],
    SYS_chown "chown": [Path(0)],
    SYS_truncate "truncate": [Path(0)],
    SYS_statfs "statfs": [Path(0)],
    SYS_openat "openat": [File(0), Path(1)],
    SYS_openat2 "openat2": [File(0), Path(1)],
    SYS_newfstatat "newfstatat": [File(0), Path(1)],
    SYS_statx "statx": [File(0), Path(1)],
    SYS_unlinkat "unlinkat": [File(0), Path(1)],
    SYS_mkdirat "mkdirat": [File(0), Path(1)],
    SYS_faccessat "faccessat": [File(0), Path(1)],
    SYS_faccessat2 "faccessat2": [File(0), Path(1)],
    SYS_fchmodat "fchmodat": [File(0), Path(1)],
    SYS_readlinkat "readlinkat": [File(0), Path(1)],
    SYS_utimensat "utimensat": [File(0), Path(1)],
    SYS_renameat "renameat": [File(0), Path(1), File(2), Path(3)],
    SYS_renameat2 "renameat2": [File(0), Path(1), File(2), Path(3)],
    SYS_linkat "linkat": [File(0), Path(1), File(2), Path(3)],
    SYS_read "read": [File(0)],
    SYS_write "write": [File(0)],
    SYS_pread64 "pread64": [File(0)],
    SYS_pwrite64 "pwrite64": [File(0)],
    SYS_readv "readv": [File(0)],
    SYS_writev "writev": [File(0)],
    SYS_lseek "lseek": [File(0)],
    SYS_fsync "fsync": [File(0)],
    SYS_fdatasync "fdatasync": [File(0)],
    SYS_sync_file_range "sync_file_range": [File(0)],
    SYS_ftruncate "ftruncate": [File(0)],
    SYS_fallocate "fallocate": [File(0)],
    SYS_flock "flock": [File(0)],
    SYS_fcntl "fcntl": [File(0)],
    SYS_fstat "fstat": [File(0)],
    SYS_fstatfs "fstatfs": [File(0)],
    SYS_fchmod "fchmod": [File(0)],
    SYS_fchown "fchown": [File(0)],
    SYS_getdents64 "getdents64": [File(0)],
    SYS_ioctl "ioctl": [File(0)],
    SYS_mmap "mmap": [File(4)],
    SYS_sendfile "sendfile": [File(0), File(1)],
    SYS_copy_file_range "copy_file_range": [File(0), File(2)],
    SYS_inotify_add_watch "inotify_add_watch": [Path(1)],
    SYS_close "close": [File(0)],
};
