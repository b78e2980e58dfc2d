//! The commands of `arrakis`, one file each.
//!
//! A command is its arguments and a `run` function. It gets what it needs injected: a store as a
//! trait object, and a [`Context`] with the writers, the clock and the circumstances. Results go to
//! `out`, remarks to `err`, so that `--json` and pipes get results only.

pub mod config_watch;
mod confirm;
pub mod conversations;
pub mod doctor;
pub mod drain;
pub mod events;
pub mod export;
pub mod import;
pub mod install;
pub mod keys;
pub mod logs;
pub mod migrate;
pub mod output;
pub mod prune;
pub mod queue;
pub mod redact;
pub mod search;
pub mod spool_watch;
pub mod status;
pub mod statusline;
pub mod uninstall;
pub mod up;
pub mod usage;

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use arrakis_core::base::clock::Clock;
use arrakis_core::record::retention::RetentionPolicy;
use arrakis_core::record::store::{EventStore, KeyStore, Retention};
use arrakis_store_fs::Layout;
use clap::{Parser, Subcommand};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;

use crate::compose::{Store, open_without_migrating};
use crate::config::{Config, env_text, process_env};
use crate::shutdown;

use output::zone::Zone;
use output::{Terminal, text};

/// Captures everything that happens in Claude Code sessions, and never loses it.
#[derive(Debug, Parser)]
#[command(name = "arrakis", version)]
pub struct Cli {
    /// Print results as JSON.
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub json: bool,

    /// Show and read times in UTC, and not in the time zone of TZ or else of the system. JSON has
    /// UTC always.
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub utc: bool,

    /// Where configuration, spool, logs and the embedded store are [default: ARRAKIS_HOME, else
    /// ~/.arrakis].
    // Read by hand: for clap an empty variable is an error, for the hook it is none.
    #[arg(long, global = true, value_name = "DIR", help_heading = "Everywhere")]
    pub home: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server on the embedded store; set everything up on the first run.
    Up(up::UpArgs),
    /// Register the hook in Claude Code's settings.
    Install(install::InstallArgs),
    /// Take the hook out of Claude Code's settings.
    Uninstall(uninstall::UninstallArgs),
    /// Check the whole chain, from the hook to the stored event, and say what to fix.
    Doctor(doctor::DoctorArgs),
    /// Show what the spool holds, what is stored, and what went wrong lately.
    Status(status::StatusArgs),
    /// Deliver what the spool holds.
    Drain(drain::DrainArgs),
    /// Look after the spool: list, show, retry, discard, verify, repair, export and import.
    Queue(queue::QueueArgs),
    /// Look after stored events: list, show, retry and discard.
    Events(events::EventsArgs),
    /// List conversations, or read one.
    Conversations(conversations::ConversationsArgs),
    /// Delete what is kept no longer, as `[retention]` of the configuration says; a server does so every hour.
    Prune(prune::PruneArgs),
    /// Add up what was used and what it cost, by day, week, month, project, model, session or host.
    Usage(usage::UsageArgs),
    /// Print a line with the cost of the session and of today, for Claude Code's `statusLine` setting.
    Statusline(statusline::StatuslineArgs),
    /// Search conversations: prompts, answers, tool inputs and outputs.
    Search(search::SearchArgs),
    /// Write conversations and their events to a file, to read, to calculate with or to import elsewhere.
    Export(export::ExportArgs),
    /// Take in past transcripts of Claude Code, or what `arrakis export` wrote as JSONL.
    Import(import::ImportArgs),
    /// Show what redaction would remove from a file, and by which rule.
    Redact(redact::RedactArgs),
    /// Create, list and revoke API keys.
    Keys(keys::KeysArgs),
    /// Show the log files of this home, merged in time order.
    Logs(logs::LogsArgs),
    /// Bring the database of a server to this version's schema.
    Migrate(migrate::MigrateArgs),
}

