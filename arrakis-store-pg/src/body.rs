//! How a body is kept: as JSONB where that holds all of it, else byte for byte.
//!
//! JSONB refuses U+0000 and numbers past its range, and of a key that comes twice it keeps one. What it
//! cannot hold goes to `raw_body`, and `request_body` has a wrapper:
//! `{"raw":true,"bytes":N,"preview":"..."}`. Finding out is a pure check before the statement, because
//! a statement that fails has failed for all of its rows.

use std::collections::HashSet;
use std::fmt;

use arrakis_core::record::store::adapter::{raw_body_preview, raw_body_wrapper};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::row::{JsonText, shown};

/// The two columns of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BodyColumns<'a> {
    /// `request_body`.
    pub(crate) json: Option<JsonText<'a>>,
    /// `raw_body`.
    pub(crate) raw: Option<&'a [u8]>,
}

impl<'a> BodyColumns<'a> {
    /// No body at all, as in the row of a duplicate.
    pub(crate) const NONE: Self = Self { json: None, raw: None };

    /// The columns of `body`, of which [`is_plain_json`] has said `plain`.
    pub(crate) fn of(body: &'a [u8], plain: bool) -> Self {
        match std::str::from_utf8(body) {
            Ok(text) if plain => Self { json: Some(JsonText(text.into())), raw: None },
            _ => {
                let wrapper = raw_body_wrapper(body, &shown(&raw_body_preview(body)));
                Self { json: Some(JsonText(wrapper.into())), raw: Some(body) }
            }
        }
    }
}

/// Whether `body` is JSON that JSONB holds whole: no U+0000, no key twice in one object, every number
/// within the range of a double and of few digits, nested no deeper than the parser follows (128).
pub(crate) fn is_plain_json(body: &[u8]) -> bool {
    let mut json = serde_json::Deserializer::from_slice(body);
    Plain.deserialize(&mut json).and_then(|()| json.end()).is_ok() && has_short_numbers(body)
}

/// Most characters of a number, and its largest exponent: JSONB keeps numbers digit by digit and refuses
/// more than 16,383 behind the point, where a double is merely rounded.
const NUMBER_MAX: usize = 1000;

/// Whether no number of the valid JSON `body` has more digits than JSONB keeps.
fn has_short_numbers(body: &[u8]) -> bool {
    let mut rest = body;
    while let Some(start) = rest.iter().position(|byte| matches!(byte, b'"' | b'-' | b'0'..=b'9')) {
        rest = &rest[start..];
        let end = if rest[0] == b'"' { string_end(rest) } else { number_end(rest) };
        if rest[0] != b'"' && !is_short(&rest[..end]) {
            return false;
        }
        rest = &rest[end..];
    }
    true
}

fn string_end(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

fn number_end(text: &[u8]) -> usize {
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    text.iter().position(|byte| !is_part(byte)).unwrap_or(text.len())
}

fn is_short(number: &[u8]) -> bool {
    let exponent = number.iter().position(|byte| matches!(byte, b'e' | b'E'));
    let exponent = exponent.and_then(|at| std::str::from_utf8(&number[at + 1..]).ok());
    let is_small =
        |text: &str| text.parse::<i64>().is_ok_and(|n| n.unsigned_abs() <= NUMBER_MAX as u64);
    number.len() <= NUMBER_MAX && exponent.is_none_or(is_small)
}

/// Reads JSON and fails at the first thing that JSONB would lose or refuse.
#[derive(Clone, Copy)]
struct Plain;

impl<'de> DeserializeSeed<'de> for Plain {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Plain {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON that JSONB holds whole")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if text.contains('\0') { Err(E::custom("U+0000")) } else { Ok(()) }
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = Keys::default();
        while let Some(key) = map.next_key::<String>()? {
            self.visit_str::<A::Error>(&key)?;
            if !keys.add(key) {
                return Err(A::Error::custom("a key that comes twice"));
            }
            map.next_value_seed(self)?;
        }
        Ok(())
    }
}

/// The keys of one object: few are compared one by one, many are hashed.
#[derive(Default)]
struct Keys {
    few: Vec<String>,
    many: HashSet<String>,
}

impl Keys {
    const FEW: usize = 16;

    /// Whether `key` is new.
    fn add(&mut self, key: String) -> bool {
        if self.few.contains(&key) {
            return false;
        }
        if self.few.len() < Self::FEW {
            self.few.push(key);
            return true;
        }
        self.many.insert(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_jsonb_holds_is_plain() {
        let many = (0..100).map(|n| format!("\"k{n}\":{n}")).collect::<Vec<_>>().join(",");
        let digits = format!(r#"["{}\"",1]"#, "7".repeat(20_000));
        let odd = r#" {"b":1,"a":"é\ud83d\udc1b\\u0000","c":[2.50,-1,true,null,0.0,1e-300]} "#;
        for body in [odd, "1e308", &digits] {
            assert!(is_plain_json(body.as_bytes()), "{body}");
        }
        assert!(is_plain_json(format!("{{{many}}}").as_bytes()));
        assert!(!is_plain_json(format!("{{{many},\"k99\":0}}").as_bytes()));
    }

    #[test]
    fn what_jsonb_would_lose_or_refuse_is_kept_as_bytes() {
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        let long = format!(r#"{{"a":"1","b":0.{}}}"#, "7".repeat(20_000));
        let bodies: [&[u8]; 14] = [
            b"",
            b"text",
            b"{\"a\":\"\xff\"}",
            b"{} {}",
            br#""\u0000""#,
            br#"{"\u0000":1}"#,
            br#""\ud800""#,
            br#"{"a":1,"\u0061":2}"#,
            b"1e400",
            b"1e-20000",
            b"[0E-99999999999999999999]",
            long.as_bytes(),
            b"[1",
            deep.as_bytes(),
        ];
        for body in bodies {
            assert!(!is_plain_json(body));
            let columns = BodyColumns::of(body, false);
            assert_eq!(columns.raw, Some(body));
            let wrapper: serde_json::Value =
                serde_json::from_str(&columns.json.unwrap().0).unwrap();
            assert_eq!(wrapper["bytes"], body.len());
        }
    }
}
