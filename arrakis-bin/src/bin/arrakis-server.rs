//! The server alone, without the set-up of `arrakis up`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use arrakis_bin::compose::{open_store, run_server};
use arrakis_bin::config::{Config, home, process_env};
use arrakis_bin::{shutdown, telemetry};
use arrakis_store_fs::Layout;
use arrakis_transport_http::server::bind;
use clap::Parser;

/// Receives events of Claude Code sessions and stores each exactly once.
#[derive(Debug, Parser)]
#[command(name = "arrakis-server", version)]
struct Arguments {
    /// Where to listen.
    #[arg(long, env = "ARRAKIS_LISTEN", default_value = "127.0.0.1:3000", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// Where to store: `sqlite://PATH` [default: arrakis.db in the home].
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,

    /// Where configuration and logs are [default: ~/.arrakis].
    #[arg(long, env = "ARRAKIS_HOME", value_name = "DIR")]
    home: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(target: "arrakis::server", "{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let home = arguments.home.unwrap_or_else(|| home(&process_env));
    let home = std::path::absolute(&home).unwrap_or(home);
    let layout = Layout::new(&home);
    let (config, problems) = Config::load(&home, &process_env);
    telemetry::init(&layout.logs(), &config, "server", true);
    for problem in problems {
        tracing::warn!(target: "arrakis::server", %problem, "the configuration has a problem");
    }
    let shutdown = shutdown::on_signal()?;
    let database =
        arguments.database_url.unwrap_or_else(|| layout.database().to_string_lossy().into_owned());
    let store = open_store(&database)?;
    let listener = bind(arguments.listen).with_context(|| {
        format!("cannot listen at {}; choose another with --listen", arguments.listen)
    })?;
    tracing::info!(target: "arrakis::server", address = %listener.local_addr()?, "listening");
    run_server(listener, store, &config, shutdown).await;
    tracing::info!(target: "arrakis::server", "stopped");
    Ok(())
}
