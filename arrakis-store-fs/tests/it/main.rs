//! The spool through its public interface, on real and on failing file systems.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests do to a spool what other programs and disks do"
)]
#![cfg(feature = "queue")]

mod backlog;
mod conformance;
mod corruption;
mod counters;
mod manage;
mod model;
mod outage;
mod owners;
mod poison;
mod recovery;
mod repeats;
mod spool;
mod support;
mod transcripts;
mod transcripts_found;
mod trouble;
