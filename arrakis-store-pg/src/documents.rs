//! Searching messages and tool uses.
//!
//! Each term of a text stands in the index behind the bucket of the text's time. A search asks bucket by
//! bucket, newest first, so what it reads are matches of some days, however many more there are. The index
//! finds candidates; each is read, and [`SearchFilter::hit`] has the last word.
//!
//! What a text does not have by itself is its conversation's project, which may change at any time. So the
//! conversations of a project are looked up first, and where there are few, their filter terms are asked for like a
//! word, in the buckets in which they lived.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::RangeInclusive;

use arrakis_core::base::limits::PAGE_MAX;
use arrakis_core::record::store::{SearchCursor, SearchFilter, SearchHit, SearchPage};
use arrakis_core::session::conversation::Conversation;
use arrakis_core::session::search::{FilterTerm, SearchDocument};
use diesel::dsl::{max, sql};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, Bool, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use uuid::Uuid;

use crate::error::TxError;
use crate::index::{bucket_of, in_bucket, off_the_runtime};
use crate::row::{At, ConversationRow, MessageRow, ToolUseRow, readable, shown};
use crate::schema::{conversations, messages, subject_buckets, subject_search, tool_uses};
use crate::search::all_of;
use crate::statement::Statement;

/// Buckets that are asked at one time, after the newest one: their matches are all read and sorted, which may
/// be most of their texts.
const BUCKETS_AT_ONCE: usize = 4;

/// Most buckets that are looked up at one time: those of some years.
const BUCKETS_READ: i64 = 1000;

/// Most conversations of a project whose filter terms are asked for.
const MARKED_CONVERSATIONS: i64 = 256;

/// How many candidates are read and judged at one time: fewer than are indexed, because many searches may run
/// at once, and each candidate may have the largest input and output that there can be.
const JUDGED_AT_ONCE: usize = 8;

/// What `filter` asks for, newest first.
pub(crate) async fn find(
    conn: &mut AsyncPgConnection,
    filter: &SearchFilter,
    after: Option<SearchCursor>,
    limit: usize,
) -> Result<SearchPage, TxError> {
    // The planner takes a common word for a reason to read the whole table.
    conn.batch_execute("SET LOCAL enable_seqscan = off").await?;
    let limit = limit.min(PAGE_MAX);
    let Some(query) = Query::of(conn, filter).await? else { return Ok(SearchPage::default()) };
    let first = filter.since.map_or(i64::MIN, bucket_of);
    let project_end = match query.project {
        Project::Large(end) => end.map(|end| end.0),
        _ => None,
    };
    let ends = [filter.until, project_end, after.map(|after| after.at)].into_iter().flatten();
    let mut behind = ends.map(bucket_of).min().map_or(i64::MAX, |last| last.saturating_add(1));
    let (mut hits, mut at_once) = (Vec::new(), 1);
    let mut buckets: Vec<i64> = Vec::new();
    while hits.len() <= limit {
        if buckets.is_empty() {
            buckets = subject_buckets::table
                .filter(subject_buckets::bucket.lt(behind))
                .filter(subject_buckets::bucket.ge(first))
                .order(subject_buckets::bucket.desc())
                .select(subject_buckets::bucket)
                .limit(BUCKETS_READ)
                .load(conn)
                .await?;
            let Some(last) = buckets.last() else { break };
            behind = *last;
        }
        let older = buckets.split_off(at_once.min(buckets.len()));
        let conditions = query.in_buckets(&buckets);
        (buckets, at_once) = (older, BUCKETS_AT_ONCE);
        let mut place = after;
        while hits.len() <= limit {
            let found = query.candidates(conn, &conditions, place, limit + 1).await?;
            place = found.last().map(|(id, _, at)| SearchCursor { at: at.0, id: *id });
            let is_all = found.len() <= limit;
            for few in found.chunks(JUDGED_AT_ONCE) {
                let found = look(conn, filter, few).await?.into_iter();
                hits.extend(found.filter(|hit| after.is_none_or(|after| hit.cursor() < after)));
            }
            if is_all {
                break;
            }
        }
    }
    hits.sort_by_key(|hit| std::cmp::Reverse(hit.cursor()));
    Ok(SearchPage::of(hits, limit))
}

/// What the index knows of a match.
type Candidate = (Uuid, bool, At);

