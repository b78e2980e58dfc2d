//! Taking one event: renaming its file into the owner's directory, and reading it there.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use arrakis_core::envelope::Envelope;
use nix::fcntl::OFlag;

use crate::layout::{FILE_MAX_BYTES, Layout, Unreadable, decode};
use crate::owner::Owner;
use crate::quarantine::quarantine;

/// Takes the event of this name. `None` if somebody else was quicker, or if it cannot be read and is
/// in quarantine now.
pub(crate) fn claim(layout: &Layout, owner: &Owner, name: &str) -> io::Result<Option<Envelope>> {
    let claimed = owner.directory().join(name);
    match std::fs::rename(layout.pending().join(name), &claimed) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    match read(&claimed)? {
        Ok(envelope) => Ok(Some(envelope)),
        Err(reason) => {
            quarantine(layout, &claimed, &reason)?;
            Ok(None)
        }
    }
}

/// Reads an event's file. Nothing but a regular file is opened for good: a link is not followed and a
/// FIFO not waited for.
pub(crate) fn read(path: &Path) -> io::Result<Result<Envelope, Unreadable>> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file: File = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) => {
            return Ok(Err(Unreadable("it is a symbolic link".to_owned())));
        }
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENXIO as i32) => {
            return Ok(Err(Unreadable("it is a socket or a device".to_owned())));
        }
        Err(error) => return Err(error),
    };
    let found = file.metadata()?;
    if !found.is_file() {
        return Ok(Err(Unreadable("it is not a regular file".to_owned())));
    }
    if found.len() > FILE_MAX_BYTES {
        return Ok(Err(Unreadable(format!("it has more than {FILE_MAX_BYTES} bytes"))));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(found.len()).unwrap_or_default());
    file.take(FILE_MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(decode(&bytes.into()))
}
