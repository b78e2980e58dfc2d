//! Messages and their blocks: what adding one writes, and what SQL sees of them.

use std::time::Duration;

use crate::common::{Home, arrival, count, says};
use arrakis_core::base::clock::Clock;
use arrakis_core::base::limits::MESSAGE_MAX_BLOCKS;
use arrakis_core::record::store::{
    Ages, Archive, Arrival, DEFAULT_WORKSPACE, EventReader, EventStore, PrunePosition, Retention,
    RetentionPolicy, Verdict,
};
use arrakis_core::session::conversation::{
    Block, BlockKey, Blocks, Message, MessageOrigin, Role, Stamp, Stamped,
};
use arrakis_core::testkit::sessions::{generated, record_shuffled};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{Nullable, Text};

const MIB: usize = 1024 * 1024;

/// An event that brings these texts of the message `m`, the first of them in place `n`.
fn brings(n: u32, texts: Vec<String>) -> (Arrival, Verdict) {
    let event = arrival(&format!("r{n}"), n.into());
    let Verdict::Apply(mut changes) = says(&event, "") else { panic!("it applies") };
    let stamp = Stamp { at: event.received_at, request_id: event.request_id.clone() };
    let block = |(text, n): (String, u32)| {
        let key = BlockKey { at: stamp.at, index: 0, line: stamp.request_id.clone(), n };
        (key, Block::Text { text })
    };
    let blocks: Blocks = texts.into_iter().zip(0..).map(block).collect();
    let words = Stamped::new(&stamp, String::new());
    let of = changes.conversations[0].id;
    let message =
        Message::new(of, Some("m".into()), Role::Assistant, MessageOrigin::Transcript, words);
    changes.messages = vec![message.with_blocks(blocks)];
    (event, Verdict::Apply(changes))
}

/// However much a message has, another block writes no more than itself and a few pages.
#[tokio::test]
async fn a_further_block_writes_few_pages() {
    let many = (0..MESSAGE_MAX_BLOCKS - 30).map(|n| format!("{n} {}", "x".repeat(600)));
    let large = ["y".repeat(16 * MIB), "z".repeat(16 * MIB)];
    for texts in [vec!["small".to_owned()], many.collect(), large.into()] {
        let home = Home::new();
        home.store.record(vec![brings(0, texts.clone())]).await.unwrap();
        let mut written = Vec::new();
        for n in 1..20 {
            home.beside().batch_execute("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
            let block = format!("{n} {}", "w".repeat(600));
            home.store.record(vec![brings(n, vec![block])]).await.unwrap();
            written.push(home.path().with_extension("db-wal").metadata().unwrap().len());
        }
        assert!(written.iter().all(|bytes| *bytes < 128 * 1024), "{written:?}");
        let detail = home.store.conversation(DEFAULT_WORKSPACE, "s").await.unwrap().unwrap();
        assert_eq!(detail.messages[0].blocks.len(), texts.len() + 19);
    }
}

/// A message of many blocks goes in small steps, the last blocks first, and what is left of it can be read.
#[tokio::test]
async fn the_blocks_of_a_message_are_pruned_in_steps() {
    let home = Home::new();
    let texts = (0..50).map(|n| format!("{n} {}", "x".repeat(600))).collect();
    home.store.record(vec![brings(0, texts)]).await.unwrap();
    home.clock.advance(Duration::from_secs(2 * 24 * 3600));
    let default = Ages { conversations: Some(Duration::from_secs(24 * 3600)), events: None };
    let cutoffs = RetentionPolicy { default, ..RetentionPolicy::default() }.at(home.clock.now());
    let (mut next, mut seen) = (Some(PrunePosition::START), Vec::new());
    while let Some(from) = next {
        next = home.store.prune(&cutoffs, from, 3).await.unwrap().next;
        let found = home.store.conversation(DEFAULT_WORKSPACE, "s").await.unwrap();
        let messages = found.map(|detail| detail.messages).unwrap_or_default();
        let blocks = messages.first().map_or(0, |message| {
            assert!(message.content.value.starts_with("0 x"));
            message.blocks.len()
        });
        seen.push(blocks);
    }
    assert!(seen.is_sorted_by(|a, b| a >= b && a - b <= 3) && seen.len() > 16, "{seen:?}");
    let mut conn = home.beside();
    for table in ["conversations", "message_rows", "message_blocks"] {
        assert_eq!(count(&mut conn, table), 0, "{table}");
    }
}

#[derive(QueryableByName)]
struct Shown {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Text)]
    content: String,
    #[diesel(sql_type = Nullable<Text>)]
    blocks: Option<String>,
}

/// The view has the words of each message and its blocks, of each text how long it is.
#[tokio::test]
async fn sql_sees_the_words_and_blocks_of_each_message() {
    let home = Home::new();
    for seed in 0..6 {
        let session = generated(seed);
        record_shuffled(&home.store, &session, seed).await;
        let workspace = format!("w{seed}");
        let values = home.store.values(&workspace, &session.session_id).await.unwrap().unwrap();
        let sql = format!(
            "SELECT id, content, blocks FROM messages WHERE workspace = '{workspace}' ORDER BY id"
        );
        let shown: Vec<Shown> = diesel::sql_query(sql).load(&mut home.beside()).unwrap();
        let mut messages = values.messages;
        messages.sort_by_key(|message| message.id);
        assert_eq!(shown.len(), messages.len());
        for (shown, message) in shown.into_iter().zip(messages) {
            assert_eq!(shown.id, message.id.to_string());
            assert_eq!(shown.content, message.content.value);
            let blocks: Vec<serde_json::Value> =
                shown.blocks.map_or_else(Vec::new, |json| serde_json::from_str(&json).unwrap());
            assert_eq!(blocks.len(), message.blocks.len());
            for (shown, (key, block)) in blocks.into_iter().zip(message.blocks.iter()) {
                let mut expected = serde_json::to_value(key).unwrap();
                let more = match block {
                    Block::Text { text } => serde_json::json!({ "bytes": text.len() }),
                    other => serde_json::to_value(other).unwrap(),
                };
                expected.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                assert_eq!(shown, expected);
            }
        }
    }
    let rows =
        "SELECT DISTINCT message_id AS id, '' AS content, NULL AS blocks FROM message_blocks";
    let of_rows = diesel::sql_query(rows).load::<Shown>(&mut home.beside()).unwrap().len();
    assert!(of_rows > 3, "some have rows of their own: {of_rows}");
}
