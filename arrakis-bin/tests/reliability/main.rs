//! Delivery that survives everything: the real programs are killed at every call by which they touch a
//! file, their files and their network fail, and afterwards every event is accounted for.
//!
//! An *oracle* issues events and remembers which of them are owed: their hook exited 0. A *judge* looks
//! into the database afterwards: each event that is owed is there once, byte for byte; none is there
//! that was not issued; nothing is left in the spool; and a fresh event gets through. Each scenario
//! prints a line of figures, with how many faults really happened.
//!
//! `ARRAKIS_RELIABILITY=long` runs the long forms. `scripts/reliability` runs these and the other suites
//! about reliability, and adds the figures up.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]
#![allow(clippy::disallowed_methods, reason = "real programs and files know the real time only")]
// The tracer knows the calls and the registers of this system only.
#![cfg(all(feature = "full", target_os = "linux", target_arch = "x86_64"))]

#[path = "../it/support/world.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod world;

mod calls;
mod clocks;
mod errors;
mod kills;
mod network;
mod oracle;
mod processes;
mod proxy;
mod scenario;
mod trace;
mod transcripts;

/// Whether the long forms are wanted.
fn is_long() -> bool {
    std::env::var("ARRAKIS_RELIABILITY").is_ok_and(|form| form == "long")
}
