//! Searching messages and tool uses.
//!
//! Each term of a text stands in the index behind the text's bucket. A bucket holds a limited number of texts in
//! the order of the list. A search asks bucket by bucket, newest first, so what it reads are matches of a few
//! thousand texts, however many more there are, also of the same time. The index finds candidates; each is read,
//! and [`SearchFilter::hit`] has the last word.
//!
//! What a text does not have by itself is its conversation's project, which may change at any time. So the
//! conversations of a project are looked up first, and where there are few, their filter terms are asked for like a
//! word, in the buckets of the time in which they lived.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use arrakis_core::base::limits::PAGE_MAX;
use arrakis_core::record::store::{
    SearchCursor, SearchFilter, SearchHit, SearchPage, SearchPageBuilder,
};
use arrakis_core::session::conversation::Conversation;
use arrakis_core::session::search::{FilterTerm, IndexTerm, SearchDocument};
use diesel::dsl::{max, sql};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, Bool, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use tokio::time::Instant;
use uuid::Uuid;

use crate::error::TxError;
use crate::index::{in_bucket, off_the_runtime};
use crate::list::is_within;
use crate::messages;
use crate::row::{At, ConversationRow, ToolUseRow, readable, shown};
use crate::schema::{conversations, message_rows, subject_buckets, subject_search, tool_uses};
use crate::search::{all_of, whole};
use crate::statement::Statement;

/// Buckets that are asked at one time, after the newest one: their matches are all read and sorted, which may
/// be most of their texts.
const BUCKETS_AT_ONCE: usize = 4;

/// Most buckets that are looked up at one time.
const BUCKETS_READ: i64 = 256;

/// Most conversations of a project whose filter terms are asked for.
const MARKED_CONVERSATIONS: i64 = 256;

/// Candidates that are read from the index at one time, unless a page takes more: for each part of them, the
/// matches of their buckets are read again.
const CANDIDATES_MIN: usize = 64;

/// Most candidates that are read from the index at one time.
const CANDIDATES_MAX: usize = 1024;

/// How many candidates are read and judged at one time: fewer than are indexed, because many searches may run
/// at once.
const JUDGED_AT_ONCE: usize = 8;

/// What the texts of candidates have that are read at one time, in bytes, unless one alone has more: each may
/// have the largest input and output that there can be.
const JUDGED_BYTES: usize = 1024 * 1024;

/// What `filter` asks for, newest first. Few texts are read at one time, until the page is full, or until
/// something was found and `time` is over.
pub(crate) async fn find(
    conn: &mut AsyncPgConnection,
    filter: &SearchFilter,
    after: Option<SearchCursor>,
    limit: usize,
    time: Duration,
) -> Result<SearchPage, TxError> {
    let began = Instant::now();
    // The planner takes a common word for a reason to read the whole table.
    conn.batch_execute("SET LOCAL enable_seqscan = off").await?;
    let limit = limit.min(PAGE_MAX);
    let mut page = SearchPageBuilder::new(limit);
    let Some(query) = Query::of(conn, filter).await? else { return Ok(page.finish()) };
    let wanted = limit.saturating_add(1).clamp(CANDIDATES_MIN, CANDIDATES_MAX);
    let mut bound = query.bound(after);
    let mut at_once = 1;
    let mut last_hit = None;
    loop {
        let buckets = query.buckets(conn, bound).await?;
        let Some(last) = buckets.last() else { return Ok(page.finish()) };
        bound = Some((last.from, last.from_id));
        let mut buckets = &buckets[..];
        while !buckets.is_empty() {
            let (some, older) = buckets.split_at(at_once.min(buckets.len()));
            (buckets, at_once) = (older, BUCKETS_AT_ONCE);
            let conditions = query.in_buckets(some);
            let mut place = after.map(|after| (At(after.at), after.id));
            loop {
                let found = query.candidates(conn, &conditions, place, wanted).await?;
                place = found.last().map(|last| (last.at, last.id));
                let mut rest = &found[..];
                while !rest.is_empty() {
                    let (few, others) = rest.split_at(few(rest));
                    rest = others;
                    for (hit, cursor) in look(conn, filter, few).await? {
                        if !page.push(hit, cursor) {
                            return Ok(page.finish());
                        }
                        last_hit = Some(cursor);
                    }
                    // What was found until now is a page. Large texts take a while to read.
                    if last_hit.is_some() && began.elapsed() >= time {
                        return Ok(SearchPage { next: last_hit, ..page.finish() });
                    }
                }
                if found.len() < wanted {
                    break;
                }
            }
        }
    }
}

/// How many of these candidates are read at one time: at least one.
fn few(candidates: &[Candidate]) -> usize {
    let mut bytes = 0_usize;
    let fits = candidates.iter().take(JUDGED_AT_ONCE).take_while(|candidate| {
        let is_first = bytes == 0;
        bytes = bytes.saturating_add(usize::try_from(candidate.bytes).unwrap_or(0).max(1));
        is_first || bytes <= JUDGED_BYTES
    });
    fits.count()
}

