//! The parts of the audit log: made ahead, dropped whole, and without delaying what is stored.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{Home, record_one, start};
use arrakis_core::base::clock::{Clock, ManualClock, Timestamp};
use arrakis_core::base::id::uuid_v7;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::{
    AdmissionKind, Ages, Arrival, Cutoffs, EventStore, FIRST_RETRY_DELAY, RetentionPolicy, Verdict,
};
use arrakis_core::session::conversation::Changes;
use arrakis_core::testkit::retention::pass;
use arrakis_store_pg::{PgConfig, PgStore, migrate};
use arrakis_test_cluster::Database;
use diesel::QueryableByName;
use diesel::sql_types::Text;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

const DAY: Duration = Duration::from_secs(24 * 3600);

const TABLES: [&str; 3] = ["webhook_events", "event_transitions", "event_search"];

/// What is old where events are kept for ten days.
fn of_ten_days(home: &Home) -> Cutoffs {
    policy().at(home.clock.now())
}

fn policy() -> RetentionPolicy {
    let default = Ages { events: Some(10 * DAY), conversations: None };
    RetentionPolicy { default, ..RetentionPolicy::default() }
}

async fn texts(conn: &mut AsyncPgConnection, sql: &str) -> Vec<String> {
    #[derive(QueryableByName)]
    struct Line {
        #[diesel(sql_type = Text)]
        text: String,
    }
    let rows: Vec<Line> = diesel::sql_query(sql).load(conn).await.unwrap();
    rows.into_iter().map(|row| row.text).collect()
}

