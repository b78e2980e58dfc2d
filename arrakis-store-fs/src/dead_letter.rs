//! The dead letters of a spool: the files in `failed/`.

use std::fs;
use std::io;

use arrakis_core::id::RequestId;
use arrakis_core::queue::{DeadLetter, DeadLetterDetail, DeadLetters, QueueError};
use async_trait::async_trait;

use crate::claim::read;
use crate::counters::{Exit, Tallying};
use crate::history;
use crate::layout::EntryName;
use crate::quarantine::quarantine;
use crate::queue::{FsQueue, Inner, find, names};

#[async_trait]
impl DeadLetters for FsQueue {
    async fn list(
        &self,
        after: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, QueueError> {
        self.blocking("list the dead letters of", move |inner| {
            let mut ids = Vec::new();
            for name in names(&inner.layout.failed())? {
                ids.extend(EntryName::parse(&name?).map(|entry| entry.request_id));
            }
            ids.retain(|id| after.as_ref().is_none_or(|after| id > after));
            ids.sort_unstable();
            let mut letters = Vec::new();
            for id in ids {
                if letters.len() == limit {
                    break;
                }
                letters.extend(inner.dead_letter(&id)?.map(|detail| detail.letter));
            }
            Ok(letters)
        })
        .await
    }

    async fn show(&self, id: &RequestId) -> Result<Option<DeadLetterDetail>, QueueError> {
        let id = id.clone();
        self.blocking("read a dead letter of", move |inner| inner.dead_letter(&id)).await
    }

    async fn redrive(&self, ids: &[RequestId]) -> Result<u64, QueueError> {
        let ids = ids.to_vec();
        self.blocking("redrive dead letters of", move |inner| {
            each(&ids, |id| {
                let Some(name) = find(&inner.layout.failed(), id)? else { return Ok(false) };
                let Some(entry) = EntryName::parse(&name) else { return Ok(false) };
                let due = EntryName { due: inner.clock.now(), rounds: 0, ..entry };
                let target = inner.layout.pending().join(due.to_string());
                fs::rename(inner.layout.failed().join(name), target)?;
                Ok(true)
            })
        })
        .await
    }

    async fn discard(&self, ids: &[RequestId]) -> Result<u64, QueueError> {
        let ids = ids.to_vec();
        self.blocking("discard dead letters of", move |inner| {
            let mut tallying = Tallying::new(&inner.layout);
            each(&ids, |id| {
                let Some(name) = find(&inner.layout.failed(), id)? else { return Ok(false) };
                let path = inner.layout.failed().join(name);
                tallying.leave(Exit::Discarded, || fs::remove_file(path))?;
                history::remove(&inner.layout, id);
                Ok(true)
            })
        })
        .await
    }
}

impl Inner {
    fn dead_letter(&self, id: &RequestId) -> io::Result<Option<DeadLetterDetail>> {
        let Some(name) = find(&self.layout.failed(), id)? else { return Ok(None) };
        let path = self.layout.failed().join(&name);
        let envelope = match read(&path)? {
            Ok(envelope) => envelope,
            Err(reason) => {
                quarantine(&self.layout, &path, &reason)?;
                return Ok(None);
            }
        };
        let mut history = history::read(&self.layout, id);
        history.extend(EntryName::parse(&name).and_then(|name| history::expiry(&path, &name)));
        let letter = DeadLetter {
            request_id: id.clone(),
            event_type: envelope.header.event_type.clone(),
            session_id: envelope.header.session_id.clone(),
            failure: history.last().cloned(),
        };
        let header = Some(envelope.header);
        Ok(Some(DeadLetterDetail { letter, header, payload: envelope.payload, history }))
    }
}

/// Does `work` for every id, failures or not; returns how many it did, or the last failure.
fn each(
    ids: &[RequestId],
    mut work: impl FnMut(&RequestId) -> io::Result<bool>,
) -> io::Result<u64> {
    let mut result = Ok(0);
    for id in ids {
        match (work(id), &mut result) {
            (Ok(true), Ok(done)) => *done += 1,
            (Ok(_), _) => {}
            (Err(error), _) => result = Err(error),
        }
    }
    result
}
