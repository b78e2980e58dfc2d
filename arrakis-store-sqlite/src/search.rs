//! Searching: texts by their words, newest first. Payloads here, messages and tool uses in `documents.rs`.
//!
//! The words and filter terms are those of [`arrakis_core::session::search`]; SQLite's full text index (FTS5) only keeps them.
//! Each text has a key that begins with its time in milliseconds and ends with a number that tells apart the
//! texts of one millisecond. FTS5 gives matches in the order of their keys, and lists are in that order. So a
//! page is read from its newest match on until it is full, however many more there are, also of the same
//! millisecond.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;

use arrakis_core::base::id::RequestId;
use arrakis_core::base::limits::PAGE_MAX;
use arrakis_core::record::store::{EventFilter, EventPage, EventSummary, Page};
use arrakis_core::session::search::{FilterTerm, IndexTerm, SearchDocument, SearchQuery};
use diesel::dsl::{AsExprOf, sql};
use diesel::expression::{SqlLiteral, UncheckedBind};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{Bool, Text as SqlText};
use uuid::Uuid;

use crate::error::TxError;
use crate::pool::Stop;
use crate::row::{SummaryRow, uuid};
use crate::schema::{event_keys, event_words, subject_words, webhook_events};

/// Audit rows whose payload holds all terms of a search for `text`, newest first. Two values may share a term, and some of what a
/// filter asks for has none: so each candidate is looked at.
pub(crate) fn find_events(
    conn: &mut SqliteConnection,
    text: &str,
    filter: &EventFilter,
    page: Page,
    stop: &Stop,
) -> Result<EventPage, TxError> {
    let mut found = EventPage::default();
    let Ok(query) = text.parse::<SearchQuery>() else { return Ok(found) };
    let mut terms = query.terms();
    let asked = [
        (FilterTerm::Workspace, filter.workspace.as_deref()),
        (FilterTerm::EventType, filter.event_type.as_deref()),
        (FilterTerm::Session, filter.session_id.as_deref()),
        (FilterTerm::Request, filter.request_id.as_ref().map(RequestId::as_str)),
    ];
    terms.extend(
        asked.into_iter().filter_map(|(term, value)| Some(IndexTerm::Whole(term.word(value?)))),
    );
    let terms = all_of(&terms);
    let limit = page.limit.min(PAGE_MAX);
    let first = filter.since.map_or(i64::MIN, |since| *keys_at(since.as_millis()).start());
    let mut last = filter.until.map_or(i64::MAX, |until| *keys_at(until.as_millis()).end());
    if let Some(after) = page.after {
        last = last.min(end_before(conn, after)?);
    }
    let (mut looks, mut wanted) = (0, limit.saturating_add(1).min(CANDIDATES_MAX));
    loop {
        stop.check()?;
        let candidates: Vec<(i64, String)> = event_words::table
            .inner_join(event_keys::table.on(event_keys::key.eq(event_words::rowid)))
            .filter(matches("event_words", terms.clone()))
            .filter(event_words::rowid.between(first, last))
            .order(event_words::rowid.desc())
            .select((event_words::rowid, event_keys::event_id))
            .limit(i64::try_from(wanted).unwrap_or(i64::MAX))
            .load(conn)?;
        for (_, id) in &candidates {
            if found.events.len() == limit || looks == page.looks {
                return Ok(found);
            }
            looks += 1;
            found.next = Some(uuid("event_id", id)?);
            let row = webhook_events::table.find(id).select(SummaryRow::as_select());
            let Some(row) = row.get_result(conn).optional()? else { continue };
            let event = EventSummary::try_from(row)?;
            if filter.admits(&event) {
                found.events.push(event);
            }
        }
        match candidates.last() {
            Some((key, _)) if candidates.len() == wanted => last = key.saturating_sub(1),
            _ => return Ok(EventPage { next: None, ..found }),
        }
        wanted = (2 * wanted).min(CANDIDATES_MAX);
    }
}

/// Most candidates that are read from an index at one time, so that a statement is short.
pub(crate) const CANDIDATES_MAX: usize = 1024;

