//! The kinds of bad input.

use std::sync::LazyLock;

/// A kind of bad input: the n-th request's id and body.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) make: fn(usize) -> (String, String),
}

pub(crate) const KINDS: &[Kind] = &[
    Kind { name: "events of 1 KiB, as many as it can", make: many },
    Kind { name: "the other's request and session ids", make: same_ids },
    Kind { name: "ids of every length and alphabet", make: odd_ids },
    Kind { name: "16 MiB in one field", make: large_field },
    Kind { name: "a million distinct words", make: many_words },
    Kind { name: "100,000 blocks in one message", make: many_blocks },
    Kind { name: "small blocks on a large message", make: growing_message },
    Kind { name: "1,000 lines of one millisecond", make: one_millisecond },
];

/// A hook's payload of 1 KiB.
pub(crate) fn event(session: &str, tool_use_id: &str) -> String {
    format!(
        r#"{{"session_id":"{session}","cwd":"/p","hook_event_name":"PostToolUse","tool_name":"Bash","tool_use_id":"{tool_use_id}","tool_response":"{}"}}"#,
        words(tool_use_id.len(), 880)
    )
}

/// About so many bytes of words, of a thousand.
fn words(seed: usize, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 8);
    let mut n = seed;
    while text.len() < bytes {
        n = n.wrapping_mul(31).wrapping_add(7) % 1_000_003;
        text.push_str(&format!("w{} ", n % 1000));
    }
    text
}

fn many(n: usize) -> (String, String) {
    (format!("many-{n}"), event(&format!("s{}", n % 50), &format!("t{n}")))
}

fn same_ids(n: usize) -> (String, String) {
    (format!("alone-{}", n % 500), event("quiet-session", &format!("alone-{}", n % 500)))
}

fn odd_ids(n: usize) -> (String, String) {
    let alphabet =
        ["a", "\u{e9}", "\u{1f600}", "\\u0000", "\\ud800", "/../", "'; --", "\\n"][n % 8];
    let id = alphabet.repeat(n * 37 % 70_000);
    let body = event(&id, &id).replace("\"/p\"", &format!("\"{id}\""));
    (format!("odd-{n}-{}", "x".repeat(n % 130)), body)
}

fn large_field(n: usize) -> (String, String) {
    static TEXT: LazyLock<String> = LazyLock::new(|| words(1, 16 * 1024 * 1024 - 1024));
    let payload = format!(
        r#"{{"session_id":"large","hook_event_name":"PostToolUse","tool_name":"Bash","tool_use_id":"l{n}","tool_response":"{}"}}"#,
        *TEXT
    );
    (format!("large-{n}"), payload)
}

fn many_words(n: usize) -> (String, String) {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| (0..1_000_000).map(|n| format!("{n:x}z ")).collect());
    let payload = format!(
        r#"{{"session_id":"words","hook_event_name":"PostToolUse","tool_name":"Bash","tool_use_id":"w{n}","tool_response":"{}"}}"#,
        *TEXT
    );
    (format!("words-{n}"), payload)
}

fn many_blocks(n: usize) -> (String, String) {
    static BLOCKS: LazyLock<String> = LazyLock::new(|| {
        let block = |n: usize| format!(r#"{{"type":"text","text":"block {n}"}}"#);
        (0..100_000).map(block).collect::<Vec<_>>().join(",")
    });
    (format!("blocks-{n}"), slice("blocks", &[line(n, &format!("m{n}"), &BLOCKS)]))
}

/// One message of 15 MiB, and then a block of some bytes each time.
fn growing_message(n: usize) -> (String, String) {
    static FIRST: LazyLock<String> = LazyLock::new(|| words(2, 15 * 1024 * 1024));
    let text = if n == 0 { FIRST.as_str() } else { "a few words more" };
    let block = format!(r#"{{"type":"text","text":"{text} {n}"}}"#);
    (format!("growing-{n}"), slice("growing", &[line(n, "fat", &block)]))
}

fn one_millisecond(n: usize) -> (String, String) {
    let text = |n: usize| format!(r#"{{"type":"text","text":"line {n}"}}"#);
    let lines = (0..1000).map(|k| line(n * 1000 + k, &format!("m{n}-{k}"), &text(k)));
    (format!("same-{n}"), slice("same", &lines.collect::<Vec<_>>()))
}

/// A line of a transcript: all of them of one millisecond.
fn line(n: usize, message: &str, blocks: &str) -> String {
    format!(
        r#"{{"uuid":"line-{n}","timestamp":"2026-11-24T00:55:00.000Z","type":"assistant","message":{{"id":"{message}","role":"assistant","model":"claude-opus-5-5","content":[{blocks}]}}}}"#
    )
}

fn slice(session: &str, lines: &[String]) -> String {
    format!(
        r#"{{"session_id":"{session}","hook_event_name":"Transcript","transcript_path":"/t.jsonl","lines":[{}]}}"#,
        lines.join(",")
    )
}