/// What the index knows of a match.
#[derive(Debug, Queryable)]
struct Candidate {
    id: Uuid,
    is_tool_use: bool,
    at: At,
    bytes: i32,
}

/// A bucket that may have what is asked for: it has the texts from one place up to before another.
#[derive(Debug)]
struct Bucket {
    bucket: i64,
    from: At,
    from_id: Uuid,
    /// None for the newest.
    to: Option<At>,
}

/// What the index is asked.
struct Query<'a> {
    filter: &'a SearchFilter,
    terms: BTreeSet<IndexTerm>,
    project: Project,
}

/// How what is asked of a project is found.
enum Project {
    /// None is asked for.
    Any,
    /// By the filter terms of its conversations, each in the time in which that lived.
    Terms(Vec<(String, At, At)>),
    /// By asking each match: it has many conversations, of which the last had its last event then.
    Large(Option<At>),
}

impl<'a> Query<'a> {
    /// None where there is nothing to be found.
    async fn of(
        conn: &mut AsyncPgConnection,
        filter: &'a SearchFilter,
    ) -> QueryResult<Option<Self>> {
        let Some(terms) = filter.terms() else { return Ok(None) };
        if filter.session_id.is_some() || filter.project.is_none() {
            return Ok(Some(Self { filter, terms, project: Project::Any }));
        }
        let some = MARKED_CONVERSATIONS;
        let lived: Vec<(Uuid, At, At)> = in_project(filter)
            .select((conversations::id, conversations::started_at, conversations::last_event_at))
            .limit(some + 1)
            .load(conn)
            .await?;
        if lived.is_empty() {
            return Ok(None);
        }
        let project = if lived.len() as u64 > some.unsigned_abs() {
            let end = in_project(filter).select(max(conversations::last_event_at));
            Project::Large(end.get_result(conn).await?)
        } else {
            let term = |(id, began, ended): (Uuid, At, At)| {
                let term = FilterTerm::Conversation.word(&id.to_string());
                (term, began, ended)
            };
            Project::Terms(lived.into_iter().map(term).collect())
        };
        Ok(Some(Self { filter, terms, project }))
    }

    /// A place before which all is that can be found; none where all is.
    fn bound(&self, after: Option<SearchCursor>) -> Option<(At, Uuid)> {
        let project_end = match self.project {
            Project::Large(end) => end.map(|end| (end, Uuid::max())),
            _ => None,
        };
        let until = self.filter.until.map(|until| (At(until), Uuid::nil()));
        let after = after.map(|after| (At(after.at), after.id));
        [project_end, until, after].into_iter().flatten().min()
    }

    /// Some buckets that begin before `bound`, newest first, as far as they reach into the time asked for.
    async fn buckets(
        &self,
        conn: &mut AsyncPgConnection,
        bound: Option<(At, Uuid)>,
    ) -> QueryResult<Vec<Bucket>> {
        use subject_buckets::{bucket, from_at, from_id, table};
        let mut query = table.select((bucket, from_at, from_id)).into_boxed();
        if let Some((at, id)) = bound {
            query = query.filter(from_at.lt(at).or(from_at.eq(at).and(from_id.lt(id))));
        }
        let query = query.order((from_at.desc(), from_id.desc())).limit(BUCKETS_READ);
        let rows: Vec<(i64, At, Uuid)> = query.load(conn).await?;
        let mut to = bound.map(|(at, _)| at);
        let mut buckets = Vec::new();
        for (number, from, first) in rows {
            if self.filter.since.is_some_and(|since| to.is_some_and(|to| to.0 < since)) {
                break;
            }
            buckets.push(Bucket { bucket: number, from, from_id: first, to });
            to = Some(from);
        }
        Ok(buckets)
    }

    /// The conditions of those buckets in which something can be.
    fn in_buckets(&self, buckets: &[Bucket]) -> Vec<String> {
        let condition = |Bucket { bucket, from, to, .. }: &Bucket| {
            let all = all_of(&self.terms, |term| in_bucket(*bucket, term));
            let Project::Terms(terms) = &self.project else { return Some(all) };
            let lived = |(_, began, ended): &&(String, At, At)| {
                from <= ended && to.is_none_or(|to| *began <= to)
            };
            let any = terms.iter().filter(lived);
            let any = any.map(|(term, ..)| whole(&in_bucket(*bucket, term)));
            let any = any.collect::<Vec<_>>().join(" | ");
            (!any.is_empty()).then(|| format!("{all} & ({any})"))
        };
        buckets.iter().filter_map(condition).collect()
    }

