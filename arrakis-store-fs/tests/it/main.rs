//! The spool through its public interface, on real and on failing file systems.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]
#![allow(clippy::disallowed_methods, reason = "real programs and files know the real time only")]
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
