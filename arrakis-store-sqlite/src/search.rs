//! Searching: texts by their words, newest first.
//!
//! The words are those of [`arrakis_core::search`]; SQLite's full text index (FTS5) only keeps them.
//! Each text has a key that begins with its time in milliseconds, and FTS5 gives matches in the order
//! of their keys. So a page is read from its newest match on until it is full, however many more there
//! are; only texts of the same millisecond are put in order afterwards.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use arrakis_core::clock::Timestamp;
use arrakis_core::conversation::Message;
use arrakis_core::digest::Digest;
use arrakis_core::id::RequestId;
use arrakis_core::search::query_words;
use arrakis_core::store::{EventFilter, EventSummary, MessageFilter, Page};
use diesel::dsl::{AsExprOf, sql};
use diesel::expression::{SqlLiteral, UncheckedBind};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{Bool, Text as SqlText};
use uuid::Uuid;

use crate::read::PAGE_MAX;
use crate::row::{MessageRow, SummaryRow, time};
use crate::schema::{
    event_keys, event_words, message_keys, message_words, messages as message_rows, webhook_events,
};

/// Audit rows whose payload holds all words of `text`, newest first.
pub(crate) fn find_events(
    conn: &mut SqliteConnection,
    text: &str,
    filter: &EventFilter,
    page: Page,
) -> QueryResult<Vec<EventSummary>> {
    let marks = [
        (Mark::Workspace, filter.workspace.as_deref()),
        (Mark::EventType, filter.event_type.as_deref()),
        (Mark::Session, filter.session_id.as_deref()),
        (Mark::Request, filter.request_id.as_ref().map(RequestId::as_str)),
    ];
    let marks = marks.into_iter().filter_map(|(mark, value)| Some((mark, value?)));
    let Some(words) = query_of(text, marks.clone()) else { return Ok(Vec::new()) };
    let limit = page.limit.min(PAGE_MAX);
    let mut query = event_words::table
        .inner_join(event_keys::table.on(event_keys::key.eq(event_words::rowid)))
        .inner_join(webhook_events::table.on(webhook_events::id.eq(event_keys::event_id)))
        .filter(matches("event_words", words))
        .order(event_words::rowid.desc())
        .select((event_words::rowid, SummaryRow::as_select()))
        .into_boxed();
    for (mark, value) in marks {
        query = query.filter(also(
            match mark {
                Mark::Workspace => "+workspace = ",
                Mark::EventType => "+event_type = ",
                Mark::Session => "+session_id = ",
                Mark::Request => "+request_id = ",
            },
            value,
        ));
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

/// Messages that hold all words of the filter's text, newest first.
pub(crate) fn find_messages(
    conn: &mut SqliteConnection,
    filter: &MessageFilter,
    page: Page,
) -> QueryResult<Vec<Message>> {
    let marks = [(Mark::Workspace, filter.workspace.as_str())];
    let Some(words) = query_of(&filter.text, marks) else { return Ok(Vec::new()) };
    let limit = page.limit.min(PAGE_MAX);
    let mut query = message_words::table
        .inner_join(message_keys::table.on(message_keys::key.eq(message_words::rowid)))
        .inner_join(message_rows::table.on(message_rows::id.eq(message_keys::message_id)))
        .filter(matches("message_words", words))
        .filter(also("+workspace = ", &filter.workspace))
        .order(message_words::rowid.desc())
        .select((message_words::rowid, MessageRow::as_select()))
        .into_boxed();
    if let Some(after) = page.after.map(|id| id.to_string()) {
        let Some(seen) = timestamp_of(conn, &after)? else { return Ok(Vec::new()) };
        let millis = time("timestamp", &seen)?.as_millis();
        query = query.filter(message_words::rowid.le(*keys_at(millis).end()));
        let place = sql::<Bool>("(+timestamp, +messages.id) < (").bind::<SqlText, _>(seen);
        query = query.filter(place.sql(", ").bind::<SqlText, _>(after).sql(")"));
    }
    let rows = whole_milliseconds(query.load_iter(conn)?, limit)?;
    let mut messages =
        rows.into_iter().map(MessageRow::into_value).collect::<QueryResult<Vec<Message>>>()?;
    messages.sort_by_key(|message| std::cmp::Reverse((message.content.stamp.at, message.id)));
    messages.truncate(limit);
    Ok(messages)
}

fn timestamp_of(conn: &mut SqliteConnection, message_id: &str) -> QueryResult<Option<String>> {
    message_rows::table.find(message_id).select(message_rows::timestamp).get_result(conn).optional()
}

/// A text as it is searched.
#[derive(Debug)]
pub(crate) struct Text {
    /// The row that it is of.
    pub(crate) id: String,
    /// The words and the marks, joined by spaces.
    words: String,
    /// The keys of its time.
    keys: RangeInclusive<i64>,
}

impl Text {
    /// The text of a payload: an audit row's id begins with its time.
    pub(crate) fn of_event(id: Uuid, words: BTreeSet<String>) -> Self {
        Self::new(id.to_string(), millis_of(id), words)
    }

    /// The text of a message of this time.
    pub(crate) fn of_message(id: String, at: Timestamp, words: BTreeSet<String>) -> Self {
        Self::new(id, at.as_millis(), words)
    }

    fn new(id: String, millis: i64, words: BTreeSet<String>) -> Self {
        Self { id, words: Vec::from_iter(words).join(" "), keys: keys_at(millis) }
    }

    /// Has the text found together with this value only, where a search asks for one; a text without
    /// words is not found at all.
    pub(crate) fn mark(&mut self, mark: Mark, value: &str) {
        if !self.words.is_empty() {
            self.words.push(' ');
            self.words.push_str(&mark.word(value));
        }
    }
}

/// What a search may ask for besides words and never changes. It is kept among the words, because a
/// search for common words in one session would look at the rows of every other session else.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mark {
    Workspace,
    EventType,
    Session,
    Request,
}

impl Mark {
    /// A word that no text has, because `§` is neither a letter nor a digit. Should two values share
    /// one, their columns tell them apart.
    fn word(self, value: &str) -> String {
        let kind = match self {
            Self::Workspace => 'w',
            Self::EventType => 't',
            Self::Session => 's',
            Self::Request => 'r',
        };
        let digest = Digest::of(value.as_bytes());
        let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
        format!("§{kind}{:016x}", u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// Makes functions for one kind of text: `$words` is its full text index, `$keys` says what each row
/// of that is about.
macro_rules! texts {
    ($(#[$doc:meta])* $module:ident: $words:ident, $keys:ident, $id:ident) => {
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
                    .values(($keys::key.eq(key), $keys::$id.eq(&text.id)))
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
    /// The messages.
    messages: message_words, message_keys, message_id
}

/// How many bits of a key tell apart texts of the same millisecond.
const NUMBER_BITS: u32 = 20;

/// The times that a key can begin with: within 278 years of 1970. Others count as the nearest.
const MILLIS: RangeInclusive<i64> = -(1 << 43)..=(1 << 43) - 1;

/// The keys of a time.
fn keys_at(millis: i64) -> RangeInclusive<i64> {
    let first = millis.clamp(*MILLIS.start(), *MILLIS.end()) << NUMBER_BITS;
    first..=first | ((1 << NUMBER_BITS) - 1)
}

/// The time at the beginning of a `UUIDv7`.
fn millis_of(id: Uuid) -> i64 {
    (id.as_u64_pair().0 >> 16).cast_signed()
}

/// What FTS5 is asked, if the text has a word: strings beside each other must all match.
fn query_of<'a>(text: &str, marks: impl IntoIterator<Item = (Mark, &'a str)>) -> Option<String> {
    let words = query_words(text);
    let marks = marks.into_iter().map(|(mark, value)| mark.word(value));
    let quoted = |word: String| format!("\"{word}\"");
    (!words.is_empty())
        .then(|| words.into_iter().chain(marks).map(quoted).collect::<Vec<_>>().join(" "))
}

/// Takes rows that come by their keys until there are `limit`, and on to the end of the last one's
/// millisecond.
fn whole_milliseconds<T>(
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

type Condition = UncheckedBind<SqlLiteral<Bool>, AsExprOf<String, SqlText>>;

/// A condition on a column behind a plus, which keeps SQLite off its indexes: the words choose the
/// rows, and their order is the order of the list.
fn also(condition: &str, value: impl Into<String>) -> Condition {
    sql::<Bool>(condition).bind::<SqlText, _>(value.into())
}

/// That an index holds these words; its name stands for all of its columns.
fn matches(index: &str, words: String) -> Condition {
    sql::<Bool>(&format!("{index} MATCH ")).bind::<SqlText, _>(words)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use diesel::connection::{InstrumentationEvent, SimpleConnection};

    use super::*;
    use crate::migrate;

    /// What SQLite does for each query that `search` asks.
    fn plans(search: impl FnOnce(&mut SqliteConnection)) -> Vec<String> {
        #[derive(QueryableByName)]
        struct Line {
            #[diesel(sql_type = SqlText)]
            detail: String,
        }
        let mut conn = SqliteConnection::establish(":memory:").unwrap();
        migrate::run(&mut conn).unwrap();
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
            status: Some(arrakis_core::audit::EventStatus::Failed),
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
    fn a_search_of_messages_goes_by_their_words() {
        let filter = MessageFilter { workspace: "main".to_owned(), text: "some words".to_owned() };
        let plans = plans(|conn| {
            let insert = "INSERT INTO messages (id, workspace, conversation_id, role, content, \
                 timestamp, metadata) VALUES ('00000000-0000-0000-0000-000000000000', '', '', '', '', \
                 '2026-11-24T00:00:00.000000Z', '')";
            conn.batch_execute(insert).unwrap();
            find_messages(conn, &filter, Page::first(9)).unwrap();
            find_messages(conn, &filter, Page { after: Some(Uuid::nil()), limit: 9 }).unwrap();
        });
        let by_words =
            |plan: &&String| goes_by_words(plan, "message_words", "message_keys", "messages");
        assert_eq!(plans.iter().filter(by_words).count(), 2, "{plans:?}");
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
