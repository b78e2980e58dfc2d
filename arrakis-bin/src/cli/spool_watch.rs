//! What a drainer tells the server of its spool.

use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::{Clock, SystemClock};
use arrakis_core::base::conservation::{LastError, SpoolReport, SpoolReporter};
use arrakis_store_fs::Layout;
use arrakis_store_fs::admin::inspect::{inspect, receivers};
use arrakis_transport_http::client::{HttpConfig, HttpTransport};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::status::recent_troubles;
use crate::compose::ConfiguredEndpoints;
use crate::config::{env_text, process_env};

/// Time between two looks at the spool.
const INTERVAL: Duration = Duration::from_secs(5);

/// What a look costs may be at most this part of the time: one at a million files takes a second or so.
const REST: u32 = 50;

/// How far back the latest error is looked for.
const ERROR_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// How long the last report may take: the drainer ends after it.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Looks at a spool now and then, and gives what it found last.
#[derive(Debug)]
pub struct SpoolWatch {
    layout: Layout,
    newest: Mutex<Option<SpoolReport>>,
}

impl SpoolWatch {
    /// A watch on the spool of `layout`, which has seen nothing yet.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self { layout, newest: Mutex::default() }
    }

    /// Looks again and again.
    pub async fn run(&self) {
        loop {
            let began = Instant::now();
            self.look().await;
            tokio::time::sleep(INTERVAL.max(began.elapsed() * REST)).await;
        }
    }

    /// Tells the receiver of `url` how the spool is now, by itself. A receiver that does not hear hears
    /// the next time.
    pub async fn tell(&self, url: &str, endpoints: Arc<ConfiguredEndpoints>) {
        self.look().await;
        let Some(report) = self.spool_report() else { return };
        let http = HttpConfig { timeout: TIMEOUT, connect_timeout: TIMEOUT };
        if let Err(error) = HttpTransport::new(http, endpoints).report(url, report).await {
            tracing::debug!(target: "arrakis::queue", %error, "the server did not hear of the spool");
        }
    }

    async fn look(&self) {
        let layout = self.layout.clone();
        match tokio::task::spawn_blocking(move || report(&layout)).await {
            Ok(Ok(report)) => *self.newest() = report,
            Ok(Err(error)) => {
                tracing::warn!(target: "arrakis::queue", %error, "cannot look at the spool");
            }
            Err(_) => {} // the process ends
        }
    }

    fn newest(&self) -> MutexGuard<'_, Option<SpoolReport>> {
        self.newest.lock()
    }
}

impl SpoolReporter for SpoolWatch {
    fn spool_report(&self) -> Option<SpoolReport> {
        self.newest().clone()
    }
}

/// A report of the spool of `layout`; `None` while it has no name.
fn report(layout: &Layout) -> std::io::Result<Option<SpoolReport>> {
    let found = inspect(layout)?;
    let Some(spool_id) = found.spool_id else { return Ok(None) };
    let now = SystemClock.now();
    let host = nix::unistd::gethostname().ok();
    let report = SpoolReport {
        spool_id,
        host: host.map(|host| host.to_string_lossy().into_owned()),
        user: env_text(&process_env, "USER").or_else(|| env_text(&process_env, "LOGNAME")),
        home: Some(layout.home().display().to_string()),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        observed_at: now,
        counters: found.counters,
        present: found.present,
        balance: found.balance,
        oldest_pending_age_ms: found
            .oldest
            .map(|oldest| u64::try_from(now.since(oldest).as_millis()).unwrap_or(u64::MAX)),
        full: found.full,
        receivers: receivers(layout),
        last_error: recent_troubles(layout, now.minus(ERROR_WINDOW)).last().and_then(|line| {
            let field = |name: &str| line[name].as_str();
            let parts = [field("message"), field("details"), field("error"), field("cause")];
            let message = parts.into_iter().flatten().collect::<Vec<_>>().join(": ");
            Some(LastError { at: field("timestamp")?.parse().ok()?, message })
        }),
    };
    Ok(Some(report.limited()))
}
