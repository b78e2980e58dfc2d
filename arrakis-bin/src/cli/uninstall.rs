//! `arrakis uninstall`: takes the hook out of Claude Code's settings.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::Context;
use super::install::Surroundings;
use super::output::{self, text};
use crate::claude_settings::edit::HOOK_PROGRAM;
use crate::claude_settings::{self, Report, Scope};

/// The arguments of `arrakis uninstall`.
#[derive(Debug, Clone, Default, Args)]
pub struct UninstallArgs {
    /// Take it out of the settings of the project in the current directory, shared and local.
    #[arg(long)]
    pub project: bool,

    /// Say what would change, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Removes every registration of the hook, whichever path it has, and nothing else.
///
/// # Errors
///
/// The settings cannot be read, edited or written; the file that the error names is as it was.
pub fn run(
    args: &UninstallArgs,
    surroundings: &Surroundings,
    context: &mut Context,
) -> anyhow::Result<ExitCode> {
    let scopes: &[Scope] =
        if args.project { &[Scope::Project, Scope::Local] } else { &[Scope::User] };
    let now = context.clock.now();
    let mut reports = Vec::new();
    for scope in scopes {
        reports.push(claude_settings::unregister(
            &surroundings.settings,
            *scope,
            now,
            args.dry_run,
        )?);
    }
    if context.json {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Uninstalled<'a> {
            dry_run: bool,
            files: &'a [Report],
        }
        context.write_json(&Uninstalled { dry_run: args.dry_run, files: &reports })?;
        return Ok(ExitCode::SUCCESS);
    }
    let terminal = context.terminal;
    let out = &mut context.out;
    for report in reports.iter().filter(|report| report.changed) {
        let verb = if args.dry_run { "Would remove" } else { "Removed" };
        writeln!(
            out,
            "{} {HOOK_PROGRAM} for {} from {}",
            terminal.paint(output::GOOD, verb),
            output::count(report.removed.len(), "event"),
            text::one_line(&report.file.to_string_lossy())
        )?;
        if let Some(backup) = &report.backup {
            let backup = text::one_line(&backup.to_string_lossy());
            writeln!(out, "{}{backup}", terminal.paint(output::DIM, "  backup  "))?;
        }
    }
    if !reports.iter().any(|report| report.changed) {
        let files: Vec<String> =
            reports.iter().map(|report| text::one_line(&report.file.to_string_lossy())).collect();
        writeln!(
            out,
            "{HOOK_PROGRAM} is not registered in {}; nothing to change.",
            files.join(" or ")
        )?;
    } else if !args.dry_run {
        writeln!(out)?;
        writeln!(out, "What was captured stays. `arrakis install` registers the hook again.")?;
    }
    Ok(ExitCode::SUCCESS)
}
