//! What leaves the machine, and with which key, under configurations that are wrong or come from others: the
//! real hook, drainer and server.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};

use crate::support::world::{Up, World, event_files, feed};
use serde_json::{Value, json};

const EVENT: &[u8] = br#"{"session_id":"s","hook_event_name":"Stop"}"#;

/// A receiver, or a proxy, that answers every request with this status and repeats it in the body. It keeps
/// what it hears.
struct Listener {
    address: String,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Listener {
    fn new(status: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let hears = Arc::clone(&heard);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (mut request, mut part) = (Vec::new(), [0; 65536]);
                // The head is what the tests are about.
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut part) {
                        Ok(0) | Err(_) => break,
                        Ok(read) => request.extend_from_slice(&part[..read]),
                    }
                }
                let request = String::from_utf8_lossy(&request).into_owned();
                let head = request.split("\r\n\r\n").next().unwrap().replace("\r\n", " ");
                let length = head.len();
                hears.lock().unwrap().push(request);
                let reply = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{head}"
                );
                stream.write_all(reply.as_bytes()).ok();
                stream.shutdown(std::net::Shutdown::Write).ok();
                stream.read_to_end(&mut Vec::new()).ok();
            }
        });
        Self { address, heard }
    }

    fn url(&self) -> String {
        format!("http://{}/api/claude-hooks", self.address)
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

fn config(world: &World) -> PathBuf {
    world.home().join("config.toml")
}

fn write_config(world: &World, text: &str) {
    fs::create_dir_all(world.home()).unwrap();
    fs::write(config(world), text).unwrap();
}

fn stored(world: &World) -> i64 {
    world.count("webhook_events WHERE status = 'SUCCESS'")
}

fn text(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{out}{err}")
}

/// What the doctor finds by the name of a check: its outcome, and what it says. Its own event starts no drainer.
fn diagnosis(world: &World, name: &str) -> (String, String) {
    let mut doctor = world.command(env!("CARGO_BIN_EXE_arrakis"));
    let output = doctor.args(["doctor", "--json"]).env("ARRAKIS_BIN", "true").output().unwrap();
    let checks: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let broken = checks.iter().any(|check| check["outcome"] == "broken");
    assert_eq!(output.status.success(), !broken);
    let check = checks.iter().find(|check| check["name"] == name).unwrap();
    let said = |field: &str| check[field].as_str().unwrap_or_default().to_owned();
    (said("outcome"), format!("{} -> {}", said("found"), said("remedy")))
}

/// The warnings of drainers that say this.
fn warnings(world: &World, what: &str) -> Vec<Value> {
    let log = fs::read_to_string(world.home().join("logs/webhook-error.log")).unwrap_or_default();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["component"] == "drainer" && line.to_string().contains(what)).collect()
}

/// Everything that is kept in a home but its configuration, and that contains `secret`.
fn files_with(directory: &Path, secret: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, secret));
        } else if path.file_name().unwrap() != "config.toml" {
            let bytes = fs::read(&path).unwrap_or_default();
            let is_in = |secret: &[u8]| bytes.windows(secret.len()).any(|part| part == secret);
            found.extend(is_in(secret.as_bytes()).then_some(path));
        }
    }
    found
}

/// A world with a server, and the configuration that it has written.
fn served() -> (World, Up, String) {
    let world = World::new();
    let up = world.lone_up();
    let good = fs::read_to_string(config(&world)).unwrap();
    (world, up, good)
}

/// Captures under `broken`, sees that nothing leaves, corrects it, and sees that all goes on.
fn held_until_corrected(what: &str, line: &str, break_it: impl Fn(&Path, &str)) {
    let (world, _up, good) = served();
    break_it(&config(&world), &good);
    for _ in 0..3 {
        feed(world.hook(), EVENT);
    }
    world.wait_until("the drainer has said why", |world| {
        !warnings(world, "delivery is held until the configuration is corrected").is_empty()
    });
    // Those that the drainer has leased come back.
    world.wait_until("three events wait", |world| world.spooled("pending").len() == 3);
    assert_eq!(stored(&world), 0, "{what}");
    let told = warnings(&world, "delivery is held until the configuration is corrected");
    assert_eq!(told.len(), 1, "{what} is told once: {told:#?}");

    let status = world.arrakis(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let held = status["held"].as_str().unwrap();
    assert!(held.contains("config.toml") && held.contains(line), "{what}: {held}");
    let status = text(&world.arrakis(&["status"]));
    assert!(status.contains("delivery  held, no event leaves this machine"), "{status}");
    let (outcome, found) = diagnosis(&world, "configuration");
    assert_eq!(outcome, "broken", "{found}");
    assert!(found.contains(line) && found.contains("-> correct "), "{found}");
    let once = world.arrakis(&["drain", "--once"]);
    assert!(!once.status.success() && text(&once).contains("delivery is held"), "{}", text(&once));
    // The doctor's own event waits too.
    assert_eq!(stored(&world), 0, "{what}");

    let path = config(&world);
    if path.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) }.unwrap();
    fs::write(&path, good).unwrap();
    world.wait_until("all goes on", |world| stored(world) >= 4);
    world.wait_until("nothing waits", |world| world.spooled("pending").is_empty());
    let failed = event_files(&world.home().join("queue/failed")).len();
    assert_eq!(failed, 0, "holding delivery fails no event");
}

