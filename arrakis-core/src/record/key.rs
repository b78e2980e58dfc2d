//! API keys: how one is made, written, kept and checked.
//!
//! A key reads `ark_<id>_<secret>`: eight and 64 hexadecimal digits. The id finds the row; the
//! secret's 256 random bits need no slow hash, so the row keeps SHA-256 of the whole key, and the
//! comparison takes the same time whatever differs.

use std::fmt;
use std::str::FromStr;

use rand::{Rng, RngExt};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::base::clock::Timestamp;
use crate::base::digest::Digest;

/// What a key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// To send events. The only one that belongs on a user's machine.
    Ingest,
    /// To read what is stored.
    Read,
    /// Everything.
    Admin,
}

impl Scope {
    /// The name in lower case, as it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }

    /// Whether a key of this scope may do what `needed` allows.
    #[must_use]
    pub fn allows(self, needed: Self) -> bool {
        self == needed || self == Self::Admin
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text names no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a scope is ingest, read or admin")]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ingest" => Ok(Self::Ingest),
            "read" => Ok(Self::Read),
            "admin" => Ok(Self::Admin),
            _ => Err(UnknownScope),
        }
    }
}

/// A key as it is kept: without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    /// The part of the key that finds this row.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// What it allows.
    pub scope: Scope,
    /// The workspace that it belongs to.
    pub workspace: String,
    /// SHA-256 of the whole key.
    #[serde(skip_serializing, default = "no_digest")]
    pub hash: Digest,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, to the minute; servers write that down about once a minute.
    #[serde(default)]
    pub last_used_at: Option<Timestamp>,
}

impl ApiKey {
    /// Makes a key; the secret is shown once and kept nowhere.
    pub fn generate(
        name: &str,
        scope: Scope,
        workspace: &str,
        now: Timestamp,
        rng: &mut dyn Rng,
    ) -> (SecretString, Self) {
        let id = hex::encode(rng.random::<[u8; 4]>());
        let key = format!("ark_{id}_{}", hex::encode(rng.random::<[u8; 32]>()));
        let row = Self {
            id,
            name: name.to_owned(),
            scope,
            workspace: workspace.to_owned(),
            hash: Digest::of(key.as_bytes()),
            created_at: now,
            revoked_at: None,
            last_used_at: None,
        };
        (key.into(), row)
    }

    /// The id in the text of a key; `None` if it does not read like one.
    #[must_use]
    pub fn id_of(presented: &str) -> Option<&str> {
        let (id, secret) = presented.strip_prefix("ark_")?.split_once('_')?;
        let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        (id.len() == 8 && secret.len() == 64 && hex(id) && hex(secret)).then_some(id)
    }

    /// Whether `presented` is this key, and it is not revoked.
    #[must_use]
    pub fn accepts(&self, presented: &SecretString) -> bool {
        let hash = Digest::of(presented.expose_secret().as_bytes());
        let equal: bool = hash.as_bytes().ct_eq(self.hash.as_bytes()).into();
        equal && self.revoked_at.is_none()
    }
}

pub(super) fn no_digest() -> Digest {
    Digest::from_bytes([0; 32])
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_key_opens_its_own_row_only() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let mut make = || ApiKey::generate("k", Scope::Ingest, "main", Timestamp::EPOCH, &mut rng);
        let (secret, row) = make();
        let (other, _) = make();
        assert_eq!(ApiKey::id_of(secret.expose_secret()), Some(row.id.as_str()));
        assert!(row.accepts(&secret));
        assert!(!row.accepts(&other));
        let revoked = ApiKey { revoked_at: Some(Timestamp::EPOCH), ..row };
        assert!(!revoked.accepts(&secret));
    }

    #[test]
    fn what_is_no_key_has_no_id() {
        for text in ["", "ark_", "ark_0123_45", "ark_zzzzzzzz_00", "Bearer x"] {
            assert_eq!(ApiKey::id_of(text), None, "{text:?}");
        }
    }

    #[test]
    fn admin_allows_everything_and_ingest_only_itself() {
        assert!(Scope::Admin.allows(Scope::Read));
        assert!(!Scope::Ingest.allows(Scope::Read));
        assert!(!Scope::Read.allows(Scope::Ingest));
    }
}
