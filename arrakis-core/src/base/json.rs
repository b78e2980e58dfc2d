//! The canonical form of JSON: keys ordered by their bytes, no spacing, numbers as `serde_json` writes them.
//!
//! A digest, an order or a text that follows from JSON goes through here. `serde_json` itself keeps keys in order only
//! until some crate of the build enables its feature `preserve_order`.

use std::borrow::Cow;
use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// A value whose [`Display`](fmt::Display) and [`Serialize`] give the canonical form.
#[derive(Debug, Clone, Copy)]
pub struct Canonical<'a>(pub &'a Value);

impl Serialize for Canonical<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(object) => serializer
                .collect_map(fields(object).into_iter().map(|(key, value)| (key, Self(value)))),
            Value::Array(items) => serializer.collect_seq(items.iter().map(Canonical)),
            plain => plain.serialize(serializer),
        }
    }
}

impl fmt::Display for Canonical<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// The fields of an object, ordered by the bytes of their keys.
#[must_use]
pub fn fields(object: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut fields: Vec<_> = object.iter().collect();
    fields.sort_unstable_by_key(|(key, _)| *key);
    fields
}

/// JSON in which U+FFFD stands for each half of a character that is not part of a pair. Clients write such halves where
/// they cut texts, and no Rust text and no database can hold them.
#[must_use]
pub fn whole_characters(json: &str) -> Cow<'_, str> {
    if !json.contains("\\ud") && !json.contains("\\uD") {
        return Cow::Borrowed(json);
    }
    let bytes = json.as_bytes();
    let (mut text, mut copied, mut next) = (String::new(), 0, 0);
    while let Some(found) = bytes.get(next..).and_then(|rest| rest.iter().position(|b| *b == b'\\'))
    {
        let place = next + found;
        next = match code_unit(bytes, place) {
            Some(0xD800..=0xDBFF)
                if matches!(code_unit(bytes, place + 6), Some(0xDC00..=0xDFFF)) =>
            {
                place + 12
            }
            Some(0xD800..=0xDFFF) => {
                text.push_str(&json[copied..place]);
                text.push_str("\\ufffd");
                copied = place + 6;
                copied
            }
            Some(_) => place + 6,
            None => place + 2,
        };
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    text.push_str(&json[copied..]);
    Cow::Owned(text)
}

/// The UTF-16 code unit that an escape at this place stands for.
fn code_unit(json: &[u8], place: usize) -> Option<u16> {
    let digits = json.get(place..place + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_characters_are_replaced_and_whole_ones_stay() {
        for (json, expected) in [
            (r#""a \ud83d b""#, r#""a \ufffd b""#),
            (r#""\uDC11\ud83d\ud83d\udc1b\u0041""#, r#""\ufffd\ufffd\ud83d\udc1b\u0041""#),
            (r#""\\ud83d \"\ud99c""#, r#""\\ud83d \"\ufffd""#),
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""é\ud8"#, r#""é\ud8"#),
        ] {
            assert_eq!(whole_characters(json), expected);
        }
    }

    #[test]
    fn the_canonical_form_does_not_depend_on_the_order_of_keys_or_on_spacing() {
        let canonical = |json: &str| Canonical(&serde_json::from_str(json).unwrap()).to_string();
        let sent = r#"{"é": 1, "b": [{"y": 1.50, "x": null}, "\u0041"], "a": {"d": {}, "c": []}, "B": -0}"#;
        let form = r#"{"B":-0.0,"a":{"c":[],"d":{}},"b":[{"x":null,"y":1.5},"A"],"é":1}"#;
        assert_eq!(canonical(sent), form);
        assert_eq!(canonical(form), form);
    }
}
