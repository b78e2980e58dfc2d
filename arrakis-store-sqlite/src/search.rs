//! Searching: texts by their words, newest first. Payloads here, messages and tool uses in `documents.rs`.
//!
//! The words and filter terms are those of [`arrakis_core::session::search`]; SQLite's full text index (FTS5) only keeps them.
//! Each text has a key that begins with its time in milliseconds, and FTS5 gives matches in the order
//! of their keys. So a page is read from its newest match on until it is full, however many more there
//! are; only texts of the same millisecond are put in order afterwards.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use arrakis_core::base::id::RequestId;
use arrakis_core::base::limits::PAGE_MAX;
use arrakis_core::record::store::{EventFilter, EventSummary, Page};
use arrakis_core::session::search::{FilterTerm, SearchDocument, query_words};
use diesel::dsl::{AsExprOf, sql};
use diesel::expression::{SqlLiteral, UncheckedBind};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{Bool, Text as SqlText};
use uuid::Uuid;

use crate::row::SummaryRow;
use crate::schema::{event_keys, event_words, messages, tool_uses, webhook_events};

/// Audit rows whose payload holds all words of `text`, newest first.
pub(crate) fn find_events(
    conn: &mut SqliteConnection,
    text: &str,
    filter: &EventFilter,
    page: Page,
) -> QueryResult<Vec<EventSummary>> {
    let asked = [
        (FilterTerm::Workspace, "+workspace = ", filter.workspace.as_deref()),
        (FilterTerm::EventType, "+event_type = ", filter.event_type.as_deref()),
        (FilterTerm::Session, "+session_id = ", filter.session_id.as_deref()),
        (FilterTerm::Request, "+request_id = ", filter.request_id.as_ref().map(RequestId::as_str)),
    ];
    let asked = asked.into_iter().filter_map(|(term, column, value)| Some((term, column, value?)));
    let mut terms = query_words(text);
    if terms.is_empty() {
        return Ok(Vec::new());
    }
    terms.extend(asked.clone().map(|(term, _, value)| term.word(value)));
    let limit = page.limit.min(PAGE_MAX);
    let mut query = event_words::table
        .inner_join(event_keys::table.on(event_keys::key.eq(event_words::rowid)))
        .inner_join(webhook_events::table.on(webhook_events::id.eq(event_keys::event_id)))
        .filter(matches("event_words", all_of(&terms)))
        .order(event_words::rowid.desc())
        .select((event_words::rowid, SummaryRow::as_select()))
        .into_boxed();
    for (_, column, value) in asked {
        query = query.filter(also(column, value));
    }
    if let Some(value) = filter.status {
        query = query.filter(also("+status = ", value.as_str()));
    }
    if let Some(after) = page.after {
        query = query.filter(event_words::rowid.le(*keys_at(millis_of(after)).end()));
        query = query.filter(also("+webhook_events.id < ", after));
    }
    let rows = whole_milliseconds(query.load_iter(conn)?, limit)?;
    let mut events =
        rows.into_iter().map(EventSummary::try_from).collect::<QueryResult<Vec<EventSummary>>>()?;
    events.sort_by_key(|event| std::cmp::Reverse(event.id));
    events.truncate(limit);
    Ok(events)
}

/// A text as it is searched.
#[derive(Debug)]
pub(crate) struct Text {
    /// The row that it is of.
    pub(crate) id: String,
    /// The conversation, of a message or a tool use.
    conversation_id: String,
    is_tool_use: bool,
    /// The words and the filter terms, joined by spaces.
    words: String,
    /// The keys of its time.
    keys: RangeInclusive<i64>,
}

impl Text {
    /// The text of a payload: an audit row's id begins with its time.
    pub(crate) fn of_event(id: Uuid, words: BTreeSet<String>) -> Self {
        Self {
            id: id.to_string(),
            conversation_id: String::new(),
            is_tool_use: false,
            words: Vec::from_iter(words).join(" "),
            keys: keys_at(millis_of(id)),
        }
    }

    /// The text of a message or a tool use.
    pub(crate) fn of_document(document: SearchDocument<'_>, workspace: &str) -> Self {
        let mut words = document.terms(workspace);
        words.extend(document.dedup_terms());
        Self {
            id: document.id().to_string(),
            conversation_id: document.conversation_id().to_string(),
            is_tool_use: matches!(document, SearchDocument::ToolUse { .. }),
            words: Vec::from_iter(words).join(" "),
            keys: keys_at(document.at().as_millis()),
        }
    }

