//! Making text searchable, off the hot path.
//!
//! An index position goes through the commits. Each step reads some of what they touched beside the
//! writer and computes the words; a transaction of its own then stores the words and moves the
//! position. A step is small, so that neither the writer nor the memory is held for long by commits
//! of many large payloads.

use std::collections::HashSet;

use arrakis_core::search::{payload_words, words};
use diesel::prelude::*;
use diesel::result::QueryResult;

use crate::feed::{self, Position};
use crate::row::{Now, body_of, json, time, uuid};
use crate::schema::{commits, index_position, messages, webhook_events};
use crate::search::{self, Mark, Text};

/// What one transaction makes searchable.
#[derive(Debug)]
pub(crate) struct Step {
    from: Position,
    to: Position,
    commits: usize,
    events: Vec<Text>,
    messages: Vec<Text>,
    /// What was looked at, by its id: commits name what they have in common.
    seen: HashSet<String>,
    /// How much more it may read.
    budget_bytes: usize,
}

impl Step {
    /// How many commits end with it.
    pub(crate) fn commits(&self) -> usize {
        self.commits
    }
}

/// Reads what comes next, of up to `limit` commits; nothing where all is searchable.
pub(crate) fn next_step(conn: &mut SqliteConnection, limit: usize) -> QueryResult<Option<Step>> {
    let from = position(conn)?;
    let rows = commits::table
        .filter(commits::id.ge(from.commit))
        .order(commits::id.asc())
        .select((commits::id, commits::events, commits::messages))
        .limit(i64::try_from(limit.min(STEP_COMMITS)).unwrap_or(i64::MAX))
        .load::<(i64, String, String)>(conn)?;
    let mut step = Step {
        from,
        to: from,
        commits: 0,
        events: Vec::new(),
        messages: Vec::new(),
        seen: HashSet::new(),
        budget_bytes: STEP_BYTES,
    };
    for (commit, events, messages) in rows {
        let events: Vec<String> = json("events", &events)?;
        let messages: Vec<String> = json("messages", &messages)?;
        let events = events.into_iter().map(Item::Event);
        let items = events.chain(messages.into_iter().map(Item::Message));
        for (done, item) in items.enumerate().skip(from.done_of(commit)) {
            if step.budget_bytes == 0 {
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

/// Stores a step's words and moves the position; returns whether it was still this step's turn, or
/// another process has taken it.
pub(crate) fn write(conn: &mut SqliteConnection, step: &Step, now: &Now) -> QueryResult<bool> {
    if position(conn)? != step.from {
        return Ok(false);
    }
    for text in &step.events {
        // The row may have been pruned since its body was read.
        let is_there =
            diesel::select(diesel::dsl::exists(webhook_events::table.find(text.id.as_str())))
                .get_result(conn)?;
        if is_there {
            search::events::put(conn, text)?;
        }
    }
    for text in &step.messages {
        search::messages::put(conn, text)?;
    }
    diesel::update(index_position::table)
        .set((
            index_position::commit_id.eq(step.to.commit),
            index_position::done.eq(i64::try_from(step.to.done).unwrap_or(i64::MAX)),
        ))
        .execute(conn)?;
    feed::clean(conn, step.to, now)?;
    Ok(true)
}

/// How far the commits are searchable.
pub(crate) fn position(conn: &mut SqliteConnection) -> QueryResult<Position> {
    let (commit, done) = index_position::table
        .select((index_position::commit_id, index_position::done))
        .get_result::<(i64, i64)>(conn)?;
    Ok(Position { commit, done: usize::try_from(done).unwrap_or(0) })
}

/// Most commits of a step; each holds the ids of a group.
const STEP_COMMITS: usize = 64;

/// How many bytes of text a step reads before it ends; the last text may go beyond. To store the words
/// of so much keeps the writer about as long as a group of events does.
const STEP_BYTES: usize = 256 * 1024;

/// What a text costs besides its bytes, so that a step has not too many small ones either.
const ITEM_BYTES: usize = 512;

/// Something that a commit touched, by its id.
enum Item {
    Event(String),
    Message(String),
}

impl Step {
    fn add(&mut self, conn: &mut SqliteConnection, item: Item) -> QueryResult<()> {
        let (Item::Event(id) | Item::Message(id)) = &item;
        if !self.seen.insert(id.clone()) {
            return Ok(());
        }
        let read_bytes = match item {
            Item::Event(id) => self.add_event(conn, id)?,
            Item::Message(id) => self.add_message(conn, id)?,
        };
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
            text.mark(Mark::Workspace, &row.workspace);
            text.mark(Mark::EventType, &row.event_type);
            text.mark(Mark::Request, &row.request_id);
            if let Some(session_id) = &row.session_id {
                text.mark(Mark::Session, session_id);
            }
            self.events.push(text);
        }
        Ok(body.len())
    }

    /// Adds a message; returns how much was read.
    fn add_message(&mut self, conn: &mut SqliteConnection, id: String) -> QueryResult<usize> {
        let found = messages::table
            .find(&id)
            .select((messages::workspace, messages::content, messages::timestamp))
            .get_result::<(String, String, String)>(conn)
            .optional()?;
        let Some((workspace, content, timestamp)) = found else { return Ok(0) };
        let mut text = Text::of_message(id, time("timestamp", &timestamp)?, words(&content));
        text.mark(Mark::Workspace, &workspace);
        self.messages.push(text);
        Ok(content.len())
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
