//! The dashboard of the real server: who gets in, for how long, and who does not.

use std::time::{Duration, Instant};

use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::support::world::{Up, World, feed};

/// How long a revoked key may still open a page, or sign in.
const REVOKED_AFTER: Duration = Duration::from_secs(2);

/// A browser: it follows no redirect, and sends the cookies that it is told to.
struct Browser<'a> {
    http: Client,
    up: &'a Up,
}

impl<'a> Browser<'a> {
    fn at(up: &'a Up) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        // Commands that run between two requests let nobody see that the server has closed a connection.
        let http = Client::builder().no_proxy().pool_max_idle_per_host(0);
        let http = http.redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { http, up }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.up.address())
    }

    /// Opens a page with a cookie.
    async fn open(&self, path: &str, cookie: &str) -> Response {
        self.http.get(self.url(path)).header(COOKIE, cookie).send().await.unwrap()
    }

    /// A form that a page of the server itself sends.
    fn form(&self, path: &str, fields: &str) -> RequestBuilder {
        self.form_from("same-origin", path, fields)
    }

    /// A form of a page that stands to the server as the browser says.
    fn form_from(&self, site: &str, path: &str, fields: &str) -> RequestBuilder {
        let form = self.http.post(self.url(path)).body(fields.to_owned());
        form.header("Sec-Fetch-Site", site)
            .header("Content-Type", "application/x-www-form-urlencoded")
    }

    async fn sign_in(&self, key: &str) -> Response {
        self.form("/sign-in", &format!("key={key}")).send().await.unwrap()
    }
}

/// The cookie that an answer sets; the answer leads to the overview.
fn cookie(signed_in: &Response) -> String {
    assert_eq!(signed_in.status(), StatusCode::SEE_OTHER);
    assert_eq!(led_to(signed_in), "/");
    let cookie = signed_in.headers()[SET_COOKIE].to_str().unwrap();
    for flag in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(flag), "{cookie}");
    }
    cookie.split(';').next().unwrap().to_owned()
}

fn led_to(response: &Response) -> &str {
    response.headers()[LOCATION].to_str().unwrap()
}

/// The first admin's key, which a server names at its first start.
fn admin_key(up: &Up) -> &str {
    up.said["adminKey"].as_str().unwrap()
}

/// The token of the link that a starting server names.
fn link_token(up: &Up) -> &str {
    up.said["dashboard"].as_str().unwrap().split_once("/sign-in/link?token=").unwrap().1
}

/// A new key, and its id.
fn new_key(world: &World, scope: &str) -> (String, String) {
    let made = world.arrakis(&["--json", "keys", "create", "--scope", scope]);
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&made["secret"]), text(&made["key"]["id"]))
}

#[tokio::test]
async fn a_cookie_opens_the_pages_and_outlives_the_server() {
    let world = World::new();
    let up = world.lone_up();
    let browser = Browser::at(&up);
    let closed = browser.open("/", "").await;
    assert_eq!((closed.status(), led_to(&closed)), (StatusCode::SEE_OTHER, "/sign-in"));
    let closed = browser.open("/events?status=FAILED", "").await;
    assert_eq!(led_to(&closed), "/sign-in?next=%2Fevents%3Fstatus%3DFAILED");

    let cookie = cookie(&browser.sign_in(admin_key(&up)).await);
    let page = browser.open("/", &cookie).await;
    assert_eq!(page.status(), StatusCode::OK);
    let page = page.text().await.unwrap();
    assert!(page.contains("No machine has told of its events yet."), "{page}");
    let twin = browser.open("/api/v1/overview", &cookie).await;
    assert_eq!(twin.status(), StatusCode::OK);
    let (secret, last) = cookie.split_at(cookie.len() - 1);
    let last = if last == "0" { "1" } else { "0" };
    let other = browser.open("/", &format!("{secret}{last}")).await;
    assert_eq!(led_to(&other), "/sign-in");
    up.stop();

    let up = world.lone_up();
    assert_eq!(up.said.get("adminKey"), None);
    let page = Browser::at(&up).open("/", &cookie).await;
    assert_eq!(page.status(), StatusCode::OK);
}

