//! The command that Claude Code starts at each event: captures what comes on stdin and exits 0.

use nix::sys::signal::{SigHandler, Signal, signal};

fn main() {
    ignore_sigterm();
    // A panic must neither reach the terminal nor decide the exit code.
    std::panic::set_hook(Box::new(|_| {}));
    std::panic::catch_unwind(|| arrakis_bin::hook::run(&arrakis_bin::config::process_env)).ok();
    std::process::exit(0);
}

/// At the end of a session the client sends SIGTERM to hooks that still run, within some 20 ms.
#[allow(unsafe_code, reason = "signal dispositions have no safe interface")]
fn ignore_sigterm() {
    // SAFETY: ignoring a signal runs no handler.
    unsafe { signal(Signal::SIGTERM, SigHandler::SigIgn) }.ok();
}
