//! Reports of spools: with deliveries, by themselves, and as readers see them.

use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::conservation::{Balance, Counters, Present, SpoolReport};
use arrakis_core::record::store::{HeardSpool, MemorySpoolReports, SpoolReports, StoreError};
use arrakis_transport_http::wire::encode_report;
use async_trait::async_trait;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::time::sleep;
use uuid::Uuid;

use super::{HOOK, Server, post};

/// A report of the `spool`-th spool that has captured this much.
pub(super) fn report(spool: u128, captured: u64) -> String {
    encode_report(SpoolReport {
        spool_id: Uuid::from_u128(spool),
        host: Some("Zoë's".to_owned()),
        user: None,
        home: None,
        version: None,
        observed_at: Timestamp::EPOCH,
        counters: Counters { captured, ..Counters::default() },
        present: Present { pending: captured, ..Present::default() },
        balance: Balance::Even,
        oldest_pending_age_ms: None,
        full: false,
        receivers: Vec::new(),
        last_error: None,
    })
}

fn with_report(mut request: Request<Body>, report: impl AsRef<[u8]>) -> Request<Body> {
    let value = HeaderValue::from_bytes(report.as_ref()).unwrap();
    request.headers_mut().insert("x-arrakis-spool", value);
    request
}

async fn json(response: Response<Body>) -> Value {
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

fn spools(key: &SecretString, query: &str) -> Request<Body> {
    let request = Request::get(format!("/api/spools{query}"));
    let bearer = format!("Bearer {}", key.expose_secret());
    request.header("authorization", bearer).body(Body::empty()).unwrap()
}

/// What a reader sees: which spools, and what each has captured.
async fn seen(server: &Server, key: &SecretString) -> Vec<(String, u64)> {
    // A report is kept beside the delivery. Time is the test's own: it passes when all else waits.
    sleep(Duration::from_millis(1)).await;
    let answer = json(server.ask(spools(key, "")).await).await;
    let spools = answer["spools"].as_array().unwrap();
    let of = |spool: &Value| {
        let id = spool["spoolId"].as_str().unwrap().trim_start_matches(['0', '-']).to_owned();
        (id, spool["captured"].as_u64().unwrap())
    };
    spools.iter().map(of).collect()
}

#[tokio::test(start_paused = true)]
async fn a_delivery_tells_of_its_spool_and_readers_of_its_workspace_see_the_newest() {
    let server = Server::new();
    let (main, other) = (server.reader("main").await, server.reader("another").await);
    assert_eq!(server.ask(with_report(post(HOOK), report(1, 10))).await.status(), 200);
    let mut batch = post(HOOK);
    *batch.uri_mut() = "/api/claude-hooks/batch".parse().unwrap();
    assert_eq!(server.ask(with_report(batch, report(2, 20))).await.status(), 200);
    let mut both = seen(&server, &main).await;
    both.sort();
    assert_eq!(both, [("1".to_owned(), 10), ("2".to_owned(), 20)]);
    assert!(seen(&server, &other).await.is_empty());

    // Within a moment more are heard than kept, and the last of them is kept when it is over.
    for captured in [11, 12] {
        server.ask(with_report(post(HOOK), report(1, captured))).await;
        assert!(seen(&server, &main).await.contains(&("1".to_owned(), 10)));
    }
    sleep(Duration::from_secs(5)).await;
    assert!(seen(&server, &main).await.contains(&("1".to_owned(), 12)));
    sleep(Duration::from_secs(5)).await;
    server.ask(with_report(post(HOOK), report(1, 13))).await;
    assert!(seen(&server, &main).await.contains(&("1".to_owned(), 13)));
    let answer = json(server.ask(spools(&main, "?limit=1")).await).await;
    let spool = &answer["spools"][0];
    assert_eq!((&spool["host"], &spool["balance"]["verdict"]), (&"Zoë's".into(), &"even".into()));
    assert!(spool["heardAt"].is_string());
}

#[tokio::test(start_paused = true)]
async fn a_report_that_is_none_fails_no_delivery() {
    let server = Server::new();
    let reader = server.reader("main").await;
    let long = "x".repeat(60_000);
    let deep = "[".repeat(4000);
    let foreign = report(1, 1).replace("spoolId", "spoolld");
    let garbage: [&[u8]; 8] = [
        b"",
        b"\xff\xfe\x80",
        b"{}",
        b"null",
        long.as_bytes(),
        deep.as_bytes(),
        foreign.as_bytes(),
        b"{\"spoolId\":\"00000000-0000-0000-0000-000000000001\"}",
    ];
    for garbage in garbage {
        let answer = json(server.ask(with_report(post(HOOK), garbage)).await).await;
        assert_eq!(answer["success"], true, "{answer}");
    }
    assert!(seen(&server, &reader).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_report_may_come_by_itself_with_a_key_of_scope_ingest_only() {
    let server = Server::new();
    let reader = server.reader("main").await;
    let by_itself = |body: String, key: &str| {
        let request = Request::post("/api/spools").header("authorization", format!("Bearer {key}"));
        request.body(Body::from(body)).unwrap()
    };
    for captured in [1, 2] {
        let answer = server.ask(by_itself(report(7, captured), "key")).await;
        assert_eq!(json(answer).await["success"], true);
    }
    assert_eq!(seen(&server, &reader).await, [("7".to_owned(), 2)]);

    let refused = [
        (by_itself(report(7, 3), reader.expose_secret()), 403, "forbidden"),
        (by_itself(report(7, 3), "wrong"), 401, "unauthorized"),
        (by_itself("{}".to_owned(), "key"), 422, "invalid_report"),
        (by_itself("x".repeat(5000), "key"), 413, "too_large"),
        (spools(&"key".into(), ""), 403, "forbidden"),
        (spools(&reader, "?limit=0"), 400, "invalid_limit"),
        (spools(&reader, "?limit=10001"), 400, "invalid_limit"),
        (spools(&reader, "?limit=x"), 400, "invalid_limit"),
    ];
    for (request, status, code) in refused {
        let answer = server.ask(request).await;
        assert_eq!(answer.status(), status, "{code}");
        assert_eq!(json(answer).await["error"]["code"], code);
    }
    assert_eq!(seen(&server, &reader).await, [("7".to_owned(), 2)]);
}

/// Reports are kept in a store that hangs or is away.
#[derive(Debug)]
struct Broken {
    hangs: bool,
}

#[async_trait]
impl SpoolReports for Broken {
    async fn report_spool(&self, _: &str, _: HeardSpool, _: usize) -> Result<(), StoreError> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Err(StoreError::Unavailable { what: "test".to_owned(), source: "away".into() })
    }

    async fn spools(&self, workspace: &str, limit: usize) -> Result<Vec<HeardSpool>, StoreError> {
        MemorySpoolReports::default().spools(workspace, limit).await
    }

    async fn spool_history(
        &self,
        workspace: &str,
        spool: Uuid,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<HeardSpool>, StoreError> {
        MemorySpoolReports::default().spool_history(workspace, spool, since, until).await
    }

    async fn prune_spool_history(&self, _: Timestamp, _: usize) -> Result<u64, StoreError> {
        Ok(0)
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_keeps_no_reports_delays_and_fails_no_delivery() {
    for hangs in [false, true] {
        let server = Server::with_spools(Arc::new(Broken { hangs }));
        let began = tokio::time::Instant::now();
        for spool in 0..20 {
            let answer = server.ask(with_report(post(HOOK), report(spool, 1))).await;
            assert_eq!(answer.status(), 200);
        }
        // Time is the test's own: none has passed, so nobody has waited.
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
