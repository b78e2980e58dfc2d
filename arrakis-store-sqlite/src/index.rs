//! Making text searchable, off the hot path.
//!
//! An index position goes through the commits of each workspace. Each step reads some of what those of one
//! workspace touched beside the writer and computes the words; a transaction of its own then stores the words and
//! moves the position. Workspaces take turns, one step each, so a flood of one delays its own texts only. A step is
//! limited, so that neither the writer nor the memory is held for long by commits of many large payloads. While
//! there are no commits, steps go through what waits to be indexed anew.

use std::collections::{HashSet, VecDeque};

use arrakis_core::session::search::{FilterTerm, SearchDocument, payload_words};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::Text as SqlText;

use crate::documents;
use crate::feed::{self, Place, Position};
use crate::messages;
use crate::row::{Now, ToolUseRow, body_of, json, readable, uuid};
use crate::schema::{
    commits, index_backlog, index_position, message_rows, tool_uses, webhook_events,
};
use crate::search::{self, FreeKeys, Text};

/// What one transaction makes searchable.
#[derive(Debug)]
pub(crate) struct Step {
    /// The workspace whose turn it is.
    workspace: String,
    from: Position,
    to: Position,
    commits: usize,
    /// The part of what was stored before that it is, instead of commits.
    backlog: Option<Backlog>,
    events: Vec<Text>,
    documents: Vec<Text>,
    /// What was looked at, by its id: commits name what they have in common.
    seen: HashSet<String>,
    /// How much more it may read.
    budget_bytes: usize,
    /// How many more terms it may write.
    budget_terms: usize,
}

/// A part of a table that was filled before there was this index.
#[derive(Debug)]
struct Backlog {
    table_name: String,
    /// Up to this id it was done, and will be.
    after_id: String,
    up_to_id: Option<String>,
}

impl Step {
    fn new(workspace: &str, from: Position) -> Self {
        Self {
            workspace: workspace.to_owned(),
            from,
            to: from,
            commits: 0,
            backlog: None,
            events: Vec::new(),
            documents: Vec::new(),
            seen: HashSet::new(),
            budget_bytes: STEP_BYTES,
            budget_terms: STEP_TERMS,
        }
    }

    fn is_full(&self) -> bool {
        self.budget_bytes == 0 || self.budget_terms == 0
    }

    /// How many commits end with it; a part of what was stored before counts as one.
    pub(crate) fn commits(&self) -> usize {
        self.commits
    }
}

/// The workspaces that have commits to be indexed, those behind `last` first: it had its turn.
pub(crate) fn turns(conn: &mut SqliteConnection, last: &str) -> QueryResult<VecDeque<String>> {
    #[derive(QueryableByName)]
    struct Workspace {
        #[diesel(sql_type = SqlText)]
        name: String,
    }
    // Each workspace is one look into the index of commits, however many commits it has.
    let waiting = "WITH RECURSIVE workspaces (name) AS (\
            SELECT min(workspace) FROM commits \
            UNION ALL SELECT (SELECT min(workspace) FROM commits WHERE workspace > name) \
            FROM workspaces WHERE name IS NOT NULL) \
        SELECT name FROM workspaces WHERE name IS NOT NULL \
        AND (SELECT max(id) FROM commits WHERE workspace = name) >= coalesce(\
            (SELECT commit_id FROM index_position WHERE workspace = name), 0) ORDER BY name";
    let waiting: Vec<Workspace> = diesel::sql_query(waiting).load(conn)?;
    let (done, next): (Vec<String>, Vec<String>) =
        waiting.into_iter().map(|one| one.name).partition(|name| name.as_str() <= last);
    Ok(next.into_iter().chain(done).collect())
}

/// Reads what comes next of a workspace, of up to `limit` commits; nothing where all is searchable.
pub(crate) fn next_step(
    conn: &mut SqliteConnection,
    workspace: &str,
    limit: usize,
) -> QueryResult<Option<Step>> {
    let from = position(conn, workspace)?;
    let rows = commits::table
        .filter(commits::workspace.eq(workspace))
        .filter(commits::id.ge(from.commit))
        .order(commits::id.asc())
        .select((commits::id, commits::events, commits::messages, commits::tool_uses))
        .limit(i64::try_from(limit.min(STEP_COMMITS)).unwrap_or(i64::MAX))
        .load::<(i64, String, String, String)>(conn)?;
    let mut step = Step::new(workspace, from);
    for (commit, events, messages, tool_uses) in rows {
        let events = json::<Vec<String>>("events", &events)?.into_iter().map(Item::Event);
        let places = |column, places: &str| json::<Vec<Place>>(column, places);
        let messages = places("messages", &messages)?.into_iter().map(Item::Message);
        let tool_uses = places("tool_uses", &tool_uses)?.into_iter().map(Item::ToolUse);
        let items = events.chain(messages).chain(tool_uses);
        for (done, item) in items.enumerate().skip(from.done_of(commit)) {
            if step.is_full() {
                step.to = Position { commit, done };
                return Ok(Some(step));
            }
            step.add(conn, item)?;
        }
        step.to = Position::behind(commit);
        step.commits += 1;
    }
    Ok((step.to != from).then_some(step))
}

