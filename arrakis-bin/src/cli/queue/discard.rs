//! `arrakis queue discard`.
//!
//! As JSON, an object with the counts `discarded`, `gone`, `leased` and `kept`, with `problems` and `unknown`
//! ids.

use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;

use arrakis_store_fs::admin::action::Discarder;
use arrakis_store_fs::admin::entry::{Filter, State, entries};
use arrakis_store_fs::{Layout, SpoolDir};
use clap::Args;
use serde::Serialize;

use super::super::Context;
use super::super::confirm::confirmed;
use super::act::Totals;
use super::progress::Progress;
use super::{Selection, events, exit, spools};

/// The arguments of `arrakis queue discard`.
#[derive(Debug, Clone, Args)]
pub struct DiscardArgs {
    #[command(flatten)]
    selection: Selection,

    /// Do not ask.
    #[arg(long, short = 'y')]
    yes: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Discarded<'a> {
    discarded: u64,
    #[serde(flatten)]
    totals: &'a Totals,
}

pub(super) fn run(args: &DiscardArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let filter = args.selection.explicit(context.clock.now(), &State::ALL)?;
    let spools = spools(context);
    if !args.yes {
        let must = "discarding is for good; add --yes to confirm it";
        if !confirmed(must, |_| Ok(question(&filter, &spools)?), context)? {
            context.remark("Nothing was discarded.")?;
            return Ok(ExitCode::FAILURE);
        }
    }
    let progress = Progress::new("Discarding");
    let mut totals = Totals::of(&filter);
    for spool in &spools {
        let dir = SpoolDir::new(spool.clone());
        let mut discarder = Discarder::new(&dir);
        totals.each(&filter, spool, &progress, |entry| discarder.discard(entry));
    }
    drop(progress);
    if context.json {
        context.write_json(&Discarded { discarded: totals.done, totals: &totals })?;
    } else {
        writeln!(context.out, "{} discarded.", events(totals.done))?;
    }
    totals.remark(context)?;
    Ok(exit(totals.kept == 0))
}

/// `Discard 2 pending and 3 failed for good?`
fn question(filter: &Filter, spools: &[Layout]) -> io::Result<String> {
    let mut counts = BTreeMap::<State, u64>::new();
    for spool in spools {
        for entry in entries(spool, filter) {
            *counts.entry(entry?.state).or_default() += 1;
        }
    }
    counts.remove(&State::Processing);
    let counts: Vec<_> = counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let what = if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") };
    Ok(format!("Discard {what} for good? [y/N] "))
}
