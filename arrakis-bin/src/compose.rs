//! Putting the parts together: which store, which queue, which transport.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use arrakis_core::base::clock::{Clock, SystemClock};
use arrakis_core::base::conservation::SpoolReporter;
use arrakis_core::base::retry::{FixedRetry, Jitter, RetrySchedule};
use arrakis_core::delivery::drain::{DrainConfig, Drainer};
use arrakis_core::delivery::layers::{DeliveryConfig, EnvelopeMap, MapEnvelopes, delivery_stack};
use arrakis_core::delivery::receiver;
use arrakis_core::delivery::transport::TransportError;
use arrakis_core::record::job::index::IndexJob;
use arrakis_core::record::job::key_uses::{KeyUseJob, KeyUses};
use arrakis_core::record::job::prune::PruneJob;
use arrakis_core::record::job::retry::RetryJob;
use arrakis_core::record::job::rollup::RollupJob;
use arrakis_core::record::store::{
    Archive, BrowserSessions, EventStore, KeyStore, Retention, Rollups, SpoolReports,
    StoredDeadLetters,
};
use arrakis_core::session::redact::Redactor;
use arrakis_core::session::transcript::SliceConfig;
use arrakis_store_fs::source::{Follower, ShipConfig, Shipper};
use arrakis_store_fs::spool::receivers;
use arrakis_store_fs::{FsQueue, FsQueueConfig, Layout, SpoolLimits};
use arrakis_store_pg::{PgConfig, PgStore};
use arrakis_store_sqlite::{SqliteConfig, SqliteStore};
use arrakis_transport_http::client::{Endpoint, Endpoints, HttpConfig, HttpTransport};
use arrakis_transport_http::server::{
    DashboardConfig, ServeConfig, ServerConfig, ServerState, router, serve,
};
use parking_lot::{Mutex, MutexGuard};
use rand::SeedableRng;
use rand::rngs::StdRng;
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::config::{
    Config, ConfigProblem, KEY_VARIABLES, Receivers, env_text, machine, process_env,
    projects_folder,
};

/// Everything that a store here can do.
pub trait Store:
    EventStore
    + Archive
    + KeyStore
    + BrowserSessions
    + SpoolReports
    + Retention
    + Rollups
    + StoredDeadLetters
{
}

impl<T> Store for T where
    T: EventStore
        + Archive
        + KeyStore
        + BrowserSessions
        + SpoolReports
        + Retention
        + Rollups
        + StoredDeadLetters
{
}

/// Which database a URL names.
enum Database<'a> {
    /// An SQLite file.
    Sqlite(&'a Path),
    /// A Postgres database.
    Postgres(&'a str),
}

impl<'a> Database<'a> {
    fn of(url: &'a str) -> anyhow::Result<Self> {
        match url.split_once("://") {
            None => Ok(Self::Sqlite(Path::new(url))),
            Some(("sqlite", path)) => Ok(Self::Sqlite(Path::new(path))),
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres(url)),
            Some((scheme, _)) => {
                bail!("{scheme}:// is no store; use sqlite://PATH or postgres://USER@HOST/DATABASE")
            }
        }
    }
}

/// Opens the store of a database URL: `postgres://…`, whose schema must be this version's;
/// `sqlite://<path>`, or a path alone, which is created and migrated where need be.
///
/// # Errors
///
/// The URL names a database of another kind, or the database cannot be opened.
pub async fn open_store(database: &str) -> anyhow::Result<Arc<dyn Store>> {
    match Database::of(database)? {
        Database::Sqlite(path) => Ok(open_sqlite(path, true)?),
        Database::Postgres(url) => {
            let opened = PgStore::open(url, Arc::new(SystemClock), PgConfig::default()).await;
            Ok(Arc::new(opened.context("cannot open the Postgres database")?))
        }
    }
}

