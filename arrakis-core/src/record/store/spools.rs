//! What drainers have told of their spools: [`SpoolReports`], and an implementation in memory.

use std::collections::HashMap;

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

/// Keeps the newest report of each spool.
///
/// # Behavior
///
/// * Of each spool of a workspace there is one report: the one heard last.
/// * Workspaces do not see each other's spools.
/// * Spools are listed by when they were heard of, latest first, up to a limit.
/// * A workspace has at most as many spools as the call says: a new one takes the place of the one that
///   was not heard of for longest.
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
}

/// Keeps reports in memory.
#[derive(Debug, Default)]
pub struct MemorySpoolReports(Mutex<HashMap<String, HashMap<Uuid, HeardSpool>>>);

impl MemorySpoolReports {
    fn workspaces(&self) -> MutexGuard<'_, HashMap<String, HashMap<Uuid, HeardSpool>>> {
        self.0.lock()
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
        let id = heard.report.spool_id;
        if spools.get(&id).is_none_or(|before| before.heard_at <= heard.heard_at) {
            spools.insert(id, heard);
        }
        while spools.len() > max {
            let oldest = spools.iter().min_by_key(|(id, heard)| (heard.heard_at, **id));
            let Some(id) = oldest.map(|(id, _)| *id) else { break };
            spools.remove(&id);
        }
        Ok(())
    }

    async fn spools(&self, workspace: &str, limit: usize) -> Result<Vec<HeardSpool>, StoreError> {
        let workspaces = self.workspaces();
        let mut spools: Vec<_> =
            workspaces.get(workspace).into_iter().flat_map(HashMap::values).cloned().collect();
        spools.sort_by_key(|heard| std::cmp::Reverse((heard.heard_at, heard.report.spool_id)));
        spools.truncate(limit);
        Ok(spools)
    }
}

const _: Option<&dyn SpoolReports> = None; // object safe
