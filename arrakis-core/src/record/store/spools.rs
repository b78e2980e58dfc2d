//! What drainers have told of their spools: [`SpoolReports`], and an implementation in memory.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::StoreError;
use crate::base::clock::Timestamp;
use crate::base::conservation::SpoolReport;

/// A report, and when it was heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeardSpool {
    /// When the receiver heard it, by its own clock.
    pub heard_at: Timestamp,
    /// What it says.
    #[serde(flatten)]
    pub report: SpoolReport,
}

/// Keeps the newest report of each spool, and the last one of each hour.
///
/// # Behavior
///
/// * Of each spool of a workspace there is one report: the one heard last.
/// * Workspaces do not see each other's spools.
/// * Spools are listed by when they were heard of, latest first, up to a limit.
/// * A workspace has at most as many spools as the call says: a new one takes the place of the one that
///   was not heard of for longest.
/// * The history of a spool has the report heard last in each hour, oldest first, as far as they are in the range asked for.
/// * A spool that leaves takes its history with it.
/// * Old hours are pruned, oldest first, up to a limit.
#[async_trait]
pub trait SpoolReports: std::fmt::Debug + Send + Sync + 'static {
    /// Keeps a report, in place of the spool's earlier ones; and of the workspace's spools no more than
    /// `max`.
    ///
    /// # Errors
    ///
    /// It is not kept.
    async fn report_spool(
        &self,
        workspace: &str,
        heard: HeardSpool,
        max: usize,
    ) -> Result<(), StoreError>;

    /// Up to `limit` spools of a workspace.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn spools(&self, workspace: &str, limit: usize) -> Result<Vec<HeardSpool>, StoreError>;

    /// The last report of each hour of a spool that was heard from `since` on and before `until`, oldest first: at most
    /// one an hour for [`SPOOL_HISTORY_MAX_AGE`](crate::base::limits::SPOOL_HISTORY_MAX_AGE).
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn spool_history(
        &self,
        workspace: &str,
        spool: Uuid,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<HeardSpool>, StoreError>;

    /// Deletes up to `limit` of the oldest hours of histories, of any workspace, that had ended before `before`; returns
    /// how many.
    ///
    /// # Errors
    ///
    /// Nothing is deleted.
    async fn prune_spool_history(&self, before: Timestamp, limit: usize)
    -> Result<u64, StoreError>;
}

/// The hour that a moment is in, by its first moment.
#[must_use]
pub fn hour_of(at: Timestamp) -> Timestamp {
    const HOUR_MICROS: i64 = 3_600_000_000;
    Timestamp::from_micros(at.as_micros().div_euclid(HOUR_MICROS).saturating_mul(HOUR_MICROS))
}

/// Keeps reports in memory.
#[derive(Debug, Default)]
pub struct MemorySpoolReports(Mutex<Workspaces>);

type Workspaces = HashMap<String, HashMap<Uuid, Known>>;

/// What is known of a spool.
#[derive(Debug)]
struct Known {
    last: HeardSpool,
    hours: BTreeMap<Timestamp, HeardSpool>,
}

impl MemorySpoolReports {
    fn workspaces(&self) -> MutexGuard<'_, Workspaces> {
        self.0.lock()
    }
}

/// Puts a report in the place of an earlier one.
fn keep_later(kept: &mut HeardSpool, heard: &HeardSpool) {
    if kept.heard_at <= heard.heard_at {
        *kept = heard.clone();
    }
}

#[async_trait]
impl SpoolReports for MemorySpoolReports {
    async fn report_spool(
        &self,
        workspace: &str,
        heard: HeardSpool,
        max: usize,
    ) -> Result<(), StoreError> {
        let mut workspaces = self.workspaces();
        let spools = workspaces.entry(workspace.to_owned()).or_default();
        let known = spools
            .entry(heard.report.spool_id)
            .or_insert_with(|| Known { last: heard.clone(), hours: BTreeMap::new() });
        keep_later(&mut known.last, &heard);
        let hour = known.hours.entry(hour_of(heard.heard_at)).or_insert_with(|| heard.clone());
        keep_later(hour, &heard);
        while spools.len() > max {
            let oldest = spools.iter().min_by_key(|(id, known)| (known.last.heard_at, **id));
            let Some(id) = oldest.map(|(id, _)| *id) else { break };
            spools.remove(&id);
        }
        Ok(())
    }

    async fn spools(&self, workspace: &str, limit: usize) -> Result<Vec<HeardSpool>, StoreError> {
        let workspaces = self.workspaces();
        let spools = workspaces.get(workspace).into_iter().flat_map(HashMap::values);
        let mut spools: Vec<_> = spools.map(|known| known.last.clone()).collect();
        spools.sort_by_key(|heard| std::cmp::Reverse((heard.heard_at, heard.report.spool_id)));
        spools.truncate(limit);
        Ok(spools)
    }

    async fn spool_history(
        &self,
        workspace: &str,
        spool: Uuid,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<HeardSpool>, StoreError> {
        let workspaces = self.workspaces();
        let known = workspaces.get(workspace).and_then(|spools| spools.get(&spool));
        let hours = known.into_iter().flat_map(|known| known.hours.values());
        Ok(hours.filter(|one| since <= one.heard_at && one.heard_at < until).cloned().collect())
    }

    async fn prune_spool_history(
        &self,
        before: Timestamp,
        limit: usize,
    ) -> Result<u64, StoreError> {
        let mut workspaces = self.workspaces();
        let mut old = Vec::new();
        for (workspace, spools) in workspaces.iter() {
            for (id, known) in spools {
                let hours = known.hours.range(..hour_of(before));
                old.extend(hours.map(|(hour, _)| (*hour, workspace.clone(), *id)));
            }
        }
        old.sort();
        old.truncate(limit);
        for (hour, workspace, id) in &old {
            if let Some(known) = workspaces.get_mut(workspace).and_then(|all| all.get_mut(id)) {
                known.hours.remove(hour);
            }
        }
        Ok(old.len() as u64)
    }
}

const _: Option<&dyn SpoolReports> = None; // object safe
