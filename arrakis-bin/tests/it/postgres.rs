//! The production deployment: real servers on one Postgres database.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use arrakis_test_cluster::{Cluster, Database};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel_async::RunQueryDsl;
use serde_json::{Value, json};
use tempfile::TempDir;

const KEY: &str = "key-of-the-environment";

/// A database, and what runs programs on it.
struct World {
    database: Database,
    home: TempDir,
}

impl World {
    async fn new() -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        Self { database: Database::create().await, home: TempDir::new().unwrap() }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.home.path())
            .env("ARRAKIS_HOME", self.home.path())
            .env("DATABASE_URL", self.database.url())
            .env("CLAUDE_HOOK_API_KEY", KEY);
        command
    }

    fn arrakis(&self, arguments: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_arrakis")).args(arguments).output().unwrap()
    }

    fn server(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_arrakis-server"));
        command.args(["--log-format", "json"]).args(arguments);
        command.stderr(Stdio::piped()).stdout(Stdio::null());
        command
    }

    fn start(&self) -> Server {
        self.start_at("127.0.0.1:0")
    }

    fn start_at(&self, address: &str) -> Server {
        let mut process = self.server(&["--listen", address]).spawn().unwrap();
        let mut stderr = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = stderr
            .by_ref()
            .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
            .find_map(|line| Some(line.get("address")?.as_str()?.to_owned()))
            .expect("the server says where it listens");
        // Somebody must read on, or the server would wait for room.
        std::thread::spawn(move || stderr.for_each(drop));
        Server { process, address }
    }

    async fn counts(&self) -> Vec<(String, i64)> {
        #[derive(QueryableByName)]
        struct Count {
            #[diesel(sql_type = Text)]
            status: String,
            #[diesel(sql_type = BigInt)]
            count: i64,
        }
        let sql = "SELECT status::text, count(*) FROM webhook_events GROUP BY status ORDER BY 1";
        let mut conn = self.database.connect().await;
        let counts: Vec<Count> = diesel::sql_query(sql).load(&mut conn).await.unwrap();
        counts.into_iter().map(|one| (one.status, one.count)).collect()
    }
}

/// A running server; it is killed with this.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.process.id().try_into().unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn payload(text: &str) -> String {
    json!({ "session_id": "s", "hook_event_name": "UserPromptSubmit", "prompt": text }).to_string()
}

