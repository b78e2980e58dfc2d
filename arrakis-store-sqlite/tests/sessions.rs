//! Recorded sessions, in any order, repetition, slicing and batching.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

mod common;
#[path = "../../arrakis-core/tests/support/mod.rs"]
mod support;

use arrakis_core::testkit::sessions::record_shuffled;
use common::Home;

#[tokio::test]
async fn recorded_sessions_read_back_the_same_in_any_order() {
    let home = Home::new();
    for session in support::recorded() {
        for seed in 0..6 {
            record_shuffled(&home.store, &session, seed).await;
        }
    }
}
