//! The column `metadata` of an audit row: one JSON object, in which an event's list shows it too.
//!
//! | key | what |
//! |---|---|
//! | `form` | the form in which the event came |
//! | `envelope`, `capturedAt`, `digest`, `destination`, `source`, `trace`, `truncated` | what its envelope says ([`Capture`]) |
//! | `redacted` | how many secrets were removed, by rule |
//! | `summary` | the event in one line |
//! | `agentId` | the subagent that it is about, where only the timeline shows it |
//! | `duplicateOf` | of a duplicate, and then alone: the row that it repeats |
//!
//! Keys are sorted. A key whose value cannot be read is read as if it were missing: the row has a body all the same.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::base::json::Canonical;
use crate::record::arrival::{Capture, EventMetadata};

/// The column of a duplicate of the row `first`.
#[must_use]
pub fn duplicate_metadata(first: Uuid) -> String {
    format!(r#"{{"duplicateOf":"{first}"}}"#)
}

impl Serialize for EventMetadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = Map::new();
        let mut put = |key: &str, value: Result<Value, serde_json::Error>| {
            object.insert(key.to_owned(), value.map_err(ser::Error::custom)?);
            Ok(())
        };
        if let Some(form) = self.form {
            put("form", serde_json::to_value(form))?;
        }
        if !self.redacted.is_empty() {
            put("redacted", serde_json::to_value(&self.redacted))?;
        }
        if !self.summary.is_empty() {
            put("summary", Ok(self.summary.as_str().into()))?;
        }
        if let Some(agent_id) = &self.agent_id {
            put("agentId", Ok(agent_id.as_str().into()))?;
        }
        if let Some(first) = self.duplicate_of {
            put("duplicateOf", serde_json::to_value(first))?;
        }
        if let Some(capture) = &self.capture
            && let Value::Object(capture) =
                serde_json::to_value(capture).map_err(ser::Error::custom)?
        {
            object.extend(capture);
        }
        Canonical(&object.into()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for EventMetadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        fn read<T: DeserializeOwned>(object: &Map<String, Value>, key: &str) -> Option<T> {
            serde_json::from_value(object.get(key)?.clone()).ok()
        }
        let object = Map::deserialize(deserializer)?;
        Ok(Self {
            form: read(&object, "form"),
            redacted: read(&object, "redacted").unwrap_or_default(),
            summary: read(&object, "summary").unwrap_or_default(),
            agent_id: read(&object, "agentId"),
            duplicate_of: read(&object, "duplicateOf"),
            capture: Capture::deserialize(Value::Object(object)).ok(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As they stand in databases.
    const STORED: [&str; 6] = [
        "{}",
        r#"{"duplicateOf":"00000000-0000-0000-0000-000000000000"}"#,
        r#"{"form":"raw","redacted":{"password":2},"summary":"Read a.rs"}"#,
        r#"{"agentId":"a1","form":"raw","summary":"Bash ls"}"#,
        r#"{"capturedAt":"2026-11-24T10:00:00.000001Z","destination":"http://h/","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","envelope":1,"form":"envelope","source":{},"trace":{"spanId":"0123456789abcdef","traceId":"0123456789abcdef0123456789abcdef"}}"#,
        r#"{"capturedAt":"2026-11-24T10:00:00.000001Z","destination":"http://h/","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","envelope":1,"form":"original","redacted":{"a":1,"b":2},"source":{"cliVersion":"2","host":"h","os":"linux","projectDir":"/p","user":"u"},"summary":"a","trace":{"spanId":"0123456789abcdef","traceId":"0123456789abcdef0123456789abcdef"},"truncated":{"headBytes":1,"originalBytes":2,"originalDigest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","reason":"tooLarge"}}"#,
    ];

    #[test]
    fn the_column_comes_back_byte_for_byte() {
        for stored in STORED {
            let read: EventMetadata = serde_json::from_str(stored).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), stored);
            assert!(read.duplicate_of.is_none_or(|first| duplicate_metadata(first) == stored));
        }
    }

    #[test]
    fn what_cannot_be_read_hides_nothing_else() {
        let read = |json| serde_json::from_str::<EventMetadata>(json).unwrap();
        let metadata = read(r#"{"form":"newer","summary":"s","capturedAt":7,"envelope":1}"#);
        assert_eq!(metadata, EventMetadata { summary: "s".to_owned(), ..EventMetadata::default() });
    }
}
