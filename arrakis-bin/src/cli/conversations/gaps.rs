//! Conversations of which something is missing.

use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::store::{ConversationFilter, EventReader, Page};
use arrakis_core::session::conversation::{Conversation, Gap};

/// Transcripts lag the hooks, and so do their readers; what is younger may still come.
const GRACE: Duration = Duration::from_secs(60);

/// Those of the latest `limit` conversations that have gaps, each with them.
///
/// # Errors
///
/// The store cannot be read.
pub(in crate::cli) async fn find(
    reader: &Arc<dyn EventReader>,
    workspace: &str,
    limit: usize,
    now: Timestamp,
) -> anyhow::Result<Vec<(Conversation, Vec<Gap>)>> {
    let mut found = Vec::new();
    let filter = ConversationFilter::new(workspace);
    for one in reader.conversations(filter, Page::first(limit)).await?.conversations {
        let is_damaged = !one.conversation.unreadable.is_empty();
        let may_differ = one.sides.differ() || one.counts_capped || is_damaged;
        if !may_differ || now.since(one.conversation.last_event_at) < GRACE {
            continue;
        }
        if let Some(detail) = reader.conversation(workspace, &one.conversation.session_id).await? {
            let gaps = detail.reconciliation().gaps;
            if !gaps.is_empty() {
                found.push((detail.conversation, gaps));
            }
        }
    }
    Ok(found)
}
