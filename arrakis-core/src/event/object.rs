//! What the types of events are made by: objects of which some fields are documented.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::Fields;

/// Takes the field `name` out of `fields` where it is what it should be, and else leaves it there.
pub(super) fn take<T: DeserializeOwned>(fields: &mut Fields, name: &str) -> Option<T> {
    let value = serde_json::from_str(fields.get(name)?.as_str()).ok()?;
    fields.remove(name);
    Some(value)
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

        impl From<Fields> for $name {
            #[allow(unused_mut, reason = "an event may have no field of its own")]
            fn from(mut more: Fields) -> Self {
                Self { $($field: take(&mut more, name_of(stringify!($field))),)* more }
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

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
                fields(json).map(Self::from)
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

        /// The types of the 33 events of Claude Code 2.1.330 (`sdk.d.ts` of
        /// `@anthropic-ai/claude-agent-sdk` 0.3.330).
        pub const HOOK_EVENTS: [&str; 33] = [$(stringify!($name),)*];

        impl Event {
            fn of_type(event_type: String, fields: Fields) -> Self {
                match event_type.as_str() {
                    $(stringify!($name) => Self::$name(fields.into()),)*
                    _ => Self::Other { event_type, fields },
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

pub(super) fn fields<'de, D: serde::Deserializer<'de>>(json: D) -> Result<Fields, D::Error> {
    let raw: BTreeMap<String, Box<RawValue>> = serde::Deserialize::deserialize(json)?;
    Ok(raw.into_iter().map(|(name, value)| (name, value.into())).collect())
}