    /// The newest `wanted` matches of any of these conditions behind `place`.
    async fn candidates(
        &self,
        conn: &mut AsyncPgConnection,
        conditions: &[String],
        place: Option<(At, Uuid)>,
        wanted: usize,
    ) -> QueryResult<Vec<Candidate>> {
        use subject_search::{at, bytes, conversation_id, is_tool_use, subject_id, table};
        if conditions.is_empty() {
            return Ok(Vec::new());
        }
        let matches = sql::<Bool>("words @@ ANY (").bind::<Array<Text>, _>(conditions);
        let mut query = table
            .filter(matches.sql("::tsquery[])"))
            .select((subject_id, is_tool_use, at, bytes))
            .into_boxed();
        if let Some(since) = self.filter.since {
            query = query.filter(at.ge(At(since)));
        }
        if let Some(until) = self.filter.until {
            query = query.filter(at.lt(At(until)));
        }
        if let Some((seen, id)) = place {
            query = query.filter(at.lt(seen).or(at.eq(seen).and(subject_id.lt(id))));
        }
        if let Project::Large(_) = self.project {
            let ids = in_project(self.filter).select(conversations::id);
            query = query.filter(conversation_id.eq_any(ids));
        }
        let query = query.order((at.desc(), subject_id.desc()));
        query.limit(i64::try_from(wanted).unwrap_or(i64::MAX)).load(conn).await
    }
}

/// The conversations that the filter's project has.
fn in_project(filter: &SearchFilter) -> conversations::BoxedQuery<'_, Pg> {
    let project = filter.project.as_deref().unwrap_or_default();
    conversations::table
        .filter(conversations::workspace.eq(shown(&filter.workspace)))
        .into_boxed()
        .filter(is_within("project_path", project))
}

/// Reads a few candidates, and keeps what is to be found, each with its place in the index.
async fn look(
    conn: &mut AsyncPgConnection,
    filter: &SearchFilter,
    candidates: &[Candidate],
) -> Result<Vec<(SearchHit, SearchCursor)>, TxError> {
    let ids = |of_tools: bool| {
        let ids = candidates.iter().filter(move |candidate| candidate.is_tool_use == of_tools);
        ids.map(|candidate| candidate.id).collect::<Vec<_>>()
    };
    let said = messages::searched(conn, &ids(false)).await?;
    let done: Vec<(ToolUseRow, Option<String>)> = tool_uses::table
        .left_join(message_rows::table.on(message_rows::id.nullable().eq(tool_uses::message_id)))
        .filter(tool_uses::id.eq_any(ids(true)))
        .select((ToolUseRow::as_select(), message_rows::model.nullable()))
        .load(conn)
        .await?;
    let ids = done.iter().map(|(row, _)| row.conversation_id);
    let ids: HashSet<Uuid> = said.iter().map(|one| one.row.conversation_id).chain(ids).collect();
    let lived: Vec<ConversationRow> = conversations::table
        .filter(conversations::id.eq_any(ids))
        .select(ConversationRow::as_select())
        .load(conn)
        .await?;
    let filter = filter.clone();
    let found = off_the_runtime(move || judge(&filter, lived, said, done)).await?;
    let asked: Vec<String> = found.iter().filter_map(|(_, said)| said.clone()).collect();
    let is_said = said_by_transcripts(conn, &asked).await?;
    let is_new = |said: &Option<String>| said.as_ref().is_none_or(|said| !is_said.contains(said));
    let new = found.into_iter().filter(|(_, said)| is_new(said)).map(|(hit, _)| (hit.id, hit));
    let mut hits: HashMap<Uuid, SearchHit> = new.collect();
    let cursor = |one: &Candidate| SearchCursor { at: one.at.0, id: one.id, place: 0 };
    let in_order = candidates.iter().filter_map(|one| Some((hits.remove(&one.id)?, cursor(one))));
    Ok(in_order.collect())
}

/// What is to be found of these; with each what the index holds of a message of a transcript that says the
/// same, where it need not be found beside that.
fn judge(
    filter: &SearchFilter,
    lived: Vec<ConversationRow>,
    said: Vec<messages::Found>,
    done: Vec<(ToolUseRow, Option<String>)>,
) -> Vec<(SearchHit, Option<String>)> {
    let lived = lived
        .into_iter()
        .filter_map(|row| Some((row.id, readable("conversations", row.id, row.into_value())?)));
    let conversations: HashMap<Uuid, Conversation> = lived.collect();
    let hit = |document: SearchDocument<'_>| {
        let hit = filter.hit(document, conversations.get(&document.conversation_id())?)?;
        Some((hit, document.hidden_by()))
    };
    let said = said.into_iter().filter_map(|one| {
        hit(SearchDocument::Message(&readable("messages", one.row.id, one.into_value())??))
    });
    let done = done.into_iter().filter_map(|(row, model)| {
        let tool_use = &readable("tool_uses", row.id, row.into_value())?;
        hit(SearchDocument::ToolUse { tool_use, model: model.as_deref() })
    });
    said.chain(done).collect()
}

/// Which of these a message of a transcript says.
async fn said_by_transcripts(
    conn: &mut AsyncPgConnection,
    asked: &[String],
) -> QueryResult<HashSet<String>> {
    const SQL: &str = "SELECT v.said FROM unnest(?) AS v (said) WHERE EXISTS \
        (SELECT 1 FROM subject_search WHERE words @@ quote_literal(v.said)::tsquery)";
    if asked.is_empty() {
        return Ok(HashSet::new());
    }
    let said: Vec<String> =
        Statement::<Text>::new(SQL).bind::<Array<Text>>(asked).load(conn).await?;
    Ok(said.into_iter().collect())
}