/// Reads some of what waits to be indexed anew; nothing where all of it is searchable.
pub(crate) fn backlog_step(conn: &mut SqliteConnection) -> QueryResult<Option<Step>> {
    let next = index_backlog::table
        .order(index_backlog::table_name.asc())
        .first::<(String, String)>(conn)
        .optional()?;
    let Some((table_name, after_id)) = next else { return Ok(None) };
    let (after, after_in) = after_id.split_once(' ').unwrap_or_default();
    let (places, item): (Vec<Place>, fn(Place) -> Item) = if table_name == "messages" {
        use message_rows::{conversation_id, id, table};
        let in_it = conversation_id.eq(after).and(id.gt(after_in));
        let query = table.filter(conversation_id.gt(after).or(in_it));
        let query = query.order((conversation_id.asc(), id.asc())).limit(BACKLOG_ROWS);
        (query.select((conversation_id, id)).load(conn)?, Item::Message)
    } else {
        use tool_uses::{conversation_id, id, table};
        let in_it = conversation_id.eq(after).and(id.gt(after_in));
        let query = table.filter(conversation_id.gt(after).or(in_it));
        let query = query.order((conversation_id.asc(), id.asc())).limit(BACKLOG_ROWS);
        (query.select((conversation_id, id)).load(conn)?, Item::ToolUse)
    };
    let from = position(conn, BACKLOG)?;
    let mut step = Step { commits: 1, ..Step::new(BACKLOG, from) };
    let mut up_to_id = None;
    for place in places {
        if step.is_full() {
            break;
        }
        up_to_id = Some([place.0.as_str(), &place.1].join(" "));
        step.add(conn, item(place))?;
    }
    step.backlog = Some(Backlog { table_name, after_id, up_to_id });
    Ok(Some(step))
}

/// Stores a step's words and moves the position; returns whether it was still this step's turn, or
/// another process has taken it.
pub(crate) fn write(conn: &mut SqliteConnection, step: &Step, now: &Now) -> QueryResult<bool> {
    if position(conn, &step.workspace)? != step.from {
        return Ok(false);
    }
    if let Some(Backlog { table_name, after_id, .. }) = &step.backlog {
        let row = index_backlog::table.find(table_name).select(index_backlog::after_id);
        if row.get_result::<String>(conn).optional()?.as_ref() != Some(after_id) {
            return Ok(false);
        }
    }
    let mut free = FreeKeys::default();
    for text in &step.events {
        // The row may have been pruned since its body was read.
        let is_there =
            diesel::select(diesel::dsl::exists(webhook_events::table.find(text.id.as_str())))
                .get_result(conn)?;
        if is_there {
            search::events::add(conn, text, &mut free)?;
        }
    }
    let mut free = FreeKeys::default();
    for text in &step.documents {
        // So may its conversation have been.
        if text.is_there(conn)? {
            search::put_document(conn, text, &mut free)?;
        }
    }
    if let Some(Backlog { table_name, up_to_id, .. }) = &step.backlog {
        match up_to_id {
            Some(id) => diesel::update(index_backlog::table.find(table_name))
                .set(index_backlog::after_id.eq(id))
                .execute(conn)?,
            None => diesel::delete(index_backlog::table.find(table_name)).execute(conn)?,
        };
    }
    if step.to != step.from {
        diesel::replace_into(index_position::table)
            .values((
                index_position::workspace.eq(&step.workspace),
                index_position::commit_id.eq(step.to.commit),
                index_position::done.eq(i64::try_from(step.to.done).unwrap_or(i64::MAX)),
            ))
            .execute(conn)?;
    }
    feed::clean(conn, now)?;
    Ok(true)
}

/// How far the commits of a workspace are searchable.
fn position(conn: &mut SqliteConnection, workspace: &str) -> QueryResult<Position> {
    let found = index_position::table
        .find(workspace)
        .select((index_position::commit_id, index_position::done))
        .get_result::<(i64, i64)>(conn)
        .optional()?;
    let (commit, done) = found.unwrap_or((0, 0));
    Ok(Position { commit, done: usize::try_from(done).unwrap_or(0) })
}

/// Stands for a workspace in steps through what waits to be indexed anew, which have no position.
const BACKLOG: &str = "";

/// Most commits of a step; each holds the ids of a group.
const STEP_COMMITS: usize = 64;

