//! Titles: lines without a time and an id.

use serde::Deserialize;

use super::Reader;
use super::line::Line;
use crate::base::clock::Timestamp;
use crate::base::id;
use crate::session::conversation::{Conversation, Stamp, Title, TitleSource};
use crate::session::hook::{Field, object};
use crate::session::projection::title;
use crate::session::transcript::line_type::earliest_possible;

/// Where the lines with titles stand in their file.
pub(super) struct Places {
    offsets: std::vec::IntoIter<u64>,
    /// Whether something of the session itself stands before the line: clients before 2.0 begin a file with the
    /// summaries of other sessions.
    pub(super) is_after_talk: bool,
}

impl Places {
    /// The places of a slice that begins at `start`, as far as it says them.
    pub(super) fn new(start: Option<u64>, offsets: Option<Vec<u64>>) -> Self {
        let offsets = offsets.unwrap_or_default().into_iter();
        Self { offsets, is_after_talk: start.is_some_and(|start| start > 0) }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named<'a> {
    #[serde(borrow, default)]
    custom_title: Field<'a>,
    #[serde(borrow, default)]
    ai_title: Field<'a>,
    #[serde(borrow, default)]
    summary: Field<'a>,
}

impl Reader<'_> {
    /// A title that the person or the client gave. When that was is not known: it moves neither the start nor the
    /// latest event of a conversation of which anything else is known.
    pub(super) fn title(&mut self, line: &Line<'_>) {
        let offset = self.titles.offsets.next().unwrap_or_default();
        let Ok(named) = object::<Named<'_>>(line.raw) else { return };
        let (source, text) = if let Some(text) = named.custom_title.text() {
            (TitleSource::Custom, text)
        } else if let Some(text) = named.ai_title.text() {
            (TitleSource::Client, text)
        } else if let Some(text) = named.summary.text().filter(|_| self.titles.is_after_talk) {
            (TitleSource::Client, text)
        } else {
            return;
        };
        if self.agent.is_some() {
            return;
        }
        let at = Timestamp::from_millis(i64::try_from(offset).unwrap_or(i64::MAX / 1000));
        let stamp = Stamp { at, request_id: id::slice_id(&["title", &text]) };
        let Some(value) = title(&text) else { return };
        let conversation = Conversation::new(self.workspace, self.session_id, &stamp);
        self.add_conversation(Conversation {
            started_at: self.captured_at,
            last_event_at: earliest_possible(),
            title: Some(Title::new(source, &stamp, value)),
            ..conversation
        });
    }
}
