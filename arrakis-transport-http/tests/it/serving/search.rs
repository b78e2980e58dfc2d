//! Searching conversations over HTTP.

use axum::body::Body;
use axum::http::Request;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{HOOK, Server, get, post};

async fn search(server: &Server, key: &SecretString, query: &str) -> (u16, Value) {
    let request = Request::get(format!("/api/search{query}"));
    let bearer = format!("Bearer {}", key.expose_secret());
    let request = request.header("authorization", bearer).body(Body::empty()).unwrap();
    let response = server.ask(request).await;
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn a_reader_searches_its_workspace() {
    let server = Server::new();
    let (main, other) = (server.reader("main").await, server.reader("another").await);
    server.ask(post(HOOK)).await;
    server.ask(post(HOOK.replace("hello", "hello again"))).await;
    let (status, page) = search(&server, &main, "?text=hello&limit=1&role=user").await;
    assert_eq!(status, 200);
    assert_eq!(page["hits"][0]["sessionId"], "s");
    assert_eq!(page["hits"][0]["snippet"][0]["match"], true);
    let next = page["next"].as_str().unwrap();
    let (_, rest) = search(&server, &main, &format!("?text=hello&after={next}")).await;
    assert_eq!((rest["hits"].as_array().unwrap().len(), &rest["next"]), (1, &Value::Null));
    assert_ne!(rest["hits"][0]["id"], page["hits"][0]["id"]);
    let (_, nothing) = search(&server, &main, "?text=hello&since=2999-01-01T00:00:00Z").await;
    assert!(nothing["hits"].as_array().unwrap().is_empty());
    let (_, nothing) = search(&server, &other, "?text=hello").await;
    assert!(nothing["hits"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let server = Server::new();
    let main = server.reader("main").await;
    for query in ["?limit=0", "?limit=101", "?after=x", "?outcome=good", "?since=1", "?words=x"] {
        let (status, answer) = search(&server, &main, query).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &"invalid_search".into()), "{query}");
    }
    assert_eq!(server.ask(get("/api/search?text=x")).await.status(), 401);
    let (status, _) = search(&server, &SecretString::from("key"), "?text=x").await;
    assert_eq!(status, 403, "a key that sends may not read");
}
