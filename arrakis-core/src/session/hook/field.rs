//! A field of a payload that is not looked into before it is needed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde::de::value::MapDeserializer;
use serde_json::value::RawValue;

use super::object::RawFields;
use crate::base::json::whole_characters;

#[cfg(feature = "runtime")]
use crate::session::conversation::Json;

/// A field, not looked into until it is needed: a tool's input may have megabytes. What cannot be read as
/// what it should be counts as absent.
#[derive(Debug, Deserialize, Default, Clone, Copy)]
#[serde(transparent)]
pub(crate) struct Field<'a>(#[serde(borrow)] pub(crate) Option<&'a RawValue>);

impl<'a> Field<'a> {
    /// The field as a `T`.
    pub(crate) fn read<T: Deserialize<'a>>(self) -> Option<T> {
        serde_json::from_str(self.0?.get()).ok()
    }

    /// The field as a `T`, where it is an object: a list of values would do for a struct as well.
    pub(crate) fn object<T: Deserialize<'a>>(self) -> Option<T> {
        object(self.0?.get().as_bytes()).ok()
    }

    /// The field as text that is not empty; half a character counts as U+FFFD.
    pub(crate) fn text(self) -> Option<Cow<'a, str>> {
        /// `Cow` itself would always be owned.
        #[derive(Deserialize)]
        struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
        let text = match self.read() {
            Some(Text(text)) => text,
            None => Cow::Owned(serde_json::from_str(&whole_characters(self.0?.get())).ok()?),
        };
        (!text.is_empty()).then_some(text)
    }

    /// The field as it stands.
    #[cfg(feature = "runtime")]
    pub(crate) fn json(self) -> Option<Json> {
        self.0.map(Json::from)
    }

    /// Whether the field is there, and is neither null nor false.
    pub(crate) fn is_set(self) -> bool {
        self.0.is_some_and(|raw| !matches!(raw.get(), "null" | "false"))
    }
}

/// Reads a JSON object, and nothing else, as a `T`. Of a field that it has twice the last one counts.
pub(crate) fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, serde_json::Error> {
    if !json.trim_ascii_start().starts_with(b"{") {
        serde_json::from_slice::<IgnoredAny>(json)?;
        return Err(serde::de::Error::custom("this is no object"));
    }
    let error = match serde_json::from_slice(json) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if error.classify() != serde_json::error::Category::Data {
        return Err(error);
    }
    let fields: RawFields<'_> = serde_json::from_slice(json)?;
    let fields: BTreeMap<_, _> = fields.0.into_iter().collect();
    T::deserialize(MapDeserializer::new(fields.into_iter()))
}
