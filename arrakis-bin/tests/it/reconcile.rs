//! What is missing of conversations is shown and can be backfilled, with the real programs.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::world::{Up, World};
use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::testkit::recorded::recorded;
use arrakis_core::testkit::sessions::Session;
use arrakis_store_fs::{Layout, Spool};
use serde_json::{Value, json};

/// The hooks of a session as they were captured long ago, naming a transcript.
fn replay(world: &World, up: &Up, session: &Session, transcript: &Path) {
    let spool = Spool::new(Layout::new(world.home()));
    for (n, hook) in (0..).zip(&session.hooks) {
        let mut payload: Value = serde_json::from_slice(hook).unwrap();
        payload["transcript_path"] = json!(transcript);
        let id = format!("{}.{n}", session.session_id).parse().unwrap();
        let at = Timestamp::from_millis(1_795_481_720_000 + n);
        let payload = payload.to_string().into_bytes();
        let envelope = Envelope::new(id, at, up.url.as_str(), Source::default(), payload);
        spool.capture(&envelope).unwrap();
    }
    assert!(world.arrakis(&["drain", "--once"]).status.success());
}

fn follow_transcripts(world: &World, enabled: bool) {
    let path = world.home().join("config.toml");
    let config = fs::read_to_string(&path).unwrap();
    let config = config.split("\n[transcripts]").next().unwrap();
    fs::write(&path, format!("{config}\n[transcripts]\nenabled = {enabled}\n")).unwrap();
}

/// What the doctor finds about conversations: the outcome, and what it says.
fn diagnosis(world: &World) -> (String, String) {
    let output = world.arrakis(&["doctor", "--json"]);
    let checks: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let check = checks.iter().find(|check| check["name"] == "conversations").unwrap();
    let text = |name: &str| check[name].as_str().unwrap_or_default().to_owned();
    (text("outcome"), format!("{} -> {}", text("found"), text("remedy")))
}

fn shown(world: &World, session: &Session) -> String {
    let output = world.arrakis(&["conversations", "show", &session.session_id]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn put(path: &Path, text: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn session() -> Session {
    recorded().into_iter().find(|session| session.transcripts.len() == 1).unwrap()
}

#[test]
fn a_conversation_without_its_transcript_is_noticed_and_mended() {
    let world = World::new();
    let up = world.lone_up();
    follow_transcripts(&world, false);
    let session = session();
    let folder: PathBuf = world.directory.path().join(".claude/projects/-p");
    let transcript = folder.join(format!("{}.jsonl", session.session_id));
    put(&transcript, &session.transcripts[0].1);
    replay(&world, &up, &session, &transcript);

    let missing = "nothing of the transcript has come";
    assert!(shown(&world, &session).contains(missing));
    assert_eq!(diagnosis(&world).0, "ok", "nobody wants transcripts");
    follow_transcripts(&world, true);
    let (outcome, says) = diagnosis(&world);
    assert_eq!(outcome, "warning", "{says}");
    assert!(says.contains(&session.session_id) && says.contains(missing), "{says}");
    assert!(says.contains("arrakis conversations backfill --all"), "{says}");

    let output = world.arrakis(&["conversations", "backfill", "--all"]);
    assert!(output.status.success(), "{output:?}");
    assert!(world.arrakis(&["drain", "--once"]).status.success());
    assert_eq!(diagnosis(&world).0, "ok");
    let whole = shown(&world, &session);
    assert!(!whole.contains("missing"), "{whole}");
    let json = world.arrakis(&["conversations", "show", &session.session_id, "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    let sides = &json["reconciliation"];
    assert_eq!(sides["gaps"], json!([]));
    assert_eq!(sides["toolUsesInBoth"], json["toolUseCount"]);
    assert_eq!(sides["events"]["UserPromptSubmit"], json!(1));

    // Nothing is missing now, and reading again doubles nothing.
    let again = world.arrakis(&["conversations", "backfill", "--all"]);
    assert!(
        String::from_utf8_lossy(&again.stderr).contains("Nothing of any transcript is missing")
    );
    let id = &session.session_id[..8];
    assert!(world.arrakis(&["conversations", "backfill", id]).status.success());
    assert!(world.arrakis(&["drain", "--once"]).status.success());
    assert_eq!(shown(&world, &session), whole);
}

#[test]
fn a_backfill_reads_nothing_that_only_an_event_names() {
    let world = World::new();
    let up = world.lone_up();
    let session = session();
    let elsewhere = world.directory.path().join("elsewhere/secret.jsonl");
    put(&elsewhere, &session.transcripts[0].1);
    put(&elsewhere.with_extension("").join("subagents/agent-a.jsonl"), b"{}\n");
    replay(&world, &up, &session, &elsewhere);
    let output = world.arrakis(&["conversations", "backfill", &session.session_id]);
    assert!(!output.status.success(), "{output:?}");
    let says = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(says.contains("outside of the folders") && !says.contains("agent-a"), "{says}");
    assert!(world.arrakis(&["drain", "--once"]).status.success());
    assert_eq!(world.count("webhook_events WHERE event_type = 'Transcript'"), 0);

    fs::remove_file(&elsewhere).unwrap();
    let output = world.arrakis(&["conversations", "backfill", &session.session_id]);
    let says = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && says.contains("is not on this machine"), "{says}");
}
