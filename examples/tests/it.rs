//! Runs each example as its reader would.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use std::process::Command;

/// What the example writes.
fn output(program: &str) -> String {
    let done = Command::new(program).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn embed_stores_what_it_captured_without_its_secret() {
    assert_eq!(
        output(env!("CARGO_BIN_EXE_embed")),
        "delivered 2\n\
         UserPromptSubmit SUCCESS, 1 secrets removed\n\
         Stop SUCCESS, 0 secrets removed\n     \
         user: Log in with password=[REDACTED:password]\nassistant: I am in.\n"
    );
}

#[test]
fn own_transport_prints_what_it_delivers() {
    let printed = output(env!("CARGO_BIN_EXE_own-transport"));
    for n in 1..=3 {
        assert!(
            printed.contains(&format!("{{\"hook_event_name\":\"Stop\",\"n\":{n}}}\n")),
            "{printed}"
        );
    }
    assert!(printed.ends_with("delivered 3\n"), "{printed}");
}

#[test]
fn read_conversation_shows_the_sample() {
    let shown = output(env!("CARGO_BIN_EXE_read-conversation"));
    assert!(shown.starts_with("demo: What is spice?\n     user: What is spice?\n"), "{shown}");
    assert!(shown.contains("Grep succeeded in 1000 ms\n"), "{shown}");
    assert!(shown.contains("80 tokens of output"), "{shown}");
}
