//! Redaction against labelled texts: what it finds, and what it leaves alone.
//!
//! The set and its rules are described in `testdata/redact/README.md`.

use arrakis_core::session::redact::Redactor;
use serde::Deserialize;
use serde_json::{Value, json};

/// The share of secrets that must be found.
const RECALL: f64 = 0.98;

/// The share of replaced texts that must hold a secret.
const PRECISION: f64 = 0.99;

/// Characters of a secret that may stand in a row after redaction.
const LEFT_MAX: usize = 5;

#[derive(Debug, Deserialize)]
struct Sample {
    kind: String,
    text: String,
    secret: Option<String>,
}

fn samples(file: &str) -> Vec<Sample> {
    let path = format!("{}/testdata/redact/{file}", env!("CARGO_MANIFEST_DIR"));
    let lines = std::fs::read_to_string(path).unwrap().replace('¦', "");
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The places in which a text reaches Arrakis: as it is, in events of hooks, in a line of a transcript, and in
/// output that is JSON itself.
const PLACES: usize = 6;

fn placed(text: &str, place: usize) -> String {
    match place {
        0 => text.to_owned(),
        1 => json!({ "hook_event_name": "UserPromptSubmit", "prompt": text }).to_string(),
        2 => json!({ "tool_name": "Bash", "tool_input": { "command": text } }).to_string(),
        3 => json!({ "type": "user", "message": { "content": [{ "type": "tool_result", "content": text }] } }).to_string(),
        4 => json!({ "tool_response": { "stdout": placed(text, 2) } }).to_string(),
        _ => json!({ "tool_response": { "stdout": placed(text, 4) } }).to_string(),
    }
}

/// Whether a part of the secret still stands in `after` that does not stand around the secret as well.
fn survives(sample: &Sample, secret: &str, place: usize, after: &str) -> bool {
    let around = placed(&sample.text.replace(secret, "\u{1}"), place);
    let after: String = after
        .split("[REDACTED:")
        .enumerate()
        .map(
            |(n, part)| {
                if n == 0 { part } else { part.split_once(']').map_or(part, |(_, rest)| rest) }
            },
        )
        .collect::<Vec<_>>()
        .join("\u{1}");
    // A key of several lines survives by any of its lines, and an escape of its text by what it is written as.
    secret.split('\n').flat_map(|line| line.split("\\n")).any(|line| {
        let letters: Vec<char> = line.chars().collect();
        letters.windows(letters.len().clamp(1, LEFT_MAX + 1)).any(|part| {
            let part: String = part.iter().collect();
            after.matches(&part).count() > around.matches(&part).count()
        })
    })
}

#[test]
#[allow(clippy::print_stdout, reason = "the figures are worth reading")]
fn labelled_secrets_are_found_and_near_misses_left_alone() {
    let redactor = Redactor::default();
    let (secrets, harmless) = (samples("secrets.jsonl"), samples("harmless.jsonl"));
    assert!(secrets.len() >= 400 && harmless.len() >= 400);
    for place in 0..PLACES {
        let mut missed = Vec::new();
        for sample in &secrets {
            let payload = placed(&sample.text, place);
            let after =
                String::from_utf8(redactor.redact(payload.as_bytes()).text.into_owned()).unwrap();
            if place > 0 {
                serde_json::from_str::<Value>(&after).expect("JSON stays JSON");
            }
            let secret = sample.secret.as_deref().unwrap();
            if survives(sample, secret, place, &after) {
                missed.push(format!("missed {}: {after}", sample.kind));
            }
        }
        let mut taken = Vec::new();
        for sample in &harmless {
            let payload = placed(&sample.text, place);
            let after = redactor.redact(payload.as_bytes()).text;
            if after != payload.as_bytes() {
                taken.push(format!("took {}: {}", sample.kind, String::from_utf8_lossy(&after)));
            }
        }
        let found = (secrets.len() - missed.len()) as f64;
        let recall = found / secrets.len() as f64;
        let precision = found / (found + taken.len() as f64);
        println!("place {place}: recall {recall:.4}, precision {precision:.4}");
        let wrong = [missed, taken].concat().join("\n");
        assert!(
            recall >= RECALL && precision >= PRECISION,
            "place {place}: {recall:.3}, {precision:.3}\n{wrong}"
        );
    }
}

#[test]
fn what_was_missed_before_is_found() {
    let redactor = Redactor::default();
    for sample in samples("missed.jsonl") {
        for place in 0..PLACES {
            let payload = placed(&sample.text, place);
            let after =
                String::from_utf8(redactor.redact(payload.as_bytes()).text.into_owned()).unwrap();
            match &sample.secret {
                Some(secret) => {
                    assert!(!survives(&sample, secret, place, &after), "{}: {after}", sample.kind);
                }
                None => assert_eq!(after, payload, "{}", sample.kind),
            }
        }
    }
}

#[test]
fn code_stays_as_it_was_written() {
    let path = format!("{}/testdata/redact/code.jsonl", env!("CARGO_MANIFEST_DIR"));
    let transcript = std::fs::read(path).unwrap();
    for line in transcript.split(|byte| *byte == b'\n') {
        assert_eq!(Redactor::default().find(line), []);
    }
}
