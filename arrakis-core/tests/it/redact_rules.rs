//! Every default rule, by its own samples, in the places where secrets are met.

use arrakis_core::session::redact::{DefaultRule, Redactor, default_rules};
use serde_json::{Value, json};

/// What stands before a secret in dumps, listings, diffs, logs and coloured output.
const PREFIXES: &[&str] = &[
    "",
    "\n",
    "\t",
    "\r\n",
    " ",
    "\"",
    "'",
    "`",
    "   12→",
    "> ",
    ">",
    "config.txt:12:",
    "+",
    "-",
    "=",
    ": ",
    "\u{1b}[32m",
];

fn unbar(sample: &str) -> (String, Vec<String>) {
    let secrets =
        sample.split('|').skip(1).step_by(2).map(|secret| secret.replace('¦', "")).collect();
    (sample.replace(['|', '¦'], ""), secrets)
}

/// `text` as it is written in a payload: by itself, or in strings of JSON of this depth.
fn quoted(text: &str, depth: usize) -> String {
    (0..depth).fold(text.to_owned(), |text, level| match level {
        0 => json!({ "tool_input": { "command": text } }).to_string(),
        _ => json!({ "tool_response": { "stdout": text } }).to_string(),
    })
}

/// `text` without the markers of what was replaced: a rule may have the name of what a secret begins with.
fn unmarked(text: &str) -> String {
    let parts = text.split("[REDACTED:").enumerate();
    let parts =
        parts.map(
            |(n, part)| {
                if n == 0 { part } else { part.split_once(']').map_or(part, |(_, rest)| rest) }
            },
        );
    parts.collect::<Vec<_>>().join("\u{1}")
}

/// What is left of a secret: a part of six characters that still stands in `text`.
fn survivor(secret: &str, text: &str) -> Option<String> {
    // The samples are ASCII, so bytes are characters.
    let parts = secret.as_bytes().windows(secret.len().min(6));
    let parts = parts.map(|part| std::str::from_utf8(part).unwrap());
    parts.filter(|part| text.contains(*part)).map(str::to_owned).next()
}

fn check_secret(
    redactor: &Redactor,
    rule: &DefaultRule,
    sample: &str,
    prefix: &str,
    depth: usize,
) -> Option<String> {
    let (text, secrets) = unbar(sample);
    let payload = quoted(&format!("{prefix}{text}"), depth);
    let redacted = redactor.redact(payload.as_bytes());
    let after = String::from_utf8(redacted.text.into_owned()).unwrap();
    if depth > 0 && serde_json::from_str::<Value>(&after).is_err() {
        return Some(format!("{}: no JSON any more: {payload} -> {after}", rule.name));
    }
    if redactor.redact(after.as_bytes()).text != after.as_bytes() {
        return Some(format!("{}: not idempotent: {after}", rule.name));
    }
    let clean = unmarked(&after);
    let left = secrets.iter().find_map(|secret| survivor(secret, &clean));
    left.map(|left| {
        format!("{}: {left} survives at depth {depth}: {payload} -> {after}", rule.name)
    })
}

fn report(failures: &[String]) {
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_rule_finds_its_samples_by_its_name() {
    let redactor = Redactor::default();
    let mut failures = Vec::new();
    for rule in default_rules() {
        for sample in rule.secrets {
            let (text, _) = unbar(sample);
            let names: Vec<&str> =
                redactor.find(text.as_bytes()).iter().map(|found| found.rule).collect();
            if !names.contains(&rule.name) {
                failures.push(format!("{}: {names:?} in {text}", rule.name));
            }
        }
    }
    report(&failures);
}

#[test]
fn every_rule_finds_its_samples_behind_every_prefix_at_every_depth() {
    let redactor = Redactor::default();
    let mut failures = Vec::new();
    for rule in default_rules() {
        for sample in rule.secrets {
            let places =
                (0..4).flat_map(|depth| PREFIXES.iter().map(move |prefix| (depth, prefix)));
            let tried =
                places.map(|(depth, prefix)| check_secret(&redactor, &rule, sample, prefix, depth));
            // One failure of a sample says enough.
            failures.extend(tried.flatten().next());
        }
    }
    report(&failures);
}

#[test]
fn no_rule_takes_what_is_harmless() {
    let redactor = Redactor::default();
    let mut failures = Vec::new();
    for rule in default_rules() {
        for text in rule.harmless {
            for depth in 0..4 {
                let payload = quoted(text, depth);
                for found in redactor.find(payload.as_bytes()) {
                    let taken = &payload[found.range];
                    failures
                        .push(format!("{}: {} takes {taken} of {payload}", rule.name, found.rule));
                }
            }
        }
    }
    report(&failures);
}
