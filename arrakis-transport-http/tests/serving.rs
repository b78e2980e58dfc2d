//! How the server treats connections and a store that is away: limits, TLS, shutdown, the live feed.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::clock::{ManualClock, SystemClock, Timestamp};
use arrakis_core::key::{ApiKey, Scope};
use arrakis_core::redact::Redactor;
use arrakis_core::store::{EventStore, KeyStore, MemoryStore};
use arrakis_core::testkit::event_store::Arrivals;
use arrakis_core::testkit::fakes::{Fault, FaultyStore};
use arrakis_transport_http::server::{
    ServeConfig, ServerConfig, ServerState, Tls, bind, router, serve,
};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use rand::SeedableRng;
use rand::rngs::StdRng;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const HOOK: &str = r#"{"session_id":"s","hook_event_name":"UserPromptSubmit","prompt":"hello"}"#;

/// A server in this process, and what a test does to it.
struct Server {
    store: Arc<FaultyStore>,
    router: Router,
    keys: Arc<MemoryStore>,
    stop: CancellationToken,
}

impl Server {
    fn new() -> Self {
        let memory = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
        let store = Arc::new(FaultyStore::new(Arc::clone(&memory) as Arc<dyn EventStore>));
        let stop = CancellationToken::new();
        let config = ServerConfig {
            ingest_keys: vec!["key".into()],
            shutdown: stop.clone(),
            ..ServerConfig::default()
        };
        let state = ServerState::new(
            Arc::clone(&store) as Arc<dyn EventStore>,
            Arc::clone(&memory) as Arc<dyn KeyStore>,
            Arc::new(SystemClock),
            Redactor::default(),
            config,
        );
        Self { store, router: router(state), keys: memory, stop }
    }

    /// A key that may read.
    async fn reader(&self, workspace: &str) -> SecretString {
        let mut rng = StdRng::from_seed([workspace.len() as u8; 32]);
        let (secret, key) =
            ApiKey::generate("reader", Scope::Read, workspace, Timestamp::EPOCH, &mut rng);
        self.keys.create_key(key).await.unwrap();
        secret
    }

    /// Serves at a port of its own.
    fn serve(&self, config: ServeConfig) -> (SocketAddr, JoinHandle<()>) {
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let stopped = self.stop.clone().cancelled_owned();
        (address, tokio::spawn(serve(listener, self.router.clone(), config, stopped)))
    }

