//! The pages of the dashboard, as a browser asks for them.

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::key::{ApiKey, Scope};
use arrakis_core::record::store::{EventFilter, EventReader, KeyStore, Page, Rollups};
use axum::body::Body;
use axum::http::request::Builder;
use axum::http::{Request, Response};
use rand::SeedableRng;
use rand::rngs::StdRng;
use secrecy::ExposeSecret;
use serde_json::Value;

use super::{Server, get, post};

/// The pages that somebody who is signed in may read.
const PAGES: [&str; 7] =
    ["/", "/events", "/failed", "/conversations", "/search", "/usage", "/machines"];

/// Text that means something to HTML, to scripts, to queries and to SVG.
const HOSTILE: &str =
    r#"</script><script>alert(1)</script><img src=x onerror=alert(1)>"'&lt;{{7*7}}"#;

struct Browser<'a> {
    server: &'a Server,
    cookie: String,
}

struct Answer {
    status: u16,
    location: String,
    text: String,
    policy: String,
}

async fn read(response: Response<Body>) -> Answer {
    let header = |name: &str| {
        let value = response.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (location, policy) = (header("location"), header("content-security-policy"));
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), 8 << 20).await.unwrap();
    Answer { status, location, policy, text: String::from_utf8(body.to_vec()).unwrap() }
}

fn form(path: &str) -> Builder {
    Request::post(path)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("sec-fetch-site", "same-origin")
}

fn encoded(fields: &[(&str, &str)]) -> Body {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    fields.iter().for_each(|(name, value)| {
        query.append_pair(name, value);
    });
    Body::from(query.finish())
}

async fn key(server: &Server, scope: Scope) -> String {
    let mut rng = StdRng::from_seed([scope as u8 + 100; 32]);
    let (secret, key) = ApiKey::generate("mine", scope, "main", Timestamp::EPOCH, &mut rng);
    server.keys.create_key(key).await.unwrap();
    secret.expose_secret().to_owned()
}

impl<'a> Browser<'a> {
    /// Signed in with a key of this scope.
    async fn signed_in(server: &'a Server, scope: Scope) -> Self {
        let key = key(server, scope).await;
        let fields = [("key", key.as_str()), ("next", "/events")];
        let request = form("/sign-in").body(encoded(&fields)).unwrap();
        let response = server.ask(request).await;
        let cookie = response.headers()["set-cookie"].to_str().unwrap().to_owned();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        let answer = read(response).await;
        assert_eq!((answer.status, answer.location.as_str()), (303, "/events"));
        let cookie = cookie.split(';').next().unwrap().to_owned();
        Self { server, cookie }
    }

    async fn get(&self, path: &str) -> Answer {
        let request = Request::get(path).header("cookie", &self.cookie);
        read(self.server.ask(request.body(Body::empty()).unwrap()).await).await
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let request = form(path).header("cookie", &self.cookie);
        read(self.server.ask(request.body(encoded(fields)).unwrap()).await).await
    }

