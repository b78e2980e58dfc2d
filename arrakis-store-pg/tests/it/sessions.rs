//! Recorded sessions, in any order, repetition, slicing and batching.

use crate::common::Home;
use arrakis_core::testkit::sessions::record_shuffled;

#[tokio::test]
async fn recorded_sessions_read_back_the_same_in_any_order() {
    let home = Home::new().await;
    for session in arrakis_core::testkit::recorded::recorded() {
        for seed in 0..3 {
            record_shuffled(&*home.store, &session, seed).await;
        }
    }
}
