//! Searching messages and tool uses.
//!
//! The index finds candidates, newest first; each is read, and [`SearchFilter::hit`] has the last word. What
//! a text does not have by itself is its conversation's project, which may change at any time. So the
//! conversations of a project are looked up first, and their filter terms are asked for like a word: then a project
//! of few conversations is found without a look at the others. Those of a large project are many of all, and
//! candidates are asked one by one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::limits::{INDEXED_TEXT_MAX_BYTES, PAGE_MAX, PROJECT_DIR_MAX_BYTES, cut};
use arrakis_core::record::store::{
    SearchCursor, SearchFilter, SearchHit, SearchPage, SearchPageBuilder,
};
use arrakis_core::session::conversation::{Conversation, Stamped, Title, ToolUse};
use arrakis_core::session::search::{FilterTerm, SearchDocument};
use diesel::dsl::max;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sqlite::Sqlite;
use uuid::Uuid;

use crate::error::TxError;
use crate::list::is_within;
use crate::messages;
use crate::pool::Stop;
use crate::row::{ConversationRow, ToolUseRow, readable, time};
use crate::schema::{conversations, message_rows, subject_keys, subject_words, tool_uses};
use crate::search::{CANDIDATES_MAX, NUMBER_BITS, all_of, keys_at, matches, whole};

/// Most conversations of a project whose filter terms are asked for: SQLite compares each with each candidate.
const MARKED_CONVERSATIONS: usize = 256;

/// Most conversations that a search remembers: those of a page are mostly few.
const REMEMBERED_CONVERSATIONS: usize = 256;

/// What `filter` asks for, newest first. Texts are read one at a time, until the page is full.
pub(crate) fn find(
    conn: &mut SqliteConnection,
    filter: &SearchFilter,
    after: Option<SearchCursor>,
    limit: usize,
    stop: &Stop,
) -> Result<SearchPage, TxError> {
    let mut page = SearchPageBuilder::new(limit.min(PAGE_MAX));
    let Some(query) = Query::of(conn, filter)? else { return Ok(page.finish()) };
    let first = filter.since.map_or(i64::MIN, |since| *keys_at(since.as_millis()).start());
    let ends = [filter.until.map(end_before), query.project_end, after.map(end_behind)];
    let mut last = ends.into_iter().flatten().min().unwrap_or(i64::MAX);
    let mut looking = Looking { filter, conversations: HashMap::new() };
    let mut wanted = limit.saturating_add(1).min(CANDIDATES_MAX);
    let mut found = None;
    loop {
        stop.check()?;
        let candidates = query.candidates(conn, first, last, wanted)?;
        for candidate in &candidates {
            if let Err(ended) = stop.check() {
                // What was found until now is a page. Of large texts, one takes a while to read.
                let Some(found) = found else { return Err(ended) };
                return Ok(SearchPage { next: Some(found), ..page.finish() });
            }
            let Some(hit) = looking.at(conn, candidate)? else { continue };
            let cursor = cursor_of(candidate.key, hit.id);
            if !page.push(hit, cursor) {
                return Ok(page.finish());
            }
            found = Some(cursor);
        }
        match candidates.last() {
            Some(candidate) if candidates.len() == wanted => {
                last = candidate.key.saturating_sub(1);
            }
            _ => return Ok(page.finish()),
        }
        wanted = (2 * wanted).min(CANDIDATES_MAX);
    }
}

/// The last key of what is before a time. Of its own millisecond some may be.
fn end_before(until: Timestamp) -> i64 {
    let keys = keys_at(until.as_millis());
    if until.as_micros().rem_euclid(1000) == 0 { *keys.start() - 1 } else { *keys.end() }
}

/// A place in the list: its key, as a time and a number.
fn cursor_of(key: i64, id: Uuid) -> SearchCursor {
    let number = key - ((key >> NUMBER_BITS) << NUMBER_BITS);
    let place = u32::try_from(number).unwrap_or(u32::MAX).saturating_add(1);
    SearchCursor { at: Timestamp::from_millis(key >> NUMBER_BITS), id, place }
}

/// The last key behind a place. Another store's cursor has no number: the list goes on with its millisecond.
fn end_behind(cursor: SearchCursor) -> i64 {
    let keys = keys_at(cursor.at.as_millis());
    match cursor.place.checked_sub(1) {
        Some(number) => keys.start().saturating_add(i64::from(number)).min(*keys.end()) - 1,
        None => *keys.end(),
    }
}

/// The model of the message that asked for a tool use.
pub(crate) fn model_of(
    conn: &mut SqliteConnection,
    tool_use: &ToolUse,
) -> QueryResult<Option<String>> {
    let Some(id) = tool_use.message_id else { return Ok(None) };
    let message = (tool_use.conversation_id.to_string(), id.to_string());
    let model = message_rows::table.find(message).select(message_rows::model);
    Ok(model.get_result(conn).optional()?.flatten())
}

