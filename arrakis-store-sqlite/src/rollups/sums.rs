//! Reading what was added up.

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::limits::SUMS_MAX;
use arrakis_core::record::store::adapter::UsageChange;
use arrakis_core::record::store::{EventSum, EventSums, UsageSum, UsageSums};
use arrakis_core::session::price::PromptSize;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};

use super::table;
use crate::row::{maybe_time, maybe_uuid, parse};

#[derive(QueryableByName)]
struct EventRow {
    #[diesel(sql_type = Nullable<Text>)]
    bucket: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    of_type: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    of_status: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    of_code: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    of_host: Option<String>,
    #[diesel(sql_type = BigInt)]
    events: i64,
    #[diesel(sql_type = BigInt)]
    bytes: i64,
    #[diesel(sql_type = Nullable<Text>)]
    latency: Option<String>,
}

/// Counts of events, grouped as asked, in no order: up to one more than there may be.
pub(crate) fn events(conn: &mut SqliteConnection, query: &EventSums) -> QueryResult<Vec<EventSum>> {
    let EventSums { workspace, step, from, to, by, latency } = query;
    let table = table(*step);
    let rows: Vec<EventRow> = diesel::sql_query(format!(
        "SELECT CASE WHEN ? THEN at END AS bucket, CASE WHEN ? THEN event_type END AS of_type, \
         CASE WHEN ? THEN status END AS of_status, CASE WHEN ? THEN error_code END AS of_code, \
         CASE WHEN ? THEN host END AS of_host, sum(events) AS events, sum(bytes) AS bytes, \
         CASE WHEN ? THEN group_concat(latency, ' ') END AS latency FROM {table} \
         WHERE workspace = ? AND at >= ? AND at < ? AND events <> 0 GROUP BY 1, 2, 3, 4, 5 LIMIT ?"
    ))
    .bind::<Bool, _>(by.bucket)
    .bind::<Bool, _>(by.event_type)
    .bind::<Bool, _>(by.status)
    .bind::<Bool, _>(by.error_code)
    .bind::<Bool, _>(by.host)
    .bind::<Bool, _>(latency)
    .bind::<Text, _>(workspace)
    .bind::<Text, _>(step.bucket(*from).to_string())
    .bind::<Text, _>(to.to_string())
    .bind::<BigInt, _>(limit())
    .load(conn)?;
    let sum = |row: EventRow| {
        Ok(EventSum {
            at: maybe_time("at", row.bucket.as_deref())?,
            event_type: row.of_type,
            status: row.of_status.map(|text| parse("status", &text)).transpose()?,
            error_code: row.of_code,
            host: row.of_host,
            events: u64::try_from(row.events).unwrap_or(0),
            bytes: u64::try_from(row.bytes).unwrap_or(0),
            latency: parse("latency", row.latency.as_deref().unwrap_or_default())?,
        })
    };
    rows.into_iter().map(sum).collect()
}

#[derive(QueryableByName)]
struct UsageRow {
    #[diesel(sql_type = Nullable<Text>)]
    bucket: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    of_conversation: Option<String>,
    #[diesel(sql_type = Nullable<Bool>)]
    of_subagent: Option<bool>,
    #[diesel(sql_type = Text)]
    model: String,
    #[diesel(sql_type = BigInt)]
    prompt_size: i64,
    #[diesel(sql_type = BigInt)]
    messages: i64,
    #[diesel(sql_type = BigInt)]
    input: i64,
    #[diesel(sql_type = BigInt)]
    output: i64,
    #[diesel(sql_type = BigInt)]
    cache_read: i64,
    #[diesel(sql_type = BigInt)]
    cache_creation: i64,
    #[diesel(sql_type = BigInt)]
    cache_creation_1h: i64,
    #[diesel(sql_type = BigInt)]
    thinking: i64,
    #[diesel(sql_type = BigInt)]
    searches: i64,
}

/// Sums of usage, grouped as asked, in no order: up to one more of each time than there may be.
pub(crate) fn usage(conn: &mut SqliteConnection, query: &UsageSums) -> QueryResult<Vec<UsageSum>> {
    let mut sums = Vec::new();
    for (period, part) in query.by_period() {
        sums.extend(usage_of(conn, period, &part)?);
    }
    Ok(sums)
}

fn usage_of(
    conn: &mut SqliteConnection,
    period: Timestamp,
    query: &UsageSums,
) -> QueryResult<Vec<UsageSum>> {
    let UsageSums { workspace, to, by, .. } = query;
    let rows: Vec<UsageRow> = diesel::sql_query(
        "SELECT CASE WHEN ? THEN at END AS bucket, \
         CASE WHEN ? THEN conversation_id END AS of_conversation, \
         CASE WHEN ? THEN is_subagent END AS of_subagent, model, prompt_size, \
         sum(messages) AS messages, sum(input_tokens) AS input, sum(output_tokens) AS output, \
         sum(cache_read_tokens) AS cache_read, sum(cache_creation_tokens) AS cache_creation, \
         sum(cache_creation_1h_tokens) AS cache_creation_1h, sum(thinking_tokens) AS thinking, \
         sum(web_searches) AS searches FROM usage_15min \
         WHERE workspace = ? AND at >= ? AND at < ? GROUP BY 1, 2, 3, 4, 5 LIMIT ?",
    )
    .bind::<Bool, _>(by.bucket)
    .bind::<Bool, _>(by.conversation)
    .bind::<Bool, _>(by.subagent)
    .bind::<Text, _>(workspace)
    .bind::<Text, _>(query.first_bucket().to_string())
    .bind::<Text, _>(to.to_string())
    .bind::<BigInt, _>(limit())
    .load(conn)?;
    let sum = |row: UsageRow| {
        let UsageRow { input, output, cache_read, cache_creation, .. } = row;
        let UsageRow { cache_creation_1h, thinking, searches, messages, .. } = row;
        let tokens =
            [input, output, cache_read, cache_creation, cache_creation_1h, thinking, searches];
        Ok(UsageSum {
            at: maybe_time("at", row.bucket.as_deref())?,
            conversation_id: maybe_uuid("conversation_id", row.of_conversation.as_deref())?,
            is_subagent: row.of_subagent,
            model: row.model,
            prompt_size: PromptSize::from_number(u8::try_from(row.prompt_size).unwrap_or(u8::MAX)),
            period,
            messages: u64::try_from(messages).unwrap_or(0),
            usage: UsageChange { messages, tokens }.usage(),
        })
    };
    rows.into_iter().map(sum).collect()
}

fn limit() -> i64 {
    i64::try_from(SUMS_MAX).unwrap_or(i64::MAX).saturating_add(1)
}
