//! Forgetting what is old: [`Retention`].

use std::ops::AddAssign;

use async_trait::async_trait;
use serde::Serialize;
use uuid::Uuid;

use super::StoreError;
use crate::base::clock::Timestamp;
use crate::record::retention::{Cutoffs, PruneKind};

/// Deletes what its workspace keeps no longer.
///
/// A pass is a series of steps. Each continues where the one before ended: audit rows first, then
/// conversations, then the ledger, then what the store does to give space back.
///
/// # Behavior
///
/// * Settled audit rows go once their workspace keeps them no longer; rows that are not settled stay, however
///   old they are.
/// * The ledger outlives the audit rows: a repeat gets the first's answer until the entry is older than its own
///   age, and an entry whose audit row is still there stays.
/// * A conversation goes with its messages, tool uses, subagents and texts once its last event is old enough;
///   audit rows and other conversations stay.
/// * Each workspace has its own ages, and what has none is kept.
/// * What is pruned is found no longer, whether it was searchable before or would have been later.
/// * Steps are small and a pass of them ends: each looks at a bounded number of rows and says where to continue,
///   and whatever is stored between two of them is whole. A part of the audit rows that a store can drop as a whole
///   goes in one step, which counts all of its rows.
/// * [`prunable`](Retention::prunable) counts what a pass would delete, and deletes nothing.
#[async_trait]
pub trait Retention: std::fmt::Debug + Send + Sync + 'static {
    /// Makes one step from `from`, which looks at up to `limit` rows and deletes those that are old. A step is one
    /// transaction.
    ///
    /// # Errors
    ///
    /// Nothing of this step is deleted.
    async fn prune(
        &self,
        cutoffs: &Cutoffs,
        from: PrunePosition,
        limit: usize,
    ) -> Result<PruneStep, StoreError>;

    /// What a pass would delete now, by workspace and kind, in this order.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn prunable(&self, cutoffs: &Cutoffs) -> Result<Vec<Prunable>, StoreError>;
}

/// How far a pass has come: the next step continues behind this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrunePosition {
    /// Behind the audit row of this id.
    Events(Uuid),
    /// Behind the audit row of this id, in a part of the rows that goes as a whole; a store may keep them in parts.
    Part {
        /// The row.
        after: Uuid,
        /// How many rows of the part were looked at.
        rows: u64,
    },
    /// Behind the conversation of this id.
    Conversations(Uuid),
    /// Behind the ledger's entry of this audit row.
    Ledger(Uuid),
    /// What is left is to give space back.
    Space,
}

impl PrunePosition {
    /// Where a pass begins.
    pub const START: Self = Self::Events(Uuid::nil());
}

/// What a step has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneStep {
    /// What it deleted.
    pub pruned: Pruned,
    /// Where to continue; `None` where the pass is over.
    pub next: Option<PrunePosition>,
}

/// How much was deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pruned {
    /// Audit rows.
    pub events: u64,
    /// Conversations.
    pub conversations: u64,
    /// Messages of conversations.
    pub messages: u64,
    /// Tool uses of conversations.
    pub tool_uses: u64,
    /// Subagents of conversations.
    pub subagents: u64,
    /// Entries of the ledger.
    pub ledger: u64,
    /// Hours of the histories of spools, which only a server's job prunes.
    #[serde(skip)]
    pub spool_hours: u64,
}

impl Pruned {
    /// Whether nothing was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl AddAssign for Pruned {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.conversations += other.conversations;
        self.messages += other.messages;
        self.tool_uses += other.tool_uses;
        self.subagents += other.subagents;
        self.ledger += other.ledger;
        self.spool_hours += other.spool_hours;
    }
}

/// What a pass would delete of one kind in one workspace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Prunable {
    /// The workspace.
    pub workspace: String,
    /// The kind.
    pub kind: PruneKind,
    /// How many.
    pub count: u64,
    /// The receipt of the oldest audit row, or the last event of the conversation that is quiet for longest;
    /// `None` for the ledger.
    pub oldest: Option<Timestamp>,
    /// The bytes of payloads, where the store can tell without reading them.
    pub bytes: Option<u64>,
}

const _: Option<&dyn Retention> = None; // object safe
