//! What every room may use, and what uses nothing of ours: time, ids, limits, errors, canonical JSON,
//! the envelope, retry policies, a pool for heavy work.

pub mod clock;
pub mod conservation;
pub mod dead_letter;
pub mod digest;
pub mod envelope;
pub mod error;
#[cfg(feature = "runtime")]
pub mod heavy;
pub mod id;
pub mod json;
pub mod limits;
#[cfg(feature = "runtime")]
pub mod retry;