    /// The token that stands in the forms of a page.
    async fn token(&self, path: &str) -> String {
        let page = self.get(path).await.text;
        let from = page.split_once(r#"name="token" value=""#).unwrap().1;
        from.split_once('"').unwrap().0.to_owned()
    }
}

/// An event whose every text is hostile.
async fn store_hostile(server: &Server) {
    let event = serde_json::json!({
        "session_id": HOSTILE, "hook_event_name": "UserPromptSubmit", "prompt": HOSTILE, "cwd": HOSTILE,
    });
    assert_eq!(server.ask(post(event.to_string())).await.status(), 200);
    let odd = serde_json::json!({ "session_id": "s", "hook_event_name": HOSTILE });
    assert_eq!(server.ask(post(odd.to_string())).await.status(), 200);
    let invalid = serde_json::json!({ "hook_event_name": HOSTILE, "x": HOSTILE });
    assert_eq!(server.ask(post(invalid.to_string())).await.status(), 422);
    while server.keys.fold(100).await.unwrap() == 100 {}
}

#[tokio::test]
async fn whoever_is_not_signed_in_is_led_to_where_one_signs_in() {
    let server = Server::new();
    for page in PAGES {
        let answer = read(server.ask(get(page)).await).await;
        assert_eq!(answer.status, 303, "{page}");
        assert!(answer.location.starts_with("/sign-in"), "{page}: {}", answer.location);
    }
    let answer = read(server.ask(get("/events?status=FAILED")).await).await;
    assert_eq!(answer.location, "/sign-in?next=%2Fevents%3Fstatus%3DFAILED");
    let twin = read(server.ask(get("/api/v1/overview")).await).await;
    assert_eq!(twin.status, 401);
}

#[tokio::test]
async fn a_key_that_only_sends_and_a_wrong_one_are_told_the_same() {
    let server = Server::new();
    let ingest = key(&server, Scope::Ingest).await;
    let mut told = Vec::new();
    for key in [ingest.as_str(), "ark_00000000_00", "", "key"] {
        let fields = [("key", key)];
        let request = form("/sign-in").body(encoded(&fields)).unwrap();
        let response = server.ask(request).await;
        assert!(!response.headers().contains_key("set-cookie"));
        let answer = read(response).await;
        assert_eq!(answer.status, 401);
        told.push(answer.text);
    }
    assert!(told.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test]
async fn a_link_signs_in_once() {
    let server = Server::new();
    let page = read(server.ask(get("/sign-in/link?token=once")).await).await;
    assert_eq!(page.status, 200, "looking at the link does not use it up");
    let mut answers = Vec::new();
    for token in ["other", "once", "once"] {
        let fields = [("token", token)];
        let request = form("/sign-in/link").body(encoded(&fields)).unwrap();
        answers.push(read(server.ask(request).await).await.status);
    }
    assert_eq!(answers, [401, 303, 401]);
}

#[tokio::test]
async fn too_many_tries_to_sign_in_must_wait() {
    let server = Server::new();
    let mut answers = Vec::new();
    for _ in 0..7 {
        let fields = [("key", "no")];
        let request = form("/sign-in").body(encoded(&fields)).unwrap();
        answers.push(read(server.ask(request).await).await.status);
    }
    assert_eq!(answers[..5], [401; 5]);
    assert!(answers[5..].contains(&429), "{answers:?}");
}

#[tokio::test]
async fn a_revoked_key_signs_its_browsers_out() {
    let server = Server::new();
    let browser = Browser::signed_in(&server, Scope::Read).await;
    assert_eq!(browser.get("/").await.status, 200);
    let keys = server.keys.keys().await.unwrap();
    server.keys.revoke_key(&keys[0].id, Timestamp::EPOCH).await.unwrap();
    assert_eq!(browser.get("/").await.status, 303);
}

#[tokio::test]
async fn what_changes_something_comes_from_a_page_of_this_session() {
    let server = Server::new();
    let browser = Browser::signed_in(&server, Scope::Admin).await;
    let request = Request::post("/sign-out")
        .header("cookie", &browser.cookie)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("sec-fetch-site", "cross-site");
    let fields = [("token", "00")];
    assert_eq!(read(server.ask(request.body(encoded(&fields)).unwrap()).await).await.status, 403);
    assert_eq!(browser.post("/sign-out", &fields).await.status, 403);
    let token = browser.token("/").await;
    let left = browser.post("/sign-out", &[("token", &token)]).await;
    assert_eq!((left.status, left.location.as_str()), (303, "/sign-in"));
    assert_eq!(browser.get("/").await.status, 303);
}

#[tokio::test]
async fn nothing_that_was_captured_means_anything_to_a_browser() {
    let server = Server::new();
    store_hostile(&server).await;
    let browser = Browser::signed_in(&server, Scope::Admin).await;
    let filter = EventFilter::default();
    let rows = server.keys.events(filter, Page::first(9)).await.unwrap().events;
    let mut paths: Vec<String> = PAGES.iter().map(|path| (*path).to_owned()).collect();
    paths.extend(rows.iter().map(|row| format!("/events/{}", row.id)));
    paths.push("/keys".to_owned());
    let session: String = url::form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect();
    let session = session.replace('+', "%20");
    paths.extend(
        ["", "?view=focus", "?view=skim", "?turn=9"].map(|query| format!("/c/{session}{query}")),
    );
    let query: String = url::form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect();
    for path in
        ["/events?q=", "/events?session=", "/conversations?project=", "/search?q=", "/nothing?"]
    {
        paths.push(format!("{path}{query}"));
    }
    for path in paths {
        let page = browser.get(&path).await;
        assert!(!page.text.contains("<script>alert"), "{path}");
        assert!(!page.text.contains("<img"), "{path}");
        assert!(!page.text.contains("onerror=alert(1)>\""), "{path}");
        assert!(!page.text.contains("<style") && !page.text.contains(" style="), "{path}");
        if page.status == 200 && !path.starts_with("/nothing") {
            assert!(page.policy.contains("script-src 'self'"), "{path}");
            assert!(!page.policy.contains("unsafe"), "{path}");
        }
    }
}

#[tokio::test]
async fn a_page_and_its_twin_show_the_same() {
    let server = Server::new();
    store_hostile(&server).await;
    let browser = Browser::signed_in(&server, Scope::Read).await;
    for page in PAGES {
        let shown = browser.get(page).await;
        assert_eq!(shown.status, 200, "{page}");
        let from = shown.text.split_once(r#"rel="alternate" type="application/json" href=""#);
        let twin = from.unwrap().1.split_once('"').unwrap().0;
        let answer = browser.get(twin).await;
        assert_eq!(answer.status, 200, "{page}: {twin}");
        assert!(serde_json::from_str::<Value>(&answer.text).unwrap().is_object(), "{twin}");
    }
    let twin: Value = serde_json::from_str(&browser.get("/api/v1/events").await.text).unwrap();
    let page = browser.get("/events").await.text;
    for event in twin["events"].as_array().unwrap() {
        assert!(page.contains(event["id"].as_str().unwrap()));
    }
}

/// A session of so many turns, each with a prompt and an answer.
async fn store_turns(server: &Server, turns: usize) {
    for turn in 0..turns {
        for event in [
            serde_json::json!({
                "session_id": "long", "hook_event_name": "UserPromptSubmit",
                "prompt": format!("prompt number {turn}"), "prompt_id": format!("p{turn}"),
            }),
            serde_json::json!({
                "session_id": "long", "hook_event_name": "PostToolUse", "tool_name": "Bash",
                "tool_use_id": format!("toolu_{turn}"), "tool_input": { "command": format!("make {turn}") },
                "tool_response": { "stdout": format!("made {turn}"), "stderr": "" },
            }),
            serde_json::json!({
                "session_id": "long", "hook_event_name": "Stop",
                "last_assistant_message": format!("answer **{turn}**"),
            }),
        ] {
            assert_eq!(server.ask(post(event.to_string())).await.status(), 200);
        }
    }
}

#[tokio::test]
async fn a_long_conversation_is_read_in_pages_and_each_message_has_its_place() {
    let server = Server::new();
    store_turns(&server, 70).await;
    let browser = Browser::signed_in(&server, Scope::Read).await;
    let last = browser.get("/c/long").await.text;
    assert!(last.contains("answer <strong>69</strong>") && last.contains("made 69"), "{last}");
    assert!(!last.contains("answer <strong>59</strong>"), "a page has 30 turns");
    assert!(last.contains(r#"<a href="/c/long?turn=0#t-0">prompt number 0</a>"#), "{last}");
    let first = browser.get("/c/long?turn=0").await.text;
    assert!(
        first.contains("answer <strong>0</strong>") && first.contains("answer <strong>29</strong>")
    );
    let focus = browser.get("/c/long?turn=0&view=focus").await.text;
    assert!(focus.contains("answer <strong>0</strong>") && !focus.contains("made 0"));
    let skim = browser.get("/c/long?turn=0&view=skim").await.text;
    assert!(skim.contains("prompt number 0") && !skim.contains("answer <strong>0</strong>"));

    let twin: Value =
        serde_json::from_str(&browser.get("/api/v1/c/long?turn=30").await.text).unwrap();
    assert_eq!(twin["outline"].as_array().unwrap().len(), 70);
    let turn = &twin["turns"][5];
    let answer = turn["nodes"].as_array().unwrap().iter().find(|node| node["speaker"] == "claude");
    let id = answer.unwrap()["id"].as_str().unwrap();
    let place = browser.get(&format!("/c/long/m/{id}")).await;
    assert_eq!((place.status, place.location), (303, format!("/c/long?turn=30#m-{id}")));
    let page = browser.get("/c/long?turn=30").await.text;
    assert!(page.contains(&format!(r#"id="m-{id}""#)));
    let nowhere = browser.get("/c/long/m/019a0000-0000-7000-8000-000000000000").await;
    assert_eq!(nowhere.status, 404);
    assert_eq!(browser.get("/c/nobody").await.status, 404);
}

#[tokio::test]
async fn what_cannot_be_shown_is_said_on_a_page() {
    let server = Server::new();
    let browser = Browser::signed_in(&server, Scope::Read).await;
    for (path, status, told) in [
        ("/events/019a0000-0000-7000-8000-000000000000", 404, "there is no such event"),
        ("/events/..%2f", 404, "there is no such event"),
        ("/events?status=LOST", 400, "status"),
        ("/events?since=yesterday", 400, "how long ago"),
        ("/events?nonsense=1", 400, "nonsense"),
        ("/events?after=1", 400, "after"),
        ("/conversations?after=x", 400, "cursor"),
        ("/search?q=%22", 400, "word"),
        ("/usage?w=ever", 400, "ever"),
        ("/keys", 403, "scope admin"),
    ] {
        let page = browser.get(path).await;
        assert_eq!(page.status, status, "{path}: {}", page.text);
        assert!(page.text.contains(told), "{path}: {}", page.text);
        assert!(page.text.contains("</html>"), "{path}");
    }
}

#[tokio::test]
async fn events_that_failed_are_tried_again_by_an_administrator_alone() {
    let server = Server::new();
    store_hostile(&server).await;
    let reader = Browser::signed_in(&server, Scope::Read).await;
    let token = reader.token("/failed").await;
    let now = "2999-01-01T00:00:00Z";
    let asked = |token| [("token", token), ("action", "retry"), ("until", now)];
    assert_eq!(reader.post("/failed", &asked(&token)).await.status, 403);

    let admin = Browser::signed_in(&server, Scope::Admin).await;
    let page = admin.get("/failed").await.text;
    assert!(page.contains("1 × missing_session"), "{page}");
    let ask = page.split_once("/failed?group=").unwrap().1.split_once('"').unwrap().0;
    let ask = ask.replace("&#38;", "&").replace("&amp;", "&");
    let foreseen = admin.get(&format!("/failed?group={ask}")).await.text;
    assert!(foreseen.contains("<b>0</b> would be applied now"), "{foreseen}");
    assert!(foreseen.contains("1 missing_session. Nothing was changed."), "{foreseen}");
    let token = admin.token("/failed").await;
    let done = admin.post("/failed", &asked(&token)).await;
    assert_eq!((done.status, done.location.as_str()), (303, "/failed?done=retry&count=1&left=0"));
    let pending = EventFilter { status: Some(EventStatus::Pending), ..EventFilter::default() };
    let pending = server.keys.events(pending, Page::first(9)).await.unwrap().events;
    assert_eq!(pending.len(), 1);
    let one = admin.get(&format!("/events/{}", pending[0].id)).await.text;
    assert!(one.contains("PENDING by mine: asked for on the dashboard"), "{one}");
}

#[tokio::test]
async fn a_key_that_is_made_works_and_one_that_is_revoked_does_not() {
    let server = Server::new();
    let browser = Browser::signed_in(&server, Scope::Admin).await;
    let token = browser.token("/keys").await;
    let fields = [("token", token.as_str()), ("name", "laptop"), ("scope", "read")];
    let page = browser.post("/keys", &fields).await.text;
    let made = page.split_once("ark_").unwrap().1.split_once('<').unwrap().0;
    let ask = async || {
        let bearer = format!("Bearer ark_{made}");
        let request = Request::get("/api/v1/overview").header("authorization", bearer);
        server.ask(request.body(Body::empty()).unwrap()).await.status().as_u16()
    };
    assert_eq!(ask().await, 200);
    let id = made.split_once('_').unwrap().0;
    let wrong = [("token", token.as_str()), ("id", id), ("name", "other")];
    assert_eq!(browser.post("/keys/revoke", &wrong).await.status, 400);
    let right = [("token", token.as_str()), ("id", id), ("name", "laptop")];
    assert_eq!(browser.post("/keys/revoke", &right).await.status, 303);
    // A key that was found valid is taken as valid for a second.
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(2)).await;
    assert_eq!(ask().await, 401);
}
