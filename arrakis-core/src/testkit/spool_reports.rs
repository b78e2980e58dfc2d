//! The conformance suite of [`SpoolReports`].

use std::sync::Arc;

use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::base::conservation::{Balance, Counters, LastError, Present, SpoolReport};
use crate::record::store::{HeardSpool, SpoolReports};

/// A store that has heard of no spool.
pub trait SpoolReportsFixture: Send + Sync {
    /// The store.
    fn reports(&self) -> Arc<dyn SpoolReports>;
}

/// Makes one `#[tokio::test]` of each case of the suite; `$make` is an async function without
/// arguments that returns a fresh [`SpoolReportsFixture`].
#[macro_export]
macro_rules! spool_reports_conformance {
    ($make:path) => {
        $crate::spool_reports_conformance!(@cases $make:
            of_each_spool_there_is_the_report_heard_last,
            workspaces_do_not_see_each_others_spools,
            spools_are_listed_by_when_they_were_heard_of,
            a_new_spool_takes_the_place_of_the_one_not_heard_of_for_longest,
            the_history_has_the_report_heard_last_in_each_hour,
            a_spool_that_leaves_takes_its_history_with_it,
            old_hours_are_pruned_oldest_first_up_to_a_limit,
        );
    };
    (@cases $make:path: $($case:ident,)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::testkit::spool_reports::$case(&$make().await).await;
            }
        )*
    };
}

/// A report of the `spool`-th spool, heard at this second.
pub(crate) fn heard(spool: u128, second: i64) -> HeardSpool {
    let heard_at = Timestamp::from_millis(1_800_000_000_000 + second * 1000);
    let report = SpoolReport {
        spool_id: Uuid::from_u128(spool),
        host: Some("it's a \"host\" of Zoë".to_owned()),
        user: None,
        home: Some("/home/zoë/.arrakis".to_owned()),
        version: Some("1.2.3".to_owned()),
        observed_at: Timestamp::from_micros(1_700_000_000_000_001),
        counters: Counters {
            captured: u64::from(u32::MAX) + 7,
            delivered: 3,
            ..Counters::default()
        },
        present: Present { pending: 4, ..Present::default() },
        balance: Balance::Missing { events: second.unsigned_abs() },
        oldest_pending_age_ms: Some(5),
        full: true,
        receivers: Vec::new(),
        last_error: Some(LastError { at: heard_at, message: "away\nor not".to_owned() }),
    };
    HeardSpool { heard_at, report }
}

/// A later report replaces an earlier one, and comes back with every field; one that was overtaken on
/// its way replaces nothing.
pub async fn of_each_spool_there_is_the_report_heard_last(fixture: &impl SpoolReportsFixture) {
    let reports = fixture.reports();
    assert_eq!(reports.spools("main", 10).await.expect("list"), []);
    for second in [1, 3, 2] {
        reports.report_spool("main", heard(1, second), 10).await.expect("report");
    }
    assert_eq!(reports.spools("main", 10).await.expect("list"), [heard(1, 3)]);
}

/// The same spool may report to two workspaces, and each sees its own.
pub async fn workspaces_do_not_see_each_others_spools(fixture: &impl SpoolReportsFixture) {
    let reports = fixture.reports();
    reports.report_spool("main", heard(1, 1), 10).await.expect("report");
    reports.report_spool("team", heard(1, 2), 10).await.expect("report");
    reports.report_spool("team", heard(2, 1), 10).await.expect("report");
    assert_eq!(reports.spools("main", 10).await.expect("list"), [heard(1, 1)]);
    assert_eq!(reports.spools("team", 10).await.expect("list"), [heard(1, 2), heard(2, 1)]);
    assert_eq!(reports.spools("other", 10).await.expect("list"), []);
}

/// Latest first, and no more than asked for.
pub async fn spools_are_listed_by_when_they_were_heard_of(fixture: &impl SpoolReportsFixture) {
    let reports = fixture.reports();
    for (spool, second) in [(1, 20), (2, 30), (3, 10)] {
        reports.report_spool("main", heard(spool, second), 10).await.expect("report");
    }
    let listed = reports.spools("main", 2).await.expect("list");
    assert_eq!(listed, [heard(2, 30), heard(1, 20)]);
}

