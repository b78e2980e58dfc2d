//! `arrakis queue verify` and `arrakis queue repair`.
//!
//! As JSON, an object with `findings`, each with `kind`, `path`, `problem` and `remedy`, and `found`, their
//! number by kind; `verify` has besides how many entries are `pending`, `processing`, `failed` and
//! `quarantined`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use arrakis_store_fs::SpoolDir;
use arrakis_store_fs::admin::repair;
use arrakis_store_fs::admin::verify::{self, Finding, Kind, Step};
use arrakis_store_fs::spool::Survey;
use clap::Args;
use serde::Serialize;

use super::super::Context;
use super::super::output::{self, text};
use super::progress::Progress;
use super::{Selection, events, exit, spools};
use crate::compose::limits;
use crate::config::{Config, process_env};

/// The arguments of `arrakis queue verify` and `arrakis queue repair`; without any, all is meant.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    selection: Selection,
}

/// How many findings JSON output tells one by one; the others are counted.
const TOLD_FINDINGS: usize = 10_000;

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    #[serde(flatten)]
    counts: Option<Counts>,
    found: BTreeMap<Kind, u64>,
    /// Findings that nothing was done about.
    left: u64,
    findings: Vec<Finding>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    pending: u64,
    processing: u64,
    failed: u64,
    quarantined: u64,
}

impl Report {
    /// Takes a finding in, and shows it to people at once.
    fn add(&mut self, finding: Finding, context: &mut Context) -> std::io::Result<()> {
        *self.found.entry(finding.kind).or_default() += 1;
        self.left += u64::from(finding.remedy.is_none());
        if context.json {
            if self.findings.len() < TOLD_FINDINGS {
                self.findings.push(finding);
            }
            return Ok(());
        }
        let path = text::one_line(&finding.path.to_string_lossy());
        let problem = text::one_line(&finding.problem);
        let (style, remedy) = match &finding.remedy {
            Some(remedy) => (output::GOOD, format!("; {}", text::one_line(remedy))),
            None => (output::BAD, String::new()),
        };
        let terminal = context.terminal;
        writeln!(context.out, "{}: {problem}{remedy}", terminal.paint(style, &path))
    }

    fn total(&self) -> u64 {
        self.found.values().sum()
    }
}

pub(super) fn verify(args: &CheckArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let filter = args.selection.filter(context.clock.now());
    let spools = spools(context);
    let progress = Progress::through("Verifying", &spools);
    let mut report = Report::default();
    let mut counts = Counts::default();
    for spool in spools.iter().filter(|spool| spool.queue().is_dir()) {
        let mut written = Ok(());
        let Survey { pending, processing, failed, quarantined, .. } =
            verify::verify(spool, &filter, |step| match step {
                Step::Entry => progress.step(1),
                Step::Finding(finding) if written.is_ok() => {
                    written = progress.aside(|| report.add(finding, context));
                }
                Step::Finding(_) => {}
            });
        written?;
        counts.pending += pending;
        counts.processing += processing;
        counts.failed += failed;
        counts.quarantined += quarantined;
    }
    drop(progress);
    let Counts { pending, processing, failed, quarantined } = counts;
    let found = report.total();
    if context.json {
        report.counts = Some(counts);
        context.write_json(&report)?;
    } else {
        let read = events(pending + processing + failed);
        let verdict = match found {
            0 => "all are whole".to_owned(),
            found => format!("{found} not as they should be; `arrakis queue repair` repairs that"),
        };
        writeln!(
            context.out,
            "{read} read ({pending} pending, {processing} processing, {failed} failed), \
             {quarantined} in quarantine: {verdict}."
        )?;
    }
    Ok(exit(found == 0))
}

pub(super) fn repair(args: &CheckArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let (config, _) = Config::load(&context.home, &process_env);
    let limits = limits(&config);
    let spools = spools(context);
    let progress = Progress::through("Repairing", &spools);
    let mut report = Report::default();
    let filter = args.selection.filter(context.clock.now());
    for spool in &spools {
        let dir = SpoolDir::new(spool.clone()).with_clock(Arc::clone(&context.clock));
        let mut written = Ok(());
        repair::repair(&dir, &filter, limits, |step| match step {
            Step::Entry => progress.step(1),
            Step::Finding(finding) if written.is_ok() => {
                written = progress.aside(|| report.add(finding, context));
            }
            Step::Finding(_) => {}
        })?;
        written?;
    }
    drop(progress);
    let (found, left) = (report.total(), report.left);
    if context.json {
        context.write_json(&report)?;
    } else {
        let verdict = match (found, left) {
            (0, _) => "The spool is in order.".to_owned(),
            (found, 0) => format!("{found} repaired; the spool is in order."),
            (found, left) => format!("{} repaired, {left} left as they are.", found - left),
        };
        writeln!(context.out, "{verdict}")?;
    }
    Ok(exit(left == 0))
}
