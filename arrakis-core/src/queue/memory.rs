//! A queue in memory.

/// Keeps events in memory.
#[derive(Debug, Default)]
pub struct MemoryQueue {}
