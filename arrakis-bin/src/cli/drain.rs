//! `arrakis drain`: delivers what the spool holds.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use arrakis_core::base::id::RequestId;
use arrakis_core::delivery::drain::{DrainReport, Until};
use arrakis_core::delivery::queue::Queue;
use arrakis_core::delivery::receiver::Receivers;
use arrakis_store_fs::source::Follower;
use arrakis_store_fs::spool::{is_leased, receivers};
use arrakis_store_fs::{DrainerLock, Layout, Spool, is_drainer_running, is_idle};
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::config_watch::{FileState, tell_problems, watch_config};
use super::spool_watch::SpoolWatch;
use crate::compose::{ConfiguredEndpoints, Delivery, drainer, shipper};
use crate::config::{Config, fallback_home, process_env};
use crate::wake::spawn_drainer;
use crate::{shutdown, telemetry};

/// The arguments of `arrakis drain`.
#[derive(Debug, Clone, Default, Args)]
pub struct DrainArgs {
    /// Stop when nothing is due; beside another drainer if there is one.
    #[arg(long)]
    pub once: bool,

    /// Deliver beside other drainers instead of leaving it to the one that runs.
    #[arg(long)]
    pub parallel: bool,

    /// Try this one event, due or not, and stop.
    #[arg(long, value_name = "REQUEST_ID", conflicts_with = "once")]
    pub only: Option<RequestId>,
}

/// How long a drainer that starts tries for the lock: longer than a hook's look at it takes.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// How often it tries.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

/// How often a spool is tried that cannot be opened.
const OPEN_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is looked whether another drainer still has the one event.
const LEASE_INTERVAL: Duration = Duration::from_millis(5);

/// Drains the spool of the home, and that of the fallback home where there is one.
///
/// # Errors
///
/// The spool cannot be opened; or the configuration holds delivery, and nobody waits until it is corrected.
pub async fn run(args: DrainArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let home = Layout::new(&context.home);
    // Taken before the file is read: a change in between is seen as one.
    let config_state = FileState::of(&home);
    let (config, problems) = Config::load(&context.home, &process_env);
    telemetry::init(&home.logs(), &config, "drainer", telemetry::Console::Silent);
    tell_problems(&problems);
    if let Some(hold) = &config.hold
        && (hold.is_in_environment() || args.once || args.only.is_some())
    {
        // The environment of this process will not change: the next drainer may have a better one.
        let held = format!("{}; {}, no event is lost", hold.found(), hold.remedy());
        tracing::warn!(target: "arrakis::queue", error = held, "delivery is held, and this drainer ends");
        bail!("delivery is held: {held}");
    }
    let shutdown = shutdown::on_signal()?;
    let drain =
        Drain { args: &args, home: &home, config_state, config: &config, shutdown: &shutdown };
    let report = drain.run().await.inspect_err(|error| {
        let error = format!("{error:#}");
        tracing::error!(target: "arrakis::queue", error, "cannot drain a spool");
    })?;
    tell(report, context)?;
    Ok(ExitCode::SUCCESS)
}

/// What the drainers of all spools have in common.
struct Drain<'a> {
    args: &'a DrainArgs,
    home: &'a Layout,
    /// How `config.toml` was before it was read.
    config_state: Option<FileState>,
    config: &'a Config,
    shutdown: &'a CancellationToken,
}

impl Drain<'_> {
    async fn run(&self) -> anyhow::Result<DrainReport> {
        let endpoints = Arc::new(ConfiguredEndpoints::new(self.config));
        let delivery = Delivery::new(self.home, self.config, Arc::clone(&endpoints));
        let mut spools = vec![self.home.clone()];
        let fallback = Layout::new(fallback_home(&process_env));
        let uid = nix::unistd::getuid().as_raw();
        let is_own = || arrakis_store_fs::spool::check_private(fallback.home(), uid).is_ok();
        if fallback != *self.home && fallback.pending().is_dir() && is_own() {
            spools.push(fallback);
        }
        let draining = spools.iter().map(|spool| self.spool(spool, &endpoints, &delivery));
        let done = CancellationToken::new();
        let ((), drained) =
            tokio::join!(keep_receivers(self.home, delivery.receivers(), &done), async {
                let drained = futures_util::future::join_all(draining).await;
                done.cancel();
                drained
            });
        let mut report = DrainReport::default();
        let mut failure = None;
        for drained in drained {
            match drained {
                Ok(Some(one)) => add(&mut report, one),
                Ok(None) => {}
                // A home that cannot be drained must not keep the fallback home from it.
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(report), Err)
    }

    /// Drains one spool; `None` if that is left to another drainer.
    async fn spool(
        &self,
        spool: &Layout,
        endpoints: &Arc<ConfiguredEndpoints>,
        delivery: &Delivery,
    ) -> anyhow::Result<Option<DrainReport>> {
        let Self { args, config, shutdown, .. } = self;
        // For the lock; opening the queue creates what else is missing.
        if !spool.queue().is_dir() {
            Spool::new(spool.clone()).create()?;
        }
        let beside = args.parallel || args.once || args.only.is_some();
        let mut lock = acquire(spool, if beside { Duration::ZERO } else { LOCK_TIMEOUT }).await?;
        if lock.is_none() && !beside {
            return Ok(None);
        }
        let watch = Arc::new(SpoolWatch::new(spool.clone()));
        let shipper = Arc::new(shipper(spool, config));
        let follower = Arc::new(Follower::new(Arc::clone(&shipper)));
        let (queue, drainer) = loop {
            let reporter = Arc::<SpoolWatch>::clone(&watch);
            match drainer(spool, config, delivery, reporter, Arc::clone(&follower)) {
                Ok(opened) => break opened,
                // A full or failing disk gets better; who comes only for one event does not wait for it.
                Err(error) if beside || shutdown.is_cancelled() || is_idle(spool)? => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::error!(target: "arrakis::queue", error = format!("{error:#}"), "cannot open the spool yet");
                    tokio::time::sleep(OPEN_INTERVAL).await;
                }
            }
        };
        let until = match (&args.only, args.once) {
            (Some(id), _) => Until::Tried(id.clone()),
            (None, true) => Until::NothingDue,
            (None, false) => Until::Idle,
        };
        let watched = watch_config(self.home, self.config_state, &drainer, endpoints, &shipper);
        let drained = async {
            loop {
                let report = drainer.run(until.clone(), shutdown).await;
                if let Until::Tried(id) = &until {
                    wait_while_leased(spool, id, config, shutdown).await;
                    drop(lock.take());
                    hand_over(spool, self.home, &follower);
                } else {
                    let slices = tokio::select! {
                        slices = follower.catch_up() => slices,
                        () = shutdown.cancelled() => 0,
                    };
                    if slices > 0 && until == Until::NothingDue {
                        continue;
                    }
                }
                if until != Until::Idle || shutdown.is_cancelled() {
                    return anyhow::Ok(Some(report));
                }
                // A hook that saw the lock taken did not start a drainer. So: let go, look once more,
                // and take it again if there is something.
                drop(lock.take());
                if queue.is_idle().await.unwrap_or(false) {
                    return Ok(Some(report));
                }
                lock = acquire(spool, Duration::ZERO).await?;
                if lock.is_none() && !args.parallel {
                    return Ok(Some(report));
                }
            }
        };
        let report: Option<DrainReport> = tokio::select! {
            report = drained => report?,
            () = watched => None,
            () = watch.run() => None,
            () = follower.run(), if until == Until::Idle => None,
        };
        shipper.stop();
        // The last word, unless somebody waits for the one event, or there is nobody to hear it.
        let heard = report.is_some_and(|report| report.delivered + report.duplicates > 0);
        if heard && args.only.is_none() {
            watch.tell(&config.receivers.current, Arc::clone(endpoints)).await;
        }
        Ok(report)
    }
}

