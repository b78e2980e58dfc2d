//! Reading files that may be events.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use arrakis_core::base::envelope::Envelope;
use bytes::Bytes;
use nix::fcntl::OFlag;

use crate::spool::format::{FILE_MAX_BYTES, Unreadable, decode};

/// Reads an event's file and checks it.
pub(crate) fn read(path: &Path) -> io::Result<Result<Envelope, Unreadable>> {
    Ok(read_bytes(path)?.and_then(|bytes| decode(&bytes)))
}

/// Reads a file that may be an event.
pub(crate) fn read_bytes(path: &Path) -> io::Result<Result<Bytes, Unreadable>> {
    let file = match open(path)? {
        Ok(file) => file,
        Err(reason) => return Ok(Err(reason)),
    };
    let length = file.metadata()?.len();
    if length > FILE_MAX_BYTES {
        return Ok(Err(Unreadable(format!("it has more than {FILE_MAX_BYTES} bytes"))));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    file.take(FILE_MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(Ok(bytes.into()))
}

/// Opens a regular file and nothing else: a link is not followed and a FIFO not waited for.
pub(crate) fn open(path: &Path) -> io::Result<Result<File, Unreadable>> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) => {
            return Ok(Err(Unreadable("it is a symbolic link".to_owned())));
        }
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENXIO as i32) => {
            return Ok(Err(Unreadable("it is a socket or a device".to_owned())));
        }
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Ok(Err(Unreadable("it is not a regular file".to_owned())));
    }
    Ok(Ok(file))
}
