//! Redaction: what is found, what is left, and that JSON stays JSON.

use std::borrow::Cow;
use std::path::Path;

use arrakis_core::session::redact::{RedactConfig, Redactor, UserRule};
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
    "https://hooks.slack.com/services/|T01AB2CD3/B04EF5GH6/k8s7d6f5g4h3j2k1l0m9n8b7|",
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
    "-----BEGIN RSA PRIVATE KEY-----\n|MIIEpAIBAAKCAQEA7bqX\nAbC+/=|\n-----END RSA PRIVATE KEY-----",
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

/// What rules look for, and what stands around it.
const PIECES: &[&str] = &[
    "token",
    "password",
    "Authorization: ",
    "Basic ",
    "\\",
    "\"",
    "'",
    "`",
    ":",
    "=",
    ", ",
    "\n",
    "é",
    "a1b2c3d4e",
    "0123456789abcdef",
    "-----BEGIN",
    "-----END",
    " PRIVATE KEY-----",
    "npm_",
    "dapi",
    "\\u00",
    "eyJ",
    "Cookie: sid=",
    "https://",
    "@",
    "<",
    ">",
    "(",
    ",12345678,",
    "--",
    "value",
    "curl -u ",
    " ",
    "MIIEpAIBAAKCAQEA7bqXyZ",
    "[REDACTED:",
    "]",
    "hunter2",
    "Bearer ",
    "Digest x=",
    "\u{1b}[0m",
    "$",
    "{",
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

fn own(name: &str, pattern: &str, literals: &[&str]) -> UserRule {
    let literals = literals.iter().map(ToString::to_string).collect();
    UserRule { name: name.to_owned(), pattern: pattern.to_owned(), literals }
}

fn with_rules(rules: Vec<UserRule>) -> Redactor {
    let (redactor, problems) = Redactor::new(RedactConfig { enabled: true, rules });
    assert_eq!(problems, []);
    redactor
}

#[test]
fn users_add_rules() {
    let redactor = with_rules(vec![
        own("badge", r"badge-(\d+)", &["BADGE-"]),
        own("always", r"qq+", &[]),
        own("case", r"(?i)\bproject\s\w+", &[]),
        own("umlaut", "Müller", &[]),
    ]);
    let redacted = redactor.redact("badge-12 qqq PROJECT\tx Müller".as_bytes());
    let expected = "badge-[REDACTED:badge] [REDACTED:always] [REDACTED:case] [REDACTED:umlaut]";
    assert_eq!(String::from_utf8_lossy(&redacted.text), expected);
    let removed: Vec<(&str, u64)> = redacted.removed.iter().collect();
    assert_eq!(removed, [("always", 1), ("badge", 1), ("case", 1), ("umlaut", 1)]);
    let (off, _) = Redactor::new(RedactConfig { enabled: false, rules: Vec::new() });
    assert_eq!(&*off.redact(b"password=hunter2").text, b"password=hunter2");
}

#[test]
fn the_documented_example_works() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    assert!(
        guide.contains(r"pattern = 'badge-(\d+)'") && guide.contains(r#"literals = ["badge-"]"#)
    );
    let redactor = with_rules(vec![own("badge", r"badge-(\d+)", &["badge-"])]);
    assert_eq!(&*redactor.redact(b"badge-7").text, b"badge-[REDACTED:badge]");
}

#[test]
fn rules_that_cannot_be_used_say_why() {
    for (name, pattern, problem) in [
        ("broken", "(", "unclosed group"),
        ("empty", "a*", "empty text"),
        ("edge", r"\b", "empty text"),
        ("line", "(?m)^", "empty text"),
        ("unicode", r"(?u)\w+", "Unicode classes"),
        ("greek", r"\p{Greek}+", "Unicode classes"),
        ("huge", r"(?:[a-z]{1000}){1000}", "size limit"),
        ("na\"me", "x", "its name"),
        ("", "x", "its name"),
    ] {
        let rules = vec![own(name, pattern, &[])];
        let (redactor, problems) = Redactor::new(RedactConfig { enabled: true, rules });
        assert_eq!(problems.len(), 1, "{pattern}");
        assert!(problems[0].to_string().contains(problem), "{pattern}: {}", problems[0]);
        // The other rules still run.
        let redacted = redactor.redact(b"DB_PASSWORD=hunter2").text;
        assert_eq!(&*redacted, b"DB_PASSWORD=[REDACTED:password]");
    }
}

#[test]
fn a_users_rule_sees_what_the_text_means() {
    let redactor = with_rules(vec![
        own("name", r#"(?m)^name "([^"]*)"$"#, &[]),
        own("path", r"host/\w+", &["host/"]),
        own("all", r"secret plan.*", &[]),
        own("number", r"\d{6}", &[]),
    ]);
    let redact = |payload: &str| {
        String::from_utf8(redactor.redact(payload.as_bytes()).text.into_owned()).unwrap()
    };
    let text = "one\nname \"Ada\"\ntwo";
    for depth in 0..4 {
        let quote = |text, _| json!({ "a": text, "n": 1 }).to_string();
        let payload = (0..depth).fold(text.to_owned(), quote);
        let redacted = redact(&payload);
        assert!(!redacted.contains("Ada") && redacted.contains("two"), "{redacted}");
        assert!(depth == 0 || serde_json::from_str::<Value>(&redacted).is_ok(), "{redacted}");
    }
    let redacted = redact(r#"{"a":"https:\/\/host\/x"}"#);
    assert_eq!(redacted, r#"{"a":"https:\/\/[REDACTED:path]"}"#);
    // No match leaves the string that it began in, and a number becomes a string.
    let payload =
        r#"{"a":"the secret plan, \"all\" of it","b":"kept","c":123456,"d":[1234567,true]}"#;
    let redacted: Value = serde_json::from_str(&redact(payload)).unwrap();
    let number = "[REDACTED:number]";
    let expected =
        json!({ "a": "the [REDACTED:all]", "b": "kept", "c": number, "d": [number, true] });
    assert_eq!(redacted, expected);
}

#[test]
fn findings_are_ranges_of_the_payload_as_it_is_written() {
    let redactor = with_rules(vec![own("badge", "badge\n\\d+", &[])]);
    let payload = br#"{"a":"x badge\n12 y","b":"\nGITHUB_TOKEN=0123456789abcdef"}"#;
    let found = redactor.find(payload);
    let found = found.iter().map(|found| (found.rule, &payload[found.range.clone()]));
    let found: Vec<(&str, &[u8])> = found.collect();
    assert_eq!(found, [("badge", &br"badge\n12"[..]), ("token", b"0123456789abcdef")]);
}

#[test]
fn what_was_removed_is_counted_by_rule() {
    let text = b"A_TOKEN=0123456789abcdef B_TOKEN=1123456789abcdef PASSWORD=hunter2";
    let mut removed = Redactor::default().redact(text).removed;
    assert_eq!(serde_json::to_value(&removed).unwrap(), json!({ "password": 1, "token": 2 }));
    removed.add(&serde_json::from_value(json!({ "token": 5, "jwt": 1 })).unwrap());
    let counts: Vec<(&str, u64)> = removed.iter().collect();
    assert_eq!(counts, [("jwt", 1), ("password", 1), ("token", 7)]);
    assert_eq!(removed.total(), 9);
    assert!(Redactor::default().redact(b"nothing").removed.is_empty());
}

#[test]
fn an_issuers_form_names_a_secret_before_its_name_does() {
    let text = "GITHUB_TOKEN=ghp_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789";
    assert_eq!(redact(text), "GITHUB_TOKEN=[REDACTED:github-token]");
}

/// The lines of a key that was never used.
const KEY_LINES: [&str; 3] = [
    "MIIEpAIBAAKCAQEA7bqXyZ0123456789AbCdEfGhIjKlMnOpQrStUvWxYz+/a",
    "k2hlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAA",
    "q9b3BlbnNzaA==",
];

#[test]
fn key_blocks_are_taken_whole_wherever_their_lines_stand() {
    let [first, second, last] = KEY_LINES;
    let (begin, end) = ("-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----");
    for prefix in ["", "+", "-", "> ", "    ", "    #→", "id_rsa:#:", "| "] {
        let lines = [begin, first, second, last, end].into_iter().zip(1..);
        let lines =
            lines.map(|(line, n)| format!("{}{line}\n", prefix.replace('#', &n.to_string())));
        let whole = format!("cat id_rsa\n{}done", lines.collect::<String>());
        let (head, tail) = (whole.find(last).unwrap(), whole.find(first).unwrap());
        for text in [&whole[..], &whole[..head], &whole[tail..]] {
            for depth in 0..4 {
                let quote = |text, _| json!({ "a": text, "b": "kept" }).to_string();
                let payload = (0..depth).fold(text.to_owned(), quote);
                let redacted = redact(&payload);
                for line in KEY_LINES.iter().filter(|line| text.contains(*line)) {
                    assert!(!redacted.contains(&line[..12]), "{payload} -> {redacted}");
                }
                let json = serde_json::from_str::<Value>(&redacted);
                assert!(depth == 0 || json.is_ok_and(|json| json["b"] == "kept"), "{redacted}");
            }
        }
    }
}

#[test]
fn a_cut_payload_is_searched_as_well() {
    let token = "ghp_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789";
    let text = format!("x\nGITHUB_TOKEN={token}\ny");
    let payload = json!({ "a": text, "password": "hunter2-and-more" }).to_string();
    for cut in 0..payload.len() {
        for part in [&payload[..cut], &payload[cut..]] {
            let redacted = redact(part);
            assert!(!part.contains(token) || !redacted.contains("ghp_"), "{part} -> {redacted}");
            assert_eq!(redact(&redacted), redacted, "a second time changes nothing");
        }
    }
}

#[test]
fn what_is_written_is_not_much_longer_than_what_came() {
    let payload = "a://b:cde@ ".repeat(100_000);
    let redacted = Redactor::default().redact(payload.as_bytes());
    assert_eq!(redacted.removed.iter().collect::<Vec<_>>(), [("url-password", 100_000)]);
    assert!(redacted.text.len() < payload.len() * 3);
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
            prop_assert_eq!(redact(&redacted), redacted);
        }
    }

    #[test]
    fn json_stays_json_whatever_it_holds(
        parts in prop::collection::vec(prop::sample::select(PIECES), 0..24),
        depth in 1..4,
    ) {
        let quote = |text: String, _| json!({ "a": text, "password": text, "n": 12345678 }).to_string();
        let payload = (0..depth).fold(parts.concat(), quote);
        let redacted = redact(&payload);
        prop_assert!(serde_json::from_str::<Value>(&redacted).is_ok(), "{payload} -> {redacted}");
        prop_assert_eq!(redact(&redacted), redacted);
    }

    #[test]
    fn a_users_rule_leaves_json_json(
        text in any::<String>(),
        pattern in prop::sample::select(&[".", "..", "[^a]+", r"\d+|n", "é.", r"(?s)a(.*)"][..]),
    ) {
        let redactor = with_rules(vec![own("x", pattern, &[])]);
        let inner = json!({ "c": text }).to_string();
        let payload = json!({ "a": text, "n": 12, "b": [true, inner] }).to_string();
        let redacted = redactor.redact(payload.as_bytes()).text;
        let text = String::from_utf8_lossy(&redacted);
        prop_assert!(serde_json::from_slice::<Value>(&redacted).is_ok(), "{payload} -> {text}");
    }

    #[test]
    fn no_bytes_crash_it(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let redactor = Redactor::default();
        let mut end = 0;
        for found in redactor.find(&bytes) {
            prop_assert!(end <= found.range.start && found.range.start < found.range.end);
            end = found.range.end;
        }
        prop_assert!(end <= bytes.len());
    }
}
