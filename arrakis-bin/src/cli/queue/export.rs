//! `arrakis queue export`: a stream of lines that `arrakis queue import` takes in.
//!
//! The format is in [`arrakis_store_fs::admin::transfer`]. With `--output` and `--json`, standard output gets an
//! object with the counts `exported`, `removed`, `gone`, `leased` and `kept`, with `problems` and `unknown` ids.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use arrakis_store_fs::admin::action::{Action, Discarder};
use arrakis_store_fs::admin::entry::{Entry, Found, State, entries};
use arrakis_store_fs::admin::transfer::Exporter;
use arrakis_store_fs::{Layout, SpoolDir};
use clap::Args;
use serde::Serialize;

use super::super::Context;
use super::super::output::text;
use super::act::Totals;
use super::progress::Progress;
use super::{Selection, events, exit, spools};

/// How many entries are written before the file is made durable and they are removed.
const BATCH: usize = 500;

/// The arguments of `arrakis queue export`.
#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    selection: Selection,

    /// Write to this new file instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Remove from the spool what is durable in the file.
    #[arg(long, requires = "output")]
    remove: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Exported<'a> {
    exported: u64,
    removed: u64,
    #[serde(flatten)]
    totals: &'a Totals,
}

pub(super) fn run(args: &ExportArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let filter = args.selection.explicit(context.clock.now(), &State::ALL)?;
    let spools = spools(context);
    let progress = Progress::new("Exporting");
    let mut totals = Totals::of(&filter);
    let mut exporter = Exporter::default();
    let mut removed = 0;
    match &args.output {
        None => {
            // JSON means the same with the characters escaped that a terminal would obey.
            let is_terminal = io::stdout().is_terminal();
            for spool in &spools {
                for entry in entries(spool, &filter) {
                    progress.step(1);
                    let Some((_, line)) = line(spool, entry, &mut exporter, &mut totals) else {
                        continue;
                    };
                    if is_terminal {
                        let line = String::from_utf8_lossy(&line);
                        progress.aside(|| write!(context.out, "{}", text::safe_json(&line)))?;
                    } else {
                        context.out.write_all(&line)?;
                    }
                }
            }
            context.out.flush()?;
        }
        Some(path) => {
            let mut file = Output::create(path)?;
            let written = spools.iter().try_for_each(|spool| {
                for entry in entries(spool, &filter) {
                    progress.step(1);
                    let Some((entry, line)) = line(spool, entry, &mut exporter, &mut totals) else {
                        continue;
                    };
                    file.write(&line)?;
                    if args.remove {
                        file.batch.push(entry);
                    }
                    if file.batch.len() == BATCH {
                        removed += file.remove_batch(spool, &mut totals)?;
                    }
                }
                removed += file.remove_batch(spool, &mut totals)?;
                Ok(())
            });
            written.map_err(|error: io::Error| file.abandon(&error, removed))?;
        }
    }
    drop(progress);
    let exported = totals.done;
    if context.json && args.output.is_some() {
        context.write_json(&Exported { exported, removed, totals: &totals })?;
    } else {
        let removal = if args.remove { format!(", {removed} removed") } else { String::new() };
        context.remark(&format!("{} exported{removal}.", events(exported)))?;
    }
    totals.remark(context)?;
    Ok(exit(totals.kept == 0))
}

/// The line of an entry; none, and why, where it has none.
fn line(
    spool: &Layout,
    entry: io::Result<Entry>,
    exporter: &mut Exporter,
    totals: &mut Totals,
) -> Option<(Entry, Vec<u8>)> {
    let entry = match entry {
        Ok(entry) => entry,
        Err(error) => {
            totals.keep(error.to_string());
            return None;
        }
    };
    let (action, line) = match exporter.line(spool, &entry) {
        Ok(Found::Whole(line)) => (Ok(Action::Done), Some(line)),
        Ok(Found::Unreadable(reason)) => (Ok(Action::Kept(reason.to_string())), None),
        Ok(Found::Gone) => (Ok(Action::Gone), None),
        Err(error) => (Err(error), None),
    };
    totals.count(&entry, action);
    line.map(|line| (entry, line))
}

/// The file that is written, and what is removed once it is durable.
struct Output {
    path: PathBuf,
    file: BufWriter<File>,
    /// How much of it is durable, in bytes.
    durable: u64,
    written: u64,
    batch: Vec<Entry>,
}

impl Output {
    /// A file that is not there yet: another export may hold what is nowhere else any more.
    fn create(path: &Path) -> anyhow::Result<Self> {
        let mut options = OpenOptions::new();
        let file = match options.write(true).create_new(true).mode(0o600).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                bail!("{} is there already; name a new file", path.display())
            }
            file => file.with_context(|| format!("cannot write {}", path.display()))?,
        };
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
        let (path, file) = (path.to_owned(), BufWriter::new(file));
        Ok(Self { path, file, durable: 0, written: 0, batch: Vec::new() })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.file.write_all(line)?;
        self.written += line.len() as u64;
        Ok(())
    }

    /// Makes the file durable, then removes from the spool what is to be removed; returns how many.
    fn remove_batch(&mut self, spool: &Layout, totals: &mut Totals) -> io::Result<u64> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        self.durable = self.written;
        let mut removed = 0;
        let dir = SpoolDir::new(spool.clone());
        let mut discarder = Discarder::new(&dir);
        for entry in self.batch.drain(..) {
            match discarder.discard(&entry) {
                Ok(Action::Done) => removed += 1,
                Ok(Action::Gone) => totals.gone += 1,
                Ok(Action::Leased) => totals.leased += 1,
                Ok(Action::Kept(why)) => totals.keep(why),
                Err(error) => totals.keep(error.to_string()),
            }
        }
        Ok(removed)
    }

    /// Cuts off what is not durable, so that every line of the file is whole.
    fn abandon(&self, error: &io::Error, removed: u64) -> anyhow::Error {
        // Where this fails too, import tells of the torn line.
        self.file.get_ref().set_len(self.durable).ok();
        let path = self.path.display();
        anyhow::anyhow!(
            "cannot write {path}: {error}; it holds {} bytes of whole lines, and all {removed} entries that were removed",
            self.durable
        )
    }
}
