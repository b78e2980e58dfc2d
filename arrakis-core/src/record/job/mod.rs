//! Jobs that a server runs beside its requests, one file each.

pub mod index;
pub mod key_uses;
pub mod prune;
pub mod retry;
pub mod rollup;
