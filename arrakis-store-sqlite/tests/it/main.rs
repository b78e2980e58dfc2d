//! The SQLite store in temporary folders.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

mod blocks;
mod common;
mod conformance;
mod feed;
mod record;
mod retention;
mod rollups;
mod schema;
mod search;
mod sessions;
mod work;
