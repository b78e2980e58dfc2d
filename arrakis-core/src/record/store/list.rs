//! Lists: what they can be filtered by, and their pages.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use super::{ConversationSummary, EventSummary};
use crate::base::clock::Timestamp;
use crate::base::envelope::Form;
use crate::base::id::RequestId;
use crate::base::limits::LIST_LOOKS_MAX;
use crate::record::audit::EventStatus;
use crate::record::retention::first_id;
use crate::session::conversation::Conversation;
use crate::session::search::{InvalidSearch, SearchQuery};

/// Which audit rows to list. Every given field must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// The workspace.
    pub workspace: Option<String>,
    /// The state.
    pub status: Option<EventStatus>,
    /// The event type.
    pub event_type: Option<String>,
    /// The session.
    pub session_id: Option<String>,
    /// The request id, duplicates included. Ask with the workspace: another may use the same id, and the index is of
    /// both.
    pub request_id: Option<RequestId>,
    /// Text whose words the payload holds: the [terms](crate::session::search::SearchQuery::terms) of a search for it,
    /// all of them, also of a phrase wherever they stand. A text that is no search finds nothing.
    pub text: Option<String>,
    /// Received at this moment or later.
    pub since: Option<Timestamp>,
    /// Received before this.
    pub until: Option<Timestamp>,
    /// The host that captured it. Only an envelope says that, as with the user and the project.
    pub host: Option<String>,
    /// The login name of the user that it was captured for.
    pub user: Option<String>,
    /// The project directory that it was captured in: this one, or one below it.
    pub project: Option<String>,
    /// Why it is not `SUCCESS`.
    pub error_code: Option<String>,
    /// The form in which it came. Duplicates and bytes that are no event have none.
    pub form: Option<Form>,
    /// Whether a person gave it up for good.
    pub discarded: Option<bool>,
}

impl EventFilter {
    /// What is asked of the payload.
    ///
    /// # Errors
    ///
    /// There is a text, but it is nothing that can be searched for.
    pub fn query(&self) -> Result<Option<SearchQuery>, InvalidSearch> {
        self.text.as_deref().map(str::parse).transpose()
    }

    /// Whether a row is one that the filter asks for, as far as its summary tells: the text is not looked at.
    #[must_use]
    pub fn admits(&self, event: &EventSummary) -> bool {
        fn fits<T: PartialEq>(wanted: Option<&T>, is: Option<&T>) -> bool {
            wanted.is_none() || wanted == is
        }
        let source = event.metadata.capture.as_ref().map(|capture| &capture.source);
        let said = |field: fn(&crate::base::envelope::Source) -> &Option<String>| {
            source.and_then(|source| field(source).as_ref())
        };
        fits(self.workspace.as_ref(), Some(&event.workspace))
            && fits(self.status.as_ref(), Some(&event.status))
            && fits(self.event_type.as_ref(), Some(&event.event_type))
            && fits(self.session_id.as_ref(), event.session_id.as_ref())
            && fits(self.request_id.as_ref(), Some(&event.request_id))
            && self.since.is_none_or(|since| since <= event.received_at)
            && self.until.is_none_or(|until| event.received_at < until)
            && fits(self.host.as_ref(), said(|source| &source.host))
            && fits(self.user.as_ref(), said(|source| &source.user))
            && self.project.as_ref().is_none_or(|project| {
                said(|source| &source.project_dir).is_some_and(|path| is_within(path, project))
            })
            && fits(self.error_code.as_ref(), event.error_code.as_ref())
            && fits(self.form.as_ref(), event.metadata.form.as_ref())
            && fits(self.discarded.as_ref(), Some(&event.discarded_at.is_some()))
    }

    /// The first id that a row of the time asked for can have: ids begin with the millisecond of the receipt.
    #[must_use]
    pub fn first_id(&self) -> Option<Uuid> {
        self.since.map(first_id)
    }

    /// The id behind all that rows of the time asked for can have.
    #[must_use]
    pub fn end_id(&self) -> Option<Uuid> {
        self.until.map(|until| first_id(until.plus(Duration::from_millis(1))))
    }
}

/// Which conversations to list. Every given field must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationFilter {
    /// The workspace.
    pub workspace: String,
    /// The directory that it was last in: this one, or one below it.
    pub project: Option<String>,
    /// Its last event was at this moment or later.
    pub since: Option<Timestamp>,
    /// Its last event was before this.
    pub until: Option<Timestamp>,
}

