//! `arrakis import`: takes in what was kept elsewhere.

mod transcripts;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Context;

/// The arguments of `arrakis import`.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// Transcripts, or folders of them [default: all of Claude Code's].
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,

    /// Read transcripts from their beginning once more; what is stored already is not stored twice.
    #[arg(long)]
    pub again: bool,
}

/// Runs the command.
///
/// # Errors
///
/// Nothing can be read, or the spool does not take what is.
pub fn run(args: &ImportArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    transcripts::run(args, context)
}
