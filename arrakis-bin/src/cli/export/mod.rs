//! `arrakis export`: conversations and their events, as files.
//!
//! Nothing is held but one conversation, or one page of events. A file is written beside its place and put there
//! once it is whole and durable. With `--output` and `--json`, standard output gets an object with the counts
//! `events`, `conversations`, `rows`, `files`, `refused` (what is no event because the server did not take it),
//! `snapshots` (of the events, those that stand for events that are stored no more), and `tooLarge` (values that
//! only such events said, and that are too large for a snapshot).

pub(super) mod format;
mod jsonl;
mod markdown;
mod select;
mod sink;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::{Archive, DEFAULT_WORKSPACE, EventReader};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::Context;
use super::logs::Since;
use super::output::{self, text};
use super::queue::progress::Progress;
use crate::shutdown;
use select::Selected;
use sink::{NewFile, Sink};
pub(super) use table::guarded;

/// The arguments of `arrakis export`.
#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    selection: Selection,

    /// What to write.
    #[arg(long, short, value_enum, default_value_t = Format::Jsonl)]
    format: Format,

    /// Which table, with --format csv.
    #[arg(long, value_enum, default_value_t = Table::Messages)]
    table: Table,

    /// Write to this new file; with --format markdown also into this directory, one file a conversation.
    #[arg(long, short, value_name = "FILE|DIR")]
    output: Option<PathBuf>,

    /// Replace files that are there already.
    #[arg(long, requires = "output")]
    overwrite: bool,
}

/// Which conversations and events are meant. Everything that is given must match.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which conversations")]
pub(super) struct Selection {
    /// Session ids, or how they begin.
    #[arg(value_name = "SESSION")]
    sessions: Vec<String>,

    /// All conversations, and the events that belong to none.
    #[arg(long, conflicts_with = "sessions")]
    all: bool,

    /// Only conversations in this directory or below it.
    #[arg(long, value_name = "DIR")]
    project: Option<String>,

    /// Only conversations that went on since then: a duration such as 2days, or a time.
    #[arg(long, value_name = "WHEN")]
    since: Option<Since>,

    /// Only conversations that began until then.
    #[arg(long, value_name = "WHEN")]
    until: Option<Since>,

    /// The workspace.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_WORKSPACE)]
    workspace: String,

    /// Of their events, only those of this type, such as PostToolUse.
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,

    /// Of their events, only those in this state, such as FAILED.
    #[arg(long, value_name = "STATUS")]
    status: Option<EventStatus>,
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Every event as it came, to be imported again.
    Jsonl,
    /// A table for calculations.
    Csv,
    /// Documents to read.
    Markdown,
}

/// The rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Table {
    /// Messages, with the tokens that they took.
    Messages,
    /// Tool uses, with input and output.
    Tools,
    /// Conversations, with tokens and cost.
    Conversations,
    /// Audit rows.
    Events,
}

/// What was exported.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    #[serde(flatten)]
    counts: format::Counts,
    /// Of a table.
    rows: u64,
    files: u64,
    refused: u64,
    /// Of the events, how many stand for those that are gone.
    snapshots: u64,
    too_large: u64,
}

/// Where things are read.
struct Source<'a> {
    reader: &'a Arc<dyn EventReader>,
    archive: &'a Arc<dyn Archive>,
    selection: &'a Selection,
    progress: Progress,
}

/// Runs the command.
///
/// # Errors
///
/// Nothing is selected, the store cannot be read, or the output cannot be written.
pub async fn run(
    args: &ExportArgs,
    reader: &Arc<dyn EventReader>,
    archive: &Arc<dyn Archive>,
    context: &mut Context,
) -> anyhow::Result<ExitCode> {
    let selected =
        select::select(&args.selection, reader, context.clock.now(), &context.zone).await?;
    let progress = Progress::new("Exporting");
    progress.of(selected.sessions.len() as u64);
    let source = Source { reader, archive, selection: &args.selection, progress };
    let mut summary = Summary::default();
    let work = write(args, &source, &selected, context, &mut summary);
    if args.output.is_some() {
        let shutdown = shutdown::on_signal()?;
        tokio::select! {
            done = work => done?,
            () = shutdown.cancelled() => bail!("interrupted; what was not whole is removed"),
        }
    } else {
        work.await?;
    }
    drop(source);
    tell(args, &summary, context)?;
    Ok(ExitCode::SUCCESS)
}

async fn write(
    args: &ExportArgs,
    source: &Source<'_>,
    selected: &Selected,
    context: &mut Context,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let now = context.clock.now();
    if let (Format::Markdown, Some(path)) = (args.format, &args.output)
        && is_directory(path)
    {
        return markdown::write_files(path, args, source, selected, summary).await;
    }
    let mut sink = match &args.output {
        Some(path) => {
            summary.files = 1;
            Sink::File(NewFile::create(path, args.overwrite)?)
        }
        None if args.format == Format::Jsonl => {
            Sink::out(&mut context.out, |json| text::safe_json(json).into_owned())
        }
        None => Sink::out(&mut context.out, text::many_lines),
    };
    match args.format {
        Format::Jsonl => jsonl::write(source, selected, now, &mut sink, summary).await?,
        Format::Csv => table::write(args.table, source, selected, &mut sink, summary).await?,
        Format::Markdown => {
            let output = args.output.as_deref();
            markdown::write(output, args.overwrite, source, selected, &mut sink, summary).await?;
        }
    }
    sink.finish()
}

/// Whether a path is meant to be one.
fn is_directory(path: &Path) -> bool {
    path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

fn tell(args: &ExportArgs, summary: &Summary, context: &mut Context) -> anyhow::Result<()> {
    if context.json && args.output.is_some() {
        return Ok(context.write_json(summary)?);
    }
    let count = |n: u64, what: &str| output::count(usize::try_from(n).unwrap_or(usize::MAX), what);
    let what = match args.format {
        Format::Jsonl => count(summary.counts.events, "event"),
        Format::Csv => count(summary.rows, "row"),
        Format::Markdown => count(summary.counts.conversations, "document"),
    };
    let conversations = count(summary.counts.conversations, "conversation");
    context.remark(&format!("{what} of {conversations} exported."))?;
    if summary.refused > 0 {
        let refused = count(summary.refused, "request");
        context.remark(&format!("{refused} that the server has refused left out."))?;
    }
    if summary.snapshots > 0 {
        let snapshots = count(summary.snapshots, "snapshot");
        context.remark(&format!("{snapshots} for events that are stored no more."))?;
    }
    if summary.too_large > 0 {
        let values = count(summary.too_large, "message or tool use");
        context.remark(&format!("{values} too large for an event left out."))?;
    }
    Ok(())
}
