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
use arrakis_core::base::limits::PAGE_MAX;
use arrakis_core::record::store::{SearchCursor, SearchFilter, SearchHit, SearchPage};
use arrakis_core::session::conversation::{Conversation, ToolUse};
use arrakis_core::session::search::{FilterTerm, SearchDocument};
use diesel::dsl::max;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sqlite::Sqlite;
use uuid::Uuid;

use crate::row::{ConversationRow, MessageRow, ToolUseRow, readable, time};
use crate::schema::{conversations, messages, subject_keys, subject_words, tool_uses};
use crate::search::{NUMBER_BITS, all_of, keys_at, matches, whole_milliseconds};

/// Most conversations of a project whose filter terms are asked for: SQLite compares each with each candidate.
const MARKED_CONVERSATIONS: usize = 256;

/// Most candidates that are read from the index at one time.
const CANDIDATES_MAX: usize = 1024;

/// What `filter` asks for, newest first.
pub(crate) fn find(
    conn: &mut SqliteConnection,
    filter: &SearchFilter,
    after: Option<SearchCursor>,
    limit: usize,
) -> QueryResult<SearchPage> {
    let limit = limit.min(PAGE_MAX);
    let Some(query) = Query::of(conn, filter)? else { return Ok(SearchPage::default()) };
    let first = filter.since.map_or(i64::MIN, |since| *keys_at(since.as_millis()).start());
    let ends = [filter.until, query.project_end, after.map(|after| after.at)].into_iter().flatten();
    let ends = ends.map(|end| *keys_at(end.as_millis()).end());
    let mut last = ends.min().unwrap_or(i64::MAX);
    let mut looking = Looking { filter, conversations: HashMap::new() };
    let (mut hits, mut wanted) = (Vec::new(), limit + 1);
    while hits.len() <= limit {
        let candidates = query.candidates(conn, first, last, wanted)?;
        for candidate in &candidates {
            let hit = looking.at(conn, candidate)?;
            hits.extend(hit.filter(|hit| after.is_none_or(|after| hit.cursor() < after)));
        }
        match candidates.last() {
            Some((key, ..)) if candidates.len() >= wanted => {
                last = ((key >> NUMBER_BITS) << NUMBER_BITS) - 1;
            }
            _ => break,
        }
        wanted = (2 * wanted).min(CANDIDATES_MAX);
    }
    hits.sort_by_key(|hit| std::cmp::Reverse(hit.cursor()));
    Ok(SearchPage::of(hits, limit))
}

/// The model of the message that asked for a tool use.
pub(crate) fn model_of(
    conn: &mut SqliteConnection,
    tool_use: &ToolUse,
) -> QueryResult<Option<String>> {
    let Some(id) = tool_use.message_id else { return Ok(None) };
    let model = messages::table.find(id.to_string()).select(messages::model);
    Ok(model.get_result(conn).optional()?.flatten())
}

/// A key, what has it, and whether that is a tool use.
type Candidate = (i64, String, bool);

/// What the index is asked.
struct Query<'a> {
    terms: String,
    /// The filter, where its project has too many conversations to ask for them.
    large_project: Option<&'a SearchFilter>,
    /// When the last of those had its last event: what is newer need not be looked at.
    project_end: Option<Timestamp>,
}

impl<'a> Query<'a> {
    /// None where there is nothing to be found.
    fn of(conn: &mut SqliteConnection, filter: &'a SearchFilter) -> QueryResult<Option<Self>> {
        let Some(terms) = filter.terms() else { return Ok(None) };
        let mut query = Self { terms: all_of(&terms), large_project: None, project_end: None };
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
            query.project_end = end.map(|end| time("last_event_at", &end)).transpose()?;
            query.large_project = Some(filter);
        } else {
            let terms = ids.iter().map(|id| format!("\"{}\"", FilterTerm::Conversation.word(id)));
            let any = terms.collect::<Vec<_>>().join(" OR ");
            query.terms = format!("{} AND ({any})", query.terms);
        }
        Ok(Some(query))
    }

    /// At least `wanted` candidates between two keys, newest first, if there are so many.
    fn candidates(
        &self,
        conn: &mut SqliteConnection,
        first: i64,
        last: i64,
        wanted: usize,
    ) -> QueryResult<Vec<Candidate>> {
        let mut query = subject_words::table
            .inner_join(subject_keys::table.on(subject_keys::key.eq(subject_words::rowid)))
            .filter(matches("subject_words", self.terms.clone()))
            .filter(subject_words::rowid.ge(first))
            .filter(subject_words::rowid.le(last))
            .order(subject_words::rowid.desc())
            .select((
                subject_words::rowid,
                (subject_words::rowid, subject_keys::subject_id, subject_keys::is_tool_use),
            ))
            .into_boxed();
        if let Some(filter) = self.large_project {
            query = query.filter(
                subject_keys::conversation_id.eq_any(in_project(filter).select(conversations::id)),
            );
        }
        whole_milliseconds(query.load_iter(conn)?, wanted)
    }
}

