//! Everything that changes the database.

use std::collections::HashMap;

use arrakis_core::audit::EventStatus;
use arrakis_core::clock::Timestamp;
use arrakis_core::conversation::{AnswerIds, Changes};
use arrakis_core::ingest::UNKNOWN_EVENT_TYPE;
use arrakis_core::store::{
    Admission, AdmissionKind, Arrival, Claim, EventStore, FIRST_RETRY_DELAY, ID_CONFLICT,
    StoreError, Verdict,
};
use async_trait::async_trait;
use diesel::prelude::*;
use uuid::Uuid;

use crate::SqliteStore;
use crate::error::{WriteError, damaged};
use crate::row::{
    BodyRow, ConversationRow, EventRow, LedgerAnswer, LedgerRow, MessageRow, NewEvent,
    NewTransition, ToolUseRow, json, parse_id, request_body, to_json,
};
use crate::schema::{
    conversations, event_transitions, messages, request_ids, tool_uses, webhook_events,
};

/// Most values in one `IN (…)`: below the 32,766 variables that SQLite allows.
const CHUNK: usize = 10_000;

/// Runs `work` in a transaction that has the write lock from its first moment.
pub(crate) fn in_transaction<T>(
    connection: &mut SqliteConnection,
    work: impl FnOnce(&mut SqliteConnection) -> Result<T, WriteError>,
) -> Result<T, WriteError> {
    connection.immediate_transaction(work)
}

/// Stores arrivals in one transaction; one admission each, in order.
pub(crate) fn record(
    connection: &mut SqliteConnection,
    now: Timestamp,
    parts: &[&[(Arrival, Verdict)]],
) -> Result<Vec<Admission>, WriteError> {
    in_transaction(connection, |connection| {
        let all = || parts.iter().copied().flatten();
        let mut ledger = Ledger::load(connection, all().map(|(arrival, _)| arrival))?;
        let mut admissions = Vec::new();
        let mut merged = Changes::default();
        for (arrival, verdict) in all() {
            let (admission, row) = match ledger.entries.get(arrival.request_id.as_str()) {
                Some(first) => repeat(arrival, first.clone(), now)?,
                None => {
                    let admission = admit(arrival, verdict);
                    if let Verdict::Apply(changes) = verdict {
                        merged.absorb(changes.clone());
                    }
                    if arrival.in_ledger {
                        ledger.insert(connection, arrival, &admission, now)?;
                    }
                    let row = new_event(arrival, verdict, &admission, now)?;
                    (admission, row)
                }
            };
            diesel::insert_into(webhook_events::table).values(row).execute(connection)?;
            admissions.push(admission);
        }
        apply(connection, merged, now)?;
        Ok(admissions)
    })
}

/// The ledger's entries for a batch: those that were there, and those that the batch makes.
struct Ledger {
    entries: HashMap<String, Admission>,
}

impl Ledger {
    fn load<'a>(
        connection: &mut SqliteConnection,
        arrivals: impl Iterator<Item = &'a Arrival>,
    ) -> Result<Self, WriteError> {
        let mut wanted: Vec<&str> = arrivals.map(|arrival| arrival.request_id.as_str()).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut rows: Vec<LedgerRow> = Vec::new();
        for chunk in wanted.chunks(CHUNK) {
            let found = request_ids::table.filter(request_ids::request_id.eq_any(chunk));
            rows.extend(found.select(LedgerRow::as_select()).load(connection)?);
        }
        let mut statuses: HashMap<String, String> = HashMap::new();
        let firsts: Vec<&str> = rows.iter().map(|row| row.event_id.as_str()).collect();
        for chunk in firsts.chunks(CHUNK) {
            let found = webhook_events::table.filter(webhook_events::id.eq_any(chunk));
            let found = found.select((webhook_events::id, webhook_events::status));
            statuses.extend(found.load::<(String, String)>(connection)?);
        }
        let mut entries = HashMap::new();
        for row in rows {
            let what = format!("the ledger's entry of {}", row.request_id);
            let answer: LedgerAnswer = json(&what, &row.answer)?;
            // A row that was pruned is in the state that the ledger remembers.
            let status = match statuses.get(&row.event_id) {
                Some(status) => status.parse().map_err(|error| damaged(&what, error))?,
                None => answer.status,
            };
            let first = Admission {
                kind: AdmissionKind::Duplicate,
                event_id: parse_id(&what, &row.event_id)?,
                digest: row.digest.parse().map_err(|error| damaged(&what, error))?,
                status,
                answer: answer.ids,
            };
            entries.insert(row.request_id, first);
        }
        Ok(Self { entries })
    }

    fn insert(
        &mut self,
        connection: &mut SqliteConnection,
        arrival: &Arrival,
        admission: &Admission,
        now: Timestamp,
    ) -> Result<(), WriteError> {
        let answer = LedgerAnswer { status: admission.status, ids: admission.answer };
        let row = LedgerRow {
            request_id: arrival.request_id.to_string(),
            digest: arrival.digest.to_string(),
            event_id: arrival.event_id.to_string(),
            answer: to_json("an answer", &answer)?,
            created_at: now.to_string(),
        };
        diesel::insert_into(request_ids::table).values(&row).execute(connection)?;
        self.entries.insert(row.request_id, admission.clone());
        Ok(())
    }
}

