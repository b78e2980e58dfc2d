//! From a queue to a receiver: [`queue`], [`transport`], the [`layers`] between them, and the [`drain`] loop.
//!
//! Nothing here looks into a payload.

pub mod drain;
pub mod layers;
pub mod queue;
pub mod transport;
