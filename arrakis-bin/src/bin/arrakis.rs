//! The command line: see `arrakis help`.

use std::process::ExitCode;
use std::sync::Arc;

use arrakis_bin::cli::output::zone::Zone;
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
    let zone = if cli.utc { Ok(Zone::UTC) } else { Zone::of_process() };
    let (zone, unknown) = zone.map_or_else(|error| (Zone::UTC, Some(error)), |zone| (zone, None));
    let mut context = Context::of_process(home, cli.json, Arc::new(SystemClock), zone);
    if let Some(unknown) = unknown {
        context.remark(&unknown.to_string()).ok();
    }
    let result = dispatch(cli.command, &mut context).await;
    context.finish(result)
}
