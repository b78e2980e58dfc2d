//! A guard for the client's next change: lines of recorded transcripts whose type was renamed, from which a field
//! was dropped, or that have a `message` added. Nothing of them becomes anybody's words, and no time falls to 1970.

use std::collections::{BTreeMap, BTreeSet};

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::base::id::uuid_v7;
use arrakis_core::record::ingest::{Reception, admit, judge};
use arrakis_core::record::store::Verdict;
use arrakis_core::session::conversation::{Changes, Role, TitleSource};
use arrakis_core::session::redact::Redactor;
use arrakis_core::session::transcript::{SliceConfig, Slicer, TranscriptFile};
use arrakis_core::testkit::recorded::recorded;
use arrakis_core::testkit::recorded::{RECORDINGS, lines, recording};
use serde_json::{Value, json};

/// Every line of every recorded transcript, with the file that it is of.
fn all_lines() -> Vec<(TranscriptFile, Value)> {
    let sessions = recorded().into_iter().chain(RECORDINGS.iter().flat_map(|name| recording(name)));
    let files = sessions.flat_map(|session| session.transcripts);
    files
        .flat_map(|(file, text)| {
            let lines: Vec<Value> =
                lines(&text).map(|line| serde_json::from_slice(line).unwrap()).collect();
            lines.into_iter().map(move |line| (file.clone(), line))
        })
        .collect()
}

/// What a slice with one line changes.
fn read(file: &TranscriptFile, line: &Value) -> Changes {
    let agent = file.agent.as_ref().map(|agent| &agent.id);
    let payload = json!({"hook_event_name": "Transcript", "session_id": file.session_id,
        "transcript_path": file.path, "agent_id": agent, "lines": [line]});
    let at = Timestamp::from_millis(1_800_000_000_000);
    let id = "e".parse().unwrap();
    let payload = payload.to_string().into_bytes();
    let envelope = Envelope::new(id, at, "http://h/", Source::default(), payload);
    let reception = Reception {
        event_id: uuid_v7(at, [0; 10]),
        received_at: at,
        workspace: "main".to_owned(),
        headers: BTreeMap::new(),
        ip_address: None,
    };
    match judge(&admit(envelope.into(), reception).0) {
        Verdict::Apply(changes) => changes,
        other => panic!("{other:?}"),
    }
}

/// Who says what.
fn words(changes: &Changes) -> BTreeSet<(Role, &str)> {
    changes.messages.iter().map(|one| (one.role, &*one.content.value)).collect()
}

fn assert_no_old_time(changes: &Changes, what: &str) {
    let conversations = changes.conversations.iter();
    // A title has no time of its own.
    let conversations = conversations.flat_map(|one| {
        let is_title = one.title.as_ref().is_some_and(|title| title.source > TitleSource::Prompt);
        [one.started_at, if is_title { one.started_at } else { one.last_event_at }]
    });
    let messages = changes.messages.iter().flat_map(|one| {
        let sent_at = one.sent_at.unwrap_or(one.content.stamp.at);
        [one.content.stamp.at, sent_at]
    });
    let tool_uses = changes.tool_uses.iter().flat_map(|one| {
        let result = one.result.as_ref().map_or(one.first.at, |result| result.stamp.at);
        [one.first.at, result]
    });
    let subagents = changes.subagents.iter().flat_map(|one| [one.started_at, one.last_event_at]);
    for at in conversations.chain(messages).chain(tool_uses).chain(subagents) {
        assert!(at > "2026-01-01T00:00:00Z".parse().unwrap(), "{what}: {at}");
    }
}

#[test]
fn a_line_of_another_type_is_nobodys_words_and_is_named() {
    let redactor = Redactor::default();
    let renamed = |line: &Value, path: &[&str]| {
        let mut line = line.clone();
        let place = path.iter().fold(&mut line, |value, name| &mut value[*name]);
        let name = format!("new-{}", place.as_str()?);
        *place = json!(name);
        Some((line, name))
    };
    let mut seen = 0;
    for (file, line) in all_lines() {
        let has_subtype = |of: &str| line["type"] == of;
        let mut paths: Vec<&[&str]> = vec![&["type"]];
        if has_subtype("attachment") {
            paths.push(&["attachment", "type"]);
        }
        if has_subtype("system") {
            paths.push(&["subtype"]);
        }
        if has_subtype("queue-operation") {
            paths.push(&["operation"]);
        }
        for path in paths {
            let (line, name) = renamed(&line, path).unwrap();
            let changes = read(&file, &line);
            let rest = Changes { answer: Default::default(), ..changes };
            assert_eq!(rest, Changes::default(), "{line}");
            let mut slicer = Slicer::new(&file, 0, SliceConfig::default(), &redactor);
            assert!(slicer.push(line.to_string().as_bytes()).is_none());
            let slice = slicer.finish().unwrap();
            let named: Vec<_> = slice.unknown.iter().collect();
            let [(unknown, 1)] = named[..] else { panic!("{line}: {named:?}") };
            assert!(unknown.ends_with(&name), "{unknown} {name}");
            seen += 1;
        }
    }
    assert!(seen > 1000, "{seen}");
}

#[test]
fn a_line_without_one_of_its_fields_gives_nobody_new_words() {
    let mut seen = 0;
    for (file, line) in all_lines() {
        let whole = read(&file, &line);
        assert_no_old_time(&whole, &line.to_string());
        for field in line.as_object().unwrap().keys() {
            let mut line = line.clone();
            line.as_object_mut().unwrap().remove(field);
            let changes = read(&file, &line);
            let (found, expected) = (words(&changes), words(&whole));
            let is_part = |(role, words): &(Role, &str)| {
                expected.iter().any(|whole| whole.0 == *role && whole.1.contains(words))
            };
            let new: Vec<_> = found.iter().filter(|words| !is_part(words)).collect();
            assert!(new.is_empty(), "without {field}: {new:?} of {line}");
            assert_no_old_time(&changes, &format!("without {field}: {line}"));
            if matches!(&**field, "uuid" | "timestamp" | "type" | "message") {
                assert!(found.is_empty(), "without {field}: {line}");
            }
            seen += 1;
        }
    }
    assert!(seen > 10_000, "{seen}");
}

#[test]
fn a_message_that_was_added_to_a_line_is_not_read() {
    let mut seen = 0;
    for (file, mut line) in all_lines() {
        if line.get("message").is_some() && line["type"] != "api-request-blob" {
            continue;
        }
        let whole = read(&file, &line);
        for role in ["user", "assistant", "system"] {
            let content = json!([{"type": "text", "text": "planted"},
                {"type": "tool_use", "id": "t", "name": "Bash", "input": {}}]);
            line["message"] = json!({"role": role, "id": "m", "model": "m", "content": content,
                "usage": {"input_tokens": 7}});
            assert_eq!(words(&read(&file, &line)), words(&whole), "{line}");
            assert_eq!(read(&file, &line).tool_uses, [], "{line}");
        }
        seen += 1;
    }
    assert!(seen > 500, "{seen}");
}

#[test]
fn a_cost_without_a_start_moves_no_conversation() {
    let (file, line) =
        all_lines().into_iter().find(|(_, line)| line["type"] == "cost-state").unwrap();
    assert!(read(&file, &line).conversations[0].client_cost.is_some());
    for start in [json!(null), json!(0), json!(-1), json!(1_000_000_000), json!("soon")] {
        let mut line = line.clone();
        line["startTime"] = start;
        assert_eq!(read(&file, &line).conversations, [], "{line}");
    }
}
