//! Reading and adding up what was used: as core does it, under the names of these commands.

use std::sync::Arc;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::store::{
    Rollups, StoreError, UsageGroups, UsageSum, fold_all, read_usage,
};

pub(in crate::cli) use arrakis_core::record::store::{UsageTotal as Part, UsageTotals as Sum};

/// Adds up what was stored lately; returns whether that is all.
pub(in crate::cli) async fn fold(rollups: &Arc<dyn Rollups>) -> Result<bool, StoreError> {
    fold_all(&**rollups).await
}

/// Sums of usage of some time.
pub(in crate::cli) async fn read(
    rollups: &Arc<dyn Rollups>,
    workspace: &str,
    time: (Timestamp, Timestamp),
    by: UsageGroups,
) -> Result<Vec<UsageSum>, StoreError> {
    read_usage(&**rollups, workspace, time, by).await
}