    /// Whether the message or tool use is still stored.
    pub(crate) fn is_there(&self, conn: &mut SqliteConnection) -> QueryResult<bool> {
        let id = self.id.as_str();
        if self.is_tool_use {
            diesel::select(diesel::dsl::exists(tool_uses::table.find(id))).get_result(conn)
        } else {
            diesel::select(diesel::dsl::exists(messages::table.find(id))).get_result(conn)
        }
    }

    /// Has the text found together with this value only, where a search asks for one; a text without
    /// words is not found at all.
    pub(crate) fn term(&mut self, term: FilterTerm, value: &str) {
        if !self.words.is_empty() {
            self.words.push(' ');
            self.words.push_str(&term.word(value));
        }
    }
}

/// Makes functions for one kind of text: `$words` is its full text index, `$keys` says what each row
/// of that is about, by its `$id` and what else is known of it.
macro_rules! texts {
    ($(#[$doc:meta])* $module:ident: $words:ident, $keys:ident, $id:ident $(, $also:ident)*) => {
        $(#[$doc])*
        pub(crate) mod $module {
            use diesel::prelude::*;
            use diesel::result::QueryResult;

            use super::Text;
            use crate::schema::{$keys, $words};

            /// The key of a row's text, if it is searchable.
            pub(crate) fn key(conn: &mut SqliteConnection, id: &str) -> QueryResult<Option<i64>> {
                $keys::table.filter($keys::$id.eq(id)).select($keys::key).get_result(conn).optional()
            }

            /// Makes a text searchable, in place of what the row had before.
            pub(crate) fn put(conn: &mut SqliteConnection, text: &Text) -> QueryResult<()> {
                remove(conn, &text.id)?;
                if text.words.is_empty() {
                    return Ok(());
                }
                let (first, last) = (*text.keys.start(), *text.keys.end());
                let taken = $keys::table
                    .filter($keys::key.between(first, last))
                    .select(diesel::dsl::max($keys::key))
                    .get_result::<Option<i64>>(conn)?;
                let key = taken.map_or(first, |taken| taken.saturating_add(1));
                if key > last {
                    tracing::warn!(id = text.id, "too many texts of one time: it is not searchable");
                    return Ok(());
                }
                diesel::insert_into($keys::table)
                    .values(($keys::key.eq(key), $keys::$id.eq(&text.id) $(, $keys::$also.eq(&text.$also))*))
                    .execute(conn)?;
                diesel::insert_into($words::table)
                    .values(($words::rowid.eq(key), $words::words.eq(&text.words)))
                    .execute(conn)?;
                Ok(())
            }

            /// Makes a row's text unsearchable.
            pub(crate) fn remove(conn: &mut SqliteConnection, id: &str) -> QueryResult<()> {
                if let Some(key) = key(conn, id)? {
                    diesel::delete($words::table.find(key)).execute(conn)?;
                    diesel::delete($keys::table.find(key)).execute(conn)?;
                }
                Ok(())
            }
        }
    };
}

texts! {
    /// The payloads.
    events: event_words, event_keys, event_id
}
texts! {
    /// The messages and tool uses.
    documents: subject_words, subject_keys, subject_id, conversation_id, is_tool_use
}

/// How many bits of a key tell apart texts of the same millisecond.
pub(crate) const NUMBER_BITS: u32 = 20;

/// The times that a key can begin with: within 278 years of 1970. Others count as the nearest.
const MILLIS: RangeInclusive<i64> = -(1 << 43)..=(1 << 43) - 1;

/// The keys of a time.
pub(crate) fn keys_at(millis: i64) -> RangeInclusive<i64> {
    let first = millis.clamp(*MILLIS.start(), *MILLIS.end()) << NUMBER_BITS;
    first..=first | ((1 << NUMBER_BITS) - 1)
}

/// The time at the beginning of a `UUIDv7`.
fn millis_of(id: Uuid) -> i64 {
    (id.as_u64_pair().0 >> 16).cast_signed()
}

/// What FTS5 is asked, to find what has all of these terms.
pub(crate) fn all_of<'a>(terms: impl IntoIterator<Item = &'a String>) -> String {
    let quoted = terms.into_iter().map(|term| format!("\"{term}\""));
    quoted.collect::<Vec<_>>().join(" AND ")
}

/// Takes rows that come by their keys until there are `limit`, and on to the end of the last one's
/// millisecond.
pub(crate) fn whole_milliseconds<T>(
    rows: impl Iterator<Item = QueryResult<(i64, T)>>,
    limit: usize,
) -> QueryResult<Vec<T>> {
    let mut taken = Vec::new();
    let mut last = None;
    for row in rows {
        let (key, row) = row?;
        let millis = Some(key >> NUMBER_BITS);
        if taken.len() >= limit && last != millis {
            break;
        }
        last = millis;
        taken.push(row);
    }
    Ok(taken)
}

pub(crate) type Condition = UncheckedBind<SqlLiteral<Bool>, AsExprOf<String, SqlText>>;

/// A condition on a column behind a plus, which keeps SQLite off its indexes: the words choose the
/// rows, and their order is the order of the list.
fn also(condition: &str, value: impl Into<String>) -> Condition {
    sql::<Bool>(condition).bind::<SqlText, _>(value.into())
}

/// That an index holds these words; its name stands for all of its columns.
pub(crate) fn matches(index: &str, words: String) -> Condition {
    sql::<Bool>(&format!("{index} MATCH ")).bind::<SqlText, _>(words)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use diesel::connection::InstrumentationEvent;

    use super::*;
    use crate::migrate;

    /// What SQLite does for each query that `search` asks.
    pub(crate) fn plans(search: impl FnOnce(&mut SqliteConnection)) -> Vec<String> {
        #[derive(QueryableByName)]
        struct Line {
            #[diesel(sql_type = SqlText)]
            detail: String,
        }
        let mut conn = SqliteConnection::establish(":memory:").unwrap();
        migrate::run(&mut conn, true).unwrap();
        let queries = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&queries);
        conn.set_instrumentation(move |event: InstrumentationEvent<'_>| {
            if let InstrumentationEvent::StartQuery { query, .. } = event {
                seen.lock().unwrap().push(query.to_string());
            }
        });
        search(&mut conn);
        let queries = std::mem::take(&mut *queries.lock().unwrap());
        let plan = |query: &String| {
            let lines: Vec<Line> =
                diesel::sql_query(format!("EXPLAIN QUERY PLAN {query}")).load(&mut conn).unwrap();
            lines.into_iter().map(|line| line.detail).collect::<Vec<_>>().join("; ")
        };
        queries.iter().map(plan).collect()
    }

    /// The words first, then what they are about by its keys; nothing is sorted or read through.
    fn goes_by_words(plan: &str, index: &str, keys: &str, rows: &str) -> bool {
        let steps: Vec<&str> = plan.split("; ").collect();
        matches!(steps[..], [words, key, row]
            if words.starts_with(&format!("SCAN {index} VIRTUAL TABLE INDEX"))
                && words.contains(":M")
                && key == format!("SEARCH {keys} USING INTEGER PRIMARY KEY (rowid=?)")
                && row.starts_with(&format!("SEARCH {rows} USING INDEX sqlite_autoindex_{rows}_1")))
    }

    #[test]
    fn a_search_of_payloads_goes_by_their_words() {
        let filter = EventFilter {
            workspace: Some("main".to_owned()),
            status: Some(arrakis_core::record::audit::EventStatus::Failed),
            event_type: Some("Stop".to_owned()),
            session_id: Some("s".to_owned()),
            request_id: "r".parse().ok(),
            text: None,
        };
        for filter in [EventFilter::default(), filter] {
            for page in [Page::first(9), Page { after: Some(Uuid::max()), limit: 9 }] {
                let plans = plans(|conn| {
                    find_events(conn, "some words", &filter, page).unwrap();
                });
                let [plan] = &plans[..] else { panic!("{plans:?}") };
                assert!(
                    goes_by_words(plan, "event_words", "event_keys", "webhook_events"),
                    "{plan}"
                );
            }
        }
    }

    #[test]
    fn keys_are_in_the_order_of_time() {
        let times = [i64::MIN, -62_167_219_200_000, -1, 0, 1, 1_764_000_000_000, i64::MAX];
        let keys: Vec<_> = times.into_iter().map(keys_at).collect();
        assert!(keys.iter().all(|keys| keys.start() < keys.end()));
        assert!(keys[1..].windows(2).all(|pair| pair[0].end() < pair[1].start()), "{keys:?}");
        assert_eq!(keys[0], keys[1], "times far off count as the nearest");
    }
}
