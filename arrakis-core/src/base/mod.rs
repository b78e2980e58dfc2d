//! What every room may use, and what uses nothing of ours: time, ids, limits, errors, canonical JSON,
//! the envelope, retry policies.

pub mod clock;
pub mod conservation;
pub mod dead_letter;
pub mod digest;
pub mod envelope;
pub mod error;
pub mod id;
pub mod json;
pub mod limits;
#[cfg(feature = "runtime")]
pub mod retry;
