//! Threads of subagents in the transcript of a session.
//!
//! Older clients write the lines of subagents between those of the session, marked as a sidechain, and name no
//! subagent. Which lines belong together is told by their parents alone, up to the first one of each.

use std::collections::HashMap;

use serde::Deserialize;

use crate::base::limits::SIDECHAIN_LINES_MAX;
use crate::session::hook::{Field, object};

/// The first lines of the sidechains of a file, by the ids of their lines.
#[derive(Debug, Clone, Default)]
pub struct Sidechains(HashMap<String, String>);

impl Sidechains {
    /// Looks at a line of the file.
    pub fn look(&mut self, line: &[u8]) {
        if let Ok(line) = std::str::from_utf8(line) {
            self.of(line);
        }
    }

    /// The id of a line in a sidechain that names no subagent, and that of the first line of the sidechain.
    pub(super) fn of(&mut self, line: &str) -> Option<(String, String)> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Link<'a> {
            #[serde(borrow, default)]
            is_sidechain: Field<'a>,
            #[serde(borrow, default)]
            agent_id: Field<'a>,
            #[serde(borrow, default)]
            uuid: Field<'a>,
            #[serde(borrow, default)]
            parent_uuid: Field<'a>,
        }
        // Few lines are in one.
        if !line.contains("\"isSidechain\":true") && !line.contains("\"isSidechain\": true") {
            return None;
        }
        let link: Link<'_> = object(line.as_bytes()).ok()?;
        if !link.is_sidechain.is_set() || link.agent_id.is_set() {
            return None;
        }
        let id = link.uuid.text()?.into_owned();
        let parent = link.parent_uuid.text();
        let first = parent.and_then(|parent| self.0.get(&*parent)).cloned();
        let first = first.unwrap_or_else(|| id.clone());
        if self.0.len() < SIDECHAIN_LINES_MAX {
            self.0.insert(id.clone(), first.clone());
        }
        Some((id, first))
    }
}