/// Sends an event; the answer, where it is a success.
async fn send(http: &reqwest::Client, url: &str, id: &str) -> Option<Value> {
    let request = http.post(url).bearer_auth(KEY).header("X-Request-Id", id).body(payload(id));
    let response = request.send().await.ok()?;
    let is_success = response.status().is_success();
    let body: Value = serde_json::from_slice(&response.bytes().await.ok()?).ok()?;
    is_success.then_some(body)
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_connections_to_two_servers_store_one_id_once() {
    let world = World::new().await;
    let servers = [world.start(), world.start()];
    let sending: Vec<_> = (0..64)
        .map(|n| {
            let url = servers[n % 2].url("/api/claude-hooks");
            // A client of its own each, so that each is a connection of its own.
            let http = reqwest::Client::builder().no_proxy().build().unwrap();
            tokio::spawn(async move { send(&http, &url, "the-one").await.unwrap() })
        })
        .collect();
    let (mut answers, mut firsts) = (BTreeSet::new(), 0);
    for one in sending {
        let mut answer = one.await.unwrap();
        assert_eq!(answer["cached"], answer["duplicate"]);
        firsts += usize::from(answer["cached"] == false);
        for field in ["cached", "duplicate"] {
            answer[field] = Value::Null;
        }
        answers.insert(answer.to_string());
    }
    assert_eq!((answers.len(), firsts), (1, 1), "{answers:?}");
    let expected = [("DUPLICATE".to_owned(), 63), ("SUCCESS".to_owned(), 1)];
    assert_eq!(world.counts().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_server_receives_shows_in_the_feed_of_the_other() {
    let world = World::new().await;
    let (ingest, feed) = (world.start(), world.start());
    let created =
        world.arrakis(&["keys", "create", "--name", "viewer", "--scope", "read", "--json"]);
    let created: Value = serde_json::from_slice(&created.stdout).unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut live = http
        .get(feed.url("/api/live"))
        .bearer_auth(created["secret"].as_str().unwrap())
        .send()
        .await
        .unwrap();
    let mut text = String::new();
    let mut wait_for = async |wanted: &str| {
        while !text.contains(wanted) {
            let chunk = live.chunk().await.unwrap().expect("the stream goes on");
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
    };
    wait_for("event: ready").await;
    for n in 0..20 {
        let url = ingest.url("/api/claude-hooks");
        send(&http, &url, &format!("live-{n}")).await.unwrap();
    }
    for n in 0..20 {
        wait_for(&format!(r#""requestId":"live-{n}""#)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn servers_that_are_killed_under_load_lose_nothing_and_double_nothing() {
    const CLIENTS: usize = 8;
    const EVENTS: usize = 60;
    const KILLS: usize = 10;
    let world = World::new().await;
    let mut servers = vec![world.start(), world.start()];
    let urls: Arc<Vec<String>> =
        Arc::new(servers.iter().map(|one| one.url("/api/claude-hooks")).collect());
    let (answered, mut progress) = tokio::sync::mpsc::unbounded_channel();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let (urls, answered) = (Arc::clone(&urls), answered.clone());
        clients.spawn(async move {
            let http = reqwest::Client::builder().no_proxy().build().unwrap();
            for n in 0..EVENTS {
                let id = format!("c{client}-{n}");
                let mut tries = 0;
                while send(&http, &urls[(client + tries) % 2], &id).await.is_none() {
                    tries += 1;
                }
                answered.send(tries).unwrap();
            }
        });
    }
    drop(answered);
    let (mut count, mut retried) = (0, 0);
    while let Some(tries) = progress.recv().await {
        (count, retried) = (count + 1, retried + tries);
        if count % (CLIENTS * EVENTS / (KILLS + 1)) == 0 && count < CLIENTS * EVENTS {
            let victim = servers.remove(0);
            let address = victim.address.clone();
            drop(victim);
            servers.push(world.start_at(&address));
        }
    }
    clients.join_all().await;
    assert!(retried > 0, "the kills were felt");
    let counts = world.counts().await;
    let success = counts.iter().find(|(status, _)| status == "SUCCESS").unwrap().1;
    assert_eq!(usize::try_from(success).unwrap(), CLIENTS * EVENTS, "{counts:?}");
    assert!(counts.iter().all(|(status, _)| status == "SUCCESS" || status == "DUPLICATE"));
    let shown = world.arrakis(&["conversations", "show", "s", "--json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let words: BTreeSet<String> = shown["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["content"].to_string())
        .collect();
    assert_eq!(words.len(), CLIENTS * EVENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_ends_in_good_order_on_sigterm() {
    let world = World::new().await;
    let mut server = world.start();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    send(&http, &server.url("/api/claude-hooks"), "before").await.unwrap();
    server.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(server.process.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_told_not_to_migrate_refuses_a_stale_schema_with_the_remedy() {
    let world = World::new().await;
    let refused = world.server(&["--listen", "127.0.0.1:0", "--no-migrate"]).output().unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("arrakis migrate"), "{said}");

    let check = world.arrakis(&["migrate", "--check"]);
    assert_eq!(check.status.code(), Some(1));
    let lacking = String::from_utf8(check.stdout).unwrap();
    assert!(lacking.contains("2026-11-30-000000_foundation"), "{lacking}");
    let migrated = world.arrakis(&["migrate", "--json"]);
    let migrated: Value = serde_json::from_slice(&migrated.stdout).unwrap();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../arrakis-store-pg/migrations");
    let names = std::fs::read_dir(folder).unwrap().map(|one| one.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    assert_eq!(migrated, json!({ "migrations": names }));
    assert_eq!(world.arrakis(&["migrate", "--check"]).status.code(), Some(0));

    let mut server = world.server(&["--listen", "127.0.0.1:0", "--no-migrate"]).spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("listening")));
    server.kill().unwrap();
    server.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_follows_the_database_and_no_restart_is_needed() {
    let mut cluster = Cluster::start(&["fsync=off"]).unwrap();
    let database = Database::create_in(&cluster.url("postgres")).await;
    let world = World { database, ..World::new().await };
    let server = world.start();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let ready = async || http.get(server.url("/readyz")).send().await.unwrap().status().as_u16();
    assert_eq!(ready().await, 200);
    cluster.kill();
    while ready().await != 503 {}
    let event = http.post(server.url("/api/claude-hooks")).bearer_auth(KEY);
    let refused = event.header("X-Request-Id", "r").body(payload("r")).send().await.unwrap();
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    cluster.restart().unwrap();
    while ready().await != 200 {}
    assert!(send(&http, &server.url("/api/claude-hooks"), "r").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_are_found_by_their_words_soon_after() {
    let world = World::new().await;
    let server = world.start();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    send(&http, &server.url("/api/claude-hooks"), "findable").await.unwrap();
    loop {
        let found = world.arrakis(&["events", "list", "--search", "findable", "--json"]);
        let found: Value = serde_json::from_slice(&found.stdout).unwrap();
        if found.as_array().unwrap().len() == 1 {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_signed_in_at_one_server_is_so_at_all() {
    let world = World::new().await;
    let (one, other) = (world.start(), world.start());
    let made = world.arrakis(&["keys", "create", "--scope", "read", "--json"]);
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let http = http.build().unwrap();
    let form = http.post(one.url("/sign-in")).header("Sec-Fetch-Site", "same-origin");
    let form = form.header("Content-Type", "application/x-www-form-urlencoded");
    let signed_in = form.body(format!("key={}", made["secret"].as_str().unwrap())).send().await;
    let signed_in = signed_in.unwrap();
    assert_eq!(signed_in.status(), 303);
    let cookie = signed_in.headers()["set-cookie"].to_str().unwrap();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let open = async |server: &Server| {
        let page = http.get(server.url("/")).header("Cookie", &cookie).send().await.unwrap();
        page.status().as_u16()
    };
    assert_eq!((open(&one).await, open(&other).await), (200, 200));
    let id = made["key"]["id"].as_str().unwrap();
    assert!(world.arrakis(&["keys", "revoke", id]).status.success());
    let revoked = std::time::Instant::now();
    while (open(&one).await, open(&other).await) != (303, 303) {
        assert!(revoked.elapsed().as_secs() < 2, "the key still opens the page");
    }
}
