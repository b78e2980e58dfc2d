//! How the server treats connections and a store that is away: limits, TLS, shutdown, readiness, the
//! live feed, lists, searches, reports of spools.

mod connections;
mod dashboard;
mod events;
mod heavy;
mod live;
mod search;
mod spools;
mod store;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::{SystemClock, Timestamp};
use arrakis_core::record::job::key_uses::KeyUses;
use arrakis_core::record::key::{ApiKey, Scope};
use arrakis_core::record::store::{
    EventStore, KeyStore, MemoryBrowserSessions, MemorySpoolReports, MemoryStore, Rollups,
    SpoolReports,
};
use arrakis_core::session::redact::Redactor;
use arrakis_core::testkit::fakes::FaultyStore;
use arrakis_transport_http::server::{
    DashboardConfig, ServeConfig, ServerConfig, ServerState, bind, router, serve,
};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use rand::SeedableRng;
use rand::rngs::StdRng;
use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const HOOK: &str = r#"{"session_id":"s","hook_event_name":"UserPromptSubmit","prompt":"hello"}"#;

/// What is asked where the answer does not matter.
const ASK: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";

/// When a test gives up that waits for what does not come.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A server in this process, and what a test does to it.
struct Server {
    store: Arc<FaultyStore>,
    router: Router,
    keys: Arc<MemoryStore>,
    key_uses: Arc<KeyUses>,
    stop: CancellationToken,
}

impl Server {
    fn new() -> Self {
        Self::with_spools(Arc::new(MemorySpoolReports::default()))
    }

    fn with_spools(spools: Arc<dyn SpoolReports>) -> Self {
        let memory = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
        let store = Arc::new(FaultyStore::new(Arc::clone(&memory) as Arc<dyn EventStore>));
        let stop = CancellationToken::new();
        let key_uses = Arc::<KeyUses>::default();
        let config = ServerConfig {
            ingest_keys: vec!["key".into()],
            shutdown: stop.clone(),
            spools,
            key_uses: Arc::clone(&key_uses),
            dashboard: Some(DashboardConfig {
                rollups: Arc::clone(&memory) as Arc<dyn Rollups>,
                sessions: Arc::new(MemoryBrowserSessions::default()),
                link: Some("once".into()),
            }),
            ..ServerConfig::default()
        };
        let state = ServerState::new(
            Arc::clone(&store) as Arc<dyn EventStore>,
            Arc::clone(&memory) as Arc<dyn KeyStore>,
            Arc::new(SystemClock),
            Redactor::default(),
            config,
        );
        Self { store, router: router(state), keys: memory, key_uses, stop }
    }

    /// A key that may read.
    async fn reader(&self, workspace: &str) -> SecretString {
        self.another_reader(workspace, 0).await
    }

    /// The same, a different one for each number.
    async fn another_reader(&self, workspace: &str, number: u8) -> SecretString {
        let mut seed = [workspace.len() as u8; 32];
        seed[0] = number;
        let mut rng = StdRng::from_seed(seed);
        let (secret, key) =
            ApiKey::generate("reader", Scope::Read, workspace, Timestamp::EPOCH, &mut rng);
        self.keys.create_key(key).await.unwrap();
        secret
    }

    /// Serves at a port of its own.
    fn serve(&self, config: ServeConfig) -> (SocketAddr, JoinHandle<()>) {
        self.serve_router(self.router.clone(), config)
    }

    fn serve_router(&self, router: Router, config: ServeConfig) -> (SocketAddr, JoinHandle<()>) {
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let stopped = self.stop.clone().cancelled_owned();
        (address, tokio::spawn(serve(listener, router, config, stopped)))
    }

    async fn ask(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

fn post(body: impl Into<Body>) -> Request<Body> {
    let request = Request::post("/api/claude-hooks").header("authorization", "Bearer key");
    request.body(body.into()).unwrap()
}

/// The head of a request with [`HOOK`] as its body.
fn raw_post() -> String {
    format!(
        "POST /api/claude-hooks HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer key\r\n\
         Content-Length: {}\r\n\r\n",
        HOOK.len()
    )
}

/// What comes until the connection ends, which it must.
async fn everything(mut stream: impl AsyncRead + Unpin) -> String {
    let mut text = Vec::new();
    let end = tokio::time::timeout(TIMEOUT, stream.read_to_end(&mut text)).await;
    // A connection that is reset has ended too.
    assert!(end.is_ok(), "the connection is still open: {}", String::from_utf8_lossy(&text));
    String::from_utf8_lossy(&text).into_owned()
}
