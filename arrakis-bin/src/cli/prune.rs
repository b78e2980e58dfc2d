//! `arrakis prune`: deletes what the configuration keeps no longer, or tells what that would be.
//!
//! As JSON the result is an object with the counts `events`, `conversations`, `messages`, `toolUses`, `subagents`
//! and `ledger`; with `--dry-run` it is an array of objects with `workspace`, `kind` (`events`, `conversations` or
//! `ledger`), `count`, `oldest` and `bytes`, null where that is not known.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::record::job::prune::PruneJob;
use arrakis_core::record::store::{Ages, Prunable, PruneKind, Pruned, Retention, RetentionPolicy};
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::confirm::confirmed;
use super::output;
use super::output::table::{Cell, Column, Table};
use super::queue::progress::Progress;

/// The arguments of `arrakis prune`.
#[derive(Debug, Clone, Args)]
pub struct PruneArgs {
    /// Only tell what would be deleted.
    #[arg(long)]
    pub dry_run: bool,

    /// Do not ask.
    #[arg(long, short = 'y', conflicts_with = "dry_run")]
    pub yes: bool,
}

/// Runs the command on a store that keeps things for as long as `policy` says. Ends after a step once `shutdown`
/// is cancelled.
///
/// # Errors
///
/// The store fails, nobody confirms, or the output cannot be written.
pub async fn run(
    args: &PruneArgs,
    store: &Arc<dyn Retention>,
    policy: &RetentionPolicy,
    shutdown: &CancellationToken,
    context: &mut Context,
) -> anyhow::Result<ExitCode> {
    let cutoffs = policy.at(context.clock.now());
    if args.dry_run {
        let prunable = store.prunable(&cutoffs).await?;
        return tell(&prunable, policy, context);
    }
    if !args.yes {
        let prunable = store.prunable(&cutoffs).await?;
        if prunable.is_empty() {
            return tell_pruned(Pruned::default(), policy, context);
        }
        let must =
            "pruning is for good; add --yes to confirm it, or --dry-run to see what would go";
        if !confirmed(must, |_| Ok(question(&prunable)), context)? {
            context.remark("Nothing was pruned.")?;
            return Ok(ExitCode::FAILURE);
        }
    }
    let progress = Progress::new("Pruning");
    let job = PruneJob::new(Arc::clone(store), Arc::clone(&context.clock), policy.clone());
    let pruned = job.run_once(shutdown).await?;
    drop(progress);
    tell_pruned(pruned, policy, context)?;
    if shutdown.is_cancelled() {
        context.remark("Interrupted; the next pass goes on.")?;
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(
    prunable: &[Prunable],
    policy: &RetentionPolicy,
    context: &mut Context,
) -> anyhow::Result<ExitCode> {
    if context.json {
        context.write_json(&prunable)?;
        return Ok(ExitCode::SUCCESS);
    }
    if prunable.is_empty() {
        context.remark(&nothing(policy))?;
        return Ok(ExitCode::SUCCESS);
    }
    let zone = &context.zone;
    let times = prunable.iter().filter_map(|one| one.oldest);
    let mut table = Table::new(vec![
        Column::new("WORKSPACE").shrinks_to(9),
        Column::new("WHAT"),
        Column::new("COUNT"),
        Column::new(zone.heading("OLDEST", times)),
        Column::new("SIZE"),
    ]);
    for one in prunable {
        let oldest = one.oldest.map(|at| zone.moment(at, false)).unwrap_or_default();
        let size =
            one.bytes.map(|bytes| output::size(usize::try_from(bytes).unwrap_or(usize::MAX)));
        table.row(vec![
            Cell::new(&one.workspace),
            Cell::new(name(one.kind)),
            Cell::new(&one.count.to_string()),
            Cell::new(&oldest),
            Cell::new(&size.unwrap_or_default()).style(output::DIM),
        ]);
    }
    table.write(&mut context.out, context.terminal)?;
    Ok(ExitCode::SUCCESS)
}

fn tell_pruned(
    pruned: Pruned,
    policy: &RetentionPolicy,
    context: &mut Context,
) -> anyhow::Result<ExitCode> {
    if context.json {
        context.write_json(&pruned)?;
    } else if pruned.is_empty() {
        context.remark(&nothing(policy))?;
    } else {
        let Pruned { events, conversations, messages, tool_uses, ledger, .. } = pruned;
        writeln!(
            context.out,
            "Pruned {}, {} with {} and {}, {} of the ledger.",
            count(events, "event"),
            count(conversations, "conversation"),
            count(messages, "message"),
            count(tool_uses, "tool use"),
            count(ledger, "request id"),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `Delete 5 events and 2 conversations for good? [y/N] `
fn question(prunable: &[Prunable]) -> String {
    let sum = |kind| prunable.iter().filter(|one| one.kind == kind).map(|one| one.count).sum();
    let (events, conversations, ledger) =
        (sum(PruneKind::Events), sum(PruneKind::Conversations), sum(PruneKind::Ledger));
    format!(
        "Delete {}, {} and {} of the ledger for good? [y/N] ",
        count(events, "event"),
        count(conversations, "conversation"),
        count(ledger, "request id"),
    )
}

/// Why there is nothing to do.
fn nothing(policy: &RetentionPolicy) -> String {
    let Ages { events, conversations } = policy.default;
    let own =
        if policy.workspaces.is_empty() { "" } else { " where a workspace says nothing else" };
    format!(
        "Nothing is old enough: events are kept {}, conversations {}{own}.",
        age(events),
        age(conversations)
    )
}

fn age(age: Option<Duration>) -> String {
    const DAY_SECONDS: u64 = 24 * 3600;
    match age {
        None => "for good".to_owned(),
        Some(age) => format!("for {}", count(age.as_secs() / DAY_SECONDS, "day")),
    }
}

fn name(kind: PruneKind) -> &'static str {
    match kind {
        PruneKind::Events => "events",
        PruneKind::Conversations => "conversations",
        PruneKind::Ledger => "request ids",
    }
}

fn count(n: u64, what: &str) -> String {
    output::count(usize::try_from(n).unwrap_or(usize::MAX), what)
}
