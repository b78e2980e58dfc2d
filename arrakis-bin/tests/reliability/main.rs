//! Delivery that survives everything: the real programs are killed at every call by which they touch a
//! file, their files and their network fail, and afterwards every event is accounted for.
//!
//! An *oracle* issues events and remembers which of them are owed: their hook exited 0. A *judge* looks
//! into the database afterwards: each event that is owed is there once, byte for byte; none is there
//! that was not issued; nothing is left in the spool; and a fresh event gets through. Each scenario
//! prints a line of figures, with how many faults really happened.
//!
//! Without more said, every second call gets its fault, so that all tests together stay short.
//! `ARRAKIS_RELIABILITY=each` takes each call, `long` the long forms too. `scripts/reliability` takes each call, runs
//! the other suites about reliability as well, and adds the figures up.

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

fn has_form(names: &[&str]) -> bool {
    std::env::var("ARRAKIS_RELIABILITY").is_ok_and(|form| names.contains(&form.as_str()))
}

/// Whether the long forms are wanted.
fn is_long() -> bool {
    has_form(&["long"])
}

/// Whether each call is to have its fault, not every second one.
fn takes_each_call() -> bool {
    has_form(&["each", "long"])
}
