//! `arrakis queue retry`.
//!
//! As JSON, an object with the counts `retried`, `gone`, `leased` and `kept`, with `problems`, `unknown` ids,
//! and `drainer`: `running` or `started`, null where there was nothing for it.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use arrakis_store_fs::admin::action::retry;
use arrakis_store_fs::admin::entry::State;
use arrakis_store_fs::{Layout, Spool, SpoolDir, is_drainer_running};
use clap::Args;
use serde::Serialize;

use super::super::Context;
use super::act::Totals;
use super::progress::Progress;
use super::{Selection, events, exit, spools};
use crate::wake::spawn_drainer;

/// The arguments of `arrakis queue retry`.
///
/// Without ids and states, what waits and what has failed is meant, and nothing in quarantine.
#[derive(Debug, Clone, Args)]
pub struct RetryArgs {
    #[command(flatten)]
    selection: Selection,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Retried<'a> {
    retried: u64,
    #[serde(flatten)]
    totals: &'a Totals,
    drainer: Option<Drainer>,
}

/// Who delivers what is due now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) enum Drainer {
    /// The one that runs; it was told.
    Running,
    /// One that was started for it.
    Started,
}

pub(super) fn run(args: &RetryArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let now = context.clock.now();
    let states = [State::Pending, State::Processing, State::Failed];
    let filter = args.selection.explicit(now, &states)?;
    let progress = Progress::new("Retrying");
    let spools = spools(context);
    let mut drainer = None;
    let mut totals = Totals::of(&filter);
    for spool in &spools {
        let before = totals.done;
        let dir = SpoolDir::new(spool.clone()).with_clock(Arc::clone(&context.clock));
        totals.each(&filter, spool, &progress, |entry| retry(&dir, entry));
        if totals.done > before {
            drainer = Some(wake(spool, context)?);
        }
    }
    drop(progress);
    if context.json {
        context.write_json(&Retried { retried: totals.done, totals: &totals, drainer })?;
    } else {
        let who = match drainer {
            None => "",
            Some(Drainer::Running) => "; the drainer that runs was told",
            Some(Drainer::Started) => "; a drainer was started",
        };
        writeln!(context.out, "{} due now{who}.", events(totals.done))?;
    }
    totals.remark(context)?;
    Ok(exit(totals.kept == 0))
}

/// Has a drainer try what is due in a spool: the one that runs, or a new one.
pub(in crate::cli) fn wake(spool: &Layout, context: &mut Context) -> anyhow::Result<Drainer> {
    // The events' files were renamed before this look, as a hook does it.
    let poked = Spool::new(spool.clone()).poke();
    if !is_drainer_running(spool) {
        spawn_drainer(&context.home)
            .context("the events are due, but no drainer could be started; run `arrakis drain`")?;
        return Ok(Drainer::Started);
    }
    if let Err(error) = poked {
        context.remark(&format!("The drainer that runs could not be told to hurry: {error}."))?;
    }
    Ok(Drainer::Running)
}
