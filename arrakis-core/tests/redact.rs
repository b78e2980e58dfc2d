//! Redaction: what is found, what is left, and that JSON stays JSON.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use std::borrow::Cow;
use std::path::Path;

use arrakis_core::redact::{RedactConfig, Redactor, UserRule};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Secrets in the places where they are met; what stands between the bars must not survive.
const PLANTED: &[&str] = &[
    "export ANTHROPIC_API_KEY=|sk-ant-api03-AbCdEfGhIjKlMnOpQrStUvWxYz0123456789|",
    "|sk-proj-AbCdEfGhIjKlMnOpQrStUvWxYz0123456789abcd|",
    "git clone https://x:|ghp_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789|@github.com/a/b",
    "|github_pat_11ABCDEFG0123456789_abcdefghijklmnopqrstuvwxyz|",
    "|glpat-AbCdEfGhIjKlMnOpQrSt|",
    "aws_access_key_id = |AKIAIOSFODNN7EXAMPLE|",
    "aws_secret_access_key = |wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY|",
    "|AIzaSyA-1234567890abcdefghijklmnopqrstu|",
    "|xoxb-123456789012-abcdefghijkl|",
    "https://hooks.slack.com/services/|T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX|",
    "|sk_live_AbCdEfGhIjKlMnOpQrStUvWx|",
    "|npm_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789|",
    "|hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567|",
    "token |eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9|",
    "curl -H 'Authorization: Bearer |abcdef0123456789|'",
    "curl -H \"Authorization: Basic |dXNlcjpwYXNzd29yZA==|\"",
    "password=|hunter2|",
    "PASSWORD: '|correct-horse|'",
    "mysql --password=|s3cr3t!pass| -u root",
    "DB_PASSWORD=\"|p4ss.word|\"",
    "{\"password\": \"|with spaces and stuff|\"}",
    "config['api_key'] = 1; api_key = '|0123456789abcdef|'",
    "postgres://app:|pa55word|@db.internal:5432/app",
    "GITHUB_TOKEN=|0123456789abcdef|",
    "-----BEGIN RSA PRIVATE KEY-----\n|MIIEpAIBAAKCAQEA7bq\nAbC+/=|\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN OPENSSH PRIVATE KEY-----\n|b3BlbnNzaC1rZXktdjEAAAAA|",
    "client_secret=|abc123def456|&grant_type=x",
];

/// What looks a little like a secret and is none.
const INNOCENT: &[&str] = &[
    "the secretary: Anna keeps passwords safe",
    "\"input_tokens\":1000,\"max_tokens\":2000",
    "password=$DB_PASSWORD and password=${PW} and password=<your password>",
    "def login(user, password): return password",
    "toolu_580fe6f9ae7047bdbdac0555 06cbac0f-1500-4dcb-9802-eff884472760",
    "commit 59807616e1fa2540724bfbac14d7976d7e4a3860",
    "http://localhost:3000/path@v2 ssh://git@host/path mailto:a@b.c",
    "sk-short ghp_short AKIA hf_",
    "risk-assessment-of-the-year-2026-and-more",
];

fn unbar(planted: &str) -> (String, Vec<String>) {
    let secret = planted.split('|').nth(1).unwrap();
    (planted.replace('|', ""), secret.split('\n').map(str::to_owned).collect())
}

fn redact(text: &str) -> String {
    let redacted = Redactor::default().redact(text.as_bytes()).text.into_owned();
    String::from_utf8(redacted).unwrap()
}

#[test]
fn planted_secrets_do_not_survive_at_any_depth_of_quoting() {
    for planted in PLANTED {
        let (mut text, secrets) = unbar(planted);
        for depth in 0..4 {
            let redacted = redact(&text);
            for secret in &secrets {
                assert!(!redacted.contains(secret.as_str()), "depth {depth}: {text} -> {redacted}");
            }
            assert!(redacted.contains("[REDACTED:"), "{text}");
            assert_eq!(redact(&redacted), redacted, "a second time changes nothing");
            if depth > 0 {
                serde_json::from_str::<Value>(&redacted).expect("still JSON");
            }
            text = json!({ "tool_input": { "command": text } }).to_string();
        }
    }
}

#[test]
fn a_secret_that_is_a_json_field_is_replaced_whole() {
    let payload =
        json!({ "password": "a \"quoted\" \\ one", "pwd": 12345, "secret": null, "n": 1 });
    let redacted: Value = serde_json::from_str(&redact(&payload.to_string())).unwrap();
    assert_eq!(redacted["password"], "[REDACTED:password]");
    assert_eq!(redacted["pwd"], 12345);
    assert_eq!(redacted["secret"], Value::Null);
    assert_eq!(redacted["n"], 1);
}

#[test]
fn what_is_no_secret_is_left_alone() {
    for text in INNOCENT {
        assert_eq!(redact(text), *text);
        let quoted = json!({ "text": text }).to_string();
        assert_eq!(redact(&quoted), quoted);
    }
}

#[test]
fn real_payloads_pass_unchanged() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/hooks");
    let mut payloads = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let payload = std::fs::read(file.unwrap().path()).unwrap();
        assert!(matches!(Redactor::default().redact(&payload).text, Cow::Borrowed(_)));
        payloads += 1;
    }
    assert!(payloads > 100);
}

#[test]
fn users_add_rules_and_hear_of_broken_ones() {
    let rule = |name: &str, pattern: &str, literals: &[&str]| UserRule {
        name: name.to_owned(),
        pattern: pattern.to_owned(),
        literals: literals.iter().map(ToString::to_string).collect(),
    };
    let rules = vec![
        rule("badge", r"badge-(\d+)", &["BADGE-"]),
        rule("always", r"qq+", &[]),
        rule("broken", "(", &[]),
    ];
    let (redactor, problems) = Redactor::new(RedactConfig { enabled: true, rules });
    assert_eq!(problems.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["broken"]);
    assert_eq!(
        &*redactor.redact(b"badge-12 qqq").text,
        b"badge-[REDACTED:badge] [REDACTED:always]"
    );
    let (off, _) = Redactor::new(RedactConfig { enabled: false, rules: Vec::new() });
    assert_eq!(&*off.redact(b"password=hunter2").text, b"password=hunter2");
}

#[test]
fn bytes_that_are_no_text_are_searched_too() {
    let redacted =
        Redactor::default().redact(b"\xff\xfepassword=hunter2\x00\xff").text.into_owned();
    assert!(!redacted.windows(7).any(|window| window == b"hunter2"));
    assert_eq!(redacted.first(), Some(&0xff));
}

proptest! {
    #[test]
    fn json_stays_json_whatever_stands_around_a_secret(
        before in r#"[a-z "'\\:={},\n]{0,20}"#,
        after in r#"[a-z "'\\:={},\n]{0,20}"#,
        planted in prop::sample::select(PLANTED),
    ) {
        let (text, _) = unbar(planted);
        let text = format!("{before}{text}{after}");
        let once = json!({ "a": text, "password": text, "list": [text, 1] }).to_string();
        let twice = json!({ "b": once }).to_string();
        for payload in [once, twice] {
            let redacted = redact(&payload);
            prop_assert!(serde_json::from_str::<Value>(&redacted).is_ok(), "{payload} -> {redacted}");
        }
    }
}
