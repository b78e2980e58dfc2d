//! `arrakis install`: registers the hook in Claude Code's settings.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use arrakis_transport_http::client::is_local;
use clap::Args;
use nix::unistd::{AccessFlags, access};
use serde::Serialize;

use super::Context;
use super::output::{self, text};
use crate::claude_settings::edit::HOOK_PROGRAM;
use crate::claude_settings::{self, Report, Scope, SettingsFiles};
use crate::config::{self, Config, process_env};

/// The arguments of `arrakis install`.
#[derive(Debug, Clone, Default, Args)]
pub struct InstallArgs {
    /// Register it for the project in the current directory instead of for all sessions of this user.
    #[arg(long)]
    pub project: bool,

    /// Say what would change, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// What decides which settings are meant and which hook is registered.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The client's settings files.
    pub settings: SettingsFiles,
    /// Where the hook is expected: beside this program.
    pub hook: PathBuf,
    /// The home that the hook uses where nothing else is said.
    pub default_home: PathBuf,
}

impl Surroundings {
    /// The surroundings of this process.
    ///
    /// # Errors
    ///
    /// The current directory, the home directory or the path of this program is not known.
    pub fn of_process() -> anyhow::Result<Self> {
        let cwd = std::env::current_dir().context("the current directory is not known")?;
        let home = std::env::home_dir()
            .filter(|home| !home.as_os_str().is_empty())
            .context("the home directory is not known; set HOME")?;
        let config_dir = std::env::var_os("CLAUDE_CONFIG_DIR");
        let exe = std::env::current_exe().context("the path of this program is not known")?;
        let search_path = std::env::var_os("PATH").unwrap_or_default();
        let called_as = std::env::args_os().next().unwrap_or_default();
        Ok(Self {
            settings: SettingsFiles::new(&home, config_dir.as_deref(), &cwd),
            hook: hook_beside(&called_as, &search_path, &cwd, &exe),
            default_home: config::home(&|name| {
                process_env(name).filter(|_| name != "ARRAKIS_HOME")
            }),
        })
    }
}

/// The path of the hook beside the program, as the program was called: a link such as
/// `/usr/local/bin/arrakis` outlives the versioned directory that it leads to.
#[must_use]
pub fn hook_beside(called_as: &OsStr, search_path: &OsStr, cwd: &Path, exe: &Path) -> PathBuf {
    let called = Path::new(called_as);
    let candidates: Vec<PathBuf> = if called.components().count() > 1 {
        vec![cwd.join(called)]
    } else {
        std::env::split_paths(search_path).map(|dir| cwd.join(dir).join(called)).collect()
    };
    let is_this = |path: &PathBuf| path.canonicalize().is_ok_and(|path| path == exe);
    let beside = |program: &Path| program.with_file_name(HOOK_PROGRAM);
    let as_called = candidates.iter().find(|path| is_this(path)).map(|path| beside(path));
    as_called.filter(|hook| hook.is_file()).unwrap_or_else(|| beside(exe))
}

/// Registers the hook.
///
/// # Errors
///
/// There is no hook to register, another scope registers one, or the settings cannot be read, edited
/// or written; they are as they were.
pub fn run(
    args: &InstallArgs,
    surroundings: &Surroundings,
    context: &mut Context,
) -> anyhow::Result<ExitCode> {
    let hook = checked_hook(&surroundings.hook)?;
    let scope = if args.project { Scope::Project } else { Scope::User };
    let now = context.clock.now();
    let mut report =
        claude_settings::register(&surroundings.settings, scope, &hook, now, args.dry_run)?;
    if context.home != surroundings.default_home {
        let home = context.home.display();
        report.warnings.push(format!(
            "this home is not the default one: the hook finds it only where Claude Code runs with \
             ARRAKIS_HOME={home}"
        ));
    }
    if surroundings.hook.ancestors().any(|folder| folder.join("CACHEDIR.TAG").exists()) {
        report.warnings.push(
            "this hook is in a folder of build products, and Claude Code finds none once that is cleaned; \
             `cargo install --locked --path arrakis-bin` in the checkout puts one where it stays"
                .to_owned(),
        );
    }
    if context.json {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Installed<'a> {
            hook: &'a str,
            dry_run: bool,
            #[serde(flatten)]
            report: &'a Report,
        }
        context.write_json(&Installed { hook: &hook, dry_run: args.dry_run, report: &report })?;
        return Ok(ExitCode::SUCCESS);
    }
    write_human(&hook, args, &report, context)?;
    Ok(ExitCode::SUCCESS)
}

fn checked_hook(hook: &Path) -> anyhow::Result<String> {
    if !hook.is_file() {
        bail!(
            "there is no hook at {}; install {HOOK_PROGRAM} in the same directory as arrakis",
            hook.display()
        );
    }
    access(hook, AccessFlags::X_OK)
        .with_context(|| format!("{} is not executable", hook.display()))?;
    match hook.to_str() {
        Some(hook) => Ok(hook.to_owned()),
        None => bail!(
            "{} cannot be written into JSON, it is not UTF-8; install arrakis elsewhere",
            hook.display()
        ),
    }
}

fn write_human(
    hook: &str,
    args: &InstallArgs,
    report: &Report,
    context: &mut Context,
) -> io::Result<()> {
    let (config, _) = Config::load(&context.home, &process_env);
    // Whoever has chosen a server elsewhere needs none here.
    let elsewhere = config.receivers.is_chosen && !is_local(&config.receivers.current);
    let next = if elsewhere { "arrakis doctor" } else { "arrakis up" };
    let terminal = context.terminal;
    let out = &mut context.out;
    let file = text::one_line(&report.file.to_string_lossy());
    let events = |names: &[String]| output::count(names.len(), "event");
    if !report.changed {
        writeln!(out, "{HOOK_PROGRAM} is registered in {file} already; nothing to change.")?;
    } else {
        let (register, renew, remove) = if args.dry_run {
            ("Would register", "Would renew", "Would remove")
        } else {
            ("Registered", "Renewed", "Removed")
        };
        for (verb, names) in
            [(register, &report.added), (renew, &report.updated), (remove, &report.removed)]
        {
            if !names.is_empty() {
                let verb = terminal.paint(output::GOOD, verb);
                writeln!(out, "{verb} {HOOK_PROGRAM} for {} in {file}", events(names))?;
            }
        }
    }
    let mut line = |label: &str, value: &str| {
        let label = terminal.paint(output::DIM, &format!("  {label:<8}"));
        writeln!(out, "{label}{}", text::one_line(value))
    };
    line("hook", hook)?;
    if let Some(backup) = &report.backup {
        line("backup", &backup.to_string_lossy())?;
    }
    for warning in &report.warnings {
        let warning = format!("warning: {}", text::one_line(warning));
        writeln!(out, "{}", terminal.paint(output::WARN, &warning))?;
    }
    if report.changed && !args.dry_run {
        let project = if args.project { " --project" } else { "" };
        writeln!(out)?;
        writeln!(out, "Next: run `{next}`, then start a new Claude Code session.")?;
        writeln!(out, "Undo: `arrakis uninstall{project}`")?;
    }
    Ok(())
}