impl ConversationFilter {
    /// All conversations of a workspace.
    #[must_use]
    pub fn new(workspace: &str) -> Self {
        Self { workspace: workspace.to_owned(), project: None, since: None, until: None }
    }

    /// Whether a conversation is one that the filter asks for.
    #[must_use]
    pub fn admits(&self, conversation: &Conversation) -> bool {
        let at = conversation.last_event_at;
        self.workspace == conversation.workspace
            && self.since.is_none_or(|since| since <= at)
            && self.until.is_none_or(|until| at < until)
            && self.project.as_ref().is_none_or(|project| {
                let path = conversation.project_path.as_ref();
                path.is_some_and(|path| is_within(&path.value, project))
            })
    }
}

/// Whether a path is this directory, or is below it.
#[must_use]
pub(crate) fn is_within(path: &str, project: &str) -> bool {
    let below = path.strip_prefix(directory(project));
    below.is_some_and(|below| below.is_empty() || below.starts_with(['/', '\\']))
}

/// A directory without the separator that may end it.
#[must_use]
pub fn directory(path: &str) -> &str {
    path.trim_end_matches(['/', '\\'])
}

/// Which part of a list is asked for, behind a cursor of type `C`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page<C = Uuid> {
    /// Begin behind this; none begins at the newest.
    pub after: Option<C>,
    /// How many items at most.
    pub limit: usize,
    /// How many rows to look at, at most, to find them. A page ends there, however few it has found.
    pub looks: usize,
}

impl<C> Page<C> {
    /// The first `limit` items.
    #[must_use]
    pub fn first(limit: usize) -> Self {
        Self { after: None, limit, looks: LIST_LOOKS_MAX }
    }

    /// Up to `limit` items behind `after`.
    #[must_use]
    pub fn after(after: C, limit: usize) -> Self {
        Self { after: Some(after), ..Self::first(limit) }
    }
}

/// A part of a list of audit rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventPage {
    /// The rows, newest first. There may be fewer than asked for, or none, though there is more behind.
    pub events: Vec<EventSummary>,
    /// Where to go on, where there may be more.
    pub next: Option<Uuid>,
}

/// A part of a list of conversations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConversationPage {
    /// The conversations, those of the latest events first. There may be fewer than asked for, or none, though
    /// there is more behind.
    pub conversations: Vec<ConversationSummary>,
    /// Where to go on, where there may be more.
    pub next: Option<ConversationCursor>,
}

/// A place in a list of conversations. It stays where it is when the conversation that was there goes on, and then
/// stands elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConversationCursor {
    /// The last event of the conversation that was there.
    pub at: Timestamp,
    /// The conversation.
    pub id: Uuid,
}

impl ConversationCursor {
    /// Where a conversation stands now.
    #[must_use]
    pub fn of(conversation: &Conversation) -> Self {
        Self { at: conversation.last_event_at, id: conversation.id }
    }
}

/// The text is no cursor of a list of conversations.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no cursor of a list of conversations: take it from the page before")]
pub struct InvalidConversationCursor;

impl fmt::Display for ConversationCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.at.as_micros(), self.id.simple())
    }
}

impl FromStr for ConversationCursor {
    type Err = InvalidConversationCursor;

    fn from_str(text: &str) -> Result<Self, InvalidConversationCursor> {
        let (at, id) = text.split_once('.').ok_or(InvalidConversationCursor)?;
        let at = at.parse().map_err(|_| InvalidConversationCursor)?;
        let id = id.parse().map_err(|_| InvalidConversationCursor)?;
        Ok(Self { at: Timestamp::from_micros(at), id })
    }
}

impl Serialize for ConversationCursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ConversationCursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_of_conversations_comes_back_from_its_text() {
        let cursor =
            ConversationCursor { at: Timestamp::from_micros(-7), id: Uuid::from_u128(u128::MAX) };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in ["", "7", "7.", ".0", "x.00000000000000000000000000000000"] {
            assert!(text.parse::<ConversationCursor>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_is_within_its_own_directory_and_those_above() {
        for (path, project) in
            [("/a/b", "/a/b"), ("/a/b", "/a/"), ("/a", "/"), (r"C:\a\b", r"C:\a")]
        {
            assert!(is_within(path, project), "{path} {project}");
        }
        for (path, project) in [("/a/bc", "/a/b"), ("/a", "/a/b"), ("a", "/")] {
            assert!(!is_within(path, project), "{path} {project}");
        }
    }
}
