//! The dead letters of the store: rows that are out of retries and not given up yet.

use arrakis_core::audit::EventStatus;
use arrakis_core::id::RequestId;
use arrakis_core::queue::{DeadLetter, DeadLetterDetail, DeadLetters, Failure, QueueError};
use arrakis_core::store::{EventKey, EventReader, EventSummary, StoreError};
use async_trait::async_trait;
use diesel::prelude::*;

use crate::SqliteStore;
use crate::error::{WriteError, store_error};
use crate::row::EventRow;
use crate::schema::webhook_events;
use crate::write::transition;

/// The person that redrives and discards are recorded for.
const ACTOR: &str = "operator";

#[async_trait]
impl DeadLetters for SqliteStore {
    async fn list(
        &self,
        after: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, QueueError> {
        use diesel_async::RunQueryDsl;
        let mut connection = self.readers.get().await.map_err(medium)?;
        let mut found = webhook_events::table
            .filter(webhook_events::status.eq(EventStatus::Failed.as_str()))
            .filter(webhook_events::discarded_at.is_null())
            .order(webhook_events::request_id)
            .limit(i64::try_from(limit).unwrap_or(i64::MAX))
            .select(EventRow::as_select())
            .into_boxed();
        if let Some(after) = after {
            found = found.filter(webhook_events::request_id.gt(after.to_string()));
        }
        let rows = RunQueryDsl::load(found, &mut connection).await;
        let rows = rows.map_err(|error| medium(store_error("list dead letters", error)))?;
        let summaries = rows.into_iter().map(EventRow::into_summary).collect::<Result<Vec<_>, _>>();
        Ok(summaries.map_err(medium)?.iter().map(letter).collect())
    }

    async fn show(&self, id: &RequestId) -> Result<Option<DeadLetterDetail>, QueueError> {
        let event = self.event(EventKey::Request(id.clone())).await.map_err(medium)?;
        let Some(event) = event.filter(|event| event.summary.status == EventStatus::Failed) else {
            return Ok(None);
        };
        let letter = letter(&event.summary);
        Ok(Some(DeadLetterDetail {
            history: letter.failure.clone().into_iter().collect(),
            letter,
            header: None,
            payload: event.body.unwrap_or_default(),
        }))
    }

    async fn redrive(&self, ids: &[RequestId]) -> Result<u64, QueueError> {
        let now = self.clock.now();
        self.each(ids, move |connection, id| {
            transition(connection, id, EventStatus::Pending, now, (ACTOR, "redriven"))
        })
        .await
    }

    async fn discard(&self, ids: &[RequestId]) -> Result<u64, QueueError> {
        let now = self.clock.now().to_string();
        self.each(ids, move |connection, id| {
            diesel::update(webhook_events::table.find(id))
                .set(webhook_events::discarded_at.eq(&now))
                .execute(connection)?;
            Ok(())
        })
        .await
    }
}

impl SqliteStore {
    /// Does `work` to the rows of those of `ids` that are dead letters, in one transaction; returns how
    /// many.
    async fn each(
        &self,
        ids: &[RequestId],
        work: impl Fn(&mut SqliteConnection, &str) -> Result<(), WriteError> + Send + 'static,
    ) -> Result<u64, QueueError> {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let done = self.writer.run("change dead letters", move |connection| {
            let mut done = 0;
            for id in &ids {
                let rows: Vec<String> = webhook_events::table
                    .filter(webhook_events::request_id.eq(id))
                    .filter(webhook_events::status.eq(EventStatus::Failed.as_str()))
                    .filter(webhook_events::discarded_at.is_null())
                    .select(webhook_events::id)
                    .load(connection)?;
                for row in &rows {
                    work(connection, row)?;
                    done += 1;
                }
            }
            Ok(done)
        });
        done.await.map_err(medium)
    }
}

fn letter(event: &EventSummary) -> DeadLetter {
    let failure = event.error_code.clone().map(|code| Failure {
        at: event.received_at,
        round: event.retry_count,
        code,
        message: event.error_message.clone().unwrap_or_default(),
    });
    DeadLetter {
        request_id: event.request_id.clone(),
        event_type: Some(event.event_type.clone()),
        session_id: event.session_id.clone(),
        failure,
    }
}

fn medium(error: StoreError) -> QueueError {
    QueueError::Medium { action: "use the store's dead letters".to_owned(), source: error.into() }
}