/// The bound holds, and what was heard of lately stays.
pub async fn a_new_spool_takes_the_place_of_the_one_not_heard_of_for_longest(
    fixture: &impl SpoolReportsFixture,
) {
    let reports = fixture.reports();
    for (spool, second) in [(1, 1), (2, 2), (3, 3), (1, 4), (4, 5)] {
        reports.report_spool("main", heard(spool, second), 3).await.expect("report");
        reports.report_spool("team", heard(spool, second), 10).await.expect("report");
    }
    let listed = reports.spools("main", 10).await.expect("list");
    assert_eq!(listed, [heard(4, 5), heard(1, 4), heard(3, 3)]);
    assert_eq!(reports.spools("team", 10).await.expect("list").len(), 4);
}

/// Everything that the history of a spool has.
async fn history(reports: &dyn SpoolReports, workspace: &str, spool: u128) -> Vec<HeardSpool> {
    let end = Timestamp::from_millis(1_900_000_000_000);
    let history = reports.spool_history(workspace, Uuid::from_u128(spool), Timestamp::EPOCH, end);
    history.await.expect("history")
}

/// An hour begins where the clock says so, and what was overtaken on its way replaces nothing.
pub async fn the_history_has_the_report_heard_last_in_each_hour(
    fixture: &impl SpoolReportsFixture,
) {
    let reports = fixture.reports();
    // 08:00:00 is the beginning of an hour.
    for second in [0, 10, 3600, 3599, 1200, 3605, 10_800] {
        reports.report_spool("main", heard(1, second), 10).await.expect("report");
    }
    reports.report_spool("main", heard(2, 7), 10).await.expect("report");
    reports.report_spool("team", heard(1, 8), 10).await.expect("report");
    let all = [heard(1, 3599), heard(1, 3605), heard(1, 10_800)];
    assert_eq!(history(&*reports, "main", 1).await, all);
    assert_eq!(history(&*reports, "team", 1).await, [heard(1, 8)]);
    assert_eq!(history(&*reports, "main", 3).await, []);
    let (since, until) = (heard(1, 3605).heard_at, heard(1, 10_800).heard_at);
    let part = reports.spool_history("main", Uuid::from_u128(1), since, until).await;
    assert_eq!(part.expect("history"), [heard(1, 3605)]);
}

/// So a workspace has at most as many hours as its spools have.
pub async fn a_spool_that_leaves_takes_its_history_with_it(fixture: &impl SpoolReportsFixture) {
    let reports = fixture.reports();
    for (spool, second) in [(1, 1), (1, 4000), (2, 5000), (3, 6000)] {
        reports.report_spool("main", heard(spool, second), 2).await.expect("report");
    }
    assert_eq!(history(&*reports, "main", 1).await, []);
    assert_eq!(history(&*reports, "main", 2).await, [heard(2, 5000)]);
}

/// The newest report of a spool stays, however old it is.
pub async fn old_hours_are_pruned_oldest_first_up_to_a_limit(fixture: &impl SpoolReportsFixture) {
    let reports = fixture.reports();
    for (spool, second) in [(1, 1), (1, 3600), (1, 7200), (2, 2)] {
        reports.report_spool("main", heard(spool, second), 10).await.expect("report");
    }
    let before = heard(1, 7205).heard_at;
    assert_eq!(reports.prune_spool_history(before, 2).await.expect("prune"), 2);
    assert_eq!(history(&*reports, "main", 1).await, [heard(1, 3600), heard(1, 7200)]);
    assert_eq!(history(&*reports, "main", 2).await, []);
    assert_eq!(reports.prune_spool_history(before, 2).await.expect("prune"), 1);
    assert_eq!(reports.prune_spool_history(before, 2).await.expect("prune"), 0);
    assert_eq!(history(&*reports, "main", 1).await, [heard(1, 7200)]);
    assert_eq!(reports.spools("main", 10).await.expect("list"), [heard(1, 7200), heard(2, 2)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::store::MemorySpoolReports;

    impl SpoolReportsFixture for Arc<MemorySpoolReports> {
        fn reports(&self) -> Arc<dyn SpoolReports> {
            Self::clone(self)
        }
    }

    async fn make() -> Arc<MemorySpoolReports> {
        Arc::default()
    }

    spool_reports_conformance!(make);
}
