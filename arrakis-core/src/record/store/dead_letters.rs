//! The dead letters of a store: rows in `FAILED`, out of retries, that nobody has discarded.

use std::sync::Arc;

use async_trait::async_trait;

use super::StoreError;
use crate::base::dead_letter::{DeadLetter, DeadLetterDetail, DeadLetterError, DeadLetters};
use crate::base::id::RequestId;

/// The dead letters of each workspace. A request id names an event only inside one, so
/// [`WorkspaceDeadLetters`] is what people work with.
#[async_trait]
pub trait StoredDeadLetters: std::fmt::Debug + Send + Sync + 'static {
    /// Lists up to `limit` dead letters of a workspace whose id comes after `after`, in the order of ids.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn dead_letters(
        &self,
        workspace: &str,
        after: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError>;

    /// One dead letter of a workspace with its payload and history.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn dead_letter(
        &self,
        workspace: &str,
        id: &RequestId,
    ) -> Result<Option<DeadLetterDetail>, StoreError>;

    /// Has these events of a workspace tried again; returns how many there were.
    ///
    /// # Errors
    ///
    /// None of them is.
    async fn redrive(&self, workspace: &str, ids: &[RequestId]) -> Result<u64, StoreError>;

    /// Gives these events of a workspace up; returns how many there were.
    ///
    /// # Errors
    ///
    /// None of them is.
    async fn discard(&self, workspace: &str, ids: &[RequestId]) -> Result<u64, StoreError>;
}

/// The dead letters of one workspace.
#[derive(Debug)]
pub struct WorkspaceDeadLetters<S: ?Sized> {
    store: Arc<S>,
    workspace: String,
}

impl<S: StoredDeadLetters + ?Sized> WorkspaceDeadLetters<S> {
    /// Those of `workspace` in `store`.
    #[must_use]
    pub fn new(store: Arc<S>, workspace: impl Into<String>) -> Self {
        Self { store, workspace: workspace.into() }
    }
}

#[async_trait]
impl<S: StoredDeadLetters + ?Sized> DeadLetters for WorkspaceDeadLetters<S> {
    async fn list(
        &self,
        after: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, DeadLetterError> {
        Ok(self.store.dead_letters(&self.workspace, after, limit).await?)
    }

    async fn show(&self, id: &RequestId) -> Result<Option<DeadLetterDetail>, DeadLetterError> {
        Ok(self.store.dead_letter(&self.workspace, id).await?)
    }

    async fn redrive(&self, ids: &[RequestId]) -> Result<u64, DeadLetterError> {
        Ok(self.store.redrive(&self.workspace, ids).await?)
    }

    async fn discard(&self, ids: &[RequestId]) -> Result<u64, DeadLetterError> {
        Ok(self.store.discard(&self.workspace, ids).await?)
    }
}

const _: Option<&dyn StoredDeadLetters> = None; // object safe
