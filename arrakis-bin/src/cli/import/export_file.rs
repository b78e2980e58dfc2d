//! What `arrakis export` wrote as JSONL comes back: each event goes into the spool under its own request id,
//! and a drainer delivers it to the server that is configured here. A server that has an event already takes it
//! as a repeat, so an import may be run any number of times.
//!
//! As JSON, an object with the counts `imported`, `known` (is in the spool already) and `bad`, with `problems`,
//! with `complete` (whether the end of each export was there), and with `drainer`: `running` or `started`, null
//! where there was nothing for it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use arrakis_core::base::envelope::Envelope;
use arrakis_store_fs::admin::transfer::{ImportError, Imported, Importer, read_line};
use arrakis_store_fs::{Layout, SpoolError};
use arrakis_transport_http::wire::decode_envelope;
use bytes::Bytes;
use serde::Serialize;

use super::without_beginning;
use crate::cli::Context;
use crate::cli::export::format::{Head, Tail, VERSION, is_export, is_head};
use crate::cli::output;
use crate::cli::queue::act::TOLD_PROBLEMS;
use crate::cli::queue::progress::Progress;
use crate::cli::queue::retry::{Drainer, wake};
use crate::config::{Config, process_env};

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    imported: u64,
    known: u64,
    bad: u64,
    /// The first hundred bad lines.
    problems: Vec<BadLine>,
    complete: bool,
    drainer: Option<Drainer>,
}

#[derive(Debug, Serialize)]
struct BadLine {
    line: u64,
    problem: String,
}

/// What a line is.
enum Line {
    Empty,
    Head,
    Tail,
    Event(Box<Envelope>),
}

/// Events that are taken in at once, at most, and how many bytes of payload.
const BATCH_EVENTS: usize = 256;
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Events on their way into the spool.
struct Batch {
    importer: Importer,
    events: Vec<Envelope>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, event: Envelope, report: &mut Report) -> Result<(), SpoolError> {
        self.bytes += event.payload.len();
        self.events.push(event);
        if self.events.len() < BATCH_EVENTS && self.bytes < BATCH_BYTES {
            return Ok(());
        }
        self.write(report)
    }

    /// Makes them durable.
    fn write(&mut self, report: &mut Report) -> Result<(), SpoolError> {
        for imported in self.importer.take_envelopes(&self.events)? {
            match imported {
                Imported::New(_) => report.imported += 1,
                Imported::Known => report.known += 1,
            }
        }
        self.events.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// Takes in what stands behind the first `skip` lines.
pub(super) fn run(path: &Path, skip: u64, context: &mut Context) -> anyhow::Result<ExitCode> {
    let progress = Progress::new("Importing");
    let mut input = open(path, &progress)?;
    let named = || format!("cannot read {}", path.display());
    let beginning = input.fill_buf().with_context(named)?;
    if !is_export(without_beginning(beginning)) {
        bail!("{} is no file of `arrakis export --format jsonl`", path.display());
    }
    let (config, problems) = Config::load(&context.home, &process_env);
    for problem in problems {
        context.remark(&problem.to_string())?;
    }
    let spool = Layout::new(&context.home);
    let importer = Importer::new(spool.clone())?;
    let mut batch = Batch { importer, events: Vec::new(), bytes: 0 };
    let mut report = Report::default();
    let (mut number, mut durable, mut stopped) = (0, skip, None);
    while let Some(line) = read_line(&mut *input).with_context(named)? {
        number += 1;
        if number <= skip {
            continue;
        }
        let read = line.and_then(|line| {
            progress.step(line.len() as u64 + 1);
            read(line.into())
        });
        match read {
            Ok(Line::Empty) => {}
            Ok(Line::Head) => report.complete = false,
            Ok(Line::Tail) => report.complete = true,
            Ok(Line::Event(mut event)) => {
                // Wherever it once went.
                event.header.destination.clone_from(&config.receivers.current);
                stopped = batch.add(*event, &mut report).err();
            }
            Err(error) => {
                report.bad += 1;
                if report.problems.len() < TOLD_PROBLEMS {
                    report.problems.push(BadLine { line: number, problem: error.to_string() });
                }
            }
        }
        if stopped.is_some() {
            break;
        }
        if batch.events.is_empty() {
            durable = number;
        }
    }
    if stopped.is_none() {
        stopped = batch.write(&mut report).err();
    }
    drop(progress);
    if report.imported > 0 || stopped.is_some() {
        report.drainer = Some(wake(&spool, context)?);
    }
    tell(&report, context)?;
    if let Some(error) = stopped {
        return Err(anyhow::Error::new(error).context(format!(
            "the import stopped; when that is fixed, go on with --skip {durable}"
        )));
    }
    if !report.complete {
        context.remark("The end of the export is missing: it was cut off.")?;
    }
    let is_good = report.bad == 0 && report.complete;
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn open(path: &Path, progress: &Progress) -> anyhow::Result<Box<dyn BufRead>> {
    if path.as_os_str() == "-" {
        if io::stdin().is_terminal() {
            bail!("name the file to import, or pipe one in");
        }
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let named = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(named)?;
    let found = file.metadata().with_context(named)?;
    if found.is_dir() {
        bail!("{} is a directory", path.display());
    }
    if found.is_file() {
        progress.of(found.len());
    }
    Ok(Box::new(BufReader::new(file)))
}

fn read(line: Bytes) -> Result<Line, ImportError> {
    let line = line.slice_ref(without_beginning(&line));
    if line.is_empty() {
        return Ok(Line::Empty);
    }
    if is_head(&line) {
        let head: Head = serde_json::from_slice(&line).map_err(bad)?;
        if head.arrakis_export != VERSION {
            let version = head.arrakis_export;
            return Err(bad(format!("it was written by another version (format {version})")));
        }
        return Ok(Line::Head);
    }
    match decode_envelope(&line) {
        Ok(envelope) => Ok(Line::Event(Box::new(envelope))),
        Err(_) if serde_json::from_slice::<Tail>(&line).is_ok() => Ok(Line::Tail),
        Err(error) => Err(bad(error)),
    }
}

fn tell(report: &Report, context: &mut Context) -> anyhow::Result<()> {
    let Report { imported, known, bad, .. } = report;
    if context.json {
        context.write_json(report)?;
    } else {
        let events = output::count(usize::try_from(*imported).unwrap_or(usize::MAX), "event");
        writeln!(context.out, "{events} imported, {known} known already, {bad} bad.")?;
    }
    for BadLine { line, problem } in &report.problems {
        context.remark(&format!("line {line}: {problem}"))?;
    }
    Ok(())
}

fn bad(problem: impl ToString) -> ImportError {
    ImportError::Line(problem.to_string())
}