/// Keeps what is known about the receivers for the next drainer, whenever it changes.
async fn keep_receivers(home: &Layout, known: &Receivers, done: &CancellationToken) {
    let mut changes = known.changes();
    let mut before = known.snapshot();
    let mut warned = false;
    loop {
        tokio::select! {
            _ = changes.changed() => {}
            () = done.cancelled() => if !changes.has_changed().unwrap_or_default() { return },
        }
        changes.mark_unchanged();
        let (dir, snapshot, since) = (home.clone().into(), known.snapshot(), before.clone());
        let saved = snapshot.clone();
        let saving = tokio::task::spawn_blocking(move || receivers::save(&dir, &saved, &since));
        match saving.await.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok(()) => before = snapshot,
            Err(error) if !std::mem::replace(&mut warned, true) => {
                tracing::warn!(target: "arrakis::queue", %error,
                    "cannot keep what is known about the receivers; the next drainer finds out anew");
            }
            Err(_) => {}
        }
    }
}

/// Leaves the transcript that the one event has named to a drainer that stays.
fn hand_over(spool: &Layout, home: &Layout, follower: &Follower) {
    if follower.is_due()
        && !is_drainer_running(spool)
        && let Err(error) = spawn_drainer(home.home())
    {
        tracing::warn!(target: "arrakis::queue", %error,
            "no drainer could be started to read a transcript; the next one does");
    }
}

/// Waits while another drainer has the event: whoever asks for one event wants to know it tried. Not
/// longer than a round takes.
async fn wait_while_leased(
    spool: &Layout,
    id: &RequestId,
    config: &Config,
    shutdown: &CancellationToken,
) {
    let round = (config.timeout + config.retry_delay.mul_f64(1.5)) * config.retry_attempts;
    let settled = async {
        while is_leased(spool, id).unwrap_or(false) {
            tokio::time::sleep(LEASE_INTERVAL).await;
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(round, settled) => {}
        () = shutdown.cancelled() => {}
    }
}

/// Tries for the lock for as long as `timeout`.
async fn acquire(layout: &Layout, timeout: Duration) -> io::Result<Option<DrainerLock>> {
    let deadline = tokio::time::Instant::now() + timeout;
    loop {
        match DrainerLock::try_acquire(layout)? {
            Some(lock) => return Ok(Some(lock)),
            None if tokio::time::Instant::now() >= deadline => return Ok(None),
            None => tokio::time::sleep(LOCK_INTERVAL).await,
        }
    }
}

fn add(sum: &mut DrainReport, one: DrainReport) {
    sum.delivered += one.delivered;
    sum.duplicates += one.duplicates;
    sum.retried += one.retried;
    sum.dead_lettered += one.dead_lettered;
    sum.released += one.released;
}

fn tell(report: DrainReport, context: &mut Context) -> io::Result<()> {
    if context.json {
        return context.write_json(&report);
    }
    let DrainReport { delivered, duplicates, retried, dead_lettered, released } = report;
    let out = &mut context.out;
    writeln!(out, "delivered {delivered}, delivered before {duplicates}")?;
    if retried + dead_lettered + released > 0 {
        writeln!(
            out,
            "to be tried again {retried}, given up {dead_lettered}, put back {released}"
        )?;
        writeln!(out, "Why: `arrakis logs --level warn`")?;
    }
    Ok(())
}
