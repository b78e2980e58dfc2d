//! Values that a column holds as something else: moments, states, JSON, and text with U+0000 in it.

use std::borrow::Cow;
use std::io::Write;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::audit::EventStatus;
use diesel::data_types::PgTimestamp;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{Jsonb, Timestamptz};
use serde::Serialize;

use crate::body::is_plain_json;
use crate::schema::sql_types;

/// A moment: `timestamptz`, which counts microseconds as [`Timestamp`] does, from 2000 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, AsExpression, FromSqlRow)]
#[diesel(sql_type = Timestamptz)]
pub(crate) struct At(pub(crate) Timestamp);

/// The first moment of 2000, in microseconds since 1970.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

impl ToSql<Timestamptz, Pg> for At {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        let moment = PgTimestamp(self.0.as_micros() - POSTGRES_EPOCH_MICROS);
        ToSql::<Timestamptz, Pg>::to_sql(&moment, &mut out.reborrow())
    }
}

impl FromSql<Timestamptz, Pg> for At {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let PgTimestamp(micros) = FromSql::<Timestamptz, Pg>::from_sql(value)?;
        Ok(Self(Timestamp::from_micros(micros.saturating_add(POSTGRES_EPOCH_MICROS))))
    }
}

/// One of the eight states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = sql_types::EventStatus)]
pub(crate) struct State(pub(crate) EventStatus);

impl ToSql<sql_types::EventStatus, Pg> for State {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(self.0.as_str().as_bytes())?;
        Ok(IsNull::No)
    }
}

impl FromSql<sql_types::EventStatus, Pg> for State {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(std::str::from_utf8(value.as_bytes())?.parse()?))
    }
}

/// JSON as its text.
#[derive(Debug, Clone, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Jsonb)]
pub(crate) struct JsonText<'a>(pub(crate) Cow<'a, str>);

/// The version of JSONB's binary form, which is this byte and the text.
const JSONB_VERSION: u8 = 1;

impl ToSql<Jsonb, Pg> for JsonText<'_> {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(&[JSONB_VERSION])?;
        out.write_all(self.0.as_bytes())?;
        Ok(IsNull::No)
    }
}

impl FromSql<Jsonb, Pg> for JsonText<'static> {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        match value.as_bytes() {
            [JSONB_VERSION, text @ ..] => Ok(Self(std::str::from_utf8(text)?.to_owned().into())),
            _ => Err("this is not version 1 of JSONB's binary form".into()),
        }
    }
}

/// How U+0000 stands in JSON.
const NUL_ESCAPE: &str = "\\u0000";

/// The key of the wrapper around JSON that JSONB cannot hold as it is.
const WRAPPER_KEY: &str = "$json";

impl<'a> JsonText<'a> {
    /// `json` as JSONB can hold it: what it cannot hold is the text in a wrapper.
    pub(crate) fn wrapping(json: impl Into<Cow<'a, str>>) -> Self {
        let json = json.into();
        if is_plain_json(json.as_bytes()) && !json.contains(WRAPPER_KEY) {
            return Self(json);
        }
        Self(serde_json::json!({ WRAPPER_KEY: json }).to_string().into())
    }

    /// Any value, serialized.
    pub(crate) fn of<T: Serialize>(value: &T) -> diesel::QueryResult<Self> {
        let json = serde_json::to_string(value)
            .map_err(|error| diesel::result::Error::SerializationError(error.into()))?;
        // What is serialized here has no key twice and no number out of range, so two looks tell enough.
        if json.contains(NUL_ESCAPE) || json.contains(WRAPPER_KEY) {
            return Ok(Self::wrapping(json));
        }
        Ok(Self(json.into()))
    }

    /// The JSON that was wrapped, or the text itself.
    pub(crate) fn unwrapped(self) -> Cow<'a, str> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Wrapper {
            #[serde(rename = "$json")]
            json: String,
        }
        if !self.0.contains(WRAPPER_KEY) {
            return self.0;
        }
        serde_json::from_str::<Wrapper>(&self.0).map_or(self.0, |wrapper| Cow::Owned(wrapper.json))
    }
}

/// Stands for U+0000, which Postgres text cannot hold: U+2400, the symbol for it.
const NUL_SYMBOL: &str = "\u{2400}";

/// Text as a column can hold it.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', NUL_SYMBOL).into() } else { text.into() }
}

/// `text` where [`shown`] changes it, to be kept beside the column.
pub(super) fn hidden(text: &str) -> Option<Cow<'_, str>> {
    text.contains('\0').then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_json_comes_back_from_its_column() {
        for json in [
            r#"{"a":1}"#,
            r#""\u0000""#,
            r#"{"$json":"\"x\""}"#,
            r#"{"a":1,"a":2}"#,
            "1e400",
            "null",
        ] {
            assert_eq!(JsonText(JsonText::wrapping(json).0).unwrapped(), json);
        }
        for text in ["plain", "a \0 b", "\\u0000", "$json"] {
            let column = JsonText::of(&text).unwrap();
            assert!(is_plain_json(column.0.as_bytes()));
            let back: String = serde_json::from_str(&column.unwrapped()).unwrap();
            assert_eq!(back, text);
        }
        assert_eq!(JsonText::wrapping(r#"{"a":1}"#).0, r#"{"a":1}"#);
        assert!(is_plain_json(JsonText::wrapping(r#""\u0000""#).0.as_bytes()));
    }
}
