//! Adding up what commits say. A step reads some of them, changes the sums and moves the position in one transaction, so
//! each commit is added once. One server does it at a time.

use std::collections::BTreeMap;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::store::RollupStep;
use arrakis_core::record::store::adapter::{
    Bucket, Count, CountKey, CountedMessage, Counts, MessageMetadata, UsageChange, UsageChanges,
    UsageKey,
};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Bool, Jsonb, SmallInt, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use uuid::Uuid;

use super::sql_of_step;
use crate::error::{TxError, unreadable};
use crate::feed::{self, NoPosition, Position};
use crate::row::{At, JsonText, json, parse, readable, shown};
use crate::schema::message_rows;
use crate::statement::Statement;

type SqlUuid = diesel::sql_types::Uuid;

/// Most commits that one step adds, and most messages, unless a single commit has more: little enough for one
/// transaction.
const STEP_COMMITS: usize = 100;
const STEP_MESSAGES: usize = 2000;

/// How far the commits are added, and from when on there are minutes and hours.
struct Place {
    position: Position,
    minutes_from: Timestamp,
    hours_from: Timestamp,
}

impl Place {
    /// Takes the place until the transaction ends; nothing while another server has it.
    async fn take(conn: &mut AsyncPgConnection) -> QueryResult<Option<Self>> {
        const TAKE: &str = "SELECT position, minutes_from, hours_from FROM rollup_position \
            FOR UPDATE SKIP LOCKED";
        let taken = Statement::<(Text, Timestamptz, Timestamptz)>::new(TAKE)
            .get_result::<(String, At, At)>(conn)
            .await
            .optional()?;
        let Some((position, At(minutes_from), At(hours_from))) = taken else { return Ok(None) };
        let position = position
            .parse()
            .map_err(|NoPosition| unreadable("position", "this is no position of the feed"))?;
        Ok(Some(Self { position, minutes_from, hours_from }))
    }

    fn floor(&self, step: RollupStep) -> Timestamp {
        match step {
            RollupStep::Minute => self.minutes_from,
            RollupStep::Hour => self.hours_from,
            RollupStep::Day => Timestamp::from_micros(i64::MIN),
        }
    }
}

/// Adds some of up to `limit` commits; returns how many, or nothing where there is nothing to do, as while
/// another server does it.
pub(crate) async fn step(
    conn: &mut AsyncPgConnection,
    limit: usize,
) -> Result<Option<usize>, TxError> {
    let Some(place) = Place::take(conn).await? else { return Ok(None) };
    let commits = feed::commits(conn, &place.position, None, limit.min(STEP_COMMITS)).await?;
    let (mut counts, mut messages, mut taken) = (Counts::default(), Vec::new(), 0);
    for row in &commits.rows {
        if taken > 0 && messages.len() + row.items.messages.len() > STEP_MESSAGES {
            break;
        }
        counts.merge(row.items.counts.clone());
        messages.extend(&row.items.messages);
        taken += 1;
    }
    if taken == 0 {
        return Ok(None);
    }
    add_counts(conn, &counts, &place).await?;
    for messages in messages.chunks(STEP_MESSAGES) {
        count_messages(conn, messages).await?;
    }
    Statement::<()>::new("UPDATE rollup_position SET position = ?")
        .bind::<Text>(commits.position(taken, 0).to_string())
        .execute(conn)
        .await?;
    Ok(Some(taken))
}

