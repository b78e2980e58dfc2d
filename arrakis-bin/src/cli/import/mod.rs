//! `arrakis import`: takes in what was kept elsewhere, past transcripts of Claude Code or what `arrakis export`
//! wrote as JSONL.

mod export_file;
pub(super) mod transcripts;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::Context;
use super::export::format::is_export;

/// The arguments of `arrakis import`.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// Transcripts or folders of them; or one file of `arrakis export`, - for standard input [default: all
    /// of Claude Code's transcripts].
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,

    /// Read transcripts from their beginning once more; what is stored already is not stored twice.
    #[arg(long)]
    pub again: bool,

    /// Pass over so many lines of an export: an import that stopped says how many are in.
    #[arg(long, value_name = "LINES", default_value_t = 0, conflicts_with = "again")]
    pub skip: u64,
}

/// Runs the command.
///
/// # Errors
///
/// Nothing can be read, or the spool does not take what is.
pub fn run(args: &ImportArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    match (&args.paths[..], args.paths.iter().find(|path| holds_export(path))) {
        (_, None) => transcripts::run(args, context),
        ([path], Some(_)) => export_file::run(path, args.skip, context),
        (_, Some(export)) => bail!("{} is an export; import it by itself", export.display()),
    }
}

/// Whether a path is that of an export. Transcripts are only read from regular files.
fn holds_export(path: &Path) -> bool {
    let Ok(found) = path.metadata() else { return path.as_os_str() == "-" };
    if !found.is_file() {
        return !found.is_dir();
    }
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head));
    read.is_ok() && is_export(without_beginning(&head))
}

/// What stands behind a byte order mark and blank lines.
fn without_beginning(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes).trim_ascii_start()
}

/// What is looked at of a file to tell what it is.
const HEAD_BYTES: u64 = 4096;
