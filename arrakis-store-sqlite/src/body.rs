//! How a body is kept: as JSON text where SQLite can hold it so, else byte for byte.
//!
//! `request_body` must be JSON that SQLite's own functions accept, because one row that they refuse
//! fails a whole query. What is not goes to `raw_body`, and `request_body` holds a wrapper:
//! `{"raw":true,"bytes":N,"preview":"..."}`.

use std::borrow::Cow;

use arrakis_core::record::store::adapter::{raw_body_preview, raw_body_wrapper};
use serde::de::IgnoredAny;

/// The two columns of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BodyColumns<'a> {
    /// `request_body`.
    pub(crate) text: Option<Cow<'a, str>>,
    /// `raw_body`.
    pub(crate) raw: Option<&'a [u8]>,
}

impl<'a> BodyColumns<'a> {
    /// No body at all, as in the row of a duplicate.
    pub(crate) const NONE: Self = Self { text: None, raw: None };

    /// The columns of `body`, of which [`is_plain_json`] has said `plain`.
    pub(crate) fn of(body: &'a [u8], plain: bool) -> Self {
        match std::str::from_utf8(body) {
            Ok(text) if plain => Self { text: Some(Cow::Borrowed(text)), raw: None },
            _ => Self {
                text: Some(Cow::Owned(raw_body_wrapper(body, &raw_body_preview(body)))),
                raw: Some(body),
            },
        }
    }
}

/// Whether `body` is JSON that SQLite's functions accept.
pub(crate) fn is_plain_json(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok()
        && serde_json::from_slice::<IgnoredAny>(body).is_ok()
        && depth(body) <= MAX_DEPTH
}

/// The depth to which SQLite's parser follows arrays and objects (`JSON_MAX_DEPTH`).
const MAX_DEPTH: usize = 1000;

/// How deep the arrays and objects of valid JSON are nested.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_as_it_came() {
        let body = br#" {"b":1,"a":"\u0000","a":2.50} "#;
        assert!(is_plain_json(body));
        let columns = BodyColumns::of(body, true);
        assert_eq!(columns.text.as_deref(), Some(r#" {"b":1,"a":"\u0000","a":2.50} "#));
        assert_eq!(columns.raw, None);
    }

    #[test]
    fn what_is_no_json_is_wrapped() {
        let deep = format!("{}{}", "[".repeat(1001), "]".repeat(1001));
        for body in [&b""[..], b"text", b"{\"a\":\"\xff\"}", b"{} {}", b"\"a\0b\"", deep.as_bytes()]
        {
            assert!(!is_plain_json(body));
            let columns = BodyColumns::of(body, false);
            assert_eq!(columns.raw, Some(body));
            let wrapper: serde_json::Value = serde_json::from_str(&columns.text.unwrap()).unwrap();
            assert_eq!(wrapper["bytes"], body.len());
        }
    }

    #[test]
    fn depth_counts_nesting_and_not_what_strings_hold() {
        assert_eq!(depth(br#"{"a":[1,"]]{{\"[["],"b":{}}"#), 2);
        assert!(is_plain_json(format!("{}{}", "[".repeat(1000), "]".repeat(1000)).as_bytes()));
    }
}
