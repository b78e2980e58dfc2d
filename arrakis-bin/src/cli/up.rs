//! `arrakis up`: the server on the embedded store, with all set-up on the first run.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{ExitCode, Stdio};

use anyhow::Context as _;
use arrakis_core::base::clock::Clock;
use arrakis_core::record::key::{ApiKey, Scope};
use arrakis_core::record::store::{DEFAULT_WORKSPACE, KeyStore};
use arrakis_store_fs::spool::durability::{RealFileSystem, replace_durably};
use arrakis_store_fs::{Layout, Spool, is_drainer_running};
use arrakis_transport_http::client::is_local;
use arrakis_transport_http::server::{ServeConfig, bind};
use arrakis_transport_http::wire::EVENT_PATH;
use clap::Args;
use rand::SeedableRng;
use rand::rngs::StdRng;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use toml_edit::{DocumentMut, value};

use super::Context;
use crate::compose::{check_configuration, open_embedded, run_server};
use crate::config::{Config, FileReceiver, process_env};
use crate::wake::spawn_drainer;
use crate::{shutdown, telemetry};

/// The arguments of `arrakis up`.
#[derive(Debug, Clone, Default, Args)]
pub struct UpArgs {
    /// Where to listen [default: 127.0.0.1:3000, or `listen` of config.toml].
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,

    /// Open the dashboard in the browser.
    #[arg(long)]
    pub open: bool,
}

/// What is said when the server listens.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Started<'a> {
    url: &'a str,
    home: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin_key: Option<&'a str>,
    /// Where the dashboard is; the link signs in once.
    #[serde(skip_serializing_if = "Option::is_none")]
    dashboard: Option<String>,
}

