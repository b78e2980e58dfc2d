//! `arrakis doctor`: tests the chain from the hook to the stored event, and says what to fix.

mod registration;

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::conservation::{Balance, Present};
use arrakis_core::delivery::transport::TransportError;
use arrakis_core::record::store::{DEFAULT_WORKSPACE, EventFilter, EventKey, EventReader, Page};
use arrakis_core::session::conversation::Gap;
use arrakis_store_fs::source::{Survey, survey};
use arrakis_store_fs::spool::counters;
use arrakis_store_fs::{Layout, Spool};
use arrakis_transport_http::client::Endpoints;
use clap::Args;
use serde::Serialize;

use super::conversations::gaps;
use super::install::Surroundings;
use super::output::{self, text};
use super::status::{SpoolStatus, health};
use super::{Context, existing_store};
use crate::compose::{ConfiguredEndpoints, Store};
use crate::config::{Config, ConfigProblem, fallback_home, process_env};

/// The arguments of `arrakis doctor`.
#[derive(Debug, Clone, Default, Args)]
pub struct DoctorArgs {
    /// Take the counts of the spools as explained where they do not add up, and do nothing else.
    #[arg(long)]
    pub accept_counts: bool,
}

/// How many of the latest conversations are looked at.
const CONVERSATIONS: usize = 200;

/// The event type of the event that the doctor sends. It names no session, so it is in no
/// conversation.
const EVENT_TYPE: &str = "ArrakisDoctor";

/// How long the doctor's event may take from the hook to the store.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// How often it is looked for.
const DELIVERY_INTERVAL: Duration = Duration::from_millis(50);

/// What was found about one link of the chain.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Check {
    name: &'static str,
    outcome: Outcome,
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok,
    Warning,
    Broken,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Ok, found: found.into(), remedy: None }
    }

    fn warning(name: &'static str, found: impl Into<String>, remedy: &str) -> Self {
        let remedy = Some(remedy.to_owned());
        Self { name, outcome: Outcome::Warning, found: found.into(), remedy }
    }

    fn broken(name: &'static str, found: impl Into<String>, remedy: &str) -> Self {
        let remedy = Some(remedy.to_owned());
        Self { name, outcome: Outcome::Broken, found: found.into(), remedy }
    }
}

