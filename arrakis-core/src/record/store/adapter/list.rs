//! How a store with indexes reads a page of audit rows in bounded time.
//!
//! A page goes through one index, in the order of ids: that of the condition which leaves the fewest rows
//! ([`EventIndex`]). All other conditions are looked at row by row. The store first finds the id at which the page
//! has looked at enough rows, and then what matches among those.

use uuid::Uuid;

use crate::base::id::RequestId;
use crate::base::limits::PAGE_MAX;
use crate::record::audit::EventStatus;
use crate::record::store::{EventFilter, EventPage, EventSummary, Page};

/// The index that a page of audit rows goes through, with what is looked up in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventIndex<'a> {
    /// The workspace and the request id.
    Request(&'a str, &'a RequestId),
    /// The session.
    Session(&'a str),
    /// A state other than `SUCCESS`.
    Status(EventStatus),
    /// The event type.
    EventType(&'a str),
    /// The workspace.
    Workspace(&'a str),
    /// All rows.
    Id,
}

impl<'a> EventIndex<'a> {
    /// The index for what a filter asks for.
    #[must_use]
    pub fn of(filter: &'a EventFilter) -> Self {
        if let (Some(workspace), Some(request)) = (&filter.workspace, &filter.request_id) {
            return Self::Request(workspace, request);
        }
        if let Some(session) = &filter.session_id {
            return Self::Session(session);
        }
        if let Some(status) = filter.status.filter(|status| *status != EventStatus::Success) {
            return Self::Status(status);
        }
        if let Some(event_type) = &filter.event_type {
            return Self::EventType(event_type);
        }
        filter.workspace.as_deref().map_or(Self::Id, Self::Workspace)
    }

    /// What else the filter asks for: conditions that are looked at row by row. The time is not among them, because ids
    /// begin with it.
    #[must_use]
    pub fn rest(self, filter: &EventFilter) -> EventFilter {
        let mut rest = EventFilter { since: None, until: None, ..filter.clone() };
        match self {
            Self::Request(..) => (rest.workspace, rest.request_id) = (None, None),
            Self::Session(_) => rest.session_id = None,
            Self::Status(_) => rest.status = None,
            Self::EventType(_) => rest.event_type = None,
            Self::Workspace(_) => rest.workspace = None,
            Self::Id => {}
        }
        rest
    }
}

/// How many rows to ask for, to know whether there is one more than the page has.
#[must_use]
pub fn page_rows(limit: usize) -> i64 {
    i64::try_from(limit.min(PAGE_MAX) + 1).unwrap_or(i64::MAX)
}

/// The page that is made of `rows`, up to [`page_rows`] of them. `end` is the last row that was looked at, where there
/// may be more behind it.
#[must_use]
pub fn event_page(
    mut rows: Vec<EventSummary>,
    filter: &EventFilter,
    page: Page,
    end: Option<Uuid>,
) -> EventPage {
    let limit = page.limit.min(PAGE_MAX);
    let is_full = rows.len() > limit;
    rows.truncate(limit);
    let next = if is_full { rows.last().map(|last| last.id) } else { end };
    // What SQL cannot tell exactly, the row does.
    rows.retain(|row| filter.admits(row));
    EventPage { events: rows, next }
}