#[test]
fn a_file_that_is_no_toml_holds_delivery_until_it_is_corrected() {
    held_until_corrected("no TOML", "line 4", |path, good| {
        assert_eq!(good.lines().count(), 2);
        fs::write(path, format!("{good}debug = true\nenabled = \n")).unwrap();
    });
}

#[test]
fn a_file_that_cannot_be_read_holds_delivery_until_it_can() {
    held_until_corrected("a pipe", "it is not a regular file", |path, _| {
        fs::remove_file(path).unwrap();
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    });
}

#[test]
fn privacy_settings_that_cannot_be_read_hold_delivery_until_they_can() {
    held_until_corrected("enabled", "line 1", |path, good| {
        fs::write(path, format!("enabled = \"false\"\n{good}")).unwrap();
    });
    held_until_corrected("redact.enabled", "line 1", |path, good| {
        fs::write(path, format!("redact.enabled = 1\n{good}")).unwrap();
    });
}

#[test]
fn what_was_captured_under_a_rule_that_did_not_work_is_redacted_before_it_leaves() {
    let (world, _up, good) = served();
    let projects = world.directory.path().join(".claude/projects/p");
    fs::create_dir_all(&projects).unwrap();
    let said = json!({
        "type": "user", "uuid": "018f0000-0000-7000-8000-000000000001",
        "sessionId": "s", "timestamp": "2026-11-24T12:00:00Z",
        "message": { "role": "user", "content": "wears badge-4711 too" },
    });
    let transcript = projects.join("s.jsonl");
    fs::write(&transcript, format!("{said}\n")).unwrap();
    let event = json!({
        "session_id": "s", "hook_event_name": "UserPromptSubmit", "prompt": "wear badge-4711",
        "transcript_path": transcript,
    });
    let rule = "[[redact.rules]]\nname = \"badge\"\n";
    write_config(&world, &format!("{good}{rule}pattern = \"badge-[0-9\"\n"));
    feed(world.hook(), event.to_string().as_bytes());
    world.wait_until("the drainer has said why", |world| {
        !warnings(world, "delivery is held").is_empty()
    });
    assert_eq!(files_with(&world.home().join("queue"), "wears badge").len(), 0, "it is not read");
    let import = world.arrakis(&["import"]);
    assert!(!import.status.success() && text(&import).contains("line 3"), "{}", text(&import));
    let (outcome, found) = diagnosis(&world, "configuration");
    assert_eq!(outcome, "broken");
    assert!(found.contains("line 3") && found.contains("badge"), "{found}");
    assert_eq!(diagnosis(&world, "transcripts").0, "warning");
    assert_eq!(stored(&world), 0);

    write_config(&world, &format!("{good}{rule}pattern = \"badge-[0-9]+\"\n"));
    let has = |text: &str| format!("webhook_events WHERE request_body LIKE '%{text}%'");
    world.wait_until("prompt and transcript have arrived", |world| {
        world.count(&has("wear [REDACTED:badge]")) == 1
            && world.count(&has("wears [REDACTED:badge] too")) == 1
    });
    assert_eq!(world.count(&has("4711")), 0);
}

#[test]
fn an_environment_that_cannot_be_read_holds_its_own_drainer_alone() {
    let (world, _up, _) = served();
    let mut hook = world.hook();
    hook.env("ARRAKIS_ENABLED", "perhaps");
    feed(hook, EVENT);
    world.wait_until("its drainer has said why", |world| {
        !warnings(world, "correct or unset ARRAKIS_ENABLED").is_empty()
    });
    assert_eq!((world.spooled("pending").len(), stored(&world)), (1, 0));
    feed(world.hook(), EVENT);
    world.wait_until("another drainer delivers", |world| stored(world) == 2);
}

