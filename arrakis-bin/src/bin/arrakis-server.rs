//! The server alone, without the set-up of `arrakis up`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use arrakis_bin::compose::{check_configuration, migrate, open_store, run_server};
use arrakis_bin::config::{Config, home, process_env};
use arrakis_bin::telemetry::Console;
use arrakis_bin::{shutdown, telemetry};
use arrakis_store_fs::Layout;
use arrakis_transport_http::server::{ServeConfig, Tls, bind};
use clap::Parser;

/// Receives events of Claude Code sessions and stores each exactly once.
#[derive(Debug, Parser)]
#[command(name = "arrakis-server", version)]
struct Arguments {
    /// Where to listen [default: `listen` of config.toml, else 127.0.0.1:3000].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,

    /// Where to store: `postgres://USER:PASSWORD@HOST/DATABASE`, or `sqlite://PATH` [default:
    /// arrakis.db in the home].
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,

    /// Leave the database's schema as it is, and refuse to start where it is not this version's.
    #[arg(long, env = "ARRAKIS_NO_MIGRATE")]
    no_migrate: bool,

    /// Where configuration and logs are [default: ARRAKIS_HOME, else ~/.arrakis].
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,

    /// Speak HTTPS, with the certificate chain in this PEM file. A renewed one is noticed.
    #[arg(long, env = "ARRAKIS_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key, in PEM form.
    #[arg(long, env = "ARRAKIS_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Most connections at one time; more wait to be accepted.
    #[arg(long, env = "ARRAKIS_MAX_CONNECTIONS", value_name = "N", default_value_t = 4096,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections: u32,

    /// How long a client may take to send a request's headers, in seconds.
    #[arg(long, env = "ARRAKIS_HEADER_TIMEOUT", value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    header_timeout: u64,

    /// How long requests under way may take to end after SIGTERM, in seconds.
    #[arg(long, env = "ARRAKIS_SHUTDOWN_GRACE", value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(0..=3600))]
    shutdown_grace: u64,

    /// What is written to standard error. `ARRAKIS_LOG` says how much, such as `debug` or `warn`.
    #[arg(long, env = "ARRAKIS_LOG_FORMAT", value_enum, default_value_t = Console::Text,
          value_name = "FORMAT")]
    log_format: Console,
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
    let home = arguments.home.clone().unwrap_or_else(|| home(&process_env));
    let home = std::path::absolute(&home).unwrap_or(home);
    let layout = Layout::new(&home);
    let (config, problems) = Config::load(&home, &process_env);
    telemetry::init(&layout.logs(), &config, "server", arguments.log_format);
    check_configuration(&config)?;
    for problem in problems {
        tracing::warn!(target: "arrakis::server", error = %problem, "the configuration has a problem");
    }
    let shutdown = shutdown::on_signal()?;
    let serving = serving(&arguments)?;
    let database = arguments.database_url.filter(|url| !url.is_empty());
    let database = database.unwrap_or_else(|| layout.database().to_string_lossy().into_owned());
    if !arguments.no_migrate {
        let migrations = migrate(&database).await?;
        if !migrations.is_empty() {
            tracing::info!(target: "arrakis::server", ?migrations, "the database was migrated");
        }
    }
    let store = open_store(&database).await?;
    let address = arguments.listen.unwrap_or(config.listen);
    let listener = bind(address)
        .with_context(|| format!("cannot listen at {address}; choose another with --listen"))?;
    let tls = serving.tls.is_some();
    tracing::info!(target: "arrakis::server", address = %listener.local_addr()?, tls, "listening");
    run_server(listener, store, &config, serving, None, shutdown).await;
    tracing::info!(target: "arrakis::server", "stopped");
    Ok(())
}

fn serving(arguments: &Arguments) -> anyhow::Result<ServeConfig> {
    let tls = match (&arguments.tls_cert, &arguments.tls_key) {
        (Some(certificate), Some(key)) => Some(Tls::load(certificate, key)?),
        _ => None,
    };
    Ok(ServeConfig {
        header_timeout: Duration::from_secs(arguments.header_timeout),
        connections: usize::try_from(arguments.max_connections).unwrap_or(usize::MAX),
        grace: Duration::from_secs(arguments.shutdown_grace),
        tls,
    })
}
