//! The command line: see `arrakis help`.

use std::process::ExitCode;
use std::sync::Arc;

use arrakis_bin::cli::{Cli, Context, dispatch};
use arrakis_bin::config::{home, process_env};
use arrakis_core::base::clock::SystemClock;
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let home = match &cli.home {
        Some(home) => std::path::absolute(home).unwrap_or_else(|_| home.clone()),
        None => home(&process_env),
    };
    let mut context = Context::of_process(home, cli.json, Arc::new(SystemClock));
    let result = dispatch(cli.command, &mut context).await;
    context.finish(result)
}
