//! `arrakis status`: what the spool holds, what is stored, and what went wrong lately.

mod spool;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::audit::EventStatus;
use arrakis_store_fs::Layout;
use arrakis_transport_http::client::{HttpConfig, HttpTransport};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::Context;
use super::output::zone::Zone;
use super::output::{self, Terminal, text};
use crate::compose::{ConfiguredEndpoints, open_without_migrating};
use crate::config::{Config, fallback_home, process_env};
pub use spool::SpoolStatus;

/// The arguments of `arrakis status`.
#[derive(Debug, Clone, Default, Args)]
pub struct StatusArgs {}

/// How long a server may take to say that it is alive.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// How far back troubles are counted.
const TROUBLE_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// How many of them are shown.
const TROUBLES_SHOWN: usize = 5;

/// How much of the end of the error log is looked at, in bytes.
const LOG_TAIL_BYTES: u64 = 256 * 1024;

/// Everything that `status` shows; with `--json`, these names.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The home.
    pub home: String,
    /// Where events go.
    pub url: String,
    /// Whether the server answers there, or why not.
    pub server: ServerStatus,
    /// The spool of the home.
    pub spool: SpoolStatus,
    /// The spool of the fallback home, where there is one.
    pub fallback: Option<SpoolStatus>,
    /// Audit rows of the embedded store by state, where there is one.
    pub stored: Option<BTreeMap<EventStatus, u64>>,
    /// Why no event leaves this machine, where the configuration holds delivery; null where it does not.
    pub held: Option<String>,
    /// What is wrong with the configuration.
    pub config_problems: Vec<String>,
    /// How many troubles were logged in the last 24 hours.
    pub troubles: usize,
    /// The latest of them, newest first.
    pub latest_troubles: Vec<Value>,
}

/// Whether the server answers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerStatus {
    /// It does.
    pub ok: bool,
    /// Why not.
    pub problem: Option<String>,
}

