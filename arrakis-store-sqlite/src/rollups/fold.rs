//! Adding up what commits say. A step reads some of them beside the writer; a transaction of its own then changes the
//! sums and moves the position, so each commit is added once.

use std::collections::BTreeMap;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::store::RollupStep;
use arrakis_core::record::store::adapter::{
    Bucket, Count, CountKey, CountedMessage, Counts, MessageMetadata, UsageChange, UsageChanges,
    UsageKey,
};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{BigInt, Bool, Text};

use super::table;
use crate::feed::{Place, Position};
use crate::row::{Now, json, parse, readable, time, to_json, uuid};
use crate::schema::{commits, message_rows, rollup_position};

/// Most commits of a step.
const STEP_COMMITS: usize = 100;

/// Most messages of a step: so many are counted in a few milliseconds.
const STEP_MESSAGES: usize = 500;

/// What one transaction adds.
#[derive(Debug)]
pub(crate) struct Step {
    from: Position,
    to: Position,
    commits: usize,
    counts: Counts,
    messages: Vec<CountedMessage>,
}

impl Step {
    /// How many commits end with it.
    pub(crate) fn commits(&self) -> usize {
        self.commits
    }
}

/// Reads what comes next, of up to `limit` commits; nothing where all is added.
pub(crate) fn next_step(conn: &mut SqliteConnection, limit: usize) -> QueryResult<Option<Step>> {
    let from = position(conn)?;
    let rows = commits::table
        .filter(commits::id.ge(from.commit))
        .order(commits::id.asc())
        .select((commits::id, commits::workspace, commits::messages, commits::counts))
        .limit(i64::try_from(limit.min(STEP_COMMITS)).unwrap_or(i64::MAX))
        .load::<(i64, String, String, String)>(conn)?;
    let mut step =
        Step { from, to: from, commits: 0, counts: Counts::default(), messages: Vec::new() };
    let mut left = STEP_MESSAGES;
    for (commit, workspace, places, counts) in rows {
        if left == 0 {
            break;
        }
        let done = from.done_of(commit);
        if done == 0 {
            step.counts.merge(json("counts", &counts)?);
        }
        let places: Vec<Place> = json("messages", &places)?;
        for (done, place) in places.iter().enumerate().skip(done) {
            if left == 0 {
                step.to = Position { commit, done };
                return Ok(Some(step));
            }
            step.messages.extend(message(conn, &workspace, place)?);
            left -= 1;
        }
        step.to = Position::behind(commit);
        step.commits += 1;
    }
    Ok((step.to != from).then_some(step))
}

/// A message as it is counted; nothing where it took nothing, or was pruned.
fn message(
    conn: &mut SqliteConnection,
    workspace: &str,
    place: &Place,
) -> QueryResult<Option<CountedMessage>> {
    let (conversation_id, id) = place;
    let found = message_rows::table
        .find((conversation_id, id))
        .select((message_rows::timestamp, message_rows::metadata, message_rows::model))
        .get_result::<(String, String, Option<String>)>(conn)
        .optional()?;
    let Some((at, metadata, model)) = found else { return Ok(None) };
    let counted = || {
        let metadata: MessageMetadata<'static> = json("metadata", &metadata)?;
        let ids = (uuid("id", id)?, uuid("conversation_id", conversation_id)?);
        let parts = metadata.parts(ids, time("timestamp", &at)?, model.as_deref());
        Ok(CountedMessage::of(workspace, parts))
    };
    Ok(readable("messages", id, counted()).flatten())
}

/// Adds a step and moves the position; returns whether it was still this step's turn, or another process has taken it.
pub(crate) fn write(conn: &mut SqliteConnection, step: &Step) -> QueryResult<bool> {
    if position(conn)? != step.from {
        return Ok(false);
    }
    for rollup in RollupStep::ALL {
        let floor = floor(conn, rollup)?;
        for bucket in step.counts.buckets(rollup, floor) {
            add(conn, rollup, &bucket)?;
        }
    }
    count_messages(conn, step.messages.clone())?;
    diesel::update(rollup_position::table)
        .set((
            rollup_position::commit_id.eq(step.to.commit),
            rollup_position::done.eq(i64::try_from(step.to.done).unwrap_or(i64::MAX)),
        ))
        .execute(conn)?;
    Ok(true)
}

