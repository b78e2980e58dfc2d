//! Putting the parts together: which store, which queue, which transport.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use arrakis_core::clock::{Clock, SystemClock};
use arrakis_core::drain::{DrainConfig, Drainer};
use arrakis_core::job::retry::RetryJob;
use arrakis_core::middleware::{DeliveryConfig, delivery_stack};
use arrakis_core::redact::Redactor;
use arrakis_core::retry::{FixedRetry, Jitter, RetrySchedule};
use arrakis_store_fs::{FsQueue, FsQueueConfig, Layout};
use arrakis_store_sqlite::{SqliteConfig, SqliteStore};
use arrakis_transport_http::client::{Endpoint, Endpoints, HttpConfig, HttpTransport};
use arrakis_transport_http::server::{ServeConfig, ServerConfig, ServerState, router, serve};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, DEFAULT_URL, process_env};

/// Opens the store of a database URL: `sqlite://<path>`, or a path alone.
///
/// # Errors
///
/// The URL names a database of another kind, or the database cannot be opened.
pub fn open_store(database: &str) -> anyhow::Result<Arc<SqliteStore>> {
    let path = match database.split_once("://") {
        None => database,
        Some(("sqlite", path)) => path,
        Some((scheme, _)) => bail!("{scheme}:// is not supported here; use sqlite://<path>"),
    };
    let store = SqliteStore::open(Path::new(path), Arc::new(SystemClock), SqliteConfig::default())
        .with_context(|| format!("cannot open the database {path}"))?;
    Ok(Arc::new(store))
}

/// Opens the embedded store of a home.
///
/// # Errors
///
/// The database cannot be opened.
pub fn open_embedded(layout: &Layout) -> anyhow::Result<Arc<SqliteStore>> {
    open_store(&layout.database().to_string_lossy())
}

/// Serves `store` at `listener` until `shutdown`, with the jobs that belong to a server.
pub async fn run_server(
    listener: TcpListener,
    store: Arc<SqliteStore>,
    config: &Config,
    shutdown: CancellationToken,
) {
    let (redactor, problems) = Redactor::new(config.redact.clone());
    for problem in problems {
        tracing::warn!(target: "arrakis::server", %problem, "a redaction rule cannot be used");
    }
    let environment = ["ARRAKIS_API_KEY", "CLAUDE_HOOK_API_KEY"];
    let server = ServerConfig {
        trusted_proxies: config.trusted_proxies.clone(),
        ingest_keys: environment.into_iter().filter_map(process_env).map(Into::into).collect(),
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let state = ServerState::new(
        Arc::<SqliteStore>::clone(&store),
        Arc::<SqliteStore>::clone(&store),
        Arc::clone(&clock),
        redactor,
        server,
    );
    let retry = RetryJob::new(store, clock, Arc::new(RetrySchedule::default()));
    let stopped = shutdown.clone().cancelled_owned();
    tokio::join!(
        serve(listener, router(state), ServeConfig::default(), stopped),
        retry.run(&shutdown)
    );
}

/// A drainer of the spool of `layout`, and the endpoints that it delivers to.
///
/// # Errors
///
/// The spool cannot be opened, or the HTTP client cannot be set up.
pub fn drainer(
    layout: &Layout,
    config: &Config,
    endpoints: Arc<ConfiguredEndpoints>,
) -> anyhow::Result<(Arc<FsQueue>, Drainer)> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let queue_config = FsQueueConfig {
        max_files: config.spool.max_files,
        max_bytes: config.spool.max_bytes,
        ..FsQueueConfig::default()
    };
    let queue = Arc::new(FsQueue::open(layout.clone(), clock, queue_config)?);
    let http = HttpConfig { timeout: config.timeout, ..HttpConfig::default() };
    let transport = Arc::new(HttpTransport::new(http, endpoints)?);
    let jitter = Jitter::new(StdRng::from_seed(rand::random()));
    let attempts = FixedRetry {
        attempts: config.retry_attempts.try_into().unwrap_or(std::num::NonZeroU32::MIN),
        delay: config.retry_delay,
    };
    let delivery = DeliveryConfig {
        attempts: Arc::new(attempts),
        timeout: config.timeout,
        jitter: jitter.clone(),
    };
    let stack = Arc::new(delivery_stack(transport, delivery));
    let drainer = Drainer::new(Arc::<FsQueue>::clone(&queue), stack, DrainConfig::new(jitter));
    Ok((queue, drainer))
}

/// The endpoints of the configuration, which may change while a drainer runs.
#[derive(Debug)]
pub struct ConfiguredEndpoints(Mutex<Known>);

#[derive(Debug)]
struct Known {
    /// Where what was captured before anybody chose a URL goes.
    configured: String,
    endpoints: BTreeMap<String, Endpoint>,
}

impl ConfiguredEndpoints {
    /// The endpoints of `config`.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self(Mutex::new(Known::of(config)))
    }

    /// Takes the endpoints of a configuration that has changed.
    pub fn update(&self, config: &Config) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Known::of(config);
    }
}

impl Known {
    fn of(config: &Config) -> Self {
        let others = config.destinations.iter().map(|(url, known)| (url, &known.api_key));
        let own = config.api_key.iter().map(|key| (&config.url, key));
        let endpoint = |(url, key): (&String, &secrecy::SecretString)| {
            (url.clone(), Endpoint { url: url.clone(), key: key.clone() })
        };
        Self {
            configured: config.url.clone(),
            endpoints: others.chain(own).map(endpoint).collect(),
        }
    }
}

impl Endpoints for ConfiguredEndpoints {
    fn endpoint(&self, destination: &str) -> Option<Endpoint> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.endpoints.get(destination).cloned();
        // The default URL was nobody's choice: what was captured under it follows the configuration.
        found.or_else(|| match destination {
            DEFAULT_URL => known.endpoints.get(&known.configured).cloned(),
            _ => None,
        })
    }
}
