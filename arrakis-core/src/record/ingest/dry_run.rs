//! What would come of stored events if they were tried again now. Nothing is changed by asking.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use super::judge;
use crate::base::heavy::HeavyPool;
use crate::record::audit::EventStatus;
use crate::record::store::{EventKey, EventReader, StoreError, Verdict};

/// What would come of some events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DryRun {
    /// Events that would be applied.
    pub would_apply: u64,
    /// Events that would fail again.
    pub would_fail: u64,
    /// Why these would fail: how many, by error code.
    pub reasons: BTreeMap<String, u64>,
    /// Events that cannot be tried again any more: pruned, given up, or in another state meanwhile.
    pub gone: u64,
}

impl DryRun {
    /// Judges an event of a workspace anew, by the id of its row, and adds what would come of it.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn add(
        &mut self,
        reader: &dyn EventReader,
        heavy: &HeavyPool,
        workspace: &str,
        id: Uuid,
    ) -> Result<(), StoreError> {
        let found = reader.event(workspace, EventKey::Id(id)).await?;
        let found = found.filter(|event| {
            event.summary.discarded_at.is_none()
                && event.summary.status.may_become(EventStatus::Pending)
        });
        let Some(arrival) = found.and_then(crate::record::store::EventDetail::into_arrival) else {
            self.gone += 1;
            return Ok(());
        };
        match heavy.run(arrival.body.len(), move || judge(&arrival)).await {
            Verdict::Apply(_) => self.would_apply += 1,
            Verdict::Invalid { code, .. } | Verdict::Failed { code, .. } => {
                self.would_fail += 1;
                *self.reasons.entry(code).or_default() += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::clock::{Clock, ManualClock, Timestamp};
    use crate::record::store::{EventFilter, EventStore, MemoryStore, Page};
    use crate::testkit::event_store::Arrivals;

    #[tokio::test]
    async fn a_dry_run_says_what_a_retry_would_do_and_does_nothing() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
        let store = MemoryStore::new(Arc::clone(&clock) as Arc<dyn Clock>);
        let mut arrivals = Arrivals::new(Arc::clone(&clock));
        let failed = || Verdict::Failed { code: "x".to_owned(), message: "x".to_owned() };
        let (good, _) = arrivals.prompt("good", "s");
        let (bad, _) = arrivals.next("bad", "7".to_owned());
        let (done, verdict) = arrivals.prompt("done", "s");
        let ids = [good.event_id, bad.event_id, done.event_id, Uuid::nil()];
        store.record(vec![(good, failed()), (bad, failed()), (done, verdict)]).await.unwrap();
        let before = store.events(EventFilter::default(), Page::first(9)).await.unwrap();
        let mut dry_run = DryRun::default();
        for id in ids {
            dry_run.add(&store, &HeavyPool::default(), "main", id).await.unwrap();
        }
        let reasons = BTreeMap::from([("not_an_object".to_owned(), 1)]);
        assert_eq!(dry_run, DryRun { would_apply: 1, would_fail: 1, reasons, gone: 2 });
        let after = store.events(EventFilter::default(), Page::first(9)).await.unwrap();
        assert_eq!(before, after);
        let mut elsewhere = DryRun::default();
        elsewhere.add(&store, &HeavyPool::default(), "other", ids[0]).await.unwrap();
        assert_eq!(elsewhere.gone, 1, "another workspace's events are not seen");
    }
}
