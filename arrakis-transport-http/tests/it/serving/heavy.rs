//! Large bodies beside small ones, on a runtime of one thread.

use axum::body::Body;
use axum::http::{Request, Response};
use parking_lot::Mutex;

use super::{HOOK, Server, get, post};

/// Sends `big`, and small requests while it is being answered; returns its answer. All run on one thread, where a
/// request is polled until it waits: work that `big` does there is done before the small requests begin.
async fn beside_small_ones(server: &Server, big: Request<Body>) -> Response<Body> {
    let answered = Mutex::new(Vec::new());
    let ask = async |name, request| {
        let answer = server.ask(request).await;
        answered.lock().push(name);
        answer
    };
    let (big, small, health) = tokio::join!(
        biased;
        ask("big", big),
        ask("small", post(HOOK)),
        ask("health", get("/healthz")),
    );
    assert_eq!(
        (small.status(), health.status()),
        (200.try_into().unwrap(), 200.try_into().unwrap())
    );
    assert_eq!(*answered.lock(), ["small", "health", "big"]);
    big
}

#[tokio::test]
async fn expanding_a_large_body_delays_no_other_request() {
    let body = [HOOK.as_bytes(), &vec![b'\n'; 30 << 20]].concat();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &body).unwrap();
    let zstd = zstd::encode_all(&body[..], 1).unwrap();
    for (encoding, compressed) in [("gzip", gzip.finish().unwrap()), ("zstd", zstd)] {
        let server = Server::new();
        let big = Request::post("/api/claude-hooks/batch").header("authorization", "Bearer key");
        let big = big.header("content-encoding", encoding).body(compressed.into()).unwrap();
        assert_eq!(beside_small_ones(&server, big).await.status(), 200, "{encoding}");
    }
}

#[tokio::test]
async fn judging_a_large_body_delays_no_other_request() {
    let prompt = "many words ".repeat(100_000);
    let hook = HOOK.replace("hello", &prompt);
    for path in ["/api/claude-hooks", "/api/claude-hooks/batch"] {
        let server = Server::new();
        let big = Request::post(path).header("authorization", "Bearer key");
        let big = big.body(hook.clone().into()).unwrap();
        assert_eq!(beside_small_ones(&server, big).await.status(), 200, "{path}");
    }
}