/// Checks everything; fails if something is broken.
///
/// # Errors
///
/// The surroundings are not known, or the output cannot be written.
pub async fn run(args: &DoctorArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let layout = Layout::new(&context.home);
    let fallback = Layout::new(fallback_home(&process_env));
    if args.accept_counts {
        return accept_counts(&[layout, fallback], context);
    }
    let (config, problems) = Config::load(&context.home, &process_env);
    let surroundings = Surroundings::of_process()?;

    let mut checks = vec![home(&layout)];
    checks.extend(configuration(&problems));
    // Where the file cannot be read, nothing is known of its key.
    if config.hold.is_none() || !config.receivers.keyed.is_empty() {
        checks.push(key(&config));
    }
    checks.push(hook(&surroundings.hook, env!("CARGO_PKG_VERSION")));
    checks.extend(registration::checks(&surroundings, &context.home));
    let server = health(&config).await;
    checks.push(match &server.problem {
        None => Check::ok("server", format!("{} answers", config.receivers.current)),
        Some(problem) => Check::broken(
            "server",
            problem.clone(),
            "start it with `arrakis up`, or correct url in config.toml; meanwhile events wait in the spool",
        ),
    });
    checks.push(spool(&layout));
    checks.extend(SpoolStatus::of(&layout).map(|spool| conservation("conservation", &spool)));
    checks.push(transcripts(&layout, &config));
    checks.extend(SpoolStatus::of(&fallback).map(|spool| conservation("fallback", &spool)));
    let store = existing_store(context).await.ok();
    if let Some(store) = &store {
        checks.push(conversations(&config, &(Arc::clone(store) as _), context.clock.now()).await);
    }
    if surroundings.hook.is_file() {
        let is_held = config.hold.is_some();
        let store = store.as_deref();
        checks.push(chain(&layout, &surroundings.hook, is_held, server.ok, store).await);
    }

    let broken = checks.iter().any(|check| check.outcome == Outcome::Broken);
    if context.json {
        context.write_json(&checks)?;
    } else {
        write_human(&checks, context)?;
    }
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn home(layout: &Layout) -> Check {
    let name = "home";
    let created = Spool::new(layout.clone()).create();
    if let Err(error) = created {
        let remedy = "make the directory writable, or set ARRAKIS_HOME to one that is";
        return Check::broken(name, error.to_string(), remedy);
    }
    let uid = nix::unistd::getuid().as_raw();
    match arrakis_store_fs::spool::check_private(layout.home(), uid) {
        Ok(()) => Check::ok(name, format!("{} is writable and private", layout.home().display())),
        Err(problem) => Check::warning(name, problem, "chmod 700 it: payloads are private"),
    }
}

/// What cannot be used of the configuration, one check each. What holds delivery is broken.
fn configuration(problems: &[ConfigProblem]) -> Vec<Check> {
    let name = "configuration";
    if problems.is_empty() {
        return vec![Check::ok(name, "config.toml is understood")];
    }
    let check = |problem: &ConfigProblem| {
        let make = if problem.holds { Check::broken } else { Check::warning };
        make(name, problem.to_string(), &problem.remedy())
    };
    problems.iter().map(check).collect()
}

/// Whether there is a key for the receiver, and whether it may go there.
fn key(config: &Config) -> Check {
    let name = "key";
    let url = &config.receivers.current;
    // A hold of the configuration is told by itself.
    let endpoints = ConfiguredEndpoints::new(&Config { hold: None, ..config.clone() });
    match endpoints.endpoint(url).and_then(|endpoint| endpoint.check()) {
        Ok(()) => Check::ok(name, format!("there is an ingest key for {url}")),
        Err(TransportError::Misconfigured { problem, remedy }) => {
            Check::broken(name, format!("{problem}, so nothing is delivered"), &remedy)
        }
        Err(error) => Check::broken(name, error.to_string(), "see `arrakis logs --level warn`"),
    }
}

/// Whether the hook is there, and of the same version as this program.
fn hook(path: &Path, version: &str) -> Check {
    let name = "hook";
    if !path.is_file() {
        let remedy = "install arrakis-hook in the same directory as arrakis";
        return Check::broken(name, format!("{} is missing", path.display()), remedy);
    }
    match hook_version(path) {
        Some(found) if found == version => Check::ok(name, format!("{} is there", path.display())),
        found => {
            let found = found.unwrap_or_else(|| "a version that does not tell".to_owned());
            let found = format!("{} is {found}, and arrakis is {version}", path.display());
            Check::warning(name, found, "install arrakis and arrakis-hook of one version")
        }
    }
}

/// The version that a hook tells. One of an older version takes the question for an event, which it must not capture.
fn hook_version(path: &Path) -> Option<String> {
    let asked = Command::new(path)
        .arg("--version")
        .env("ARRAKIS_ENABLED", "false")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let said = String::from_utf8(asked.stdout).ok()?;
    said.trim().strip_prefix("arrakis-hook ").map(str::to_owned)
}

fn spool(layout: &Layout) -> Check {
    let name = "spool";
    let Some(spool) = SpoolStatus::of(layout) else {
        return Check::broken(name, "the spool cannot be read", "check the rights of the home");
    };
    let Present { pending, failed, quarantined, .. } = spool.present;
    if spool.full {
        let remedy = "bring the server back, or raise [spool] in config.toml";
        return Check::broken(name, "it is full and refuses new events", remedy);
    }
    if failed + quarantined > 0 {
        let found = format!("{failed} events failed, {quarantined} files are in quarantine");
        return Check::warning(name, found, "see why with `arrakis logs --level warn`");
    }
    Check::ok(name, format!("{pending} events wait, none failed"))
}

/// Whether what sessions write is read.
fn transcripts(layout: &Layout, config: &Config) -> Check {
    let name = "transcripts";
    if config.hold.is_some() {
        let remedy = "correct the configuration, and they are read from where it was stopped";
        return Check::warning(name, "they are not read while delivery is held", remedy);
    }
    if !config.transcripts.enabled {
        return Check::ok(name, "they are not read, as config.toml wants");
    }
    match survey(layout) {
        Ok(Survey { files, troubles, unknown_lines, .. }) if troubles.is_empty() => {
            match output::unknown_lines(&unknown_lines) {
                None => Check::ok(name, format!("{files} are followed")),
                Some(unknown) => Check::warning(name, unknown, output::UNKNOWN_LINES_REMEDY),
            }
        }
        Ok(Survey { troubles, .. }) => {
            let (path, trouble) = &troubles[0];
            let found = format!("{} cannot be read, such as {path}: {trouble}", troubles.len());
            Check::warning(name, found, "see `arrakis logs --level warn`")
        }
        Err(error) => Check::warning(name, error.to_string(), "check the rights of the home"),
    }
}

/// Whether every event is accounted for.
fn conservation(name: &'static str, spool: &SpoolStatus) -> Check {
    let refused = spool.tally.refused;
    match spool.balance {
        Some(Balance::Even | Balance::Within { .. }) if refused == 0 => {
            Check::ok(name, spool.balance_says.clone())
        }
        Some(Balance::Even | Balance::Within { .. }) => {
            let found = format!("{}; but {refused} could not be kept", spool.balance_says);
            Check::warning(name, found, "see why with `arrakis logs --level error`")
        }
        Some(Balance::Missing { .. } | Balance::Surplus { .. }) | None => {
            let remedy = "see `arrakis status` and `arrakis logs --level warn`";
            Check::warning(name, spool.balance_says.clone(), remedy)
        }
    }
}

/// Whether hooks and transcripts have told of the same in the latest conversations.
async fn conversations(config: &Config, reader: &Arc<dyn EventReader>, now: Timestamp) -> Check {
    let name = "conversations";
    let found = match gaps::find(reader, DEFAULT_WORKSPACE, CONVERSATIONS, now).await {
        Ok(found) => found,
        Err(error) => {
            let remedy = "see whether the store is the one that the server uses";
            return Check::warning(name, format!("they cannot be read: {error}"), remedy);
        }
    };
    let is_wanted = |gap: &&Gap| config.transcripts.enabled || **gap != Gap::NoTranscript;
    let gaps = found.iter().filter_map(|(conversation, gaps)| {
        Some((&conversation.session_id, gaps.iter().find(is_wanted)?))
    });
    // What can be fixed comes first.
    let mut gaps: Vec<_> = gaps.collect();
    gaps.sort_by_key(|(_, gap)| !gap.is_for_backfill());
    let Some((session, gap)) = gaps.first() else {
        return Check::ok(name, "nothing is missing of the latest ones");
    };
    let remedy = match gap {
        gap if gap.is_for_backfill() => {
            "read their transcripts once more: `arrakis conversations backfill --all`"
        }
        Gap::Unreadable { .. } => {
            "nothing else is lost; the events of the transcript name the places: `arrakis events`"
        }
        _ => "see that the hook is registered for every event: `arrakis install`",
    };
    let lack = if gaps.len() == 1 { "lacks" } else { "lack" };
    let told = format!("{} of the latest {lack} something; {session}: {gap}", gaps.len());
    Check::warning(name, told, remedy)
}

/// Takes the difference between counts and what is there as explained.
fn accept_counts(spools: &[Layout], context: &mut Context) -> anyhow::Result<ExitCode> {
    let mut accepted = Vec::new();
    for layout in spools {
        let Some(present) = SpoolStatus::of(layout).map(|spool| spool.present) else { continue };
        let before = counters::accept(&layout.clone().into(), &present)
            .with_context(|| format!("cannot accept the counts of {}", layout.home().display()))?;
        accepted.push(serde_json::json!({ "home": layout.home(), "before": before }));
        if !context.json {
            let home = layout.home().display().to_string();
            let said = match before {
                Balance::Even => "it adds up already".to_owned(),
                Balance::Within { .. } => "it adds up exactly now".to_owned(),
                Balance::Missing { events } => format!("{events} are counted as lost now"),
                Balance::Surplus { events } => format!("{events} are counted as found now"),
            };
            writeln!(context.out, "{}: {said}", text::one_line(&home))?;
        }
    }
    if context.json {
        context.write_json(&accepted)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends an event through the real hook and looks for it at the other end.
async fn chain(
    layout: &Layout,
    hook: &Path,
    is_held: bool,
    server_ok: bool,
    store: Option<&dyn Store>,
) -> Check {
    let name = "chain";
    let before = Spool::new(layout.clone()).captured();
    let nonce = uuid::Uuid::now_v7().to_string();
    let payload =
        serde_json::json!({ "hook_event_name": EVENT_TYPE, "cwd": layout.home(), "nonce": nonce });
    if let Err(error) = run_hook(hook, layout, &payload.to_string()) {
        return Check::broken(name, format!("the hook cannot be run: {error}"), "install it again");
    }
    if Spool::new(layout.clone()).captured() == before {
        let remedy = "see why with `arrakis logs --level warn`";
        return Check::broken(name, "the hook did not capture an event", remedy);
    }
    if is_held {
        let found = "an event was captured; delivery is held";
        return Check::broken(name, found, "correct the configuration, and it goes on");
    }
    if !server_ok {
        let found = "an event was captured; it waits for the server";
        return Check::warning(name, found, "start the server with `arrakis up`");
    }
    let started = tokio::time::Instant::now();
    while started.elapsed() < DELIVERY_TIMEOUT {
        if arrived(layout, store, &nonce).await {
            let ms = started.elapsed().as_millis();
            return Check::ok(name, format!("an event went from the hook to the store in {ms} ms"));
        }
        tokio::time::sleep(DELIVERY_INTERVAL).await;
    }
    Check::broken(
        name,
        "an event was captured, but it has not arrived",
        "see why with `arrakis logs --level warn`",
    )
}

fn run_hook(hook: &Path, layout: &Layout, payload: &str) -> io::Result<()> {
    let mut child = Command::new(hook)
        .env("ARRAKIS_HOME", layout.home())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(payload.as_bytes())?;
    }
    child.wait().map(drop)
}

/// Whether the spool is empty, for a drainer removes an event only for a receipt; or the event is in
/// the store that this machine can look into, which need not be that of the server.
async fn arrived(layout: &Layout, store: Option<&dyn Store>, nonce: &str) -> bool {
    if SpoolStatus::of(layout)
        .is_some_and(|spool| spool.present.pending + spool.present.processing == 0)
    {
        return true;
    }
    let Some(store) = store else { return false };
    let filter = EventFilter { event_type: Some(EVENT_TYPE.to_owned()), ..EventFilter::default() };
    let Ok(events) = store.events(filter, Page::first(5)).await else { return false };
    for event in events.events {
        let detail = store.event(&event.workspace, EventKey::Id(event.id)).await.ok().flatten();
        let body = detail.and_then(|detail| detail.body).unwrap_or_default();
        if String::from_utf8_lossy(&body).contains(nonce) {
            return true;
        }
    }
    false
}

fn write_human(checks: &[Check], context: &mut Context) -> io::Result<()> {
    let terminal = context.terminal;
    let out = &mut context.out;
    for check in checks {
        let (style, mark) = match check.outcome {
            Outcome::Ok => (output::GOOD, "ok"),
            Outcome::Warning => (output::WARN, "warning"),
            Outcome::Broken => (output::BAD, "broken"),
        };
        let mark = terminal.paint(style, &format!("{mark:<8}"));
        writeln!(out, "{mark}{:<14}{}", check.name, text::one_line(&check.found))?;
        if let Some(remedy) = &check.remedy {
            writeln!(out, "{:22}-> {}", "", text::one_line(remedy))?;
        }
    }
    Ok(())
}