#[test]
fn direct_delivery_waits_for_nobody_while_it_is_held() {
    let (world, _up, good) = served();
    let (asked, program) = (world.directory.path().join("asked"), stand_in(&world));
    let direct = format!("delivery = \"direct\"\n{good}");
    for (config, arguments) in
        [(direct.clone(), "drain --only "), (format!("redact.enabled = 1\n{direct}"), "drain\n")]
    {
        write_config(&world, &config);
        let mut hook = world.hook();
        hook.env("ARRAKIS_BIN", &program);
        feed(hook, EVENT);
        world.wait_until("a drainer is started", |_| {
            fs::read_to_string(&asked).is_ok_and(|asked| asked.starts_with(arguments))
        });
    }
    assert_eq!(stored(&world), 0);
}

/// A program that notes its arguments, and then its environment, instead of draining.
fn stand_in(world: &World) -> PathBuf {
    let path = world.directory.path().join("stand-in");
    let folder = world.directory.path().display();
    let script = format!(
        "#!/bin/sh\necho \"$@\" > {folder}/asked.new\nmv {folder}/asked.new {folder}/asked\n\
         tr '\\0' '\\n' < /proc/$$/environ > {folder}/environ.new\n\
         mv {folder}/environ.new {folder}/environ\n"
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    path
}

#[test]
fn no_server_starts_under_a_configuration_that_cannot_be_used_and_one_that_runs_keeps_its_own() {
    let (world, up, good) = served();
    let rule = "[[redact.rules]]\nname = \"badge\"\npattern = ";
    write_config(&world, &format!("{good}{rule}\"badge-[0-9]+\"\n"));
    up.stop();
    let up = world.lone_up();
    for (config, named) in
        [(format!("{good}{rule}\"(\"\n"), "line 3"), (format!("{good}x"), "line 3")]
    {
        write_config(&world, &config);
        for (program, arguments) in [
            (env!("CARGO_BIN_EXE_arrakis"), &["up", "--listen", "127.0.0.1:0"][..]),
            (env!("CARGO_BIN_EXE_arrakis-server"), &["--listen", "127.0.0.1:0"]),
        ] {
            let output = world.command(program).args(arguments).output().unwrap();
            let said = text(&output);
            assert!(!output.status.success(), "{said}");
            assert!(said.contains(named) && said.contains("correct "), "{said}");
            assert!(said.contains("no server starts"), "{said}");
        }
        assert_eq!(fs::read_to_string(self::config(&world)).unwrap(), config, "it is left");
    }
    // Raw JSON, as Claude Code's own HTTP hooks send it.
    let key = good.lines().find_map(|line| line.strip_prefix("api_key = ")).unwrap();
    let body = r#"{"session_id":"s","hook_event_name":"Stop","last":"badge-4711"}"#;
    assert!(post(&up.url, key.trim_matches('"'), body).contains("\"success\":true"));
    let bodies: Vec<_> = world.rows().into_iter().filter_map(|row| row.request_body).collect();
    assert_eq!(bodies, [body.replace("badge-4711", "[REDACTED:badge]")]);
}

/// Sends raw JSON to a server; returns what it says.
fn post(url: &str, key: &str, body: &str) -> String {
    let (address, path) = url.trim_start_matches("http://").split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST /{path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

#[test]
fn a_url_of_the_environment_never_gets_the_key_of_the_file() {
    let evil = Listener::new("503 No");
    let (world, _up, _) = served();
    for variable in ["ARRAKIS_URL", "CLAUDE_HOOK_API_URL"] {
        let mut hook = world.hook();
        hook.env(variable, evil.url());
        feed(hook, EVENT);
    }
    let held = format!("there is no key for {}", evil.url());
    world.wait_until("the drainer has said why", |world| !warnings(world, &held).is_empty());
    // The same drainer, with that variable, delivers with the key of the file to the URL of the file.
    feed(world.hook(), EVENT);
    world.wait_until("the other event is stored", |world| stored(world) == 1);
    assert_eq!(world.spooled("pending").len(), 2, "they wait for a key");
    for arguments in [&["status"][..], &["doctor"], &["drain", "--once"]] {
        let mut command = world.command(env!("CARGO_BIN_EXE_arrakis"));
        command.env("ARRAKIS_URL", evil.url()).args(arguments).output().unwrap();
    }
    let heard = evil.heard();
    assert!(heard.iter().all(|heard| heard.starts_with("GET /healthz ")), "{heard:#?}");
    assert!(heard.iter().all(|heard| !heard.to_lowercase().contains("authorization")));

    // With a key of its own beside it, it gets that one.
    let mut drain = world.command(env!("CARGO_BIN_EXE_arrakis"));
    drain.env("ARRAKIS_URL", evil.url()).env("ARRAKIS_API_KEY", "its-own");
    drain.args(["drain", "--once", "--parallel"]).output().unwrap();
    let posts: Vec<_> =
        evil.heard().into_iter().filter(|heard| heard.starts_with("POST")).collect();
    assert!(!posts.is_empty());
    assert!(posts.iter().all(|post| post.contains("Bearer its-own")), "{posts:#?}");
}

#[test]
fn a_key_of_the_environment_alone_is_not_sent_to_the_url_of_the_file() {
    let receiver = Listener::new("503 No");
    let world = World::new();
    write_config(&world, &format!("url = {:?}\n", receiver.url()));
    feed(world.lone_hook(), EVENT);
    let mut drain = world.command(env!("CARGO_BIN_EXE_arrakis"));
    drain.env("ARRAKIS_API_KEY", "of-the-environment").args(["drain", "--once"]);
    assert!(drain.output().unwrap().status.success());
    assert_eq!(receiver.heard(), Vec::<String>::new());
    let told = warnings(&world, "ARRAKIS_API_KEY: it stands beside no ARRAKIS_URL");
    assert_eq!(told.len(), 1, "{told:#?}");
}

#[test]
fn a_query_goes_with_each_request_and_is_kept_nowhere() {
    const QUERY: &str = "token=only-for-the-request";
    let (world, up, good) = served();
    let with_query = |url: &str| good.replace(&up.url, &format!("{url}?{QUERY}"));
    // Delivered, alone and in a batch, with a report of the spool after it.
    write_config(&world, &with_query(&up.url));
    feed(world.lone_hook(), EVENT);
    assert!(world.arrakis(&["drain", "--once"]).status.success());
    for _ in 0..3 {
        feed(world.lone_hook(), EVENT);
    }
    assert!(world.arrakis(&["drain", "--once"]).status.success());
    assert_eq!(stored(&world), 4);

    // Refused by somebody who repeats the request, with the key in it.
    let listener = Listener::new("401 Who");
    write_config(&world, &with_query(&listener.url()));
    let mut said = String::new();
    for _ in 0..2 {
        feed(world.lone_hook(), EVENT);
        said += &text(&world.arrakis(&["drain", "--once"]));
    }
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["doctor"],
        &["queue", "list"],
        &["queue", "list", "--json"],
        &["logs"],
        &["events", "list", "--json"],
    ] {
        said += &text(&world.arrakis(arguments));
    }
    let heard = listener.heard();
    let lines: BTreeSet<_> = heard.iter().map(|heard| heard.lines().next().unwrap()).collect();
    assert!(lines.contains(&*format!("POST /api/claude-hooks?{QUERY} HTTP/1.1")), "{lines:?}");
    assert!(
        lines.contains(&*format!("POST /api/claude-hooks/batch?{QUERY} HTTP/1.1")),
        "{lines:?}"
    );
    let key = good.lines().find_map(|line| line.strip_prefix("api_key = ")).unwrap();
    let key = key.trim_matches('"');
    assert!(heard.iter().any(|heard| heard.contains(key)));

    // Not reached at all.
    write_config(&world, &with_query("http://127.0.0.1:1/api/claude-hooks"));
    feed(world.lone_hook(), EVENT);
    said += &text(&world.arrakis(&["drain", "--once"]));
    said += &text(&world.arrakis(&["status"]));
    assert!(said.contains("127.0.0.1:1/api/claude-hooks"), "{said}");
    for secret in [QUERY, "only-for-the-request", key] {
        assert!(!said.contains(secret), "{said}");
        assert_eq!(files_with(&world.home(), secret), Vec::<PathBuf>::new(), "{secret}");
    }
    assert!(world.home().join("queue/receivers.json").exists());
}

#[test]
fn a_drainer_inherits_only_the_variables_that_it_reads() {
    let world = World::new();
    let (program, environ) = (stand_in(&world), world.directory.path().join("environ"));
    let own = [
        ("ARRAKIS_URL", "http://127.0.0.1:1/x"),
        ("CLAUDE_HOOK_API_KEY", "k"),
        ("ARRAKIS_RETRY_DELAY", "1"),
        ("CLAUDE_CONFIG_DIR", "/c"),
        ("HTTPS_PROXY", "http://127.0.0.1:2"),
        ("no_proxy", "h"),
        ("SSL_CERT_FILE", "/s"),
        ("TMPDIR", "/tmp"),
        ("USER", "u"),
    ];
    let of_others = [
        ("ANTHROPIC_API_KEY", "secret"),
        ("CLAUDE_CODE_MESSAGING_TOKEN", "secret"),
        ("CLAUDE_CODE_OAUTH_TOKEN", "secret"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("DATABASE_URL", "secret"),
        ("ARRAKIS_OTHER", "secret"),
        ("LD_PRELOAD", ""),
    ];
    let mut hook = world.hook();
    hook.env("ARRAKIS_BIN", &program).envs(own).envs(of_others);
    feed(hook, EVENT);
    world.wait_until("it was started", |_| environ.exists());
    let environ = fs::read_to_string(environ).unwrap();
    let mut found: BTreeSet<_> = environ.lines().filter_map(|line| line.split_once('=')).collect();
    for variable in own {
        assert!(found.remove(&variable), "{variable:?} of {environ}");
    }
    let names: Vec<_> = found.into_iter().map(|(name, _)| name).collect();
    let rest = ["ARRAKIS_BIN", "ARRAKIS_FALLBACK_HOME", "ARRAKIS_HOME", "HOME", "PATH"];
    assert_eq!(names, rest, "{environ}");
}

/// A drain with every variable that can name a proxy.
fn drain_with_proxy(world: &World, proxy: &Listener) -> Output {
    let mut drain = world.command(env!("CARGO_BIN_EXE_arrakis"));
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
        drain.env(name, format!("http://{}", proxy.address));
    }
    drain.env("NO_PROXY", "").args(["drain", "--once"]).output().unwrap()
}

#[test]
fn no_proxy_stands_before_this_machine_however_it_is_spelled() {
    let proxy = Listener::new("502 Proxy");
    let (world, up, good) = served();
    let port = up.address().rsplit(':').next().unwrap().to_owned();
    let mut events = 0;
    for host in [
        "localhost",
        "LOCALHOST",
        "localhost.",
        "arrakis.localhost",
        "127.0.0.1",
        "127.1",
        "0x7f000001",
        "2130706433",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
    ] {
        let url = format!("http://{host}:{port}/api/claude-hooks");
        write_config(&world, &good.replace(&up.url, &url));
        feed(world.lone_hook(), EVENT);
        let drained = drain_with_proxy(&world, &proxy);
        events += 1;
        assert!(drained.status.success(), "{host}: {}", text(&drained));
        assert_eq!(stored(&world), events, "{host}");
    }
    assert_eq!(proxy.heard(), Vec::<String>::new());
}

#[test]
fn a_key_crosses_the_network_in_clear_only_to_a_host_that_is_allowed_by_name() {
    let proxy = Listener::new("503 No");
    let world = World::new();
    // Nobody has this name, so what the proxy hears is what would have left.
    let receiver = "url = \"http://box.invalid/api/claude-hooks\"\napi_key = \"ark_clear\"\n";
    for config in [receiver.to_owned(), format!("{receiver}allow_plain_http = [\"other.invalid\"]")]
    {
        write_config(&world, &config);
        feed(world.lone_hook(), EVENT);
        drain_with_proxy(&world, &proxy);
        assert_eq!(proxy.heard(), Vec::<String>::new());
    }
    assert_eq!(world.spooled("pending").len(), 2, "they wait");
    assert_eq!(warnings(&world, "would cross the network unencrypted").len(), 2);
    let (outcome, found) = diagnosis(&world, "key");
    assert_eq!(outcome, "broken");
    assert!(found.contains("put \"box.invalid\" into allow_plain_http"), "{found}");

    write_config(&world, &format!("{receiver}allow_plain_http = [\"Box.Invalid\"]"));
    drain_with_proxy(&world, &proxy);
    let heard = proxy.heard();
    assert!(heard.iter().any(|heard| heard.contains("Bearer ark_clear")), "{heard:#?}");
    assert_eq!(diagnosis(&world, "key").0, "ok");
}

#[test]
fn a_first_start_does_not_ask_the_environment_what_to_write() {
    let world = World::new();
    let mut up = world.up_command("127.0.0.1:0");
    up.env("ARRAKIS_BIN", "true");
    up.env("ARRAKIS_URL", "http://elsewhere.invalid/").env("ARRAKIS_API_KEY", "of-the-environment");
    let up = Up::start(up);
    let written = fs::read_to_string(config(&world)).unwrap();
    assert!(written.contains(&up.url) && written.contains("ark_"), "{written}");
    assert!(!written.contains("environment") && !written.contains("elsewhere"), "{written}");
}
