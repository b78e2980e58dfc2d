//! Taking one event: renaming its file into the owner's directory, and reading it there.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use arrakis_core::base::envelope::{Envelope, Header};
use bytes::Bytes;
use nix::fcntl::OFlag;

use crate::queue::Inner;
use crate::spool::counters::{Exit, Tallying};
use crate::spool::layout::{EntryName, FILE_MAX_BYTES, Unreadable, decode};
use crate::spool::quarantine::quarantine;

/// Takes the event of this name, to `held`. `None` if somebody else was quicker, or if it cannot be
/// read and is in quarantine now.
pub(crate) fn claim(inner: &Inner, held: &Path, name: &str) -> io::Result<Option<Envelope>> {
    if is_under_way_elsewhere(inner, held, name) {
        return Ok(None);
    }
    let pending = inner.layout.pending().join(name);
    match inner.fs.rename(&pending, held) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        renamed => renamed?,
    }
    // A disk that fails once may be well the next time; one that fails twice has lost this file.
    let read_again = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Err(error),
        _ if is_passing(&error) => Err(error),
        _ => read(held),
    };
    let reason = match read(held).or_else(read_again) {
        Ok(Ok(envelope)) if is_leased_already(inner, held, name, &envelope.header) => {
            let mut tallying = Tallying::new(&inner.layout);
            if let Err(error) = tallying.leave(Exit::Duplicate, || inner.fs.remove(held)) {
                inner.put_back(held, name)?;
                return Err(error);
            }
            return Ok(None);
        }
        Ok(Ok(envelope)) => match check(inner, held, name, &envelope.header) {
            Ok(()) => return Ok(Some(envelope)),
            Err(reason) => reason,
        },
        Ok(Err(reason)) => reason,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if is_passing(&error) => {
            inner.put_back(held, name)?;
            return Err(error);
        }
        Err(error) => Unreadable(format!("it cannot be read: {error}")),
    };
    if let Err(error) = quarantine(&inner.layout, held, &reason) {
        inner.put_back(held, name)?;
        return Err(error);
    }
    Ok(None)
}

/// Whether this very slice of a transcript, which was read twice, is leased from its other file: one is
/// enough.
fn is_leased_already(inner: &Inner, held: &Path, name: &str, header: &Header) -> bool {
    if !header.request_id.is_derived() {
        return false;
    }
    let other = inner.leased().get(&header.request_id).filter(|other| *other != name).cloned();
    let other = other.map(|other| read(&held.with_file_name(other)));
    matches!(other, Some(Ok(Ok(Envelope { header: other, .. })))
        if (other.digest, &other.destination) == (header.digest, &header.destination))
}

/// Whether a slice of a transcript of this name is leased for another receiver: its turn comes.
fn is_under_way_elsewhere(inner: &Inner, held: &Path, name: &str) -> bool {
    let Some(named) = EntryName::parse(name).filter(|named| named.request_id.is_derived()) else {
        return false;
    };
    let other = inner.leased().get(&named.request_id).cloned();
    other.is_some_and(|other| {
        EntryName::parse(&other).is_some_and(|other| other.tag != named.tag)
            && held.with_file_name(other).exists()
    })
}

/// Whether a file is the one event that its name says.
fn check(inner: &Inner, held: &Path, name: &str, header: &Header) -> Result<(), Unreadable> {
    let (named, own) = (EntryName::parse(name), EntryName::of(header));
    if named.is_none_or(|named| named.request_id != own.request_id || named.tag != own.tag) {
        let id = &own.request_id;
        return Err(Unreadable(format!("its name is not the one of its event, {id}")));
    }
    let mut leased = inner.leased();
    let other = leased.get(&own.request_id).filter(|other| *other != name);
    if other.is_some_and(|other| held.with_file_name(other).exists()) {
        return Err(Unreadable("its event is being delivered from another file".to_owned()));
    }
    leased.insert(own.request_id, name.to_owned());
    Ok(())
}

/// Whether a failure says something about this process, and nothing about the file.
fn is_passing(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let codes = [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EINTR];
    codes.iter().any(|code| error.raw_os_error() == Some(*code as i32))
}

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