#[tokio::test]
async fn whoever_is_signed_in_sees_that_every_event_is_accounted_for() {
    let world = World::new();
    let up = world.up();
    let browser = Browser::at(&up);
    let cookie = cookie(&browser.sign_in(admin_key(&up)).await);
    feed(world.hook(), br#"{"session_id":"s","hook_event_name":"Stop"}"#);
    world.wait_until("the event is stored", |world| {
        world.count("webhook_events WHERE status = 'SUCCESS'") == 1
    });
    // The machine tells of it beside the delivery.
    world.wait_until("the machine tells that it delivered it", |world| {
        world.count("spools WHERE report ->> '$.delivered' = 1") == 1
    });
    let page = browser.open("/", &cookie).await.text().await.unwrap();
    assert!(page.contains("All 1 captured events are accounted for"), "{page}");
}

#[tokio::test]
async fn a_revoked_key_closes_the_pages_that_it_had_opened() {
    let world = World::new();
    let up = world.lone_up();
    let browser = Browser::at(&up);
    let ((key, id), (other, _)) = (new_key(&world, "read"), new_key(&world, "read"));
    let of_key = cookie(&browser.sign_in(&key).await);
    let of_other = cookie(&browser.sign_in(&other).await);
    assert_eq!(browser.open("/", &of_key).await.status(), StatusCode::OK);

    assert!(world.arrakis(&["keys", "revoke", &id]).status.success());
    let revoked = Instant::now();
    let mut page = browser.open("/", &of_key).await;
    while page.status() == StatusCode::OK {
        assert!(revoked.elapsed() < REVOKED_AFTER, "the key still opens the page");
        page = browser.open("/", &of_key).await;
    }
    assert_eq!((page.status(), led_to(&page)), (StatusCode::SEE_OTHER, "/sign-in"));
    assert_eq!(browser.open("/", &of_other).await.status(), StatusCode::OK);
    tokio::time::sleep(REVOKED_AFTER.saturating_sub(revoked.elapsed())).await;
    assert_eq!(browser.sign_in(&key).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn of_a_key_that_does_not_open_the_dashboard_nobody_learns_why() {
    let world = World::new();
    let up = world.lone_up();
    let browser = Browser::at(&up);
    let (ingest, _) = new_key(&world, "ingest");
    let mut texts = Vec::new();
    for key in [ingest.as_str(), "ark_wrong", "", &format!("{ingest}0")] {
        let refused = browser.sign_in(key).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{key}");
        assert!(!refused.headers().contains_key(SET_COOKIE));
        texts.push(refused.text().await.unwrap());
    }
    assert!(texts[0].contains("This key does not open the dashboard."), "{}", texts[0]);
    assert!(texts.iter().all(|text| *text == texts[0]));
    assert_eq!(world.count("browser_sessions"), 0);
}

#[tokio::test]
async fn a_one_time_link_opens_the_dashboard_once() {
    let world = World::new();
    let up = world.lone_up();
    let browser = Browser::at(&up);
    let fields = format!("token={}", link_token(&up));
    // Whoever looks at the link does not use it up.
    for _ in 0..2 {
        let page = browser.open(&format!("/sign-in/link?{fields}"), "").await;
        assert_eq!(page.status(), StatusCode::OK);
        assert!(!page.headers().contains_key(SET_COOKIE));
    }
    let wrong = browser.form("/sign-in/link", "token=0").send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    let opened = browser.form("/sign-in/link", &fields).send().await.unwrap();
    let cookie = cookie(&opened);
    assert_eq!(browser.open("/", &cookie).await.status(), StatusCode::OK);
    let again = browser.form("/sign-in/link", &fields).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::UNAUTHORIZED);
    assert!(!again.headers().contains_key(SET_COOKIE));
}

#[tokio::test]
async fn a_form_of_another_site_does_nothing() {
    let world = World::new();
    let up = world.lone_up();
    let browser = Browser::at(&up);
    let (key, link) = (format!("key={}", admin_key(&up)), format!("token={}", link_token(&up)));
    for (path, fields) in [("/sign-in", &key), ("/sign-in/link", &link)] {
        for site in ["cross-site", "same-site", "none"] {
            let refused = browser.form_from(site, path, fields).send().await.unwrap();
            assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{site} {path}");
            assert!(!refused.headers().contains_key(SET_COOKIE));
        }
    }
    assert_eq!(world.count("browser_sessions"), 0);
    let opened = browser.form("/sign-in/link", &link).send().await.unwrap();
    let cookie = cookie(&opened);
    let out = browser.form_from("cross-site", "/sign-out", "token=").header(COOKIE, &cookie);
    assert_eq!(out.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(browser.open("/", &cookie).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn signing_out_takes_the_token_of_the_page_and_ends_the_session() {
    let world = World::new();
    let up = world.lone_up();
    let browser = Browser::at(&up);
    let cookie = cookie(&browser.sign_in(admin_key(&up)).await);
    let page = browser.open("/", &cookie).await.text().await.unwrap();
    let token = page.split_once("name=\"token\" value=\"").unwrap().1.split_once('"').unwrap().0;
    let out = async |fields: &str| {
        let form = browser.form("/sign-out", fields).header(COOKIE, &cookie);
        form.send().await.unwrap()
    };
    assert_eq!(out("token=00").await.status(), StatusCode::FORBIDDEN);
    assert_eq!(world.count("browser_sessions"), 1);
    let signed_out = out(&format!("token={token}")).await;
    assert_eq!((signed_out.status(), led_to(&signed_out)), (StatusCode::SEE_OTHER, "/sign-in"));
    assert!(signed_out.headers()[SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(led_to(&browser.open("/", &cookie).await), "/sign-in");
    assert_eq!(world.count("browser_sessions"), 0);
}

/// A report of a spool in which this is so.
fn report(spool: u128, what: &Value) -> Value {
    let mut report = json!({
        "spoolId": uuid::Uuid::from_u128(spool), "host": "laptop", "user": null, "home": null, "version": null,
        "observedAt": "2026-11-26T09:00:00.000000Z", "captured": 2, "delivered": 0, "duplicate": 0, "discarded": 0,
        "refused": 0, "unsureCaptured": 0, "unsureSettled": 0, "found": 0, "lost": 0, "pending": 0, "processing": 0,
        "failed": 0, "quarantined": 0, "balance": { "verdict": "even" }, "oldestPendingAgeMs": null, "full": false,
        "lastError": null, "receivers": [],
    });
    report.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
    report
}

#[tokio::test]
async fn the_commands_that_pages_show_are_commands() {
    let world = World::new();
    let up = world.lone_up();
    let browser = Browser::at(&up);
    let cookie = cookie(&browser.sign_in(admin_key(&up)).await);
    let commands = async |path| {
        let page = browser.open(path, &cookie).await.text().await.unwrap();
        let commands = page.split(">arrakis ").skip(1).map(|rest| rest.split_once('<').unwrap().0);
        commands.map(str::to_owned).collect::<Vec<_>>()
    };
    let mut told = commands("/sign-in").await;
    told.extend(commands("/machines").await);
    let (ingest, _) = new_key(&world, "ingest");
    let states = [
        json!({ "full": true }),
        json!({ "pending": 2, "oldestPendingAgeMs": 3_600_000 }),
        json!({ "failed": 1, "quarantined": 1 }),
    ];
    for (spool, state) in (1..).zip(&states) {
        let sent = browser.http.post(browser.url("/api/spools")).bearer_auth(&ingest);
        let sent = sent.body(report(spool, state).to_string()).send().await.unwrap();
        assert!(sent.status().is_success(), "{}", sent.text().await.unwrap());
    }
    told.extend(commands("/machines").await);
    for what in ["up", "keys create", "install", "queue verify", "doctor", "queue list"] {
        assert!(told.iter().any(|one| one.starts_with(what)), "{what}: {told:?}");
    }
    for command in told.iter().filter(|command| *command != "up") {
        let ran = world.arrakis(&command.split(' ').collect::<Vec<_>>());
        let error = String::from_utf8_lossy(&ran.stderr);
        assert!(!error.contains("Usage:"), "{command}: {error}");
    }
}

#[tokio::test]
async fn a_cookie_reads_and_sends_nothing() {
    let world = World::new();
    let up = world.lone_up();
    let browser = Browser::at(&up);
    let cookie = cookie(&browser.sign_in(admin_key(&up)).await);
    let event = browser.http.post(&up.url).header(COOKIE, &cookie);
    let event = event.body(r#"{"session_id":"s","hook_event_name":"Stop"}"#);
    assert_eq!(event.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(world.count("webhook_events"), 0);
}

#[tokio::test]
async fn the_sixth_try_in_a_minute_is_refused_whatever_it_brings() {
    let world = World::new();
    let up = world.lone_up();
    let browser = Browser::at(&up);
    for _ in 0..5 {
        assert_eq!(browser.sign_in("ark_wrong").await.status(), StatusCode::UNAUTHORIZED);
    }
    let refused = browser.sign_in(admin_key(&up)).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(!refused.headers().contains_key(SET_COOKIE));
    let link = browser.form("/sign-in/link", &format!("token={}", link_token(&up)));
    assert_eq!(link.send().await.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_server_without_dashboard_has_no_pages() {
    let world = World::new();
    let mut command = world.up_command("127.0.0.1:0");
    command.env("ARRAKIS_BIN", "true").env("ARRAKIS_DASHBOARD", "off");
    let up = Up::start(command);
    assert_eq!(up.said.get("dashboard"), None);
    let browser = Browser::at(&up);
    for path in ["/", "/sign-in", "/events", "/api/v1/overview"] {
        assert_eq!(browser.open(path, "").await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(browser.sign_in(admin_key(&up)).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(browser.open("/healthz", "").await.status(), StatusCode::OK);
}
