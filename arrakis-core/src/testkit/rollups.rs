//! The conformance suite of [`Rollups`].

mod agreement;
mod chaos;
mod usage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use agreement::a_list_and_usage_say_of_a_conversation_what_it_says_itself;
pub use chaos::Chaos;
pub use usage::{
    assert_usage_counted, the_cost_of_sums_is_the_sum_of_the_costs_each_by_the_prices_of_its_time,
    usage_counts_each_message_of_the_api_once,
    usage_grows_with_its_message_and_stays_when_its_conversation_is_pruned,
};

use super::event_store::{Arrivals, EventStoreFixture, hook};
use super::retention::{RetentionFixture, prune_before};
use crate::base::clock::{Clock, Timestamp};
use crate::base::limits::ROLLUP_ROWS_MAX;
use crate::record::audit::EventStatus;
use crate::record::sketch::Sketch;
use crate::record::store::{
    Arrival, DEFAULT_WORKSPACE, EventFilter, EventGroups, EventStore, EventSum, EventSums, OTHER,
    Page, RollupStep, Rollups, Verdict,
};

/// An empty store, and the clock that it reads.
pub trait RollupsFixture: EventStoreFixture + RetentionFixture {
    /// The same store.
    fn rollups(&self) -> Arc<dyn Rollups>;
}

/// Makes one `#[tokio::test]` of each case of the suite; `$make` is an async function without
/// arguments that returns a fresh [`RollupsFixture`].
#[macro_export]
macro_rules! rollups_conformance {
    ($make:path) => {
        $crate::rollups_conformance!(@cases $make:
            counts_are_those_of_all_rows_under_their_present_state,
            each_commit_is_folded_once_however_the_steps_fall,
            what_is_pruned_stays_counted,
            each_workspace_has_its_own_sums,
            what_is_too_much_is_counted_as_other,
            minutes_and_hours_go_when_they_are_old_and_days_stay,
            counts_are_grouped_as_asked_and_quantiles_are_those_of_the_rows,
            usage_counts_each_message_of_the_api_once,
            usage_grows_with_its_message_and_stays_when_its_conversation_is_pruned,
            the_cost_of_sums_is_the_sum_of_the_costs_each_by_the_prices_of_its_time,
            a_list_and_usage_say_of_a_conversation_what_it_says_itself,
        );
    };
    (@cases $make:path: $($case:ident,)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::testkit::rollups::$case(&$make().await).await;
            }
        )*
    };
}

/// All that can be told apart.
const ALL: EventGroups =
    EventGroups { bucket: true, event_type: true, status: true, error_code: true, host: true };

const FOR_EVER: Timestamp = Timestamp::EPOCH;

/// Random records, repeats, conflicts, retries and changes of state, folded at random points.
pub async fn counts_are_those_of_all_rows_under_their_present_state(fixture: &impl RollupsFixture) {
    let (store, rollups) = (fixture.store(), fixture.rollups());
    let mut chaos = Chaos::new(fixture.clock(), 1);
    for _ in 0..6 {
        for _ in 0..20 {
            chaos.step(&*store).await;
            if chaos.toss() {
                rollups.fold(3).await.expect("fold");
            }
        }
        fold_all(&*rollups).await;
        chaos.assert_counted(&*store, &*rollups).await;
    }
    let states = store.counts().await.expect("counts");
    assert!(states.len() >= 6, "the series says too little: {states:?}");
}

/// What is folded again, in other steps, or by two at one time.
pub async fn each_commit_is_folded_once_however_the_steps_fall(fixture: &impl RollupsFixture) {
    let (store, rollups) = (fixture.store(), fixture.rollups());
    let mut chaos = Chaos::new(fixture.clock(), 2);
    for limit in [1, 2, 100] {
        for _ in 0..15 {
            chaos.step(&*store).await;
        }
        let folded = rollups.fold(limit).await.expect("fold");
        assert!(folded <= limit, "{folded}");
        let (one, other) = tokio::join!(rollups.fold(50), rollups.fold(50));
        assert!(one.expect("fold") <= 50 && other.expect("fold") <= 50);
        fold_all(&*rollups).await;
        assert_eq!(rollups.fold(100).await.expect("fold"), 0);
        chaos.assert_counted(&*store, &*rollups).await;
    }
}