/// The last key behind an event in a list. If the event is gone, the list goes on with its millisecond, of which
/// it may show some events again.
fn end_before(conn: &mut SqliteConnection, event: Uuid) -> QueryResult<i64> {
    let key = events::key(conn, &event.to_string())?;
    Ok(key.map_or_else(|| *keys_at(millis_of(event)).end(), |key| key.saturating_sub(1)))
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

    /// How many terms it has.
    pub(crate) fn terms(&self) -> usize {
        self.words.split(' ').count()
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

/// The next free key of each time that a transaction has asked for, by the time's first key.
#[derive(Debug, Default)]
pub(crate) struct FreeKeys(HashMap<i64, i64>);

/// Makes functions for one kind of text: `$words` is its full text index, `$keys` says what each row
/// of that is about, by its `$id` and what else is known of it.
macro_rules! texts {
    ($(#[$doc:meta])* $module:ident: $words:ident, $keys:ident, $id:ident $(, $also:ident)*) => {
        $(#[$doc])*
        pub(crate) mod $module {
            use diesel::prelude::*;
            use diesel::result::QueryResult;

            use super::{FreeKeys, Text};
            use crate::schema::{$keys, $words};

            /// The key of a row's text, if it is searchable.
            pub(crate) fn key(conn: &mut SqliteConnection, id: &str) -> QueryResult<Option<i64>> {
                $keys::table.filter($keys::$id.eq(id)).select($keys::key).get_result(conn).optional()
            }

            /// Makes a text searchable that is not yet; nothing is done where it is. `free` has the next key
            /// of times that were asked for before in the same transaction.
            pub(crate) fn add(
                conn: &mut SqliteConnection,
                text: &Text,
                free: &mut FreeKeys,
            ) -> QueryResult<()> {
                if text.words.is_empty() {
                    return Ok(());
                }
                let (first, last) = (*text.keys.start(), *text.keys.end());
                let next = match free.0.get(&first) {
                    Some(next) => *next,
                    None => $keys::table
                        .filter($keys::key.between(first, last))
                        .select(diesel::dsl::max($keys::key))
                        .get_result::<Option<i64>>(conn)?
                        .map_or(first, |taken| taken.saturating_add(1)),
                };
                if next > last {
                    tracing::warn!(id = text.id, "too many texts of one time: it is not searchable");
                    return Ok(());
                }
                let added = diesel::insert_or_ignore_into($keys::table)
                    .values(($keys::key.eq(next), $keys::$id.eq(&text.id) $(, $keys::$also.eq(&text.$also))*))
                    .execute(conn)?;
                free.0.insert(first, next + i64::from(added > 0));
                if added > 0 {
                    diesel::insert_into($words::table)
                        .values(($words::rowid.eq(next), $words::words.eq(&text.words)))
                        .execute(conn)?;
                }
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

/// Makes a message or a tool use searchable, in place of what it had before. A text whose time is still the same
/// keeps its key: whoever reads page by page meets it once.
pub(crate) fn put_document(
    conn: &mut SqliteConnection,
    text: &Text,
    free: &mut FreeKeys,
) -> QueryResult<()> {
    let old = documents::key(conn, &text.id)?;
    let kept = old.filter(|old| text.keys.contains(old) && !text.words.is_empty());
    if let Some(key) = kept {
        diesel::delete(subject_words::table.find(key)).execute(conn)?;
        diesel::insert_into(subject_words::table)
            .values((subject_words::rowid.eq(key), subject_words::words.eq(&text.words)))
            .execute(conn)?;
        return Ok(());
    }
    if old.is_some() {
        documents::remove(conn, &text.id)?;
    }
    documents::add(conn, text, free)
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
pub(crate) fn all_of<'a>(terms: impl IntoIterator<Item = &'a IndexTerm>) -> String {
    let asked = terms.into_iter().map(|term| match term {
        IndexTerm::Whole(term) => whole(term),
        IndexTerm::Beginning(beginning) => format!("\"{beginning}\"*"),
    });
    asked.collect::<Vec<_>>().join(" AND ")
}

/// What FTS5 is asked, to find what has this term.
pub(crate) fn whole(term: &str) -> String {
    format!("\"{term}\"")
}

pub(crate) type Condition = UncheckedBind<SqlLiteral<Bool>, AsExprOf<String, SqlText>>;

/// That an index holds these words; its name stands for all of its columns.
pub(crate) fn matches(index: &str, words: String) -> Condition {
    sql::<Bool>(&format!("{index} MATCH ")).bind::<SqlText, _>(words)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use arrakis_core::record::store::StoreError;
    use diesel::connection::{InstrumentationEvent, SimpleConnection};

    use super::*;
    use crate::index::create_in;
    use crate::migrate;

    /// What SQLite does for each query that `search` asks of an empty database.
    pub(crate) fn plans(search: impl FnOnce(&mut SqliteConnection)) -> Vec<String> {
        plans_with(|_| (), search)
    }

    /// What SQLite does for each query that `search` asks of the database that `fill` has filled.
    pub(crate) fn plans_with(
        fill: impl FnOnce(&mut SqliteConnection),
        search: impl FnOnce(&mut SqliteConnection),
    ) -> Vec<String> {
        #[derive(QueryableByName)]
        struct Line {
            #[diesel(sql_type = SqlText)]
            detail: String,
        }
        let mut conn = SqliteConnection::establish(":memory:").unwrap();
        migrate::run(&mut conn, true).unwrap();
        create_in(&mut conn);
        fill(&mut conn);
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
    pub(crate) fn goes_by_words(plan: &str, index: &str, keys: &str) -> bool {
        let steps: Vec<&str> = plan.split("; ").collect();
        matches!(steps[..], [words, key]
            if words.starts_with(&format!("SCAN {index} VIRTUAL TABLE INDEX"))
                // The terms (M) and a bound of the keys.
                && words.contains(":M") && words.contains('<')
                && key == format!("SEARCH {keys} USING INTEGER PRIMARY KEY (rowid=?)"))
    }

    #[test]
    fn a_search_of_payloads_goes_by_their_words() {
        let filter = EventFilter {
            workspace: Some("main".to_owned()),
            status: Some(arrakis_core::record::audit::EventStatus::Failed),
            event_type: Some("Stop".to_owned()),
            session_id: Some("s".to_owned()),
            request_id: "r".parse().ok(),
            ..EventFilter::default()
        };
        for filter in [EventFilter::default(), filter] {
            for page in [Page::first(9), Page::after(Uuid::max(), 9)] {
                let plans = plans(|conn| {
                    find_events(conn, "some words", &filter, page, &Stop::new(false)).unwrap();
                });
                let plan = plans.last().unwrap();
                assert!(goes_by_words(plan, "event_words", "event_keys"), "{plan}");
            }
        }
    }

    #[test]
    fn a_search_that_is_told_to_end_does() {
        let mut conn = SqliteConnection::establish(":memory:").unwrap();
        migrate::run(&mut conn, true).unwrap();
        create_in(&mut conn);
        let filter = EventFilter::default();
        let found = find_events(&mut conn, "word", &filter, Page::first(1), &Stop::new(true));
        assert!(matches!(found, Err(TxError::Refused(StoreError::SearchTimeout { .. }))));
    }

    /// A page of one row reads as many where 300,000 have the same millisecond as where they do not.
    #[test]
    fn a_page_of_payloads_reads_little_of_a_crowded_millisecond() {
        let ids = "'01890000-0000-7000-8000-' || printf('%012d', n)";
        let fill = |conn: &mut SqliteConnection| {
            crowd(conn, "event_words", "event_keys (key, event_id)", ids);
            conn.batch_execute(&format!(
                "INSERT INTO webhook_events (id, workspace, request_id, digest, event_type, received_at,
                    request_headers, status, metadata, created_at, updated_at)
                 SELECT {ids}, 'main', n, zeroblob(32), 'Stop', '2023-06-28T00:00:00.000000Z', '{{}}',
                    'SUCCESS', '{{}}', '', '' FROM (SELECT {CROWD} - 1 AS n UNION ALL SELECT {CROWD} - 2)"
            ))
            .unwrap();
        };
        let plans = plans_with(fill, |conn| {
            let find = |conn: &mut SqliteConnection, after| {
                let page = Page { after, ..Page::first(1) };
                let filter = EventFilter::default();
                find_events(conn, "common", &filter, page, &Stop::new(false)).unwrap()
            };
            let first = find(conn, None);
            let second = find(conn, first.next).events;
            assert_eq!((first.events.len(), second.len()), (1, 1));
            assert_ne!(first.events[0].id, second[0].id);
        });
        // One for each page, one for each row, one for the cursor.
        assert_eq!(plans.len(), 5, "{plans:?}");
        assert!(plans.iter().all(|plan| !plan.contains("B-TREE")), "{plans:?}");
    }

    /// How many texts [`crowd`] makes.
    pub(crate) const CROWD: i64 = 300_000;

    /// Fills an index with texts of one millisecond that have the word `common`; `$ids` makes their ids of `n`.
    pub(crate) fn crowd(conn: &mut SqliteConnection, words: &str, keys: &str, values: &str) {
        let first = *keys_at(0x0189_0000_0000).start();
        conn.batch_execute(&format!(
            "WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {CROWD} - 1)
             INSERT INTO {keys} SELECT {first} + n, {values} FROM numbers;
             WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {CROWD} - 1)
             INSERT INTO {words} (rowid, words) SELECT {first} + n, 'common \u{a7}w0d6e4079e36703eb' FROM numbers"
        ))
        .unwrap();
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