/// What the index knows of a match.
#[derive(Debug, Queryable)]
struct Candidate {
    key: i64,
    id: String,
    conversation_id: String,
    is_tool_use: bool,
}

/// What the index is asked.
struct Query {
    terms: String,
    /// The last key at which a project of many conversations had its last event: what is newer need not be looked
    /// at.
    project_end: Option<i64>,
}

impl Query {
    /// None where there is nothing to be found.
    fn of(conn: &mut SqliteConnection, filter: &SearchFilter) -> QueryResult<Option<Self>> {
        let Some(terms) = filter.terms() else { return Ok(None) };
        let mut query = Self { terms: all_of(&terms), project_end: None };
        if filter.session_id.is_some() || filter.project.is_none() {
            return Ok(Some(query));
        }
        let some = i64::try_from(MARKED_CONVERSATIONS).unwrap_or(i64::MAX).saturating_add(1);
        let ids: Vec<String> =
            in_project(filter).select(conversations::id).limit(some).load(conn)?;
        if ids.is_empty() {
            return Ok(None);
        }
        if ids.len() > MARKED_CONVERSATIONS {
            let end = in_project(filter).select(max(conversations::last_event_at));
            let end: Option<String> = end.get_result(conn)?;
            let end = end.map(|end| time("last_event_at", &end)).transpose()?;
            query.project_end = end.map(|end| *keys_at(end.as_millis()).end());
        } else {
            let terms = ids.iter().map(|id| whole(&FilterTerm::Conversation.word(id)));
            let any = terms.collect::<Vec<_>>().join(" OR ");
            query.terms = format!("{} AND ({any})", query.terms);
        }
        Ok(Some(query))
    }

    /// The newest `wanted` candidates between two keys.
    fn candidates(
        &self,
        conn: &mut SqliteConnection,
        first: i64,
        last: i64,
        wanted: usize,
    ) -> QueryResult<Vec<Candidate>> {
        subject_words::table
            .inner_join(subject_keys::table.on(subject_keys::key.eq(subject_words::rowid)))
            .filter(matches("subject_words", self.terms.clone()))
            .filter(subject_words::rowid.ge(first))
            .filter(subject_words::rowid.le(last))
            .order(subject_words::rowid.desc())
            .select((
                subject_words::rowid,
                subject_keys::subject_id,
                subject_keys::conversation_id,
                subject_keys::is_tool_use,
            ))
            .limit(i64::try_from(wanted).unwrap_or(i64::MAX))
            .load(conn)
    }
}

/// The conversations that the filter's project has.
fn in_project(filter: &SearchFilter) -> conversations::BoxedQuery<'_, Sqlite> {
    use conversations::{table, workspace};
    let project = filter.project.as_deref().unwrap_or_default();
    let of_project = table.into_boxed().filter(is_within("project_path", project));
    of_project.filter(workspace.eq(&filter.workspace))
}

/// Looks at candidates.
struct Looking<'a> {
    filter: &'a SearchFilter,
    /// Those that were read already.
    conversations: HashMap<String, Option<Conversation>>,
}

impl Looking<'_> {
    /// Reads a candidate; nothing where it is not to be found. Its conversation comes first: it is small, and
    /// says whether the project is the one asked for.
    fn at(
        &mut self,
        conn: &mut SqliteConnection,
        candidate: &Candidate,
    ) -> QueryResult<Option<SearchHit>> {
        let Candidate { id, conversation_id, .. } = candidate;
        let filter = self.filter;
        let Some(conversation) = self.conversation(conn, conversation_id)? else { return Ok(None) };
        if !filter.admits_project(conversation) {
            return Ok(None);
        }
        if candidate.is_tool_use {
            let row = tool_uses::table.find((conversation_id, id)).select(ToolUseRow::as_select());
            let Some(row) = row.get_result(conn).optional()? else { return Ok(None) };
            let Some(tool_use) = readable("tool_uses", id, row.into_value()) else {
                return Ok(None);
            };
            let model = model_of(conn, &tool_use)?;
            let model = model.as_deref();
            Ok(filter.hit(SearchDocument::ToolUse { tool_use: &tool_use, model }, conversation))
        } else {
            let found = messages::searched(conn, (conversation_id, id))?;
            let Some((_, message)) = found else { return Ok(None) };
            let document = SearchDocument::Message(&message);
            let Some(hit) = filter.hit(document, conversation) else { return Ok(None) };
            let Some(said) = document.hidden_by() else { return Ok(Some(hit)) };
            let is_said = subject_words::table
                .filter(matches("subject_words", whole(&said)))
                .select(subject_words::rowid)
                .first::<i64>(conn)
                .optional()?;
            Ok(is_said.is_none().then_some(hit))
        }
    }

    /// The conversation of a candidate, as far as a search needs it.
    fn conversation(
        &mut self,
        conn: &mut SqliteConnection,
        id: &str,
    ) -> QueryResult<Option<&Conversation>> {
        if self.conversations.len() >= REMEMBERED_CONVERSATIONS
            && !self.conversations.contains_key(id)
        {
            self.conversations.clear();
        }
        let known = match self.conversations.entry(id.to_owned()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let row = conversations::table.find(id).select(ConversationRow::as_select());
                let row = row.get_result(conn).optional()?;
                let value =
                    |row: ConversationRow<'static>| readable("conversations", id, row.into_value());
                place.insert(row.and_then(value).map(bounded))
            }
        };
        Ok(known.as_ref())
    }
}

