//! Listing events over HTTP.

use arrakis_core::record::job::key_uses::KeyUseJob;
use arrakis_core::record::key::ApiKey;
use arrakis_core::record::store::KeyStore;
use axum::body::Body;
use axum::http::Request;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::sync::Arc;

use super::{HOOK, Server, post};

async fn events(server: &Server, key: &SecretString, query: &str) -> (u16, Value) {
    let request = Request::get(format!("/api/events{query}"));
    let bearer = format!("Bearer {}", key.expose_secret());
    let request = request.header("authorization", bearer).body(Body::empty()).unwrap();
    let response = server.ask(request).await;
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn a_reader_lists_the_events_of_its_workspace() {
    let server = Server::new();
    let (main, other) = (server.reader("main").await, server.reader("another").await);
    for _ in 0..3 {
        server.ask(post(HOOK)).await;
    }
    let (status, page) = events(&server, &main, "?form=raw&discarded=false&limit=2").await;
    assert_eq!((status, page["events"].as_array().unwrap().len()), (200, 2));
    assert_eq!(page["events"][0]["eventType"], "UserPromptSubmit");
    let next = page["next"].as_str().unwrap();
    let (_, rest) = events(&server, &main, &format!("?form=raw&after={next}")).await;
    assert_eq!((rest["events"].as_array().unwrap().len(), &rest["next"]), (1, &Value::Null));
    for nothing in ["?host=h", "?user=u", "?project=/p", "?error=e", "?status=FAILED", "?type=Stop"]
    {
        let (status, page) = events(&server, &main, nothing).await;
        assert_eq!((status, page["events"].as_array().unwrap().len()), (200, 0), "{nothing}");
    }
    let (_, nothing) = events(&server, &main, "?since=2999-01-01T00:00:00Z").await;
    assert!(nothing["events"].as_array().unwrap().is_empty());
    let (_, nothing) = events(&server, &other, "").await;
    assert!(nothing["events"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_with_the_reason() {
    let server = Server::new();
    let main = server.reader("main").await;
    for (query, reason) in [
        ("?form=xml", "form"),
        ("?status=LOST", "status"),
        ("?since=yesterday", "since"),
        ("?discarded=maybe", "discarded"),
        ("?request=a%20b", "request"),
        ("?after=1", "after"),
        ("?limit=0", "limit"),
        ("?hots=h", "hots"),
    ] {
        let (status, answer) = events(&server, &main, query).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &"invalid_filter".into()), "{query}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(reason), "{query}: {message}");
    }
    let (status, _) = events(&server, &"key".into(), "").await;
    assert_eq!(status, 403, "a key that sends does not read");
}

#[tokio::test]
async fn a_request_leaves_the_time_of_its_key_s_use() {
    let server = Server::new();
    let (main, unused) = (server.reader("main").await, server.reader("another").await);
    events(&server, &main, "").await;
    let store = Arc::clone(&server.keys);
    let job = KeyUseJob::new(store, Arc::clone(&server.key_uses));
    job.run_once().await.unwrap();
    let used = async |key: &SecretString| {
        let id = ApiKey::id_of(key.expose_secret()).unwrap();
        server.keys.key(id).await.unwrap().unwrap().last_used_at
    };
    assert!(used(&main).await.is_some());
    assert_eq!(used(&unused).await, None);
}
