//! The oracle, which issues events, and what the judge reads to compare.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrakis_core::digest::Digest;

/// How large a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// Like most events.
    Small,
    /// Like a large tool result.
    Medium,
    /// Like the largest payload that was measured on the real client.
    Large,
}

impl Size {
    pub(crate) const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Large];

    fn bytes(self) -> usize {
        match self {
            Self::Small => 300,
            Self::Medium => 60_000,
            Self::Large => 4_500_000,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Small => "300 B",
            Self::Medium => "60 KB",
            Self::Large => "4.5 MB",
        }
    }
}

/// An event to be captured. Its id is the session id of its payload, since the request id is the hook's.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) payload: Vec<u8>,
}

/// What is known about an event that was issued.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Issued {
    pub(crate) digest: Digest,
    /// Whether somebody was told that it is captured.
    pub(crate) is_owed: bool,
}

/// Issues events.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    issued: Mutex<BTreeMap<String, Issued>>,
}

impl Oracle {
    pub(crate) fn issue(&self, size: Size) -> Event {
        let mut issued = self.lock();
        let id = format!("oracle-{:06}", issued.len());
        let head = format!(
            r#"{{"session_id":"{id}","hook_event_name":"UserPromptSubmit","prompt_id":"p","prompt":""#
        );
        let filler = "the spice must flow ".bytes().cycle();
        let length = size.bytes() - head.len() - 2;
        let payload: Vec<u8> = head.bytes().chain(filler.take(length)).chain(*b"\"}").collect();
        issued.insert(id.clone(), Issued { digest: Digest::of(&payload), is_owed: false });
        Event { id, payload }
    }

    /// From now on the event is owed.
    pub(crate) fn owe(&self, event: &Event) {
        self.lock().get_mut(&event.id).unwrap().is_owed = true;
    }

    pub(crate) fn issued(&self) -> BTreeMap<String, Issued> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Issued>> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
