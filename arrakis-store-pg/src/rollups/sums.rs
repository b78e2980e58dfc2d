//! Reading what was added up.

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::limits::SUMS_MAX;
use arrakis_core::record::store::adapter::UsageChange;
use arrakis_core::record::store::{EventSum, EventSums, RollupStep, UsageSum, UsageSums};
use arrakis_core::session::price::PromptSize;
use diesel::result::QueryResult;
use diesel::sql_types::{BigInt, Bool, Nullable, SmallInt, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::sql_of_step;
use crate::row::{At, parse, shown};
use crate::statement::Statement;

type MaybeText = Nullable<Text>;

/// Counts of events, grouped as asked, in no order: up to one more than there may be.
pub(crate) async fn events(
    conn: &mut AsyncPgConnection,
    query: &EventSums,
) -> QueryResult<Vec<EventSum>> {
    type Sql = (
        Nullable<Timestamptz>,
        (MaybeText, MaybeText, MaybeText, MaybeText),
        (BigInt, BigInt),
        MaybeText,
    );
    type Texts = (Option<String>, Option<String>, Option<String>, Option<String>);
    type Row = (Option<At>, Texts, (i64, i64), Option<String>);
    let EventSums { workspace, step, from, to, by, latency } = query;
    let sql = sql_of_step!(
        step,
        "SELECT CASE WHEN ? THEN at END, CASE WHEN ? THEN event_type END, \
         CASE WHEN ? THEN status END, CASE WHEN ? THEN error_code END, CASE WHEN ? THEN host END, \
         sum(events)::bigint, sum(bytes)::bigint, CASE WHEN ? THEN string_agg(latency, ' ') END \
         FROM ",
        " WHERE workspace = ? AND at >= ? AND at < ? AND events <> 0 \
         GROUP BY 1, 2, 3, 4, 5 LIMIT ?"
    );
    let rows: Vec<Row> = Statement::<Sql>::new(sql)
        .bind::<Bool>(by.bucket)
        .bind::<Bool>(by.event_type)
        .bind::<Bool>(by.status)
        .bind::<Bool>(by.error_code)
        .bind::<Bool>(by.host)
        .bind::<Bool>(*latency)
        .bind::<Text>(shown(workspace))
        .bind::<Timestamptz>(At(step.bucket(*from)))
        .bind::<Timestamptz>(At(*to))
        .bind::<BigInt>(limit())
        .load(conn)
        .await?;
    let sum = |(at, (event_type, status, error_code, host), (events, bytes), latency): Row| {
        Ok(EventSum {
            at: at.map(|At(at)| at),
            event_type,
            status: status.map(|text| parse("status", &text)).transpose()?,
            error_code,
            host,
            events: u64::try_from(events).unwrap_or(0),
            bytes: u64::try_from(bytes).unwrap_or(0),
            latency: parse("latency", latency.as_deref().unwrap_or_default())?,
        })
    };
    rows.into_iter().map(sum).collect()
}

/// Sums of usage, grouped as asked, in no order: up to one more of each time than there may be.
pub(crate) async fn usage(
    conn: &mut AsyncPgConnection,
    query: &UsageSums,
) -> QueryResult<Vec<UsageSum>> {
    let mut sums = Vec::new();
    for (period, part) in query.by_period() {
        sums.extend(usage_of(conn, period, &part).await?);
    }
    Ok(sums)
}

async fn usage_of(
    conn: &mut AsyncPgConnection,
    period: Timestamp,
    query: &UsageSums,
) -> QueryResult<Vec<UsageSum>> {
    const SQL: &str = "SELECT CASE WHEN ? THEN at END, CASE WHEN ? THEN conversation_id END, \
        CASE WHEN ? THEN is_subagent END, model, prompt_size, sum(messages)::bigint, \
        sum(input_tokens)::bigint, sum(output_tokens)::bigint, sum(cache_read_tokens)::bigint, \
        sum(cache_creation_tokens)::bigint, sum(cache_creation_1h_tokens)::bigint, \
        sum(thinking_tokens)::bigint, sum(web_searches)::bigint FROM usage_15min \
        WHERE workspace = ? AND at >= ? AND at < ? GROUP BY 1, 2, 3, 4, 5 LIMIT ?";
    type Sql = (
        (Nullable<Timestamptz>, Nullable<diesel::sql_types::Uuid>, Nullable<Bool>),
        (Text, SmallInt, BigInt),
        (BigInt, BigInt, BigInt, BigInt, BigInt, BigInt, BigInt),
    );
    type Row = (
        (Option<At>, Option<Uuid>, Option<bool>),
        (String, i16, i64),
        (i64, i64, i64, i64, i64, i64, i64),
    );
    let UsageSums { workspace, to, by, .. } = query;
    let rows: Vec<Row> = Statement::<Sql>::new(SQL)
        .bind::<Bool>(by.bucket)
        .bind::<Bool>(by.conversation)
        .bind::<Bool>(by.subagent)
        .bind::<Text>(shown(workspace))
        .bind::<Timestamptz>(At(query.first_bucket()))
        .bind::<Timestamptz>(At(*to))
        .bind::<BigInt>(limit())
        .load(conn)
        .await?;
    let sum = |(group, (model, prompt_size, messages), tokens): Row| {
        let (at, conversation_id, is_subagent) = group;
        let tokens = tokens.into();
        UsageSum {
            at: at.map(|At(at)| at),
            conversation_id,
            is_subagent,
            model,
            prompt_size: PromptSize::from_number(u8::try_from(prompt_size).unwrap_or(u8::MAX)),
            period,
            messages: u64::try_from(messages).unwrap_or(0),
            usage: UsageChange { messages, tokens }.usage(),
        }
    };
    Ok(rows.into_iter().map(sum).collect())
}

fn limit() -> i64 {
    i64::try_from(SUMS_MAX).unwrap_or(i64::MAX).saturating_add(1)
}
