//! Taking one event: renaming its file into the owner's directory, and reading it there.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use arrakis_core::base::envelope::{Envelope, Header};
use arrakis_core::base::id::RequestId;
use parking_lot::Mutex;

use crate::queue::watch::Watch;
use crate::spool::counters::{Exit, Recorder};
use crate::spool::dir::SpoolDir;
use crate::spool::file::read;
use crate::spool::format::Unreadable;
use crate::spool::layout::EntryName;
use crate::spool::quarantine::quarantine;

/// The files of the events that this process has leased, by request id: no event is leased twice.
#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<HashMap<RequestId, String>>);

impl Claims {
    /// Moves the event's file into `held`, the owner's directory, and reads it. `None` if another owner has taken
    /// it, or if it could not be read and went to quarantine.
    pub(crate) fn claim(
        &self,
        dir: &SpoolDir,
        watch: &Watch,
        held: &Path,
        name: &str,
    ) -> io::Result<Option<Envelope>> {
        if self.is_under_way_elsewhere(held, name) {
            return Ok(None);
        }
        let pending = dir.layout.pending().join(name);
        match dir.fs.rename(&pending, held) {
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
            Ok(Ok(envelope)) if self.is_leased_already(held, name, &envelope.header) => {
                let mut recorder = Recorder::new(&dir.layout);
                if let Err(error) = recorder.leave(Exit::Duplicate, || dir.fs.remove(held)) {
                    watch.put_back(dir, held, name)?;
                    return Err(error);
                }
                return Ok(None);
            }
            Ok(Ok(envelope)) => match self.check(held, name, &envelope.header) {
                Ok(()) => return Ok(Some(envelope)),
                Err(reason) => reason,
            },
            Ok(Err(reason)) => reason,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if is_passing(&error) => {
                watch.put_back(dir, held, name)?;
                return Err(error);
            }
            Err(error) => Unreadable(format!("it cannot be read: {error}")),
        };
        if let Err(error) = quarantine(dir, held, &reason) {
            watch.put_back(dir, held, name)?;
            return Err(error);
        }
        Ok(None)
    }

    /// Whether this very slice of a transcript, which was read twice, is leased from its other file: one is
    /// enough.
    fn is_leased_already(&self, held: &Path, name: &str, header: &Header) -> bool {
        if !header.request_id.is_derived() {
            return false;
        }
        let other = self.0.lock().get(&header.request_id).filter(|other| *other != name).cloned();
        let other = other.map(|other| read(&held.with_file_name(other)));
        matches!(other, Some(Ok(Ok(Envelope { header: other, .. })))
        if (other.digest, &other.destination) == (header.digest, &header.destination))
    }

    /// Whether a slice of a transcript of this name is leased for another receiver: its turn comes.
    fn is_under_way_elsewhere(&self, held: &Path, name: &str) -> bool {
        let Some(named) = EntryName::parse(name).filter(|named| named.request_id.is_derived())
        else {
            return false;
        };
        let other = self.0.lock().get(&named.request_id).cloned();
        other.is_some_and(|other| {
            EntryName::parse(&other).is_some_and(|other| other.tag != named.tag)
                && held.with_file_name(other).exists()
        })
    }

    /// Whether a file is the one event that its name says.
    fn check(&self, held: &Path, name: &str, header: &Header) -> Result<(), Unreadable> {
        let (named, own) = (EntryName::parse(name), EntryName::of(header));
        if named.is_none_or(|named| named.request_id != own.request_id || named.tag != own.tag) {
            let id = &own.request_id;
            return Err(Unreadable(format!("its name is not the one of its event, {id}")));
        }
        let mut leased = self.0.lock();
        let other = leased.get(&own.request_id).filter(|other| *other != name);
        if other.is_some_and(|other| held.with_file_name(other).exists()) {
            return Err(Unreadable("its event is being delivered from another file".to_owned()));
        }
        leased.insert(own.request_id, name.to_owned());
        Ok(())
    }

    /// Forgets the claim on an event.
    pub(crate) fn release(&self, id: &RequestId) {
        self.0.lock().remove(id);
    }
}

/// Whether a failure says something about this process, and nothing about the file.
fn is_passing(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let codes = [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EINTR];
    codes.iter().any(|code| error.raw_os_error() == Some(*code as i32))
}