fn admit(arrival: &Arrival, verdict: &Verdict) -> Admission {
    let answer = match verdict {
        Verdict::Apply(changes) => changes.answer,
        Verdict::Invalid { .. } | Verdict::Failed { .. } => AnswerIds::default(),
    };
    Admission {
        kind: AdmissionKind::New,
        event_id: arrival.event_id,
        digest: arrival.digest,
        status: verdict.status(),
        answer,
    }
}

fn new_event<'a>(
    arrival: &'a Arrival,
    verdict: &'a Verdict,
    admission: &Admission,
    now: Timestamp,
) -> Result<NewEvent<'a>, StoreError> {
    let (body, raw) = request_body(&arrival.body);
    let status = admission.status;
    let (error_code, error_message) = match verdict {
        Verdict::Apply(_) => (None, None),
        Verdict::Invalid { code, message } | Verdict::Failed { code, message } => {
            (Some(code.as_str()), Some(message.as_str()))
        }
    };
    let waits = status == EventStatus::Error;
    let id = |id: Option<Uuid>| id.map(|id| id.to_string());
    let elapsed = now.since(arrival.received_at).as_millis();
    Ok(NewEvent {
        id: arrival.event_id.to_string(),
        workspace: &arrival.workspace,
        request_id: arrival.request_id.as_str(),
        event_type: if arrival.event_type.is_empty() {
            UNKNOWN_EVENT_TYPE
        } else {
            &arrival.event_type
        },
        session_id: arrival.session_id.as_deref(),
        received_at: arrival.received_at.to_string(),
        request_body: Some(body),
        raw_body: raw,
        request_headers: to_json("headers", &arrival.headers)?,
        ip_address: arrival.ip_address.map(|ip| ip.to_string()),
        status: status.as_str(),
        processed_at: (!waits).then(|| now.to_string()),
        processing_time: Some(i64::try_from(elapsed).unwrap_or(i64::MAX)),
        conversation_id: id(admission.answer.conversation_id),
        message_id: id(admission.answer.message_id),
        tool_use_id: id(admission.answer.tool_use_id),
        error_code,
        error_message,
        retry_after: waits.then(|| now.plus(FIRST_RETRY_DELAY).to_string()),
        metadata: to_json("metadata", &arrival.metadata)?,
        created_at: now.to_string(),
        updated_at: now.to_string(),
    })
}

/// The answer to a repeat of `first`'s request id, and the row that it leaves.
fn repeat(
    arrival: &Arrival,
    first: Admission,
    now: Timestamp,
) -> Result<(Admission, NewEvent<'_>), StoreError> {
    const APPLIED: &Verdict = &Verdict::Apply(Changes {
        conversations: Vec::new(),
        messages: Vec::new(),
        tool_uses: Vec::new(),
        answer: AnswerIds { conversation_id: None, message_id: None, tool_use_id: None },
    });
    if first.digest == arrival.digest {
        let row = NewEvent {
            status: EventStatus::Duplicate.as_str(),
            request_body: None,
            raw_body: None,
            metadata: serde_json::json!({ "duplicateOf": first.event_id }).to_string(),
            processed_at: Some(now.to_string()),
            retry_after: None,
            ..new_event(arrival, APPLIED, &first, now)?
        };
        return Ok((Admission { kind: AdmissionKind::Duplicate, ..first }, row));
    }
    let nothing = Admission { answer: AnswerIds::default(), ..first.clone() };
    let row = NewEvent {
        status: EventStatus::Invalid.as_str(),
        error_code: Some(ID_CONFLICT.0),
        error_message: Some(ID_CONFLICT.1),
        processed_at: Some(now.to_string()),
        retry_after: None,
        ..new_event(arrival, APPLIED, &nothing, now)?
    };
    Ok((Admission { kind: AdmissionKind::Conflict, ..first }, row))
}

