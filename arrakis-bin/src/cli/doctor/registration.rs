//! Whether Claude Code runs the hook.

use std::path::Path;

use super::{Check, Outcome};
use crate::claude_settings::{obstacles, registrations};
use crate::cli::install::Surroundings;

/// Whether the hook is registered, and what keeps that from working.
pub(super) fn checks(surroundings: &Surroundings, home: &Path) -> Vec<Check> {
    let found = obstacles(&surroundings.settings, home);
    let checks = found.iter().map(|obstacle| {
        let make = if obstacle.is_total() { Check::broken } else { Check::warning };
        make("registration", obstacle.to_string(), obstacle.remedy())
    });
    let mut checks: Vec<Check> = checks.collect();
    let registered = registered(surroundings);
    if checks.is_empty() || registered.outcome != Outcome::Ok {
        checks.insert(0, registered);
    }
    checks
}

fn registered(surroundings: &Surroundings) -> Check {
    let name = "registration";
    let found = registrations(&surroundings.settings);
    let wanted = surroundings.hook.to_string_lossy();
    match &found[..] {
        [] => Check::warning(
            name,
            "the hook is not registered in Claude Code's settings",
            "run `arrakis install`",
        ),
        [(file, command)] if *command == wanted => {
            Check::ok(name, format!("the hook is registered in {}", file.display()))
        }
        [(file, command)] => Check::warning(
            name,
            format!("{} registers another hook: {command}", file.display()),
            "run `arrakis install` to register this one",
        ),
        many => Check::broken(
            name,
            format!("the hook is registered {} times, so events are captured twice", many.len()),
            "keep one of them: `arrakis uninstall`, with --project in the project",
        ),
    }
}