/// The conversations that the filter's project has.
fn in_project(filter: &SearchFilter) -> conversations::BoxedQuery<'_, Sqlite> {
    use conversations::{project_path, table, workspace};
    let directory = filter.directory().unwrap_or_default();
    let mut of_project = table.into_boxed();
    // What begins with a directory and a separator comes before what has the next character there.
    let [slash, next] = ["/", "0"].map(|end| format!("{directory}{end}"));
    let [backslash, after] = ["\\", "]"].map(|end| format!("{directory}{end}"));
    let below = project_path.ge(slash).and(project_path.lt(next));
    let below_windows = project_path.ge(backslash).and(project_path.lt(after));
    of_project =
        of_project.filter(project_path.eq(directory).or(below).or(below_windows).assume_not_null());
    of_project.filter(workspace.eq(&filter.workspace))
}

/// Looks at candidates.
struct Looking<'a> {
    filter: &'a SearchFilter,
    /// Those that were read already.
    conversations: HashMap<Uuid, Option<Conversation>>,
}

impl Looking<'_> {
    fn at(
        &mut self,
        conn: &mut SqliteConnection,
        (_, id, is_tool_use): &Candidate,
    ) -> QueryResult<Option<SearchHit>> {
        if *is_tool_use {
            let row = tool_uses::table.find(id).select(ToolUseRow::as_select());
            let Some(row) = row.get_result(conn).optional()? else { return Ok(None) };
            let Some(tool_use) = readable("tool_uses", id, row.into_value()) else {
                return Ok(None);
            };
            let model = model_of(conn, &tool_use)?;
            self.hit(conn, SearchDocument::ToolUse { tool_use: &tool_use, model: model.as_deref() })
        } else {
            let row = messages::table.find(id).select(MessageRow::as_select());
            let Some(row) = row.get_result(conn).optional()? else { return Ok(None) };
            let Some(message) = readable("messages", id, row.into_value()) else {
                return Ok(None);
            };
            self.hit(conn, SearchDocument::Message(&message))
        }
    }

    fn hit(
        &mut self,
        conn: &mut SqliteConnection,
        document: SearchDocument<'_>,
    ) -> QueryResult<Option<SearchHit>> {
        let id = document.conversation_id();
        let conversation = match self.conversations.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let id = id.to_string();
                let row = conversations::table.find(&id).select(ConversationRow::as_select());
                let row = row.get_result(conn).optional()?;
                let read = |row: ConversationRow<'static>| {
                    readable("conversations", &id, row.into_value())
                };
                place.insert(row.and_then(read))
            }
        };
        let Some(conversation) = conversation else { return Ok(None) };
        let Some(hit) = self.filter.hit(document, conversation) else { return Ok(None) };
        let Some(said) = document.hidden_by() else { return Ok(Some(hit)) };
        let is_said = subject_words::table
            .filter(matches("subject_words", all_of([&said])))
            .select(subject_words::rowid)
            .first::<i64>(conn)
            .optional()?;
        Ok(is_said.is_none().then_some(hit))
    }
}

#[cfg(test)]
mod tests {
    use diesel::connection::SimpleConnection;

    use super::*;
    use crate::search::tests::plans;

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
                find(conn, &filter, None, 9).unwrap();
            });
            let plan = plans.last().unwrap();
            let mut steps = plan.split("; ");
            let (words, key) = (steps.next().unwrap(), steps.next().unwrap());
            // The terms (M) and both bounds of the keys.
            assert!(words.starts_with("SCAN subject_words VIRTUAL TABLE INDEX"), "{plan}");
            assert!(words.contains(":M") && words.contains("><"), "{plan}");
            assert_eq!(key, "SEARCH subject_keys USING INTEGER PRIMARY KEY (rowid=?)", "{plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{plan}");
        }
    }
}
