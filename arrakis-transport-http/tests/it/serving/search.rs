//! Searching conversations over HTTP.

use arrakis_core::base::limits::SEARCH_PAGE_BYTES;
use arrakis_core::testkit::fakes::Fault;
use axum::body::Body;
use axum::http::Request;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{HOOK, Server, get, post};

fn asking(key: &SecretString, query: &str) -> Request<Body> {
    let request = Request::get(format!("/api/search{query}"));
    let bearer = format!("Bearer {}", key.expose_secret());
    request.header("authorization", bearer).body(Body::empty()).unwrap()
}

async fn search(server: &Server, key: &SecretString, query: &str) -> (u16, Value) {
    let response = server.ask(asking(key, query)).await;
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
async fn an_answer_is_small_however_large_what_is_found_is() {
    let server = Server::new();
    let main = server.reader("main").await;
    let long = "x".repeat(100_000);
    for n in 0..60 {
        let hook = serde_json::json!({"session_id": "s", "cwd": format!("/{long}"), "prompt_id": n.to_string(),
            "hook_event_name": "UserPromptSubmit", "prompt": format!("hello {n} {long}")});
        assert_eq!(server.ask(post(hook.to_string())).await.status(), 200);
    }
    let (mut hits, mut after, mut pages) = (0, String::new(), 0);
    loop {
        let (_, page) = search(&server, &main, &format!("?text=hello&limit=60{after}")).await;
        assert!(page.to_string().len() < 2 * SEARCH_PAGE_BYTES, "{}", page.to_string().len());
        hits += page["hits"].as_array().unwrap().len();
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(hits, 60);
    assert_eq!(pages, 2, "a page ends by its bytes");
}

#[tokio::test]
async fn a_search_that_takes_too_long_or_finds_no_place_is_told_what_to_do() {
    let server = Server::new();
    let main = server.reader("main").await;
    server.store.set(Fault::SearchTimeout);
    let (status, answer) = search(&server, &main, "?text=x").await;
    assert_eq!((status, &answer["error"]["code"]), (422, &"search_timeout".into()));
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("longer than 5s") && message.contains("narrow it"), "{message}");
    server.store.set(Fault::SearchesBusy);
    let (status, answer) = search(&server, &main, "?text=x").await;
    assert_eq!((status, &answer["error"]["code"]), (503, &"too_many_searches".into()));
    let answer = server.ask(asking(&main, "?text=x")).await;
    assert_eq!(answer.headers()["retry-after"], "1");
}

#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let server = Server::new();
    let main = server.reader("main").await;
    for query in [
        "?limit=0",
        "?limit=101",
        "?after=x",
        "?outcome=good",
        "?since=1",
        "?words=x",
        "?text=",
        "?text=%3F",
        "?text=ab*",
    ] {
        let (status, answer) = search(&server, &main, query).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &"invalid_search".into()), "{query}");
    }
    assert_eq!(server.ask(get("/api/search?text=x")).await.status(), 401);
    let (status, _) = search(&server, &SecretString::from("key"), "?text=x").await;
    assert_eq!(status, 403, "a key that sends may not read");
}