/// Merges changes into what is there.
fn apply(
    connection: &mut SqliteConnection,
    changes: Changes,
    now: Timestamp,
) -> Result<(), WriteError> {
    let ids = |ids: Vec<Uuid>| ids.iter().map(Uuid::to_string).collect::<Vec<_>>();

    let wanted = ids(changes.conversations.iter().map(|one| one.id).collect());
    let mut known = HashMap::new();
    for chunk in wanted.chunks(CHUNK) {
        let found = conversations::table.filter(conversations::id.eq_any(chunk));
        for row in found.select(ConversationRow::as_select()).load(connection)? {
            let conversation = row.into_conversation()?;
            known.insert(conversation.id, conversation);
        }
    }
    for new in changes.conversations {
        if let Some(mut conversation) = known.remove(&new.id) {
            let id = new.id.to_string();
            conversation.merge(new);
            let row = ConversationRow::new(&conversation, now)?;
            let found = conversations::table.find(&id);
            diesel::update(found).set(&row).execute(connection)?;
        } else {
            let row = ConversationRow::new(&new, now)?;
            let values = (&row, conversations::created_at.eq(now.to_string()));
            diesel::insert_into(conversations::table).values(values).execute(connection)?;
        }
    }

    let wanted = ids(changes.messages.iter().map(|one| one.id).collect());
    let mut known = HashMap::new();
    for chunk in wanted.chunks(CHUNK) {
        let found = messages::table.filter(messages::id.eq_any(chunk));
        for row in found.select(MessageRow::as_select()).load(connection)? {
            let message = row.into_message()?;
            known.insert(message.id, message);
        }
    }
    for new in changes.messages {
        if let Some(mut message) = known.remove(&new.id) {
            message.merge(new);
            let row = MessageRow::new(&message)?;
            diesel::update(messages::table.find(&row.id)).set(&row).execute(connection)?;
        } else {
            let row = MessageRow::new(&new)?;
            diesel::insert_into(messages::table).values(&row).execute(connection)?;
        }
    }

    let wanted = ids(changes.tool_uses.iter().map(|one| one.id).collect());
    let mut known = HashMap::new();
    for chunk in wanted.chunks(CHUNK) {
        let found = tool_uses::table.filter(tool_uses::id.eq_any(chunk));
        for row in found.select(ToolUseRow::as_select()).load(connection)? {
            let tool_use = row.into_tool_use()?;
            known.insert(tool_use.id, tool_use);
        }
    }
    for new in changes.tool_uses {
        if let Some(mut tool_use) = known.remove(&new.id) {
            tool_use.merge(new);
            let row = ToolUseRow::new(&tool_use)?;
            diesel::update(tool_uses::table.find(&row.id)).set(&row).execute(connection)?;
        } else {
            let row = ToolUseRow::new(&new)?;
            diesel::insert_into(tool_uses::table).values(&row).execute(connection)?;
        }
    }
    Ok(())
}

/// Brings a row into another state and leaves the trail of it.
pub(crate) fn move_to(
    connection: &mut SqliteConnection,
    id: &str,
    from: EventStatus,
    to: EventStatus,
    now: Timestamp,
    (actor, reason): (&str, &str),
) -> Result<(), WriteError> {
    if !from.may_become(to) {
        return Err(StoreError::IllegalTransition { from, to }.into());
    }
    let now = now.to_string();
    diesel::update(webhook_events::table.find(id))
        .set((webhook_events::status.eq(to.as_str()), webhook_events::updated_at.eq(&now)))
        .execute(connection)?;
    let step = NewTransition {
        event_id: id.to_owned(),
        from_status: from.as_str(),
        to_status: to.as_str(),
        actor,
        reason,
        created_at: now,
    };
    diesel::insert_into(event_transitions::table).values(&step).execute(connection)?;
    Ok(())
}

