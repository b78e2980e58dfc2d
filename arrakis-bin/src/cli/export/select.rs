//! Which conversations to export.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::store::{ConversationFilter, ConversationSummary, EventReader, Page};

use super::Selection;
use crate::cli::conversations::find;
use crate::cli::output::zone::Zone;

/// Conversations read at a time.
const PAGE: usize = 1000;

/// What is to be exported.
#[derive(Debug)]
pub(super) struct Selected {
    /// The sessions, the one with the earliest last event first.
    pub(super) sessions: Vec<String>,
    /// Whether events that belong to no conversation are meant too.
    pub(super) rest: bool,
}

/// Finds the sessions that are meant.
pub(super) async fn select(
    selection: &Selection,
    reader: &Arc<dyn EventReader>,
    now: Timestamp,
    zone: &Zone,
) -> anyhow::Result<Selected> {
    let workspace = &selection.workspace;
    let is_narrow =
        selection.project.is_some() || selection.since.is_some() || selection.until.is_some();
    if selection.sessions.is_empty() && !selection.all && !is_narrow {
        bail!("say which: session ids, --project, --since, --until, or --all");
    }
    let rest = selection.all && !is_narrow;
    let mut meant = HashSet::new();
    for session in &selection.sessions {
        meant.insert(find::by_prefix(reader, workspace, session, zone).await?);
    }
    let since = selection.since.map(|since| since.before(now, zone));
    let until = selection.until.map(|until| until.before(now, zone));
    let project = selection.project.as_ref().map(std::path::absolute).transpose()?;
    let wanted = |one: &ConversationSummary| {
        let one = &one.conversation;
        (meant.is_empty() || meant.contains(&one.session_id))
            && since.is_none_or(|since| one.last_event_at >= since)
            && until.is_none_or(|until| one.started_at <= until)
            && project.as_ref().is_none_or(|project| {
                let path = one.project_path.as_ref().map(|path| Path::new(&path.value));
                path.is_some_and(|path| path.starts_with(project))
            })
    };
    let (mut sessions, mut known) = (Vec::new(), HashSet::new());
    // A conversation that goes on meanwhile comes to the front of the list: it is read again from there,
    // until its first page has nothing new.
    loop {
        let mut page = Page::first(PAGE);
        let mut is_new = false;
        loop {
            let part = reader.conversations(ConversationFilter::new(workspace), page).await?;
            let before = known.len();
            for one in &part.conversations {
                if known.insert(one.conversation.id) && wanted(one) {
                    sessions.push(one.conversation.session_id.clone());
                }
            }
            if known.len() == before {
                break;
            }
            is_new = true;
            let Some(next) = part.next else { break };
            page.after = Some(next);
        }
        if !is_new {
            sessions.reverse();
            return Ok(Selected { sessions, rest });
        }
    }
}
