//! `arrakis import` of transcripts.
//!
//! As JSON, an object with the counts `files`, `unchanged` (files with nothing new), `bytes`, `lines`, `sent`
//! (events), `skipped` (lines by type), `unknown` (lines by a type that this version does not know), `unreadable` with the first hundred in `unreadableLines`, `notRead`
//! with the first hundred in `problems`, `leftOut` (links that bring nothing and half last lines, which fail no
//! import) with the first hundred in `remarks`, and `drainer`: `running` or `started`, null where there was nothing
//! for it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use arrakis_core::session::transcript::{Slice, count_line_type};
use arrakis_store_fs::source::{Found, ReadMode, ShipError, Shipper, identify};
use arrakis_store_fs::{Layout, Spool};
use serde::Serialize;

use super::ImportArgs;
use crate::cli::Context;
use crate::cli::output::{self, text, unknown_lines};
use crate::cli::queue::act::TOLD_PROBLEMS;
use crate::cli::queue::progress::Progress;
use crate::cli::queue::retry::{Drainer, wake};
use crate::compose::{ship_config, shipper};
use crate::config::{Config, process_env, projects_folder};

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    files: u64,
    unchanged: u64,
    bytes: u64,
    lines: u64,
    sent: u64,
    skipped: BTreeMap<String, u64>,
    unknown: BTreeMap<String, u64>,
    unreadable: u64,
    unreadable_lines: Vec<UnreadableLine>,
    not_read: u64,
    problems: Vec<Problem>,
    left_out: u64,
    remarks: Vec<Problem>,
    drainer: Option<Drainer>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct UnreadableLine {
    path: String,
    offset: u64,
    bytes: u64,
    reason: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Problem {
    path: String,
    problem: String,
}

pub(super) fn run(args: &ImportArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    // Whoever names a path means it, wherever it and the links below it lead.
    read(&args.paths, Some(&named(&args.paths)?), args.again, context)
}

/// Reads these transcripts once more. Only those in the folders of the configuration are read: their paths
/// come from events.
pub(in crate::cli) fn read_again(
    paths: &[PathBuf],
    context: &mut Context,
) -> anyhow::Result<ExitCode> {
    read(paths, None, true, context)
}

fn read(
    paths: &[PathBuf],
    allowed: Option<&[PathBuf]>,
    again: bool,
    context: &mut Context,
) -> anyhow::Result<ExitCode> {
    let spool = Layout::new(&context.home);
    let (mut config, problems) = Config::load(&context.home, &process_env);
    for problem in problems {
        context.remark(&problem.to_string())?;
    }
    if let Some(hold) = &config.hold {
        bail!("transcripts are not read meanwhile: {}; {}", hold.found(), hold.remedy());
    }
    config.transcripts.enabled = true;
    let followed = ship_config(&config).folders;
    config.transcripts.folders.extend_from_slice(allowed.unwrap_or_default());
    let mut found = Found::default();
    if paths.is_empty() {
        let projects =
            projects_folder(&process_env).context("the home directory is not known; set HOME")?;
        if !projects.is_dir() {
            bail!(
                "there are no transcripts in {}; name the folder that has some",
                projects.display()
            );
        }
        found.add(&projects);
    }
    let checking = shipper(&spool, &config);
    for path in named(paths)? {
        // A path from an event is not even looked into where it may not be read.
        match checking.check(&path) {
            Ok(()) => found.add(&path),
            Err(error) => found.passed_over.push((path, error.to_string())),
        }
    }
    if allowed.is_some() {
        config.transcripts.folders.append(&mut found.linked);
    }
    let shipper = shipper(&spool, &config);
    Spool::new(spool.clone()).create()?;

    let mut import = Import {
        again,
        shipper,
        destination: config.receivers.current,
        followed,
        progress: Progress::new("Importing"),
        report: Report::default(),
    };
    let size = |path: &PathBuf| path.metadata().map_or(0, |found| found.len());
    import.progress.of(found.files.iter().map(size).sum());
    for (path, problem) in &found.passed_over {
        import.not_read(path, problem.clone());
    }
    for (path, why) in &found.left_out {
        import.leave_out(path, why.clone());
    }
    let mut stopped = None;
    for path in &found.files {
        if let Err(error) = import.file(path) {
            stopped = Some((path, error));
            break;
        }
        if import.report.sent > 0 && import.report.drainer.is_none() {
            // It delivers while the rest is read.
            import.report.drainer = Some(wake(&spool, context)?);
        }
    }
    let Import { mut report, progress, .. } = import;
    drop(progress);
    if report.sent > 0 {
        report.drainer = Some(wake(&spool, context)?);
    }
    if context.json {
        context.write_json(&report)?;
    } else {
        write_human(&report, context)?;
    }
    if let Some((path, error)) = stopped {
        let how = if again {
            "run it without --again when that is fixed, and this file goes on there; those after it were \
             not begun"
        } else {
            "run it again when that is fixed, and it goes on there"
        };
        let stopped = format!("the import stopped in {}; {how}", path.display());
        return Err(anyhow::Error::new(error).context(stopped));
    }
    Ok(if report.not_read == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The paths that were named, as they stay the same wherever a drainer runs.
fn named(paths: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    paths.iter().map(std::path::absolute).collect()
}

struct Import {
    again: bool,
    shipper: Shipper,
    destination: String,
    /// The folders whose files are followed also without an import.
    followed: Vec<PathBuf>,
    progress: Progress,
    report: Report,
}

impl Import {
    fn file(&mut self, path: &Path) -> Result<(), ShipError> {
        let file = match identify(path) {
            Ok(file) => file,
            Err(error) => {
                self.not_read(path, error.to_string());
                return Ok(());
            }
        };
        let real = path.canonicalize().unwrap_or_default();
        let is_followed =
            |folder: &PathBuf| folder.canonicalize().is_ok_and(|folder| real.starts_with(folder));
        let is_named_so = real.extension().is_some_and(|ending| ending == "jsonl");
        let imported = !is_named_so || !self.followed.iter().any(is_followed);
        let mode = ReadMode { again: self.again, imported, asked: true };
        let (report, progress, mut bytes) = (&mut self.report, &self.progress, 0);
        let read = self.shipper.read(&file, &self.destination, mode, &mut |slice| {
            progress.step(slice.end - slice.start);
            bytes += slice.end - slice.start;
            report.add(&file.path, slice);
        });
        report.bytes += bytes;
        let length = path.metadata().map_or(0, |found| found.len());
        progress.step(length.saturating_sub(bytes));
        let reading = read?;
        self.report.files += 1;
        self.report.unchanged += u64::from(bytes == 0);
        if reading.left_bytes > 0 {
            let left = format!(
                "the last line is not written to its end; its {} bytes are read when it is",
                reading.left_bytes
            );
            self.leave_out(path, left);
        }
        if let Some(problem) = reading.trouble {
            self.not_read(path, problem);
        } else if reading.is_missing {
            self.not_read(path, "it is gone".to_owned());
        }
        Ok(())
    }

    fn not_read(&mut self, path: &Path, problem: String) {
        self.report.not_read += 1;
        if self.report.problems.len() < TOLD_PROBLEMS {
            self.report.problems.push(Problem { path: path.display().to_string(), problem });
        }
    }

    fn leave_out(&mut self, path: &Path, problem: String) {
        self.report.left_out += 1;
        if self.report.remarks.len() < TOLD_PROBLEMS {
            self.report.remarks.push(Problem { path: path.display().to_string(), problem });
        }
    }
}

impl Report {
    fn add(&mut self, path: &str, slice: &Slice) {
        self.lines += slice.lines as u64;
        self.sent += u64::from(!slice.is_empty());
        for (line_type, lines) in &slice.skipped {
            count_line_type(&mut self.skipped, line_type, *lines);
        }
        for (line_type, lines) in &slice.unknown {
            count_line_type(&mut self.unknown, line_type, *lines);
        }
        self.unreadable += slice.unreadable.len() as u64;
        for line in &slice.unreadable {
            if self.unreadable_lines.len() < TOLD_PROBLEMS {
                let (path, offset, bytes) = (path.to_owned(), line.offset, line.bytes);
                let reason = line.reason;
                self.unreadable_lines.push(UnreadableLine { path, offset, bytes, reason });
            }
        }
    }
}

fn write_human(report: &Report, context: &mut Context) -> io::Result<()> {
    let count = |n: u64, what| output::count(usize::try_from(n).unwrap_or(usize::MAX), what);
    let Report { files, unchanged, bytes, lines, sent, skipped, .. } = report;
    let out = &mut context.out;
    writeln!(
        out,
        "{} with {} of {}, sent in {}; {unchanged} had nothing new.",
        count(*files, "file"),
        count(*lines, "line"),
        indicatif::HumanBytes(*bytes),
        count(*sent, "event"),
    )?;
    if !skipped.is_empty() {
        let types = skipped.iter().map(|(line_type, lines)| format!("{lines} {line_type}"));
        let types = text::one_line(&types.collect::<Vec<_>>().join(", "));
        writeln!(out, "Left out, as they belong to no conversation: {types}.")?;
    }
    if let Some(unknown) = unknown_lines(&report.unknown) {
        writeln!(out, "{unknown}.")?;
    }
    if report.unreadable > 0 {
        let unreadable = count(report.unreadable, "line");
        writeln!(out, "{unreadable} could not be read; their events name them:")?;
        for UnreadableLine { path, offset, bytes, reason } in &report.unreadable_lines {
            let line = format!("{path}, byte {offset}: {reason}, {bytes} bytes");
            writeln!(out, "  {}", text::one_line(&line))?;
        }
    }
    for Problem { path, problem } in &report.remarks {
        writeln!(out, "Left out: {}", text::one_line(&format!("{path}: {problem}")))?;
    }
    if report.not_read > 0 {
        writeln!(out, "{} could not be read:", count(report.not_read, "path"))?;
        for Problem { path, problem } in &report.problems {
            writeln!(out, "  {}", text::one_line(&format!("{path}: {problem}")))?;
        }
    }
    Ok(())
}
