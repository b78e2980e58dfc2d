//! The Postgres store against a real server.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

mod blocks;
mod common;
mod conformance;
mod crash;
mod faults;
mod feed;
mod monitoring;
mod months;
mod record;
mod retention;
mod rollups;
mod schema;
mod sessions;