/// How far the commits are added.
fn position(conn: &mut SqliteConnection) -> QueryResult<Position> {
    let (commit, done) = rollup_position::table
        .select((rollup_position::commit_id, rollup_position::done))
        .get_result::<(i64, i64)>(conn)?;
    Ok(Position { commit, done: usize::try_from(done).unwrap_or(0) })
}

/// From when on there are buckets of a step.
fn floor(conn: &mut SqliteConnection, step: RollupStep) -> QueryResult<Timestamp> {
    let (minutes, hours) = rollup_position::table
        .select((rollup_position::minutes_from, rollup_position::hours_from))
        .get_result::<(String, String)>(conn)?;
    match step {
        RollupStep::Minute => time("minutes_from", &minutes),
        RollupStep::Hour => time("hours_from", &hours),
        RollupStep::Day => Ok(Timestamp::from_micros(i64::MIN)),
    }
}

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = BigInt)]
    events: i64,
    #[diesel(sql_type = BigInt)]
    bytes: i64,
    #[diesel(sql_type = Text)]
    latency: String,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

fn add(conn: &mut SqliteConnection, step: RollupStep, bucket: &Bucket) -> QueryResult<()> {
    let (table, at) = (table(step), bucket.at.to_string());
    let mut stored = BTreeMap::new();
    for key in bucket.keys() {
        let CountKey { event_type, status, error_code, host } = &key;
        let row = diesel::sql_query(format!(
            "SELECT events, bytes, latency FROM {table} WHERE workspace = ? AND at = ? \
             AND event_type = ? AND status = ? AND error_code = ? AND host = ?"
        ))
        .bind::<Text, _>(&bucket.workspace)
        .bind::<Text, _>(&at)
        .bind::<Text, _>(event_type)
        .bind::<Text, _>(status.as_str())
        .bind::<Text, _>(error_code)
        .bind::<Text, _>(host)
        .get_result::<CountRow>(conn)
        .optional()?;
        if let Some(CountRow { events, bytes, latency }) = row {
            let latency = parse("latency", &latency)?;
            stored.insert(key, Count { events, bytes, latency });
        }
    }
    let rows = if bucket.has_all(&stored) { 0 } else { rows_of(conn, table, bucket)? };
    for (CountKey { event_type, status, error_code, host }, count) in bucket.joined(stored, rows) {
        diesel::sql_query(format!("REPLACE INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"))
            .bind::<Text, _>(&bucket.workspace)
            .bind::<Text, _>(&at)
            .bind::<Text, _>(event_type)
            .bind::<Text, _>(status.as_str())
            .bind::<Text, _>(error_code)
            .bind::<Text, _>(host)
            .bind::<BigInt, _>(count.events)
            .bind::<BigInt, _>(count.bytes)
            .bind::<Text, _>(count.latency.to_string())
            .execute(conn)?;
    }
    Ok(())
}

/// How many rows a bucket has.
fn rows_of(conn: &mut SqliteConnection, table: &str, bucket: &Bucket) -> QueryResult<usize> {
    let count = format!("SELECT count(*) AS number FROM {table} WHERE workspace = ? AND at = ?");
    let Number { number } = diesel::sql_query(count)
        .bind::<Text, _>(&bucket.workspace)
        .bind::<Text, _>(bucket.at.to_string())
        .get_result(conn)?;
    Ok(usize::try_from(number).unwrap_or(0))
}

#[derive(QueryableByName)]
struct MessageRow {
    #[diesel(sql_type = Text)]
    at: String,
    #[diesel(sql_type = Text)]
    conversation_id: String,
    #[diesel(sql_type = Text)]
    model: String,
    #[diesel(sql_type = Bool)]
    is_subagent: bool,
    #[diesel(sql_type = Bool)]
    is_copied: bool,
    #[diesel(sql_type = Text)]
    usage: String,
}

