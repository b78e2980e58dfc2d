//! A store in memory.

/// Keeps events in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {}
