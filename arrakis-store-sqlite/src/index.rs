//! Making text searchable, off the hot path.
//!
//! The index is a database of its own (`index/file.rs`), so nothing that writes to the store waits for it. An index
//! position goes through the commits of each workspace. Each step reads some of what those of one workspace touched
//! and computes the words; a transaction on the index then stores the words and moves the position. What a commit
//! names and is no longer stored becomes unsearchable: so pruning needs no transaction over both files. Workspaces
//! take turns, one step each, so a flood of one delays its own texts only. A step is limited, so that commits of many
//! large payloads take neither much memory nor much time. While there are no commits, steps go through what waits to
//! be indexed anew.

mod file;

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrakis_core::record::store::StoreError;
use arrakis_core::session::search::{FilterTerm, SearchDocument, payload_words};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::Text as SqlText;

use crate::documents;
use crate::feed::{Place, Position};
use crate::messages;
use crate::row::{ToolUseRow, body_of, json, readable, uuid};
use crate::schema::{
    commits, index_backlog, index_position, index_state, message_rows, tool_uses, webhook_events,
};
use crate::search::{self, FreeKeys, Text};

pub(crate) use file::IndexFile;
#[cfg(test)]
pub(crate) use file::create_in;

/// Makes the texts of a store searchable.
#[derive(Debug)]
pub(crate) struct Indexer {
    file: IndexFile,
    /// The workspace that had the last turn: the next one has its turn.
    last: Mutex<String>,
}

impl Indexer {
    /// Writes into `file`.
    pub(crate) fn new(file: IndexFile) -> Self {
        Self { file, last: Mutex::default() }
    }

    /// The index.
    pub(crate) fn file(&self) -> &IndexFile {
        &self.file
    }

    /// Makes the texts of up to `limit` commits searchable; returns how many it took.
    ///
    /// # Errors
    ///
    /// The next call continues where this one came to.
    pub(crate) async fn index(&self, limit: usize) -> Result<usize, StoreError> {
        const READ: &str = "read what is to be searched";
        let mut commits = 0;
        let mut waiting = VecDeque::new();
        while commits < limit {
            let left = limit - commits;
            if waiting.is_empty() {
                let last = self.last().clone();
                waiting = self.file.read(READ, move |conn| turns(conn, &last)).await?;
            }
            let step = match waiting.pop_front() {
                Some(workspace) => {
                    self.last().clone_from(&workspace);
                    let next = move |conn: &mut _| next_step(conn, &workspace, left);
                    let Some(step) = self.file.read(READ, next).await? else { continue };
                    step
                }
                None => match self.file.read(READ, backlog_step).await? {
                    Some(step) => step,
                    None => break,
                },
            };
            let taken = step.commits;
            let write = move |conn: &mut _| write(conn, &step);
            if !self.file.write("make text searchable", write).await? {
                break; // another server is at it
            }
            commits += taken;
        }
        Ok(commits)
    }

    fn last(&self) -> MutexGuard<'_, String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one transaction makes searchable.
#[derive(Debug)]
struct Step {
    /// The workspace whose turn it is.
    workspace: String,
    /// How often the index was written before this step was read.
    writes: i64,
    from: Position,
    to: Position,
    /// How many commits end with it; a part of what was stored before counts as one.
    commits: usize,
    /// The part of what was stored before that it is, instead of commits.
    backlog: Option<Backlog>,
    events: Vec<Text>,
    documents: Vec<Text>,
    /// Audit rows, and messages and tool uses, that were searchable and are gone.
    gone_events: Vec<String>,
    gone_documents: Vec<String>,
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
    /// Up to this id it will be done; none where that is all of it.
    up_to_id: Option<String>,
}

impl Step {
    fn new(workspace: &str, writes: i64, from: Position) -> Self {
        Self {
            workspace: workspace.to_owned(),
            writes,
            from,
            to: from,
            commits: 0,
            backlog: None,
            events: Vec::new(),
            documents: Vec::new(),
            gone_events: Vec::new(),
            gone_documents: Vec::new(),
            seen: HashSet::new(),
            budget_bytes: STEP_BYTES,
            budget_terms: STEP_TERMS,
        }
    }

    fn is_full(&self) -> bool {
        self.budget_bytes == 0 || self.budget_terms == 0
    }
}

/// The workspaces that have commits to be indexed, those behind `last` first: it had its turn.
fn turns(conn: &mut SqliteConnection, last: &str) -> QueryResult<VecDeque<String>> {
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
            (SELECT commit_id FROM index_position WHERE workspace = name), \
            (SELECT from_commit FROM index_state)) ORDER BY name";
    let waiting: Vec<Workspace> = diesel::sql_query(waiting).load(conn)?;
    let (done, next): (Vec<String>, Vec<String>) =
        waiting.into_iter().map(|one| one.name).partition(|name| name.as_str() <= last);
    Ok(next.into_iter().chain(done).collect())
}