    async fn ask(&self, request: Request<Body>) -> Response<Body> {
        let mut request = request;
        let peer = SocketAddr::from(([127, 0, 0, 1], 9));
        request.extensions_mut().insert(axum::extract::ConnectInfo(peer));
        self.router.clone().oneshot(request).await.unwrap()
    }
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

fn post() -> Request<Body> {
    let request = Request::post("/api/claude-hooks").header("authorization", "Bearer key");
    request.body(HOOK.into()).unwrap()
}

/// The head of a request with this body, and the body.
fn raw_post() -> (String, &'static str) {
    let head = format!(
        "POST /api/claude-hooks HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer key\r\n\
         Content-Length: {}\r\n\r\n",
        HOOK.len()
    );
    (head, HOOK)
}

async fn everything(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A connection that is reset has ended too.
    stream.read_to_end(&mut text).await.ok();
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn what_was_accepted_is_answered_after_the_shutdown_and_nobody_new_is() {
    let server = Server::new();
    let (address, serving) = server.serve(ServeConfig::default());
    let mut half = TcpStream::connect(address).await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    let (head, body) = raw_post();
    idle.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    half.write_all(head.as_bytes()).await.unwrap();
    half.write_all(&body.as_bytes()[..10]).await.unwrap();
    // The server has the beginning once it answers a request that came later.
    let mut other = TcpStream::connect(address).await.unwrap();
    other.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    other.read_exact(&mut answer).await.unwrap();

    server.stop.cancel();
    everything(idle).await; // ends: nobody waits for a client that asks nothing
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    half.write_all(&body.as_bytes()[10..]).await.unwrap();
    let answer = everything(half).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    serving.await.unwrap();
}

#[tokio::test]
async fn a_request_that_never_ends_is_given_up_after_the_grace() {
    let server = Server::new();
    let grace = Duration::from_millis(50);
    let (address, serving) = server.serve(ServeConfig { grace, ..ServeConfig::default() });
    let mut stuck = TcpStream::connect(address).await.unwrap();
    stuck.write_all(raw_post().0.as_bytes()).await.unwrap();
    server.stop.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn clients_that_do_not_come_to_the_point_are_sent_away() {
    let server = Server::new();
    let header_timeout = Duration::from_millis(100);
    let (address, _) = server.serve(ServeConfig { header_timeout, ..ServeConfig::default() });
    for beginning in ["", "P", "PRI * HT", "POST /api/claude-hooks HTTP/1.1\r\nHost: h\r\n"] {
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(beginning.as_bytes()).await.unwrap();
        let answer = everything(slow).await;
        assert!(!answer.contains(" 200 "), "{beginning:?}: {answer}");
    }
}

#[tokio::test]
async fn who_comes_past_the_limit_of_connections_waits() {
    let server = Server::new();
    let (address, _) = server.serve(ServeConfig { connections: 1, ..ServeConfig::default() });
    let ask = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(ask).await.unwrap();
    first.read_u8().await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    second.write_all(ask).await.unwrap();
    let waits = tokio::time::timeout(Duration::from_millis(100), second.read_u8()).await;
    assert!(waits.is_err(), "the second is not answered while the first is there");
    drop(first);
    assert_eq!(second.read_u8().await.unwrap(), b'H');
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = Server::new();
    let (address, _) = server.serve(ServeConfig::default());
    let mut client = TcpStream::connect(address).await.unwrap();
    let long = format!("GET /healthz HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    client.write_all(long.as_bytes()).await.ok();
    let answer = everything(client).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn readiness_turns_red_when_the_store_is_away_or_hangs_and_green_again() {
    let server = Server::new();
    assert_eq!(server.ask(get("/readyz")).await.status(), 200);
    for fault in [Fault::Unavailable, Fault::Hanging] {
        server.store.set(fault);
        tokio::time::sleep(Duration::from_secs(1)).await; // the last answer is out of date
        let before = tokio::time::Instant::now();
        let (one, two) = tokio::join!(server.ask(get("/readyz")), server.ask(get("/readyz")));
        assert!(before.elapsed() <= Duration::from_secs(2));
        assert_eq!(
            (one.status(), two.status()),
            (503.try_into().unwrap(), 503.try_into().unwrap())
        );
        assert!(one.headers().contains_key("retry-after"));
        assert_eq!(server.ask(get("/healthz")).await.status(), 200);
    }
    server.store.set(Fault::None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.ask(get("/readyz")).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_ends_in_503_and_not_in_hanging_clients() {
    let server = Server::new();
    for fault in [Fault::Unavailable, Fault::Hanging] {
        server.store.set(fault);
        let answer = server.ask(post()).await;
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], "1");
    }
    server.store.set(Fault::None);
    assert_eq!(server.ask(post()).await.status(), 200);
}

/// Writes a certificate for localhost, and its key; returns the certificate.
fn certify(folder: &std::path::Path) -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    made.cert.pem()
}

#[tokio::test]
async fn https_is_spoken_and_a_renewed_certificate_is_taken() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let server = Server::new();
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    assert!(Tls::load(&cert, &key).unwrap_err().to_string().contains("cert.pem"));
    let first = certify(folder.path());
    let tls = Tls::load(&cert, &key).unwrap();
    let config = ServeConfig { tls: Some(tls.clone()), ..ServeConfig::default() };
    let (address, _) = server.serve(config);
    let trusting = |pem: &str| {
        let root = reqwest::Certificate::from_pem(pem.as_bytes()).unwrap();
        reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().unwrap()
    };
    let url = format!("https://localhost:{}/healthz", address.port());
    assert_eq!(trusting(&first).get(&url).send().await.unwrap().status(), 200);

    let second = certify(folder.path());
    // Not every file system tells two moments apart that are close.
    let later = std::time::SystemTime::now() + Duration::from_secs(5);
    std::fs::File::options().append(true).open(&cert).unwrap().set_modified(later).unwrap();
    tls.reload().unwrap();
    assert_eq!(trusting(&second).get(&url).send().await.unwrap().status(), 200);
    assert!(trusting(&first).get(&url).send().await.is_err());

    std::fs::write(&cert, "no certificate").unwrap();
    assert!(tls.reload().is_err());
    assert_eq!(trusting(&second).get(&url).send().await.unwrap().status(), 200);
    // Who speaks plain HTTP to it is not served, and harms nobody.
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    assert!(!everything(plain).await.contains("200"));
}

/// A listener of the live feed.
struct Listener(BufReader<TcpStream>);

impl Listener {
    async fn open(address: SocketAddr, key: &SecretString, after: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let after = after.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let request = format!(
            "GET /api/live HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\n{after}\r\n",
            key.expose_secret()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        Self(BufReader::new(stream))
    }

    async fn line(&mut self) -> Option<String> {
        use tokio::io::AsyncBufReadExt;
        let mut line = String::new();
        (self.0.read_line(&mut line).await.unwrap_or(0) > 0).then(|| line.trim_end().to_owned())
    }

    /// The next event: its id and its data.
    async fn next(&mut self, kind: &str) -> Option<(Option<String>, String)> {
        let wanted = format!("event: {kind}");
        while self.line().await? != wanted {}
        let (mut id, mut data) = (None, String::new());
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some((id, data));
            }
            if let Some(text) = line.strip_prefix("id: ") {
                id = Some(text.to_owned());
            }
            data.push_str(line.strip_prefix("data: ").unwrap_or_default());
        }
    }
}

#[tokio::test]
async fn the_live_feed_shows_the_workspace_and_goes_on_where_it_was_left() {
    let server = Server::new();
    let (address, serving) = server.serve(ServeConfig::default());
    let (mine, others) = (server.reader("main").await, server.reader("elsewhere").await);
    let mut listener = Listener::open(address, &mine, None).await;
    let mut stranger = Listener::open(address, &others, None).await;
    listener.next("ready").await.unwrap();
    stranger.next("ready").await.unwrap();
    let mut arrivals = Arrivals::new(Arc::new(ManualClock::new(Timestamp::EPOCH)));
    server.store.record(vec![arrivals.prompt("a", "s"), arrivals.prompt("b", "s")]).await.unwrap();
    let (id, first) = listener.next("event").await.unwrap();
    assert!(first.contains(r#""requestId":"a""#) && id.is_none(), "{first}");
    let (id, second) = listener.next("event").await.unwrap();
    assert!(second.contains(r#""requestId":"b""#), "{second}");
    drop(listener);

    server.store.record(vec![arrivals.prompt("c", "s")]).await.unwrap();
    let mut again = Listener::open(address, &mine, id.as_deref()).await;
    let (_, third) = again.next("event").await.unwrap();
    assert!(third.contains(r#""requestId":"c""#), "{third}");

    // A store that is away for a while interrupts nothing.
    server.store.set(Fault::Unavailable);
    server.store.set(Fault::None);
    server.store.record(vec![arrivals.prompt("d", "s")]).await.unwrap();
    assert!(again.next("event").await.unwrap().1.contains(r#""requestId":"d""#));

    server.stop.cancel();
    assert!(again.next("event").await.is_none(), "the stream ends");
    assert!(stranger.next("event").await.is_none(), "and nothing of it was the stranger's");
    serving.await.unwrap();
}

#[tokio::test]
async fn the_live_feed_asks_for_a_key_that_reads_and_a_position_that_it_gave() {
    let server = Server::new();
    assert_eq!(server.ask(get("/api/live")).await.status(), 401);
    let as_who = |key: &str, after: &str| {
        let request = Request::get("/api/live").header("authorization", format!("Bearer {key}"));
        request.header("last-event-id", after).body(Body::empty()).unwrap()
    };
    assert_eq!(server.ask(as_who("key", "")).await.status(), 403);
    let reader = server.reader("main").await;
    let lost = server.ask(as_who(reader.expose_secret(), "of another store")).await;
    assert_eq!(lost.status(), 422);
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(server.ask(as_who(reader.expose_secret(), "0")).await);
    }
    assert!(open.iter().all(|answer| answer.status() == 200));
    assert_eq!(server.ask(as_who(reader.expose_secret(), "0")).await.status(), 429);
    drop(open);
    assert_eq!(server.ask(as_who(reader.expose_secret(), "0")).await.status(), 200);
}
