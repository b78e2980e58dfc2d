//! How long things are kept, and what is old at a moment.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use super::audit::EventStatus;
use crate::base::clock::Timestamp;
use crate::base::id::uuid_v7;
use crate::base::limits::LEDGER_OUTLIVES_EVENTS;

/// How long a workspace keeps things. `None`: for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ages {
    /// Settled audit rows, from their receipt.
    pub events: Option<Duration>,
    /// Conversations with all that belongs to them, from their last event.
    pub conversations: Option<Duration>,
}

/// How long things are kept, by workspace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// In workspaces that have no ages of their own.
    pub default: Ages,
    /// In these workspaces.
    pub workspaces: BTreeMap<String, Ages>,
}

impl RetentionPolicy {
    /// What is old at this moment.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> Cutoffs {
        let cutoff = |ages: &Ages| Cutoff {
            events: ages.events.map(|age| now.minus(age)),
            conversations: ages.conversations.map(|age| now.minus(age)),
        };
        let workspaces = self.workspaces.iter();
        Cutoffs {
            default: cutoff(&self.default),
            workspaces: workspaces.map(|(name, ages)| (name.clone(), cutoff(ages))).collect(),
        }
    }
}

/// Before which moment things are old, in one workspace. `None`: they never are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cutoff {
    /// Settled audit rows received before it.
    pub events: Option<Timestamp>,
    /// Conversations whose last event was before it.
    pub conversations: Option<Timestamp>,
}

impl Cutoff {
    /// Ledger entries of events received before it, so much longer are they kept than audit rows.
    #[must_use]
    pub fn ledger(&self) -> Option<Timestamp> {
        self.events.map(|events| events.minus(LEDGER_OUTLIVES_EVENTS))
    }

    /// The moment of this kind.
    #[must_use]
    pub fn of(&self, kind: PruneKind) -> Option<Timestamp> {
        match kind {
            PruneKind::Events => self.events,
            PruneKind::Conversations => self.conversations,
            PruneKind::Ledger => self.ledger(),
        }
    }
}

/// What is old at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cutoffs {
    default: Cutoff,
    workspaces: BTreeMap<String, Cutoff>,
}

impl Cutoffs {
    /// The moments of a workspace.
    #[must_use]
    pub fn of(&self, workspace: &str) -> Cutoff {
        self.workspaces.get(workspace).copied().unwrap_or(self.default)
    }

    /// Whether an audit row in this state, received at this moment, goes.
    #[must_use]
    pub fn takes_event(
        &self,
        workspace: &str,
        status: EventStatus,
        received_at: Timestamp,
    ) -> bool {
        let is_old = self.of(workspace).events.is_some_and(|cutoff| received_at < cutoff);
        is_old && status.is_settled()
    }

    /// Whether a conversation with its last event at this moment goes.
    #[must_use]
    pub fn takes_conversation(&self, workspace: &str, last_event_at: Timestamp) -> bool {
        self.of(workspace).conversations.is_some_and(|cutoff| last_event_at < cutoff)
    }

    /// The moment before which something of this kind may be old: the latest of all workspaces.
    #[must_use]
    pub fn latest(&self, kind: PruneKind) -> Option<Timestamp> {
        self.all().filter_map(|(_, cutoff)| cutoff.of(kind)).max()
    }

    /// Below which id audit rows may be old: ids begin with the millisecond of the receipt.
    #[must_use]
    pub fn events_below(&self) -> Option<Uuid> {
        let latest = self.latest(PruneKind::Events)?;
        Some(first_id(latest.plus(Duration::from_millis(1))))
    }

    /// Whether the ledger's entry of the event of this id is old; it goes where its audit row is gone.
    #[must_use]
    pub fn takes_entry(&self, workspace: &str, event_id: Uuid) -> bool {
        self.of(workspace).ledger().is_some_and(|cutoff| event_id < first_id(cutoff))
    }

    /// Below which event's id the ledger's entries may be old.
    #[must_use]
    pub fn ledger_below(&self) -> Option<Uuid> {
        self.latest(PruneKind::Ledger).map(first_id)
    }

    /// Each workspace that has moments of its own, and at last `None` for all others.
    pub fn all(&self) -> impl Iterator<Item = (Option<&str>, Cutoff)> {
        let own = self.workspaces.iter().map(|(name, cutoff)| (Some(name.as_str()), *cutoff));
        own.chain(std::iter::once((None, self.default)))
    }

    /// The workspaces that have moments of their own.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        self.workspaces.keys().map(String::as_str)
    }
}

/// The first id that an event received in the millisecond of this moment can have.
#[must_use]
pub fn first_id(at: Timestamp) -> Uuid {
    uuid_v7(at, [0; 10])
}

/// What is pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PruneKind {
    /// Audit rows, with their trails and payloads.
    Events,
    /// Conversations with all that belongs to them.
    Conversations,
    /// Entries of the ledger of idempotency.
    Ledger,
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn the_ledger_is_kept_for_as_long_as_its_workspace_keeps_events_and_more() {
        let days = |events| Ages { events, conversations: None };
        let policy = RetentionPolicy {
            default: days(Some(10 * DAY)),
            workspaces: [("long".to_owned(), days(Some(30 * DAY)))].into(),
        };
        let now = Timestamp::from_millis(1_800_000_000_000);
        let cutoffs = policy.at(now);
        assert_eq!(cutoffs.of("any").events, Some(now.minus(10 * DAY)));
        assert_eq!(cutoffs.of("any").ledger(), Some(now.minus(100 * DAY)));
        assert_eq!(cutoffs.of("long").ledger(), Some(now.minus(120 * DAY)));
        assert_eq!(cutoffs.latest(PruneKind::Events), Some(now.minus(10 * DAY)));
        assert_eq!(cutoffs.latest(PruneKind::Conversations), None);

        let workspaces = [("for good".to_owned(), Ages::default())].into();
        let cutoffs = RetentionPolicy { workspaces, ..policy }.at(now);
        assert!(!cutoffs.takes_entry("for good", Uuid::nil()));
        assert!(cutoffs.takes_entry("any", first_id(now.minus(101 * DAY))));
        assert!(!cutoffs.takes_entry("any", first_id(now.minus(100 * DAY))));
        assert!(!cutoffs.takes_event("for good", EventStatus::Success, Timestamp::EPOCH));
        assert!(cutoffs.takes_event("any", EventStatus::Success, Timestamp::EPOCH));
        assert!(!cutoffs.takes_event("any", EventStatus::Error, Timestamp::EPOCH));
    }
}