fn count_messages(conn: &mut SqliteConnection, came: Vec<CountedMessage>) -> QueryResult<()> {
    let mut known = Vec::new();
    for CountedMessage { workspace, api_id, .. } in &came {
        let row = diesel::sql_query(
            "SELECT at, conversation_id, model, is_subagent, is_copied, usage FROM usage_messages \
             WHERE workspace = ? AND api_id = ?",
        )
        .bind::<Text, _>(workspace)
        .bind::<Text, _>(api_id)
        .get_result::<MessageRow>(conn)
        .optional()?;
        let Some(row) = row else { continue };
        known.push(CountedMessage {
            workspace: workspace.clone(),
            api_id: api_id.clone(),
            at: time("at", &row.at)?,
            conversation_id: uuid("conversation_id", &row.conversation_id)?,
            model: row.model,
            is_subagent: row.is_subagent,
            is_copied: row.is_copied,
            usage: json("usage", &row.usage)?,
        });
    }
    let (messages, changes) = UsageChanges::of(known, came);
    for message in messages {
        diesel::sql_query("REPLACE INTO usage_messages VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
            .bind::<Text, _>(message.workspace)
            .bind::<Text, _>(message.api_id)
            .bind::<Text, _>(message.at.to_string())
            .bind::<Text, _>(message.conversation_id.to_string())
            .bind::<Text, _>(message.model)
            .bind::<Bool, _>(message.is_subagent)
            .bind::<Bool, _>(message.is_copied)
            .bind::<Text, _>(to_json(&message.usage)?)
            .execute(conn)?;
    }
    for (key, change) in changes.iter() {
        change_usage(conn, key, change)?;
    }
    Ok(())
}

fn change_usage(
    conn: &mut SqliteConnection,
    key: &UsageKey,
    change: &UsageChange,
) -> QueryResult<()> {
    let (at, conversation_id) = (key.at.to_string(), key.conversation_id.to_string());
    let [input, output, cache_read, cache_creation, cache_creation_1h, thinking, searches] =
        change.tokens;
    diesel::sql_query(
        "INSERT INTO usage_15min VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT DO UPDATE SET messages = messages + excluded.messages, \
         input_tokens = input_tokens + excluded.input_tokens, \
         output_tokens = output_tokens + excluded.output_tokens, \
         cache_read_tokens = cache_read_tokens + excluded.cache_read_tokens, \
         cache_creation_tokens = cache_creation_tokens + excluded.cache_creation_tokens, \
         cache_creation_1h_tokens = cache_creation_1h_tokens + excluded.cache_creation_1h_tokens, \
         thinking_tokens = thinking_tokens + excluded.thinking_tokens, \
         web_searches = web_searches + excluded.web_searches",
    )
    .bind::<Text, _>(&key.workspace)
    .bind::<Text, _>(&at)
    .bind::<Text, _>(&conversation_id)
    .bind::<Text, _>(&key.model)
    .bind::<Bool, _>(key.is_subagent)
    .bind::<BigInt, _>(i64::from(key.prompt_size.as_number()))
    .bind::<BigInt, _>(change.messages)
    .bind::<BigInt, _>(input)
    .bind::<BigInt, _>(output)
    .bind::<BigInt, _>(cache_read)
    .bind::<BigInt, _>(cache_creation)
    .bind::<BigInt, _>(cache_creation_1h)
    .bind::<BigInt, _>(thinking)
    .bind::<BigInt, _>(searches)
    .execute(conn)?;
    let empty = "DELETE FROM usage_15min \
        WHERE workspace = ? AND at = ? AND conversation_id = ? AND messages = 0";
    if change.messages < 0 {
        diesel::sql_query(empty)
            .bind::<Text, _>(&key.workspace)
            .bind::<Text, _>(&at)
            .bind::<Text, _>(&conversation_id)
            .execute(conn)?;
    }
    Ok(())
}

/// Deletes up to `limit` rows of each step that are kept no longer; returns how many.
pub(crate) fn forget(conn: &mut SqliteConnection, limit: usize, now: &Now) -> QueryResult<usize> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut forgotten = 0;
    for step in RollupStep::ALL {
        let Some(kept) = step.kept() else { continue };
        let floor = step.bucket(now.at.minus(kept)).max(floor(conn, step)?).to_string();
        let moved = diesel::update(rollup_position::table);
        if step == RollupStep::Minute {
            moved.set(rollup_position::minutes_from.eq(&floor)).execute(conn)?;
        } else {
            moved.set(rollup_position::hours_from.eq(&floor)).execute(conn)?;
        }
        let table = table(step);
        forgotten += diesel::sql_query(format!(
            "DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE at < ? LIMIT ?)"
        ))
        .bind::<Text, _>(&floor)
        .bind::<BigInt, _>(limit)
        .execute(conn)?;
    }
    Ok(forgotten)
}
