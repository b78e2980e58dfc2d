//! The canonical form of JSON: keys ordered by their bytes, no spacing, numbers as `serde_json` writes them.
//!
//! A digest, an order or a text that follows from JSON goes through here. `serde_json` itself keeps keys in order only
//! until some crate of the build enables its feature `preserve_order`.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_form_does_not_depend_on_the_order_of_keys_or_on_spacing() {
        let canonical = |json: &str| Canonical(&serde_json::from_str(json).unwrap()).to_string();
        let sent = r#"{"é": 1, "b": [{"y": 1.50, "x": null}, "\u0041"], "a": {"d": {}, "c": []}, "B": -0}"#;
        let form = r#"{"B":-0.0,"a":{"c":[],"d":{}},"b":[{"x":null,"y":1.5},"A"],"é":1}"#;
        assert_eq!(canonical(sent), form);
        assert_eq!(canonical(form), form);
    }
}