/// The names of the parts, which all tables have.
async fn parts(conn: &mut AsyncPgConnection) -> String {
    let mut all = Vec::new();
    for table in TABLES {
        let sql = format!(
            "SELECT substr(inhrelid::regclass::text, length('{table}_') + 1) AS text
             FROM pg_inherits WHERE inhparent = '{table}'::regclass ORDER BY 1"
        );
        all.push(texts(conn, &sql).await.join(" "));
    }
    all.dedup();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// In which part the rows of a request id are.
async fn place_of(conn: &mut AsyncPgConnection, request_id: &str) -> Vec<String> {
    let sql = format!(
        "SELECT substr(tableoid::regclass::text, 16) AS text FROM webhook_events
         WHERE request_id = '{request_id}' ORDER BY id"
    );
    texts(conn, &sql).await
}

fn failed((arrival, _): (Arrival, Verdict)) -> (Arrival, Verdict) {
    let (code, message) = ("too_deep".to_owned(), "it nests too deep".to_owned());
    (arrival, Verdict::Failed { code, message })
}

#[tokio::test]
async fn months_are_made_ahead_when_a_store_opens_and_by_each_pass() {
    let mut home = Home::new().await;
    let mut conn = home.database.connect().await;
    assert_eq!(parts(&mut conn).await, "2025_11 2025_12 2026_01 before rest");
    home.again().await;
    assert_eq!(parts(&mut conn).await, "2025_11 2025_12 2026_01 before rest");
    record_one(&home.store, home.arrivals.prompt("a", "s")).await;
    home.clock.advance(10 * DAY);
    record_one(&home.store, home.arrivals.prompt("b", "s")).await;
    // Nothing is pruned, for nothing is ever old.
    pass(&*home.store, &Cutoffs::default(), 100).await;
    let expected = "2025_11 2025_12 2026_01 2026_02 before rest";
    assert_eq!(parts(&mut conn).await, expected);
    assert_eq!(place_of(&mut conn, "a").await, ["2025_11"]);
    assert_eq!(place_of(&mut conn, "b").await, ["2025_12"]);
    home.clock.advance(365 * DAY);
    home.again().await;
    let expected = "2025_11 2025_12 2026_01 2026_02 2026_03 2026_12 2027_01 2027_02 before rest";
    assert_eq!(parts(&mut conn).await, expected, "what nobody made is one");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_may_open_and_make_months_at_once() {
    let database = Database::create().await;
    migrate(database.url()).await.unwrap();
    let opening: Vec<_> = (0..6)
        .map(|_| {
            let (url, clock) = (database.url().to_owned(), Arc::new(ManualClock::new(start())));
            tokio::spawn(async move { PgStore::open(&url, clock, PgConfig::default()).await })
        })
        .collect();
    for one in opening {
        one.await.unwrap().unwrap();
    }
    let mut conn = database.connect().await;
    assert_eq!(parts(&mut conn).await, "2025_11 2025_12 2026_01 before rest");
}

#[tokio::test]
async fn a_month_that_is_old_as_a_whole_is_dropped_and_its_answers_stay() {
    let mut home = Home::new().await;
    let mut conn = home.database.connect().await;
    for n in 0..9 {
        record_one(&home.store, home.arrivals.prompt(&format!("e{n}"), "s")).await;
    }
    record_one(&home.store, home.arrivals.prompt("e0", "s")).await;
    // A state that the ledger does not know when the row gets it.
    let (unlucky, _) = failed(home.arrivals.prompt("unlucky", "s"));
    let id = unlucky.event_id;
    record_one(&home.store, failed((unlucky, Verdict::Apply(Changes::default())))).await;
    let due = home.clock.now().plus(FIRST_RETRY_DELAY);
    assert_eq!(home.store.claim_due(due, due, 9).await.unwrap().len(), 1);
    home.store.transition(id, EventStatus::Success, "me", "please").await.unwrap();
    home.store.index(100).await.unwrap();

    home.clock.advance(30 * DAY);
    home.again().await;
    record_one(&home.store, home.arrivals.prompt("young", "s")).await;
    let pruned = pass(&*home.store, &of_ten_days(&home), 4).await;
    assert_eq!(pruned.events, 11);
    assert_eq!(parts(&mut conn).await, "2025_12 2026_01 2026_02 before rest");
    let gone = "SELECT relname::text AS text FROM pg_class WHERE relname LIKE '%2025\\_11%'";
    assert!(texts(&mut conn, gone).await.is_empty());
    for table in ["webhook_events", "event_search"] {
        let left = texts(&mut conn, &format!("SELECT count(*)::text AS text FROM {table}")).await;
        let expected = if table == "webhook_events" { "1" } else { "0" };
        assert_eq!(left, [expected], "{table}");
    }
    for (request_id, status) in [("e3", EventStatus::Success), ("unlucky", EventStatus::Success)] {
        let told = record_one(&home.store, home.arrivals.prompt(request_id, "s")).await;
        assert_eq!((told.kind, told.status), (AdmissionKind::Duplicate, status), "{request_id}");
    }
    assert_eq!(pass(&*home.store, &of_ten_days(&home), 4).await.events, 0);
    // Its ids have a place all the same.
    let (arrival, verdict) = home.arrivals.prompt("late", "s");
    let event_id = uuid_v7(start(), [7; 10]);
    record_one(&home.store, (Arrival { event_id, ..arrival }, verdict)).await;
    assert_eq!(place_of(&mut conn, "late").await, ["before"]);
}

#[tokio::test]
async fn a_month_with_a_row_that_stays_is_not_dropped() {
    let mut home = Home::new().await;
    let mut conn = home.database.connect().await;
    record_one(&home.store, home.arrivals.prompt("a", "s")).await;
    record_one(&home.store, failed(home.arrivals.prompt("waits", "s"))).await;
    home.clock.advance(20 * DAY);
    let (arrival, verdict) = home.arrivals.prompt("kept", "s");
    record_one(&home.store, (Arrival { workspace: "kept".to_owned(), ..arrival }, verdict)).await;
    record_one(&home.store, home.arrivals.prompt("b", "s")).await;
    home.clock.advance(60 * DAY);
    home.again().await;
    let workspaces = [("kept".to_owned(), Ages::default())].into();
    let policy = RetentionPolicy { workspaces, ..policy() };
    let pruned = pass(&*home.store, &policy.at(home.clock.now()), 100).await;
    assert_eq!(pruned.events, 2, "row by row");
    let expected = "2025_11 2025_12 2026_02 2026_03 2026_04 before gap_2026_01 rest";
    assert_eq!(parts(&mut conn).await, expected, "what is empty goes");
    assert_eq!(place_of(&mut conn, "waits").await, ["2025_11"]);
    assert_eq!(place_of(&mut conn, "kept").await, ["2025_12"]);
}

#[tokio::test]
async fn a_month_that_goes_before_an_older_one_leaves_its_place() {
    let mut home = Home::new().await;
    let mut conn = home.database.connect().await;
    record_one(&home.store, failed(home.arrivals.prompt("waits", "s"))).await;
    home.clock.advance(20 * DAY);
    record_one(&home.store, home.arrivals.prompt("a", "s")).await;
    let december = home.clock.now();
    home.clock.advance(45 * DAY);
    home.again().await;
    assert_eq!(pass(&*home.store, &of_ten_days(&home), 100).await.events, 1);
    let expected = "2025_11 2026_01 2026_02 2026_03 before gap_2025_12 rest";
    assert_eq!(parts(&mut conn).await, expected);
    let (arrival, verdict) = home.arrivals.prompt("late", "s");
    let event_id = uuid_v7(december, [7; 10]);
    record_one(&home.store, (Arrival { event_id, ..arrival }, verdict)).await;
    assert_eq!(place_of(&mut conn, "late").await, ["gap_2025_12"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_that_does_not_get_its_lock_keeps_nobody_waiting_and_is_made_by_the_next_pass() {
    let mut home = Home::new().await;
    record_one(&home.store, home.arrivals.prompt("old", "s")).await;
    home.clock.advance(30 * DAY);
    home.again().await;
    let mut reader = home.database.connect().await;
    reader.batch_execute("BEGIN; SELECT count(*) FROM webhook_events").await.unwrap();
    let (store, cutoffs) = (Arc::clone(&home.store), of_ten_days(&home));
    let passing = tokio::spawn(async move { pass(&*store, &cutoffs, 100).await });
    for n in 0..20 {
        record_one(&home.store, home.arrivals.prompt(&format!("e{n}"), "s")).await;
    }
    assert_eq!(passing.await.unwrap().events, 0);
    let mut conn = home.database.connect().await;
    assert_eq!(place_of(&mut conn, "old").await, ["2025_11"]);
    reader.batch_execute("COMMIT").await.unwrap();
    assert_eq!(pass(&*home.store, &of_ten_days(&home), 100).await.events, 1);
    assert!(!parts(&mut conn).await.contains("2025_11"));
}

/// A database in which nobody made months, with rows of these moments.
async fn without_months(moments: &[Timestamp]) -> Home {
    let mut home = Home::new().await;
    home.database
        .run_sql(
            "DO $$ DECLARE name TEXT; part TEXT; BEGIN
                FOREACH name IN ARRAY '{webhook_events,event_transitions,event_search}'::text[] LOOP
                    FOR part IN SELECT inhrelid::regclass FROM pg_inherits
                        WHERE inhparent = name::regclass LOOP
                        EXECUTE format('DROP TABLE %s', part);
                    END LOOP;
                    EXECUTE format('CREATE TABLE %s_rest PARTITION OF %1$s
                        FOR VALUES FROM (MINVALUE) TO (MAXVALUE)', name);
                END LOOP;
            END $$",
        )
        .await;
    for (n, moment) in (0..).zip(moments) {
        let (arrival, verdict) = home.arrivals.prompt(&format!("e{n}"), "s");
        let event_id = uuid_v7(*moment, [n; 10]);
        record_one(&home.store, (Arrival { event_id, ..arrival }, verdict)).await;
    }
    home
}

#[tokio::test]
async fn rows_that_have_no_month_stay_where_they_are_when_months_are_made() {
    let (now, ahead) = (start(), start().plus(3000 * DAY));
    let cases: [(&[Timestamp], &str, &[&str]); 4] = [
        (&[now, now], "2025_11 2025_12 2026_01 before rest", &["2025_11", "2025_11"]),
        (&[now.minus(400 * DAY), now], "2025_12 2026_01 before rest", &["before", "before"]),
        (&[ahead], "2025_11 2025_12 2026_01 before rest", &["rest"]),
        // These two have to stay together.
        (&[now, ahead], "before rest", &["rest", "rest"]),
    ];
    for (moments, expected, places) in cases {
        let home = without_months(moments).await;
        let mut conn = home.database.connect().await;
        home.again().await;
        assert_eq!(parts(&mut conn).await, expected);
        for (n, place) in places.iter().enumerate() {
            assert_eq!(place_of(&mut conn, &format!("e{n}")).await, [*place], "{moments:?}");
        }
        // Pruning goes row by row where it has to.
        home.clock.advance(30 * DAY);
        let old = moments.iter().filter(|moment| **moment <= now).count();
        assert_eq!(pass(&*home.store, &of_ten_days(&home), 100).await.events, old as u64);
        home.clock.advance(DAY);
        home.again().await;
        let has_months = parts(&mut conn).await.contains("2026_02");
        assert!(has_months, "nothing is in the way any more: {moments:?}");
    }
}
