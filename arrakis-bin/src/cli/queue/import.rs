//! `arrakis queue import`.
//!
//! As JSON, an object with the counts `imported`, `known` (was there already) and `bad`, with `problems`, and
//! with `drainer` as `retry` has it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use arrakis_store_fs::Layout;
use arrakis_store_fs::admin::entry::State;
use arrakis_store_fs::admin::transfer::{ImportError, Imported, Importer, read_line};
use clap::Args;
use serde::Serialize;

use super::super::Context;
use super::act::TOLD_PROBLEMS;
use super::progress::Progress;
use super::retry::{Drainer, wake};
use super::{events, exit};

/// The arguments of `arrakis queue import`.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// The file to read, or - for standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    imported: u64,
    known: u64,
    bad: u64,
    /// The first hundred bad lines.
    problems: Vec<BadLine>,
    drainer: Option<Drainer>,
}

#[derive(Debug, Serialize)]
struct BadLine {
    line: u64,
    problem: String,
}

pub(super) fn run(args: &ImportArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let progress = Progress::new("Importing");
    let mut input: Box<dyn BufRead> = if args.file.as_os_str() == "-" {
        if io::stdin().is_terminal() {
            bail!("name the file to import, or pipe one in");
        }
        Box::new(BufReader::new(io::stdin()))
    } else {
        let named = || format!("cannot read {}", args.file.display());
        let file = File::open(&args.file).with_context(named)?;
        let found = file.metadata().with_context(named)?;
        if found.is_dir() {
            bail!("{} is a directory", args.file.display());
        }
        if found.is_file() {
            progress.of(found.len());
        }
        Box::new(BufReader::new(file))
    };
    let spool = Layout::new(&context.home);
    let mut importer = Importer::new(spool.clone())?;
    let mut report = Report::default();
    let mut is_due = false;
    let mut number = 0;
    let mut stopped = None;
    while let Some(line) = read_line(&mut input).context("cannot read the import")? {
        number += 1;
        let taken = line.and_then(|line| {
            progress.step(line.len() as u64 + 1);
            if line.is_empty() { Ok(None) } else { importer.take(&line).map(Some) }
        });
        match taken {
            Ok(None) => {}
            Ok(Some(Imported::New(state))) => {
                report.imported += 1;
                is_due |= state == State::Pending;
            }
            Ok(Some(Imported::Known)) => report.known += 1,
            Err(ImportError::Spool(error)) => {
                stopped = Some(error);
                break;
            }
            Err(error) => {
                report.bad += 1;
                if report.problems.len() < TOLD_PROBLEMS {
                    report.problems.push(BadLine { line: number, problem: error.to_string() });
                }
            }
        }
    }
    drop(progress);
    if is_due {
        report.drainer = Some(wake(&spool, context)?);
    }
    let Report { imported, known, bad, .. } = report;
    if context.json {
        context.write_json(&report)?;
    } else {
        writeln!(context.out, "{} imported, {known} known already, {bad} bad.", events(imported))?;
    }
    for BadLine { line, problem } in &report.problems {
        context.remark(&format!("line {line}: {problem}"))?;
    }
    if let Some(error) = stopped {
        return Err(anyhow::Error::new(error).context(format!(
            "the import stopped at line {number}; run it again when that is fixed, and what is in is passed over"
        )));
    }
    Ok(exit(bad == 0))
}