/// Runs a command.
///
/// # Errors
///
/// The command failed; the error says at what, and what to do.
pub async fn dispatch(command: Command, context: &mut Context) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(args) => up::run(args, context).await,
        Command::Install(args) => {
            install::run(&args, &install::Surroundings::of_process()?, context)
        }
        Command::Uninstall(args) => {
            uninstall::run(&args, &install::Surroundings::of_process()?, context)
        }
        Command::Doctor(args) => doctor::run(&args, context).await,
        Command::Status(args) => status::run(&args, context).await,
        Command::Drain(args) => drain::run(args, context).await,
        Command::Queue(args) => queue::run(&args, context),
        Command::Events(args) => {
            let store: Arc<dyn EventStore> = existing_store(context).await?;
            events::run(&args, &store, context).await
        }
        Command::Conversations(args) => {
            let store = existing_store(context).await?;
            conversations::run(&args, &(store.clone() as _), &(store as _), context).await
        }
        Command::Statusline(args) => Ok(statusline::run(&args, &mut io::stdin().lock(), context)),
        Command::Usage(args) => {
            let store = existing_store(context).await?;
            usage::run(&args, &(store.clone() as _), &(store as _), context).await
        }
        Command::Prune(args) => {
            let policy = retention(context)?;
            let store: Arc<dyn Retention> = existing_store(context).await?;
            prune::run(&args, &store, &policy, &shutdown::on_signal()?, context).await
        }
        Command::Search(args) => {
            let store: Arc<dyn EventStore> = existing_store(context).await?;
            search::run(&args, &store, context).await
        }
        Command::Export(args) => {
            let store = existing_store(context).await?;
            export::run(&args, &(store.clone() as _), &(store as _), context).await
        }
        Command::Import(args) => import::run(&args, context),
        Command::Redact(args) => redact::run(&args, context),
        Command::Keys(args) => {
            let store: Arc<dyn KeyStore> = existing_store(context).await?;
            keys::run(&args, &store, &mut StdRng::from_seed(rand::random()), context).await
        }
        Command::Logs(args) if args.follow => logs::follow(&args, context).await,
        Command::Logs(args) => logs::run(&args, context),
        Command::Migrate(args) => migrate::run(&args, context).await,
    }
}

/// For how long the configuration of this home keeps things. What is wrong with it is told.
fn retention(context: &mut Context) -> anyhow::Result<RetentionPolicy> {
    let (config, problems) = Config::load(&context.home, &process_env);
    if let Some(hold) = &config.hold {
        bail!("nothing is pruned with this configuration: {}; {}", hold.found(), hold.remedy());
    }
    for problem in problems {
        context.remark(&format!("warning: {problem}"))?;
    }
    Ok(config.retention)
}

/// The store that reading commands look into: that of `DATABASE_URL`, else the embedded one. They do
/// not make one: an empty store would only hide that the home is the wrong one.
async fn existing_store(context: &Context) -> anyhow::Result<Arc<dyn Store>> {
    store_of(&context.home).await
}

/// The same for a home.
async fn store_of(home: &Path) -> anyhow::Result<Arc<dyn Store>> {
    let layout = Layout::new(home);
    let url = env_text(&process_env, "DATABASE_URL");
    if url.is_none() && !layout.database().exists() {
        bail!("there is no store in {} yet; run `arrakis up` first", home.display());
    }
    open_without_migrating(url.as_deref(), &layout).await
}

/// What a command runs in.
pub struct Context {
    /// Where configuration, spool, logs and the embedded store are.
    pub home: PathBuf,
    /// Whether results are JSON.
    pub json: bool,
    /// What `out` is.
    pub terminal: Terminal,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// In which people are shown times, and say them.
    pub zone: Zone,
    /// For results.
    pub out: Box<dyn Write + Send>,
    /// For remarks and errors.
    pub err: Box<dyn Write + Send>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("home", &self.home)
            .field("json", &self.json)
            .field("terminal", &self.terminal)
            .field("zone", &self.zone)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// The context of this process: standard output and standard error.
    #[must_use]
    pub fn of_process(home: PathBuf, json: bool, clock: Arc<dyn Clock>, zone: Zone) -> Self {
        Self {
            home,
            json,
            terminal: Terminal::of_stdout(),
            clock,
            zone,
            out: Box::new(io::BufWriter::new(io::stdout())),
            err: Box::new(io::stderr()),
        }
    }

    /// Writes a result as JSON.
    ///
    /// # Errors
    ///
    /// `out` does not take it.
    pub fn write_json(&mut self, value: &impl Serialize) -> io::Result<()> {
        output::write_json(&mut self.out, value)
    }

    /// Writes a remark that is no part of the result. The text is made safe.
    ///
    /// # Errors
    ///
    /// `err` does not take it.
    pub fn remark(&mut self, remark: &str) -> io::Result<()> {
        // A remark must not overtake the result that it is about.
        self.out.flush()?;
        writeln!(self.err, "{}", text::many_lines(remark))
    }

    /// Ends a command: flushes its output, and tells the error if there is one, with its causes.
    /// Output that nobody reads any more, as with `| head`, is no error.
    #[must_use]
    pub fn finish(mut self, result: anyhow::Result<ExitCode>) -> ExitCode {
        let result = result.and_then(|code| {
            self.out.flush()?;
            Ok(code)
        });
        let error = match result {
            Ok(code) => return code,
            Err(error) => error,
        };
        self.out.flush().ok();
        let nobody_reads = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe);
        if nobody_reads {
            return ExitCode::SUCCESS;
        }
        for (n, cause) in error.chain().enumerate() {
            let label = if n == 0 { "error" } else { "  because" };
            // With standard error gone there is nobody left to tell.
            writeln!(self.err, "{label}: {}", text::many_lines(&cause.to_string())).ok();
        }
        ExitCode::FAILURE
    }
}
