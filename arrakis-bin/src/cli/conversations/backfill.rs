//! Closing gaps: the transcripts are read from their beginning once more.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use arrakis_core::record::store::{DEFAULT_WORKSPACE, EventReader};
use arrakis_core::session::conversation::{Conversation, Gap};
use arrakis_store_fs::source::find_moved;
use clap::Args;

use super::{find, gaps};
use crate::cli::Context;
use crate::cli::import::transcripts;
use crate::compose::ship_config;
use crate::config::{Config, process_env};

/// How many conversations are looked through for gaps.
const LOOKED_AT: usize = 10_000;

/// The arguments of `arrakis conversations backfill`.
#[derive(Debug, Clone, Args)]
pub struct BackfillArgs {
    /// The session ids, or how they begin.
    #[arg(value_name = "SESSION", required_unless_present = "all")]
    pub sessions: Vec<String>,

    /// All conversations that lack something of their transcript.
    #[arg(long, conflicts_with = "sessions")]
    pub all: bool,

    /// The workspace.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_WORKSPACE)]
    pub workspace: String,
}

pub(super) async fn run(
    args: &BackfillArgs,
    reader: &Arc<dyn EventReader>,
    context: &mut Context,
) -> anyhow::Result<ExitCode> {
    let mut wanted = Vec::new();
    for session in &args.sessions {
        let session = find::by_prefix(reader, &args.workspace, session, &context.zone).await?;
        let found = reader.conversation(&args.workspace, &session).await?;
        wanted.extend(found.map(|detail| detail.conversation));
    }
    if args.all {
        let now = context.clock.now();
        let found = gaps::find(reader, &args.workspace, LOOKED_AT, now).await?;
        let found = found.into_iter().filter(|(_, gaps)| gaps.iter().any(Gap::is_for_backfill));
        wanted.extend(found.map(|(conversation, _)| conversation));
    }
    if wanted.is_empty() {
        context.remark("Nothing of any transcript is missing.")?;
        return Ok(ExitCode::SUCCESS);
    }
    let (config, _) = Config::load(&context.home, &process_env);
    let folders = ship_config(&config).folders;
    let mut paths = Vec::new();
    for conversation in &wanted {
        match transcript_of(conversation, &folders) {
            Some(path) => paths.extend(files_of(path)),
            None => context.remark(&format!(
                "the transcript of {} is not on this machine",
                conversation.session_id
            ))?,
        }
    }
    if paths.is_empty() {
        bail!("there is nothing to read: run this where Claude Code ran");
    }
    transcripts::read_again(&paths, context)
}

/// Where the transcript is: where events say, or in another of the folders of projects.
fn transcript_of(conversation: &Conversation, folders: &[PathBuf]) -> Option<PathBuf> {
    let path = Path::new(&conversation.transcript_path.as_ref()?.value);
    let is_named_so = path.extension().is_some_and(|ending| ending == "jsonl");
    if !path.is_absolute() || !is_named_so {
        return None;
    }
    if path.is_file() { Some(path.to_owned()) } else { find_moved(path, folders) }
}

/// A transcript, and the folder with those of its subagents.
fn files_of(transcript: PathBuf) -> impl Iterator<Item = PathBuf> {
    let subagents = transcript.with_extension("").join("subagents");
    std::iter::once(transcript).chain(Some(subagents).filter(|path| path.is_dir()))
}
