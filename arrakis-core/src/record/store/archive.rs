//! Reading everything back, to keep it elsewhere: [`Archive`].

use async_trait::async_trait;

use super::{Arrival, Page, StoreError};
use crate::record::audit::EventStatus;
use crate::session::conversation::Changes;

/// Reads back what was stored, as it was stored.
///
/// # Behavior
///
/// * What arrived comes back oldest first, in pages that continue without a gap; repeats, which have no body,
///   are left out.
/// * Arrivals can be filtered, and say whether they took their request id.
/// * A page ends early where its bodies add up to much ([`ARCHIVE_PAGE_BYTES`]), so that it fits into memory;
///   only an empty one is the end.
/// * The values of a conversation come back whole, also those that readers do not see.
///
/// [`ARCHIVE_PAGE_BYTES`]: crate::base::limits::ARCHIVE_PAGE_BYTES
#[async_trait]
pub trait Archive: std::fmt::Debug + Send + Sync + 'static {
    /// What arrived, oldest first. The page continues after the arrival of this id.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn arrivals(&self, filter: ArrivalFilter, page: Page)
    -> Result<Vec<Arrival>, StoreError>;

    /// What is stored of the conversation of this session: values that merge with those of another store.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn values(
        &self,
        workspace: &str,
        session_id: &str,
    ) -> Result<Option<Changes>, StoreError>;
}

/// Which arrivals to read. Every given field must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArrivalFilter {
    /// The workspace.
    pub workspace: String,
    /// The session.
    pub session_id: Option<String>,
    /// The event type.
    pub event_type: Option<String>,
    /// The state.
    pub status: Option<EventStatus>,
    /// Whether they belong to a conversation, or to none.
    pub in_conversation: Option<bool>,
}

/// How many of the first of these bodies make up a page: at least one.
#[must_use]
pub fn page_length(sizes: impl IntoIterator<Item = u64>) -> usize {
    let mut bytes = 0_u64;
    let fits = sizes.into_iter().take_while(|size| {
        let first = bytes == 0;
        bytes = bytes.saturating_add((*size).max(1));
        first || bytes <= crate::base::limits::ARCHIVE_PAGE_BYTES
    });
    fits.count()
}

const _: Option<&dyn Archive> = None; // object safe

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::ARCHIVE_PAGE_BYTES;

    #[test]
    fn a_page_has_one_body_at_least_and_not_more_than_fit() {
        assert_eq!(page_length([]), 0);
        assert_eq!(page_length([u64::MAX, 1]), 1);
        assert_eq!(page_length([1, ARCHIVE_PAGE_BYTES - 1, 0, 0]), 2);
        assert_eq!(page_length([0; 1000]), 1000);
    }
}
