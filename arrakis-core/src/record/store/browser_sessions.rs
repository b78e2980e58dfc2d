//! Who is signed in at a dashboard: [`BrowserSessions`], and an implementation in memory.

use std::collections::HashMap;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::record::key::Scope;

/// A browser that is signed in, as it is kept: without the secret of its cookie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrowserSession {
    /// SHA-256 of the cookie's secret.
    #[serde(skip_serializing, default = "crate::record::key::no_digest")]
    pub hash: Digest,
    /// The key that it was signed in with, by its id: it ends with that key. Empty where it was a one-time link.
    pub key_id: String,
    /// What it may do.
    pub scope: Scope,
    /// The workspace.
    pub workspace: String,
    /// How the browser calls itself, cut.
    pub browser: String,
    /// When it was signed in.
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    pub seen_at: Timestamp,
}

/// Keeps who is signed in.
///
/// # Behavior
///
/// * A session that was opened is found by its hash until it is closed.
/// * A session that is opened again takes its own place.
/// * Workspaces do not see each other's sessions.
/// * Sessions are listed by when they were last used, latest first; those of the same time by their hashes.
/// * A session knows when it was last used, whichever server says so first.
/// * A workspace has at most as many sessions as the call says: a new one takes the place of the one that was not used
///   for longest.
/// * What has not been used for long, or is old, is forgotten.
#[async_trait]
pub trait BrowserSessions: std::fmt::Debug + Send + Sync + 'static {
    /// Keeps a new session, and of its workspace's sessions no more than `max`.
    ///
    /// # Errors
    ///
    /// It is not kept.
    async fn open_browser_session(
        &self,
        session: BrowserSession,
        max: usize,
    ) -> Result<(), StoreError>;

    /// The session of this hash.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn browser_session(&self, hash: &Digest) -> Result<Option<BrowserSession>, StoreError>;

    /// The sessions of a workspace.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn browser_sessions(&self, workspace: &str) -> Result<Vec<BrowserSession>, StoreError>;

    /// Notes when a session was last used. A time before the one that is known changes nothing.
    ///
    /// # Errors
    ///
    /// Nothing is noted.
    async fn note_browser_session(&self, hash: &Digest, at: Timestamp) -> Result<(), StoreError>;

    /// Ends a session; returns whether there was one.
    ///
    /// # Errors
    ///
    /// It is as it was.
    async fn close_browser_session(&self, hash: &Digest) -> Result<bool, StoreError>;

    /// Ends the sessions that were last used before `seen`, or signed in before `created`; returns how many.
    ///
    /// # Errors
    ///
    /// They are as they were.
    async fn forget_browser_sessions(
        &self,
        seen: Timestamp,
        created: Timestamp,
    ) -> Result<u64, StoreError>;
}

/// Keeps who is signed in, in memory: a restart signs everybody out.
#[derive(Debug, Default)]
pub struct MemoryBrowserSessions(Mutex<HashMap<Digest, BrowserSession>>);

#[async_trait]
impl BrowserSessions for MemoryBrowserSessions {
    async fn open_browser_session(
        &self,
        session: BrowserSession,
        max: usize,
    ) -> Result<(), StoreError> {
        let mut all = self.0.lock();
        let workspace = session.workspace.clone();
        all.insert(session.hash, session);
        let of = |one: &&BrowserSession| one.workspace == workspace;
        while all.values().filter(of).count() > max {
            let oldest = all.values().filter(of).min_by_key(|one| (one.seen_at, one.hash));
            let Some(oldest) = oldest.map(|one| one.hash) else { break };
            all.remove(&oldest);
        }
        Ok(())
    }

    async fn browser_session(&self, hash: &Digest) -> Result<Option<BrowserSession>, StoreError> {
        Ok(self.0.lock().get(hash).cloned())
    }

    async fn browser_sessions(&self, workspace: &str) -> Result<Vec<BrowserSession>, StoreError> {
        let all = self.0.lock();
        let mut mine: Vec<_> =
            all.values().filter(|one| one.workspace == workspace).cloned().collect();
        mine.sort_by_key(|one| (std::cmp::Reverse(one.seen_at), one.hash));
        Ok(mine)
    }

    async fn note_browser_session(&self, hash: &Digest, at: Timestamp) -> Result<(), StoreError> {
        if let Some(one) = self.0.lock().get_mut(hash) {
            one.seen_at = one.seen_at.max(at);
        }
        Ok(())
    }

    async fn close_browser_session(&self, hash: &Digest) -> Result<bool, StoreError> {
        Ok(self.0.lock().remove(hash).is_some())
    }

    async fn forget_browser_sessions(
        &self,
        seen: Timestamp,
        created: Timestamp,
    ) -> Result<u64, StoreError> {
        let mut all = self.0.lock();
        let before = all.len();
        all.retain(|_, one| one.seen_at >= seen && one.created_at >= created);
        Ok((before - all.len()) as u64)
    }
}

const _: Option<&dyn BrowserSessions> = None; // object safe
