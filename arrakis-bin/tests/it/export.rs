//! `arrakis export` and `arrakis import`, with the real programs: what is stored in one place is stored in
//! another.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::support::world::{World, feed};
use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::testkit::recorded::recorded;
use arrakis_test_cluster::Database;
use arrakis_transport_http::wire::encode_envelope;
use diesel::{Connection, RunQueryDsl, SqliteConnection};
use serde_json::{Value, json};

const KEY: &str = "key-of-the-environment";

/// A home and a server of its own.
struct Place {
    world: World,
    database: String,
    server: Child,
    url: String,
}

impl Place {
    fn with_sqlite() -> Self {
        let world = World::new();
        let database = format!("sqlite://{}", world.directory.path().join("server.db").display());
        Self::start(world, database)
    }

    fn start(world: World, database: String) -> Self {
        let mut server = world.command(env!("CARGO_BIN_EXE_arrakis-server"));
        server.args(["--log-format", "json", "--listen", "127.0.0.1:0"]);
        server.env("DATABASE_URL", &database).env("CLAUDE_HOOK_API_KEY", KEY);
        let mut server = server.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut stderr = BufReader::new(server.stderr.take().unwrap()).lines();
        let address = stderr
            .by_ref()
            .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
            .find_map(|line| Some(line.get("address")?.as_str()?.to_owned()))
            .expect("the server says where it listens");
        // Somebody must read on, or the server would wait for room.
        std::thread::spawn(move || stderr.for_each(drop));
        Self { world, database, server, url: format!("http://{address}/api/claude-hooks") }
    }

    /// A program of this place, which will find no drainer to start.
    fn command(&self, program: &str) -> Command {
        let mut command = self.world.command(program);
        command
            .env("ARRAKIS_BIN", "true")
            .env("DATABASE_URL", &self.database)
            .env("CLAUDE_HOOK_API_URL", &self.url)
            .env("CLAUDE_HOOK_API_KEY", KEY);
        command
    }

    fn try_run(&self, arguments: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_arrakis")).args(arguments).output().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.try_run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[arguments, &["--json"]].concat())).unwrap()
    }

    fn hook(&self, payload: &[u8]) {
        feed(self.command(env!("CARGO_BIN_EXE_arrakis-hook")), payload);
    }

    /// Delivers what waits; nothing is left.
    fn drain(&self) {
        self.drain_with(KEY);
    }

    /// The same, with this key.
    fn drain_with(&self, key: &str) {
        let mut drain = self.command(env!("CARGO_BIN_EXE_arrakis"));
        let output = drain.args(["drain", "--once"]).env("CLAUDE_HOOK_API_KEY", key).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for directory in ["pending", "processing", "failed", "quarantine"] {
            assert_eq!(self.world.spooled(directory), [] as [PathBuf; 0], "{directory}");
        }
    }

    /// Sends a body as it is; returns the status of the answer.
    async fn post(&self, id: Option<&str>, body: String) -> u16 {
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = client.post(&self.url).bearer_auth(KEY).body(body);
        if let Some(id) = id {
            request = request.header("X-Request-Id", id);
        }
        request.send().await.unwrap().status().as_u16()
    }