/// Audit rows go before and after they are folded.
pub async fn what_is_pruned_stays_counted(fixture: &impl RollupsFixture) {
    let (store, rollups) = (fixture.store(), fixture.rollups());
    let mut arrivals = Arrivals::new(fixture.clock());
    for n in 0..4 {
        store.record(vec![arrivals.prompt(&format!("r{n}"), "s")]).await.expect("record");
        if n == 1 {
            fold_all(&*rollups).await;
        }
    }
    fixture.clock().advance(Duration::from_secs(3600));
    let pruned = prune_before(&*fixture.retention(), fixture.clock().now()).await;
    assert_eq!(pruned.events, 4);
    fold_all(&*rollups).await;
    let sums = sums(&*rollups, DEFAULT_WORKSPACE, RollupStep::Day, EventGroups::default()).await;
    assert_eq!(sums.iter().map(|sum| sum.events).collect::<Vec<_>>(), [4]);
}

/// Two workspaces with the same events.
pub async fn each_workspace_has_its_own_sums(fixture: &impl RollupsFixture) {
    let (store, rollups) = (fixture.store(), fixture.rollups());
    let mut arrivals = Arrivals::new(fixture.clock());
    for (workspace, count) in [("one", 2), ("two", 3)] {
        arrivals.go_on_in(workspace);
        for n in 0..count {
            store.record(vec![arrivals.prompt(&format!("r{n}"), "s")]).await.expect("record");
        }
    }
    fold_all(&*rollups).await;
    for (workspace, count) in [("one", vec![2]), ("two", vec![3]), ("three", vec![])] {
        let sums = sums(&*rollups, workspace, RollupStep::Minute, EventGroups::default()).await;
        assert_eq!(sums.iter().map(|sum| sum.events).collect::<Vec<_>>(), count, "{workspace}");
    }
}

/// A sender makes up more event types in a minute than are counted, and their events change their state.
pub async fn what_is_too_much_is_counted_as_other(fixture: &impl RollupsFixture) {
    let (store, rollups) = (fixture.store(), fixture.rollups());
    let mut arrivals = Arrivals::new(fixture.clock());
    let count = ROLLUP_ROWS_MAX + 100;
    let batch = |arrivals: &mut Arrivals, from: usize, to: usize| -> Vec<(Arrival, Verdict)> {
        let one = |n| {
            let (arrival, verdict) =
                arrivals.next(&format!("r{n}"), hook("s", &format!("Made{n:04}"), ""));
            let (code, message) = (format!("code{}", n % 7), "it failed".to_owned());
            let failed = Verdict::Failed { code, message };
            (arrival, if n % 2 == 0 { failed } else { verdict })
        };
        (from..to).map(one).collect()
    };
    for from in (0..count).step_by(100) {
        store.record(batch(&mut arrivals, from, from + 100)).await.expect("record");
        rollups.fold(1).await.expect("fold");
    }
    for round in 0..2 {
        fold_all(&*rollups).await;
        let groups = EventGroups { bucket: false, ..ALL };
        let rows = sums(&*rollups, DEFAULT_WORKSPACE, RollupStep::Day, groups).await;
        assert!(rows.len() <= ROLLUP_ROWS_MAX, "{}", rows.len());
        assert!(rows.len() > ROLLUP_ROWS_MAX / 3, "{}", rows.len());
        assert!(rows.iter().any(|row| row.event_type.as_deref() == Some(OTHER)));
        let by_state = EventGroups { status: true, ..EventGroups::default() };
        for step in RollupStep::ALL {
            let found = sums(&*rollups, DEFAULT_WORKSPACE, step, by_state).await;
            let found = found.into_iter().map(|sum| (sum.status.expect("a state"), sum.events));
            assert_eq!(found.collect::<BTreeMap<_, _>>(), store.counts().await.expect("counts"));
        }
        if round == 0 {
            let due = fixture.clock().now().plus(Duration::from_secs(3600));
            for claim in store.claim_due(due, FOR_EVER, count).await.expect("claim") {
                let verdict = crate::record::ingest::judge(&claim.arrival);
                assert!(store.complete(claim, verdict, None).await.expect("complete"));
            }
        }
    }
}

