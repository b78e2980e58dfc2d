//! The oracle, which issues events, and what the judge reads to compare.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

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

/// Issues events.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// By id, whether somebody was told that the event is captured.
    issued: Mutex<BTreeMap<String, bool>>,
}

impl Oracle {
    pub(crate) fn issue(&self, size: Size) -> Event {
        let mut issued = self.lock();
        let id = format!("oracle-{:06}", issued.len());
        let head = format!(
            r#"{{"session_id":"{id}","hook_event_name":"UserPromptSubmit","prompt_id":"p","prompt":""#
        );
        const FILLER: &str = "the spice must flow ";
        let length = size.bytes() - head.len() - 2;
        let mut filler = FILLER.repeat(length / FILLER.len() + 1);
        filler.truncate(length);
        let payload = [head.as_str(), &filler, "\"}"].concat().into_bytes();
        issued.insert(id.clone(), false);
        Event { id, payload }
    }

    /// From now on the event is owed.
    pub(crate) fn owe(&self, event: &Event) {
        self.lock().insert(event.id.clone(), true);
    }

    pub(crate) fn is_owed(&self, event: &Event) -> bool {
        self.lock()[&event.id]
    }

    /// All events by id, and whether each is owed.
    pub(crate) fn issued(&self) -> BTreeMap<String, bool> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, bool>> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
