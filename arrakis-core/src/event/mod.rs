//! The events of Claude Code: what a hook is given on stdin, one JSON object each.
//!
//! The fields differ by event and grow with every release. So capture reads only the few that every
//! event carries ([`Glance`]), and keeps the rest as it came; [`HookEvent`] is what is known of each
//! event, with room for the rest; and [`summary()`] tells in a line what an event says.

mod field;
#[macro_use]
mod object;
mod summary;
mod typed;

pub(crate) use field::{Field, object};
pub use summary::{key_argument, one_line, shows_by_itself, summary};
pub use typed::*;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};

/// The fields that every hook payload carries, as far as they could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Glance {
    /// `hook_event_name`.
    pub event_type: Option<String>,
    /// `session_id`.
    pub session_id: Option<String>,
    /// `cwd`.
    pub cwd: Option<String>,
    /// Whether the whole payload is one JSON object.
    pub is_object: bool,
}

impl Glance {
    /// Reads what it can of `payload`. Broken JSON is no error: the fields before the break count,
    /// which is how a truncated payload still tells its event and session.
    #[must_use]
    pub fn of(payload: &[u8]) -> Self {
        let mut glance = Self::default();
        let mut json = serde_json::Deserializer::from_slice(payload);
        let whole = Reader(&mut glance).deserialize(&mut json).and_then(|()| json.end());
        glance.is_object = whole.is_ok();
        glance
    }
}

struct Reader<'a>(&'a mut Glance);

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
        let glance = Glance::of(
            br#"{"session_id":"s","x":[1,{"cwd":"no"}],"hook_event_name":"Stop","cwd":"/p"}"#,
        );
        assert_eq!(glance.session_id.as_deref(), Some("s"));
        assert_eq!(glance.event_type.as_deref(), Some("Stop"));
        assert_eq!(glance.cwd.as_deref(), Some("/p"));
        assert!(glance.is_object);
    }

    #[test]
    fn keeps_what_came_before_a_break() {
        let glance = Glance::of(br#"{"session_id":"s","hook_event_name":"Stop","prompt":"abc"#);
        assert_eq!(glance.event_type.as_deref(), Some("Stop"));
        assert!(!glance.is_object);
    }

    #[test]
    fn anything_is_input() {
        for bytes in [&b""[..], b"null", b"[1]", b"\xff\xfe", b"{\"session_id\":1}", b"{}{}"] {
            let glance = Glance::of(bytes);
            assert_eq!(glance.session_id, None, "{bytes:?}");
        }
        assert!(Glance::of(b"{\"session_id\":1}").is_object);
        assert!(!Glance::of(b"{}{}").is_object);
    }
}