/// Adds all commits of another server, as a restored dump has them: what they say would go with them. Their numbers
/// mean nothing here, so none is waited for.
pub(crate) async fn finish_foreign(conn: &mut AsyncPgConnection) -> Result<(), TxError> {
    /// Whether there are commits or a position that this server cannot have reached.
    macro_rules! foreign {
        () => {
            "(pg_snapshot_xmax(split_part(position, '/', 1)::pg_snapshot) \
                > pg_snapshot_xmax(pg_current_snapshot()) \
            OR EXISTS (SELECT FROM commits WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())))"
        };
    }
    const GO_TO_THE_LAST: &str = concat!(
        "UPDATE rollup_position SET position = concat(position, '/', last, ':', last, ':/0/0/0') FROM \
            (SELECT max(xid)::text::numeric + 1 AS last FROM commits) AS newest \
        WHERE strpos(position, '/') = 0 AND last IS NOT NULL AND ",
        foreign!()
    );
    const IS_FOREIGN: &str = concat!("SELECT ", foreign!(), " FROM rollup_position");
    loop {
        conn.batch_execute("BEGIN").await?;
        conn.batch_execute(GO_TO_THE_LAST).await?;
        let is_foreign: bool = Statement::<Bool>::new(IS_FOREIGN).get_result(conn).await?;
        let done = if is_foreign { step(conn, STEP_COMMITS).await } else { Ok(None) };
        conn.batch_execute(if done.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
        if done?.is_none() {
            return Ok(());
        }
    }
}

async fn add_counts(
    conn: &mut AsyncPgConnection,
    counts: &Counts,
    place: &Place,
) -> QueryResult<()> {
    for step in RollupStep::ALL {
        for bucket in counts.buckets(step, place.floor(step)) {
            let stored = stored(conn, step, &bucket).await?;
            let rows = match bucket.has_all(&stored) {
                true => 0,
                false => rows_of(conn, step, &bucket).await?,
            };
            put(conn, step, &bucket, &bucket.joined(stored, rows)).await?;
        }
    }
    Ok(())
}

/// Gives a statement the columns of keys.
fn bind_keys<'a, ST>(statement: Statement<'a, ST>, keys: &[&'a CountKey]) -> Statement<'a, ST> {
    let all = |text: fn(&CountKey) -> &str| keys.iter().map(|key| text(key)).collect::<Vec<_>>();
    statement
        .bind::<Array<Text>>(all(|key| &key.event_type))
        .bind::<Array<Text>>(all(|key| key.status.as_str()))
        .bind::<Array<Text>>(all(|key| &key.error_code))
        .bind::<Array<Text>>(all(|key| &key.host))
}

/// The rows of a bucket that have to be known.
async fn stored(
    conn: &mut AsyncPgConnection,
    step: RollupStep,
    bucket: &Bucket,
) -> QueryResult<BTreeMap<CountKey, Count>> {
    type Sql = (Text, Text, Text, Text, BigInt, BigInt, Text);
    let sql = sql_of_step!(
        step,
        "SELECT r.event_type, r.status, r.error_code, r.host, r.events, r.bytes, r.latency \
         FROM unnest(?, ?, ?, ?) AS v (event_type, status, error_code, host) JOIN ",
        " AS r USING (event_type, status, error_code, host) WHERE r.workspace = ? AND r.at = ?"
    );
    let keys = bucket.keys();
    let rows: Vec<(String, String, String, String, i64, i64, String)> =
        bind_keys(Statement::<Sql>::new(sql), &keys.iter().collect::<Vec<_>>())
            .bind::<Text>(&bucket.workspace)
            .bind::<Timestamptz>(At(bucket.at))
            .load(conn)
            .await?;
    let read = |(event_type, status, error_code, host, events, bytes, latency): (
        _,
        String,
        _,
        _,
        _,
        _,
        String,
    )| {
        let key = CountKey { event_type, status: parse("status", &status)?, error_code, host };
        Ok((key, Count { events, bytes, latency: parse("latency", &latency)? }))
    };
    rows.into_iter().map(read).collect()
}

/// How many rows a bucket has.
async fn rows_of(
    conn: &mut AsyncPgConnection,
    step: RollupStep,
    bucket: &Bucket,
) -> QueryResult<usize> {
    let sql = sql_of_step!(step, "SELECT count(*) FROM ", " WHERE workspace = ? AND at = ?");
    let count: i64 = Statement::<BigInt>::new(sql)
        .bind::<Text>(&bucket.workspace)
        .bind::<Timestamptz>(At(bucket.at))
        .get_result(conn)
        .await?;
    Ok(usize::try_from(count).unwrap_or(0))
}

async fn put(
    conn: &mut AsyncPgConnection,
    step: RollupStep,
    bucket: &Bucket,
    rows: &BTreeMap<CountKey, Count>,
) -> QueryResult<()> {
    let sql = sql_of_step!(
        step,
        "INSERT INTO ",
        " (event_type, status, error_code, host, events, bytes, latency, workspace, at) \
          SELECT v.*, n.* FROM unnest(?, ?, ?, ?, ?, ?, ?) AS v, (SELECT ?, ?) AS n \
          ON CONFLICT (workspace, at, event_type, status, error_code, host) DO UPDATE \
          SET events = excluded.events, bytes = excluded.bytes, latency = excluded.latency"
    );
    bind_keys(Statement::<()>::new(sql), &rows.keys().collect::<Vec<_>>())
        .bind::<Array<BigInt>>(rows.values().map(|one| one.events).collect::<Vec<_>>())
        .bind::<Array<BigInt>>(rows.values().map(|one| one.bytes).collect::<Vec<_>>())
        .bind::<Array<Text>>(rows.values().map(|one| one.latency.to_string()).collect::<Vec<_>>())
        .bind::<Text>(&bucket.workspace)
        .bind::<Timestamptz>(At(bucket.at))
        .execute(conn)
        .await?;
    Ok(())
}

/// Counts messages as they are now.
async fn count_messages(conn: &mut AsyncPgConnection, ids: &[Uuid]) -> QueryResult<()> {
    type Row = (Uuid, String, Uuid, At, JsonText<'static>, Option<String>);
    if ids.is_empty() {
        return Ok(());
    }
    let rows: Vec<Row> = message_rows::table
        .filter(message_rows::id.eq_any(ids))
        .select((
            message_rows::id,
            message_rows::workspace,
            message_rows::conversation_id,
            message_rows::timestamp,
            message_rows::metadata,
            message_rows::model,
        ))
        .load(conn)
        .await?;
    let counted = |(id, workspace, conversation_id, At(at), metadata, model): Row| {
        let counted = || {
            let metadata: MessageMetadata<'static> = json("metadata", metadata)?;
            let parts = metadata.parts((id, conversation_id), at, model.as_deref());
            let message = CountedMessage::of(&workspace, parts);
            Ok(message.map(|one| CountedMessage { api_id: shown(&one.api_id).into(), ..one }))
        };
        readable("messages", id, counted()).flatten()
    };
    let came: Vec<CountedMessage> = rows.into_iter().filter_map(counted).collect();
    if came.is_empty() {
        return Ok(());
    }
    let (messages, changes) = UsageChanges::of(known(conn, &came).await?, came);
    put_messages(conn, &messages).await?;
    let changes: Vec<_> = changes.iter().collect();
    change_usage(conn, &changes).await
}

/// What messages of the same API ids are counted as.
async fn known(
    conn: &mut AsyncPgConnection,
    came: &[CountedMessage],
) -> QueryResult<Vec<CountedMessage>> {
    const SQL: &str = "SELECT m.workspace, m.api_id, m.at, m.conversation_id, m.model, \
        m.is_subagent, m.is_copied, m.usage FROM (SELECT DISTINCT * FROM unnest(?, ?) AS v (workspace, api_id)) \
        AS v JOIN usage_messages AS m USING (workspace, api_id)";
    type Sql = (Text, Text, Timestamptz, SqlUuid, Text, Bool, Bool, Jsonb);
    type Row = (String, String, At, Uuid, String, bool, bool, JsonText<'static>);
    let rows: Vec<Row> = Statement::<Sql>::new(SQL)
        .bind::<Array<Text>>(came.iter().map(|one| one.workspace.as_str()).collect::<Vec<_>>())
        .bind::<Array<Text>>(came.iter().map(|one| one.api_id.as_str()).collect::<Vec<_>>())
        .load(conn)
        .await?;
    let message = |row: Row| {
        let (workspace, api_id, At(at), conversation_id, model, is_subagent, is_copied, usage) =
            row;
        let usage = json("usage", usage)?;
        Ok(CountedMessage {
            workspace,
            api_id,
            at,
            conversation_id,
            model,
            is_subagent,
            is_copied,
            usage,
        })
    };
    rows.into_iter().map(message).collect()
}

async fn put_messages(
    conn: &mut AsyncPgConnection,
    messages: &[CountedMessage],
) -> QueryResult<()> {
    const SQL: &str = "INSERT INTO usage_messages \
        (workspace, api_id, at, conversation_id, model, is_subagent, is_copied, usage) \
        SELECT * FROM unnest(?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (workspace, api_id) DO UPDATE \
        SET at = excluded.at, conversation_id = excluded.conversation_id, \
        model = excluded.model, is_subagent = excluded.is_subagent, is_copied = excluded.is_copied, \
        usage = excluded.usage";
    if messages.is_empty() {
        return Ok(());
    }
    let all = || messages.iter();
    let usage = all().map(|one| JsonText::of(&one.usage)).collect::<QueryResult<Vec<_>>>()?;
    Statement::<()>::new(SQL)
        .bind::<Array<Text>>(all().map(|one| one.workspace.as_str()).collect::<Vec<_>>())
        .bind::<Array<Text>>(all().map(|one| one.api_id.as_str()).collect::<Vec<_>>())
        .bind::<Array<Timestamptz>>(all().map(|one| At(one.at)).collect::<Vec<_>>())
        .bind::<Array<SqlUuid>>(all().map(|one| one.conversation_id).collect::<Vec<_>>())
        .bind::<Array<Text>>(all().map(|one| one.model.as_str()).collect::<Vec<_>>())
        .bind::<Array<Bool>>(all().map(|one| one.is_subagent).collect::<Vec<_>>())
        .bind::<Array<Bool>>(all().map(|one| one.is_copied).collect::<Vec<_>>())
        .bind::<Array<Jsonb>>(usage)
        .execute(conn)
        .await?;
    Ok(())
}

async fn change_usage(
    conn: &mut AsyncPgConnection,
    changes: &[(&UsageKey, &UsageChange)],
) -> QueryResult<()> {
    const SQL: &str = "INSERT INTO usage_15min AS u (workspace, at, conversation_id, model, \
        is_subagent, prompt_size, messages, input_tokens, output_tokens, cache_read_tokens, \
        cache_creation_tokens, cache_creation_1h_tokens, thinking_tokens, web_searches) \
        SELECT * FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
        ON CONFLICT (workspace, at, conversation_id, model, is_subagent, prompt_size) DO UPDATE \
        SET messages = u.messages + excluded.messages, \
        input_tokens = u.input_tokens + excluded.input_tokens, \
        output_tokens = u.output_tokens + excluded.output_tokens, \
        cache_read_tokens = u.cache_read_tokens + excluded.cache_read_tokens, \
        cache_creation_tokens = u.cache_creation_tokens + excluded.cache_creation_tokens, \
        cache_creation_1h_tokens = \
            u.cache_creation_1h_tokens + excluded.cache_creation_1h_tokens, \
        thinking_tokens = u.thinking_tokens + excluded.thinking_tokens, \
        web_searches = u.web_searches + excluded.web_searches";
    const FORGET_EMPTY: &str = "DELETE FROM usage_15min AS u \
        USING unnest(?, ?, ?) AS v (workspace, at, conversation_id) \
        WHERE u.workspace = v.workspace AND u.at = v.at \
        AND u.conversation_id = v.conversation_id AND u.messages = 0";
    if changes.is_empty() {
        return Ok(());
    }
    let keys = || changes.iter().map(|(key, _)| *key);
    let workspaces = || keys().map(|key| key.workspace.as_str()).collect::<Vec<_>>();
    let times = || keys().map(|key| At(key.at)).collect::<Vec<_>>();
    let conversations = || keys().map(|key| key.conversation_id).collect::<Vec<_>>();
    let tokens = |n: usize| {
        let one = move |(_, change): &(_, &UsageChange)| change.tokens.get(n).copied();
        changes.iter().map(one).map(Option::unwrap_or_default).collect::<Vec<_>>()
    };
    let sizes = keys().map(|key| i16::from(key.prompt_size.as_number())).collect::<Vec<_>>();
    let mut statement = Statement::<()>::new(SQL)
        .bind::<Array<Text>>(workspaces())
        .bind::<Array<Timestamptz>>(times())
        .bind::<Array<SqlUuid>>(conversations())
        .bind::<Array<Text>>(keys().map(|key| key.model.as_str()).collect::<Vec<_>>())
        .bind::<Array<Bool>>(keys().map(|key| key.is_subagent).collect::<Vec<_>>())
        .bind::<Array<SmallInt>>(sizes)
        .bind::<Array<BigInt>>(changes.iter().map(|(_, one)| one.messages).collect::<Vec<_>>());
    for n in 0..7 {
        statement = statement.bind::<Array<BigInt>>(tokens(n));
    }
    statement.execute(conn).await?;
    Statement::<()>::new(FORGET_EMPTY)
        .bind::<Array<Text>>(workspaces())
        .bind::<Array<Timestamptz>>(times())
        .bind::<Array<SqlUuid>>(conversations())
        .execute(conn)
        .await?;
    Ok(())
}

/// Deletes up to `limit` rows of each step that are kept no longer; returns how many.
pub(crate) async fn forget(
    conn: &mut AsyncPgConnection,
    limit: usize,
    now: Timestamp,
) -> QueryResult<usize> {
    let Some(place) = Place::take(conn).await? else { return Ok(0) };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let floor = |step: RollupStep| {
        let kept = step.kept().map(|kept| step.bucket(now.minus(kept)));
        place.floor(step).max(kept.unwrap_or(place.floor(step)))
    };
    Statement::<()>::new("UPDATE rollup_position SET minutes_from = ?, hours_from = ?")
        .bind::<Timestamptz>(At(floor(RollupStep::Minute)))
        .bind::<Timestamptz>(At(floor(RollupStep::Hour)))
        .execute(conn)
        .await?;
    let mut forgotten = 0;
    for (step, sql) in [
        (
            RollupStep::Minute,
            "DELETE FROM rollup_minute WHERE ctid = ANY (ARRAY(\
                SELECT ctid FROM rollup_minute WHERE at < ? LIMIT ?))",
        ),
        (
            RollupStep::Hour,
            "DELETE FROM rollup_hour WHERE ctid = ANY (ARRAY(\
                SELECT ctid FROM rollup_hour WHERE at < ? LIMIT ?))",
        ),
    ] {
        forgotten += Statement::<()>::new(sql)
            .bind::<Timestamptz>(At(floor(step)))
            .bind::<BigInt>(limit)
            .execute(conn)
            .await?;
    }
    Ok(forgotten)
}