fn claim_due(
    connection: &mut SqliteConnection,
    now: Timestamp,
    stalled: Timestamp,
    limit: usize,
) -> Result<Vec<Claim>, WriteError> {
    use webhook_events::{claimed_at, discarded_at, id, retry_after, status};
    let due = status
        .eq(EventStatus::Pending.as_str())
        .or(status
            .eq_any([EventStatus::Error.as_str(), EventStatus::PendingRetry.as_str()])
            .and(retry_after.le(now.to_string()).assume_not_null()))
        .or(status
            .eq(EventStatus::Processing.as_str())
            .and(claimed_at.lt(stalled.to_string()).assume_not_null()));
    let rows: Vec<(EventRow, BodyRow)> = webhook_events::table
        .filter(due)
        .filter(discarded_at.is_null())
        .order(id)
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select((EventRow::as_select(), BodyRow::as_select()))
        .load(connection)?;
    let mut claims = Vec::new();
    for (row, body) in rows {
        let text_id = row.id.clone();
        let claim = into_claim(connection, row, body)?;
        let mut from = claim.1;
        let step = match from {
            EventStatus::Processing => {
                Some((EventStatus::Pending, ("rescue", "its worker has stalled")))
            }
            EventStatus::Error => Some((EventStatus::PendingRetry, ("retry", "it is due"))),
            _ => None,
        };
        if let Some((to, why)) = step {
            move_to(connection, &text_id, from, to, now, why)?;
            from = to;
        }
        move_to(connection, &text_id, from, EventStatus::Processing, now, ("worker", "claimed"))?;
        diesel::update(webhook_events::table.find(&text_id))
            .set((webhook_events::claim_token.eq(&claim.0.token), claimed_at.eq(now.to_string())))
            .execute(connection)?;
        claims.push(claim.0);
    }
    Ok(claims)
}

fn into_claim(
    connection: &mut SqliteConnection,
    row: EventRow,
    mut body: BodyRow,
) -> Result<(Claim, EventStatus), WriteError> {
    let summary = row.into_summary()?;
    let what = format!("event {}", summary.id);
    let ledger: Option<(String, String)> = request_ids::table
        .find(summary.request_id.as_str())
        .select((request_ids::event_id, request_ids::digest))
        .first(connection)
        .optional()?;
    let mine = ledger.filter(|(first, _)| *first == summary.id.to_string());
    let bytes = body.body().unwrap_or_default();
    let digest = match &mine {
        Some((_, digest)) => digest.parse().map_err(|error| damaged(&what, error))?,
        None => arrakis_core::digest::Digest::of(&bytes),
    };
    let ip_address = body.ip_address.as_deref().and_then(|ip| ip.parse().ok());
    let headers = body.headers()?;
    let claim = Claim {
        arrival: Arrival {
            event_id: summary.id,
            request_id: summary.request_id,
            digest,
            in_ledger: mine.is_some(),
            workspace: body.workspace,
            event_type: summary.event_type,
            session_id: summary.session_id,
            received_at: summary.received_at,
            body: bytes.into(),
            headers,
            ip_address,
            metadata: summary.metadata,
        },
        retry_count: summary.retry_count,
        token: Uuid::now_v7().to_string(),
    };
    Ok((claim, summary.status))
}