/// What the index is asked.
struct Query<'a> {
    filter: &'a SearchFilter,
    terms: BTreeSet<String>,
    project: Project,
}

/// How what is asked of a project is found.
enum Project {
    /// None is asked for.
    Any,
    /// By the filter terms of its conversations, each in the buckets in which that lived.
    Terms(Vec<(String, RangeInclusive<i64>)>),
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
                (term, bucket_of(began.0)..=bucket_of(ended.0))
            };
            Project::Terms(lived.into_iter().map(term).collect())
        };
        Ok(Some(Self { filter, terms, project }))
    }

    /// The conditions of those buckets in which something can be.
    fn in_buckets(&self, buckets: &[i64]) -> Vec<String> {
        let condition = |bucket: &i64| {
            let all = all_of(self.terms.iter().map(|term| in_bucket(*bucket, term)));
            let Project::Terms(terms) = &self.project else { return Some(all) };
            let any = terms.iter().filter(|(_, lived)| lived.contains(bucket));
            let any = any.map(|(term, _)| format!("'{}'", in_bucket(*bucket, term)));
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
        place: Option<SearchCursor>,
        wanted: usize,
    ) -> QueryResult<Vec<Candidate>> {
        use subject_search::{at, conversation_id, is_tool_use, subject_id, table};
        if conditions.is_empty() {
            return Ok(Vec::new());
        }
        let matches = sql::<Bool>("words @@ ANY (").bind::<Array<Text>, _>(conditions);
        let mut query = table
            .filter(matches.sql("::tsquery[])"))
            .select((subject_id, is_tool_use, at))
            .into_boxed();
        if let Some(since) = self.filter.since {
            query = query.filter(at.ge(At(since)));
        }
        if let Some(until) = self.filter.until {
            query = query.filter(at.lt(At(until)));
        }
        if let Some(SearchCursor { at: seen, id }) = place {
            query = query.filter(at.lt(At(seen)).or(at.eq(At(seen)).and(subject_id.lt(id))));
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
    let directory = filter.directory().map(shown).unwrap_or_default();
    let [unix, windows] = ['/', '\\'].map(|separator| format!("{directory}{separator}"));
    let of_project = sql::<Bool>("(project_path = ")
        .bind::<Text, _>(directory)
        .sql(" OR starts_with(project_path, ")
        .bind::<Text, _>(unix)
        .sql(") OR starts_with(project_path, ")
        .bind::<Text, _>(windows)
        .sql("))");
    conversations::table
        .filter(conversations::workspace.eq(shown(&filter.workspace)))
        .filter(of_project)
        .into_boxed()
}

/// Reads a few candidates, and keeps what is to be found.
async fn look(
    conn: &mut AsyncPgConnection,
    filter: &SearchFilter,
    candidates: &[Candidate],
) -> Result<Vec<SearchHit>, TxError> {
    let ids = |of_tools: bool| {
        let ids = candidates.iter().filter(move |(_, is_tool_use, _)| *is_tool_use == of_tools);
        ids.map(|(id, ..)| *id).collect::<Vec<_>>()
    };
    let said: Vec<MessageRow> = messages::table
        .filter(messages::id.eq_any(ids(false)))
        .select(MessageRow::as_select())
        .load(conn)
        .await?;
    let done: Vec<(ToolUseRow, Option<String>)> = tool_uses::table
        .left_join(messages::table.on(messages::id.nullable().eq(tool_uses::message_id)))
        .filter(tool_uses::id.eq_any(ids(true)))
        .select((ToolUseRow::as_select(), messages::model.nullable()))
        .load(conn)
        .await?;
    let ids = done.iter().map(|(row, _)| row.conversation_id);
    let ids: HashSet<Uuid> = said.iter().map(|row| row.conversation_id).chain(ids).collect();
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
    Ok(found.into_iter().filter(|(_, said)| is_new(said)).map(|(hit, _)| hit).collect())
}

/// What is to be found of these; with each what the index holds of a message of a transcript that says the
/// same, where it need not be found beside that.
fn judge(
    filter: &SearchFilter,
    lived: Vec<ConversationRow>,
    said: Vec<MessageRow>,
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
    let said = said.into_iter().filter_map(|row| {
        hit(SearchDocument::Message(&readable("messages", row.id, row.into_value())?))
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