/// Opens the embedded store of a home.
///
/// # Errors
///
/// The database cannot be opened.
pub fn open_embedded(layout: &Layout) -> anyhow::Result<Arc<dyn Store>> {
    Ok(open_sqlite(&layout.database(), true)?)
}

/// Opens the store of a database URL, or else the embedded one of a home, as it is: for commands that look
/// into it while a server may be at work.
///
/// # Errors
///
/// The database cannot be opened, or its schema is another version's.
pub async fn open_without_migrating(
    database: Option<&str>,
    layout: &Layout,
) -> anyhow::Result<Arc<dyn Store>> {
    match database.map(Database::of).transpose()? {
        None => Ok(open_sqlite(&layout.database(), false)?),
        Some(Database::Sqlite(path)) => Ok(open_sqlite(path, false)?),
        Some(Database::Postgres(url)) => open_store(url).await,
    }
}

fn open_sqlite(path: &Path, migrate: bool) -> anyhow::Result<Arc<SqliteStore>> {
    let config = SqliteConfig { migrate, ..SqliteConfig::default() };
    let store = SqliteStore::open(path, Arc::new(SystemClock), config)
        .with_context(|| format!("cannot open the database {}", path.display()))?;
    Ok(Arc::new(store))
}

/// Brings the database of a URL to this version's schema; returns the names of the migrations that it
/// lacked. An SQLite database is migrated when a server opens it, and its names are not told.
///
/// # Errors
///
/// The database cannot be reached, or a migration fails.
pub async fn migrate(database: &str) -> anyhow::Result<Vec<String>> {
    match Database::of(database)? {
        Database::Sqlite(path) => open_sqlite(path, true).map(|_| Vec::new()),
        Database::Postgres(url) => {
            arrakis_store_pg::migrate(url).await.context("cannot migrate the database")
        }
    }
}

/// The names of the migrations that the database of a URL lacks.
///
/// # Errors
///
/// The database cannot be reached.
pub async fn pending_migrations(database: &str) -> anyhow::Result<Vec<String>> {
    match Database::of(database)? {
        Database::Sqlite(_) => Ok(Vec::new()),
        Database::Postgres(url) => {
            let pending = arrakis_store_pg::pending_migrations(url).await;
            pending.context("cannot look into the database")
        }
    }
}

/// Makes sure that a server redacts what its configuration wants before it takes anything.
///
/// # Errors
///
/// The configuration cannot be read, or a redaction rule cannot be used.
pub fn check_configuration(config: &Config) -> anyhow::Result<()> {
    match &config.hold {
        None => Ok(()),
        Some(hold) => {
            bail!("no server starts with this configuration: {}; {}", hold.found(), hold.remedy())
        }
    }
}

