//! The command that Claude Code starts at each event: captures what comes on stdin and exits 0.

use std::io::Write;

use arrakis_bin::wake::IGNORED_SIGNALS;
use nix::sys::signal::{SigHandler, signal};

#[allow(clippy::disallowed_methods, reason = "a panic must not decide the exit code")]
fn main() {
    // `arrakis doctor` asks; Claude Code gives no arguments.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|only| only == "--version") && arguments.next().is_none() {
        let version = concat!("arrakis-hook ", env!("CARGO_PKG_VERSION"), "\n");
        std::io::stdout().write_all(version.as_bytes()).ok();
        std::process::exit(0);
    }
    ignore_signals();
    // A panic must neither reach the terminal nor decide the exit code.
    std::panic::set_hook(Box::new(|_| {}));
    std::panic::catch_unwind(|| arrakis_bin::hook::run(&arrakis_bin::config::process_env)).ok();
    std::process::exit(0);
}

/// At the end of a session the client sends SIGTERM to hooks that still run, within some 20 ms; and
/// Ctrl-C or a closed terminal may reach them beside the client.
#[allow(unsafe_code, reason = "signal dispositions have no safe interface")]
fn ignore_signals() {
    for ignored in IGNORED_SIGNALS {
        // SAFETY: ignoring a signal runs no handler.
        unsafe { signal(ignored, SigHandler::SigIgn) }.ok();
    }
}
