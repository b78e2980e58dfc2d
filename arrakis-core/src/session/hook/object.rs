//! What the types of events are made by: objects of which some fields are documented.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::base::json::whole_characters;
use crate::session::conversation::Json;

/// The fields of an object as they stand, none of them looked into.
#[derive(Default)]
pub(crate) struct RawFields<'a>(pub(crate) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for RawFields<'de> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        /// `Cow` itself would always be owned.
        #[derive(serde::Deserialize)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = RawFields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(16);
                while let Some(Name(name)) = map.next_key()? {
                    fields.push((name, map.next_value()?));
                }
                Ok(RawFields(fields))
            }
        }
        json.deserialize_map(Reader)
    }
}

/// What a documented field may be; none where it is something else.
pub(super) trait FromRaw: Sized {
    fn from_raw(raw: &RawValue) -> Option<Self>;
}

impl FromRaw for Json {
    fn from_raw(raw: &RawValue) -> Option<Self> {
        Some(raw.into())
    }
}

impl<T: FromRaw> FromRaw for Vec<T> {
    fn from_raw(raw: &RawValue) -> Option<Self> {
        let parts: Vec<&RawValue> = serde_json::from_str(raw.get()).ok()?;
        parts.into_iter().map(T::from_raw).collect()
    }
}

macro_rules! from_raw {
    ($($type:ty),*) => {
        $(impl FromRaw for $type {
            fn from_raw(raw: &RawValue) -> Option<Self> {
                serde_json::from_str(raw.get()).ok()
            }
        })*
    };
}

from_raw!(bool, u64, serde_json::Number);

impl FromRaw for String {
    fn from_raw(raw: &RawValue) -> Option<Self> {
        let json = raw.get();
        serde_json::from_str(json).or_else(|_| serde_json::from_str(&whole_characters(json))).ok()
    }
}

/// A field's name without what makes it an identifier.
pub(super) fn name_of(identifier: &'static str) -> &'static str {
    identifier.strip_prefix("r#").unwrap_or(identifier)
}

/// Makes a struct whose fields are optional parts of a JSON object, and `more` for the others.
macro_rules! object {
    (
        $(#[$doc:meta])* $name:ident {
            $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: Option<$type>,)*
            /// The fields that are not documented, or not as documented.
            pub more: Fields,
        }

        impl $name {
            /// Takes a field where it is documented and what it should be.
            #[allow(unused_variables, reason = "an event may have no field of its own")]
            fn take(&mut self, name: &str, raw: &RawValue) -> bool {
                $(if name == name_of(stringify!($field)) {
                    let value = FromRaw::from_raw(raw);
                    let taken = value.is_some();
                    self.$field = value.or(self.$field.take());
                    return taken;
                })*
                false
            }

            fn of(fields: RawFields<'_>) -> Self {
                let mut object = Self::default();
                for (name, raw) in fields.0 {
                    if !object.take(&name, raw) {
                        object.more.insert(name.into_owned(), raw.into());
                    }
                }
                object
            }
        }

        impl FromRaw for $name {
            fn from_raw(raw: &RawValue) -> Option<Self> {
                serde_json::from_str(raw.get()).ok().map(Self::of)
            }
        }

        impl $name {
            fn write<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
                $(if let Some(value) = &self.$field {
                    map.serialize_entry(name_of(stringify!($field)), value)?;
                })*
                self.more.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                self.write(&mut map)?;
                map.end()
            }
        }
    };
}

/// Makes a struct for each event and the enum of them all.
macro_rules! events {
    ($(
        $(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }
    )*) => {
        $(object! { $(#[$doc])* $name { $($(#[$field_doc])* $field: $type,)* } })*

        /// An event of Claude Code by its type.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum Event {
            $($(#[$doc])* $name($name),)*
            /// An event of another type.
            Other {
                /// Its type; empty where it names none.
                event_type: String,
                /// Its fields.
                fields: Fields,
            },
        }

        /// The types of the 34 events of Claude Code 2.1.332 (`sdk.d.ts` of
        /// `@anthropic-ai/claude-agent-sdk` 0.3.332).
        pub const HOOK_EVENTS: [&str; 34] = [$(stringify!($name),)*];

        impl Event {
            fn of_type(event_type: String, fields: RawFields<'_>) -> Self {
                match event_type.as_str() {
                    $(stringify!($name) => Self::$name($name::of(fields)),)*
                    _ => {
                        let fields = fields.0.into_iter();
                        let fields = fields.map(|(name, raw)| (name.into_owned(), raw.into()));
                        Self::Other { event_type, fields: fields.collect() }
                    }
                }
            }

            /// Its type; empty where the payload names none.
            #[must_use]
            pub fn event_type(&self) -> &str {
                match self {
                    $(Self::$name(_) => stringify!($name),)*
                    Self::Other { event_type, .. } => event_type,
                }
            }

            /// The fields that are not documented, or not as documented; of an event of another type, all.
            #[must_use]
            pub fn more(&self) -> &Fields {
                match self {
                    $(Self::$name(event) => &event.more,)*
                    Self::Other { fields, .. } => fields,
                }
            }

            fn write<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
                match self {
                    $(Self::$name(event) => event.write(map),)*
                    Self::Other { fields, .. } => fields
                        .iter()
                        .try_for_each(|(name, value)| map.serialize_entry(name, value)),
                }
            }
        }
    };
}