/// Reads what comes next of a workspace, of up to `limit` commits; nothing where all is searchable.
fn next_step(
    conn: &mut SqliteConnection,
    workspace: &str,
    limit: usize,
) -> QueryResult<Option<Step>> {
    let writes = writes(conn)?;
    let from = position(conn, workspace)?;
    let rows = commits::table
        .filter(commits::workspace.eq(workspace))
        .filter(commits::id.ge(from.commit))
        .order(commits::id.asc())
        .select((commits::id, commits::events, commits::messages, commits::tool_uses))
        .limit(i64::try_from(limit.min(STEP_COMMITS)).unwrap_or(i64::MAX))
        .load::<(i64, String, String, String)>(conn)?;
    let mut step = Step::new(workspace, writes, from);
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

/// The keys of the next rows of a table of messages or tool uses.
macro_rules! places {
    ($conn:expr, $table:ident, $after:expr) => {{
        use $table::{conversation_id, id, table};
        let (after, after_in) = $after.split_once(' ').unwrap_or_default();
        let in_it = conversation_id.eq(after).and(id.gt(after_in));
        let query = table.filter(conversation_id.gt(after).or(in_it));
        let query = query.order((conversation_id.asc(), id.asc())).limit(BACKLOG_ROWS);
        query.select((conversation_id, id)).load::<Place>($conn)?
    }};
}

/// Reads some of what waits to be indexed anew; nothing where all of it is searchable.
fn backlog_step(conn: &mut SqliteConnection) -> QueryResult<Option<Step>> {
    let writes = writes(conn)?;
    let next = index_backlog::table
        .order(index_backlog::table_name.asc())
        .first::<(String, String)>(conn)
        .optional()?;
    let Some((table_name, after_id)) = next else { return Ok(None) };
    let items: Vec<Item> = match table_name.as_str() {
        "messages" => {
            places!(conn, message_rows, &after_id).into_iter().map(Item::Message).collect()
        }
        "tool_uses" => places!(conn, tool_uses, &after_id).into_iter().map(Item::ToolUse).collect(),
        _ => {
            use webhook_events::{id, table};
            let ids = table.filter(id.gt(&after_id)).order(id.asc()).select(id).limit(BACKLOG_ROWS);
            ids.load(conn)?.into_iter().map(Item::Event).collect()
        }
    };
    let mut step = Step { commits: 1, ..Step::new(BACKLOG, writes, Position::behind(0)) };
    let mut up_to_id = None;
    for item in items {
        if step.is_full() {
            break;
        }
        up_to_id = Some(match &item {
            Item::Event(id) => id.clone(),
            Item::Message((conversation, id)) | Item::ToolUse((conversation, id)) => {
                [conversation.as_str(), id].join(" ")
            }
        });
        step.add(conn, item)?;
    }
    step.backlog = Some(Backlog { table_name, up_to_id });
    Ok(Some(step))
}

/// Stores a step's words and moves the position; returns whether nobody has written to the index since the step was
/// read.
fn write(conn: &mut SqliteConnection, step: &Step) -> QueryResult<bool> {
    if writes(conn)? != step.writes {
        return Ok(false);
    }
    let counted = index_state::writes.eq(index_state::writes + 1);
    diesel::update(index_state::table).set(counted).execute(conn)?;
    for id in &step.gone_events {
        search::events::remove(conn, id)?;
    }
    for id in &step.gone_documents {
        search::documents::remove(conn, id)?;
    }
    let mut free = FreeKeys::default();
    for text in &step.events {
        search::events::add(conn, text, &mut free)?;
    }
    let mut free = FreeKeys::default();
    for text in &step.documents {
        search::put_document(conn, text, &mut free)?;
    }
    if let Some(Backlog { table_name, up_to_id }) = &step.backlog {
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
    Ok(true)
}

/// How often the index was written.
fn writes(conn: &mut SqliteConnection) -> QueryResult<i64> {
    index_state::table.select(index_state::writes).first(conn)
}

/// How far the commits of a workspace are searchable.
fn position(conn: &mut SqliteConnection, workspace: &str) -> QueryResult<Position> {
    let found = index_position::table
        .find(workspace)
        .select((index_position::commit_id, index_position::done))
        .get_result::<(i64, i64)>(conn)
        .optional()?;
    let Some((commit, done)) = found else {
        let commit = index_state::table.select(index_state::from_commit).first(conn)?;
        return Ok(Position { commit, done: 0 });
    };
    Ok(Position { commit, done: usize::try_from(done).unwrap_or(0) })
}

/// Stands for a workspace in steps through what waits to be indexed anew, which have no position.
const BACKLOG: &str = "";

/// Most commits of a step; each holds the ids of a group.
const STEP_COMMITS: usize = 256;

/// How many bytes of text a step reads before it ends; the last text may go beyond.
const STEP_BYTES: usize = 4 * 1024 * 1024;

/// How many terms a step writes before it ends; the last text may go beyond. Fewer would cost more: each transaction
/// leaves a segment of the index, which is merged with others later.
const STEP_TERMS: usize = 128 * 1024;

/// Most rows of a step through what was stored before.
const BACKLOG_ROWS: i64 = 2048;

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
    /// stays as it is while its row does.
    fn add_event(&mut self, conn: &mut SqliteConnection, id: String) -> QueryResult<usize> {
        if search::events::key(conn, &id)?.is_some() {
            let row = webhook_events::table.find(&id);
            if !diesel::select(diesel::dsl::exists(row)).get_result::<bool>(conn)? {
                self.gone_events.push(id);
            }
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
        let Some((workspace, message)) = found else {
            self.gone_documents.push(place.1.clone());
            return Ok(0);
        };
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
        let Some((workspace, row)) = found else {
            self.gone_documents.push(id.clone());
            return Ok(0);
        };
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
