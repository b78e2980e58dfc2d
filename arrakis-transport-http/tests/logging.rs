//! What the server says of its work. Tests of logs have a process of their own: elsewhere other tests
//! run without a subscriber, and where the first to pass a log line has none, it stays off for all.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrakis_core::base::clock::SystemClock;
use arrakis_core::record::store::{EventStore, KeyStore, MemoryStore};
use arrakis_core::session::redact::Redactor;
use arrakis_core::testkit::fakes::{Fault, FaultyStore};
use arrakis_transport_http::server::{ServeConfig, ServerConfig, ServerState, bind, router, serve};
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::subscriber::DefaultGuard;

/// A writer whose text can be read by whoever holds a clone.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Gathers what this thread logs.
    fn gather() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || writer.clone());
        (log, tracing::subscriber::set_default(subscriber.finish()))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn each_of_the_ten_steps_is_traced_with_the_request_id_and_no_key_or_payload() {
    let (log, _gathering) = Log::gather();
    let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let state = ServerState::new(
        Arc::clone(&store) as Arc<dyn EventStore>,
        Arc::clone(&store) as Arc<dyn KeyStore>,
        Arc::new(SystemClock),
        Redactor::default(),
        ServerConfig { ingest_keys: vec!["key-of-a-test".into()], ..ServerConfig::default() },
    );
    let request = Request::post("/api/claude-hooks")
        .header("authorization", "Bearer key-of-a-test")
        .header("x-request-id", "c-10")
        .body(Body::from(
            r#"{"session_id":"s","hook_event_name":"UserPromptSubmit","prompt":"hello"}"#,
        ));
    let answer = router(state).oneshot(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let text = log.text();
    let steps = [
        "extract metadata",
        "authenticate",
        "parse",
        "read the trace",
        "check duplicate",
        "validate",
        "record",
        "process",
        "finish",
        "answer",
    ];
    for step in steps {
        let wanted = format!("step=\"{step}\"");
        let traced = text.lines().any(|line| line.contains(&wanted) && line.contains("c-10"));
        assert!(traced, "{step}: {text}");
    }
    assert!(!text.contains("key-of-a-test") && !text.contains("hello"), "{text}");
}

#[tokio::test]
async fn an_event_that_is_not_stored_is_logged_with_its_request_id() {
    let (log, _gathering) = Log::gather();
    let memory = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let store = Arc::new(FaultyStore::new(Arc::clone(&memory) as Arc<dyn EventStore>));
    store.set(Fault::Unavailable);
    let state = ServerState::new(
        store,
        memory,
        Arc::new(SystemClock),
        Redactor::default(),
        ServerConfig { ingest_keys: vec!["key-of-a-test".into()], ..ServerConfig::default() },
    );
    let request = Request::post("/api/claude-hooks")
        .header("authorization", "Bearer key-of-a-test")
        .header("x-request-id", "c-503")
        .body(Body::from(r#"{"session_id":"s","hook_event_name":"Stop"}"#));
    let answer = router(state).oneshot(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), 503);
    let text = log.text();
    let is_told =
        |line: &str| line.contains("event not stored") && line.contains("request_id=c-503");
    assert!(text.lines().any(is_told), "{text}");
}

#[tokio::test]
async fn how_many_requests_were_given_up_at_the_shutdown_is_logged() {
    let (log, _gathering) = Log::gather();
    let begun = Arc::new(Notify::new());
    let seen = Arc::clone(&begun);
    let never = move || async move {
        seen.notify_one();
        std::future::pending::<()>().await;
    };
    let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let config = ServeConfig { grace: Duration::from_millis(50), ..ServeConfig::default() };
    let stopped = stop.clone().cancelled_owned();
    let serving = serve(listener, Router::new().route("/", get(never)), config, stopped);
    let serving = tokio::spawn(serving);
    let mut idle = TcpStream::connect(address).await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        begun.notified().await;
        clients.push(client);
    }
    stop.cancel();
    serving.await.unwrap();
    let text = log.text();
    assert!(
        text.lines().any(|line| line.contains("gave up requests") && line.contains("requests=2")),
        "{text}"
    );
    // Nobody is left hanging.
    for client in clients.iter_mut().chain([&mut idle]) {
        assert_eq!(client.read(&mut [0; 8]).await.unwrap_or(0), 0);
    }
}
