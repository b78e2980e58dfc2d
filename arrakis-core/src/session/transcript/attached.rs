//! Lines with files that the client sends to the model beside a prompt, without the files.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::session::hook::{Field, object};

/// What a line keeps of its attachment: its kind, its name, and its size.
const KEPT: &[&str] =
    &["type", "filename", "displayPath", "path", "pageCount", "fileSize", "server", "uri", "name"];

/// What is kept of the file within it.
const KEPT_OF_FILE: &[&str] = &["type", "numLines", "totalLines", "originalSize", "cells"];

type Object<'a> = BTreeMap<String, &'a RawValue>;

/// The line without what the file holds, and without the words that the client has made of that. `None` where it cannot
/// be read.
pub(super) fn reduced(line: &[u8]) -> Option<Vec<u8>> {
    let mut line: Object<'_> = object(line).ok()?;
    line.remove("rendered");
    let attachment: Object<'_> = line.get("attachment").map(|raw| Field(Some(raw)))?.read()?;
    let mut kept: BTreeMap<&str, Box<RawValue>> = BTreeMap::new();
    for (name, value) in &attachment {
        if KEPT.contains(&name.as_str()) {
            kept.insert(name, (*value).to_owned());
        }
    }
    if let Some(content) = attachment.get("content").and_then(|raw| content(raw)) {
        kept.insert("content", content);
    }
    let attachment = to_raw_value(&kept).ok()?;
    line.insert("attachment".to_owned(), &attachment);
    serde_json::to_vec(&line).ok()
}

/// What is kept of what was attached: of text how many lines it has.
fn content(raw: &RawValue) -> Option<Box<RawValue>> {
    if let Some(text) = Field(Some(raw)).text() {
        let file = serde_json::json!({ "numLines": text.lines().count() });
        return to_raw_value(&serde_json::json!({ "type": "text", "file": file })).ok();
    }
    let content: Object<'_> = Field(Some(raw)).read()?;
    let file: Object<'_> = content.get("file").and_then(|raw| Field(Some(raw)).read())?;
    let mut kept: BTreeMap<&str, Value> = BTreeMap::new();
    for (name, value) in &file {
        if !KEPT_OF_FILE.contains(&name.as_str()) {
            continue;
        }
        let value: Value = Field(Some(value)).read()?;
        let value = match value {
            Value::Array(several) => several.len().into(),
            other => other,
        };
        kept.insert(name, value);
    }
    let content_type: Option<Value> =
        content.get("type").and_then(|raw| Field(Some(raw)).read()).filter(Value::is_string);
    to_raw_value(&serde_json::json!({ "type": content_type, "file": kept })).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(line: &Value) -> Value {
        let kept = reduced(line.to_string().as_bytes()).unwrap();
        let mut kept: Value = serde_json::from_slice(&kept).unwrap();
        assert_eq!(kept["uuid"], "u");
        assert!(kept.get("rendered").is_none());
        kept["attachment"].take()
    }

    #[test]
    fn of_a_file_its_name_and_size_stay() {
        let line = |attachment: Value| {
            serde_json::json!({"type": "attachment", "uuid": "u", "rendered": [{"content": "words"}],
                "attachment": attachment})
        };
        let text = serde_json::json!({"type": "file", "filename": "/p/a.md", "displayPath": "a.md",
            "content": {"type": "text", "file": {"content": "one\ntwo", "numLines": 2, "totalLines": 9}}});
        assert_eq!(
            attachment(&line(text)),
            serde_json::json!({"type": "file", "filename": "/p/a.md", "displayPath": "a.md",
                "content": {"type": "text", "file": {"numLines": 2, "totalLines": 9}}})
        );
        let folder = serde_json::json!({"type": "directory", "path": "/p", "content": "a\nb\nc"});
        assert_eq!(
            attachment(&line(folder)),
            serde_json::json!({"type": "directory", "path": "/p",
                "content": {"type": "text", "file": {"numLines": 3}}})
        );
        let image = serde_json::json!({"type": "file", "filename": "p.png",
            "content": {"type": "image", "file": {"base64": "AAAA", "type": "image/png", "originalSize": 3}}});
        let kept = attachment(&line(image)).to_string();
        assert!(kept.contains("image/png") && !kept.contains("AAAA"), "{kept}");
        assert_eq!(reduced(b"[]"), None);
    }
}