/// Events of three days in two years, one of which changes its state when its minute is gone.
pub async fn minutes_and_hours_go_when_they_are_old_and_days_stay(fixture: &impl RollupsFixture) {
    let (store, rollups) = (fixture.store(), fixture.rollups());
    let mut arrivals = Arrivals::new(fixture.clock());
    let first = arrivals.next("invalid", "not json");
    let first_id = first.0.event_id;
    store.record(vec![first]).await.expect("record");
    let counted = async |by: EventGroups| {
        let mut counted = Vec::new();
        for step in RollupStep::ALL {
            let sums = sums(&*rollups, DEFAULT_WORKSPACE, step, by).await;
            counted.push(sums.into_iter().map(|sum| sum.events).sum::<u64>());
        }
        counted
    };
    fold_all(&*rollups).await;
    fixture.clock().advance(15 * DAY);
    store.record(vec![arrivals.prompt("second", "s")]).await.expect("record");
    fold_all(&*rollups).await;
    assert_eq!(counted(EventGroups::default()).await, [2, 2, 2]);
    forget_all(&*rollups).await;
    assert_eq!(counted(EventGroups::default()).await, [1, 2, 2]);

    store.transition(first_id, EventStatus::Pending, "me", "please").await.expect("redrive");
    fold_all(&*rollups).await;
    assert_eq!(counted(ALL).await, [1, 2, 2]);
    let by_state = EventGroups { status: true, ..EventGroups::default() };
    let pending = sums(&*rollups, DEFAULT_WORKSPACE, RollupStep::Day, by_state).await;
    assert!(pending.iter().any(|sum| sum.status == Some(EventStatus::Pending) && sum.events == 1));

    fixture.clock().advance(390 * DAY);
    store.record(vec![arrivals.prompt("third", "s")]).await.expect("record");
    fold_all(&*rollups).await;
    forget_all(&*rollups).await;
    assert_eq!(counted(ALL).await, [1, 2, 3]);
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Each way to group, each step, parts of the time, and the latencies.
pub async fn counts_are_grouped_as_asked_and_quantiles_are_those_of_the_rows(
    fixture: &impl RollupsFixture,
) {
    let (store, rollups) = (fixture.store(), fixture.rollups());
    let mut chaos = Chaos::new(fixture.clock(), 3);
    for _ in 0..40 {
        chaos.step(&*store).await;
    }
    fold_all(&*rollups).await;
    let all = chaos.rows(&*store, Chaos::WORKSPACES[0], RollupStep::Minute).await;
    let (from, to) = (all[all.len() / 4].at, all[all.len() * 3 / 4].at);
    let (from, to) = (from.expect("a bucket"), to.expect("a bucket"));
    for groups in 0..32_u8 {
        let is = |bit: u8| groups & (1 << bit) != 0;
        let by = EventGroups {
            bucket: is(0),
            event_type: is(1),
            status: is(2),
            error_code: is(3),
            host: is(4),
        };
        let workspace = Chaos::WORKSPACES[0].to_owned();
        // The bucket that the first moment lies in is whole, the one that the last lies in too.
        let (from, to) = (from.plus(SECOND), to.plus(SECOND));
        let step = RollupStep::Minute;
        let query = EventSums { workspace, step, from, to, by, latency: is(0) };
        let found = rollups.event_sums(query.clone()).await.expect("sums");
        let chosen = all
            .iter()
            .filter(|row| row.at.is_some_and(|at| at >= step.bucket(query.from) && at < query.to));
        assert_eq!(found, chaos::grouped(chosen, by, query.latency), "{by:?}");
    }
    let mut latencies = chaos.latencies(&*store, Chaos::WORKSPACES[0]).await;
    latencies.sort_unstable();
    let total =
        sums(&*rollups, Chaos::WORKSPACES[0], RollupStep::Hour, EventGroups::default()).await;
    let [total] = &total[..] else { panic!("one sum: {total:?}") };
    for (q, rank) in [(0.5, 50), (0.95, 95), (0.99, 99)] {
        let should = latencies[(latencies.len() * rank).div_ceil(100) - 1];
        let is = total.latency.quantile(q).expect("there are some");
        #[allow(clippy::cast_precision_loss, reason = "latencies are small")]
        let is_near = is.abs_diff(should) as f64 <= Sketch::MAX_ERROR * should as f64;
        assert!(is_near, "{q}: {is} for {should}");
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// Folds until nothing is left.
///
/// # Panics
///
/// The store fails, or it does not end.
pub async fn fold_all(rollups: &dyn Rollups) {
    for steps in 0.. {
        assert!(steps < 10_000, "folding does not end");
        if rollups.fold(7).await.expect("fold") == 0 {
            return;
        }
    }
}

async fn forget_all(rollups: &dyn Rollups) {
    for steps in 0.. {
        assert!(steps < 10_000, "forgetting does not end");
        if rollups.forget_sums(1).await.expect("forget") == 0 {
            return;
        }
    }
}

/// Sums of all time, latencies included.
async fn sums(
    rollups: &dyn Rollups,
    workspace: &str,
    step: RollupStep,
    by: EventGroups,
) -> Vec<EventSum> {
    let workspace = workspace.to_owned();
    let (from, to) = (FOR_EVER, Timestamp::from_micros(i64::MAX));
    let query = EventSums { workspace, step, from, to, by, latency: true };
    rollups.event_sums(query).await.expect("sums")
}

/// Every audit row.
async fn rows(store: &dyn EventStore) -> Vec<crate::record::store::EventSummary> {
    store.events(EventFilter::default(), Page::first(10_000)).await.expect("events").events
}
