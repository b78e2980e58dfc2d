//! `arrakis redact`: shows what redaction would remove from a file, and by which rule.
//!
//! The rules are those of this home: the default ones and those of `config.toml`. The file may be a hook's
//! payload, a transcript, or any text. Nothing is sent, stored or changed.
//!
//! Without `--test` the command prints the redacted file. With `--test --json` it prints
//! `{"file", "bytes", "redacted": {rule: count}, "findings": [{"rule", "line", "column", "start", "end",
//! "text"}]}`: `start` and `end` are offsets in bytes, `line` and `column` count from 1.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use arrakis_core::base::limits::BODY_MAX_BYTES;
use arrakis_core::session::redact::Finding;
use clap::Args;
use serde::Serialize;

use super::Context;
use super::output::{self, Terminal, text};
use crate::config::{Config, process_env};

/// The arguments of `arrakis redact`.
#[derive(Debug, Clone, Args)]
pub struct RedactArgs {
    /// Instead of the redacted file, show what would be removed and by which rule.
    #[arg(long)]
    pub test: bool,

    /// A payload, a transcript or any text; `-` reads standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// How many columns of its line stand before a finding.
const COLUMNS_BEFORE: usize = 24;

/// How many columns of what would be removed are shown.
const COLUMNS_REMOVED: usize = 64;

/// What would be removed from a file; with `--json`, these names.
#[derive(Debug, Serialize)]
struct Report<'a> {
    file: String,
    bytes: usize,
    redacted: BTreeMap<&'a str, u64>,
    findings: Vec<Found<'a>>,
}

/// One secret that would be removed.
#[derive(Debug, Serialize)]
struct Found<'a> {
    rule: &'a str,
    line: usize,
    column: usize,
    start: usize,
    end: usize,
    text: String,
}

/// Runs the command.
///
/// # Errors
///
/// The file cannot be read, the configuration holds delivery, or the output cannot be written.
pub fn run(args: &RedactArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let (Config { redactor, hold, .. }, _) = Config::load(&context.home, &process_env);
    if let Some(hold) = hold {
        bail!("{}; {}", hold.found(), hold.remedy());
    }
    let bytes = read(&args.file)?;
    if !args.test {
        context.out.write_all(&redactor.redact(&bytes).text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let findings = redactor.find(&bytes);
    let report = report(&args.file, &bytes, &findings);
    if context.json {
        context.write_json(&report)?;
    } else {
        write_human(&report, &bytes, context.terminal, &mut context.out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let name = path.display();
    let read = |from: &mut dyn Read| {
        let mut bytes = Vec::new();
        from.take(BODY_MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map(|_| bytes)
    };
    let bytes = if path == Path::new("-") {
        read(&mut io::stdin().lock()).context("cannot read standard input")?
    } else {
        File::open(path)
            .and_then(|mut file| read(&mut file))
            .with_context(|| format!("cannot read {name}"))?
    };
    if bytes.len() > BODY_MAX_BYTES {
        bail!("{name} has more than {}; give a part of it", output::size(BODY_MAX_BYTES));
    }
    Ok(bytes)
}

fn report<'a>(file: &Path, bytes: &[u8], findings: &'a [Finding<'a>]) -> Report<'a> {
    let mut redacted: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut line, mut line_start, mut counted) = (1, 0, 0);
    let found = findings.iter().map(|finding| {
        *redacted.entry(finding.rule).or_default() += 1;
        let start = finding.range.start;
        for (at, _) in bytes[counted..start].iter().enumerate().filter(|(_, byte)| **byte == b'\n')
        {
            (line, line_start) = (line + 1, counted + at + 1);
        }
        counted = start;
        let before = String::from_utf8_lossy(&bytes[line_start..start]);
        Found {
            rule: finding.rule,
            line,
            column: before.chars().count() + 1,
            start,
            end: finding.range.end,
            text: String::from_utf8_lossy(&bytes[finding.range.clone()]).into_owned(),
        }
    });
    let findings = found.collect();
    Report { file: file.display().to_string(), bytes: bytes.len(), redacted, findings }
}

fn write_human(
    report: &Report<'_>,
    bytes: &[u8],
    terminal: Terminal,
    out: &mut dyn Write,
) -> io::Result<()> {
    let widths = |width: fn(&Found<'_>) -> usize| report.findings.iter().map(width).max();
    let place = |found: &Found<'_>| format!("{}:{}", found.line, found.column);
    let place_width = widths(|found| format!("{}:{}", found.line, found.column).len()).unwrap_or(0);
    let rule_width = widths(|found| text::width(found.rule)).unwrap_or(0);
    for found in &report.findings {
        let place = terminal.paint(output::DIM, &format!("{:>place_width$}", place(found)));
        let rule =
            terminal.paint(output::NAME, &format!("{:<rule_width$}", text::one_line(found.rule)));
        let before = terminal.paint(output::DIM, &before(bytes, found.start));
        let removed = text::one_line(&found.text);
        let removed = terminal.paint(output::BAD, &text::fit(&removed, COLUMNS_REMOVED));
        writeln!(out, "{place}  {rule}  {before}{removed}")?;
    }
    if report.findings.is_empty() {
        return writeln!(out, "Nothing would be removed.");
    }
    let secrets = output::count(report.findings.len(), "secret");
    let rules: Vec<String> = report
        .redacted
        .iter()
        .map(|(rule, count)| format!("{count} {}", text::one_line(rule)))
        .collect();
    writeln!(out, "\n{secrets} would be removed: {}", rules.join(", "))
}

/// What stands before a finding on its line.
fn before(bytes: &[u8], start: usize) -> String {
    let line = bytes[..start].rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let letters = line.chars().count();
    let shown: String = line.chars().skip(letters.saturating_sub(COLUMNS_BEFORE)).collect();
    let cut = if letters > COLUMNS_BEFORE { "…" } else { "" };
    format!("{cut}{}", text::safe(&shown.replace('\t', " ")))
}