fn complete(
    connection: &mut SqliteConnection,
    claim: Claim,
    verdict: Verdict,
    retry_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<bool, WriteError> {
    let id = claim.arrival.event_id.to_string();
    let held = webhook_events::table
        .find(&id)
        .filter(webhook_events::claim_token.eq(&claim.token))
        .filter(webhook_events::status.eq(EventStatus::Processing.as_str()));
    let released = diesel::update(held)
        .set((
            webhook_events::claim_token.eq(None::<String>),
            webhook_events::claimed_at.eq(None::<String>),
            webhook_events::retry_count.eq(webhook_events::retry_count + 1),
        ))
        .execute(connection)?;
    if released == 0 {
        return Ok(false);
    }
    let mut status = verdict.status();
    let (answer, error) = match verdict {
        Verdict::Apply(changes) => {
            let answer = changes.answer;
            apply(connection, changes, now)?;
            (answer, None)
        }
        Verdict::Invalid { code, message } | Verdict::Failed { code, message } => {
            (AnswerIds::default(), Some((code, message)))
        }
    };
    let reason = error.as_ref().map_or("applied", |(code, _)| code);
    move_to(connection, &id, EventStatus::Processing, status, now, ("worker", reason))?;
    if status == EventStatus::Error {
        let (next, why) = match retry_at {
            Some(_) => (EventStatus::PendingRetry, "it will be tried again"),
            None => (EventStatus::Failed, "it is out of retries"),
        };
        move_to(connection, &id, status, next, now, ("worker", why))?;
        status = next;
    }
    let (code, message) = error.unzip();
    let text = |id: Option<Uuid>| id.map(|id| id.to_string());
    let settled = retry_at.filter(|_| status == EventStatus::PendingRetry);
    diesel::update(webhook_events::table.find(&id))
        .set((
            webhook_events::conversation_id.eq(text(answer.conversation_id)),
            webhook_events::message_id.eq(text(answer.message_id)),
            webhook_events::tool_use_id.eq(text(answer.tool_use_id)),
            webhook_events::error_code.eq(code),
            webhook_events::error_message.eq(message),
            webhook_events::retry_after.eq(settled.map(|at| at.to_string())),
            webhook_events::processed_at.eq(settled.is_none().then(|| now.to_string())),
        ))
        .execute(connection)?;
    let ledger = request_ids::table
        .find(claim.arrival.request_id.as_str())
        .filter(request_ids::event_id.eq(&id));
    let answer = to_json("an answer", &LedgerAnswer { status, ids: answer })?;
    diesel::update(ledger).set(request_ids::answer.eq(answer)).execute(connection)?;
    Ok(true)
}

/// The state of a row.
pub(crate) fn status_of(
    connection: &mut SqliteConnection,
    id: &str,
) -> Result<EventStatus, WriteError> {
    let status: Option<String> = webhook_events::table
        .find(id)
        .select(webhook_events::status)
        .first(connection)
        .optional()?;
    let status = status.ok_or_else(|| StoreError::NotFound(format!("event {id}")))?;
    Ok(status.parse().map_err(|error| damaged(&format!("event {id}"), error))?)
}

/// Brings a row into another state on somebody's behalf.
pub(crate) fn transition(
    connection: &mut SqliteConnection,
    id: &str,
    to: EventStatus,
    now: Timestamp,
    why: (&str, &str),
) -> Result<(), WriteError> {
    let from = status_of(connection, id)?;
    move_to(connection, id, from, to, now, why)?;
    diesel::update(webhook_events::table.find(id))
        .set((
            webhook_events::claim_token.eq(None::<String>),
            webhook_events::retry_after.eq(None::<String>),
        ))
        .execute(connection)?;
    Ok(())
}

fn prune(
    connection: &mut SqliteConnection,
    before: Timestamp,
    limit: usize,
) -> Result<u64, WriteError> {
    use EventStatus::{Duplicate, Failed, Invalid, Success};
    let settled = [Success, Duplicate, Invalid, Failed].map(EventStatus::as_str);
    let old: Vec<String> = webhook_events::table
        .filter(webhook_events::received_at.lt(before.to_string()))
        .filter(webhook_events::status.eq_any(settled))
        .order(webhook_events::received_at)
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select(webhook_events::id)
        .load(connection)?;
    let mut deleted = 0;
    for chunk in old.chunks(CHUNK) {
        let trail = event_transitions::table.filter(event_transitions::event_id.eq_any(chunk));
        diesel::delete(trail).execute(connection)?;
        let rows = webhook_events::table.filter(webhook_events::id.eq_any(chunk));
        deleted += diesel::delete(rows).execute(connection)?;
    }
    Ok(deleted as u64)
}

#[async_trait]
impl EventStore for SqliteStore {
    async fn record(&self, batch: Vec<(Arrival, Verdict)>) -> Result<Vec<Admission>, StoreError> {
        self.writer.record(batch).await
    }

    async fn claim_due(
        &self,
        now: Timestamp,
        stalled: Timestamp,
        limit: usize,
    ) -> Result<Vec<Claim>, StoreError> {
        self.writer.run("claim events", move |c| claim_due(c, now, stalled, limit)).await
    }

    async fn complete(
        &self,
        claim: Claim,
        verdict: Verdict,
        retry_at: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        let now = self.clock.now();
        self.writer
            .run("complete an event", move |c| complete(c, claim, verdict, retry_at, now))
            .await
    }

    async fn transition(
        &self,
        event_id: Uuid,
        to: EventStatus,
        actor: &str,
        reason: &str,
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        let (actor, reason) = (actor.to_owned(), reason.to_owned());
        let work = move |connection: &mut SqliteConnection| {
            transition(connection, &event_id.to_string(), to, now, (&actor, &reason))
        };
        self.writer.run("change the state of an event", work).await
    }

    async fn prune(&self, before: Timestamp, limit: usize) -> Result<u64, StoreError> {
        self.writer.run("prune events", move |c| prune(c, before, limit)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        // An empty transaction takes the write lock and gives it back.
        self.writer.run("reach the database", |_| Ok(())).await
    }
}
