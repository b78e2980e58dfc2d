//! Which request ids are in a spool, in little memory.

use std::collections::HashSet;
use std::io;

use arrakis_core::base::digest::Digest;
use arrakis_core::base::id::RequestId;

use crate::admin::entry::{Filter, State, entries};
use crate::spool::layout::Layout;

/// A set of request ids, 16 bytes of digest each: some 40 MB for a million.
#[derive(Debug, Default)]
pub(crate) struct Ids(HashSet<[u8; 16]>);

impl Ids {
    /// The request ids of the entries in these states, as far as names tell.
    pub(crate) fn of(layout: &Layout, states: &[State]) -> io::Result<Self> {
        let filter = Filter { states: states.iter().copied().collect(), ..Filter::default() };
        let mut ids = Self::default();
        for entry in entries(layout, &filter) {
            if let Some(name) = entry?.named {
                ids.insert(&name.request_id);
            }
        }
        Ok(ids)
    }

    pub(crate) fn insert(&mut self, id: &RequestId) {
        self.0.insert(key(id));
    }

    pub(crate) fn contains(&self, id: &RequestId) -> bool {
        self.0.contains(&key(id))
    }
}

fn key(id: &RequestId) -> [u8; 16] {
    let digest = Digest::of(id.as_str().as_bytes());
    std::array::from_fn(|n| digest.as_bytes()[n])
}
