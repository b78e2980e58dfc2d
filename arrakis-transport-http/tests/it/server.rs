//! The server over a real socket, with a store in memory; and the client against it.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use arrakis_core::base::clock::{SystemClock, Timestamp};
use arrakis_core::base::digest::Digest;
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::base::id::RequestId;
use arrakis_core::base::limits::PAYLOAD_MAX_BYTES;
use arrakis_core::delivery::transport::{Transport, TransportError};
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::key::{ApiKey, Scope};
use arrakis_core::record::store::{
    DEFAULT_WORKSPACE, EventFilter, EventKey, EventReader, EventSummary, KeyStore,
    MemorySpoolReports, MemoryStore, Page, SpoolReports,
};
use arrakis_core::session::redact::Redactor;
use arrakis_core::testkit::transport::TransportFixture;
use arrakis_transport_http::client::{Endpoint, Endpoints, HttpConfig, HttpTransport};
use arrakis_transport_http::server::{ServeConfig, ServerConfig, ServerState, bind, router, serve};
use arrakis_transport_http::wire::encode_envelope;
use async_trait::async_trait;
use rand::SeedableRng;
use rand::rngs::StdRng;
use reqwest::{Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A server on a port of its own.
struct Server {
    store: Arc<MemoryStore>,
    spools: Arc<MemorySpoolReports>,
    url: String,
    key: SecretString,
    http: reqwest::Client,
    _stop: DropGuard,
}

async fn start() -> Server {
    let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let spools = Arc::new(MemorySpoolReports::default());
    let key = create_key(&store, Scope::Ingest, 1).await;
    let state = ServerState::new(
        Arc::<MemoryStore>::clone(&store),
        Arc::<MemoryStore>::clone(&store),
        Arc::new(SystemClock),
        Redactor::default(),
        ServerConfig {
            trusted_proxies: vec![[127, 0, 0, 1].into()],
            ingest_keys: vec!["key-of-the-environment".into()],
            spools: Arc::<MemorySpoolReports>::clone(&spools),
            ..ServerConfig::default()
        },
    );
    let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let url = format!("http://{}/api/claude-hooks", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    tokio::spawn(serve(listener, router(state), ServeConfig::default(), stopped));
    rustls::crypto::ring::default_provider().install_default().ok();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    Server { store, spools, url, key, http, _stop: stop.drop_guard() }
}

async fn create_key(store: &MemoryStore, scope: Scope, seed: u64) -> SecretString {
    let mut rng = StdRng::seed_from_u64(seed);
    let (secret, key) =
        ApiKey::generate("test", scope, DEFAULT_WORKSPACE, Default::default(), &mut rng);
    store.create_key(key).await.unwrap();
    secret
}

impl Server {
    fn post(&self, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        self.http.post(&self.url).bearer_auth(self.key.expose_secret()).body(body)
    }

    async fn rows(&self) -> Vec<EventSummary> {
        self.store.events(EventFilter::default(), Page::first(1000)).await.unwrap().events
    }

    async fn counts(&self) -> BTreeMap<EventStatus, u64> {
        self.store.counts().await.unwrap()
    }
}

/// The status and the JSON object of a response.
async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert!(body.is_object());
    (status, body)
}

fn code(body: &Value) -> &str {
    assert_eq!(body["success"], false);
    assert!(body["error"]["message"].is_string());
    body["error"]["code"].as_str().unwrap()
}

const HOOK: &str = r#"{"session_id":"s","hook_event_name":"UserPromptSubmit","prompt":"hello"}"#;

fn original(id: &str, trace: &str) -> String {
    format!(
        r#"{{"event":"UserPromptSubmit","timestamp":"2026-11-24T10:00:00Z","sessionId":"s-b",
        "projectPath":"/p","prompt":"hello","_trace":{{"requestId":"{id}",{trace}}}}}"#
    )
}

