//! Pruning beyond what every store does: whole after each step, beside other sessions.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{Home, record_one};
use arrakis_core::base::clock::Clock;
use arrakis_core::record::store::{
    Ages, Cutoffs, EventStore, PrunePosition, Pruned, Retention, RetentionPolicy,
};
use arrakis_core::testkit::event_store::hook;
use arrakis_core::testkit::retention::pass;
use diesel::QueryableByName;
use diesel::sql_types::BigInt;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What is old where everything is kept for a day.
fn of_a_day(home: &Home) -> Cutoffs {
    let default = Ages { events: Some(DAY), conversations: Some(DAY) };
    RetentionPolicy { default, ..RetentionPolicy::default() }.at(home.clock.now())
}

async fn count(conn: &mut AsyncPgConnection, table: &str) -> i64 {
    #[derive(QueryableByName)]
    struct Count {
        #[diesel(sql_type = BigInt)]
        count: i64,
    }
    let sql = format!("SELECT count(*) FROM {table}");
    diesel::sql_query(sql).get_result::<Count>(conn).await.unwrap().count
}

/// Rows that are about what is not there any more.
async fn orphans(conn: &mut AsyncPgConnection) -> i64 {
    let mut sum = 0;
    for table in [
        "messages WHERE conversation_id NOT IN (SELECT id FROM conversations)",
        "message_blocks WHERE message_id NOT IN (SELECT id FROM message_rows)",
        "tool_uses WHERE conversation_id NOT IN (SELECT id FROM conversations)",
        "subagents WHERE conversation_id NOT IN (SELECT id FROM conversations)",
        "event_transitions WHERE event_id NOT IN (SELECT id FROM webhook_events)",
        "event_search WHERE event_id NOT IN (SELECT id FROM webhook_events)",
        "subject_search WHERE subject_id NOT IN \
            (SELECT id FROM messages UNION ALL SELECT id FROM tool_uses)",
    ] {
        sum += count(conn, table).await;
    }
    sum
}

/// Sessions of prompts, tool uses and subagents, searchable and two days old.
async fn old_sessions(home: &mut Home, sessions: u32) {
    for session in 0..sessions {
        let name = format!("s{session}");
        let mut batch = Vec::new();
        for n in 0..5 {
            let tool = format!(
                r#","tool_name":"Bash","tool_use_id":"t{n}","tool_input":{{"command":"ls"}}"#
            );
            let agent = format!(r#","agent_id":"a{n}","agent_type":"Explore""#);
            let arrivals = &mut home.arrivals;
            batch.push(arrivals.prompt(&format!("{name}-p{n}"), &name));
            batch.push(arrivals.next(&format!("{name}-t{n}"), hook(&name, "PreToolUse", &tool)));
            batch.push(arrivals.next(&format!("{name}-a{n}"), hook(&name, "SubagentStop", &agent)));
        }
        home.store.record(batch).await.unwrap();
    }
    while home.store.index(100).await.unwrap() > 0 {}
    home.clock.advance(2 * DAY);
}

#[tokio::test]
async fn no_row_is_left_alone_between_two_steps() {
    let mut home = Home::new().await;
    old_sessions(&mut home, 3).await;
    let cutoffs = of_a_day(&home);
    let mut conn = home.database.connect().await;
    let (mut next, mut steps) = (Some(PrunePosition::START), 0);
    while let Some(from) = next {
        next = home.store.prune(&cutoffs, from, 3).await.unwrap().next;
        assert_eq!(orphans(&mut conn).await, 0, "after {from:?}");
        steps += 1;
    }
    assert!(steps > 30, "{steps}");
    for table in ["webhook_events", "conversations", "messages", "event_search", "subject_search"] {
        assert_eq!(count(&mut conn, table).await, 0, "{table}");
    }
    assert_eq!(count(&mut conn, "request_ids").await, 45, "the ledger is kept for longer");
}

#[tokio::test]
async fn what_another_session_holds_is_left_for_the_next_pass() {
    let mut home = Home::new().await;
    old_sessions(&mut home, 2).await;
    let cutoffs = of_a_day(&home);
    let mut other = home.database.connect().await;
    other
        .batch_execute(
            "BEGIN; SELECT FROM webhook_events ORDER BY id LIMIT 4 FOR UPDATE;
             SELECT FROM conversations WHERE session_id = 's0' FOR UPDATE",
        )
        .await
        .unwrap();
    let pruned = pass(&*home.store, &cutoffs, 100).await;
    assert_eq!((pruned.events, pruned.conversations), (26, 1));
    other.batch_execute("COMMIT").await.unwrap();
    let pruned = pass(&*home.store, &cutoffs, 100).await;
    assert_eq!((pruned.events, pruned.conversations), (4, 1));
    assert_eq!(orphans(&mut other).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_may_prune_and_store_at_once() {
    let mut home = Home::new().await;
    old_sessions(&mut home, 4).await;
    let cutoffs = Arc::new(of_a_day(&home));
    let mut working = Vec::new();
    for _ in 0..2 {
        let (store, cutoffs) = (home.again().await, Arc::clone(&cutoffs));
        working.push(tokio::spawn(async move { pass(&*store, &cutoffs, 5).await }));
    }
    // The sessions go on meanwhile, each beginning anew if its conversation went before.
    for n in 0..20 {
        let prompt = home.arrivals.prompt(&format!("again-{n}"), &format!("s{}", n % 4));
        record_one(&home.store, prompt).await;
    }
    let mut sum = Pruned::default();
    for one in working {
        sum += one.await.unwrap();
    }
    assert_eq!(sum.events, 60);
    let mut conn = home.database.connect().await;
    assert_eq!(orphans(&mut conn).await, 0);
    let again = "messages WHERE content LIKE 'prompt again-%'";
    assert_eq!(count(&mut conn, again).await, 20);
    assert_eq!(count(&mut conn, "conversations").await, 4);
    while home.store.index(100).await.unwrap() > 0 {}
    assert_eq!(orphans(&mut conn).await, 0);
}
