//! The few fields that capture reads of a payload.

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};

/// The fields that every hook payload carries, as far as they could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preview {
    /// `hook_event_name`.
    pub event_type: Option<String>,
    /// `session_id`.
    pub session_id: Option<String>,
    /// `cwd`.
    pub cwd: Option<String>,
    /// Whether the whole payload is one JSON object.
    pub is_object: bool,
}

impl Preview {
    /// Reads what it can of `payload`. Broken JSON is no error: the fields before the break count,
    /// which is how a truncated payload still tells its event and session.
    #[must_use]
    pub fn of(payload: &[u8]) -> Self {
        let mut preview = Self::default();
        let mut json = serde_json::Deserializer::from_slice(payload);
        let whole = Reader(&mut preview).deserialize(&mut json).and_then(|()| json.end());
        preview.is_object = whole.is_ok();
        preview
    }
}

struct Reader<'a>(&'a mut Preview);

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
            let field = match key.as_ref() {
                "hook_event_name" => &mut self.0.event_type,
                "session_id" => &mut self.0.session_id,
                "cwd" => &mut self.0.cwd,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if let Text::String(text) = map.next_value()? {
                *field = Some(text);
            }
        }
        Ok(())
    }
}

/// A string, or anything else: a field of the wrong type is as good as absent here.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Text {
    String(String),
    Other(IgnoredAny),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_common_fields_and_ignores_the_rest() {
        let preview = Preview::of(
            br#"{"session_id":"s","x":[1,{"cwd":"no"}],"hook_event_name":"Stop","cwd":"/p"}"#,
        );
        assert_eq!(preview.session_id.as_deref(), Some("s"));
        assert_eq!(preview.event_type.as_deref(), Some("Stop"));
        assert_eq!(preview.cwd.as_deref(), Some("/p"));
        assert!(preview.is_object);
    }

    #[test]
    fn keeps_what_came_before_a_break() {
        let preview = Preview::of(br#"{"session_id":"s","hook_event_name":"Stop","prompt":"abc"#);
        assert_eq!(preview.event_type.as_deref(), Some("Stop"));
        assert!(!preview.is_object);
    }

    #[test]
    fn anything_is_input() {
        for bytes in [&b""[..], b"null", b"[1]", b"\xff\xfe", b"{\"session_id\":1}", b"{}{}"] {
            let preview = Preview::of(bytes);
            assert_eq!(preview.session_id, None, "{bytes:?}");
        }
        assert!(Preview::of(b"{\"session_id\":1}").is_object);
        assert!(!Preview::of(b"{}{}").is_object);
    }
}