/// Sets the home up, serves until a signal comes, and says what to do next.
///
/// # Errors
///
/// The home cannot be written, the configuration cannot be read, a redaction rule cannot be used, the database
/// cannot be opened, or the address is taken.
pub async fn run(args: UpArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let layout = Layout::new(&context.home);
    Spool::new(layout.clone()).create()?;
    let (config, problems) = Config::load(&context.home, &process_env);
    telemetry::init(&layout.logs(), &config, "server", telemetry::Console::Silent);
    check_configuration(&config)?;
    for problem in &problems {
        context.remark(&format!("warning: {problem}"))?;
    }
    let shutdown = shutdown::on_signal()?;

    let address = args.listen.unwrap_or(config.listen);
    let listener = bind(address).with_context(|| {
        format!("cannot listen at {address}; is `arrakis up` running already? Try --listen")
    })?;
    let address = reachable(listener.local_addr()?);
    let url = format!("http://{address}{EVENT_PATH}");
    let store = open_embedded(&layout)?;
    let clock = std::sync::Arc::clone(&context.clock);
    let admin_key = set_up(&layout, &config.receivers.file, &*store, &url, &*clock).await?;

    // Whoever reads this terminal may use it for ten minutes. From elsewhere one signs in with a key.
    let token = format!("{:032x}", rand::random::<u128>());
    let dashboard =
        config.dashboard.then(|| format!("http://{address}/sign-in/link?token={token}"));
    let admin = admin_key.as_ref().map(|key| key.expose_secret().to_owned());
    let started = Started {
        url: &url,
        home: layout.home().display().to_string(),
        admin_key: admin.as_deref(),
        dashboard,
    };
    tell(&started, context)?;
    if let Some(dashboard) = started.dashboard.as_deref().filter(|_| args.open)
        && let Err(error) = open_in_browser(dashboard)
    {
        context.remark(&format!("warning: no browser could be opened: {error}"))?;
    }

    // Whoever drains already tries everything now; nobody does: somebody starts.
    Spool::new(layout.clone()).poke().context("cannot write into the spool")?;
    if !is_drainer_running(&layout)
        && let Err(error) = spawn_drainer(layout.home())
    {
        context.remark(&format!("warning: the drainer could not be started: {error}"))?;
    }
    let link = Some(SecretString::from(token));
    run_server(listener, store, &config, ServeConfig::default(), link, shutdown).await;
    if !context.json {
        context.remark(
            "stopped; hooks go on spooling, and what they spool is delivered at the next start",
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens a page with the program that the system has for it.
fn open_in_browser(url: &str) -> std::io::Result<()> {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = std::process::Command::new(program);
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map(|_| ())
}

/// Where programs of this machine reach a listener: one on all interfaces has no address of its own.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

/// Makes the keys that are missing, and writes into `config.toml` what hooks of this home need. `file` is what
/// it says now: the environment is that of one process.
/// Returns the admin key where one was made: it is shown once and kept nowhere.
async fn set_up(
    layout: &Layout,
    file: &FileReceiver,
    store: &dyn KeyStore,
    url: &str,
    clock: &dyn Clock,
) -> anyhow::Result<Option<SecretString>> {
    let mut rng = StdRng::from_seed(rand::random());
    let now = clock.now();
    let mut make =
        |name: &str, scope| ApiKey::generate(name, scope, DEFAULT_WORKSPACE, now, &mut rng);

    // Another receiver than this one is somebody's choice, and so are its URL and key.
    let local = file.destination.as_deref().map_or(!file.names_url, is_local);
    let knows_key = match &file.key {
        Some(key) => match ApiKey::id_of(key.expose_secret()) {
            Some(id) => store.key(id).await?.is_some_and(|known| known.accepts(key)),
            None => false,
        },
        None => false,
    };
    if local && (!knows_key || file.destination.as_deref() != Some(url)) {
        let key = if knows_key {
            file.key.clone()
        } else {
            let (secret, key) = make("this machine", Scope::Ingest);
            store.create_key(key).await?;
            Some(secret)
        };
        write_config(layout, url, key.as_ref())?;
    }
    let has_admin =
        store.keys().await?.iter().any(|k| k.scope == Scope::Admin && k.revoked_at.is_none());
    if has_admin {
        return Ok(None);
    }
    let (secret, key) = make("first admin", Scope::Admin);
    store.create_key(key).await?;
    Ok(Some(secret))
}

/// Sets URL and key in `config.toml`, and leaves everything else in it as it is.
fn write_config(layout: &Layout, url: &str, key: Option<&SecretString>) -> anyhow::Result<()> {
    let path = layout.config();
    let what = || format!("cannot write {}", path.display());
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(what),
    };
    let mut document: DocumentMut = text.parse().map_err(|_| {
        anyhow::anyhow!("{} is not valid TOML; correct it or move it away", path.display())
    })?;
    document["url"] = value(url);
    if let Some(key) = key {
        document["api_key"] = value(key.expose_secret());
    }
    let temporary = layout.home().join(".config.toml.new");
    replace_durably(&RealFileSystem, &temporary, &path, document.to_string().as_bytes())
        .with_context(what)
}

fn tell(started: &Started<'_>, context: &mut Context) -> anyhow::Result<()> {
    if context.json {
        context.write_json(started)?;
        context.out.flush()?;
        return Ok(());
    }
    let out = &mut context.out;
    writeln!(out, "Arrakis listens at {}", started.url)?;
    writeln!(out, "  home       {}", started.home)?;
    if let Some(key) = started.admin_key {
        writeln!(out, "  admin key  {key}")?;
        writeln!(out, "             (shown this once; it is for reading and administration)")?;
    }
    if let Some(dashboard) = &started.dashboard {
        writeln!(out, "  dashboard  {dashboard}")?;
        writeln!(
            out,
            "             (signs in once, within ten minutes; later with the admin key)"
        )?;
    }
    writeln!(out)?;
    writeln!(
        out,
        "Next: `arrakis install` registers the hook in Claude Code; `arrakis doctor` checks it all."
    )?;
    writeln!(out, "Look: `arrakis events list`, `arrakis conversations list`, `arrakis status`.")?;
    out.flush()?;
    Ok(())
}
