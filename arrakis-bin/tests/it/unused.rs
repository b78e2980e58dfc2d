//! Sessions in which nothing happened, and hooks of another version.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::world::{World, feed};

/// What a command prints as JSON.
fn json_of(world: &World, arguments: &[&str]) -> Value {
    let output = world.arrakis(arguments);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {output:?}"))
}

#[test]
fn a_session_of_which_nothing_but_the_instructions_is_known_is_listed_only_where_all_are() {
    let world = World::new();
    let up = world.up();
    for (session, event, more) in [
        ("used", "UserPromptSubmit", json!({"prompt": "Fix the build."})),
        ("picked", "InstructionsLoaded", json!({"file_path": "/p/CLAUDE.md"})),
        ("started", "SessionStart", json!({"source": "startup"})),
    ] {
        let mut payload = json!({"session_id": session, "hook_event_name": event, "cwd": "/p"});
        payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        feed(world.hook(), payload.to_string().as_bytes());
    }
    let is_stored = |world: &World| world.count("webhook_events WHERE status = 'SUCCESS'") == 3;
    world.wait_until("all is stored", is_stored);
    let listed = |arguments: &[&str]| {
        let arguments = [&["conversations", "list", "--json"], arguments].concat();
        let list = json_of(&world, &arguments);
        let sessions = list.as_array().unwrap().iter();
        let mut sessions: Vec<String> =
            sessions.map(|one| one["sessionId"].as_str().unwrap().to_owned()).collect();
        sessions.sort();
        sessions.join(" ")
    };
    assert_eq!(listed(&[]), "started used");
    assert_eq!(listed(&["--all"]), "picked started used");
    assert_eq!(listed(&["--sort", "messages"]), "started used");
    assert_eq!(world.count("webhook_events WHERE event_type = 'InstructionsLoaded'"), 1);
    up.stop();
}

#[test]
fn doctor_tells_a_hook_of_another_version() {
    let world = World::new();
    let programs = world.directory.path().join("programs");
    fs::create_dir(&programs).unwrap();
    let (arrakis, hook) = (programs.join("arrakis"), programs.join("arrakis-hook"));
    fs::copy(env!("CARGO_BIN_EXE_arrakis"), &arrakis).unwrap();
    let found = |script: &str| {
        fs::write(&hook, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        checked(&world, &arrakis)
    };
    let version = env!("CARGO_PKG_VERSION");
    let (outcome, said) = found(&format!("echo arrakis-hook {version}"));
    assert_eq!(outcome, "ok", "{said}");
    let (outcome, said) = found("echo arrakis-hook 0.0.9");
    assert_eq!(outcome, "warning", "{said}");
    assert!(said.contains("0.0.9") && said.contains(version), "{said}");
    // An old one takes the question for an event. It is told to capture nothing.
    let (outcome, said) = found("[ \"$ARRAKIS_ENABLED\" = false ] || exit 1; cat >/dev/null");
    assert_eq!(outcome, "warning", "{said}");

    let told = world.hook().arg("--version").output().unwrap();
    assert_eq!(told.stdout, format!("arrakis-hook {version}\n").into_bytes());
    assert_eq!(world.spooled("pending").len(), 0);
}

/// What this `arrakis doctor` says of its hook.
fn checked(world: &World, arrakis: &Path) -> (String, String) {
    let mut doctor = world.command(arrakis.to_str().unwrap());
    let output = doctor.args(["doctor", "--json"]).env("ARRAKIS_BIN", "true").output().unwrap();
    let checks: Value = serde_json::from_slice(&output.stdout).unwrap();
    let check = checks.as_array().unwrap().iter().find(|check| check["name"] == "hook").unwrap();
    let text = |name: &str| check[name].as_str().unwrap().to_owned();
    (text("outcome"), text("found"))
}
