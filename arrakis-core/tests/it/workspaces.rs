//! Two workspaces that send each other's ids: each sees exactly what it would see alone.

use std::sync::Arc;

use arrakis_core::base::clock::{ManualClock, Timestamp};
use arrakis_core::record::store::MemoryStore;
use arrakis_core::testkit::sessions::record_beside_each_other;

#[tokio::test]
async fn workspaces_with_the_same_ids_see_what_they_would_see_alone() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
    for seed in 0..48 {
        let store = MemoryStore::new(Arc::<ManualClock>::clone(&clock));
        record_beside_each_other(&store, &clock, seed).await;
    }
}