/// Shows the status.
///
/// # Errors
///
/// The output cannot be written.
pub async fn run(_: &StatusArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let status = gather(context).await;
    if context.json {
        context.write_json(&status)?;
    } else {
        write_human(&status, context)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn gather(context: &Context) -> Status {
    let home = Layout::new(&context.home);
    let fallback = Layout::new(fallback_home(&process_env));
    let (config, problems) = Config::load(&context.home, &process_env);
    let counts = async { open_without_migrating(None, &home).await.ok()?.counts().await.ok() };
    let stored = if home.database().exists() { counts.await } else { None };
    let since = context.clock.now().minus(TROUBLE_WINDOW);
    let mut troubles = recent_troubles(&home, since);
    troubles.extend(recent_troubles(&fallback, since));
    troubles.sort_by_key(|line| std::cmp::Reverse(line["timestamp"].as_str().map(str::to_owned)));
    let count = troubles.len();
    troubles.truncate(TROUBLES_SHOWN);
    Status {
        home: context.home.display().to_string(),
        server: health(&config).await,
        url: config.receivers.current,
        spool: SpoolStatus::of(&home).unwrap_or_else(|| SpoolStatus::none(&home)),
        fallback: SpoolStatus::of(&fallback),
        stored,
        held: config.hold.map(|hold| format!("{}; {}", hold.found(), hold.remedy())),
        config_problems: problems.iter().map(ToString::to_string).collect(),
        troubles: count,
        latest_troubles: troubles,
    }
}

/// Asks the configured server whether it is alive.
pub(in crate::cli) async fn health(config: &Config) -> ServerStatus {
    let http = HttpConfig { timeout: HEALTH_TIMEOUT, connect_timeout: HEALTH_TIMEOUT };
    let endpoints = Arc::new(ConfiguredEndpoints::new(config));
    let transport = HttpTransport::new(http, endpoints);
    let checked = transport.check_health(&config.receivers.current).await;
    ServerStatus { ok: checked.is_ok(), problem: checked.err().map(|error| error.to_string()) }
}

/// The warnings and errors of a home since a moment, from the end of its error log.
pub(in crate::cli) fn recent_troubles(layout: &Layout, since: Timestamp) -> Vec<Value> {
    let tail = read_tail(&layout.logs().join("webhook-error.log")).unwrap_or_default();
    let recent = |line: &Value| {
        let at = line["timestamp"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
        at.is_some_and(|at| at >= since)
    };
    let lines = tail.lines().filter_map(|line| serde_json::from_str(line).ok());
    lines.filter(recent).collect()
}

fn read_tail(path: &Path) -> io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn write_human(status: &Status, context: &mut Context) -> io::Result<()> {
    let (terminal, zone, now) = (context.terminal, &context.zone, context.clock.now());
    let out = &mut context.out;
    let label = |name: &str| terminal.paint(output::DIM, &format!("{name:<10}"));
    writeln!(out, "{}{}", label("home"), text::one_line(&status.home))?;
    let url = text::one_line(&status.url);
    let server = match &status.server.problem {
        None => format!("{url} {}", terminal.paint(output::GOOD, "answers")),
        Some(problem) if problem.contains(&status.url) => {
            terminal.paint(output::BAD, &text::one_line(problem))
        }
        Some(problem) => format!("{url} {}", terminal.paint(output::BAD, &text::one_line(problem))),
    };
    writeln!(out, "{}{server}", label("server"))?;
    for (name, spool) in [("spool", Some(&status.spool)), ("fallback", status.fallback.as_ref())] {
        let Some(spool) = spool else { continue };
        spool::write(&label(name), spool, now, zone, terminal, out)?;
    }
    if let Some(stored) = &status.stored {
        let counts = stored.iter().map(|(state, count)| {
            terminal.paint(output::status_style(*state), &format!("{count} {state}"))
        });
        let counts = counts.collect::<Vec<_>>().join(", ");
        let counts = if counts.is_empty() { "nothing yet".to_owned() } else { counts };
        writeln!(out, "{}{counts}", label("stored"))?;
    }
    if let Some(held) = &status.held {
        let held = format!("held, no event leaves this machine: {held}");
        writeln!(
            out,
            "{}{}",
            label("delivery"),
            terminal.paint(output::BAD, &text::one_line(&held))
        )?;
    }
    for problem in &status.config_problems {
        let problem = terminal.paint(output::WARN, &text::one_line(problem));
        writeln!(out, "{}{problem}", label("config"))?;
    }
    if status.troubles == 0 {
        return writeln!(out, "{}none in the last 24 hours", label("troubles"));
    }
    writeln!(out, "{}{} in the last 24 hours, the latest:", label("troubles"), status.troubles)?;
    for trouble in &status.latest_troubles {
        write_trouble(trouble, zone, terminal, out)?;
    }
    writeln!(out, "More: `arrakis logs --level warn`")
}

/// Writes a trouble whole, in as many lines as it takes: its cause comes last.
fn write_trouble(
    trouble: &Value,
    zone: &Zone,
    terminal: Terminal,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let field = |name: &str| text::one_line(trouble[name].as_str().unwrap_or_default());
    let detail = [field("details"), field("error"), field("cause")].join(" ");
    let at = field("timestamp");
    let at = at.parse().map_or(at, |at| zone.whole_moment(at));
    let whole = format!("{at} {}: {} {detail}", field("component"), field("message"));
    let room = terminal.text_columns().saturating_sub(4).max(60);
    for (n, line) in text::wrap(whole.trim(), room, "").lines().enumerate() {
        let indent = if n == 0 { "  " } else { "    " };
        writeln!(out, "{indent}{}", terminal.paint(output::WARN, line))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_long_cause_is_shown_whole() {
        let words: Vec<String> = (0..100).map(|n| format!("word{n}")).collect();
        let trouble = serde_json::json!({
            "timestamp": "2026-01-01T00:00:00Z", "component": "drainer",
            "message": "the receiver is away", "cause": words.join(" "),
        });
        let mut out = Vec::new();
        let terminal = Terminal { colour: false, width: Some(100) };
        write_trouble(&trouble, &Zone::UTC, terminal, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let shown: Vec<&str> = text.split_whitespace().collect();
        assert!(shown.ends_with(&words.iter().map(String::as_str).collect::<Vec<_>>()), "{text}");
        let columns = terminal.text_columns();
        assert!(
            text.lines().count() > 5 && text.lines().all(|line| line.len() <= columns),
            "{text}"
        );
    }
}