#[tokio::test]
async fn the_original_form_is_accepted_and_a_repeat_answered_as_the_first_time() {
    let server = start().await;
    let first =
        server.post(original("b-1", r#""timestamp":1,"traceId":"x""#)).send().await.unwrap();
    let (status, first) = read(first).await;
    assert_eq!(status, 200);
    assert_eq!(first["requestId"], "b-1");
    assert_eq!((&first["status"], &first["cached"]), (&json!("SUCCESS"), &json!(false)));
    assert!(first["conversationId"].is_string() && first["messageId"].is_string());

    let again =
        server.post(original("b-1", r#""timestamp":2,"traceId":"y""#)).send().await.unwrap();
    let (status, mut again) = read(again).await;
    assert_eq!(status, 200);
    assert_eq!((&again["cached"], &again["duplicate"]), (&json!(true), &json!(true)));
    again["cached"] = json!(false);
    again["duplicate"] = json!(false);
    assert_eq!(again, first);
    use EventStatus::{Duplicate, Success};
    assert_eq!(server.counts().await, BTreeMap::from([(Success, 1), (Duplicate, 1)]));
}

#[tokio::test]
async fn raw_hook_json_is_accepted_with_and_without_an_id() {
    let server = start().await;
    let named = || server.post(HOOK).header("X-Request-Id", "c-1").send();
    let response = named().await.unwrap();
    assert_eq!(response.headers()["x-request-id"], "c-1");
    assert_eq!(read(response).await.1["cached"], false);
    assert_eq!(read(named().await.unwrap()).await.1["cached"], true);
    let mut minted = Vec::new();
    for _ in 0..2 {
        let (status, body) = read(server.post(HOOK).send().await.unwrap()).await;
        assert_eq!((status, &body["cached"]), (200, &json!(false)));
        minted.push(body["requestId"].clone());
    }
    assert_ne!(minted[0], minted[1], "two posts without an id are two events");
    let event = server
        .store
        .event(DEFAULT_WORKSPACE, EventKey::Request("c-1".parse().unwrap()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(event.body.unwrap(), HOOK);
    assert_eq!(event.headers["authorization"], "[REDACTED]");
    assert_eq!(event.headers["x-request-id"], "c-1");
    assert_eq!(event.ip_address, Some([127, 0, 0, 1].into()));
}

#[tokio::test]
async fn secrets_in_forms_b_and_c_are_redacted_and_a_repeat_is_still_one() {
    let server = start().await;
    let body = r#"{"session_id":"s","hook_event_name":"Stop","x":"password=hunter2"}"#;
    for cached in [false, true] {
        let sent = server.post(body).header("X-Request-Id", "c-1").send().await.unwrap();
        assert_eq!(read(sent).await.1["cached"], cached);
    }
    let event = server
        .store
        .event(DEFAULT_WORKSPACE, EventKey::Request("c-1".parse().unwrap()))
        .await
        .unwrap()
        .unwrap();
    let stored = String::from_utf8(event.body.unwrap().to_vec()).unwrap();
    assert!(stored.contains("[REDACTED:password]") && !stored.contains("hunter2"), "{stored}");
    assert_eq!(json!(event.summary.metadata.redacted), json!({ "password": 1 }));
}

#[tokio::test]
async fn what_redaction_makes_longer_than_an_envelope_may_be_is_refused_and_its_ends_kept() {
    let server = start().await;
    let secrets = "http://b:c0rRect-horse@h ".repeat(620_000);
    let body = format!(r#"{{"session_id":"s","hook_event_name":"Stop","x":"{secrets}"}}"#);
    let sent = server.post(body).header("X-Request-Id", "c-1").send().await.unwrap();
    let (status, answer) = read(sent).await;
    assert_eq!((status, code(&answer)), (422, "too_long"));
    let event = server
        .store
        .event(DEFAULT_WORKSPACE, EventKey::Request("c-1".parse().unwrap()))
        .await
        .unwrap()
        .unwrap();
    let stored = String::from_utf8(event.body.unwrap().to_vec()).unwrap();
    assert_eq!(event.summary.status, EventStatus::Invalid);
    assert!(stored.starts_with(r#"{"session_id":"s""#) && !stored.contains("c0rRect"));
    assert!(stored.len() <= PAYLOAD_MAX_BYTES);
}

#[tokio::test]
async fn the_same_id_with_another_body_is_refused_and_the_first_untouched() {
    let server = start().await;
    let send = |body| server.post(body).header("X-Request-Id", "c-1").send();
    assert_eq!(send(HOOK).await.unwrap().status(), StatusCode::OK);
    let other = r#"{"session_id":"s","hook_event_name":"Stop"}"#;
    let (status, body) = read(send(other).await.unwrap()).await;
    assert_eq!((status, code(&body), &body["requestId"]), (422, "id_conflict", &json!("c-1")));
    let event = server
        .store
        .event(DEFAULT_WORKSPACE, EventKey::Request("c-1".parse().unwrap()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((event.summary.status, event.body.unwrap()), (EventStatus::Success, HOOK.into()));
}

#[tokio::test]
async fn what_is_invalid_is_refused_kept_and_may_be_sent_again_mended() {
    let server = start().await;
    let cases = [
        ("{\"broken", 400, "malformed_json"),
        ("", 400, "malformed_json"),
        ("[1]", 422, "not_an_event"),
        (r#"{"foo":"bar"}"#, 422, "not_an_event"),
        (r#"{"hook_event_name":"Stop"}"#, 422, "missing_session"),
        (r#"{"hook_event_name":7,"session_id":"s"}"#, 422, "missing_event"),
        (r#"{"event":"Stop"}"#, 422, "missing_session"),
        (r#"{"envelope":1,"digest":"sha256:00"}"#, 422, "invalid_envelope"),
    ];
    for (body, expected, word) in cases {
        let sent = server.post(body).header("X-Request-Id", "c-1").send().await.unwrap();
        let (status, answer) = read(sent).await;
        assert_eq!((status, code(&answer)), (expected, word), "{body}");
        assert_eq!(answer["requestId"], "c-1");
    }
    assert_eq!(server.counts().await[&EventStatus::Invalid], cases.len() as u64);
    let fixed = server.post(HOOK).header("X-Request-Id", "c-1").send().await.unwrap();
    assert_eq!(read(fixed).await.1["status"], "SUCCESS");
}

#[tokio::test]
async fn an_admin_key_takes_events_back_in_under_the_digest_that_they_had() {
    for (scope, expected) in [(Scope::Ingest, (422, "id_conflict")), (Scope::Admin, (200, ""))] {
        let server = start().await;
        let key = create_key(&server.store, scope, 3).await;
        let envelope = |payload: &str| {
            let (id, at) = ("e".parse().unwrap(), Timestamp::EPOCH);
            Envelope::new(id, at, "http://h/", Source::default(), payload.to_owned())
        };
        let first = envelope(HOOK);
        let mut back = envelope(&HOOK.replace("hello", "HELLO"));
        back.header.payload_digest = Some(back.header.digest);
        back.header.digest = first.header.digest;
        let send = async |envelope: &Envelope, key: &SecretString| {
            let body = encode_envelope(envelope);
            let sent = server.http.post(&server.url).bearer_auth(key.expose_secret()).body(body);
            read(sent.send().await.unwrap()).await
        };
        let (status, answer) = send(&back, &key).await;
        assert_eq!((status, &answer["digest"]), (200, &json!(first.header.digest)), "{scope}");
        let (status, answer) = send(&first, &server.key).await;
        assert_eq!(status, expected.0, "{scope}");
        assert_eq!(answer["error"]["code"].as_str().unwrap_or_default(), expected.1, "{scope}");
    }
}

#[tokio::test]
async fn without_a_valid_ingest_key_nothing_is_stored() {
    let server = start().await;
    let read_key = create_key(&server.store, Scope::Read, 2).await;
    let send = |header: Option<String>| {
        let request = server.http.post(&server.url).body(HOOK);
        match header {
            Some(value) => request.header("Authorization", value),
            None => request,
        }
        .send()
    };
    let key = server.key.expose_secret();
    let almost = format!("Bearer {}0", &key[..key.len() - 1]);
    for header in [None, Some("Bearer nonsense".to_owned()), Some(almost), Some(key.to_owned())] {
        let response = send(header).await.unwrap();
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        let (status, body) = read(response).await;
        assert_eq!((status, code(&body)), (401, "unauthorized"));
    }
    let forbidden = send(Some(format!("Bearer {}", read_key.expose_secret()))).await.unwrap();
    let (status, body) = read(forbidden).await;
    assert_eq!((status, code(&body)), (403, "forbidden"));
    assert!(server.rows().await.is_empty());

    assert_eq!(send(Some(format!("bearer {key}"))).await.unwrap().status(), 200);
    assert_eq!(send(Some("Bearer key-of-the-environment".to_owned())).await.unwrap().status(), 200);
    let api_key = server.http.post(&server.url).header("X-API-Key", key).body(HOOK);
    assert_eq!(api_key.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn bodies_are_expanded_within_limits() {
    let server = start().await;
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let send = |encoding: &'static str, body: Vec<u8>| {
        server.post(body).header("Content-Encoding", encoding).send()
    };
    assert_eq!(send("gzip", gzip(HOOK.as_bytes())).await.unwrap().status(), 200);
    assert_eq!(send("zstd", zstd(HOOK.as_bytes())).await.unwrap().status(), 200);
    let (status, body) = read(send("br", HOOK.into()).await.unwrap()).await;
    assert_eq!((status, code(&body)), (415, "unsupported_encoding"));
    let (status, body) = read(send("gzip", HOOK.into()).await.unwrap()).await;
    assert_eq!((status, code(&body)), (400, "undecodable_body"));
    let bomb = vec![b' '; 40 << 20];
    for (encoding, body) in [("gzip", gzip(&bomb)), ("zstd", zstd(&bomb))] {
        let (status, body) = read(send(encoding, body).await.unwrap()).await;
        assert_eq!((status, code(&body)), (413, "too_large"), "{encoding}");
    }
    let rows = server.rows().await;
    assert_eq!(rows.len(), 2);
}

#[tokio::test]
async fn a_batch_has_one_result_per_line_and_a_bad_line_harms_no_other() {
    let server = start().await;
    let url = format!("{}/batch", server.url);
    let send = |body: String| {
        server.http.post(&url).bearer_auth(server.key.expose_secret()).body(body).send()
    };
    let lines =
        [original("b-1", r#""a":1"#).replace('\n', ""), "{broken".to_owned(), HOOK.to_owned()];
    let (status, body) = read(send(lines.join("\n") + "\n\n").await.unwrap()).await;
    assert_eq!((status, &body["success"]), (200, &json!(true)));
    let results = body["results"].as_array().unwrap();
    assert_eq!(results.len(), 3);
    assert_eq!((&results[0]["success"], &results[0]["requestId"]), (&json!(true), &json!("b-1")));
    assert_eq!(code(&results[1]), "malformed_json");
    assert_eq!(results[2]["status"], "SUCCESS");
    use EventStatus::{Invalid, Success};
    assert_eq!(server.counts().await, BTreeMap::from([(Success, 2), (Invalid, 1)]));

    let (status, body) = read(send((HOOK.to_owned() + "\n").repeat(501)).await.unwrap()).await;
    assert_eq!((status, code(&body)), (413, "too_many_events"));
    let (status, body) = read(send("\n\n".to_owned()).await.unwrap()).await;
    assert_eq!((status, code(&body)), (400, "empty_batch"));
}

#[tokio::test]
async fn what_is_not_there_says_so_in_json_and_health_needs_no_key() {
    let server = start().await;
    let base = server.url.trim_end_matches("/api/claude-hooks").to_owned();
    let (status, body) =
        read(server.http.get(format!("{base}/nowhere")).send().await.unwrap()).await;
    assert_eq!((status, code(&body)), (404, "not_found"));
    let (status, body) = read(server.http.get(&server.url).send().await.unwrap()).await;
    assert_eq!((status, code(&body)), (405, "method_not_allowed"));
    for path in ["healthz", "readyz"] {
        let health = server.http.get(format!("{base}/{path}")).send().await.unwrap();
        assert_eq!(read(health).await, (200, json!({ "status": "ok" })));
    }
    let bad_id = server.post(HOOK).header("X-Request-Id", "a b").send().await.unwrap();
    let (status, body) = read(bad_id).await;
    assert_eq!((status, code(&body)), (400, "invalid_request_id"));
}

#[tokio::test]
async fn a_trusted_proxy_tells_the_clients_address() {
    let server = start().await;
    let sent = server
        .post(HOOK)
        .header("X-Request-Id", "c-1")
        .header("X-Forwarded-For", "6.6.6.6, 192.0.2.9");
    assert_eq!(sent.send().await.unwrap().status(), 200);
    let event = server
        .store
        .event(DEFAULT_WORKSPACE, EventKey::Request("c-1".parse().unwrap()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(event.ip_address, Some([192, 0, 2, 9].into()));
}

#[tokio::test]
async fn sixty_four_senders_of_one_id_get_one_answer() {
    let server = start().await;
    let sending = (0..64).map(|_| async {
        let sent = server.post(HOOK).header("X-Request-Id", "c-1").send().await.unwrap();
        let (status, mut body) = read(sent).await;
        assert_eq!(status, 200);
        let duplicate = body["duplicate"].as_bool().unwrap();
        (body["duplicate"], body["cached"]) = (json!(null), json!(null));
        (duplicate, body)
    });
    let answers = futures_util::future::join_all(sending).await;
    assert_eq!(answers.iter().filter(|(duplicate, _)| !duplicate).count(), 1);
    assert!(answers.iter().all(|(_, body)| *body == answers[0].1));
}

/// The client and the server together.
struct Pair(Server, Arc<HttpTransport>);

#[derive(Debug)]
struct OneKey(SecretString);

impl Endpoints for OneKey {
    fn endpoint(&self, destination: &str) -> Result<Endpoint, TransportError> {
        Ok(Endpoint::new(destination, self.0.clone()))
    }
}

async fn make() -> Pair {
    let server = start().await;
    let endpoints = Arc::new(OneKey(server.key.clone()));
    let transport = HttpTransport::new(HttpConfig::default(), endpoints);
    Pair(server, Arc::new(transport))
}

#[async_trait]
impl TransportFixture for Pair {
    fn transport(&self) -> Arc<dyn Transport> {
        Arc::<HttpTransport>::clone(&self.1)
    }

    fn destination(&self) -> String {
        self.0.url.clone()
    }

    async fn stored(&self, id: &RequestId) -> Option<Digest> {
        let event =
            self.0.store.event(DEFAULT_WORKSPACE, EventKey::Request(id.clone())).await.unwrap()?;
        event.body.map(|body| Digest::of(&body))
    }
}

mod transport {
    use super::make;
    arrakis_core::transport_conformance!(make);
}

mod client {
    use super::*;
    use arrakis_core::base::clock::Timestamp;
    use arrakis_core::base::conservation::{
        Balance, Counters, Present, SpoolReport, SpoolReporter,
    };
    use arrakis_core::base::envelope::{Envelope, Source};
    use arrakis_core::delivery::transport::{Batch, Fault};

    fn batch(destination: &str) -> Batch {
        let id = "r-1".parse().unwrap();
        let envelope =
            Envelope::new(id, Timestamp::EPOCH, destination, Source::default(), HOOK.as_bytes());
        Batch::one(Arc::new(envelope))
    }

    #[derive(Debug)]
    struct NoKeys;

    impl Endpoints for NoKeys {
        fn endpoint(&self, _: &str) -> Result<Endpoint, TransportError> {
            let (problem, remedy) = ("there is no key".to_owned(), "set one".to_owned());
            Err(TransportError::Misconfigured { problem, remedy })
        }
    }

    #[tokio::test]
    async fn a_receiver_that_is_not_there_is_unreachable() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/api/claude-hooks", listener.local_addr().unwrap());
        drop(listener);
        let endpoints = Arc::new(OneKey("k".into()));
        let transport = HttpTransport::new(HttpConfig::default(), endpoints);
        let error = transport.deliver(batch(&url)).await.unwrap_err();
        assert!(matches!(error, TransportError::Unreachable { .. }), "{error:?}");
    }

    #[derive(Debug)]
    struct Reporter(SpoolReport);

    impl SpoolReporter for Reporter {
        fn spool_report(&self) -> Option<SpoolReport> {
            Some(self.0.clone())
        }
    }

    #[tokio::test]
    async fn what_is_known_of_the_spool_goes_with_a_delivery_and_by_itself() {
        let server = start().await;
        let first = SpoolReport {
            spool_id: uuid::Uuid::from_u128(1),
            host: Some("h".to_owned()),
            user: None,
            home: None,
            version: None,
            observed_at: Timestamp::EPOCH,
            counters: Counters { captured: 3, delivered: 1, ..Counters::default() },
            present: Present { pending: 2, ..Present::default() },
            balance: Balance::Even,
            oldest_pending_age_ms: Some(9),
            full: false,
            receivers: Vec::new(),
            last_error: None,
        };
        let endpoints = Arc::new(OneKey(server.key.clone()));
        let transport = HttpTransport::new(HttpConfig::default(), endpoints);
        let transport = transport.with_reporter(Arc::new(Reporter(first.clone())));
        transport.deliver(batch(&server.url)).await.unwrap();
        let last = SpoolReport { full: true, ..first.clone() };
        transport.report(&server.url, last.clone()).await.unwrap();
        let spools = server.spools.spools(DEFAULT_WORKSPACE, 10).await.unwrap();
        let reports: Vec<_> = spools.into_iter().map(|heard| heard.report).collect();
        assert_eq!(reports, [last]);
        let wrong = transport.report("http://127.0.0.1:1/", first).await.unwrap_err();
        assert!(matches!(wrong, TransportError::Unreachable { .. }), "{wrong:?}");
    }

    #[tokio::test]
    async fn without_a_key_nothing_is_sent() {
        let transport = HttpTransport::new(HttpConfig::default(), Arc::new(NoKeys));
        let error = transport.deliver(batch("http://127.0.0.1:9/")).await.unwrap_err();
        assert_eq!(error.fault(), Fault::Configuration);
    }

    #[tokio::test]
    async fn a_wrong_key_and_a_wrong_path_hold_delivery() {
        let server = start().await;
        for (url, key) in [
            (server.url.clone(), "wrong".into()),
            (format!("{}/x", server.url), server.key.clone()),
        ] {
            let transport = HttpTransport::new(HttpConfig::default(), Arc::new(OneKey(key)));
            let error = transport.deliver(batch(&url)).await.unwrap_err();
            assert_eq!(error.fault(), Fault::Configuration, "{error}");
        }
    }
}
