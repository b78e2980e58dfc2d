//! From a queue to a receiver: [`queue`], [`transport`], the [`layers`] around it, the [`drain`] loop, and what
//! is known about each [`receiver`].
//!
//! Nothing here looks into a payload.

pub mod drain;
pub mod layers;
pub mod queue;
pub mod receiver;
pub mod transport;