/// A conversation without what a search does not need, so that many can be remembered.
fn bounded(conversation: Conversation) -> Conversation {
    let shorter = |text: Option<Stamped<String>>, max| {
        text.map(|text| Stamped { value: cut(&text.value, max).to_owned(), ..text })
    };
    Conversation {
        title: conversation.title.map(|title| Title {
            value: cut(&title.value, INDEXED_TEXT_MAX_BYTES).to_owned(),
            ..title
        }),
        project_path: shorter(conversation.project_path, PROJECT_DIR_MAX_BYTES),
        model: None,
        git_branch: None,
        version: None,
        transcript_path: None,
        ended: None,
        client_cost: None,
        host: None,
        ..conversation
    }
}

#[cfg(test)]
mod tests {
    use arrakis_core::base::id;
    use arrakis_core::record::store::StoreError;
    use diesel::connection::SimpleConnection;

    use super::*;
    use crate::search::tests::{CROWD, crowd, goes_by_words, plans, plans_with};

    #[test]
    fn a_search_goes_by_the_terms_and_sorts_nothing() {
        let filter = SearchFilter {
            text: Some("some words".to_owned()),
            project: Some("/p".to_owned()),
            since: Some(Timestamp::EPOCH),
            until: Some(Timestamp::EPOCH),
            ..SearchFilter::new("main")
        };
        for conversations in [1, MARKED_CONVERSATIONS, MARKED_CONVERSATIONS + 1] {
            let plans = plans(|conn| {
                for n in 0..conversations {
                    let insert = format!(
                        "INSERT INTO conversations (id, workspace, session_id, project_path, \
                         started_at, last_event_at, metadata, created_at, updated_at) \
                         VALUES ('{n}', 'main', '{n}', '/p', '', '{}', '', '', '')",
                        Timestamp::EPOCH
                    );
                    conn.batch_execute(&insert).unwrap();
                }
                find(conn, &filter, None, 9, &Stop::new(false)).unwrap();
            });
            let plan = plans.last().unwrap();
            assert!(goes_by_words(plan, "subject_words", "subject_keys"), "{plan}");
        }
    }

    #[test]
    fn a_search_that_is_told_to_end_does() {
        let mut conn = SqliteConnection::establish(":memory:").unwrap();
        crate::migrate::run(&mut conn, true).unwrap();
        crate::index::create_in(&mut conn);
        let found = find(&mut conn, &SearchFilter::new("main"), None, 1, &Stop::new(true));
        assert!(matches!(found, Err(TxError::Refused(StoreError::SearchTimeout { .. }))));
    }

    /// A page of one hit reads as many rows where 300,000 have the same millisecond as where they do not.
    #[test]
    fn a_page_reads_little_of_a_crowded_millisecond() {
        let id = id::conversation_id("main", "s");
        let ids = "'01890000-0000-7000-8000-' || printf('%012d', n)";
        let at = Timestamp::from_millis(0x0189_0000_0000);
        let fill = |conn: &mut SqliteConnection| {
            let keys = "subject_keys (key, subject_id, conversation_id, is_tool_use)";
            crowd(conn, "subject_words", keys, &format!("{ids}, '{id}', 1"));
        };
        let plans = plans_with(fill, |conn| {
            let filter =
                SearchFilter { text: Some("common".to_owned()), ..SearchFilter::new("main") };
            let key = keys_at(at.as_millis()).start() + CROWD - 1;
            let newest = find_one(conn, &filter, None);
            assert_eq!(newest.map(|one| one.key), Some(key));
            let next = find_one(conn, &filter, Some(cursor_of(key, Uuid::nil())));
            assert_eq!(next.map(|one| one.key), Some(key - 1));
        });
        assert_eq!(plans.len(), 2, "{plans:?}");
        for plan in plans {
            assert!(goes_by_words(&plan, "subject_words", "subject_keys"), "{plan}");
        }
    }

    /// The first candidate behind a place.
    fn find_one(
        conn: &mut SqliteConnection,
        filter: &SearchFilter,
        after: Option<SearchCursor>,
    ) -> Option<Candidate> {
        let query = Query::of(conn, filter).unwrap().unwrap();
        let last = after.map_or(i64::MAX, end_behind);
        let mut found = query.candidates(conn, i64::MIN, last, 1).unwrap();
        assert!(found.len() <= 1);
        found.pop()
    }
}