    /// Receives the recorded sessions with their transcripts, and events that are hard to keep.
    async fn receive_everything(&self) {
        for session in recorded() {
            for arrival in session.in_order("main") {
                self.hook(&arrival.body);
            }
        }
        self.hook(b"no JSON, \xff\xfe and \0");
        self.hook(b"two\nlines");
        self.hook(br#"{"session_id":"odd","hook_event_name":"UserPromptSubmit","prompt":"a\u0000b","n":1e400}"#);
        self.hook(br#"{"session_id":"odd","hook_event_name":"PreToolUse","x":1,"x":2, "z":1.50,"a":"\ud800"}"#);
        self.hook(br#"{"session_id":"odd","hook_event_name":7}"#);
        let large = "0123456789abcdef ".repeat(4_000_000 / 17);
        let large = json!({ "session_id": "odd", "hook_event_name": "Stop",
            "last_assistant_message": large });
        self.hook(large.to_string().as_bytes());
        let secret = "password=hunter2hunter2";
        let original = json!({ "event": "PostToolUse", "sessionId": "original",
            "timestamp": "2026-11-20T10:00:00.000Z", "toolName": "Bash", "duration": 12,
            "parameters": { "command": format!("echo {secret}") }, "response": { "z": 1, "a": 2 },
            "_trace": { "requestId": "original-1", "timestamp": 1 } });
        assert_eq!(self.post(None, original.to_string()).await, 200);
        let raw = json!({ "hook_event_name": "UserPromptSubmit", "session_id": "raw",
            "prompt": format!("say {secret}") });
        assert_eq!(self.post(Some("raw-1"), raw.to_string()).await, 200);
        let refused = json!({ "event": "PostToolUse", "_trace": { "requestId": "refused" } });
        assert_eq!(self.post(None, refused.to_string()).await, 422);
        self.drain();
        // One event is there twice; the repeat is no event.
        assert_eq!(self.post(Some("raw-1"), raw.to_string()).await, 200);
    }

    fn export(&self, name: &str) -> (PathBuf, Value) {
        let file = self.world.directory.path().join(name);
        let summary = self.json(&["export", "--all", "--output", file.to_str().unwrap()]);
        (file, summary)
    }

    /// The secret of a new key.
    fn key(&self, scope: &str, workspace: &str) -> String {
        let create = ["keys", "create", "--scope", scope, "--workspace", workspace];
        self.run(&create).trim().to_owned()
    }

    fn import(&self, file: &Path) -> Value {
        self.json(&["import", file.to_str().unwrap()])
    }

    /// Every conversation of the workspace `main`, by its session, without what a server adds of its own.
    fn conversations(&self) -> BTreeMap<String, Value> {
        self.conversations_of("main")
    }

    fn conversations_of(&self, workspace: &str) -> BTreeMap<String, Value> {
        let of = ["--workspace", workspace];
        let list = [&["conversations", "list", "--limit", "100"][..], &of].concat();
        let list = self.json(&list);
        let sessions =
            list.as_array().unwrap().iter().map(|one| one["sessionId"].as_str().unwrap());
        let whole = |session: &str| {
            let show = [&["conversations", "show", session][..], &of].concat();
            let mut one = self.json(&show);
            let events = one["events"].as_array_mut().unwrap();
            for event in events.iter_mut() {
                let event = event.as_object_mut().unwrap();
                event.retain(|name, _| {
                    !["id", "receivedAt", "processingTimeMs"].contains(&&name[..])
                });
                let metadata = event["metadata"].as_object_mut().unwrap();
                // Of what came in no envelope, an import makes one.
                match metadata["form"].as_str() {
                    Some("envelope") => drop(metadata.remove("destination")),
                    _ => metadata.retain(|name, _| name == "summary" || name == "form"),
                }
            }
            events.sort_by_key(|event| event["requestId"].to_string());
            one
        };
        sessions.map(|session| (session.to_owned(), whole(session))).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

/// What of an event can be read, whatever is in it.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    request_id: String,
}

/// The events of an export by their request ids, but for where they were to go.
fn events(file: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let ends: Vec<Value> = [lines.first(), lines.last()]
        .map(|line| serde_json::from_str(line.unwrap()).unwrap())
        .into();
    assert_eq!(ends[0]["arrakisExport"], 1);
    assert_eq!(ends[1]["arrakisExportEnd"]["events"], lines.len() - 2);
    let events = lines[1..lines.len() - 1].iter().map(|line| {
        let (before, rest) = line.split_once("\"destination\":\"").unwrap();
        let (_, after) = rest.split_once('"').unwrap();
        let Named { request_id: id } = serde_json::from_str(line).unwrap();
        (id, format!("{before}…{after}"))
    });
    let found: BTreeMap<_, _> = events.collect();
    assert_eq!(found.len(), lines.len() - 2, "each event stands there once");
    found
}

fn assert_same(found: &BTreeMap<String, Value>, expected: &BTreeMap<String, Value>) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (session, expected) in expected {
        let (found, expected) =
            (found[session].as_object().unwrap(), expected.as_object().unwrap());
        for (part, expected) in expected {
            assert_eq!(&found[part], expected, "{part} of {session}");
        }
    }
}

/// From one place to another and, in doubt, once more.
async fn round_trip(from: &Place, to: &Place) {
    from.receive_everything().await;
    let (file, summary) = from.export("all.jsonl");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let exported = events(&file);
    assert_eq!(summary["events"], exported.len());
    assert_eq!(summary["refused"], 1);
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains("hunter2"), "what was redacted stays so");

    let report = to.import(&file);
    assert_eq!(report["imported"], exported.len());
    assert_eq!((&report["bad"], &report["complete"]), (&json!(0), &json!(true)));
    let again = to.import(&file);
    assert_eq!((&again["imported"], &again["known"]), (&json!(0), &json!(exported.len())));
    // An admin key has the server know each event by the digest that it had.
    to.drain_with(&to.key("admin", "main"));
    let expected = from.conversations();
    assert_eq!(expected.len(), recorded().len() + 3);
    assert_same(&to.conversations(), &expected);
    let (copy, _) = to.export("copy.jsonl");
    assert_eq!(events(&copy), exported);

    // What has been delivered comes again as repeats, which change nothing; also where it comes from.
    for place in [from, to] {
        assert_eq!(place.import(&copy)["imported"], exported.len());
        place.drain();
        assert_same(&place.conversations(), &expected);
        assert_eq!(events(&place.export("again.jsonl").0), exported);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_from_sqlite_is_the_same_in_another_sqlite() {
    round_trip(&Place::with_sqlite(), &Place::with_sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_from_postgres_is_the_same_in_sqlite() {
    let database = Database::create().await;
    let from = Place::start(World::new(), database.url().to_owned());
    round_trip(&from, &Place::with_sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_survives_its_events() {
    let (from, to) = (Place::with_sqlite(), Place::with_sqlite());
    from.receive_everything().await;
    let mut expected = from.conversations();
    let path = from.database.strip_prefix("sqlite://").unwrap();
    let mut database = SqliteConnection::establish(path).unwrap();
    let gone = "DELETE FROM webhook_events WHERE event_type <> 'PostToolUse' OR session_id = 'odd'";
    let gone = diesel::sql_query(gone).execute(&mut database).unwrap();
    assert!(gone > 100);
    let (file, summary) = from.export("rest.jsonl");
    assert!(summary["snapshots"].as_u64().unwrap() >= expected.len() as u64 - 1, "{summary}");
    to.import(&file);
    to.drain();
    let mut found = to.conversations();
    for one in found.values_mut().chain(expected.values_mut()) {
        one.as_object_mut().unwrap().remove("events");
        let sides = one["reconciliation"].as_object_mut().unwrap();
        sides.retain(|name, _| name != "events" && name != "slices");
    }
    assert_same(&found, &expected);
    let shown = to.run(&["conversations", "show", "8493f639"]);
    assert!(
        !shown.contains("Snapshot"),
        "what a snapshot brings is shown, not that it came: {shown}"
    );
}

/// A conversation without the ids that are of its workspace, and without the events that brought it.
fn in_any_workspace(mut value: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|name, _| {
                    !["id", "conversationId", "messageId", "workspace"].contains(&&name[..])
                });
                fields.values_mut().for_each(strip);
            }
            Value::Array(values) => values.iter_mut().for_each(strip),
            _ => {}
        }
    }
    value.as_object_mut().unwrap().remove("events");
    let sides = value["reconciliation"].as_object_mut().unwrap();
    sides.retain(|name, _| name != "events" && name != "slices");
    strip(&mut value);
    value
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_from_one_workspace_is_the_same_in_another_of_the_same_server() {
    let place = Place::with_sqlite();
    place.receive_everything().await;
    let path = place.database.strip_prefix("sqlite://").unwrap();
    let mut database = SqliteConnection::establish(path).unwrap();
    // What these events said travels as snapshots.
    let gone = "DELETE FROM webhook_events WHERE event_type = 'Transcript' OR session_id = 'odd'";
    assert!(diesel::sql_query(gone).execute(&mut database).unwrap() > 10);
    let before = place.conversations();
    let (file, summary) = place.export("all.jsonl");
    assert!(summary["snapshots"].as_u64().unwrap() > 0, "{summary}");
    let exported = events(&file).len();

    // Every request id is in use in this very database, by another workspace.
    let key = place.key("ingest", "copy");
    place.import(&file);
    place.drain_with(&key);
    let list = |arguments: &[&str]| {
        let list = ["events", "list", "--workspace", "copy", "--limit", "10000"];
        place.json(&[&list, arguments].concat()).as_array().unwrap().len()
    };
    assert_eq!(list(&[]), exported);
    assert_eq!(list(&["--status", "DUPLICATE"]), 0);
    let plain = |all: BTreeMap<String, Value>| -> BTreeMap<String, Value> {
        all.into_iter().map(|(session, one)| (session, in_any_workspace(one))).collect()
    };
    assert_same(&plain(place.conversations_of("copy")), &plain(before.clone()));
    assert_same(&place.conversations(), &before);

    // Again: the same bytes are repeats, also where their digests are not those that the export names.
    place.import(&file);
    place.drain_with(&key);
    assert_eq!(list(&["--status", "DUPLICATE"]), exported);
    assert_same(&plain(place.conversations_of("copy")), &plain(before));
}

#[test]
fn bad_lines_are_named_and_the_others_taken_in() {
    let world = World::new();
    let import = |text: &str, more: &[&str]| {
        let file = world.directory.path().join("import.jsonl");
        fs::write(&file, text).unwrap();
        let mut import = world.command(env!("CARGO_BIN_EXE_arrakis"));
        import.env("ARRAKIS_BIN", "true").args(["import", "--json"]).args(more).arg(file);
        import.output().unwrap()
    };
    let head = r#"{"arrakisExport":1,"workspace":"main","exportedAt":"2026-11-24T12:00:00Z","program":"p"}"#;
    let event = |id: &str, payload: &str| {
        let id = id.parse().unwrap();
        let (at, source) = (Timestamp::EPOCH, Source::default());
        let envelope = Envelope::new(id, at, "http://elsewhere/", source, payload.to_owned());
        String::from_utf8(encode_envelope(&envelope)).unwrap()
    };
    let damaged = event("c", "{\"a\":1}").replace("\"a\":1", "\"a\":2");
    let newer = head.replace(":1,", ":2,");
    let end = r#"{"arrakisExportEnd":{"events":2,"conversations":0}}"#;
    let lines = [
        head,
        &event("a", "{}"),
        "",
        "{\"x\":1}",
        &damaged,
        "\u{1b}[2J",
        &newer,
        &event("b", "no JSON"),
        end,
    ];
    let output = import(&lines.join("\n"), &[]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["imported"], &report["bad"]), (&json!(2), &json!(4)));
    assert_eq!(report["complete"], true);
    let problems = report["problems"].as_array().unwrap();
    assert_eq!(problems.iter().map(|p| &p["line"]).collect::<Vec<_>>(), [4, 5, 6, 7]);
    assert!(problems[1]["problem"].as_str().unwrap().contains("does not match its digest"));
    assert!(problems[3]["problem"].as_str().unwrap().contains("another version"));
    for file in world.spooled("pending") {
        let text = fs::read_to_string(file).unwrap();
        assert!(!text.contains("elsewhere"), "it goes where this home delivers to: {text}");
    }

    // A full spool takes nothing: the import says where to go on, and does.
    let long: Vec<String> = (0..600).map(|n| event(&format!("n{n}"), "{}")).collect();
    let text = format!("{head}\n{}\n{end}\n", long.join("\n"));
    fs::write(world.home().join("queue/full"), "").unwrap();
    let output = import(&text, &[]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("is full") && errors.contains("go on with --skip 1"), "{errors}");
    fs::remove_file(world.home().join("queue/full")).unwrap();
    let report: Value = serde_json::from_slice(&import(&text, &["--skip", "257"]).stdout).unwrap();
    assert_eq!((&report["imported"], &report["complete"]), (&json!(344), &json!(true)));

    let cut_off = import(&lines[..2].join("\n"), &[]);
    assert_eq!(cut_off.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&cut_off.stdout).unwrap();
    assert_eq!((&report["known"], &report["complete"]), (&json!(1), &json!(false)));
    let mut no_export = world.command(env!("CARGO_BIN_EXE_arrakis"));
    let no_export = no_export.args(["import", "/dev/null"]).output().unwrap();
    assert_eq!(no_export.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&no_export.stderr).contains("is no file of `arrakis export"));
}
