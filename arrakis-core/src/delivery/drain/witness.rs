//! Telling others of the events that are taken up.

use async_trait::async_trait;

use crate::delivery::queue::Lease;

/// Sees the events that a drainer takes up.
#[async_trait]
pub trait Witness: std::fmt::Debug + Send + Sync + 'static {
    /// Sees events before they are delivered. None of them is settled before this returns, so what
    /// must not be forgotten can be made durable here; and deliveries wait for it, so nothing else
    /// should be done here. An event that is taken up again is seen again.
    async fn see(&self, leases: &[Lease]);
}

const _: Option<&dyn Witness> = None; // object safe
