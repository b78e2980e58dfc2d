//! Pruning beyond what every store does: whole after each step, and space that is given back.

use std::time::Duration;

use crate::common::{Home, arrival, count, says, with_body};
use arrakis_core::base::clock::Clock;
use arrakis_core::record::store::{
    Ages, Cutoffs, EventStore, PrunePosition, Retention, RetentionPolicy,
};
use arrakis_core::testkit::event_store::{Arrivals, hook};
use arrakis_core::testkit::retention::pass;
use diesel::SqliteConnection;
use diesel::connection::SimpleConnection;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What is old where everything is kept for a day.
fn of_a_day(home: &Home) -> Cutoffs {
    let default = Ages { events: Some(DAY), conversations: Some(DAY) };
    RetentionPolicy { default, ..RetentionPolicy::default() }.at(home.clock.now())
}

/// Rows that are about what is not there any more.
fn orphans(conn: &mut SqliteConnection) -> i64 {
    [
        "messages WHERE conversation_id NOT IN (SELECT id FROM conversations)",
        "message_blocks AS b WHERE NOT EXISTS (SELECT 1 FROM message_rows AS m \
         WHERE m.conversation_id = b.conversation_id AND m.id = b.message_id)",
        "tool_uses WHERE conversation_id NOT IN (SELECT id FROM conversations)",
        "subagents WHERE conversation_id NOT IN (SELECT id FROM conversations)",
        "event_transitions WHERE event_id NOT IN (SELECT id FROM webhook_events)",
    ]
    .into_iter()
    .map(|table| count(conn, table))
    .sum()
}

/// Sessions of prompts, tool uses and subagents, searchable and two days old.
async fn old_sessions(home: &Home, sessions: u32) {
    let mut arrivals = Arrivals::new(std::sync::Arc::clone(&home.clock));
    for session in 0..sessions {
        let name = format!("s{session}");
        let mut batch = Vec::new();
        for n in 0..5 {
            let tool = format!(
                r#","tool_name":"Bash","tool_use_id":"t{n}","tool_input":{{"command":"ls"}}"#
            );
            let agent = format!(r#","agent_id":"a{n}","agent_type":"Explore""#);
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
    let home = Home::new();
    old_sessions(&home, 4).await;
    let cutoffs = of_a_day(&home);
    let mut conn = home.beside();
    let (mut next, mut steps) = (Some(PrunePosition::START), 0);
    while let Some(from) = next {
        next = home.store.prune(&cutoffs, from, 3).await.unwrap().next;
        assert_eq!(orphans(&mut conn), 0, "after {from:?}");
        steps += 1;
    }
    assert!(steps > 40, "{steps}");
    for table in ["event_words", "subject_words"] {
        assert_eq!(count(&mut conn, table), 0, "{table}");
    }
    for table in ["webhook_events", "conversations", "messages", "event_keys", "subject_keys"] {
        assert_eq!(count(&mut conn, table), 0, "{table}");
    }
    assert_eq!(count(&mut conn, "request_ids"), 60, "the ledger is kept for longer");
}

#[tokio::test]
async fn a_step_that_ends_halfway_has_deleted_nothing() {
    let home = Home::new();
    old_sessions(&home, 2).await;
    let cutoffs = of_a_day(&home);
    let mut conn = home.beside();
    conn.batch_execute(
        "CREATE TRIGGER refuse_event BEFORE DELETE ON webhook_events
         WHEN (SELECT count(*) FROM webhook_events) = 25
         BEGIN SELECT RAISE(ABORT, 'the power is gone'); END;
         CREATE TRIGGER refuse_message BEFORE DELETE ON message_rows
         WHEN (SELECT count(*) FROM messages) = 7
         BEGIN SELECT RAISE(ABORT, 'the power is gone'); END",
    )
    .unwrap();
    let tables = ["webhook_events", "messages", "tool_uses", "subagents", "conversations"];
    let before = tables.map(|table| count(&mut conn, table));
    for from in [PrunePosition::START, PrunePosition::Conversations(uuid::Uuid::nil())] {
        home.store.prune(&cutoffs, from, 100).await.unwrap_err();
        assert_eq!(tables.map(|table| count(&mut conn, table)), before, "{from:?}");
        assert_eq!(orphans(&mut conn), 0);
    }
    conn.batch_execute("DROP TRIGGER refuse_event; DROP TRIGGER refuse_message").unwrap();
    assert_eq!(pass(&home.store, &cutoffs, 100).await.events, 30);
    assert_eq!(tables.map(|table| count(&mut conn, table)), [0; 5]);
}

#[tokio::test]
async fn space_that_is_free_is_given_back_in_steps() {
    let home = Home::new();
    let large = "0123456789abcdef".repeat(8 * 1024);
    for n in 0..120 {
        let body = format!(r#"{{"session_id":"s","hook_event_name":"Stop","text":"{large}"}}"#);
        let event = with_body(arrival(&format!("e{n}"), n), body);
        home.store.record(vec![(event.clone(), says(&event, "hello"))]).await.unwrap();
    }
    home.clock.advance(2 * DAY);
    let checkpoint = || home.beside().batch_execute("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    checkpoint();
    let bytes = || home.path().metadata().unwrap().len();
    let full = bytes();
    assert!(full > 15_000_000, "{full}");

    let cutoffs = of_a_day(&home);
    let (mut next, mut space_steps, mut event_steps) = (Some(PrunePosition::START), 0, 0);
    while let Some(from) = next {
        let step = home.store.prune(&cutoffs, from, 100).await.unwrap();
        assert!(step.pruned.events <= 3, "a step ends by its bytes as well: {step:?}");
        event_steps += u32::from(step.pruned.events > 0);
        space_steps += u32::from(from == PrunePosition::Space);
        next = step.next;
    }
    assert!(event_steps >= 40 && space_steps >= 10, "{event_steps} {space_steps}");
    checkpoint();
    let left = bytes();
    assert!(left < 6_000_000, "{left}, some of it for what comes next");
    home.beside().batch_execute("PRAGMA integrity_check").unwrap();

    // What was made without that keeps its pages, and its passes end.
    home.beside().batch_execute("PRAGMA auto_vacuum = NONE; VACUUM").unwrap();
    assert!(pass(&home.store, &cutoffs, 100).await.is_empty());
}
