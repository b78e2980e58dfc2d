//! The spool through its public interface, on real and on failing file systems.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]
#![cfg(feature = "queue")]

mod backlog;
mod conformance;
mod corruption;
mod counters;
mod manage;
mod model;
mod outage;
mod owners;
mod recovery;
mod spool;
mod support;
mod suspects;
mod transcripts;
mod trouble;
