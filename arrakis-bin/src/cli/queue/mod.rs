//! `arrakis queue`: looks after the spool of a home, and that of the fallback home where there is one.
//!
//! Every command may run while drainers are at work. What they take meanwhile is passed over and
//! counted as `gone`, what they have leased is left to them and counted as `leased`.

pub(super) mod act;
mod check;
mod discard;
mod export;
mod import;
mod list;
pub(super) mod progress;
pub(super) mod retry;
mod show;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use arrakis_core::base::clock::Timestamp;
use arrakis_store_fs::Layout;
use arrakis_store_fs::admin::entry::{Filter, State};
use arrakis_store_fs::spool::check_private;
use clap::{Args, Subcommand};

use super::Context;
use super::output;
use crate::config::{fallback_home, process_env};

/// The arguments of `arrakis queue`.
#[derive(Debug, Clone, Args)]
pub struct QueueArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: QueueCommand,
}

/// What to do with the spool.
#[derive(Debug, Clone, Subcommand)]
pub enum QueueCommand {
    /// List what is in the spool. With --json: one array of objects.
    List(list::ListArgs),
    /// Show one entry with its payload and its history. With --json: one object.
    Show(show::ShowArgs),
    /// Have events tried at once: those that wait, dead letters, and what reads well again.
    Retry(retry::RetryArgs),
    /// Give events up for good.
    Discard(discard::DiscardArgs),
    /// Read every entry and tell what is damaged; exit 1 if anything is.
    Verify(check::CheckArgs),
    /// Bring the spool in order, without losing a byte. With ids or a filter: these entries alone.
    Repair(check::CheckArgs),
    /// Write entries to a file or standard output, one line of JSON each.
    Export(export::ExportArgs),
    /// Take in what was exported; what is there already is passed over.
    Import(import::ImportArgs),
}

/// Which entries are meant.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which entries")]
pub struct Selection {
    /// Request ids; for what is in quarantine, its file name.
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,

    /// All of them.
    #[arg(long)]
    pub all: bool,

    /// Only those in this state: pending, processing, failed or quarantined. May be repeated.
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',')]
    pub states: Vec<State>,

    /// Only events of this type, such as PostToolUse.
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<String>,

    /// Only events of this session.
    #[arg(long, value_name = "SESSION")]
    pub session: Option<String>,

    /// Only events for this URL.
    #[arg(long, value_name = "URL")]
    pub destination: Option<String>,

    /// Only events captured at least this long ago, such as 2h or 7days.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub older_than: Option<Duration>,

    /// Only events whose last round was lost with this code, such as refused.
    #[arg(long, value_name = "CODE")]
    pub failure: Option<String>,
}

impl Selection {
    fn filter(&self, now: Timestamp) -> Filter {
        Filter {
            states: self.states.iter().copied().collect(),
            names: self.ids.iter().cloned().collect(),
            event_type: self.event_type.clone(),
            session_id: self.session.clone(),
            destination: self.destination.clone(),
            captured_before: self.older_than.map(|age| now.minus(age)),
            failure_code: self.failure.clone(),
        }
    }

    /// The filter of a command that must be told what it is about, and which takes `states` where
    /// neither ids nor states are named.
    fn explicit(&self, now: Timestamp, states: &[State]) -> anyhow::Result<Filter> {
        let mut filter = self.filter(now);
        if filter.is_everything() && !self.all {
            bail!("say which: request ids, a filter such as --state failed, or --all");
        }
        if filter.names.is_empty() && filter.states.is_empty() {
            filter.states = states.iter().copied().collect::<BTreeSet<_>>();
        }
        Ok(filter)
    }
}

/// Runs the command.
///
/// # Errors
///
/// The spool cannot be read or written, or the output cannot be.
pub fn run(args: &QueueArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    match &args.command {
        QueueCommand::List(args) => list::run(args, context),
        QueueCommand::Show(args) => show::run(args, context),
        QueueCommand::Retry(args) => retry::run(args, context),
        QueueCommand::Discard(args) => discard::run(args, context),
        QueueCommand::Verify(args) => check::verify(args, context),
        QueueCommand::Repair(args) => check::repair(args, context),
        QueueCommand::Export(args) => export::run(args, context),
        QueueCommand::Import(args) => import::run(args, context),
    }
}

/// The spools to look after: that of the home, and that of the fallback home if it is this user's.
fn spools(context: &Context) -> Vec<Layout> {
    let home = Layout::new(&context.home);
    let fallback = Layout::new(fallback_home(&process_env));
    let uid = nix::unistd::getuid().as_raw();
    let is_own = || check_private(fallback.home(), uid).is_ok();
    if fallback != home && fallback.queue().is_dir() && is_own() {
        vec![home, fallback]
    } else {
        vec![home]
    }
}

/// `1 event`, `2 events`.
fn events(n: u64) -> String {
    output::count(usize::try_from(n).unwrap_or(usize::MAX), "event")
}

fn exit(success: bool) -> ExitCode {
    if success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
