//! Waking a drainer: a detached process that outlives the one that started it.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{SigHandler, Signal, signal};

use crate::config::{chosen_program, drainer_variables, process_env};

/// The program that drains, as this process would call it: `ARRAKIS_BIN` where set, else `arrakis`
/// beside this program, else `arrakis` in the PATH.
#[must_use]
pub fn arrakis_program() -> PathBuf {
    if let Some(chosen) = chosen_program(&process_env) {
        return chosen;
    }
    let own = std::env::current_exe().ok();
    let beside = own.and_then(|own| Some(own.parent()?.join("arrakis")));
    beside.filter(|path| path.exists()).unwrap_or_else(|| "arrakis".into())
}

/// Starts `arrakis drain` for `home` in a session of its own, with no streams of this process's and with only
/// the variables of the environment that it reads, and does not wait for it.
///
/// # Errors
///
/// The program cannot be started.
pub fn spawn_drainer(home: &Path) -> io::Result<()> {
    drain_command(home, &[]).spawn().map(drop)
}

/// Starts `arrakis drain --only <request id>` for `home`, to be waited for.
///
/// # Errors
///
/// The program cannot be started.
pub fn spawn_drain_of_one(home: &Path, request_id: &str) -> io::Result<Child> {
    drain_command(home, &["--only", request_id]).spawn()
}

fn drain_command(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(arrakis_program());
    command
        .arg("drain")
        .args(arguments)
        .env_clear()
        .envs(drainer_variables().filter_map(|name| Some((name, process_env(name)?))))
        .env("ARRAKIS_HOME", home)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    detach(&mut command);
    command
}

/// The signals that the hook ignores, so that they do not cost an event.
pub const IGNORED_SIGNALS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// Has the child leave this process's session and take the signals again that the hook ignores.
#[allow(unsafe_code, reason = "there is no other way to run code between fork and exec")]
fn detach(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe calls are made: setsid and signal.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            for ignored in IGNORED_SIGNALS {
                signal(ignored, SigHandler::SigDfl)?;
            }
            Ok(())
        });
    }
}
