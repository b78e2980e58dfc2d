//! Identifiers, and how each is made.
//!
//! | id | kind | made from |
//! |---|---|---|
//! | [`RequestId`] | `UUIDv7` text when minted here; any text of the strict set when given | capture time, randomness |
//! | request id of a slice of a transcript | `UUIDv5` text | the file, the slice's bytes and its payload |
//! | request id of a snapshot | `UUIDv5` text | its payload |
//! | audit row | `UUIDv7` | receipt time, randomness |
//! | conversation, message, tool use, subagent | `UUIDv5` | workspace, session id and the item's own key |
//!
//! The last kind needs no database to be known, so events can be projected in any order. Nobody names such an id: who
//! receives a value derives it again, under the workspace of the sender's key. So no sender can reach what belongs to
//! another workspace or session.
//!
//! A request id names an event inside one workspace. Two workspaces may use the same.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::base::limits::REQUEST_ID_MAX_BYTES;

/// Names one event, from its capture to its row: the idempotency key of the whole system.
///
/// 1 to 128 bytes of `A-Z a-z 0-9 . _ : -`. The set is strict because the id becomes part of file
/// names, log lines and HTTP headers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(String);

impl RequestId {
    /// A new id: the `UUIDv7` of `now` and `random`.
    #[must_use]
    pub fn mint(now: Timestamp, random: [u8; 10]) -> Self {
        Self(uuid_v7(now, random).hyphenated().to_string())
    }

    /// The id's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is derived, a `UUIDv5`, as those of slices of transcripts are and no hook's is.
    #[must_use]
    pub fn is_derived(&self) -> bool {
        Uuid::parse_str(&self.0).is_ok_and(|id| id.get_version_num() == 5)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text cannot be a request id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a request id has 1 to {REQUEST_ID_MAX_BYTES} bytes of A-Z a-z 0-9 . _ : -")]
pub struct InvalidRequestId;

impl FromStr for RequestId {
    type Err = InvalidRequestId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        let fits = (1..=REQUEST_ID_MAX_BYTES).contains(&text.len());
        if fits && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidRequestId)
        }
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The `UUIDv7` of a moment and ten random bytes.
#[must_use]
pub fn uuid_v7(now: Timestamp, random: [u8; 10]) -> Uuid {
    let millis = u64::try_from(now.as_millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// The id of the conversation that a session of a workspace is.
#[must_use]
pub fn conversation_id(workspace: &str, session_id: &str) -> Uuid {
    derive("conversation", &[workspace, session_id])
}

/// The id of a message inside a conversation. `key` is what makes it one message: the API's message id, or the id of
/// the event or line that it is, each with its own `kind`.
#[must_use]
pub fn message_id(conversation: Uuid, kind: &str, key: &str) -> Uuid {
    derive(
        "message",
        &[conversation.hyphenated().encode_lower(&mut Uuid::encode_buffer()), kind, key],
    )
}

/// The id of a tool use inside a conversation, from Claude Code's tool use id.
#[must_use]
pub fn tool_use_id(conversation: Uuid, key: &str) -> Uuid {
    derive("tool_use", &[conversation.hyphenated().encode_lower(&mut Uuid::encode_buffer()), key])
}

/// The id of a subagent inside a conversation, from Claude Code's agent id.
#[must_use]
pub fn subagent_id(conversation: Uuid, key: &str) -> Uuid {
    derive("subagent", &[conversation.hyphenated().encode_lower(&mut Uuid::encode_buffer()), key])
}

/// The request id of a slice of a transcript, from what makes it this slice.
#[must_use]
pub fn slice_id(parts: &[&str]) -> RequestId {
    RequestId(derive("transcript", parts).hyphenated().to_string())
}

/// The request id of a snapshot, from what makes it this snapshot.
#[must_use]
pub fn snapshot_id(parts: &[&str]) -> RequestId {
    RequestId(derive("snapshot", parts).hyphenated().to_string())
}

/// The namespace of every derived id: `UUIDv5` of the DNS name `arrakis.invalid`.
const NAMESPACE: Uuid = Uuid::from_u128(0x8677_7bf9_2b9d_5ca0_82dd_9bd0_5680_a201);

fn derive(kind: &str, parts: &[&str]) -> Uuid {
    // Each part is preceded by its length, so that no two lists of parts read the same.
    let mut name = kind.as_bytes().to_vec();
    for part in parts {
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part.as_bytes());
    }
    Uuid::new_v5(&NAMESPACE, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_strict() {
        assert!("0197-a.b_c:D".parse::<RequestId>().is_ok());
        for bad in ["", "a b", "a/b", "a\n", "é", &"x".repeat(129)] {
            assert_eq!(bad.parse::<RequestId>(), Err(InvalidRequestId), "{bad:?}");
        }
    }

    #[test]
    fn the_id_of_a_slice_is_told_from_others() {
        assert!(slice_id(&["file", "digest"]).is_derived());
        assert!(!RequestId::mint(Timestamp::from_millis(1), [7; 10]).is_derived());
        assert!(!"r-1".parse::<RequestId>().unwrap().is_derived());
    }

    #[test]
    fn minted_ids_sort_by_time() {
        let early = RequestId::mint(Timestamp::from_millis(1), [255; 10]);
        let late = RequestId::mint(Timestamp::from_millis(2), [0; 10]);
        assert!(early < late);
        assert!(early.as_str().parse::<RequestId>().is_ok());
    }

    #[test]
    fn derived_ids_depend_on_every_part() {
        let conversation = conversation_id("main", "s");
        assert_eq!(conversation, conversation_id("main", "s"));
        assert_ne!(conversation, conversation_id("mai", "ns"));
        assert_ne!(message_id(conversation, "a", "b"), message_id(conversation, "ab", ""));
        assert_ne!(tool_use_id(conversation, "x"), tool_use_id(conversation_id("b", "s"), "x"));
    }
}
