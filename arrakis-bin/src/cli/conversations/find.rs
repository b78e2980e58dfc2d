//! Finding the conversation that somebody means.

use std::sync::Arc;

use anyhow::bail;
use arrakis_core::record::store::{ConversationFilter, EventReader, Page};
use arrakis_core::session::conversation::Conversation;

use crate::cli::output::text;
use crate::cli::output::zone::Zone;

/// Conversations read at a time.
const PAGE: usize = 1000;

/// How many of several candidates are named.
const NAMED: usize = 10;

/// Characters of a whole session id: a UUID.
const WHOLE_ID: usize = 36;

/// The session that a filter means: the one whose id begins with `text`, and `text` itself where no conversation's does, for
/// events may be of a session without one.
///
/// # Errors
///
/// Several sessions' ids begin so; the error names them. Or the store cannot be read.
pub(in crate::cli) async fn session(
    reader: &Arc<dyn EventReader>,
    workspace: &str,
    text: &str,
    zone: &Zone,
) -> anyhow::Result<String> {
    if text.len() >= WHOLE_ID {
        return Ok(text.to_owned());
    }
    match candidates(reader, workspace, text).await? {
        none if none.is_empty() => Ok(text.to_owned()),
        found => chosen(&found, workspace, text, zone),
    }
}

/// The session whose id begins with `prefix`.
///
/// # Errors
///
/// No session's id does, or several do; the error names them.
pub(in crate::cli) async fn by_prefix(
    reader: &Arc<dyn EventReader>,
    workspace: &str,
    prefix: &str,
    zone: &Zone,
) -> anyhow::Result<String> {
    let found = candidates(reader, workspace, prefix).await?;
    chosen(&found, workspace, prefix, zone)
}

/// The conversations whose ids begin with `prefix`.
async fn candidates(
    reader: &Arc<dyn EventReader>,
    workspace: &str,
    prefix: &str,
) -> anyhow::Result<Vec<Conversation>> {
    let mut found = Vec::new();
    let mut page = Page::first(PAGE);
    while !prefix.is_empty() {
        let part = reader.conversations(ConversationFilter::new(workspace), page).await?;
        let is_meant = |id: &str| id.starts_with(prefix);
        let all = part.conversations.into_iter().map(|one| one.conversation);
        found.extend(all.filter(|one| is_meant(&one.session_id) || is_meant(&one.id.to_string())));
        let Some(next) = part.next else { break };
        page.after = Some(next);
    }
    Ok(found)
}

/// The session of the only candidate.
fn chosen(
    found: &[Conversation],
    workspace: &str,
    prefix: &str,
    zone: &Zone,
) -> anyhow::Result<String> {
    if let Some(exact) = found.iter().find(|one| one.session_id == prefix) {
        return Ok(exact.session_id.clone());
    }
    match found {
        [] => bail!(
            "there is no conversation {prefix} in the workspace {workspace}; \
             `arrakis conversations list` shows those that are stored"
        ),
        [one] => Ok(one.session_id.clone()),
        several => {
            let mut candidates = String::new();
            for one in several.iter().take(NAMED) {
                let title = one.title.as_ref().map_or("", |title| &title.value);
                let started = zone.moment(one.began_at(), false);
                let title = text::one_line(title);
                candidates += &format!("\n  {}  {started}  {title}", one.session_id);
            }
            if several.len() > NAMED {
                candidates += &format!("\n  and {} more", several.len() - NAMED);
            }
            bail!("{} conversations begin with {prefix}; say which:{candidates}", several.len())
        }
    }
}
