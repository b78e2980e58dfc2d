//! What the events of Claude Code mean: hooks and transcripts, the conversations that they are projected into,
//! and what redaction takes out of them.

pub mod conversation;
pub mod hook;
#[cfg(feature = "runtime")]
pub mod price;
#[cfg(feature = "runtime")]
pub mod projection;
pub mod redact;
#[cfg(feature = "runtime")]
pub mod search;
pub mod snapshot;
pub mod transcript;
pub mod usage;
