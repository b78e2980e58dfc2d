//! What a session has from another one.
//!
//! A fork begins with copies of the lines of the session that it comes from. Clients before 2.1.300 or so leave
//! that session's id in them; later ones write the fork's own, and tell by which session the model was asked or
//! where the fork was made. Prompts tell nothing then, and stand between lines that do.

use std::collections::HashSet;

use serde::Deserialize;

use super::line_type::{BYTE_ORDER_MARK, LineType, Named};
use crate::base::digest::Digest;
use crate::base::limits::SIDECHAIN_LINES_MAX;
use crate::session::hook::{Field, object};

/// The fields of a line that name sessions.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Owners<'a> {
    #[serde(borrow, default)]
    pub(crate) session_id: Field<'a>,
    #[serde(borrow, default)]
    pub(crate) request_session_id: Field<'a>,
    #[serde(borrow, default)]
    pub(crate) forked_from: Field<'a>,
}

impl Owners<'_> {
    /// Whether the line is a copy of one of a session other than this one.
    pub(crate) fn is_other(&self, session_id: &str) -> bool {
        let is_other = |field: Field<'_>| field.text().is_some_and(|id| id != session_id);
        self.forked_from.is_set()
            || [self.session_id, self.request_session_id].into_iter().any(is_other)
    }
}

/// Finds out up to where a transcript is a copy: up to its last line that says so, before the first answer that
/// does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copies {
    /// Up to where the lines are copies, in bytes of those that were looked at.
    pub end: u64,
    /// Whether the first own answer was seen: no copy comes after it.
    pub is_over: bool,
    looked_at: u64,
}

impl Copies {
    /// Goes on behind `looked_at` bytes, of which those before `end` are copies.
    #[must_use]
    pub fn new(end: u64, looked_at: u64) -> Self {
        Self { end, is_over: false, looked_at }
    }

    /// Looks at the next line, with its newline, of a transcript of this session.
    pub fn look(&mut self, line: &[u8], session_id: &str) {
        self.looked_at += line.len() as u64;
        let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        let (Ok(named), Ok(owners)) = (object::<Named<'_>>(line), object::<Owners<'_>>(line))
        else {
            return;
        };
        if owners.is_other(session_id) {
            self.end = self.looked_at;
        } else if LineType::of(&named) == LineType::Assistant {
            self.is_over = true;
        }
    }

    /// Passes over a line that is too long to be looked at.
    pub fn pass_over(&mut self, bytes: u64) {
        self.looked_at += bytes;
    }
}

/// Finds out up to where the transcript of a subagent repeats the main thread, as that of a side question does. Its
/// lines have the ids of those that they repeat.
#[derive(Debug, Clone, Default)]
pub struct Repeats {
    /// What the lines of the main thread are called.
    main: HashSet<u64>,
}

impl Repeats {
    /// Looks at a line of the session's own transcript.
    pub fn look(&mut self, line: &[u8]) {
        if let Some(id) = line_id(line)
            && self.main.len() < SIDECHAIN_LINES_MAX
        {
            self.main.insert(id);
        }
    }

    /// The id of a line, where it has one.
    #[must_use]
    pub fn id_of(line: &[u8]) -> Option<String> {
        let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        Some(object::<Named<'_>>(line).ok()?.uuid.text()?.into_owned())
    }

    /// Whether a line of the subagent's transcript repeats one of the main thread. It begins with those that do.
    #[must_use]
    pub fn has(&self, line: &[u8]) -> bool {
        line_id(line).is_some_and(|id| self.main.contains(&id))
    }
}

fn line_id(line: &[u8]) -> Option<u64> {
    let digest = Digest::of(Repeats::id_of(line)?.as_bytes());
    Some(digest.as_bytes().iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte)))
}
