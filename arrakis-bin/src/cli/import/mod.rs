//! `arrakis import`: takes in what was kept elsewhere.
//!
//! As JSON, an object with the counts `imported`, `known` (is in the spool already) and `bad`, with `problems`,
//! with `complete` (whether the end of each export was there), and with `drainer`: `running` or `started`, null
//! where there was nothing for it.

mod export_file;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::Context;

/// The arguments of `arrakis import`.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// A file of `arrakis export --format jsonl`, or - for standard input.
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,

    /// Pass over so many lines of an export: an import that stopped says how many are in.
    #[arg(long, value_name = "LINES", default_value_t = 0)]
    pub skip: u64,
}

/// Runs the command.
///
/// # Errors
///
/// The file cannot be read or is no export, or the spool does not take what is in it.
pub fn run(args: &ImportArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    match &args.paths[..] {
        [file] => export_file::run(file, args.skip, context),
        _ => bail!("name one file of `arrakis export --format jsonl`"),
    }
}
