//! Slices of transcripts: what is kept, what is named, and where they end.

use arrakis_core::base::digest::Digest;
use arrakis_core::base::limits::{
    LINE_TYPES_MAX, SLICE_MAX_BYTES, SLICE_MAX_LINES, TRANSCRIPT_LINE_MAX_BYTES,
    UNKNOWN_LINE_MAX_BYTES, UNKNOWN_LINES_MAX_BYTES,
};
use arrakis_core::session::redact::Redactor;
use arrakis_core::session::transcript::{
    LongLine, Slice, SliceConfig, Slicer, TranscriptAgent, TranscriptFile,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn file() -> TranscriptFile {
    TranscriptFile {
        session_id: "s".to_owned(),
        path: "/t/s.jsonl".to_owned(),
        cwd: Some("/p".to_owned()),
        agent: None,
        identity: "1:2".to_owned(),
    }
}

fn slices(file: &TranscriptFile, start: u64, config: SliceConfig, lines: &[Vec<u8>]) -> Vec<Slice> {
    let redactor = Redactor::default();
    let mut slicer = Slicer::new(file, start, config, &redactor);
    let mut all: Vec<Slice> = lines.iter().filter_map(|line| slicer.push(line)).collect();
    all.extend(slicer.finish());
    all
}

fn one(text: impl AsRef<[u8]>) -> (Slice, Value) {
    let lines: Vec<_> = text.as_ref().split_inclusive(|byte| *byte == b'\n').collect();
    let lines: Vec<_> = lines.into_iter().map(<[u8]>::to_vec).collect();
    let mut all = slices(&file(), 0, SliceConfig::default(), &lines);
    assert_eq!(all.len(), 1);
    let payload = serde_json::from_slice(&all[0].payload).unwrap();
    (all.remove(0), payload)
}

/// What every line of the conversation has.
const PLACE: &str = r#""uuid":"u","timestamp":"2026-11-24T00:00:00Z""#;

#[test]
fn lines_of_the_conversation_are_kept_as_they_are_and_others_counted() {
    let text = [
        &format!(r#"{{"type":"user", "n":1.50,{PLACE}}}"#),
        "\r\n\n",
        &format!(r#"{{"type":"attachment","attachment":{{"type":"date"}},{PLACE}}}"#),
        "\n",
        r#"{"type":"api-request-blob","message":{"role":"user","content":"again"}}"#,
        "\n",
        r#"{"type":"queue-operation","operation":"dequeue"}"#,
        "\n",
        r#"{"type":"attachment","attachment":{"type":"model"}}"#,
        "\n",
        r#"{"type":"cost-state","totalCostUSD":0.030000000000000002,"startTime":1795982131273}"#,
    ]
    .concat();
    let (slice, payload) = one(&text);
    assert_eq!((slice.start, slice.end), (0, text.len() as u64));
    assert_eq!(slice.digest, Digest::of(text.as_bytes()));
    assert_eq!((slice.lines, slice.unreadable.len()), (2, 0));
    let raw = String::from_utf8(slice.payload).unwrap();
    assert!(raw.contains(&format!(r#"{{"type":"user", "n":1.50,{PLACE}}}"#)), "{raw}");
    assert!(raw.contains("0.030000000000000002"), "{raw}");
    assert!(!raw.contains('\n') && !raw.contains("again"));
    assert_eq!(payload["hook_event_name"], "Transcript");
    assert_eq!(payload["session_id"], "s");
    assert_eq!(payload["transcript_path"], "/t/s.jsonl");
    let skipped = json!({"api-request-blob": 1, "attachment": 2, "queue-operation": 1});
    assert_eq!(payload["skipped"], skipped);
    for absent in ["agent_id", "unreadable", "unknown"] {
        assert!(payload.get(absent).is_none(), "{absent}");
    }
}

#[test]
fn lines_of_unknown_types_are_counted_and_short_ones_kept() {
    let long = "x".repeat(UNKNOWN_LINE_MAX_BYTES);
    let secret = format!("sk-ant-api03-{}", "a1B2".repeat(24));
    let text = [
        format!(r#"{{"type":"from-the-future","message":{{"role":"user","content":"{secret}"}}}}"#),
        format!(r#"{{"type":"from-the-future","x":"{long}"}}"#),
        format!(r#"{{"type":"attachment","attachment":{{"type":"new"}},{PLACE}}}"#),
        format!(r#"{{"type":"system","subtype":"new",{PLACE}}}"#),
        // Of no transcript.
        r#"{"apiKeyHelper":"no type"}"#.to_owned(),
        // Of the conversation, though something is missing: kept, however long.
        format!(r#"{{"type":"user","timestamp":"2026-11-24T00:00:00Z","x":"{long}"}}"#),
    ]
    .join("\n");
    let (slice, payload) = one(&text);
    let unknown = json!({"from-the-future": 2, "attachment/new": 1, "system/new": 1, "no type": 1,
        "user without uuid": 1});
    assert_eq!(payload["unknown"], unknown);
    assert_eq!(serde_json::to_value(&slice.unknown).unwrap(), unknown);
    assert_eq!((slice.lines, slice.unreadable.len()), (4, 0));
    let raw = payload["lines"].to_string();
    assert!(!raw.contains("a1B2a1B2") && raw.contains("[REDACTED:"), "{raw}");
    assert_eq!(raw.matches(&long).count(), 1);
    assert!(!raw.contains("apiKeyHelper"), "{raw}");
}

#[test]
fn lines_of_unknown_types_cost_little() {
    let line = |n: usize| format!("{{\"type\":\"new-{n}\",\"x\":\"{}\"}}\n", "x".repeat(9000));
    let lines: Vec<_> = (0..2000).map(|n| line(n % 100).into_bytes()).collect();
    let all = slices(&file(), 0, SliceConfig::default(), &lines);
    let [slice] = &all[..] else { panic!("{} slices", all.len()) };
    assert_eq!(slice.lines, UNKNOWN_LINES_MAX_BYTES / line(0).len());
    assert!(slice.payload.len() < UNKNOWN_LINES_MAX_BYTES + 4096, "{}", slice.payload.len());
    assert_eq!(slice.unknown.len(), LINE_TYPES_MAX + 1);
    assert_eq!(slice.unknown.values().sum::<u64>(), 2000);
    assert_eq!(slice.unknown["other"], (100 - LINE_TYPES_MAX as u64) * 20);
}

#[test]
fn lines_that_cannot_be_read_are_named_and_delay_nothing() {
    let text = b"{\"type\":\"user\"\n\x00\x00{\"type\":user}\n[1]\n{\"type\":\"user\",\"x\":\"\xff\"}\n{\"type\":\"user\",\"n\":1}\n";
    let (slice, payload) = one(text);
    assert_eq!((slice.lines, slice.unreadable.len()), (2, 4));
    assert_eq!(payload["lines"][0]["x"], "\u{fffd}", "the rest of that line is kept");
    let unreadable = payload["unreadable"].as_array().unwrap();
    let offsets: Vec<_> = unreadable.iter().map(|one| one["offset"].as_u64().unwrap()).collect();
    assert_eq!(offsets, [0, 15, 31, 35]);
    let reasons: Vec<_> = unreadable.iter().map(|one| one["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["not_json", "not_json", "not_json", "not_utf8"]);
    assert_eq!(unreadable[2]["text"], "[1]");
    assert_eq!(unreadable[2]["digest"], Digest::of(b"[1]\n").to_string());
}

#[test]
fn whole_records_on_a_damaged_line_are_lines_and_only_the_rest_is_named() {
    let record = |n: u8| format!(r#"{{"type":"user","sessionId":"s","n":{n},{PLACE}}}"#);
    let marked = format!("\u{feff}{}\r\n", record(1));
    let glued = format!("{}{}\n", record(2), record(3));
    let cut = &record(4)[..40];
    let text = [&marked, &glued, cut, &record(5), "\n\0\0\0", &record(6), "\n\0\0\n"].concat();
    let (slice, payload) = one(&text);
    let numbers = payload["lines"].as_array().unwrap().iter().map(|line| line["n"].clone());
    assert_eq!(numbers.collect::<Vec<_>>(), [1, 2, 3, 5, 6]);
    let [unreadable] = &slice.unreadable[..] else { panic!("{:?}", slice.unreadable) };
    assert_eq!((unreadable.offset, unreadable.bytes), ((marked.len() + glued.len()) as u64, 40));
    assert_eq!((unreadable.digest, &*unreadable.text), (Digest::of(cut.as_bytes()), cut));
    assert_eq!((slice.end, slice.digest), (text.len() as u64, Digest::of(text.as_bytes())));
}

#[test]
fn of_a_field_that_a_line_has_twice_the_last_one_counts() {
    let (slice, payload) = one(format!(r#"{{"type":"mode","type":"user",{PLACE}}}"#));
    assert_eq!((slice.lines, slice.unreadable.len()), (1, 0));
    assert_eq!(payload["lines"][0]["type"], "user");
}

#[test]
fn a_line_that_is_too_long_is_named_with_its_size_digest_and_head() {
    let redactor = Redactor::default();
    let file = file();
    let mut slicer = Slicer::new(&file, 5, SliceConfig::default(), &redactor);
    let whole = vec![b'x'; TRANSCRIPT_LINE_MAX_BYTES + 1];
    assert!(slicer.push(&whole).is_none());
    let long = LongLine { bytes: 60_000_000, digest: Digest::of(b"all"), head: b"{\"type\":" };
    assert!(slicer.push_long(long).is_none());
    assert!(slicer.push(b"{\"type\":\"user\"}\n").is_none());
    let slice = slicer.finish().unwrap();
    let payload: Value = serde_json::from_slice(&slice.payload).unwrap();
    assert_eq!((slice.lines, slice.unreadable.len()), (1, 2));
    assert_eq!(payload["unreadable"][0]["bytes"], whole.len());
    assert_eq!(payload["unreadable"][1]["bytes"], 60_000_000);
    assert_eq!(payload["unreadable"][1]["digest"], Digest::of(b"all").to_string());
    assert_eq!(payload["unreadable"][1]["text"], "{\"type\":");
    assert_eq!(payload["end"], 5 + whole.len() as u64 + 60_000_000 + 16);
    assert!(slice.payload.len() < 4096);
}

#[test]
fn secrets_are_redacted_in_lines_and_in_what_is_shown_of_broken_ones() {
    let secret = format!("sk-ant-api03-{}", "a1B2".repeat(24));
    let broken = format!("{{\"type\":\"user\",\"x\":\"{secret}\n");
    let (_, payload) = one(format!("{{\"type\":\"user\",\"x\":\"{secret}\"}}\n{broken}"));
    assert!(!payload.to_string().contains("a1B2a1B2"), "{payload}");
    assert!(payload["unreadable"][0]["text"].as_str().unwrap().contains("[REDACTED:"));
    assert!(payload["lines"][0]["x"].as_str().unwrap().contains("[REDACTED:"));
}

#[test]
fn thinking_can_be_left_out() {
    let line =
        br#"{"type":"assistant","message":{"content":[{"type":"thinking","thinking":"hm"}]}}"#;
    let all = slices(&file(), 0, SliceConfig { thinking: false }, &[line.to_vec()]);
    let payload: Value = serde_json::from_slice(&all[0].payload).unwrap();
    assert_eq!(payload["lines"][0]["message"]["content"], json!([{"type": "thinking"}]));
    let kept = slices(&file(), 0, SliceConfig::default(), &[line.to_vec()]);
    assert!(String::from_utf8_lossy(&kept[0].payload).contains("hm"));
    assert_ne!(kept[0].request_id, all[0].request_id);
    let torn = slices(&file(), 0, SliceConfig { thinking: false }, &[line[..60].to_vec()]);
    let payload: Value = serde_json::from_slice(&torn[0].payload).unwrap();
    assert_eq!(payload["unreadable"][0]["text"], "", "it may be thinking");
    assert_eq!(payload["unreadable"][0]["bytes"], 60);
    let unknown = br#"{"type":"new","deliberation":"hm"}"#.to_vec();
    let all = slices(&file(), 0, SliceConfig { thinking: false }, &[unknown]);
    assert!(!String::from_utf8_lossy(&all[0].payload).contains("hm"), "it may be thinking as well");
    assert_eq!(all[0].unknown["new"], 1);
}

#[test]
fn a_slice_of_noise_alone_says_so() {
    let (slice, _) = one("{\"type\":\"atis-latch\"}\n");
    assert!(slice.is_empty());
    let redactor = Redactor::default();
    let file = file();
    assert!(Slicer::new(&file, 9, SliceConfig::default(), &redactor).finish().is_none());
}

#[test]
fn ids_depend_on_the_file_its_agent_the_place_and_the_bytes() {
    let line = b"{\"type\":\"user\"}\n".to_vec();
    let id = |file: &TranscriptFile, start, line: &[u8]| {
        slices(file, start, SliceConfig::default(), &[line.to_vec()]).remove(0).request_id
    };
    let agent = TranscriptAgent { id: "a".to_owned(), agent_type: None, tool_use_id: None };
    let first = id(&file(), 0, &line);
    assert_eq!(first, id(&file(), 0, &line));
    for other in [
        id(&file(), 1, &line),
        id(&file(), 0, b"{\"type\": \"user\"}\n"),
        id(&TranscriptFile { session_id: "t".to_owned(), ..file() }, 0, &line),
        id(&TranscriptFile { identity: "1:3".to_owned(), ..file() }, 0, &line),
        id(&TranscriptFile { agent: Some(agent), ..file() }, 0, &line),
    ] {
        assert_ne!(first, other);
    }
}

proptest! {
    /// Slices follow each other without gap, hold every line once, and are small unless a line is not.
    #[test]
    fn slices_cover_the_file(sizes in prop::collection::vec(prop_oneof![
        9 => 0..2000_usize, 1 => 0..SLICE_MAX_BYTES * 2,
    ], 0..60)) {
        let line = |size: usize| format!("{{\"type\":\"user\",\"x\":\"{}\"}}\n", "x".repeat(size));
        let lines: Vec<_> = sizes.iter().map(|size| line(*size).into_bytes()).collect();
        let all = slices(&file(), 7, SliceConfig::default(), &lines);
        let mut at = 7;
        for slice in &all {
            prop_assert_eq!(slice.start, at);
            at = slice.end;
            prop_assert!(slice.lines <= SLICE_MAX_LINES);
            prop_assert!(slice.lines == 1 || slice.payload.len() < SLICE_MAX_BYTES + 4096);
        }
        let total: usize = lines.iter().map(Vec::len).sum();
        prop_assert_eq!(at, 7 + total as u64);
        prop_assert_eq!(all.iter().map(|slice| slice.lines).sum::<usize>(), lines.len());
    }
}
