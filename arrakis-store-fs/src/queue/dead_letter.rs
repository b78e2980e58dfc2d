//! The dead letters of a spool: the files in `failed/`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use arrakis_core::base::dead_letter::{DeadLetter, DeadLetterDetail, DeadLetterError, DeadLetters};
use arrakis_core::base::id::RequestId;
use async_trait::async_trait;

use crate::admin::action::{Action, Discarder, retry};
use crate::admin::entry::{Entry, Filter, Found, State, entries};
use crate::queue::FsQueue;
use crate::spool::dir::SpoolDir;
use crate::spool::layout::Layout;
use crate::spool::quarantine::quarantine;

#[async_trait]
impl DeadLetters for FsQueue {
    async fn list(
        &self,
        after: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, DeadLetterError> {
        self.blocking_in_dir("list the dead letters of", move |dir| {
            let mut letters = Vec::new();
            let mut after = after;
            // What turns out to be unreadable leaves room for more.
            while letters.len() < limit {
                let wanted = limit - letters.len();
                let page = first_dead_letters(&dir.layout, after.as_ref(), wanted)?;
                let Some((last, _)) = page.last_key_value() else { break };
                after = Some(last.clone());
                for entry in page.values() {
                    letters.extend(dead_letter(dir, entry)?.map(|detail| detail.letter));
                }
            }
            Ok(letters)
        })
        .await
        .map_err(Into::into)
    }

    async fn show(&self, id: &RequestId) -> Result<Option<DeadLetterDetail>, DeadLetterError> {
        let filter = dead_letters([id]);
        self.blocking_in_dir("read a dead letter of", move |dir| {
            match entries(&dir.layout, &filter).next().transpose()? {
                Some(entry) => dead_letter(dir, &entry),
                None => Ok(None),
            }
        })
        .await
        .map_err(Into::into)
    }

    async fn redrive(&self, ids: &[RequestId]) -> Result<u64, DeadLetterError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let filter = dead_letters(ids);
        self.blocking_in_dir("redrive dead letters of", move |dir| {
            each(&dir.layout, &filter, |entry| retry(dir, entry))
        })
        .await
        .map_err(Into::into)
    }

    async fn discard(&self, ids: &[RequestId]) -> Result<u64, DeadLetterError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let filter = dead_letters(ids);
        self.blocking_in_dir("discard dead letters of", move |dir| {
            let mut discarder = Discarder::new(dir);
            each(&dir.layout, &filter, |entry| discarder.discard(entry))
        })
        .await
        .map_err(Into::into)
    }
}

/// The first dead letters after an id, in order. They alone are held in memory.
fn first_dead_letters(
    layout: &Layout,
    after: Option<&RequestId>,
    limit: usize,
) -> io::Result<BTreeMap<RequestId, Entry>> {
    let mut first = BTreeMap::new();
    for entry in entries(layout, &dead_letters([])) {
        let entry = entry?;
        let Some(id) = entry.named.as_ref().map(|name| name.request_id.clone()) else {
            continue;
        };
        if after.is_none_or(|after| id > *after) {
            first.insert(id, entry);
        }
        if first.len() > limit {
            first.pop_last();
        }
    }
    Ok(first)
}

fn dead_letter(dir: &SpoolDir, entry: &Entry) -> io::Result<Option<DeadLetterDetail>> {
    let envelope = match entry.read()? {
        Found::Whole(envelope) => envelope,
        Found::Unreadable(reason) => {
            quarantine(dir, &entry.path, &reason)?;
            return Ok(None);
        }
        Found::Gone => return Ok(None),
    };
    let history = entry.history(&dir.layout);
    let letter = DeadLetter {
        request_id: envelope.header.request_id.clone(),
        event_type: envelope.header.event_type.clone(),
        session_id: envelope.header.session_id.clone(),
        failure: history.last().cloned(),
    };
    let header = Some(envelope.header);
    Ok(Some(DeadLetterDetail { letter, header, payload: envelope.payload, history }))
}
/// The dead letters with these ids; all where there are none.
fn dead_letters<'a>(ids: impl IntoIterator<Item = &'a RequestId>) -> Filter {
    Filter {
        states: BTreeSet::from([State::Failed]),
        names: ids.into_iter().map(RequestId::to_string).collect(),
        ..Filter::default()
    }
}

/// Does `work` for every entry, failures or not; returns how many it did, or the last failure.
fn each(
    layout: &Layout,
    filter: &Filter,
    mut work: impl FnMut(&Entry) -> io::Result<Action>,
) -> io::Result<u64> {
    let mut result = Ok(0);
    for entry in entries(layout, filter) {
        match (entry.and_then(|entry| work(&entry)), &mut result) {
            (Ok(Action::Done), Ok(done)) => *done += 1,
            (Ok(_), _) => {}
            (Err(error), _) => result = Err(error),
        }
    }
    result
}