/// Serves `store` at `listener` until `shutdown`, with the jobs that belong to a server. The configuration is
/// one that [`check_configuration`] has found fit. `link` is the token of a link that signs in once at the dashboard.
pub async fn run_server(
    listener: TcpListener,
    store: Arc<dyn Store>,
    config: &Config,
    serving: ServeConfig,
    link: Option<SecretString>,
    shutdown: CancellationToken,
) {
    let key_uses = Arc::<KeyUses>::default();
    let server = ServerConfig {
        trusted_proxies: config.trusted_proxies.clone(),
        ingest_keys: KEY_VARIABLES
            .into_iter()
            .filter_map(|name| env_text(&process_env, name))
            .map(Into::into)
            .collect(),
        shutdown: shutdown.clone(),
        spools: Arc::<dyn Store>::clone(&store),
        key_uses: Arc::clone(&key_uses),
        dashboard: config.dashboard.then(|| DashboardConfig {
            rollups: Arc::<dyn Store>::clone(&store),
            sessions: Arc::<dyn Store>::clone(&store),
            link,
        }),
        ..ServerConfig::default()
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let state = ServerState::new(
        Arc::<dyn Store>::clone(&store),
        Arc::<dyn Store>::clone(&store),
        Arc::clone(&clock),
        config.redactor.clone(),
        server,
    );
    let index = IndexJob::new(Arc::<dyn Store>::clone(&store));
    let rollup = RollupJob::new(Arc::<dyn Store>::clone(&store));
    let (events, policy) = (Arc::<dyn Store>::clone(&store), config.retention.clone());
    let prune = PruneJob::new(events, Arc::clone(&clock), policy)
        .with_spools(Arc::<dyn Store>::clone(&store));
    let key_uses = KeyUseJob::new(Arc::<dyn Store>::clone(&store), key_uses);
    let retry = RetryJob::new(store, clock, Arc::new(RetrySchedule::default()));
    let stopped = shutdown.clone().cancelled_owned();
    tokio::join!(
        serve(listener, router(state), serving, stopped),
        retry.run(&shutdown),
        index.run(&shutdown),
        rollup.run(&shutdown),
        prune.run(&shutdown),
        key_uses.run(&shutdown)
    );
    if let Err(error) = key_uses.run_once().await {
        tracing::warn!(target: "arrakis::server", %error, "when keys were last used is not kept");
    }
}

/// What the drainers of a process have in common on the way to the receivers: above all what they know of
/// these, so that none tries a receiver that another has found away.
#[derive(Debug)]
pub struct Delivery {
    endpoints: Arc<ConfiguredEndpoints>,
    config: DeliveryConfig,
}

impl Delivery {
    /// The way to the receivers of `endpoints`, with what an earlier drainer of `home` knew about them.
    #[must_use]
    pub fn new(home: &Layout, config: &Config, endpoints: Arc<ConfiguredEndpoints>) -> Self {
        let jitter = Jitter::new(StdRng::from_seed(rand::random()));
        let attempts = FixedRetry {
            attempts: config.retry_attempts.try_into().unwrap_or(std::num::NonZeroU32::MIN),
            delay: config.retry_delay,
        };
        let config = DeliveryConfig {
            attempts: Arc::new(attempts),
            timeout: config.timeout,
            ..DeliveryConfig::new(jitter)
        };
        config.receivers.restore(receivers::load(home));
        Self { endpoints, config }
    }

    /// What is known about the receivers.
    #[must_use]
    pub fn receivers(&self) -> &receiver::Receivers {
        &self.config.receivers
    }
}

/// What reads transcripts into the spool of `layout`.
#[must_use]
pub fn shipper(layout: &Layout, config: &Config) -> Shipper {
    Shipper::new(layout.clone(), ship_config(config))
}

/// How transcripts are read.
#[must_use]
pub fn ship_config(config: &Config) -> ShipConfig {
    let folders = config.transcripts.folders.iter().cloned();
    ShipConfig {
        enabled: config.transcripts.enabled,
        folders: projects_folder(&process_env).into_iter().chain(folders).collect(),
        slices: SliceConfig { thinking: config.transcripts.thinking },
        redactor: config.redactor.clone(),
        source: machine(&process_env),
        limits: limits(config),
    }
}

/// What the spool may hold.
#[must_use]
pub fn limits(config: &Config) -> SpoolLimits {
    SpoolLimits { max_files: config.spool.max_files, max_bytes: config.spool.max_bytes }
}

/// A drainer of the spool of `layout`, and its queue. It tells receivers what `reporter` knows of the
/// spool, and `follower` of its events.
///
/// # Errors
///
/// The spool cannot be opened.
pub fn drainer(
    layout: &Layout,
    config: &Config,
    delivery: &Delivery,
    reporter: Arc<dyn SpoolReporter>,
    follower: Arc<Follower>,
) -> anyhow::Result<(Arc<FsQueue>, Drainer)> {
    let queue_config = FsQueueConfig { limits: limits(config), ..FsQueueConfig::default() };
    let queue = Arc::new(FsQueue::open(layout.clone(), queue_config)?);
    let http = HttpConfig { timeout: config.timeout, ..HttpConfig::default() };
    let endpoints = Arc::<ConfiguredEndpoints>::clone(&delivery.endpoints);
    let transport = HttpTransport::new(http, endpoints).with_reporter(reporter);
    let endpoints = Arc::<ConfiguredEndpoints>::clone(&delivery.endpoints);
    let redaction = move || endpoints.redaction();
    let redacting = MapEnvelopes::new(Arc::new(transport), redaction, redaction_failed);
    let stack = Arc::new(delivery_stack(Arc::new(redacting), delivery.config.clone()));
    let receivers = delivery.receivers().clone();
    let drain = DrainConfig::new(delivery.config.jitter.clone());
    let drainer = Drainer::new(Arc::<FsQueue>::clone(&queue), stack, receivers, drain);
    Ok((queue, drainer.with_witness(follower)))
}

/// The endpoints of the configuration, which may change while a drainer runs.
#[derive(Debug)]
pub struct ConfiguredEndpoints(Mutex<Known>);

#[derive(Debug)]
struct Known {
    receivers: Receivers,
    /// The user's own rules among others; `None` where there are none, as the default rules have done their
    /// part at the capture.
    redactor: Option<Arc<Redactor>>,
    /// Why nothing may be sent to any of them.
    hold: Option<ConfigProblem>,
}

impl ConfiguredEndpoints {
    /// The endpoints of `config`.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self(Mutex::new(Known::of(config)))
    }

    /// Takes the endpoints of a configuration that has changed.
    pub fn update(&self, config: &Config) {
        let known = Known::of(config);
        *self.known() = known;
    }

    /// What redacts events that were captured under other rules; `None` where nothing need be.
    ///
    /// # Errors
    ///
    /// Nothing may be sent now.
    fn redaction(&self) -> Result<Option<EnvelopeMap>, TransportError> {
        let known = self.known();
        known.check()?;
        Ok(known.redactor.clone().map(|redactor| -> EnvelopeMap {
            Arc::new(move |envelope| {
                Arc::new(redactor.redact_envelope(Arc::unwrap_or_clone(envelope)))
            })
        }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock()
    }
}

impl Known {
    fn of(config: &Config) -> Self {
        let redactor = config.redactor.has_user_rules().then(|| config.redactor.clone());
        Self {
            receivers: config.receivers.clone(),
            redactor: redactor.map(Arc::new),
            hold: config.hold.clone(),
        }
    }

    fn check(&self) -> Result<(), TransportError> {
        let Some(hold) = &self.hold else { return Ok(()) };
        let (problem, remedy) = (hold.found(), hold.remedy());
        Err(TransportError::Misconfigured { problem, remedy })
    }
}

impl Endpoints for ConfiguredEndpoints {
    fn endpoint(&self, destination: &str) -> Result<Endpoint, TransportError> {
        let known = self.known();
        known.check()?;
        let Some(receiver) = known.receivers.find(destination) else {
            return Err(no_key(&known.receivers, destination));
        };
        let url = receiver.url.expose_secret();
        let host = Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
        let is_allowed = host.is_some_and(|host| known.receivers.plain_http_hosts.contains(&host));
        let endpoint = Endpoint::new(url, receiver.key.clone());
        Ok(if is_allowed { endpoint.with_plain_http() } else { endpoint })
    }
}

fn redaction_failed() -> TransportError {
    TransportError::Misconfigured {
        problem: "redaction failed, and nothing was sent".to_owned(),
        remedy: "check your redaction rules".to_owned(),
    }
}

fn no_key(receivers: &Receivers, destination: &str) -> TransportError {
    let is_file_s = receivers.file.destination.as_deref() == Some(destination);
    let remedy = if is_file_s || !receivers.is_chosen {
        "put api_key into config.toml, or run `arrakis up` once".to_owned()
    } else {
        format!(
            "set the key beside the URL in the environment, or put it into config.toml below \
             [destinations.{destination:?}]"
        )
    };
    TransportError::Misconfigured { problem: format!("there is no key for {destination}"), remedy }
}