/// How many bytes of text a step reads before it ends; the last text may go beyond.
const STEP_BYTES: usize = 1024 * 1024;

/// How many terms a step writes before it ends; the last text may go beyond. To store so many keeps the writer for
/// some tens of milliseconds. Fewer would cost more: each transaction leaves a segment of the index, which is
/// merged with others later.
const STEP_TERMS: usize = 32 * 1024;

/// Most rows of a step through what was stored before: as many small ones as end a step.
const BACKLOG_ROWS: i64 = (STEP_BYTES / ITEM_BYTES) as i64;

/// What a text costs besides its bytes, so that a step has not too many small ones either.
const ITEM_BYTES: usize = 512;

/// Something that a commit touched, by its key.
enum Item {
    Event(String),
    Message(Place),
    ToolUse(Place),
}

impl Step {
    fn add(&mut self, conn: &mut SqliteConnection, item: Item) -> QueryResult<()> {
        let (Item::Event(id) | Item::Message((_, id)) | Item::ToolUse((_, id))) = &item;
        if !self.seen.insert(id.clone()) {
            return Ok(());
        }
        let (events, documents) = (self.events.len(), self.documents.len());
        let read_bytes = match item {
            Item::Event(id) => self.add_event(conn, id)?,
            Item::Message(place) => self.add_message(conn, &place)?,
            Item::ToolUse(place) => self.add_tool_use(conn, &place)?,
        };
        let added = self.events[events..].iter().chain(&self.documents[documents..]);
        let terms = added.map(Text::terms).sum();
        self.budget_terms = self.budget_terms.saturating_sub(terms);
        self.budget_bytes = self.budget_bytes.saturating_sub(read_bytes + ITEM_BYTES);
        Ok(())
    }

    /// Adds a payload; returns how much was read. Payloads never change, so one that is searchable
    /// stays as it is.
    fn add_event(&mut self, conn: &mut SqliteConnection, id: String) -> QueryResult<usize> {
        if search::events::key(conn, &id)?.is_some() {
            return Ok(0);
        }
        let Some(row) = PayloadRow::find(conn, &id)? else { return Ok(0) };
        let Some(body) = body_of(row.request_body, row.raw_body) else { return Ok(0) };
        let words = payload_words(&body);
        if !words.is_empty() {
            let mut text = Text::of_event(uuid("id", &id)?, words);
            text.term(FilterTerm::Workspace, &row.workspace);
            text.term(FilterTerm::EventType, &row.event_type);
            text.term(FilterTerm::Request, &row.request_id);
            if let Some(session_id) = &row.session_id {
                text.term(FilterTerm::Session, session_id);
            }
            self.events.push(text);
        }
        Ok(body.len())
    }

    /// Adds a message; returns how much was read.
    fn add_message(&mut self, conn: &mut SqliteConnection, place: &Place) -> QueryResult<usize> {
        let found = messages::searched(conn, (&place.0, &place.1))?;
        let Some((workspace, message)) = found else { return Ok(0) };
        let text = Text::of_document(SearchDocument::Message(&message), &workspace);
        self.documents.push(text);
        Ok(message.content.value.len())
    }

    /// Adds a tool use; returns how much was read.
    fn add_tool_use(&mut self, conn: &mut SqliteConnection, place: &Place) -> QueryResult<usize> {
        let (conversation_id, id) = place;
        let found = tool_uses::table
            .find((conversation_id, id))
            .select((tool_uses::workspace, ToolUseRow::as_select()))
            .get_result::<(String, ToolUseRow<'static>)>(conn)
            .optional()?;
        let Some((workspace, row)) = found else { return Ok(0) };
        let Some(tool_use) = readable("tool_uses", id, row.into_value()) else { return Ok(0) };
        let model = documents::model_of(conn, &tool_use)?;
        let document = SearchDocument::ToolUse { tool_use: &tool_use, model: model.as_deref() };
        let response = tool_use.result.as_ref().and_then(|result| result.response.as_ref());
        let read = tool_use.parameters.as_ref().map_or(0, |json| json.value.as_str().len())
            + response.map_or(0, |json| json.as_str().len());
        self.documents.push(Text::of_document(document, &workspace));
        Ok(read)
    }
}

/// What of an audit row can be searched for.
#[derive(Queryable, Selectable)]
#[diesel(table_name = webhook_events)]
struct PayloadRow {
    workspace: String,
    request_id: String,
    event_type: String,
    session_id: Option<String>,
    request_body: Option<String>,
    raw_body: Option<Vec<u8>>,
}

impl PayloadRow {
    fn find(conn: &mut SqliteConnection, id: &str) -> QueryResult<Option<Self>> {
        webhook_events::table.find(id).select(Self::as_select()).get_result(conn).optional()
    }
}
